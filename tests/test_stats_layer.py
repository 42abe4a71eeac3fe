"""The layer that people read: rounding noise, empty readings, options that are honoured."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from deeplung_nb import stats
from deeplung_nb.stats import agreement, equivalence, limits, paired, summary

RNG = np.random.default_rng(3)
A = RNG.uniform(1, 400, 30)


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e6])
def test_a_constant_difference_is_constant_in_any_unit(unit):
    """0.1 more everywhere: what differs is rounding, and no trend, spread or shape."""
    a = A * unit
    b = a + 0.1 * unit
    assert np.ptp(b - a) > 0 or unit == 1e6  # there is noise to be taken for a finding
    limits = agreement.bland_altman(a, b)
    assert np.isnan([limits.slope_p, limits.heteroscedasticity_p, limits.shapiro_p]).all()
    assert "no trend" in limits.reason
    assert equivalence.tost(a, b, unit).reason == "all differences are equal"
    assert equivalence.total_deviation_index(a, b).reason == "all differences are equal"


@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1.0, 1e6])
def test_ranks_are_the_same_in_any_unit(unit):
    """Cubic metres or cubic millimetres: the same zeros, ties, p and (scaled) shift."""
    a = np.array([0.1, 0.2, 0.3, 1.0, 2.0, 5.0, 7.7, 9.1, 12.0, 3.3])
    b = np.array([0.3, 0.2, 0.5, 1.2, 1.8, 5.3, 7.7, 9.8, 11.0, 3.9])
    base = paired.wilcoxon_signed_rank(a, b)
    assert base.n_zero == 2
    found = paired.wilcoxon_signed_rank(a * unit, b * unit)
    assert (found.n_zero, found.w_plus, found.p_value) == (base.n_zero, base.w_plus, base.p_value)
    assert found.hodges_lehmann == pytest.approx(base.hodges_lehmann * unit, rel=1e-9)
    assert found.hodges_lehmann_ci == pytest.approx(np.array(base.hodges_lehmann_ci) * unit,
                                                    rel=1e-9)
    assert paired.sign_test(a * unit, b * unit).n_positive == paired.sign_test(a, b).n_positive
    two = paired.mann_whitney(a * unit, b * unit)
    assert two.hodges_lehmann == pytest.approx(
        paired.mann_whitney(a, b).hodges_lehmann * unit, rel=1e-9)


def test_an_empty_reading_is_no_detection_by_anybody():
    pair = pd.DataFrame({"reference": [1.0, np.nan, 2.0, 0.0], "test": [1.0, 3.0, np.nan, 0.0]})
    assert summary.detection(pair) == {"both": 1, "reference_only": 0, "test_only": 0,
                                       "neither": 1}


def test_the_flag_tells_a_spread_that_shrinks_from_one_that_grows():
    a = np.linspace(1, 100, 60)
    wobble = np.tile([1.0, -1.0], 30)
    for spread, said in ((0.3 * a, "spread grows with size"),
                         (0.3 * a[::-1], "spread shrinks with size")):
        row = summary.agreement_row(pd.DataFrame({"reference": a, "test": a + wobble * spread}))
        assert said in row["flags"]
        assert row["flags"].count("spread") == 1


def test_limits_level_and_intervals_level_are_two_things():
    base = equivalence.sample_size(0.0, 1.0, 3.0)
    wide = equivalence.sample_size(0.0, 1.0, 3.0, share=0.99)
    sure = equivalence.sample_size(0.0, 1.0, 3.0, confidence=0.99)
    assert base.n < wide.n
    assert base.n < sure.n
    assert (wide.share, wide.confidence) == (0.99, 0.95)
    # Only the share moves the limits: at 99.9 % of the differences they leave the margin.
    with pytest.raises(ValueError, match="beyond the margin"):
        equivalence.sample_size(0.0, 1.0, 3.0, share=0.999)
    equivalence.sample_size(0.0, 1.0, 3.0, confidence=0.999)


@pytest.mark.parametrize("limits", ["regression", "quantile", "harrell-davis"])
def test_an_interval_that_cannot_be_had_is_refused_and_the_real_one_named(limits):
    b = A + RNG.normal(0, 3, len(A))
    with pytest.raises(ValueError, match="is for constant limits"):
        agreement.bland_altman(A, b, limits=limits, ci="exact")
    assert agreement.bland_altman(A, b, limits=limits).ci == agreement.OWN_INTERVALS[limits]
    assert agreement.bland_altman(A, b).ci == "mover"


@pytest.mark.parametrize("multiplier", [-1, 0, float("nan"), float("inf")])
def test_a_multiplier_is_a_positive_number(multiplier):
    with pytest.raises(ValueError, match="expected SDs from bias to limit, above 0"):
        agreement.bland_altman(A, A + 1, multiplier=multiplier)


def test_submodules_are_there_when_asked_for_and_quick_to_import():
    code = ("import sys, deeplung_nb.stats as s; assert 'scipy' not in sys.modules; "
            "print(s.agreement.bland_altman.__name__, 'paired' in dir(s))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["bland_altman", "True"]
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = stats.nothing


def skewed(seed, n=67):
    """A third of zeros, the rest lognormal; both readers err by a fifth."""
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(n) < 0.35, 0.0, rng.lognormal(3, 1.3, n))
    return tuple(truth * (1 + 0.2 * rng.normal(size=n)).clip(0) for _ in range(2))


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


def test_too_many_points_outside_their_limits_are_flagged():
    a = 50.0 + np.arange(100) * 0.01
    b = a.copy()
    b[::7] += np.tile([1.0, -1.0], 8)[:15]  # SD 0.39: all fifteen lie beyond 1.96 of it
    row = summary.agreement_row(pd.DataFrame({"reference": a, "test": b}))
    assert "15 % outside the limits, expected 5" in row["flags"]
    row = summary.agreement_row(pd.DataFrame({"reference": a, "test": a + RNG.normal(size=100)}))
    assert "outside the limits" not in row["flags"]
