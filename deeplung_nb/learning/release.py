"""The network that the package brings: trained once on all public cases, kept as small files.

`python -m deeplung_nb train-packaged --data <folder>` makes `deeplung_nb/weights/` anew. The recipe
is the profile `public`, whose cross-validation is therefore the estimate of this network.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from deeplung_nb.cohorts.cases import find_cases, find_volumes, load_cohorts, read_case
from deeplung_nb.cohorts.manifest import Cohort
from deeplung_nb.cohorts.splits import CaseKey
from deeplung_nb.files import atomic_paths, check_writable, sha256_of, write_text
from deeplung_nb.learning.experiment import prepared_cases
from deeplung_nb.learning.train import train_whole
from deeplung_nb.network.checkpoint import CHECKPOINT, read_checkpoint, save_tensors
from deeplung_nb.network.packaged import CARD, WEIGHTS_FOLDER
from deeplung_nb.network.pretrained import find_encoder
from deeplung_nb.reading.familiarity import describe_scan, training_ranges
from deeplung_nb.runs import Run, open_run, package_versions
from deeplung_nb.runs.config import load_profile
from deeplung_nb.runs.progress import track
from deeplung_nb.runs.registry import read_registry

PROFILE = "public"
SEEDS = 3


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


def _describe(run: Run, name: str, hashes: dict[str, str], histories: list[pd.DataFrame],
              cohorts: list[Cohort]) -> dict[str, Any]:
    registry = read_registry()
    return {
        "name": name, "trained_by": f"python -m deeplung_nb train-packaged, run {run.run_id}",
        "files": [{"file": file, "sha256": sha256} for file, sha256 in hashes.items()],
        "cohorts": {cohort.name: {"cases": len(cohort.cases("cv")),
                                  **{key: registry[cohort.name][key]
                                     for key in ("licence", "citation")}}
                    for cohort in cohorts},
        "training_ranges": _ranges(cohorts),
        "licence": "non-commercial research, as the images that it was trained on",
        "settings": run.config.to_dict(), "software": package_versions(),
        "last_training_loss": [float(history["train_loss"].iloc[-1]) for history in histories],
    }


def train_packaged(data: Path, output: Path | None = None, *, name: str = "deeplung-mobile-1",
                   seeds: int = SEEDS, results: Path | None = None, progress: bool = True) -> Path:
    """Train on every public case, once for each seed, and write weights and card.

    Parameters
    ----------
    data
        Folder that holds the cohorts of the profile `public` and `encoders/`.
    output
        Folder of the files; default: `deeplung_nb/weights/`.
    name
        What the network is called wherever it is used.
    seeds
        Networks; their scores are averaged.
    results
        Where the training's run folder lies; an interrupted training goes on there.

    Returns
    -------
    Path
        The card; it and the weights appear together or not at all.

    Raises
    ------
    ValueError, FileNotFoundError
        Before any training: no network asked for, a cohort or the encoder missing in `data`.
    """
    if seeds < 1:
        raise ValueError(f"seeds {seeds}: expected 1 or more networks")
    recipe, registry = load_profile(PROFILE), read_registry()
    config = replace(recipe, profile="packaged", cohorts=tuple(
        name for name in recipe.cohorts if registry[name]["role"] != "external"))
    if config.pretrained:
        find_encoder(config.pretrained, data)
    run = open_run(config=config, data=data, results=results)
    check_writable(output or WEIGHTS_FOLDER)
    cohorts = load_cohorts(run)
    keys = [CaseKey(cohort.name, row.case_id) for cohort, row in find_cases(cohorts, "cv")]
    cases = prepared_cases(run, cohorts, keys, progress)
    histories, checkpoints = [], []
    for seed in track(range(seeds), "packaged", "network", shown=progress):
        folder = run.path(f"seed-{seed}", CHECKPOINT).parent
        # Away from the seeds of the folds: each of these is a network of its own.
        histories.append(train_whole(cases, [], config, folder, seed=config.seed + 1000 + seed,
                                     data=run.data, progress=progress))
        checkpoints.append(folder / CHECKPOINT)
    output = output or WEIGHTS_FOLDER
    files = [output / f"{name}-{seed}.pt" for seed in range(seeds)]
    card = output / CARD
    with atomic_paths(*files, card) as parts:
        for source, part in zip(checkpoints, parts, strict=False):
            _shrink(source, part)
        hashes = {file.name: sha256_of(part) for file, part in zip(files, parts, strict=False)}
        write_text(parts[-1], json.dumps(_describe(run, name, hashes, histories, cohorts), indent=1)
                   + "\n")
    return card
