"""`study.toml`: what only a study's authors know, read by a schema; everything in it is optional.

It lies beside the manifests. What it does not say nobody says: nothing is filled in.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from deeplung_nb.runs.registry import manifest_folder

FILE = "study.toml"
TEXT, TEXTS = "text in quotes", "a list of texts"
NUMBER, DAY = "a number above 0", "a day, 2020-04-30"
SCHEMA: dict[str, dict[str, tuple[str, ...] | str]] = {
    "study": {
        "title": TEXT, "design": ("prospective", "retrospective"), "goal": TEXT, "background": TEXT,
        "hypothesis": TEXT, "registration": TEXT, "protocol": TEXT, "ethics": TEXT, "consent": TEXT,
        "deidentification": TEXT, "acquisition": TEXT, "funding": TEXT, "role_of_funders": TEXT,
        "data_availability": TEXT, "code_availability": TEXT, "limitations": TEXT,
        "intended_use": TEXT, "abstract": TEXT, "explainability": TEXT,
    },
    "sampling": {
        "method": ("consecutive", "random", "convenience"), "from": DAY, "to": DAY, "place": TEXT,
        "inclusion": TEXTS, "exclusion": TEXTS, "size_rationale": TEXT, "missing_data": TEXT,
    },
    "reference": {"definition": TEXT, "rationale": TEXT, "source": TEXT, "test_set": TEXT,
                  "discrepancies": TEXT},
    "margin": {"ml": NUMBER, "declared": DAY, "rationale": TEXT},
}
"""Table -> key -> what it holds."""
READER: dict[str, tuple[str, ...] | str] = {
    "name": TEXT, "role": TEXT, "years": NUMBER, "training": TEXT, "blinding": TEXT, "order": TEXT,
    "interval": TEXT, "tool": TEXT,
}
"""Keys of each [[readers]]."""


class StudyRecordError(ValueError):
    """All that is wrong with a study.toml: line, value, what was expected."""

    def __init__(self, source: str, faults: list[str]) -> None:
        self.faults = faults
        n = len(faults)
        super().__init__(f"{source}: {n} fault{'s' * (n != 1)}" + "".join(
            f"\n  - {fault}" for fault in faults))


@dataclass(frozen=True)
class StudyRecord:
    """What the authors have said of a study.

    Attributes
    ----------
    said
        "table.key" -> text, number, day or list, as `SCHEMA`.
    readers
        Each reader's `READER`.
    source
        The file's name; empty where there is none.
    """

    said: Mapping[str, Any] = field(default_factory=dict)
    readers: tuple[Mapping[str, Any], ...] = ()
    source: str = ""

    def text(self, key: str) -> str:
        """What is said to "table.key", in words; empty where nothing is.

        `readers.blinding` and the like: of all readers that say it.
        """
        if key.startswith("readers."):
            name = key.removeprefix("readers.")
            return "; ".join(f"{reader.get('name', f'reader {k}')}: {_words(reader[name])}"
                             for k, reader in enumerate(self.readers, 1) if name in reader)
        return _words(self.said.get(key, ""))


    def is_said(self, key: str) -> bool:
        """Whether something is said to it; of readers, by each of them."""
        if key.startswith("readers."):
            name = key.removeprefix("readers.")
            return bool(self.readers) and all(name in reader for reader in self.readers)
        return key in self.said


def _words(value: Any) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else \
        f"{value:g}" if isinstance(value, float) else str(value)


def _fits(value: Any, wanted: tuple[str, ...] | str) -> bool:
    if isinstance(wanted, tuple):
        return value in wanted
    if wanted == TEXT:
        return isinstance(value, str) and bool(value.strip())
    if wanted == TEXTS:
        return isinstance(value, list) and bool(value) and all(_fits(one, TEXT) for one in value)
    if wanted == NUMBER:
        return isinstance(value, (int, float)) and not isinstance(value, bool) \
            and 0 < value < float("inf")
    return type(value) is date


def _expected(wanted: tuple[str, ...] | str) -> str:
    return wanted if isinstance(wanted, str) else " or ".join(f'"{one}"' for one in wanted)


class _Lines:
    """Where a key stands in the file."""

    def __init__(self, text: str) -> None:
        self.at: dict[tuple[str, int, str], int] = {}
        table, seen = "", {"": 0}
        for number, line in enumerate(text.splitlines(), 1):
            head = re.match(r"\s*\[+\s*([\w.-]+)\s*\]+", line)
            key = re.match(r"\s*[\"']?([\w-]+)[\"']?\s*=", line)
            if head:
                table = head[1]
                seen[table] = seen.get(table, -1) + 1
                self.at.setdefault((table, seen[table], ""), number)
            elif key:
                self.at.setdefault((table, seen[table], key[1]), number)

    def of(self, table: str, place: int = 0, key: str = "") -> str:
        """`line 12`; without a number where it isn't found."""
        number = self.at.get((table, place, key)) or self.at.get((table, place, ""))
        return f"line {number}" if number else "somewhere"


def _check(found: Any, schema: Mapping[str, tuple[str, ...] | str], lines: _Lines, table: str,
           place: int = 0) -> Iterator[str]:
    if not isinstance(found, dict):
        yield (f"{lines.of('', 0, table)}: {table} = {found!r}, expected a table: a line [{table}] "
               "with its keys below")
        return
    for key, value in found.items():
        where = lines.of(table, place, key)
        if key not in schema:
            yield (f"{where}: {table} has no {key!r}, expected of {', '.join(schema)}. Take it "
                   "out, or correct its name")
        elif not _fits(value, schema[key]):
            yield (f"{where}: {table}.{key} is {value!r}, expected {_expected(schema[key])}. "
                   "Correct it, or take it out: everything is optional")


def read_study_record(path: str | Path | None = None) -> StudyRecord:
    """Read a study.toml; without a path that beside the manifests, or nothing where there is none.

    Raises
    ------
    StudyRecordError
        With all faults at once: line, value, what was expected.
    FileNotFoundError
        A path was given, and nothing is there.
    """
    place = Path(path) if path is not None else manifest_folder() / FILE
    if path is None and not place.exists():
        return StudyRecord()
    try:
        text = place.read_text(encoding="utf-8-sig")
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyRecordError(place.name, [
            f"{error}: no TOML. Texts stand in quotes, days like 2020-04-30 without"]) from None
    except UnicodeDecodeError:
        raise StudyRecordError(place.name, ["not in UTF-8. Save it so in your editor"]) from None
    lines, faults = _Lines(text), []
    for table, value in found.items():
        if table == "readers":
            if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
                faults.append(f"{lines.of(table)}: readers, expected [[readers]] once for each")
                continue
            for k, reader in enumerate(value):
                faults += _check(reader, READER, lines, table, k)
        elif table not in SCHEMA:
            faults.append(f"{lines.of(table)}: no table {table!r} is known, expected of "
                          f"{', '.join([*SCHEMA, 'readers'])}")
        else:
            faults += _check(value, SCHEMA[table], lines, table)
    sampling = found.get("sampling", {})
    if not faults and {"from", "to"} <= set(sampling) and sampling["from"] > sampling["to"]:
        faults.append(f"{lines.of('sampling', 0, 'to')}: sampling.to is {sampling['to']}, before "
                      f"sampling.from, {sampling['from']}")
    if faults:
        raise StudyRecordError(place.name, faults)
    said = {f"{table}.{key}": value for table, values in found.items() if table != "readers"
            for key, value in values.items()}
    return StudyRecord(said, tuple(found.get("readers", ())), place.name)
