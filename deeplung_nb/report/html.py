"""One page that holds a run: figures, tables, settings and where they come from.

The page needs no other file and no network. Every value enters through jinja2's escaping; only the
tables enter as markup, and those were escaped when they were written (`tables.save_table`).
"""

from __future__ import annotations

import base64
import json
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from deeplung_nb import measurements
from deeplung_nb.files import write_text
from deeplung_nb.report.checklists import SOURCES, answer_checklists, counts, write_checklists
from deeplung_nb.report.checklists import TITLES as CHECKLISTS
from deeplung_nb.report.methods import describe_methods, list_warnings
from deeplung_nb.report.record_tables import write_record_tables
from deeplung_nb.report.sources import cite
from deeplung_nb.report.tables import PAGE_HEAD
from deeplung_nb.report.word import PrintedTable, write_word
from deeplung_nb.runs import Run
from deeplung_nb.runs.study_record import read_study_record

TEMPLATE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ run_id }}: report</title>
<style>
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --soft: #444; --line: #ccd;
        --link: #0b5394; --alarm: #fdecea; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #15181c; --soft: #b8bcc4; --line: #3a3f48; --link: #8ab8f0;
          --alarm: #47201a; }
}
body { font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; color: var(--ink);
       background: var(--paper); margin: 0 auto;
       max-width: 62rem; padding: 1rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.2; }
