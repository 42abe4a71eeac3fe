"""Regression of two methods that both err: ordinary least squares would flatten the slope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from deeplung_nb.stats._results import NAN_PAIR, Result, check_confidence, two_arrays
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
    slope: float
    slope_ci: tuple[float, float]
    intercept: float
    intercept_ci: tuple[float, float]
    method: str
    n_missing: int
    reason: str


def _deming_lines(x: np.ndarray, y: np.ndarray, ratio: float) -> np.ndarray:
    """Slope and intercept [n + 1, 2] of all readings, then without each one in turn.

    Leaving out reading i takes n / (n - 1) (x_i - mean)^2 off the sum of squares, so that the
    jackknife needs no n fits.
    """
    n = len(x)
    dx, dy = x - x.mean(), y - y.mean()
    less = np.concatenate([[0.0], np.full(n, n / (n - 1))])
    dx0, dy0 = np.concatenate([[0.0], dx]), np.concatenate([[0.0], dy])
    sxx, syy, sxy = dx @ dx - less * dx0**2, dy @ dy - less * dy0**2, dx @ dy - less * dx0 * dy0
    mean_x, mean_y = x.mean() - dx0 / (n - 1), y.mean() - dy0 / (n - 1)
    # What is left of a sum by rounding alone is none.
    sxy = np.where(np.abs(sxy) <= 1e-14 * np.sqrt((dx @ dx) * (dy @ dy)), np.nan, sxy)
    lean = ratio * syy - sxx
    slope = (lean + np.sqrt(lean**2 + 4 * ratio * sxy**2)) / (2 * ratio * sxy)
    return np.column_stack([slope, mean_y - slope * mean_x])


def deming(reference: Any, test: Any, *, error_ratio: float = 1.0, confidence: float = 0.95,
           missing: str = "raise") -> MethodRegression:
    """Deming regression, intervals by the jackknife.

    Parameters
    ----------
    reference, test
        Paired readings, 1-D.
    error_ratio
        Error variance of the reference / error variance of the test; 1 is orthogonal regression.
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
    intervals with the jackknife's SE and t on n - 2, centred on the estimate.

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
    x, y, n_missing = two_arrays(reference, test, missing)
    n = len(x)
    if n < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        why = f"{n} pairs: needs 4 or more" if n < 4 else "a reader is constant"
        return MethodRegression(n, NAN, NAN_PAIR, NAN, NAN_PAIR, "deming", n_missing, why)
    lines = _deming_lines(x, y, error_ratio)
    whole, others = lines[0], lines[1:]
    if not np.isfinite(lines).all():
        return MethodRegression(n, float(whole[0]), NAN_PAIR, float(whole[1]), NAN_PAIR, "deming",
                                n_missing, "readings are uncorrelated, wholly or but for one")
    pseudo = n * whole - (n - 1) * others
    se = pseudo.std(axis=0, ddof=1) / np.sqrt(n)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 2)) * se
    ends = [(float(whole[i] - half[i]), float(whole[i] + half[i])) for i in range(2)]
    return MethodRegression(n, float(whole[0]), ends[0], float(whole[1]), ends[1], "deming",
                            n_missing, "")


def passing_bablok(reference: Any, test: Any, *, confidence: float = 0.95,
                   missing: str = "raise") -> MethodRegression:
    """Passing-Bablok regression: the shifted median of all pairwise slopes.

    Parameters
    ----------
    reference, test
        Paired readings, 1-D.
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
    x, y, n_missing = two_arrays(reference, test, missing)
    n = len(x)
    why = ""
    if n < 3:
        why = f"{n} pairs: needs 3 or more"
    elif np.ptp(x) == 0 or np.ptp(y) == 0:
        why = "a reader is constant"
    if why:
        return MethodRegression(n, NAN, NAN_PAIR, NAN, NAN_PAIR, "passing-bablok", n_missing, why)
    if n <= MOST_READINGS:
        slopes = _listed_slopes(x, y)
        m, shift = len(slopes), int((slopes < -1).sum())
    else:
        slopes = Slopes(x, y)
        m, shift = slopes.n_pairs, slopes.shift

    def at(rank: int) -> float:  # 1-based
        return float(slopes[rank - 1]) if 1 <= rank <= m else NAN

    low, high = (m + 1) // 2 + shift, (m + 2) // 2 + shift
    slope = at(low) if low == high else (at(low) + at(high)) / 2
    if not np.isfinite(slope):
        return MethodRegression(n, NAN, NAN_PAIR, NAN, NAN_PAIR, "passing-bablok", n_missing,
                                "no rising relation: too many slopes below -1, or vertical")
    spread = float(stats.norm.ppf((1 + confidence) / 2)) * np.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    first = round((m - spread) / 2)
    ends = (at(first + shift), at(m - first + 1 + shift))
    if not np.isfinite(ends).all():
        ends, why = NAN_PAIR, "too few pairs for an interval at this confidence"
    intercept = float(np.median(y - slope * x))
    across = ((float(np.median(y - ends[1] * x)), float(np.median(y - ends[0] * x)))
              if np.isfinite(ends).all() else NAN_PAIR)
    return MethodRegression(n, slope, ends, intercept, across, "passing-bablok", n_missing, why)
