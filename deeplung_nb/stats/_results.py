"""What all results share: frozen fields, a frame, a printed form; and how arrays come in."""

from __future__ import annotations

import dataclasses
import html
from typing import Any

import numpy as np
import pandas as pd


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_show, value))}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


@dataclasses.dataclass(frozen=True, repr=False)
class Result:
    """A frozen set of named numbers in full precision; only the printed form rounds."""

    def to_dict(self) -> dict[str, Any]:
        """Field -> value, in the order of the fields; an interval is a tuple (lower, upper)."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def to_frame(self) -> pd.DataFrame:
        """One row; an interval becomes the columns `<field>_lower` and `<field>_upper`."""
        row: dict[str, Any] = {}
        for name, value in self.to_dict().items():
            if isinstance(value, tuple):
                row[f"{name}_lower"], row[f"{name}_upper"] = value
            else:
                row[name] = value
        return pd.DataFrame([row])

    def __repr__(self) -> str:
        fields = self.to_dict()
        width = max(map(len, fields))
        lines = [f"  {name:<{width}}  {_show(value)}" for name, value in fields.items()]
        return "\n".join([type(self).__name__, *lines])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
            f"<td style='text-align:right'>{html.escape(_show(value))}</td></tr>"
            for name, value in self.to_dict().items()
        )
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"


NAN_PAIR = (float("nan"), float("nan"))
FEWEST = 4
"""Patients below which no interval is estimated."""


def check_confidence(confidence: float) -> None:
    """Confidence lies between 0 and 1: 0.95, not 95."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: expected a number between 0 and 1, as 0.95")


def one_array(values: Any, name: str = "values", missing: str = "raise") -> tuple[np.ndarray, int]:
    """A 1-D float array without NaN, and how many NaN were dropped.

    Raises
    ------
    ValueError
        Not one-dimensional, infinite, or NaN with `missing="raise"`.
    """
    if missing not in ("raise", "drop"):
        raise ValueError(f"missing={missing!r}: expected 'raise' or 'drop'")
    array = pd.Series(values).to_numpy(dtype=float, na_value=np.nan) if np.ndim(values) == 1 \
        else np.asarray(values, dtype=float)
    if array.ndim != 1:
        raise ValueError(f"{name} has {array.ndim} dimensions: expected 1")
    if np.isinf(array).any():
        raise ValueError(f"{name}: infinite at position {int(np.flatnonzero(np.isinf(array))[0])}")
    empty = np.isnan(array)
    if empty.any() and missing == "raise":
        raise ValueError(f"{name}: {int(empty.sum())} of {len(array)} values are NaN (first at "
                         f"position {int(np.flatnonzero(empty)[0])}). Find out why, or pass "
                         "missing='drop'")
    return array[~empty], int(empty.sum())


def two_arrays(
    reference: Any, test: Any, missing: str = "raise", names: tuple[str, str] = ("reference",
                                                                                "test"),
) -> tuple[np.ndarray, np.ndarray, int]:
    """Two aligned 1-D float arrays without NaN, and how many pairs were dropped.

    Raises
    ------
    ValueError
        Lengths differ, two Series have different labels, or as `one_array`.
    """
    if isinstance(reference, pd.Series) and isinstance(test, pd.Series) \
            and not reference.index.equals(test.index):
        raise ValueError(f"{names[0]} and {names[1]} are Series with different labels: pair them "
                         "first (measurements.pair), or pass arrays")
    lengths = np.shape(reference), np.shape(test)
    if lengths[0] != lengths[1]:
        raise ValueError(f"{names[0]} has shape {lengths[0]}, {names[1]} {lengths[1]}: expected "
                         "pairs")
    one_array(reference, names[0], missing)
    one_array(test, names[1], missing)
    first, second = (pd.Series(values).to_numpy(dtype=float, na_value=np.nan)
                     for values in (reference, test))
    keep = ~(np.isnan(first) | np.isnan(second))
    return first[keep], second[keep], int((~keep).sum())


def full_rows(frame: pd.DataFrame, columns: tuple[str, ...], missing: str,
              readings: tuple[str, ...]) -> tuple[pd.DataFrame, int]:
    """The rows with all `readings`, and how many were dropped; who they are of must be known."""
    absent = [name for name in (*columns, *readings) if name not in frame]
    if absent:
        raise ValueError(f"no column {', '.join(map(repr, absent))}; the frame has "
                         f"{', '.join(map(str, frame.columns))}")
    for name in columns:
        nameless = frame[name].isna().to_numpy()
        if nameless.any():
            raise ValueError(f"column {name!r}: empty in row {int(np.flatnonzero(nameless)[0]) + 1}"
                             f" (of {int(nameless.sum())}). Fill it in, or leave the row out")
    for name in readings:
        one_array(frame[name], name, missing)
    full = frame[list(readings)].notna().all(axis=1)
    return frame[full], int((~full).sum())


def check_once(frame: pd.DataFrame, subject: str, reader: str) -> None:
    """No reader has read a subject twice."""
    twice = frame[frame.duplicated([subject, reader])]
    if len(twice):
        raise ValueError(f"subject {twice[subject].iloc[0]!r}, reader {twice[reader].iloc[0]!r}: "
                         "more than one reading; keep one a subject and reader")


