"""How far an expert's volume may lie from the network's, by its errors on patients it never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb.stats.tolerance import RatioRange, ratio_range

NEARLY_NOTHING_ML = 1.0
"""An expert's volume up to this has no ratio worth the name."""


ENOUGH_TO_LEAVE_OUT = 9
"""With so many patients the most extreme at either end is left out of what is likely."""


def likely_volume(volume_ml: float, unseen: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Between which volumes an expert's volume of any lesion likely lies.

    Parameters
    ----------
    volume_ml
        The network's.
    unseen
        Of its card: `patient_id, expert, automatic` of patients that it had not seen.

    Returns
    -------
    dict or None
        `low_ml, high_ml` and their `chance` (at least, of one more patient of their kind), the same
        by the most extreme patients (`lowest_ml, highest_ml, chance_of_extremes`), and how many
        `patients` it rests on; `stats.tolerance.ratio_range` times the volume. A volume no larger
        than what was falsely marked in a patient without lesion may be none: it begins at 0.
        None where nothing is marked, or too little is known.
    """
    if not unseen or volume_ml <= 0:
        return None
    frame = pd.DataFrame(unseen)

    def range_of(leave: int) -> RatioRange:
        return ratio_range(frame["expert"], frame["automatic"], frame["patient_id"],
                           nothing=NEARLY_NOTHING_ML, leave=leave)

    extremes = range_of(0)
    inner = range_of(1) if extremes.n_patients >= ENOUGH_TO_LEAVE_OUT else extremes
    if not np.isfinite(extremes.chance):
        return None
    may_be_none = volume_ml <= extremes.blank
    return {"low_ml": 0.0 if may_be_none else volume_ml * inner.lower,
            "high_ml": volume_ml * inner.upper, "chance": inner.chance,
            "lowest_ml": 0.0 if may_be_none else volume_ml * extremes.lower,
            "highest_ml": volume_ml * extremes.upper, "chance_of_extremes": extremes.chance,
            "patients": extremes.n_patients}


def likely_words(likely: Mapping[str, Any]) -> str:
    """The same in a sentence."""
    def between(low: float, high: float) -> str:
        return f"{low:,.0f} mL or more" if np.isinf(high) else f"{low:,.0f} to {high:,.0f} mL"

    said = (f"an expert's volume of any lesion: {between(likely['low_ml'], likely['high_ml'])} "
            f"with a chance of {likely['chance']:.0%} or more")
    if likely["chance_of_extremes"] > likely["chance"]:
        said += (f", {between(likely['lowest_ml'], likely['highest_ml'])} with one of "
                 f"{likely['chance_of_extremes']:.0%}")
    return said + f", by the errors on {likely['patients']} patients that were new to the network"
