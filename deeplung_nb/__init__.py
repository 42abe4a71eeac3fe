"""COVID-19 pneumonia measured on chest CT, and how well a machine agrees with experts.

    >>> import deeplung_nb as dl
    >>> import pandas as pd

Two readers' volumes in a table, one row a case, give every statistic of their agreement:

    >>> table = pd.DataFrame({"manual": [310.0, 85.5, 0.0, 730.2, 42.1, 128.0],
    ...                       "automatic": [298.4, 90.1, 1.2, 701.9, 47.3, 119.5]})
    >>> readings = dl.read_table(table, {"expert": "manual", "model": "automatic"}, unit="mL",
    ...                          case_id=None)
    >>> pairs = dl.pair(readings, "expert", "model", "lesion")
    >>> found = dl.bland_altman(pairs.reference, pairs.test)
    >>> print(f"bias {found.bias:.1f} mL, limits {found.loa_lower:.1f} to {found.loa_upper:.1f}")
    bias -6.2 mL, limits -31.4 to 18.9

The same in words, for a paper, is `dl.report_text(pairs)`; `dl.AgreementExplorer(readings)` shows
it in a notebook. A CT becomes a mask and volumes, in three lines:

    >>> segmenter = dl.Segmenter()                                   # doctest: +SKIP
    >>> result = segmenter(dl.read_scan("ct.nii.gz"))                # doctest: +SKIP
    >>> result.table[["structure", "volume_ml", "burden_percent"]]   # doctest: +SKIP

and `dl.view_ct(result.scan, {"automatic": result.mask})` shows it. Not a medical device.

Importing the package loads nothing heavy: each name is fetched when it is asked for, so that
statistics, tables and figures work without torch.
"""

import importlib
import importlib.util
import os
import sys
from typing import Any

__version__ = "0.1.0"

# The same numbers whatever the memory's alignment and the machine's load: without these, Intel's
# library may sum in another order from one process to the next. Read at its first use.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
os.environ.setdefault("MKL_DYNAMIC", "FALSE")

_HOMES = {
    "read_scan": "imaging.io", "read_mask": "imaging.io", "view_ct": "widgets.viewer",
    "Segmenter": "reading.segment", "write_segmentation": "reading.results",
    "measure": "reading.volumes",
    "read_table": "measurements", "pair": "measurements",
    "bland_altman": "stats.agreement", "agreement_table": "stats.summary",
    "report_text": "report.prose", "AgreementExplorer": "widgets.explorer",
    "open_run": "runs", "view_case": "widgets.viewer", "correct": "widgets.corrector",
    "save_page": "widgets.page",
}
"""Name -> the module that it lives in. The way of a CT, of a table, of a run."""

_IMAGING = dict.fromkeys(("read_scan", "read_mask", "measure", "view_ct", "view_case",
                          "correct", "save_page"), "SimpleITK")
_NEEDS = {**_IMAGING, "Segmenter": "torch", "write_segmentation": "torch"}
_EXTRAS = {"torch": "network", "monai": "network", "numba": "network", "SimpleITK": "imaging",
           "nibabel": "imaging", "pydicom": "imaging", "joblib": "imaging", "k3d": "widgets",
           "itables": "widgets", "nbformat": "notebooks", "nbclient": "notebooks",
           "voila": "notebooks", "ipyniivue": "niivue", "dask": "cluster",
           "distributed": "cluster", "pyarrow": "cluster"}
"""Package -> the extra of this one that brings it."""


def how_to_install(error: ModuleNotFoundError) -> str:
    """The command that installs what an import missed."""
    missing = (error.name or "").partition(".")[0]
    wanted = f'"deeplung_nb[{_EXTRAS[missing]}]"' if missing in _EXTRAS else missing
    return f"pip install {wanted}"


def _is_installed(package: str) -> bool:
    try:
        return package in sys.modules or importlib.util.find_spec(package) is not None
    except ImportError:
        return False


def __getattr__(name: str) -> Any:
    if name == "__all__":  # what can be had here, so that help() and `import *` stop nowhere
        return ["__version__", *(known for known in _HOMES
                                 if known not in _NEEDS or _is_installed(_NEEDS[known]))]
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(__name__):
            raise
        raise ModuleNotFoundError(
            f"deeplung_nb.{name} needs {error.name}, which is not installed. Install it with: "
            f"{how_to_install(error)}", name=error.name) from error


def __dir__() -> list[str]:
    return sorted(__getattr__("__all__"))
