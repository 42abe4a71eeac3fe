"""Several readers and the machine, for print."""

from __future__ import annotations

from typing import Any

import pandas as pd
from great_tables import GT

from deeplung_nb.labels import CONSENSUS, READER_PREFIX, ROLES, TITLES
from deeplung_nb.report.numbers import fixed, with_interval
from deeplung_nb.report.tables import format_frame


def reader_title(name: str) -> str:
    """What a reader is called in print."""
    return {"expert": "Expert", "model": "Automatic", **CONSENSUS}.get(
        name, name.removeprefix(READER_PREFIX))


def format_panel(frame: pd.DataFrame) -> GT:
    """The machine among the readers, from `stats.panel.panel_table`."""
    rows: list[Any] = list(frame.itertuples())
    display = pd.DataFrame({
        "Group": [f"{row.cohort}, {ROLES.get(row.role, row.role)}" for row in rows],
        "Structure": [TITLES[row.structure] for row in rows],
        "n": [str(row.n) for row in rows], "Readers": [str(row.readers) for row in rows],
        "Between readers, mL": [fixed(row.between_readers) for row in rows],
        "Machine and readers, mL": [fixed(row.with_machine) for row in rows]})
    display["Difference, mL"] = [with_interval(row.difference, row.difference_ci_lower,
                                               row.difference_ci_upper) for row in rows]
    display["Within the readers"] = [f"{100 * row.within_range:.0f} %" for row in rows]
    return format_frame(
        display, "panel", "The machine among the readers",
        notes=["Mean distance of two readers, and of the machine and a reader; their difference "
               "[95 % interval]: the machine may stand in for a reader where its upper end lies "
               "below a margin that was declared beforehand. Within: share of cases in which the "
               "machine lies from the lowest reading to the highest."],
        stub="Structure", group="Group")


def format_dice_between(frame: pd.DataFrame) -> GT:
    """Dice of every two readers, from `stats.panel.dice_between_readers`."""
    rows: list[Any] = list(frame.itertuples())
    display = pd.DataFrame({
        "Group": [f"{ROLES.get(row.role, row.role)}, {TITLES[row.structure]}" for row in rows],
        "Readers": [f"{reader_title(row.first)} and {reader_title(row.second)}" for row in rows],
        "n": [str(row.n) for row in rows],
        "Dice": [f"{fixed(row.mean, 3)} ± {fixed(row.sd, 3)}" for row in rows],
        "Median": [fixed(row.median, 3) for row in rows]})
    return format_frame(display, "dice_between_readers", "Dice of every two readers",
                        notes=["Mean ± SD over the cases in which one of both sees it."],
                        stub="Readers", group="Group")
