"""An answer as files: figure, table, paragraph, and the code that makes them again."""

from __future__ import annotations

from pathlib import Path

from docx import Document

from deeplung_nb.files import atomic_paths, safe_name
from deeplung_nb.labels import TITLES, VALUES
from deeplung_nb.report.explore import Answer
from deeplung_nb.report.sources import cite
from deeplung_nb.report.style import FORMATS, reader_names, write_figure
from deeplung_nb.report.tables import format_frame
from deeplung_nb.report.word import PrintedTable, add_table

PARTS = ("csv", "tex", "docx", "txt", "py", *FORMATS)


def _free_stem(folder: Path, name: str) -> str:
    """`name`, or `name-2` and so on: nothing is ever replaced."""
    number, stem = 1, name
    while any((folder / f"{stem}.{suffix}").exists() for suffix in (*PARTS, "html")):
        number += 1
        stem = f"{name}-{number}"
    return stem


def export(found: Answer, folder: Path, code: str | None = None) -> list[Path]:
    """Write figure (PDF, SVG, PNG), table (CSV in full precision, LaTeX, Word), paragraph and code.

    Parameters
    ----------
    folder
        Where to.
    code
        What makes the answer again; None: `found.code`.

    Returns
    -------
    list of Path
        All new, written together or not at all. Whatever was left out stands in each but the CSV,
        whose last rows hold it.
    """
    question = found.question
    names = reader_names(found.pairs)
    stem = _free_stem(folder, safe_name("_".join(
        [question.test, "vs", question.reference, question.structure, question.value])))
    quantity, unit = VALUES[question.value]
    title = f"{names[1]} against {names[0]}: {TITLES[question.structure]}, {quantity} ({unit})"
    subtitle = "; ".join(f"only {column} {value}" for column, value in question.where)
    table = format_frame(found.printed, "agreement", title, subtitle, notes=found.notes)
    document = Document()
    document.core_properties.author = "deeplung_nb"
    add_table(document, PrintedTable(table.as_raw_html()))
    words = "\n\n".join([found.text, f"Sources. {'; '.join(cite(found.text))}."])
    document.add_paragraph(words)
    rows = found.statistics.to_csv(index=False, lineterminator="\n")
    rows += "".join(f'"left out: {row.cohort}/{row.case_id} ({row.reason.replace(chr(34), chr(39))}'
                    ')",,,,,,\n' for row in found.left_out.itertuples())
    paths = [folder / f"{stem}.{suffix}" for suffix in PARTS]
    with atomic_paths(*paths) as parts:
        for suffix, part in zip(PARTS, parts, strict=True):
            if suffix in FORMATS:
                write_figure(found.figure, part, suffix)
            elif suffix == "docx":
                document.save(str(part))
            else:
                text = {"csv": rows, "tex": table.as_latex() + "\n", "txt": words + "\n",
                        "py": found.code if code is None else code}[suffix]
                part.write_text(text, encoding="utf-8")
    return paths
