"""What a reader study has found, as a table: a row for each finished reading and structure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb.corrections.reading import read_finished
from deeplung_nb.corrections.study import ReaderStudy
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.labels import LESION_STRUCTURES, structure_mask
from deeplung_nb.stats import overlap

COLUMNS = ("case_id", "reader", "arm", "occasion", "block", "number", "seconds", "strokes",
           "structure", "volume_ml", "automatic_ml", "added_ml", "removed_ml", "slices_changed",
           "dice_automatic")


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    counts = overlap.confusion(one, other)
    size = 2 * counts.tp + counts.fp + counts.fn
    return 2 * counts.tp / size if size else float("nan")


def _rows(scan: Scan, read: LesionMask, automatic: LesionMask, truth: LesionMask | None
          ) -> list[dict[str, Any]]:
    """By structure: volumes, and what differs from the automatic marks, in mL and slices."""
    ml, rows = scan.voxel_mm3 / 1000.0, []
    for structure in LESION_STRUCTURES:
        mine, machine = (structure_mask(mask.labels, structure) for mask in (read, automatic))
        changed = mine != machine
        row = {"structure": structure, "volume_ml": ml * int(mine.sum()),
               "automatic_ml": ml * int(machine.sum()),
               "added_ml": ml * int((mine & ~machine).sum()),
               "removed_ml": ml * int((machine & ~mine).sum()),
               "slices_changed": int(changed.any(axis=(1, 2)).sum()),
               "dice_automatic": _dice(machine, mine)}
        if truth is not None:
            real = structure_mask(truth.labels, structure)
            row |= {"truth_ml": ml * int(real.sum()), "dice_before": _dice(machine, real),
                    "dice_after": _dice(mine, real)}
        rows.append(row)
    return rows


def study_table(study: ReaderStudy, truth: Mapping[str, LesionMask] | None = None) -> pd.DataFrame:
    """The finished readings of a study, measured.

    Parameters
    ----------
    truth
        Case -> marks to compare with, where there are some (phantoms, an expert outside the study).

    Returns
    -------
    DataFrame
        `case_id, reader, arm, occasion, block, number, seconds, strokes, structure, volume_ml,
        automatic_ml, added_ml, removed_ml, slices_changed, dice_automatic`, and with `truth`
        `truth_ml, dice_before, dice_after`. A Dice of two empty masks is empty.

    Raises
    ------
    ReadingError
        A mask is not the one that was drawn.
    """
    rows = []
    for session in study.finished():
        case = study.load(session.case)
        mask, record = read_finished(study.place(session), case.scan)
        facts = {"case_id": session.case, "reader": session.reader, "arm": session.arm,
                 "occasion": session.occasion, "block": session.block, "number": session.number,
                 "seconds": record["active_seconds"], "strokes": record["strokes"]}
        known = (truth or {}).get(session.case)
        rows += [{**facts, **row} for row in _rows(case.scan, mask, case.automatic, known)]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(COLUMNS))
