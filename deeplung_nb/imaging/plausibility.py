"""Is this a chest CT, and does its geometry tell the truth? Asked before anything is measured.

A network marks lesions in whatever it is given, and a wrong header makes any volume out of them.
So a scan is compared with what every chest CT has in common. The limits are wide: they are meant
to catch a brain, a spacing in metres or a file that is upside down, not an unusual patient. A
finding is an error (nothing should be measured) or a warning (the reader should know).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from deeplung_nb.imaging.anatomy import BONE_ABOVE_HU, Chest, missing_lung_ml
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.lungs import AERATED_BELOW_HU, LungMask
from deeplung_nb.imaging.orientation import orientation
from deeplung_nb.imaging.scan import Scan

PIXEL_MM = (0.2, 6.0)
SLICE_GAP_MM = (0.2, 20.0)
FIELD_OF_VIEW_MM = (150.0, 700.0)
"""Rows and columns times their spacing."""
MOST_ANISOTROPY = 1.5
"""Ratio of row to column spacing, and back: axial slices have square pixels."""
MOST_ROUGHNESS = 0.6
"""RMS difference of neighbouring pixels over sqrt(2) SD: 1 is white noise, CT has 0.05 to 0.3."""
SOFT_TISSUE_HU = (-200.0, 250.0)
"""Where the most frequent value above -300 HU lies: fat, muscle, blood."""
LEAST_SOFT_TISSUE = 0.05
LEAST_AIR = 0.02
"""Shares of the voxels within -200 ... 200 HU, and below -700 HU."""
WHOLE_LUNGS_ML = (100.0, 12_000.0)
SMALL_LUNGS_ML = 800.0
"""Fewer are a child's, or of very ill lungs: no network here was trained on such."""
LUNG_HEIGHT_MM = (50.0, 420.0)
"""Of whole lungs, from the lowest to the highest slice that shows them."""
LEAST_HEIGHT_OVER_WIDTH = 0.3
"""Of whole lungs, however small: far below that of any chest that was seen (0.5 to 1.1)."""
MOST_APART = 0.15
"""Share of the larger one from which on two volumes of a scan's lungs are worth a word."""
AROUND_LUNGS_MM = 80.0
"""What of a longer scan, as of a whole body, is looked at above and below the lungs."""
WHOLE_AT_ENDS = 0.1
"""Lungs are whole in a scan whose end slices show less than this share of their largest area."""
LUNG_MEDIAN_HU = (-990.0, -300.0)
LEAST_AERATED = 0.1
"""Of a lung mask that takes in consolidated lung; lungs with less air can't be told from bowel."""
LEAST_SLICES, LEAST_HEIGHT_MM = 6, 100.0
"""What a scan must show of the lungs before their shape is judged."""
SHAPE_AREA = 0.15
"""Their shape is that of the slices with more than this share of their largest area."""
LEAST_SURE_LUNG = 0.95
"""Share of what is surely lung that a lung mask must take in: 0.99 and more of the experts' masks,
however ill the lungs; 0.6 to 0.96 of a mask that is mirrored or moved."""
SURE_STEPS, SURE_BELOW_HU = 3, -700.0
"""Surely lung: so many pixels inside the lungs that were found, and so full of air."""
STOMACH = 0.2
"""A part of it with a smaller share, which a mask leaves out wholly, may be gas below the lungs."""
MOST_BONE, MOST_OUTSIDE_BODY = 0.05, 0.05
"""Shares of a lung mask: at most 0.003 of the experts' masks."""
MUCH_MISSING_ML, MUCH_MISSING_ROUGHLY_ML = 100.0, 300.0
"""See `anatomy.missing_lung_ml`; the second where bone can't be told from muscle."""


class ImplausibleScan(ScanError):
    """A scan that should not be measured; `reasons` lists why."""

    def __init__(self, case_id: str, reasons: tuple[str, ...]) -> None:
        self.reasons = reasons
        lines = "".join(f"\n  - {reason}" for reason in reasons)
        super().__init__(f"case {case_id!r} is no plausible chest CT:{lines}\nCorrect the file or "
                         "its header. If you know that it is right: --force, in Python force=True "
                         "(the outputs then carry the reason)")


