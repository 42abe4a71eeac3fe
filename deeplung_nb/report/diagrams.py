"""Diagrams drawn from tables: the network (Fig. 2), cross-validation (Fig. 3), cohorts."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from deeplung_nb.labels import ROLES, counted
from deeplung_nb.report.counts import case_names
from deeplung_nb.report.style import GREY, INK, PAGE_MM, SMALL, PrintFigure, new_figure, styled

HEAD = ("2 × [3×3 conv, norm,", "LeakyReLU], 1×1 conv")
PARTS: dict[str, tuple[tuple[str, ...], tuple[float, float]]] = {
    # part of the network: title and description, centre in mm
    "trunk": (("Trunk",), (53, 60)),
    "main_head": (("Segmentation head", *HEAD), (95, 60)),
    "convlstm": (("ConvLSTM", "all slices in order,", "the last hidden state"), (53, 18)),
    "attention_head": (("Attention head", *HEAD, "sigmoid"), (95, 30)),
    "attention_branch_head": (("Segmentation head", *HEAD), (95, 8)),
    "fusion": (("Fusion", r"$S = S_{main}\,\alpha + S_{attn}\,(1 - \alpha)$"), (150, 30)),
}
MAIN, ATTENTION, FUSED = "#cfe2f5", "#fbe3b5", "#dceadf"
TRUNK_WORDS = {
    "densenet121": ("Dense trunk", "DenseNet stem and", "dense blocks"),
    "mobilenet_v2": ("MobileNetV2 trunk", "four strides merged", "top-down"),
}
FILLS = {"trunk": MAIN, "main_head": MAIN, "fusion": FUSED}
BOX_MM = (34.0, 18.0)

COUNT = "#5b8fc7"
TEST, VALIDATION, TRAINING = "#d55e00", "#56b4e9", "#e3e6ea"


def _box(axes: Axes, centre: tuple[float, float], lines: list[str], fill: str,
         size: tuple[float, float] = BOX_MM) -> None:
    (x, y), (width, height) = centre, size
    axes.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height,
                                  boxstyle="round,pad=0,rounding_size=1.2", facecolor=fill,
                                  edgecolor=INK, linewidth=0.6, zorder=2))
    pitch = 2.9
    for index, line in enumerate(lines):
        axes.text(x, y + pitch * ((len(lines) - 1) / 2 - index), line, ha="center", va="center",
                  fontsize=SMALL, zorder=3, fontweight="bold" if index == 0 else "normal")


def _arrow(axes: Axes, path: list[tuple[float, float]], text: str = "",
           at: tuple[float, float] | None = None) -> None:
    """A line through the points of `path` that ends in an arrow head."""
    for start, end in pairwise(path[:-1]):
        axes.plot(*zip(start, end, strict=True), color=INK, linewidth=0.8, zorder=1,
                  solid_capstyle="butt")
    axes.annotate("", path[-1], path[-2], arrowprops={
        "arrowstyle": "-|>", "color": INK, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0,
        "mutation_scale": 7})
    if text and at:
        axes.text(*at, text, fontsize=7, ha="center", va="center", zorder=3, style="italic",
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8})


@styled
def draw_architecture(layer_table: pd.DataFrame, n_slices: int = 11, trunk: str = "densenet121",
                      width_mm: float = PAGE_MM) -> PrintFigure:
    """Fig. 2: the two branches and their fusion, with the shapes and sizes of a real network.

    Parameters
    ----------
    layer_table
        Columns `part, output_shape, parameters`, one row for each key of `PARTS`
        (`pd.DataFrame(network.deeplung.layer_table(net))`).
    trunk
        Its name in the settings.

    Raises
    ------
    ValueError
        A part is not in the table.
    """
    table = layer_table.set_index("part")
    missing = [part for part in PARTS if part not in table.index]
    if missing:
        raise ValueError(f"layer table without {', '.join(missing)}: expected the parts "
                         f"{', '.join(PARTS)}. Make it with network.deeplung.layer_table")
    figure = new_figure(width_mm, 85 * width_mm / PAGE_MM)
    axes = figure.add_subplot()
    axes.set_xlim(0, 174)
    axes.set_ylim(-3, 76)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.text(36, 72.5, "Main segmentation branch: the target slice", fontsize=7.5)
    axes.text(36, 43.5, f"Attention branch: all {n_slices} slices", fontsize=7.5)
    for index in range(n_slices):
        # The stack, lowest slice in front; the target in the middle is marked.
        shift = 0.75 * index
        target = index == n_slices // 2
        axes.add_patch(FancyBboxPatch((6 + shift, 27 + shift), 10, 10, facecolor="#f0c9a8" if target
                                      else "#f7f8fa", edgecolor="#d55e00" if target else GREY,
                                      boxstyle="square,pad=0", linewidth=0.9 if target else 0.5,
                                      zorder=2 + 0.01 * (n_slices - index)))
    axes.text(14, 20.8, f"window of {n_slices} slices\nz − {n_slices // 2} … z + {n_slices // 2}",
              ha="center", va="center", fontsize=SMALL, linespacing=1.2)
    for part, (words, centre) in PARTS.items():
        row = table.loc[part]
        shape = str(row["output_shape"]).replace("x", " × ")
        parameters = int(row["parameters"])
        if part == "trunk":
            words = TRUNK_WORDS.get(trunk, (trunk,))
        lines = [*words, shape] + ([f"{parameters:,} parameters"] if parameters else [])
        height = 2.9 * len(lines) + 3
        _box(axes, centre, lines, FILLS.get(part, ATTENTION), (BOX_MM[0] + 6 * (part == "fusion"),
                                                               height))
    half = BOX_MM[0] / 2
    _arrow(axes, [(16, 45), (16, 60), (53 - half, 60)], "target", (26, 60))
    _arrow(axes, [(14, 17.9), (14, 15), (53 - half, 15)], "all", (26, 15))
    _arrow(axes, [(53 + half, 60), (95 - half, 60)])
    _arrow(axes, [(53 + half, 20), (74, 20), (74, 30), (95 - half, 30)])
    _arrow(axes, [(53 + half, 16), (74, 16), (74, 8), (95 - half, 8)])
    _arrow(axes, [(95 + half, 60), (150, 60), (150, 36)], r"$S_{main}$, upsampled", (130, 60))
    _arrow(axes, [(95 + half, 30), (130, 30)], r"$\alpha$", (121, 30))
    _arrow(axes, [(95 + half, 8), (150, 8), (150, 24)], r"$S_{attn}$", (130, 8))
    total = int(table["parameters"].sum())
    axes.text(173, 73, f"{total:,} parameters in all\nshapes: channels × rows × columns",
              ha="right", va="center", fontsize=SMALL, color=GREY, linespacing=1.3)
    figure.alt = (
        f"The network. Main branch: the target slice goes through a {trunk} trunk and a "
        f"segmentation head. Attention branch: {n_slices} slices go through a ConvLSTM to a "
        "segmentation head and an attention head. Both scores are fused by the attention map. "
        f"{total:,} parameters."
    )
    return figure


@styled
def draw_splits(splits: pd.DataFrame, width_mm: float = PAGE_MM) -> PrintFigure:
    """Fig. 3: which case trains, validates and is tested in which fold.

    `splits` has the columns `case_id, patient_id, fold, validation_in`; each column of the figure
    is a case, in the order of the fold in which it is tested.
    """
    cases = splits.sort_values(["fold", "validation_in", "patient_id", "case_id"],
                               kind="stable").reset_index(drop=True)
    folds = sorted(cases["fold"].astype(int).unique())
    validation_in = pd.to_numeric(cases["validation_in"])
    figure = new_figure(width_mm, 26 + 8 * len(folds))
    axes = figure.add_subplot()
    counts = []
    for row, fold in enumerate(folds):
        tested = cases["fold"] == fold
        validates = (validation_in == fold).fillna(False).astype(bool)
        colours = [TEST if t else VALIDATION if v else TRAINING
                   for t, v in zip(tested, validates, strict=True)]
        n_test, n_validation = int(tested.sum()), int(validates.sum())
        counts.append((len(cases) - n_test - n_validation, n_validation, n_test))
        axes.barh([row] * len(cases), 1.0, left=range(len(cases)), height=0.78, color=colours,
                  edgecolor="white", linewidth=0.6 if len(cases) <= 60 else 0.15)
        axes.annotate("{} / {} / {}".format(*counts[-1]), (1, row), textcoords="offset points",
                      xycoords=("axes fraction", "data"), xytext=(4, 0), va="center",
                      fontsize=SMALL, annotation_clip=False)
    axes.annotate("training /\nvalidation / test", (1, -0.55), textcoords="offset points",
                  xycoords=("axes fraction", "data"), xytext=(4, 2), va="bottom", fontsize=SMALL,
                  color=GREY, annotation_clip=False)
    axes.set_xlim(0, len(cases))
    axes.set_ylim(len(folds) - 0.5, -0.5)
    axes.set_yticks(range(len(folds)), [f"fold {fold}" for fold in folds])
    axes.tick_params(axis="y", length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    if len(cases) <= 40:
        axes.set_xticks([place + 0.5 for place in range(len(cases))], case_names(cases),
                        rotation=90, fontsize=SMALL)
        axes.tick_params(axis="x", length=0)
    n_patients = len(cases["patient_id"].dropna().unique())
    whole = f"{counted(len(cases), 'case')} of {counted(n_patients, 'patient')}"
    axes.set_xlabel(f"{whole}, in the order of their test fold")
    keys = [axes.bar([0], [0], color=colour, label=name)
            for colour, name in ((TRAINING, "training"), (VALIDATION, "validation"),
                                 (TEST, "test"))]
    figure.legend(handles=keys, loc="outside upper left", ncols=3)
    figure.alt = (f"Cross-validation of {whole}. Training, "
                  "validation, test: " + "; ".join(
                      "fold {}: {}, {}, {}".format(fold, *count)
                      for fold, count in zip(folds, counts, strict=True)) + ".")
    return figure


@styled
def draw_flow(flow: pd.DataFrame, width_mm: float = PAGE_MM * 0.62) -> PrintFigure:
    """Who was assessed, who was left out and why, who serves for what.

    `flow` is `Cohort.flow()`: `step, n_cases, n_patients`; reasons begin with `excluded:`.
    """
    rows: list[Any] = list(flow.itertuples())
    steps = [(str(row.step), f"{row.n_cases} of {counted(row.n_patients, 'patient')}"
              if row.n_patients != row.n_cases else f"{row.n_cases}") for row in rows]
    excluded = [(step.removeprefix("excluded: "), n) for step, n in steps
                if step.startswith("excluded: ")]
    first, rest = steps[0], [pair for pair in steps[1:] if not pair[0].startswith("excluded: ")]
    height = 34 + 9 * max(len(excluded), 1)
    figure = new_figure(width_mm, height + 22)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(0, 100)
    axes.set_ylim(-2, 100)

    def box(x: float, y: float, words: str, colour: str = "#f7f8fa", align: str = "center") -> None:
        axes.text(x, y, words, ha=align, va="center", fontsize=7, linespacing=1.35,
                  bbox={"boxstyle": "round,pad=0.5", "facecolor": colour, "edgecolor": GREY})

    def arrow(start: tuple[float, float], end: tuple[float, float]) -> None:
        axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": GREY,
                                                  "linewidth": 0.8})

    box(28, 92, f"{first[0]}\n{first[1]}")
    included, roles = rest[0], rest[1:]
    arrow((28, 84), (28, 42))
    box(28, 35, f"{included[0]}\n{included[1]}")
    if excluded:
        arrow((28, 64), (46, 64))
        lines = "\n".join(f"{n}: {textwrap.fill(why, 34)}" for why, n in excluded)
        box(48, 64, f"excluded\n{lines}", "white", "left")
    for x, (name, n) in zip((15, 60), roles, strict=False):
        arrow((28, 27), (x, 15))
        box(x, 7, f"{textwrap.fill(ROLES.get(name, name), 22)}\n{n}")
    figure.alt = "Flow of cases. " + "; ".join(f"{step}: {n}" for step, n in steps) + "."
    return figure


@styled
def draw_columns(frame: pd.DataFrame, columns: Sequence[str],
                 width_mm: float = PAGE_MM * 1.25) -> PrintFigure:
    """Columns of a table side by side: numbers as histograms, the others as counts.

    Empty cells are counted in the title; of many values the twelve most frequent are drawn.
    """
    across = 4
    down = max(1, -(-len(columns) // across))
    figure = new_figure(width_mm, 38 * down + 4)
    panels = np.atleast_1d(figure.subplots(down, across)).ravel()
    said = []
    for axes in panels[len(columns):]:
        axes.set_axis_off()
    for axes, name in zip(panels, columns, strict=False):
        values = frame[name].dropna()
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            axes.hist(values.astype(float), bins=20, color=COUNT, edgecolor="white",
                      linewidth=0.3)
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        else:
            counts = values.astype(str).value_counts().head(12)
            axes.barh(range(len(counts)), counts.to_numpy(), color=COUNT, height=0.75)
            axes.set_yticks(range(len(counts)), [textwrap.shorten(text, 20, placeholder="…")
                                                 for text in counts.index])
            axes.invert_yaxis()
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        empty = f", {len(frame) - len(values)} empty" if len(values) < len(frame) else ""
        axes.set_title(f"{name}{empty}", loc="left")
        said.append(f"{name}: {len(values)} values")
    figure.alt = f"{counted(len(frame), 'case')}. " + "; ".join(said) + "."
    return figure
