"""measurements.csv: the one door from imaging to statistics.

Tidy: one row per cohort x case x reader x structure. A failed case stays as a row with status
`failed` and no values; nothing is ever imputed as 0. The file keeps full precision; rounding is a
matter of tables.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from deeplung_nb.contract import COLUMNS, KEY, MeasurementsError, check, some
from deeplung_nb.files import atomic_path
from deeplung_nb.labels import STRUCTURES
from deeplung_nb.spreadsheets import numbers, patient_column, read_csv, read_table

FACTS = ("role", "patient_id", "protocol", "scanner", "centre", "fold")
"""Facts of a case that go along with a pair of readings."""

UNITS = {
    "volume_ml": {"mL": 1.0, "cm3": 1.0, "cm³": 1.0, "cc": 1.0, "mm3": 1e-3, "mm³": 1e-3,
                  "L": 1e3},
    "burden_percent": {"%": 1.0},
}
"""Units of readings, as factors to the table's own; in any case of letters."""


def read(path: str | os.PathLike) -> pd.DataFrame:
    """Read and check a measurements.csv.

    Numbers come back exactly as written; case numbers such as `007` stay text.

    Raises
    ------
    FileNotFoundError, CsvError, MeasurementsError
        There is no such file; it is no CSV; as `check`, naming it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file, expected a measurements.csv. Run 'make "
                                "reproduce', or give the folder of a finished run")
    frame = read_csv(path, empty_is_missing=False, finished=True)
    for name, (kind, _) in COLUMNS.items():
        if name in frame and kind != "text":
            # Python's float() is exact to the last bit; pandas' own parser need not be.
            frame[name] = [_number(value) for value in frame[name]]
    return check(frame, str(path))


def _number(text: str) -> float | str | None:
    try:
        return float(text) if text.strip() else None
    except ValueError:
        return text  # `check` names it


def write(frame: pd.DataFrame, path: str | os.PathLike) -> Path:
    """Check and write a measurements.csv, whole or not at all.

    The same rows in any order give the same bytes: rows sorted by key, columns as `COLUMNS`,
    floats in full (shortest text that reads back equal), `\\n`, UTF-8.

    Raises
    ------
    MeasurementsError
        As `check`, or the frame has columns that the file has no place for.
    """
    path = Path(path)
    frame = check(frame, str(path))
    other = [name for name in frame if name not in COLUMNS]
    if other:
        raise MeasurementsError([f"column(s) {', '.join(map(str, other))} have no place in the "
                                 "file; drop them before writing"], str(path))
    ordered = frame[list(COLUMNS)].sort_values(list(KEY), kind="stable")
    with atomic_path(path) as part, part.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for values in ordered.itertuples(index=False, name=None):
            writer.writerow(map(_cell, values))
    return path


def _cell(value: Any) -> str:
    if pd.isna(value):
        return ""
    return value if isinstance(value, str) else repr(value.item() if hasattr(value, "item")
                                                     else value)


def pair(
    frame: pd.DataFrame, reference: str, test: str, structure: str, value: str = "volume_ml",
    cohort: str | None = None, role: str | None = None, *, unmatched: str = "raise",
) -> pd.DataFrame:
    """Pair the readings of two readers, case by case: the only pairing routine.

    Parameters
    ----------
    frame
        A table of measurements.
    reference, test
        Readers, for example `"expert"` and `"model"`.
    structure
        One of `labels.STRUCTURES`.
    value
        What to pair: `volume_ml`, `burden_percent`, `mean_hu` or any numeric column.
    cohort, role
        Only this cohort, only this role; None for all.
    unmatched
        A case that one reader read and the other has no row for: `raise`, or `drop` (named in
        `attrs["unmatched"]`).

    Returns
    -------
    DataFrame
        `cohort, case_id, role, patient_id, protocol, scanner, centre, fold, reference, test`, one
        row per case that both readers read, sorted by cohort and case. A value that is empty in
        such a row stays NaN. `attrs`: `reference, test, structure, value, n_failed, failed`
        (cases with status failed for either reader: left out, and named), `unmatched, n_missing`.

    Raises
    ------
    MeasurementsError
        Unknown reader, structure or column; repeated case; unmatched cases, by name.
    """
    wanted = (*KEY, "status", value)
    missing = [name for name in wanted if name not in frame]
    if missing:
        raise MeasurementsError([f"missing column(s) {', '.join(missing)}"], "pair")
    if structure not in STRUCTURES:
        raise MeasurementsError([f"structure {structure!r}: expected one of "
                                 f"{', '.join(STRUCTURES)}"], "pair")
    if unmatched not in ("raise", "drop"):
        raise ValueError(f"unmatched={unmatched!r}: expected 'raise' or 'drop'")
    chosen = frame[frame["structure"] == structure]
    if cohort is not None:
        chosen = chosen[chosen["cohort"] == cohort]
    if role is not None:
        chosen = chosen[chosen["role"] == role]
    faults = [
        f"reader {reader!r} has no row for structure {structure!r}"
        + (f" in cohort {cohort!r}" if cohort is not None else "")
        + f"; readers here: {some(sorted(set(chosen['reader'])), 12) or 'none'}"
        for reader in dict.fromkeys((reference, test)) if not (chosen["reader"] == reader).any()
    ]
    if faults:
        raise MeasurementsError(faults, "pair")

    sides = []
    for reader in (reference, test):
        rows = chosen[chosen["reader"] == reader].set_index(["cohort", "case_id"])
        repeated = rows.index[rows.index.duplicated()]
        if len(repeated):
            raise MeasurementsError([f"reader {reader!r}: more than one row for "
                                     f"{some(_cases(repeated))}"], "pair")
        sides.append(rows)
    left, right = sides
    failed = sorted({case for rows in sides for case in rows.index[rows["status"] == "failed"]})
    lone = sorted((set(left.index) ^ set(right.index)) - set(failed))
    if lone and unmatched == "raise":
        raise MeasurementsError([
            f"case(s) read by {reader!r} only: {some(_cases(cases), 20)}"
            for reader, rows in ((reference, left), (test, right))
            if (cases := [case for case in lone if case in rows.index])
        ], "pair")

    both = sorted((set(left.index) & set(right.index)) - set(failed))
    index = pd.MultiIndex.from_tuples(both, names=["cohort", "case_id"]) if both else left.index[:0]
    pairs = right.reindex(index)[[name for name in FACTS if name in right]].copy()
    pairs["reference"] = left[value].reindex(index).astype("float64")
    pairs["test"] = right[value].reindex(index).astype("float64")
    pairs = pairs.reset_index()
    pairs.attrs = {
        "reference": reference, "test": test, "structure": structure, "value": value,
        "n_failed": len(failed), "failed": _cases(failed), "unmatched": _cases(lone),
        "n_missing": int(pairs[["reference", "test"]].isna().any(axis=1).sum()),
    }
    return pairs


def _cases(index: Any) -> list[str]:
    return [f"{cohort}/{case_id}" for cohort, case_id in index]


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


def from_long(
    table: pd.DataFrame | str | os.PathLike, *, reading: str, reader: str = "reader",
    value: str = "volume_ml", unit: str | None = None, decimal: str | None = None,
    structure: str = "lesion", cohort: str = "table", role: str = "external",
    case_id: str = "case_id", patient_id: str | None = None,
) -> pd.DataFrame:
    """Any table with one row per case and reader as measurements.

    Parameters
    ----------
    table
        A frame, or the path of a CSV or Excel file (first sheet). Columns named `protocol,
        scanner, centre, cohort, role, structure` are taken over where present.
    reading, reader, case_id
        Its columns: the number, who read, which case.
    patient_id, value, unit, decimal, structure, cohort, role
        As `from_wide`.

    Returns
    -------
    DataFrame
        A checked table; an empty reading becomes a row with status `failed`.

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
    frame = table if isinstance(table, pd.DataFrame) else read_table(table)
    _present(frame, (case_id, reader, reading, *_given(patient_id)), "from_long")
    patient_id = patient_id or patient_column(frame.columns, (case_id, reader, reading))
    places = [f"column {reading!r}, row {row}" for row in range(1, len(frame) + 1)]
    return _as_measurements(frame, frame[reader], frame[case_id], frame[reading].tolist(), places,
                            factor, value, decimal, (structure, cohort, role), patient_id,
                            "from_long")


