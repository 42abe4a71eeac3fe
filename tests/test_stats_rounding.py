"""Rounding noise, units and options that are honoured."""


import numpy as np
import pytest

from deeplung_nb.stats import (
    agreement,
    equivalence,
    paired,
)
from tests.stats_cases import RNG, A


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
