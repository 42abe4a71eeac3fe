"""Pictures of the widgets for the docs: .venv/bin/python tools/make_widget_images.py RUN

In JupyterLab, light and dark, of a synthetic run: the viewer as overlay and as agreement map, the
explorer, the cohort browser, the training monitor, the brush; and the run's living page, from disk.
Needs Debian's chromium.
"""

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from deeplung_nb.runs import read_run

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tests.browser import ARGUMENTS, CHROMIUM, Watched, server, write_notebook  # noqa: E402

VIEWER = """
from deeplung_nb import measurements
from deeplung_nb.report.panels import choose_case
from deeplung_nb.runs import read_run
from deeplung_nb.widgets import view_case
run = read_run({run!r})
chosen = choose_case(measurements.read(run.measurements_csv), "median_both", role="cv")
view_case(run, chosen.cohort, chosen.case_id, layout={layout!r})
"""
EXPLORER = """
from deeplung_nb.report.explore import LeftOut, Question
from deeplung_nb.widgets import AgreementExplorer
AgreementExplorer({run!r} + "/measurements.csv", question=Question(structure="ggo",
    limits="regression", left_out=(LeftOut("phantom", "P011", "breathing"),)))
"""
BROWSER = """
from deeplung_nb.runs import read_run
from deeplung_nb.widgets import CohortBrowser
b = CohortBrowser(read_run({run!r})); b._grid.selected_rows = [3]
b
"""
MONITOR = """
from deeplung_nb.widgets import TrainingMonitor
TrainingMonitor.from_history({run!r} + "/fold-0/history.csv")
"""
CORRECTOR = """
from deeplung_nb.imaging.lungs import LungMask
from deeplung_nb.imaging.phantom.make import make_phantom
from deeplung_nb.imaging.phantom.spec import read_specs
from deeplung_nb.runs.registry import cohort_files
from deeplung_nb.widgets import correct
p = make_phantom(read_specs(cohort_files("phantom")[0])[11])
c = correct(p.scan, reader="AB", folder="readings", start=p.expert, show={{"colleague": p.truth}},
            lungs=LungMask.like(p.scan, p.lungs, "reference"))
c
"""
LIGHT, DARK = "JupyterLab Light", "JupyterLab Dark"
PICTURES = {
    "viewer_light": (LIGHT, VIEWER, "overlay", ".dl-viewer"),
    "viewer_dark": (DARK, VIEWER, "agreement", ".dl-viewer"),
    "corrector": (DARK, CORRECTOR, "", ".dl-viewer"),
    "explorer": (LIGHT, EXPLORER, "", ".dl-explorer"),
    "cohort_browser": (DARK, BROWSER, "", ".dl-explorer"),
    "monitor": (LIGHT, MONITOR, "", ".dl-explorer"),
}
PAGE = "living_page"


def _wait(watched: Watched, selector: str) -> None:
    if selector == ".dl-viewer":
        watched.wait_for_viewer()
    watched.page.wait_for_selector(f"{selector} img, {selector} canvas", timeout=90_000)
    watched.page.wait_for_timeout(3000)


def _in_lab(source: Path, browser: Any, name: str) -> bytes:
    """A widget in JupyterLab."""
    theme, cell, layout, selector = PICTURES[name]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_notebook(folder / "n.ipynb", cell.format(run=str(source.resolve()), layout=layout))
        with server(folder, "lab", theme=theme) as address:
            watched = Watched(browser)
            watched.page.set_viewport_size({"width": 1400, "height": 1700})
            watched.run_cells(address, "n.ipynb")
            _wait(watched, selector)
            return watched.page.locator(selector).first.screenshot()


def _from_disk(source: Path, browser: Any) -> bytes:
    """explore.html, with the CT of the case opened without which the bias would change most."""
    page = browser.new_page(viewport={"width": 1280, "height": 1940})
    page.goto((source / "explore.html").resolve().as_uri())
    page.wait_for_selector("body[data-ready=yes]")
    page.locator("[aria-label=Cases] tbody tr", has_text="here").first.locator("button").click()
    page.wait_for_selector(".dp-case canvas[data-index]")
    page.wait_for_timeout(1000)
    page.evaluate("scrollTo(0, 0)")
    return page.screenshot()


def main(source: Path, names: list[str]) -> None:
    """Write docs/images/<name>.png of all pictures, or of those that are named."""
    if not read_run(source).synthetic:
        sys.exit(f"{source}: a run of real cases; only synthetic ones may be shown")
    for name in names or (*PICTURES, PAGE):
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            shot = _from_disk(source, browser) if name == PAGE else _in_lab(source, browser, name)
        picture = Image.open(io.BytesIO(shot)).convert("RGB")
        small = picture.quantize(256, method=Image.Quantize.FASTOCTREE)
        small.save(ROOT / "docs" / "images" / f"{name}.png", optimize=True)
        print(ROOT / "docs" / "images" / f"{name}.png", picture.size)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
