"""Equivalence within a declared margin, of means and of shifts."""

import itertools

import numpy as np
import pytest
from scipy import stats

from deeplung_nb.stats import (
    equivalence,
    paired,
)


def test_one_sided_signed_rank_tests_count_the_ways_of_signs():
    d = np.array([1.5, -0.5, 2.0, 3.0, 0.5, 4.0, -1.0])
    ranks = stats.rankdata(np.abs(d))
    sums = np.array([np.dot(signs, ranks) for signs in itertools.product([0, 1], repeat=7)])
    w = ranks[d > 0].sum()
    zero = np.zeros(7)
    greater = paired.wilcoxon_signed_rank(zero, d, alternative="greater")
    less = paired.wilcoxon_signed_rank(zero, d, alternative="less")
    assert greater.p_value == pytest.approx(np.mean(sums >= w))
    assert less.p_value == pytest.approx(np.mean(sums <= w))
    both = paired.wilcoxon_signed_rank(zero, d)
    assert both.p_value == pytest.approx(2 * min(greater.p_value, less.p_value))
    normal = [paired.wilcoxon_signed_rank(zero, d, alternative=side, method="asymptotic").p_value
              for side in ("greater", "less")]
    other = [stats.wilcoxon(d, alternative=side, method="asymptotic", correction=True).pvalue
             for side in ("greater", "less")]
    assert normal == pytest.approx(other)


def test_wilcoxon_tost_speaks_for_a_shift_within_the_margin_only():
    rng = np.random.default_rng(5)
    a = rng.normal(100, 20, 40)
    near, far = a + rng.laplace(0.5, 2, 40), a + rng.laplace(6, 2, 40)
    assert equivalence.wilcoxon_tost(a, near, 3).p_value < 0.001
    found = equivalence.wilcoxon_tost(a, far, 3)
    assert found.p_upper > 0.99 > 0.01 > found.p_lower
    # The interval of 90 % lies within the margin where both tests are below 5 %.
    for margin in (0.8, 1.0, 1.5, 2.0):
        one = equivalence.wilcoxon_tost(a, near, margin)
        low, high = one.hodges_lehmann_ci
        assert (one.p_value < 0.05) == (-margin < low and high < margin)
    on_it = equivalence.wilcoxon_tost([1, 2, 3, 4], [2, 3, 4, 5], 1)
    assert on_it.p_value == 1.0


def test_so_few_shifts_say_that_their_interval_falls_short():
    assert "holds" in equivalence.wilcoxon_tost([1, 2, 3], [1.1, 2.2, 3.4], 1).reason


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
