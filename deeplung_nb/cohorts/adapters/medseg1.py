"""MedSeg COVID-19 data set 1: the isolated slices of its public training split, as pictures."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from deeplung_nb.cohorts.adapters import slices_of_folder
from deeplung_nb.cohorts.schema import COLUMNS
from deeplung_nb.cohorts.splits import make_splits
from deeplung_nb.runs.registry import read_registry

STACKS = ("tr_im.nii.gz", "tr_mask.nii.gz")


def adapt(folder: str | os.PathLike) -> pd.DataFrame:
    """A manifest table of the slices found in `folder`.

    Who the patients are was not published (more than 40 for the 100 slices): each slice counts as
    one, and two folds may share a patient.

    Parameters
    ----------
    folder
        Holds `images/N.png` and `masks/N.png`; or `tr_im.nii.gz` and `tr_mask.nii.gz` as published,
        from which the pictures are made beside them. Read by nibabel, those slices stand upright
        after a quarter turn clockwise, as the pictures do: hence transposed as SimpleITK reads.
    """
    folder = Path(folder)
    if (folder / STACKS[0]).is_file():
        from deeplung_nb.imaging.slice_stacks import lay_out_stack

        lay_out_stack(folder / STACKS[0], {"masks": folder / STACKS[1]}, folder, transposed=True)
    rows = [{"cohort": "medseg1", "patient_id": f"S{row['case_id']}", "role": "cv", **row,
             "mask_kind": "ggo+high_opacity", "protocol": "unknown", "centre": "SIRM",
             "n_slices": 1, "exclude": 0} for row in slices_of_folder(folder, ("masks",))]
    if not rows:
        raise ValueError(f"{folder}: no slice found, expected images/0.png and so on, or "
                         f"{' and '.join(STACKS)}. Get them from "
                         f"{read_registry()['medseg1']['url']}")
    return pd.DataFrame(rows, columns=list(COLUMNS))


def deal(table: pd.DataFrame) -> pd.DataFrame:
    """Five folds."""
    return make_splits(table, n_folds=5, seed=1, validation_fraction=0.25)
