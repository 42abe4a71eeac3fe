"""Tolerance and prediction limits: what holds a share of all differences, or the next one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from deeplung_nb.stats import robust
from deeplung_nb.stats._patients import drawn_patients, spread_of_pairs
from deeplung_nb.stats._results import (
    FEWEST,
    Result,
    check_confidence,
    clustered_pairs,
    in_order,
    rounding,
)
from deeplung_nb.stats.limits import carkeet_factor

NAN = float("nan")


@dataclass(frozen=True, repr=False)
class ToleranceLimits(Result):
    """Result of `tolerance_limits`; differences are test - reference."""

    n: int
    n_clusters: int
    bias: float
    sd: float
    """Of the difference of one pair."""
    lower: float
    upper: float
    """Of the tolerance interval."""
    prediction_lower: float
    prediction_upper: float
    share: float
    confidence: float
    freedom: float
    """Degrees of freedom that the SD rests on."""
    method: str
    n_missing: int
    reason: str


def _log_variances(means: np.ndarray, squares: np.ndarray, weights: np.ndarray
                   ) -> tuple[np.ndarray, np.ndarray]:
    """Logarithm of the variance of a difference, and its jackknife error, for each row of weights.

    The variance is the mean of (d_i - d_j)^2 / 2 over pairs of different patients, each patient of
    equal weight: whatever makes differences of one patient alike drops out. `weights` [resamples,
    patients] says how often each was drawn.
    """
    m = weights.sum(axis=1, keepdims=True)
    first, second, third = (weights @ values[:, None] for values in (squares, means, means**2))

    def log(m: Any, first: Any, second: Any, third: Any) -> np.ndarray:
        return np.log(first / m - (second**2 - third) / (m * (m - 1)))

    without = np.where(weights > 0, log(m - 1, first - squares, second - means,
                                        third - means**2), 0.0)
    centre = (weights * without).sum(axis=1, keepdims=True) / m
    error = np.sqrt((m - 1) / m * (weights * (without - centre) ** 2).sum(axis=1, keepdims=True))
    return log(m, first, second, third)[:, 0], error[:, 0]


def _variance_by_patients(d: np.ndarray, codes: np.ndarray, confidence: float
                          ) -> tuple[float, float, float]:
    """Variance of a difference, its degrees of freedom, and an upper bound of this confidence."""
    sizes = np.bincount(codes)
    m = len(sizes)
    means, squares = np.bincount(codes, d) / sizes, np.bincount(codes, d * d) / sizes
    order = in_order(means, squares)
    means, squares = means[order], squares[order]
    with np.errstate(all="ignore"):
        (found,), (error,) = _log_variances(means, squares, np.ones((1, m)))
        low = -float(stats.t.ppf(confidence, m - 1))
        if m <= robust.RESAMPLED_UP_TO:
            drawn, errors = (np.concatenate(parts) for parts in zip(*(
                _log_variances(means, squares, weights) for weights in drawn_patients(m)),
                strict=True))
            ratios = (drawn - found) / errors
            usable = ratios[np.isfinite(ratios)]
            low = float(np.quantile(usable, 1 - confidence)) \
                if len(usable) >= 0.95 * len(ratios) else NAN
    return (float(np.exp(found)), float(min(len(d) - 1.0, 2 / error**2)),
            float(np.exp(found - low * error)))


def tolerance_limits(reference: Any, test: Any, *, share: float = 0.95, cluster: Any = None,
                     confidence: float = 0.95, missing: str = "raise") -> ToleranceLimits:
    """Limits that hold a share of all differences with a stated confidence.

    Limits of agreement estimate where 95 % of the differences lie; of a small study they hold
    less as often as more. These hold at least the share in 95 of 100 studies, and are as wide as
    that takes; prediction limits hold the next difference.

    Parameters
    ----------
    reference, test
        Paired readings, 1-D.
    share
        Of the differences, 0 to 1.
    cluster
        Which patient each pair is of, one value a pair; None: each is of another one. Levels below
        the patient (scan, lobe, lesion) need not be told: see the formula.
    confidence
        That the tolerance interval holds the share.

    Returns
    -------
    ToleranceLimits
        `lower` and `upper` of the tolerance interval, `prediction_lower` and `prediction_upper`
        for one new difference of a new patient. NaN with a `reason` with fewer than two patients
        (where they have several pairs: four).

    Formula
    -------
    Each pair of another patient: bias ± k SD, k exact (`limits.carkeet_factor`), prediction bias ±
    t SD sqrt(1 + 1/n). Several pairs a patient: SD^2 is the mean of (d_i - d_j)^2 / 2 over pairs of
    different patients, which is the variance of a single difference however it is nested. The
    tolerance interval is bias ± z sqrt(1 + SE^2 / SD^2) U, U^2 the upper bound of SD^2 by a
    studentized bootstrap of patients (of its logarithm, 2,000 resamples); prediction bias ± t(f)
    sqrt(SD^2 + SE^2), f = 2 SD^4 / var(SD^2), at most n - 1, the variance by the jackknife.

    Source
    ------
    Francq, Berger & Boachie 2020, Stat Med 39:4334 (To tolerate or to agree); Howe 1969, JASA
    64:610; Satterthwaite 1946, Biometrics Bull 2:110; the bound: Davison & Hinkley 1997, Bootstrap
    Methods and their Application, section 5.2.

    Checked against
    ---------------
    R tolerance (K.factor) for single pairs; nested data: by simulation, see docs/statistics.md.

    Examples
    --------
    >>> r = tolerance_limits([10.0, 20, 30, 40, 50, 60], [11.0, 19, 31, 40, 52, 60])
    >>> round(r.lower, 2), round(r.upper, 2), round(r.prediction_upper, 2)
    (-4.14, 5.14, 3.41)
    """
    check_confidence(share)
    check_confidence(confidence)
    a, b, codes, n_missing = clustered_pairs(reference, test, cluster, missing)
    d, n, m = b - a, len(a), int(codes.max(initial=-1)) + 1
    z = float(stats.norm.ppf((1 + share) / 2))
    fewest = 2 if m == n else FEWEST

    def none(why: str) -> ToleranceLimits:
        return ToleranceLimits(n, m, float(d.mean()) if n else NAN, NAN, NAN, NAN, NAN, NAN, share,
                               confidence, NAN, "none", n_missing, why)

    if m < fewest:
        return none(f"{m} {'pairs' if m == n else 'patients'}: needs {fewest} or more")
    if np.ptp(d) <= rounding(a, b):
        return none("all differences are equal")
    found = spread_of_pairs(d, codes)
    if m == n:
        sd, freedom, se = found.sd, float(n - 1), found.se
        half = carkeet_factor(n, confidence, z) * sd
    else:
        variance, freedom, most = _variance_by_patients(d, codes, confidence)
        if not np.isfinite([variance, freedom, most]).all():
            return none("one patient makes all the variance")
        sd, se = float(np.sqrt(variance)), found.se
        half = z * float(np.sqrt((1 + se**2 / variance) * most))
    ahead = float(stats.t.ppf((1 + share) / 2, freedom)) * float(np.hypot(sd, se))
    return ToleranceLimits(
        n, m, found.bias, sd, found.bias - half, found.bias + half, found.bias - ahead,
        found.bias + ahead, share, confidence, freedom,
        "exact" if m == n else "studentized bootstrap, by patients", n_missing, "")


@dataclass(frozen=True, repr=False)
class RatioRange(Result):
    """Result of `ratio_range`: what a new test reading is to be multiplied with."""

    n: int
    n_patients: int
    lower: float
    upper: float
    chance: float
    """Of a new patient's reference to lie in it."""
    reason: str


