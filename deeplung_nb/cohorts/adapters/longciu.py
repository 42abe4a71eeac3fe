"""LongCIU: ninety isolated slices, each read by three people."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from deeplung_nb.cohorts.adapters import slices_of_folder
from deeplung_nb.cohorts.schema import COLUMNS, READER_COLUMNS
from deeplung_nb.runs.registry import read_registry

IMAGE = "longciu_img.nii.gz"
CONSENSUS = {"masks": "longciu_STAPLE_tgt.nii.gz"}
READERS = {f"masks_{number}": f"longciu_{number}_tgt.nii.gz" for number in (1, 2, 3)}


def adapt(folder: str | os.PathLike) -> pd.DataFrame:
    """A manifest table of the ninety slices: the published consensus, and each reader's mask.

    Who the patients are was not published: each slice counts as one. Slices 63 and 69 are said to
    be the same picture; where their files are equal, the later one is not used.

    Parameters
    ----------
    folder
        Holds `longciu_img.nii.gz`, `longciu_STAPLE_tgt.nii.gz` and `longciu_1_tgt.nii.gz` to
        `longciu_3_tgt.nii.gz`, from which `images/N.png` and `masks/N.png` and so on are made
        beside them.
    """
    folder = Path(folder)
    stacks = {**CONSENSUS, **READERS}
    missing = [name for name in (IMAGE, *stacks.values()) if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder}: {', '.join(missing)} missing, expected the set's five stacks. "
                         f"Get them from {read_registry()['longciu']['url']}")
    from deeplung_nb.imaging.slice_stacks import lay_out_stack

    lay_out_stack(folder / IMAGE, {name: folder / file for name, file in stacks.items()}, folder)
    rows, seen = [], {}
    for row in slices_of_folder(folder, tuple(stacks)):
        readers = {f"{READER_COLUMNS}{name.removeprefix('masks_')}": row.pop(name)
                   for name in READERS}
        twin = seen.setdefault(row["image_sha256"], row["case_id"])
        again = twin != row["case_id"]
        if again:  # a manifest has no file twice
            row.update(image=None, image_sha256=None)
        rows.append({"cohort": "longciu", "patient_id": f"L{row['case_id']}", "role": "external",
                     **row, **readers, "mask_kind": "ggo+high_opacity", "protocol": "non-contrast",
                     "centre": "Iowa", "n_slices": 1, "exclude": int(again),
                     "exclude_reason": f"the same picture as {twin}" if again else None})
    return pd.DataFrame(rows, columns=[*COLUMNS, *(f"{READER_COLUMNS}{k}" for k in (1, 2, 3))])
