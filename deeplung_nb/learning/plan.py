"""How much work a run is, for the progress bar: units, and seconds as measured once.

The seconds are those of two cores of a server processor; another machine differs by a factor, which
the bar finds out as it goes.
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from deeplung_nb.cohorts.cases import find_volumes, load_splits
from deeplung_nb.cohorts.manifest import Cohort
from deeplung_nb.cohorts.splits import fold_cases
from deeplung_nb.network.baselines import SLAB
from deeplung_nb.network.deeplung import DeepLungNet
from deeplung_nb.runs import Run
from deeplung_nb.runs.config import Config

TRAIN_SECONDS_PER_PIXEL = {"unet2d": 1.6e-6, "unet3d": 1.8e-6}
"""Of a slice in a training step: a U-Net at width 16 (2-D) and 4 (3-D)."""
TRUNK_SECONDS_PER_PIXEL = {"densenet121": {1: 4.2e-6, 2: 9.0e-6}, "mobilenet_v2": {2: 2.3e-6}}
"""Ours, by trunk and dense blocks; MobileNetV2's with the attention branch, a fifth without it."""
ALONE = 0.2
SCORE_SECONDS_PER_PIXEL = 1.3e-6
MEASURE_SECONDS_PER_SLICE = 0.02
"""At 64 pixels: reading, restoring, surface distances."""
BENCHMARK_SECONDS = 8.0
"""At 64 pixels."""
NOTEBOOK_SECONDS = 4.0
"""What a notebook takes besides."""


def _train_seconds(config: Config, name: str) -> float:
    """Of one step."""
    pixels = config.network.image_size ** 2
    if name == DeepLungNet.name:
        per_pixel = TRUNK_SECONDS_PER_PIXEL[config.network.trunk]
        of_blocks = per_pixel.get(config.network.dense_blocks, max(per_pixel.values()))
        return config.training.batch_slices * pixels * of_blocks
    per_pixel = TRAIN_SECONDS_PER_PIXEL[name]
    unet = next(unet for unet in config.baselines if unet.name == name)
    n_slices = config.training.batch_slices
    if name == "unet3d":
        n_slices = max(n_slices // SLAB, 1) * SLAB
    return n_slices * pixels * per_pixel * (unet.width / (16 if name == "unet2d" else 4)) ** 1.5


def _mean_slices(cohorts: list[Cohort], role: str) -> tuple[int, float]:
    """Cases of a role, and slices of one of them."""
    counts = [40.0 if pd.isna(row.n_slices) else float(row.n_slices)
              for _, row in find_volumes(cohorts, role)]
    return len(counts), sum(counts) / max(len(counts), 1)


def plan_run(run: Run, cohorts: list[Cohort]) -> dict[str, tuple[int, float]]:
    """Label of each work -> (units, seconds of a unit), as `progress.Overview` takes it."""
    config, fit = run.config, run.config.training
    pixels = config.network.image_size ** 2
    coarse = pixels / 64**2
    splits = load_splits(run, cohorts)
    plan: dict[str, tuple[int, float]] = {}
    epochs = {DeepLungNet.name: fit.max_epochs,
              **{unet.name: unet.max_epochs or fit.max_epochs for unet in config.baselines}}
    for name, n_epochs in epochs.items():
        for fold in range(config.n_folds):
            every = len(fold_cases(splits, fold).train) * _mean_slices(cohorts, "cv")[1]
            steps = fit.steps_per_epoch or max(1, round(every / fit.batch_slices))
            plan[f"train {name} fold-{fold}"] = (n_epochs * steps, _train_seconds(config, name))
            if config.first is not None and name == DeepLungNet.name:
                alone = replace(config, training=config.first)
                plan[f"train {name} fold-{fold} main"] = (
                    config.first.max_epochs * (config.first.steps_per_epoch or steps),
                    ALONE * _train_seconds(alone, name))
    for role, n_networks in (("cv", len(epochs)), ("external", config.n_folds)):
        n_cases, n_slices = _mean_slices(cohorts, role)
        plan[f"measure {role}"] = (n_cases, n_slices * (
            n_networks * pixels * SCORE_SECONDS_PER_PIXEL + MEASURE_SECONDS_PER_SLICE * coarse))
    plan["benchmark"] = (1, BENCHMARK_SECONDS * coarse)
    return plan
