"""Intervals for skewed readings, zeros and patients with several: against their definitions."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from deeplung_nb.report.prose import report_text
from deeplung_nb.stats import agreement, clusters, concordance, correlation, limits, robust, summary


def skewed(n, seed):
    rng = np.random.default_rng(seed)
    a = np.where(rng.random(n) < 0.35, 0.0, rng.lognormal(2, 1.3, n))
    return a, a * rng.lognormal(0, 0.2, n)


def left_out(statistic, a, b, codes):
    """SE of a statistic by leaving out each patient."""
    m = codes.max() + 1
    values = np.array([statistic(a[codes != k], b[codes != k]) for k in range(m)])
    return np.sqrt((m - 1) / m * ((values - values.mean()) ** 2).sum())


@pytest.mark.parametrize("several", [False, True])
def test_standard_errors_are_those_of_leaving_out_each_patient(several):
    """From moments, and by brute force; that of ranks is a derivative and comes close."""
    rng = np.random.default_rng(1)
    a = rng.gamma(3, 10, 600)
    b = 1.1 * a + rng.normal(2, 3 + a / 10)
    codes = np.repeat(np.arange(200), 3) if several else np.arange(600)
    sums = np.column_stack([np.bincount(codes, v) for v in (a, b, a * a, b * b, a * b)])
    sizes = np.bincount(codes).astype(float)
    estimates, errors, _ = robust._with_errors(sums, sizes, np.ones((1, len(sizes))))
    wanted = (
        lambda x, y: np.arctanh(np.corrcoef(x, y)[0, 1]),
        lambda x, y: np.arctanh(agreement.concordance(x, y, ci="lin").ccc))
    for k, statistic in enumerate(wanted):
        assert estimates[k, 0] == pytest.approx(statistic(a, b))
        assert errors[k, 0] == pytest.approx(left_out(statistic, a, b, codes))

    cluster = codes if several else None
    for interval, coefficient in (
            (robust.spearman_interval, lambda x, y: stats.spearmanr(x, y).statistic),
            (lambda x, y, who: concordance.rank_concordance(x, y, cluster=who).ci,
             lambda x, y: concordance.rank_concordance(x, y).coefficient)):
        low, high = np.arctanh(interval(a, b, cluster))
        se = left_out(lambda x, y, of=coefficient: np.arctanh(of(x, y)), a, b, codes)
        half = stats.t.ppf(0.975, codes.max()) * se
        assert (high + low) / 2 == pytest.approx(np.arctanh(coefficient(a, b)))
        assert (high - low) / 2 == pytest.approx(half, rel=0.06)


def test_ties_count_half_in_the_interval_of_ranks():
    rng = np.random.default_rng(6)
    a = rng.integers(0, 4, 400).astype(float)
    b = np.clip(a + rng.integers(-1, 2, 400), 0, 4)
    low, high = np.arctanh(robust.spearman_interval(a, b))
    se = left_out(lambda x, y: np.arctanh(stats.spearmanr(x, y).statistic), a, b, np.arange(400))
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 399) * se, rel=0.03)
    # Without ties the spread of the pooled ranks is fixed; with them it moves too.
    low, high = np.arctanh(concordance.rank_concordance(a, b).ci)
    se = left_out(lambda x, y: np.arctanh(concordance.rank_concordance(x, y).coefficient), a, b,
                  np.arange(400))
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 399) * se, rel=0.03)


def test_each_patient_copied_says_no_more():
    a, b = skewed(40, 3)
    who = np.repeat(np.arange(40), 3)
    alone, copied = robust.studentized(a, b), robust.studentized(
        np.repeat(a, 3), np.repeat(b, 3), who)
    np.testing.assert_allclose(copied.ccc, alone.ccc, rtol=1e-9)
    np.testing.assert_allclose(copied.pearson, alone.pearson, rtol=1e-9)
    np.testing.assert_allclose(robust.spearman_interval(np.repeat(a, 3), np.repeat(b, 3), who),
                               robust.spearman_interval(a, b), rtol=1e-9)


def test_units_and_order_do_not_matter():
    a, b = skewed(50, 4)
    one, other = robust.studentized(a, b), robust.studentized(1000 * a, 1000 * b)
    np.testing.assert_allclose(other.ccc, one.ccc, rtol=1e-9)
    assert robust.studentized(a, b) == one  # the seed is the same
    assert robust.studentized(a, b, seed=1) != one
    np.testing.assert_allclose(robust.studentized(b, a).ccc, one.ccc, rtol=1e-9)


def test_a_patient_drawn_twice_is_left_out_once():
    """The jackknife of a resample is that of the resample written out."""
    a, b = skewed(12, 12)
    drawn = np.array([0, 0, 1, 2, 3, 4, 4, 4, 6, 7, 9, 11])
    sums = np.column_stack([a, b, a * a, b * b, a * b])
    weights = np.bincount(drawn, minlength=12)[None].astype(float)
    with np.errstate(invalid="ignore"):  # of patients not drawn
        estimates, errors, _ = robust._with_errors(sums, np.ones(12), weights)
    written = robust._with_errors(sums[drawn], np.ones(12), np.ones((1, 12)))
    np.testing.assert_allclose(estimates, written[0])
    np.testing.assert_allclose(errors, written[1])


def test_what_can_not_be_estimated_is_nan():
    assert np.isnan(robust.studentized([1, 2, 3], [1, 2, 4]).ccc).all()
    assert np.isnan(robust.studentized([1, 1, 1, 1, 1], [1, 2, 4, 3, 5]).ccc).all()
    assert np.isnan(robust.spearman_interval([1, 2, 3, 4, 5], [1, 2, 3, 4, 9])).all()
    with pytest.raises(ValueError, match="cluster: empty at position 1"):
        robust.spearman_interval([1, 2, 3, 4], [2, 1, 4, 3], ["a", None, "b", "c"])
    found = robust.studentized([1, 2, None, 4, 5, 6], [1, 3, 3, 4, 4, 6], list("abcdef"),
                               missing="drop")
    assert found == robust.studentized([1, 2, 4, 5, 6], [1, 3, 4, 4, 6], list("abdef"))


def test_a_quantile_of_independent_readings_has_the_interval_of_order_statistics():
    d = np.random.default_rng(5).normal(size=200)
    for share in (0.025, 0.5, 0.975):
        assert robust.quantile_interval(d, share) == \
            limits.quantile_interval(d, share, 0.95)
    few = robust.quantile_interval(d, 0.975, effective=60)
    assert few[0] < limits.quantile_interval(d, 0.975, 0.95)[0]
    assert few[1] == np.inf


def test_functions_take_the_same_interval_by_name():
    a, b = skewed(30, 7)
    who = np.arange(30) // 2
    moments = robust.studentized(a, b, who)
    assert agreement.concordance(a, b, ci="auto", cluster=who).ccc_ci == moments.ccc
    assert correlation.pearson(a, b, ci="auto", cluster=who).ci == moments.pearson
    assert correlation.spearman(a, b, ci="auto", cluster=who).ci == \
        robust.spearman_interval(a, b, who)
    for function in (agreement.concordance, correlation.pearson, correlation.spearman):
        with pytest.raises(ValueError, match="takes pairs as independent"):
            function(a, b, ci={"concordance": "lin", "pearson": "fisher"}.get(
                function.__name__, "fisher"), cluster=who)
        with pytest.raises(ValueError, match="expected one of"):
            function(a, b, ci="best")


def test_the_bias_corrected_bootstrap_is_that_of_scipy():
    a, b = skewed(25, 8)

    def bias(x, y, _):
        return (y - x).mean()

    def both(x, y, _):
        return [(y - x).mean(), np.median(y - x)]

    found = clusters.bootstrap(bias, a, b, method="bca", seed=3)
    wanted = stats.bootstrap((b - a,), np.mean, n_resamples=2000, method="BCa",
                             rng=np.random.default_rng(3)).confidence_interval
    assert found[0] == pytest.approx(tuple(wanted))
    assert clusters.bootstrap(both, a, b, method="bca", seed=3)[0] == pytest.approx(found[0])
    with pytest.raises(ValueError, match="expected 'percentile' or 'bca'"):
        clusters.bootstrap(bias, a, b, method="best")


def test_the_row_leads_with_what_holds():
    a, b = skewed(67, 9)
    row = summary.agreement_row(pd.DataFrame({"reference": a, "test": b}))
    assert row["limits"] == "ratio"
    wanted = agreement.bland_altman(a, b, scale="ratio")
    assert (row["limit_lower"], row["limit_upper"]) == (wanted.loa_lower, wanted.loa_upper)
    assert row["limit_n"] == row["detected_both"] < row["n"]
    assert np.isfinite([row["limit_upper_ci_lower"], row["limit_upper_ci_upper"]]).all()
    assert row["quantile_upper_ci_upper"] == np.inf  # beside
    assert (row["ccc_lower"], row["ccc_upper"]) == robust.studentized(a, b).ccc
    assert list(row).index("limit_lower") < list(row).index("loa_lower")
    rng = np.random.default_rng(1)
    a = rng.normal(300, 80, 67)
    normal = pd.DataFrame({"reference": a, "test": a + rng.normal(5, 10, 67)})
    row = summary.agreement_row(normal)
    wanted = agreement.bland_altman(normal.reference, normal.test)
    assert row["limits"] == "constant"
    assert (row["limit_lower_ci_lower"], row["limit_lower_ci_upper"]) == wanted.loa_lower_ci


def test_other_programs_intervals_can_be_asked_for():
    a, b = skewed(40, 10)
    pair = pd.DataFrame({"reference": a, "test": b})
    row = summary.agreement_row(pair, ci="classical")
    assert row["intervals"] == "classical"
    assert (row["ccc_lower"], row["ccc_upper"]) == agreement.concordance(a, b, ci="lin").ccc_ci
    assert (row["spearman_lower"], row["spearman_upper"]) == correlation.spearman(
        a, b, ci="bonett-wright").ci
    pair["patient_id"] = np.arange(40) // 2
    with pytest.raises(ValueError, match="patients have several"):
        summary.agreement_row(pair, ci="classical")
    with pytest.raises(ValueError, match="expected one of auto, classical"):
        summary.agreement_row(pair, ci="exact")


def test_the_words_name_the_interval_and_give_no_limits_that_cannot_be_bounded():
    a, b = skewed(67, 11)
    text = report_text(pd.DataFrame({"reference": a, "test": b}))
    assert "Spearman's ρ (CI by the infinitesimal jackknife)" in text
    assert "CI by a studentized bootstrap, symmetric" in text
    assert "quantile" not in text
    assert "no bound" not in text
    assert "nan" not in text
    assert "inf " not in text


@pytest.mark.parametrize("n", [4, 5, 6])
def test_no_order_of_few_readings_has_an_interval_without_width(n):
    """Three neighbours that swapped places: leaving any patient out gives one and the same rho."""
    x = np.arange(1.0, n + 1)
    for order in itertools.permutations(x):
        for low, high in (correlation.spearman(x, order).ci,
                          concordance.rank_concordance(x, order).ci):
            assert not high - low < 1e-6
    if n == 6:
        swapped = correlation.spearman(x, [2.0, 1, 4, 3, 6, 5])
        assert swapped.r == pytest.approx(1 - 6 * 6 / 210)
        assert np.isnan(swapped.ci[0])
        assert "each patient moves it alike" in swapped.reason
