"""One CT to a mask, a table of volumes, and where they come from."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from deeplung_nb import __version__
from deeplung_nb.files import (
    atomic_paths,
    check_name,
    check_writable,
    recover,
    remove_leftovers,
    safe_name,
    sha256_of,
    write_text,
)
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.integrity import require_plain_file
from deeplung_nb.imaging.io import case_name, read_scan, write_mask
from deeplung_nb.imaging.lungs import LungMask, lungs_for
from deeplung_nb.imaging.plausibility import (
    Findings,
    apart,
    examine,
    misfit_of_lungs,
    require_plausible,
)
from deeplung_nb.imaging.regions import LOBE_CODES, LungRegions, read_lobes, severity_of
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.labels import LESION_STRUCTURES, LOBES, REGIONS, structure_mask
from deeplung_nb.measurements.contract import HU_PERCENTILES
from deeplung_nb.network.checkpoint import CHECKPOINT
from deeplung_nb.network.packaged import packaged_checkpoints
from deeplung_nb.reading.familiarity import describe_scan, distances, warnings_of
from deeplung_nb.reading.predict import Predictor
from deeplung_nb.reading.provenance import describe_network, describe_source
from deeplung_nb.reading.uncertainty import likely_volume
from deeplung_nb.reading.volumes import SMALLEST_LESION_ML, measure, outside_lungs
from deeplung_nb.runs import package_versions, read_run, results_folder
from deeplung_nb.stats.lesions import component_sizes

COLUMNS = ("case_id", "structure", "n_voxels", "voxel_mm3", "volume_ml", "likely_low_ml",
           "likely_high_ml", "likely_chance", "burden_percent",
           "burden_in_lung_percent", "outside_lungs_ml", "mean_hu", "percent_above_minus_300_hu",
           "percent_above_minus_200_hu", "n_slices", "slices_with",
           *(f"volume_{name}_ml" for name in (*REGIONS, *LOBES)), "po_percent", "pho_percent",
           "severity_25", "n_lesions", "largest_lesion_ml",
           *(f"hu_p{percent:02d}" for percent in HU_PERCENTILES), "note")
DENSE_HU = (-300, -200)
"""Readers draw the line between ground glass and consolidation at different densities: shares above
these stand beside the classes, so that "high opacity" can be read either way."""
OPTIONS = {"batch", "device", "precision", "fast"}
"""What `Segmenter` hands on to its `Predictor`."""


class Outputs(NamedTuple):
    """The files that one segmentation leaves, together or not at all."""

    mask: Path
    table: Path
    provenance: Path


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A segmented scan.

    `table` has a row per structure; `provenance` says what made it, and what was odd.
    """

    scan: Scan
    mask: LesionMask
    lungs: LungMask | None
    table: pd.DataFrame
    provenance: dict[str, Any]

    @property
    def warnings(self) -> list[str]:
        """What a reader of this result must know, the gravest first."""
        return self.provenance["warnings"]


def default_checkpoints(results: Path | None = None) -> list[Path]:
    """The packaged network; without it the folds of the newest complete run, of real CT if any.

    Raises
    ------
    FileNotFoundError, ValueError
        There is neither; a packaged file is not what its card says.
    """
    packaged = packaged_checkpoints()
    if packaged:
        return packaged
    results = results or results_folder()
    for profile in ("paper", "public", "quick"):
        for info in sorted(results.glob(f"{profile}-*/run.json"),
                           key=lambda path: path.stat().st_mtime, reverse=True):
            n_folds = read_run(info.parent).config.n_folds
            found = sorted(info.parent.glob(f"fold-*/{CHECKPOINT}"))
            # The table comes after the last training: without it a fold may be half trained.
            if len(found) == n_folds and info.with_name("measurements.csv").exists():
                return found
    raise FileNotFoundError(
        f"{results}: no trained network. Run 'make reproduce' or 'deeplung-nb reproduce' first, "
        "set DEEPLUNG_RESULTS to the folder of the runs, or give --checkpoint <file>.")


