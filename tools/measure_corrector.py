"""Times of drawing in a CT of 630 x 630 x 140, in a browser: for docs/corrections.md.

    .venv/bin/python tools/measure_corrector.py

Needs Debian's chromium. Prints a Markdown table; every number is a median of its repeats.
"""

import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.browser import ARGUMENTS, CHROMIUM, Watched, server, write_notebook

CELL = """
import numpy as np
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.scan import Scan
from deeplung_nb.widgets import correct
rng = np.random.default_rng(0)
hu = rng.normal(-700, 120, (140, 630, 630)).astype(np.int16)
scan = Scan(hu, Grid.upright(hu.shape, (2.5, 0.6, 0.6)), "measured")
start = np.zeros(hu.shape, np.uint8)
start[40:100, 200:430, 100:500] = 1
v = correct(scan, reader="AB", folder="r", start=start)
v
"""
MOVES = """(() => {
  const picture = v.large[0], times = [];
  const box = picture.canvas.getBoundingClientRect();
  const event = (k) => ({ clientX: box.x + 200 + k * 3, clientY: box.y + 200 + (k % 40),
    button: 0, buttons: 1, shiftKey: false, pointerType: "mouse" });
  v.pen.choose("radius", 12);
  v.pen.down(picture, event(0));
  for (let k = 1; k < 60; k++) {
    const t = performance.now();
    v.pen.move(picture, event(k));
    cancelAnimationFrame(v.pen.frame);
    v.pen.frame = null;
    picture.draw();
    times.push(performance.now() - t);
  }
  v.pen.up(picture, event(60));
  return times;
})()"""
STROKES = """(async () => {
  const picture = v.large[0], times = [];
  const box = picture.canvas.getBoundingClientRect();
  for (let k = 0; k < 20; k++) {
    const event = { clientX: box.x + 150 + k * 10, clientY: box.y + 300, button: 0, buttons: 1,
      shiftKey: false, pointerType: "mouse" };
    const t = performance.now();
    v.pen.down(picture, event);
    v.pen.up(picture, event);
    while (v.pen.pending.length) await new Promise((r) => setTimeout(r, 1));
    times.push(performance.now() - t);
  }
  return times;
})()"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name, sync_playwright() as p:
        folder = Path(name)
        write_notebook(folder / "n.ipynb", CELL)
        with server(folder, "lab") as address:
            watched = Watched(p.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS))
            watched.run_cells(address, "n.ipynb")
            watched.wait_for_viewer()
            watched.page.wait_for_timeout(3000)
            moves = watched.viewer(MOVES)
            watched.page.wait_for_timeout(1000)
            kept = watched.viewer(STROKES)
    print("| what | measured | target |\n|---|---|---|")
    for what, values, target in (
            ("a movement of the brush (12 mm), until it is drawn, ms", moves, "16"),
            ("a stroke, until it is said to be on disk, ms", kept, "")):
        print(f"| {what} | {statistics.median(values):.1f} (at most {max(values):.1f}) "
              f"| {target} |")


if __name__ == "__main__":
    main()
