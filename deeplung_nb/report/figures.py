"""Data plots: agreement, learning curves, Dice by group. Image panels and diagrams are beside it.

Each function takes a table or a result of `deeplung_nb.stats` and returns a figure. Nothing is
estimated here: bias, limits, correlations and their intervals arrive as numbers. The difference
is always test - reference (automatic - expert); readers go by the names in the pairs' `attrs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from deeplung_nb.labels import COLOURS, HIGH_OPACITY, LESION_STRUCTURES, TITLES, VALUES
from deeplung_nb.report.diagrams import draw_architecture, draw_splits
from deeplung_nb.report.numbers import interval, number, p_words
from deeplung_nb.report.panels import choose_case, choose_slice, draw_case, draw_preparation
from deeplung_nb.report.style import (
    FOLD_COLOURS,
    GREY,
    INK,
    PAGE_MM,
    PALE,
    PrintFigure,
    foot_y,
    letter,
    new_figure,
    reader_names,
    save_figure,
    styled,
)
from deeplung_nb.stats.comparison import Fitting
from deeplung_nb.stats.limits import differences

__all__ = [
    "choose_case", "choose_slice", "draw_agreement", "draw_architecture", "draw_bland_altman",
    "draw_case", "draw_correlation", "draw_dice_by", "draw_learning_curves", "draw_preparation",
    "draw_splits", "save_figure",
]

AGREEMENT_NAMES = {"cv": "fig6_agreement_cv", "external": "fig_i_agreement_external"}
"""Role -> file of its agreement figure: the paper's Fig. 6 and supplementary Fig. i."""
MIN_BOX = 5
"""Fewer values than this get no box, only points and their median."""
MIN_VIOLIN = 10
"""Fewer values than this get no density."""


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
                  textcoords="offset points", va="center", fontsize=6, annotation_clip=False)


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


def _draw_lines(axes: Axes, x: np.ndarray, result: Any) -> None:
    """Bias and limits with the bands of their intervals; over the observed range where sloped."""
    if result.limits == "regression" and np.isfinite(result.loa_lower):
        line = np.linspace(x.min(), x.max(), 200)
        for y, dash in zip(result.lines(line), ("-", "--", "--"), strict=True):
            axes.plot(line, y, color=INK, linewidth=0.9, linestyle=dash, zorder=2)
        return
    for value, ends, name, dash in (
        (result.bias, result.bias_ci, "bias", "-"),
        (result.loa_lower, result.loa_lower_ci, "lower limit", "--"),
        (result.loa_upper, result.loa_upper_ci, "upper limit", "--"),
    ):
        if np.isfinite(value):
            axes.axhline(value, color=INK, linewidth=0.9, linestyle=dash, zorder=2)
            _label_line(axes, value, f"{name}\n{number(value)}")
        if np.isfinite(ends).all():
            axes.axhspan(*ends, color=PALE, alpha=0.6, linewidth=0, zorder=0)


def _draw_fitting(axes: Axes, x: np.ndarray, fitting: Fitting) -> str:
    """Limits that fit, beside constant ones that don't; the line of the title that says so."""
    limits = fitting.limits
    sizes = np.linspace(x.min(), x.max(), 200)
    for y in limits.lines(sizes)[1:]:
        axes.plot(sizes, y, color=FOLD_COLOURS[1], linewidth=1.1, linestyle="-.", zorder=2)
    said = f"95 % from {number(limits.loa_lower)} to {number(limits.loa_upper)}" \
        if limits.limits == "quantile" else "limits by regression"
    why = ", ".join(f"{name} {p_words(p)}" for name, p in fitting.against.items())
    return f"\n{why}: {said} (orange)"


