"""The site, README, pages, notebooks and every function: .venv/bin/python tools/make_site.py [TO]

HTML that needs no internet, in `site/` by default. The notebooks that need no torch are shown as
they ran from the recorded example run, the others as they are written; with `--quick` all of them.
"""

import os
import pkgutil
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import deeplung_nb
from deeplung_nb.reproduce import run_notebook
from deeplung_nb.runs import read_run

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("docs/widgets.md", "docs/corrections.md", "docs/statistics.md", "docs/checklists.md",
         "docs/segment.md",
         "docs/privacy.md", "docs/numbers.md",
         "docs/glossary.md", "docs/teaching.md", "docs/gallery.md", "docs/paper.md",
         "docs/model_card.md", "docs/ablation.md",
         "docs/anatomy.md", "docs/variants.md", "docs/phantoms.md", "docs/performance.md",
         "docs/scale.md")
ABOUT = ("data_manifests/README.md", "CONTRIBUTING.md", "CHANGELOG.md")
EXECUTED = ("01_cohorts", "07_agreement", "08_figures", "09_tables", "10_look_at_cases",
            "11_follow_up", "12_harder_tables", "E1_solutions")
"""What the example run holds enough for; no torch is needed."""
ROOMS = {"": "The way in", "measurements": "Tables of readings", "runs": "Runs",
         "imaging": "From files to scans", "cohorts": "Cohorts", "stats": "Statistics",
         "network": "The network", "reading": "One CT, read",
         "learning": "Training and the study", "report": "Figures, tables, words",
         "scaling": "Many CTs", "corrections": "Drawing, and reader studies",
         "workers": "Processes", "widgets": "Widgets", "course": "Exercises"}
PACKAGES_OF_FUNCTIONS = ("deeplung_nb.measurements", "deeplung_nb.runs")
CONF = '''
project, author, version = "deeplung_nb", "the deeplung_nb maintainers", {version!r}
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme, html_title = "furo", f"deeplung_nb {{version}}"
html_theme_options = {{"sidebar_hide_name": False}}
html_show_sourcelink = False
html_static_path, html_css_files = ["static"], ["site.css"]
nb_execution_mode = "off"
nb_ipywidgets_js = {{}}                        # would call a server; each view carries a picture
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]
myst_heading_anchors = 3
napoleon_google_docstring, napoleon_use_rtype = False, False
napoleon_custom_sections = ["Formula", "Source", "Checked against"]
autodoc_default_options = {{"exclude-members": "set"}}  # matplotlib writes one for each artist
autodoc_member_order, autodoc_typehints = "bysource", "none"
default_role = "code"


def setup(app):
    app.connect("autodoc-process-docstring", plain, priority=1)


def plain(app, what, name, obj, options, lines):
    """The docstrings are plain text with code in backticks: |x| is an amount, no reference."""
    for number, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            parts = line.split("`")
            parts[::2] = [part.replace("|", "\\\\|") for part in parts[::2]]
            lines[number] = "`".join(parts)


suppress_warnings = ["mystnb.unknown_mime_type", "docutils",
                     "myst.header", "autodoc", "ref.python"]
'''


CSS = """.content { width: 62em; }
.cell_output pre { white-space: pre-wrap; }
.cell_output { overflow-x: auto; }
"""


def modules() -> dict[str, list[str]]:
    """Room -> its public modules, as `deeplung_nb.stats.dice`."""
    found: dict[str, list[str]] = {room: [] for room in ROOMS}
    for module in pkgutil.walk_packages(deeplung_nb.__path__, "deeplung_nb."):
        parts = module.name.split(".")[1:]
        room = parts[0] if len(parts) > 1 or module.ispkg else ""
        # A package has a page only where it holds functions of its own.
        if room in found and not any(part.startswith("_") for part in parts) \
                and (not module.ispkg or module.name in PACKAGES_OF_FUNCTIONS):
            found[room].append(module.name)
    return found


def write_api(source: Path) -> None:
    """A page for each room, with the docstring of every public name."""
    for room, names in modules().items():
        lines = [f"# {ROOMS[room]}", ""]
        if not room:
            names = ["deeplung_nb", *names]
        for name in names:
            short = name.removeprefix("deeplung_nb.")
            lines += [f"## {short}", "", "```{eval-rst}", f".. automodule:: {name}",
                      "   :members:", "```", ""]
        path = source / "api" / f"{room or 'top'}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines), encoding="utf-8")


def toctree(caption: str, pages: list[str]) -> str:
    """A part of the sidebar."""
    return "\n".join(["```{toctree}", ":hidden:", ":maxdepth: 1", f":caption: {caption}", "",
                      *(page.removesuffix(".md").removesuffix(".ipynb") for page in pages), "```",
                      ""])


def stage(source: Path, quick: bool) -> None:
    """Lay out everything that the generator reads, in the order of the repository."""
    notebooks = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")
                       if path.stem not in ("dashboard", "E2_rehearsal"))
    for name in (*PAGES, *ABOUT):
        (source / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "docs" / "images", source / "docs" / "images")
    for name in ("data_manifests/published.csv", "data_manifests/cohorts.toml", "LICENSE",
                 "CITATION.cff", "deeplung_nb/weights/LICENSE"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    (source / "notebooks").mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        example = Path(scratch) / "example"
        shutil.copytree(ROOT / "results" / "example", example)
        run = read_run(example)
        for name in notebooks:
            book = ROOT / "notebooks" / f"{name}.ipynb"
            if name in EXECUTED and not quick:
                print(f"notebook {name}", flush=True)
                run_notebook(book, run)
                book = run.path("notebooks", book.name)
            shutil.copy(book, source / "notebooks")
    write_api(source)
    parts = (toctree("Use it", list(PAGES[:6])),
             toctree("Notebooks", [f"notebooks/{name}" for name in notebooks]),
             toctree("What was measured", list(PAGES[6:])),
             toctree("Every function", [f"api/{room or 'top'}" for room in ROOMS]),
             toctree("About", list(ABOUT)))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (source / "index.md").write_text(readme + "\n" + "\n".join(parts), encoding="utf-8")
    (source / "static").mkdir()
    (source / "static" / "site.css").write_text(CSS, encoding="utf-8")
    (source / "conf.py").write_text(CONF.format(version=deeplung_nb.__version__),
                                    encoding="utf-8")


def main(target: Path, quick: bool = False) -> int:
    """Build; the generator's exit status, 0 where no link is broken."""
    if target.is_dir() and any(target.iterdir()) and not (target / "objects.inv").is_file():
        raise SystemExit(f"error: {target} is not empty, and no site: nothing there is removed. "
                         "Choose another folder")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.mkdir()
        stage(source, quick)
        shutil.rmtree(target, ignore_errors=True)
        status = subprocess.run(
            [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html",
             str(source), str(target)], check=False,
            env={**os.environ, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}).returncode
    shutil.rmtree(target / ".doctrees", ignore_errors=True)
    print(f"site  {target / 'index.html'}")
    return status


if __name__ == "__main__":
    given = [word for word in sys.argv[1:] if word != "--quick"]
    sys.exit(main(Path(given[0] if given else ROOT / "site").resolve(), "--quick" in sys.argv))
