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
from matplotlib.ticker import MaxNLocator

from deeplung_nb.labels import COLOURS, HIGH_OPACITY, LESION_STRUCTURES, TITLES
from deeplung_nb.report.agreement_plots import (
    draw_agreement,
    draw_bland_altman,
    draw_correlation,
)
from deeplung_nb.report.diagrams import draw_architecture, draw_splits
from deeplung_nb.report.panels import choose_case, choose_slice, draw_case, draw_preparation
from deeplung_nb.report.style import (
    FOLD_COLOURS,
    GREY,
    INK,
    PAGE_MM,
    PALE,
    SMALL,
    PrintFigure,
    foot_y,
    letter,
    new_figure,
    save_figure,
    styled,
)

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


@styled
def draw_learning_curves(histories: Mapping[Any, pd.DataFrame], width_mm: float = PAGE_MM, *,
                         keep: str = "last", auxiliary: bool = False) -> PrintFigure:
    """Loss, Dice on the validation cases and learning rate by epoch.

    Parameters
    ----------
    histories
        Fold -> its history.csv (`epoch, lr, train_loss, validation_loss, dice_ggo,
        dice_high_opacity, dice_lesion`), or what `counts.read_history` makes of it: a line then
        marks where the training of the whole network begins.
    keep
        Which weights were kept, as `TrainingConfig.keep`: of `best`, a ring marks the epoch.
    auxiliary
        Whether the training loss has a term that the validation loss has not
        (`TrainingConfig.main_branch_loss`); the key says so.
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
        if keep == "best" and whole["validation_loss"].notna().any():
            best = whole.loc[whole["validation_loss"].idxmin()]
            loss.plot(best["epoch"], best["validation_loss"], "o", markerfacecolor="none",
                      markeredgecolor=colour, markersize=5)
        for structure, dash in zip(LESION_STRUCTURES, ("-", "--", ":"), strict=True):
            dice.plot(epoch, history[f"dice_{structure}"], color=colour, linestyle=dash)
        # Half an epoch to each side of its point, or the last rate would be a mere stroke.
        rate.stairs(history["lr"], np.append(epoch, epoch.iloc[-1] + 1) - 0.5, color=colour,
                    baseline=None)
    for axes, title in ((loss, "loss"), (dice, "Dice, validation cases"), (rate, "learning rate")):
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        for start in begins - {0}:
            axes.axvline(start - 0.5, color=GREY, linewidth=0.7, zorder=0)
    for start in begins - {0}:
        dice.annotate("whole network", (start - 0.5, 1), xytext=(2, -2), fontsize=SMALL, color=GREY,
                      textcoords="offset points", va="top")
    dice.set_ylim(0, 1)
    rate.set_yscale("log")
    if all(history["validation_loss"].isna().all() for history in histories.values()):
        dice.text(0.5, 0.5, "no validation cases", transform=dice.transAxes, ha="center",
                  color=GREY)
    trained = "training, with the\nmain branch’s loss" if auxiliary else "training"
    keys = [loss.plot([], [], color=INK, linestyle=dash, label=name)[0]
            for dash, name in ((":", trained), ("-", "validation"))]
    if keep == "best":
        keys += loss.plot([], [], "o", markerfacecolor="none", markeredgecolor=INK, markersize=5,
                          label="weights kept")
    loss.add_artist(loss.legend(handles=keys, loc="upper right"))
    kinds = [dice.plot([], [], color=INK, linestyle=dash, label=TITLES[name])[0]
             for name, dash in zip(LESION_STRUCTURES, ("-", "--", ":"), strict=True)]
    handles, labels = loss.get_legend_handles_labels()
    folds = [h for h, t in zip(handles, labels, strict=True) if t.startswith("fold")]
    for place, keys, title in ((0.24, folds, "A to C"), (0.75, kinds, "B")):
        figure.legend(keys, [key.get_label() for key in keys], loc="center", title=title,
                      bbox_to_anchor=(place, foot_y(figure)), ncols=max(1, len(keys)),
                      title_fontsize=SMALL, columnspacing=0.9, handlelength=1.3)
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
                          textcoords="offset points", va="center", fontsize=SMALL, color=GREY,
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
                ha="center", va="center", fontsize=SMALL, color=GREY)
    figure.alt = "Densities of the expert's classes. " + " ".join(
        f"Case {row.case_id}, {TITLES[row.structure]}: median {row.q50:.0f} HU."
        for row in frame.itertuples())
    return figure
