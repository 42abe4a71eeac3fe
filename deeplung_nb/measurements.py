"""measurements.csv: the one door from imaging to statistics.

Tidy: one row per cohort x case x reader x structure. A failed case stays as a row with status
`failed` and no values; nothing is ever imputed as 0. The file keeps full precision; rounding is a
matter of tables.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb.files import atomic_path
from deeplung_nb.labels import ROLES, STRUCTURES
from deeplung_nb.spreadsheets import read_csv, read_table

COLUMNS: dict[str, tuple[str, str]] = {
    "run_id": ("text", "profile and digest of the run"),
    "cohort": ("text", "name of the cohort"),
    "role": ("text", "cv (scored by the fold that did not see it) or external"),
    "case_id": ("text", "one CT scan"),
    "patient_id": ("text", "one patient"),
    "protocol": ("text", "non-contrast, contrast or unknown"),
    "scanner": ("text", "scanner model"),
    "centre": ("text", "centre"),
    "fold": ("count", "fold whose network read the case; empty for several or none"),
    "reader": ("text", "expert, model, fold-0 ..., ensemble, unet2d, unet3d"),
    "structure": ("text", "lung, ggo, high_opacity or lesion (the union of both)"),
    "n_voxels": ("count", "voxels on the scan's own grid"),
    "voxel_mm3": ("number", "volume of a voxel, mm3"),
    "volume_ml": ("number", "volume, mL"),
    "burden_percent": ("number", "volume as percent of the lung volume"),
    "mean_hu": ("number", "mean attenuation, HU"),
    "dice": ("number", "Dice against the expert; empty for the expert and where both are empty"),
    "hd95_mm": ("number", "95th percentile of the surface distance to the expert's mask, mm"),
    "nsd": ("number", "normalised surface Dice against the expert"),
    "n_slices": ("count", "slices of the scan"),
    "slices_with": ("count", "slices with the structure"),
    "seconds": ("number", "time to segment, s"),
    "status": ("text", "ok or failed"),
    "note": ("text", "anything worth knowing; why a case failed"),
    "tp": ("count", "voxels in both the expert's and the reader's mask"),
    "fp": ("count", "voxels in the reader's mask only"),
    "fn": ("count", "voxels in the expert's mask only"),
    "tn": ("count", "voxels in neither mask"),
    "burden_in_lung_percent": ("number", "burden without high opacity outside the lung mask"),
}
"""Name -> (kind, meaning), in the order of the file."""

KEY = ("cohort", "case_id", "reader", "structure")
STATUSES = ("ok", "failed")
FACTS = ("role", "patient_id", "protocol", "scanner", "centre", "fold")
"""Facts of a case that go along with a pair of readings."""

UNITS = {"volume_ml": {"mL": 1.0, "cm3": 1.0, "mm3": 1e-3, "L": 1e3},
         "burden_percent": {"%": 1.0}}
"""Units of `from_wide`, as factors to the table's own."""

_NOT_NEGATIVE = ("n_voxels", "voxel_mm3", "volume_ml", "burden_percent", "burden_in_lung_percent",
                 "hd95_mm", "n_slices", "slices_with", "seconds", "tp", "fp", "fn", "tn", "fold")
_MEASURED = ("n_voxels", "volume_ml", "burden_percent", "dice")


class MeasurementsError(ValueError):
    """A table of measurements that breaks the contract; `faults` lists all that was found."""

    def __init__(self, faults: Sequence[str], where: str = "measurements"):
        self.faults = list(faults)
        super().__init__(f"{where}: {len(self.faults)} fault(s)\n- " + "\n- ".join(self.faults))


