"""The viewer as people meet it: in JupyterLab 4 and Voila, offline, in a real browser."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from deeplung_nb.imaging.phantom.make import make_phantom
from deeplung_nb.imaging.phantom.spec import read_specs
from deeplung_nb.labels import GGO, HIGH_OPACITY
from deeplung_nb.runs.resources import PACKAGE_FOLDER
from deeplung_nb.stats import overlap
from tests.browser import CHROMIUM, WITH_3D, Watched, server, write_notebook

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]
CASE = f"""
from deeplung_nb.imaging.lungs import LungMask
from deeplung_nb.imaging.phantom.make import make_phantom
from deeplung_nb.imaging.phantom.spec import read_specs
from deeplung_nb.widgets import view_ct
p = make_phantom(read_specs({str(PACKAGE_FOLDER.parent / 'data_manifests' / 'phantom.csv')!r})[11])
v = view_ct(p.scan, {{"expert": p.truth, "automatic": p.expert}},
            lungs=LungMask.like(p.scan, p.lungs, "reference"))
v
"""
ORIENTED = """
import numpy as np, SimpleITK as sitk
from deeplung_nb.widgets import view_ct
hu = np.random.default_rng(8).integers(-1000, 400, (6, 30, 40)).astype(np.int16)
image = sitk.GetImageFromArray(hu); image.SetSpacing((2.0, 2.0, 5.0))
turned = sitk.DICOMOrient(image, "{code}")
sitk.WriteImage(turned, "{code}.nii.gz")
v = view_ct("{code}.nii.gz"); v.cursor = [4, 7, 11]
v
"""


@pytest.fixture(scope="module")
def phantom():
    manifest = PACKAGE_FOLDER.parent / "data_manifests" / "phantom.csv"
    return make_phantom(read_specs(manifest)[11])


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    write_notebook(folder / "case.ipynb", CASE, "print('seen by the kernel:', v.cursor, v.window)",
                   "v.close()")
    write_notebook(folder / "busy.ipynb", CASE,
                   "import time, pathlib\nwhile not pathlib.Path('go').exists(): time.sleep(0.1)",
                   "import os; os._exit(1)")
    write_notebook(folder / "saved.ipynb", CASE)
    for code in ("RAS", "LPS", "LPI"):
        write_notebook(folder / f"{code}.ipynb", ORIENTED.format(code=code))
    with server(folder, "lab") as address:
        yield address


@pytest.fixture(scope="module")
def lab_folder(lab, tmp_path_factory):
    """Where the notebooks of `lab` lie."""
    return next(tmp_path_factory.getbasetemp().glob("lab*"))


@pytest.fixture(scope="module")
def seen(lab, browser):
    """The case in JupyterLab, its cell executed."""
    watched = Watched(browser)
    watched.run_cells(lab, "case.ipynb")
    watched.wait_for_viewer()
    yield watched
    watched.page.close()


def focus(watched):
    watched.page.evaluate("document.querySelector('.dl-viewer').focus()")


def go_to(watched, z, y, x):
    watched.viewer(f"v.moveTo([{z}, {y}, {x}])")
    watched.page.wait_for_function(
        f"() => document.querySelector('.dl-canvas').dataset.index === '{z}'")


def shown_pixels(watched):
    """RGB of the large picture's voxels, as drawn."""
    rows, columns, data = watched.viewer(
        "[v.large[0].image.height, v.large[0].image.width, Array.from(v.large[0].image.data)]")
    return np.array(data, np.uint8).reshape(rows, columns, 4)[..., :3]


def windowed(hu, level, width):
    return np.clip((hu.astype(float) - (level - width / 2)) * 255 / width, 0, 255)


def test_a_step_by_key_shows_the_pixels_of_the_array(seen, phantom):
    go_to(seen, 12, 60, 60)
    focus(seen)
    seen.page.keyboard.press("m")  # masks off
    for key, z in (("ArrowUp", 13), ("ArrowDown", 12), ("PageDown", 2), ("End", None),
                   ("Home", 0)):
        seen.page.keyboard.press(key)
        z = phantom.scan.n_slices - 1 if z is None else z
        seen.page.wait_for_function(
            f"() => document.querySelector('.dl-canvas').dataset.index === '{z}'")
        grey = shown_pixels(seen)
        np.testing.assert_allclose(grey[..., 0], windowed(phantom.scan.hu[z], -400, 1500), atol=1)
        assert (grey[..., 0] == grey[..., 2]).all()
    seen.page.keyboard.press("m")


