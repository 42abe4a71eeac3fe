"""Tables as people keep them: CSV of any separator, Excel."""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd

SEPARATORS = (";", "\t", ",")
NOT_READ = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none"})
"""How programs write that there is no number, in any case of letters."""
DECIMALS = (".", ",")
NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?)", re.ASCII | re.IGNORECASE)


def read_sheet(path: str | os.PathLike) -> pd.DataFrame:
    """A CSV (comma, semicolon or tab, UTF-8) or the first sheet of an Excel file.

    Nothing of a CSV is converted: `007` and `NA` may be names. `numbers` reads what is a number.

    Raises
    ------
    ValueError
        There is no such file, or it holds no table; the message names it and what is expected.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file. Give a CSV or Excel file, or a DataFrame")
    if path.suffix.lower() not in (".xlsx", ".xlsm"):
        return _frame(path, _separated(path, _decoded(path)))
    try:
        frame = pd.read_excel(path, dtype=object, keep_default_na=False, na_values=[""])
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a table that can be read ({error}). Expected a CSV in UTF-8 "
                         "or an .xlsx file, first row the names") from error
    _with_values(path, frame)
    return frame


def _with_values(path: Path, frame: pd.DataFrame) -> None:
    """An error where no program has stored the values of a sheet's formulas: they read as empty.

    Where some have one the sheet was computed, and an empty one is a formula's own answer.
    """
    if not frame.isna().to_numpy().any():
        return
    sheet: Any = openpyxl.load_workbook(path).worksheets[0]
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
    for sign in SEPARATORS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign, strict=True)
        try:
            lines = [(reader.line_num, row) for row in reader]
        except csv.Error:
            continue
        lines = [(line, row) for line, row in lines if any(field.strip() for field in row)]
        rows = [row for _, row in lines]
        n_fields = len(rows[0])
        odd = [line for line, row in lines if len(row) != n_fields]
        if odd:
            uneven.append((n_fields, odd, len(rows)))
        elif not best or n_fields > len(best[0]):
            best = rows
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


PATIENT = re.compile(r"(pat|patients?|patienten|patiente|paciente|paziente|subj|subject|proband|"
                     r"participant)(s?id|no|nr|num|nummer|number|numero|code|key|"
                     r"identifier)?|pid|mrn")
"""How tables call the column of the patient, without case, accents, spaces and signs."""
NO_READER = frozenset(
    "id nr no num number nummer numero index row zeile case fall caso cas scan study studie slice "
    "age alter edad year years jahr jahre date datum fecha day tag sex gender weight height fold "
    "pat patient subject at of in y j kg cm".split())
"""Words of which alone the name of a column consists that is no reader's: `Fall-Nr`, `Age (y)`."""


def _plain(name: Any) -> str:
    """A column's name in small letters without accents."""
    return "".join(sign for sign in unicodedata.normalize("NFKD", str(name).casefold())
                   if not unicodedata.combining(sign))


def patient_column(columns: Iterable[Any], used: Iterable[Any] = ()) -> Any | None:
    """The column that names the patient: `patient_id`, else a usual spelling of it, else None.

    Where several look like it the first is taken, and a warning names the others.

    Parameters
    ----------
    columns
        Of the table.
    used
        Those that are taken for something else.
    """
    used = set(used)
    found = [name for name in columns if name not in used
             and PATIENT.fullmatch(re.sub(r"[\W_]+", "", _plain(name)))]
    if not found:
        return None
    chosen = "patient_id" if "patient_id" in found else found[0]
    others = [str(name) for name in found if name != chosen]
    if others:
        warnings.warn(f"column {chosen!r} is taken for the patient; {', '.join(others)} "
                      "look(s) like it too and is not used. Say which: patient_id=...",
                      stacklevel=3)
    return chosen


