"""Limits of agreement and concordance: published tables, algebra, and the edges."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deeplung_nb.stats import agreement

ORACLE = Path(__file__).parent / "oracle"


@pytest.fixture(scope="module")
def pefr():
    return pd.read_csv(ORACLE / "pefr_1986.csv", comment="#")


def test_the_limits_printed_by_bland_and_altman_1986(pefr):
    # Lancet 1986; 1:307: Wright - mini, bias -2.1, SD 38.8, limits with 2 SD -79.7 and 75.5,
    # interval of the bias -22.0 to 17.8.
    r = agreement.bland_altman(pefr.mini1, pefr.wright1, multiplier=2)
    assert (r.n, round(r.bias, 1), round(r.sd, 1)) == (17, -2.1, 38.8)
    # The paper adds rounded numbers.
    assert (r.loa_lower, r.loa_upper) == pytest.approx((-79.7, 75.5), abs=0.1)
    assert r.bias_ci == pytest.approx((-22.0, 17.8), abs=0.06)


def test_the_sign_is_test_minus_reference():
    assert agreement.bland_altman([1, 2, 4], [2, 3, 6]).bias == pytest.approx(4 / 3)


def test_swapping_the_methods_mirrors_everything(pefr):
    there = agreement.bland_altman(pefr.mini1, pefr.wright1)
    back = agreement.bland_altman(pefr.wright1, pefr.mini1)
    assert back.bias == pytest.approx(-there.bias)
    assert back.loa_upper_ci == pytest.approx([-end for end in there.loa_lower_ci[::-1]])


@pytest.mark.parametrize("ci", agreement.INTERVALS)
def test_each_interval_holds_its_limit_and_widens_with_confidence(pefr, ci):
    narrow = agreement.bland_altman(pefr.mini1, pefr.wright1, ci=ci, confidence=0.8)
    wide = agreement.bland_altman(pefr.mini1, pefr.wright1, ci=ci, confidence=0.99)
    assert (wide.loa_upper_ci[0] < narrow.loa_upper_ci[0] < narrow.loa_upper
            < narrow.loa_upper_ci[1] < wide.loa_upper_ci[1])


def test_regression_limits_open_with_the_size():
    rng = np.random.default_rng(3)
    size = np.linspace(1, 100, 400)
    test = size * 1.1 + rng.normal(size=400) * size * 0.05
    r = agreement.bland_altman(size, test, limits="regression")
    assert r.slope > 0.05
    assert r.heteroscedasticity_p < 1e-6
    assert r.sd_line[1] > 0.03
    assert r.percent_outside == pytest.approx(5, abs=3)
    middle = np.mean((size + test) / 2)
    half = 1.959963984540054 * (r.sd_line[0] + r.sd_line[1] * middle)
    assert r.loa_upper == pytest.approx(r.bias_line[0] + r.bias_line[1] * middle + half)


@pytest.mark.parametrize(("n", "bounded"), [(67, False), (145, False), (146, True)])
def test_an_interval_of_a_tail_quantile_needs_146_pairs(n, bounded):
    d = np.random.default_rng(0).normal(size=n)
    r = agreement.bland_altman(np.zeros(n), d, limits="quantile")
    assert np.isfinite(r.loa_lower_ci[0]) == np.isfinite(r.loa_upper_ci[1]) == bounded
    assert ("146" in r.reason) == (not bounded)
    assert r.loa_lower_ci[0] <= r.loa_lower <= r.loa_lower_ci[1]


def test_order_statistic_intervals_hold_the_quantile_as_often_as_they_say():
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        r = agreement.bland_altman(np.zeros(80), rng.exponential(size=80), limits="quantile")
        held += r.loa_upper_ci[0] <= -np.log(0.025) <= r.loa_upper_ci[1]
    assert held / 400 > 0.93


def test_ratio_leaves_out_zeros_and_counts_them():
    r = agreement.bland_altman([0, 1, 2, 4], [1, 2, 4, 8], scale="ratio")
    assert (r.n, r.n_excluded, r.n_zero) == (3, 1, 1)
    assert r.bias == pytest.approx(2)
    assert r.loa_lower == pytest.approx(2)


def test_percent_of_two_zeros_is_left_out_and_counted():
    r = agreement.bland_altman([0, 0, 2, 4], [0, 1, 2, 4], scale="percent")
    assert (r.n, r.n_excluded) == (3, 1)
    assert r.bias == pytest.approx(200 / 3)


def test_missing_values_raise_or_are_counted():
    with pytest.raises(ValueError, match=r"test: 1 of 3 values are NaN .*position 1"):
        agreement.bland_altman([1, 2, 3], [1, np.nan, 3])
    r = agreement.bland_altman([1, 2, 3, np.nan], [1, np.nan, 4, 5], missing="drop")
    assert (r.n, r.n_missing) == (2, 2)


def test_series_with_different_labels_are_refused():
    a = pd.Series([1.0, 2.0], index=["p", "q"])
    with pytest.raises(ValueError, match="different labels"):
        agreement.bland_altman(a, a[::-1])


@pytest.mark.parametrize("options", [{"limits": "wide"}, {"scale": "log"}, {"ci": "bootstrap"},
                                     {"confidence": 95}, {"missing": "ignore"}])
def test_unknown_options_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        agreement.bland_altman([1, 2, 3], [1, 2, 4], **options)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("limits", agreement.LIMITS)
@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_pairs_give_nan_and_say_why(n, limits):
    r = agreement.bland_altman(np.arange(n), np.arange(n) * 1.5, limits=limits)
    assert r.n == n
    assert np.isnan(r.slope)
    assert r.reason


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("limits", agreement.LIMITS)
def test_equal_readings_have_limits_of_zero_and_no_trend(limits):
    r = agreement.bland_altman([1.0, 2, 3, 4], [1.0, 2, 3, 4], limits=limits)
    assert (r.bias, r.sd, r.percent_outside) == (0, 0, 0)
    assert (r.loa_lower, r.loa_upper) == pytest.approx((0, 0), abs=1e-12)
    assert np.isnan([r.slope, r.shapiro_p, r.heteroscedasticity_p]).all()
    assert "no trend" in r.reason


def test_concordance_is_low_where_correlation_is_blind():
    x = np.arange(10.0)
    r = agreement.concordance(x, x + 5)
    assert r.pearson == pytest.approx(1)
    assert r.ccc == pytest.approx(2 * 8.25 / (2 * 8.25 + 25))
    assert r.ccc_ci[0] < r.ccc < r.ccc_ci[1]
    assert "on a line" in agreement.concordance(x, x + 5, ci="lin").reason


@pytest.mark.parametrize(("x", "y"), [([], []), ([1, 2], [1, 2]), ([3, 3, 3], [1, 2, 3])])
def test_concordance_without_spread_says_why(x, y):
    r = agreement.concordance(x, y)
    assert np.isnan(r.ccc)
    assert r.reason


def test_results_print_and_convert_without_loss(pefr):
    r = agreement.bland_altman(pefr.mini1, pefr.wright1)
    assert r.to_dict()["bias"] == r.bias
    assert r.to_frame().loc[0, "bias_ci_lower"] == r.bias_ci[0]
    assert "loa_upper_ci" in repr(r)
    assert "<table>" in r._repr_html_()
    assert all(type(value) in (int, float, str, tuple) for value in r.to_dict().values())
    with pytest.raises(AttributeError):
        r.bias = 0.0
