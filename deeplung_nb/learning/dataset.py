"""Windows of slices for training: prepared once, kept on disk, cut out and augmented on the fly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from deeplung_nb.files import atomic_path
from deeplung_nb.imaging.lungs import LungMask
from deeplung_nb.imaging.preprocess import (
    HU_WINDOW,
    prepare_mask,
    resize_matrix,
    to_model_grid,
    window_indices,
)
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.labels import GGO, HIGH_OPACITY, LABELS, NO_ANSWER
from deeplung_nb.runs.config import TrainingConfig

AERATED_HU = -850.0
"""Of healthy lung: contrast is changed about it."""
BLUR_PIXELS = (0.5, 1.2)
SHARPEN_BY = (0.3, 1.5)
LESION_CODES = (GGO.code, HIGH_OPACITY.code)
SOURCES = ("volume", "slice")
"""Where a prepared case is from: see `PreparedCase.source`."""


@dataclass(frozen=True)
class PreparedCase:
    """One case on the network's grid: `hu` int16 and `target` uint8 class codes, [z, S, S].

    `target` may hold `labels.NO_ANSWER`; `lungs` is bool [z, S, S], where they are needed.
    """

    LUNGS = {True: "lungs", False: "found-lungs"}
    """Names of their kept files: marked by a reader, or found by threshold."""

    case_id: str
    hu: np.ndarray
    target: np.ndarray
    source: str = "volume"
    """`volume`; `slice`: its slices are no neighbours of each other."""
    lungs: np.ndarray | None = None
    lungs_marked: bool = False
    """Whether a reader has marked them, so that they can be taught."""


def prepare_case(scan: Scan, mask: LesionMask, size: int,
                 lungs: LungMask | None = None) -> PreparedCase:
    """A scan and its mask on the network's grid (HU rounded to whole numbers)."""
    hu, box = to_model_grid(scan, size)
    target = prepare_mask(mask, box, size).argmax(axis=1).astype(np.uint8)
    inside = None
    if lungs is not None:
        whole = LesionMask.like(scan, lungs.mask.astype(np.uint8))
        inside = prepare_mask(whole, box, size)[:, 1] > 0.5
    return PreparedCase(scan.case_id, np.rint(hu).astype(np.int16), target, lungs=inside,
                        lungs_marked=_is_marked(lungs))


def _is_marked(lungs: LungMask | None) -> bool:
    return lungs is not None and lungs.origin == "reference"


