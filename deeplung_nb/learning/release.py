"""The network that the package brings: folds of the public cross-validation, kept as small files.

`python -m deeplung_nb train-packaged --data <folder>` makes `deeplung_nb/weights/` anew. It takes
networks of the profile `public`, whose cross-validation therefore tests these very weights: each on
the patient that it never saw.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from deeplung_nb.cohorts.cases import find_volumes, load_cohorts, load_splits, read_case
from deeplung_nb.cohorts.manifest import Cohort
from deeplung_nb.cohorts.splits import fold_cases
from deeplung_nb.files import atomic_paths, check_writable, sha256_of, write_text
from deeplung_nb.learning.experiment import prepared_cases, train_fold
from deeplung_nb.network.checkpoint import CHECKPOINT, read_checkpoint, save_tensors
from deeplung_nb.network.packaged import CARD, WEIGHTS_FOLDER
from deeplung_nb.network.pretrained import find_encoder
from deeplung_nb.reading.familiarity import describe_scan, training_ranges
from deeplung_nb.runs import Run, open_run, package_versions
from deeplung_nb.runs.config import load_profile
from deeplung_nb.runs.progress import track
from deeplung_nb.runs.registry import read_registry

PROFILE = "public"
NETWORKS = 3


def _shrink(source: Path, target: Path) -> None:
    """A checkpoint with its weights as float16: half the size, read back as float32."""
    saved = read_checkpoint(source)
    saved["state"] = {name: tensor.half() if tensor.is_floating_point() else tensor
                      for name, tensor in saved["state"].items()}
    save_tensors(saved, target)


def _ranges(cohorts: list[Cohort]) -> dict[str, tuple[float, float]]:
    """Of the properties of the training volumes, with the expert's burden."""
    found = []
    for cohort, row in find_volumes(cohorts, "cv"):
        case = read_case(cohort, row.case_id)
        burden = None
        if case.lungs is not None:
            burden = 100.0 * (case.expert.labels > 0).sum() / case.lungs.mask.sum()
        found.append(describe_scan(case.scan, case.lungs, burden))
    return training_ranges(found)


def richest_folds(run: Run, cohorts: list[Cohort], n: int) -> list[int]:
    """The `n` folds that train on the most pixels of lesion, the first of equals first."""
    splits = load_splits(run, cohorts)
    lesion = {}
    for fold in range(run.config.n_folds):
        cases = prepared_cases(run, cohorts, fold_cases(splits, fold).train, False)
        lesion[fold] = sum(int((case.target > 0).sum()) for case in cases)
    return sorted(sorted(lesion, key=lambda fold: -lesion[fold])[:n])


def _describe(run: Run, name: str, hashes: dict[str, str], folds: Sequence[int],
              histories: Sequence[pd.DataFrame], cohorts: list[Cohort]) -> dict[str, Any]:
    registry = read_registry()
    return {
        "name": name, "trained_by": f"python -m deeplung_nb train-packaged, run {run.run_id}",
        "files": [{"file": file, "sha256": sha256, "fold": fold}
                  for (file, sha256), fold in zip(hashes.items(), folds, strict=True)],
        "cohorts": {cohort.name: {"cases": len(cohort.cases("cv")),
                                  **{key: registry[cohort.name][key]
                                     for key in ("licence", "citation")}}
                    for cohort in cohorts if len(cohort.cases("cv"))},
        "training_ranges": _ranges(cohorts),
        "licence": "non-commercial research, as the images that it was trained on",
        "settings": run.config.to_dict(), "software": package_versions(),
        "last_training_loss": [float(history["train_loss"].iloc[-1]) for history in histories],
    }


def train_packaged(data: Path, output: Path | None = None, *, name: str = "deeplung-mobile-2",
                   networks: int = NETWORKS, results: Path | None = None,
                   progress: bool = True) -> Path:
    """Train folds of the profile `public`, and write weights and card.

    Those folds are taken that train on most lesion (`richest_folds`); no result has a say.

    Parameters
    ----------
    data
        Folder that holds the cohorts of the profile `public` and `encoders/`.
    output
        Folder of the files; default: `deeplung_nb/weights/`.
    name
        What the network is called wherever it is used.
    networks
        How many folds; their scores are averaged.
    results
        Where the run folder lies: that of `reproduce` with this profile, whose trained folds are
        used as they are. An interrupted training goes on there.

    Returns
    -------
    Path
        The card; it and the weights appear together or not at all.

    Raises
    ------
    ValueError, FileNotFoundError
        Before any training: not so many folds, a cohort or the encoder missing in `data`.
    """
    config = load_profile(PROFILE)
    if not 1 <= networks <= config.n_folds:
        raise ValueError(f"networks {networks}: expected 1 to {config.n_folds}, the folds of the "
                         f"profile {PROFILE!r}")
    if config.pretrained:
        find_encoder(config.pretrained, data)
    run = open_run(config=config, data=data, results=results)
    check_writable(output or WEIGHTS_FOLDER)
    cohorts = load_cohorts(run)
    folds = richest_folds(run, cohorts, networks)
    histories = [train_fold(run, fold, progress)
                 for fold in track(folds, "packaged", "network", shown=progress)]
    output = output or WEIGHTS_FOLDER
    files = [output / f"{name}-{fold}.pt" for fold in folds]
    card = output / CARD
    with atomic_paths(*files, card) as parts:
        for fold, part in zip(folds, parts, strict=False):
            _shrink(run.folder / run.fold_folder(fold) / CHECKPOINT, part)
        hashes = {file.name: sha256_of(part) for file, part in zip(files, parts, strict=False)}
        write_text(parts[-1], json.dumps(
            _describe(run, name, hashes, folds, histories, cohorts), indent=1) + "\n")
    return card
