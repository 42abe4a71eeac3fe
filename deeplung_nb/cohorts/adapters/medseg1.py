"""MedSeg COVID-19 data set 1: the isolated slices of its public training split, as pictures."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from deeplung_nb.cohorts.schema import COLUMNS
from deeplung_nb.cohorts.splits import make_splits
from deeplung_nb.files import sha256_of
from deeplung_nb.runs.registry import read_registry


def adapt(folder: str | os.PathLike) -> pd.DataFrame:
    """A manifest table of the slices found in `folder`.

    Who the patients are was not published (more than 40 for the 100 slices): each slice counts as
    one, and two folds may share a patient.

    Parameters
    ----------
    folder
        Holds `images/N.png` and `masks/N.png`.
    """
    folder = Path(folder)
    rows = []
    for path in sorted((folder / "images").glob("*.png"), key=lambda path: int(path.stem)):
        files = {"image": f"images/{path.name}", "mask": f"masks/{path.name}"}
        if not (folder / files["mask"]).is_file():
            raise ValueError(f"case {path.stem!r}: {folder / files['mask']} is missing, expected "
                             "the mask of the slice. Put it there, or remove the slice")
        rows.append({
            "cohort": "medseg1", "case_id": path.stem, "patient_id": f"S{path.stem}", "role": "cv",
            **files, **{f"{name}_sha256": sha256_of(folder / file) for name, file in files.items()},
            "mask_kind": "ggo+high_opacity", "protocol": "unknown", "centre": "SIRM",
            "n_slices": 1, "exclude": 0,
        })
    if not rows:
        raise ValueError(f"{folder}: no slice found, expected images/0.png and so on. Get them "
                         f"from {read_registry()['medseg1']['url']}")
    return pd.DataFrame(rows, columns=list(COLUMNS))


def deal(table: pd.DataFrame) -> pd.DataFrame:
    """Five folds."""
    return make_splits(table, n_folds=5, seed=1, validation_fraction=0.25)
