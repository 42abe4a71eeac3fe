"""What a run's networks say of cases that they never saw: slices, thresholds and calibration.

All on the network's grid, from the scores of the fold that left the case out. Nothing here is
measured in millilitres; that is `experiment`'s, on the scan's own grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from deeplung_nb.cohorts.cases import load_cohorts, load_splits, read_external_slice
from deeplung_nb.cohorts.manifest import Cohort
from deeplung_nb.cohorts.splits import CaseKey, fold_cases
from deeplung_nb.files import write_text
from deeplung_nb.imaging.preprocess import normalise_hu
from deeplung_nb.labels import LESION_STRUCTURES, NO_ANSWER, structure_mask
from deeplung_nb.learning.dataset import on_picture, prepare_slice
from deeplung_nb.learning.experiment import prepared_cases
from deeplung_nb.network.checkpoint import CHECKPOINT
from deeplung_nb.reading.predict import Predictor, lesion_first
from deeplung_nb.runs import Run
from deeplung_nb.runs.progress import track
from deeplung_nb.stats import overlap

THRESHOLDS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)
N_BINS = 10
AS_GOOD = 0.005
"""Mean Dice within this of the best counts as the best: then the higher threshold, which raises
fewer false alarms, is taken."""


class Unseen(NamedTuple):
    """A case and the scores of the fold that did not train on it."""

    key: CaseKey
    fold: int
    isolated: bool
    scores: np.ndarray
    """float32 [z, class, S, S]."""
    target: np.ndarray
    """uint8 [z, S, S], with `NO_ANSWER`."""


def unseen_cases(run: Run, progress: bool = True) -> Iterator[Unseen]:
    """Every case of the cross-validation, once, fold by fold."""
    cohorts = load_cohorts(run)
    splits = load_splits(run, cohorts)
    for fold in track(range(run.config.n_folds), "unseen cases", "fold", shown=progress):
        checkpoint = run.require(run.fold_folder(fold), CHECKPOINT,
                                 made_by="05_cross_validation.ipynb")
        predictor = Predictor.from_checkpoints([checkpoint])
        keys = fold_cases(splits, fold).test
        for key, case in zip(keys, prepared_cases(run, cohorts, keys, False), strict=True):
            prepared = normalise_hu(case.hu.astype(np.float32))
            scores = [batch.mean(axis=0) for batch in predictor.scores_per_network(prepared)]
            yield Unseen(key, fold, case.source == "slice", np.concatenate(scores),
                         np.asarray(case.target))


def count_overlap(case: Unseen, threshold: float | None) -> Iterator[dict[str, object]]:
    """Rows of `Estimate.thresholds`: a case's overlap with its expert, at one threshold."""
    found = lesion_first(case.scores, threshold).argmax(axis=1)
    known = case.target != NO_ANSWER
    for structure in LESION_STRUCTURES:
        counts = overlap.confusion(structure_mask(case.target, structure) & known,
                                   structure_mask(found, structure) & known)
        yield {"cohort": case.key.cohort, "case_id": case.key.case_id, "fold": case.fold,
               "isolated": case.isolated, "threshold": threshold, "structure": structure,
               "tp": counts.tp, "fp": counts.fp, "fn": counts.fn, "dice": counts.dice()}


def _sizes(case: Unseen, threshold: float | None) -> Iterator[dict[str, object]]:
    """How well any lesion is found slice by slice, beside how much of it is there."""
    found = lesion_first(case.scores, threshold).argmax(axis=1) > 0
    known = case.target != NO_ANSWER
    wanted = (case.target > 0) & known
    for z in np.flatnonzero(wanted.any(axis=(1, 2))):
        counts = overlap.confusion(wanted[z], found[z] & known[z])
        yield {"cohort": case.key.cohort, "case_id": case.key.case_id, "isolated": case.isolated,
               "slice": int(z), "percent_of_picture": 100.0 * float(wanted[z].mean()),
               "tp": counts.tp, "fp": counts.fp, "fn": counts.fn, "dice": counts.dice()}


