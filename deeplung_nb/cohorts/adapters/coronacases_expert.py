"""Six slices of coronacases.org with expert masks of any lesion, among their neighbours."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from deeplung_nb.cohorts.schema import COLUMNS
from deeplung_nb.files import sha256_of

IMAGES, MASKS = "coronacases_slices/images", "coronacases_expert"


def adapt(folder: str | os.PathLike) -> pd.DataFrame:
    """A manifest table of the masks found in `folder`.

    Parameters
    ----------
    folder
        Holds `coronacases_expert/<patient>_<slice>.png` and, with their neighbours,
        `coronacases_slices/images/<patient>_<slice>.jpg`.
    """
    folder = Path(folder)
    rows = []
    for path in sorted((folder / MASKS).glob("*_*.png")):
        files = {"image": f"{IMAGES}/{path.stem}.jpg", "mask": f"{MASKS}/{path.name}"}
        if not (folder / files["image"]).is_file():
            raise ValueError(f"case {path.stem!r}: {folder / files['image']} is missing, expected "
                             "the picture of the slice. Put it there, or remove the mask")
        rows.append({
            "cohort": "coronacases_expert", "case_id": path.stem,
            "patient_id": f"CC{path.stem.partition('_')[0]}", "role": "external",
            **files, **{f"{name}_sha256": sha256_of(folder / file) for name, file in files.items()},
            "mask_kind": "binary", "protocol": "unknown", "centre": "coronacases.org",
            "n_slices": 1, "exclude": 0,
        })
    if not rows:
        raise ValueError(f"{folder}: no mask found, expected {MASKS}/001_54.png and so on")
    return pd.DataFrame(rows, columns=list(COLUMNS))
