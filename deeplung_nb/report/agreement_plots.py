"""Two readers' volumes: Bland–Altman plots, scatter plots, and the paper's Fig. 6 of both.

Nothing is estimated here: bias, limits, correlations and their intervals arrive as numbers. The
difference is always test - reference; readers go by the names in the pairs' `attrs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from deeplung_nb.labels import COLOURS, TITLES, VALUES, counted
from deeplung_nb.report.numbers import interval, number, p_words
from deeplung_nb.report.style import (
    GREY,
    INK,
    PAGE_MM,
    PALE,
    SMALL,
    PrintFigure,
    foot_y,
    letter_row,
    new_figure,
    reader_names,
    styled,
)
from deeplung_nb.stats.comparison import Lead
from deeplung_nb.stats.limits import differences


def _markers(axes: Axes, x: np.ndarray, y: np.ndarray, pair: pd.DataFrame, colour: str,
             ring: bool = True) -> None:
    """Points that show zeros: filled (both found), hollow (one is 0), a ring (both 0).

    How many stand on the ring is said in the title, where it hides no point.
    """
    reference_zero = pair["reference"].to_numpy() == 0
    test_zero = pair["test"].to_numpy() == 0
    both, one = reference_zero & test_zero, reference_zero ^ test_zero
    found = ~both & ~one
    common = {"marker": "o", "linestyle": "", "markeredgecolor": INK, "zorder": 3}
    axes.plot(x[found], y[found], markerfacecolor=colour, alpha=0.85, markeredgewidth=0.5, **common)
    axes.plot(x[one], y[one], markerfacecolor="white", markeredgewidth=0.8, **common)
    if ring and both.any():
        axes.plot([0], [0], marker="o", markersize=7, markerfacecolor="none",
                  markeredgecolor=INK, markeredgewidth=0.8, linestyle="", clip_on=False, zorder=4)


def _unit(pair: pd.DataFrame) -> str:
    return VALUES.get(pair.attrs.get("value", "volume_ml"), ("", ""))[1]


def _zero_counts(pair: pd.DataFrame) -> str:
    reference, test = pair["reference"] == 0, pair["test"] == 0
    names = reader_names(pair)
    return (f"0 {_unit(pair)}: {names[0]} {int(reference.sum())}, {names[1]} {int(test.sum())}, "
            f"both {int((reference & test).sum())}")


def _label_line(axes: Axes, y: float, text: str) -> None:
    axes.annotate(text, (1, y), xycoords=("axes fraction", "data"), xytext=(2, 0),
                  textcoords="offset points", va="center", fontsize=SMALL, annotation_clip=False)


SCALES: dict[str, tuple[str, str, str, float]] = {
    # scale: label of x, label of y, unit, value of no difference; {2} is the readings' unit
    "difference": ("mean of {0} and {1}, {2}", "{1} − {0}, {2}", " {2}", 0.0),
    "percent": ("mean of {0} and {1}, {2}", "({1} − {0}) / mean, %", " %", 0.0),
    "ratio": ("geometric mean of {0} and {1}, {2}", "{1} / {0}", "", 1.0),
}


def scale_words(pair: pd.DataFrame, scale: str) -> tuple[str, str, str]:
    """Labels of both axes of a Bland-Altman plot on this scale, and the unit of its limits."""
    names = (*reader_names(pair), _unit(pair))
    x, y, unit = (words.format(*names).rstrip(", ") for words in SCALES[scale][:3])
    return x, y, unit.rstrip()


class Line(NamedTuple):
    """Bias, or a limit, in a Bland-Altman plot."""

    name: str
    """What stands at its right end; perhaps nothing."""
    x: tuple[float, ...]
    """In data's units; none where it is level and goes from edge to edge."""
    y: tuple[float, ...]
    dashed: bool
    band: tuple[float, float] | None = None
    """Its interval, where that is drawn."""


