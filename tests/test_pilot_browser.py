"""A reader study as two readers sit it: six synthetic chests, from plan to paragraph, offline."""

import sys

import pytest

from deeplung_nb.corrections.journal import read_journal
from deeplung_nb.corrections.study import ReaderStudy
from deeplung_nb.reading.study_table import study_table
from deeplung_nb.report.reader_study import methods_text, results_text
from tests.browser import CHROMIUM, Watched, server, write_notebook

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser, pytest.mark.nightly,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]
CASES = [f"P00{k}" for k in range(1, 7)]
PLAN = """
import numpy as np
from deeplung_nb.corrections.study import ReaderStudy, StudyCase
from deeplung_nb.imaging.phantom.make import make_phantom
from deeplung_nb.imaging.phantom.spec import read_specs
from deeplung_nb.imaging.scan import LesionMask
from deeplung_nb.runs.registry import cohort_files

SPECS = {spec.case_id: spec for spec in read_specs(cohort_files("phantom")[0])}

def load(name):
    made = make_phantom(SPECS[name].resampled(64, 24))
    automatic = LesionMask.like(made.scan, np.roll(made.truth.labels, 2, axis=1))
    return StudyCase(made.scan, automatic, made.lungs)

study = ReaderStudy("study", [f"P00{k}" for k in range(1, 7)], ["AB", "CD"], load, seed=4,
                    arms=("unaided",), repeats=1 / 6, washout_days=0,
                    hypothesis="readers agree", margin="20 mL")
"""
DESK = """
from plan import study
from deeplung_nb.widgets import ReadingDesk
ReadingDesk(study, {!r})
"""
SUMS = """
from plan import study
from deeplung_nb.reading.study_table import study_table
from deeplung_nb.report.reader_study import grras_table, methods_text, results_text

table = study_table(study)
print(methods_text(study), results_text(table))
print(len(grras_table(study, table)), "items")
"""


class Desk(Watched):
    """A reader at the desk."""

    def wait_for(self, words):
        self.page.wait_for_function(
            "(words) => document.querySelector('.dl-kept')?.textContent.includes(words)", arg=words)

    def begin(self, strokes):
        self.page.get_by_role("button", name="Next case").click()
        self.wait_for(f"{strokes} stroke")
        self.wait_for_viewer()

    def click(self, across, down):
        """At a share of the large picture's width and height."""
        box = self.page.locator(".dl-canvas").first.bounding_box()
        self.page.mouse.click(box["x"] + across * box["width"], box["y"] + down * box["height"])

    def draw(self, n, first=0):
        """Some dots over the right lung, more down each time."""
        for k in range(first, n):
            self.click(0.3, 0.35 + 0.1 * k)
            self.wait_for(f"{k + 1} stroke{'s' if k else ''}, all on disk")

    def finish(self):
        self.page.get_by_role("button", name="Finish reading").click()
        self.wait_for("finished and locked")


def test_a_pilot_runs_from_plan_to_paragraph_and_a_killed_kernel_costs_no_kept_stroke(
        tmp_path, browser, monkeypatch):
    (tmp_path / "plan.py").write_text(PLAN)
    write_notebook(tmp_path / "AB.ipynb", DESK.format("AB"), "import os; os._exit(1)")
    write_notebook(tmp_path / "CD.ipynb", DESK.format("CD"))
    write_notebook(tmp_path / "sums.ipynb", SUMS)
    with server(tmp_path, "lab") as lab:
        seen = Desk(browser)
        seen.run_cells(lab, "AB.ipynb")
        seen.bear_deaths()
        for number in range(7):
            seen.begin(0)
            if number == 2:  # in the middle of a case
                seen.draw(2)
                seen.run_cell(1)
                seen.wait_for("The kernel is gone")
                seen.page.wait_for_selector("text=(ipykernel) | Idle")
                seen.run_cell(0)
                seen.page.get_by_text("2 of 7 readings finished").wait_for()
                seen.begin(2)
                seen.draw(3, first=2)
            else:
                seen.draw(1 + number % 3)
            seen.finish()
        seen.page.get_by_role("button", name="Next case").click()
        seen.page.get_by_text("all is read, thank you").wait_for()
        assert seen.elsewhere == []
        seen.page.close()
    with server(tmp_path, "voila", notebook="CD.ipynb") as voila:
        seen = Desk(browser)
        seen.page.goto(voila)
        for number in range(7):
            seen.begin(0)
            seen.draw(1 + (number + 1) % 3)
            seen.finish()
        seen.page.get_by_role("button", name="Next case").click()
        seen.page.get_by_text("all is read, thank you").wait_for()
        # Voila's own page asks for two style sheets of icons, and goes on without them.
        assert all("fontawesome" in url for url in seen.elsewhere)
        assert not [message for message in seen.messages if "ERR_FAILED" not in message]
        seen.page.close()
    with server(tmp_path, "lab") as lab:
        seen = Desk(browser)
        seen.run_cells(lab, "sums.ipynb")
        seen.page.get_by_text("15 items").wait_for()
        said = " ".join(seen.page.locator(".jp-OutputArea-output").first.inner_text().split())
        seen.page.close()
    # The same sums without any page; and what was drawn, by the journals alone.
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    study: ReaderStudy = __import__("plan").study
    del sys.modules["plan"]
    strokes = {reader: [sum(event["event"] == "stroke" for event in read_journal(
        study.place(session) / "journal.jsonl")[0]) for session in study.of(reader)]
        for reader in ("AB", "CD")}
    assert strokes == {"AB": [1, 2, 3, 1, 2, 3, 1], "CD": [2, 3, 1, 2, 3, 1, 2]}
    table = study_table(study)
    assert sorted(set(table.case_id)) == CASES
    assert (table[table.structure == "ggo"].volume_ml > 0).all()
    paragraph = f"{methods_text(study)} {results_text(table)}"
    assert " ".join(f"{paragraph}\n15 items".split()) == said
    for words in ("2 readers (AB, CD) read 6 cases", "14 readings, all of them read",
                  "Between readers (unaided, 6 cases) the intraclass correlation"):
        assert words in said
    assert {path.name for path in (tmp_path / "study").iterdir()} == {"plan.json", "readings"}
