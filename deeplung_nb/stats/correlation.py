"""Correlation: association, not agreement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from deeplung_nb.labels import counted
from deeplung_nb.stats import robust
from deeplung_nb.stats._influence import ALIKE
from deeplung_nb.stats._results import (
    FEWEST,
    Result,
    check_confidence,
    clustered_pairs,
    jackknife_error,
    rounding,
)

NAN = float("nan")


@dataclass(frozen=True, repr=False)
class Correlation(Result):
    """Result of `spearman` and `pearson`."""

    n: int
    n_clusters: int
    r: float
    ci: tuple[float, float]
    p_value: float
    method: str
    n_zero: int
    n_missing: int
    reason: str


EXACT_BELOW = 10
"""Pairs below which all orders are gone through for p (9! = 362,880)."""
ON_A_LINE = 1 - 1e-12
"""Above it, a coefficient is 1 but for rounding, and Fisher's z infinite."""


def _no_interval(r: float, n: int) -> str:
    if n <= 3:
        return "no interval with 3 pairs or patients"
    return "no interval: the readings are in one order or on a line" if abs(r) > ON_A_LINE else ""


def _fisher(r: float, se: float, confidence: float) -> tuple[float, float]:
    if not np.isfinite(se) or abs(r) > ON_A_LINE:
        return (NAN, NAN)
    half = stats.norm.ppf((1 + confidence) / 2) * se
    low, high = np.tanh(np.arctanh(r) + np.array([-half, half]))
    return float(low), float(high)


def _undefined(x: np.ndarray, y: np.ndarray) -> str:
    if len(x) < 3:
        return f"{counted(len(x), 'pair')}: a correlation needs 3 or more"
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return "a reader is constant"
    return ""


NO_P = "no p value of the correlation by patients"


def _check_ci(ci: str, known: tuple[str, ...], by_patients: bool) -> None:
    if ci not in known:
        raise ValueError(f"ci {ci!r}: expected one of {', '.join(known)}")
    if by_patients and ci not in known[:2]:
        raise ValueError(f"ci={ci!r} takes pairs as independent, and patients have several: "
                         "expected 'auto', or leave cluster out")


def _reasons(*why: str) -> str:
    return "; ".join(filter(None, why))


def spearman(x: Any, y: Any, *, ci: str = "auto", cluster: Any = None,
             confidence: float = 0.95, missing: str = "raise") -> Correlation:
    """Spearman's rank correlation.

    Parameters
    ----------
    x, y
        Paired readings, 1-D.
    ci
        `auto`, `jackknife`: `robust.spearman_interval`, which holds with zeros, skew, gross errors
        and several pairs a patient. As other programs print, for normal readings of independent
        pairs: `bonett-wright`, Fisher's z with SE sqrt((1 + r^2 / 2) / (n - 3)); `fisher`,
        sqrt(1 / (n - 3)), too narrow for large r.
    cluster
        Which patient each pair is of, one value a pair; None: each is of another one.
    confidence, missing
        Of the interval, 0 to 1; `raise` on an empty reading, or `drop` and count.

    Returns
    -------
    Correlation
        `p_value`: exact below ten pairs (all orders), else the t approximation on n - 2; null
        hypothesis no association; NaN where patients have several pairs. NaN with a `reason` where
        a reader is constant or there are too few pairs.

    Formula
    -------
    Pearson's r of the ranks; ties share their mean rank.

    Source
    ------
    Spearman 1904, Am J Psychol 15:72; Bonett & Wright 2000, Psychometrika 65:23.

    Checked against
    ---------------
    R stats::cor.test (estimate; p exact, and by the t approximation from ten pairs on).

    Examples
    --------
    >>> round(spearman([1, 2, 3, 4, 5], [1, 3, 2, 5, 4]).r, 6)
    0.8
    """
    check_confidence(confidence)
    a, b, codes, n_missing = clustered_pairs(x, y, cluster, missing, ("x", "y"))
    n, m, n_zero = len(a), int(codes.max(initial=-1)) + 1, int(((a == 0) | (b == 0)).sum())
    _check_ci(ci, ("auto", "jackknife", "bonett-wright", "fisher"), m < n)
    reason = _undefined(a, b)
    if reason:
        return Correlation(n, m, NAN, (NAN, NAN), NAN, "spearman", n_zero, n_missing, reason)
    tested = stats.spearmanr(a, b)
    r = float(tested.statistic)
    spread = 1 + r**2 / 2 if ci == "bonett-wright" else 1.0
    se = np.sqrt(spread / (n - 3)) if n > 3 else NAN
    interval = _fisher(r, se, confidence) if ci in ("bonett-wright", "fisher") else \
        robust.spearman_interval(a, b, codes, confidence=confidence)
    p_value = NAN if m < n else _exact_p(a, b, r) if n < EXACT_BELOW else float(tested.pvalue)
    return Correlation(n, m, r, interval, p_value, "spearman", n_zero, n_missing,
                       _reasons(_no_interval(r, m) or ALIKE * bool(np.isnan(interval[0])),
                                NO_P * (m < n)))


