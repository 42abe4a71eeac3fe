"""What a manifest must hold: its columns, and every check on them.

The schema is the one description: the README's column dictionary is made from it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pandas as pd
import pandera.pandas as pa

from deeplung_nb.files import NAME_PATTERN, sha256_of, write_text
from deeplung_nb.labels import ROLES
from deeplung_nb.pseudonyms import stands_for

MASK_KINDS = ("ggo+high_opacity", "binary")
PROTOCOLS = ("non-contrast", "contrast", "unknown")
SMOKING = ("never", "former", "current")
SEXES = ("female", "male")
FILES = ("image", "mask", "lung_mask")
NO_MASK = "no expert's mask was found"
"""Why a CT is in no study, and may be measured all the same."""
READER_COLUMNS = "reader_"
"""Columns that start so name the masks of further readers: `reader_ann` of the reader ann."""
EXTRA_PREFIXES = ("ph_", "extra_", READER_COLUMNS)
"""Columns that start so are carried along: phantom settings, a site's own, readers' masks."""

_IDENTIFYING = re.compile(
    r"(?<![0-9.])("
    r"\d+(\.\d+){5,}"  # a DICOM UID
    r"|(19|20)\d\d([-/.]?)(0[1-9]|1[0-2])\4(0[1-9]|[12]\d|3[01])"  # year, month, day
    r"|(0[1-9]|[12]\d|3[01])([-/.])(0[1-9]|1[0-2])\8(19|20)\d\d"  # day, month, year
    r")(?!\d)"
)


class ManifestError(ValueError):
    """All that is wrong with a manifest, one line a fault."""

    def __init__(self, source: str, faults: list[str]) -> None:
        self.faults = faults
        lines = "".join(f"\n  - {fault}" for fault in faults)
        plural = "fault" if len(faults) == 1 else "faults"
        super().__init__(f"{source}: {len(faults)} {plural} in the manifest{lines}")


def _text(description: str, *checks: pa.Check, expected: str = "text", **options) -> pa.Column:
    return pa.Column(str, list(checks), description=description, coerce=True,
                     metadata={"expected": expected}, **options)


def _choice(description: str, values: tuple[str, ...], **options) -> pa.Column:
    return _text(description, pa.Check.isin(values), expected=" or ".join(values), **options)


def _flag(description: str, **options) -> pa.Column:
    return pa.Column("Int64", pa.Check.isin((0, 1)), description=description, coerce=True,
                     metadata={"expected": "0 or 1"}, **options)


def _number(description: str, low: float, high: float, dtype: str = "float64",
            **options) -> pa.Column:
    kind = "a whole number" if dtype == "Int64" else "a number"
    return pa.Column(dtype, pa.Check.in_range(low, high), description=description, coerce=True,
                     metadata={"expected": f"{kind} from {low:g} to {high:g}"}, **options)


_ID = pa.Check.str_matches(NAME_PATTERN)
_ID_EXPECTED = "letters, digits, '_', '-', '.' (a pseudonym)"
_HASH = pa.Check.str_matches(r"^[0-9a-f]{64}$")
_HASH_EXPECTED = "64 hexadecimal digits, or empty: not checked"

SCHEMA = pa.DataFrameSchema({
    "cohort": _text("name of the cohort, the same in every row", _ID, expected=_ID_EXPECTED),
    "case_id": _text("one CT, unique in the cohort", _ID, expected=_ID_EXPECTED),
    "patient_id": _text("one person; scans of one person never meet across folds", _ID,
                        expected=_ID_EXPECTED),
    "role": _choice("cross-validation, or external validation", tuple(ROLES)),
    "image": _text("CT: a file, or a folder of DICOM slices", nullable=True,
                   expected="a path inside the data folder; empty only where excluded"),
    "mask": _text("the expert's lesion mask", nullable=True,
                  expected="a path inside the data folder; empty only where excluded"),
    "lung_mask": _text("lung mask; empty: the built-in lungs are used", nullable=True,
                       expected="a path inside the data folder, or empty"),
    "image_sha256": _text("SHA-256 of the image file", _HASH, nullable=True,
                          expected=_HASH_EXPECTED),
    "mask_sha256": _text("SHA-256 of the mask file", _HASH, nullable=True,
                         expected=_HASH_EXPECTED),
    "lung_mask_sha256": _text("SHA-256 of the lung mask file", _HASH, nullable=True,
                              expected=_HASH_EXPECTED),
    "mask_kind": _choice("whether the mask tells the classes apart; `binary` is scored as merged "
                         "lesion only", MASK_KINDS),
    "protocol": _choice("contrast medium", PROTOCOLS),
    "scanner": _text("scanner model", nullable=True, expected="text, or empty"),
    "centre": _text("hospital or source", nullable=True, expected="text, or empty"),
    "n_slices": _number("axial slices", 1, 5000, "Int64", nullable=True),
    "slice_gap_mm": _number("distance between slice centres, mm", 0.1, 50, nullable=True),
    "exclude": _flag("1: not used, and counted in the flow of patients"),
    "exclude_reason": _text("why it is not used", nullable=True,
                            expected="text where exclude is 1, else empty"),
    "age": _number("years", 0, 120, required=False, nullable=True),
    "sex": _choice("for Table 1", SEXES, required=False, nullable=True),
    "bmi": _number("body mass index, kg/m²", 8, 100, required=False, nullable=True),
    "smoking": _choice("smoking status", SMOKING, required=False, nullable=True),
    "lung_disease": _flag("history of lung disease", required=False, nullable=True),
    "ecg_gated": _flag("ECG-gated acquisition", required=False, nullable=True),
    "series": _text("which series, where a DICOM folder holds several of slices",
                    pa.Check.str_matches(r"^[1-9]\d{0,3}$"), required=False, nullable=True,
                    expected="its number in `segment --series list`, or empty"),
})
"""The columns of a manifest. Its description and `column_dictionary` come from here alone."""

DICTIONARY_MARKERS = ("<!-- columns: begin -->", "<!-- columns: end -->")
COLUMNS = tuple(name for name, column in SCHEMA.columns.items() if column.required)


def column_dictionary() -> str:
    """The columns of a manifest as a Markdown table, made from `SCHEMA`."""
    lines = ["| column | needed | expected | meaning |", "|---|---|---|---|"]
    for name, column in SCHEMA.columns.items():
        needed = "no" if not column.required else "may be empty" if column.nullable else "yes"
        expected = column.metadata["expected"].replace("|", "\\|")
        lines.append(f"| `{name}` | {needed} | {expected} | {column.description} |")
    return "\n".join(lines)


def write_dictionary(readme: str | os.PathLike) -> None:
    """Put `column_dictionary()` between the two markers of the manifests' README."""
    head, _, rest = Path(readme).read_text(encoding="utf-8").partition(DICTIONARY_MARKERS[0])
    _, _, tail = rest.partition(DICTIONARY_MARKERS[1])
    write_text(Path(readme), f"{head}{DICTIONARY_MARKERS[0]}\n{column_dictionary()}\n"
                             f"{DICTIONARY_MARKERS[1]}{tail}")


