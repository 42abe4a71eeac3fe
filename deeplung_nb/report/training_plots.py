"""The picture of a training: loss by step, Dice and rate by epoch, and one slice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.ticker import MaxNLocator

from deeplung_nb.labels import COLOURS, LABELS, LESION_STRUCTURES, NO_ANSWER, TITLES, counted
from deeplung_nb.report.style import GREY, INK, PAGE_MM, PrintFigure, new_figure, styled

LEVEL, WIDTH = -400.0, 1500.0
MOST_POINTS = 1000
"""Steps drawn; of more, evenly chosen ones."""


@styled
def draw_training(
    history: pd.DataFrame, losses: Sequence[tuple[int, float]] = (),
    example: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None = None,
    width_mm: float = PAGE_MM * 1.25,
) -> PrintFigure:
    """How a training goes.

    Parameters
    ----------
    history
        Rows of history.csv (`epoch, step, lr, train_loss, validation_loss, dice_...`); may be
        empty.
    losses
        (step, loss) of this session.
    example
        HU, target and predicted class codes [Y, X] of one slice; None for what is not there yet.
    """
    figure = new_figure(width_mm, 58)
    widths = (1.2, 1.1, 0.8, 0.9, 0.9) if example is not None else (1.2, 1.1, 0.8)
    loss, dice, rate, *slices = figure.subplots(1, len(widths), width_ratios=widths)
    if len(losses):
        steps, values = np.asarray(losses, float)[::-(-len(losses) // MOST_POINTS)].T
        loss.plot(steps, values, color="#9bbad8", linewidth=0.7)
    said = []
    if len(history):
        at = history["step"]
        loss.plot(at, history["train_loss"], color="#0b5cad", label="training")
        if history["validation_loss"].notna().any():
            loss.plot(at, history["validation_loss"], color="#d55e00", label="validation")
        loss.legend(loc="upper right")
        for structure in LESION_STRUCTURES:
            values = history[f"dice_{structure}"]
            if values.notna().any():
                dice.plot(at, values, "o-", markersize=2.5, color=COLOURS[structure],
                          label=TITLES[structure])
                said.append(f"{TITLES[structure]} Dice {values.iloc[-1]:.2f}")
        rate.step(at, history["lr"], color=INK, where="pre")
        rate.set_yscale("log")
    if dice.lines:
        dice.legend(loc="best")
    else:
        dice.text(0.5, 0.5, "no validation cases" if len(history) else "after the first epoch",
                  transform=dice.transAxes, ha="center", color=GREY)
    dice.set_ylim(0, 1)
    for axes, title in ((loss, "loss"), (dice, "Dice, validation cases"), (rate, "learning rate")):
        axes.set_title(title, loc="left")
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    if example is not None:
        hu, target, predicted = example
        for axes, labels, title in zip(slices, (target, predicted), ("expert", "network now"),
                                       strict=True):
            axes.imshow(hu, cmap="gray", vmin=LEVEL - WIDTH / 2, vmax=LEVEL + WIDTH / 2)
            if labels is not None:
                hidden = np.ma.masked_where((labels == 0) | (labels == NO_ANSWER), labels)
                axes.imshow(hidden, cmap=ListedColormap([label.colour for label in LABELS[1:]]),
                            vmin=0.5, vmax=len(LABELS) - 0.5, alpha=0.6)
            axes.set_title(title, loc="left")
            axes.set_axis_off()
    last = history.iloc[-1] if len(history) else None
    figure.alt = ("Training, nothing done yet." if last is None else
                  f"Training after {counted(len(history), 'epoch')}: loss "
                  f"{last['train_loss']:.3f}. " + ", ".join(said))
    return figure
