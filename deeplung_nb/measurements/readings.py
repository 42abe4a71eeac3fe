"""Readings as people keep them, in a table with any names, as a checked table of measurements."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb.measurements.columns import numbers, patient_column
from deeplung_nb.measurements.contract import (
    BELOW_LIMIT,
    COLUMNS,
    MeasurementsError,
    check,
    some,
)
from deeplung_nb.measurements.spreadsheets import read_sheet

UNITS = {
    "volume_ml": {"mL": 1.0, "cm3": 1.0, "cm³": 1.0, "cc": 1.0, "mm3": 1e-3, "mm³": 1e-3,
                  "L": 1e3},
    "burden_percent": {"%": 1.0},
}
"""Units of readings, as factors to the table's own; in any case of letters."""


def _factor(value: str, unit: str | None) -> float:
    if value not in UNITS:
        raise ValueError(f"value={value!r}: expected 'volume_ml' or 'burden_percent'")
    known = UNITS[value]
    if unit is None and len(known) > 1:
        raise ValueError("unit of the volumes: not said, and a factor of 1,000 would go unseen. "
                         f"Pass unit='mL', or one of {', '.join(list(known)[1:])}")
    folded = {name.casefold(): factor for name, factor in known.items()}
    factor = folded.get((unit or next(iter(known))).strip().casefold())
    if factor is None:
        raise ValueError(f"unit={unit!r}: expected one of {', '.join(known)} for {value}")
    return factor


def _same_unit(columns: Iterable[str], value: str, unit: str | None, where: str) -> None:
    """An error where a column's own name says another unit than the one that is passed."""
    factors = {name.casefold(): (kind, factor) for kind, known in UNITS.items()
               for name, factor in known.items()}
    said = (value, _factor(value, unit))
    faults = []
    for column in columns:
        # A litre's single letter is one in brackets only: L is also a side.
        name = str(column).casefold()
        words = [*re.findall(r"(?<![^\W_])(ml|cm3|cm³|cc|mm3|mm³|%)(?![^\W_])", name),
                 *re.findall(r"[(\[]\s*(l)\s*[)\]]", name)]
        other = [word for word in dict.fromkeys(words) if factors[word] != said]
        if other:
            faults.append(f"column {column!r} says {', '.join(other)}, but its readings would be "
                          f"taken as {unit or next(iter(UNITS[value]))}. Say the unit that is "
                          "true, or convert the column and rename it, if readers differ in it")
    if faults:
        raise MeasurementsError(faults, where)


def from_long(
    table: pd.DataFrame | str | os.PathLike, *, reading: str, reader: str = "reader",
    value: str = "volume_ml", unit: str | None = None, decimal: str | None = None,
    structure: str = "lesion", cohort: str = "table", role: str = "external",
    case_id: str | Sequence[str] = "case_id", patient_id: str | None = None,
    names: Mapping[str, str] | None = None, unread: Sequence[str] = (), below: str | None = None,
    summary_rows: str = "ask",
) -> pd.DataFrame:
    """Any table with one row per case and reader as measurements.

    Parameters
    ----------
    table
        A frame, or the path of a CSV or Excel file (first sheet). Columns named `protocol,
        scanner, centre, cohort, role, structure` are taken over where present.
    reading, reader, case_id
        Its columns: the number, who read, which case.
    names
        Spelling of a reader -> the reader, `{"Expert ": "expert"}`. Without it, spellings that
        differ only by case or spaces are asked about; `{}`: they are different readers.
    patient_id, value, unit, decimal, structure, cohort, role, unread, below, summary_rows
        As `from_wide`.

    Returns
    -------
    DataFrame
        A checked table; an empty reading becomes a row with status `unread`.

    Raises
    ------
    MeasurementsError, ValueError
        As `from_wide`.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = pd.DataFrame({"case_id": ["a", "a"], "reader": ["expert", "model"],
    ...                      "ml": ["1,5", "2"]})
    >>> from_long(rows, reading="ml", unit="mL")[["reader", "volume_ml"]].values.tolist()
    [['expert', 1.5], ['model', 2.0]]
    """
    factor = _factor(value, unit)
    frame = table if isinstance(table, pd.DataFrame) else read_sheet(table)
    _present(frame, (*_columns(case_id), reader, reading, *_columns(patient_id)), "from_long")
    frame, case_id, places = _cases(frame, case_id, summary_rows, "from_long")
    _same_unit([reading], value, unit, "from_long")
    patient_id = patient_id or patient_column(frame.columns, (case_id, reader, reading))
    found = numbers(frame[reading].tolist(), [f"column {reading!r}, row {row}" for row in places],
                    decimal, unread=unread, below=below)
    limited = _limited(frame[reading], below)
    return _as_measurements(frame, _one_spelling(frame[reader], names), case_id, found * factor,
                            value, (structure, cohort, role), patient_id, limited, "from_long")


