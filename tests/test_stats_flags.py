"""What a row of agreement flags, and what an empty reading is."""


import numpy as np
import pandas as pd
import pytest

from deeplung_nb import measurements
from deeplung_nb.report import tables
from deeplung_nb.report.prose import report_text
from deeplung_nb.report.word import PrintedTable
from deeplung_nb.stats import summary
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


def test_zero_is_no_absence_where_readings_can_be_negative():
    """Attenuation in HU: nobody "finds" the structure in 0 of 4 cases because all are below 0."""
    frame = pd.DataFrame([
        {"cohort": "c", "role": "cv", "case_id": f"c{k}", "patient_id": f"p{k}", "structure": "ggo",
         "protocol": "plain", "scanner": "s", "centre": "x", "fold": 0, "status": "ok",
         "reader": reader, "burden_percent": 1.0, "mean_hu": -500.0 - 10 * k - shift}
        for k in range(4) for reader, shift in (("expert", 0), ("model", k))])
    dense = frame.assign(structure="high_opacity", mean_hu=-frame["mean_hu"])  # all above 0
    frame = pd.concat([frame, dense])
    table = summary.agreement_table(frame, value="mean_hu")
    assert set(table.structure) == {"ggo", "high_opacity"}
    assert table[["detected_both", "detected_neither", "ratio"]].isna().all(axis=None)
    assert set(table["value"]) == {"mean_hu"}
    pair = measurements.pair(frame, "expert", "model", "ggo", "mean_hu")
    assert "found it" not in report_text(pair, quantity="density", unit="HU")
    with pytest.raises(ValueError, match="of mean_hu 0 is no absence"):
        summary.agreement_table(frame, value="mean_hu", subset="both-positive")
    printed = PrintedTable(tables.format_agreement(table).as_raw_html())
    assert "HU" in str(printed.head)
    assert "mL" not in str(printed.head) + str(printed.body)
