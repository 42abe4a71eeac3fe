"""Tables that checklists ask for, made of any run: acquisition, failures, every choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from great_tables import GT

from deeplung_nb.cohorts.cases import list_cohorts
from deeplung_nb.labels import ROLES, TITLES
from deeplung_nb.report.every_choice import (
    choices_frame,
    draw_choices,
    every_choice,
    format_choices,
)
from deeplung_nb.report.numbers import MISSING, fixed
from deeplung_nb.report.style import save_figure
from deeplung_nb.report.tables import format_frame, save_table
from deeplung_nb.runs import Run
from deeplung_nb.runs.study_record import StudyRecord

ACQUISITION = {"extra_kvp": "tube voltage, kVp", "extra_kernel": "kernel",
               "extra_ctdi_mgy": "CTDIvol, mGy", "extra_thickness_mm": "slice thickness, mm",
               "slice_gap_mm": "distance of slices, mm", "n_slices": "slices",
               "scanner": "scanner", "protocol": "contrast medium"}
"""Columns of a manifest -> words; `extra_...` are those that `deeplung-nb manifest` writes."""
NUMBERS = ("extra_kvp", "extra_ctdi_mgy", "extra_thickness_mm", "slice_gap_mm", "n_slices")
MOST_LEVELS = 12
WORST = 5


def acquisition(people: pd.DataFrame) -> pd.DataFrame:
    """How the CTs of each role were made, by the manifest.

    Returns
    -------
    DataFrame
        One row for each role and characteristic, or level of one: `role, characteristic, level,
        n_total, n_known, n, median, low, high`; numbers have the last three, levels `n`.
    """
    rows: list[dict[str, Any]] = []
    for role, part in people.groupby("role", sort=True):
        for column, words in ACQUISITION.items():
            if column not in part:
                continue
            known: Any = part[column].replace({"": np.nan, "unknown": np.nan}).dropna()
            row = {"role": role, "characteristic": words, "n_total": len(part),
                   "n_known": len(known)}
            numbers: Any = pd.to_numeric(known, errors="coerce")
            if column in NUMBERS and len(known) and numbers.notna().all():
                rows.append({**row, "level": "", "median": float(numbers.median()),
                             "low": float(numbers.min()), "high": float(numbers.max())})
            elif len(known):
                levels = known.astype(str).value_counts()
                rows += [{**row, "level": str(level), "n": int(n)} for level, n in
                         levels.head(MOST_LEVELS).sort_index().items()]
                if len(levels) > MOST_LEVELS:
                    rows.append({**row, "level": f"{len(levels) - MOST_LEVELS} others",
                                 "n": int(levels.iloc[MOST_LEVELS:].sum())})
    return pd.DataFrame(rows, columns=["role", "characteristic", "level", "n_total", "n_known",
                                       "n", "median", "low", "high"])


def format_acquisition(frame: pd.DataFrame) -> GT:
    """`acquisition` for print."""
    def cell(row: Any) -> str:
        if row.level:
            return f"{int(row.n)} of {row.n_known}"
        return f"{row.median:g} ({row.low:g} to {row.high:g})"

    rows: list[Any] = list(frame.itertuples())
    display = pd.DataFrame({
        "Group": [ROLES.get(row.role, row.role) for row in rows],
        "Acquisition": [f"{row.characteristic}{f': {row.level}' if row.level else ''}"
                        for row in rows],
        "Median (range), or scans": [cell(row) for row in rows],
        "Known of": [f"{row.n_known} of {row.n_total}" for row in rows]})
    return format_frame(display, "acquisition", "How the CTs were made", notes=[
        "As the manifest has it: what it does not say is not known."], stub="Acquisition",
        group="Group")


def failures(table: pd.DataFrame, reader: str = "model") -> pd.DataFrame:
    """Cases that failed or were not read, with their reasons, and those read worst.

    Returns
    -------
    DataFrame
        `role, cohort, case_id, what, dice, missed_ml, added_ml, note`; of the worst the lesion's,
        `WORST` a role.
    """
    rows: list[dict[str, Any]] = []
    mine: Any = table[table["reader"] == reader]
    key = ["role", "cohort", "case_id"]
    odd = mine[mine["status"] != "ok"].drop_duplicates(key)
    for row in odd.to_dict("records"):
        rows.append({**{name: row[name] for name in key}, "what": row["status"],
                     "note": row["note"]})
    ok = mine[(mine["status"] == "ok") & (mine["structure"] == "lesion")].dropna(subset="dice")
    groups: Any = ok.groupby("role", sort=True)
    for _, part in groups:
        worst = part.sort_values(["dice", "case_id"], kind="stable").head(WORST)
        for row in worst.to_dict("records"):
            ml = row["voxel_mm3"] / 1000.0
            rows.append({**{name: row[name] for name in key}, "what": "lowest Dice",
                         "dice": row["dice"], "missed_ml": row["fn"] * ml,
                         "added_ml": row["fp"] * ml, "note": row["note"]})
    return pd.DataFrame(rows, columns=[*key, "what", "dice", "missed_ml", "added_ml", "note"])


def format_failures(frame: pd.DataFrame) -> GT:
    """`failures` for print."""
    rows: list[Any] = list(frame.itertuples())
    display = pd.DataFrame({
        "Group": [ROLES.get(row.role, row.role) for row in rows],
        "Case": [f"{row.cohort} {row.case_id}" for row in rows],
        "Why it is here": [row.what for row in rows],
        "Dice": [fixed(row.dice, 3) for row in rows],
        "Missed, mL": [fixed(row.missed_ml) for row in rows],
        "Added, mL": [fixed(row.added_ml) for row in rows],
        "Note": [MISSING if pd.isna(row.note) or not str(row.note) else str(row.note)
                 for row in rows]})
    failed = sum(what != "lowest Dice" for what in frame["what"])
    return format_frame(
        display, "failures", "Failures, and the cases read worst",
        notes=[f"{failed} case(s) failed or were not read: they stay in the table as such, and no "
               "value is imputed. Below them the cases with the lowest Dice of any lesion, of each "
               "group: lesion that was missed, and what was marked beside it."],
        stub="Case", group="Group")


def write_record_tables(run: Run, table: pd.DataFrame, record: StudyRecord) -> None:
    """Acquisition, failures and every choice, as tables and figures of the run."""
    try:
        people = pd.concat([one.included for one in list_cohorts(run)], ignore_index=True)
    except (ValueError, OSError):  # a recorded run: its manifests are elsewhere
        people = None
    if people is not None:
        made = acquisition(people)
        if len(made):
            save_table(format_acquisition(made), made, run, "acquisition")
    if "model" in set(table["reader"]):
        wrong = failures(table)
        save_table(format_failures(wrong), wrong, run, "failures")
    margin = record.said.get("margin.ml")
    found = every_choice(table, None if margin is None else float(margin))
    if not found:
        return
    frame = choices_frame(found)
    save_table(format_choices(frame, margin), frame, run, "every_choice")
    for role in dict.fromkeys(key[0] for key in found):
        key = (role, "lesion", "bias")
        if key in found:
            title = f"Bias of {TITLES['lesion'].lower()}, {ROLES.get(role, role)}"
            save_figure(draw_choices(found[key], title), run, f"every_choice_{role or 'all'}",
                        found[key].sentence)
