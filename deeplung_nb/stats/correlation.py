"""Correlation: association, not agreement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from deeplung_nb.stats import robust
from deeplung_nb.stats._results import Result, check_confidence, clustered_pairs

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
        return f"{len(x)} pairs: a correlation needs 3 or more"
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return "a reader is constant"
    return ""


NO_P = "no p value by patients"


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
                       _reasons(_no_interval(r, m), NO_P * (m < n)))


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
