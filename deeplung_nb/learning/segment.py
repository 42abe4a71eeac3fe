"""One CT to a mask and a table of volumes: what `python -m deeplung_nb segment` does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from deeplung_nb.imaging.lungs import LungError, LungMask, segment_lungs
from deeplung_nb.imaging.scan import read_lung_mask, read_scan, write_mask
from deeplung_nb.learning.measure import measure
from deeplung_nb.learning.predict import Predictor
from deeplung_nb.learning.train import CHECKPOINT
from deeplung_nb.runs import PACKAGE_FOLDER, write_text

COLUMNS = ("case_id", "structure", "n_voxels", "voxel_mm3", "volume_ml", "burden_percent",
           "burden_in_lung_percent", "mean_hu", "n_slices", "slices_with", "note")


def default_checkpoints(results: Path | None = None) -> list[Path]:
    """The folds of the newest complete run: of real CT if there is one, else of phantoms.

    Raises
    ------
    FileNotFoundError
        No run has a trained fold.
    """
    results = results or PACKAGE_FOLDER.parent / "results"
    for profile in ("paper", "public", "quick"):
        for info in sorted(results.glob(f"{profile}-*/run.json"),
                           key=lambda path: path.stat().st_mtime, reverse=True):
            n_folds = json.loads(info.read_text(encoding="utf-8"))["config"]["n_folds"]
            found = sorted(info.parent.glob(f"fold-*/{CHECKPOINT}"))
            # The table comes after the last training: without it a fold may be half trained.
            if len(found) == n_folds and info.with_name("measurements.csv").exists():
                return found
    raise FileNotFoundError(
        f"{results}: no trained network. Run 'make reproduce' first, or give --checkpoint "
        "<fold>/checkpoint.pt."
    )


def segment_file(
    scan_path: Path, output: Path, *, checkpoints: Sequence[Path] | None = None,
    lung_mask: Path | None = None, case_id: str | None = None, progress: bool = True,
) -> pd.DataFrame:
    """Segment one CT; write `<case>.nii.gz` and `<case>.csv` (a row per structure) to `output`.

    The mask lies on the scan's own grid. The table is also returned.
    """
    scan = read_scan(scan_path, case_id=case_id)
    chosen = list(checkpoints or default_checkpoints())
    shown = chosen[0] if len(chosen) == 1 else f"{len(chosen)} folds of {chosen[0].parent.parent}"
    print(f"scan     {scan!r}\nnetwork  {shown}")
    if "quick-" in str(shown):
        print("         trained on synthetic chests only: a demonstration, not a measurement")
    lungs: LungMask | None
    if lung_mask is not None:
        lungs = LungMask(read_lung_mask(lung_mask, scan), "reference")
    else:
        try:
            lungs = segment_lungs(scan)
        except LungError as error:
            print(f"warning: {error}; burden is left empty")
            lungs = None
    predictor = Predictor.from_checkpoints(chosen)
    mask = predictor.segment(scan, progress="segment" if progress else None)
    table = pd.DataFrame([{"case_id": scan.case_id, **row} for row in measure(scan, mask, lungs)])
    table = table.reindex(columns=list(COLUMNS))
    output.mkdir(parents=True, exist_ok=True)
    write_mask(mask, output / f"{scan.case_id}.nii.gz")
    write_text(output / f"{scan.case_id}.csv", table.to_csv(index=False))
    for row in table.itertuples():
        burden = "" if pd.isna(row.burden_percent) else f"  {row.burden_percent:5.1f} % of lung"
        print(f"{row.structure:<13}{row.volume_ml:9.1f} mL{burden}")
    print(f"mask     {output / scan.case_id}.nii.gz\ntable    {output / scan.case_id}.csv")
    return table
