"""Image panels: the preparation of a slice (Fig. 1) and segmented slices (Figs. 4 and 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from deeplung_nb.labels import GGO, HIGH_OPACITY, LESION_STRUCTURES, TITLES, structure_mask
from deeplung_nb.report.style import GREY, PAGE_MM, SMALL, PrintFigure, foot_y, new_figure, styled

LUNG_WINDOW = (-400.0, 1500.0)
"""Level and width, HU (paper, section 2.3)."""
MODEL_WINDOW = (-1024.0, 600.0)
"""Lowest and highest value that the network sees, HU (paper, section 2.4)."""
OPACITY = 0.5

RULES = {
    "median": ("the case nearest the median Dice (any lesion) of {n} cases", ("lesion",)),
    "median_ggo": ("the case nearest the median Dice (any lesion) of {n} cases with ground-glass "
                   "opacity only", ("ggo",)),
    "median_both": ("the case nearest the median Dice (any lesion) of {n} cases with ground-glass "
                    "and high opacity", ("ggo", "high_opacity")),
    "best": ("the highest Dice (any lesion) of {n} cases", ("lesion",)),
    "worst": ("the lowest Dice (any lesion) of {n} cases in which the expert drew a lesion",
              ("lesion",)),
}
"""Name of a choice rule -> what it says, and the structures which the expert must have drawn."""


@dataclass(frozen=True)
class ChosenCase:
    """A case shown in a figure, and the rule by which it came there."""

    cohort: str
    case_id: str
    dice: dict[str, float]
    rule: str
    n_candidates: int

    def __repr__(self) -> str:
        scores = ", ".join(f"{TITLES[name]} {value:.3f}" for name, value in self.dice.items())
        return f"ChosenCase({self.cohort}/{self.case_id}: {self.rule}; Dice: {scores})"


def choose_case(measurements: pd.DataFrame, rule: str = "median_both", reader: str = "model",
                cohort: str | None = None, role: str | None = None) -> ChosenCase:
    """Choose a case by a rule that can be printed, so that nobody picks the prettiest.

    Parameters
    ----------
    measurements
        Rows of measurements.csv.
    rule
        A key of `RULES`. Ties go to the first case id.
    cohort, role
        Choose among these only.

    Raises
    ------
    ValueError
        The rule is unknown, or no case fits it.
    """
    if rule not in RULES:
        raise ValueError(f"rule {rule!r}: expected one of {', '.join(RULES)}")
    words, needed = RULES[rule]
    rows = measurements[measurements["status"] == "ok"]
    if cohort is not None:
        rows = rows[rows["cohort"] == cohort]
    if role is not None:
        rows = rows[rows["role"] == role]
    key = ["cohort", "case_id"]
    expert = rows[rows["reader"] == "expert"].pivot(index=key, columns="structure",
                                                    values="volume_ml")
    dice = rows[rows["reader"] == reader].pivot(index=key, columns="structure", values="dice")
    # A binary mask has the union alone, a table of readings perhaps no Dice.
    expert, dice = (frame.reindex(columns=list(dict.fromkeys([*LESION_STRUCTURES, *frame])))
                    for frame in (expert, dice))
    fits = pd.Series(True, index=expert.index)
    for structure in needed:
        fits &= expert[structure] > 0
    if rule == "median_ggo":
        fits &= expert["high_opacity"] == 0
    scores = dice.loc[dice.index.intersection(expert.index[fits]), "lesion"].dropna().sort_index()
    if scores.empty:
        raise ValueError(f"rule {rule!r} ({words.format(n=0)}): none of {len(dice)} cases of "
                         f"reader {reader!r} fits. Choose another rule or cohort")
    if rule == "best":
        chosen = scores.idxmax()
    elif rule == "worst":
        chosen = scores.idxmin()
    else:
        chosen = (scores - scores.median()).abs().idxmin()
    said = words.format(n=len(scores))
    alarms = int((dice.loc[dice.index.difference(expert.index[fits]), "lesion"] == 0).sum())
    if rule == "worst" and alarms:
        said += f"; not among them {alarms} without one in which the network drew some (Dice 0)"
    return ChosenCase(*chosen, dice={name: float(value) for name, value
                                     in dice.loc[chosen].dropna().items() if name != "lung"},
                      rule=said, n_candidates=len(scores))


def choose_slice(labels: np.ndarray, structures: tuple[str, ...] = ("lesion",)) -> int:
    """The slice with the largest lesion among those that hold every one of `structures`.

    Parameters
    ----------
    labels
        The expert's label map, (z, y, x).

    Raises
    ------
    ValueError
        No slice holds them all.
    """
    holds = np.ones(len(labels), bool)
    for structure in structures:
        holds &= structure_mask(labels, structure).any(axis=(1, 2))
    if not holds.any():
        raise ValueError(f"no slice of {len(labels)} holds {' and '.join(structures)}")
    area = (labels > 0).sum(axis=(1, 2))
    return int(np.where(holds, area, -1).argmax())


def _show(axes: Axes, image: np.ndarray, low: float, high: float, aspect: float = 1.0) -> None:
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def overlay(labels: np.ndarray, opacity: float = OPACITY) -> np.ndarray:
    """Colours of a label map (y, x) as RGBA in [0, 1], transparent where nothing is marked."""
    rgba = np.zeros((*labels.shape, 4), np.float32)
    for label in (GGO, HIGH_OPACITY):
        rgba[labels == label.code] = (*to_rgb(label.colour), opacity)
    return rgba


def _mark(axes: Axes, labels: np.ndarray) -> None:
    axes.imshow(overlay(labels), aspect=axes.get_aspect(), interpolation="nearest")
    for label in (GGO, HIGH_OPACITY):
        mask = labels == label.code
        if mask.any() and not mask.all():
            axes.contour(mask, levels=[0.5], colors=[label.colour], linewidths=0.6)


def _scale_bar(axes: Axes, shape: tuple[int, int], spacing_x: float, length_mm: float = 50) -> None:
    pixels = length_mm / spacing_x
    x, y = 0.96 * shape[1] - pixels, 0.955 * shape[0]
    axes.plot([x, x + pixels], [y, y], color="white", linewidth=1.5, solid_capstyle="butt")
    axes.text(x + pixels / 2, y - 0.015 * shape[0], f"{length_mm / 10:.0f} cm", color="white",
              ha="center", va="bottom", fontsize=SMALL)


@styled
def draw_case(hu: np.ndarray, expert: np.ndarray, automatic: np.ndarray,
              spacing_mm: tuple[float, float] = (1.0, 1.0),
              dice: float | Mapping[str, float] | None = None, case_id: str = "", rule: str = "",
              window: tuple[float, float] = LUNG_WINDOW,
              width_mm: float = PAGE_MM) -> PrintFigure:
    """Figs. 4 and 5: one slice, the expert's and the automatic segmentation of it.

    Parameters
    ----------
    hu, expert, automatic
        HU and two label maps of one slice, (y, x), in the order of `Scan` (x to the left).
    spacing_mm
        (dy, dx), mm: the picture keeps the body's proportions.
    dice
        Dice of the whole case (any lesion), or structure -> Dice.
    rule
        How the case was chosen; printed.
    window
        Level and width, HU.
    """
    if not hu.shape == expert.shape == automatic.shape:
        raise ValueError(f"case {case_id!r}: shapes of image {hu.shape}, expert {expert.shape} and "
                         f"automatic {automatic.shape} differ, expected one slice (y, x)")
    level, width = window
    aspect = spacing_mm[0] / spacing_mm[1]
    panel_mm = width_mm / 3 - 2
    height = panel_mm * hu.shape[0] * aspect / hu.shape[1]
    figure = new_figure(width_mm, height + 23, foot_mm=12)
    panels = figure.subplots(1, 3)
    for axes, title, labels in zip(
        panels, ("Input image", "Expert segmentation", "Automatic segmentation"),
        (None, expert, automatic), strict=True,
    ):
        _show(axes, hu, level - width / 2, level + width / 2, aspect)
        if labels is not None:
            _mark(axes, labels)
        axes.set_title(title)
    panels[0].text(0.015, 0.5, "R", color="white", transform=panels[0].transAxes, va="center")
    panels[0].text(0.985, 0.5, "L", color="white", transform=panels[0].transAxes, va="center",
                   ha="right")
    _scale_bar(panels[0], hu.shape, spacing_mm[1])
    figure.legend(handles=[Patch(color=label.colour, label=label.title)
                           for label in (GGO, HIGH_OPACITY)],
                  loc="center left", bbox_to_anchor=(0, foot_y(figure, 0.85)), ncols=2)
    scores = _dice_text(dice)
    words = ". ".join(part for part in (f"Case {case_id}" if case_id else "", scores) if part)
    if rule:
        words += f"\nChoice: {rule}"
    figure.text(0.01, foot_y(figure, 0.62), words, va="top", fontsize=SMALL, linespacing=1.4)
    figure.alt = ("A CT slice in the lung window; the same slice with the expert's and with the "
                  f"automatic segmentation, ground-glass blue, high opacity yellow. {words}")
    return figure


def _dice_text(dice: float | Mapping[str, float] | None) -> str:
    if dice is None:
        return ""
    if not isinstance(dice, Mapping):
        dice = {"lesion": float(dice)}
    return "Dice of the whole case: " + ", ".join(
        f"{TITLES[name].lower()} {value:.3f}" if np.isfinite(value)
        else f"{TITLES[name].lower()} undefined" for name, value in dice.items())


@styled
def draw_preparation(steps: Mapping[str, np.ndarray],
                     box: tuple[int, int, int, int] | None = None,
                     width_mm: float = PAGE_MM) -> PrintFigure:
    """Fig. 1: what happens to a slice on its way to the network.

    Parameters
    ----------
    steps
        Title -> image (y, x) in HU, or in [0, 1] when normalised; drawn from left to right.
    box
        Top, left, height, width of the body box in pixels, drawn onto the second picture.
    """
    figure = new_figure(width_mm, width_mm / len(steps) + 18)
    panels = figure.subplots(1, len(steps), squeeze=False)[0]
    for index, (axes, (title, image)) in enumerate(zip(panels, steps.items(), strict=True)):
        normalised = float(np.min(image)) >= 0 and float(np.max(image)) <= 1
        _show(axes, image, *((0.0, 1.0) if normalised else MODEL_WINDOW))
        axes.set_title(f"{index + 1}. {title}")
        axes.set_anchor("N")
        low, high = (f"{float(value):.{2 if normalised else 0}f}".replace("-", "−")
                     for value in (np.min(image), np.max(image)))
        unit = "" if normalised else " HU"
        axes.set_xlabel(f"{image.shape[0]} × {image.shape[1]} pixels\n{low} to {high}{unit}",
                        fontsize=SMALL, color=GREY)
        if box is not None and index == 1:
            top, left, height, width = box
            axes.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False,
                                     edgecolor="#d55e00", linewidth=1.2))
    figure.alt = "Preparation of a slice, from left to right: " + "; ".join(steps) + "."
    return figure


AGREEMENT_COLOURS = {"both": "#3a9d6e", "reference only": "#cc79a7", "other only": "#e69f00",
                     "class exchanged": "#56b4e9"}
"""Where two readers agree and where not; told apart also by readers who see no red or green."""


@styled
def draw_planes(planes: Sequence[Mapping[str, Any]], case_id: str = "",
                window: tuple[float, float] = LUNG_WINDOW,
                agreement: Sequence[np.ndarray] | None = None,
                pair: tuple[str, str] | None = None, note: str = "",
                width_mm: float = PAGE_MM) -> PrintFigure:
    """A scan in three planes, with the outlines of any readers' masks.

    Parameters
    ----------
    planes
        For each: `title`; `hu` (row, column) as it is to be shown; `marks`, reader -> label map;
        `pixel_mm`, (row, column); `letters`, what lies left, right, up and down.
    window
        Level and width, HU.
    agreement
        Instead of the masks, for each plane the places 1 to 4 of `AGREEMENT_COLOURS`.
    pair
        Reference and other reader, for the words.
    note
        Stands with the case's name.
    """
    level, width = window
    sizes = [(p["hu"].shape[0] * p["pixel_mm"][0], p["hu"].shape[1] * p["pixel_mm"][1])
             for p in planes]
    widths = [across for _, across in sizes]
    tallest = max(height / across for (height, across) in sizes)
    figure = new_figure(width_mm, min((width_mm / len(planes)) * tallest + 22, 130), foot_mm=8)
    readers = list(dict.fromkeys(name for p in planes for name in p["marks"]))
    styles = dict(zip(readers, ("solid", "dashed", "dotted", "dashdot"), strict=False))
    panels = figure.subplots(1, len(planes), squeeze=False, width_ratios=widths)[0]
    for place, (axes, p) in enumerate(zip(panels, planes, strict=True)):
        aspect = p["pixel_mm"][0] / p["pixel_mm"][1]
        _show(axes, p["hu"], level - width / 2, level + width / 2, aspect)
        if agreement is not None:
            rgba = np.zeros((*agreement[place].shape, 4), np.float32)
            for code, colour in enumerate(AGREEMENT_COLOURS.values(), 1):
                rgba[agreement[place] == code] = (*to_rgb(colour), 0.65)
            axes.imshow(rgba, aspect=aspect, interpolation="nearest")
        else:
            for name, labels in p["marks"].items():
                for label in (GGO, HIGH_OPACITY):
                    mask = labels == label.code
                    if mask.any() and not mask.all():
                        axes.contour(mask, levels=[0.5], colors=[label.colour], linewidths=0.8,
                                     linestyles=[styles[name]])
        axes.set_title(p["title"])
        for letter_, x, y in zip(p["letters"], (0.02, 0.98, 0.5, 0.5), (0.5, 0.5, 0.97, 0.03),
                                 strict=True):
            axes.text(x, y, letter_, color="white", transform=axes.transAxes, fontsize=SMALL,
                      ha="center", va="center")
    if agreement is not None:
        handles = [Patch(color=colour, label=name) for name, colour in AGREEMENT_COLOURS.items()]
        words = f"reference: {pair[0]}, other: {pair[1]}" if pair else ""
    else:
        handles = [Patch(color=label.colour, label=label.title) for label in (GGO, HIGH_OPACITY)]
        handles += [Line2D([], [], color=GREY, linestyle=styles[name], label=name)
                    for name in readers]
        words = ""
    if readers or agreement is not None:
        figure.legend(handles=handles, loc="center left", bbox_to_anchor=(0, foot_y(figure, 0.7)),
                      ncols=len(handles))
    about = " · ".join(filter(None, [f"Case {case_id}" if case_id else "", words,
                                     f"window {level:g}/{width:g} HU", note]))
    figure.text(0.01, foot_y(figure, 0.2), about, fontsize=SMALL)
    figure.alt = (f"{about}: " + ", ".join(p["title"].lower() for p in planes)
                  + (f"; masks of {', '.join(readers)}" if readers else "; no mask"))
    return figure
