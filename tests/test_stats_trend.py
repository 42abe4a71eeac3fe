"""Slopes that unequal spread does not invent, and patients that no statistic forgets."""

import itertools

import numpy as np
import pandas as pd
import pytest

from deeplung_nb import measurements
from deeplung_nb.measurements.columns import patient_column
from deeplung_nb.measurements.spreadsheets import CsvError
from deeplung_nb.report.prose import report_text
from deeplung_nb.stats import agreement, classes, clusters, correlation, equivalence, reliability
from deeplung_nb.stats import trend as room
from deeplung_nb.stats.summary import agreement_row
from deeplung_nb.stats.trend import proportional_bias


@pytest.fixture
def cases(shared_data):
    """A table of ../shared/cases/statistics by its name."""
    folder = shared_data("README.md").parent.parent / "cases" / "statistics"
    if not folder.is_dir():
        pytest.skip(f"no cases at {folder}")
    return lambda name: folder / f"{name}.csv"


def test_p_is_the_share_of_all_turns_of_signs_listed_by_hand(monkeypatch):
    rng = np.random.default_rng(0)
    mean, who = rng.uniform(10, 100, 12), np.repeat(np.arange(6), 2)
    d = 0.05 * mean + rng.normal(0, 3, 12)
    monkeypatch.setattr(room, "_weights", lambda mean, d: np.ones(len(mean)))

    def studentized(y):
        x, y = mean - mean.mean(), y - y.mean()
        slope = x @ y / (x @ x)
        score = np.bincount(who, x * (y - slope * x))
        return abs(slope) / np.sqrt(score @ score)

    observed, residual = studentized(d), d - d.mean()
    turned = [studentized(d.mean() + np.array(signs)[who] * residual)
              for signs in itertools.product((1, -1), repeat=6)]
    wanted = np.mean(np.array(turned) >= observed * (1 - 1e-9))
    found = proportional_bias(mean - d / 2, mean + d / 2, who)
    assert found.p_value == pytest.approx(wanted)
    assert found.n_clusters == 6
    assert found.slope == pytest.approx(np.polyfit(mean, d, 1)[0])


def test_the_interval_holds_the_slopes_that_are_not_rejected():
    rng = np.random.default_rng(1)
    mean = rng.uniform(10, 100, 40)
    d = 0.1 * mean + rng.normal(0, 4, 40)
    found = proportional_bias(mean - d / 2, mean + d / 2)
    for end in found.slope_ci:
        shifted = d - end * mean
        assert proportional_bias(mean - shifted / 2, mean + shifted / 2).p_value == pytest.approx(
            0.05, abs=0.01)


@pytest.mark.parametrize("n", [300, 5000])
def test_copies_of_a_pair_as_one_patient_change_no_p(n):
    rng = np.random.default_rng(2)
    a = rng.gamma(1, 50, n)
    b = a * (1 + 0.1 * rng.normal(size=n))
    one = proportional_bias(a, b)
    twice = proportional_bias(np.tile(a, 2), np.tile(b, 2), np.tile(np.arange(n), 2))
    assert twice.p_value == pytest.approx(one.p_value, abs=1e-3)
    assert twice.slope == pytest.approx(one.slope)
    assert one.method == ("normal" if n > room.MANY else "wild bootstrap")


@pytest.mark.parametrize(("a", "b", "why"), [
    ([1, 2], [1, 3], "2 pairs"), ([5, 5, 5], [5, 5, 5], "all means or differences"),
    ([1, 2, 3], [2, 3, 4], "all means or differences")])
def test_no_trend_has_a_reason(a, b, why):
    found = proportional_bias(a, b)
    assert why in found.reason
    assert np.isnan([found.slope, *found.slope_ci, found.p_value]).all()


