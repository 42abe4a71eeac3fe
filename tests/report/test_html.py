"""The page that binds all: report.html, and the Word file."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys

import docx
import pytest

from deeplung_nb.report import (
    counts,
    figures,
    html,
    tables,
)
from deeplung_nb.report.style import save_figure
from deeplung_nb.stats import summary
from deeplung_nb.stats.dice import dice_table
from tests.report.fakes import HOSTILE, SPLITS, Page, agreement_figure, manifest


def test_report_is_one_page_that_needs_no_network(run, measured):
    save_figure(figures.draw_splits(SPLITS), run, "fig3", caption="Fig. 3. Cross-validation.")
    frame = counts.count_slices(measured)
    tables.save_table(tables.format_slices(frame), frame, run, "table2_slices")
    run.path("run.json").write_text(json.dumps({"config": {"seed": 7}}), encoding="utf-8")
    first = html.write_report(run).read_bytes()
    assert html.write_report(run).read_bytes() == first
    page = Page(first.decode())
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe")
        for name in ("src", "href"):
            value = attributes.get(name, "#reading")
            assert value.startswith("data:image/") or value[1:] in anchors \
                or (run.folder / value).is_file(), value
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 1
    assert "Cross-validation of 10 cases" in pictures[0]["alt"]
    content = base64.b64decode(pictures[0]["src"].split(",")[1])
    assert content.startswith((b"\x89PNG", b"<?xml"))
    assert "config.seed" in page.words
    assert "Synthetic cohort" in page.words


def test_report_goes_from_the_cases_to_the_agreement(run, measured):
    figure = agreement_figure(measured)
    save_figure(figure, run, figures.AGREEMENT_NAMES["cv"])
    save_figure(figures.draw_splits(SPLITS), run, "fig3_cross_validation")
    save_figure(figures.draw_splits(SPLITS), run, "zz_of_a_user")
    for name, frame, draw in (("agreement", summary.agreement_table(measured),
                               tables.format_agreement),
                              ("table2_slices", counts.count_slices(measured),
                               tables.format_slices)):
        tables.save_table(draw(frame), frame, run, name)
    measured.to_csv(run.path("measurements.csv"), index=False)
    page = Page(html.write_report(run).read_text(encoding="utf-8"))
    pieces = [attributes["id"] for tag, attributes in page.tags if tag == "section"
              and attributes.get("id", "").startswith(("table-", "figure-"))]
    assert pieces == ["table-table2_slices", "table-acquisition", "figure-fig3_cross_validation",
                      "table-agreement", "figure-fig6_agreement_cv", "table-every_choice",
                      "figure-every_choice_cv", "figure-every_choice_external",
                      "table-failures", "figure-zz_of_a_user"]
    assert "Training (cross-validation): 20 patients; intervals are wide" in page.words
    assert "Fig. 6 agreement (cross-validation)" in page.words
    assert "window of 11 slices" in page.words
    assert "the same folds, by the same loss and optimiser: 2-D (16 to 256" in page.words


@pytest.mark.nightly
def test_word_file_holds_the_printed_tables(run, measured):
    frame = dice_table(measured)
    tables.save_table(tables.format_dice(frame), frame, run, "dice_cv")
    html.write_report(run)
    document = docx.Document(run.path("tables.docx"))
    words = "\n".join(paragraph.text for paragraph in document.paragraphs)
    assert "Dice of automatic against expert, in every averaging" in words
    assert "no case is a patient" in words
    table, = document.tables
    cells = [[cell.text for cell in row.cells] for row in table.rows]
    assert cells[0][-3:] == ["Cases with an empty mask"] * 3  # one cell over three columns
    assert cells[1][:2] == cells[0][:2] == ["", "Averaging"]
    assert cells[1][-3:] == ["both", "expert", "automatic"]
    assert len(cells) == 2 + len(frame) + frame.groupby(["cohort", "role"]).ngroups
    row = next(row for row in cells if row[1:3] == ["per case", "both empty: left out"])
    first = frame[(frame["averaging"] == "per case") & (frame["empty"] == "nan")].iloc[0]
    assert row[4].startswith(f"{first['dice']:.3f} [")


def test_report_asks_a_browser_for_nothing_outside_its_file(run, measured):
    """In a real browser: one request, for the page; light and dark can both be read."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser_path is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    save_figure(agreement_figure(measured), run, figures.AGREEMENT_NAMES["cv"])
    frame = counts.count_slices(measured)
    tables.save_table(tables.format_slices(frame), frame, run, "table2_slices")
    page_file = html.write_report(run)
    asked, said = [], []
    with sync_api.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=browser_path, args=[
            "--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        for scheme, paper in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(21, 24, 28)")):
            page = browser.new_page(color_scheme=scheme)
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda message: said.append(message.text))
            page.goto(page_file.as_uri())
            page.wait_for_load_state("networkidle")
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
            assert page.evaluate("document.images[0].naturalWidth") > 0
        browser.close()
    assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()] * 2
    assert said == []


def test_no_value_can_inject_markup(run):
    frame = counts.count_characteristics(manifest())
    tables.save_table(tables.format_characteristics(frame), frame, run, "table1")
    splits = SPLITS.assign(case_id=HOSTILE)
    save_figure(figures.draw_splits(splits), run, "fig3", caption=HOSTILE,
                alt='" onload="x' + HOSTILE)
    run.path("run.json").write_text(json.dumps({HOSTILE: [HOSTILE]}), encoding="utf-8")
    page = Page(html.write_report(run).read_text(encoding="utf-8"))
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.words.count(HOSTILE) == 4


def test_report_of_an_empty_run_says_so(run):
    page = html.write_report(run).read_text(encoding="utf-8")
    assert "No table and no figure has been written yet" in page
    assert "Nothing has been measured yet" in page


def test_report_imports_without_torch():
    code = ("import sys, deeplung_nb.report.figures, deeplung_nb.report.tables, "
            "deeplung_nb.report.published, deeplung_nb.report.html; "
            "sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
