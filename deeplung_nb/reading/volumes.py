"""From masks to rows of measurements.csv, on the scan's own grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplung_nb.imaging.lungs import LungMask
from deeplung_nb.imaging.regions import LungRegions, severity_of
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.labels import LESION_STRUCTURES, LOBES, structure_mask
from deeplung_nb.measurements.contract import HU_PERCENTILES
from deeplung_nb.stats import overlap
from deeplung_nb.stats.lesions import component_sizes, lesions
from deeplung_nb.stats.surface import hd95_and_nsd

SMALLEST_LESION_ML = 0.1
"""Specks below it are no lesions that anyone would count."""
DENSE_ABOVE_HU = -200
"""High opacity by density, as scanners' makers define it (percentage of high opacity, PHO)."""
DENSE_HU = (-300, -200)
"""Readers draw the line between ground glass and consolidation at different densities: shares above
these stand beside the classes, so that "high opacity" can be read either way."""
MUCH_OUTSIDE = 0.2, 2.0
"""Lesions outside the lung mask are worth a word from this share on, if they are as many mL."""


def outside_lungs(row: Mapping[str, Any]) -> str | None:
    """A sentence where much of a structure lies outside the lung mask, else None.

    Parameters
    ----------
    row
        Of `measure`.
    """
    outside, volume = row.get("outside_lungs_ml"), row["volume_ml"]
    share, ml = MUCH_OUTSIDE
    if outside is None or outside < ml or outside < share * volume:
        return None
    return (f"{outside:.1f} of {volume:.1f} mL {row['structure']} ({outside / volume:.0%}) lie "
            "outside the lung mask: effusion, lung that the mask leaves out, or falsely marked")


def hu_percentiles(hu: np.ndarray) -> dict[str, float]:
    """`hu_p05` to `hu_p95`: the least HU that so many per cent of the values do not exceed."""
    if not hu.size:
        return {}
    lowest = int(hu.min())
    below = np.cumsum(np.bincount(hu.astype(np.int64).ravel() - lowest)) / hu.size
    return {f"hu_p{percent:02d}": float(lowest + np.searchsorted(below, percent / 100.0))
            for percent in HU_PERCENTILES}


def _extent(mask: np.ndarray, scan: Scan, regions: LungRegions | None) -> dict[str, Any]:
    n_voxels, ml = int(mask.sum()), scan.voxel_mm3 / 1000.0
    hu = scan.hu[mask]
    where = regions.count(mask) if regions is not None else {}
    return {
        "n_voxels": n_voxels,
        "voxel_mm3": scan.voxel_mm3,
        "volume_ml": n_voxels * ml,
        "mean_hu": float(hu.mean(dtype=np.float64)) if n_voxels else None,
        "n_slices": scan.n_slices,
        "slices_with": int(mask.any(axis=(1, 2)).sum()),
        **{f"volume_{name}_ml": n * ml for name, n in where.items()},
        **hu_percentiles(hu),
    }


def _opacity(found: np.ndarray, scan: Scan, lungs: LungMask, lung_voxels: int) -> dict[str, float]:
    """Percentage of opacity and of high opacity: of the lung mask, within it."""
    n_all = n_dense = 0
    for here, lung, hu in zip(found, lungs.mask, scan.hu, strict=True):
        values = hu[here & lung]
        n_all += values.size
        n_dense += int((values >= DENSE_ABOVE_HU).sum())
    return {"po_percent": 100.0 * n_all / lung_voxels, "pho_percent": 100.0 * n_dense / lung_voxels}