def test_windows_by_key_and_by_drag(seen, phantom):
    go_to(seen, 10, 60, 60)
    focus(seen)
    seen.page.keyboard.press("3")
    grey = shown_pixels(seen)
    lungs = (phantom.scan.hu[10] < -600) & (phantom.truth.labels[10] == 0) & (
        phantom.expert.labels[10] == 0)
    assert grey[lungs].max() == 0  # black in the mediastinal window
    box = seen.page.locator(".dl-canvas").first.bounding_box()
    seen.page.mouse.move(box["x"] + 50, box["y"] + 50)
    seen.page.keyboard.down("Shift")
    seen.page.mouse.down()
    seen.page.mouse.move(box["x"] + 150, box["y"] + 80, steps=4)
    seen.page.mouse.up()
    seen.page.keyboard.up("Shift")
    assert seen.viewer("v.model.get('window')") == [40 + 60, 400 + 400]
    seen.page.keyboard.press("1")
    assert seen.viewer("v.model.get('window')") == [-400, 1500]


def test_masks_have_the_colours_of_the_figures(seen, phantom):
    z = next(k for k, labels in enumerate(phantom.truth.labels)
             if {GGO.code, HIGH_OPACITY.code} <= set(np.unique(labels)))
    go_to(seen, z, 60, 60)
    pixels = shown_pixels(seen).astype(float)
    both = phantom.truth.labels[z]
    for label in (GGO, HIGH_OPACITY):
        colour = np.array([int(label.colour[i:i + 2], 16) for i in (1, 3, 5)])
        here = both == label.code
        assert here.any()
        wanted = 0.5 * windowed(phantom.scan.hu[z], -400, 1500)[here][:, None] + 0.5 * colour
        np.testing.assert_allclose(pixels[here], wanted, atol=1.5)


def drawn_over(seen):
    """What the lines add to the voxels of the large picture: whether a screen pixel differs."""
    return np.array(seen.viewer("""(() => {
        const p = v.large[0], { width: w, height: h } = p.canvas;
        const plain = document.createElement('canvas');
        plain.width = w; plain.height = h;
        const c = plain.getContext('2d');
        c.imageSmoothingEnabled = false;
        c.drawImage(p.voxels, 0, 0, w, h);
        const [a, b] = [p.canvas, plain].map(k => k.getContext('2d').getImageData(0, 0, w, h).data);
        const [n] = p.shape, far = [];
        for (let i = 0; i < a.length; i += 4) {
          if (a[i] !== b[i] || a[i + 1] !== b[i + 1] || a[i + 2] !== b[i + 2]) {
            const at = i / 4;
            far.push([Math.floor(at / w) * n / h, (at % w) * p.shape[1] / w]);
          }
        }
        return far; })()""")).reshape(-1, 2)


def show_only(seen, *readers):
    for box in seen.page.locator(".dl-toggles:visible input").all():
        wanted = box.get_attribute("aria-label").startswith(readers)
        if box.is_checked() != wanted:
            box.click()


def edges(labels):
    """Voxels that touch another class, [row, column]."""
    padded = np.pad(labels, 1)
    inner = padded[1:-1, 1:-1]
    return np.any([inner != padded[1 + dy:padded.shape[0] - 1 + dy, 1 + dx:padded.shape[1] - 1 + dx]
                   for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))], axis=0)


