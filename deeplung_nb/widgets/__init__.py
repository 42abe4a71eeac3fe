"""Interactive views for notebooks: everything they need is in the package, no address is called.

Each is imported when it is asked for: the explorer needs a table only, the viewer SimpleITK,
surfaces k3d.
"""

import importlib
from typing import Any

_HOMES = {"AgreementExplorer": "explorer", "CTViewer": "viewer", "CohortBrowser": "browser",
          "CohortMonitor": "cohort_monitor", "Corrector": "corrector", "correct": "corrector",
          "ReadingDesk": "reading_desk",
          "TrainingMonitor": "monitor", "link_views": "viewer", "view_case": "viewer",
          "view_measured": "cohort_monitor",
          "view_ct": "viewer", "view_surface": "rendering", "show_dashboard": "dashboard"}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
