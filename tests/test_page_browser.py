"""A saved page as a reviewer opens it: by double click, from a stick, without a network."""

import itertools
import json
import shutil
import subprocess
import time

import nbformat
import numpy as np
import pandas as pd
import pytest
import websocket
from nbconvert import HTMLExporter
from report.fakes import fake_measurements
from test_page import make_viewer

from deeplung_nb.report import states
from deeplung_nb.report.explore import Question, answer
from deeplung_nb.stats.limits import differences
from deeplung_nb.widgets import page
from deeplung_nb.widgets.explorer import AgreementExplorer
from tests.browser import CHROMIUM, Watched, free_port, server, write_notebook

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]
SHAPE = (6, 20, 24)
FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A page of an explorer and the CT of one of its cases."""
    folder = tmp_path_factory.mktemp("page")
    measured = fake_measurements()
    monkey = pytest.MonkeyPatch()
    monkey.setattr(states, "MOST_SETS", 24)
    viewer = make_viewer(SHAPE, name="X007")
    page.save_page([AgreementExplorer(measured), viewer], folder / "page.html")
    page.save_page(make_viewer(SHAPE, name="alone"), folder / "alone.html")
    monkey.undo()
    return folder, measured, viewer


class Opened:
    """A page from disk, all that it said, and all that it wanted."""

    def __init__(self, browser, path, **options):
        self.messages, self.wanted = [], []
        self.page = browser.new_page(viewport={"width": 1280, "height": 1000}, **options)
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.wanted.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("body[data-ready=yes]")
        self.address = path.as_uri()

    def close(self):
        assert self.messages == []
        assert set(self.wanted) == {self.address}
        self.page.close()

    def circles(self, plot):
        return self.page.evaluate(
            "(k) => [...document.querySelectorAll('.dp-plot')[k].querySelectorAll('circle')]"
            ".map((c) => [Number(c.dataset.case), Number(c.getAttribute('cx')), "
            "Number(c.getAttribute('cy'))])", plot)


def test_every_slice_of_a_page_is_that_of_the_scan(browser, saved):
    folder, _, _ = saved
    seen = Opened(browser, folder / "alone.html")
    viewer = make_viewer(SHAPE, name="alone")
    found = seen.page.evaluate("""() => {
      const v = document.querySelector('.dl-viewer').parentElement.viewer;
      const cut = {};
      for (const [plane, n] of [['axial', 6], ['coronal', 20], ['sagittal', 24]]) {
        cut[plane] = [...Array(n).keys()].map((k) => {
          const s = v.model.volume.slice(plane, k);
          return [s.rows, s.columns, [...s.hu], [...s.labels]];
        });
      }
      return cut;
    }""")
    for axis, plane in enumerate(("axial", "coronal", "sagittal")):
        for index, (rows, columns, hu, labels) in enumerate(found[plane]):
            part = np.take(viewer.scan.hu, index, axis=axis)
            marks = np.take(viewer.masks["model"], index, axis=axis)
            if plane != "axial":
                part, marks = part[::-1], marks[::-1]
            assert (rows, columns) == part.shape
            assert np.abs(np.reshape(hu, part.shape) - np.clip(part, -1024, 600)).max() <= 4
            assert np.array_equal((np.reshape(labels, part.shape) >> 2) & 3, marks)
    # And the same keys turn it.
    seen.page.locator(".dl-viewer").focus()
    seen.page.keyboard.press("Home")
    seen.page.wait_for_function("() => document.querySelector('.dl-canvas').dataset.index === '0'")
    seen.page.keyboard.press("ArrowUp")
    seen.page.wait_for_function("() => document.querySelector('.dl-canvas').dataset.index === '1'")
    seen.page.keyboard.press("c")
    seen.page.wait_for_function(
        "() => document.querySelector('.dl-canvas').dataset.plane === 'coronal'")
    seen.close()


def test_points_lie_where_the_statistics_have_them(browser, saved):
    folder, measured, _ = saved
    seen = Opened(browser, folder / "page.html")
    for scale in ("difference", "ratio", "percent"):
        seen.page.select_option("[data-control=scale]", label=scale)
        found = answer(measured, Question(where=(("role", "cv"),), scale=scale,
                                          limits="auto" if scale == "difference" else "constant"))
        x, y, usable = differences(found.pairs["reference"].to_numpy(float),
                                   found.pairs["test"].to_numpy(float), scale)
        drawn = seen.circles(0)
        assert len(drawn) == int(usable.sum())
        # Places on the page are a straight line of what they show: up is down there.
        across, up = (np.array([one[k] for one in drawn]) for k in (1, 2))
        assert abs(np.corrcoef(across, x)[0, 1]) > 0.99999
        assert np.corrcoef(up, y)[0, 1] < -0.99999
        assert f"n = {found.agreement.n}" in seen.page.locator(".dp-plot").first.text_content()
        table = seen.page.locator("[aria-label=Statistics] tbody tr").all_inner_texts()
        assert [row.split("\t")[0] for row in table] == found.printed["statistic"].tolist()
        assert [row.split("\t")[1] for row in table] == found.printed["estimate"].tolist()
    seen.close()


def test_which_cases_drive_the_bias_is_found_in_two_clicks(browser, saved):
    """The first row is the answer; a click opens it, a second one, on another, its CT."""
    folder, measured, _ = saved
    seen = Opened(browser, folder / "page.html")
    pairs = answer(measured, Question(where=(("role", "cv"),))).pairs
    d = (pairs.test - pairs.reference).to_numpy()
    shift = (d.sum() - d) / (len(d) - 1) - d.mean()
    order = pairs.case_id.to_numpy()[np.argsort(-np.abs(shift), kind="stable")]
    names = seen.page.locator("[aria-label=Cases] tbody td:first-child").all_inner_texts()
    assert names == order.tolist()
    seen.page.get_by_role("button", name=order[0], exact=True).click()
    seen.page.get_by_role("heading", name=f"fake {order[0]}").wait_for()
    assert "Its CT is not in this page" in seen.page.locator(".dp-case").inner_text() or \
        order[0] == "X007"
    seen.page.get_by_role("button", name="X007", exact=True).click()
    seen.page.wait_for_selector(".dp-case .dl-viewer canvas[data-index]")
    assert seen.page.locator("circle.dp-picked").count() == 2
    # Sorted by another column, and filtered.
    head = seen.page.locator("[aria-label=Cases] thead button", has_text="expert, mL")
    head.click()
    first = seen.page.locator("[aria-label=Cases] tbody td:first-child").first.inner_text()
    assert first == pairs.case_id[pairs.reference.idxmax()]
    head.click()
    first = seen.page.locator("[aria-label=Cases] tbody td:first-child").first.inner_text()
    assert first == pairs.case_id[pairs.reference.idxmin()]
    seen.page.get_by_role("searchbox").fill("non-contrast x00")
    n = int(((measured.protocol == "non-contrast") & (measured.role == "cv")
             & measured.case_id.str.contains("X00") & (measured.reader == "model")
             & (measured.structure == "lesion")).sum())
    assert seen.page.locator(".dp-count").inner_text() == f"{n} of 20"
    seen.close()


def test_what_has_no_answer_is_not_offered_and_no_choice_leads_nowhere(browser, saved):
    folder, _, _ = saved
    seen = Opened(browser, folder / "page.html")
    rng = np.random.default_rng(2)
    for _ in range(40):
        options = seen.page.evaluate(
            "() => [...document.querySelectorAll('[data-control]')].map((s) => "
            "[s.dataset.control, [...s.options].filter((o) => !o.disabled).map((o) => o.value)])")
        name, free = options[rng.integers(len(options))]
        assert free, name
        seen.page.select_option(f"[data-control={name}]", free[rng.integers(len(free))])
        assert seen.page.locator("circle").count() > 0
    seen.close()


def test_a_page_without_anything_to_compare_says_so(browser, tmp_path):
    few = fake_measurements()
    few = few[few.case_id.isin(["X000", "X001"])]
    page.save_page(AgreementExplorer(few), tmp_path / "few.html")
    seen = Opened(browser, tmp_path / "few.html")
    assert "Nothing here can be compared" in seen.page.locator("main").inner_text()
    assert "2 cases are in the table" in seen.page.locator("main").inner_text()
    assert seen.page.locator("select").count() == 0
    seen.close()


def test_another_reader_is_shown_for_the_same_cases(browser, tmp_path, monkeypatch):
    """In a way that there is for that reader, but never of another cohort, structure or value."""
    measured = fake_measurements()
    second = measured[measured.reader == "model"].assign(reader="other")
    monkeypatch.setattr(states, "MOST_SETS", 60)
    page.save_page(AgreementExplorer(pd.concat([measured, second], ignore_index=True)),
                   tmp_path / "two.html")
    seen = Opened(browser, tmp_path / "two.html")
    seen.page.select_option("[data-control=cases]", label="external")
    seen.page.select_option("[data-control=scale]", label="ratio")
    seen.page.select_option("[data-control=readers]", label="other against expert")
    chosen = seen.page.evaluate(
        "() => Object.fromEntries([...document.querySelectorAll('[data-control]')]"
        ".map((s) => [s.dataset.control, s.selectedOptions[0].textContent]))")
    assert (chosen["cases"], chosen["readers"]) == ("external", "other against expert")
    assert chosen["structure"] == "Any lesion"
    assert (chosen["scale"], chosen["limits"]) == ("difference", "as reported")
    seen.close()


def test_cases_are_reached_by_keys_alone(browser, saved):
    folder, _, _ = saved
    seen = Opened(browser, folder / "page.html")
    seen.page.locator(".dp-plots").focus()
    seen.page.keyboard.press("ArrowRight")
    first = seen.page.locator(".dp-tip").inner_text()
    seen.page.keyboard.press("ArrowRight")
    assert seen.page.locator(".dp-tip").inner_text() != first
    seen.page.keyboard.press("Enter")
    name = seen.page.locator(".dp-tip").inner_text().split(":")[0]
    seen.page.get_by_role("heading", name=name).wait_for()
    names = seen.page.evaluate(
        "() => [...document.querySelectorAll('button, input, select')].filter((e) => "
        "e.checkVisibility() && !(e.textContent || e.title || e.ariaLabel || "
        "e.closest('label')?.textContent.trim() || e.getAttribute('aria-label')))"
        ".map((e) => e.outerHTML)")
    assert names == []
    seen.close()


@pytest.mark.parametrize("options", [{"java_script_enabled": False}, {"color_scheme": "dark"}],
                         ids=["no scripts", "dark"])
def test_a_page_says_what_it_lacks_and_is_readable_in_the_dark(browser, saved, options):
    folder, _, _ = saved
    if "color_scheme" in options:
        seen = Opened(browser, folder / "page.html", **options)
        ink, paper = seen.page.evaluate(
            "() => [getComputedStyle(document.body).color, "
            "getComputedStyle(document.body).backgroundColor]")
        assert sum(map(int, ink[4:-1].split(","))) > 600
        assert sum(map(int, paper[4:-1].split(","))) < 120
        seen.close()
    else:
        one = browser.new_page(**options)
        one.goto((folder / "page.html").as_uri())
        assert "without scripts, see report.html" in one.locator("main").inner_text()
        one.close()


def test_an_exported_notebook_shows_the_living_page(browser, tmp_path):
    """By nbconvert, whose own page asks for scripts from elsewhere and goes on without them."""
    html = page.embed(make_viewer(SHAPE, name="inside"), height_px=700)._repr_html_()
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(
        "embed(viewer)", outputs=[nbformat.v4.new_output("execute_result", {"text/html": html},
                                                         execution_count=1)])])
    text, _ = HTMLExporter().from_notebook_node(book)
    (tmp_path / "book.html").write_text(text, encoding="utf-8")
    one = browser.new_page(viewport={"width": 1200, "height": 900})
    one.route(lambda url: not url.startswith(("file:", "about:")), lambda route: route.abort())
    one.goto((tmp_path / "book.html").as_uri())
    inside = one.frame_locator("iframe[title='living page']")
    inside.locator("canvas[data-index]").first.wait_for()
    inside.locator(".dl-viewer").focus()
    one.keyboard.press("Home")
    inside.locator(".dl-canvas[data-plane=axial][data-index='0']").first.wait_for()
    still = one.locator(".dl-living-still img")
    assert not still.is_visible()
    one.emulate_media(media="print")
    assert still.is_visible()
    assert not one.locator("iframe[title='living page']").is_visible()
    one.close()


IN_A_NOTEBOOK = """
import numpy as np, SimpleITK as sitk
from deeplung_nb.widgets import view_ct
from deeplung_nb.widgets.page import embed
hu = np.random.default_rng(8).integers(-1000, 400, (6, 30, 40)).astype(np.int16)
image = sitk.GetImageFromArray(hu); image.SetSpacing((2.0, 2.0, 5.0))
sitk.WriteImage(image, "CT.nii.gz")
embed(view_ct("CT.nii.gz"), height_px=700)
"""
FRAME, STILL = "iframe[title='living page']", ".jp-OutputArea-output .dl-living-still"


def end_sessions(one):
    """Ends every kernel of the server, by its own interface."""
    one.evaluate("""async () => {
        const token = document.cookie.match(/_xsrf=([^;]+)/)[1];
        const sessions = new URL('/api/sessions', location.href);
        for (const one of await (await fetch(sessions)).json())
          await fetch(`${sessions}/${one.id}`, { method: 'DELETE',
                                                  headers: { 'X-XSRFToken': token } }); }""")


@pytest.mark.nightly
def test_jupyterlab_without_a_kernel_shows_the_living_page_where_the_notebook_is_trusted(
        browser, tmp_path):
    """Run and saved here it is trusted, and lives; a stranger's shows the picture and says why."""
    write_notebook(tmp_path / "own.ipynb", IN_A_NOTEBOOK)
    with server(tmp_path, "lab") as address:
        first = Watched(browser)
        first.run_cells(address, "own.ipynb")
        first.page.frame_locator(FRAME).locator("canvas[data-index]").first.wait_for()
        assert not first.page.locator(STILL).is_visible()
        first.page.keyboard.press("Control+s")
        while "living page" not in (tmp_path / "own.ipynb").read_text():
            first.page.wait_for_timeout(200)
        end_sessions(first.page)
        first.page.close()

        again = Watched(browser)
        book = nbformat.read(tmp_path / "own.ipynb", 4)
        again.run_cells(address, "own.ipynb", n=0)
        end_sessions(again.page)
        inside = again.page.frame_locator(FRAME)
        inside.locator("canvas[data-index]").first.wait_for()
        inside.locator(".dl-viewer").focus()
        again.page.keyboard.press("End")
        inside.locator(".dl-canvas[data-plane=axial][data-index='5']").first.wait_for()
        assert not again.page.locator(STILL).is_visible()
        again.page.close()

        book.cells[0].source += "\n# by somebody else"
        nbformat.write(book, tmp_path / "foreign.ipynb")
        foreign = Watched(browser)
        foreign.run_cells(address, "foreign.ipynb", n=0)
        foreign.page.locator(f"{STILL} img").wait_for()
        assert foreign.page.locator(FRAME).count() == 0
        assert foreign.page.locator(f"{STILL} img").bounding_box()["height"] > 100
        assert "where the notebook is trusted" in foreign.page.locator(STILL).inner_text()
        foreign.page.close()


