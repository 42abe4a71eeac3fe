"""Tables as people keep them: CSV of any separator, Excel."""

from __future__ import annotations

import csv
import io
import os
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd

from deeplung_nb.measurements.columns import is_no_reader, patient_column

SEPARATORS = (";", "\t", ",")
OTHER_TABLES = {".xls": "pd.read_excel", ".ods": "pd.read_excel", ".parquet": "pd.read_parquet",
                ".json": "pd.read_json", ".sav": "pd.read_spss", ".dta": "pd.read_stata",
                ".sas7bdat": "pd.read_sas", ".feather": "pd.read_feather"}
"""Endings of tables that are not read here -> what reads them."""
MOST_TITLES = 12
"""Rows that are looked through for the names of the columns, where the first does not hold them."""


def read_sheet(path: str | os.PathLike) -> pd.DataFrame:
    """A CSV (comma, semicolon or tab, UTF-8) or the first sheet of an Excel file.

    Nothing of a CSV is converted: `007` and `NA` may be names. `columns.numbers` reads what is a
    number. What is merged over several rows of Excel counts in each, unless it is a reading.

    Raises
    ------
    ValueError
        There is no such file, it holds no table, or something stands above the names of its
        columns; the message names it and what is expected.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file. Give a CSV or Excel file, or a DataFrame")
    if path.suffix.lower() in OTHER_TABLES:
        raise ValueError(f"{path}: a {path.suffix} file, expected a CSV in UTF-8 or an .xlsx file. "
                         "Save it as one of these, or read it yourself and give the table in its "
                         f"place: {OTHER_TABLES[path.suffix.lower()]}({str(path)!r})")
    if path.suffix.lower() not in (".xlsx", ".xlsm"):
        rows = _separated(path, _decoded(path))
        names = [name.strip() for name in rows[0]]
        _once(path, names)
        return pd.DataFrame(rows[1:], columns=names, dtype=object)
    try:
        frame = pd.read_excel(path, dtype=object, keep_default_na=False, na_values=[""])
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a table that can be read ({error}). Expected a CSV in UTF-8 "
                         "or an .xlsx file, first row the names") from error
    sheet: Any = openpyxl.load_workbook(path).worksheets[0]
    rows = sheet.iter_rows(max_row=MOST_TITLES + 1, values_only=True)
    above = _rows_above([["" if cell is None else str(cell) for cell in row] for row in rows])
    if above:
        raise CsvError(_titles(path, above, f"pd.read_excel({str(path)!r}, header={above})"))
    if frame.isna().to_numpy().any():
        _with_values(path, frame, sheet)
        _spread_merged(path, frame, sheet)
    return frame


def _spread_merged(path: Path, frame: pd.DataFrame, sheet: Any) -> None:
    """What is merged over several rows counts in each: a name does, a reading is asked about."""
    for merged in sheet.merged_cells.ranges:
        first, last, column = merged.min_row - 2, merged.max_row - 1, merged.min_col - 1
        if not (0 <= first < len(frame) and merged.max_col == merged.min_col <= frame.shape[1]):
            continue  # above or beside the table, or over several columns
        value, name = frame.iat[first, column], frame.columns[column]
        if isinstance(value, str) or is_no_reader(name) or patient_column([name]) is not None:
            frame.iloc[first:last, column] = value
        elif pd.notna(value):
            warnings.warn(f"{path}: the number in {merged.coord} is merged over several rows, and "
                          "counts in the first of them alone", stacklevel=4)


def _rows_above(rows: list[list[str]]) -> int:
    """How many rows stand above the names, as a title does: less than half of the cells filled.

    Names are a row of which most cells are filled, and all of them with words; 0 where none is.
    """
    filled = [[cell for cell in row if cell.strip()] for row in rows[:MOST_TITLES + 1]]
    most = max(map(len, filled), default=0)
    if not filled or 2 * len(filled[0]) >= most:
        return 0
    return next((number for number, cells in enumerate(filled) if 2 * len(cells) > most
                 and all(any(map(str.isalpha, cell)) for cell in cells)), 0)


def _titles(path: Path, above: int, remedy: str) -> str:
    which = "row 1 is" if above == 1 else f"rows 1 to {above} are"
    return (f"{path}: {which} no names of columns; row {above + 1} looks like them. Delete what "
            f"stands above it, or read the table yourself and give that in the file's place: "
            f"{remedy}")


def _with_values(path: Path, frame: pd.DataFrame, sheet: Any) -> None:
    """An error where no program has stored the values of a sheet's formulas: they read as empty.

    Where some have one the sheet was computed, and an empty one is a formula's own answer.
    """
    formulas = [cell for row in sheet.iter_rows(min_row=2, max_row=len(frame) + 1,
                                                max_col=frame.shape[1])
                for cell in row if cell.data_type == "f"]
    places = [cell.coordinate for cell in formulas
              if pd.isna(frame.iat[cell.row - 2, cell.column - 1])]
    if places and len(places) == len(formulas):
        more = f" and {len(places) - 5} more" if len(places) > 5 else ""
        raise CsvError(f"{path}: cell(s) {', '.join(places[:5])}{more} hold a formula without its "
                       "value, as another program wrote it. Open the file in Excel or LibreOffice, "
                       "save it, and read it again")


def _separated(path: Path, text: str) -> list[list[str]]:
    """Rows of the separator that gives every row as many fields as the first, and most of them."""
    best: list[list[str]] = []
    uneven: list[tuple[int, list[int], int]] = []
    titles: list[tuple[int, int, str]] = []
    for sign in SEPARATORS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign, strict=True)
        try:
            lines = [(reader.line_num, row) for row in reader]
        except csv.Error:
            continue
        above = _rows_above([row for _, row in lines])
        below = [row for _, row in lines[above:] if any(field.strip() for field in row)]
        if above and len({len(row) for row in below}) == 1:
            titles.append((len(below[0]), above, sign))
        lines = [(line, row) for line, row in lines if any(field.strip() for field in row)]
        rows = [row for _, row in lines]
        n_fields = len(rows[0])
        odd = [line for line, row in lines if len(row) != n_fields]
        if odd:
            uneven.append((n_fields, odd, len(rows)))
        elif not best or n_fields > len(best[0]):
            best = rows
    if titles and (not best or not all(name.strip() for name in best[0]) or len(best[0]) == 1):
        _, above, sign = max(titles)
        raise CsvError(_titles(path, above, f"pd.read_csv({str(path)!r}, sep={sign!r}, "
                                            f"skiprows={above}, dtype=str)"))
    # Of a separator that fits all but a few rows, these are at fault, not the separator.
    torn = [part for part in uneven if part[0] > max(1, len(best[0]) if best else 1)
            and len(part[1]) <= max(2, part[2] // 4)]
    if torn and (not best or len(best[0]) == 1):
        n_fields, odd, _ = max(torn)
        many = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
        raise CsvError(f"{path}: the first row has {n_fields} fields, line(s) "
                       f"{', '.join(map(str, odd[:5]))}{many} have more or fewer. Is a separator "
                       "missing there, one too many, or one unquoted in a text?")
    if not best:
        raise CsvError(f"{path}: no separator (semicolon, tab or comma) gives all rows as many "
                       "fields as the first. Is a separator missing, or one unquoted in a text?")
    return best


class CsvError(ValueError):
    """A file that is no such CSV; the message names it, the place, the likely cause, the remedy."""


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    if not content.strip():
        raise CsvError(f"{path}: the file is empty, expected a CSV whose first row names the "
                       "columns. Was it saved?")
    if content[:4] == b"PK\x03\x04":
        raise CsvError(f"{path}: an Excel file, or another packed one, expected a CSV. Save its "
                       "sheet as 'CSV UTF-8'; readings in an .xlsx are read by read_table, and by "
                       "'deeplung-nb compare'")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[:error.start].count(b"\n") + 1
        cause = ("UTF-16, as 'Unicode text' from Excel" if content[:2] in (b"\xff\xfe", b"\xfe\xff")
                 else "Latin-1 or Windows-1252, as 'CSV' from Excel")
        raise CsvError(f"{path}: byte 0x{content[error.start]:02x} in line {line} is no UTF-8; the "
                       f"file is probably {cause}. Save it as 'CSV UTF-8'") from error
    if "\0" in text:
        raise CsvError(f"{path}: line {text[:text.index(chr(0))].count(chr(10)) + 1} holds a zero "
                       "byte: the file is no text, or damaged. Export it as 'CSV UTF-8'")
    return text


def _once(path: Path, names: list[str]) -> None:
    repeated = sorted(name for name, n in Counter(names).items() if n > 1)
    if repeated:
        raise CsvError(f"{path}: column {', '.join(map(repr, repeated))} appears more than once, "
                       "expected each once. Delete or rename the repeats")


def read_csv(path: str | os.PathLike, empty_is_missing: bool = True,
             finished: bool = False) -> pd.DataFrame:
    """A comma-separated UTF-8 file as texts: nothing is guessed, nothing is converted.

    Parameters
    ----------
    path
        Its first row names the columns, each row has as many fields.
    empty_is_missing
        Whether an empty field becomes NaN, or stays an empty text.
    finished
        Whether there must be a row, and a line's end after the last one, as in a file that a
        program wrote: without it a number at the end may have lost digits.

    Raises
    ------
    CsvError
        The file is empty, in another encoding, separated by another sign, or has rows of different
        length; the message says which, where, and what to do.
    """
    path = Path(path)
    try:
        text = _decoded(path)
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True)]
    except OSError as error:
        raise CsvError(f"{path}: can't be read ({error.strerror}), expected a CSV file") from error
    except csv.Error as error:
        raise CsvError(f"{path}: a quotation mark is not closed, or stands inside a field "
                       f"({error}). Correct the quotes") from error
    names = rows[0]
    _once(path, names)
    if len(names) == 1:
        for sign, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if sign in names[0]:
                raise CsvError(f"{path}: its columns are separated by {word}, expected commas. "
                               "Save it as 'CSV UTF-8 (comma separated)'")
    for line, row in enumerate(rows[1:], 2):
        if row and len(row) != len(names):
            raise CsvError(f"{path}: row {line} has {len(row)} fields, the first row "
                           f"{len(names)}. Is a comma missing, or one unquoted in a text?")
    if finished and len(rows) < 2:
        raise CsvError(f"{path}: there is no row below the names of the columns. Was it written to "
                       "the end? Make it again")
    if finished and not text.endswith(("\n", "\r")):
        raise CsvError(f"{path}: the last line has no end, so the file may have been cut. Make it "
                       "again, or add the line's end if you know that it is whole")
    frame = pd.DataFrame([row for row in rows[1:] if row], columns=names, dtype="str")
    return frame.replace("", pd.NA) if empty_is_missing else frame
