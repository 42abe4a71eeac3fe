"""What a notebook's cell shows."""

from typing import Any
from unittest.mock import patch

from deeplung_nb.widgets import picture


def shown_in_a_cell(widget: Any) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(data, metadata) of each output of a cell that ends with this widget."""
    shown = []

    def display(data: dict[str, Any], metadata: dict[str, Any], raw: bool) -> None:
        assert raw
        shown.append((data, metadata))

    with patch.object(picture, "display", display):
        widget._ipython_display_()
    return shown