def plan_outputs(folder: Path, case_id: str, inputs: Sequence[Path],
                 overwrite: bool = False) -> Outputs:
    """Where the results will lie, after every check that can be made before the work.

    Raises
    ------
    ValueError
        The id is no safe name; an output would replace an input; `folder` lies in a DICOM folder.
    FileExistsError
        An output is there already, and `overwrite` was not asked for.
    OSError
        The folder can't be written to.
    """
    check_name(case_id)
    recover(folder)  # what a killed call had begun to place
    outputs = Outputs(folder / f"{case_id}_lesions.nii.gz", folder / f"{case_id}_measurements.csv",
                      folder / f"{case_id}_provenance.json")
    for source in inputs:
        if not source.is_dir() and source.exists():
            require_plain_file(source, case_id)
        if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
            raise ValueError(f"{folder}: lies in the folder of the scan ({source}), whose files "
                             "are the scan. Choose an --output beside it")
        for path in outputs:
            if path.exists() and source.exists() and os.path.samefile(path, source):
                raise ValueError(f"{path}: is one of the inputs, which are never replaced. Choose "
                                 "another --output or --case-id")
    there = [path.name for path in outputs if path.exists()]
    if there and not overwrite:
        raise FileExistsError(f"{folder}: {', '.join(there)} is there already. Choose another "
                              "--output or --case-id, or --overwrite it")
    check_writable(folder)
    return outputs


def require_fitting_lungs(scan: Scan, lungs: LungMask | None) -> None:
    """That a given lung mask is of this scan's lungs, as far as these can be told.

    Raises
    ------
    ScanError
        It is another scan's, mirrored, or of something else than lungs.
    """
    if lungs is None or lungs.origin != "reference":
        return
    found = lungs_for(scan)
    why = misfit_of_lungs(scan, lungs, found)
    odd = examine(scan, lungs).errors
    if why is None and odd and found is not None and not examine(scan, found).errors:
        why = odd[0]
    if why is not None:
        raise ScanError(
            f"case {scan.case_id!r}: lung mask {lungs.source} does not fit the lungs that are "
            f"found in the scan ({why}): is it this scan's, and of the lungs, not of lesions? Give "
            "the right one, or none; --force (force=True) takes it all the same")


def _densities(scan: Scan, mask: LesionMask, structure: str) -> dict[str, float]:
    if structure not in LESION_STRUCTURES:
        return {}
    values = scan.hu[structure_mask(mask.labels, structure)]
    return {f"percent_above_minus_{-level}_hu": 100.0 * float((values > level).mean())
            for level in DENSE_HU if len(values)}


def _sizes(scan: Scan, mask: LesionMask, structure: str) -> dict[str, float]:
    """How many lesions there are, and the size of the largest, mL."""
    if structure not in LESION_STRUCTURES:
        return {}
    n_voxels = component_sizes(structure_mask(mask.labels, structure))
    sizes_ml = n_voxels * scan.voxel_mm3 / 1000.0
    return {"n_lesions": int((sizes_ml >= SMALLEST_LESION_ML).sum()),
            "largest_lesion_ml": float(sizes_ml.max(initial=0.0))}


def _severity(lesion: dict[str, Any], scan: Scan, lobes: np.ndarray) -> dict[str, int]:
    """The severity score, 0 to 25; none where a lobe is missing from the scan."""
    n_voxels = np.bincount(lobes.ravel(), minlength=len(LOBES) + 1)[1:]
    if not n_voxels.all():
        return {}
    sizes_ml = n_voxels * scan.voxel_mm3 / 1000.0
    return {"severity_25": sum(severity_of(100.0 * lesion[f"volume_{name}_ml"] / ml)
                               for name, ml in zip(LOBES, sizes_ml, strict=True))}