def test_the_second_reader_is_a_dashed_line_and_the_first_is_filled(seen, phantom):
    wrong = (phantom.truth.labels != phantom.expert.labels).sum(axis=(1, 2))
    z = int(wrong.argmax())
    go_to(seen, z, 0, 0)
    a, b = phantom.truth.labels[z], phantom.expert.labels[z]
    pixels = shown_pixels(seen)
    # What only the second reader marked is not filled: it is grey.
    only = (b > 0) & (a == 0)
    assert only.any()
    assert np.ptp(pixels[only].astype(int), axis=1).max() == 0
    try:
        show_only(seen, "automatic")
        alone = drawn_over(seen)
        show_only(seen, "nobody")
        nothing = {tuple(at) for at in drawn_over(seen)}
        lines = np.array([at for at in alone if tuple(at) not in nothing])
        assert len(lines) > 50
        near = np.pad(edges(b), 1)  # a line is as wide as a voxel or two
        near = np.any([near[1 + dy:near.shape[0] - 1 + dy, 1 + dx:near.shape[1] - 1 + dx]
                       for dy in (-1, 0, 1) for dx in (-1, 0, 1)], axis=0)
        where = lines.astype(int)
        assert near[where[:, 0], where[:, 1]].all()
        # Dashed: along its own border there are gaps; the first reader's line has none.
        seen.page.keyboard.press("o")
        show_only(seen, "expert")
        solid = [at for at in drawn_over(seen) if tuple(at) not in nothing]
        share = [len(part) / edges(mask).sum() for part, mask in ((lines, b), (solid, a))]
        assert share[0] < 0.85 * share[1]
        swatches = seen.page.locator(".dl-toggles i.dl-line")
        assert "dashed" in swatches.first.get_attribute("style")
    finally:
        if seen.viewer("v.model.get('outline')"):
            seen.page.locator("button[title^='Masks as lines']").click()
        show_only(seen, "expert", "automatic")


def test_the_agreement_map_counts_as_the_statistics_do(seen, phantom):
    go_to(seen, 10, 60, 60)
    focus(seen)
    seen.page.locator("select[aria-label=Layout]").select_option("agreement")
    text = seen.page.locator(".dl-numbers").inner_text()
    ml = phantom.scan.voxel_mm3 / 1000
    slice_ = overlap.confusion(phantom.truth.labels[10] > 0, phantom.expert.labels[10] > 0)
    whole = overlap.confusion(phantom.truth.labels > 0, phantom.expert.labels > 0)
    for words, a, b in (("expert only", slice_.fn, whole.fn),
                        ("automatic only", slice_.fp, whole.fp)):
        assert re.search(rf"{words}\s+{a * ml:.1f} / {b * ml:.1f}", text), text
    assert f"Any lesion\t{slice_.dice():.3f} / {whole.dice():.3f}" in text
    colours = {tuple(row) for row in shown_pixels(seen)[phantom.truth.labels[10]
                                                        != phantom.expert.labels[10]]}
    assert len(colours) > 1
    # Each part of the map can be hidden, and m hides and shows all of it.
    parts = seen.page.locator(".dl-toggles:visible input")
    assert parts.count() == 4
    seen.page.get_by_label("Map: expert only").click()
    only = (phantom.truth.labels[10] > 0) & (phantom.expert.labels[10] == 0)
    assert only.any()
    assert np.ptp(shown_pixels(seen)[only].astype(int), axis=1).max() == 0
    assert len(np.unique(np.ptp(shown_pixels(seen).astype(int), axis=2))) > 1
    focus(seen)
    seen.page.keyboard.press("m")
    assert np.ptp(shown_pixels(seen).astype(int), axis=2).max() == 0
    seen.page.keyboard.press("m")
    assert np.ptp(shown_pixels(seen)[only].astype(int), axis=1).min() > 0
    seen.page.keyboard.press("l")
    assert seen.viewer("v.model.get('layout_mode')") in ("overlay", "side by side")
    seen.page.locator("select[aria-label=Layout]").select_option("side by side")
    assert seen.page.locator(".dl-canvas").count() == 2
    seen.page.locator("select[aria-label=Layout]").select_option("overlay")
    assert seen.page.locator(".dl-canvas").count() == 3


def test_what_the_kernel_says_back_late_does_not_undo_what_the_reader_did_since(seen):
    go_to(seen, 10, 60, 60)
    seen.viewer("clearTimeout(v.timer), v.model.set('layout_mode', 'side by side'),"
                "v.model.set('cursor', [11, 60, 60]), v.model.save_changes(),"
                "v.model.set('layout_mode', 'overlay'), v.model.set('cursor', [12, 60, 60])")
    seen.page.wait_for_timeout(2000)  # for its answer, were there one
    assert seen.viewer("v.model.get('layout_mode')") == "overlay"
    assert seen.viewer("v.model.get('cursor')") == [12, 60, 60]
    seen.viewer("v.moveTo([10, 60, 60])")


