"""What the columns of a table hold: who read, whose case, and numbers as people write them."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

NOT_READ = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "none"})
"""How programs write that there is no number, in any case of letters."""
DECIMALS = (".", ",")
NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?)", re.ASCII | re.IGNORECASE)


PATIENT = re.compile(r"(pat|patients?|patienten|patiente|paciente|paziente|subj|subject|proband|"
                     r"participant)(s?id|no|nr|num|nummer|number|numero|code|key|"
                     r"identifier)?|pid|mrn")
"""How tables call the column of the patient, without case, accents, spaces and signs."""
NO_READER = frozenset(
    "id nr no n num number nummer numero index row zeile case fall caso cas scan study studie "
    "slice age alter edad year years jahr jahre date datum fecha day tag sex gender weight height "
    "fold pat patient subject at of in y j kg cm exam exams slices scans count counts accession "
    "series session visit lesion present".split())
"""Words of which alone the name of a column consists that is no reader's: `Fall-Nr`, `Age (y)`."""

WITH_UNIT = re.compile(r"\s*[\d.,]+\s*(%|ml|cc|cm3|cm³|mm3|mm³|l)\s*", re.IGNORECASE)
"""A reading that says its unit in its own cell."""


def _plain(name: Any) -> str:
    """A column's name in small letters without accents."""
    return "".join(sign for sign in unicodedata.normalize("NFKD", str(name).casefold())
                   if not unicodedata.combining(sign))


def is_no_reader(name: Any) -> bool:
    """Whether the name of a column says that it is none of readings: `CaseID`, `Age (y)`."""
    words = re.findall(r"[^\W_]+", _plain(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(name))))
    known = (word in NO_READER or (word.endswith("id") and word[:-2] in NO_READER)
             for word in words)
    return words[:1] == ["unnamed"] or (bool(words) and all(known))


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


def _why_no_readings(column: pd.Series) -> str:
    """Why a column is not one of readings; empty where it is: some numbers, and nothing else."""
    if all(isinstance(value, bool | np.bool_) for value in column.dropna()):
        return "it has no number"
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
    if frame.empty:
        raise ValueError(f"{where}: there is no row below the names of the columns")
    why = {name: _why_no_readings(pd.Series(frame[name])) for name in frame}
    numeric = [name for name, reason in why.items() if not reason]
    other = [name for name in numeric if is_no_reader(name)]
    numeric = [name for name in numeric if name not in other]
    nearly, with_unit = [], []
    for name in frame.columns.difference([*numeric, *other], sort=False):
        if is_no_reader(name):
            continue
        filled = [value for value in frame[name] if not pd.isna(value)
                  and str(value).strip().lower() not in NOT_READ]
        wrong = [value for value in filled if _why_no_readings(pd.Series([value], dtype=object))]
        # Few cells, or a sign that stands for no reading in many.
        if 0 < len(wrong) < len(filled) and (len(wrong) <= len(filled) / 2
                                             or len(set(map(str, wrong))) == 1):
            nearly.append(f". Column {name!r} would be one but for {len(wrong)} of its cells: "
                          + why[name])
        if wrong and all(WITH_UNIT.fullmatch(str(value)) for value in wrong):
            with_unit.append(f". Column {name!r} holds numbers with a unit, as {wrong[0]!r}: leave "
                             "the numbers alone in its cells, and say the unit once")
    if len(numeric) == 2 and not nearly and not with_unit:
        return {str(name): name for name in numeric}
    named = ", ".join(map(str, numeric)) or "none"
    if other:
        named += f", besides {', '.join(map(str, other))}, which look(s) like none"
    raise ValueError(
        f"{where}: numeric columns {named}; expected two, "
        'or say which: readers={"expert": "manual_ml", "model": "auto_ml"}, or of a command '
        "--reference manual_ml --test auto_ml" + "".join(nearly + with_unit))
