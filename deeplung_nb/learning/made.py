"""Disease made in windows of training: the dense disease that few experts have marked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from deeplung_nb.imaging.made_disease import MadeLesion, make_disease
from deeplung_nb.imaging.preprocess import window_indices
from deeplung_nb.learning.dataset import PreparedCase
from deeplung_nb.runs.config import TrainingConfig

SLICE_MM, PICTURE_MM = 5.0, 384.0
"""About those of the network's grid, whatever the scan: bodies fill the picture."""
LEAST_LUNG = 0.01
"""Share of lung in the picture of the scored slice below which none is made there."""
KINDS = {"dependent": 0.4, "patch": 0.25, "lobules": 0.2, "crescent": 0.15}
"""How often each kind is drawn."""


def random_lesion(dense: bool, rng: np.random.Generator) -> MadeLesion:
    """High opacity (`dense`) or ground glass, of any kind and size."""
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    side = str(rng.choice(["both", "left", "right"])) if kind == "dependent" else "both"
    share = float(rng.uniform(0.04, 0.5) if kind == "dependent" else rng.uniform(0.01, 0.25))
    seed = int(rng.integers(2**31))
    if dense:
        hu = rng.uniform(-30.0, 65.0) if kind == "dependent" else rng.uniform(-250.0, 70.0)
        texture = "bronchograms" if rng.random() < 0.35 else "plain"
        return MadeLesion(kind, share, float(hu), float(rng.uniform(0.85, 1.0)), side, texture,
                          seed)
    texture = "net" if rng.random() < 0.25 else "plain"
    return MadeLesion(kind, share, float(rng.uniform(-640.0, -320.0)),
                      float(rng.uniform(0.5, 0.9)), side, texture, seed)


def make_in_windows(
    hu: Tensor, target: Tensor, cases: Sequence[PreparedCase], picks: Sequence[tuple[int, int]],
    sees: range, scores: range, config: TrainingConfig, rng: np.random.Generator,
) -> None:
    """Make disease in some of the windows, in place.

    Parameters
    ----------
    hu, target
        As `dataset.cut_windows` gives them for these cases, picks and ranges.
    config
        `made_fraction` of the windows, `made_dense` of these with high opacity.
    """
    pixel_mm = PICTURE_MM / hu.shape[-1]
    for k, (i, z) in enumerate(picks):
        case = cases[i]
        chosen, dense = rng.random() < config.made_fraction, rng.random() < config.made_dense
        if not chosen or case.lungs is None:
            continue
        seen = window_indices(z, len(case.hu), sees)
        lungs = case.lungs[seen].astype(bool)
        if np.mean(case.lungs[z]) < LEAST_LUNG:
            continue
        if case.source == "slice":  # the same slice eleven times: the lesion goes through all
            lungs = lungs[:1]
        made, labels = make_disease(
            hu[k, :len(lungs)].numpy(), np.array(case.target[seen[:len(lungs)]]), lungs,
            (SLICE_MM, pixel_mm, pixel_mm), random_lesion(dense, rng))
        hu[k] = torch.from_numpy(np.broadcast_to(made, hu[k].shape).copy())
        scored = [sees.index(at) if len(lungs) > 1 else 0 for at in scores]
        target[k] = torch.from_numpy(labels[scored])
