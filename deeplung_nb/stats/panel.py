"""The machine among several readers of one study, from its table of measurements."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb.labels import people
from deeplung_nb.stats import readers as room


def panel_table(frame: pd.DataFrame, machine: str = "model", value: str = "volume_ml"
                ) -> pd.DataFrame:
    """Whether the machine differs from the readers more than they do from each other.

    Parameters
    ----------
    frame
        A checked table of measurements with two readers or more beside the machine.
    machine, value
        As `readers.interchangeability`.

    Returns
    -------
    DataFrame
        One row for each cohort, role and structure: how many `readers`, then the fields of
        `readers.interchangeability` (patients as such where one has several scans). Empty where
        there is one reader.
    """
    names = people(frame["reader"])
    rows: list[dict[str, Any]] = []
    if len(names) < 2:
        return pd.DataFrame(rows)
    read = frame.loc[frame["reader"].isin([*names, machine]) & frame[value].notna()]
    groups: Any = read.groupby(["cohort", "role", "structure"], sort=False)
    for (cohort, role, structure), part in groups:
        if structure == "lung" or machine not in set(part["reader"]):
            continue
        repeated = len(part[["patient_id", "case_id"]].drop_duplicates()) \
            > part["patient_id"].nunique()
        found = room.interchangeability(part, "case_id", "reader", value, machine,
                                        patient="patient_id" if repeated else None)
        rows.append({"cohort": cohort, "role": role, "structure": structure,
                     "readers": part.loc[part["reader"] != machine, "reader"].nunique(),
                     **found.to_frame().iloc[0].to_dict()})
    return pd.DataFrame(rows)


def dice_between_readers(overlap: pd.DataFrame) -> pd.DataFrame:
    """The mean Dice of every two readers.

    Parameters
    ----------
    overlap
        `cohort, role, case_id, structure, first, second, dice`, of
        `learning.evaluate.overlap_between_readers`; a Dice of two empty masks is empty.

    Returns
    -------
    DataFrame
        `role, structure, first, second, n` (cases where it is defined), `mean, sd, median`.
    """
    if not len(overlap):
        return pd.DataFrame()
    groups = overlap.assign(dice=overlap["dice"].astype(float)).groupby(
        ["role", "structure", "first", "second"], sort=False)["dice"]
    return groups.agg(n="count", mean="mean", sd=lambda one: np.std(one.dropna(), ddof=1)
                      if one.notna().sum() > 1 else np.nan, median="median").reset_index()