class Segmenter:
    """Networks with what is known of them: a scan in, a mask and volumes out.

    Each scan is looked at first, and refused where it is no plausible chest CT. Networks are loaded
    once, at the first scan.

    Parameters
    ----------
    checkpoints
        One network, or several whose scores are averaged; default: `default_checkpoints`.
    options
        Of `Predictor`: `batch`, `device` (or its name), `precision`, `fast`.

    Raises
    ------
    FileNotFoundError, ValueError
        A file is missing or no checkpoint of this package.
    """

    def __init__(self, checkpoints: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
                 **options: Any) -> None:
        if isinstance(checkpoints, str | os.PathLike):
            checkpoints = [checkpoints]
        unknown = sorted(set(options) - OPTIONS)
        if unknown:
            raise TypeError(f"Segmenter has no option {unknown[0]!r}: expected {sorted(OPTIONS)}")
        if "device" in options:
            options["device"] = torch.device(options["device"])
        self.checkpoints = [Path(path) for path in checkpoints or default_checkpoints()]
        self.network = describe_network(self.checkpoints)
        self._options = options

    def __repr__(self) -> str:
        return f"Segmenter({self.network['name']}; trained on {self.network['trained_on']})"

    @cached_property
    def predictor(self) -> Predictor:
        """The networks, loaded."""
        return Predictor.from_checkpoints(self.checkpoints, **self._options)

    def __call__(self, scan: Scan | str | os.PathLike,
                 lungs: LungMask | str | os.PathLike | None = None, *,
                 lobes: np.ndarray | None = None, force: bool = False,
                 progress: bool = True) -> Segmentation:
        """Segment and measure a scan, if it is a plausible chest CT.

        Parameters
        ----------
        scan
            Of `read_scan`, or its file or DICOM folder.
        lungs
            A lung mask on its grid, or its file; default: the network's, or of one that marks none
            the built-in lungs. Without lungs burden stays empty.
        lobes
            Of `read_lobes`, on its grid: then the table has each lobe and the severity score.
        force
            Whether an implausible scan is segmented all the same; the result carries the reasons.
        progress
            Whether a bar shows how far it is.

        Raises
        ------
        ScanError
            Before any inference: the scan can't be read, or is no plausible chest CT; the lung mask
            is not of this scan's lungs.
        """
        if not isinstance(scan, Scan):
            scan = read_scan(scan, force=force)
        if not isinstance(lungs, LungMask):
            lungs = lungs_for(scan, None if lungs is None else Path(lungs))
        if not force:
            require_fitting_lungs(scan, lungs)
        findings = require_plausible(scan, lungs, force=force)
        mask, marked = self.predictor.read(scan, progress="segment" if progress else None)
        warnings = []
        if marked is not None and (lungs is None or lungs.origin == "built-in"):
            warnings += filter(None, [apart(scan, lungs, marked)])
            lungs, again = marked, examine(scan, marked)
            # What a threshold loses (consolidated lung) these may hold: judged by them.
            findings = Findings(findings.errors, (*again.errors, *again.warnings))
        regions = None if lungs is None else LungRegions.of(lungs, lobes)
        rows = [{"case_id": scan.case_id, **row, **_densities(scan, mask, row["structure"]),
                 **_sizes(scan, mask, row["structure"])}
                for row in measure(scan, mask, lungs, regions=regions)]
        if lobes is not None:
            rows[-1] |= _severity(rows[-1], scan, lobes)
        likely = likely_volume(rows[-1]["volume_ml"], self.network.get("unseen") or ())
        if likely is not None:
            rows[-1] |= {f"likely_{name}": likely[name] for name in ("low_ml", "high_ml", "chance")}
        properties = describe_scan(scan, lungs, rows[-1].get("burden_percent"))
        ranges = self.network.get("training_ranges") or {}
        warnings = [*self._warnings(scan, findings, rows[-1]), *warnings,
                    *warnings_of(properties, ranges)]
        source = describe_source(scan)
        provenance = {
            "case_id": scan.case_id, "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "warnings": warnings, "network": self.network,
            "scan": {**source, "shape_zyx": list(scan.shape),
                     "spacing_zyx_mm": list(scan.spacing_mm), "orientation": scan.orientation},
            "lungs": lungs.origin if lungs is not None else None, "likely_lesion": likely,
            "properties": properties, "distance_to_training": distances(properties, ranges),
            "software": package_versions(),
            "computation": {"device": str(self.predictor.device),
                            "precision": self.predictor.precision,
                            "threads": torch.get_num_threads()},
        }
        table = pd.DataFrame(rows).reindex(columns=list(COLUMNS)).assign(
            network=self.network["name"], network_sha256=self.network["sha256"],
            trained_on=self.network["trained_on"], software=f"deeplung_nb {__version__}",
            scan_sha256=source["sha256"], warnings="; ".join(warnings))
        return Segmentation(scan, mask, lungs, table, provenance)

    def _warnings(self, scan: Scan, findings: Findings, lesion: dict[str, Any]) -> list[str]:
        """What a reader of the result must know, the gravest first."""
        found = [f"implausible, and forced: {reason}" for reason in findings.errors]
        if self.network["synthetic"]:
            found.append(f"trained on {self.network['trained_on']}")
        much = outside_lungs(lesion)
        return [*found, *scan.notes, *findings.warnings, *([much] if much else [])]


