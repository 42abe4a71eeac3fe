"""The dashboard: explorer, cohort browser and viewer of one run, or of one table of readings."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets
import nbformat

from deeplung_nb.runs import Run, find_run, read_run, results_folder
from deeplung_nb.runs.resources import EXAMPLE
from deeplung_nb.widgets.browser import CohortBrowser, cases_of_table
from deeplung_nb.widgets.explorer import AgreementExplorer

SETTINGS = {
    "allow_remote_access": False,  # by no other name than this machine's own
    "headers": {"Content-Security-Policy":
                "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; "
                "connect-src 'self' data: blob: ws://127.0.0.1:* ws://localhost:*; "
                "frame-ancestors 'self'"},
}
"""Of the server: pages for this machine alone, which ask for nothing from anywhere else."""
CELL = "from deeplung_nb.widgets import show_dashboard\n\nshow_dashboard({source!r}, unit={unit!r})"


def _open_case(run: Run, browser: CohortBrowser, cohort: str, case_id: str) -> Any:
    """The case in the viewer; its thumbnail where its images are not all there."""
    try:
        from deeplung_nb.widgets.viewer import view_case

        return view_case(run, cohort, case_id)
    except (ImportError, OSError, ValueError) as error:
        words = ipywidgets.HTML(f'<span class="dl-notes">{escape(str(error))}</span>')
        case = browser.frame.query("cohort == @cohort and case_id == @case_id")
        pictures = [browser.picture(row) for row in case.itertuples()]
        return ipywidgets.VBox([*pictures, words])


def show_dashboard(source: str | os.PathLike | Run, unit: str | None = None
                   ) -> ipywidgets.Tab:
    """Agreement and cases in two tabs; a case picked in either opens below.

    Parameters
    ----------
    source
        A run or its folder, a `measurements.csv`, or any CSV or Excel file of paired readings
        (`AgreementExplorer.from_csv`).
    unit
        Of such a table's volumes: `mL`, `cm3`, `mm3` ...

    Raises
    ------
    ValueError, FileNotFoundError
        There is nothing there to show; the message says what was expected.
    """
    run = None
    if isinstance(source, Run) or find_run(source).is_dir():
        run = source if isinstance(source, Run) else read_run(source)
        explorer = AgreementExplorer(run.measurements_csv, plan=run.config.limits)
        browser = CohortBrowser(run)
    else:
        explorer = AgreementExplorer.from_csv(source, unit=unit)
        browser = CohortBrowser(cases_of_table(explorer.table))
    opened: dict[tuple[str, str], Any] = {}

    def open_case(cohort: str, case_id: str) -> Any:
        """One viewer, seen in both tabs."""
        if run is not None and (cohort, case_id) not in opened:
            opened.clear()
            opened[cohort, case_id] = _open_case(run, browser, cohort, case_id)
        return opened.get((cohort, case_id))

    explorer.open_case = browser.on_pick = open_case
    # One picked case, whichever tab it was picked in.
    browser.observe(lambda change: change["new"] and explorer.pick(*change["new"]), "picked")
    explorer.observe(lambda change: change["new"] and browser.pick(*change["new"]), "picked")
    tabs = ipywidgets.Tab([explorer, browser], titles=["agreement", "cases"])
    tabs.add_class("dl-dashboard")
    tabs.explorer, tabs.browser = explorer, browser
    return tabs


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(source: Path, port: int | None = None, unit: str | None = None) -> int:
    """Serve the dashboard with Voila, to this machine only, until it is interrupted.

    The address, with the token that opens it, is printed; the exit status comes back.

    Raises
    ------
    ValueError, FileNotFoundError
        As `show_dashboard`, before anything is served.
    """
    source = find_run(source).resolve()
    if not source.exists():
        raise FileNotFoundError(f"{source}: no such run folder or table. Try {EXAMPLE}")
    show_dashboard(source, unit)  # what is wrong with it is said here, not in a browser
    port, token = port or _free_port(), secrets.token_urlsafe(24)
    with tempfile.TemporaryDirectory(prefix="deeplung-dashboard-") as folder:
        path = Path(folder) / "dashboard.ipynb"
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(
            CELL.format(source=str(source), unit=unit))])
        book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3",
                                       "language": "python"}
        book.metadata["title"] = f"deeplung_nb: {source.name}"
        nbformat.write(book, path)
        print(f"dashboard of {source}\n\n    http://127.0.0.1:{port}/?token={token}\n\n"
              "for this machine only; Ctrl-C ends it", flush=True)
        # Any account can read a command line: the token lies in a file of our own folder (0700).
        settings = Path(folder) / "voila.json"
        settings.touch(0o600)
        settings.write_text(json.dumps({"Voila": {
            "ip": "127.0.0.1", "port": port, "token": token, "open_browser": False,
            "tornado_settings": SETTINGS}}), encoding="utf-8")
        command = [sys.executable, "-m", "voila", str(path),
                   f"--Voila.config_file_paths={folder}"]
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # an end is an end
        # The kernel works in a folder of a moment: what it draws is kept where runs are.
        process = subprocess.Popen(command, env={
            **os.environ, "DEEPLUNG_RESULTS": str(results_folder().resolve())})
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait(20)
            return 0
