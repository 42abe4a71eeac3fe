"""Drawing as readers do it: in JupyterLab 4, with mouse and keyboard, in a real browser."""

import json

import numpy as np
import pytest
import SimpleITK as sitk

from deeplung_nb.corrections.journal import read_journal
from tests.browser import CHROMIUM, Watched, server, write_notebook

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]
SHAPE, ORDERS = (6, 30, 40), ("LPS", "RAS", "PIR")
SCAN = """
import numpy as np, SimpleITK as sitk
from deeplung_nb.widgets import correct
hu = np.random.default_rng(8).integers(-1000, 400, {shape}).astype(np.int16)
image = sitk.GetImageFromArray(hu); image.SetSpacing((2.0, 2.0, 5.0))
sitk.WriteImage(sitk.DICOMOrient(image, "{code}"), "{code}.nii.gz")
"""
OPEN = """
v = correct("{code}.nii.gz", reader="{reader}", folder="{folder}")
v
"""
PILOT = """
import numpy as np
from deeplung_nb.corrections.study import ReaderStudy, StudyCase
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.widgets import ReadingDesk

def load(name):
    hu = np.random.default_rng(ord(name[-1])).integers(-900, 0, (4, 30, 40)).astype(np.int16)
    scan = Scan(hu, Grid.upright(hu.shape, (5.0, 2.0, 2.0)), name)
    labels = np.zeros(hu.shape, np.uint8)
    labels[1:3, 5:25, 5:35] = 1
    return StudyCase(scan, LesionMask.like(scan, labels))

def sit(reader):
    study = ReaderStudy("study", ["patient-smith-a", "patient-smith-b"], ["AB", "CD"], load,
                        seed=1, arms=("unaided", "aided"), repeats=0.5, washout_days=0)
    return ReadingDesk(study, reader)
"""
HANG = """
import os, subprocess
sh = "kill -STOP {0}; sleep 8; kill -KILL {0}".format(os.getpid())
_ = subprocess.Popen(["sh", "-c", "sleep 1; " + sh], start_new_session=True)
"""
KILL = "import os; os._exit(1)"
PLANES = {"axial": (0, "a"), "coronal": (1, "c"), "sagittal": (2, "s")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("drawing")


@pytest.fixture(scope="module")
def lab(folder):
    for code in ORDERS:
        write_notebook(folder / f"{code}.ipynb", SCAN.format(code=code, shape=SHAPE)
                       + OPEN.format(code=code, reader="AB", folder=code))
    scan = SCAN.format(code="LPS", shape=SHAPE)
    write_notebook(folder / "keys.ipynb", scan + OPEN.format(
        code="LPS", reader="AB", folder="keys"))
    write_notebook(folder / "killed.ipynb", scan + OPEN.format(
        code="LPS", reader="AB", folder="killed"), KILL)
    write_notebook(folder / "polygon.ipynb", scan + OPEN.format(
        code="LPS", reader="AB", folder="polygon"))
    write_notebook(folder / "hung.ipynb", scan + OPEN.format(
        code="LPS", reader="AB", folder="hung"), HANG)
    for reader in ("AB", "CD"):
        write_notebook(folder / f"both-{reader}.ipynb", scan + OPEN.format(
            code="LPS", reader=reader, folder="both"))
    (folder / "pilot.py").write_text(PILOT)
    write_notebook(folder / "blind.ipynb", "from pilot import sit\ndesk = sit('AB')\ndesk",
                   "sorted({s.arm for s in desk.study.finished()})")
    with server(folder, "lab") as address:
        yield address


class Drawn(Watched):
    """A reading in a page."""

    def open(self, address, name):
        self.run_cells(address, name)
        self.wait_for_viewer()
        return self

    def words(self):
        return self.page.locator(".dl-kept").inner_text()

    def wait_for(self, words):
        self.page.wait_for_function(
            "(words) => document.querySelector('.dl-kept')?.textContent.includes(words)", arg=words)

    def centre(self, voxel, plane):
        """Where a voxel of the large picture is on the page."""
        z, y, x = voxel
        nz, ny, nx = SHAPE
        row, column, rows, columns = {"axial": (y, x, ny, nx),
                                      "coronal": (nz - 1 - z, x, nz, nx),
                                      "sagittal": (nz - 1 - z, y, nz, ny)}[plane]
        box = self.page.locator(f".dl-canvas[data-plane={plane}]").first.bounding_box()
        return (box["x"] + box["width"] * (column + 0.5) / columns,
                box["y"] + box["height"] * (row + 0.5) / rows)

    def look_at(self, voxel, plane):
        self.viewer(f"v.moveTo({list(voxel)}), v.set('plane', '{plane}'), v.save()")
        axis = PLANES[plane][0]
        self.page.wait_for_function(
            "([plane, index]) => { const c = document.querySelector('.dl-canvas'); "
            "return c.dataset.plane === plane && c.dataset.index === index; }",
            arg=[plane, str(voxel[axis])])

    def click(self, voxel, plane):
        self.look_at(voxel, plane)
        self.page.mouse.click(*self.centre(voxel, plane))


def marked(path):
    """The voxels of a mask's file and their codes, read without any of our code."""
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    array = sitk.GetArrayFromImage(image)
    return {tuple(map(int, place)): int(array[tuple(place)]) for place in np.argwhere(array)}


@pytest.mark.parametrize("code", ["PIR", *(
    pytest.param(code, marks=pytest.mark.nightly) for code in ORDERS if code != "PIR")])
def test_clicked_pixels_change_those_voxels_of_the_file_and_no_other(lab, browser, folder, code):
    rng = np.random.default_rng(1)
    seen = Drawn(browser).open(lab, f"{code}.ipynb")
    seen.viewer("v.pen.choose('radius', 0.9)")
    wanted = {}
    for k in range(21):
        plane = list(PLANES)[k % 3]
        voxel = tuple(int(rng.integers(1, n - 1)) for n in SHAPE)
        seen.viewer(f"v.pen.choose('code', {1 + k % 2})")
        seen.click(voxel, plane)
        wanted[voxel] = 1 + k % 2
    seen.wait_for("21 strokes, all on disk")
    seen.page.get_by_role("button", name="Finish reading").click()
    seen.wait_for("finished and locked")
    assert marked(folder / code / "AB" / "mask.nii.gz") == wanted
    # What is shown is what the file holds, in every plane.
    for (z, y, x), label in wanted.items():
        for plane, index, place in (("axial", z, y * 40 + x), ("coronal", y, (5 - z) * 40 + x),
                                    ("sagittal", x, (5 - z) * 30 + y)):
            seen.look_at((z, y, x), plane)
            assert seen.viewer(f"v.store.get('{plane}', {index}).labels[{place}] & 3") == label
    assert seen.messages == []
    assert seen.elsewhere == []
    seen.page.close()


def test_a_dragged_stroke_is_one_stroke_and_can_be_taken_back(lab, browser, folder):
    seen = Drawn(browser).open(lab, "keys.ipynb")
    seen.look_at((2, 10, 10), "axial")
    seen.page.mouse.move(*seen.centre((2, 10, 10), "axial"))
    seen.page.mouse.down()
    seen.page.mouse.move(*seen.centre((2, 10, 20), "axial"), steps=12)
    before = seen.viewer("v.store.get('axial', 2).labels.filter((l) => l & 3).length")
    assert before > 0  # seen while it is drawn, before the kernel knows
    seen.page.mouse.up()
    seen.wait_for("1 stroke, all on disk")
    count = "v.store.get('axial', 2).labels.filter((l) => l & 3).length"
    assert seen.viewer(count) == before  # and what the kernel made of it is what was shown
    for key, strokes, shown in (("Control+z", 2, 0), ("Control+y", 3, before)):
        seen.page.keyboard.press(key)
        seen.wait_for(f"{strokes} strokes, all on disk")
        while seen.viewer(count) != shown:  # on disk a little before it is unpacked
            seen.page.wait_for_timeout(20)
    assert seen.messages == []
    seen.page.close()


def test_everything_is_drawn_by_keyboard_alone(lab, browser, folder):
    seen = Drawn(browser).open(lab, "keys.ipynb")
    count = seen.viewer("v.pen.state.strokes")
    seen.look_at((3, 15, 15), "axial")
    seen.page.locator(".dl-viewer").focus()

    def press(*keys):
        for key in keys:
            seen.page.keyboard.press(key)

    press("[", "[", "[", "[", "x", " ")  # 1 mm: one voxel, of high opacity
    press("Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowDown", "x", " ")
    press("y", " ", *["Shift+ArrowRight"] * 6, " ", *["Shift+ArrowDown"] * 6, " ",
          *["Shift+ArrowLeft"] * 6, " ", "Enter")
    seen.wait_for(f"{count + 3} strokes, all on disk")
    press("u")
    seen.wait_for(f"{count + 4} strokes, all on disk")
    press("U")
    seen.wait_for(f"{count + 5} strokes, all on disk")
    events, _, _ = read_journal(folder / "keys" / "AB" / "journal.jsonl")
    strokes = [event["stroke"] for event in events if event["event"] == "stroke"][-5:]
    assert [stroke["tool"] for stroke in strokes] == ["brush", "brush", "polygon", "undo", "redo"]
    assert strokes[0]["path"] == [[15, 15]]
    assert strokes[1]["path"] == [[16, 17]]
    assert [stroke.get("code") for stroke in strokes[:3]] == [2, 1, 1]
    assert strokes[2]["path"] == [[16, 17], [16, 23], [22, 23], [22, 17]]
    names = seen.page.evaluate(
        "() => [...document.querySelectorAll('.dl-viewer button, .dl-viewer input, "
        ".dl-viewer select')].filter((e) => !(e.textContent || e.title || e.ariaLabel || "
        "e.closest('label')?.textContent.trim() || e.getAttribute('aria-label'))).length")
    assert names == 0
    seen.page.close()


def test_a_killed_kernel_costs_no_stroke_that_was_said_to_be_on_disk(lab, browser, folder):
    seen = Drawn(browser).open(lab, "killed.ipynb")
    seen.bear_deaths()
    for k in range(4):
        seen.click((1 + k, 8 + k, 9), "axial")
    seen.wait_for("4 strokes, all on disk")
    seen.run_cell(1)
    seen.wait_for("The kernel is gone")
    seen.click((1, 20, 20), "axial")  # draws nothing any more, and says so
    assert seen.viewer("v.pen.pending.length") == 0
    seen.page.wait_for_selector("text=(ipykernel) | Idle")
    seen.run_cell(0)
    seen.wait_for("4 strokes, all on disk")
    seen.click((4, 20, 20), "axial")
    seen.wait_for("5 strokes, all on disk")
    seen.page.close()


@pytest.mark.nightly
def test_a_second_click_at_its_place_closes_a_polygon(lab, browser, folder):
    seen = Drawn(browser).open(lab, "polygon.ipynb")
    seen.look_at((2, 10, 10), "axial")
    seen.page.locator(".dl-viewer").focus()
    seen.page.keyboard.press("y")
    for voxel in ((2, 8, 8), (2, 8, 20), (2, 18, 20)):
        seen.page.mouse.click(*seen.centre(voxel, "axial"))
        seen.page.wait_for_timeout(450)  # clicks at three places are no second click
    assert seen.viewer("v.pen.state.strokes") == 0
    seen.page.mouse.dblclick(*seen.centre((2, 18, 8), "axial"))
    seen.wait_for("1 stroke, all on disk")
    events, _, _ = read_journal(folder / "polygon" / "AB" / "journal.jsonl")
    stroke, = [event["stroke"] for event in events if event["event"] == "stroke"]
    assert stroke["tool"] == "polygon"
    assert np.allclose(stroke["path"], [[8, 8], [8, 20], [18, 20], [18, 8]], atol=0.1)
    seen.page.close()


@pytest.mark.nightly
def test_strokes_that_a_dead_kernel_had_not_kept_are_counted_in_words(lab, browser, folder):
    seen = Drawn(browser).open(lab, "hung.ipynb")
    seen.click((1, 8, 9), "axial")
    seen.wait_for("1 stroke, all on disk")
    seen.run_cell(1)  # it stops, and later dies with what it was sent meanwhile
    seen.page.wait_for_timeout(3000)
    seen.page.locator(".dl-canvas").first.scroll_into_view_if_needed()
    for k in range(2):
        seen.page.mouse.click(*seen.centre((1, 15 + k, 12), "axial"))
    seen.wait_for("2 not on disk yet")
    seen.wait_for("was drawn before is on disk, but for the last 2 strokes")
    events, _, _ = read_journal(folder / "hung" / "AB" / "journal.jsonl")
    assert sum(event["event"] == "stroke" for event in events) == 1
    seen.page.close()


@pytest.mark.nightly
def test_two_readers_draw_at_once_and_one_reader_in_one_place(lab, browser, folder):
    one, two = (Drawn(browser).open(lab, f"both-{reader}.ipynb") for reader in ("AB", "CD"))
    one.click((2, 5, 6), "axial")
    two.click((3, 7, 8), "axial")
    one.wait_for("Reading of AB: 1 stroke, all on disk")
    two.wait_for("Reading of CD: 1 stroke, all on disk")
    for page in (one, two):
        page.page.get_by_role("button", name="Finish reading").click()
        page.wait_for("finished and locked")
    masks = [marked(folder / "both" / reader / "mask.nii.gz") for reader in ("AB", "CD")]
    assert (2, 5, 6) in masks[0]
    assert (3, 7, 8) in masks[1]
    assert not masks[0].keys() & masks[1].keys()
    # Finished is finished; with a reason it goes on.
    one.click((2, 20, 20), "axial")
    assert one.viewer("v.pen.pending.length") == 0
    one.page.get_by_label("Reason for reopening the reading").fill("a lesion was missed")
    one.page.get_by_role("button", name="Reopen").click()
    one.wait_for("all on disk")
    one.click((2, 20, 20), "axial")
    one.wait_for("2 strokes, all on disk")
    record = json.loads((folder / "both" / "AB" / "reading.json").read_text())
    assert record["reopened"][0]["reason"] == "a lesion was missed"
    assert record["active_seconds"] > 0
    for page in (one, two):
        assert page.messages == []
        page.page.close()


def test_a_blinded_reader_gets_nothing_of_the_automatic_marks(lab, browser, folder):
    """Neither by picture nor by what comes over the line; nor the case's name, nor the arm's."""
    seen = Drawn(browser)
    received = []
    seen.page.on("websocket", lambda line: line.on(
        "framereceived", lambda data: received.append(
            data if isinstance(data, bytes) else data.encode())))
    seen.run_cells(lab, "blind.ipynb")
    seen.page.get_by_role("button", name="Next case").wait_for()
    hidden = []
    for number in range(1, 6):
        seen.page.get_by_role("button", name="Next case").click()
        seen.wait_for("Reading of AB: 0 strokes, all on disk")
        seen.wait_for_viewer()
        readers = seen.viewer("v.info.readers")
        for z in range(4):
            seen.viewer(f"v.moveTo([{z}, 10, 10])")
            seen.page.wait_for_function(
                "(z) => document.querySelector('.dl-canvas').dataset.index === String(z)", arg=z)
        marks = seen.viewer("[...v.store.slices.values()].reduce((n, s) => n + "
                            "s.labels.filter((l) => l).length, 0)")
        assert (marks == 0) == (readers == ["AB"]), number
        assert seen.viewer("v.info.case_id").startswith("reading-")
        hidden.append(readers == ["AB"])
        seen.page.mouse.click(*seen.page.locator(".dl-canvas").first.evaluate(
            "(c) => { const b = c.getBoundingClientRect(); return [b.x + 50, b.y + 50]; }"))
        seen.wait_for("Reading of AB: 1 stroke, all on disk")
        seen.page.get_by_role("button", name="Finish reading").click()
        seen.wait_for("finished and locked")
    assert sum(hidden) in (2, 3)  # two cases, and perhaps the repeated one
    seen.page.get_by_role("button", name="Next case").click()
    seen.page.get_by_text("all is read, thank you").wait_for()
    assert received
    for words in (b"patient-smith", b"unaided", b"aided"):
        assert not any(words in data for data in received), words
    assert seen.messages == []
    seen.page.close()
