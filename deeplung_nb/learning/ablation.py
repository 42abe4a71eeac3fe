"""What each part of the recipe is worth: one part changed at a time, three seeds, unseen patients.

`python -m deeplung_nb ablate --data <folder>` trains them all, resumable. To be affordable on two
cores the trainings are half as long as the recipe's, and all test on the same folds: the spread is
that of the seeds, not of patients (the cross-validation shows that one). Differences count, not
levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from deeplung_nb.cohorts.cases import load_cohorts, load_splits
from deeplung_nb.cohorts.splits import fold_cases
from deeplung_nb.files import atomic_path, write_text
from deeplung_nb.imaging.preprocess import normalise_hu
from deeplung_nb.learning.dataset import PreparedCase
from deeplung_nb.learning.estimate import Unseen, count_overlap
from deeplung_nb.learning.experiment import prepared_cases
from deeplung_nb.learning.train import LAST, train
from deeplung_nb.network.checkpoint import CHECKPOINT, read_checkpoint, save_tensors
from deeplung_nb.reading.predict import Predictor
from deeplung_nb.runs import Run
from deeplung_nb.runs.config import Config, TrainingConfig
from deeplung_nb.runs.progress import track

SEEDS = 3
HELD_OUT = (0, 4)
"""Folds that all variants are tested on: of the six volumes cases 1 and 8, a hard patient and one
that is nearly empty, and two fifths of the slices."""
SHORTER = 0.5
"""Of the recipe's epochs."""
BASE = "main branch alone"
"""What the other variants differ from by one part."""


@dataclass(frozen=True)
class Variant:
    """One training to compare: how its settings differ, and what it begins with."""

    change: Callable[[Config], Config]
    start: str | None = None
    """A variant whose weights, of the same seed, it goes on from."""
    volumes_only: bool = False


def _fit(**changes: object) -> Callable[[Config], Config]:
    return lambda config: replace(config, training=replace(config.training, **changes))


def variants(config: Config) -> dict[str, Variant]:
    """All trainings, base first, in the order in which they can be done."""
    assert config.first is not None

    def shorter(fit: TrainingConfig) -> TrainingConfig:
        return replace(fit, max_epochs=max(1, round(SHORTER * fit.max_epochs)))

    main = replace(config, training=shorter(config.first), first=None,
                   network=replace(config.network, attention=False))
    later = replace(main, training=replace(shorter(config.training), main_branch_loss=0.0))

    def attention(n_neighbours: int) -> Callable[[Config], Config]:
        return lambda _: replace(config, training=shorter(config.training), first=None, network=
                                 replace(config.network, n_neighbours=n_neighbours))

    def only(change: Callable[[Config], Config]) -> Callable[[Config], Config]:
        return lambda _: change(main)

    return {
        BASE: Variant(lambda _: main),
        "without ImageNet weights": Variant(only(lambda c: replace(c, pretrained=None))),
        "with RMI + BCE beside": Variant(only(_fit(region_weight=1.0))),
        "without changes of HU": Variant(only(_fit(hu_gain=0.0, hu_offset=0.0, hu_noise=0.0,
                                                   blur_fraction=0.0))),
        "without isolated slices": Variant(only(_fit(isolated_fraction=None)), volumes_only=True),
        "then as many steps again, no attention": Variant(lambda _: later, start=BASE),
        "then attention branch, 3 slices": Variant(attention(1), start=BASE),
        "then attention branch, 11 slices": Variant(attention(config.network.n_neighbours),
                                                    start=BASE),
        "trunk DenseNet-121, without ImageNet weights": Variant(only(lambda c: replace(
            c, pretrained=None, network=replace(c.network, trunk="densenet121")))),
    }


def _score(predictor: Predictor, hu: np.ndarray, flip: bool = False) -> np.ndarray:
    """Mean scores of a case, [z, class, S, S]; `flip`: averaged with the mirrored case's."""
    prepared = normalise_hu(np.asarray(hu, np.float32))
    scores = np.concatenate([batch.mean(axis=0)
                             for batch in predictor.scores_per_network(prepared)])
    if flip:
        mirrored = _score(predictor, np.ascontiguousarray(hu[..., ::-1]))
        scores = (scores + mirrored[..., ::-1]) / 2
    return scores


def _rows(variant: str, seed: int | None, checkpoints: Sequence[Path], tested: list[tuple],
          threshold: float | None, flip: bool = False) -> Iterator[dict[str, object]]:
    predictor = Predictor.from_checkpoints(checkpoints, batch=8)
    for key, fold, case in tested:
        unseen = Unseen(key, fold, case.source == "slice", _score(predictor, case.hu, flip),
                        np.asarray(case.target))
        for row in count_overlap(unseen, threshold):
            yield {"variant": variant, "seed": seed, **row}


