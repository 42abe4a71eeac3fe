"""How far an expert's volume may lie from the network's, by errors on patients not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb.stats.tolerance import RatioRange, ratio_range

NEARLY_NOTHING_ML = 1.0
"""Where an expert marked no more, what the network marked is false."""
ENOUGH_TO_LEAVE_OUT = 9
"""With so many patients the most extreme at either end is left out of what is likely."""


def likely_volume(volume_ml: float, unseen: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Between which volumes an expert's volume of any lesion likely lies.

    The chances are nominal: they hold for one more patient of the same kind, read in the same way.
    Errors of single networks stand for those of their mean, and slices for volumes.

    Parameters
    ----------
    volume_ml
        The network's.
    unseen
        Of its card: `patient_id, unit, expert, automatic` of patients that were not trained on.

    Returns
    -------
    dict or None
        `low_ml, high_ml` and their `chance`, the same by the most extreme patients (`lowest_ml,
        highest_ml, chance_of_extremes`), and on how many `patients` it rests, `by_slices` of them:
        `stats.tolerance.ratio_range` times the volume. A volume no larger than what was falsely
        marked in a patient with hardly any lesion may be none: it begins at 0. An end that nothing
        bounds is None. None where nothing is marked, or too little is known.
    """
    if not unseen or volume_ml <= 0:
        return None
    frame = pd.DataFrame(unseen)
    volumes = frame[frame["unit"] == "mL"]
    false_ml = volumes.loc[volumes["expert"] <= NEARLY_NOTHING_ML, "automatic"].max()

    def range_of(leave: int) -> RatioRange:
        return ratio_range(frame["expert"], frame["automatic"], frame["patient_id"], leave=leave)

    def end(ratio: float) -> float | None:
        return float(volume_ml * ratio) if np.isfinite(ratio) else None

    extremes = range_of(0)
    inner = range_of(1) if extremes.n_patients >= ENOUGH_TO_LEAVE_OUT else extremes
    if not np.isfinite([extremes.chance, inner.lower]).all():
        return None
    may_be_none = volume_ml <= false_ml  # never where no such patient is known
    return {"low_ml": 0.0 if may_be_none else end(inner.lower), "high_ml": end(inner.upper),
            "chance": inner.chance,
            "lowest_ml": 0.0 if may_be_none else end(extremes.lower),
            "highest_ml": end(extremes.upper), "chance_of_extremes": extremes.chance,
            "patients": extremes.n_patients,
            "by_slices": int(frame.loc[frame["unit"] != "mL", "patient_id"].nunique())}


def likely_words(likely: Mapping[str, Any]) -> str:
    """The same in a sentence."""
    def between(low: float, high: float | None, chance: float) -> str:
        ends = f"{low:,.0f} mL or more" if high is None else f"{low:,.0f} to {high:,.0f} mL"
        return f"{ends} (nominal chance {chance:.0%})"

    said = between(likely["low_ml"], likely["high_ml"], likely["chance"])
    if likely["chance_of_extremes"] > likely["chance"]:
        said += ", " + between(likely["lowest_ml"], likely["highest_ml"],
                               likely["chance_of_extremes"])
    slices = f", {likely['by_slices']} of them by one slice" if likely["by_slices"] else ""
    return (f"an expert's volume of any lesion: {said}, by the errors on {likely['patients']} "
            f"patients that were not trained on{slices}")