@dataclass(frozen=True)
class Findings:
    """What is odd about a scan; empty where nothing is."""

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.errors or self.warnings)


def _some_slices(scan: Scan, most: int = 24) -> np.ndarray:
    """Evenly spaced slices, float32."""
    keep = np.unique(np.linspace(0, scan.n_slices - 1, most).round().astype(int))
    return scan.hu[keep].astype(np.float32)


def _geometry(scan: Scan) -> list[str]:
    gap, row, column = scan.spacing_mm
    found = []
    for what, value, (low, high), remedy in (
            ("distance between slices", gap, SLICE_GAP_MM, "is it in millimetres?"),
            ("pixel height", row, PIXEL_MM, "is it in millimetres?"),
            ("pixel width", column, PIXEL_MM, "is it in millimetres?"),
            ("height of a slice", row * scan.shape[1], FIELD_OF_VIEW_MM, "is it a chest?"),
            ("width of a slice", column * scan.shape[2], FIELD_OF_VIEW_MM, "is it a chest?")):
        if not low <= value <= high:
            found.append(f"{what} {value:.4g} mm, expected {low:g} to {high:g}: {remedy}")
    ratio = max(row, column) / min(row, column)
    if ratio > MOST_ANISOTROPY:
        found.append(f"pixels of {row:.4g} x {column:.4g} mm, expected squares: the slices are "
                     "coronal or sagittal, and the network reads axial ones")
    return found


def _content(scan: Scan) -> list[str]:
    hu = _some_slices(scan)
    found = []
    if min(hu.shape[1:]) > 1:
        steps = np.concatenate([np.diff(hu, axis=1).ravel(), np.diff(hu, axis=2).ravel()])
        roughness = float(np.sqrt(np.square(steps).mean() / 2.0) / max(hu.std(), 1e-6))
        if roughness > MOST_ROUGHNESS:
            found.append(f"neighbouring pixels are hardly alike (roughness {roughness:.2f}, "
                         f"expected below {MOST_ROUGHNESS:g}; noise has 1): is it an image?")
    # The pile at an end of the scale is no tissue, but all that lies beyond.
    inner = hu[(hu > max(-300.0, hu.min())) & (hu < min(1500.0, hu.max()))]
    counts, edges = np.histogram(inner, np.arange(-300, 1501, 20))
    peak = float(edges[counts.argmax()]) + 10.0
    low, high = SOFT_TISSUE_HU
    if counts.sum() and not low <= peak <= high:
        found.append(f"most tissue has {peak:g} HU, expected {low:g} to {high:g}: are the values "
                     "HU, with slope and intercept applied?")
    soft, air = float((np.abs(hu) <= 200).mean()), float((hu < -700).mean())
    for share, least, what in ((soft, LEAST_SOFT_TISSUE, "between -200 and 200 HU (soft tissue)"),
                               (air, LEAST_AIR, "below -700 HU (air)")):
        if share < least:
            found.append(f"{share:.1%} of the voxels are {what}, expected at least {least:.0%}: "
                         "are the values HU?")
    return found


def apart(scan: Scan, found: LungMask | None, marked: LungMask) -> str | None:
    """A sentence where lungs found by threshold and a network's differ much in volume, else None.

    A threshold loses consolidated lung, a network may lose what it has never seen: whoever reads a
    burden is told which of the two could have shrunk.
    """
    ml = scan.voxel_mm3 / 1000.0
    by_network = float(marked.mask.sum()) * ml
    by_threshold = 0.0 if found is None else float(found.mask.sum()) * ml
    if abs(by_network - by_threshold) < MOST_APART * max(by_network, by_threshold):
        return None
    return (f"lungs of {by_network:.0f} mL by the network, of {by_threshold:.0f} mL by threshold: "
            "dense lung is lost by a threshold, unseen lung by a network. Burden is of the "
            "network's; look at them, or give a lung mask")


