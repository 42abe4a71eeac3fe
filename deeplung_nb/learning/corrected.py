"""Does correcting help? A fold's network trains on with corrected cases, and untouched ones judge.

More steps alone make a network better or worse. So it trains on twice, from the same weights, with
as many steps and the same draws' seed: once with the cases that it had, once with the corrected
ones among them. Only the difference of these two is the corrections'.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb.cohorts.cases import (
    Case,
    find_volumes,
    load_cohorts,
    load_splits,
    read_case,
    read_reading,
)
from deeplung_nb.cohorts.splits import fold_cases
from deeplung_nb.corrections.reading import Reading, read_finished
from deeplung_nb.files import sha256_of
from deeplung_nb.imaging.scan import LesionMask
from deeplung_nb.labels import LESION_STRUCTURES, structure_mask
from deeplung_nb.learning.dataset import PreparedCase, SliceSampler, prepare_case
from deeplung_nb.learning.evaluate import Predictors, Reader
from deeplung_nb.learning.experiment import prepared_cases
from deeplung_nb.learning.train import train
from deeplung_nb.network.checkpoint import CHECKPOINT
from deeplung_nb.network.deeplung import DeepLungNet
from deeplung_nb.runs import Run
from deeplung_nb.runs.progress import track
from deeplung_nb.runs.registry import manifest_folder
from deeplung_nb.stats import overlap

RECORDED = "strokes_phantom.json"
COHORT, FOLDER = "phantom", "corrected"
WAYS = ("as it was", "more steps", "more steps, corrected cases among them")
JUDGED = ("way", "seed", "cohort", "case_id", "structure", "dice")
Strokes = Mapping[str, Sequence[Mapping[str, Any]]]
"""Case -> its strokes, in order, as `corrections.tools` has them."""


def recorded_strokes(run: Run) -> dict[str, list[dict[str, Any]]]:
    """The strokes that come with the package, where a run has the synthetic cohort; else none.

    Three cases, which `tools/record_strokes.py` drew: from the marks of the cohort's
    synthetic expert, with a hand's inaccuracy.
    """
    path = manifest_folder() / RECORDED
    if COHORT not in run.config.cohorts or not path.exists():
        return {}
    return json.loads(path.read_text(encoding="utf-8"))["strokes"]


def _dice(one: LesionMask, other: LesionMask, structure: str) -> float:
    return overlap.confusion(*(structure_mask(mask.labels, structure)
                               for mask in (one, other))).dice()


def replay(run: Run, strokes: Strokes, cohort: str = COHORT, reader: str = "recorded",
           progress: bool = True) -> pd.DataFrame:
    """Draw recorded strokes into the run's automatic marks, each case a finished reading.

    They lie in `corrected/<cohort>/<case>/<reader>` of the run, its table of measurements stays as
    it is. A reading that was begun goes on, one that is finished stays.

    Returns
    -------
    DataFrame
        One row for each case and structure: `case_id, structure, strokes, dice_before, dice_after`,
        by the expert.

    Raises
    ------
    FileNotFoundError
        The run has no automatic marks of a case yet.
    StrokeError, ReadingError
        A stroke that can't be drawn, or a reading that is damaged.
    """
    rows: list[dict[str, Any]] = []
    for case_id, drawn in track(list(strokes.items()), "replay", "case", shown=progress):
        case, automatic = read_reading(run, cohort, case_id)
        with Reading.open(case.scan, reader, run.folder / FOLDER / cohort / case_id,
                          start=automatic, start_from="automatic",
                          lungs=None if case.lungs is None else case.lungs.mask) as reading:
            for stroke in drawn[reading.n_strokes:]:
                reading.draw(stroke)
            if not reading.finished:
                reading.finish()
            rows += [{"case_id": case_id, "structure": structure, "strokes": reading.n_strokes,
                      "dice_before": _dice(automatic, case.expert, structure),
                      "dice_after": _dice(reading.mask, case.expert, structure)}
                     for structure in LESION_STRUCTURES]
    return pd.DataFrame(rows, columns=["case_id", "structure", "strokes", "dice_before",
                                       "dice_after"])


def read_corrected(run: Run, case_id: str, cohort: str = COHORT, reader: str = "recorded"
                   ) -> tuple[Case, dict[str, LesionMask]]:
    """A case that was corrected, with the masks `expert`, `automatic` and `corrected`.

    Raises
    ------
    ReadingError
        Its reading is not finished.
    """
    case, automatic = read_reading(run, cohort, case_id)
    mask, _ = read_finished(run.folder / FOLDER / cohort / case_id / reader, case.scan)
    return case, {"expert": case.expert, "automatic": automatic, "corrected": mask}


def _prepare_corrected(run: Run, case_id: str, cohort: str, reader: str) -> PreparedCase:
    case, masks = read_corrected(run, case_id, cohort, reader)
    return prepare_case(case.scan, masks["corrected"], run.config.network.image_size, case.lungs)


def _digest(config: Any, start: str, cohort: str, reader: str,
            more: Sequence[PreparedCase]) -> str:
    """What a training on hangs on: another start, correction or setting is another training."""
    digest = hashlib.sha256(json.dumps([config.to_dict(), start, cohort, reader],
                                       sort_keys=True).encode())
    for case in more:
        digest.update(case.case_id.encode())
        digest.update(np.ascontiguousarray(case.target).data)
    return digest.hexdigest()[:12]


def train_on(run: Run, strokes: Strokes, *, fold: int = 0, epochs: int = 2, rate: float = 0.5,
             seed: int = 0, cohort: str = COHORT, reader: str = "recorded",
             progress: bool = True) -> pd.DataFrame:
    """Train a fold's network on, with and without the corrected cases; Dice of untouched ones.

    Parameters
    ----------
    strokes
        What `replay` has drawn: cases of the fold's test part, which its network never saw.
    epochs, rate
        So much longer, from this share of the learning rate down to its end.
    seed
        Of the draws; another one is another answer.

    Returns
    -------
    DataFrame
        One row for each way of `WAYS`, untouched case and structure: `way, seed, cohort,
        case_id, structure, dice`. Untouched are the other cases of the fold's test part and all
        external ones, whose patients trained in no way.

    Raises
    ------
    ValueError
        A corrected case is none that the fold left out.
    """
    if not strokes:
        return pd.DataFrame(columns=list(JUDGED))
    cohorts = load_cohorts(run)
    parts = fold_cases(load_splits(run, cohorts), fold)
    left_out = {(key.cohort, key.case_id) for key in parts.test}
    strange = [case_id for case_id in strokes if (cohort, case_id) not in left_out]
    if strange:
        names = sorted(case_id for name, case_id in left_out if name == cohort)
        raise ValueError(f"case(s) {', '.join(strange)}: expected of {', '.join(names)}, which "
                         f"fold {fold} left out. Its network has seen any other case")
    start = run.require(run.fold_folder(fold), CHECKPOINT, made_by="05_cross_validation.ipynb")
    training = prepared_cases(run, cohorts, parts.train, progress=False)
    more = [_prepare_corrected(run, case_id, cohort, reader) for case_id in strokes]
    settings = run.config.training
    steps = SliceSampler(training, settings, seed).steps  # with more cases not one step more
    config = replace(run.config, first=None, training=replace(
        settings, max_epochs=epochs, learning_rate=rate * settings.learning_rate,
        schedule="cosine", keep="last", warmup_steps=0, steps_per_epoch=steps))
    key = _digest(config, sha256_of(start), cohort, reader, more)
    files: dict[str, Path] = {WAYS[0]: start}
    for name, way, cases in (("plain", WAYS[1], training), ("with", WAYS[2], [*training, *more])):
        folder = run.path(FOLDER, f"fold-{fold}", f"seed-{seed}-{name}-{key}", CHECKPOINT).parent
        train(cases, [], config, folder, seed=seed, name=DeepLungNet.name, start=start,
              progress=f"train {way}" if progress else False, data=run.data)
        files[way] = folder / CHECKPOINT
    candidates = [(one, row) for role in ("cv", "external")
                  for one, row in find_volumes(cohorts, role)
                  if role == "external" or (one.name, row.case_id) in left_out]
    seen = {row.patient_id for one, row in candidates
            if one.name == cohort and row.case_id in strokes}
    untouched = [(one, row.case_id) for one, row in candidates if row.patient_id not in seen]
    readers = {way: Reader(DeepLungNet.name, (path,), fold) for way, path in files.items()}
    predictors, rows = Predictors(run.config.batch_predict), []
    for one, case_id in track(untouched, "judge", "case", shown=progress):
        case = read_case(one, case_id)
        masks = predictors.masks(readers, case.scan, run.config.network.image_size)
        rows += [{"way": way, "seed": seed, "cohort": one.name, "case_id": case_id,
                  "structure": structure,
                  "dice": _dice(mask, case.expert, structure)}
                 for way, mask in masks.items() for structure in case.structures]
    return pd.DataFrame(rows, columns=list(JUDGED))


def compare_ways(judged: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice by structure and way, and what the corrected cases bring over more steps alone.

    Parameters
    ----------
    judged
        Of `train_on`, of one seed or several (each case is then the mean over them).

    Returns
    -------
    DataFrame
        One row a structure: a column for each way, over the `n` cases in which all are defined,
        `gain` (the last way less the one before, mean over cases), and `better, worse`: cases.
    """
    if judged.empty:
        return pd.DataFrame(columns=["structure", "n", *WAYS, "gain", "better", "worse"])
    key = ["structure", "cohort", "case_id"]
    wide: Any = judged.pivot_table(index=key, columns="way", values="dice", aggfunc="mean",
                              sort=False)[list(WAYS)].dropna()
    rows: list[dict[str, Any]] = []
    for structure, part in wide.groupby(level=0, sort=False):
        gain = (part[WAYS[2]] - part[WAYS[1]]).to_numpy(float)
        rows.append({"structure": structure, "n": len(part), **part.mean().to_dict(),
                     "gain": float(np.mean(gain)), "better": int((gain > 0).sum()),
                     "worse": int((gain < 0).sum())})
    return pd.DataFrame(rows)
