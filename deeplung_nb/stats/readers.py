"""Several readers and a machine: does the machine differ from them more than they from each other?

Classes instead of volumes: `classes`; intraclass correlation with missing readings: `mixed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from deeplung_nb.measurements.contract import check
from deeplung_nb.stats._patients import mean_squares
from deeplung_nb.stats._results import (
    FEWEST,
    NAN_PAIR,
    Result,
    check_confidence,
    complete_readings,
    groups_left_out,
    jackknife_error,
    patient_codes,
    readings_by_reader,
)

NAN = float("nan")
MEASURES = ("absolute", "squared")
AVERAGED = ("volume_ml", "burden_percent", "burden_in_lung_percent", "mean_hu")
"""Columns of a table of measurements of which a mean of readers makes sense."""


@dataclass(frozen=True, repr=False)
class Interchangeability(Result):
    """Result of `interchangeability`."""

    n: int
    n_patients: int
    n_readers: int
    between_readers: float
    with_machine: float
    difference: float
    difference_ci: tuple[float, float]
    ratio: float
    ratio_ci: tuple[float, float]
    within_range: float
    within_range_expected: float
    measure: str
    n_missing: int
    reason: str


def add_mean_reader(frame: pd.DataFrame, readers: Sequence[str], name: str = "mean of readers", *,
                    missing: str = "raise") -> pd.DataFrame:
    """Make the mean of several readers a reader of its own, to compare a machine with.

    Its errors partly cancel: limits of agreement against the mean of k readers are narrower than
    against one of them, and say nothing of how far two readers differ (`interchangeability` does).

    Parameters
    ----------
    frame
        A table of measurements.
    readers
        Two or more of its readers.
    name
        Of the new one.
    missing
        A case and structure that one of them has not read: `raise`, or `drop`: the mean's row says
        `failed`, and a comparison counts it in `n_failed`.

    Returns
    -------
    DataFrame
        The table with a row more for each case and structure: means of `volume_ml`,
        `burden_percent`, `burden_in_lung_percent` and `mean_hu`, all else empty but for the facts
        of the case. To `measurements.pair` and `agreement_table` it is a reader as any other.

    Formula
    -------
    Mean of the k readings; empty where one of them is.

    Source
    ------
    Jones, Dobson & O'Brian 2011, Int J Epidemiol 40:1308 (agreement with the mean of observers).

    Checked against
    ---------------
    Means by hand.

    Examples
    --------
    >>> from deeplung_nb import measurements
    >>> wide = pd.DataFrame({"case_id": ["1", "2"], "ann": [10.0, 20], "bob": [12.0, 26]})
    >>> table = measurements.from_wide(wide, {"ann": "ann", "bob": "bob"}, unit="mL")
    >>> more = add_mean_reader(table, ["ann", "bob"])
    >>> more.loc[more.reader == "mean of readers", "volume_ml"].tolist()
    [11.0, 23.0]
    """
    names = list(dict.fromkeys(readers))
    known = set(frame["reader"])
    unknown = [reader for reader in names if reader not in known]
    if len(names) < 2 or unknown:
        raise ValueError(f"readers {names}: expected two or more of {', '.join(sorted(known))}")
    if name in known:
        raise ValueError(f"name {name!r} is a reader of the table already: give another")
    if missing not in ("raise", "drop"):
        raise ValueError(f"missing={missing!r}: expected 'raise' or 'drop'")
    key = ["cohort", "case_id", "structure"]
    theirs = frame[frame["reader"].isin(names)]
    ok = theirs[theirs["status"] == "ok"]
    counts = ok.groupby(key).size().reindex(pd.MultiIndex.from_frame(theirs[key]).unique(),
                                            fill_value=0)
    short = counts[counts < len(names)]
    if len(short) and missing == "raise":
        raise ValueError(f"case {short.index[0][1]!r}, {short.index[0][2]}: read by "
                         f"{int(short.iloc[0])} of {len(names)} readers ({len(short)} such). Leave "
                         "them out with missing='drop', or average fewer readers")
    means = theirs.drop_duplicates(key).set_index(key)
    for column in AVERAGED:
        means[column] = ok.groupby(key)[column].agg(lambda v: v.mean(skipna=False))
    lost = means.index.isin(short.index)
    means.loc[lost, list(AVERAGED)] = NAN
    means["status"] = np.where(lost, "failed", "ok")
    means["note"] = np.where(lost, "not read by all of ", "mean of ") + np.array(", ".join(names))
    kept = ("run_id", "role", "patient_id", "protocol", "scanner", "centre", "fold", "n_slices",
            "status", "note", *AVERAGED)
    means = means.reset_index()[[*key, *kept]].assign(reader=name)
    return check(pd.concat([frame, means.astype(object)], ignore_index=True).astype(object))


def _covariance(columns: Sequence[np.ndarray], codes: np.ndarray) -> np.ndarray:
    """Of the means of columns over subjects, patients being independent."""
    m = int(codes.max(initial=-1)) + 1
    sums = np.array([np.bincount(codes, column - column.mean()) for column in columns])
    return sums @ sums.T * m / (m - 1) / len(codes) ** 2


def _fieller(top: float, below: float, covariance: np.ndarray, t: float) -> tuple[float, float]:
    """All ratios that a t test of top - ratio x below does not refuse (both positive)."""
    a, b, c = (x - t**2 * v for x, v in (
        (below**2, covariance[1, 1]), (top * below, covariance[0, 1]), (top**2, covariance[0, 0])))
    root = np.sqrt(max(b * b - a * c, 0.0))
    if a > 0:
        return float(max(b - root, 0.0) / a), float((b + root) / a)
    least = (b - root) / a if b * b > a * c else 0.0  # the readers' own difference may be 0
    return float(least if 0 < least <= top / below else 0.0), np.inf


def interchangeability(
    frame: pd.DataFrame, subject: str, reader: str, value: str, machine: str, *,
    patient: str | None = None, measure: str = "absolute", confidence: float = 0.95,
) -> Interchangeability:
    """Does a machine differ from the readers more than they do from each other?

    Parameters
    ----------
    frame
        One row per reading: of two or more readers, and of the machine.
    subject, reader, value
        Its columns.
    machine
        Its name in the column of the reader; all other names are readers.
    patient
        Column of who a subject (a lesion, a scan) is of, where one has several.
    measure
        `absolute` differences, in the unit of the readings; or `squared`, as in the literature of
        individual equivalence, where a few large ones decide.

    Returns
    -------
    Interchangeability
        `between_readers` and `with_machine`: the mean difference of two readers, and of the
        machine and a reader. `difference` = with_machine - between_readers: the machine could
        stand in for a reader where the upper end of its interval is not above 0, or not above a
        margin declared beforehand. `ratio` = with_machine / between_readers. `within_range`: share
        of subjects in which the machine lies from the lowest to the highest reading, beside what
        one more reader would reach without ties, (k - 1) / (k + 1). Subjects without a machine's
        or two readers' readings count in `n_missing`.

    Formula
    -------
    In each subject the mean over pairs of |a - b| (or its square), then the mean over subjects.
    Intervals by Student's t on patients; of the ratio Fieller's (every ratio r for which
    with_machine - r between_readers may be 0; its upper end may be infinite).

    Source
    ------
    Barnhart, Kosinski & Haber 2007, J Biopharm Stat 17:697 (coefficient of individual agreement);
    Obuchowski, Subhas & Schoenhagen 2014, Acad Radiol 21:1483 (interchangeability); Fieller 1954,
    J R Stat Soc B 16:175.

    Checked against
    ---------------
    All pairs one by one; coverage by simulation.

    Examples
    --------
    >>> frame = pd.DataFrame({"case": [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4],
    ...                       "reader": ["ann", "bob", "model"] * 4,
    ...                       "ml": [10, 12, 11, 50, 46, 47, 0, 0, 1, 80, 90, 70.0]})
    >>> r = interchangeability(frame, "case", "reader", "ml", "model")
    >>> r.between_readers, r.with_machine, r.difference
    (4.0, 4.75, 0.75)
    """
    check_confidence(confidence)
    if measure not in MEASURES:
        raise ValueError(f"measure {measure!r}: expected one of {', '.join(MEASURES)}")
    wide = readings_by_reader(frame, subject, reader, value)
    if machine not in wide:
        raise ValueError(f"machine {machine!r} is not in the column {reader!r}, which has "
                         f"{', '.join(map(repr, wide.columns))}")
    read, by_machine = wide.drop(columns=machine).to_numpy(float), wide[machine].to_numpy(float)
    usable = (np.isfinite(read).sum(axis=1) >= 2) & np.isfinite(by_machine)
    n_missing = int(frame[subject].nunique() - usable.sum())
    read, by_machine = read[usable], by_machine[usable]
    n, k = len(read), int(np.isfinite(read).any(axis=0).sum())
    codes = pd.factorize(patient_codes(frame, subject, patient, wide.index[usable]))[0]
    m = int(codes.max(initial=-1)) + 1
    if not n:
        return Interchangeability(0, 0, k, NAN, NAN, NAN, NAN_PAIR, NAN, NAN_PAIR, NAN, NAN,
                                  measure, n_missing,
                                  "no subject with the machine's and two readers' readings")
    power = 1 if measure == "absolute" else 2
    pairs = [np.abs(read[:, i] - read[:, j]) ** power
             for i in range(read.shape[1]) for j in range(i)]
    readers = np.nanmean(pairs, axis=0)
    machines = np.nanmean(np.abs(read - by_machine[:, None]) ** power, axis=1)
    inside = (by_machine >= np.nanmin(read, axis=1)) & (by_machine <= np.nanmax(read, axis=1))
    counts = np.isfinite(read).sum(axis=1)
    between, beside = float(readers.mean()), float(machines.mean())
    difference = beside - between
    difference_ci = ratio_ci = NAN_PAIR
    reason = f"fewer than {FEWEST} patients: no interval" if m < FEWEST else ""
    if m >= FEWEST:
        t = float(stats.t.ppf((1 + confidence) / 2, m - 1))
        both = _covariance((machines, readers), codes)
        half = t * float(np.sqrt(max(both[0, 0] + both[1, 1] - 2 * both[0, 1], 0.0)))
        difference_ci = (difference - half, difference + half)
    if not between:
        reason = "the readers never differ: no ratio"
    elif m >= FEWEST:
        ratio_ci = _fieller(beside, between, both, t)
    return Interchangeability(
        n, m, k, between, beside, difference, difference_ci, beside / between if between else NAN,
        ratio_ci, float(inside.mean()), float(np.mean((counts - 1) / (counts + 1))), measure,
        n_missing, reason)


@dataclass(frozen=True, repr=False)
class LimitsWithMean(Result):
    """Result of `limits_with_mean`."""

    n: int
    n_readers: int
    half_width: float
    half_width_ci: tuple[float, float]
    sd_readers: float
    sd_residual: float
    sd_subjects: float
    n_missing: int
    reason: str


def _away(x: np.ndarray) -> float:
    """SD of a reading about the truth but for the subject; [subjects, readers]."""
    n = len(x)
    _, readers, rest = mean_squares(x)
    return float(np.sqrt(readers / n + (n - 1) / n * rest))


def limits_with_mean(frame: pd.DataFrame, subject: str, reader: str, value: str, *,
                     patient: str | None = None, confidence: float = 0.95,
                     missing: str = "raise") -> LimitsWithMean:
    """Limits of agreement of several readers with their mean (LOAM).

    Parameters
    ----------
    frame
        One row per subject and reader; every reader has read every subject once.
    subject, reader, value
        Its columns.
    patient
        Column of who a subject (a lesion, a scan) is of, where one has several: the interval is
        then by the jackknife of patients, and speaks of these readers.
    missing
        `raise`, or `drop`: a subject without a reading of every reader is left out and counted.

    Returns
    -------
    LimitsWithMean
        95 % of the readings lie within ± `half_width` of the mean of these readers of the subject,
        readers being taken as drawn from many. SDs of readers, of what is left, and of subjects.

    Formula
    -------
    half_width = 1.96 sqrt((k - 1) / k (s_readers^2 + s_residual^2)) from the two-way analysis of
    variance, k readers; interval by chi-squared with Satterthwaite's degrees of freedom of
    s_readers^2 + s_residual^2 = MSC / n + (n - 1) / n MSE.

    Source
    ------
    Jones, Dobson & O'Brian 2011, Int J Epidemiol 40:1308; Christensen et al. 2020, BMC Med Res
    Methodol 20:293 (readers drawn from many); Satterthwaite 1946, Biometrics Bull 2:110.

    Checked against
    ---------------
    Deviations from the mean one by one; coverage by simulation.

    Examples
    --------
    >>> frame = pd.DataFrame({"case": [1, 1, 1, 2, 2, 2, 3, 3, 3], "reader": ["a", "b", "c"] * 3,
    ...                       "ml": [10.0, 12, 11, 50, 46, 48, 20, 23, 20]})
    >>> round(limits_with_mean(frame, "case", "reader", "ml").half_width, 2)
    2.61
    """
    check_confidence(confidence)
    wide, n_missing = complete_readings(frame, subject, reader, value, missing)
    x = wide.to_numpy(float)
    n, k = x.shape
    if n < 2 or k < 2 or np.ptp(x) == 0:
        why = "all readings are equal" if x.size and np.ptp(x) == 0 else "needs 2 subjects, readers"
        return LimitsWithMean(n, k, NAN, NAN_PAIR, NAN, NAN, NAN, n_missing, why)
    msr, msc, mse = mean_squares(x)
    parts = msc / n, (n - 1) / n * mse
    within = sum(parts)
    half = float(stats.norm.ppf(0.975) * np.sqrt((k - 1) / k * within))
    sds = (float(np.sqrt(max(v, 0.0))) for v in ((msc - mse) / n, mse, (msr - mse) / k))
    if within <= 0:
        return LimitsWithMean(n, k, half, NAN_PAIR, *sds, n_missing, "the readers never differ")
    codes = pd.factorize(patient_codes(frame, subject, patient, wide.index))[0]
    m = int(codes.max()) + 1
    if m < FEWEST and m < n:
        return LimitsWithMean(n, k, half, NAN_PAIR, *sds, n_missing,
                              f"fewer than {FEWEST} patients: no interval")
    if m < n:
        group = groups_left_out(m)[codes]
        logs = np.log([_away(x[group != one]) for one in range(int(group.max()) + 1)])
        by = np.exp(stats.t.ppf((1 + confidence) / 2, len(logs) - 1) * jackknife_error(logs))
        return LimitsWithMean(n, k, half, (half / float(by), half * float(by)), *sds, n_missing, "")
    free = within**2 / (parts[0] ** 2 / (k - 1) + parts[1] ** 2 / ((n - 1) * (k - 1)))
    low, high = (half * float(np.sqrt(free / stats.chi2.ppf(q, free)))
                 for q in ((1 + confidence) / 2, (1 - confidence) / 2))
    return LimitsWithMean(n, k, half, (low, high), *sds, n_missing, "")