def test_no_slope_is_reported_of_two_readers_with_the_same_error(cases):
    pairs = pd.read_csv(cases("slope_exchangeable_readers"))
    assert agreement.bland_altman(pairs.reference, pairs.test).slope_p < 0.001  # as others print
    row = agreement_row(pairs)
    assert row["slope_p"] > 0.05
    assert row["slope_lower"] < 0 < row["slope_upper"]
    assert "proportional bias" not in row["flags"]
    assert "changed with the size of the reading" not in report_text(pairs)


def test_a_true_slope_is_reported_with_what_else_would_make_it():
    rng = np.random.default_rng(3)
    a = rng.uniform(10, 300, 60)
    pairs = pd.DataFrame({"reference": a, "test": 1.2 * a * (1 + 0.05 * rng.normal(size=60))})
    text = report_text(pairs)
    assert "The difference changed with the size of the reading" in text
    assert "unequal error variances of the two readers alone would make such a slope" in text


def test_limits_of_patients_of_whom_few_repeat_are_those_of_the_differences(cases):
    pairs = pd.read_csv(cases("one_patient_twice"))
    d = pairs.test - pairs.reference
    row = agreement_row(pairs)
    assert row["sd"] == pytest.approx(d.std(), rel=0.02)
    assert row["loa_lower"] == pytest.approx(d.mean() - 1.96 * d.std(), rel=0.02)
    assert "variance between subjects came out negative" in row["reasons"]


def test_one_patient_with_two_scans_hardly_changes_the_limits():
    for k in range(200):
        d = np.random.default_rng(k).normal(0, 5, 41)
        frame = pd.DataFrame({"p": [*range(40), 0], "a": 0.0, "b": d})
        found = reliability.clustered_limits(frame, "p", "a", "b")
        assert 0.9 < found.sd / d.std(ddof=1) < 1.1


def test_equivalence_is_of_patients_where_they_have_several(cases):
    pairs = pd.read_csv(cases("tost_clustered"))
    by_pairs = equivalence.tost(pairs.reference, pairs.test, 2)
    found = equivalence.tost(pairs.reference, pairs.test, 2, cluster=pairs.patient_id)
    row = agreement_row(pairs)
    assert found.p_value > 10 * by_pairs.p_value
    assert found.bias == pytest.approx(row["bias"])
    # The 90 % interval lies within the 95 % one of the same row.
    assert row["bias_lower"] < found.bias_ci[0] < found.bias_ci[1] < row["bias_upper"]
    text = report_text(pairs, margin=2)
    assert "(TOST, 5 %; on the patients)" in text
    each = equivalence.tost(pairs.reference, pairs.test, 2, cluster=np.arange(len(pairs)))
    assert each == by_pairs
    assert "one patient" in equivalence.tost([1, 2], [2, 4], 3, cluster=["a", "a"]).reason


@pytest.mark.parametrize("name", ["patient_id", "Patient_ID", "PatientID", "patient", "Patient ID",
                                  "SUBJECT", "participant-id", "PID"])
@pytest.mark.parametrize("shape", ["wide", "long"])
def test_a_patient_is_found_however_her_column_is_spelt(name, shape):
    rng = np.random.default_rng(4)
    wide = pd.DataFrame({name: np.repeat(list("abcde"), 3), "case_id": range(15),
                         "A": rng.normal(50, 5, 15), "B": rng.normal(50, 5, 15)})
    if shape == "wide":
        table = measurements.from_wide(wide, {"e": "A", "m": "B"}, unit="mL")
    else:
        tall = wide.melt([name, "case_id"], ["A", "B"], "reader", "ml")
        table = measurements.from_long(tall, reading="ml", unit="mL")
    first, second = sorted(set(table.reader))
    row = agreement_row(measurements.pair(table, first, second, "lesion"))
    assert (row["n"], row["n_patients"], row["independent"]) == (15, 5, "patients")
    assert agreement_row(wide.rename(columns={"A": "reference", "B": "test"}))["n_patients"] == 5


