"""Slices that make no even stack, resampled to one: only when it is asked for, and said.

Both are linear interpolation along one direction. A tilted gantry shifts each slice in its plane by
a known part of a pixel, which loses next to nothing. A missing slice is made up of its neighbours:
what only it showed is gone.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from deeplung_nb.imaging.scan import OUTSIDE_HU

MOST_GAP_MM = 25.0
"""Between neighbours that are interpolated: across more, lung is invented."""


def upright(volume: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slices moved in their planes until they stand above each other.

    Parameters
    ----------
    volume
        int16 [z, y, x].
    offsets
        [z, 2]: how far each slice lies off the line through the first one, (rows, columns) in
        pixels.

    Returns
    -------
    (volume, first)
        The stack, wide enough for all slices, air around them; and where its first pixel lies,
        (row, column) in pixels from that of the first slice.
    """
    low = np.floor(offsets.min(axis=0)).astype(int)
    rows, columns = np.ceil(offsets.max(axis=0)).astype(int) - low + volume.shape[1:]
    out = np.full((len(volume), rows, columns), OUTSIDE_HU, np.int16)
    for z, (plane, offset) in enumerate(zip(volume, offsets - low, strict=True)):
        whole = np.floor(offset).astype(int)
        wide = np.full((rows, columns), OUTSIDE_HU, np.float32)
        place = tuple(slice(w, w + n) for w, n in zip(whole, plane.shape, strict=True))
        wide[place] = plane
        ndimage.shift(wide, offset - whole, output=wide, order=1, cval=OUTSIDE_HU)
        out[z] = np.rint(wide)
    return out, low


def evenly(volume: np.ndarray, along_mm: np.ndarray, step_mm: float) -> tuple[np.ndarray, int]:
    """Slices at even distances, each from the two around it.

    Parameters
    ----------
    volume
        int16 [z, y, x].
    along_mm
        [z], rising: where each slice lies.
    step_mm
        The distance that is wanted; it is kept nearly, so that the ends stay where they are.

    Returns
    -------
    (volume, n_made)
        int16 [n, y, x] from the first position to the last; how many of them lie more than a tenth
        of a step from any slice that was there.
    """
    n = round((along_mm[-1] - along_mm[0]) / step_mm) + 1
    wanted = np.linspace(along_mm[0], along_mm[-1], n)
    above = np.clip(np.searchsorted(along_mm, wanted), 1, len(along_mm) - 1)
    share = (wanted - along_mm[above - 1]) / (along_mm[above] - along_mm[above - 1])
    out = np.empty((n, *volume.shape[1:]), np.int16)
    for z, (k, w) in enumerate(zip(above, share, strict=True)):
        out[z] = np.rint((1.0 - w) * volume[k - 1].astype(np.float32) + w * volume[k])
    nearest = np.abs(wanted[:, None] - along_mm).min(axis=1)
    return out, int((nearest > step_mm / 10.0).sum())
