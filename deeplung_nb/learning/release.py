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
from deeplung_nb.learning.estimate import score_external_slices
from deeplung_nb.learning.experiment import cross_validate, prepared_cases
from deeplung_nb.network.checkpoint import CHECKPOINT, read_checkpoint, save_tensors
from deeplung_nb.network.packaged import CARD, WEIGHTS_FOLDER
from deeplung_nb.network.pretrained import find_encoder
from deeplung_nb.reading.familiarity import describe_scan, training_ranges
from deeplung_nb.runs import Run, open_run, package_versions
from deeplung_nb.runs.config import load_profile
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


def unseen_volumes(measured: pd.DataFrame, slices: pd.DataFrame) -> list[dict[str, Any]]:
    """Any lesion of patients that a network had not seen, by the expert and by it.

    Parameters
    ----------
    measured
        Of `cross_validate`: each volume by the network of its own fold, mL.
    slices
        Of `score_external_slices` by one reader: pixels. Only ratios of both are comparable.
    """
    lesion = measured[(measured["structure"] == "lesion") & (measured["status"] == "ok")]
    wide = lesion.pivot(index=["case_id", "patient_id"], columns="reader", values="volume_ml")
    rows = [{"case_id": str(case), "patient_id": str(patient), "unit": "mL",
             "expert": float(expert), "automatic": float(automatic)}
            for (case, patient), expert, automatic in zip(wide.index, wide["expert"],
                                                          wide["model"], strict=True)]
    some: list[Any] = list(slices[slices["structure"] == "lesion"].itertuples()) \
        if len(slices) else []
    return rows + [{"case_id": str(row.case_id), "patient_id": str(row.patient_id),
                    "unit": "pixels of a slice", "expert": float(row.n_expert),
                    "automatic": float(row.n_found)} for row in some]


def _describe(run: Run, name: str, hashes: dict[str, str], folds: Sequence[int],
              cohorts: list[Cohort], unseen: list[dict[str, Any]]) -> dict[str, Any]:
    registry = read_registry()
    return {
        "name": name, "trained_by": f"python -m deeplung_nb train-packaged, run {run.run_id}",
        "files": [{"file": file, "sha256": sha256, "fold": fold}
                  for (file, sha256), fold in zip(hashes.items(), folds, strict=True)],
        "cohorts": {cohort.name: {"cases": len(cohort.cases("cv")),
                                  **{key: registry[cohort.name][key]
                                     for key in ("licence", "citation")}}
                    for cohort in cohorts if len(cohort.cases("cv"))},
        "training_ranges": _ranges(cohorts), "unseen": unseen,
        "licence": "non-commercial research, as the images that it was trained on",
        "settings": run.config.to_dict(), "software": package_versions(),
    }


def package(run: Run, output: Path, name: str, networks: int = NETWORKS,
            progress: bool = True) -> Path:
    """Write weights and card from a run whose folds are trained; the card.

    Those folds are taken that train on most lesion (`richest_folds`); no result has a say. What
    each fold made of the patients that it never saw, and what is packaged of external slices, goes
    into the card: `segment` says by it between which volumes an expert's likely lies.
    """
    cohorts = load_cohorts(run)
    folds = richest_folds(run, cohorts, networks)
    checkpoints = [run.require(run.fold_folder(fold), CHECKPOINT,
                               made_by="05_cross_validation.ipynb") for fold in folds]
    measured = cross_validate(run, progress)
    files = [output / f"{name}-{fold}.pt" for fold in folds]
    card = output / CARD
    with atomic_paths(*files, card) as parts:
        for path, part in zip(checkpoints, parts, strict=False):
            _shrink(path, part)
        slices = score_external_slices({"together": parts[:-1]}, cohorts, progress)
        unseen = unseen_volumes(measured, slices)
        hashes = {file.name: sha256_of(part) for file, part in zip(files, parts, strict=False)}
        write_text(parts[-1], json.dumps(_describe(run, name, hashes, folds, cohorts, unseen),
                                         indent=1) + "\n")
    return card


def train_packaged(data: Path, output: Path | None = None, *, name: str = "deeplung-mobile-2",
                   networks: int = NETWORKS, results: Path | None = None,
                   progress: bool = True) -> Path:
    """Train the folds of the profile `public`, test them, and write weights and card (`package`).

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
    output = output or WEIGHTS_FOLDER
    check_writable(output)
    cross_validate(run, progress)
    return package(run, output, name, networks, progress)
