"""Several readings a patient: what is independent is the patient."""

import numpy as np
import pandas as pd
import pytest

from deeplung_nb import measurements
from deeplung_nb.report.prose import report_text
from deeplung_nb.stats import clusters, limits, paired, reliability, summary


def lesions(seed, n_patients=15, between=1.0, shift=0.0):
    """Several lesions a patient, whose differences belong together."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), rng.integers(1, 8, n_patients))
    truth = rng.lognormal(1, 1, len(patient))
    d = shift + rng.normal(0, between, n_patients)[patient] + rng.normal(0, 0.4, len(patient))
    return pd.DataFrame({"reference": truth, "test": truth + d,
                         "patient_id": [f"P{k}" for k in patient]})


def test_one_pair_a_patient_is_the_usual_signed_rank_test():
    rng = np.random.default_rng(1)
    a = rng.uniform(0, 10, 40)
    b = a + rng.normal(0.4, 1, 40)
    found = clusters.signed_rank(a, b, range(40))
    usual = paired.wilcoxon_signed_rank(a, b, method="asymptotic", correction=False)
    assert found.z == pytest.approx(usual.z)
    assert found.p_value == pytest.approx(usual.p_value)
    few = clusters.signed_rank(a[:12], b[:12], range(12))
    exact = paired.wilcoxon_signed_rank(a[:12], b[:12], method="exact")
    assert few.method == "exact"
    assert few.p_value == pytest.approx(exact.p_value)


def called_significant(n_cohorts):
    """Of cohorts of 15 patients between whom nothing but chance differs: p < 0.05, by test."""
    found = {"clustered": 0, "usual": 0}
    for seed in range(n_cohorts):
        pair = lesions(seed)
        found["clustered"] += clusters.signed_rank(
            pair.reference, pair.test, pair.patient_id).p_value < 0.05
        found["usual"] += paired.wilcoxon_signed_rank(pair.reference, pair.test).p_value < 0.05
    return found


def test_the_clustered_test_keeps_its_level_where_the_usual_one_does_not():
    """5 % of the tests may err."""
    found = called_significant(200)
    assert found["clustered"] < 20
    assert found["usual"] > 50


def test_a_patient_without_a_difference_and_empty_readings():
    found = clusters.signed_rank([1.0, 1, 2, 3, None], [1.0, 2, 3, 5, 6], list("aabbc"),
                                 missing="drop")
    assert (found.n, found.n_zero, found.n_clusters, found.n_missing) == (4, 1, 2, 1)
    assert clusters.signed_rank([1, 2], [1, 2], ["a", "b"]).reason == "all differences are zero"
    assert np.isnan(clusters.signed_rank([1, 2], [2, 3], ["a", "a"]).p_value)
    with pytest.raises(ValueError, match="cluster: empty at position 1"):
        clusters.signed_rank([1, 2], [2, 3], ["a", None])
    with pytest.raises(ValueError, match="expected 2 values, one for each pair"):
        clusters.signed_rank([1, 2], [2, 3], ["a"])


def test_copies_of_a_pair_as_its_cluster_tell_nothing_new():
    rng = np.random.default_rng(4)
    a = rng.uniform(0, 10, 30)
    b = a + rng.normal(0.3, 1, 30)

    def bias(x, y, _):
        return float((y - x).mean())

    alone = clusters.bootstrap(bias, a, b, range(30))
    copied = clusters.bootstrap(bias, np.repeat(a, 5), np.repeat(b, 5), np.repeat(range(30), 5))
    assert copied[0] == pytest.approx(alone[0])
    assert all(np.isnan(clusters.bootstrap(bias, a, b, ["one"] * 30)[0]))


def test_intervals_of_a_row_are_by_patients_and_it_says_so():
    pair = lesions(3, shift=0.6)
    row, ignored = summary.agreement_row(pair), summary.agreement_row(pair, cluster=None)
    assert (row["independent"], ignored["independent"]) == ("patients", "pairs")
    assert row["n_patients"] == 15
    wanted = reliability.clustered_limits(pair, "patient_id", "reference", "test")
    assert (row["bias_lower"], row["bias_upper"]) == wanted.bias_ci
    assert (row["loa_lower"], row["loa_upper"]) == (wanted.loa_lower, wanted.loa_upper)
    assert row["bias_upper"] - row["bias_lower"] > 1.4 * (
        ignored["bias_upper"] - ignored["bias_lower"])
    assert row["signed_rank_p"] > ignored["signed_rank_p"]
    assert f"{len(pair)} pairs of 15 patients: by patients" in row["flags"]
    assert "taken as independent" in ignored["flags"]
    # MOVER, for as many pairs as these are worth.
    sizes, alike = pair.patient_id.value_counts(), wanted.variance_between / wanted.sd**2
    worth = len(pair) / (1 + ((sizes**2).sum() / len(pair) - 1) * alike)
    assert 10 < worth < len(pair)
    low, high = limits.limit_intervals(worth, wanted.bias, wanted.sd, "mover", 0.95, 1.959964)
    assert (row["loa_lower_ci_lower"], row["loa_lower_ci_upper"]) == pytest.approx(low)
    assert (row["loa_upper_ci_lower"], row["loa_upper_ci_upper"]) == pytest.approx(high)
    for name in ("loa_lower_ci", "loa_upper_ci"):
        assert row[f"{name}_lower"] < row[name.removesuffix("_ci")] < row[f"{name}_upper"]
    with pytest.raises(ValueError, match="cluster='no'"):
        summary.agreement_row(pair, cluster="no")


def test_one_pair_a_patient_changes_no_number():
    pair = lesions(5).drop_duplicates("patient_id")
    with_ids, without = summary.agreement_row(pair), summary.agreement_row(
        pair.drop(columns="patient_id"))
    assert with_ids["independent"] == "pairs"
    np.testing.assert_equal(with_ids, without)


def test_the_table_takes_patients_of_a_group_together():
    pair = lesions(6)
    wide = pair.assign(case_id=range(len(pair)), test=pair.test.clip(lower=0))
    frame = measurements.from_wide(wide, {"expert": "reference", "model": "test"},
                                   unit="mL")
    table = summary.agreement_table(frame)
    assert set(table.independent) == {"patients"}
    assert set(summary.agreement_table(frame, cluster=None).independent) == {"pairs"}


def test_pairs_of_nobody_are_asked_about():
    pair = lesions(6)
    pair.loc[3, "patient_id"] = None
    with pytest.raises(ValueError, match=r"patient_id: empty in 1 of .* position 3.*cluster=None"):
        summary.agreement_row(pair)
    assert summary.agreement_row(pair, cluster=None)["independent"] == "pairs"
    pair["patient_id"] = None  # no name for any: nothing is known of patients
    assert summary.agreement_row(pair)["n_patients"] == len(pair)


def test_a_table_of_lungs_is_compared_too():
    wide = pd.DataFrame({"case_id": range(4), "a": [4.0, 5, 6, 7], "b": [4.1, 5.2, 6, 7]})
    frame = measurements.from_wide(wide, {"expert": "a", "model": "b"}, unit="L", structure="lung")
    assert set(summary.agreement_table(frame)["structure"]) == {"lung"}


def test_the_paragraph_says_who_is_independent_and_gives_those_numbers():
    pair = lesions(7, shift=0.6)
    row = summary.agreement_row(pair)
    text = report_text(pair, what="lesion")
    assert f"{len(pair)} lesions of 15 patients" in text
    assert "not lesions but patients were taken as independent" in text
    assert "Rosner, Glynn & Lee" in text
    assert f"95 % CI {row['bias_lower']:.3f}".replace("-", "−")[:14] in text
    plain = report_text(pair, cluster=None, what="lesion")
    assert "Kish" in text
    assert "Kish" not in plain


def test_the_shift_is_named_by_whose_it_is():
    pair = pd.DataFrame({"reference": [0.0] * 20 + [4.0, 5, 6, 7, 9, 11],
                         "test": [0.0] * 20 + [3.0, 4, 5, 6.5, 8, 10]})
    text = report_text(pair)
    assert "over all 26 cases 0 mL" in text
    assert "over the 6 that differ −1" in text
    assert "should be shown" not in text  # no advice to the author
    assert "quartiles of type 7" in text


def test_equivalence_gives_the_interval_that_decides_it():
    rng = np.random.default_rng(8)
    a = rng.uniform(5, 50, 40)
    text = report_text(pd.DataFrame({"reference": a, "test": a + rng.normal(0, 1, 40)}), margin=2)
    assert "its 90 % CI is" in text


def test_figures_show_the_limits_of_the_table():
    wide = lesions(9, shift=0.5)
    wide = wide.assign(case_id=range(len(wide)), test=wide.test.clip(lower=0))
    frame = measurements.from_wide(wide, {"expert": "reference", "model": "test"},
                                   unit="mL")
    row = summary.agreement_table(frame).query("protocol == 'all'").iloc[0]
    _, limits, ranks, _ = summary.agreement_results(frame, "external", ["lesion"])
    shown = limits["lesion"]
    assert shown.bias_ci == (row.bias_lower, row.bias_upper)
    assert (shown.loa_lower, shown.loa_upper) == (row.loa_lower, row.loa_upper)
    assert ranks["lesion"].ci == (row.spearman_lower, row.spearman_upper)
    assert shown.ci == "mover, by patients"


if __name__ == "__main__":  # the numbers of docs/statistics.md
    for name, n in called_significant(1000).items():
        print(f"{name}: {n / 10:.1f} % of 1,000 cohorts called significant")
