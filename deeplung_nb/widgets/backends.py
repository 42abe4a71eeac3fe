"""Other people's viewers, where they are installed: a still picture first, then a try.

None of them is imported before it is asked for. What works where is in docs/widgets.md.
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from IPython import get_ipython
from IPython.display import display

from deeplung_nb.imaging.io import write_mask, write_scan
from deeplung_nb.imaging.scan import LesionMask, Scan

REMEDIES = {
    "itkwidgets": "itkwidgets 0.32.6 shows its viewer offline, but can't share an environment with "
                  "JupyterLab 4: make one of environment-itkwidgets.yml",
    "niivue": "pip install ipyniivue==2.4.4",
}


class View(NamedTuple):
    """What is to be seen: a scan, the labels of one mask, (level, width) in HU, and how strong."""

    scan: Scan
    labels: np.ndarray | None
    window: tuple[float, float]
    opacity: float


def _itkwidgets(view: View) -> Any:
    # Versions from 1 on replace the kernel's execute_request handler when they are imported, and
    # a run without a browser then loses all later outputs: what they replace is put back.
    shell = get_ipython()
    kernel = getattr(shell, "kernel", None)
    handler = kernel.shell_handlers.get("execute_request") if kernel is not None else None
    callbacks = list(shell.events.callbacks["post_run_cell"]) if shell is not None else []
    try:
        itkwidgets = importlib.import_module("itkwidgets")
    finally:
        if handler is not None:
            kernel.shell_handlers["execute_request"] = handler
        if shell is not None:
            for callback in set(shell.events.callbacks["post_run_cell"]) - set(callbacks):
                shell.events.unregister("post_run_cell", callback)
    version = str(getattr(itkwidgets, "__version__", "0"))
    if not version.startswith("0."):
        raise ImportError(f"itkwidgets {version} loads its viewer from the internet")
    grid = view.scan.grid
    return itkwidgets.view(
        image=grid.to_image(view.scan.hu),
        label_image=None if view.labels is None else grid.to_image(view.labels))


def _niivue(view: View) -> Any:
    ipyniivue = importlib.import_module("ipyniivue")
    folder = Path(tempfile.mkdtemp(prefix="deeplung-"))
    write_scan(view.scan, folder / "ct.nii.gz")
    level, width = view.window
    volumes = [{"path": folder / "ct.nii.gz", "colormap": "gray", "cal_min": level - width / 2,
                "cal_max": level + width / 2}]
    if view.labels is not None:
        write_mask(LesionMask.like(view.scan, view.labels), folder / "mask.nii.gz")
        volumes.append({"path": folder / "mask.nii.gz", "colormap": "warm",
                        "opacity": view.opacity})
    # The patient's right on the left, as radiologists look at it.
    shown = ipyniivue.NiiVue(is_radiological_convention=True, sagittal_nose_left=True)
    shown.load_volumes(volumes)
    # Images of a patient don't stay on the disk longer than the viewer lives.
    weakref.finalize(shown, shutil.rmtree, folder, ignore_errors=True)
    return shown


BACKENDS: dict[str, Callable[[View], Any]] = {"itkwidgets": _itkwidgets, "niivue": _niivue}


def show_elsewhere(backend: str, view: View, still: Any) -> Any:
    """Show a scan and a mask in another viewer; the `still` picture stands above it.

    Returns
    -------
    The other viewer, or None where it can't be shown: then one line says why, and the remedy.

    Raises
    ------
    ValueError
        No such backend.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r}: expected builtin, {', '.join(BACKENDS)}")
    display(still)
    try:
        return BACKENDS[backend](view)
    except Exception as error:
        print(f"{backend} can't be shown here ({type(error).__name__}: {str(error)[:120]}). "
              f"{REMEDIES[backend]}; or use backend='builtin'.")
        return None
