"""Figures in widgets: with words beside them, and with points that can be picked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

STATIC = Path(__file__).with_name("static")
DPI = 110
"""Of a figure in a widget: crisp at the width of a notebook."""


def with_picture(bundle: Any, figure: Any) -> Any:
    """A widget's outputs with a picture and words beside them, for where no widget can live."""
    data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
    return {**(data or {}), "image/png": figure.png(), "text/plain": figure.alt}, metadata


class PointPicture(anywidget.AnyWidget):
    """A figure whose points show a tooltip and can be picked, by pointer or keyboard.

    `on_pick(case)` is called with the number of the case.
    """

    _esm = STATIC / "points.js"
    _css = STATIC / "points.css"

    png = traitlets.Bytes().tag(sync=True)
    points = traitlets.List().tag(sync=True)
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)

    def __init__(self, on_pick: Any, **traits: Any) -> None:
        super().__init__(**traits)
        self.on_pick = on_pick
        self.on_msg(self._hear)

    def _hear(self, _: Any, content: dict[str, Any], buffers: list[bytes]) -> None:
        if content.get("kind") == "pick" and 0 <= content.get("case", -1) < len(self.labels):
            self.on_pick(content["case"])

    def show(self, figure: Any, labels: list[str]) -> None:
        """A figure with `points` (`x, y, case`), and what the tooltip of each case says."""
        with self.hold_sync():
            self.points = [[round(point["x"], 5), round(point["y"], 5), point["case"]]
                           for point in figure.points]
            self.labels, self.alt = labels, figure.alt
            self.png = figure.png(DPI)