def measure(
    scan: Scan, mask: LesionMask, lungs: LungMask | None, *, reference: LesionMask | None = None,
    structures: tuple[str, ...] = LESION_STRUCTURES, tolerance_mm: float | None = None,
    surface: bool = True, regions: LungRegions | None = None,
) -> list[dict[str, Any]]:
    """One row per structure for one reader's mask.

    Parameters
    ----------
    scan, mask
        The scan and the reader's mask, on one grid [z, y, x].
    lungs
        The lung mask; None where none was found: burden is then empty, never 0.
    reference
        The expert's mask; None when the reader is the expert (no overlap is then computed).
    structures
        Lesion structures to measure; only `lesion` where the expert's mask is binary.
    tolerance_mm
        Of the normalised surface Dice; None: half of the distance between slices.
    surface
        Whether to compute surface distances.
    regions
        Of these lungs, where they are known already (they are the same for all readers).

    Returns
    -------
    list of dict
        Volume (mL), burden (percent of the lung volume), `burden_in_lung_percent` (of what lies in
        the lung mask alone), `outside_lungs_ml` (the rest, as effusion is), mean and percentiles
        of HU, slices; by region of the lungs (`imaging.regions`) the volume in it; of any lesion
        `po_percent` and `pho_percent`, percentage of opacity and of what of it is dense; and
        against the reference Dice, HD95 (mm), normalised surface Dice, the voxel counts they
        rest on, the error of the volume (mL), and lesion by lesion what was found and what not.
    """
    rows = []
    lung_voxels = int(lungs.mask.sum()) if lungs is not None else 0
    note = f"lung mask: {lungs.origin}" if lungs is not None else "no lung mask: burden is empty"
    if lungs is not None:
        regions = regions or LungRegions.of(lungs)
        rows.append({"structure": "lung", **_extent(lungs.mask, scan, regions), "note": note})
    if tolerance_mm is None:
        tolerance_mm = scan.spacing_mm[0] / 2
    smallest = int(np.ceil(SMALLEST_LESION_ML * 1000 / scan.voxel_mm3))
    for structure in structures:
        found = structure_mask(mask.labels, structure)
        row = {"structure": structure, **_extent(found, scan, regions), "note": note}
        if lungs is not None and lung_voxels:
            row["burden_percent"] = 100.0 * row["n_voxels"] / lung_voxels
            # Slice by slice: whole arrays of a long scan are large.
            n_outside = sum(
                int((here & ~lung).sum()) for here, lung in zip(found, lungs.mask, strict=True))
            row["outside_lungs_ml"] = n_outside * scan.voxel_mm3 / 1000.0
            row["burden_in_lung_percent"] = 100.0 * (row["n_voxels"] - n_outside) / lung_voxels
            if structure == "lesion":
                row |= _opacity(found, scan, lungs, lung_voxels)
            if row["burden_percent"] > 100.0:
                row["note"] += "; burden over 100 %: check the lung mask"
            much = outside_lungs(row)
            if much:
                row["note"] += f"; {much}"
        if reference is not None:
            wanted = structure_mask(reference.labels, structure)
            seen = lesions(wanted, found, smallest=smallest)
            row.update(n_lesions=seen.n_test, n_lesions_false=seen.n_false,
                       n_lesions_expert=seen.n_reference, n_lesions_found=seen.n_found,
                       volume_error_ml=(row["n_voxels"] - int(wanted.sum()))
                       * scan.voxel_mm3 / 1000.0)
            counts = overlap.confusion(wanted, found)
            row.update(tp=counts.tp, fp=counts.fp, fn=counts.fn, tn=counts.tn)
            size = 2 * counts.tp + counts.fp + counts.fn
            # Both empty: no overlap is defined; the policy is chosen where Dice is averaged.
            row["dice"] = 2 * counts.tp / size if size else None
            if surface and wanted.any() and found.any():
                row["hd95_mm"], row["nsd"] = hd95_and_nsd(
                    wanted, found, scan.spacing_mm, tolerance_mm=tolerance_mm)
                row["nsd_tolerance_mm"] = tolerance_mm
        rows.append(row)
    return rows


def lesion_facts(scan: Scan, mask: LesionMask, structure: str) -> dict[str, float]:
    """Of one structure: how much is denser than `DENSE_HU`, how many lesions, the largest, mL."""
    if structure not in LESION_STRUCTURES:
        return {}
    found = structure_mask(mask.labels, structure)
    values, sizes_ml = scan.hu[found], component_sizes(found) * scan.voxel_mm3 / 1000.0
    dense = {f"percent_above_minus_{-level}_hu": 100.0 * float((values > level).mean())
             for level in DENSE_HU if len(values)}
    return {**dense, "n_lesions": int((sizes_ml >= SMALLEST_LESION_ML).sum()),
            "largest_lesion_ml": float(sizes_ml.max(initial=0.0))}


def severity(lesion: dict[str, Any], scan: Scan, lobes: np.ndarray) -> dict[str, int]:
    """The severity score, 0 to 25; none where a lobe is missing from the scan."""
    n_voxels = np.bincount(lobes.ravel(), minlength=len(LOBES) + 1)[1:]
    if not n_voxels.all():
        return {}
    sizes_ml = n_voxels * scan.voxel_mm3 / 1000.0
    return {"severity_25": sum(severity_of(100.0 * lesion[f"volume_{name}_ml"] / ml)
                               for name, ml in zip(LOBES, sizes_ml, strict=True))}
