"""One look for every figure, and files that have the same bytes each time they are written."""

from __future__ import annotations

import base64
import functools
import io
import json
import re
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any
from unittest import mock

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from deeplung_nb.files import atomic_path, write_text
from deeplung_nb.runs import Run

MM = 1 / 25.4
COLUMN_MM = 84.0
"""Width of one journal column."""
PAGE_MM = 174.0
"""Width of the page's text."""
FOOTER_MM = 4.0

INK = "#222222"
GREY = "#6b7280"
PALE = "#d8dce2"
SMALL = 7.0
"""The smallest letters of a figure at its printed width, points."""
READERS = {"model": "automatic"}
"""Readers whose name in a figure is not that of the table."""
FOLD_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#444444")
"""Okabe and Ito's colours, which colour-blind readers can tell apart."""

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # shipped with matplotlib: the same letters on every machine
    "font.size": SMALL,
    "axes.titlesize": 7.5,
    "axes.labelsize": SMALL,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.5,
    "patch.linewidth": 0.6,
    "hatch.linewidth": 0.5,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "image.interpolation": "nearest",
    "figure.facecolor": "white",
    "figure.dpi": 150,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "deeplung_nb",
}

FORMATS: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "Producer": None, "Creator": "deeplung_nb"},
    "svg": {"Date": None, "Creator": "deeplung_nb"},
    "png": {"Software": None},
}
"""What is written, and the metadata that keeps dates and versions out of it."""


