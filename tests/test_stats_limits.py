"""Limits by size: by regression, with intervals, where readings are skewed or clustered."""


import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from deeplung_nb.stats import (
    agreement,
    limits,
)


def by_size(seed, n=80):
    rng = np.random.default_rng(seed)
    mean = rng.uniform(5, 200, n)
    d = 0.05 * mean + rng.normal(0, 1, n) * (1 + 0.1 * mean)
    return mean - d / 2, mean + d / 2


def skewed(seed, n=67):
    """A third of zeros, the rest lognormal; both readers err by a fifth."""
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(n) < 0.35, 0.0, rng.lognormal(3, 1.3, n))
    return tuple(truth * (1 + 0.2 * rng.normal(size=n)).clip(0) for _ in range(2))


def test_limits_by_size_are_the_regression_limits_with_intervals_of_the_jackknife():
    a, b = by_size(1)
    sizes = np.array([20.0, 100.0, 180.0])
    table = agreement.limits_by_size(a, b, sizes)
    lines = agreement.bland_altman(a, b, limits="regression").lines(sizes)
    np.testing.assert_allclose(table[["bias", "loa_lower", "loa_upper"]].to_numpy().T,
                               np.array(lines))
    without = np.array([
        agreement.bland_altman(*(np.delete(x, k) for x in (a, b)), limits="regression"
                               ).lines(sizes).upper for k in range(80)])
    half = stats.t.ppf(0.975, 79) * np.sqrt(79 / 80 * ((without - without.mean(0)) ** 2).sum(0))
    np.testing.assert_allclose(table.loa_upper_ci_upper - table.loa_upper, half, rtol=1e-6)
    at_mean = agreement.bland_altman(a, b, limits="regression")
    one = agreement.limits_by_size(a, b, [((a + b) / 2).mean()])
    assert at_mean.loa_upper_ci == pytest.approx(
        (one.loa_upper_ci_lower[0], one.loa_upper_ci_upper[0]))
    assert at_mean.reason == ""


def test_limits_by_size_of_skewed_readings_have_the_power_and_its_jackknife():
    rng = np.random.default_rng(4)
    a = np.where(rng.random(67) < 0.35, 0.0, rng.lognormal(2, 1.3, 67))
    b = a * (1 + 0.2 * rng.normal(size=67))
    whole = agreement.bland_altman(a, b, limits="regression")
    assert np.isfinite(whole.sd_power[0])  # the data are such
    table = agreement.limits_by_size(a, b, [1.0, 30.0])
    assert (table.loa_lower_ci_lower < table.loa_lower).all()
    _, _, lowest, scale = *whole.sd_power, *whole.sd_size
    mean, d, sizes = (a + b) / 2, b - a, np.array([1.0, 30.0])

    def grown(size):
        return sm.add_constant(np.log1p(np.maximum(size - lowest, 0) / scale))

    without = []
    for k in range(67):
        m, e = np.delete(mean, k), np.delete(d, k)
        line = np.polynomial.Polynomial.fit(m, e, 1)
        fit = sm.GLM(np.abs(e - line(m)), grown(m), family=sm.families.Poisson()).fit()
        half = np.sqrt(np.pi / 2) * fit.predict(grown(sizes))
        without.append(line(sizes) + stats.norm.ppf(0.975) * half)
    spread = np.std(without, axis=0) * np.sqrt(66)
    found = (table.loa_upper_ci_upper - table.loa_upper).to_numpy() / stats.t.ppf(0.975, 66)
    np.testing.assert_allclose(found, spread, rtol=1e-4)


def test_limits_by_size_by_patients_are_wider_where_lesions_belong_together():
    a, b = by_size(2, 20)
    copies = [np.repeat(x, 5) for x in (a, b)]
    alone = agreement.limits_by_size(a, b)
    whose = np.repeat(np.arange(20), 5)
    grouped = agreement.limits_by_size(*copies, alone["size"], cluster=whose)
    np.testing.assert_allclose(grouped.to_numpy(), alone.to_numpy(), rtol=1e-6)


def test_the_trend_of_a_ratio_is_on_the_logarithm_of_the_size():
    rng = np.random.default_rng(4)
    a = rng.lognormal(3, 1.2, 60)
    b = a ** 1.1 * np.exp(rng.normal(0, 0.05, 60))  # log(b / a) = 0.1 log a
    r = agreement.bland_altman(a, b, scale="ratio", limits="regression")
    assert r.slope == pytest.approx(0.1 / 1.05, abs=0.01)  # of log sqrt(a b) = 1.05 log a
    size = np.array([5.0, 50.0, 500.0])
    np.testing.assert_allclose(r.lines(size).bias, (size ** (0.1 / 1.05)), rtol=0.06)


def test_limits_by_size_do_not_cross_and_are_not_given_beyond_the_sizes_read():
    m = np.arange(20.0, 44)
    d = 0.5 * (m - 18) * np.tile([1, -1, -1, 1], 6)
    table = agreement.limits_by_size(m - d / 2, m + d / 2, [5, 20, 30, 50])
    assert np.isnan(table.drop(columns="size").loc[[0, 3]]).all(axis=None)
    assert (table.loa_lower <= table.loa_upper)[1:3].all()
    lines = agreement.bland_altman(m - d / 2, m + d / 2, limits="regression").lines([20.0, 30.0])
    np.testing.assert_allclose(table.loa_upper[1:3], lines.upper)
    none = agreement.limits_by_size([], [])
    assert len(none) == 3
    assert none.isna().all(axis=None)
    few = agreement.limits_by_size(m - d / 2, m + d / 2, [30], cluster=np.arange(24) % 3)
    assert np.isfinite(few.loa_upper).all()
    assert few.loa_upper_ci_upper.isna().all()  # three patients tell of no interval


def test_limits_by_regression_do_not_collapse_on_zeros_and_skew():
    outside, powers = [], 0
    for seed in range(60):
        a, b = skewed(seed)
        r = agreement.bland_altman(a, b, limits="regression")
        outside.append(r.percent_outside)
        at = r.lines(np.linspace(0, max(a.max(), b.max()), 50))
        assert (at.upper > at.lower).all()
        if np.isfinite(r.sd_power[0]):
            powers += 1
            assert "power of the size" in r.reason
            assert r.percent_outside < 15  # zero width left a third and more outside
    assert powers > 2
    assert np.median(outside) < 8


def test_the_power_finds_a_spread_that_is_one():
    rng = np.random.default_rng(2)
    size = np.concatenate([np.zeros(200), rng.lognormal(3, 1, 4000)])
    spread = limits.Spread(0.5, 1.5, 0.0, size.mean())
    found = limits.regression_limits(size, spread.at(size) * rng.normal(size=size.size))[2]
    assert found is not None
    assert found.at(np.array([0.0, 20.0, 200.0])) == pytest.approx(
        spread.at(np.array([0.0, 20.0, 200.0])), rel=0.15)
    assert found.at(-5.0) == found.at(0.0)


def test_where_the_line_serves_nothing_changes():
    rng = np.random.default_rng(5)
    size = rng.uniform(10, 100, 80)
    test = size + rng.normal(size=80) * (1 + 0.05 * size)
    r = agreement.bland_altman(size, test, limits="regression")
    assert np.isnan([*r.sd_power, *r.sd_size]).all()
    assert r.to_frame().loc[0, "sd_line_upper"] > 0


def test_too_few_pairs_have_limits_by_size_that_are_numbers_all_the_same():
    table = agreement.limits_by_size([1.0, 2], [1.0, 3], [5.0])
    assert (table.dtypes == "float64").all()
    assert table.drop(columns="size").isna().all(axis=None)
