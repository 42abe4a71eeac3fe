"""Intervals that hold where readings are skewed, full of zeros, or several a patient.

Each takes patients, not readings, as independent; without `cluster` each pair is one. What they
hold by simulation is in docs/statistics.md. `clusters.bootstrap` is for any other statistic.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from deeplung_nb.stats import limits
from deeplung_nb.stats._influence import from_influence, places_of, weight_above
from deeplung_nb.stats._patients import drawn_patients, spread_of_pairs
from deeplung_nb.stats._results import (
    FEWEST,
    NAN_PAIR,
    check_confidence,
    cluster_codes,
    clustered_pairs,
    in_order,
    one_array,
)

GRAIN = 1e-9
RESAMPLED_UP_TO = 5000
"""Patients up to which the studentized bootstrap is drawn: beyond, it takes seconds a coefficient,
and Student's t is used, which holds less where tails are heavy."""


class MomentIntervals(NamedTuple):
    """Result of `studentized`."""

    pearson: tuple[float, float]
    ccc: tuple[float, float]
    leverage: float = np.nan
    """Share of the CCC's jackknife variance that one patient alone makes: near 1, the coefficient
    is what this patient says."""


NONE = MomentIntervals(NAN_PAIR, NAN_PAIR)


def _of_moments(n: np.ndarray, a: np.ndarray, b: np.ndarray, a2: np.ndarray, b2: np.ndarray,
                a_b: np.ndarray) -> np.ndarray:
    """Fisher's z of r and CCC, from counts and sums: [2, *their shape]."""
    mean_a, mean_b = a / n, b / n
    var_a, var_b, shared = a2 / n - mean_a**2, b2 / n - mean_b**2, a_b / n - mean_a * mean_b
    found = np.stack([shared / np.sqrt(var_a * var_b),
                      2 * shared / (var_a + var_b + (mean_b - mean_a) ** 2)])
    # What is left by rounding alone is no spread, and no distance from 1.
    found = np.where((var_a > GRAIN) & (var_b > GRAIN), found, np.nan)
    return np.arctanh(np.where(np.abs(found) < 1 - GRAIN, found, np.sign(found)))