def test_a_click_in_one_plane_moves_the_others(seen, phantom):
    go_to(seen, 10, 60, 60)
    coronal = seen.page.locator(".dl-canvas[data-plane=coronal]")
    box = coronal.bounding_box()
    nz, _, nx = phantom.scan.shape
    row, column = nz - 1 - 5, 100
    coronal.click(position={"x": (column + 0.5) / nx * box["width"],
                            "y": (row + 0.5) / nz * box["height"]})
    assert seen.viewer("v.model.get('cursor')") == [5, 60, 100]
    seen.page.wait_for_function("() => document.querySelector('.dl-canvas').dataset.index === '5'")
    sagittal = seen.page.locator(".dl-canvas[data-plane=sagittal][data-index='100']")
    sagittal.wait_for()  # its number changes with its picture
    assert "sagittal slice 100" in sagittal.get_attribute("aria-label")
    assert f"{phantom.scan.hu[5, 60, 100]}".replace("-", "−") + " HU" in seen.page.locator(
        ".dl-status").inner_text()


def test_lesions_and_disagreements_are_a_key_or_a_choice_away(seen, phantom):
    either = (phantom.truth.labels > 0) | (phantom.expert.labels > 0)
    with_lesion = np.flatnonzero(either.any(axis=(1, 2)))
    go_to(seen, 0, 60, 60)
    focus(seen)
    seen.page.keyboard.press("n")
    assert seen.viewer("v.model.get('cursor')[0]") == with_lesion[0]
    wrong = (phantom.truth.labels != phantom.expert.labels).sum(axis=(1, 2))
    choice = seen.page.locator("select[aria-label='Slices by disagreement']")
    assert choice.locator("option").nth(1).get_attribute("value") == str(wrong.argmax())
    choice.select_option(index=1)
    assert seen.viewer("v.model.get('cursor')[0]") == wrong.argmax()


def test_everything_can_be_reached_by_keyboard_and_has_a_name(seen):
    focus(seen)
    names = []
    for _ in range(30):
        seen.page.keyboard.press("Tab")
        name = seen.page.evaluate(
            "() => { const e = document.activeElement; return e.closest('.dl-viewer') ? "
            "(e.getAttribute('aria-label') || e.title || e.innerText || '?') : null; }")
        if name is None:
            break
        names.append(name)
    assert "?" not in names  # each has a name
    assert {"Plane", "Window", "Layout", "Slice"} <= set(names)
    assert any(name.startswith("expert") for name in names)
    assert seen.page.locator(".dl-canvas").first.get_attribute("role") == "img"
    seen.page.evaluate("document.querySelector('.dl-viewer').focus()")
    seen.page.keyboard.press("c")
    assert seen.viewer("v.model.get('plane')") == "coronal"
    seen.page.keyboard.press("a")


def test_the_kernel_hears_where_the_reader_is(seen):
    go_to(seen, 7, 50, 40)
    focus(seen)
    heard = seen.page.locator("text=seen by the kernel: [7, 50, 40]")
    while not heard.count():  # until the kernel has it, however long that takes
        seen.run_cell(1)
        seen.page.wait_for_timeout(300)


def place_of_picture(seen):
    seen.page.locator(".dl-canvas").first.scroll_into_view_if_needed()
    box = seen.page.locator(".dl-canvas").first.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def turn(seen, dy, dx=0, **keys):
    """A turn of the wheel over the large picture, as the browser makes it; whether it was taken."""
    return seen.page.evaluate(
        "([dy, dx, keys]) => { const e = new WheelEvent('wheel', { deltaY: dy, deltaX: dx, "
        "bubbles: true, cancelable: true, ...keys }); "
        "document.querySelector('.dl-canvas').dispatchEvent(e); return e.defaultPrevented; }",
        [dy, dx, keys])


def test_a_notch_is_a_slice_and_a_trackpads_small_events_are_few(seen):
    go_to(seen, 10, 60, 60)
    at = "v.model.get('cursor')[0]"
    seen.page.mouse.move(*place_of_picture(seen))
    seen.page.mouse.wheel(0, -100)
    seen.page.wait_for_function("() => document.querySelector('.dl-canvas').dataset.index === '11'")
    for dy in (120, 53):  # other mice
        turn(seen, dy)
    assert seen.viewer(at) == 9
    for _ in range(30):
        assert turn(seen, -4)
    assert seen.viewer(at) == 11  # 120 px: as a finger's breadth, two slices
    for event in ({"dy": 100, "ctrlKey": True}, {"dy": 3, "dx": 40}):
        assert not turn(seen, **event)  # zoom and sideways: the page's
    assert seen.viewer(at) == 11
    n = seen.viewer("v.info.shape[0]")
    go_to(seen, n - 1, 60, 60)
    assert not turn(seen, -100)  # at the end the page scrolls on
    assert turn(seen, 100)
    assert seen.viewer(at) == n - 2


