"""The rank biserial and the interval of two samples."""


import numpy as np
import pytest
from scipy import stats

from deeplung_nb.stats import (
    paired,
    robust,
)


def jackknifed(statistic, d, codes):
    parts = np.unique(codes)
    without = np.arctanh([statistic(d[codes != p]) for p in parts])
    m = len(parts)
    return np.sqrt((m - 1) / m * ((without - without.mean()) ** 2).sum())


@pytest.mark.parametrize("grouped", [False, True])
def test_the_interval_of_the_rank_biserial_is_that_of_leaving_out_each_patient(grouped):
    rng = np.random.default_rng(11)
    d = rng.normal(0.4, 1, 120)
    codes = np.arange(120) // 3 if grouped else np.arange(120)

    def value(x):
        return paired.wilcoxon_signed_rank(np.zeros(len(x)), x).rank_biserial

    low, high = robust.rank_biserial_interval(d, codes)
    m = codes.max() + 1
    half = (np.arctanh(high) - np.arctanh(low)) / 2 / stats.t.ppf(0.975, m - 1)
    assert half == pytest.approx(jackknifed(value, d, codes), rel=0.03)
    assert np.tanh((np.arctanh(high) + np.arctanh(low)) / 2) == pytest.approx(value(d))


def test_pratts_rank_biserial_has_an_interval_about_itself():
    d = np.array([0, 0, 0, 1, -2, 3, 4, 5, -1, 6, 7.0])
    r = paired.wilcoxon_signed_rank(np.zeros(11), d, zeros="pratt")
    low, high = r.rank_biserial_ci
    assert np.tanh((np.arctanh(high) + np.arctanh(low)) / 2) == pytest.approx(r.rank_biserial)
    one_sign = paired.wilcoxon_signed_rank(np.zeros(5), np.arange(1.0, 6))
    assert np.isnan(one_sign.rank_biserial_ci).all()


def test_the_interval_of_two_samples_counts_pairs():
    rng = np.random.default_rng(12)
    x, y = rng.normal(0.5, 2, 25), np.round(rng.normal(0, 1, 40), 1)
    wins = np.sign(np.subtract.outer(x, y))
    value = wins.mean()
    parts = wins.mean(axis=1).var(ddof=1) / 25, wins.mean(axis=0).var(ddof=1) / 40
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 24 + parts[1] ** 2 / 39)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(sum(parts)) / (1 - value**2)
    r = paired.mann_whitney(x, y)
    assert r.rank_biserial == pytest.approx(value)
    assert r.rank_biserial_ci == pytest.approx(
        (np.tanh(np.arctanh(value) - half), np.tanh(np.arctanh(value) + half)))
