"""What a chest shows whatever ails its lungs: outline, spine, windpipe, ribs.

Disease whitens lungs, and then their shape tells nothing of how a scan lies. The signs here are
read from what it leaves alone. All are computed on the grid of `body.coarse_hu`, [z, y, x] from
foot to head, front to back, right to left. What they are in eight real chests and two phantoms,
healthy and with disease drawn in, stands in docs/anatomy.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from deeplung_nb.imaging.body import coarse_hu, find_body
from deeplung_nb.imaging.scan import Scan

BONE_ABOVE_HU = 180.0
SKIN_MM = 8.0
"""What is dense so close to the skin is no bone (a table, a wire, an arm that touches)."""
RIB_REACH_MM = 15.0
"""Ribs run obliquely: within so much above and below, one closes the gap to the next."""
CHEST_WALL_MM = 5.0
"""Pleura and muscle between lung and rib."""
LEAST_GAP_MM = 20.0
"""So much that is dense between lung and ribs is neither."""
BESIDE_SPINE_MM = 40.0
"""On each side of the midline, where spine and heart lie behind the lungs."""
SIDES = 0.6, 0.85
"""A lung below the first share of the other is judged to miss what it lacks to the second: left
over right is 0.78 to 1.07 in docs/anatomy.md."""
AIRWAY_BELOW_HU = -700.0
AIRWAY_MM2 = (60.0, 900.0)
AIRWAY_FROM_MIDDLE_MM = (60.0, 40.0)
"""Along and across the body: how far the windpipe may lie from its middle."""
AIRWAY_SEARCH_MM = 80.0
"""How far from the end of the scan the windpipe may begin."""


@dataclass(frozen=True, eq=False)
class Chest:
    """A scan on a coarse grid.

    Attributes
    ----------
    hu
        float32 [z, y, x].
    voxel_mm
        Its (dz, dy, dx).
    """

    hu: np.ndarray
    voxel_mm: tuple[float, float, float]

    @classmethod
    def of(cls, scan: Scan) -> Chest:
        """That of a scan."""
        hu, pixel_mm = coarse_hu(scan)
        return cls(hu, (scan.spacing_mm[0], *pixel_mm))

    @cached_property
    def body(self) -> np.ndarray:
        """bool [z, y, x], see `body.find_body`."""
        return find_body(self.hu, self.voxel_mm[1:])

    @cached_property
    def within(self) -> np.ndarray:
        """The body without its skin, bool [z, y, x]."""
        steps = max(1, round(SKIN_MM / max(self.voxel_mm[1:])))
        return np.stack([ndimage.binary_erosion(one, iterations=steps) for one in self.body])

    def part(self, slices: slice) -> Chest:
        """Some of its slices: of a whole body, those of the lungs."""
        return Chest(self.hu[slices], self.voxel_mm)

    @cached_property
    def bone_above_hu(self) -> float:
        """`BONE_ABOVE_HU`, or the highest per cent of a scan whose values end below it."""
        if not self.within.any():
            return BONE_ABOVE_HU
        return min(BONE_ABOVE_HU, float(np.percentile(self.hu[self.within], 99)) - 1.0)

    @property
    def middle(self) -> tuple[float, float]:
        """Row and column of the body's centre."""
        found = self.body.sum(axis=0)
        if not found.any():
            return tuple((n - 1) / 2.0 for n in found.shape)
        return tuple(float((found.sum(axis=1 - axis) * np.arange(n)).sum() / found.sum())
                     for axis, n in enumerate(found.shape))

    def coarse(self, mask: np.ndarray) -> np.ndarray:
        """A mask of the scan's own grid on this one (nearest), bool [z, y, x]."""
        rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int)
                         for n, m in zip(self.hu.shape[1:], mask.shape[1:], strict=True))
        return mask[:, rows][:, :, columns]


def width_over_depth(chest: Chest) -> float | None:
    """Median over the slices of the body's width over its depth: 1.2 to 1.6."""
    ratios = []
    for body in chest.body:
        rows, columns = np.flatnonzero(body.any(axis=1)), np.flatnonzero(body.any(axis=0))
        if len(rows):
            ratios.append((np.ptp(columns) + 1) * chest.voxel_mm[2]
                          / ((np.ptp(rows) + 1) * chest.voxel_mm[1]))
    return float(np.median(ratios)) if ratios else None


