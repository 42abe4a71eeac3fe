"""Windows of slices for training: prepared once, kept on disk, cut out and augmented on the fly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from deeplung_nb.config import TrainingConfig
from deeplung_nb.files import atomic_path
from deeplung_nb.imaging.preprocess import HU_WINDOW, prepare_mask, to_model_grid, window_indices
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.labels import HIGH_OPACITY, LABELS


@dataclass(frozen=True)
class PreparedCase:
    """One case on the network's grid: `hu` int16 and `target` uint8 class codes, [z, S, S]."""

    case_id: str
    hu: np.ndarray
    target: np.ndarray


def prepare_case(scan: Scan, mask: LesionMask, size: int) -> PreparedCase:
    """A scan and its mask on the network's grid (HU rounded to whole numbers)."""
    hu, box = to_model_grid(scan, size)
    target = prepare_mask(mask, box, size).argmax(axis=1).astype(np.uint8)
    return PreparedCase(scan.case_id, np.rint(hu).astype(np.int16), target)


def write_prepared(case: PreparedCase, folder: Path) -> None:
    """Keep a prepared case in its cohort's folder; `read_prepared` maps it without loading it."""
    for name, array in (("target", case.target), ("hu", case.hu)):
        with atomic_path(folder / f"{case.case_id}.{name}.npy") as part, part.open("wb") as stream:
            np.save(stream, array)


def read_prepared(case_id: str, folder: Path) -> PreparedCase | None:
    """A kept case of a cohort, or None where there is none."""
    paths = [folder / f"{case_id}.{name}.npy" for name in ("hu", "target")]
    if not all(path.exists() for path in paths):
        return None
    return PreparedCase(case_id, *(np.load(path, mmap_mode="r") for path in paths))


def normalise(hu: Tensor) -> Tensor:
    """Clip HU to the window and map it to [0, 1]."""
    low, high = HU_WINDOW
    return (hu.clamp(low, high) - low) / (high - low)


def one_hot(target: Tensor) -> Tensor:
    """Class codes (B, Y, X) to float32 (B, class, Y, X)."""
    return functional.one_hot(target.long(), len(LABELS)).permute(0, 3, 1, 2).float()


def random_affine(n: int, size: int, config: TrainingConfig, rng: np.random.Generator) -> Tensor:
    """Matrices (n, 2, 3) for `affine_grid`: rotation, scale, then translation, uniform."""
    angle = np.deg2rad(rng.uniform(-config.rotation_degrees, config.rotation_degrees, n))
    scale = rng.uniform(*config.scale_range, n)
    # affine_grid asks where an output pixel comes from, in half-widths: hence the inverse map.
    shift = rng.uniform(-config.translation_pixels, config.translation_pixels, (n, 2)) * 2 / size
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    rows = np.stack([
        np.stack([cos, sin, -(cos * shift[:, 0] + sin * shift[:, 1])], axis=1),
        np.stack([-sin, cos, -(-sin * shift[:, 0] + cos * shift[:, 1])], axis=1),
    ], axis=1)
    return torch.from_numpy(rows.astype(np.float32))


def augment(
    hu: Tensor, target: Tensor, config: TrainingConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """The same random rotation, translation and scale for all slices of a window and its target.

    Parameters
    ----------
    hu
        (B, n_slices, Y, X), HU; what comes in from beyond the image is air, -1024 HU.
    target
        (B, n_scored, Y, X), class codes; background comes in.
    """
    theta = random_affine(len(hu), hu.shape[-1], config, rng)
    grid = functional.affine_grid(theta, list(hu.shape), align_corners=False)
    air = HU_WINDOW[0]
    moved = functional.grid_sample(hu - air, grid, mode="bilinear", align_corners=False) + air
    moved_target = functional.grid_sample(
        target.float(), grid, mode="nearest", align_corners=False
    )
    return moved, moved_target.to(target.dtype)


class SliceSampler:
    """Which slices make the batches of an epoch: a function of (seed, epoch) alone.

    So that a resumed training draws what the uninterrupted one would have drawn.
    """

    def __init__(self, cases: Sequence[PreparedCase], config: TrainingConfig, seed: int) -> None:
        if not cases:
            raise ValueError("no case to train on: check the splits file and the column 'exclude'")
        self.cases, self.config, self.seed = list(cases), config, seed
        self.every = [(i, z) for i, case in enumerate(cases) for z in range(len(case.hu))]
        self.healthy = [pick for pick in self.every if not self._target(pick).any()]
        self.high_opacity = [pick for pick in self.every
                             if (self._target(pick) == HIGH_OPACITY.code).any()]
        other = set(self.healthy) | set(self.high_opacity)
        self.ggo_only = [pick for pick in self.every if pick not in other]

    def _target(self, pick: tuple[int, int]) -> np.ndarray:
        return self.cases[pick[0]].target[pick[1]]

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return self.config.steps_per_epoch or -(-len(self.every) // self.config.batch_slices)

    def batches(self, epoch: int) -> Iterator[tuple[list[tuple[int, int]], np.random.Generator]]:
        """Batches of (case number, slice), each with a generator for its augmentation."""
        rng = np.random.default_rng([self.seed, epoch])
        n, batch = self.steps, self.config.batch_slices
        share = self.config.lesion_fraction
        quota = [(self.every, batch)]
        if share is not None:
            n_lesion = round(share * batch)
            n_high = n_lesion // 2
            quota = [(self.high_opacity, n_high), (self.ggo_only, n_lesion - n_high),
                     (self.healthy, batch - n_lesion)]
            if not all(pool for pool, n_drawn in quota if n_drawn):
                quota = [(self.every, batch)]
        drawn = [self._draw(pool, n * n_drawn, rng) for pool, n_drawn in quota]
        for k in range(n):
            yield [pick for picks, (_, n_drawn) in zip(drawn, quota, strict=True)
                   for pick in picks[k * n_drawn:(k + 1) * n_drawn]], rng

    @staticmethod
    def _draw(
        pool: list[tuple[int, int]], n: int, rng: np.random.Generator
    ) -> list[tuple[int, int]]:
        """`n` from the pool, each as often as any other, give or take one."""
        order: list[int] = []
        while len(order) < n:
            order.extend(rng.permutation(len(pool)).tolist())
        return [pool[k] for k in order[:n]]


def cut_windows(
    cases: Sequence[PreparedCase], picks: Sequence[tuple[int, int]], sees: range, scores: range
) -> tuple[Tensor, Tensor]:
    """Windows around (case, slice) picks: what a network sees, and the targets of what it scores.

    Returns
    -------
    (hu, target)
        (B, len(sees), Y, X) float32 HU, and (B, len(scores), Y, X) uint8 class codes.
    """
    hu = np.stack([cases[i].hu[window_indices(z, len(cases[i].hu), sees)] for i, z in picks])
    target = np.stack([
        cases[i].target[window_indices(z, len(cases[i].target), scores)] for i, z in picks
    ])
    return torch.from_numpy(hu.astype(np.float32)), torch.from_numpy(target)