def score_external_slices(readers: Mapping[str, Sequence[Path]], cohorts: Sequence[Cohort],
                          progress: bool = True) -> pd.DataFrame:
    """How well isolated slices of external cohorts are read, each between its neighbours.

    Pixels of the network's picture: how large a pixel is, is not known of such slices.

    Parameters
    ----------
    readers
        Name -> checkpoints whose scores are averaged.

    Further readers of the manifest are compared too, as `reader-<name>`.

    Returns
    -------
    DataFrame
        `reader, cohort, role, case_id, patient_id, centre, fold` (empty)`, structure, status,
        n_expert, n_found, tp, fp, fn, dice`, as `stats.dice.dice_table` takes it; a binary mask has
        the row of any lesion only.
    """
    todo = [(cohort, cohort.slices.longest_share, row) for cohort in cohorts
            if cohort.slices is not None
            for _, row in cohort.cases("external").iterrows()]
    predictors = {name: Predictor.from_checkpoints(files) for name, files in readers.items()} \
        if todo else {}
    rows = []
    shown = progress and bool(todo)
    for cohort, share, row in track(todo, "external slices", "slice", shown=shown):
        case = read_external_slice(cohort, row.case_id)
        structures = ("lesion",) if row.mask_kind == "binary" else LESION_STRUCTURES
        compared: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for name, predictor in predictors.items():
            size = predictor.image_size
            pictures, inside = on_picture(case.stack.hu, size, share)
            target = prepare_slice(case.scan, case.expert, size, share).target[0][inside]
            scores = np.concatenate([predictor.decide(batch) for batch in
                                     predictor.scores_per_network(normalise_hu(pictures))])
            # Nothing outside the patient.
            compared[name] = target, scores[case.at].argmax(axis=0)[inside]
            for who, mask in case.readers.items():  # on the same pixels as the last network
                compared[f"reader-{who}"] = target, prepare_slice(
                    case.scan, mask, size, share).target[0][inside]
        for name, (target, found) in compared.items():
            for structure in structures:
                counts = overlap.confusion(structure_mask(target, structure),
                                           structure_mask(found, structure))
                rows.append({
                    "reader": name, "cohort": cohort.name, "role": "external",
                    "case_id": row.case_id, "patient_id": row.patient_id, "centre": row.centre,
                    "fold": np.nan, "structure": structure, "status": "ok",
                    "n_expert": counts.tp + counts.fn, "n_found": counts.tp + counts.fp,
                    "tp": counts.tp, "fp": counts.fp, "fn": counts.fn, "dice": counts.dice()})
    return pd.DataFrame(rows, columns=[
        "reader", "cohort", "role", "case_id", "patient_id", "centre", "fold", "structure",
        "status", "n_expert", "n_found", "tp", "fp", "fn", "dice"])


def external_slices(run: Run, progress: bool = True) -> pd.DataFrame:
    """`score_external_slices` by each fold's network and by all together (`ensemble`).

    Kept in the run folder as `external_slices.csv` and used again.
    """
    path = run.path("external_slices.csv")
    if not path.exists():
        folds = {f"fold-{fold}": [run.require(run.fold_folder(fold), CHECKPOINT,
                                              made_by="05_cross_validation.ipynb")]
                 for fold in range(run.config.n_folds)}
        readers = {**folds, "ensemble": [files[0] for files in folds.values()]}
        found = score_external_slices(readers, load_cohorts(run), progress)
        write_text(path, found.to_csv(index=False))
    return pd.read_csv(path, dtype={"case_id": str, "patient_id": str})


