"""COVID-19-20 challenge: its training volumes, with masks of any lesion."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from deeplung_nb.cohorts.adapters import files_of_case
from deeplung_nb.cohorts.schema import COLUMNS
from deeplung_nb.runs.registry import read_registry


def adapt(folder: str | os.PathLike) -> pd.DataFrame:
    """A manifest table of the training volumes found in `folder` or below.

    Parameters
    ----------
    folder
        Holds `volume-covid19-A-0003_ct.nii.gz` and `volume-covid19-A-0003_seg.nii.gz` and so on,
        in it or in folders below (`COVID-19-20_v2/Train`).
    """
    folder = Path(folder)
    rows = []
    for path in sorted(folder.rglob("volume-covid19-*_ct.nii*")):
        case = path.name.split("_ct.nii")[0]
        if "Validation" in path.parts:  # their masks are not public
            continue
        mask = path.with_name(path.name.replace("_ct.nii", "_seg.nii"))
        files = files_of_case(folder, case, {"image": path.relative_to(folder).as_posix(),
                                             "mask": mask.relative_to(folder).as_posix()})
        rows.append({"cohort": "covid_19_20", "case_id": case,
                     "patient_id": case.removeprefix("volume-"), "role": "external", **files,
                     "mask_kind": "binary", "protocol": "unknown", "centre": "TCIA", "exclude": 0})
    if not rows:
        raise ValueError(f"{folder}: no volume found, expected volume-covid19-A-0003_ct.nii.gz and "
                         f"so on. Register and get them at {read_registry()['covid_19_20']['url']}")
    return pd.DataFrame(rows, columns=list(COLUMNS))
