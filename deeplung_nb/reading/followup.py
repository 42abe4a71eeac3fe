"""The same patient again: results of several scans side by side, and whether a change is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from deeplung_nb.labels import LESION_STRUCTURES
from deeplung_nb.reading.preview import GAP, INK, PAPER, draw_plane, font
from deeplung_nb.reading.segment import Segmentation
from deeplung_nb.reading.uncertainty import NEARLY_NOTHING_ML
from deeplung_nb.stats.followup import change_table

HEIGHTS = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)
"""Of the lungs, from their base: where slices are compared."""
FEWEST_PATIENTS = 5
ANOTHER_BREATH = 0.15
"""Lungs that differ by so much were filled differently, and every share with them."""


@dataclass(frozen=True, eq=False)
class FollowUp:
    """Several results of one patient, in order.

    `days` counts from the first (or numbers them, `dated` False); `table` is that of
    `stats.followup.change_table`; `smallest_factor` and `because` say from which factor on a change
    is beyond the error, and who says so.
    """

    results: tuple[Segmentation, ...]
    days: tuple[float, ...]
    dated: bool
    table: pd.DataFrame
    smallest_factor: float
    because: str
    warnings: tuple[str, ...]


def detectable_factor(unseen: Sequence[Mapping[str, Any]]) -> tuple[float, int]:
    """From which factor on a change of any lesion is beyond the network's errors, and of how many.

    By the spread of its ratios to experts over patients that were not trained on, as if the errors
    of two scans of a patient had nothing in common: where they are alike, smaller changes are real
    too. NaN where too few patients are known.
    """
    frame = pd.DataFrame(unseen)
    if not len(frame):
        return float("nan"), 0
    frame = frame[(frame["expert"] > NEARLY_NOTHING_ML) & (frame["automatic"] > 0)]
    ratios = pd.Series(np.log(frame["automatic"] / frame["expert"]), frame.index)
    logs = np.asarray(ratios.groupby(frame["patient_id"]).mean(), float)
    if len(logs) < FEWEST_PATIENTS:
        return float("nan"), len(logs)
    return float(np.exp(1.959964 * np.sqrt(2) * np.std(logs, ddof=1))), len(logs)


def follow(results: Sequence[Segmentation], days: Sequence[float] | None = None,
           smallest_factor: float | None = None) -> FollowUp:
    """Put the results of one patient's scans in order, and judge the changes.

    Parameters
    ----------
    days
        When each scan was made, counted from any day; default: in the order given.
    smallest_factor
        By which a volume must change to be beyond the error, from readings of your own
        (`stats.followup.repeatability` on logarithms). Default: `detectable_factor` of the network.

    Raises
    ------
    ValueError
        Fewer than two results, days that are not as many or not different, or no factor is known.
    """
    if len(results) < 2:
        raise ValueError(f"{len(results)} scan: expected two or more of one patient")
    when = list(range(1, len(results) + 1)) if days is None else [float(day) for day in days]
    if len(when) != len(results) or len(set(when)) != len(when):
        raise ValueError(f"days {when} of {len(results)} scans: expected a different day for each")
    order = np.argsort(when)
    results, when = [results[k] for k in order], [when[k] for k in order]
    if days is not None:
        when = [day - when[0] for day in when]
    because = "declared"
    if smallest_factor is None:
        smallest_factor, n = detectable_factor(results[0].provenance["network"].get("unseen") or ())
        because = (f"by this network's errors on {n} patients that were not trained on, as if two "
                   "scans' errors had nothing in common; where they have, smaller changes are real "
                   "too")
        if not np.isfinite(smallest_factor):
            raise ValueError("how far this network errs is not known well enough to judge a "
                             "change: give --smallest-factor (smallest_factor), from readings of "
                             "your own (notebook 11)")
    rows = pd.concat([result.table.assign(day=day, reader="model", patient_id="this")
                      for result, day in zip(results, when, strict=True)], ignore_index=True)
    lesions = rows.loc[rows["structure"].isin(LESION_STRUCTURES)]
    table = change_table(lesions, smallest_factor).drop(columns=["reader", "patient_id"])
    return FollowUp(tuple(results), tuple(when), days is not None, table, smallest_factor, because,
                    tuple(_warnings(results, rows)))


def _warnings(results: Sequence[Segmentation], rows: pd.DataFrame) -> list[str]:
    """What makes scans hard to compare, then what is odd about each."""
    found = []
    lungs = rows.loc[rows["structure"] == "lung", "volume_ml"].to_numpy(float)
    if len(lungs) > 1 and lungs.max() > (1 + ANOTHER_BREATH) * lungs.min():
        found.append(f"the lungs hold {', '.join(f'{ml:,.0f}' for ml in lungs)} mL: another "
                     "breath, or lung that is not marked. Compare mL, not per cent of the lungs")
    gaps = [result.scan.spacing_mm[0] for result in results]
    if max(gaps) > 1.5 * min(gaps):
        found.append(f"slices are {', '.join(f'{mm:.3g}' for mm in gaps)} mm apart: small lesions "
                     "and borders are read differently")
    networks = {result.provenance["network"]["sha256"] for result in results}
    if len(networks) > 1:
        found.append("the scans were read by different networks: a change may be theirs")
    return found + [f"scan {k}: {warning}" for k, result in enumerate(results, 1)
                    for warning in result.warnings]


def slice_at(result: Segmentation, height: float) -> int:
    """The slice at a height of the lungs, 0 at their base and 1 at their top; of any, if none."""
    where = result.lungs.mask.any(axis=(1, 2)) if result.lungs is not None \
        else np.ones(result.scan.n_slices, bool)
    found = np.flatnonzero(where) if where.any() else np.arange(result.scan.n_slices)
    return round(found[0] + height * (found[-1] - found[0]))


def draw_side_by_side(follow_up: FollowUp, width: int = 1200) -> Image.Image:
    """The same heights of the lungs in every scan: a row each, from the top, on one scale."""
    results = follow_up.results
    each = (width - GAP * (len(results) - 1)) // len(results)
    each = min(each, 300)
    widest = max(one.scan.shape[2] * one.scan.spacing_mm[2] for one in results)
    rows = []
    for height in HEIGHTS[::-1]:
        pictures = []
        for one in results:
            z = slice_at(one, height)
            wide = one.scan.shape[2] * one.scan.spacing_mm[2]
            picture = draw_plane(one.scan.hu[z], one.mask.labels[z], one.scan.spacing_mm[1:],
                                 width=max(1, round(each * wide / widest)))
            ImageDraw.Draw(picture).text((4, 2), f"{z + 1}", fill="#ffffff", font=font(13))
            pictures.append(picture)
        rows.append((height, pictures))
    heads = [f"day {day:g}" if follow_up.dated else f"scan {day:g}" for day in follow_up.days]
    tall = sum(max(one.height for one in pictures) + GAP for _, pictures in rows) + 24
    whole = Image.new("RGB", (90 + len(results) * (each + GAP), tall), PAPER)
    pen, y = ImageDraw.Draw(whole), 24
    for k, head in enumerate(heads):
        pen.text((90 + k * (each + GAP), 2), head, fill=INK, font=font(15))
    for height, pictures in rows:
        pen.text((2, y + 4), f"{height:.0%}", fill=INK, font=font(15))
        for k, picture in enumerate(pictures):
            whole.paste(picture, (90 + k * (each + GAP), y))
        y += max(one.height for one in pictures) + GAP
    return whole