def spine_behind(chest: Chest) -> float | None:
    """How far the spine lies behind the body's middle, as a share of its depth; None if unseen.

    The spine is where every part of the height is dense at one place (a heart full of contrast
    medium is not); -0.5 is the front, 0.5 the back.
    """
    dense = min(200.0, float(np.percentile(chest.hu[:, ::2, ::2], 99.5)) - 1.0)
    parts = np.array_split((chest.hu > dense) & chest.within, min(4, len(chest.hu)))
    share = np.min([ndimage.gaussian_filter(part.mean(axis=0), 8.0 / chest.voxel_mm[1])
                    for part in parts], axis=0)
    rows = np.flatnonzero((chest.body.mean(axis=0) > 0.5).any(axis=1))
    if not share.any() or len(rows) < 2:
        return None
    row = np.unravel_index(share.argmax(), share.shape)[0]
    return float((row - (rows[0] + rows[-1]) / 2.0) / np.ptp(rows))


def _airway_mm(chest: Chest, order: Iterable[int]) -> float:
    """How far a windpipe can be followed, from slice to slice in this order."""
    gap, row_mm, column_mm = chest.voxel_mm
    middle_y, middle_x = chest.middle
    most_y, most_x = AIRWAY_FROM_MIDDLE_MM
    previous, n_found = None, 0
    for n_seen, z in enumerate(order):
        parts, n = ndimage.label(chest.body[z] & (chest.hu[z] < AIRWAY_BELOW_HU))
        sizes = np.bincount(parts.ravel(), minlength=n + 1)[1:] * row_mm * column_mm
        found = np.zeros(parts.shape, bool)
        for part in np.flatnonzero((sizes > AIRWAY_MM2[0]) & (sizes < AIRWAY_MM2[1])) + 1:
            here = parts == part
            y, x = ndimage.center_of_mass(here)
            if (abs(y - middle_y) * row_mm < most_y and abs(x - middle_x) * column_mm < most_x
                    and (previous is None or (here & previous).any())):
                found |= here
        if found.any():
            n_found += 1
            previous = ndimage.binary_dilation(found, iterations=2)
        elif previous is not None or n_seen * gap > AIRWAY_SEARCH_MM:
            break
    return n_found * gap


def airway_from_ends_mm(chest: Chest) -> tuple[float, float]:
    """How far a windpipe can be followed from the top and from the bottom of the scan.

    From the top of a chest 50 mm and more, from the bottom 20 at most.
    """
    slices = range(len(chest.hu))
    return _airway_mm(chest, reversed(slices)), _airway_mm(chest, slices)


def _gap(lung: np.ndarray, bone: np.ndarray, row_mm: float) -> np.ndarray:
    """Below the last lung of each column and before the first bone, where wide; bool [y, x]."""
    n = len(lung)
    rows = np.arange(n)[:, None]
    last = np.where(lung.any(axis=0), n - 1 - lung[::-1].argmax(axis=0), n)
    behind = bone & (rows > last)
    first = np.where(behind.any(axis=0), behind.argmax(axis=0), 0)
    wide = (first - last - 1) * row_mm > LEAST_GAP_MM
    return wide & (rows > last) & (rows < first - CHEST_WALL_MM / row_mm)


def missing_lung_ml(chest: Chest, lungs: np.ndarray) -> float:
    """How much of the chest cavity should be lung, and is not in the mask: a lower bound, mL.

    Where values end below those of bone, muscle is taken for ribs, and it is a rough estimate.

    Two signs: between the lung and the ribs behind it or beside it lies what is neither, as
    consolidation and effusion do; one lung is much smaller than the other. Chests as they are have
    up to 60 mL of it, 241 where the estimate is rough. What is missing in front, at the top or at
    the base is not seen.

    Parameters
    ----------
    lungs
        bool [z, y, x] on the chest's grid.
    """
    gap, row_mm, column_mm = chest.voxel_mm
    reach = max(1, min(round(RIB_REACH_MM / gap), len(lungs)))
    bone = ndimage.maximum_filter((chest.hu > chest.bone_above_hu) & chest.within,
                                  (2 * reach + 1, 3, 3))
    middle = round(chest.middle[1])
    beside = np.abs(np.arange(lungs.shape[2]) - middle) * column_mm >= BESIDE_SPINE_MM
    area = lungs.sum(axis=(1, 2))
    missing = np.zeros(lungs.shape, bool)
    for z in np.flatnonzero(area > 0.05 * area.max(initial=0)):
        lung, ribs, found = lungs[z], bone[z], missing[z]
        found |= _gap(lung, ribs, row_mm) & beside
        # To the left, and, mirrored, to the right.
        found[:, middle:] |= _gap(lung[:, middle:].T, ribs[:, middle:].T, column_mm).T
        found[:, middle::-1] |= _gap(lung[:, middle::-1].T, ribs[:, middle::-1].T, column_mm).T
    missing &= ~lungs
    whole = lungs | missing
    small, large = sorted((int(whole[:, :, :middle].sum()), int(whole[:, :, middle:].sum())))
    n = int(missing.sum())
    if small < SIDES[0] * large:
        n += int(SIDES[1] * large) - small
    return n * gap * row_mm * column_mm / 1000.0
