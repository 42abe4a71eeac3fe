"""Every defensible choice as one picture, one table and one sentence (`stats.multiverse`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from great_tables import GT

from deeplung_nb import measurements
from deeplung_nb.labels import LESION_STRUCTURES, ROLES, TITLES
from deeplung_nb.report.numbers import number
from deeplung_nb.report.style import (
    GREY,
    INK,
    PAGE_MM,
    PALE,
    SMALL,
    PrintFigure,
    foot_y,
    new_figure,
    styled,
)
from deeplung_nb.report.tables import format_frame
from deeplung_nb.stats import multiverse
from deeplung_nb.stats.multiverse import DIMENSIONS, NOBODY, Multiverse

COLUMNS = ("role", "structure", "question", "analyses", "value_min", "value_max", "sentence")
AXIS = {"bias": "bias", "limits": "distance of the limits", "dice": "mean Dice"}
VERDICTS = {"within the margin": ("green", "#009e73"),
            "both within the margin": ("green", "#009e73"),
            "not both within the margin": ("red", "#d55e00"),
            "beyond the margin": ("red", "#d55e00"),
            "above 0": ("red", "#d55e00"), "below 0": ("blue", "#0072b2")}
"""Verdict -> its colour in words and in the picture."""


def every_choice(table: pd.DataFrame, margin: float | None = None, *, reference: str = "expert",
                 test: str = "model", value: str = "volume_ml") -> dict[tuple[str, str, str],
                                                                       Multiverse]:
    """(role, structure, question) -> all its analyses; what too few readings carry is left out.

    Parameters
    ----------
    table
        Of measurements.
    margin
        Declared beforehand, of the bias and of limits.
    """
    found: dict[tuple[str, str, str], Multiverse] = {}
    roles = [str(role) for role in table["role"].dropna().unique()] or [""]
    for role in roles:
        for structure in LESION_STRUCTURES:
            try:
                pairs = measurements.pair(table, reference, test, structure, value,
                                          role=role or None, unmatched="drop")
            except ValueError:
                continue
            pairs = pairs.dropna(subset=["reference", "test"]).reset_index(drop=True)
            if len(pairs) >= multiverse.FEWEST:
                found[role, structure, "bias"] = multiverse.bias_choices(pairs, margin)
                found[role, structure, "limits"] = multiverse.limits_choices(pairs, margin)
            mine: Any = table[(table["reader"] == test) & (table["structure"] == structure)
                         & (table["status"] == "ok")]
            if role:
                mine = mine[mine["role"] == role]
            mine = mine.dropna(subset=["tp", "fp", "fn"])
            if len(mine) >= multiverse.FEWEST:
                found[role, structure, "dice"] = multiverse.dice_choices(mine)
    return {key: one for key, one in found.items() if len(one.analyses)}


def choices_frame(found: dict[tuple[str, str, str], Multiverse]) -> pd.DataFrame:
    """One row a question: `role, structure, question, analyses, value_min, value_max, sentence`."""
    rows = [(*key, len(one.analyses), *np.nanquantile(one.analyses["value"].to_numpy(float),
                                                      (0, 1)), one.sentence)
            for key, one in found.items()
            if np.isfinite(one.analyses["value"].to_numpy(float)).any()]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def format_choices(frame: pd.DataFrame, margin: float | None = None) -> GT:
    """`choices_frame` for print."""
    display = pd.DataFrame({
        "Group": [ROLES.get(role, role) for role in frame["role"]],
        "Question": [f"{TITLES[structure]}: {AXIS[question]}" for structure, question in
                     zip(frame["structure"], frame["question"], strict=True)],
        "Analyses": frame["analyses"].astype(str),
        "From": frame["value_min"].map(number), "to": frame["value_max"].map(number),
        "What they say": frame["sentence"]})
    compared = f"the declared margin of {margin:g} mL" if margin else \
        "0, since no margin was declared"
    gt = format_frame(
        display, "every_choice", "Every defensible choice",
        notes=["Each question is answered once for every choice of estimate or kind of limits, of "
               "zeros, of what is independent, of what an empty mask counts, and without each case "
               "in turn (those that move the bias most, where there are more than "
               f"{multiverse.MOST_LEFT_OUT}). The bias is compared with {compared}. mL; Dice has "
               "no unit. Thresholds of scores are not among the choices: a run keeps no scores."],
        stub="Question", group="Group")
    return gt.cols_align("left", columns=["What they say"])


@styled
def draw_choices(found: Multiverse, title: str, unit: str = "mL", width_mm: float = PAGE_MM
                 ) -> PrintFigure:
    """A specification plot: all estimates in their order, and below which choices made them.

    Parameters
    ----------
    found
        With one analysis or more.
    title
        What is estimated, of whom.
    """
    rows: Any = found.analyses.sort_values("value", kind="stable").reset_index(drop=True)
    levels: list[tuple[str, str]] = []
    for name in DIMENSIONS:
        if name in rows and name != "left_out" and rows[name].nunique() > 1:
            levels += [(name, level) for level in rows[name].drop_duplicates()]
    levels.append(("left_out", "a case"))
    figure = new_figure(width_mm, 46 + 4.2 * len(levels), foot_mm=10)
    top, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.6, 0.28 * len(levels) + 0.4))
    x = np.arange(len(rows))
    names = [str(one) for one in rows["verdict"]]
    colours = [VERDICTS.get(name, ("grey", GREY))[1] for name in names]
    top.vlines(x, rows["low"], rows["high"], color=PALE, linewidth=1.2, zorder=1)
    top.scatter(x, rows["value"], s=5, c=colours, zorder=2, linewidths=0)
    if found.question == "bias":
        top.axhline(0, color=INK, linewidth=0.6, linestyle=":")
    if found.margin is not None and found.question == "bias":
        for edge in (-found.margin, found.margin):
            top.axhline(edge, color=INK, linewidth=0.7, linestyle="--")
    top.set_ylabel(f"{AXIS[found.question]}{f', {unit}' if found.question != 'dice' else ''}")
    top.set_title(title, loc="left", fontsize=SMALL)
    for k, (name, level) in enumerate(levels):
        chosen = rows["left_out"] != NOBODY if name == "left_out" else rows[name] == level
        below.scatter(x[chosen], np.full(int(chosen.sum()), k), s=7, c=INK, marker="|",
                      linewidths=0.7)
    below.set_yticks(range(len(levels)), [f"{level}{' left out' if name == 'left_out' else ''}"
                                          for name, level in levels])
    below.set_ylim(len(levels) - 0.4, -0.6)
    below.set_xlim(-1, len(rows))
    below.set_xlabel(f"{len(rows)} analyses, from the smallest to the largest")
    shown = [f"{VERDICTS.get(name, ('grey', GREY))[0]}: {name}"
             for name in dict.fromkeys(names) if name]
    strokes = {"bias": ["strokes: intervals"], "limits": ["strokes: the limits"]}
    figure.text(0.5, foot_y(figure), "     ".join([*shown, *strokes.get(found.question, [])]),
                fontsize=SMALL, color=GREY, ha="center", va="center")
    figure.alt = f"{title}: specification plot. {found.sentence}"
    return figure
