"""axe-core finds nothing, of any impact, in what we show: every widget, light and dark."""

import pytest
from nbconvert import HTMLExporter
from nbformat import v4

from tests.browser import CHROMIUM, Watched, served_dashboard, server, write_notebook
from tests.cells import shown_in_a_cell
from tests.test_packaging import EXAMPLE
from tests.test_widgets_browser import CASE

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]
WIDGETS = {
    "viewer": (CASE, ".dl-canvas[data-index]"),
    "explorer": (f"from deeplung_nb.widgets import AgreementExplorer\n"
                 f"AgreementExplorer({str(EXAMPLE / 'measurements.csv')!r})", ".dl-points img"),
    "cohort": ("from deeplung_nb.runs import read_run\n"
               "from deeplung_nb.widgets import CohortBrowser\n"
               f"CohortBrowser(read_run({str(EXAMPLE)!r}))", "table.dataTable tbody tr"),
    "monitor": ("from deeplung_nb.widgets import TrainingMonitor\n"
                f"TrainingMonitor.from_history({str(EXAMPLE / 'fold-0')!r})", ".dl-points img"),
}
"""Name -> a cell, and what is there once it has been drawn."""


def violations(page, within=None):
    """What axe-core says, one line each: rule, element, and what is wrong with it."""
    page.wait_for_timeout(3500)  # roles of parts that came later are set by then
    found = axe.Axe().run(page, context=within)
    return [f"{rule['id']} ({rule['impact']}): {node['html'][:120]} {node['failureSummary'][:160]}"
            for rule in found.response["violations"] for node in rule["nodes"]]


@pytest.mark.parametrize("theme", [
    "Light", pytest.param("Dark", marks=pytest.mark.nightly)])
def test_no_widget_breaks_a_rule(tmp_path, browser, theme):
    write_notebook(tmp_path / "all.ipynb", *(cell for cell, _ in WIDGETS.values()))
    with server(tmp_path, "lab", theme=f"JupyterLab {theme}") as address:
        watched = Watched(browser)
        watched.run_cells(address, "all.ipynb", len(WIDGETS))
        for _, drawn in WIDGETS.values():
            watched.page.locator(drawn).first.scroll_into_view_if_needed()
        for within in (".dl-viewer", ".dl-explorer"):
            assert violations(watched.page, within) == []
        watched.page.close()


def cut_words(page):
    """Texts of buttons, labels and tabs that are wider than their place."""
    return page.evaluate("""() => [...document.querySelectorAll(
        'button, label, .widget-label, .lm-TabBar-tabLabel, .dl-caption, .dl-notes, legend')]
        .filter(e => e.offsetParent && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0
                && getComputedStyle(e).overflowX !== 'visible')
        .map(e => e.innerText)""")


@pytest.mark.nightly
def test_the_dashboard_breaks_none_and_cuts_no_word_on_a_narrow_page(browser):
    with served_dashboard(EXAMPLE) as address:
        watched = Watched(browser)
        page = watched.page
        page.goto(address)
        page.wait_for_selector(".dl-points img")
        assert violations(page) == []
        page.get_by_role("tab", name="cases").click()
        page.wait_for_selector("table.dataTable tbody tr")
        assert violations(page) == []
        page.set_viewport_size({"width": 480, "height": 1000})
        page.wait_for_timeout(1000)
        assert cut_words(page) == []
        page.get_by_role("tab", name="agreement").click()
        page.wait_for_timeout(1000)
        assert cut_words(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.close()


def test_every_picture_of_an_exported_notebook_has_its_words(tmp_path):
    from deeplung_nb.report import figures
    from deeplung_nb.widgets import AgreementExplorer, TrainingMonitor
    from tests.report.test_style import SPLITS

    figure = figures.draw_splits(SPLITS)
    outputs = [figure._repr_mimebundle_()]
    for widget in (AgreementExplorer(EXAMPLE / "measurements.csv"),
                   TrainingMonitor.from_history(EXAMPLE / "fold-0")):
        outputs += shown_in_a_cell(widget)
    cells = [v4.new_code_cell("x", outputs=[v4.new_output("display_data", data=data,
                                                          metadata=metadata)])
             for data, metadata in outputs]
    page, _ = HTMLExporter().from_notebook_node(v4.new_notebook(cells=cells))
    assert page.count("<img") == 3
    assert "No description has been provided" not in page
    for words in (figure.alt, "30 pairs", "Training after"):
        assert words in page