def test_one_finger_goes_through_slices_and_two_are_the_pages(seen):
    go_to(seen, 10, 60, 60)
    x, y = place_of_picture(seen)
    touched = """([x, y, steps]) => { const c = document.querySelector('.dl-canvas');
        c.setPointerCapture = () => {};
        const say = (kind, dy) => c.dispatchEvent(new PointerEvent(kind, { clientX: x,
            clientY: y + dy, pointerType: 'touch', isPrimary: true, bubbles: true }));
        say('pointerdown', 0); for (const dy of steps) say('pointermove', dy); say('pointerup', 0);
        delete c.setPointerCapture; }"""
    seen.page.evaluate(touched, [x, y, [-10, -24, -36]])
    assert seen.viewer("v.model.get('cursor')") == [13, 60, 60]
    seen.page.evaluate(touched, [x, y, []])  # a tap moves the cross-hair
    assert seen.viewer("v.model.get('cursor')")[1:] != [60, 60]
    assert seen.viewer("getComputedStyle(v.large[0].canvas).touchAction") == "pinch-zoom"


def test_memory_stays_level_over_500_steps(seen):
    heap = "Math.round(performance.memory.usedJSHeapSize / 1e6)"
    go_to(seen, 0, 60, 60)
    n = seen.viewer("v.info.shape[0]")

    def steps(count):
        seen.viewer(f"(() => {{ for (let i = 0; i < {count}; i++) {{ "
                    f"v.moveTo([i % {n}, 60, 60]); v.draw(); }} }})()")
        seen.page.wait_for_timeout(500)
        return seen.page.evaluate(heap)
    before = steps(50)
    after = steps(500)
    assert after < before + 30
    assert after < 250


def test_nothing_was_said_and_nothing_was_asked_from_elsewhere(seen):
    assert seen.elsewhere == []
    assert seen.messages == []


@pytest.fixture
def waiting(lab, browser):
    """A viewer of whose slices only the first are here: the kernel sends no more."""
    watched = Watched(browser)
    watched.run_cells(lab, "busy.ipynb")
    watched.wait_for_viewer()
    watched.page.wait_for_selector("text=(ipykernel) | Idle")
    watched.page.wait_for_function(  # what was asked for is here, so that nothing comes later
        "() => { let e = document.querySelector('.dl-viewer'); while (!e.viewer) "
        "e = e.parentElement; return !e.viewer.store.asked.size; }")
    yield watched
    watched.page.close()


def step_far(watched):
    """Twelve steps to where no slice is here yet; what is seen before and after.

    Questions are held back: JupyterLab lets a busy kernel answer beside its work, others don't.
    """
    watched.viewer("(v.held = [], v.send ??= v.store.model.send,"
                   "v.store.model.send = (...a) => v.held.push(a), 0)")
    watched.viewer("(v.store.asked.clear(), v.store.slices = new Map([...v.store.slices].filter("
                   "([key]) => key === 'axial' + v.model.get('cursor')[0])), 0)")
    start = watched.viewer("v.model.get('cursor')[0]")
    focus(watched)
    by = -1 if start > 12 else 1
    watched.page.evaluate("() => { window.before = performance.now(); window.said = null;"
                          "new MutationObserver(() => { if (document.querySelector('.dl-waiting'))"
                          " window.said ??= performance.now() - window.before; }).observe("
                          "document.body, { subtree: true, attributes: true }); }")
    for _ in range(12):
        watched.page.keyboard.press("ArrowDown" if by < 0 else "ArrowUp")
    watched.page.wait_for_selector(".dl-waiting")
    return start, start + 12 * by


