"""Where in the lungs: sides, thirds of their height, near the pleura or far from it, lobes.

Sides. Slice by slice, parts of the lung mask belong to the side on which most of them lies; a part
that reaches far over the middle (lungs that touch in front of the heart) is cut where it is
thinnest. What lies outside the mask (effusion) belongs to the side of the middle where it lies.

Thirds. Of the height from the lowest slice with lung to the highest, in mm: upper, middle, lower.
What lies above or below belongs to the upper or lower third.

Depth. Peripheral is what lies no more than `PERIPHERAL_MM` from the surface of the lungs, in three
dimensions and in mm, whichever surface it is (ribs, diaphragm, mediastinum; no fissures); holes
that vessels leave in a mask are no surface. What lies outside the mask is peripheral.

Lobes. Only where somebody gives them: no lobe is guessed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.io import read_codes
from deeplung_nb.imaging.lungs import LungMask
from deeplung_nb.imaging.scan import Scan
from deeplung_nb.labels import LOBES, REGIONS

PERIPHERAL_MM = 20.0
"""From the pleura: a usual choice of the outer zone; no guideline fixes it."""
COARSE_MM = 2.0
"""Depths are measured on pixels of about this size: a border moves by half of it at most."""
NEAR_MIDDLE_MM = 45.0
"""Lungs that touch are cut no further from the middle than this."""
OVER_THE_MIDDLE = 0.15
"""A part with so large a share on either side of the middle is two lungs."""
LOBE_CODES = (3, 4, 5, 1, 2)
"""Of lungmask's LTRCLobes, in the order of `labels.LOBES`."""
RIGHT, LEFT = 1, 2
TOP, MIDDLE, BOTTOM = 2, 1, 0


def _middles(lungs: np.ndarray, column_mm: float) -> np.ndarray:
    """The column of the middle of each slice: where the fewest lung lies, smooth over slices."""
    columns = lungs.sum(axis=1).astype(float)
    everywhere = np.flatnonzero(columns.sum(axis=0))
    if not len(everywhere):
        return np.full(len(lungs), lungs.shape[2] / 2)
    centre = (everywhere[0] + everywhere[-1]) / 2
    reach = NEAR_MIDDLE_MM / column_mm
    low, high = int(max(0, centre - reach)), int(min(lungs.shape[2], centre + reach + 1))
    profile = ndimage.uniform_filter1d(columns[:, low:high], max(1, round(5 / column_mm)), axis=1)
    # Of several columns without lung the one nearest to the middle of the chest.
    away = np.abs(np.arange(low, high) - centre) / max(reach, 1)
    found = low + (profile + away).argmin(axis=1).astype(float)
    seen = columns.sum(axis=1) > 0
    found[~seen] = np.median(found[seen])
    return ndimage.median_filter(found, size=min(9, len(found)), mode="nearest")


def _sides(lungs: np.ndarray, column_mm: float) -> np.ndarray:
    """`RIGHT` or `LEFT` of every voxel, uint8 [z, y, x]; x runs to the patient's left."""
    middles = _middles(lungs, column_mm)
    x = np.arange(lungs.shape[2])
    sides = np.empty(lungs.shape, np.uint8)
    for z, middle in enumerate(middles):
        sides[z] = np.where(x < middle, RIGHT, LEFT)[None]
        found: Any = ndimage.label(lungs[z])
        parts, n = found
        if not n:
            continue
        size = np.bincount(parts.ravel(), minlength=n + 1)[1:]
        on_right = np.bincount(parts[:, x < middle].ravel(), minlength=n + 1)[1:]
        share = on_right / size
        whole = np.flatnonzero((share < OVER_THE_MIDDLE) | (share > 1 - OVER_THE_MIDDLE)) + 1
        side_of = np.zeros(n + 1, np.uint8)
        side_of[whole] = np.where(share[whole - 1] > 0.5, RIGHT, LEFT)
        given = side_of[parts]
        sides[z] = np.where(given > 0, given, sides[z])
    return sides


def _thirds(lungs: np.ndarray) -> np.ndarray:
    """`TOP`, `MIDDLE` or `BOTTOM` of every slice."""
    found = np.flatnonzero(lungs.any(axis=(1, 2)))
    if not len(found):
        return np.full(len(lungs), MIDDLE)
    place = (np.arange(len(lungs)) - found[0] + 0.5) / (found[-1] - found[0] + 1)
    return np.clip(np.floor(3 * place), BOTTOM, TOP).astype(int)


