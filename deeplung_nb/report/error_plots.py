"""Where the errors are: case by case, by density, and slice by slice in one case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator, MultipleLocator

from deeplung_nb.labels import COLOURS, ROLES, TITLES, structure_mask
from deeplung_nb.report.counts import case_names
from deeplung_nb.report.style import (
    GREY,
    INK,
    PAGE_MM,
    PALE,
    READERS,
    SMALL,
    PrintFigure,
    foot_y,
    letter,
    new_figure,
    reader_names,
    styled,
)

MOST_NAMES = 45
"""Cases whose names still fit under their bars."""


@styled
def draw_waterfall(pairs: Mapping[str, pd.DataFrame], width_mm: float = PAGE_MM) -> PrintFigure:
    """test - reference (automatic − expert) of every case, from the most missed on.

    `pairs` maps a structure to a table of `measurements.pair` (mL). A pale bar behind each shows
    how much the reference holds, as the largest possible miss.
    """
    reference, test = reader_names(next(iter(pairs.values())))
    figure = new_figure(width_mm, 14 + 42 * len(pairs), foot_mm=5)
    panels = figure.subplots(len(pairs), 1, squeeze=False)[:, 0]
    said = []
    for axes, (structure, pair) in zip(panels, pairs.items(), strict=True):
        rows = pair.assign(error=pair["test"] - pair["reference"]).sort_values(
            ["error", "case_id"], kind="stable")
        place = np.arange(len(rows))
        axes.bar(place, -rows["reference"], width=0.9, color=COLOURS[structure], alpha=0.2,
                 linewidth=0)
        axes.bar(place, rows["error"], width=0.62, color=COLOURS[structure], edgecolor=INK,
                 linewidth=0.4 if len(rows) <= MOST_NAMES else 0.0)
        axes.axhline(0, color=INK, linewidth=0.7)
        axes.set_xlim(-0.8, len(rows) - 0.2)
        axes.set_ylabel(f"{test} − {reference}, mL")
        less, more = int((rows["error"] < 0).sum()), int((rows["error"] > 0).sum())
        axes.set_title(f"{TITLES[structure]}: {less} of {len(rows)} cases read smaller, "
                       f"{more} larger", loc="left")
        if len(rows) <= MOST_NAMES:
            axes.set_xticks(place, case_names(rows), rotation=90, fontsize=SMALL)
            axes.tick_params(axis="x", length=0)
        else:
            axes.set_xlabel("cases, in the order of their error")
        said.append(f"{TITLES[structure]}: {less} smaller, {more} larger.")
    for axes, name in zip(panels, "ABCDEF", strict=False):
        letter(axes, name)
    figure.text(0.5, foot_y(figure), f"solid: the error     pale: volume of {reference}, downwards",
                ha="center", va="center", fontsize=SMALL, color=GREY)
    figure.alt = "Errors of volume by case, sorted. " + " ".join(said)
    return figure


@styled
def draw_densities(table: pd.DataFrame, width_mm: float = PAGE_MM) -> PrintFigure:
    """Densities of lungs and lesions by reader, from `stats.regions.density_table`.

    A box is the median case: 25 to 75 % of its voxels, the stroke their median, the line 5 to 95 %.
    """
    roles = list(dict.fromkeys(table["role"]))
    most = max(len(rows) for _, rows in table.groupby("role"))
    figure = new_figure(width_mm, 24 + 6.5 * most, foot_mm=6)
    panels = figure.subplots(1, len(roles), squeeze=False, sharex=True)[0]
    said = []
    for axes, role in zip(panels, roles, strict=True):
        rows: list[Any] = list(table[table["role"] == role].itertuples())
        for place, row in enumerate(rows):
            reference = row.reader == rows[0].reader
            axes.bxp([{"whislo": row.hu_p05, "q1": row.hu_p25, "med": row.hu_p50,
                       "q3": row.hu_p75, "whishi": row.hu_p95}], positions=[place],
                     orientation="horizontal", widths=0.6, showfliers=False, showcaps=False,
                     patch_artist=True, manage_ticks=False,
                     boxprops={"facecolor": COLOURS[row.structure], "edgecolor": INK,
                               "alpha": 1.0 if reference else 0.45, "linewidth": 0.6},
                     medianprops={"color": INK, "linewidth": 1.4},
                     whiskerprops={"color": INK, "linewidth": 0.8})
        names = [TITLES[row.structure] if row.structure == "lung" else
                 f"{TITLES[row.structure]}, {READERS.get(row.reader, row.reader)}"
                 for row in rows]
        said += [f"{ROLES.get(role, role)}, {name}: median {row.hu_p50:.0f} HU of {row.n} cases."
                 for name, row in zip(names, rows, strict=True)]
        axes.set_yticks(range(len(rows)), [f"{name} ({row.n})" for name, row in
                                           zip(names, rows, strict=True)])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("HU")
        axes.xaxis.set_major_locator(MultipleLocator(500))
        axes.set_title(ROLES.get(role, role), loc="left")
        axes.grid(axis="x", color=PALE, linewidth=0.5)
        axes.set_axisbelow(True)
    for axes, name in zip(panels, "ABCDEF", strict=False):
        letter(axes, name)
    figure.text(0.5, foot_y(figure), "medians over cases (n) of: box 25 to 75 %     stroke 50 %"
                "     line 5 to 95 % of a case’s voxels", ha="center", va="center", fontsize=SMALL,
                color=GREY)
    figure.alt = "Densities of lungs and lesions. " + " ".join(said)
    return figure


@styled
def draw_slice_profile(expert: np.ndarray, automatic: np.ndarray,
                       spacing_mm: tuple[float, float, float], case_id: str = "",
                       structures: tuple[str, ...] = ("ggo", "high_opacity"),
                       width_mm: float = PAGE_MM) -> PrintFigure:
    """Area of each structure in every slice of one case, by expert and machine.

    Parameters
    ----------
    expert, automatic
        Label maps [z, y, x].
    spacing_mm
        (z, y, x) of the grid.
    """
    if expert.shape != automatic.shape:
        raise ValueError(f"case {case_id!r}: masks of shape {expert.shape} and {automatic.shape}, "
                         "expected one grid")
    pixel_cm2 = spacing_mm[1] * spacing_mm[2] / 100
    height_cm = np.arange(len(expert)) * spacing_mm[0] / 10
    figure = new_figure(width_mm, 58, foot_mm=5)
    panels = figure.subplots(1, len(structures), squeeze=False)[0]
    for axes, structure in zip(panels, structures, strict=True):
        areas = [structure_mask(labels, structure).sum(axis=(1, 2)) * pixel_cm2
                 for labels in (expert, automatic)]
        axes.fill_between(height_cm, areas[0], color=COLOURS[structure], alpha=0.3, linewidth=0,
                          step="mid")
        axes.step(height_cm, areas[0], color=COLOURS[structure], where="mid", linewidth=1.0)
        axes.step(height_cm, areas[1], color=INK, where="mid", linewidth=0.9, linestyle="--")
        ml = [float(area.sum() * spacing_mm[0] / 10) for area in areas]
        axes.set_title(f"{TITLES[structure]}: {ml[0]:.0f} mL expert, {ml[1]:.0f} automatic",
                       loc="left")
        axes.set_xlabel("height above the lowest slice, cm")
        axes.set_ylabel("area in the slice, cm²")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(6))
    for axes, name in zip(panels, "AB", strict=False):
        letter(axes, name)
    figure.text(0.5, foot_y(figure), f"case {case_id}     filled: expert     dashed: automatic",
                ha="center", va="center", fontsize=SMALL, color=GREY)
    figure.alt = f"Lesion area by slice of case {case_id}, expert and automatic."
    return figure