def from_wide(
    table: pd.DataFrame | str | os.PathLike, readers: Mapping[str, str], *,
    value: str = "volume_ml", unit: str | None = None, decimal: str | None = None,
    structure: str = "lesion", cohort: str = "table", role: str = "external",
    case_id: str | Sequence[str] | None = "case_id", patient_id: str | None = None,
    unread: Sequence[str] = (), below: str | None = None, summary_rows: str = "ask",
) -> pd.DataFrame:
    """Any table of paired readings (one row per case, one column per reader) as measurements.

    Parameters
    ----------
    table
        One row per case: a frame, or the path of a CSV or Excel file (first sheet). Columns named
        `protocol, scanner, centre, cohort, role, structure` are taken over where present.
        One row per case *and* reader is for `from_long`.
    readers
        Reader -> its column, for example `{"expert": "manual_ml", "model": "automatic_ml"}`.
    value
        What the columns hold: `volume_ml` or `burden_percent`.
    unit
        Of volumes it must be said: `mL`, `cm3`, `cc`, `mm3` or `L`, which become mL; burden is in
        `%`.
    decimal
        The sign before decimals, `.` or `,`, the other one separating thousands; None: what the
        columns themselves leave no doubt of.
    structure, cohort, role
        Where the table has no such column.
    case_id
        Column that names the case; several, where only together they name one (patient and scan);
        None: the rows are numbered from 1.
    patient_id
        Column that names the patient, who may have several cases; None: one that is called so in
        a usual spelling (`Patient_ID`, `Pat.-Nr.`, `Subject` ...), else each case is a patient.
    unread
        Texts that stand for no reading, `["-", "k. A."]`, besides `NA`, `n/a` and the like.
    below
        What `<0.5` counts: `zero`, `half` of it or the `limit`; None: it is asked about. How many
        were counted so stands in `attrs["below"]` of pairs, and in `report_text`.
    summary_rows
        Rows named like a sum or a mean of the others: `ask`, `drop` or `keep`.

    Returns
    -------
    DataFrame
        A checked table; an empty reading becomes a row with status `unread`.

    Raises
    ------
    MeasurementsError, ValueError
        A named column is absent, no unit, what is no number (which, where), or as `check`; the
        file is no table.

    Examples
    --------
    >>> import pandas as pd
    >>> wide = pd.DataFrame({"case_id": ["a", "b"], "manual": [1.5, 0.0], "auto": [1.75, None]})
    >>> long = from_wide(wide, {"expert": "manual", "model": "auto"}, unit="mL")
    >>> from deeplung_nb.measurements import pair
    >>> pairs = pair(long, "expert", "model", "lesion")
    >>> pairs[["case_id", "reference", "test"]].to_dict("records")
    [{'case_id': 'a', 'reference': 1.5, 'test': 1.75}]
    >>> pairs.attrs["unread"]
    ['table/b']
    """
    factor = _factor(value, unit)
    frame = table if isinstance(table, pd.DataFrame) else read_sheet(table)
    _present(frame, (*_columns(case_id), *readers.values(), *_columns(patient_id)), "from_wide")
    frame, case_id, places = _cases(frame, case_id, summary_rows, "from_wide")
    _same_unit(readers.values(), value, unit, "from_wide")
    patient_id = patient_id or patient_column(frame.columns, (case_id, *readers.values()))
    found = numbers([number for column in readers.values() for number in frame[column]],
                    [f"column {column!r}, row {row}" for column in readers.values()
                     for row in places], decimal, unread=unread, below=below)
    if case_id == NUMBERED:
        _rows_repeated(frame.drop(columns=NUMBERED), list(readers.values()))
    return _as_measurements(
        pd.concat([frame] * len(readers), ignore_index=True),
        pd.Series([name for name in readers for _ in places], dtype=object), case_id,
        found * factor, value, (structure, cohort, role), patient_id,
        [note for column in readers.values() for note in _limited(frame[column], below)],
        "from_wide")


