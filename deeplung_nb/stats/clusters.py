"""Several readings a patient: tests and intervals that take patients, not readings, as independent.

Bias and limits are `reliability.clustered_limits`; here are the signed-rank test and the bootstrap.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from deeplung_nb.stats._patients import RESAMPLES
from deeplung_nb.stats._results import (
    NAN_PAIR,
    Result,
    check_confidence,
    cluster_codes,
    clustered_pairs,
    plain_differences,
    two_arrays,
)

NAN = float("nan")
EXACT_UP_TO = 14
"""Clusters up to which every way of signs is gone through (16,384)."""


@dataclass(frozen=True, repr=False)
class ClusteredSignedRank(Result):
    """Result of `signed_rank`."""

    n: int
    n_zero: int
    n_clusters: int
    statistic: float
    z: float
    p_value: float
    method: str
    n_missing: int
    reason: str


def signed_rank(reference: Any, test: Any, cluster: Any, *, method: str = "auto",
                alternative: str = "two-sided", missing: str = "raise") -> ClusteredSignedRank:
    """Signed-rank test of paired readings of which several belong to one patient.

    Parameters
    ----------
    reference, test, cluster
        1-D; who belongs together, one value a pair.
    method
        `exact`, `asymptotic`, or `auto`: exact up to `EXACT_UP_TO` clusters.
    alternative
        `two-sided`, or what a small p is to speak for: test `greater`, or `less`, than reference.
    missing
        `raise`, or `drop` and count.

    Returns
    -------
    ClusteredSignedRank
        `statistic` is the weighted sum of the clusters' mean signed ranks (of equal clusters, the
        sum of the signed ranks); NaN with a `reason` where nothing differs or there is one cluster.

    Formula
    -------
    Zeros are dropped, |test - reference| is ranked over all pairs, s_i is the mean signed rank of
    cluster i and w_i = g_i / (1 + (g_i - 1) r) its weight, r the intraclass correlation of the
    signed ranks (analysis of variance; below 0 it counts as 0), scaled so that equal clusters have
    their size. Where differences are symmetric about 0, a cluster's sign can be turned as a whole:
    z = sum w_i s_i / sqrt(sum (w_i s_i)^2), or all 2^m turns.

    Source
    ------
    Rosner, Glynn & Lee 2006, Biometrics 62:185 (unbalanced design).

    Checked against
    ---------------
    One pair a cluster: the signed-rank test without continuity correction; by simulation, it keeps
    its level where the usual test does not.

    Examples
    --------
    >>> r = signed_rank([0, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, -6], ["a", "a", "b", "b", "c", "c"])
    >>> r.statistic, r.n_clusters, r.p_value
    (9.0, 3, 0.5)
    """
    for name, value, allowed in (("method", method, ("auto", "exact", "asymptotic")),
                                 ("alternative", alternative, ("two-sided", "greater", "less"))):
        if value not in allowed:
            raise ValueError(f"{name} {value!r}: expected one of {', '.join(allowed)}")
    a, b, codes, n_missing = clustered_pairs(reference, test, cluster, missing)
    d = plain_differences(a, b)
    n_zero = int((d == 0).sum())
    codes, d = pd.factorize(codes[d != 0])[0], d[d != 0]
    n_clusters = int(codes.max(initial=-1)) + 1
    if n_clusters < 2:
        why = "all differences are zero" if not len(d) else "only one cluster differs at all"
        return ClusteredSignedRank(len(a), n_zero, n_clusters, NAN, NAN, NAN, "none", n_missing,
                                   why)
    sums = _weighted_sums(codes, np.sign(d) * stats.rankdata(np.abs(d)))
    total, spread = float(sums.sum()), float(np.sqrt((sums**2).sum()))
    z = total / spread if spread else 0.0
    chosen = method if method != "auto" else \
        "exact" if n_clusters <= EXACT_UP_TO else "asymptotic"
    if chosen == "exact" and n_clusters > 20:
        raise ValueError(f"method='exact' with {n_clusters} clusters goes through 2^{n_clusters} "
                         "turns: use 'asymptotic'")
    side = {"greater": 1.0, "less": -1.0, "two-sided": 0.0}[alternative]
    p_value = turned_p(sums, side=side, exact=chosen == "exact")
    return ClusteredSignedRank(len(a), n_zero, n_clusters, total, z, p_value, chosen, n_missing, "")


def turned_p(sums: np.ndarray, *, side: float = 0.0, exact: bool | None = None) -> float:
    """p of a sum over patients each of whom may as well have the other sign.

    Parameters
    ----------
    sums
        What each patient adds.
    side
        1 or -1: one-sided, for a large or a small sum; 0: two-sided.
    exact
        Go through all turns of signs; None: up to `EXACT_UP_TO` patients. Else normal.

    Returns
    -------
    float
        1 where nothing is added.

    Formula
    -------
    Share of the 2^m sums of ± sums_i that are as extreme; or z = sum / sqrt(sum of squares).

    Source
    ------
    As `signed_rank`.

    Checked against
    ---------------
    Turns listed by hand.

    Examples
    --------
    >>> turned_p(np.array([1.0, 2.0, 3.0]))
    0.25
    """
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0
    total = float(sums.sum())
    if len(sums) <= EXACT_UP_TO if exact is None else exact:
        turns = np.zeros(1)
        for value in sums:
            turns = np.concatenate([turns + value, turns - value])
        slack = 1e-9 * max(1.0, float(np.abs(sums).sum()))
        return float(np.mean(side * turns >= side * total - slack) if side
                     else np.mean(np.abs(turns) >= abs(total) - slack))
    z = total / float(np.sqrt(sums @ sums))
    return float(stats.norm.sf(side * z) if side else 2 * stats.norm.sf(abs(z)))


def _weighted_sums(codes: np.ndarray, signed_ranks: np.ndarray) -> np.ndarray:
    """w_i s_i of each cluster: see `signed_rank`."""
    size, sums = np.bincount(codes), np.bincount(codes, signed_ranks)
    n, m = len(codes), len(size)
    if size.min() == size.max():
        return sums
    of_means = float((sums**2 / size).sum())
    between = (of_means - float(sums.sum()) ** 2 / n) / (m - 1)
    within = (float((signed_ranks**2).sum()) - of_means) / (n - m)
    typical = (n - float((size**2).sum()) / n) / (m - 1)
    extra = max(0.0, (between - within) / typical)
    alike = extra / (extra + within) if extra + within > 0 else 0.0
    weight = size / (1 + (size - 1) * alike)
    return weight * (n / weight.sum()) * sums / size


def bootstrap(
    statistic: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray | float], reference: Any,
    test: Any, cluster: Any = None, *, method: str = "percentile", confidence: float = 0.95,
    seed: int = 0, resamples: int = RESAMPLES,
) -> tuple[tuple[float, float], ...]:
    """Intervals of any statistic by a bootstrap of whole clusters (scipy).

    Parameters
    ----------
    statistic
        Of (reference, test, cluster codes); one number or several.
    reference, test, cluster
        1-D, without empty values. A cluster that is drawn twice counts as two. Without clusters
        each pair is one.
    method
        `percentile`, or `bca`: corrected for bias and acceleration. Neither holds its level for
        the mean or the CCC of skewed readings: see docs/statistics.md.
    confidence, seed, resamples
        The same values and seed give the same intervals.

    Returns
    -------
    A (lower, upper) for each number; NaN with fewer than two clusters, or where more than a
    twentieth of the resamples give no number.

    Formula
    -------
    Quantiles of the statistic over resamples of the clusters, drawn with replacement.

    Source
    ------
    Davison & Hinkley 1997, Bootstrap Methods and their Application, sections 3.8 and 5.3.

    Checked against
    ---------------
    Copies of each pair as its cluster: the interval of the pairs alone.

    Examples
    --------
    >>> def bias(a, b, codes):
    ...     return float((b - a).mean())
    >>> (low, high), = bootstrap(bias, [1.0, 2, 3, 4], [2.0, 2, 5, 4], ["p", "p", "q", "q"])
    >>> low, high
    (0.5, 1.0)
    """
    if method not in ("percentile", "bca"):
        raise ValueError(f"method {method!r}: expected 'percentile' or 'bca'")
    check_confidence(confidence)
    a, b, _ = two_arrays(reference, test)
    codes = cluster_codes(cluster, len(a))
    members = [np.flatnonzero(codes == k) for k in range(int(codes.max(initial=-1)) + 1)]
    width = np.atleast_1d(statistic(a, b, codes)).size
    if len(members) < 2:
        return (NAN_PAIR,) * width

    def of_draws(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        rows = np.reshape(drawn, (-1, drawn.shape[-1]))
        found = np.empty((width, len(rows)))
        for k, row in enumerate(rows):
            at = np.concatenate([members[cluster] for cluster in row])
            fresh = np.repeat(np.arange(len(row)), [len(members[cluster]) for cluster in row])
            found[:, k] = statistic(a[at], b[at], fresh)
        return found.reshape(width, *drawn.shape[:-1])

    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # such ends are NaN
        done = stats.bootstrap(
            (np.arange(len(members)),), of_draws, n_resamples=resamples, vectorized=True,
            axis=-1, confidence_level=confidence, method={"bca": "BCa"}.get(method, method),
            rng=np.random.default_rng(seed))
    drawn, ends = done.bootstrap_distribution, done.confidence_interval
    if method == "percentile":  # a few resamples may give no number
        ends = np.array([np.quantile(row[np.isfinite(row)], [
            (1 - confidence) / 2, (1 + confidence) / 2]) if np.isfinite(row).any() else NAN_PAIR
            for row in drawn]).T
    usable = np.isfinite(drawn).mean(axis=-1) >= 0.95
    return tuple((float(low), float(high)) if good else NAN_PAIR
                 for low, high, good in zip(*ends, usable, strict=True))
