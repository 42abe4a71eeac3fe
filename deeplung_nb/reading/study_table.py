"""What a reader study has found, as tables: of each finished reading, and of what all say together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb.corrections.reading import read_finished
from deeplung_nb.corrections.study import ReaderStudy, StudyCase
from deeplung_nb.imaging import consensus
from deeplung_nb.imaging.lungs import LungMask
from deeplung_nb.imaging.regions import LungRegions
from deeplung_nb.imaging.scan import LesionMask
from deeplung_nb.labels import LESION_STRUCTURES, structure_mask
from deeplung_nb.stats import overlap

COLUMNS = ("case_id", "reader", "arm", "occasion", "block", "number", "seconds", "strokes",
           "structure", "volume_ml", "automatic_ml", "added_ml", "removed_ml", "slices_changed",
           "dice_automatic")
CONSENSUS_COLUMNS = ("case_id", "arm", "way", "readers", "structure", "volume_ml", "automatic_ml",
                     "dice_automatic", "dice_readers")


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    return overlap.confusion(one, other).dice()


def _regions(case: StudyCase) -> LungRegions | None:
    if case.lungs is None or not np.any(case.lungs):
        return None
    return LungRegions.of(LungMask.like(case.scan, np.asarray(case.lungs, bool), "reference"))


def _rows(case: StudyCase, read: LesionMask, truth: LesionMask | None) -> list[dict[str, Any]]:
    """By structure: volumes, and what differs from the automatic marks, in mL, slices and regions.
    """
    ml, rows, regions = case.scan.voxel_mm3 / 1000.0, [], _regions(case)
    for structure in LESION_STRUCTURES:
        mine, machine = (structure_mask(mask.labels, structure)
                         for mask in (read, case.automatic))
        changed = mine != machine
        row = {"structure": structure, "volume_ml": ml * int(mine.sum()),
               "automatic_ml": ml * int(machine.sum()),
               "added_ml": ml * int((mine & ~machine).sum()),
               "removed_ml": ml * int((machine & ~mine).sum()),
               "slices_changed": int(changed.any(axis=(1, 2)).sum()),
               "dice_automatic": _dice(machine, mine)}
        if regions is not None:
            row |= {f"changed_{name}_ml": ml * n for name, n in regions.count(changed).items()}
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
        automatic_ml, added_ml, removed_ml, slices_changed, dice_automatic`; of cases with lungs
        `changed_<region>_ml`, what was added or removed in each of `labels.REGIONS`; and with
        `truth` `truth_ml, dice_before, dice_after`. A Dice of two empty masks is empty.

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
        rows += [{**facts, **row} for row in _rows(case, mask, known)]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(COLUMNS))


def consensus_table(study: ReaderStudy) -> pd.DataFrame:
    """What the readers of a case say together, by majority and by STAPLE, on first readings.

    Returns
    -------
    DataFrame
        A row for each case and arm that three or more have read (of two there is no consensus,
        `imaging.consensus`), way and structure: `case_id, arm, way, readers, structure, volume_ml,
        automatic_ml, dice_automatic, dice_readers`. The last is the mean over the readers; each of
        them is a part of the consensus, so theirs is flattered. Where readers have seen the
        machine's marks (`aided`, `correcting`) it is a part too: nothing is compared with it there.

    Raises
    ------
    ReadingError
        A mask is not the one that was drawn.
    """
    together = defaultdict(list)
    for session in study.finished():
        if session.occasion == 1:
            together[session.case, session.arm].append(session)
    rows: list[dict[str, Any]] = []
    for (name, arm), sessions in sorted(together.items()):
        if len(sessions) < consensus.FEWEST:
            continue
        case = study.load(name)
        masks = [read_finished(study.place(session), case.scan)[0] for session in sessions]
        ml, alone = case.scan.voxel_mm3 / 1000.0, arm == "unaided"
        for way, combine in (("majority", consensus.majority), ("staple", consensus.staple)):
            agreed = combine(masks)
            for structure in LESION_STRUCTURES:
                ours, machine, *theirs = (structure_mask(mask.labels, structure)
                                          for mask in (agreed, case.automatic, *masks))
                each = [value for value in (_dice(mask, ours) for mask in theirs)
                        if np.isfinite(value)]
                rows.append({
                    "case_id": name, "arm": arm, "way": way, "readers": len(masks),
                    "structure": structure, "volume_ml": ml * int(ours.sum()),
                    "automatic_ml": ml * int(machine.sum()) if alone else float("nan"),
                    "dice_automatic": _dice(machine, ours) if alone else float("nan"),
                    "dice_readers": float(np.mean(each)) if each else float("nan")})
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(CONSENSUS_COLUMNS))