def readings_by_reader(frame: pd.DataFrame, subject: str, reader: str, value: str,
                       missing: str = "drop") -> pd.DataFrame:
    """One row for each subject of the frame, one column for each reader; NaN where one did not
    read."""
    read, _ = full_rows(frame, (subject, reader), missing, (value,))
    check_once(read, subject, reader)
    wide = read.pivot(index=subject, columns=reader, values=value)
    return wide.reindex(index=frame[subject].unique(), columns=sorted(frame[reader].unique()))


def complete_readings(frame: pd.DataFrame, subject: str, reader: str, value: str, missing: str,
                      other: str = "") -> tuple[pd.DataFrame, int]:
    """As `readings_by_reader`, of the subjects that all have read; and how many were left out.

    `other` is what one may do besides, for the message.
    """
    wide = readings_by_reader(frame, subject, reader, value, missing)
    short = wide.isna().any(axis=1)
    if short.any() and missing == "raise":
        raise ValueError(f"subject {str(wide.index[short][0])!r} lacks a reader's reading: leave "
                         f"the subject out (missing='drop') or the reader{other}")
    return wide[~short], int(short.sum())


def patient_codes(frame: pd.DataFrame, subject: str, patient: str | None, subjects: pd.Index
                  ) -> np.ndarray:
    """Which patient each of these subjects is of, as whole numbers from 0; None: each is one.

    Raises
    ------
    ValueError
        A subject is of nobody, or of several patients.
    """
    if patient is None:
        return np.arange(len(subjects))
    full_rows(frame, (subject, patient), "raise", ())
    pairs = frame.drop_duplicates(list(dict.fromkeys((subject, patient))))
    torn = pairs[pairs[subject].duplicated()]
    if len(torn):
        raise ValueError(f"subject {str(torn[subject].iloc[0])!r} is of more than one {patient}: "
                         "name subjects so that each is of one")
    whose = pairs.set_index(subject, drop=False)[patient].loc[subjects]
    return cluster_codes(whose, len(subjects))


def cluster_codes(cluster: Any, n: int) -> np.ndarray:
    """Who belongs together, as whole numbers from 0; None: nobody.

    Raises
    ------
    ValueError
        Not one value a pair, or an empty one.
    """
    if cluster is None:
        return np.arange(n)
    values = pd.Series(np.asarray(cluster, dtype=object)) if np.ndim(cluster) == 1 else None
    if values is None or len(values) != n:
        raise ValueError(f"cluster: expected {n} values, one for each pair")
    if values.isna().any():
        raise ValueError(f"cluster: empty at position {int(np.flatnonzero(values.isna())[0])}. "
                         "Say which patient it is, or leave the pair out")
    return pd.factorize(values)[0]


def in_order(*columns: np.ndarray) -> np.ndarray:
    """An order of patients that does not hang on that of the rows, for seeded resamples."""
    # Rounded: sums of the same rows in another order differ in their last digits.
    return np.lexsort([np.round(column / (float(np.abs(column).max()) or 1.0), 9)
                       for column in columns[::-1]])


LEFT_OUT = 200
"""Most groups of patients that a jackknife leaves out in turn."""


def groups_left_out(m: int) -> np.ndarray:
    """Group of each of m patients, as whole numbers from 0; up to `LEFT_OUT` each is one."""
    if m <= LEFT_OUT:
        return np.arange(m)
    return np.random.default_rng(0).permutation(m) % LEFT_OUT


def jackknife_error(without: np.ndarray) -> np.ndarray:
    """Standard error from the values without each group, along the first axis."""
    m = len(without)
    return np.sqrt((m - 1) / m * np.sum((without - np.mean(without, axis=0)) ** 2, axis=0))


def clustered_pairs(reference: Any, test: Any, cluster: Any, missing: str,
                    names: tuple[str, str] = ("reference", "test"),
                    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """As `two_arrays`, with the codes of the pairs' clusters before how many were dropped."""
    a, b, n_missing = two_arrays(reference, test, missing, names)
    for values, name in ((reference, names[0]), (test, names[1])):
        if isinstance(cluster, pd.Series) and isinstance(values, pd.Series) \
                and not cluster.index.equals(values.index):
            raise ValueError(f"{name} and cluster are Series with different labels: take both from "
                             "one frame, or pass arrays")
    keep = ~(pd.isna(pd.Series(np.asarray(reference))) | pd.isna(pd.Series(np.asarray(test)))
             ).to_numpy()
    codes = cluster_codes(cluster, len(keep))
    return a, b, pd.factorize(codes[keep])[0], n_missing


def rounding(*readings: np.ndarray) -> float:
    """What differences of these readings may be by rounding alone: 1e-11 of the largest."""
    return 1e-11 * max((float(np.abs(array).max()) for array in readings if len(array)),
                       default=0.0)


def plain_differences(reference: np.ndarray, test: np.ndarray) -> np.ndarray:
    """test - reference without the rounding of binary numbers: what is equal on paper is equal.

    Each keeps 12 digits of the larger reading of its pair, whatever the unit.
    """
    differences = test - reference
    largest = np.maximum(np.abs(reference), np.abs(test))
    some = largest > 0
    decimals = np.zeros(len(largest), int)
    decimals[some] = 12 - np.ceil(np.log10(largest[some])).astype(int)
    for digits in np.unique(decimals[some]):
        at = some & (decimals == digits)
        differences[at] = np.round(differences[at], digits)
    return differences
