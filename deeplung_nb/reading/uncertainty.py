"""How far an expert's volume may lie from the network's, by its errors on patients it never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb.stats.tolerance import ratio_range

NEARLY_NOTHING_ML = 1.0
"""An expert's volume up to this has no ratio worth the name."""


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
        `low_ml, high_ml`, the `chance` (at least, of one more patient of their kind) and the number
        of `patients` that it rests on; `stats.tolerance.ratio_range` times the volume. A volume no
        larger than what was falsely marked in a patient without lesion may be none: `low_ml` is 0.
        None where nothing is marked, or too little is known.
    """
    if not unseen or volume_ml <= 0:
        return None
    frame = pd.DataFrame(unseen)
    found = ratio_range(frame["expert"], frame["automatic"], frame["patient_id"],
                        nothing=NEARLY_NOTHING_ML)
    if not np.isfinite(found.chance):
        return None
    low = 0.0 if volume_ml <= found.blank else volume_ml * found.lower
    return {"low_ml": low, "high_ml": volume_ml * found.upper, "chance": found.chance,
            "patients": found.n_patients}