def write_segmentation(result: Segmentation, to: str | os.PathLike | Outputs,
                       overwrite: bool = False) -> Outputs:
    """Write mask, table and provenance, all or none; their paths.

    The provenance holds the hashes of the other two, so that files of two calls are known.

    Parameters
    ----------
    to
        A folder, or what `plan_outputs` has planned.
    overwrite
        Whether results of an earlier call may be replaced. The scan never is.

    Raises
    ------
    FileExistsError
        They are there, or another call has written them meanwhile, and `overwrite` was not asked
        for.
    ValueError, OSError
        As `plan_outputs`.
    """
    outputs = to if isinstance(to, Outputs) else plan_outputs(
        Path(to), safe_name(result.scan.case_id),
        [Path(result.scan.source)] if result.scan.source else [], overwrite)
    network, software = result.provenance["network"], result.provenance["software"]
    note = (f"deeplung_nb {software['deeplung_nb']} net {network['sha256'][:12]}"
            f"{' SYNTHETIC TRAINING' if network['synthetic'] else ''}"
            f"{f' {len(result.warnings)} WARNINGS' if result.warnings else ''}")
    with atomic_paths(*outputs, replace=overwrite) as parts:
        write_mask(result.mask, parts[0], note)
        write_text(parts[1], result.table.to_csv(index=False))
        written = {path.name: sha256_of(part)
                   for path, part in zip(outputs[:2], parts, strict=False)}
        record = {**result.provenance, "outputs": written}
        write_text(parts[2], json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return outputs


def segment_file(
    scan_path: Path, output: Path, *, checkpoints: Sequence[Path] | None = None,
    lung_mask: Path | None = None, lobe_mask: Path | None = None,
    lobe_codes: tuple[int, ...] = LOBE_CODES, case_id: str | None = None, series: str | None = None,
    geometry: str | None = None, overwrite: bool = False, force: bool = False,
    progress: bool = True,
) -> tuple[Segmentation, Outputs]:
    """Segment one CT and write `<case>_lesions.nii.gz`, `_measurements.csv`, `_provenance.json`.

    Parameters
    ----------
    scan_path, series, geometry
        As `read_scan`.
    output
        Folder of the results; made when it is not there.
    checkpoints, force
        As `Segmenter`; with `force` a series with gaps, tilt or doubled slices is resampled too.
    lung_mask
        As `lungs` of `Segmenter`.
    lobe_mask, lobe_codes
        As `read_lobes`; default: no lobes.
    case_id
        Name of the outputs; default: that of the file.
    overwrite
        Whether results of an earlier call may be replaced. An input never is.

    Raises
    ------
    ValueError, OSError
        Before any inference; the message names the file, what was expected and the remedy.
    """
    case = case_id if case_id is not None else safe_name(case_name(scan_path))
    if not scan_path.exists():
        raise ScanError(f"case {case!r}: {scan_path} is missing, expected a CT. Check the path")
    chosen = list(checkpoints or default_checkpoints())
    inputs = [scan_path, *chosen, *(path for path in (lung_mask, lobe_mask) if path is not None)]
    outputs = plan_outputs(output, case, inputs, overwrite)
    segmenter = Segmenter(chosen)
    scan = read_scan(scan_path, case_id=case, series=series, geometry=geometry, force=force)
    # A mask of labels packs to a hundredth as a rule; a twentieth is room enough.
    check_writable(output, scan.hu.size // 20 + 1_000_000)
    lobes = None if lobe_mask is None else read_lobes(lobe_mask, scan, lobe_codes)
    result = segmenter(scan, lung_mask, lobes=lobes, force=force, progress=progress)
    if output.is_dir():
        remove_leftovers(output)
    return result, write_segmentation(result, outputs, overwrite)