def _label(row: pd.Series, line: int) -> str:
    case = row.get("case_id")
    return f"line {line}" if pd.isna(case) else f"case {case!r} (line {line})"


def _schema_faults(table: pd.DataFrame) -> tuple[pd.DataFrame | None, list[str]]:
    """Column by column: presence, type and allowed values.

    One cell of the wrong type makes pandera refuse its whole column, the good cells too. So such
    cells are reported and emptied, and the rest is validated once more.
    """
    faults: list[str] = []
    seen: set[tuple[str, int]] = set()
    rest = table.copy()
    for _ in range(2):
        try:
            typed = SCHEMA.validate(rest, lazy=True)
            return (None if faults else typed), faults
        except pa.errors.SchemaErrors as error:
            failures = error.failure_cases
        mistyped = failures[failures.check.astype(str).str.startswith("coerce_dtype")]
        final = mistyped.empty or bool(seen)
        for failure in (failures if final else mistyped).itertuples():
            if failure.check == "column_in_dataframe":
                name = failure.failure_case
                expected = SCHEMA.columns[name].metadata["expected"]
                faults.append(f"column {name!r} is missing: expected {expected}. Add the column "
                              "(data_manifests/README.md describes all of them)")
                continue
            # A cell can fail its type and its values: one fault is enough.
            if pd.isna(failure.index) or (failure.column, failure.index) in seen:
                continue
            seen.add((failure.column, failure.index))
            value = table.loc[failure.index, failure.column]
            shown = "is empty" if pd.isna(value) else f"is {value!r}"
            expected = SCHEMA.columns[failure.column].metadata["expected"]
            faults.append(f"{_label(table.loc[failure.index], failure.index + 2)}: "
                          f"{failure.column} {shown}, expected {expected}. Correct the cell")
            rest.loc[failure.index, failure.column] = pd.NA
        if final:
            break
    return None, faults


def _column_faults(table: pd.DataFrame) -> list[str]:
    unknown = [name for name in table.columns
               if name not in SCHEMA.columns and not name.startswith(EXTRA_PREFIXES)]
    return [f"column {name!r} is unknown. Correct its name, delete it, or call it 'extra_{name}' "
            "to carry it along" for name in unknown]