def not_averaged(folder: Path) -> Path:
    """A checkpoint, `not-averaged.pt`, of the weights themselves instead of their average."""
    path = folder / "not-averaged.pt"
    saved = read_checkpoint(folder / CHECKPOINT)
    saved["state"] = torch.load(folder / LAST, map_location="cpu", weights_only=True)["state"]
    with atomic_path(path) as part:
        save_tensors(saved, part)
    return path


def ablate(run: Run, seeds: int = SEEDS, progress: bool = True) -> pd.DataFrame:
    """Train and test all variants, or go on with them.

    Returns
    -------
    DataFrame
        `variant, seed` (empty for the ensemble)`, cohort, case_id, fold, isolated, threshold,
        structure, tp, fp, fn, dice`, in pixels of the network's picture; kept as
        `<run>/ablation/ablation.csv`.
    """
    cohorts = load_cohorts(run)
    splits = load_splits(run, cohorts)
    tested = [(key, fold, case) for fold in HELD_OUT for keys in [fold_cases(splits, fold).test]
              for key, case in zip(keys, prepared_cases(run, cohorts, keys, progress),
                                   strict=True)]
    # In the order of fold 0's cases: the draw of slices depends on it.
    held_out = {key for key, _, _ in tested}
    keys = [key for key in fold_cases(splits, HELD_OUT[0]).train if key not in held_out]
    known = prepared_cases(run, cohorts, keys, progress)
    threshold = run.config.network.lesion_threshold
    todo = variants(run.config)
    jobs = [(name, seed) for name in todo for seed in range(seeds)]
    for name, seed in track(jobs, "ablation", "training", shown=progress):
        csv = _table(run, name, seed)
        if csv.exists():
            continue
        variant, folder = todo[name], _folder(run, name, seed)
        cases: list[PreparedCase] = [case for case in known
                                     if not variant.volumes_only or case.source == "volume"]
        train(cases, [], variant.change(run.config), folder, seed=run.config.seed + 2000 + seed,
              data=run.data, progress=f"{name} {seed}" if progress else False,
              start=variant.start and _folder(run, variant.start, seed) / CHECKPOINT)
        rows = list(_rows(name, seed, [folder / CHECKPOINT], tested, threshold))
        if name == BASE:
            rows += _rows("weights not averaged", seed, [not_averaged(folder)], tested, threshold)
            rows += _rows("flipped picture averaged at test", seed, [folder / CHECKPOINT], tested,
                          threshold, flip=True)
        write_text(csv, pd.DataFrame(rows).to_csv(index=False))
    together = _table(run, "ensemble", 0)
    if not together.exists():
        rows = list(_rows(f"ensemble of {seeds}", None,
                          [_folder(run, BASE, seed) / CHECKPOINT for seed in range(seeds)],
                          tested, threshold))
        write_text(together, pd.DataFrame(rows).to_csv(index=False))
    frame = pd.concat([pd.read_csv(path, dtype={"case_id": str}) for path in
                       [*(_table(run, *job) for job in jobs), together]], ignore_index=True)
    write_text(run.path("ablation", "ablation.csv"), frame.to_csv(index=False))
    return frame


def _folder(run: Run, variant: str, seed: int) -> Path:
    name = "-".join(variant.replace(",", "").replace("+", "and").split()).lower()
    return run.path("ablation", f"{name}-{seed}", CHECKPOINT).parent


def _table(run: Run, variant: str, seed: int) -> Path:
    return _folder(run, variant, seed) / "overlap.csv"


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and SD over the seeds of each variant's Dice: one row a variant, in their order.

    Columns: `variant, n_seeds`, and for `volumes` (mean of cases) and `slices` (mean of slices)
    and each structure `<part>_<structure>` and `<part>_<structure>_sd`.
    """
    by_seed = (frame.assign(part=np.where(frame["isolated"], "slices", "volumes"),
                            seed=frame["seed"].fillna(-1))
               .groupby(["variant", "seed", "part", "structure"], sort=False)["dice"].mean())
    grouped = by_seed.groupby(["variant", "part", "structure"], sort=False)
    rows = []
    for variant in frame["variant"].unique():
        seeds = frame.loc[frame["variant"] == variant, "seed"].nunique()
        row: dict[str, object] = {"variant": variant, "n_seeds": seeds or 1}
        for part in ("volumes", "slices"):
            for structure in frame["structure"].unique():
                values = grouped.get_group((variant, part, structure))
                row[f"{part}_{structure}"] = values.mean()
                row[f"{part}_{structure}_sd"] = values.std(ddof=1)
        rows.append(row)
    return pd.DataFrame(rows)
