"""itkwidgets where it works: an environment of its own, classic Notebook 6, no network."""

import io
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from deeplung_nb.runs.resources import PACKAGE_FOLDER
from tests.browser import CHROMIUM, PATIENCE_MS, WITH_3D, Watched, server, write_notebook
from tests.test_widgets_browser import CASE

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.browser, pytest.mark.nightly,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]
ROOT = PACKAGE_FOLDER.parent
FOLDER = ROOT / ".venv-itkwidgets"


@pytest.fixture(scope="module")
def python():
    """That environment's interpreter; it is made once, where packages can be had."""
    wanted = (ROOT / "requirements-itkwidgets.txt").read_text(encoding="utf-8")
    stamp = FOLDER / "installed.txt"
    if not (stamp.exists() and stamp.read_text(encoding="utf-8") == wanted):
        shutil.rmtree(FOLDER, ignore_errors=True)
        pip = [str(FOLDER / "bin" / "python"), "-m", "pip", "install", "--quiet",
               "--disable-pip-version-check", "--timeout", "20", "--retries", "1"]
        try:
            subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
            for arguments in (["--requirement", str(ROOT / "requirements-itkwidgets.txt")],
                              ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]):
                subprocess.run([*pip, *arguments], check=True, capture_output=True, timeout=600)
        except (subprocess.SubprocessError, OSError) as error:
            shutil.rmtree(FOLDER, ignore_errors=True)
            pytest.skip(f"its environment can't be made here: {str(error)[:160]}")
        stamp.write_text(wanted, encoding="utf-8")
    return str(FOLDER / "bin" / "python")


def test_a_volume_is_shown_by_itkwidgets_below_the_still_picture(python, tmp_path):
    cell = CASE.replace('lungs=LungMask.like(p.scan, p.lungs, "reference"))',
                        'backend="itkwidgets")')
    assert "itkwidgets" in cell
    write_notebook(tmp_path / "case.ipynb", cell)
    with server(tmp_path, "classic", python=python) as address, playwright.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=WITH_3D)
        watched = Watched(chromium)
        watched.page.set_default_timeout(PATIENCE_MS)
        watched.page.goto(f"{address}/notebooks/case.ipynb")
        watched.page.wait_for_selector("#notification_kernel, .kernel_idle_icon", state="attached",
                                       timeout=PATIENCE_MS)
        watched.page.wait_for_timeout(3000)
        watched.page.locator(".code_cell .CodeMirror").first.click()
        watched.page.keyboard.press("Shift+Enter")
        watched.page.wait_for_selector(".output_png img", timeout=PATIENCE_MS)
        viewer = watched.page.wait_for_selector(".output_area canvas >> nth=0", timeout=PATIENCE_MS)
        watched.page.wait_for_timeout(8000)
        above = watched.page.locator(".output_png img").first.bounding_box()
        assert above["y"] < viewer.bounding_box()["y"]
        # The volume is drawn: the picture is not of one colour.
        shot = Image.open(io.BytesIO(viewer.screenshot())).convert("L").resize((64, 64))
        assert sum(n > 0 for n in shot.histogram()) > 20
        assert watched.elsewhere == []
        chromium.close()
