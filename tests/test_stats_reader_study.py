"""The sums of a reader study, of a pilot whose readers do what is known."""

# ruff: noqa: F811
import numpy as np
import pandas as pd
import pytest
from test_reader_study import ML_A_ROW, pilot  # noqa: F401

from deeplung_nb.reading.study_table import study_table
from deeplung_nb.stats import reader_study as sums


def test_readers_repeat_themselves_as_they_did(pilot):
    found = sums.within_readers(study_table(pilot))
    lesion = found[found.structure == "lesion"]
    assert lesion.groupby("reader").n.sum().tolist() == [3, 3]
    assert np.allclose(lesion.mean_difference, ML_A_ROW)
    three = sums.within_readers(pd.DataFrame({
        "case_id": list("abcabc"), "reader": "R", "arm": "unaided", "occasion": [1] * 3 + [2] * 3,
        "structure": "lesion", "volume_ml": [10.0, 20, 30, 12, 18, 30]})).iloc[0]
    # By hand: differences 2, -2, 0 give a within-subject variance of (4 + 4 + 0) / 2 / 3.
    assert three.within_sd == pytest.approx((8 / 6) ** 0.5)
    assert three.coefficient == pytest.approx(1.959964 * 2 ** 0.5 * (8 / 6) ** 0.5, rel=1e-5)


def test_readers_differ_from_each_other_and_the_machine_from_them(pilot):
    found = sums.between_readers(study_table(pilot)).set_index(["arm", "structure"])
    row = found.loc["unaided", "lesion"]
    assert (row.n, row.readers) == (6, 2)
    # AB marks what the machine does, CD a row more: readers differ by a row, the machine by half.
    assert row.difference == pytest.approx(-ML_A_ROW / 2)
    values = np.array([[2 + k, 3 + k] for k in range(6)], float)
    ms = values.mean(axis=1).var(ddof=1) * 2
    mc = values.mean(axis=0).var(ddof=1) * 6
    assert row.icc == pytest.approx(ms / (ms + 2 * mc / 6), rel=1e-9)
    assert np.isnan(found.loc["correcting", "lesion"].difference)  # they have seen its marks


def test_time_is_compared_by_case_and_reader(pilot):
    row = sums.time_saved(study_table(pilot)).iloc[0]
    assert (row.arm, row.n, row.cases, row.readers) == ("correcting", 12, 6, 2)
    assert (row.mean_without, row.mean_with) == (60.0, 30.0)
    assert row.ratio == pytest.approx(0.5)
    assert row.ratio_low <= 0.5 + 1e-9
    assert row.p == pytest.approx(2 / 2 ** 6)  # all six cases on one side
    table = study_table(pilot)
    table.loc[(table.case_id == "case-3") & (table.reader == "AB")
              & (table.arm == "unaided"), "seconds"] = 0.0
    row = sums.time_saved(table).iloc[0]
    assert (row.n, row.n_without_time) == (11, 1)


def test_what_was_corrected_is_summed(pilot):
    row = sums.corrections(study_table(pilot)).set_index("structure").loc["lesion"]
    table = study_table(pilot)
    mine = table[(table.arm == "correcting") & (table.structure == "lesion")]
    assert row.n == len(mine)
    assert row.added_ml == pytest.approx(mine.added_ml.mean())


def test_a_dice_is_compared_where_there_is_one_before_and_after():
    frame = pd.DataFrame({"arm": "correcting", "structure": "lesion", "added_ml": 0.0,
                          "removed_ml": 1.0, "slices_changed": 1, "dice_automatic": [1.0, np.nan],
                          "dice_before": [0.8, 0.0], "dice_after": [0.8, np.nan]})
    row = sums.corrections(frame).iloc[0]
    assert (row.n, row.n_dice, row.dice_before, row.dice_after) == (2, 1, 0.8, 0.8)


def test_a_pilot_says_how_many_cases_are_needed():
    rng = np.random.default_rng(0)
    truth = rng.uniform(50, 300, 20)
    rows = [{"case_id": str(k), "reader": reader, "arm": "unaided", "occasion": 1,
             "structure": "lesion", "volume_ml": truth[k] + rng.normal(0, 8),
             "automatic_ml": truth[k] + 2.0} for k in range(20) for reader in ("a", "b", "c")]
    frame = pd.DataFrame(rows)
    some, few = sums.cases_needed(frame, 3.0), sums.cases_needed(frame, 10.0)
    assert some.n > few.n >= 2
    with pytest.raises(ValueError, match="expected 3 and two or more"):
        sums.cases_needed(frame[frame.reader == "a"], 3.0)


@pytest.mark.parametrize("sums_of", [sums.within_readers, sums.between_readers, sums.time_saved,
                                     sums.corrections])
def test_another_table_is_told_so(sums_of):
    with pytest.raises(ValueError, match=r"column\(s\) .* are missing"):
        sums_of(pd.DataFrame({"x": [1]}))