def lines_of(x: np.ndarray, result: Any, lead: Any) -> list[Line]:
    """The lines of a Bland-Altman plot of `result` with the limits `lead`, over the observed range.

    Parameters
    ----------
    x
        The means of the pairs, as `stats.limits.differences` gives them.
    """
    line = np.linspace(x.min(), x.max(), 200) if len(x) else np.zeros(0)
    found = []
    level = [(result.bias, result.bias_ci, "bias", False)]
    if lead.scale == "ratio" != result.scale:
        # test = r reference, so difference = 2 (r - 1) / (r + 1) mean
        end = line[-1] if len(line) else 0.0
        for ratio in (lead.loa_lower, lead.loa_upper):
            slope = 2 * (ratio - 1) / (ratio + 1)
            found.append(Line(f"× {number(ratio)}", (0.0, end), (0.0, slope * end), True))
    elif lead.limits == "regression" and np.isfinite(lead.loa_lower):
        return [Line("", tuple(line), tuple(y), dashed) for y, dashed in
                zip(lead.lines(line), (False, True, True), strict=True)]
    else:
        level += [(lead.loa_lower, lead.loa_lower_ci, "lower limit", True),
                  (lead.loa_upper, lead.loa_upper_ci, "upper limit", True)]
    for value, ends, name, dashed in level:
        band = (float(ends[0]), float(ends[1])) if np.isfinite(ends).all() else None
        if np.isfinite(value) or band:
            found.append(Line(f"{name}\n{number(value)}", (), (float(value),), dashed, band))
    return found


def _draw_lines(axes: Axes, lines: list[Line]) -> None:
    for line in lines:
        look = {"color": INK, "linewidth": 0.9, "linestyle": "--" if line.dashed else "-",
                "zorder": 2}
        if line.x:
            axes.plot(line.x, line.y, **look)
            if line.name:
                axes.annotate(line.name, (line.x[-1], line.y[-1]), xytext=(3, 0),
                              textcoords="offset points", va="center", fontsize=SMALL, color=INK,
                              annotation_clip=False)
        elif np.isfinite(line.y[0]):
            axes.axhline(line.y[0], **look)
            _label_line(axes, line.y[0], line.name)
        if line.band:
            axes.axhspan(*line.band, color=PALE, alpha=0.6, linewidth=0, zorder=0)


OF_LIMITS = {"constant": "", "regression": " by regression, at the mean",
             "quantile": " by quantiles", "harrell-davis": " by quantiles (Harrell–Davis)"}


def words_of(limits: Any) -> str:
    """Kind of limits, and of their intervals."""
    kind = "of the ratio" if limits.scale == "ratio" else limits.limits
    return f"{kind}: {limits.ci.replace('mover', 'MOVER')}"


def limit_words(limits: Any, unit: str) -> str:
    """`limits of the ratio 0.8 [0.7 to 0.9] to 1.2 [...]`, of a `BlandAltman`."""
    what = " of the ratio" if limits.scale == "ratio" else OF_LIMITS[limits.limits]
    return (f"limits{what} {number(limits.loa_lower)} {interval(limits.loa_lower_ci)} to "
            f"{number(limits.loa_upper)} {interval(limits.loa_upper_ci)}"
            f"{'' if limits.scale == 'ratio' else unit}")


def draw_bland_altman(axes: Axes, pair: pd.DataFrame, result: Any, structure: str,
                      lead: Any = None) -> None:
    """Difference against mean, with bias, limits and their confidence intervals.

    Parameters
    ----------
    pair
        Columns `reference` and `test`, mL.
    result
        The `stats.agreement.BlandAltman` of this pair, on any scale and with any limits.
    lead
        The limits to draw, of `comparison.Lead`, where they are not those of `result`. Those of the
        ratio are, among differences, lines through the origin.
    """
    lead = result if lead is None else lead
    reference, test = (pair[name].to_numpy(float) for name in ("reference", "test"))
    x, y, usable = differences(reference, test, result.scale)
    y = np.exp(y) if result.scale == "ratio" else y
    x_label, y_label, _ = scale_words(pair, result.scale)
    none = SCALES[result.scale][3]
    _markers(axes, x, y, pair[usable], COLOURS[structure], ring=result.scale == "difference")
    if result.scale == "ratio":
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.axhline(none, color=GREY, linewidth=0.6, linestyle=":", zorder=1)
    _draw_lines(axes, lines_of(x, result, lead))
    axes.margins(x=0.06, y=0.12)
    if not (x < 0).any():
        axes.set_xlim(left=0.0)
    if result.scale == "ratio":
        low, high = axes.get_ylim()
        marks = (1, 1.2, 1.5, 2, 3, 5, 7, 8) if high < 20 * low else (1,)
        axes.yaxis.set_major_locator(LogLocator(subs=marks))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(agreement_title(pair, result, lead, structure), loc="left", fontsize=SMALL,
                   linespacing=1.25)


def agreement_title(pair: pd.DataFrame, result: Any, lead: Any, structure: str) -> str:
    """Three lines over a Bland-Altman plot: how many pairs, the bias, the limits."""
    unit = scale_words(pair, result.scale)[2]
    where = " at the mean" if result.limits == "regression" else ""
    left_out = f", {result.n_excluded} left out" if result.n_excluded else ""
    words = limit_words(lead, unit)
    if lead.scale == "ratio" != result.scale:
        held = round(lead.n * (1 - lead.percent_outside / 100))
        words += f" ({held} of {lead.n})"
    return (f"{TITLES[structure]}, n = {result.n}{left_out} ({_zero_counts(pair)})\n"
            f"bias{where} {number(result.bias)} {interval(result.bias_ci)}{unit}\n{words}")