def with_words(png: bytes, words: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A picture for a notebook's cell: (data, metadata), its words read by a screen reader too.

    JupyterLab and exported pages have no place for a PNG's words, so that it stands as HTML as
    well; paper takes the PNG.
    """
    text = base64.b64encode(png).decode("ascii")
    said = escape(words, quote=True)
    picture = f'<img src="data:image/png;base64,{text}" alt="{said}" style="max-width: 100%">'
    return ({"text/html": picture, "image/png": text, "text/plain": words},
            {"image/png": {"alt": words}})


class PrintFigure(Figure):
    """A figure of print size, outside pyplot: nothing to close, nothing shown twice.

    `alt` says in words what is to be seen; it goes with the picture into notebook and report.
    `foot_mm` is what is kept free at the foot for a legend or a note, above the footer.
    """

    alt: str = ""
    foot_mm: float = 0.0

    @mpl.rc_context(STYLE)
    def png(self, dpi: int = 150) -> bytes:
        """The figure as PNG, for a notebook or a widget."""
        stream = io.BytesIO()
        # As small as by the usual level of packing, in three quarters of the time.
        self.savefig(stream, format="png", dpi=dpi, metadata=FORMATS["png"],
                     pil_kwargs={"compress_level": 3})
        return stream.getvalue()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None
                          ) -> tuple[dict[str, Any], dict[str, Any]]:
        return with_words(self.png(), self.alt or repr(self))


def styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Run a drawing function under `STYLE`, leaving matplotlib's settings as they were."""

    @functools.wraps(draw)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper


def new_figure(width_mm: float, height_mm: float, foot_mm: float = 0.0) -> PrintFigure:
    """An empty figure of a size in mm, laid out so that no label leaves it."""
    figure = PrintFigure(figsize=(width_mm * MM, height_mm * MM), layout="constrained")
    figure.foot_mm = foot_mm
    bottom = (FOOTER_MM + foot_mm) / height_mm
    figure.get_layout_engine().set(w_pad=1.5 * MM, h_pad=1.5 * MM, rect=(0, bottom, 1, 1 - bottom))
    return figure


def foot_y(figure: PrintFigure, up: float = 0.5) -> float:
    """A height in the free foot of a figure (0 its lower edge, 1 its upper), figure fraction."""
    return (FOOTER_MM + up * figure.foot_mm) * MM / figure.get_size_inches()[1]


def letter(axes: Axes, text: str, up: float = 8) -> None:
    """The letter of a panel, `up` points above its upper left corner."""
    axes.annotate(text, (0, 1), xytext=(-24, up), xycoords="axes fraction",
                  textcoords="offset points", fontsize=9, fontweight="bold", va="center")


@functools.lru_cache(maxsize=4096)
def _width_pt(text: str) -> float:
    """Of the drawn letters, which are up to a twentieth wider than their outlines at 150 dpi."""
    # The corners of the outlines' curves hold them: to find each curve's own end takes ten times
    # as long.
    corners = TextPath((0, 0), text, size=SMALL).vertices
    return 1.05 * float(np.ptp(corners[:, 0])) if len(corners) else 0.0


def _fit(line: str, room_pt: float) -> list[str]:
    """The line, broken between words where it is wider than the room; not within brackets, nor
    between a number and its interval, as long as these fit."""
    lines = [""]
    for word in (part for whole in re.findall(r"\([^)]*\)|\S+ \[[^\]]*\]|\S+", line)
                 for part in ([whole] if _width_pt(whole) <= room_pt else whole.split())):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _width_pt(longer) > room_pt:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def letter_row(panels: Mapping[str, Axes]) -> None:
    """Letters of a row of panels at one height, and their titles broken so that each fits.

    The room of a panel is its share of the figure, less what labels and ticks take.
    """
    most = 1
    for axes in panels.values():
        place: Any = axes.get_subplotspec()
        whole: Any = axes.figure
        shares = place.get_gridspec().get_width_ratios()
        share = sum(shares[place.colspan.start:place.colspan.stop]) / sum(shares)
        room_pt = 72 * whole.get_size_inches()[0] * share - 40
        fitted = [part for line in axes.get_title(loc="left").split("\n")
                  for part in _fit(line, room_pt)]
        axes.set_title("\n".join(fitted), loc="left", fontsize=SMALL, linespacing=1.25)
        most = max(most, len(fitted))
    for name, axes in panels.items():
        letter(axes, name, up=9.0 * most)


def _add_footer(figure: Figure, text: str) -> None:
    if any(item.get_gid() == "footer" for item in figure.texts):
        return
    figure.text(0.995, 0.8 * MM / figure.get_size_inches()[1], text, ha="right", va="bottom",
                fontsize=SMALL, fontweight="bold", color="#a33b20", gid="footer")


def _clip_number(renderer: RendererSVG, path: Any) -> int:
    """The number of a clip path in an SVG file, by its form.

    Matplotlib counts objects, and draws equal paths as one object or as two, as it happens to have
    kept them: the same figure would then give other names, and other bytes.
    """
    codes = b"" if path.codes is None else path.codes.tobytes()
    return renderer._clip_path_ids.setdefault((path.vertices.tobytes(), codes),
                                              len(renderer._clip_path_ids))


def _name_by_order(renderer: RendererSVG, kind: str, content: Any) -> str:
    """The name of a clip path, a marker or a picture in an SVG file: its number in the file.

    Matplotlib names them by a hash of their content, which for a clip rectangle is its corners in
    full precision; the layout's solver leaves their last digits to chance.
    """
    names = renderer.__dict__.setdefault("_names_by_order", {})
    return f"{kind}{names.setdefault((kind, str(content)), len(names)):x}"


@mpl.rc_context(STYLE)
def write_figure(figure: Figure, path: Path, suffix: str) -> None:
    """The figure as a file of one of `FORMATS`: the same figure gives the same bytes."""
    with (mock.patch.object(RendererSVG, "_get_clippath_id", _clip_number),
          mock.patch.object(RendererSVG, "_make_id", _name_by_order)):
        figure.savefig(path, format=suffix, metadata=FORMATS[suffix])


def save_figure(figure: Figure, run: Run, name: str, caption: str = "", alt: str = "") -> Path:
    """Write `figures/<name>.pdf`, `.svg` and `.png` (300 dpi), and their words in `<name>.json`.

    The same figure gives the same bytes. A figure of a synthetic cohort says so at its foot.

    Parameters
    ----------
    caption
        Sentence under the figure in the report.
    alt
        What is to be seen, in words; defaults to what the drawing function wrote.

    Returns
    -------
    Path
        The PNG.
    """
    if run.synthetic:
        _add_footer(figure, f"synthetic cohort · {run.run_id}")
    for suffix in FORMATS:
        with atomic_path(run.path("figures", f"{name}.{suffix}")) as part:
            write_figure(figure, part, suffix)
    words = {"caption": caption, "alt": alt or getattr(figure, "alt", "") or caption or name}
    write_text(run.path("figures", f"{name}.json"),
               json.dumps(words, indent=2, ensure_ascii=False) + "\n")
    return run.path("figures", f"{name}.png")


def reader_names(pair: pd.DataFrame) -> tuple[str, str]:
    """What to call the two readers of a table of pairs, as `measurements.pair` names them."""
    return tuple(READERS.get(name, name) for name in
                 (str(pair.attrs.get(side, side)) for side in ("reference", "test")))
