"""Checklists that refuse to lie: each item is covered by a piece of this run, or by its authors.

A piece is a table, a figure, a file of the run, or a sentence of its Methods; who doubts an item
looks there, and the first digits of the piece's SHA-256 say that it is the one that was meant.
Nothing is inferred: what neither the run holds nor `study.toml` says is missing, or the authors'.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from deeplung_nb.files import sha256_of, write_text
from deeplung_nb.report.checklist_items import CLAIM, GRRAS, METRICS_RELOADED, Item, Need
from deeplung_nb.report.methods import describe_methods, list_warnings
from deeplung_nb.report.word import write_checklist
from deeplung_nb.runs import Run
from deeplung_nb.runs.study_record import StudyRecord

COVERED, PARTLY, MISSING, AUTHORS = ("covered", "partly", "missing", "only the authors can say")
STATUSES = (COVERED, PARTLY, MISSING, AUTHORS)
TITLES = {"claim": "CLAIM 2024", "grras": "GRRAS", "metrics": "Metrics Reloaded (segmentation)"}
SOURCES = {
    "claim": "In our own words, after Tejani et al. 2024, Radiol Artif Intell 6:e240300.",
    "grras": "In our own words, after Kottner et al. 2011, J Clin Epidemiol 64:96.",
    "metrics": "In our own words, after Maier-Hein, Reinke et al. 2024, Nat Methods 21:195.",
}
ITEMS: dict[str, Sequence[Item]] = {"claim": CLAIM, "grras": GRRAS, "metrics": METRICS_RELOADED}


class Piece(NamedTuple):
    """Something of the run that an item is covered by."""

    words: str
    link: str
    sha256: str


@dataclass(frozen=True)
class Evidence:
    """What a run holds, to look items up in."""

    run: Run
    methods: tuple[str, ...]
    warnings: tuple[str, ...]
    roles: frozenset[str]
    readers: frozenset[str]

    @classmethod
    def of(cls, run: Run, table: pd.DataFrame | None, record: StudyRecord) -> Evidence:
        """Of a run, its table of measurements where there is one, and what its authors said."""
        roles: Iterable[Any] = () if table is None else table["role"].dropna().unique()
        readers: Iterable[Any] = () if table is None else table["reader"].unique()
        return cls(run, tuple(describe_methods(run.config, record)),
                   tuple(list_warnings(run, table)), frozenset(map(str, roles)),
                   frozenset(map(str, readers)))

    def find(self, need: Need) -> list[Piece]:
        """The pieces that meet a need; none where the run has none."""
        return _FINDERS[need.kind](self, need)

    def _files(self, need: Need) -> list[Piece]:
        folder, suffix, anchor = {"table": ("tables", "csv", "table"),
                                  "figure": ("figures", "png", "figure")}[need.kind]
        found = []
        for path in sorted((self.run.folder / folder).glob(f"{need.what}.{suffix}")):
            found.append(Piece(f"{need.kind} {path.stem}", f"report.html#{anchor}-{path.stem}",
                               sha256_of(path)))
        return found

    def _file(self, need: Need) -> list[Piece]:
        path = self.run.folder / need.what
        # The report's own page would have to hold its own hash.
        return [Piece(need.what, need.what, sha256_of(path))] if path.is_file() else []

    def _sentence(self, need: Need) -> list[Piece]:
        return [Piece(f"Methods: “{_sentence_with(paragraph, need.what)}”", "report.html#reading",
                      hashlib.sha256(paragraph.encode()).hexdigest())
                for paragraph in self.methods if need.what.lower() in paragraph.lower()][:1]

    def _warned(self, need: Need) -> list[Piece]:
        text = "\n".join(self.warnings)
        return [Piece("To mind in this run", "report.html#reading",
                      hashlib.sha256(text.encode()).hexdigest())] if text else []

    def _role(self, need: Need) -> list[Piece]:
        path = self.run.folder / "measurements.csv"
        if need.what not in self.roles or not path.exists():
            return []
        return [Piece(f"measurements.csv, role {need.what}", "measurements.csv", sha256_of(path))]

    def _further_readers(self, need: Need) -> list[Piece]:
        path = self.run.folder / "measurements.csv"
        names = sorted(name for name in self.readers if name.startswith(need.what))
        if not names or not path.exists():
            return []
        return [Piece(f"measurements.csv, {', '.join(names)}", "measurements.csv",
                      sha256_of(path))]


_FINDERS: dict[str, Callable[[Evidence, Need], list[Piece]]] = {
    "table": Evidence._files, "figure": Evidence._files, "file": Evidence._file,
    "sentence": Evidence._sentence, "role": Evidence._role, "reader": Evidence._further_readers,
    "warnings": Evidence._warned,
}


def _sentence_with(paragraph: str, words: str) -> str:
    """The sentence of a paragraph in which some words stand."""
    at = paragraph.lower().index(words.lower())
    begin = max(paragraph.rfind(mark, 0, at) for mark in (". ", "; ", ": ")) + 1
    ends = [end for end in (paragraph.find(mark, at) for mark in (". ", "; ")) if end >= 0]
    return paragraph[begin:min(ends, default=len(paragraph))].strip().rstrip(".")


@dataclass(frozen=True)
class Answered:
    """An item, and what this run says to it."""

    item: Item
    status: str
    pieces: tuple[Piece, ...]
    quoted: tuple[tuple[str, str], ...]
    """(key of study.toml, what its authors said)."""
    lacks: tuple[str, ...]
    """What would complete it, in words."""


def answer_items(items: Sequence[Item], evidence: Evidence, record: StudyRecord
                 ) -> list[Answered]:
    """Each item of a checklist, with its status and where to look."""
    found = []
    for item in items:
        pieces, lacks = [], []
        n_met = 0
        for need in item.run:
            some = evidence.find(need)
            n_met += bool(some)
            pieces += some[:4]
            if not some:
                lacks.append(f"of the run: {need.words}")
        quoted = [(key, record.text(key)) for key in item.author if record.text(key)]
        unsaid = [key for key in item.author if not record.is_said(key)]
        lacks += [f"study.toml: {key}{' of each reader' * key.startswith('readers.')}"
                  for key in unsaid]
        complete = n_met == len(item.run) and not unsaid
        if complete and (item.run or item.author) and not item.never:
            status = COVERED
        elif n_met or quoted:
            status = PARTLY
        elif item.run:
            status = MISSING
        else:
            status = AUTHORS
        if item.never and status in (COVERED, PARTLY):
            lacks.insert(0, item.never)
        if not item.run and not item.author:
            lacks.append("the manuscript alone")
        found.append(Answered(item, status, tuple(pieces), tuple(quoted), tuple(lacks)))
    return found


def answer_checklists(run: Run, table: pd.DataFrame | None, record: StudyRecord
                      ) -> dict[str, list[Answered]]:
    """All checklists of a run: name -> items with status, pieces and quotations."""
    evidence = Evidence.of(run, table, record)
    return {name: answer_items(items, evidence, record) for name, items in ITEMS.items()}


def counts(answered: Sequence[Answered]) -> dict[str, int]:
    """Status -> items."""
    return {status: sum(one.status == status for one in answered) for status in STATUSES}


def checklist_table(answered: Sequence[Answered]) -> pd.DataFrame:
    """A row an item: `item, section, asks, status, where, authors, lacks`, for print and CSV."""
    return pd.DataFrame([{
        "item": one.item.number, "section": one.item.section, "asks": one.item.asks,
        "status": one.status,
        "where": "; ".join(f"{piece.words} [{piece.sha256[:12]}]" for piece in one.pieces),
        "authors": "; ".join(f"“{said}” ({key})" for key, said in one.quoted),
        "lacks": "; ".join(one.lacks)} for one in answered])


def write_checklists(run: Run, lists: Mapping[str, Sequence[Answered]]) -> list[Path]:
    """Write `claim.docx`, `grras.docx` and `metrics.docx`, and each as CSV, into `checklists/`.

    Returns
    -------
    list of Path
    """
    written = []
    for name, answered in lists.items():
        frame = checklist_table(answered)
        target = run.path("checklists", f"{name}.csv")
        write_text(target, frame.to_csv(index=False))
        said = ", ".join(f"{n} {status}" for status, n in counts(answered).items())
        written += [target, write_checklist(
            frame, run.path("checklists", f"{name}.docx"), TITLES[name],
            f"Run {run.run_id}. {said}. {SOURCES[name]}")]
    return written