def test_a_slice_that_is_awaited_is_not_shown_under_another_ones_number(waiting, lab_folder,
                                                                       phantom):
    waiting.run_cell(1)
    waiting.page.wait_for_selector("text=(ipykernel) | Busy")
    start, end = step_far(waiting)
    page = waiting.page
    assert page.locator(".dl-caption").first.inner_text() == f"axial {start}"
    assert f"axial slice {start} of" in page.locator(".dl-canvas").first.get_attribute("aria-label")
    words = page.locator(".dl-wait").first.inner_text()
    assert re.fullmatch(f"waiting for axial {end}, this is {start} "
                        r"\((the kernel is busy|asked for)\)", words), words
    assert f"mL: axial slice {start} / case" in page.locator(".dl-numbers").inner_text()
    assert page.locator(".dl-canvas").first.evaluate("e => getComputedStyle(e).opacity") < "0.5"
    assert waiting.viewer("v.store.asked.size") <= 12 + 3  # no queue of all that was passed
    (lab_folder / "go").touch()
    waiting.viewer("(v.store.model.send = v.send, v.held.forEach(a => v.send(...a)), 0)")
    page.wait_for_function(
        f"() => document.querySelector('.dl-canvas').dataset.index === '{end}'")
    assert page.locator(".dl-caption").first.inner_text() == f"axial {end}"
    assert f"mL: axial slice {end} / case" in page.locator(".dl-numbers").inner_text()
    assert page.locator(".dl-waiting").count() == 0
    np.testing.assert_allclose(
        waiting.viewer("v.large[0].shown.hu[60 * v.large[0].shown.columns + 60]"),
        phantom.scan.hu[end, 60, 60])


def test_a_kernel_that_is_gone_is_said(waiting):
    waiting.run_cell(2)
    waiting.page.wait_for_function(
        "() => { let e = document.querySelector('.dl-viewer'); while (!e.viewer) "
        "e = e.parentElement; return e.viewer.store.lost || "
        "['dead', 'autorestarting'].includes(e.viewer.store.kernel); }")
    waiting.page.locator(".jp-Dialog button").last.click()  # JupyterLab says so as well
    start, _ = step_far(waiting)
    waiting.page.wait_for_selector("text=/is gone: run this cell again/")
    assert waiting.page.locator(".dl-caption").first.inner_text() == f"axial {start}"


def test_a_question_that_was_lost_is_asked_again(waiting):
    _, end = step_far(waiting)
    assert waiting.viewer("v.held.length")
    waiting.viewer("(v.store.model.send = v.send, v.store.patience = 300, 0)")  # held ones are lost
    waiting.page.wait_for_function(
        f"() => document.querySelector('.dl-canvas').dataset.index === '{end}'")


@pytest.mark.nightly
def test_a_notebook_opened_again_shows_the_picture(lab, browser, lab_folder):
    watched = Watched(browser)
    watched.run_cells(lab, "saved.ipynb")
    watched.wait_for_viewer()
    page = watched.page
    still = ".jp-OutputArea-child .jp-RenderedHTMLCommon img"
    assert page.locator(still).count() == 1
    assert not page.locator(still).is_visible()  # the living view is in its place
    page.keyboard.press("Control+s")
    while "image/png" not in (lab_folder / "saved.ipynb").read_text():
        page.wait_for_timeout(200)
    page.evaluate("""async () => {
        const token = document.cookie.match(/_xsrf=([^;]+)/)[1];
        const sessions = new URL('/api/sessions', location.href);
        for (const one of await (await fetch(sessions)).json()) {
          if (one.path === 'saved.ipynb') await fetch(`${sessions}/${one.id}`,
            { method: 'DELETE', headers: { 'X-XSRFToken': token } });
        } }""")
    page.close()
    watched = Watched(browser)
    watched.run_cells(lab, "saved.ipynb", n=0)
    watched.page.wait_for_selector(still)
    assert watched.page.locator(still).bounding_box()["height"] > 100
    watched.page.close()


@pytest.mark.nightly
@pytest.mark.parametrize("code", ["RAS", "LPS", "LPI"])
def test_a_voxel_is_itself_in_any_file_order(lab, browser, code):
    hu = np.random.default_rng(8).integers(-1000, 400, (6, 30, 40)).astype(np.int16)
    watched = Watched(browser)
    watched.run_cells(lab, f"{code}.ipynb")
    watched.wait_for_viewer()
    watched.page.wait_for_function(
        "() => document.querySelector('.dl-status').innerText.includes('HU')")
    text = watched.page.locator(".dl-status").inner_text()
    assert text.startswith(f"{hu[4, 7, 11]} HU".replace("-", "−")), text
    assert "voxel z 4, y 7, x 11" in text
    assert watched.messages == []
    watched.page.close()