def with_patients(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with its column of the patient, however spelt, called `patient_id`."""
    name = patient_column(frame.columns)
    if name in (None, "patient_id"):
        return frame
    renamed = frame.rename(columns={name: "patient_id"})
    renamed.attrs = frame.attrs
    return renamed


def _frame(path: Path, rows: list[list[str]]) -> pd.DataFrame:
    names = [name.strip() for name in rows[0]]
    _once(path, names)
    return pd.DataFrame(rows[1:], columns=names, dtype=object)


BELOW = {"zero": 0.0, "half": 0.5, "limit": 1.0}
"""What a reading below a limit counts, as a share of the limit."""


def numbers(values: Sequence[Any], places: Sequence[str], decimal: str | None = None, *,
            unread: Sequence[str] = (), below: str | None = None) -> np.ndarray:
    """Numbers as people write them, `1.5`, `1,5`, `1 234,5` or `1,234.5`; empty is NaN.

    Parameters
    ----------
    values
        Numbers, or texts.
    places
        Where each stands, for the message.
    decimal
        The sign before decimals, `.` or `,`; the other one separates thousands. None: what the
        texts themselves leave no doubt of.
    unread
        Texts that stand for no reading, besides those of `NOT_READ`.
    below
        What `<0.5` counts: a key of `BELOW`; None: it is no number.

    Raises
    ------
    ValueError
        Texts are no numbers, or one may be two different ones; the message says which, where, and
        how to have them read.
    """
    if decimal not in (None, *DECIMALS):
        raise ValueError(f"decimal={decimal!r}: expected '.' or ',', or leave it out")
    if below not in (None, *BELOW):
        raise ValueError(f"below={below!r}: expected one of {', '.join(map(repr, BELOW))}, or "
                         "leave it out")
    none = NOT_READ | {text.strip().lower() for text in unread}
    texts = {row: re.sub(r"[\s\u00a0\u202f']", "", value) for row, value in enumerate(values)
             if isinstance(value, str) and value.strip().lower() not in none}
    if decimal is None:
        decimal = _decimal({row: text.lstrip("<") for row, text in texts.items()}, places)
    found, wrong = np.full(len(values), np.nan), []
    for row, value in enumerate(values):
        text = texts.get(row)
        share = BELOW[below] if below and text and text.startswith("<") else None
        try:
            if text is not None:
                found[row] = _number(text[1:] if share is not None else text, decimal)
                found[row] *= 1.0 if share is None else share
            elif not isinstance(value, str) and not pd.isna(value):
                found[row] = float(value)
        except (TypeError, ValueError):
            wrong.append(row)
    if wrong:
        raise ValueError(_not_numbers(wrong, values, texts, places, decimal))
    return found


def _number(text: str, decimal: str) -> float:
    thousands = "," if decimal == "." else "."
    grouped = re.fullmatch(rf"[+-]?\d{{1,3}}(\{thousands}\d{{3}})+(\{decimal}\d*)?", text)
    plain = text.replace(thousands, "") if grouped else text
    # A point that is not the decimal sign here must not pass as one.
    if thousands in plain or not NUMBER.fullmatch(plain.replace(decimal, ".")):
        raise ValueError(text)
    return float(plain.replace(decimal, "."))


def _not_numbers(rows: Sequence[int], values: Sequence[Any], texts: dict[int, str],
                 places: Sequence[str], decimal: str) -> str:
    """All cells that are no numbers, and what can be said so that they are read."""
    cells = [f"{places[row]}: {values[row]!r} is no number (decimal sign {decimal!r})"
             for row in rows]
    remedies = []
    if any(texts.get(row, "").startswith("<") for row in rows):
        remedies.append("say below='zero', 'half' or 'limit' for readings below what can be told")
    words = sorted({str(values[row]) for row in rows if not re.search(r"\d", str(values[row]))})
    if words:
        remedies.append(f"say unread={words!r} if there was no reading")
    remedies.append("correct them, leave them empty if there is no reading, or say decimal=',' or "
                    "'.'")
    more = f"\n- and {len(cells) - 20} more" if len(cells) > 20 else ""
    return (cells[0] if len(cells) == 1 else
            f"{len(cells)} cells are no numbers\n- " + "\n- ".join(cells[:20]) + more) + (
                ". " if len(cells) == 1 else "\n") + _sentence("; ".join(remedies))


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _decimal(texts: dict[int, str], places: Sequence[str]) -> str:
    """The decimal sign of texts, where one of them settles it."""
    doubtful: dict[str, int] = {}
    whole = False
    for row, text in texts.items():
        last = max(text.rfind(","), text.rfind("."))
        if last < 0:
            whole |= bool(re.fullmatch(r"[+-]?[1-9]\d{0,2}", text))
            continue
        sign, other = text[last], "," if text[last] == "." else "."
        if other in text:
            return sign  # 1.234,5
        if text.count(sign) > 1:
            return other  # 1.234.567
        if not re.fullmatch(r"[+-]?[1-9]\d{0,2}[.,]\d{3}", text):
            return sign
        doubtful.setdefault(sign, row)
    if "," in doubtful:
        row = doubtful[","]
        raise ValueError(f"{places[row]}: {texts[row]!r} may have a decimal comma, or thousands. "
                         "Say which: decimal=',' or decimal='.'")
    if "." in doubtful and whole:  # three decimals in every cell would be decimals beyond doubt
        row = doubtful["."]
        warnings.warn(f"{places[row]}: {texts[row]!r} is read as a number with decimals; if its "
                      "point separates thousands, say decimal=','", stacklevel=4)
    return "."


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


def _why_no_readings(column: pd.Series) -> str:
    """Why a column is not one of readings; empty where it is: some numbers, and nothing else."""
    why = ""
    for decimal in DECIMALS:
        try:
            found = numbers(column.tolist(), [f"row {row + 1}" for row in range(len(column))],
                            decimal)
        except ValueError as error:
            why = why or str(error)
            continue
        return "" if np.isfinite(found).any() else "it has no number"
    return why


def find_readers(frame: pd.DataFrame, where: str) -> dict[str, Any]:
    """Reader -> column of a table of paired readings: its two numeric columns, by their names.

    Columns whose names say that they are something else (`NO_READER`) are none.

    Raises
    ------
    ValueError
        There are not just two, or another one would be but for a few of its cells; the message
        names those there are, and the cells.
    """
    why = {name: _why_no_readings(pd.Series(frame[name])) for name in frame}
    numeric = [name for name, reason in why.items() if not reason]
    other = [name for name in numeric if NO_READER >= set(re.findall(r"[^\W_]+", _plain(name)))]
    numeric = [name for name in numeric if name not in other]
    nearly = []
    for name in frame.columns.difference([*numeric, *other], sort=False):
        filled = [value for value in frame[name] if not pd.isna(value)
                  and str(value).strip().lower() not in NOT_READ]
        wrong = [value for value in filled if _why_no_readings(pd.Series([value], dtype=object))]
        if 0 < len(wrong) <= len(filled) / 2:
            nearly.append(f". Column {name!r} would be one but for {len(wrong)} of its cells: "
                          + why[name])
    if len(numeric) == 2 and not nearly:
        return {str(name): name for name in numeric}
    named = ", ".join(map(str, numeric)) or "none"
    if other:
        named += f", besides {', '.join(map(str, other))}, which look(s) like none"
    raise ValueError(
        f"{where}: numeric columns {named}; expected two, "
        'or say which: readers={"expert": "manual_ml", "model": "auto_ml"}' + "".join(nearly))