def _row_faults(row: pd.Series, label: str) -> list[str]:
    """What only several cells of one row together, or a cell's form, can tell."""
    faults = []
    if row.exclude == "1" and pd.isna(row.exclude_reason):
        faults.append(f"{label}: exclude is 1 and exclude_reason is empty. Say why the case is "
                      "left out")
    if row.exclude == "0" and pd.notna(row.exclude_reason):
        faults.append(f"{label}: exclude is 0 but exclude_reason is {row.exclude_reason!r}. "
                      "Set exclude to 1 or empty the reason")
    if row.exclude == "0":
        faults += [f"{label}: {name} is empty, expected a path inside the data folder. Name the "
                   "file, or exclude the case with a reason"
                   for name in ("image", "mask") if pd.isna(row[name])]
    for one, other in (("image", "mask"), ("image", "lung_mask"), ("mask", "lung_mask")):
        if pd.notna(row[one]) and row[one] == row[other]:
            faults.append(f"{label}: {one} and {other} are the same file {row[one]!r}, expected "
                          "two. Name the file of each")
    for name, value in row.items():
        if (isinstance(value, str) and not name.endswith("sha256") and not name.startswith("ph_")
                and _IDENTIFYING.search(value)):
            faults.append(f"{label}: {name} is {value!r}, which looks like a date or a DICOM "
                          "identifier. Replace it by a pseudonym: a manifest is public")
    return faults


def _repeat_faults(table: pd.DataFrame) -> list[str]:
    faults = []
    for column, what in (("case_id", "a case has one row"), ("image", "each case has its own CT"),
                         ("image_sha256", "each case has its own CT")):
        named = table[table[column].notna()]
        for value, rows in named.groupby(column, sort=False):
            if len(rows) > 1:
                places = " and ".join(_label(row, at + 2) for at, row in rows.iterrows())
                faults.append(f"{column} {value!r} appears {len(rows)} times ({places}), expected "
                              f"once: {what}. Delete or rename the repeats")
    names = table.cohort.dropna().unique()
    if len(names) > 1:
        faults.append(f"column 'cohort' holds {', '.join(map(repr, names))}, expected one name. "
                      "Give each cohort its own file")
    used = table[table.exclude != "1"]
    for patient, rows in used.groupby("patient_id"):
        if {"cv", "external"} <= set(rows.role):
            cases = ", ".join(f"{row.case_id} ({row.role})" for row in rows.itertuples())
            faults.append(f"patient {patient!r} is in cv and in external: {cases}, expected one "
                          "role. External validation needs other people: change the role or "
                          "exclude the case")
    return faults


def find_file(data: Path, value: Any) -> Path:
    """A path of a manifest in its data folder; a made name is what it stands for on this machine.

    Only who has the list of made names (`pseudonyms`) finds the files of a manifest that names
    nobody.
    """
    path = data / value
    if not path.exists() and (made := stands_for(value)) is not None:
        return Path(made)
    return path


def _file_faults(row: pd.Series, label: str, data: Path | None, verify: bool,
                 remake: str) -> list[str]:
    faults = []
    readers = [name for name in row.index if str(name).startswith(READER_COLUMNS)]
    for column in (*FILES, *readers):
        value = row[column]
        if pd.isna(value):
            continue
        # Windows forms are outside on every system: a manifest travels between them.
        outside = (PurePosixPath(value).is_absolute() or PureWindowsPath(value).drive
                   or ".." in PurePosixPath(value).parts or "\\" in value)
        if not outside and data is not None:
            outside = not (data / value).resolve().is_relative_to(data.resolve())
        if outside:
            faults.append(f"{label}: {column} is {value!r}, which leaves the data folder, expected "
                          "a relative path with '/' and without '..'. Move the file inside")
            continue
        if data is None or row.exclude == "1":
            continue
        path, digest = find_file(data, value), row.get(f"{column}_sha256")
        if not path.exists():
            faults.append(f"{label}: {column} {path} is missing, expected a file. Put it there, "
                          "set DEEPLUNG_DATA to the folder that has it, or exclude the case")
        elif verify and pd.notna(digest) and path.is_file():
            found = sha256_of(path)
            if found != digest:
                faults.append(f"{label}: {column} {path} has SHA-256 {found}, expected {digest}. "
                              "The file is another version or damaged: fetch it again, or make "
                              f"the manifest anew{remake and ': '}{remake}")
    return faults


def check_manifest(table: pd.DataFrame, source: str = "manifest", data: Path | None = None,
                   verify: bool = True, remake: str = "") -> pd.DataFrame:
    """Check a table of texts as read from a CSV; the typed table comes back.

    `remake` is the command that makes this manifest anew, for the remedy of a changed file.

    Raises
    ------
    ManifestError
        With every fault found, each naming the case, the value, what was expected and the remedy.
    """
    if table.empty:
        raise ManifestError(source, ["there is no row, expected one for each case. Add the cases"])
    table = table.reset_index(drop=True)
    typed, faults = _schema_faults(table)
    faults += _column_faults(table)
    whole = table.reindex(columns=list(dict.fromkeys([*table.columns, *COLUMNS])))
    faults += _repeat_faults(whole)
    for at, row in whole.iterrows():
        label = _label(row, at + 2)
        faults += _row_faults(row, label) + _file_faults(row, label, data, verify, remake)
    if faults:
        raise ManifestError(source, faults)
    return typed.assign(exclude=typed.exclude.astype(bool))
