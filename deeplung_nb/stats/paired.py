"""Tests of paired and of independent readings by ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from deeplung_nb.stats import clusters, robust
from deeplung_nb.stats._exact import null_distribution, rank_sum_distribution, tied_rank_sum_p
from deeplung_nb.stats._pairwise import Pairwise, pair_differences, walsh_averages
from deeplung_nb.stats._results import (
    Result,
    check_confidence,
    clustered_pairs,
    one_array,
    plain_differences,
)

NAN = float("nan")
EXACT_UP_TO = 50
"""Non-zero pairs up to which `auto` takes the exact distribution."""
EXACT_AT_MOST = 1000
"""Non-zero pairs up to which the exact distribution can be asked for; 2,000 take minutes."""
NO_SHIFT = "no interval of the Hodges-Lehmann shift by patients"
EXACT_INTERVAL_UP_TO = 1000
"""Values up to which the interval of Hodges-Lehmann takes the exact distribution."""


@dataclass(frozen=True, repr=False)
class SignedRank(Result):
    """Result of `wilcoxon_signed_rank`; differences are test - reference."""

    n: int
    n_clusters: int
    n_zero: int
    n_positive: int
    n_negative: int
    w_plus: float
    w_minus: float
    z: float
    p_value: float
    method: str
    zeros: str
    rank_biserial: float
    rank_biserial_ci: tuple[float, float]
    hodges_lehmann: float
    hodges_lehmann_ci: tuple[float, float]
    n_missing: int
    reason: str


@dataclass(frozen=True, repr=False)
class MannWhitney(Result):
    """Result of `mann_whitney`; differences are a - b."""

    n_a: int
    n_b: int
    u: float
    p_value: float
    hodges_lehmann: float
    hodges_lehmann_ci: tuple[float, float]
    rank_biserial: float
    rank_biserial_ci: tuple[float, float]
    method: str
    n_missing: int
    reason: str


@dataclass(frozen=True, repr=False)
class SignTest(Result):
    """Result of `sign_test`."""

    n: int
    n_clusters: int
    n_zero: int
    n_positive: int
    n_negative: int
    p_value: float
    n_missing: int
    reason: str


def _nothing(d: np.ndarray) -> str:
    return "all differences are zero: nothing to test" if len(d) else "no pair"


def _ordered_interval(ordered: Pairwise, chances: np.ndarray | None, spread: float,
                      confidence: float) -> tuple[tuple[float, float], str]:
    """Interval between two of the ordered pairwise values, by the distribution of their rank.

    `chances` is the exact null distribution of the count of values below the centre; without it
    the normal one with SD `spread` serves. The widest interval may fall short of the confidence:
    it is given all the same (as R does), and the reason says so.
    """
    m, tail = ordered.n_pairs, (1 - confidence) / 2
    if chances is None:
        # The rank is whole: 0.5 is the continuity correction.
        k = int(np.ceil(m / 2 - stats.norm.isf(tail) * spread - 0.5)) - 1
        attained = 1 - 2 * stats.norm.cdf((0.5 - m / 2) / spread)
    else:
        k = int(np.searchsorted(np.cumsum(chances), tail * (1 - 1e-12), side="left")) - 1
        attained = 1 - 2 * float(chances[0])
    reason = ""
    if k < 0:
        k, reason = 0, f"the widest interval holds {100 * attained:.4g} % confidence only"
    return (ordered[k], ordered[m - 1 - k]), reason


def _hodges_lehmann(values: np.ndarray, confidence: float
                    ) -> tuple[float, tuple[float, float], str]:
    """Median of the Walsh averages and its distribution-free interval."""
    n = len(values)
    walsh = walsh_averages(values)
    chances = (null_distribution(np.arange(1, n + 1) / 2) if n <= EXACT_INTERVAL_UP_TO else None)
    spread = float(np.sqrt(n * (n + 1) * (2 * n + 1) / 24))
    interval, reason = _ordered_interval(walsh, chances, spread, confidence)
    return walsh.median(), interval, reason


def wilcoxon_signed_rank(
    reference: Any, test: Any, *, zeros: str = "drop", method: str = "auto",
    correction: bool = True, alternative: str = "two-sided", cluster: Any = None,
    confidence: float = 0.95, missing: str = "raise",
) -> SignedRank:
    """Wilcoxon's signed-rank test of paired readings.

    Null hypothesis: the differences are symmetric about 0. A large p is no proof of agreement.

    Parameters
    ----------
    reference, test
        Paired readings, 1-D.
    zeros
        `drop`: zero differences are left out before ranking (Wilcoxon). `pratt`: they are ranked
        and then left out (Pratt 1959).
    method
        `exact` (all sign patterns, also with ties and zeros), `asymptotic`, or `auto`: exact up
        to 50 non-zero pairs. `exact` is refused above 1,000.
    correction
        Continuity correction of the asymptotic form.
    alternative
        `two-sided`, or what a small p is to speak for: test `greater`, or `less`, than reference.
    cluster
        Which patient each pair is of, one value a pair; None: each is of another one. Where a
        patient has several, `z` and `p_value` are those of `clusters.signed_rank` (zeros dropped,
        no correction), intervals take patients as independent, and there is none of the
        Hodges-Lehmann shift.

    Returns
    -------
    SignedRank
        `rank_biserial` = (W+ - W-) / (W+ + W-), its interval `robust.rank_biserial_interval` (NaN
        where all differences have one sign); Hodges-Lehmann is of the non-zero differences
        (of all of them with `pratt`), its interval by the exact distribution without ties up to
        1,000 pairs. Above 2,000 pairs the averages are not listed but searched for:
        memory grows with n, not with its square. `z` is of the asymptotic form, whichever form
        gives `p_value`.

    Formula
    -------
    W+ = sum of the ranks of |d| where d > 0; differences are rounded to 12 digits first, or
    float noise would break ties.

    Source
    ------
    Wilcoxon 1945, Biometrics Bull 1:80; Pratt 1959, JASA 54:655.

    Checked against
    ---------------
    R stats::wilcox.test, coin, exactRankTests.

    Examples
    --------
    >>> r = wilcoxon_signed_rank([0, 0, 0, 0, 0], [1, 2, 3, 4, -5])
    >>> r.w_plus, r.p_value
    (10.0, 0.625)
    """
    for name, value, allowed in (("zeros", zeros, ("drop", "pratt")),
                                 ("method", method, ("auto", "exact", "asymptotic")),
                                 ("alternative", alternative, ("two-sided", "greater", "less"))):
        if value not in allowed:
            raise ValueError(f"{name} {value!r}: expected one of {', '.join(allowed)}")
    check_confidence(confidence)
    a, b, codes, n_missing = clustered_pairs(reference, test, cluster, missing)
    d = plain_differences(a, b)
    m = int(codes.max(initial=-1)) + 1
    n_zero = int((d == 0).sum())
    nonzero = d[d != 0]
    n_positive, n_negative = int((d > 0).sum()), int((d < 0).sum())
    if len(nonzero) == 0:
        return SignedRank(len(d), m, n_zero, 0, 0, 0.0, 0.0, NAN, NAN, "none", zeros, NAN,
                          (NAN, NAN), 0.0 if len(d) else NAN, (NAN, NAN), n_missing, _nothing(d))
    if zeros == "drop":
        ranks, values, whose = stats.rankdata(np.abs(nonzero)), nonzero, codes[d != 0]
    else:
        ranks, values, whose = stats.rankdata(np.abs(d))[d != 0], d, codes
    w_plus, w_minus = float(ranks[nonzero > 0].sum()), float(ranks[nonzero < 0].sum())
    mean, variance = (w_plus + w_minus) / 2, float((ranks**2).sum()) / 4
    biserial = (w_plus - w_minus) / (w_plus + w_minus)
    biserial_ci = robust.rank_biserial_interval(values, whose, confidence=confidence)
    if m < len(d):
        of_patients = clusters.signed_rank(a, b, codes, method=method, alternative=alternative)
        return SignedRank(
            len(d), m, n_zero, n_positive, n_negative, w_plus, w_minus, of_patients.z,
            of_patients.p_value, f"{of_patients.method}, by patients", zeros, biserial,
            biserial_ci, walsh_averages(values).median(), (NAN, NAN), n_missing,
            "; ".join(filter(None, [of_patients.reason, NO_SHIFT])))
    shift = w_plus - mean
    side = {"two-sided": np.sign(shift), "greater": 1.0, "less": -1.0}[alternative]
    step = 0.5 * side if correction else 0.0
    z = float((shift - step) / np.sqrt(variance))
    chosen = method
    if method == "auto":
        chosen = "exact" if len(nonzero) <= EXACT_UP_TO else "asymptotic"
    if chosen == "exact":
        if len(nonzero) > EXACT_AT_MOST:
            raise ValueError(f"method='exact' with {len(nonzero)} non-zero pairs: above "
                             f"{EXACT_AT_MOST} it takes minutes and tells no more. Use 'auto' or "
                             "'asymptotic'")
        low = {"two-sided": min(w_plus, w_minus), "greater": w_minus, "less": w_plus}[alternative]
        p_value = float(null_distribution(ranks)[:round(2 * low) + 1].sum())
    else:
        p_value = float(stats.norm.sf(abs(z) if alternative == "two-sided" else z * side))
    p_value = min(1.0, 2 * p_value if alternative == "two-sided" else p_value)
    estimate, interval, reason = _hodges_lehmann(values, confidence)
    return SignedRank(len(d), m, n_zero, n_positive, n_negative, w_plus, w_minus, z, p_value,
                      chosen, zeros, biserial, biserial_ci, estimate, interval, n_missing, reason)


def mann_whitney(a: Any, b: Any, *, method: str = "auto", confidence: float = 0.95,
                 missing: str = "raise") -> MannWhitney:
    """Mann-Whitney's rank-sum test of two independent samples, such as Dice by protocol.

    Null hypothesis: a value of one sample is as likely above as below one of the other.

    Parameters
    ----------
    a, b
        1-D samples, of any two lengths.
    method
        `exact` (all ways to choose the first sample, also with ties), `asymptotic` (ties and
        continuity corrected, as R with ties), or `auto`: exact where both have fewer than 50
        values. `exact` is refused above 200.

    Returns
    -------
    MannWhitney
        `u` counts pairs with a > b (ties half). Hodges-Lehmann is the median of all a - b, its
        interval by the exact distribution without ties, or the normal one; that of the
        rank-biserial correlation is `robust.rank_sum_interval`.

    Formula
    -------
    u = sum over pairs of [a > b] + [a = b] / 2; rank_biserial = 2 u / (n_a n_b) - 1.

    Source
    ------
    Mann & Whitney 1947, Ann Math Stat 18:50; interval: Hollander, Wolfe & Chicken 2014, ch. 4;
    exact with ties: Streitberg & Roehmel 1986, Stat Software Newsletter 12:10.

    Checked against
    ---------------
    scipy.stats.mannwhitneyu, R stats::wilcox.test; with ties, all permutations.

    Examples
    --------
    >>> mann_whitney([3.0, 4.0, 5.0], [1.0, 2.0, 2.5]).u
    9.0
    """
    check_confidence(confidence)
    (x, lost_x), (y, lost_y) = one_array(a, "a", missing), one_array(b, "b", missing)
    n_x, n_y = len(x), len(y)
    if not (n_x and n_y):
        return MannWhitney(n_x, n_y, NAN, NAN, NAN, (NAN, NAN), NAN, (NAN, NAN), "none",
                           lost_x + lost_y, "a sample is empty")
    tied = len(np.unique(np.concatenate([x, y]))) < n_x + n_y
    if method not in ("auto", "exact", "asymptotic"):
        raise ValueError(f"method {method!r}: expected one of auto, exact, asymptotic")
    if method == "exact" and max(n_x, n_y) > 200:
        raise ValueError(f"method='exact' with {max(n_x, n_y)} values: above 200 it takes minutes "
                         "and tells no more. Use 'auto' or 'asymptotic'")
    if method == "auto":
        method = "asymptotic" if max(n_x, n_y) >= 50 else "exact"
    constant = len(np.unique(np.concatenate([x, y]))) == 1
    tested = stats.mannwhitneyu(x, y, alternative="two-sided",
                                method="asymptotic" if tied else method)
    u = float(tested.statistic)
    p_value = tied_rank_sum_p(x, y) if tied and method == "exact" else float(tested.pvalue)
    differences = pair_differences(x, y)
    estimate = differences.median()
    chances = rank_sum_distribution(n_x, n_y) if method == "exact" else None
    spread = float(np.sqrt(n_x * n_y * (n_x + n_y + 1) / 12))
    interval, reason = _ordered_interval(differences, chances, spread, confidence)
    if constant:
        reason = "all values are equal: nothing to test"
    return MannWhitney(n_x, n_y, u, NAN if constant else p_value, estimate, interval,
                       2 * u / (n_x * n_y) - 1,
                       robust.rank_sum_interval(x, y, confidence=confidence), method,
                       lost_x + lost_y, reason)


def sign_test(reference: Any, test: Any, *, cluster: Any = None,
              missing: str = "raise") -> SignTest:
    """Exact sign test of paired readings: is test above reference as often as below?

    Parameters
    ----------
    reference, test
        Paired readings, 1-D.
    cluster
        Which patient each pair is of, one value a pair; None: each is of another one.
    missing
        `raise` on an empty reading, or `drop` and count.

    Returns
    -------
    SignTest
        Counts of differences test - reference above, below and at zero, and the two-sided p.

    Formula
    -------
    Zeros left out, the number above is binomial with share 1/2. Where patients have several pairs,
    S_i = above - below of patient i, z = sum S_i / sqrt(sum S_i^2): each patient's signs turn
    together (all 2^m turns up to 14 patients, else normal).

    Source
    ------
    Conover 1999, Practical Nonparametric Statistics, section 3.4; by patients: Larocque,
    Nevalainen & Oja 2007, Biometrika 94:267.

    Checked against
    ---------------
    The binomial distribution by hand; one pair a patient: all turns of signs.

    Examples
    --------
    >>> sign_test([0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, -1]).p_value
    0.21875
    """
    a, b, codes, n_missing = clustered_pairs(reference, test, cluster, missing)
    d = plain_differences(a, b)
    m = int(codes.max(initial=-1)) + 1
    n_positive, n_negative = int((d > 0).sum()), int((d < 0).sum())
    n = n_positive + n_negative
    if not n:
        return SignTest(len(d), m, len(d), 0, 0, NAN, n_missing, _nothing(d))
    p_value = float(stats.binomtest(n_positive, n).pvalue) if m == len(d) else \
        clusters.turned_p(np.bincount(codes, np.sign(d)))
    return SignTest(len(d), m, len(d) - n, n_positive, n_negative, p_value, n_missing, "")


def holm(p_values: Any, *, missing: str = "raise") -> np.ndarray:
    """p values adjusted for their number by Holm's step-down method (statsmodels).

    Parameters
    ----------
    p_values
        1-D, each 0 to 1.
    missing
        Of an empty p: `raise`, or `drop`: it stays empty and does not count.

    Returns
    -------
    ndarray
        Adjusted p values in the same order.

    Formula
    -------
    With p(1) <= ... <= p(m): adjusted p(i) = max over j <= i of min(1, (m - j + 1) p(j)).

    Source
    ------
    Holm 1979, Scand J Stat 6:65.

    Checked against
    ---------------
    R stats::p.adjust.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    from statsmodels.stats.multitest import multipletests

    values, n_missing = one_array(p_values, "p_values", missing)
    if len(values) == 0 or values.min() < 0 or values.max() > 1:
        raise ValueError(f"p_values {values.tolist()}: expected at least one, all from 0 to 1")
    adjusted = np.full(len(values) + n_missing, NAN)
    adjusted[~pd.isna(pd.Series(p_values)).to_numpy()] = multipletests(values, method="holm")[1]
    return adjusted