def on_picture(slices: np.ndarray, size: int, longest_share: float,
               fill: float = HU_WINDOW[0]) -> tuple[np.ndarray, tuple[slice, slice]]:
    """Cropped slices [z, Y, X] in the middle of the network's picture, `fill` around them.

    Their longest side takes `longest_share` of the picture.

    Returns
    -------
    (pictures, inside)
        float32 [z, size, size], and where the slices lie in a picture.
    """
    rows, columns = slices.shape[1:]
    scale = longest_share * size / max(rows, columns)
    shape = (max(1, round(rows * scale)), max(1, round(columns * scale)))
    down, across = resize_matrix(rows, shape[0]), resize_matrix(columns, shape[1]).T
    top, left = ((size - n) // 2 for n in shape)
    inside = np.s_[top:top + shape[0], left:left + shape[1]]
    pictures = np.full((len(slices), size, size), fill, np.float32)
    for picture, values in zip(pictures, slices, strict=True):
        picture[inside] = down @ values.astype(np.float32) @ across
    return pictures, inside


def prepare_slice(scan: Scan, mask: LesionMask, size: int, longest_share: float,
                  lungs: LungMask | None = None) -> PreparedCase:
    """An isolated slice in the middle of the network's picture, air around it.

    Its longest side takes `longest_share` of the picture. What is padded is background: the network
    meets padded air in every scan whose box reaches beyond the image, and nothing there is lesion.
    """
    hu, inside = on_picture(scan.hu, size, longest_share)
    shares = [on_picture(mask.labels == label.code, size, longest_share, fill=0.0)[0]
              for label in LABELS]
    target = np.zeros(hu.shape, np.uint8)
    target[:, *inside] = np.argmax(shares, axis=0)[:, *inside]
    where = None if lungs is None else \
        on_picture(lungs.mask, size, longest_share, fill=0.0)[0] > 0.5
    return PreparedCase(scan.case_id, np.rint(hu).astype(np.int16), target, "slice", where,
                        _is_marked(lungs))


def write_prepared(case: PreparedCase, folder: Path) -> None:
    """Keep a prepared case in its cohort's folder; `read_prepared` maps it without loading it."""
    arrays = {PreparedCase.LUNGS[case.lungs_marked]: case.lungs, "target": case.target,
              "hu": case.hu}
    for name, array in arrays.items():
        if array is None:
            continue
        with atomic_path(folder / f"{case.case_id}.{name}.npy") as part, part.open("wb") as stream:
            np.save(stream, array)


def read_prepared(case_id: str, folder: Path, source: str = "volume") -> PreparedCase | None:
    """A kept case of a cohort, or None where there is none."""
    marked, found = PreparedCase.LUNGS[True], PreparedCase.LUNGS[False]
    paths = {name: folder / f"{case_id}.{name}.npy" for name in ("hu", "target", marked, found)}
    there = {name: np.load(path, mmap_mode="r") for name, path in paths.items() if path.exists()}
    if not {"hu", "target"} <= there.keys():
        return None
    return PreparedCase(case_id, there["hu"], there["target"], source,
                        there.get(marked, there.get(found)), marked in there)


def normalise(hu: Tensor) -> Tensor:
    """Clip HU to the window and map it to [0, 1]."""
    low, high = HU_WINDOW
    return (hu.clamp(low, high) - low) / (high - low)


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
    hu: Tensor, target: Tensor, config: TrainingConfig, rng: np.random.Generator,
    rows: np.ndarray | None = None,
) -> tuple[Tensor, Tensor]:
    """Move each window as a whole, with its target; then change its HU, as the settings say.

    Rotation, translation, scale and flip are the same for all slices of a window, as are the
    change of contrast and offset, the amount of noise and the blur.

    Parameters
    ----------
    hu
        (B, n_slices, Y, X), HU; what comes in from beyond the image is air, -1024 HU.
    target
        (B, n_scored, Y, X), class codes; background comes in.
    rows
        Windows that are wanted, each as it would be among all; None: all of them.
    """
    n, rows = len(hu), np.arange(len(hu)) if rows is None else rows
    theta = random_affine(n, hu.shape[-1], config, rng)
    if config.flip:
        mirrored = torch.from_numpy(rng.random(n) < 0.5)
        theta[mirrored, :, 0] *= -1.0
    if len(rows) < n:
        hu, target, theta = hu[rows], target[rows], theta[rows]
    grid = functional.affine_grid(theta, list(hu.shape), align_corners=False)
    air = HU_WINDOW[0]
    moved = functional.grid_sample(hu - air, grid, mode="bilinear", align_corners=False) + air
    moved_target = functional.grid_sample(
        target.float(), grid, mode="nearest", align_corners=False
    )
    return change_hu(moved, config, rng, n, rows), moved_target.to(target.dtype)


def _gaussian(sigma: float) -> Tensor:
    """Along a row: (1, 1, 1, 7), its sum 1."""
    kernel = torch.exp(-0.5 * (torch.arange(-3.0, 4.0) / sigma) ** 2)
    return (kernel / kernel.sum()).view(1, 1, 1, -1)


def change_hu(hu: Tensor, config: TrainingConfig, rng: np.random.Generator,
              n: int | None = None, rows: np.ndarray | None = None) -> Tensor:
    """Contrast, offset, kernel and noise of another scanner; (B, n_slices, Y, X), HU.

    The windows may be these `rows` of `n`, for all of which is drawn.
    """
    n = len(hu) if n is None else n
    rows = np.arange(n) if rows is None else rows

    def draw(most: float) -> Tensor:
        drawn = rng.uniform(-most, most, (n, 1, 1, 1)).astype(np.float32)
        return torch.from_numpy(drawn[rows])

    if config.hu_gain > 0.0:
        hu = AERATED_HU + (hu - AERATED_HU) * (1.0 + draw(config.hu_gain))
    if config.hu_offset > 0.0:
        hu = hu + draw(config.hu_offset)
    if config.blur_fraction > 0.0:
        sigmas = rng.uniform(*BLUR_PIXELS, n)
        blurred = rng.random(n) < config.blur_fraction
        for k in np.flatnonzero(blurred[rows]):
            kernel = _gaussian(float(sigmas[rows[k]]))
            one = functional.conv2d(hu[k].unsqueeze(1), kernel, padding=(0, 3))
            hu = hu.index_copy(0, torch.tensor([int(k)]), functional.conv2d(
                one, kernel.transpose(2, 3), padding=(3, 0)).transpose(0, 1))
    if config.sharpen_fraction > 0.0:
        sigmas, by = rng.uniform(*BLUR_PIXELS, n), rng.uniform(*SHARPEN_BY, n)
        sharpened = rng.random(n) < config.sharpen_fraction
        for k in np.flatnonzero(sharpened[rows]):
            kernel, one = _gaussian(float(sigmas[rows[k]])), hu[k].unsqueeze(1)
            soft = functional.conv2d(functional.pad(one, (3, 3, 3, 3), mode="replicate"), kernel)
            detail = one - functional.conv2d(soft, kernel.transpose(2, 3))
            hu = hu.index_copy(0, torch.tensor([int(k)]),
                               (one + float(by[rows[k]]) * detail).transpose(0, 1))
    if config.hu_noise > 0.0:
        amount = draw(config.hu_noise).abs()
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        noise = torch.randn((n, *hu.shape[1:]), generator=generator)
        hu = hu + amount * (noise if len(rows) == n else noise[rows])
    return hu


