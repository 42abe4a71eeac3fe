"""Readers who give classes, not volumes: severity, or present and absent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from deeplung_nb.stats._results import (
    FEWEST,
    NAN_PAIR,
    Result,
    check_confidence,
    check_once,
    clustered_pairs,
    full_rows,
    groups_left_out,
    jackknife_error,
    patient_codes,
)

NAN = float("nan")
WEIGHTS = ("linear", "quadratic", "none")
NO_INTERVAL = "no interval: few patients, all agree, or without one patient all are of one class"
SEVERITY_CUTS = (0.0, 25.0, 50.0, 75.0)
"""Burden in percent: none, minimal, mild, moderate, severe."""


@dataclass(frozen=True, repr=False)
class Kappa(Result):
    """Result of `weighted_kappa` and `fleiss_kappa`."""

    n: int
    n_readers: int
    n_classes: int
    agreement: float
    agreement_by_chance: float
    kappa: float
    kappa_ci: tuple[float, float]
    weights: str
    n_missing: int
    reason: str


def severity(burden_percent: Any, cuts: Sequence[float] = SEVERITY_CUTS) -> np.ndarray:
    """Class of severity of each burden.

    Parameters
    ----------
    burden_percent
        1-D, percent of the lung (or of a lobe); NaN stays NaN.
    cuts
        Ascending; a burden above the k-th is of class k or higher.

    Returns
    -------
    ndarray
        0, 1, ... as floats.

    Formula
    -------
    How many of the cuts lie below the burden: 0 none, 1 up to 25 %, 2 to 50, 3 to 75, 4 beyond.

    Source
    ------
    Chung et al. 2020, Radiology 295:202 (there lobe by lobe).

    Checked against
    ---------------
    The classes by hand.

    Examples
    --------
    >>> severity([0, 0.1, 25, 26, 80]).tolist()
    [0.0, 1.0, 1.0, 2.0, 4.0]
    """
    if list(cuts) != sorted(set(cuts)):
        raise ValueError(f"cuts {list(cuts)}: expected ascending numbers, each once")
    burden = np.asarray(burden_percent, float)
    if burden.ndim != 1 or (burden < 0).any():
        raise ValueError("burden_percent: expected a 1-D array of numbers of 0 or more")
    return np.where(np.isnan(burden), NAN, np.searchsorted(np.asarray(cuts, float), burden, "left"))


def weighted_kappa(first: Any, second: Any, *, weights: str = "linear",
                   levels: Sequence[Any] | None = None, cluster: Any = None,
                   confidence: float = 0.95, missing: str = "raise") -> Kappa:
    """Cohen's kappa of two readers; between ordered classes, a near miss counts as one in part.

    Parameters
    ----------
    first, second
        Classes as numbers, 1-D; equal numbers are one class, their order that of the classes. With
        `levels` also texts.
    weights
        `linear` or `quadratic` (by how many of the classes lie between), or `none`.
    levels
        All classes in their order, also those that nobody used; None: those that occur.
    cluster
        Which patient each pair is of, one value a pair; None: each is of another one.

    Returns
    -------
    Kappa
        `agreement` is what was agreed on (weighted), `agreement_by_chance` what readers of these
        habits would reach without looking; NaN with a `reason` where both always say one class.

    Formula
    -------
    (agreement - by chance) / (1 - by chance), agreement = sum of w_ij p_ij, w = 1 - |i - j| / (c -
    1) or 1 - (i - j)^2 / (c - 1)^2. Interval: ± t SE, SE by the jackknife of patients.

    Source
    ------
    Cohen 1968, Psychol Bull 70:213; Efron & Tibshirani 1993, An Introduction to the Bootstrap,
    ch. 11 (jackknife).

    Checked against
    ---------------
    statsmodels (cohens_kappa), the formula by hand; quadratic weights: the concordance correlation;
    the jackknife one pair at a time; coverage by simulation.

    Examples
    --------
    >>> r = weighted_kappa([0, 1, 2, 2, 3, 4], [0, 1, 1, 2, 3, 4])
    >>> round(r.agreement, 3), round(r.kappa, 3)
    (0.958, 0.889)
    """
    check_confidence(confidence)
    if weights not in WEIGHTS:
        raise ValueError(f"weights {weights!r}: expected one of {', '.join(WEIGHTS)}")
    if levels is not None:
        labelled = isinstance(first, pd.Series) and isinstance(second, pd.Series)
        first, second = (_places(values, levels, name) if labelled else
                         _places(values, levels, name).to_numpy() for values, name in
                         ((first, "first"), (second, "second")))
    a, b, codes, n_missing = clustered_pairs(first, second, cluster, missing, ("first", "second"))
    n, m = len(a), int(codes.max(initial=-1)) + 1
    names = np.unique(np.concatenate([a, b])) if levels is None else np.arange(float(len(levels)))
    if len(names) < 2:
        return Kappa(n, 2, len(names), NAN, NAN, NAN, NAN_PAIR, weights, n_missing,
                     "both readers always say the same one class" if n else "no pair")
    places = np.searchsorted(names, a), np.searchsorted(names, b)
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, places, 1)
    lost = _lost(len(names), weights)
    agreed, by_chance, kappa = _kappa(counts, lost)
    if m == n:  # without one pair of a cell; cells that hold more weigh more
        cells = np.argwhere(counts)
        less = np.zeros((len(cells), *counts.shape))
        less[(np.arange(len(cells)), *cells.T)] = 1.0
        weight = counts[tuple(cells.T)]
    else:
        group = groups_left_out(m)[codes]
        less = np.zeros((int(group.max()) + 1, *counts.shape))
        np.add.at(less, (group, *places), 1)
        weight = np.ones(len(less))
    k = weight.sum()
    with np.errstate(all="ignore"):
        without = np.array([_kappa(counts - one, lost)[2] for one in less])
    spread = weight @ (without - weight @ without / k) ** 2 * (k - 1) / k
    half = float(stats.t.ppf((1 + confidence) / 2, max(k - 1, 1)) * np.sqrt(spread))
    if m < FEWEST or not half > 1e-12:  # or not a number
        return Kappa(n, 2, len(names), agreed, by_chance, kappa, NAN_PAIR, weights, n_missing,
                     "no interval: few pairs, all agree, or one reader always says the same")
    return Kappa(n, 2, len(names), agreed, by_chance, kappa,
                 (kappa - half, min(1.0, kappa + half)), weights, n_missing, "")


def _places(values: Any, levels: Sequence[Any], name: str) -> pd.Series:
    """Where each class stands in the levels; NaN where it is empty."""
    if len(set(levels)) != len(levels) or len(levels) < 2:
        raise ValueError(f"levels {list(levels)!r}: expected two classes or more, each once")
    place = {level: float(k) for k, level in enumerate(levels)}
    index = values.index if isinstance(values, pd.Series) else None
    series = pd.Series(list(values), dtype=object, index=index)
    unknown = sorted({str(value) for value in series.dropna() if value not in place})
    if unknown:
        raise ValueError(f"{name}: class {', '.join(unknown[:5])} is none of the levels "
                         f"{', '.join(map(str, levels))}")
    return series.map(place).astype(float)


def _kappa(counts: np.ndarray, lost: np.ndarray) -> tuple[float, float, float]:
    """Agreement, what chance would reach, and kappa, of a table of counts."""
    n = counts.sum()
    agreed = 1 - float((lost * counts).sum() / n)
    by_chance = 1 - float((lost * np.outer(counts.sum(axis=1), counts.sum(axis=0))).sum() / n**2)
    return agreed, by_chance, (agreed - by_chance) / (1 - by_chance) if by_chance < 1 else NAN


def _lost(q: int, weights: str) -> np.ndarray:
    """What each pair of q classes loses of agreement, 0 to 1."""
    apart = np.abs(np.subtract.outer(np.arange(q), np.arange(q)))
    return {"none": (apart > 0).astype(float), "linear": apart / (q - 1),
            "quadratic": (apart / (q - 1)) ** 2}[weights]


def _by_patients(coefficient: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]],
                 rows: np.ndarray, codes: np.ndarray, confidence: float
                 ) -> tuple[float, float, float, tuple[float, float]]:
    """Agreement, what chance would reach, the coefficient and its interval.

    `coefficient` gives the three from sums over subjects, of which `rows` holds a row each; the
    interval is ± t SE, SE by the jackknife of patients.
    """
    m = int(codes.max()) + 1
    total = rows.sum(axis=0)
    agreed, by_chance, found = map(float, coefficient(total))
    of_patients = np.stack([np.bincount(codes, column, m) for column in rows.T], axis=1)
    with np.errstate(all="ignore"):
        without = coefficient(total - of_patients)[2]
    half = float(stats.t.ppf((1 + confidence) / 2, max(m - 1, 1)) * jackknife_error(without))
    if m < FEWEST or not (half > 1e-12 and np.isfinite(half)):
        return agreed, by_chance, found, NAN_PAIR
    return agreed, by_chance, found, (found - half, min(1.0, found + half))


def fleiss_kappa(frame: pd.DataFrame, subject: str, reader: str, category: str, *,
                 levels: Sequence[Any] | None = None, patient: str | None = None,
                 confidence: float = 0.95) -> Kappa:
    """Fleiss' kappa of several readers who name classes without an order.

    Parameters
    ----------
    frame
        One row per reading.
    subject, reader, category
        Its columns; who reads which subject may differ, and some may be missing.
    levels
        All classes, also those that nobody used; another one is an error. They change no number
        but `n_classes`: without an order an unused class is none.
    patient
        Column of who a subject is of, where a patient has several.

    Returns
    -------
    Kappa
        `agreement` is the chance that two readings of a subject are equal. Subjects with one
        reading count in `n_missing`.

    Formula
    -------
    kappa = (P - P_e) / (1 - P_e); P the mean over subjects with two readings or more of the share
    of equal pairs, P_e the sum of squared shares of the classes, which are means over all subjects.
    Interval: ± t SE, SE by the jackknife of patients.

    Source
    ------
    Fleiss 1971, Psychol Bull 76:378; unequal numbers of readings: Gwet 2014, Handbook of
    Inter-Rater Reliability, ch. 2.

    Checked against
    ---------------
    statsmodels (fleiss_kappa) where all have read all; the jackknife one patient at a time.

    Examples
    --------
    >>> frame = pd.DataFrame({"case": [1, 1, 1, 2, 2, 2, 3, 3], "reader": list("abcabcab"),
    ...                       "class": [0, 0, 0, 1, 1, 2, 2, 2]})
    >>> round(fleiss_kappa(frame, "case", "reader", "class").kappa, 3)
    0.654
    """
    check_confidence(confidence)
    keys = (subject, reader, *([] if patient is None else [patient]))
    subjects = frame[subject].nunique() if subject in frame else 0
    full_rows(frame, keys, "raise", ())
    if category not in frame:
        raise ValueError(f"no column {category!r}; the frame has "
                         f"{', '.join(map(str, frame.columns))}")
    read = frame[frame[category].notna()]
    check_once(read, subject, reader)
    table = pd.crosstab(read[subject], read[category])
    if levels is not None:
        _places(read[category], levels, category)
        table = table.reindex(columns=list(levels), fill_value=0)
    counts, n_readers = table.to_numpy(float), read[reader].nunique()
    sizes = counts.sum(axis=1)
    several = sizes >= 2
    n, classes = int(several.sum()), table.shape[1] if len(table) else 0
    if (counts.sum(axis=0) > 0).sum() < 2 or not n:
        return Kappa(n, n_readers, classes, NAN, NAN, NAN, NAN_PAIR, "none", subjects - n,
                     "all readings are of one class" if n else "no subject with two readings")
    pairs = np.where(several, sizes * (sizes - 1), 1.0)
    # A row a subject: is it counted, its share of equal pairs, is it read, its shares of classes.
    rows = np.column_stack([several, (counts * (counts - 1)).sum(axis=1) / pairs,
                            np.ones(len(table)), counts / sizes[:, None]])
    codes = patient_codes(read, subject, patient, table.index)

    def kappa(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        agreed = sums[..., 1] / sums[..., 0]
        by_chance = ((sums[..., 3:] / sums[..., 2:3]) ** 2).sum(axis=-1)
        return agreed, by_chance, (agreed - by_chance) / (1 - by_chance)

    *found, ends = _by_patients(kappa, rows, codes, confidence)
    return Kappa(n, n_readers, classes, *found, ends, "none", subjects - n,
                 NO_INTERVAL if np.isnan(ends[0]) else "")


def gwet_ac(frame: pd.DataFrame, subject: str, reader: str, category: str, *,
            weights: str = "none", levels: Sequence[Any] | None = None,
            patient: str | None = None, confidence: float = 0.95) -> Kappa:
    """Gwet's AC1 (`weights="none"`) and AC2: agreement beyond chance that rare classes don't upset.

    Where nearly all cases are of one class, kappa may be near 0 though readers nearly always agree:
    its chance agreement is then near 1. Gwet's is small there.

    Parameters
    ----------
    frame
        One row per reading.
    subject, reader, category
        Its columns; who reads which subject may differ, and some may be missing.
    weights
        `none` (AC1), `linear` or `quadratic` (AC2, by how many of the classes lie between).
    levels
        All classes in their order, also those that nobody used, also texts; None: those that
        occur, sorted.
    patient
        Column of who a subject is of, where a patient has several.

    Returns
    -------
    Kappa
        `kappa` is the coefficient. Subjects with one reading count in `n_missing`.

    Formula
    -------
    (P - P_e) / (1 - P_e): P the mean over subjects with two readings or more of the weighted share
    of agreeing pairs; P_e = sum of all weights / (q (q - 1)) x sum pi_k (1 - pi_k), pi_k the mean
    share of class k, q classes. Interval: ± t SE, SE by the jackknife of patients.

    Source
    ------
    Gwet 2008, Br J Math Stat Psychol 61:29; weights and missing readings: Gwet 2014, Handbook of
    Inter-Rater Reliability, ch. 5.

    Checked against
    ---------------
    The formula by hand; the paradox of Feinstein & Cicchetti 1990 (J Clin Epidemiol 43:543);
    coverage by simulation.

    Examples
    --------
    >>> frame = pd.DataFrame({"case": [*range(10)] * 2, "reader": ["a"] * 10 + ["b"] * 10,
    ...                       "class": [0] * 9 + [1] + [0] * 10})
    >>> round(gwet_ac(frame, "case", "reader", "class").kappa, 3)
    0.89
    """
    check_confidence(confidence)
    if weights not in WEIGHTS:
        raise ValueError(f"weights {weights!r}: expected one of {', '.join(WEIGHTS)}")
    full_rows(frame, (subject, reader, *([] if patient is None else [patient])), "raise", ())
    if category not in frame:
        raise ValueError(f"no column {category!r}; the frame has "
                         f"{', '.join(map(str, frame.columns))}")
    read = frame[frame[category].notna()]
    check_once(read, subject, reader)
    if levels is None and isinstance(read[category].dtype, pd.CategoricalDtype) \
            and read[category].dtype.ordered:
        levels = list(read[category].dtype.categories)
    if levels is None and weights != "none" and not pd.api.types.is_numeric_dtype(read[category]):
        raise ValueError(f"weights={weights!r} of classes that are texts: say their order, levels=")
    names = list(levels) if levels is not None else sorted(read[category].unique())
    n_subjects, n_readers, q = frame[subject].nunique(), read[reader].nunique(), len(names)
    if q < 2:
        n = int((read.groupby(subject).size() > 1).sum()) if len(read) else 0
        return Kappa(n, n_readers, q, NAN, NAN, NAN, NAN_PAIR, weights, n_subjects - n,
                     "all readings are of one class: say levels=")
    place = _places(read[category], names, category).to_numpy(int)
    codes, subjects = pd.factorize(read[subject])
    counts = np.zeros((len(subjects), q))
    np.add.at(counts, (codes, place), 1)
    weight = 1 - _lost(q, weights)
    sizes = counts.sum(axis=1)
    several = sizes >= 2
    n = int(several.sum())
    if not n:
        return Kappa(0, n_readers, q, NAN, NAN, NAN, NAN_PAIR, weights, n_subjects,
                     "no subject with two readings")
    with np.errstate(all="ignore"):
        agreed = np.where(several, (counts * (counts @ weight - 1)).sum(axis=1)
                          / (sizes * (sizes - 1)), 0.0)
    rows = np.column_stack([several, agreed, np.ones(len(subjects)), counts / sizes[:, None]])
    whose = patient_codes(read, subject, patient, pd.Index(subjects))

    def coefficient(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        share = sums[..., 3:] / sums[..., 2:3]
        by_chance = weight.sum() / (q * (q - 1)) * (share * (1 - share)).sum(axis=-1)
        found = sums[..., 1] / sums[..., 0]
        return found, by_chance, (found - by_chance) / (1 - by_chance)

    *found, ends = _by_patients(coefficient, rows, whose, confidence)
    return Kappa(n, n_readers, q, *found, ends, weights, n_subjects - n,
                 NO_INTERVAL if np.isnan(ends[0]) else "")
