"""How often each 95 % interval holds the truth, by simulation.

    .venv/bin/python -m tests.test_stats_coverage 4000

prints the table of docs/statistics.md.
"""

import functools
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from deeplung_nb.stats import agreement, correlation, limits, paired, regression

Z = stats.norm.ppf(0.975)
SIZES = (20, 67, 197)
"""A small study, and the external and the training cohort of the paper."""


def held(interval, truth):
    return interval[0] <= truth <= interval[1]


def of_differences(rng, n):
    """Normal differences, mean 5, SD 10, of readings that spread far more."""
    a = rng.normal(300, 80, n)
    d = rng.normal(5, 10, n)
    upper = 5 + Z * 10
    found = {}
    for ci in ("approximate", "mover", "exact"):
        r = agreement.bland_altman(a, a + d, ci=ci)
        found[f"limits of agreement, {ci}"] = held(r.loa_upper_ci, upper)
    found["bias, t"] = held(r.bias_ci, 5)
    r = agreement.bland_altman(a, a + d, limits="quantile")
    found["97.5 % quantile, order statistics"] = held(r.loa_upper_ci, upper)
    found["Hodges-Lehmann, signed-rank"] = held(
        paired.wilcoxon_signed_rank(a, a + d).hodges_lehmann_ci, 5)
    return found


@functools.cache
def factors_of_carkeet(n):
    return [limits.carkeet_factor(n, q, Z) for q in (0.025, 0.975)]


def pair_of_limits(rng, n):
    """Carkeet's pair: mean ± k SD holds less (inner) and more (outer) than 95 % of differences."""
    d = rng.normal(0, 1, n)
    low, high = (stats.norm.cdf(d.mean() + k * d.std(ddof=1))
                 - stats.norm.cdf(d.mean() - k * d.std(ddof=1)) for k in factors_of_carkeet(n))
    return {"pair of limits, Carkeet": low <= 0.95 <= high}


def of_correlations(rng, n):
    """Two normal readers, correlation 0.9, equal SD, means half an SD apart."""
    rho, shift = 0.9, 0.5
    x = rng.normal(0, 1, n)
    y = shift + rho * x + np.sqrt(1 - rho**2) * rng.normal(0, 1, n)
    population = 6 / np.pi * np.arcsin(rho / 2)  # Spearman's rho of the binormal
    return {
        "Pearson, Fisher": held(correlation.pearson(x, y).ci, rho),
        "Spearman, Bonett-Wright": held(correlation.spearman(x, y).ci, population),
        "Spearman, Fisher": held(correlation.spearman(x, y, ci="fisher").ci, population),
        "CCC, Lin": held(agreement.concordance(x, y).ccc_ci, 2 * rho / (2 + shift**2)),
    }


def of_lines(rng, n):
    """True values from 10 to 500, both readers with SD 10, slope 1.1."""
    true = rng.uniform(10, 500, n)
    x, y = true + rng.normal(0, 10, n), 3 + 1.1 * true + rng.normal(0, 11, n)
    # Deming's ratio: error variance of the reference over that of the test.
    deming = regression.deming(x, y, error_ratio=(10 / 11) ** 2)
    return {"Deming slope, jackknife": held(deming.slope_ci, 1.1),
            "Passing-Bablok slope": held(regression.passing_bablok(x, y).slope_ci, 1.1)}


def of_two_samples(rng, n):
    """Dice-like values of two protocols, 0.1 apart."""
    a, b = rng.beta(8, 3, n) + 0.1, rng.beta(8, 3, n // 2)
    return {"Hodges-Lehmann, Mann-Whitney": held(paired.mann_whitney(a, b).hodges_lehmann_ci, 0.1)}


WORLDS = (of_differences, pair_of_limits, of_correlations, of_lines, of_two_samples)


def simulate(n, times, seed=0):
    """Interval -> share of `times` simulated studies of n cases in which it held the truth."""
    rows = []
    for k in range(times):
        rng = np.random.default_rng([seed, n, k])
        rows.append({name: value for world in WORLDS for name, value in world(rng, n).items()})
    return pd.DataFrame(rows).mean()


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 67])
def test_intervals_hold_the_truth_as_often_as_they_say(n):
    times = 500
    found = simulate(n, times)
    error = np.sqrt(0.95 * 0.05 / times)
    sound = found.drop(["Spearman, Fisher", "Spearman, Bonett-Wright",
                        "97.5 % quantile, order statistics", "limits of agreement, approximate"])
    # Thirteen intervals, two sizes: 4 standard errors, and some slack for the approximate ones.
    assert (sound > 0.95 - 4 * error - 0.01).all(), found
    assert (sound < 0.95 + 4 * error).all(), found
    # Known not to be 95 %: too narrow, conservative, and (a correlation of ranks) slightly short.
    assert found["Spearman, Fisher"] < found["Spearman, Bonett-Wright"]
    assert found["Spearman, Bonett-Wright"] > 0.90
    assert found["97.5 % quantile, order statistics"] > 0.94


if __name__ == "__main__":
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    table = pd.DataFrame({f"n = {n}": simulate(n, runs) for n in SIZES})
    print(f"share of {runs} simulated studies; standard error {np.sqrt(.95 * .05 / runs):.4f}")
    print((100 * table).round(1).to_string())