class Firefox:
    """Debian's Firefox without a window, spoken to by WebDriver BiDi (W3C)."""

    def __init__(self, folder):
        port = free_port()
        self.process = subprocess.Popen(
            [FIREFOX, "--headless", "--profile", str(folder), "--remote-debugging-port", str(port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.numbers, self.said = itertools.count(1), []
        while True:
            assert self.process.poll() is None, "Firefox has ended"
            try:
                self.line = websocket.create_connection(
                    f"ws://127.0.0.1:{port}/session", timeout=120, suppress_origin=True)
                break
            except OSError:
                time.sleep(0.3)
        self.call("session.new", capabilities={})
        self.call("session.subscribe", events=["log.entryAdded"])
        self.page = self.call("browsingContext.getTree")["contexts"][0]["context"]

    def call(self, method, **given):
        number = next(self.numbers)
        self.line.send(json.dumps({"id": number, "method": method, "params": given}))
        while True:
            answer = json.loads(self.line.recv())
            if answer.get("method") == "log.entryAdded":
                self.said.append(answer["params"]["text"])
            if answer.get("id") == number:
                assert answer["type"] == "success", answer
                return answer["result"]

    def value(self, expression):
        found = self.call("script.evaluate", expression=expression, awaitPromise=True,
                          target={"context": self.page})
        return found["result"].get("value")

    def wait_for(self, expression):
        while not self.value(expression):
            time.sleep(0.2)


@pytest.mark.nightly
@pytest.mark.skipif(FIREFOX is None, reason="no firefox here: apt-get install firefox-esr")
def test_a_page_lives_in_firefox_too(saved, tmp_path):
    folder, _, _ = saved
    fox = Firefox(tmp_path)
    try:
        fox.call("browsingContext.navigate", context=fox.page, wait="complete",
                 url=(folder / "page.html").as_uri())
        fox.wait_for("document.body.dataset.ready === 'yes'")
        assert fox.value("document.querySelectorAll('circle').length") == 40
        fox.value("[...document.querySelectorAll('[aria-label=Cases] tbody button')]"
                  ".find((b) => b.textContent === 'X007').click()")
        fox.wait_for("!!document.querySelector('.dp-case canvas[data-index]')")
        assert fox.said == []
    finally:
        fox.process.kill()
        fox.process.wait()
