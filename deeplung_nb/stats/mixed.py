"""Intraclass correlation by a mixed model, where readings are missing (REML)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import optimize, stats

from deeplung_nb.stats._results import (
    FEWEST,
    NAN_PAIR,
    Result,
    check_confidence,
    groups_left_out,
    jackknife_error,
    readings_by_reader,
    rounding,
)

NAN = float("nan")
SMALLEST = 1e-6
"""Multiples of the residual variance below which one is taken as 0."""


@dataclass(frozen=True, repr=False)
class MixedIntraclass(Result):
    """Result of `icc_reml`."""

    n: int
    n_readers: int
    n_readings: int
    icc_a1: float
    icc_a1_ci: tuple[float, float]
    icc_c1: float
    icc_c1_ci: tuple[float, float]
    variance_subjects: float
    variance_readers: float
    variance_residual: float
    n_missing: int
    reason: str


class _Variances(NamedTuple):
    """Variances of subjects and readers as multiples of the residual one; that one itself."""

    subjects: float
    readers: float
    residual: float

    @property
    def agreement(self) -> float:
        return self.subjects / (self.subjects + self.readers + 1)

    @property
    def consistency(self) -> float:
        return self.subjects / (self.subjects + 1)


def _deviance(logs: np.ndarray, x: np.ndarray, present: np.ndarray) -> tuple[float, float]:
    """-2 log restricted likelihood (but for a constant) at the logarithms of both multiples, and
    the residual variance there.

    `x` [subjects, readers] holds 0 where `present` is False. Subjects are swept out one by one,
    what is left has one row a reader.
    """
    subjects, readers = np.exp(logs)
    sizes = present.sum(axis=1)
    weight = subjects / (1 + subjects * sizes)
    here = present.astype(float)
    ones = here - (weight * sizes)[:, None] * here  # (I + subjects Z Z')^-1 of 1 and of x
    values = (x - (weight * x.sum(axis=1))[:, None]) * here
    design = np.stack([ones.sum(axis=0), values.sum(axis=0)], axis=1)
    inner = np.diag(here.sum(axis=0)) - (here * weight[:, None]).T @ here
    capacity = np.eye(len(inner)) + readers * inner
    products = np.array([[np.sum(ones), np.sum(values)], [np.sum(values), np.sum(values * x)]])
    products -= readers * design.T @ np.linalg.solve(capacity, design)
    freedom = int(sizes.sum()) - 1
    residual = (products[1, 1] - products[0, 1] ** 2 / products[0, 0]) / freedom
    return (float(np.log1p(subjects * sizes).sum() + np.linalg.slogdet(capacity)[1]
                  + np.log(products[0, 0]) + freedom * np.log(residual)), float(residual))


def _fit(x: np.ndarray, present: np.ndarray, start: np.ndarray) -> tuple[_Variances, np.ndarray]:
    best = optimize.minimize(lambda logs: _deviance(logs, x, present)[0], start,
                             method="L-BFGS-B", bounds=[(np.log(SMALLEST / 100), np.log(1e8))] * 2,
                             options={"ftol": 1e-13, "gtol": 1e-8})
    subjects, readers = (value if value > SMALLEST else 0.0 for value in np.exp(best.x))
    return _Variances(float(subjects), float(readers), _deviance(best.x, x, present)[1]), best.x


def icc_reml(frame: pd.DataFrame, subject: str, reader: str, value: str, *,
             confidence: float = 0.95) -> MixedIntraclass:
    """Intraclass correlation where some readers have not read some subjects, by REML.

    Parameters
    ----------
    frame
        One row per reading; a reading that is not there may lack its row or its value.
    subject, reader, value
        Its columns.

    Returns
    -------
    MixedIntraclass
        `icc_a1` (absolute agreement) and `icc_c1` (consistency) of one reading; with every cell
        filled and no variance at 0 they are those of `reliability.icc`. Their intervals speak of
        *these* readers: subjects are what is left out, so what other readers would do is not in
        them (`reliability.icc` takes readers as drawn, and is wider). `n_missing` cells are empty.

    Formula
    -------
    reading = mean + subject + reader + residual, the three normal and independent; variances
    maximise the restricted likelihood. a1 = subjects / (subjects + readers + residual),
    c1 = subjects / (subjects + residual). Intervals: log((1 + icc) / (1 - icc)) ± t SE, SE by the
    jackknife that leaves out each subject (above 200: groups of them).

    Source
    ------
    McGraw & Wong 1996, Psychol Methods 1:30 (forms); Patterson & Thompson 1971, Biometrika 58:545
    (restricted likelihood); Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 11.

    Checked against
    ---------------
    Every cell filled: `reliability.icc`, and the published table of Shrout & Fleiss; cells empty:
    the restricted likelihood written out with whole matrices; coverage by simulation.

    Examples
    --------
    >>> frame = pd.DataFrame({"s": [1, 1, 2, 2, 3, 3, 4], "r": ["a", "b"] * 3 + ["a"],
    ...                       "v": [1.0, 2.0, 4.0, 4.5, 8.0, 9.0, 6.0]})
    >>> r = icc_reml(frame, "s", "r", "v")
    >>> round(r.icc_a1, 3), r.n_missing
    (0.96, 1)
    """
    check_confidence(confidence)
    wide = readings_by_reader(frame, subject, reader, value)
    n_missing = int(wide.isna().to_numpy().sum())
    values = wide.dropna(how="all").dropna(how="all", axis=1).to_numpy(float)
    present = np.isfinite(values)
    n, k = values.shape
    total = int(present.sum())
    read = values[present]

    def none(why: str) -> MixedIntraclass:
        return MixedIntraclass(n, k, total, NAN, NAN_PAIR, NAN, NAN_PAIR, NAN, NAN, NAN, n_missing,
                               why)

    if n < 2 or k < 2 or not total or np.ptp(read) == 0:
        return none("all readings are equal" if total and np.ptp(read) == 0 else
                    "needs 2 subjects and 2 readers")
    if (present.sum(axis=1) >= 2).sum() < 2:
        return none("fewer than 2 subjects have two readings: nothing tells readers from subjects")
    scale = float(read.std())
    x = np.where(present, (values - read.mean()) / scale, 0.0)
    left = np.where(present, x, NAN)
    for _ in range(20):  # what neither subject nor reader explains
        left = left - np.nanmean(left, axis=1, keepdims=True)
        left = left - np.nanmean(left, axis=0, keepdims=True)
    if np.nanmax(np.abs(left)) * scale <= 100 * rounding(read):
        return none("readers differ by a constant only: no residual variance")
    found, start = _fit(x, present, np.log([2.0, 0.1]))
    reasons = [f"variance between {name} at its boundary, 0"
               for name, at in (("subjects", found.subjects), ("readers", found.readers)) if not at]
    group = groups_left_out(n)
    ends = {"agreement": NAN_PAIR, "consistency": NAN_PAIR}
    if n < FEWEST or not found.subjects:
        reasons.append("no interval")
    else:
        without = [_fit(x[group != out], present[group != out], start)[0]
                   for out in range(int(group.max()) + 1)]
        for name in ends:
            z = 2 * np.arctanh([getattr(other, name) for other in without])
            half = stats.t.ppf((1 + confidence) / 2, len(z) - 1) * jackknife_error(z)
            low, high = np.tanh(np.arctanh(getattr(found, name)) + np.array([-half, half]) / 2)
            ends[name] = (float(low), float(high))
    unit = found.residual * scale**2
    return MixedIntraclass(
        n, k, total, found.agreement, ends["agreement"], found.consistency, ends["consistency"],
        found.subjects * unit, found.readers * unit, unit, n_missing, "; ".join(reasons))
