"""What must hold for any readings: symmetry, units, order, bounds; and honesty at the edges."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from deeplung_nb.report.prose import report_text
from deeplung_nb.stats import _pairwise, agreement, correlation, equivalence, paired, regression

settings.register_profile("suite", max_examples=60, deadline=None, derandomize=True)
settings.load_profile("suite")

volumes = st.one_of(st.just(0.0), st.integers(1, 400_000).map(lambda n: n / 100))


@st.composite
def readings(draw, least=4, most=25):
    """Pairs of volumes in mL, with zeros and ties."""
    n = draw(st.integers(least, most))
    return tuple(np.array(draw(hnp.arrays(float, n, elements=volumes))) for _ in range(2))


def same(found, wanted, scale=1.0):
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-8 * scale, equal_nan=True)


@given(readings())
def test_swapping_the_readers_flips_the_bias_and_maps_the_limits(pair):
    a, b = pair
    for options in ({}, {"ci": "exact"}, {"limits": "quantile"}, {"limits": "harrell-davis"}):
        one = agreement.bland_altman(a, b, **options)
        other = agreement.bland_altman(b, a, **options)
        same([one.bias, *one.bias_ci], [-other.bias, *(-v for v in reversed(other.bias_ci))], 1e3)
        same([one.loa_lower, one.loa_upper], [-other.loa_upper, -other.loa_lower], 1e3)
        same(one.loa_lower_ci, [-v for v in reversed(other.loa_upper_ci)], 1e3)
        same([one.sd, one.percent_outside], [other.sd, other.percent_outside], 1e3)


@given(readings(), st.sampled_from([0.001, 0.5, 1000.0]))
def test_another_unit_scales_the_numbers_and_leaves_the_tests(pair, factor):
    a, b = pair
    assume(np.ptp(b - a) > 1)
    one = agreement.bland_altman(a, b)
    other = agreement.bland_altman(a * factor, b * factor)
    for name in ("bias", "sd", "loa_lower", "loa_upper"):
        same(getattr(other, name), factor * getattr(one, name), 1e3 * factor)
    same([other.slope, other.heteroscedasticity_p], [one.slope, one.heteroscedasticity_p])
    same(agreement.concordance(a * factor, b * factor).ccc, agreement.concordance(a, b).ccc)


@given(readings(), st.integers(-50, 50))
def test_a_shift_of_one_reader_shifts_the_bias_and_the_limits_alone(pair, shift):
    a, b = pair
    one, other = agreement.bland_altman(a, b), agreement.bland_altman(a, b + shift)
    same([other.bias, other.loa_lower, other.loa_upper, other.sd],
         [one.bias + shift, one.loa_lower + shift, one.loa_upper + shift, one.sd], 1e3)


@given(readings(), st.randoms(use_true_random=False))
def test_the_order_of_the_cases_does_not_matter(pair, random):
    a, b = pair
    order = list(range(len(a)))
    random.shuffle(order)
    for function in (agreement.bland_altman, agreement.concordance, paired.wilcoxon_signed_rank,
                     correlation.spearman, correlation.pearson, regression.passing_bablok,
                     paired.sign_test):
        one, other = function(a, b).to_frame(), function(a[order], b[order]).to_frame()
        for name in one.select_dtypes("number"):
            same(other[name].iloc[0], one[name].iloc[0], 1e3)


@given(readings())
def test_concordance_never_exceeds_correlation(pair):
    r = agreement.concordance(*pair)
    assume(not math.isnan(r.ccc))
    assert abs(r.ccc) <= abs(r.pearson) + 1e-12
    assert -1 <= r.ccc <= 1
    same(r.pearson, correlation.pearson(*pair).r)


@given(readings())
def test_probabilities_and_intervals_are_in_order(pair):
    a, b = pair
    r = paired.wilcoxon_signed_rank(a, b)
    assert r.n == r.n_zero + r.n_positive + r.n_negative
    assert math.isnan(r.p_value) or 0 < r.p_value <= 1
    assert r.w_plus + r.w_minus == (r.n - r.n_zero) * (r.n - r.n_zero + 1) / 2
    if not math.isnan(r.hodges_lehmann_ci[0]):
        assert r.hodges_lehmann_ci[0] <= r.hodges_lehmann <= r.hodges_lehmann_ci[1]
    m = paired.mann_whitney(a, b)
    assert m.hodges_lehmann_ci[0] <= m.hodges_lehmann <= m.hodges_lehmann_ci[1]
    limits = agreement.bland_altman(a, b)
    assert limits.loa_lower_ci[0] <= limits.loa_lower <= limits.bias <= limits.loa_upper


@given(readings())
def test_equivalence_is_the_interval_of_the_bias_within_the_margin(pair):
    a, b = pair
    assume(np.ptp(b - a) > 1e-6)
    for margin in (1.0, 100.0, 10_000.0):
        r = equivalence.tost(a, b, margin)
        inside = -margin < r.bias_ci[0] and r.bias_ci[1] < margin
        assert inside == (r.p_value < 0.05)


@settings(max_examples=15)
@given(st.integers(0, 2**31))
def test_hodges_lehmann_searched_for_is_hodges_lehmann_sorted(seed):
    rng = np.random.default_rng(seed)
    n = 2100
    d = np.round(rng.standard_cauchy(n) * rng.choice([0.01, 1, 100]), rng.integers(0, 9))
    d[d == 0] = 0.05
    i, j = np.triu_indices(len(d))
    averages = (d[i] + d[j]) / 2
    assert len(averages) > _pairwise.PAIRS_IN_MEMORY
    r = paired.wilcoxon_signed_rank(np.zeros(len(d)), d)
    np.testing.assert_allclose(r.hodges_lehmann, np.median(averages), atol=2e-9)
    ordered = np.sort(averages)
    for end in r.hodges_lehmann_ci:
        k = np.searchsorted(ordered, end - 1e-9)
        assert abs(ordered[min(k, len(ordered) - 1)] - end) < 2e-9
    m = paired.mann_whitney(d, d[:1200] + 0.5)
    np.testing.assert_allclose(
        m.hodges_lehmann, np.median(np.subtract.outer(d, d[:1200] + 0.5)), atol=2e-9)


def test_a_million_pairs_are_no_trouble():
    rng = np.random.default_rng(0)
    a = rng.lognormal(4, 1, 1_000_000)
    b = a + rng.normal(2, 5, a.size)
    assert agreement.bland_altman(a, b).bias == pytest.approx(2, abs=0.05)
    assert agreement.concordance(a, b).ccc > 0.99
    assert correlation.spearman(a, b).r > 0.9
    assert regression.deming(a, b).slope == pytest.approx(1, abs=0.01)
    assert equivalence.tost(a, b, 3).p_value < 1e-6
    few = slice(0, 5000)
    assert regression.passing_bablok(a[few], b[few]).slope == pytest.approx(1, abs=0.02)
    r = paired.wilcoxon_signed_rank(a[few], b[few])
    assert r.hodges_lehmann_ci[0] < 2 < r.hodges_lehmann_ci[1]


FUNCTIONS = [
    agreement.bland_altman, agreement.concordance, lambda x, y: equivalence.tost(x, y, 5),
    lambda x, y: equivalence.total_deviation_index(x, y, margin=5),
    paired.wilcoxon_signed_rank, paired.mann_whitney,
    paired.sign_test, correlation.spearman, correlation.pearson, regression.deming,
    regression.passing_bablok,
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("a", "b"), [
    ([], []), ([1.0], [2.0]), ([1.0, 2.0], [2.0, 2.5]), ([0.0] * 9, [0.0] * 9),
    ([3.0] * 9, [1.0, 2, 3, 4, 5, 6, 7, 8, 9]), ([1.0, 2, 3, 4, 5], [1.0, 2, 3, 4, 5])])
def test_each_empty_number_comes_with_its_reason(function, a, b):
    r = function(a, b)
    numbers = [v for v in r.to_frame().iloc[0] if isinstance(v, (float, np.floating))]
    if any(math.isnan(v) for v in numbers):
        assert r.reason


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("bad", "words"), [(np.inf, "infinite at position 1"),
                                            (np.nan, "1 of 3 values are NaN")])
def test_what_is_no_reading_is_refused(function, bad, words):
    with pytest.raises(ValueError, match=words):
        function([1.0, 2.0, 3.0], [1.0, bad, 3.0])


def test_negative_readings_have_no_percent_and_no_ratio():
    for scale in ("percent", "ratio"):
        with pytest.raises(ValueError, match="0 or more"):
            agreement.bland_altman([1.0, -2.0, 3.0], [1.0, 2.0, 3.0], scale=scale)


@given(readings(least=0, most=8), st.sampled_from([None, 5.0]))
def test_the_paragraph_says_something_about_any_readings(pair, margin):
    a, b = pair
    text = report_text(pd.DataFrame({"reference": a, "test": b}), margin=margin)
    assert text.startswith("Methods. ")
    assert "\n\nResults. Both readers found it in" in text
    assert "nan" not in text.lower()
    assert ("TOST" in text) == (margin is not None)


def test_the_paragraph_holds_the_numbers_of_the_functions():
    rng = np.random.default_rng(3)
    a = rng.lognormal(4, 1, 40)
    b = 1.2 * a + rng.normal(0, 4, 40)
    text = report_text(pd.DataFrame({"reference": a, "test": b}), margin=50,
                               reference="reader A", test="reader B", unit="cm³",
                               limits="regression")
    r = agreement.bland_altman(a, b)
    assert f"was {r.bias:.1f} cm³" in text
    assert f"{stats.spearmanr(a, b).statistic:.3f}" in text
    assert "p < 0.001" in text
    assert "Results. Both readers found it in 40 cases, reader A alone in 0" in text
    sloped = agreement.bland_altman(a, b, limits="regression")
    quartile = np.quantile((a + b) / 2, 0.25)
    at = agreement.limits_by_size(a, b, quartile).iloc[0]
    assert at.loa_lower == pytest.approx(sloped.lines(quartile).lower)
    assert (f"The limits of agreement were {at.loa_lower:.2f} (95 % CI "
            f"{at.loa_lower_ci_lower:.2f} to ").replace("-", "−") in text
    assert "scipy" in text


def test_the_paragraph_needs_paired_columns():
    with pytest.raises(ValueError, match="has no column test"):
        report_text(pd.DataFrame({"reference": [1.0]}))
    with pytest.raises(ValueError, match="NaN"):
        report_text(pd.DataFrame({"reference": [1.0, None], "test": [1.0, 2.0]}))
