"""report.html in a real browser: it asks for nothing beyond itself, and prints to a handful of
pages."""

import re

import pytest

from deeplung_nb.report import figures, html, published, tables
from deeplung_nb.runs.config import load_profile
from deeplung_nb.stats import summary
from deeplung_nb.stats.dice import dice_table
from tests.browser import ARGUMENTS, CHROMIUM
from tests.report.fakes import fake_measurements, fake_timings

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]
FIGURES = ("fig1_preparation", "fig3_cross_validation", "learning_curves", "fig4_ground_glass",
           "fig5_both_classes", "case_worst", "fig6_agreement_cv", "fig_i_agreement_external")


@pytest.fixture
def page_file(run):
    """The tables of a whole run, and as many large figures."""
    measured, timings = fake_measurements(), fake_timings()
    figure = figures.draw_agreement(*summary.agreement_results(measured, "cv"))
    for name in FIGURES:
        figures.save_figure(figure, run, name, "Differences of volumes, and how they go together.")
    agreement, dice = summary.agreement_table(measured), dice_table(measured)
    found = published.compare(None, published.measure(measured, load_profile("paper"), timings))
    for name, shown, frame in (("agreement", tables.format_agreement(agreement), agreement),
                               ("dice_cv", tables.format_dice(dice), dice),
                               ("published", tables.format_comparison(found), found)):
        tables.save_table(shown, frame, run, name)
    return html.write_report(run)


@pytest.mark.nightly
def test_the_report_asks_for_nothing_and_prints_to_a_handful_of_pages(page_file):
    with playwright.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = chromium.new_page(viewport={"width": 1100, "height": 800})
        asked, said = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto(page_file.as_uri())
        assert [url for url in asked
                if not url.startswith("data:") and url != page_file.as_uri()] == []
        assert said == []
        # Whatever the contents name is there; nothing is wider than the page.
        broken = page.evaluate("[...document.querySelectorAll('nav a')].filter("
                               "a => !document.querySelector(a.getAttribute('href'))).length")
        assert broken == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("[...document.images].every(i => i.naturalWidth > 0 && i.alt)")
        pages = len(re.findall(rb"/Type\s*/Page[^s]", page.pdf(prefer_css_page_size=True)))
        assert 5 <= pages <= len(FIGURES) + 16  # a page a large figure, text, tables, 72 items
        chromium.close()
