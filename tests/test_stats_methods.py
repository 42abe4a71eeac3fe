"""Intraclass correlation, clustered limits, equivalence, and regression of two methods."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deeplung_nb.stats import agreement, equivalence, mixed, regression, reliability
from deeplung_nb.stats._slopes import Slopes

ORACLE = Path(__file__).parent / "oracle"


@pytest.fixture(scope="module")
def ratings():
    return pd.read_csv(ORACLE / "shrout_fleiss_1979.csv", comment="#").melt("target")


@pytest.fixture(scope="module")
def replicates():
    frame = pd.read_csv(ORACLE / "pefr_1986.csv", comment="#")
    return pd.concat([frame[["subject", f"mini{i}", f"wright{i}"]].set_axis(
        ["subject", "mini", "wright"], axis=1) for i in (1, 2)])


def test_the_mixed_model_gives_the_printed_coefficients_too(ratings):
    r = mixed.icc(ratings, "target", "variable", "value")
    assert (round(r.icc_a1, 2), round(r.icc_c1, 2)) == (0.29, 0.71)  # ICC(2,1), ICC(3,1)


def test_the_coefficients_printed_by_shrout_and_fleiss(ratings):
    r = reliability.icc(ratings, "target", "variable", "value")
    assert [round(v, 2) for v in (r.icc1, r.icc_a1, r.icc_c1, r.icc1k, r.icc_ak, r.icc_ck)] == [
        0.17, 0.29, 0.71, 0.44, 0.62, 0.91]


def test_consistency_ignores_a_constant_between_readers_and_agreement_does_not(ratings):
    shifted = ratings.assign(value=ratings["value"] + 10.0 * (ratings["variable"] == "judge1"))
    before, after = (reliability.icc(f, "target", "variable", "value") for f in (ratings, shifted))
    assert after.icc_c1 == pytest.approx(before.icc_c1)
    assert after.icc_a1 < before.icc_a1 / 2


def test_icc_refuses_gaps_and_repeats(ratings):
    with pytest.raises(ValueError, match="lacks a reader"):
        reliability.icc(ratings.iloc[1:], "target", "variable", "value")
    with pytest.raises(ValueError, match="more than one reading"):
        reliability.icc(pd.concat([ratings, ratings[:1]]), "target", "variable", "value")
    same = reliability.icc(ratings.assign(value=3.0), "target", "variable", "value")
    assert np.isnan(same.icc1)
    assert same.reason


def test_the_corrected_sd_printed_by_bland_and_altman_1986(replicates):
    r = reliability.clustered_limits(replicates, "subject", "mini", "wright", method="replicates")
    assert round(r.sd, 1) == 37.7
    assert round(r.bias, 1) == -6.0


def test_anova_and_reml_agree_where_subjects_have_equal_numbers(replicates):
    anova, reml = (reliability.clustered_limits(replicates, "subject", "mini", "wright", method=m)
                   for m in ("anova", "reml"))
    assert anova.loa_lower == pytest.approx(reml.loa_lower, rel=1e-4)
    assert anova.bias_ci == pytest.approx(reml.bias_ci, rel=1e-4)


def test_clusters_widen_the_interval_of_the_bias():
    rng = np.random.default_rng(0)
    sizes = rng.integers(2, 9, 12)
    own = np.repeat(rng.normal(0, 5, 12), sizes)
    frame = pd.DataFrame({"s": np.repeat(np.arange(12), sizes), "a": 0.0,
                          "b": own + rng.normal(0, 1, len(own))})
    naive = agreement.bland_altman(frame.a, frame.b)
    r = reliability.clustered_limits(frame, "s", "a", "b")
    assert np.ptp(r.bias_ci) > 1.5 * np.ptp(naive.bias_ci)
    assert r.variance_within == pytest.approx(1, rel=0.5)
    assert r.variance_between == pytest.approx(25, rel=0.8)


def test_one_pair_a_subject_is_no_cluster(replicates):
    r = reliability.clustered_limits(replicates[:17], "subject", "mini", "wright")
    assert "bland_altman" in r.reason


def test_equivalence_is_the_interval_within_the_margin():
    rng = np.random.default_rng(4)
    a = rng.normal(size=30)
    b = a + rng.normal(0.1, 0.3, 30)
    for margin in (0.05, 0.15, 0.2, 0.25, 0.5):
        r = equivalence.tost(a, b, margin)
        assert (r.p_value < 0.05) == (-margin < r.bias_ci[0] and r.bias_ci[1] < margin)


@pytest.mark.parametrize("margin", [0, -1, np.nan])
def test_a_margin_must_be_declared(margin):
    with pytest.raises(ValueError, match="margin"):
        equivalence.tost([1, 2, 3], [1, 2, 4], margin)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_equivalence_without_spread_says_why(n):
    assert equivalence.tost(np.arange(n), np.arange(n) + 1.0, 2).reason
    assert equivalence.total_deviation_index(np.arange(n), np.arange(n) + 1.0).reason


def test_no_sample_is_large_enough_beyond_the_margin():
    with pytest.raises(ValueError, match="no number of pairs"):
        equivalence.sample_size(1.0, 1.0, 2.0)
    less, more = (equivalence.sample_size(0, 1, 3, power=power).n for power in (0.8, 0.9))
    assert less < more


def test_deming_lines_mirror_when_the_methods_change_places():
    rng = np.random.default_rng(1)
    true = rng.uniform(0, 50, 60)
    x, y = true + rng.normal(0, 2, 60), 3 + 1.2 * true + rng.normal(0, 2, 60)
    there, back = regression.deming(x, y), regression.deming(y, x)
    assert there.slope == pytest.approx(1 / back.slope)
    assert there.slope_ci[0] < 1.2 < there.slope_ci[1]


def test_passing_bablok_bears_outliers():
    x = np.arange(1.0, 31)
    y = 2 + 1.5 * x
    y[:4] += 100
    r = regression.passing_bablok(x, y)
    assert r.slope == pytest.approx(1.5)
    assert r.intercept == pytest.approx(2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fit", [regression.deming, regression.passing_bablok])
@pytest.mark.parametrize(("x", "y"), [([], []), ([1, 2], [1, 2]), ([1, 1, 1, 1], [1, 2, 3, 4]),
                                      ([1, 2, 3, 4, 5], [5, 4, 3, 2, 1])])
def test_regressions_without_ground_say_why_or_give_a_number(fit, x, y):
    r = fit(x, y)
    assert r.reason or np.isfinite([r.slope, *r.slope_ci, r.intercept]).all()


@pytest.mark.parametrize("kind", ["smooth", "whole", "falling", "decimal"])
def test_slopes_searched_for_are_those_of_the_list(kind):
    rng = np.random.default_rng(4)
    x = rng.lognormal(2, 1, 80)
    y = {"smooth": 3 + 1.1 * x + rng.normal(0, 1, 80),
         "falling": 50 - 1.3 * x + rng.normal(size=80),
         "whole": rng.integers(0, 9, 80).astype(float),
         "decimal": np.round(1000 * x + rng.normal(0, 900, 80), 1)}[kind]
    if kind == "whole":
        x = rng.integers(0, 9, 80).astype(float)  # ties, vertical pairs, slopes of -1
    listed, searched = regression._listed_slopes(x, y), Slopes(x, y)
    assert searched.n_pairs == len(listed)
    assert searched.shift == (listed < -1).sum()
    # The steepest are exact to fewer digits; the median and its interval are not among them.
    ranks = rng.integers(len(listed) // 10, len(listed) * 9 // 10, 40)
    np.testing.assert_allclose([searched[int(rank)] for rank in ranks], listed[ranks], rtol=1e-8,
                               atol=1e-8)


def test_passing_bablok_of_many_readings_is_that_of_the_list(monkeypatch):
    rng = np.random.default_rng(5)
    x = np.round(rng.lognormal(2, 1, 400), 1)
    y = np.round(2 + 1.2 * x + rng.normal(0, 1, 400), 1)
    listed = regression.passing_bablok(x, y)
    monkeypatch.setattr(regression, "MOST_READINGS", 100)
    searched = regression.passing_bablok(x, y)
    np.testing.assert_allclose([searched.slope, *searched.slope_ci, searched.intercept],
                               [listed.slope, *listed.slope_ci, listed.intercept], rtol=1e-9)
    assert searched.n == 400