def _with_errors(sums: np.ndarray, sizes: np.ndarray, weights: np.ndarray
                 ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimates [2, resamples], their standard errors, and what each drawn patient adds to them.

    `sums` [patients, 5] and `sizes` are the patients' moments; `weights` [resamples, patients]
    how often each was drawn.
    """
    m = weights.sum(axis=1, keepdims=True)
    n, moments = weights @ sizes, (weights @ sums).T
    estimates = _of_moments(n, *moments)
    without = _of_moments(n[:, None] - sizes, *(
        of_all[:, None] - of_one for of_all, of_one in zip(moments, sums.T, strict=True)))
    without = np.where(weights > 0, without, 0.0)
    spread = without - (weights * without).sum(axis=-1, keepdims=True) / m
    squares = weights * spread**2
    return estimates, np.sqrt((m[:, 0] - 1) / m[:, 0] * squares.sum(axis=-1)), squares


def studentized(reference: Any, test: Any, cluster: Any = None, *, confidence: float = 0.95,
                seed: int = 0, missing: str = "raise") -> MomentIntervals:
    """Intervals of Pearson's r and the CCC by a studentized bootstrap.

    Parameters
    ----------
    reference, test
        Paired readings, 1-D.
    cluster
        Who belongs together, one value a pair; None: each pair is alone.
    seed
        The same readings and seed give the same intervals.

    Returns
    -------
    MomentIntervals
        (lower, upper) of each, and the CCC's `leverage`. They hold with zeros and skew, not where a
        few pairs in a hundred are grossly wrong (docs/statistics.md says how seldom;
        `concordance.rank_concordance` and Spearman's rho resist). NaN with fewer than four
        patients, where a reader is constant, or where more than a twentieth of the resamples give
        no number.

    Formula
    -------
    estimate ± q SE, q the quantile of |estimate* - estimate| / SE* over 2,000 resamples of
    patients (symmetric), r and CCC as Fisher's z; SE and SE* by the jackknife that leaves out each
    patient. Above 5,000 patients q is Student's t.

    Source
    ------
    Davison & Hinkley 1997, Bootstrap Methods and their Application, sections 2.7.2 and 5.2; Hall
    1988, J R Stat Soc B 50:35 (symmetric).

    Checked against
    ---------------
    The jackknife one patient at a time; coverage by simulation.

    Examples
    --------
    >>> a = [1.0, 2, 3, 4, 5, 6, 7, 8]
    >>> low, high = studentized(a, [1.2, 1.9, 3.3, 4.1, 4.8, 6.4, 7.1, 7.7]).ccc
    >>> 0.9 < low < high < 1
    True
    """
    check_confidence(confidence)
    a, b, codes, _ = clustered_pairs(reference, test, cluster, missing)
    return _studentized(a.tobytes(), b.tobytes(), codes.astype(np.int64).tobytes(), confidence,
                        seed)


@functools.lru_cache(maxsize=4)  # r, CCC and the leverage of one row ask for the same
def _studentized(first_bytes: bytes, second_bytes: bytes, whose: bytes, confidence: float,
                 seed: int) -> MomentIntervals:
    a, b = np.frombuffer(first_bytes), np.frombuffer(second_bytes)
    codes = np.frombuffer(whose, np.int64)
    m = int(codes.max(initial=-1)) + 1
    if m < FEWEST or np.ptp(a) == 0 or np.ptp(b) == 0:
        return NONE
    centre, unit = np.mean([a, b]), np.std([a, b])  # sums of squares keep their digits so
    x, y = (a - centre) / unit, (b - centre) / unit
    sums = np.column_stack([np.bincount(codes, v) for v in (x, y, x * x, y * y, x * y)])
    sizes = np.bincount(codes).astype(float)
    first, second, first_2, second_2, product = sums.T
    # Whichever of the two comes first.
    order = in_order(sizes, first + second, product, first_2 + second_2, first - second)
    sums, sizes = sums[order], sizes[order]
    with np.errstate(all="ignore"):
        estimate, error, parts = (v[:, 0] for v in _with_errors(sums, sizes, np.ones((1, m))))
        leverage = float(parts[1].max() / parts[1].sum())
        factors = np.full(2, stats.t.ppf((1 + confidence) / 2, m - 1))
        if m <= RESAMPLED_UP_TO:
            ratios = []
            for weights in drawn_patients(m, seed):
                drawn, its, _ = _with_errors(sums, sizes, weights)
                ratios.append(np.abs(drawn - estimate[:, None]) / its)
            factors = np.array([_quantile(row, confidence) for row in np.hstack(ratios)])
        half = factors * error
    ends = np.tanh([estimate - half, estimate + half]).T
    return MomentIntervals(*((float(low), float(high)) if np.isfinite([low, high]).all()
                             else NAN_PAIR for low, high in ends), leverage)


def _quantile(values: np.ndarray, share: float) -> float:
    usable = values[np.isfinite(values)]
    return float(np.quantile(usable, share)) if len(usable) >= 0.95 * len(values) else np.nan


def spearman_interval(x: Any, y: Any, cluster: Any = None, *, confidence: float = 0.95,
                      missing: str = "raise") -> tuple[float, float]:
    """Interval of Spearman's rho that needs no normal readings.

    Parameters
    ----------
    x, y
        Paired readings, 1-D.
    cluster
        Who belongs together, one value a pair; None: each pair is alone.

    Returns
    -------
    (lower, upper)
        NaN with fewer than four patients, where a reader is constant, or both have one order.

    Formula
    -------
    tanh(z ± t SE), z = atanh rho, t on patients - 1; SE by the infinitesimal jackknife of
    patients: a pair adds its own product of ranks, and moves the ranks of all others.

    Source
    ------
    Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 21 (infinitesimal jackknife);
    Borkowf 2002, Comput Stat Data Anal 39:271 (the variance of Spearman's rho without normality).

    Checked against
    ---------------
    The jackknife that leaves out each patient; coverage by simulation.

    Examples
    --------
    >>> low, high = spearman_interval([1, 2, 3, 4, 5, 6, 7], [1, 3, 2, 5, 4, 7, 6])
    >>> 0 < low < high < 1
    True
    """
    check_confidence(confidence)
    a, b, codes, _ = clustered_pairs(x, y, cluster, missing)
    n, m = len(a), int(codes.max(initial=-1)) + 1
    if m < FEWEST or np.ptp(a) == 0 or np.ptp(b) == 0:
        return NAN_PAIR
    u, v = ((stats.rankdata(values) - (n + 1) / 2) / n for values in (a, b))
    shared, var_u, var_v = np.mean(u * v), np.mean(u * u), np.mean(v * v)
    rho = shared / np.sqrt(var_u * var_v)
    (at_a,), (at_b,) = places_of(a), places_of(b)
    inside = [values - values.mean() for values in (
        u * v + weight_above(at_a, at_a, v) + weight_above(at_b, at_b, u),
        u * u + 2 * weight_above(at_a, at_a, u), v * v + 2 * weight_above(at_b, at_b, v))]
    added = (inside[0] / np.sqrt(var_u * var_v)
             - rho / 2 * (inside[1] / var_u + inside[2] / var_v))
    return from_influence(float(rho), added, codes, confidence)


def quantile_interval(values: Any, share: float, cluster: Any = None, *, confidence: float = 0.95,
                      effective: float | None = None) -> tuple[float, float]:
    """Interval of a quantile of readings of which several may belong to one patient.

    Parameters
    ----------
    values
        1-D.
    share
        Of the quantile, 0 to 1.
    cluster
        Who belongs together, one value a reading; None: each is alone.
    effective
        How many independent readings these are worth; None: by the design effect of their
        analysis of variance between patients.

    Returns
    -------
    (lower, upper)
        An end that so few can't secure is infinite; NaN without a value.

    Formula
    -------
    Ranks of the order statistics' interval of `effective` readings, as shares of all; each alone:
    the order statistics themselves.

    Source
    ------
    Conover 1999, Practical Nonparametric Statistics, section 3.2; the effective number: Korn &
    Graubard 1998, Surv Methodol 24:193.

    Checked against
    ---------------
    Each reading alone: `limits.quantile_interval`; coverage by simulation.

    Examples
    --------
    >>> quantile_interval(range(100), 0.5, effective=25)
    (30.0, 69.0)
    """
    check_confidence(confidence)
    d, _ = one_array(values)
    codes = cluster_codes(cluster, len(d))
    if not len(d):
        return NAN_PAIR
    if effective is None:
        effective = spread_of_pairs(d, codes).effective if len(d) > 1 else 1.0
        effective = effective if np.isfinite(effective) else 1.0
    ordered = np.sort(d)
    n, m = len(ordered), max(2, int(np.floor(effective + 1e-9)))
    if m >= n:
        return limits.quantile_interval(ordered, share, confidence)
    # Of m readings: which of them, from 1; infinite where none.
    low, high = limits.quantile_interval(np.arange(1.0, m + 1), share, confidence)
    lower = ordered[int(np.floor((low - 0.5) / m * n))] if np.isfinite(low) else -np.inf
    upper = ordered[int(np.ceil((high - 0.5) / m * n)) - 1] if np.isfinite(high) else np.inf
    return float(lower), float(upper)


def rank_biserial_interval(differences: Any, cluster: Any = None, *, confidence: float = 0.95
                           ) -> tuple[float, float]:
    """Interval of the rank-biserial correlation of the signed-rank test.

    Parameters
    ----------
    differences
        1-D, test - reference, zeros taken out (or left in, as Pratt ranks them).
    cluster
        Who belongs together, one value a difference; None: each is alone.

    Returns
    -------
    (lower, upper)
        NaN with fewer than four patients, or where all differences have one sign.

    Formula
    -------
    The coefficient is the mean sign of d_i + d_j over pairs; tanh(z ± t SE), z = atanh of it, t on
    patients - 1, SE by the infinitesimal jackknife of patients.

    Source
    ------
    Kerby 2014, Compr Psychol 3:11.IT.3.1 (the coefficient); Hoeffding 1948, Ann Math Stat 19:293
    (variance of a mean over pairs).

    Checked against
    ---------------
    The jackknife that leaves out each patient; coverage by simulation (the SE of R's
    effectsize is that of no difference, and too small where there is much).

    Examples
    --------
    >>> low, high = rank_biserial_interval([1, -2, 3, 4, -5, 6, 7, 8])
    >>> -1 < low < 0.5 < high < 1
    True
    """
    check_confidence(confidence)
    d = np.asarray(differences, float)
    n = len(d)
    codes = cluster_codes(cluster, n)
    if not d.any():
        return NAN_PAIR
    ordered = np.sort(d)
    won = (n - np.searchsorted(ordered, -d, "right") - np.searchsorted(ordered, -d, "left")) / n
    counted = np.where(d != 0, 1.0, np.mean(d != 0))  # two zeros are no pair
    ranks = stats.rankdata(np.abs(d))[d != 0]
    value = float(ranks @ np.sign(d[d != 0]) / ranks.sum())
    influence = 2 * (won - won.mean() - value * (counted - counted.mean())) / counted.mean()
    return from_influence(value, influence, codes, confidence)


def rank_sum_interval(a: Any, b: Any, *, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the rank-biserial correlation of two independent samples.

    Parameters
    ----------
    a, b
        1-D.

    Returns
    -------
    (lower, upper)
        NaN with fewer than four values in a sample, or where the samples do not overlap.

    Formula
    -------
    tanh(z ± t SE), z = atanh(2 P(a > b) - 1); SE from the variances of each sample's placements
    in the other, t on Welch's degrees of freedom.

    Source
    ------
    DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44:837; Brunner & Munzel 2000, Biom J 42:17
    (degrees of freedom).

    Checked against
    ---------------
    Counts of pairs one by one; coverage by simulation.

    Examples
    --------
    >>> low, high = rank_sum_interval([3, 4, 5, 9], [1, 2, 6, 7, 8])
    >>> -1 < low < 0.2 < high < 1
    True
    """
    check_confidence(confidence)
    x, y = (np.asarray(values, float) for values in (a, b))
    n, m = len(x), len(y)
    if min(n, m) < FEWEST:
        return NAN_PAIR
    ranks = stats.rankdata(np.concatenate([x, y]))
    above = (ranks[:n] - stats.rankdata(x)) / m  # of each a, the share of b below it
    below = (ranks[n:] - stats.rankdata(y)) / n
    value = 2 * float(above.mean()) - 1
    parts = np.array([above.var(ddof=1) / n, below.var(ddof=1) / m])
    if abs(value) > 1 - 1e-12 or not parts.any():
        return NAN_PAIR
    freedom = parts.sum() ** 2 / (parts**2 / [n - 1, m - 1]).sum()
    half = (stats.t.ppf((1 + confidence) / 2, freedom) * 2 * np.sqrt(parts.sum())
            / (1 - value**2))
    low, high = np.tanh(np.arctanh(value) + np.array([-half, half]))
    return float(low), float(high)