def _columns(name: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if name is None else (name,) if isinstance(name, str) else tuple(name)


NUMBERED = "number of the row"
"""The column of cases that have no name."""
SUMS = frozenset({"mean", "average", "avg", "sd", "std", "stdev", "sem", "se", "median", "iqr",
                  "sum", "total", "min", "max", "minimum", "maximum", "n", "count", "mittelwert",
                  "summe", "gesamt", "moyenne", "media", "standard deviation", "mean ± sd",
                  "mean±sd", "grand total"})
"""What people call rows that are no cases, without case, points and colons."""


def _cases(frame: pd.DataFrame, case_id: str | Sequence[str] | None, summary_rows: str, where: str
           ) -> tuple[pd.DataFrame, str, list[int]]:
    """The rows that are cases, the column that names them, and the number of each from 1."""
    if summary_rows not in ("ask", "drop", "keep"):
        raise ValueError(f"summary_rows={summary_rows!r}: expected 'ask', 'drop' or 'keep'")
    frame = frame.reset_index(drop=True)
    named = _columns(case_id) or tuple(frame.columns[:1])
    sums = np.zeros(len(frame), bool)
    for column in named:
        sums |= frame[column].map(lambda name: str(name).strip(" .:").casefold() in SUMS).to_numpy(
            bool)
    if sums.any() and summary_rows == "ask":
        names = [f"{' '.join(str(frame.at[row, column]) for column in named)!r} (row {row + 1})"
                 for row in np.flatnonzero(sums)]
        raise MeasurementsError([f"{some(names)}: look(s) like sums of the others, not like "
                                 "cases. Say summary_rows='drop', or 'keep' if they are cases"],
                                where)
    rows = [row + 1 for row in range(len(frame)) if summary_rows != "drop" or not sums[row]]
    frame = frame.iloc[[row - 1 for row in rows]].reset_index(drop=True)
    if isinstance(case_id, str):
        return frame, case_id, rows
    if case_id is None:
        return frame.assign(**{NUMBERED: rows}), NUMBERED, rows
    joined = ["/".join(map(str, names)) if pd.notna(list(names)).all() else None for names in
              frame[list(case_id)].itertuples(index=False, name=None)]
    return frame.assign(**{"case of several": joined}), "case of several", rows


def _one_spelling(reader: pd.Series, names: Mapping[str, str] | None) -> pd.Series:
    """The readers, each by one name."""
    if names is not None:
        return reader.replace(dict(names))
    spellings: dict[str, set[str]] = {}
    for name in reader.dropna().unique():
        spellings.setdefault(" ".join(str(name).split()).casefold(), set()).add(str(name))
    faults = []
    for alike in spellings.values():
        if len(alike) > 1:
            first, *others = sorted(alike, key=lambda name: (name != name.strip(), name))
            faults.append(f"readers {', '.join(map(repr, sorted(alike)))} differ by case or spaces "
                          f"only: are they one? Say names={dict.fromkeys(others, first)!r}, or "
                          "names={} if they are not")
    if faults:
        raise MeasurementsError(faults, "from_long")
    return reader


def _limited(column: Any, below: str | None) -> list[str]:
    """What is noted of each reading: that it was below a limit, and what it was counted as."""
    words = {"zero": "0", "half": "half of it", "limit": "the limit itself"}.get(below or "", "")
    return [f"{BELOW_LIMIT} {value.strip().lstrip('<').strip()}, counted as {words}"
            if below and isinstance(value, str) and value.strip().startswith("<") else ""
            for value in column]


def _alike_patients(patients: Any) -> None:
    """A warning where the names of patients differ by case or spaces only."""
    spellings: dict[str, set[str]] = {}
    for name in patients.dropna().unique():
        spellings.setdefault(" ".join(str(name).split()).casefold(), set()).add(str(name))
    alike = [sorted(names) for names in spellings.values() if len(names) > 1]
    if alike:
        more = f" and {len(alike) - 3} more" if len(alike) > 3 else ""
        warnings.warn(f"patients {'; '.join(', '.join(map(repr, names)) for names in alike[:3])}"
                      f"{more} differ by case or spaces only, and are taken for different ones. If "
                      "they are one, spell them alike", stacklevel=5)


def _patients_unnoticed(frame: pd.DataFrame, case_id: str) -> None:
    """A warning where a column looks like patients with several cases, under a name nobody knows.

    It holds codes of letters and digits, one for each case, each of them for a few cases only.
    """
    first = ~frame[case_id].astype(str).duplicated().to_numpy(bool)
    n_cases = int(first.sum())
    for place, name in enumerate(frame.columns):
        if name in (case_id, *COLUMNS) or set(_words(name)) & NO_PATIENT:
            continue
        filled = frame.iloc[:, place].dropna().map(str)
        values = filled[first[frame.index.get_indexer(filled.index)]]
        counts = values.value_counts()
        if (len(values) == n_cases and 4 <= len(counts) < n_cases <= 2.5 * len(counts)
                and counts.max() <= 4
                and values.str.fullmatch(r"(?=.*\d)(?=.*[^\W\d_])[^\s]{2,16}").all()):
            warnings.warn(f"column {name!r} has {len(counts)} names in {n_cases} cases: if it "
                          f"names the patient, say patient_id={name!r}, or intervals take each "
                          "case for a patient of its own and are too narrow", stacklevel=5)


NO_PATIENT = frozenset("kernel protocol scanner model site centre center hospital lobe segment "
                       "side diagnosis date day slice series file path image mask".split())
"""Words of names of columns that repeat and are no patients."""


def _words(name: Any) -> list[str]:
    return re.findall(r"[^\W\d_]+", str(name).casefold())


def _rows_repeated(frame: pd.DataFrame, readings: list[str]) -> None:
    """A warning where numbered rows are copies of others in each cell; rows of zeros alone are not.
    """
    if frame.shape[1] <= len(readings):
        return  # of two volumes alone nothing says that they are one case's
    copies = frame.astype(str).duplicated().to_numpy(bool)
    zero = frame[readings].astype(str).apply(lambda cells: cells.str.fullmatch(
        r"\s*0*[.,]?0*\s*", na=False)).to_numpy(bool)
    nothing = (zero | frame[readings].isna().to_numpy(bool)).all(axis=1)
    rows = [row + 1 for row in np.flatnonzero(copies & ~nothing)]
    if rows:
        warnings.warn(f"row(s) {some(rows)} are as earlier ones in each cell: are cases there "
                      "twice? Say case_id='their column' where there is one, or leave the copies "
                      "out", stacklevel=4)


def _present(frame: pd.DataFrame, columns: tuple[str, ...], where: str) -> None:
    absent = [str(name) for name in columns if name not in frame]
    if absent:
        raise MeasurementsError([f"missing column(s) {', '.join(absent)}; the table has "
                                 f"{some(list(frame.columns), 12)}"], where)


def _as_measurements(frame: pd.DataFrame, reader: pd.Series, case_id: str, readings: np.ndarray,
                     value: str, defaults: tuple[str, str, str], patient_id: str | None,
                     limited: Sequence[str], where: str) -> pd.DataFrame:
    found = pd.DataFrame({name: None for name in COLUMNS}, index=frame.index, dtype=object)
    found["structure"], found["cohort"], found["role"] = defaults
    for name in ("cohort", "role", "structure", "protocol", "scanner", "centre"):
        if name in frame:
            found[name] = frame[name]
    found["case_id"] = frame[case_id]
    found["patient_id"] = frame[case_id if patient_id is None else patient_id]
    if patient_id is None and found["cohort"].nunique() > 1:  # two sites may both have a case 1
        found["patient_id"] = found["cohort"].astype(str) + "/" + found["case_id"].astype(str)
    found["run_id"], found["reader"], found[value] = where, reader, readings
    empty = found[value].isna()
    found["status"] = empty.map({True: "unread", False: "ok"})
    found["note"] = np.where(empty, "no reading", limited)
    if patient_id is None:
        _patients_unnoticed(frame, case_id)
    _alike_patients(found["patient_id"])
    nobody = found["patient_id"].isna().to_numpy(bool)
    if patient_id is not None and nobody.any() and not nobody.all():
        warnings.warn(f"column {patient_id!r} names no patient in {nobody.sum()} of {len(found)} "
                      "readings: each such case is taken for a patient of its own. If an empty "
                      "cell means the patient above it, fill the column first: "
                      f"table[{patient_id!r}] = table[{patient_id!r}].ffill()", stacklevel=4)
    burden: Any = found["burden_percent"].astype(float)
    if (burden > 100).any():
        warnings.warn(f"{(burden > 100).sum()} burden(s) above 100 %, the highest "
                      f"{burden.max():g} %: are these percentages of the lungs?", stacklevel=4)
    key = ["cohort", "case_id", "reader", "structure"]
    if found.duplicated(key).any() and not found.duplicated([*key, "patient_id"]).any():
        raise MeasurementsError([f"column {case_id!r} does not name a case: it repeats. If it "
                                 f"does together with {patient_id!r}, say case_id=[{patient_id!r},"
                                 f" {case_id!r}]"], where)
    try:
        return check(found, where)
    except MeasurementsError as error:
        if found.duplicated(key).any():
            raise MeasurementsError([
                *error.faults, f"column {case_id!r} does not name a case. If several columns do "
                "together, say case_id=['patient', 'scan'], of those that the table has: "
                f"{some(list(frame.columns), 12)}; else a row is there twice"], where) from error
        raise