def _exact_p(x: np.ndarray, y: np.ndarray, r: float) -> float:
    """Share of all orders of y whose correlation of ranks is as far from 0 (scipy lists them)."""
    ranks = stats.rankdata(x) - (len(x) + 1) / 2

    def product(other: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.abs(np.tensordot(other, ranks, (axis, 0)) if other.ndim > 1 else other @ ranks)

    tested = stats.permutation_test((stats.rankdata(y) - (len(y) + 1) / 2,), product,
                                    permutation_type="pairings", n_resamples=np.inf,
                                    vectorized=True, alternative="greater")
    return float(tested.pvalue)


def pearson(x: Any, y: Any, *, ci: str = "auto", cluster: Any = None, confidence: float = 0.95,
            missing: str = "raise") -> Correlation:
    """Pearson's product-moment correlation.

    Parameters
    ----------
    x, y
        Paired readings, 1-D.
    ci
        `auto`, `studentized`: `robust.studentized`, which holds with zeros, skew and several pairs
        a patient, not with a few gross errors (Spearman's rho does); `fisher`: tanh(atanh r ± z /
        sqrt(n - 3)), as other programs print, for normal readings of independent pairs.
    cluster
        Which patient each pair is of, one value a pair; None: each is of another one.
    confidence, missing
        Of the interval, 0 to 1; `raise` on an empty reading, or `drop` and count.

    Returns
    -------
    Correlation
        As of `spearman`.

    Formula
    -------
    r = s_xy / (s_x s_y); interval tanh(atanh r ± z / sqrt(n - 3)).

    Source
    ------
    Fisher 1921, Metron 1:3.

    Checked against
    ---------------
    R stats::cor.test.

    Examples
    --------
    >>> round(pearson([1, 2, 3, 4], [1, 2, 3, 5]).r, 6)
    0.982708
    """
    check_confidence(confidence)
    a, b, codes, n_missing = clustered_pairs(x, y, cluster, missing, ("x", "y"))
    n, m, n_zero = len(a), int(codes.max(initial=-1)) + 1, int(((a == 0) | (b == 0)).sum())
    _check_ci(ci, ("auto", "studentized", "fisher"), m < n)
    reason = _undefined(a, b)
    if reason:
        return Correlation(n, m, NAN, (NAN, NAN), NAN, "pearson", n_zero, n_missing, reason)
    tested = stats.pearsonr(a, b)
    r = float(tested.statistic)
    se = 1 / np.sqrt(n - 3) if n > 3 else NAN
    interval = _fisher(r, se, confidence) if ci == "fisher" else robust.studentized(
        a, b, codes, confidence=confidence).pearson
    return Correlation(n, m, r, interval, NAN if m < n else float(tested.pvalue), "pearson", n_zero,
                       n_missing, _reasons(_no_interval(r, m), NO_P * (m < n)))


def repeated_measures(x: Any, y: Any, cluster: Any, *, ci: str = "auto", confidence: float = 0.95,
                      missing: str = "raise") -> Correlation:
    """Correlation within patients: do both readings rise together in one patient over time?

    A correlation of all readings mixes it with whether patients with much in one have much in the
    other.

    Parameters
    ----------
    x, y
        Paired readings, 1-D.
    cluster
        Which patient each pair is of, one value a pair; patients with one pair tell nothing.
    ci
        `auto`, `jackknife`: Fisher's z ± t SE by the jackknife of patients; `fisher`: SE 1 /
        sqrt(f - 1), f the degrees of freedom, as other programs print, for normal readings.

    Returns
    -------
    Correlation
        `p_value` by the t test on f = pairs - patients - 1 degrees of freedom; NaN with a `reason`
        with fewer than two patients who have several pairs.

    Formula
    -------
    r of the deviations of x and y from their patient's means.

    Source
    ------
    Bland & Altman 1995, BMJ 310:446; Bakdash & Marusich 2017, Front Psychol 8:456.

    Checked against
    ---------------
    The analysis of covariance of 1995 by statsmodels (patients as classes); coverage by simulation.

    Examples
    --------
    >>> x, y = [1, 2, 3, 11, 12, 13, 5, 6], [9, 8, 8, 3, 2, 1, 6, 4]
    >>> round(repeated_measures(x, y, list("aaabbbcc")).r, 3)
    -0.873
    """
    if ci not in ("auto", "jackknife", "fisher"):
        raise ValueError(f"ci {ci!r}: expected one of auto, jackknife, fisher")
    check_confidence(confidence)
    a, b, codes, n_missing = clustered_pairs(x, y, cluster, missing, ("x", "y"))
    n, n_zero = len(a), int(((a == 0) | (b == 0)).sum())
    sizes = np.bincount(codes) if n else np.zeros(0, int)
    m, several = len(sizes), int((sizes > 1).sum())
    free = n - m - 1

    def none(why: str) -> Correlation:
        return Correlation(n, m, NAN, (NAN, NAN), NAN, "repeated measures", n_zero, n_missing, why)

    if several < 2 or free < 1:
        return none("fewer than 2 patients have several pairs")
    u, v = (values - (np.bincount(codes, values) / sizes)[codes] for values in (a, b))
    sums = np.array([np.bincount(codes, product) for product in (u * v, u * u, v * v)])
    total = sums.sum(axis=1)
    if total[1] <= rounding(a) ** 2 * n or total[2] <= rounding(b) ** 2 * n:
        return none("a reader never changes within a patient")
    r = float(np.clip(total[0] / np.sqrt(total[1] * total[2]), -1, 1))
    p_value = float(2 * stats.t.sf(abs(r) * np.sqrt(free / max(1 - r * r, 1e-300)), free))
    if ci == "fisher":
        ends = _fisher(r, 1 / np.sqrt(free - 1) if free > 1 else NAN, confidence)
    else:
        less = (total[:, None] - sums)[:, sizes > 1]
        with np.errstate(all="ignore"):
            z = np.arctanh(less[0] / np.sqrt(less[1] * less[2]))
        half = float(stats.t.ppf((1 + confidence) / 2, several - 1)) * float(jackknife_error(z))
        ends = tuple(np.tanh(np.arctanh(r) + np.array([-half, half]))) \
            if several >= FEWEST and abs(r) < ON_A_LINE and np.isfinite(half) else (NAN, NAN)
    return Correlation(n, m, r, (float(ends[0]), float(ends[1])), p_value, "repeated measures",
                       n_zero, n_missing, "" if np.isfinite(ends[0]) else
                       "no interval: few patients with several pairs, or all on lines")
