"""All tables of a run in one Word file, for people who write in Word."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
from docx import Document
from docx.enum.section import WD_ORIENT
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from docx.shared import Pt
from docx.table import _Row

from deeplung_nb.files import atomic_path
from deeplung_nb.runs import Run

Cell = tuple[str, int, int]
"""Text, columns and rows that a cell covers."""


class PrintedTable(HTMLParser):
    """The parts of a table that `tables.save_table` wrote: title, subtitle, rows, notes."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.titles: list[str] = []
        self.head: list[list[Cell]] = []
        self.body: list[list[Cell]] = []
        self.notes: list[str] = []
        self._part, self._kind = "", ""
        self._cell: Cell | None = None
        self._row: list[Cell] = []
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a part, a row or a cell."""
        values = dict(attrs)
        if tag in ("thead", "tbody", "tfoot"):
            self._part = tag
        elif tag == "tr":
            self._row, self._kind = [], values.get("class") or ""
        elif tag in ("td", "th") and self._part:
            self._cell = ("", int(values.get("colspan") or 1), int(values.get("rowspan") or 1))

    def handle_data(self, data: str) -> None:
        """Text of a cell; white space of the markup is no text."""
        if self._cell is not None:
            self._cell = (self._cell[0] + data, *self._cell[1:])

    def handle_endtag(self, tag: str) -> None:
        """Close a cell or a row."""
        if tag in ("td", "th") and self._cell is not None:
            self._row.append((" ".join(self._cell[0].split()), *self._cell[1:]))
            self._cell = None
        elif tag == "tr" and self._row:
            words = self._row[0][0]
            if self._part == "tfoot":
                self.notes.append(words)
            elif "gt_heading" in self._kind.split():
                self.titles.append(words)
            else:
                (self.head if self._part == "thead" else self.body).append(self._row)


def _repeat_on_each_page(row: _Row) -> None:
    properties = row._tr.get_or_add_trPr()
    mark = OxmlElement("w:tblHeader")
    mark.set(qn("w:val"), "true")
    properties.append(mark)


def add_table(document: Document, printed: PrintedTable) -> None:
    """A printed table with its title and notes, at the end of a document."""
    document.add_heading(printed.titles[0] if printed.titles else "", level=2)
    for line in printed.titles[1:]:
        document.add_paragraph(line)
    rows = [*printed.head, *printed.body]
    width = max(sum(columns for _, columns, _ in row) for row in rows)
    table = document.add_table(len(rows), width, style="Light List")
    taken: set[tuple[int, int]] = set()
    for y, row in enumerate(rows):
        x = 0
        for words, columns, down in row:
            while (y, x) in taken:
                x += 1
            cell = table.cell(y, x)
            if columns > 1 or down > 1:
                cell = cell.merge(table.cell(y + down - 1, x + columns - 1))
            cell.text = words
            for run in cell.paragraphs[0].runs:
                run.font.size = Pt(8)
                run.font.bold = y < len(printed.head) or columns == width
            taken |= {(y + j, x + i) for j in range(down) for i in range(columns)}
            x += columns
        if y < len(printed.head):
            _repeat_on_each_page(table.rows[y])
    for note in printed.notes:
        document.add_paragraph().add_run(note).font.size = Pt(8)


def write_word(run: Run, pages: list[Path]) -> Path:
    """Write `tables.docx`: the printed tables, each with its title and notes, in this order.

    Parameters
    ----------
    pages
        HTML files of `tables.save_table`.

    Returns
    -------
    Path
        The Word file; its table heads repeat on each page.
    """
    document = Document()
    section = document.sections[0]
    section.orientation = WD_ORIENT.LANDSCAPE
    section.page_width, section.page_height = section.page_height, section.page_width
    document.core_properties.author = "deeplung_nb"
    document.core_properties.title = f"Tables of run {run.run_id}"
    document.add_heading(f"Tables of run {run.run_id}", level=1)
    if run.synthetic:
        document.add_paragraph("Synthetic cohort: no case is a patient.")
    for page in pages:
        add_table(document, PrintedTable(page.read_text(encoding="utf-8")))
    target = run.path("tables.docx")
    with atomic_path(target) as part:
        document.save(str(part))
    return target


def write_checklist(frame: pd.DataFrame, target: Path, title: str, words: str) -> Path:
    """Write a checklist as a Word file: a row an item, across the page, its head on each page.

    Parameters
    ----------
    frame
        Of `checklists.checklist_table`.
    """
    document = Document()
    section = document.sections[0]
    section.orientation = WD_ORIENT.LANDSCAPE
    section.page_width, section.page_height = section.page_height, section.page_width
    document.core_properties.author = "deeplung_nb"
    document.core_properties.title = title
    document.add_heading(title, level=1)
    document.add_paragraph(words)
    columns = [name for name in frame.columns if name != "section"]
    table = document.add_table(len(frame) + 1, len(columns), style="Light List")
    cells = [columns, *([str(row[name]) for name in columns] for row in frame.to_dict("records"))]
    for row, texts in zip(table.rows, cells, strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
            for run in cell.paragraphs[0].runs:
                run.font.size = Pt(8)
                run.font.bold = row is table.rows[0]
    _repeat_on_each_page(table.rows[0])
    with atomic_path(target) as part:
        document.save(str(part))
    return target