def test_a_patients_column_can_be_named_and_two_of_them_are_warned_of():
    wide = pd.DataFrame({"who": list("aabb"), "case_id": range(4), "A": [1.0, 2, 3, 4],
                         "B": [2.0, 2, 3, 5]})
    table = measurements.from_wide(wide, {"e": "A", "m": "B"}, unit="mL", patient_id="who")
    assert table.patient_id.nunique() == 2
    with pytest.raises(ValueError, match=r"missing column.* whom"):
        measurements.from_wide(wide, {"e": "A", "m": "B"}, unit="mL", patient_id="whom")
    with pytest.warns(UserWarning, match=r"'Patient' is taken .* Subject look\(s\) like it too"):
        assert patient_column(["Patient", "Subject", "a"]) == "Patient"
    assert patient_column(["Patient", "a"], used=["Patient"]) is None


def test_the_patients_of_a_table_from_elsewhere_are_counted(cases):
    table = measurements.from_wide(cases("patient_column_ignored"), {"e": "A", "m": "B"}, unit="mL")
    row = agreement_row(measurements.pair(table, "e", "m", "lesion"))
    assert (row["bias_lower"], row["bias_upper"]) == pytest.approx((-1.35, 4.83), abs=0.01)
    assert row["signed_rank_p"] == pytest.approx(0.22, abs=0.005)


@pytest.mark.parametrize(("x", "y", "p"), [
    ([1, 2, 3], [1, 2, 3], 1 / 3), ([1, 2, 3, 4], [4, 3, 2, 1], 1 / 12),
    ([1, 2, 3, 4, 5], [1, 3, 2, 4, 5], 1 / 12)])
def test_spearmans_p_is_exact_below_ten_pairs(x, y, p):
    """R: cor.test(method = "spearman", exact = TRUE)."""
    assert correlation.spearman(x, y).p_value == pytest.approx(p)


def test_exact_p_with_ties_is_the_share_of_all_orders():
    x, y = [1, 1, 2, 3, 4, 4], [2, 1, 2, 5, 3, 3]
    found = correlation.spearman(x, y)
    orders = [correlation.stats.spearmanr(x, order).statistic
              for order in itertools.permutations(y)]
    assert found.p_value == pytest.approx(np.mean(np.abs(orders) >= abs(found.r) - 1e-9))


def test_unequal_clusters_have_the_weights_of_the_source(cases):
    table = pd.read_csv(cases("rgl_unbalanced"))
    found = clusters.signed_rank(table.a, table.b, table.p)
    assert found.p_value == pytest.approx(0.5730, abs=5e-5)


def test_a_class_that_nobody_used_is_a_class(cases):
    table = pd.read_csv(cases("kappa_unused_class"))
    assert classes.weighted_kappa(table["first"], table.second).kappa == pytest.approx(
        0.538, abs=1e-3)
    with_all = classes.weighted_kappa(table["first"], table.second, levels=range(5))
    assert with_all.kappa == pytest.approx(0.611, abs=1e-3)  # scikit-learn, labels=range(5)
    words = dict(enumerate(("none", "mild", "moderate", "severe", "critical")))
    as_text = classes.weighted_kappa(table["first"].map(words), table.second.map(words),
                                     levels=list(words.values()))
    assert as_text.kappa == with_all.kappa
    with pytest.raises(ValueError, match="second: class dire is none of the levels"):
        classes.weighted_kappa(["none"], ["dire"], levels=["none", "mild"])


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_ragged_rows_are_named_by_their_lines(tmp_path, sign):
    path = tmp_path / "ragged.csv"
    path.write_text("case_id,a,b\n1,2,3\n2,3\n\n3,4,5,\n4,5,6\n5,6,7\n6,7,8\n7,8,9\n".replace(
        ",", sign))
    with pytest.raises(CsvError, match=r"first row has 3 fields, line\(s\) 3, 5 have more or"):
        measurements.from_wide(path, {"e": "a", "m": "b"}, unit="mL")
