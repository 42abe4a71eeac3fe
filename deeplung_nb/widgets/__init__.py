"""Interactive views for notebooks: everything they need is in the package, no address is called."""

from typing import Any

from deeplung_nb.widgets.viewer import CTViewer, view_case, view_ct

__all__ = ["CTViewer", "view_case", "view_ct", "view_surface"]


def __getattr__(name: str) -> Any:
    """Surfaces need k3d: it is imported when they are asked for."""
    if name != "view_surface":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from deeplung_nb.widgets.surface import view_surface

    return view_surface
