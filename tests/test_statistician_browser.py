"""Explorer, cohort browser, monitor and dashboard as people meet them: a real browser, offline."""

import re

import pytest

from deeplung_nb import measurements
from deeplung_nb.report.numbers import number
from deeplung_nb.stats import agreement
from tests.browser import CHROMIUM, Watched, served_dashboard, server, write_notebook
from tests.test_packaging import EXAMPLE

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]
EXPLORER = f"""
from deeplung_nb.widgets import AgreementExplorer
e = AgreementExplorer({str(EXAMPLE / 'measurements.csv')!r})
e
"""
SAME = """
exec(e.export()[4].read_text())
import numpy as np
print("same numbers:", found.statistics.equals(e.found.statistics), len(found.left_out))
"""
TRAINING = """
import sys; sys.path.insert(0, {root!r})
from tests.test_train import SMALL, make_cases, assert_same_weights
from deeplung_nb.learning.train import train
from deeplung_nb.widgets import TrainingMonitor
from pathlib import Path
import time
def slow(watchers):
    class Slowly(type(watchers[0])):
        def step(self, epoch, loss):
            time.sleep({pause})
            return super().step(epoch, loss)
    return train(make_cases(), make_cases(1), SMALL, Path("stopped"), seed=5, progress=False,
                 watchers=[Slowly(watchers[0].monitor)])
m = TrainingMonitor(slow, example=make_cases(1)[0])
m
"""
CHECK = """
train(make_cases(), make_cases(1), SMALL, Path("whole"), seed=5, progress=False)
assert_same_weights(Path("whole"), Path("stopped")); print("the same weights")
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    write_notebook(folder / "explorer.ipynb", EXPLORER, SAME)
    root = str(EXAMPLE.parent.parent)
    write_notebook(folder / "monitor.ipynb", TRAINING.format(root=root, pause=0.7), CHECK)
    with server(folder, "lab") as address:
        yield address


@pytest.fixture(scope="module")
def seen(lab, browser):
    watched = Watched(browser)
    watched.run_cells(lab, "explorer.ipynb")
    watched.page.wait_for_selector(".dl-points img")
    yield watched
    watched.page.close()


def choose(watched, label, option):
    """One of the explorer's choices, by the words beside it."""
    box = watched.page.locator(".widget-dropdown", has_text=re.compile(f"^{label}"))
    box.locator("select").select_option(label=option)


def row(watched, name):
    """The cells of a statistic."""
    return watched.page.locator(".dl-explorer tr", has=watched.page.locator(
        f"td:text-is('{name}')")).first.locator("td").all_inner_texts()


def pair(structure):
    table = measurements.read(EXAMPLE / "measurements.csv")
    return measurements.pair(table, "expert", "model", structure, role="cv")


@pytest.mark.nightly
def test_another_structure_changes_n_and_bias_to_what_the_statistics_say(seen):
    for structure, title in (("high_opacity", "High opacity"), ("ggo", "Ground-glass opacity")):
        expected = agreement.bland_altman(pair(structure).reference, pair(structure).test)
        choose(seen, "structure", title)
        words = number(expected.bias)
        seen.page.wait_for_selector(f"td:text-is('{words} mL')")
        assert row(seen, "bias")[1] == f"{words} mL"
        assert row(seen, "bias")[-1] == str(expected.n)


def test_a_point_tells_its_case_and_a_click_opens_it(seen):
    box = seen.page.locator(".dl-points")
    frame = box.locator("img").bounding_box()
    # By keyboard to the first point; then by pointer to where it is.
    box.focus()
    seen.page.keyboard.press("ArrowRight")
    seen.page.wait_for_selector(".dl-points[data-case]")
    label = box.get_attribute("data-case")
    case = pair("ggo").case_id[0]
    assert label.startswith(f"phantom {case}\n")
    place = seen.page.locator(".dl-points-ring").bounding_box()
    seen.page.keyboard.press("Escape")
    x, y = (place[a] + place[b] / 2 for a, b in (("x", "width"), ("y", "height")))
    assert frame["x"] < x < frame["x"] + frame["width"]
    seen.page.mouse.move(x, y)
    seen.page.wait_for_selector(".dl-points-tip:visible")
    seen.page.mouse.click(x, y)
    seen.page.wait_for_selector(f"b:text-is('phantom {case}')")


