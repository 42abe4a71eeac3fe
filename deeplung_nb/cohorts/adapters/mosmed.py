"""MosMedData COVID19_1110: the fifty studies with masks of any lesion."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from deeplung_nb.cohorts.adapters import files_of_case
from deeplung_nb.cohorts.schema import COLUMNS
from deeplung_nb.runs.registry import read_registry


def adapt(folder: str | os.PathLike) -> pd.DataFrame:
    """A manifest table of the studies with a mask that are found in `folder`.

    Parameters
    ----------
    folder
        Holds `masks/study_0255_mask.nii` (or `.nii.gz`) and so on, and
        `studies/CT-1/study_0255.nii` in whichever of the folders CT-0 to CT-4.
    """
    folder = Path(folder)
    studies = {path.name.split(".nii")[0]: path for path in folder.glob("studies/CT-*/*.nii*")}
    rows = []
    for path in sorted((folder / "masks").glob("*_mask.nii*")):
        case = path.name.split("_mask.nii")[0]
        image = studies.get(case, folder / "studies" / "CT-1" / f"{case}.nii.gz")
        files = files_of_case(folder, case, {
            "image": image.relative_to(folder).as_posix(), "mask": f"masks/{path.name}"})
        rows.append({"cohort": "mosmed", "case_id": case, "patient_id": f"MM{case[-4:]}",
                     "role": "external", **files, "mask_kind": "binary",
                     "protocol": "non-contrast", "centre": "Moscow", "exclude": 0})
    if not rows:
        raise ValueError(f"{folder}: no mask found, expected masks/study_0255_mask.nii.gz and so "
                         f"on. Register and get them at {read_registry()['mosmed']['url']}")
    return pd.DataFrame(rows, columns=list(COLUMNS))
