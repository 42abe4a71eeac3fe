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
from tests.browser import ARGUMENTS, CHROMIUM, WITH_3D, Watched, server, write_notebook

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
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
def browser():
    with playwright.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    write_notebook(folder / "case.ipynb", CASE, "print('seen by the kernel:', v.cursor, v.window)",
                   "v.close()")
    for code in ("RAS", "LPS", "LPI"):
        write_notebook(folder / f"{code}.ipynb", ORIENTED.format(code=code))
    with server(folder, "lab") as address:
        yield address


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
    # `automatic` is drawn last, and lies above.
    z = next(k for k, labels in enumerate(phantom.expert.labels)
             if {GGO.code, HIGH_OPACITY.code} <= set(np.unique(labels)))
    go_to(seen, z, 60, 60)
    pixels = shown_pixels(seen).astype(float)
    both = phantom.expert.labels[z]
    for label in (GGO, HIGH_OPACITY):
        colour = np.array([int(label.colour[i:i + 2], 16) for i in (1, 3, 5)])
        here = both == label.code
        assert here.any()
        wanted = 0.5 * windowed(phantom.scan.hu[z], -400, 1500)[here][:, None] + 0.5 * colour
        np.testing.assert_allclose(pixels[here], wanted, atol=1.5)


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
    sagittal = seen.page.locator(".dl-canvas[data-plane=sagittal]")
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
    watched.page.wait_for_selector(".jp-OutputArea img")
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