def depth_mm(lungs: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Distance of each voxel to the surface of the lungs, mm; 0 outside of them.

    Parameters
    ----------
    lungs
        bool [z, y, x]; holes within a slice are filled first.
    spacing_mm
        (z, y, x).
    """
    filled = np.zeros(lungs.shape, bool)
    for z in np.flatnonzero(lungs.any(axis=(1, 2))):
        filled[z] = ndimage.binary_fill_holes(lungs[z])
    # A rim of one voxel all around, so that a lung at the picture's edge has a surface there.
    padded = np.pad(filled, 1)
    inside: Any = ndimage.distance_transform_edt(padded, sampling=spacing_mm)
    return inside[1:-1, 1:-1, 1:-1].astype(np.float32)


def _peripheral(lungs: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """bool [z, y, x]: no further than `PERIPHERAL_MM` from the surface, or outside the lungs."""
    rows, columns = (max(1, round(COARSE_MM / mm)) for mm in spacing_mm[1:])
    deep = np.zeros(lungs.shape, bool)
    found = ndimage.find_objects(lungs.astype(np.uint8))
    if not found:
        return ~deep
    box = found[0]
    part = lungs[box][:, ::rows, ::columns]
    spacing = (spacing_mm[0], spacing_mm[1] * rows, spacing_mm[2] * columns)
    coarse = depth_mm(part, spacing) > PERIPHERAL_MM
    fine = coarse.repeat(rows, axis=1).repeat(columns, axis=2)
    shape = lungs[box].shape
    deep[box] = fine[:, :shape[1], :shape[2]]
    return ~deep


@dataclass(frozen=True, eq=False)
class LungRegions:
    """What part of the lungs each voxel belongs to, on the grid of a scan.

    Attributes
    ----------
    sides
        uint8 [z, y, x]: `RIGHT` or `LEFT`.
    thirds
        [z]: `TOP`, `MIDDLE` or `BOTTOM`.
    peripheral
        bool [z, y, x].
    lobes
        uint8 [z, y, x] in the order of `labels.LOBES` from 1 on, 0 elsewhere; None: not given.
    """

    sides: np.ndarray
    thirds: np.ndarray
    peripheral: np.ndarray
    lobes: np.ndarray | None = None

    @classmethod
    def of(cls, lungs: LungMask, lobes: np.ndarray | None = None) -> LungRegions:
        """The regions of a lung mask."""
        _, _, column_mm = lungs.grid.spacing_mm
        return cls(_sides(lungs.mask, column_mm), _thirds(lungs.mask),
                   _peripheral(lungs.mask, lungs.grid.spacing_mm), lobes)

    def count(self, mask: np.ndarray) -> dict[str, int]:
        """How many voxels of a mask lie in each region; sides, thirds and depths each sum to all.

        Parameters
        ----------
        mask
            bool [z, y, x].
        """
        by_slice = mask.sum(axis=(1, 2))
        thirds = np.bincount(self.thirds, weights=by_slice, minlength=3).astype(int)
        n = int(by_slice.sum())
        right, outer = (int((part & mask).sum()) for part in (self.sides == RIGHT, self.peripheral))
        values = (right, n - right, thirds[TOP], thirds[MIDDLE], thirds[BOTTOM], n - outer, outer)
        found = dict(zip(REGIONS, map(int, values), strict=True))
        if self.lobes is not None:
            each = np.bincount(self.lobes[mask], minlength=len(LOBES) + 1)[1:]
            found |= dict(zip(LOBES, map(int, each), strict=True))
        return found


def read_lobes(path: str | os.PathLike, scan: Scan,
               codes: tuple[int, ...] = LOBE_CODES) -> np.ndarray:
    """A label map of lobes on the grid of a scan, uint8 [z, y, x] in the order of `labels.LOBES`.

    Parameters
    ----------
    path
        The file, as another tool wrote it.
    codes
        That tool's code of each of `labels.LOBES`; default: those of lungmask (LTRCLobes).

    Raises
    ------
    ScanError
        Another grid or other codes; left and right, or upper and lower, are exchanged.
    """
    if len(codes) != len(LOBES) or len(set(codes)) != len(LOBES) or min(codes) < 1:
        raise ScanError(f"lobe codes {codes}: expected five different positive numbers, for "
                        f"{', '.join(LOBES)}")
    found = read_codes(Path(path), scan)
    return order_lobes(found, codes, scan.case_id, str(path))


def order_lobes(found: np.ndarray, codes: tuple[int, ...], case: str, source: str) -> np.ndarray:
    """Codes of another tool in the order of `labels.LOBES`, if they lie as lobes do."""
    known = set(np.unique(found).tolist()) - {0}
    if not known or known - set(codes):
        raise ScanError(f"case {case!r}: lobe mask {source} holds the codes "
                        f"{sorted(known)[:12]}, expected some of {list(codes)} for "
                        f"{', '.join(LOBES)}. Give its own codes in this order with --lobe-codes")
    table = np.zeros(max(max(known), *codes) + 1, np.uint8)
    table[list(codes)] = np.arange(1, len(LOBES) + 1)
    lobes = table[found]
    there = np.unique(lobes[lobes > 0])
    centres = dict(zip((tuple(LOBES)[k - 1] for k in there),
                       ndimage.center_of_mass(lobes > 0, lobes, there), strict=True))
    for low, high, axis, words in (
            ("right_lower", "left_lower", 2, "left and right"),
            ("right_upper", "left_upper", 2, "left and right"),
            ("right_lower", "right_upper", 0, "upper and lower"),
            ("left_lower", "left_upper", 0, "upper and lower")):
        if low in centres and high in centres and centres[low][axis] > centres[high][axis]:
            raise ScanError(f"case {case!r}: in lobe mask {source} {words} are exchanged ({low} "
                            f"and {high}): its codes are no {list(codes)} for {', '.join(LOBES)}, "
                            "or it is another scan's. Give its own codes with --lobe-codes")
    return lobes


def severity_of(percent: float) -> int:
    """Points of one lobe by the share of it that is ill, 0 to 5; five lobes make 0 to 25.

    0: none; 1: below 5 %; 2: 5 to 25 %; 3: above 25 and below 50 %; 4: 50 to 75 %; 5: more.

    Source
    ------
    The rule of Chang et al. 2005 (Radiology 236:1067), as Pan et al. 2020 (Radiology 295:715) use
    it; read off by eye there, here computed from the masks.
    """
    if percent <= 0:
        return 0
    return 1 + (percent >= 5) + (percent > 25) + (percent >= 50) + (percent > 75)