def _lungs(scan: Scan, lungs: LungMask) -> Findings:
    errors, warnings = [], []
    volume = float(lungs.mask.sum()) * scan.voxel_mm3 / 1000.0
    area = lungs.mask.sum(axis=(1, 2), dtype=np.int64)
    if not area.any():
        return Findings((f"the lung mask ({lungs.origin}) is empty: give the mask of this scan, or "
                         "none, and the built-in lungs are used",))
    whole = max(area[0], area[-1]) < WHOLE_AT_ENDS * area.max()
    low, high = WHOLE_LUNGS_ML
    if volume > high or (whole and volume < low):
        errors.append(f"lungs of {volume:.4g} mL, expected {low:g} to {high:g}: is it a whole "
                      "chest, and is the spacing right?")
    height = (np.ptp(np.flatnonzero(area > 0.03 * area.max())) + 1) * scan.spacing_mm[0]
    if whole and not LUNG_HEIGHT_MM[0] <= height <= LUNG_HEIGHT_MM[1]:
        errors.append(f"lungs {height:.4g} mm high, expected {LUNG_HEIGHT_MM[0]:g} to "
                      f"{LUNG_HEIGHT_MM[1]:g}: is the distance between slices right?")
    if whole and low <= volume < SMALL_LUNGS_ML:
        warnings.append(f"lungs of {volume:.4g} mL, out of the range that networks are trained on "
                        f"({SMALL_LUNGS_ML:g} mL and more): a child's, or very ill ones")
    if not whole:
        warnings.append("the scan does not show the whole lungs: volumes and burden are those of "
                        "the part shown")
    median = float(np.median(scan.hu[lungs.mask]))
    aerated = float((scan.hu[lungs.mask] < AERATED_BELOW_HU).mean())
    if median < LUNG_MEDIAN_HU[0] or (median > LUNG_MEDIAN_HU[1] and aerated < LEAST_AERATED):
        errors.append(f"lungs of {median:g} HU (median), {aerated:.0%} of them aerated, expected "
                      f"{LUNG_MEDIAN_HU[0]:g} to {LUNG_MEDIAN_HU[1]:g}, or {LEAST_AERATED:.0%} "
                      "aerated where they are very ill: is the lung mask of this scan, and are "
                      "the values HU?")
    around = round(AROUND_LUNGS_MM / scan.spacing_mm[0])
    shown = np.flatnonzero(area)
    near = slice(max(0, shown[0] - around), shown[-1] + 1 + around)
    chest = Chest.of(scan).part(near)
    coarse = chest.coarse(lungs.mask[near])
    area = area[near]
    width = coarse.any(axis=(0, 1)).sum() * chest.voxel_mm[2]
    if whole and height < LEAST_HEIGHT_OVER_WIDTH * width:
        errors.append(f"lungs {height:.4g} mm high and {width:.4g} mm wide, expected a height of "
                      f"at least {LEAST_HEIGHT_OVER_WIDTH:g} times the width: is the distance "
                      "between slices right?")
    missing = missing_lung_ml(chest, coarse)
    rough = chest.bone_above_hu < BONE_ABOVE_HU
    if missing >= (MUCH_MISSING_ROUGHLY_ML if rough else MUCH_MISSING_ML):
        warnings.append(f"{'about' if rough else 'at least'} {missing:.0f} mL of the chest cavity "
                        "are neither air nor heart, and outside the lung mask: consolidation, "
                        "effusion, a missing lung or a wrong lung mask. Lung volume and burden "
                        "leave them out")
    # Not the gas in stomach or bowel that may hang below them.
    found = np.flatnonzero(area > SHAPE_AREA * area.max())
    if len(found) < LEAST_SLICES or np.ptp(found) * scan.spacing_mm[0] < LEAST_HEIGHT_MM:
        return Findings(tuple(errors), tuple(warnings))
    wrong, odd = orientation(chest, coarse[found[0]:found[-1] + 1])
    return Findings((*errors, *wrong), (*warnings, *odd))


