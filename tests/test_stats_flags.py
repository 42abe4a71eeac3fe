"""What a row of agreement flags, and what an empty reading is."""


import numpy as np
import pandas as pd

from deeplung_nb.stats import (
    summary,
)
from tests.stats_cases import RNG


def test_an_empty_reading_is_no_detection_by_anybody():
    pair = pd.DataFrame({"reference": [1.0, np.nan, 2.0, 0.0], "test": [1.0, 3.0, np.nan, 0.0]})
    assert summary.detection(pair) == {"both": 1, "reference_only": 0, "test_only": 0,
                                       "neither": 1}


def test_the_flag_tells_a_spread_that_shrinks_from_one_that_grows():
    a = np.linspace(1, 100, 60)
    wobble = np.tile([1.0, -1.0], 30)
    for spread, said in ((0.3 * a, "spread grows with size"),
                         (0.3 * a[::-1], "spread shrinks with size")):
        row = summary.agreement_row(pd.DataFrame({"reference": a, "test": a + wobble * spread}))
        assert said in row["flags"]
        assert row["flags"].count("spread") == 1


def test_too_many_points_outside_their_limits_are_flagged():
    a = 50.0 + np.arange(100) * 0.01
    b = a.copy()
    b[::7] += np.tile([1.0, -1.0], 8)[:15]  # SD 0.39: all fifteen lie beyond 1.96 of it
    row = summary.agreement_row(pd.DataFrame({"reference": a, "test": b}))
    assert "15 % outside the limits, expected 5" in row["flags"]
    row = summary.agreement_row(pd.DataFrame({"reference": a, "test": a + RNG.normal(size=100)}))
    assert "outside the limits" not in row["flags"]
