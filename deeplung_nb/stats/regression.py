"""Regression of two methods that both err: ordinary least squares would flatten the slope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from deeplung_nb.labels import counted
from deeplung_nb.stats._results import (
    FEWEST,
    NAN_PAIR,
    Result,
    check_confidence,
    clustered_pairs,
    groups_left_out,
    jackknife_error,
)
from deeplung_nb.stats._slopes import Slopes

NAN = float("nan")
MOST_READINGS = 3000
"""Readings up to which all pairwise slopes of Passing-Bablok are listed; beyond, searched for."""


def _listed_slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Slopes of all pairs, ordered, without those of identical points and those of exactly -1."""
    i, j = np.triu_indices(len(x), 1)
    dx, dy = x[j] - x[i], y[j] - y[i]
    # Float noise must not turn a tie, or a slope of exactly -1, into something else.
    dx[np.abs(dx) < 1e-12 * np.abs(x).max()] = 0.0
    dy[np.abs(dy) < 1e-12 * np.abs(y).max()] = 0.0
    apart = (dx != 0) | (dy != 0)
    dx, dy = dx[apart], dy[apart]
    slopes = np.where(dy > 0, np.inf, -np.inf)
    np.divide(dy, dx, out=slopes, where=dx != 0)
    return np.sort(slopes[np.abs(slopes + 1) > 1e-12])


@dataclass(frozen=True, repr=False)
class MethodRegression(Result):
    """Result of `deming` and `passing_bablok`: test = intercept + slope x reference."""

    n: int
    n_clusters: int
    slope: float
    slope_ci: tuple[float, float]
    intercept: float
    intercept_ci: tuple[float, float]
    method: str
    n_missing: int
    reason: str


def _deming_lines(x: np.ndarray, y: np.ndarray, ratio: float, codes: np.ndarray) -> np.ndarray:
    """Slope and intercept [m + 1, 2] of all readings, then without each of the m patients in turn.

    From sums, so that the jackknife needs no m fits.
    """
    dx, dy = x - x.mean(), y - y.mean()
    sums = np.array([np.bincount(codes, values) for values in (
        np.ones(len(x)), dx, dy, dx * dx, dy * dy, dx * dy)])
    total = sums.sum(axis=1, keepdims=True)
    n, of_x, of_y, sxx, syy, sxy = np.hstack([total, total - sums])
    scale = 1e-14 * np.sqrt((dx @ dx) * (dy @ dy))
    sxx, syy, sxy = sxx - of_x**2 / n, syy - of_y**2 / n, sxy - of_x * of_y / n
    # What is left of a sum by rounding alone is none.
    sxy = np.where(np.abs(sxy) <= scale, np.nan, sxy)
    lean = ratio * syy - sxx
    slope = (lean + np.sqrt(lean**2 + 4 * ratio * sxy**2)) / (2 * ratio * sxy)
    return np.column_stack([slope, y.mean() + of_y / n - slope * (x.mean() + of_x / n)])


def deming(reference: Any, test: Any, *, error_ratio: float = 1.0, cluster: Any = None,
           confidence: float = 0.95, missing: str = "raise") -> MethodRegression:
    """Deming regression, intervals by the jackknife.

    Parameters
    ----------
    reference, test
        Paired readings, 1-D.
    error_ratio
        Error variance of the reference / error variance of the test; 1 is orthogonal regression.
    cluster
        Which patient each pair is of, one value a pair; None: each is of another one.
    confidence, missing
        Of the intervals, 0 to 1; `raise` on an empty reading, or `drop` and count.

    Returns
    -------
    MethodRegression
        test = `intercept` + `slope` x reference, with intervals; NaN with a `reason` where there
        are too few pairs.

    Formula
    -------
    slope = (u + sqrt(u^2 + 4 r s_xy^2)) / (2 r s_xy), u = r s_yy - s_xx, r the error ratio;
    intervals with the SE of the jackknife that leaves out each patient and t on patients - 2,
    centred on the estimate.

    Source
    ------
    Linnet 1990, Stat Med 9:1463; 1993, Clin Chem 39:424.

    Checked against
    ---------------
    R mcr::mcreg(method.reg = "Deming", method.ci = "jackknife").

    Examples
    --------
    >>> r = deming([1, 2, 3, 4, 5], [1.1, 1.9, 3.2, 3.9, 5.1])
    >>> round(r.slope, 6), round(r.intercept, 6)
    (1.003606, 0.029181)
    """
    check_confidence(confidence)
    if not error_ratio > 0:
        raise ValueError(f"error_ratio={error_ratio}: expected a positive ratio of variances")
    x, y, codes, n_missing = clustered_pairs(reference, test, cluster, missing)
    n, m = len(x), int(codes.max(initial=-1)) + 1

    def result(line: np.ndarray, half: np.ndarray, why: str) -> MethodRegression:
        ends = [(float(at - by), float(at + by)) for at, by in zip(line, half, strict=True)]
        return MethodRegression(n, m, float(line[0]), ends[0], float(line[1]), ends[1], "deming",
                                n_missing, why)

    nothing = np.full(2, NAN)
    if m < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return result(nothing, nothing, f"{m} {'pairs' if m == n else 'patients'}: needs 4 or more"
                      if m < 4 else "a reader is constant")
    lines = _deming_lines(x, y, error_ratio, codes)
    if not np.isfinite(lines).all():
        return result(lines[0], nothing, "readings are uncorrelated, wholly or but for one")
    half = float(stats.t.ppf((1 + confidence) / 2, m - 2)) * jackknife_error(lines[1:])
    return result(lines[0], half, "")


