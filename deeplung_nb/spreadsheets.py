"""Tables as people keep them: CSV of any separator, Excel."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from pathlib import Path

import pandas as pd


def read_table(path: str | os.PathLike) -> pd.DataFrame:
    """A CSV (comma, semicolon or tab, UTF-8) or the first sheet of an Excel file.

    Raises
    ------
    ValueError
        There is no such file, or it holds no table; the message names it and what is expected.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file. Give a CSV or Excel file, or a DataFrame")
    try:
        if path.suffix.lower() in (".xlsx", ".xlsm"):
            return pd.read_excel(path)
        return pd.read_csv(path, sep=None, engine="python", encoding="utf-8-sig")
    except (ValueError, KeyError, OSError, csv.Error, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a table that can be read ({error}). Expected a CSV in UTF-8 "
                         "or an .xlsx file, first row the names") from error


class CsvError(ValueError):
    """A file that is no such CSV; the message names it, the place, the likely cause, the remedy."""


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    if not content.strip():
        raise CsvError(f"{path}: the file is empty, expected a CSV whose first row names the "
                       "columns. Was it saved?")
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
    if len(names) == 1:
        for sign, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if sign in names[0]:
                raise CsvError(f"{path}: its columns are separated by {word}, expected commas. "
                               "Save it as 'CSV UTF-8 (comma separated)'")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise CsvError(f"{path}: column {', '.join(map(repr, repeated))} appears more than once, "
                       "expected each once. Delete or rename the repeats")
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
