"""measurements.csv: the one door from imaging to statistics.

Tidy: one row per cohort x case x reader x structure. A case that failed, or that a reader has not
read, stays as a row with status `failed` or `unread` and no values; nothing is ever imputed as 0.
The file keeps full precision; rounding is a matter of tables.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from deeplung_nb.files import atomic_path
from deeplung_nb.labels import STRUCTURES
from deeplung_nb.measurements.columns import find_readers, patient_column
from deeplung_nb.measurements.contract import (
    BELOW_LIMIT,
    COLUMNS,
    KEY,
    MeasurementsError,
    check,
    some,
)
from deeplung_nb.measurements.readings import from_long, from_wide
from deeplung_nb.measurements.spreadsheets import read_csv, read_sheet

__all__ = ["COLUMNS", "KEY", "MeasurementsError", "check", "from_long", "from_wide",
           "pair", "read", "read_readings", "read_table", "write", "write_parts"]

FACTS = ("role", "patient_id", "protocol", "scanner", "centre", "fold")
"""Facts of a case that go along with a pair of readings."""


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
    return write_parts([frame], path)


def write_parts(parts: Iterable[pd.DataFrame], path: str | os.PathLike) -> Path:
    """`write` of a table that comes in parts, so that no more than one is in memory.

    The same rows give the same bytes, if each part's cases come after those of the part before.

    Raises
    ------
    MeasurementsError
        As `write`.
    """
    path = Path(path)
    with atomic_path(path) as place, place.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for part in parts:
            frame: pd.DataFrame = check(part, str(path))
            other = [name for name in frame if name not in COLUMNS]
            if other:
                raise MeasurementsError([f"column(s) {', '.join(map(str, other))} have no place in "
                                         "the file; drop them before writing"], str(path))
            ordered = frame.loc[:, list(COLUMNS)].sort_values(list(KEY), kind="stable")
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
        such a row stays NaN. `attrs`: `reference, test, structure, value`; `n_failed, failed` and
        `n_unread, unread` (cases with that status for either reader: left out, and named);
        `unmatched` (that one reader has no row of), `n_missing` (empty values), `below` (readings
        below a limit, and what each was counted as).

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
    failed, unread = (sorted({case for rows in sides for case in rows.index[rows["status"] == why]})
                      for why in ("failed", "unread"))
    unread = [case for case in unread if case not in set(failed)]
    lone = sorted((set(left.index) ^ set(right.index)) - {*failed, *unread})
    if lone and unmatched == "raise":
        raise MeasurementsError([
            f"case(s) read by {reader!r} only: {some(_cases(cases), 20)}"
            for reader, rows in ((reference, left), (test, right))
            if (cases := [case for case in lone if case in rows.index])
        ], "pair")

    both = sorted((set(left.index) & set(right.index)) - {*failed, *unread})
    index = pd.MultiIndex.from_tuples(both, names=["cohort", "case_id"]) if both else left.index[:0]
    pairs = right.reindex(index)[[name for name in FACTS if name in right]].copy()
    pairs["reference"] = left[value].reindex(index).astype("float64")
    pairs["test"] = right[value].reindex(index).astype("float64")
    pairs = pairs.reset_index()
    pairs.attrs = {
        "reference": reference, "test": test, "structure": structure, "value": value,
        "n_failed": len(failed), "failed": _cases(failed), "n_unread": len(unread),
        "unread": _cases(unread), "unmatched": _cases(lone),
        "n_missing": int(pairs[["reference", "test"]].isna().any(axis=1).sum()),
        "below": [f"{name}: {note}" for name, rows in ((reference, left), (test, right))
                  if "note" in rows for note in rows["note"].reindex(index).dropna()
                  if str(note).startswith(BELOW_LIMIT)],
    }
    return pairs


def _cases(index: Any) -> list[str]:
    return [f"{cohort}/{case_id}" for cohort, case_id in index]


def read_table(source: str | os.PathLike | pd.DataFrame,
               readers: Mapping[str, str] | None = None, *, reading: str | None = None,
               **options: Any) -> pd.DataFrame:
    """Measurements from any table of readings: a row a case, a row a reading, or our own columns.

    Parameters
    ----------
    source
        A CSV (comma, semicolon or tab) or an Excel file, or a table that is read already.
    readers
        For one row per case: reader -> its column, as `from_wide`.
    reading
        For one row per case and reader: the column of the numbers, as `from_long`.
    options
        Of `from_wide` or `from_long`: `unit`, `decimal`, `case_id`, `patient_id` ...

    Returns
    -------
    DataFrame
        A checked table; of a file, its `attrs["made_by"]` is this call. Without `readers` and
        `reading` the columns must be those of a measurements.csv.

    Raises
    ------
    MeasurementsError, ValueError
        As those; neither said which columns hold the readings: the table's columns are listed.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "mine.csv")
    ...     _ = file.write_text("case_id;A;B\\n1;2,5;3\\n2;0;0,5\\n")
    ...     table = read_table(file, {"expert": "A", "model": "B"}, unit="mL")
    >>> table.volume_ml.tolist()
    [2.5, 0.0, 3.0, 0.5]
    """
    if readers is not None and reading is not None:
        raise ValueError("readers= is for one row per case, reading= for one row per case and "
                         "reader: give one of them")
    if readers is not None:
        found = from_wide(source, readers, **options)
    elif reading is not None:
        found = from_long(source, reading=reading, **options)
    else:
        in_hand = isinstance(source, pd.DataFrame)
        columns = list((source if in_hand else read_sheet(source)).columns)
        if options or not {*KEY, "status"} <= set(columns):
            raise ValueError(
                f"{'table' if in_hand else source}: its columns are {some(columns, 12)}. Say which "
                "hold the readings: with one row per case readers={'expert': 'its column', "
                "'model': 'its column'}, with one row per case and reader reading='the column of "
                "the numbers', reader='the column of who read'")
        found = check(source) if in_hand else read(source)
    if not isinstance(source, pd.DataFrame):
        given = "".join(f", {name}={value!r}" for name, value in (
            ("readers", None if readers is None else dict(readers)), ("reading", reading),
            *options.items()) if value is not None)
        found.attrs["made_by"] = f"measurements.read_table({os.fspath(source)!r}{given})"
    return found


def read_readings(path: str | os.PathLike, readers: Mapping[str, str] | None = None,
                  **options: Any) -> tuple[pd.DataFrame, str]:
    """Readings of any file with one row a case and one column a reader, or of a measurements.csv.

    Parameters
    ----------
    path
        A CSV or an Excel file.
    readers
        Reader -> its column; None: the two numeric columns, if there are just two.
    options
        As `from_wide`; `case_id` is the column of that name where there is one, else the rows are
        numbered. Of a measurements.csv there are none to say.

    Returns
    -------
    table, code
        A checked table, and the expression that makes it again.

    Raises
    ------
    ValueError
        The file is no table, or does not say which columns are the readers'.
    """
    frame = read_sheet(path)
    said = {name: value for name, value in options.items() if value is not None}
    if {"reader", "structure", "cohort", "case_id"} <= set(frame.columns):
        unused = [name for name, value in said.items() if name != "value"
                  and (name, str(value).casefold()) != ("unit", "ml")]
        if unused:
            raise ValueError(f"{path}: a measurements.csv, which says itself what {some(unused)} "
                             "would say. Leave that out")
        return read(path), f"measurements.read({str(path)!r})"
    said.setdefault("case_id", "case_id" if "case_id" in frame else None)
    names = {str(name): name for name in frame}  # numbers, in Excel
    if readers is None:
        who = [name for name in frame if str(name).strip().casefold() in WHO_READ]
        if who:
            raise ValueError(f"{path}: column {who[0]!r} says who read, so a row is a reading. "
                             "Say which column holds the numbers: read_table(..., reading='its "
                             f"name', reader={who[0]!r}), or of a command --reading and --reader")
        case_id = said["case_id"]
        named = (case_id,) if isinstance(case_id, str) else tuple(case_id or ())
        known = {*named, "fold", said.get("patient_id") or patient_column(frame.columns, named)}
        readers = find_readers(frame.drop(columns=[name for name in known if name in frame]),
                               str(path))
    readers = {reader: names.get(str(name), name) for reader, name in readers.items()}
    given = "".join(f", {name}={value!r}" for name, value in said.items())
    return (from_wide(frame, readers, **said),
            f"measurements.from_wide({str(path)!r}, {dict(readers)!r}{given})")


WHO_READ = frozenset({"reader", "readers", "rater", "observer", "annotator", "radiologist"})
"""Names of the column that says who read, in a table of one row a reading."""
