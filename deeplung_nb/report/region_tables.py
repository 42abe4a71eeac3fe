"""Volumes by region of the lungs, for print."""

from __future__ import annotations

from typing import Any

import pandas as pd
from great_tables import GT

from deeplung_nb.labels import REGIONS, ROLES, VALUES
from deeplung_nb.report.numbers import with_interval
from deeplung_nb.report.tables import format_frame


def _called(region: str) -> str:
    words, unit = VALUES[region] if region in VALUES else (REGIONS[region], "mL")
    return f"{words.capitalize()}, {unit}"


def format_regions(frame: pd.DataFrame) -> GT:
    """Agreement by region, from `stats.regions.region_table`."""
    rows: list[Any] = list(frame.itertuples())
    display = pd.DataFrame({
        "Group": [f"{row.cohort}, {ROLES.get(row.role, row.role)}" for row in rows],
        "Region": [_called(row.region) for row in rows],
        "n (patients)": [f"{row.n} ({row.n_patients})" for row in rows]})
    for side, title in (("reference", "Expert"), ("test", "Automatic")):
        display[title] = [with_interval(*(getattr(row, f"{side}_{part}")
                                          for part in ("median", "q1", "q3"))) for row in rows]
    display["Bias"] = [with_interval(row.bias, row.bias_lower, row.bias_upper) for row in rows]
    display["Spearman ρ"] = [with_interval(row.spearman, row.spearman_lower, row.spearman_upper, 3)
                             for row in rows]
    return format_frame(
        display, "regions", "Volume of any lesion by region of the lungs",
        notes=["Readings: median [quartiles, type 7]; bias (automatic − expert) and ρ: estimate "
               "[95 % interval]. Sides, thirds of the lungs’ height, and depth (peripheral: within "
               "20 mm of the lungs’ surface, or outside of them) each divide the whole. "
               "Percentages are of the lung mask; high opacity is what lies at −200 HU or above."],
        stub="Region", group="Group")
