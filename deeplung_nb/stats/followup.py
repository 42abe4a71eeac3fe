"""The same patient again: how large must a change be to be more than error of reading?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from deeplung_nb.stats._results import NAN_PAIR, Result, check_confidence, full_rows, one_array

NAN = float("nan")


@dataclass(frozen=True, repr=False)
class Repeatability(Result):
    """Result of `repeatability`."""

    n: int
    n_subjects: int
    within_sd: float
    within_sd_ci: tuple[float, float]
    coefficient: float
    coefficient_ci: tuple[float, float]
    grows_p: float
    n_missing: int
    reason: str


def repeatability(frame: pd.DataFrame, subject: str, value: str, *, confidence: float = 0.95,
                  share: float = 0.95, missing: str = "raise") -> Repeatability:
    """Repeatability coefficient: what the difference of two readings of one truth stays below.

    The same number is the smallest detectable change: a patient whose reading changed by more has
    changed by more than readings do by themselves.

    Parameters
    ----------
    frame
        One row per reading; several readings of one unchanged truth a subject (by the same reader
        again, or by different readers: then it is reproducibility).
    subject, value
        Its columns.
    share
        Of the differences that the coefficient is to hold.

    Returns
    -------
    Repeatability
        `within_sd` and `coefficient` in the unit of the readings, with intervals; `grows_p` tests
        whether the spread within a subject goes with its size (rank correlation): where it does,
        one coefficient does not serve small and large, and logarithms may.

    Formula
    -------
    within_sd^2 = mean square within subjects (one-way analysis of variance); coefficient =
    z sqrt(2) within_sd, z = 1.96 for 95 %; intervals from chi-squared.

    Source
    ------
    Bland & Altman 1986, Lancet 1:307; 1999, Stat Methods Med Res 8:135, sections 4 and 5;
    Kendall's tau of SD and mean: 1999, section 4.1.

    Checked against
    ---------------
    The peak flow readings of 1986 (Wright meter: within-subject SD 15.3 L/min, coefficient 42).

    Examples
    --------
    >>> frame = pd.DataFrame({"s": [1, 1, 2, 2, 3, 3], "v": [10.0, 12, 20, 20, 31, 30]})
    >>> r = repeatability(frame, "s", "v")
    >>> round(r.within_sd, 4), round(r.coefficient, 3)
    (0.9129, 2.53)
    """
    check_confidence(confidence)
    check_confidence(share)
    frame, n_missing = full_rows(frame, (subject,), missing, (value,))
    values, codes = frame[value].to_numpy(float), pd.factorize(frame[subject])[0]
    n, sizes = len(values), np.bincount(codes) if len(codes) else np.zeros(0, int)
    free = n - len(sizes)
    if free < 1:
        return Repeatability(n, len(sizes), NAN, NAN_PAIR, NAN, NAN_PAIR, NAN, n_missing,
                             "no subject was read twice")
    means = np.bincount(codes, values) / sizes
    squares = np.bincount(codes, (values - means[codes]) ** 2)
    sd = float(np.sqrt(squares.sum() / free))
    tail = (1 - confidence) / 2
    ends = tuple(float(sd * np.sqrt(free / stats.chi2.ppf(q, free))) for q in (1 - tail, tail))
    factor = float(stats.norm.ppf((1 + share) / 2) * np.sqrt(2))
    twice = sizes > 1
    grows = NAN
    if twice.sum() > 2 and sd > 0 and np.ptp(means[twice]) > 0:
        grows = float(stats.kendalltau(means[twice],
                                       squares[twice] / (sizes[twice] - 1)).pvalue)
    return Repeatability(n, len(sizes), sd, ends, factor * sd,
                         (factor * ends[0], factor * ends[1]), grows, n_missing, "")


def changes(before: Any, after: Any, smallest: float, *, missing: str = "raise") -> pd.DataFrame:
    """Which patients changed by more than readings do by themselves.

    Parameters
    ----------
    before, after
        Readings of the same patients at two times, 1-D, by one reader; Series keep their labels.
    smallest
        The smallest detectable change, in their unit: `repeatability(...).coefficient`, or the
        half-width of the limits of agreement of the readers in question.
    missing
        `raise`, or `drop`: a patient without one of the readings stays, as `unknown`.

    Returns
    -------
    DataFrame
        `before, after, change` (after - before) and `verdict`: `larger`, `smaller`,
        `within error`, or `unknown`.

    Formula
    -------
    |after - before| > smallest.

    Source
    ------
    Terwee et al. 2007, J Clin Epidemiol 60:34 (smallest detectable change).

    Checked against
    ---------------
    Cases by hand.

    Examples
    --------
    >>> changes([10.0, 20, 30], [11.0, 40, 5], smallest=4.0).verdict.tolist()
    ['within error', 'larger', 'smaller']
    """
    if not (np.isfinite(smallest) and smallest >= 0):
        raise ValueError(f"smallest={smallest}: expected the smallest detectable change, 0 or more")
    if np.shape(before) != np.shape(after):
        raise ValueError(f"before has shape {np.shape(before)}, after {np.shape(after)}: expected "
                         "the same patients")
    for name, values in (("before", before), ("after", after)):
        one_array(values, name, missing)
    found = pd.DataFrame({"before": pd.Series(before, dtype=float),
                          "after": pd.Series(after, dtype=float)})
    if len(found) != len(before):
        raise ValueError("before and after are Series with different labels: expected the same "
                         "patients")
    found["change"] = found["after"] - found["before"]
    found["verdict"] = np.select(
        [found["change"].isna(), found["change"] > smallest, found["change"] < -smallest],
        ["unknown", "larger", "smaller"], "within error")
    return found


def change_table(frame: pd.DataFrame, smallest_factor: float, *, patient: str = "patient_id",
                 order: str = "day", value: str = "volume_ml",
                 by: tuple[str, ...] = ("reader", "structure")) -> pd.DataFrame:
    """The changes of a cohort: every patient's readings in order, each against the one before.

    Parameters
    ----------
    frame
        One row per reading; patients with one reading give no row.
    smallest_factor
        By which a reading must change to be beyond the error, 1 or more: `exp` of a `repeatability`
        coefficient on logarithms. Errors that grow with the size make a factor of it.
    patient, order, value
        Columns: who, when (a number or a date), and the volume.
    by
        Columns that part readings of different kinds.

    Returns
    -------
    DataFrame
        `by`, patient, `from` and `to` (of `order`), `before, after, change, ratio` and `verdict`:
        `larger`, `smaller`, `within error`; `appeared` and `vanished` where one of both is 0 (no
        ratio, and no factor says how small a first reading may be by error alone); `none` where
        both are; `unknown` where one is missing.

    Formula
    -------
    |log(after / before)| > log(smallest_factor).

    Source
    ------
    Bland & Altman 1999, Stat Methods Med Res 8:135, section 3 (logarithms); Terwee et al. 2007, J
    Clin Epidemiol 60:34.

    Checked against
    ---------------
    Cases by hand; `changes` on logarithms.

    Examples
    --------
    >>> frame = pd.DataFrame({"patient_id": ["a", "a", "a"], "day": [0, 7, 14], "reader": "r",
    ...                       "structure": "lesion", "volume_ml": [100.0, 150.0, 0.0]})
    >>> change_table(frame, 1.3).verdict.tolist()
    ['larger', 'vanished']
    """
    if not (np.isfinite(smallest_factor) and smallest_factor >= 1):
        raise ValueError(f"smallest_factor={smallest_factor}: expected a factor of 1 or more, as "
                         "1.3 for 30 %")
    missing = [name for name in (*by, patient, order, value) if name not in frame]
    if missing:
        raise ValueError(f"no column {', '.join(map(repr, missing))}; expected {patient!r}, "
                         f"{order!r}, {value!r} and {', '.join(map(repr, by))}")
    twice = frame.duplicated([*by, patient, order], keep=False)
    if twice.any():
        row = frame[twice].iloc[0]
        raise ValueError(f"{patient} {row[patient]!r} has several readings at {order} "
                         f"{row[order]}: expected one of each {', '.join(by)}")
    kept = frame.sort_values([*by, patient, order], kind="stable")
    groups = kept.groupby([*by, patient], sort=False, dropna=False)
    table: Any = kept[[*by, patient]].assign(**{
        "from": groups[order].shift(), "to": kept[order], "before": groups[value].shift(),
        "after": kept[value]})
    table = table[groups.cumcount() > 0].reset_index(drop=True)
    before, after = table["before"].to_numpy(float), table["after"].to_numpy(float)
    if (np.nan_to_num(np.concatenate([before, after])) < 0).any():
        raise ValueError(f"column {value!r} has readings below 0: a factor needs amounts")
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((before > 0) & (after > 0), after / before, NAN)
    table["change"], table["ratio"] = after - before, ratio
    table["verdict"] = np.select(
        [np.isnan(before) | np.isnan(after), (before == 0) & (after == 0), before == 0, after == 0,
         ratio > smallest_factor, ratio < 1 / smallest_factor],
        ["unknown", "none", "appeared", "vanished", "larger", "smaller"], "within error")
    return table
