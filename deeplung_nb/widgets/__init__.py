"""Interactive views for notebooks: everything they need is in the package, no address is called."""

from deeplung_nb.widgets.surface import view_surface
from deeplung_nb.widgets.viewer import CTViewer, view_case, view_ct

__all__ = ["CTViewer", "view_case", "view_ct", "view_surface"]
