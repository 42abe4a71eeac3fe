"""Run the notebooks in order, from manifests to report."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from tqdm.auto import tqdm

from deeplung_nb.files import atomic_path, remove_leftovers
from deeplung_nb.runs import Run, open_run
from deeplung_nb.runs.progress import ENVIRONMENT, Overview, State, read_states, words_for
from deeplung_nb.runs.registry import manifest_folder
from deeplung_nb.runs.resources import clone, shipped


class NotebookError(RuntimeError):
    """A notebook stopped; the message says where and why."""


def notebooks(run: Run) -> list[Path]:
    """The notebooks of a run, in order: 00-13, or E2 alone where readings are only simulated."""
    pattern = "E2_*.ipynb" if run.simulated else "[0-9][0-9]_*.ipynb"
    return sorted(shipped("notebooks").glob(pattern))


def run_notebook(notebook: Path, run: Run, progress: Path | None = None,
                 workers: int | None = None) -> float:
    """Execute one notebook in a kernel of its own into the run folder; the seconds it took.

    `progress` is a file in which its long works say how far they are, `workers` the number of
    processes that these may have.
    """
    start = time.perf_counter()
    content = nbformat.read(notebook, as_version=4)
    kernel_environment = {
        **os.environ,
        "DEEPLUNG_RUN": str(run.folder),
        "DEEPLUNG_RESULTS": str(run.folder.parent),
        "DEEPLUNG_DATA": str(run.data or ""),
        "DEEPLUNG_MANIFESTS": str(manifest_folder().resolve()),
        "PYTHONPATH": os.pathsep.join(map(str, filter(None, [
            clone(), os.environ.get("PYTHONPATH")]))),
        **({ENVIRONMENT: str(progress)} if progress is not None else {}),
        **({"DEEPLUNG_WORKERS": str(workers)} if workers is not None else {}),
        # A frozen module's debugger warning would stand in each notebook's output.
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    client = NotebookClient(
        content, timeout=None, kernel_name="python3",
        # A stored state would be drawn by a script from the internet, in place of the picture
        # that each view carries.
        store_widget_state=False,
        resources={"metadata": {"path": str(notebook.parent)}},
        # Else each kernel warns of its unencrypted port, which is bound to this machine alone.
        extra_arguments=["--log-level=ERROR"],
    )
    problem: str | None = None
    try:
        client.execute(env=kernel_environment)
    except CellExecutionError as error:
        problem = f"{error.ename}: {error.evalue}"
    except (DeadKernelError, AssertionError):
        # nbclient answers Ctrl-C by ending the kernel, and then asserts that there is one.
        problem = "its kernel ended, as by Ctrl-C or when memory runs out"
    target = run.path("notebooks", notebook.name)
    with atomic_path(target) as part:
        nbformat.write(content, part)
    if problem is not None:
        raise NotebookError(
            f"{notebook.name} stopped: {problem}\n"
            f"What ran so far is in {target}; mend the cause and run the same command again: "
            "finished work is used again."
        )
    return time.perf_counter() - start


def _start(profile: str | None, data: str | None, results: str | None) -> tuple[Run, Overview]:
    """The run and its plan of work, after the checks of all that it reads.

    A run that can't start leaves no folder.
    """
    from deeplung_nb.cohorts.cases import load_cohorts
    from deeplung_nb.learning.plan import NOTEBOOK_SECONDS, plan_run

    run = open_run(profile or os.environ.get("DEEPLUNG_PROFILE") or "quick", data, results)
    plan = {notebook.stem: (1, NOTEBOOK_SECONDS) for notebook in notebooks(run)}
    try:
        if not run.simulated:
            plan |= plan_run(run, load_cohorts(run))
    except BaseException:
        if {path.name for path in run.folder.iterdir()} <= {"run.json"}:
            shutil.rmtree(run.folder)
            with contextlib.suppress(OSError):
                run.folder.parent.rmdir()  # where it was made for this run
        raise
    return run, Overview(plan)


class _Watch(threading.Thread):
    """Moves one bar while the notebooks work, as their progress file says."""

    def __init__(self, path: Path, overview: Overview, bar: tqdm) -> None:
        super().__init__(daemon=True)
        self.path, self.overview, self.bar = path, overview, bar
        self.notebook, self.place, self.stopped = "", 0, threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.5):
            self.look()

    def look(self) -> None:
        """Read what is new, and draw."""
        states, self.place = read_states(self.path, self.place)
        for state in states:
            self.overview.take(state)
        left = self.overview.seconds_left()
        self.bar.n = round(100 * self.overview.share, 1)
        self.bar.set_postfix_str(" · ".join(filter(None, [
            self.notebook, self.overview.latest,
            f"about {words_for(left)} left" if left is not None else ""])), refresh=False)
        self.bar.update(0)

    def finish(self, notebook: str) -> None:
        """A notebook is done."""
        self.overview.take(State(notebook, 1, 1, 0))
        self.overview.latest = ""
        self.look()


def reproduce(
    profile: str | None = None, data: str | None = None, results: str | None = None,
    workers: int | None = None,
) -> Run:
    """The notebooks, then report.html, explore.html and the checksums; says where everything lies.

    `workers` is the number of processes that train and measure side by side (default: one).

    Raises
    ------
    NotebookError
        A notebook stopped.
    """
    from deeplung_nb.report.html import write_report
    from deeplung_nb.widgets.page import write_explore

    run, overview = _start(profile, data, results)
    remove_leftovers(run.folder, below=True)
    seconds = {}
    # A terminal can redraw a line; a log would get each of them.
    pause = 0.5 if sys.stderr.isatty() else 30.0
    with tempfile.TemporaryDirectory() as scratch, tqdm(
            total=100, desc=run.run_id, mininterval=pause, maxinterval=pause,
            bar_format="{desc} {percentage:3.0f} %|{bar:20}| {elapsed}{postfix}") as bar:
        path = Path(scratch) / "progress"
        watch = _Watch(path, overview, bar)
        watch.start()
        try:
            for notebook in notebooks(run):
                watch.notebook = notebook.stem
                seconds[notebook.stem] = round(run_notebook(notebook, run, path, workers), 1)
                watch.finish(notebook.stem)
        finally:
            watch.stopped.set()
            watch.join()
    if "notebook_seconds" not in run.info():
        run.record("notebooks", notebook_seconds=seconds)
    report = write_report(run)
    try:
        explore = str(write_explore(run, progress=False))
    except ValueError as error:  # more than a page holds: the report has it all the same
        explore = f"not written ({error})"
    run.write_checksums()
    print(f"\nreport   {report}\nexplore  {explore}\nfigures  {run.folder / 'figures'}\ntables   "
          f"{run.folder / 'tables'}\nnumbers  {run.folder / 'measurements.csv'}\n"
          f"took     {words_for(sum(seconds.values()))}")
    return run