class Estimate(NamedTuple):
    """Tables over unseen cases; counts are pixels of the network's picture that have an answer."""

    slices: pd.DataFrame
    """Isolated slices by the rule of the run's settings; columns as `thresholds`."""
    thresholds: pd.DataFrame
    """All cases: `cohort, case_id, fold, isolated, threshold, structure, tp, fp, fn, dice` (empty
    where both masks are)."""
    calibration: pd.DataFrame
    """`isolated, score, n, mean_score, share`: bins of the lesion score (ground glass + high
    opacity), pixels in them, their mean score, and the share that the expert marked."""
    sizes: pd.DataFrame
    """Slices with any lesion: `cohort, case_id, isolated, slice, percent_of_picture` (the expert's
    lesion, of the network's picture)`, tp, fp, fn, dice`, by the rule of the run's settings."""


def estimate(run: Run, progress: bool = True) -> Estimate:
    """Overlap of isolated slices, overlap at each lesion threshold, and calibration.

    The tables are kept in the run folder (`slices.csv`, `thresholds.csv`, `calibration.csv`,
    `sizes.csv`) and used again.
    """
    paths = [run.path(f"{name}.csv") for name in Estimate._fields]
    if all(path.exists() for path in paths):
        return Estimate(*(pd.read_csv(path, dtype={"case_id": str}) for path in paths))
    slices, rows, sizes, edges = [], [], [], np.linspace(0, 1, N_BINS + 1)
    sums = {isolated: np.zeros((3, N_BINS)) for isolated in (False, True)}
    for case in unseen_cases(run, progress):
        if case.isolated:
            slices += count_overlap(case, run.config.network.lesion_threshold)
        sizes += _sizes(case, run.config.network.lesion_threshold)
        for threshold in THRESHOLDS:
            rows += count_overlap(case, threshold)
        known = case.target != NO_ANSWER
        score = case.scores[:, 1:].sum(axis=1)[known]
        place = np.clip(np.digitize(score, edges) - 1, 0, N_BINS - 1)
        for k, values in enumerate((None, score, case.target[known] > 0)):
            sums[case.isolated][k] += np.bincount(place, values, N_BINS)
    bins = [{"isolated": isolated, "score": (edges[k] + edges[k + 1]) / 2, "n": int(n),
             "mean_score": total / n, "share": hits / n}
            for isolated, table in sums.items()
            for k, (n, total, hits) in enumerate(table.T) if n]
    thresholds = pd.DataFrame(rows)
    # Without a threshold in the settings that column is empty: a number all the same.
    of_slices = pd.DataFrame(slices, columns=thresholds.columns).astype({"threshold": float})
    found = Estimate(of_slices, thresholds, pd.DataFrame(bins), pd.DataFrame(sizes))
    for path, frame in zip(paths, found, strict=True):
        write_text(path, frame.to_csv(index=False))
    return found


def choose_threshold(thresholds: pd.DataFrame) -> tuple[float, pd.DataFrame]:
    """The lesion threshold with the best Dice, and what the choice is worth where it had no say.

    The criterion is the mean Dice of any lesion over the volumes whose Dice is defined; of those as
    good as the best (`AS_GOOD`) the highest threshold. For each fold it is also chosen on the other
    folds alone, and applied to it: that column is honest.

    Returns
    -------
    (threshold, frame)
        The choice over all folds; `case_id, fold, chosen, dice_chosen, dice_at_half`.
    """
    rows = thresholds[~thresholds["isolated"] & (thresholds["structure"] == "lesion")]

    def best(part: pd.DataFrame) -> float:
        mean = part.groupby("threshold")["dice"].mean()
        return float(mean.index[mean >= mean.max() - AS_GOOD].max())

    honest = []
    for fold, part in rows.groupby("fold"):
        chosen = best(rows[rows["fold"] != fold])
        wide = part.pivot(index="case_id", columns="threshold", values="dice")
        honest += [{"case_id": case, "fold": fold, "chosen": chosen,
                    "dice_chosen": row[chosen], "dice_at_half": row[0.5]}
                   for case, row in wide.iterrows()]
    return best(rows), pd.DataFrame(honest)