h2 { border-bottom: 1px solid var(--line); margin-top: 2.5rem; }
h3 { font-size: 1rem; margin: 2rem 0 .5rem; }
a { color: var(--link); } a:focus-visible { outline: 2px solid #d55e00; }
nav > ul { columns: 2; padding-left: 1.2rem; } nav > ul > li { break-inside: avoid; }
.banner { background: var(--alarm); border-left: 5px solid #a33b20; padding: .6rem 1rem;
          font-weight: 600; }
figure { margin: 0 0 1.5rem; break-inside: avoid; }
/* Figures and tables are made for white paper and stay on it. */
figure img { max-width: 100%; height: auto; background: #fff; }
.scroll { overflow-x: auto; background: #fff; color: #222; }
figcaption, .file { color: var(--soft); } figcaption { font-size: .9rem; }
 .file { font-size: .85rem; }
table.items { border-collapse: collapse; font-size: .85rem; }
table.items th, table.items td { text-align: left; vertical-align: top;
                                 padding: .2rem .7rem .2rem 0; border-bottom: 1px solid #ccd; }
table.items td.covered { color: #0a6b3d; } table.items td.missing { color: #a33b20; }
table.items a { color: #0b5394; } table.items .file { color: #444; display: inline; }
table.facts { border-collapse: collapse; font-size: .9rem; }
table.facts th, table.facts td { text-align: left; vertical-align: top; overflow-wrap: anywhere;
                                 padding: .2rem .8rem .2rem 0;
                                 border-bottom: 1px solid var(--line); }
table.facts th { font-weight: 500; white-space: nowrap; }
/* Some fifteen pages A4 for a whole run. */
@media print {
  :root { color-scheme: light; }
  body { max-width: none; font-size: 8.5pt; line-height: 1.35; padding: 0; } nav { display: none; }
  h1 { font-size: 14pt; } h2 { font-size: 11pt; margin: 5mm 0 1mm; }
  h3 { font-size: 9pt; margin: 3mm 0 1mm; } h2, h3 { break-after: avoid; } p { margin: 1mm 0; }
  a { color: inherit; } .file { display: none; }
  /* 7 pt at least: what is wide goes on pages of its own, across. */
  .scroll { overflow: visible; } .scroll table { zoom: 0.74; } tr { break-inside: avoid; }
  section.wide { page: across; }
  figure { margin: 0 0 1mm; } figure img { max-width: 100%; display: block; }
  figcaption { font-size: 8pt; }
  table.facts { font-size: 7pt; width: 100%; }
  table.facts tbody { columns: 2; display: block; } table.facts th { white-space: normal; }
  table.facts tr { display: table; width: 100%; table-layout: fixed; }
  table.facts th, table.facts td { padding: 0 1mm 0 0; }
  @page { size: A4; margin: 13mm; }
  @page across { size: A4 landscape; }
}
</style>
</head>
<body>
<header>
<h1>Quantification of COVID-19 pneumonia from CT: report of run {{ run_id }}</h1>
{% if synthetic %}
<p class="banner" role="note">Synthetic cohort: no case is a patient. These numbers say nothing
about people. Where they stand beside the paper's, they show only that each has its counterpart.</p>
{% endif %}
</header>
<nav aria-label="Contents"><h2>Contents</h2>
<ul>
<li><a href="#reading">How to read it</a></li>
{% for chapter in chapters %}<li><a href="#{{ chapter.anchor }}">{{ chapter.title }}</a><ul>
{% for item in chapter.pieces %}<li><a href="#{{ item.anchor }}">{{ item.title }}</a></li>
{% endfor %}</ul></li>
{% endfor %}
{% if checklists %}<li><a href="#checklists">Checklists</a></li>
{% endif %}<li><a href="#provenance">Settings and provenance</a></li>
</ul></nav>
<main>
<section id="reading"><h2>How to read it</h2>
<p>Every difference is automatic − expert. A correlation is not agreement, and a difference that is
not significant is not agreement either: read the bias and the limits with their intervals. A Dice
depends on what is averaged, and on what an empty reference counts: each one is named. “–” means
not defined or not measured, never 0.</p>
{% if warnings %}<h3>To mind in this run</h3>
<ul>{% for line in warnings %}<li>{{ line }}</li>
{% endfor %}</ul>{% endif %}
{% if methods %}<h3>Methods</h3>
{% for paragraph in methods %}<p>{{ paragraph }}</p>
{% endfor %}<p class="file">Sources: {{ sources | join("; ") }}.</p>{% endif %}</section>
{% for chapter in chapters %}
<section id="{{ chapter.anchor }}"><h2>{{ chapter.title }}</h2>
{% for item in chapter.pieces %}
<section id="{{ item.anchor }}"{% if item.wide %} class="wide"{% endif %}><h3>{{ item.title }}</h3>
{% if item.markup %}
<div class="scroll" tabindex="0" role="region" aria-label="{{ item.title }}">{{ item.markup }}</div>
<p class="file">At full precision: <code>tables/{{ item.name }}.csv</code></p>
{% else %}
<figure><img src="{{ item.source }}" alt="{{ item.alt }}">
{% if item.caption %}<figcaption>{{ item.caption }}</figcaption>{% endif %}</figure>
<p class="file">For print: <code>figures/{{ item.name }}.pdf</code></p>
{% endif %}</section>
{% endfor %}
</section>
{% else %}<section><h2>Results</h2><p>No table and no figure has been written yet.</p></section>
{% endfor %}
{% if checklists %}<section id="checklists"><h2>Checklists</h2>
<p>Each item is covered by a piece of this run or by what its authors say in study.toml, partly,
not at all, or is theirs alone; digits in brackets begin the piece’s SHA-256. As Word files:
{% for one in checklists %}<a href="checklists/{{ one.name }}.docx">{{ one.name }}.docx</a>
{% endfor %}</p>
{% for one in checklists %}<h3 id="checklist-{{ one.name }}">{{ one.title }}: {{ one.said }}</h3>
<p class="file">{{ one.source }}</p>
<div class="scroll" tabindex="0" role="region" aria-label="{{ one.title }}"><table class="items">
<thead><tr><th scope="col">item</th><th scope="col">asks</th><th scope="col">status</th>
<th scope="col">where to look, or what is said</th></tr></thead><tbody>
{% for a in one.answered %}<tr><td>{{ a.item.number }}</td><td>{{ a.item.asks }}</td>
<td class="{{ a.status.split()[0] }}">{{ a.status }}</td><td>
{% for p in a.pieces %}<a href="{{ p.link.removeprefix('report.html') }}">{{ p.words }}</a>
[{{ p.sha256[:12] }}] {% endfor %}
{% for key, text in a.quoted %}“{{ text }}” ({{ key }}) {% endfor %}
{% if a.lacks %}<span class="file">lacks {{ a.lacks | join("; ") }}</span>{% endif %}</td></tr>
{% endfor %}</tbody></table></div>
{% endfor %}</section>
{% endif %}<section id="provenance"><h2>Settings and provenance</h2>
<table class="facts"><tbody>
{% for name, value in facts %}<tr><th scope="row">{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}
</tbody></table></section>
</main>
</body>
</html>
"""


MOST_UPRIGHT = 8
"""Columns that fit on an upright page in print; tables with more lie across."""
CHAPTERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Cases", ("flow", "table1*", "table2*", "acquisition")),
    ("Preparation, network, training", ("fig1_*", "fig2_*", "fig3_*", "learning*")),
    ("Overlap with the expert", ("dice_cv", "dice_external", "dice_readers*", "dice_by*",
                                 "dice_between*")),
    ("Segmented slices", ("fig4_*", "fig5_*", "case_*", "slice_profile*")),
    ("Agreement of volumes", ("detection", "agreement", "agreement_both_positive", "regions",
                              "densities", "panel", "fig6_*", "fig_i_*", "waterfall*")),
    ("Every defensible choice", ("every_choice*",)),
    ("Failures", ("failures",)),
    ("Times and models", ("table3*", "table4*")),
    ("The paper’s numbers", ("published", "checks")),
    ("More", ("*",)),
)
"""The order of the report: patterns of names, each piece in the first chapter that fits it."""


def order_pieces(pieces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tables and figures in chapters, as a reader asks: who, how, how good, how sure."""
    left, chapters = list(pieces), []
    for number, (title, patterns) in enumerate(CHAPTERS, 1):
        chosen: list[dict[str, Any]] = []
        for pattern in patterns:
            fits = [piece for piece in left if fnmatch(piece["name"], pattern)]
            chosen += fits
            left = [piece for piece in left if piece not in fits]
        if chosen:
            chapters.append({"title": title, "anchor": f"chapter-{number}", "pieces": chosen})
    return chapters


TITLES = {
    "case_worst": "The case with the lowest Dice", "case_best": "The case with the highest Dice",
    "case_median": "The case with the median Dice",
    "slice_profile_worst": "Area slice by slice, in the case with the lowest Dice",
    "slice_profile_median": "Area slice by slice, in the case with the median Dice",
    "waterfall_cv": "Errors of volume, case by case", "learning_curves": "Learning of all folds",
    "learning_curve_fold0": "Learning of fold 0", "dice_cv": "Dice, in every averaging (cv)",
    "dice_between_protocols": "Dice of the protocols, and their difference",
    "dice_readers_external": "Dice of all folds and their ensemble (external)",
    "detection": "Who sees it at all", "agreement": "Agreement of volumes",
    "regions": "Volume by region of the lungs", "panel": "The machine among the readers",
    "densities": "Densities of lungs and lesions",
    "agreement_both_positive": "Agreement where both readers see it", "lesions": "Lesion by lesion",
    "published": "The paper’s numbers beside this run’s", "checks": "Do the paper’s numbers fit?",
    "acquisition": "How the CTs were made", "failures": "Failures, and the cases read worst",
    "every_choice": "Every defensible choice",
    "every_choice_cv": "Every defensible choice",
    "every_choice_external": "Every defensible choice",
    "flow": "From the cases assessed to the cases used"}
"""What pieces are called whose names don't say it."""


def _title(name: str) -> str:
    """`fig6_agreement_cv` -> `Fig. 6 agreement cv`, or of `TITLES`."""
    if name in TITLES:
        return TITLES[name].replace("(cv)", "(cross-validation)")
    words = re.sub(r"[_-]+", " ", name).strip()
    words = re.sub(r"^(fig|table) ?0*(\w+)\b", lambda found: (
        f"{'Fig.' if found[1] == 'fig' else 'Table'} {found[2]}"), words)
    return words[:1].upper() + words[1:]


def _with_role(title: str, name: str) -> str:
    """The title of a piece that there is for each role, with the role in words."""
    for role, words in (("cv", "cross-validation"), ("external", "external")):
        if name.endswith(f"_{role}"):
            return f"{title.removesuffix(role).strip()} ({words})"
    return title


def _order(path: Path) -> list[Any]:
    """Names in the order a person counts: fig2 before fig10."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part)
            for part in re.split(r"(\d+)", path.stem) if part]


def _picture(png: Path) -> str:
    """The picture as a data address: the drawing, or the PNG where that is smaller."""
    svg = png.with_suffix(".svg")
    if svg.exists() and svg.stat().st_size < png.stat().st_size:
        return "data:image/svg+xml;base64," + base64.b64encode(svg.read_bytes()).decode()
    return "data:image/png;base64," + base64.b64encode(png.read_bytes()).decode()


def _figures(folder: Path) -> list[dict[str, Any]]:
    items = []
    for png in sorted(folder.glob("*.png"), key=_order):
        side = png.with_suffix(".json")
        words = json.loads(side.read_text(encoding="utf-8")) if side.exists() else {}
        title = _with_role(_title(png.stem), png.stem)
        items.append({"name": png.stem, "anchor": f"figure-{png.stem}", "title": title,
                      "source": _picture(png), "alt": words.get("alt") or _title(png.stem),
                      "caption": words.get("caption", "")})
    return items


def _tables(folder: Path) -> list[dict[str, Any]]:
    items = []
    for page in sorted(folder.glob("*.html"), key=_order):
        markup = page.read_text(encoding="utf-8").removeprefix(PAGE_HEAD)
        printed = PrintedTable(markup)
        titles = printed.titles or [_title(page.stem)]
        widest = max(map(len, printed.head + printed.body), default=0)
        items.append({"name": page.stem, "anchor": f"table-{page.stem}",
                      "title": _with_role(titles[0], page.stem), "markup": Markup(markup),
                      "wide": widest > MOST_UPRIGHT})
    return items


def flatten(values: Any, name: str = "") -> list[tuple[str, str]]:
    """Nested settings as rows: `training.momentum` -> `0.9`."""
    if isinstance(values, dict):
        return [row for key in sorted(values)
                for row in flatten(values[key], f"{name}.{key}" if name else str(key))]
    if isinstance(values, (list, tuple)):
        return [(name, ", ".join(str(value) for value in values))]
    return [(name, "–" if values is None else str(values))]


def write_report(run: Run) -> Path:
    """Write `report.html` from what lies in the run folder, and `tables.docx` beside it.

    Returns the path of the page.
    """
    table = run.path("measurements.csv")
    measured = measurements.read(table) if table.exists() else None
    record = read_study_record()
    if measured is not None:
        write_record_tables(run, measured, record)
    chapters = order_pieces([*_tables(run.folder / "tables"), *_figures(run.folder / "figures")])
    methods = describe_methods(run.config, record)
    answered = answer_checklists(run, measured, record)
    page = Environment(autoescape=True, trim_blocks=True).from_string(TEMPLATE).render(
        run_id=run.run_id, synthetic=run.synthetic, chapters=chapters, facts=flatten(run.info()),
        warnings=list_warnings(run, measured), methods=methods, sources=cite(" ".join(methods)),
        checklists=[{"name": name, "title": CHECKLISTS[name], "source": SOURCES[name],
                     "answered": some, "said": ", ".join(
                         f"{n} {status}" for status, n in counts(some).items() if n)}
                    for name, some in answered.items()],
    )
    write_word(run, [run.folder / "tables" / f"{piece['name']}.html" for chapter in chapters
                     for piece in chapter["pieces"] if "markup" in piece])
    write_checklists(run, answered)
    target = run.path("report.html")
    write_text(target, page)
    return target