class Pools(NamedTuple):
    """(case number, slice) of all slices of a source, and by what is on them."""

    every: list[tuple[int, int]]
    healthy: list[tuple[int, int]]
    high_opacity: list[tuple[int, int]]
    ggo_only: list[tuple[int, int]]


class SliceSampler:
    """Which slices make the batches of an epoch: a function of (seed, epoch) alone.

    So that a resumed training draws what the uninterrupted one would have drawn.
    """

    def __init__(self, cases: Sequence[PreparedCase], config: TrainingConfig, seed: int) -> None:
        if not cases:
            raise ValueError("no case to train on: check the splits file and the column 'exclude'")
        self.cases, self.config, self.seed = list(cases), config, seed
        self.every = [(i, z) for i, case in enumerate(cases) for z in range(len(case.hu))]
        if config.made_fraction > 0.0 and all(case.lungs is None for case in cases):
            raise ValueError(f"made_fraction {config.made_fraction}: the lungs of no training case "
                             "are known, and disease is made in lungs. Name lung masks in the "
                             "manifest, or set it to 0")
        share = config.isolated_fraction
        parts = [(1.0, set(SOURCES))] if share is None else \
            [(1.0 - share, {"volume"}), (share, {"slice"})]
        self.sources = []
        for share, sources in parts:
            picks = [pick for pick in self.every if cases[pick[0]].source in sources]
            if share > 0.0 and not picks:
                raise ValueError(
                    f"isolated_fraction {config.isolated_fraction}: the training cases hold no "
                    f"slices of source {' or '.join(sorted(sources))}. Add a cohort of them, or "
                    "leave it out")
            if share > 0.0:
                self.sources.append((share, self._pools(picks)))

    def _pools(self, picks: list[tuple[int, int]]) -> Pools:
        healthy, high, ggo_only = [], [], []
        for pick in picks:
            target = self._target(pick)
            if (target == HIGH_OPACITY.code).any():
                high.append(pick)
            elif (target == GGO.code).any():
                ggo_only.append(pick)
            else:
                healthy.append(pick)
        return Pools(picks, healthy, high, ggo_only)

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
        quota = []
        left = batch
        for share, pools in self.sources[::-1]:  # the rest of a batch is the first source's
            size = left if pools is self.sources[0][1] else round(share * batch)
            left -= size
            quota = self._quota(pools, size) + quota
        drawn = [self._draw(pool, n * n_drawn, rng) for pool, n_drawn in quota]
        for k in range(n):
            yield [pick for picks, (_, n_drawn) in zip(drawn, quota, strict=True)
                   for pick in picks[k * n_drawn:(k + 1) * n_drawn]], rng

    def _quota(self, pools: Pools, size: int) -> list[tuple[list[tuple[int, int]], int]]:
        """How many of `size` slices come from which pool."""
        share = self.config.lesion_fraction
        if share is None:
            return [(pools.every, size)]
        n_lesion = round(share * size)
        n_high = n_lesion // 2
        quota = [(pools.high_opacity, n_high), (pools.ggo_only, n_lesion - n_high),
                 (pools.healthy, size - n_lesion)]
        if not all(pool for pool, n_drawn in quota if n_drawn):
            return [(pools.every, size)]
        return quota

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


def cut_lungs(cases: Sequence[PreparedCase], picks: Sequence[tuple[int, int]],
              scores: range) -> Tensor:
    """The lungs of scored slices, as `cut_windows`' target: 1 in them, 0 outside, `NO_ANSWER`.

    Where no reader has marked them, lung is what holds a lesion or was found by threshold, which
    may have lost some: of all else there is no answer.
    """
    rows = []
    for i, z in picks:
        case = cases[i]
        at = window_indices(z, len(case.target), scores)
        inside = np.zeros((len(at), *case.target.shape[1:]), bool) if case.lungs is None \
            else case.lungs[at].astype(bool)
        if case.lungs_marked:
            rows.append(inside.astype(np.uint8))
        else:
            lesion = np.isin(case.target[at], LESION_CODES)
            rows.append(np.where(inside | lesion, 1, NO_ANSWER).astype(np.uint8))
    return torch.from_numpy(np.stack(rows))