def _shifted_median(x: np.ndarray, y: np.ndarray, confidence: float
                    ) -> tuple[tuple[float, float], tuple[float, float]]:
    """Slope and intercept; and the slope's interval where each pair is of another patient."""
    n = len(x)
    if n <= MOST_READINGS:
        slopes = _listed_slopes(x, y)
        k, shift = len(slopes), int((slopes < -1).sum())
    else:
        slopes = Slopes(x, y)
        k, shift = slopes.n_pairs, slopes.shift

    def at(rank: int) -> float:  # 1-based
        return float(slopes[rank - 1]) if 1 <= rank <= k else NAN

    low, high = (k + 1) // 2 + shift, (k + 2) // 2 + shift
    slope = at(low) if low == high else (at(low) + at(high)) / 2
    spread = float(stats.norm.ppf((1 + confidence) / 2)) * np.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    first = round((k - spread) / 2)
    with np.errstate(invalid="ignore"):
        intercept = float(np.median(y - slope * x))
    return (slope, intercept), (at(first + shift), at(k - first + 1 + shift))


def _by_patients(x: np.ndarray, y: np.ndarray, line: tuple[float, float], codes: np.ndarray,
                 confidence: float) -> tuple[tuple[float, float], tuple[float, float], str]:
    """Intervals of slope and intercept by the jackknife that leaves out each patient."""
    m = int(codes.max()) + 1
    if m < FEWEST or len(x) > MOST_READINGS:
        return NAN_PAIR, NAN_PAIR, (f"fewer than {FEWEST} patients: no interval" if m < FEWEST else
                                    f"no interval by patients above {MOST_READINGS} pairs")
    group = groups_left_out(m)[codes]
    without = np.array([_shifted_median(x[group != k], y[group != k], confidence)[0]
                        for k in range(int(group.max()) + 1)])
    if not np.isfinite(without).all():
        return NAN_PAIR, NAN_PAIR, "no interval: without one patient there is no slope"
    half = float(stats.t.ppf((1 + confidence) / 2, len(without) - 1)) * jackknife_error(without)
    ends = [(float(value - by), float(value + by)) for value, by in zip(line, half, strict=True)]
    return ends[0], ends[1], ""


def passing_bablok(reference: Any, test: Any, *, cluster: Any = None, confidence: float = 0.95,
                   missing: str = "raise") -> MethodRegression:
    """Passing-Bablok regression: the shifted median of all pairwise slopes.

    Parameters
    ----------
    reference, test
        Paired readings, 1-D.
    cluster
        Which patient each pair is of, one value a pair; None: each is of another one. Where one
        has several, intervals are by the jackknife of patients, up to 3,000 pairs.
    confidence, missing
        Of the intervals, 0 to 1; `raise` on an empty reading, or `drop` and count.

    Returns
    -------
    MethodRegression
        test = `intercept` + `slope` x reference, with intervals; NaN with a `reason` where there
        are too few pairs.

    Formula
    -------
    Slopes of all pairs but those of identical points and those of exactly -1; the median is
    shifted by the number of slopes below -1. Above 3,000 readings the ranks are searched for by
    Kendall's counts, O(n log n). Intercept = median(test - slope x reference).

    Source
    ------
    Passing & Bablok 1983, J Clin Chem Clin Biochem 21:709.

    Checked against
    ---------------
    R deming::pbreg (estimate) and mcr::mcreg (estimate and interval); R packages differ from each
    other in the fourth digit where readings are tied.

    Examples
    --------
    >>> r = passing_bablok([1, 2, 3, 4, 5, 6], [1.1, 1.9, 3.2, 3.9, 5.1, 6.3])
    >>> round(r.slope, 6), round(r.intercept, 6)
    (1.04, -0.02)
    """
    check_confidence(confidence)
    x, y, codes, n_missing = clustered_pairs(reference, test, cluster, missing)
    n, m = len(x), int(codes.max(initial=-1)) + 1

    def result(line: tuple[float, float], slope_ci: tuple[float, float] = NAN_PAIR,
               intercept_ci: tuple[float, float] = NAN_PAIR, why: str = "") -> MethodRegression:
        return MethodRegression(n, m, line[0], slope_ci, line[1], intercept_ci, "passing-bablok",
                                n_missing, why)

    if n < 3:
        return result(NAN_PAIR, why=f"{counted(n, 'pair')}: needs 3 or more")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return result(NAN_PAIR, why="a reader is constant")
    line, ends = _shifted_median(x, y, confidence)
    if not np.isfinite(line[0]):
        return result(NAN_PAIR, why="no rising relation: too many slopes below -1, or vertical")
    if m < n:
        return result(line, *_by_patients(x, y, line, codes, confidence))
    if not np.isfinite(ends).all():
        return result(line, why="too few pairs for an interval at this confidence")
    return result(line, ends, (float(np.median(y - ends[1] * x)),
                               float(np.median(y - ends[0] * x))))