def _cover(mask: np.ndarray, sure: np.ndarray) -> float:
    """Share of what is surely lung that a mask takes in, gas below the lungs left out."""
    parts, n = ndimage.label(sure)
    sizes = np.bincount(parts.ravel(), minlength=n + 1)[1:]
    taken = np.bincount(parts[mask], minlength=n + 1)[1:]
    counts = (taken > 0.05 * sizes) | (sizes > STOMACH * sizes.sum())
    return float(taken[counts].sum() / max(sizes[counts].sum(), 1))


def misfit_of_lungs(scan: Scan, given: LungMask, found: LungMask | None) -> str | None:
    """Why a given lung mask is not of this scan's lungs, or None where nothing speaks against it.

    Judged where disease can't mislead: it must take in what is surely lung, and neither bone nor
    the air around the patient. What else it takes in is its maker's affair.

    Parameters
    ----------
    scan, given
        The CT and the mask that came with it.
    found
        Of the built-in segmenter, or None where it found nothing.
    """
    if not given.mask.any():
        return None  # which `examine` says
    chest = Chest.of(scan)
    mask = chest.coarse(given.mask)
    shares = (("outside the body", ~chest.body, MOST_OUTSIDE_BODY),
              ("bone", (chest.hu > chest.bone_above_hu) & chest.within, MOST_BONE))
    if chest.bone_above_hu < BONE_ABOVE_HU:
        shares = shares[:1]  # bone can't be told from muscle
    for what, where, most in shares:
        share = (mask & where).sum() / max(mask.sum(), 1)
        if share > most:
            return f"{share:.0%} of it is {what}, expected at most {most:.0%}"
    if found is None:
        return None
    lungs = chest.coarse(found.mask)
    sure = (chest.hu < SURE_BELOW_HU) & np.stack(
        [ndimage.binary_erosion(one, iterations=SURE_STEPS) for one in lungs])
    if not sure.any():
        return None
    cover, mirrored = (_cover(one, sure) for one in (mask, mask[:, :, ::-1]))
    dice = 2.0 * (mask & lungs).sum() / (mask.sum() + lungs.sum())
    if cover < LEAST_SURE_LUNG:
        return (f"it takes in {cover:.0%} of what is surely lung, expected at least "
                f"{LEAST_SURE_LUNG:.0%}; Dice {dice:.2f}"
                f"{'; mirrored it would fit' if mirrored >= LEAST_SURE_LUNG else ''}")
    if mirrored > cover + 0.02:
        return (f"mirrored it takes in {mirrored:.0%} of what is surely lung, as it is only "
                f"{cover:.0%}; Dice {dice:.2f}")
    return None


def examine(scan: Scan, lungs: LungMask | None) -> Findings:
    """Compare a scan with what every chest CT has in common.

    Parameters
    ----------
    scan
        The CT, [z, y, x] in memory's order (foot to head, front to back, right to left).
    lungs
        Its lung mask; None where none was found, which is an error by itself.
    """
    errors = [*_geometry(scan), *_content(scan)]
    warnings = []
    if scan.n_slices == 1:
        warnings.append("a single slice: the network sees it in place of its neighbours, and there "
                        "is no whole volume")
    if lungs is None:
        errors.append("no lung was found: is it a chest CT in HU?")
    else:
        found = _lungs(scan, lungs)
        errors += found.errors
        warnings += found.warnings
    return Findings(tuple(errors), tuple(warnings))


def require_plausible(scan: Scan, lungs: LungMask | None, *, force: bool = False) -> Findings:
    """`examine`, and refuse a scan with errors unless `force`.

    Raises
    ------
    ImplausibleScan
        With all reasons.
    """
    findings = examine(scan, lungs)
    if findings.errors and not force:
        raise ImplausibleScan(scan.case_id, findings.errors)
    return findings
