"""Disease made in cases that a run's networks never saw: what they find of it, and of the lungs.

Few patients show few kinds of disease. Made in the lungs of a real CT, its truth is known, and it
can be as dense, as faint and as large as no case at hand is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb.cohorts.cases import Case, find_volumes, load_cohorts, load_splits, read_case
from deeplung_nb.cohorts.manifest import Cohort
from deeplung_nb.cohorts.splits import CaseKey, fold_cases
from deeplung_nb.files import write_text
from deeplung_nb.imaging.lungs import LungMask
from deeplung_nb.imaging.made_disease import MadeLesion, make_disease
from deeplung_nb.imaging.scan import Scan
from deeplung_nb.network.checkpoint import CHECKPOINT
from deeplung_nb.reading.predict import Predictor
from deeplung_nb.runs import Run
from deeplung_nb.runs.progress import track
from deeplung_nb.stats import overlap

MADE: dict[str, MadeLesion] = {
    "dorsal consolidation, 37 % of the lungs, 30 HU": MadeLesion("dependent", 0.37, 30.0, seed=1),
    "the same, -300 HU": MadeLesion("dependent", 0.37, -300.0, seed=1),
    "the same, -550 HU": MadeLesion("dependent", 0.37, -550.0, 0.95, seed=1),
    "dorsal consolidation, 10 %, 30 HU": MadeLesion("dependent", 0.10, 30.0, seed=2),
    "dorsal consolidation with air in its bronchi, 20 %, 0 HU": MadeLesion(
        "dependent", 0.20, 0.0, texture="bronchograms", seed=3),
    "crescent, 8 %, 20 HU": MadeLesion("crescent", 0.08, 20.0, seed=4),
    "lobules, 8 %, -50 HU": MadeLesion("lobules", 0.08, -50.0, seed=5),
    "patch of ground glass, 10 %, -550 HU": MadeLesion("patch", 0.10, -550.0, 0.8, seed=6),
    "faint patch of ground glass, 10 %, -650 HU": MadeLesion("patch", 0.10, -650.0, 0.6, seed=7),
    "crazy paving, 10 %, -500 HU": MadeLesion("patch", 0.10, -500.0, 0.8, texture="net", seed=8),
}
"""What is made, by its words: size is of the lungs' volume."""
NONE = "none"
COLUMNS = ("cohort", "case_id", "patient_id", "fold", "made", "made_ml", "percent_of_made_found",
           "expert_ml", "found_ml", "dice", "lungs_ml", "lungs_found_ml", "lungs_dice")


def _score(case: Case, lungs: LungMask, predictor: Predictor,
           lesion: MadeLesion | None) -> dict[str, Any]:
    """One reading of one case, with or without a lesion made in it."""
    scan, truth = case.scan, case.expert.labels
    made = np.zeros(scan.shape, bool)
    if lesion is not None:
        hu, truth = make_disease(scan.hu, truth, lungs.mask, scan.spacing_mm, lesion)
        made = (truth > 0) & ~(case.expert.labels > 0)
        scan = Scan(np.rint(hu).astype(np.int16), scan.grid, scan.case_id)
    found = predictor.read(scan)
    ml = scan.voxel_mm3 / 1000.0
    counts = overlap.confusion(truth > 0, found.lesions.labels > 0)
    row: dict[str, Any] = {
        "made_ml": made.sum() * ml, "expert_ml": (counts.tp + counts.fn) * ml,
        "percent_of_made_found": 100.0 * float((found.lesions.labels[made] > 0).mean())
        if made.any() else np.nan,
        "found_ml": (counts.tp + counts.fp) * ml, "dice": counts.dice(),
        "lungs_ml": lungs.mask.sum() * ml}
    if found.lungs is not None:
        of_lungs = overlap.confusion(lungs.mask, found.lungs.mask)
        row |= {"lungs_found_ml": (of_lungs.tp + of_lungs.fp) * ml, "lungs_dice": of_lungs.dice()}
    return row


def score_unseen(cohorts: Sequence[Cohort], splits: pd.DataFrame,
                 checkpoints: Mapping[int, Path], progress: bool = True) -> pd.DataFrame:
    """How each volume is read by the network of its own fold, which never saw it.

    Parameters
    ----------
    cohorts, splits
        Of the cross-validation that trained the networks.
    checkpoints
        Fold -> its network; cases of other folds are left out, and so are those without lungs.

    Returns
    -------
    DataFrame
        `COLUMNS`, a row a case and made lesion (`made`, of `MADE`; `none`: as it is): mL of what
        was made beside the expert's lesions, the percentage of it that is marked as any lesion; any
        lesion in all, expert's and made (`expert_ml`), and as marked (`found_ml`), with their Dice;
        the lungs of the case's mask, which stay whole, and as the network marks them (empty where
        it marks none).
    """
    fold_of = {key: fold for fold in checkpoints for key in fold_cases(splits, fold).test}
    todo = [(fold_of[key], cohort, row) for cohort, row in find_volumes(list(cohorts), "cv")
            if (key := CaseKey(cohort.name, row.case_id)) in fold_of]
    rows = []
    for fold, cohort, row in track(todo, "made disease", "case", shown=progress):
        case = read_case(cohort, row.case_id)
        if case.lungs is None:
            continue
        predictor = Predictor.from_checkpoints([checkpoints[fold]])
        for words, lesion in {NONE: None, **MADE}.items():
            rows.append({"cohort": cohort.name, "case_id": row.case_id,
                         "patient_id": row.patient_id, "fold": fold, "made": words,
                         **_score(case, case.lungs, predictor, lesion)})
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS))


def score_made(run: Run, progress: bool = True) -> pd.DataFrame:
    """`score_unseen` of a run; kept in its folder as `made_disease.csv` and used again."""
    path = run.path("made_disease.csv")
    if not path.exists():
        cohorts = load_cohorts(run)
        checkpoints = {fold: run.require(run.fold_folder(fold), CHECKPOINT,
                                         made_by="05_cross_validation.ipynb")
                       for fold in range(run.config.n_folds)}
        found = score_unseen(cohorts, load_splits(run, cohorts), checkpoints, progress)
        write_text(path, found.to_csv(index=False))
    return pd.read_csv(path, dtype={"case_id": str, "patient_id": str})


def summarise_made(frame: pd.DataFrame) -> pd.DataFrame:
    """`score_made` by what was made: means and SD over the cases.

    Returns
    -------
    DataFrame
        `made, n, percent_of_made_found, dice, dice_sd, ratio` (volume found by volume there, as a
        geometric mean), `lungs_dice, lungs_ratio`.
    """
    rows = []
    for words, part in frame.groupby("made", sort=False):
        some = part[part["expert_ml"] > 1.0]
        rows.append({
            "made": words, "n": len(part), "percent_of_made_found":
            part["percent_of_made_found"].mean(), "dice": some["dice"].mean(),
            "dice_sd": some["dice"].std(),
            "ratio": float(np.exp(np.log(some["found_ml"].clip(lower=1e-3)
                                         / some["expert_ml"]).mean())),
            "lungs_dice": part["lungs_dice"].mean(),
            "lungs_ratio": (part["lungs_found_ml"] / part["lungs_ml"]).mean()})
    return pd.DataFrame(rows)
