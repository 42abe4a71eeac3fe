"""COVID-19-CT-Seg: twenty volumes of coronacases.org and Radiopaedia, masks of any lesion."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

from deeplung_nb.cohorts.adapters import files_of_case
from deeplung_nb.cohorts.schema import COLUMNS
from deeplung_nb.runs.registry import read_registry

IMAGES, MASKS, LUNGS = "COVID-19-CT-Seg_20cases", "Infection_Mask", "Lung_Mask"
OF_MEDSEG2 = {"7": "P1", "10": "P2", "27": "P5", "29": "P6", "36": "P8"}
"""Radiopaedia's patients that stand in MedSeg data set 2 as well, under its ids: nobody may train
in one set and be external in the other. 10_85902_1 and _3 are one patient; whether 29_86490_1 and
29_86491_1 are is not said, so they count as one."""
NO_HU = "8-bit picture windowed from -1250 to 250: no HU"


def patient_of(case: str) -> str:
    """`coronacases_003` -> `CC003` (as in `coronacases_expert`); `radiopaedia_7_…` -> `P1`."""
    if found := re.fullmatch(r"coronacases_(\d{3})", case):
        return f"CC{found[1]}"
    number = case.split("_")[1]
    return OF_MEDSEG2.get(number, f"R{number}")


def adapt(folder: str | os.PathLike) -> pd.DataFrame:
    """A manifest table of the volumes found in `folder`.

    The ten of Radiopaedia are pictures of 8 bits and not used: their rows say so. Without them the
    set is the ten patients of coronacases.org.

    Parameters
    ----------
    folder
        Holds `COVID-19-CT-Seg_20cases`, `Infection_Mask` and `Lung_Mask`, as the archives unpack.
    """
    folder = Path(folder)
    rows = []
    for path in sorted((folder / IMAGES).glob("*.nii*")):
        case = path.name.split(".nii")[0]
        files = files_of_case(folder, case, {
            "image": f"{IMAGES}/{path.name}", "mask": f"{MASKS}/{path.name}",
            "lung_mask": f"{LUNGS}/{path.name}"})
        row = {"cohort": "covid_ct_seg_20", "case_id": case, "patient_id": patient_of(case),
               "role": "external", **files, "mask_kind": "binary", "protocol": "unknown",
               "centre": "coronacases.org" if case.startswith("coronacases") else "Radiopaedia",
               "exclude": 0}
        if not case.startswith("coronacases"):
            row |= {"exclude": 1, "exclude_reason": NO_HU}
        rows.append(row)
    if not rows:
        raise ValueError(f"{folder}: no volume found, expected {IMAGES}/coronacases_001.nii.gz and "
                         f"so on. Get them from {read_registry()['covid_ct_seg_20']['url']}, or "
                         "with deeplung-nb fetch covid_ct_seg_20")
    return pd.DataFrame(rows, columns=list(COLUMNS))
