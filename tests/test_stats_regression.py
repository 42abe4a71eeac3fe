"""Deming and Passing-Bablok lines."""


import numpy as np
import pytest

from deeplung_nb.stats import (
    regression,
)
from deeplung_nb.stats._slopes import Slopes


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