def draw_bland_altman(axes: Axes, pair: pd.DataFrame, result: Any, structure: str,
                      fitting: Fitting | None = None) -> None:
    """Difference against mean, with bias, limits and their confidence intervals.

    Parameters
    ----------
    pair
        Columns `reference` and `test`, mL.
    result
        The `stats.agreement.BlandAltman` of this pair, on any scale and with any limits.
    fitting
        Limits of the same differences that fit better, to stand beside them, and why.
    """
    reference, test = (pair[name].to_numpy(float) for name in ("reference", "test"))
    x, y, usable = differences(reference, test, result.scale)
    y = np.exp(y) if result.scale == "ratio" else y
    x_label, y_label, unit = scale_words(pair, result.scale)
    none = SCALES[result.scale][3]
    _markers(axes, x, y, pair[usable], COLOURS[structure], ring=result.scale == "difference")
    if result.scale == "ratio":
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.axhline(none, color=GREY, linewidth=0.6, linestyle=":", zorder=1)
    _draw_lines(axes, x, result)
    also = _draw_fitting(axes, x, fitting) if fitting else ""
    axes.margins(x=0.06, y=0.12)
    if not (x < 0).any():
        axes.set_xlim(left=0.0)
    if result.scale == "ratio":
        low, high = axes.get_ylim()
        marks = (1, 1.2, 1.5, 2, 3, 5, 7, 8) if high < 20 * low else (1,)
        axes.yaxis.set_major_locator(LogLocator(subs=marks))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    where = " at the mean" if result.limits == "regression" else ""
    left_out = f", {result.n_excluded} left out" if result.n_excluded else ""
    axes.set_title(
        f"{TITLES[structure]}, n = {result.n}{left_out} ({_zero_counts(pair)})\n"
        f"bias{where} {number(result.bias)} {interval(result.bias_ci)}{unit}\n"
        f"limits{where} {number(result.loa_lower)} {interval(result.loa_lower_ci)} to "
        f"{number(result.loa_upper)} {interval(result.loa_upper_ci)}{unit}{also}",
        loc="left", fontsize=6.3, linespacing=1.25,
    )


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
    axes.set_title(
        f"{TITLES[structure]}, n = {result.n}\n"
        f"{_method(result)} {number(result.r)} {interval(result.ci)}, "
        f"{p_words(result.p_value)}\n(null hypothesis: no association)",
        loc="left", fontsize=6.3, linespacing=1.25,
    )


def _method(result: Any) -> str:
    name = str(getattr(result, "method", "")).lower()
    return "Pearson r" if "pearson" in name else "Spearman ρ"


@styled
def draw_agreement(pairs: Mapping[str, pd.DataFrame], agreement: Mapping[str, Any],
                   correlation: Mapping[str, Any],
                   fitting: Mapping[str, Fitting | None] | None = None,
                   width_mm: float = PAGE_MM) -> PrintFigure:
    """Fig. 6 and supplementary Fig. i: for each structure Bland-Altman (A, C), correlation (B, D).

    Parameters
    ----------
    pairs
        Structure -> table of `measurements.pair` (columns `reference`, `test`, mL).
    agreement, correlation
        Structure -> result of `stats.agreement.bland_altman`, of `stats.correlation.spearman`.
    fitting
        Structure -> other limits to stand beside those, of `Comparison.fitting`.
    """
    fitting = fitting or {}
    figure = new_figure(width_mm, 70.0 * len(pairs) + 10, foot_mm=7)
    grid = figure.subplots(len(pairs), 2, squeeze=False, width_ratios=(1.25, 1))
    said = []
    for row, (structure, pair) in enumerate(pairs.items()):
        left, right = grid[row]
        draw_bland_altman(left, pair, agreement[structure], structure, fitting.get(structure))
        draw_correlation(right, pair, correlation[structure], structure)
        letter(left, "ABCDEFGH"[2 * row], up=34 if fitting.get(structure) else 27)
        letter(right, "ABCDEFGH"[2 * row + 1], up=27)
        result = agreement[structure]
        said.append(
            f"{TITLES[structure]}: {result.n} pairs, bias {number(result.bias)}, limits of "
            f"agreement {number(result.loa_lower)} to {number(result.loa_upper)}"
            f"{scale_words(pair, result.scale)[2]}, correlation {number(correlation[structure].r)}."
        )
    result = agreement[list(pairs)[-1]]
    figure.text(
        0.5, foot_y(figure), "filled: both above 0     hollow: one of the two is 0     ring: "
        "all with both 0 (counted above)     dotted: no difference, identity\n"
        f"{result.limits} limits of agreement     [ ] and grey bands: "
        f"{100 * result.confidence:g} % "
        "confidence intervals" + (f" ({result.ci})" if result.limits == "constant" else ""),
        fontsize=6.3, color=GREY, ha="center", va="center", linespacing=1.4,
    )
    reference, test = reader_names(next(iter(pairs.values())))
    figure.alt = (f"Bland-Altman plots ({test} - {reference} against the mean) and scatter plots "
                  "with the line of identity. " + " ".join(said))
    return figure


