"""Figures in widgets: with words beside them, and with points that can be picked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from IPython.display import display

STATIC = Path(__file__).with_name("static")
OPENING = '<span class="dl-notes">opening its images …</span>'
DPI = 110
"""Of a figure in a widget: crisp at the width of a notebook."""


def script(*names: str) -> str:
    """The JavaScript of a widget of ours, in one piece with what all of them share."""
    return "".join((STATIC / part).read_text(encoding="utf-8") for part in ("still.js", *names))


class WithStill:
    """A widget above which its still picture is written into the notebook.

    Where no widget can live (a notebook that is opened again, a page, paper) the picture and its
    words are what is to be seen; where one does, it hides the picture.
    """

    def still(self) -> Any:
        """The figure, or None where there is none."""
        return None

    @property
    def curtain(self) -> Any:
        """The part that hides the picture: it has the trait `mark`; None where none can."""
        return self

    def _ipython_display_(self, **_: Any) -> None:
        widget: Any = self
        found = widget._repr_mimebundle_()
        data, metadata = found if isinstance(found, tuple) else (found, {})
        figure = self.still()
        if figure is not None:
            still, words = figure._repr_mimebundle_()
            if self.curtain is not None:
                png = still["image/png"]
                self.curtain.mark = png[len(png) // 2:][:48]
            display(still, metadata=words, raw=True)
            data = {**(data or {}), "text/plain": ""}
        display(data, metadata=metadata, raw=True)


class PointPicture(anywidget.AnyWidget):
    """A figure with its words, whose points, if it has any, show a tooltip and can be picked.

    By pointer or keyboard; `on_pick(case)` is called with the number of the case.

    Attributes
    ----------
    picked
        The case that is ringed, by its number; -1 for none.
    busy
        What is being worked out while this picture is still the old one; empty when nothing is.
    """

    _esm = script("points.js")
    _css = STATIC / "points.css"

    png = traitlets.Bytes().tag(sync=True)
    points = traitlets.List().tag(sync=True)
    labels = traitlets.Dict().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    mark = traitlets.Unicode().tag(sync=True)
    picked = traitlets.Int(-1).tag(sync=True)
    busy = traitlets.Unicode().tag(sync=True)

    def __init__(self, on_pick: Any = None, **traits: Any) -> None:
        super().__init__(**traits)
        self.on_pick = on_pick
        self.on_msg(self._hear)

    def _hear(self, _: Any, content: dict[str, Any], buffers: list[bytes]) -> None:
        if self.on_pick and content.get("kind") == "pick" \
                and str(content.get("case")) in self.labels:
            self.on_pick(content["case"])

    def show(self, figure: Any, labels: Mapping[int, str] | None = None, picked: int = -1) -> None:
        """A figure, and what the tooltips of the cases of its `points` (`x, y, case`) say.

        A case without words in `labels` can't be pointed at.
        """
        with self.hold_sync():
            found = []
            if labels:
                points = figure.points[figure.points["case"].isin(list(labels))].round(5)
                found = points[["x", "y", "case"]].to_numpy().tolist()
            self.points = found
            self.labels = {str(case): words for case, words in (labels or {}).items()}
            self.alt, self.picked, self.busy = figure.alt, picked, ""
            self.png = figure.png(DPI)