@pytest.mark.nightly
def test_the_picture_stays_when_the_widget_is_closed(lab, browser):
    watched = Watched(browser)
    watched.run_cells(lab, "case.ipynb")
    watched.wait_for_viewer()
    watched.run_cell(2)
    watched.page.wait_for_selector(".jp-OutputArea img.dl-still")
    watched.page.close()


@pytest.mark.nightly
def test_the_dark_theme_is_dark_and_readable(tmp_path, browser):
    write_notebook(tmp_path / "case.ipynb", CASE)
    with server(tmp_path, "lab", theme="JupyterLab Dark") as address:
        watched = Watched(browser)
        watched.run_cells(address, "case.ipynb")
        watched.wait_for_viewer()
        light = """(e) => { const c = getComputedStyle(e)[%r].match(/[0-9.]+/g).slice(0, 3)
            .map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2]; }"""
        paper = watched.page.locator(".dl-viewer").evaluate(light % "backgroundColor")
        assert paper < 0.1
        for place in (".dl-viewer", ".dl-status", ".dl-bar button", ".dl-numbers caption"):
            ink = watched.page.locator(place).first.evaluate(light % "color")
            assert (ink + 0.05) / (paper + 0.05) >= 4.5, place
        assert watched.messages == []
        watched.page.close()


@pytest.fixture
def drawn_in_3d(tmp_path, browser):
    """`drawn_in_3d(cell, seconds)`: the page, its canvas, and its pixels as drawn by WebGL."""
    chromium = browser.browser_type.launch(executable_path=CHROMIUM, args=WITH_3D)
    with server(tmp_path, "lab") as address:
        def run(cell, seconds):
            write_notebook(tmp_path / "case.ipynb", cell)
            watched = Watched(chromium)
            watched.run_cells(address, "case.ipynb")
            canvas = watched.page.wait_for_selector(".jp-OutputArea canvas")
            watched.page.wait_for_timeout(1000 * seconds)
            shot = Image.open(io.BytesIO(canvas.screenshot())).convert("RGB")
            return watched, canvas, np.asarray(shot).astype(int)
        yield run
    chromium.close()


@pytest.mark.nightly
def test_surfaces_are_drawn(drawn_in_3d):
    watched, _, shot = drawn_in_3d(
        CASE.replace("view_ct", "view_surface").replace(', "automatic": p.expert', ""), 5)
    assert (shot[..., 2] > shot[..., 0] + 60).sum() > 500  # ground glass
    assert (shot[..., 0] > shot[..., 2] + 60).sum() > 500  # high opacity
    assert watched.elsewhere == []
    assert watched.messages == []


@pytest.mark.nightly
def test_niivue_shows_it_below_the_still_picture(drawn_in_3d):
    pytest.importorskip("ipyniivue", reason="ipyniivue is not installed")
    watched, canvas, shot = drawn_in_3d(
        CASE.replace('lungs=LungMask.like(p.scan, p.lungs, "reference"))', 'backend="niivue")'), 15)
    picture = watched.page.locator(".jp-OutputArea img").first.bounding_box()
    assert picture["y"] < canvas.bounding_box()["y"]
    assert (shot[..., 0] > shot[..., 2] + 60).sum() > 500  # its mask is warm
    assert len(np.unique(shot[..., 1])) > 50               # on a CT of many greys
    assert watched.elsewhere == []


@pytest.mark.nightly
def test_voila_shows_it_too(tmp_path, browser, phantom):
    write_notebook(tmp_path / "case.ipynb", CASE)
    with server(tmp_path, "voila", notebook="case.ipynb") as address:
        watched = Watched(browser)
        watched.page.goto(address)
        watched.wait_for_viewer()
        focus(watched)
        go_to(watched, 9, 60, 60)
        assert f"{phantom.scan.hu[9, 60, 60]}".replace("-", "−") in watched.page.locator(
            ".dl-status").inner_text()
        # Voila's own page asks for two style sheets of icons, and goes on without them.
        assert all("fontawesome" in url for url in watched.elsewhere)
        assert not [m for m in watched.messages if "ERR_FAILED" not in m]
        watched.page.close()
