"""Times and memory of the CT viewer, 512 x 512 x 120, in a browser: for docs/widgets.md.

    .venv/bin/python tools/measure_viewer.py

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
from scipy import ndimage
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.widgets import view_ct
rng = np.random.default_rng(0)
hu = np.clip(ndimage.gaussian_filter(rng.normal(0, 1, (120, 512, 512)).astype(np.float32), 3)
             * 20000 - 500 + rng.normal(0, 20, (120, 512, 512)), -1024, 1500).astype(np.int16)
scan = Scan(hu, Grid.upright(hu.shape, (2.5, 0.7, 0.7)), "measured")
a, b = (((hu > low) & (hu < low + 100)).astype(np.uint8) for low in (-300, -280))
"""
SHOW = """
import time, resource
start = time.time()
v = view_ct(scan, {"expert": LesionMask.like(scan, a), "automatic": LesionMask.like(scan, b)})
print("made in", round(time.time() - start, 2))
v
"""
MEMORY = "print('kernel MB', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
STEPS = """(async () => {
  const times = [];
  for (let i = 0; i < N; i++) {
    const z = WHERE;
    const t = performance.now();
    v.moveTo([z, 256, 256]);
    while (v.large[0].canvas.dataset.index !== String(z)) await new Promise(r => setTimeout(r, 1));
    times.push(performance.now() - t);
  }
  return times;
})()"""
WINDOWS = """(() => { const times = []; for (let i = 0; i < 40; i++) { const t = performance.now();
  v.set("window", [-400 + i, 1500]); times.push(performance.now() - t); } return times; })()"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name, sync_playwright() as p:
        folder = Path(name)
        write_notebook(folder / "n.ipynb", CELL, SHOW, MEMORY)
        with server(folder, "lab") as address:
            watched = Watched(p.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS))
            page = watched.page
            watched.run_cells(address, "n.ipynb")
            page.wait_for_selector(".jp-CodeCell:nth-child(1) >> text=[1]:", timeout=120_000)
            page.evaluate("""() => { document.addEventListener('keydown', e => {
                if (e.key === 'Enter') window.began = performance.now(); }, true);
                const wait = () => [...document.querySelectorAll('.dl-canvas')].some(
                    c => c.dataset.index) ? (window.first = performance.now() - window.began)
                    : requestAnimationFrame(wait); wait(); }""")
            watched.run_cell(1)
            watched.wait_for_viewer()
            page.wait_for_function("() => window.first")
            first = page.evaluate("window.first") / 1000
            page.wait_for_timeout(1000)
            early = watched.viewer(STEPS.replace("N;", "40;").replace("WHERE", "(60 + i) % 120"))
            page.wait_for_timeout(12_000)
            late = watched.viewer(STEPS.replace("N;", "200;").replace("WHERE", "(i * 7) % 120"))
            windows = watched.viewer(WINDOWS)
            heap = "performance.memory.usedJSHeapSize / 1e6"
            before = page.evaluate(heap)
            watched.viewer(STEPS.replace("N;", "500;").replace("WHERE", "i % 120"))
            after = page.evaluate(heap)
            watched.run_cell(2)
            kernel = page.locator("pre:has-text(\"kernel MB\")").inner_text(timeout=30_000)
    print("| what | measured | target |\n|---|---|---|")
    for what, value, target in (
            ("first picture after the cell was started, s", f"{first:.2f}", "1.0"),
            ("step, a second after the first picture, ms", f"{statistics.median(early):.1f}", "16"),
            ("step to any slice, once all are there, ms", f"{statistics.median(late):.1f}", "16"),
            ("change of window, ms", f"{statistics.median(windows):.1f}", "16"),
            ("page's memory before and after 500 steps, MB", f"{before:.0f}, {after:.0f}", "250"),
            ("kernel's peak with scan and masks and their making, MB", kernel.split()[-1], "")):
        print(f"| {what} | {value} | {target} |")


if __name__ == "__main__":
    main()