def draw_correlation(axes: Axes, pair: pd.DataFrame, result: Any, structure: str) -> None:
    """The test reader's volume against the reference's, with the line of identity and r."""
    reference, test = (pair[name].to_numpy(float) for name in ("reference", "test"))
    top = max(reference.max(), test.max(), 1e-9) * 1.06
    low = -0.02 * top
    if min(reference.min(), test.min()) < 0:  # attenuation
        low, top = (value + sign * 0.06 * np.ptp([reference, test]) for value, sign in (
            (min(reference.min(), test.min()), -1), (max(reference.max(), test.max()), 1)))
    axes.plot([low, top], [low, top], color=GREY, linewidth=0.7, linestyle=":", zorder=1)
    _markers(axes, reference, test, pair, COLOURS[structure])
    axes.set_xlim(low, top)
    axes.set_ylim(low, top)
    axes.set_aspect("equal")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    for name, label in zip(reader_names(pair), (axes.set_xlabel, axes.set_ylabel), strict=True):
        label(f"{name}, {_unit(pair)}".rstrip(", "))
    axes.set_title(correlation_title(result, structure), loc="left", fontsize=SMALL,
                   linespacing=1.25)


def correlation_title(result: Any, structure: str) -> str:
    """Three lines over a scatter plot: how many pairs, the correlation, its test."""
    return (f"{TITLES[structure]}, n = {result.n}\n"
            f"{_method(result)} {number(result.r)} {interval(result.ci)}\n"
            f"{p_words(result.p_value)} (null: no association)")


def _method(result: Any) -> str:
    name = str(getattr(result, "method", "")).lower()
    return "Pearson r" if "pearson" in name else "Spearman ρ"


@styled
def draw_agreement(pairs: Mapping[str, pd.DataFrame], agreement: Mapping[str, Any],
                   correlation: Mapping[str, Any],
                   lead: Mapping[str, Lead] | None = None,
                   width_mm: float = PAGE_MM) -> PrintFigure:
    """Fig. 6 and supplementary Fig. i: for each structure Bland-Altman (A, C), correlation (B, D).

    Parameters
    ----------
    pairs
        Structure -> table of `measurements.pair` (columns `reference`, `test`, mL).
    agreement, correlation
        Structure -> result of `stats.agreement.bland_altman`, of `stats.correlation.spearman`.
    lead
        Structure -> the limits to report, of `Comparison.lead`; default: those of `agreement`.
    """
    drawn = {name: lead[name].limits if lead else agreement[name] for name in pairs}
    figure = new_figure(width_mm, 70.0 * len(pairs) + 10, foot_mm=7)
    grid = figure.subplots(len(pairs), 2, squeeze=False, width_ratios=(1.25, 1))
    said = []
    for row, (structure, pair) in enumerate(pairs.items()):
        left, right = grid[row]
        draw_bland_altman(left, pair, agreement[structure], structure, drawn[structure])
        draw_correlation(right, pair, correlation[structure], structure)
        letter_row(dict(zip("ABCDEFGH"[2 * row:], grid[row], strict=False)))
        result = agreement[structure]
        said.append(
            f"{TITLES[structure]}: {counted(result.n, 'pair')}, bias {number(result.bias)}"
            f"{scale_words(pair, result.scale)[2]}, "
            f"{limit_words(drawn[structure], scale_words(pair, result.scale)[2])}, correlation "
            f"{number(correlation[structure].r)}."
        )
    kinds = sorted({words_of(limits) for limits in drawn.values()})
    result = agreement[list(pairs)[-1]]
    figure.text(
        0.5, foot_y(figure), "filled: both above 0     hollow: one of the two is 0     ring: "
        "all with both 0 (counted above)     dotted: no difference, identity\n"
        f"dashed: limits of agreement ({', '.join(kinds)})     [ ] and grey bands: "
        f"{100 * result.confidence:g} % confidence intervals",
        fontsize=SMALL, color=GREY, ha="center", va="center", linespacing=1.4,
    )
    reference, test = reader_names(next(iter(pairs.values())))
    figure.alt = (f"Bland-Altman plots ({test} - {reference} against the mean) and scatter plots "
                  "with the line of identity. " + " ".join(said))
    return figure