def _some(names: Sequence[Any], most: int = 5) -> str:
    names = [str(name) for name in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _keys(frame: pd.DataFrame, rows: Any) -> str:
    return _some(["/".join(map(str, key)) for key in
                  frame.loc[rows, list(KEY)].itertuples(index=False, name=None)])


def _typed(frame: pd.DataFrame, faults: list[str]) -> pd.DataFrame:
    """The frame with text, nullable integers and floats; what can't be read becomes a fault."""
    typed = frame.copy()
    for name, (kind, _) in COLUMNS.items():
        values = frame[name]
        if kind == "text":
            text = values.astype("str")
            typed[name] = text.where(values.notna() & (text.str.strip() != ""))
            continue
        numbers = pd.to_numeric(values, errors="coerce").astype("Float64").astype("float64")
        wrong = values.notna() & ~np.isfinite(numbers)
        if kind == "count":
            wrong |= numbers.notna() & ((numbers != np.floor(numbers)) | (numbers.abs() > 2**53))
        if wrong.any():
            faults.append(f"column {name!r}: not a {kind} in {_keys(frame, wrong)} "
                          f"(found {_some(values[wrong].tolist(), 3)})")
            numbers = numbers.mask(wrong)
        typed[name] = numbers.astype("Int64") if kind == "count" else numbers
    return typed


def check(frame: pd.DataFrame, where: str = "measurements") -> pd.DataFrame:
    """Check a table of measurements and return it with its types.

    Parameters
    ----------
    frame
        Any frame with all of `COLUMNS`; other columns are allowed and kept.
    where
        Name for the message.

    Returns
    -------
    DataFrame
        A copy: text (empty is missing), nullable integers, floats.

    Raises
    ------
    MeasurementsError
        All faults at once: missing columns; empty or repeated keys; unknown role, structure or
        status; negative or infinite numbers; a share outside 0 to 1; a failed row with values, an
        ok row without volume or burden; overlap for the expert; a volume or Dice that its own
        voxel counts contradict.
    """
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise MeasurementsError([f"missing column(s) {', '.join(missing)}; expected all of "
                                 f"{', '.join(COLUMNS)} (`from_wide` adds them)"], where)
    frame = frame.reset_index(drop=True)
    faults: list[str] = []
    typed = _typed(frame, faults)

    for name in (*KEY, "role", "status"):
        rows = typed[name].isna()
        if rows.any():
            faults.append(f"column {name!r}: empty in row(s) "
                          f"{_some((np.flatnonzero(rows) + 1).tolist())}")
    repeated = typed.duplicated(list(KEY))
    if repeated.any():
        faults.append(f"key {'/'.join(KEY)} repeated: {_keys(typed, repeated)}")
    for name, known in (("role", ROLES), ("structure", STRUCTURES), ("status", STATUSES)):
        unknown = sorted(set(typed[name].dropna()) - set(known))
        if unknown:
            faults.append(f"column {name!r}: unknown {_some(unknown)}; expected one of "
                          f"{', '.join(known)}")

    def fault(rows: pd.Series, message: str) -> None:
        rows = rows.fillna(False).astype(bool)
        if rows.any():
            faults.append(f"{message}: {_keys(typed, rows)}")

    for name in _NOT_NEGATIVE:
        fault(typed[name] < 0, f"column {name!r}: negative")
    for name in ("dice", "nsd"):
        fault((typed[name] < 0) | (typed[name] > 1), f"column {name!r}: outside 0 to 1")
    fault(typed["slices_with"] > typed["n_slices"], "more slices with the structure than slices")
    failed = typed["status"] == "failed"
    fault(failed & typed[list(_MEASURED)].notna().any(axis=1),
          "status failed, yet with values (leave them empty)")
    fault((typed["status"] == "ok") & typed["volume_ml"].isna() & typed["burden_percent"].isna(),
          "status ok without volume_ml and burden_percent (use status failed and a note)")
    fault((typed["reader"] == "expert") & typed[["dice", "hd95_mm", "nsd"]].notna().any(axis=1),
          "overlap given for the expert, who is the reference")
    volume = typed["n_voxels"].astype("float64") * typed["voxel_mm3"] / 1000.0
    fault((volume - typed["volume_ml"]).abs() > 1e-6 * volume.abs() + 1e-9,
          "volume_ml is not n_voxels x voxel_mm3 / 1000")
    tp, fp, fn = (typed[name].astype("float64") for name in ("tp", "fp", "fn"))
    size = 2 * tp + fp + fn
    fault((2 * tp / size.where(size > 0) - typed["dice"]).abs() > 1e-6,
          "dice is not 2 tp / (2 tp + fp + fn)")
    fault((size == 0) & typed["dice"].notna(),
          "dice given where both masks are empty (it is undefined: leave it empty)")
    if faults:
        raise MeasurementsError(faults, where)
    return typed


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
        + f"; readers here: {_some(sorted(set(chosen['reader'])), 12) or 'none'}"
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
                                     f"{_some(_cases(repeated))}"], "pair")
        sides.append(rows)
    left, right = sides
    failed = sorted({case for rows in sides for case in rows.index[rows["status"] == "failed"]})
    lone = sorted((set(left.index) ^ set(right.index)) - set(failed))
    if lone and unmatched == "raise":
        raise MeasurementsError([
            f"case(s) read by {reader!r} only: {_some(_cases(cases), 20)}"
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


def from_wide(
    table: pd.DataFrame | str | os.PathLike, readers: Mapping[str, str], *,
    value: str = "volume_ml", unit: str | None = None, structure: str = "lesion",
    cohort: str = "table", role: str = "external", case_id: str | None = "case_id",
) -> pd.DataFrame:
    """Any table of paired readings (one row per case, one column per reader) as measurements.

    Parameters
    ----------
    table
        One row per case: a frame, or the path of a CSV or Excel file (first sheet). Columns named
        `patient_id, protocol, scanner, centre, cohort, role, structure` are taken over where
        present.
    readers
        Reader -> its column, for example `{"expert": "manual_ml", "model": "automatic_ml"}`.
    value
        What the columns hold: `volume_ml` or `burden_percent`.
    unit
        Unit of the columns: `mL` (the default of volumes), `cm3`, `mm3` or `L`, which are
        converted to mL; burden is in `%` only.
    structure, cohort, role
        Where the table has no such column.
    case_id
        Column that names the case; None: the rows are numbered from 1.

    Returns
    -------
    DataFrame
        A checked table; an empty reading becomes a row with status `failed`.

    Raises
    ------
    MeasurementsError, ValueError
        A named column is absent, or as `check`; the file is no table.

    Examples
    --------
    >>> import pandas as pd
    >>> wide = pd.DataFrame({"case_id": ["a", "b"], "manual": [1.5, 0.0], "auto": [1.75, None]})
    >>> long = from_wide(wide, {"expert": "manual", "model": "auto"})
    >>> pairs = pair(long, "expert", "model", "lesion")
    >>> pairs[["case_id", "reference", "test"]].to_dict("records")
    [{'case_id': 'a', 'reference': 1.5, 'test': 1.75}]
    >>> pairs.attrs["failed"]
    ['table/b']
    """
    if value not in UNITS:
        raise ValueError(f"value={value!r}: expected 'volume_ml' or 'burden_percent'")
    factor = UNITS[value].get(unit) if unit else 1.0
    if factor is None:
        raise ValueError(f"unit={unit!r}: expected one of {', '.join(UNITS[value])} for {value}")
    frame = table if isinstance(table, pd.DataFrame) else read_table(table)
    if case_id is None:
        case_id = "row"
        frame = frame.assign(row=range(1, len(frame) + 1))
    absent = [name for name in (case_id, *readers.values()) if name not in frame]
    if absent:
        raise MeasurementsError([f"missing column(s) {', '.join(absent)}; the frame has "
                                 f"{_some(list(frame.columns), 12)}"], "from_wide")
    parts = []
    for reader, column in readers.items():
        part = pd.DataFrame({name: None for name in COLUMNS}, index=frame.index, dtype=object)
        part["cohort"], part["role"], part["structure"] = cohort, role, structure
        for name in ("cohort", "role", "structure", "protocol", "scanner", "centre"):
            if name in frame:
                part[name] = frame[name]
        part["case_id"] = frame[case_id]
        part["patient_id"] = frame["patient_id"] if "patient_id" in frame else frame[case_id]
        part["run_id"], part["reader"] = "from_wide", reader
        # What is no number stays, for `check` to name.
        numbers = pd.to_numeric(frame[column], errors="coerce") * factor
        part[value] = numbers.astype(object).where(numbers.notna(), frame[column])
        empty = frame[column].isna()
        part["status"] = np.where(empty, "failed", "ok")
        part["note"] = np.where(empty, "no reading", "")
        parts.append(part)
    return check(pd.concat(parts, ignore_index=True), "from_wide")
