"""Pictures of the viewer for the docs: .venv/bin/python docs/make_viewer_images.py RUN

A synthetic case of a run in JupyterLab, light and dark, as overlay and as agreement map. Needs
Debian's chromium.
"""

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from deeplung_nb.runs import read_run

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tests.browser import ARGUMENTS, CHROMIUM, Watched, server, write_notebook  # noqa: E402

CELL = """
from deeplung_nb.report.panels import choose_case
from deeplung_nb.runs import read_run
from deeplung_nb.widgets import view_case
run = read_run({run!r})
chosen = choose_case(measurements.read(run.measurements_csv), "median_both", role="cv")
view_case(run, chosen.cohort, chosen.case_id, layout={layout!r})
"""


def main(source: Path) -> None:
    """Write docs/images/viewer_light.png and viewer_dark.png."""
    if not read_run(source).synthetic:
        sys.exit(f"{source}: a run of real cases; only synthetic ones may be shown")
    for name, theme, layout in (("viewer_light", "JupyterLab Light", "overlay"),
                                ("viewer_dark", "JupyterLab Dark", "agreement")):
        with tempfile.TemporaryDirectory() as scratch, sync_playwright() as p:
            folder = Path(scratch)
            write_notebook(folder / "n.ipynb",
                           CELL.format(run=str(source.resolve()), layout=layout))
            with server(folder, "lab", theme=theme) as address:
                watched = Watched(p.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS))
                watched.page.set_viewport_size({"width": 1400, "height": 1500})
                watched.run_cells(address, "n.ipynb")
                watched.wait_for_viewer()
                watched.page.wait_for_timeout(2000)
                shot = watched.page.locator(".dl-viewer").screenshot()
        picture = Image.open(io.BytesIO(shot)).convert("RGB")
        small = picture.quantize(256, method=Image.Quantize.FASTOCTREE)
        small.save(ROOT / "docs" / "images" / f"{name}.png", optimize=True)
        print(ROOT / "docs" / "images" / f"{name}.png", picture.size)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
