"""Run the notebooks in order, from manifests to report."""

from __future__ import annotations

import os
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from tqdm.auto import tqdm

from deeplung_nb.files import atomic_path
from deeplung_nb.runs import PACKAGE_FOLDER, Run, open_run

NOTEBOOK_FOLDER = PACKAGE_FOLDER.parent / "notebooks"


class NotebookError(RuntimeError):
    """A notebook stopped; the message says where and why."""


def notebooks() -> list[Path]:
    """The numbered notebooks 00-10, in order."""
    found = sorted(NOTEBOOK_FOLDER.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise FileNotFoundError(
            f"{NOTEBOOK_FOLDER}: no notebooks. Run from a clone of the repository."
        )
    return found


def run_notebook(notebook: Path, run: Run) -> float:
    """Execute one notebook in a kernel of its own into the run folder; the seconds it took."""
    start = time.perf_counter()
    content = nbformat.read(notebook, as_version=4)
    kernel_environment = {
        **os.environ,
        "DEEPLUNG_RUN": str(run.folder),
        "DEEPLUNG_RESULTS": str(run.folder.parent),
        "DEEPLUNG_DATA": str(run.data or ""),
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(PACKAGE_FOLDER.parent), os.environ.get("PYTHONPATH")])
        ),
        # A frozen module's debugger warning would stand in each notebook's output.
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    client = NotebookClient(
        content, timeout=None, kernel_name="python3",
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


def reproduce(
    profile: str | None = None, data: str | None = None, results: str | None = None
) -> Run:
    """Notebooks 00-10, then report.html and the checksums; says where everything lies.

    Raises
    ------
    NotebookError
        A notebook stopped.
    """
    from deeplung_nb.report.html import write_report

    run = open_run(profile or os.environ.get("DEEPLUNG_PROFILE") or "quick", data, results)
    seconds = {}
    todo = notebooks()
    with tqdm(total=len(todo), desc=run.run_id, unit="notebook") as bar:
        for notebook in todo:
            bar.set_postfix_str(notebook.stem)
            seconds[notebook.stem] = round(run_notebook(notebook, run), 1)
            bar.update()
    run.record(notebook_seconds=seconds)
    report = write_report(run)
    run.write_checksums()
    print(f"\nreport   {report}\nfigures  {run.folder / 'figures'}\ntables   "
          f"{run.folder / 'tables'}\nnumbers  {run.folder / 'measurements.csv'}\n"
          f"took     {sum(seconds.values()):.0f} s")
    return run