@styled
def draw_learning_curves(histories: Mapping[Any, pd.DataFrame],
                         width_mm: float = PAGE_MM) -> PrintFigure:
    """Loss, Dice on the validation cases and learning rate by epoch.

    `histories` maps a fold to its history.csv (`epoch, lr, train_loss, validation_loss, dice_ggo,
    dice_high_opacity, dice_lesion`), or what `counts.read_history` makes of it: a line then marks
    where the training of the whole network begins. A ring marks the epoch with the best validation
    loss, of the whole network.
    """
    figure = new_figure(width_mm, 66, foot_mm=10)
    loss, dice, rate = figure.subplots(1, 3, width_ratios=(1.2, 1.2, 0.8))
    begins = set()
    for index, (fold, history) in enumerate(histories.items()):
        colour = FOLD_COLOURS[index % len(FOLD_COLOURS)]
        epoch = history["epoch"]
        loss.plot(epoch, history["train_loss"], color=colour, linewidth=0.7, linestyle=":")
        loss.plot(epoch, history["validation_loss"], color=colour, label=f"fold {fold}")
        whole = history[history["stage"] == "whole"] if "stage" in history else history
        begins |= {int(epoch) for epoch in whole["epoch"][:1]}
        if whole["validation_loss"].notna().any():
            best = whole.loc[whole["validation_loss"].idxmin()]
            loss.plot(best["epoch"], best["validation_loss"], "o", markerfacecolor="none",
                      markeredgecolor=colour, markersize=5)
        for structure, dash in zip(LESION_STRUCTURES, ("-", "--", ":"), strict=True):
            dice.plot(epoch, history[f"dice_{structure}"], color=colour, linestyle=dash)
        # To the end of the last epoch, or its rate would be a mere stroke.
        rate.stairs(history["lr"], np.append(epoch, epoch.iloc[-1] + 1), color=colour,
                    baseline=None)
    for axes, title in ((loss, "loss"), (dice, "Dice, validation cases"), (rate, "learning rate")):
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        for start in begins - {0}:
            axes.axvline(start - 0.5 * (axes is not rate), color=GREY, linewidth=0.7, zorder=0)
    for start in begins - {0}:
        dice.annotate("whole network", (start - 0.5, 1), xytext=(2, -2), fontsize=6.3, color=GREY,
                      textcoords="offset points", va="top")
    dice.set_ylim(0, 1)
    rate.set_yscale("log")
    if all(history["validation_loss"].isna().all() for history in histories.values()):
        dice.text(0.5, 0.5, "no validation cases", transform=dice.transAxes, ha="center",
                  color=GREY)
    keys = [loss.plot([], [], color=INK, linestyle=dash, label=name)[0]
            for dash, name in ((":", "training"), ("-", "validation"))]
    loss.add_artist(loss.legend(handles=keys, loc="upper right"))
    kinds = [dice.plot([], [], color=INK, linestyle=dash, label=TITLES[name])[0]
             for name, dash in zip(LESION_STRUCTURES, ("-", "--", ":"), strict=True)]
    handles, labels = loss.get_legend_handles_labels()
    folds = [h for h, t in zip(handles, labels, strict=True) if t.startswith("fold")]
    for place, keys, title in ((0.25, folds, "A to C"), (0.77, kinds, "B")):
        figure.legend(keys, [key.get_label() for key in keys], loc="center", title=title,
                      bbox_to_anchor=(place, foot_y(figure)), ncols=max(1, len(keys)),
                      title_fontsize=6.3, columnspacing=1.2, handlelength=1.6)
    for axes, name in zip((loss, dice, rate), "ABC", strict=True):
        letter(axes, name)
    figure.alt = (f"Learning curves of {len(histories)} folds: training and validation loss, "
                  "validation Dice of each structure, learning rate.")
    return figure


