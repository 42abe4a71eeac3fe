"""How fast the cohort browser is over 5,000 rows: .venv/bin/python tools/measure_browser.py

In JupyterLab, in Debian's chromium: from the choice of a filter or an order to the table's new rows
on the page.
"""

import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tests.browser import ARGUMENTS, CHROMIUM, Watched, server, write_notebook  # noqa: E402

CELL = f"""
import pandas as pd
from deeplung_nb import measurements
from deeplung_nb.widgets import CohortBrowser
from deeplung_nb.widgets.browser import cases_of_table
table = measurements.read({str(ROOT / 'results' / 'example' / 'measurements.csv')!r})
frame = pd.concat([cases_of_table(table)] * 120, ignore_index=True).head(5000)
frame["case_id"] = [f"C{{k:04d}}" for k in range(len(frame))]
CohortBrowser(frame)
"""
WAIT = """([act, done]) => new Promise((resolve) => {
  const start = performance.now();
  const ready = new Function('return ' + done);
  new Function(act)();
  const look = () => {
    const passed = performance.now() - start;
    if (ready() || passed > 5000) resolve(passed); else requestAnimationFrame(look);
  };
  look();
})"""
FIRST = ("String(document.querySelector('table.dataTable tbody tr td:nth-child(2)')"
         "?.innerText)")
COUNT = "document.body.innerText.includes('{} of 5000 cases')"
CHOOSE = """const s = [...document.querySelectorAll('.widget-dropdown')].find(
  e => e.innerText.startsWith('{}')).querySelector('select');
  s.value = [...s.options].find(o => o.label.replaceAll('\u00a0', ' ') === '{}').value;
  s.dispatchEvent(new Event('change', {{bubbles: true}}));"""


def main(repeats: int = 6) -> None:
    """Print the medians."""
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as p:
        folder = Path(scratch)
        write_notebook(folder / "n.ipynb", CELL)
        with server(folder, "lab") as address:
            watched = Watched(p.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS))
            watched.run_cells(address, "n.ipynb")
            page = watched.page
            page.wait_for_selector("table.dataTable tbody tr", timeout=90_000)
            page.wait_for_timeout(3000)
            filters, sorts = [], []
            for _ in range(repeats):
                for value, first in (("external", "'C00'"), ("all", "'C0000'")):
                    done = (f"!{COUNT.format(5000)}" if value == "external"
                            else COUNT.format(5000)) + f" && {FIRST}.startsWith({first})"
                    if value == "external":
                        done += f" && {FIRST} !== 'C0000'"
                    filters.append(page.evaluate(WAIT, [CHOOSE.format("role", value), done]))
                    page.wait_for_timeout(400)
                for column in ("expert mL", "as in the manifest"):
                    before = page.evaluate(FIRST)
                    done = f"!['{before}', 'undefined'].includes({FIRST})"
                    sorts.append(page.evaluate(WAIT, [CHOOSE.format("sort by", column), done]))
                    page.wait_for_timeout(400)
            for name, values in (("filter", filters), ("sort", sorts)):
                print(f"{name:<8} median {statistics.median(values):6.0f} ms, most "
                      f"{max(values):6.0f} ms, of {len(values)}")


if __name__ == "__main__":
    main()