def from_wide(
    table: pd.DataFrame | str | os.PathLike, readers: Mapping[str, str], *,
    value: str = "volume_ml", unit: str | None = None, decimal: str | None = None,
    structure: str = "lesion", cohort: str = "table", role: str = "external",
    case_id: str | None = "case_id", patient_id: str | None = None,
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
        Column that names the case; None: the rows are numbered from 1.
    patient_id
        Column that names the patient, who may have several cases; None: one that is called so in
        a usual spelling (`Patient_ID`, `patient`, `Subject` ...), else each case is a patient.

    Returns
    -------
    DataFrame
        A checked table; an empty reading becomes a row with status `failed`.

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
    >>> pairs = pair(long, "expert", "model", "lesion")
    >>> pairs[["case_id", "reference", "test"]].to_dict("records")
    [{'case_id': 'a', 'reference': 1.5, 'test': 1.75}]
    >>> pairs.attrs["failed"]
    ['table/b']
    """
    factor = _factor(value, unit)
    frame = table if isinstance(table, pd.DataFrame) else read_table(table)
    if case_id is None:
        case_id = "row"
        frame = frame.assign(row=range(1, len(frame) + 1))
    _present(frame, (case_id, *readers.values(), *_given(patient_id)), "from_wide")
    patient_id = patient_id or patient_column(frame.columns, (case_id, *readers.values()))
    rows = range(1, len(frame) + 1)
    places = [f"column {column!r}, row {row}" for column in readers.values() for row in rows]
    many = pd.concat([frame] * len(readers), ignore_index=True)
    return _as_measurements(
        many, pd.Series([name for name in readers for _ in rows], dtype=object), many[case_id],
        [number for column in readers.values() for number in frame[column]], places, factor, value,
        decimal, (structure, cohort, role), patient_id, "from_wide")


def _given(name: str | None) -> tuple[str, ...]:
    return () if name is None else (name,)


def _present(frame: pd.DataFrame, columns: tuple[str, ...], where: str) -> None:
    absent = [str(name) for name in columns if name not in frame]
    if absent:
        raise MeasurementsError([f"missing column(s) {', '.join(absent)}; the table has "
                                 f"{some(list(frame.columns), 12)}"], where)


def _as_measurements(frame: pd.DataFrame, reader: pd.Series, case_id: pd.Series,
                     readings: list[Any], places: list[str], factor: float, value: str,
                     decimal: str | None, defaults: tuple[str, str, str],
                     patient_id: str | None, where: str) -> pd.DataFrame:
    found = pd.DataFrame({name: None for name in COLUMNS}, index=frame.index, dtype=object)
    found["structure"], found["cohort"], found["role"] = defaults
    for name in ("cohort", "role", "structure", "protocol", "scanner", "centre"):
        if name in frame:
            found[name] = frame[name]
    found["case_id"] = case_id
    found["patient_id"] = frame[patient_id] if patient_id is not None else case_id
    found["run_id"], found["reader"] = where, reader
    found[value] = numbers(readings, places, decimal) * factor
    empty = found[value].isna()
    found["status"] = empty.map({True: "failed", False: "ok"})
    found["note"] = empty.map({True: "no reading", False: ""})
    return check(found, where)