@styled
def draw_dice_by(measurements: pd.DataFrame, by: str = "protocol", reader: str = "model",
                 structures: Sequence[str] = LESION_STRUCTURES,
                 width_mm: float = PAGE_MM) -> PrintFigure:
    """Dice of every case, by protocol, scanner, centre or another column, for each structure.

    The line is the median, the box the quartiles (from five values on), the pale shape their
    density (from ten on). Cases whose Dice is not defined are counted, not drawn.
    """
    rows = measurements.query("reader == @reader and status == 'ok'")
    groups = sorted(rows[by].fillna("unknown").astype(str).unique())
    figure = new_figure(width_mm, 28 + 7.5 * max(len(groups), 2))
    panels = figure.subplots(1, len(structures), sharey=True, squeeze=False)[0]
    said = []
    for axes, structure in zip(panels, structures, strict=True):
        of_structure = rows[rows["structure"] == structure]
        names = of_structure[by].fillna("unknown").astype(str)
        cases = pd.DataFrame({by: names, "dice": of_structure["dice"].astype(float)}).dropna()
        many = cases.groupby(by).filter(lambda group: len(group) >= MIN_VIOLIN)
        if len(many):
            seaborn.violinplot(many, x="dice", y=by, order=groups, orient="h", width=0.95, cut=0,
                               inner=None, color=PALE, linewidth=0, density_norm="width", ax=axes)
        for place, group in enumerate(groups):
            values = of_structure.loc[names == group, "dice"].to_numpy(float)
            defined = np.sort(values[np.isfinite(values)])
            # A fixed spread by rank: the same picture each time, and no point hides another.
            shift = 0.28 * (np.arange(len(defined)) % 5 - 2) / 2
            axes.plot(defined, place + shift, "o", markerfacecolor=COLOURS[structure],
                      markeredgecolor=INK, markeredgewidth=0.4, alpha=0.8, zorder=3, markersize=3)
            if len(defined) >= MIN_BOX:
                axes.boxplot(defined, positions=[place], orientation="horizontal", widths=0.7,
                             showfliers=False, manage_ticks=False, zorder=2,
                             medianprops={"color": INK, "linewidth": 1.4},
                             boxprops={"color": GREY}, whiskerprops={"color": GREY},
                             capprops={"color": GREY})
            elif len(defined):
                axes.plot([np.median(defined)] * 2, [place - 0.35, place + 0.35], color=INK,
                          linewidth=1.4, zorder=4)
            missing = len(values) - len(defined)
            text = f"n = {len(defined)}" + (f"\n{missing} undefined" if missing else "")
            axes.annotate(text, (1, place), xycoords=("axes fraction", "data"), xytext=(3, 0),
                          textcoords="offset points", va="center", fontsize=6, color=GREY,
                          annotation_clip=False)
            said.append(f"{TITLES[structure]}, {group}: n = {len(defined)}.")
        axes.set_title(TITLES[structure])
        axes.set_xlim(-0.03, 1.03)
        axes.set_xlabel("Dice of a case")
        axes.grid(axis="x", color=PALE, linewidth=0.5)
        axes.set_axisbelow(True)
    panels[0].set_yticks(range(len(groups)), groups)
    panels[0].set_ylim(len(groups) - 0.5, -0.5)
    panels[0].set_ylabel(by)
    figure.alt = f"Dice coefficients by {by}. " + " ".join(said)
    return figure


@styled
def draw_hu_by_class(frame: pd.DataFrame, width_mm: float = PAGE_MM) -> PrintFigure:
    """Densities of the reader's classes, case by case: 5 to 95 %, quartiles and median.

    `frame` has the columns `case_id, structure, q05, q25, q50, q75, q95` (HU).
    """
    cases = list(dict.fromkeys(frame["case_id"]))
    figure = new_figure(width_mm, 24 + 9 * len(cases), foot_mm=6)
    axes = figure.subplots()
    for row in frame.itertuples():
        y = cases.index(row.case_id) + (0.18 if row.structure == HIGH_OPACITY.name else -0.18)
        colour = COLOURS[row.structure]
        axes.plot([row.q05, row.q95], [y, y], color=colour, linewidth=0.9)
        axes.barh(y, row.q75 - row.q25, left=row.q25, height=0.28, color=colour, edgecolor=INK,
                  linewidth=0.5)
        axes.plot([row.q50, row.q50], [y - 0.14, y + 0.14], color=INK, linewidth=1.3)
    axes.set_yticks(range(len(cases)), [f"case {case}" for case in cases])
    axes.set_ylim(len(cases) - 0.5, -0.5)
    axes.set_xlabel("HU of the expert's classes")
    keys = [axes.bar([0], [0], color=COLOURS[name], label=TITLES[name])
            for name in LESION_STRUCTURES[:2]]
    figure.legend(handles=keys, loc="outside upper left", ncols=2)
    figure.text(0.5, foot_y(figure), "box: quartiles     stroke: median     line: 5 to 95 %",
                ha="center", va="center", fontsize=6.3, color=GREY)
    figure.alt = "Densities of the expert's classes. " + " ".join(
        f"Case {row.case_id}, {TITLES[row.structure]}: median {row.q50:.0f} HU."
        for row in frame.itertuples())
    return figure
