"""A machine among several readers, and the mean of readers."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from deeplung_nb import measurements
from deeplung_nb.stats import (
    classes,
    mixed,
    readers,
    summary,
)
from tests.stats_cases import long, readings


def volumes(**columns):
    return measurements.from_wide(pd.DataFrame({"case_id": list("xyz"), **columns}),
                                  {name: name for name in columns}, unit="mL")


@pytest.mark.parametrize("measure", readers.MEASURES)
def test_the_machine_is_compared_with_each_reader_and_readers_with_each_other(measure):
    table = readings(1, k=4, holes=0.15)
    frame = long(table, ["a", "b", "c", "machine"])
    found = readers.interchangeability(frame, "s", "r", "v", "machine", measure=measure)
    between, beside, n = [], [], 0
    for row in table:
        read = [v for v in row[:3] if np.isfinite(v)]
        if len(read) < 2 or np.isnan(row[3]):
            continue
        n += 1
        power = 1 if measure == "absolute" else 2
        between.append(np.mean([abs(x - y) ** power for x, y in itertools.combinations(read, 2)]))
        beside.append(np.mean([abs(x - row[3]) ** power for x in read]))
    assert (found.n, found.n_missing) == (n, len(table) - n)
    assert 0 < found.n_missing
    assert found.between_readers == pytest.approx(np.mean(between))
    assert found.with_machine == pytest.approx(np.mean(beside))
    d = np.subtract(beside, between)
    assert found.difference_ci == pytest.approx(stats.ttest_1samp(d, 0).confidence_interval())
    assert found.ratio == pytest.approx(np.mean(beside) / np.mean(between))
    assert found.ratio_ci[0] < found.ratio < found.ratio_ci[1]


def test_the_ratio_holds_1_where_the_difference_holds_0():
    for seed in range(40):
        table = readings(seed, n=10, k=4, error=3.0)
        found = readers.interchangeability(long(table, ["a", "b", "c", "m"]), "s", "r", "v", "m")
        low, high = found.ratio_ci
        assert (low <= 1 <= high) == (found.difference_ci[0] <= 0 <= found.difference_ci[1])
        assert 0 <= low <= found.ratio <= high
    # Readers who nearly always agree: how many times as far the machine is has no upper bound.
    table = np.column_stack([np.zeros(6), [0, 0, 0, 0, 0, 3.0], np.arange(6.0)])
    found = readers.interchangeability(long(table, ["a", "b", "m"]), "s", "r", "v", "m")
    assert np.isinf(found.ratio_ci[1])


def test_a_machine_worse_than_the_readers_is_called_so_and_a_twin_of_them_is_not():
    rng = np.random.default_rng(3)
    truth = rng.lognormal(3, 1, 80)
    three = truth[:, None] + rng.normal(0, 2, (80, 3))
    worse = long(np.column_stack([three, truth + rng.normal(0, 8, 80)]), ["a", "b", "c", "m"])
    found = readers.interchangeability(worse, "s", "r", "v", "m")
    assert found.difference_ci[0] > 0
    assert found.ratio_ci[0] > 1
    assert found.within_range < 0.4 < found.within_range_expected == 0.5
    twin = long(np.column_stack([three, truth + rng.normal(0, 2, 80)]), ["a", "b", "c", "m"])
    found = readers.interchangeability(twin, "s", "r", "v", "m")
    assert found.difference_ci[0] < 0 < found.difference_ci[1]
    assert found.within_range == pytest.approx(0.5, abs=0.15)


def test_lesions_of_a_patient_count_together():
    table = readings(5, n=12, k=3)
    alone = readers.interchangeability(long(table, ["a", "b", "m"]), "s", "r", "v", "m")
    copies = long(np.repeat(table, 4, axis=0), ["a", "b", "m"], np.repeat(np.arange(12), 4))
    found = readers.interchangeability(copies, "s", "r", "v", "m", patient="p")
    assert (found.n, found.n_patients) == (48, 12)
    assert found.difference_ci == pytest.approx(alone.difference_ci)
    assert found.ratio_ci == pytest.approx(alone.ratio_ci)
    naive = readers.interchangeability(copies, "s", "r", "v", "m")
    assert np.ptp(naive.difference_ci) < 0.6 * np.ptp(found.difference_ci)


def test_what_readers_can_not_tell_is_refused_or_has_a_reason():
    frame = long(readings(1, n=6, k=3), ["a", "b", "m"])
    with pytest.raises(ValueError, match="machine 'net' is not in the column 'r'"):
        readers.interchangeability(frame, "s", "r", "v", "net")
    with pytest.raises(ValueError, match="more than one reading"):
        readers.interchangeability(pd.concat([frame, frame[:1]]), "s", "r", "v", "m")
    torn = frame.assign(p=[*range(9), *range(9)])
    with pytest.raises(ValueError, match="of more than one p"):
        readers.interchangeability(torn, "s", "r", "v", "m", patient="p")
    lone = readers.interchangeability(frame[frame.r != "b"], "s", "r", "v", "m")
    assert lone.n == 0
    assert "two readers" in lone.reason
    few = readers.interchangeability(frame[frame.s < 3], "s", "r", "v", "m")
    assert np.isnan(few.difference_ci).all()
    assert "fewer than 4 patients" in few.reason
    same = frame.assign(v=frame.v.where(frame.r == "m", 7.0))
    assert readers.interchangeability(same, "s", "r", "v", "m").reason == \
        "the readers never differ: no ratio"


def test_the_mean_of_readers_is_a_reader_as_any_other():
    table = volumes(ann=[10.0, 20, 30], bob=[14.0, 20, 36], model=[11.0, 24, 30])
    more = readers.add_mean_reader(table, ["ann", "bob"])
    pairs = measurements.pair(more, "mean of readers", "model", "lesion")
    assert pairs.reference.tolist() == [12.0, 20.0, 33.0]
    assert pairs.test.tolist() == [11.0, 24.0, 30.0]
    assert len(more) == 12
    # A value that one of them has not (as burden without lungs) is none of the mean either.
    table = table.assign(burden_percent=[1.0, 2.0, 3.0] * 3)
    table.loc[(table.reader == "bob") & (table.case_id == "y"), "burden_percent"] = np.nan
    mean = readers.add_mean_reader(table, ["ann", "bob"]).query("reader == 'mean of readers'")
    assert mean.set_index("case_id").burden_percent.isna().to_dict() == {
        "x": False, "y": True, "z": False}
    with pytest.raises(ValueError, match="expected two or more of ann, bob, model"):
        readers.add_mean_reader(table, ["ann", "eve"])
    with pytest.raises(ValueError, match="give another"):
        readers.add_mean_reader(table, ["ann", "bob"], "model")


def test_a_mean_without_one_of_its_readers_is_asked_about():
    table = volumes(ann=[10.0, 20, 30], bob=[14.0, 20, 36])
    gone = table[~((table.reader == "bob") & (table.case_id == "y"))]
    with pytest.raises(ValueError, match="case 'y', lesion: read by 1 of 2"):
        readers.add_mean_reader(gone, ["ann", "bob"])
    kept = readers.add_mean_reader(gone, ["ann", "bob"], missing="drop")
    mean = kept[kept.reader == "mean of readers"].set_index("case_id")
    assert mean.status.to_dict() == {"x": "ok", "y": "failed", "z": "ok"}
    assert mean.note["y"] == "not read by all of ann, bob"
    assert mean.volume_ml["z"] == 33.0
    table = summary.agreement_table(kept, reference="mean of readers", test="ann",
                                    by=("structure",))
    assert table.loc[0, ["n", "n_failed"]].tolist() == [2, 1]


def test_subjects_of_two_patients_are_refused_and_a_subject_may_be_the_patient():
    torn = pd.DataFrame({"s": [1, 1, 1, 1, 2, 2], "r": list("abcdab"), "v": [0, 1, 0, 1, 1, 1.0],
                         "p": list("AABBCC")})
    with pytest.raises(ValueError, match="subject '1' is of more than one p"):
        classes.fleiss_kappa(torn, "s", "r", "v", patient="p")
    frame = long(readings(3, n=8, k=3), ["a", "b", "m"])
    same = readers.interchangeability(frame, "s", "r", "v", "m", patient="s")
    assert same == readers.interchangeability(frame, "s", "r", "v", "m")


def test_who_was_not_read_at_all_is_counted():
    table = readings(2, n=6, k=3)
    table[5] = np.nan
    found = mixed.icc_reml(long(table), "s", "r", "v")
    assert (found.n, found.n_missing) == (5, 3)
    failed = long(np.column_stack([table[:, :2], np.full(6, np.nan)]), ["a", "b", "m"])
    none = readers.interchangeability(failed, "s", "r", "v", "m")
    assert (none.n, none.n_missing) == (0, 6)
    assert none.reason == "no subject with the machine's and two readers' readings"
