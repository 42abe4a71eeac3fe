"""MedSeg COVID-19 data set 2: nine volumes from Radiopaedia, with masks of classes and lungs."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import SimpleITK as sitk

from deeplung_nb.cohorts.schema import COLUMNS
from deeplung_nb.cohorts.splits import make_splits
from deeplung_nb.files import sha256_of
from deeplung_nb.runs.registry import read_registry

CASES = tuple(str(number) for number in range(1, 10))
ONE_PATIENT = {"3": "2"}
"""Case 3 is very probably another series of the patient of case 2."""

FOLDS = {"1": (0, 4), "2": (1, 0), "3": (1, 0), "5": (2, 1), "6": (3, 2), "8": (4, 3)}
"""case: (tested in, validates). data_manifests/README.md says why."""


def adapt(folder: str | os.PathLike) -> pd.DataFrame:
    """A manifest table of the MedSeg 2 cases found in `folder`.

    Reads headers and hashes, no voxel. A case is taken when its CT, lesion mask and lung mask are
    there; a case with some of the three is an error.

    Parameters
    ----------
    folder
        Holds `rp_im/N.nii.gz`, `rp_msk/N.nii.gz`, `rp_lung_msk/N.nii.gz`.
    """
    folder = Path(folder)
    rows = []
    for case in CASES:
        files = {"image": f"rp_im/{case}.nii.gz", "mask": f"rp_msk/{case}.nii.gz",
                 "lung_mask": f"rp_lung_msk/{case}.nii.gz"}
        absent = [name for name in files.values() if not (folder / name).is_file()]
        if len(absent) == len(files):
            continue
        if absent:
            raise ValueError(f"case {case!r}: {', '.join(absent)} missing in {folder}, expected "
                             "CT, mask and lung mask. Unpack rp_im, rp_msk and rp_lung_msk there")
        header = sitk.ImageFileReader()
        header.SetFileName(str(folder / files["image"]))
        header.ReadImageInformation()
        rows.append({
            "cohort": "medseg2", "case_id": case, "role": "cv",
            "patient_id": f"P{ONE_PATIENT.get(case, case)}", **files,
            **{f"{name}_sha256": sha256_of(folder / path) for name, path in files.items()},
            "mask_kind": "ggo+high_opacity", "protocol": "unknown", "centre": "Radiopaedia",
            "n_slices": header.GetSize()[2], "slice_gap_mm": round(header.GetSpacing()[2], 4),
            "exclude": 0,
        })
    if not rows:
        raise ValueError(f"{folder}: no MedSeg 2 case found, expected rp_im/1.nii.gz and so on. "
                         f"Get it from {read_registry()['medseg2']['url']}")
    return pd.DataFrame(rows, columns=list(COLUMNS))


def deal(table: pd.DataFrame) -> pd.DataFrame:
    """The folds of `adapt`'s table: the frozen ones of the six cases of the shipped manifest.

    With any other set of cases three folds are dealt anew.
    """
    if set(table.case_id) != set(FOLDS):
        return make_splits(table, n_folds=3, seed=1, validation_fraction=0.25)
    return table[["cohort", "case_id", "patient_id"]].assign(
        fold=[FOLDS[case][0] for case in table.case_id],
        validation_in=pd.array([FOLDS[case][1] for case in table.case_id], "Int64"))
