"""The explorer's figure: three views of the same pairs, and where each point of them lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from deeplung_nb.labels import COLOURS, counted
from deeplung_nb.report.agreement_plots import (
    draw_bland_altman,
    draw_correlation,
    limit_words,
    scale_words,
    words_of,
)
from deeplung_nb.report.numbers import number
from deeplung_nb.report.style import (
    GREY,
    INK,
    PAGE_MM,
    SMALL,
    PrintFigure,
    foot_y,
    letter_row,
    new_figure,
    reader_names,
    styled,
)
from deeplung_nb.stats.limits import differences

LEFT_OUT = {"marker": "D", "linestyle": "", "markerfacecolor": "none", "markeredgecolor": "#c0392b",
            "markersize": 5, "markeredgewidth": 1.0, "zorder": 5}
"""A hollow diamond: somebody left this case out."""


def draw_paired(axes: Axes, pair: pd.DataFrame, structure: str) -> None:
    """Each pair as a line from the reference to the test reader."""
    values = pair[["reference", "test"]].to_numpy(float)
    strength = float(np.clip(12 / max(len(values), 1), 0.15, 0.8))
    lines = np.stack([np.broadcast_to([0.0, 1.0], values.shape), values], axis=-1)
    axes.add_collection(LineCollection(list(lines), colors=COLOURS[structure], linewidths=0.8,
                                       alpha=strength, zorder=2))
    for place, column in enumerate(values.T):
        axes.plot(np.full(len(column), place), column, "o", color=COLOURS[structure],
                  markeredgecolor=INK, markeredgewidth=0.4, markersize=2.6, zorder=3)
        if len(column):
            axes.plot([place - 0.13, place + 0.13], [np.median(column)] * 2, color=INK,
                      linewidth=1.6, zorder=4)
    axes.set_xticks([0, 1], reader_names(pair))
    axes.set_xlim(-0.3, 1.3)
    axes.set_title("Pairs; strokes: medians", loc="left", fontsize=SMALL)


def _place_left_out(panels: Sequence[Axes], left: pd.DataFrame, scale: str) -> None:
    if left.empty:
        return
    reference, test = (left[name].to_numpy(float) for name in ("reference", "test"))
    x, y, _ = differences(reference, test, scale)
    panels[0].plot(x, np.exp(y) if scale == "ratio" else y, **LEFT_OUT)
    panels[1].plot(reference, test, **LEFT_OUT)
    for place, values in enumerate((reference, test)):
        panels[2].plot(np.full(len(values), place), values, **LEFT_OUT)


def _points(figure: PrintFigure, panels: Sequence[Axes], shown: pd.DataFrame,
            scale: str) -> pd.DataFrame:
    """Where the cases are, as shares of the picture from its upper left corner: `x, y, case`."""
    engine: Any = figure.get_layout_engine()
    engine.execute(figure)  # places the panels; from now on they stay where the points say
    figure.set_layout_engine("none")
    reference, test = (shown[name].to_numpy(float) for name in ("reference", "test"))
    x, y, usable = differences(reference, test, scale)
    cases = shown.index.to_numpy()
    places = [(panels[0], x, np.exp(y) if scale == "ratio" else y, cases[usable]),
              (panels[1], reference, test, cases),
              (panels[2], np.zeros(len(shown)), reference, cases),
              (panels[2], np.ones(len(shown)), test, cases)]
    width, height = figure.get_size_inches() * figure.dpi
    found = []
    for axes, across, up, keys in places:
        pixels = axes.transData.transform(np.column_stack([across, up]))
        found.append(pd.DataFrame({"x": pixels[:, 0] / width, "y": 1 - pixels[:, 1] / height,
                                   "case": keys}))
    return pd.concat(found, ignore_index=True)


@styled
def draw_comparison(
    pair: pd.DataFrame, agreement: Any, correlation: Any, line: Any, left_out: pd.DataFrame,
    structure: str, where: Sequence[tuple[str, str]] = (), width_mm: float = PAGE_MM * 1.25,
    limits: Any = None,
) -> PrintFigure:
    """Bland–Altman plot, scatter with the lines of identity and of Deming, and paired plot.

    Parameters
    ----------
    pair, left_out
        As `explore.Answer` has them.
    agreement, correlation, line
        Results of `bland_altman`, `spearman` and `deming`.
    where
        What the cases were chosen by, for the foot.
    limits
        The limits to draw, where they are not those of `agreement`.

    Returns
    -------
    PrintFigure
        Its `points` say where each case lies: `x, y` (shares of the picture, from the upper left)
        and `case`, its row in `pair` followed by `left_out`.
    """
    figure = new_figure(width_mm, 82, foot_mm=6)
    panels = figure.subplots(1, 3, width_ratios=(1.35, 1.05, 0.6))
    names = reader_names(pair)
    limits = agreement if limits is None else limits
    said = "no pairs"
    if len(pair):
        draw_bland_altman(panels[0], pair, agreement, structure, limits)
        draw_correlation(panels[1], pair, correlation, structure)
        if np.isfinite(line.slope):
            ends = np.array([pair["reference"].min(), pair["reference"].max()])
            panels[1].plot(ends, line.intercept + line.slope * ends, color=INK, linewidth=0.9)
        draw_paired(panels[2], pair, structure)
        unit = scale_words(pair, agreement.scale)[2]
        said = (f"{counted(agreement.n, 'pair')}, bias {number(agreement.bias)}{unit}, "
                + limit_words(limits, unit))
    else:
        for axes in panels:
            axes.text(0.5, 0.5, "no pairs", transform=axes.transAxes, ha="center", color=GREY)
    _place_left_out(panels, left_out, agreement.scale)
    letter_row(dict(zip("ABC", panels, strict=True)))
    chosen = "".join(f"     only {column} {value}" for column, value in where)
    out = f"     diamond: left out, {len(left_out)}" if len(left_out) else ""
    figure.text(
        0.5, foot_y(figure), "filled: both above 0     hollow: one is 0     ring: both 0     "
        f"dotted: no difference, identity     solid in B: Deming{out}{chosen}\n"
        f"limits: {words_of(limits)}; [ ] and grey bands: {100 * agreement.confidence:g} % "
        "intervals",
        fontsize=SMALL, color=GREY, ha="center", va="center", linespacing=1.4)
    figure.alt = f"{names[1]} against {names[0]}: {said}; {len(left_out)} left out."
    both = pd.concat([pair, left_out], ignore_index=True)
    figure.points = _points(figure, panels, both, agreement.scale)
    return figure
