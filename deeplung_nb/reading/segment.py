"""One CT to a mask, a table of volumes, and where they come from; `reading.results` writes them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from deeplung_nb import __version__
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.io import read_scan
from deeplung_nb.imaging.lungs import LungMask, lungs_for
from deeplung_nb.imaging.plausibility import (
    Findings,
    apart,
    examine,
    misfit_of_lungs,
    require_plausible,
)
from deeplung_nb.imaging.regions import LungRegions
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.labels import LOBES, REGIONS
from deeplung_nb.measurements.contract import HU_PERCENTILES
from deeplung_nb.network.checkpoint import CHECKPOINT
from deeplung_nb.network.packaged import packaged_checkpoints
from deeplung_nb.reading.familiarity import describe_scan, distances, warnings_of
from deeplung_nb.reading.names import public_case_id
from deeplung_nb.reading.predict import Predictor
from deeplung_nb.reading.provenance import describe_network, describe_source
from deeplung_nb.reading.uncertainty import likely_volume
from deeplung_nb.reading.volumes import lesion_facts, measure, outside_lungs, severity
from deeplung_nb.runs import package_versions, read_run, results_folder

COLUMNS = ("case_id", "structure", "n_voxels", "voxel_mm3", "volume_ml", "likely_low_ml",
           "likely_high_ml", "likely_chance", "burden_percent",
           "burden_in_lung_percent", "outside_lungs_ml", "mean_hu", "percent_above_minus_300_hu",
           "percent_above_minus_200_hu", "n_slices", "slices_with",
           *(f"volume_{name}_ml" for name in (*REGIONS, *LOBES)), "po_percent", "pho_percent",
           "severity_25", "n_lesions", "largest_lesion_ml",
           *(f"hu_p{percent:02d}" for percent in HU_PERCENTILES), "note")
OPTIONS = {"batch", "device", "precision", "fast"}
"""What `Segmenter` hands on to its `Predictor`."""


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
    def case_id(self) -> str:
        """What the outputs call it: `scan.case_id`, but never a folder's name."""
        return self.provenance["case_id"]

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
                 lobes: np.ndarray | None = None, case_id: str | None = None,
                 force: bool = False,
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
        case_id
            What the outputs call it; default: `public_case_id`, which is never a folder's name.
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
        case_id = case_id or public_case_id(scan)
        regions = None if lungs is None else LungRegions.of(lungs, lobes)
        rows = [{"case_id": case_id, **row, **lesion_facts(scan, mask, row["structure"])}
                for row in measure(scan, mask, lungs, regions=regions)]
        if lobes is not None:
            rows[-1] |= severity(rows[-1], scan, lobes)
        likely = likely_volume(rows[-1]["volume_ml"], self.network.get("unseen") or ())
        if likely is not None:
            rows[-1] |= {f"likely_{name}": likely[name] for name in ("low_ml", "high_ml", "chance")}
        properties = describe_scan(scan, lungs, rows[-1].get("burden_percent"))
        ranges = self.network.get("training_ranges") or {}
        warnings = [*self._warnings(scan, findings, rows[-1]), *warnings,
                    *warnings_of(properties, ranges)]
        source = describe_source(scan)
        provenance = {
            "case_id": case_id, "created": datetime.now(UTC).isoformat(timespec="seconds"),
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