def test_leaving_a_case_out_changes_numbers_and_export(seen):
    n = int(row(seen, "bias")[-1])
    seen.page.get_by_role("button", name="leave out").click()
    seen.page.wait_for_selector("text=left out without a reason")
    seen.page.locator("input[placeholder^=reason]").fill("moved")
    seen.page.keyboard.press("Tab")
    seen.page.get_by_role("button", name="leave out").click()
    seen.page.wait_for_selector("text=take back")
    assert row(seen, "bias")[-1] == str(n - 1)
    assert seen.page.locator(".dl-notes", has_text="(moved)").count()


def test_the_exported_cell_gives_the_same_numbers_in_the_kernel(seen):
    seen.run_cell(1)
    seen.page.wait_for_selector("text=same numbers: True 1")


def test_all_of_it_has_a_name_and_stayed_here(seen):
    unnamed = seen.page.evaluate(
        "() => [...document.querySelectorAll('.dl-explorer select, .dl-explorer button, "
        ".dl-explorer input')].filter(e => !(e.title || e.innerText || e.placeholder || "
        "e.labels?.length || e.closest('.widget-dropdown, .widget-checkbox')?.innerText)).length")
    assert unnamed == 0
    assert "Arrow keys" in seen.page.locator(".dl-points").get_attribute("aria-label")
    assert seen.elsewhere == []
    assert seen.messages == []


@pytest.mark.nightly
def test_a_training_is_stopped_and_gone_on_with_from_the_page(lab, browser):
    watched = Watched(browser)
    watched.run_cells(lab, "monitor.ipynb")
    page = watched.page
    page.get_by_role("button", name="train").click(timeout=60_000)
    page.wait_for_selector("text=/training: step [2-9]/")
    page.get_by_role("button", name="stop").click()
    page.wait_for_selector("text=/stopped: step/")
    page.get_by_role("button", name="go on").click()
    page.wait_for_selector("text=/finished: step 6 of 6/")
    watched.run_cell(1)
    page.wait_for_selector("text=the same weights")
    assert watched.messages == []
    page.close()


@pytest.mark.nightly
def test_the_dashboard_in_voila_filters_picks_and_opens(browser):
    with served_dashboard(EXAMPLE) as address:
        watched = Watched(browser)
        watched.page.goto(address)
        watched.page.wait_for_selector(".dl-points img")
        watched.page.get_by_role("tab", name="cases").click()
        watched.page.wait_for_selector("table.dataTable tbody tr")
        watched.page.locator("input[placeholder^=search]").fill("P017")
        watched.page.wait_for_selector("text=1 of 42 cases")
        watched.page.locator("table.dataTable tbody tr", has_text="P017").first.click()
        watched.page.wait_for_selector("b:text-is('P017'):visible")
        assert watched.elsewhere == []
        # The plot knows the case that was picked in the list, and the button names it.
        watched.page.get_by_role("tab", name="agreement").click()
        picked = watched.page.locator(".dl-points").first
        assert picked.get_attribute("data-picked").startswith("phantom P017\n")
        assert watched.page.locator(".dl-points-kept i").count() >= 3  # in each panel
        watched.page.get_by_role("button", name="leave out P017").wait_for()
        # And the other way round: another case of the plot, by its keys.
        watched.page.get_by_role("tab", name="cases").click()
        watched.page.locator("input[placeholder^=search]").fill("")
        watched.page.wait_for_selector("text=42 of 42 cases")
        watched.page.get_by_role("tab", name="agreement").click()
        picked.focus()
        while True:
            watched.page.keyboard.press("ArrowRight")
            label = picked.get_attribute("data-case")
            if "P017" not in label:
                break
        watched.page.keyboard.press("Enter")
        case = label.splitlines()[0]
        watched.page.get_by_role("button", name=f"leave out {case.split()[1]}").wait_for()
        watched.page.get_by_role("tab", name="cases").click()
        watched.page.wait_for_selector(f"b:text-is('{case.split()[1]}'):visible")
        watched.page.close()
