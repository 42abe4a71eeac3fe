"""Rank tests: textbook data, brute force over all signs, and the edges."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from deeplung_nb.stats import correlation, paired
from deeplung_nb.stats._pairwise import pair_differences, walsh_averages

# Depression scores of nine patients before and after a tranquiliser: Hollander & Wolfe 1973,
# Nonparametric Statistical Methods, table 3.1 (also the example of R's wilcox.test).
BEFORE = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
AFTER = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]


def test_the_depression_scores_of_hollander_and_wolfe():
    r = paired.wilcoxon_signed_rank(AFTER, BEFORE)
    assert (r.w_plus, r.w_minus, r.method) == (40, 5, "exact")
    assert r.p_value == pytest.approx(0.0390625)  # one-sided 0.0195 in the book
    assert r.hodges_lehmann == pytest.approx(0.46)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9), st.sampled_from(["drop", "pratt"]))
def test_the_exact_p_is_that_of_all_signs(differences, zeros):
    d = np.array(differences, dtype=float)
    r = paired.wilcoxon_signed_rank(np.zeros(len(d)), d, zeros=zeros, method="exact")
    kept = d if zeros == "pratt" else d[d != 0]
    ranks = stats.rankdata(np.abs(kept))[kept != 0]
    if not len(ranks):
        assert np.isnan(r.p_value)
        assert "all differences are zero" in r.reason
        return
    sums = np.array([ranks[np.array(signs)].sum() for signs in
                     itertools.product([False, True], repeat=len(ranks))])
    extreme = np.abs(sums - ranks.sum() / 2) >= abs(r.w_plus - ranks.sum() / 2) - 1e-9
    assert r.p_value == pytest.approx(extreme.mean())


def test_float_noise_breaks_no_ties():
    exact, noisy = [0.0] * 4, [0.1 + 0.2, 0.3, -0.3, 0.1 * 3]
    assert (paired.wilcoxon_signed_rank(exact, noisy).p_value
            == paired.wilcoxon_signed_rank(exact, [0.3, 0.3, -0.3, 0.3]).p_value)


def test_exact_and_asymptotic_meet_in_large_samples():
    d = np.random.default_rng(2).normal(0.1, 1, 900)
    exact, normal = (paired.wilcoxon_signed_rank(np.zeros(900), d, method=method).p_value
                     for method in ("exact", "asymptotic"))
    assert exact == pytest.approx(normal, rel=0.02)
    assert exact == pytest.approx(stats.wilcoxon(d, method="exact").pvalue, rel=1e-9)


@pytest.mark.parametrize("n", [12, 70])
def test_the_interval_of_hodges_lehmann_covers_as_often_as_it_says(n):
    rng = np.random.default_rng(n)
    held = 0
    for _ in range(300):
        low, high = paired.wilcoxon_signed_rank(np.zeros(n), rng.normal(1, 2, n)
                                                ).hodges_lehmann_ci
        held += low <= 1 <= high
    assert held / 300 > 0.92


def test_an_interval_that_n_can_not_reach_says_what_it_holds():
    r = paired.wilcoxon_signed_rank([0] * 5, [1, 2, 3, 4, 5])
    assert r.hodges_lehmann_ci == (1, 5)
    assert "93.75 %" in r.reason


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_pairs_and_no_difference(n):
    nothing = paired.wilcoxon_signed_rank(np.ones(n), np.ones(n))
    assert np.isnan(nothing.p_value)
    assert nothing.reason
    if n:
        assert paired.wilcoxon_signed_rank(np.zeros(n), np.arange(1.0, n + 1)
                                           ).p_value == pytest.approx(2 * 0.5**n)


def test_swapping_the_readers_changes_the_sign_only():
    there, back = paired.wilcoxon_signed_rank(BEFORE, AFTER), paired.wilcoxon_signed_rank(AFTER,
                                                                                         BEFORE)
    assert there.p_value == back.p_value
    assert there.z == -back.z
    assert there.rank_biserial == -back.rank_biserial
    assert there.hodges_lehmann_ci == tuple(-end for end in back.hodges_lehmann_ci[::-1])


def test_mann_whitney_against_scipy_and_by_hand():
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=18), rng.normal(0.5, 1, size=23)
    r = paired.mann_whitney(a, b)
    assert r.method == "exact"
    assert r.p_value == pytest.approx(stats.mannwhitneyu(a, b, method="exact").pvalue)
    assert r.hodges_lehmann == pytest.approx(np.median(np.subtract.outer(a, b)))
    assert r.hodges_lehmann_ci[0] < r.hodges_lehmann < r.hodges_lehmann_ci[1]
    assert r.rank_biserial == pytest.approx(2 * (a[:, None] > b).mean() - 1)
    # The interval holds 0 exactly where the test at its level does not reject.
    assert (r.hodges_lehmann_ci[0] <= 0 <= r.hodges_lehmann_ci[1]) == (r.p_value > 0.05)


@pytest.mark.parametrize("shift", np.linspace(0, 2, 9))
def test_the_interval_of_mann_whitney_is_the_test_turned_round(shift):
    rng = np.random.default_rng(9)
    a, b = rng.normal(size=9) + shift, rng.normal(size=11)
    r = paired.mann_whitney(a, b)
    assert (r.hodges_lehmann_ci[0] > 0 or r.hodges_lehmann_ci[1] < 0) == (r.p_value <= 0.05)


def test_mann_whitney_edges():
    assert paired.mann_whitney([], [1.0]).reason == "a sample is empty"
    assert np.isnan(paired.mann_whitney([1.0, 1], [1.0, 1]).p_value)
    assert paired.mann_whitney([1, 2, 2], [2, 3]).method == "exact"
    assert paired.mann_whitney([1, 2, 2], [2, 3], method="asymptotic").method == "asymptotic"
    with pytest.raises(ValueError, match="NaN"):
        paired.mann_whitney([1.0, np.nan], [1.0])
    assert paired.mann_whitney([1.0, np.nan], [1.5], missing="drop").n_missing == 1


def test_sign_test_ignores_zeros_and_counts_them():
    r = paired.sign_test([0] * 8, [1, 1, 1, 1, 1, -1, 0, 0])
    assert (r.n, r.n_zero, r.n_positive, r.n_negative) == (8, 2, 5, 1)
    assert r.p_value == pytest.approx(2 * 7 / 64)
    assert paired.sign_test([1, 1], [1, 1]).reason


def test_holm_by_hand_and_its_limits():
    assert paired.holm([0.04, 0.01, 0.03]).tolist() == pytest.approx([0.06, 0.03, 0.06])
    for wrong in ([], [1.2], [0.1, np.nan]):
        with pytest.raises(ValueError, match="p_values"):
            paired.holm(wrong)


def test_correlation_of_ranks_ignores_a_monotone_change():
    x = np.random.default_rng(0).normal(size=30)
    y = x + np.random.default_rng(1).normal(size=30)
    assert correlation.spearman(np.exp(x), y).r == pytest.approx(correlation.spearman(x, y).r)
    assert correlation.pearson(2 * x + 1, y).r == pytest.approx(correlation.pearson(x, y).r)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("correlate", [correlation.spearman, correlation.pearson])
@pytest.mark.parametrize(("x", "y", "reason"), [
    ([], [], "0 pairs"), ([1], [1], "1 pair"), ([1, 2], [1, 2], "2 pairs"),
    ([5, 5, 5, 5], [1, 2, 3, 4], "constant"), ([1, 2, 3], [1, 3, 2], "no interval"),
])
def test_correlations_without_ground_say_why(correlate, x, y, reason):
    r = correlate(x, y)
    assert reason in r.reason
    assert np.isnan(r.ci).all()


@pytest.mark.parametrize("kind", ["normal", "whole", "skewed", "zeros", "decimal"])
def test_a_rank_searched_for_is_the_one_of_the_sorted_list(kind):
    rng = np.random.default_rng(11)
    values = {"normal": rng.normal(size=90), "whole": rng.integers(-3, 4, 90).astype(float),
              "skewed": rng.lognormal(0, 3, 90), "decimal": np.round(rng.normal(size=90), 2),
              "zeros": np.concatenate([np.zeros(90), rng.normal(size=3) * 1e6])}[kind]
    for pairs in (walsh_averages(values), pair_differences(values[:40], values[40:])):
        listed, pairs.ordered = pairs.ordered, None
        count, asked = pairs.count, []
        pairs.count = lambda most, count=count, asked=asked: asked.append(most) or count(most)
        ranks = rng.permutation(len(listed))[:25]
        found = [pairs[int(rank)] for rank in ranks]
        np.testing.assert_allclose(found, listed[ranks], rtol=1e-8, atol=1e-8)
        assert len(asked) / len(ranks) < 40  # halving alone would take some 60


def test_an_exact_test_of_many_pairs_is_refused_with_the_remedy():
    a = np.arange(1500.0)
    with pytest.raises(ValueError, match=r"1500 non-zero pairs: above 1000 .* Use 'auto'"):
        paired.wilcoxon_signed_rank(a, a + 1, method="exact")