def ratio_range(reference: Any, test: Any, cluster: Any, *, leave: int = 0) -> RatioRange:
    """Between which factors of a new patient's test reading the reference reading likely lies.

    From patients that the test reader had never seen. It assumes nothing of how ratios are
    distributed, only that the new patient is one more of the same kind; from few patients it is
    wide, or its chance small.

    Parameters
    ----------
    reference, test
        Readings of the same cases, not negative, 1-D. Where both are 0 there is no ratio, and the
        case is left out; where one is, the ratio is 0 or infinite, and has its place in the order.
    cluster
        Who each case is of; a patient counts once, with the most extreme of several cases.
    leave
        How many patients to leave out at each end: a narrower range, of less chance.

    Returns
    -------
    RatioRange
        `lower`, `upper` and the `chance` of a new patient to lie within. `upper` is infinite where
        the test reader saw nothing at all; NaN with fewer than two patients left.

    Formula
    -------
    With m patients and their ratios reference / test in order, [r_(1 + leave), r_(m - leave)]. The
    m + 1 patients being exchangeable, chance = (m - 1 - 2 leave) / (m + 1) at least.

    Source
    ------
    Wilks 1941, Ann Math Stat 12:91; Vovk, Gammerman & Shafer 2005, Algorithmic Learning in a Random
    World, chapter 2 (conformal prediction).

    Checked against
    ---------------
    Simulation: the share of new patients within, whatever their distribution.

    Examples
    --------
    >>> r = ratio_range([100.0, 50, 30], [80.0, 50, 60], list("abc"))
    >>> r.lower, r.upper, r.chance
    (0.5, 1.25, 0.5)
    """
    a, b, codes, _ = clustered_pairs(reference, test, cluster, "raise")
    if len(a) and min(a.min(), b.min()) < 0:
        raise ValueError("reference and test: expected amounts, 0 or more, for a ratio of them")
    if leave < 0:
        raise ValueError(f"leave={leave}: expected how many patients to leave out at each end")
    there = (a > 0) | (b > 0)
    with np.errstate(divide="ignore"):
        ratio = a[there] / b[there]
    who, place = np.unique(codes[there], return_inverse=True)
    m = len(who)
    if m - 2 * leave < 2:
        return RatioRange(len(a), m, NAN, NAN, NAN,
                          f"{m} patients with something to measure: too few")
    lowest, highest = np.full(m, np.inf), np.zeros(m)
    np.minimum.at(lowest, place, ratio)
    np.maximum.at(highest, place, ratio)
    return RatioRange(len(a), m, float(np.sort(lowest)[leave]),
                      float(np.sort(highest)[m - 1 - leave]), (m - 1 - 2 * leave) / (m + 1), "")
