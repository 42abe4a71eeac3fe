"""What is patient, and what is table, clothes and the air around: nothing there is a lesion."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from deeplung_nb.imaging.preprocess import resize_matrix
from deeplung_nb.imaging.scan import LesionMask, Scan

SOFT_TISSUE_HU = (-50, 150)
BODY_ABOVE_HU = -400.0
"""Between what is aerated (lung with ground glass, clothes, foam) and soft tissue."""
GRID_MM = 2.0
SHEET_MM = 6.0
"""Sheets thinner than this are table or clothes; a child's chest wall is thicker."""


def coarse_hu(scan: Scan) -> tuple[np.ndarray, tuple[float, float]]:
    """HU on a grid of about `GRID_MM` in the plane, float32 [z, y, x], and its pixel size (mm)."""
    rows, columns = scan.shape[1:]
    n_y, n_x = (max(1, round(n * s / GRID_MM)) if s < GRID_MM else n
                for n, s in zip((rows, columns), scan.spacing_mm[1:], strict=True))
    down, across = resize_matrix(rows, n_y), resize_matrix(columns, n_x).T
    out = np.empty((scan.n_slices, n_y, n_x), np.float32)
    for z in range(scan.n_slices):
        out[z] = down @ scan.hu[z].astype(np.float32) @ across
    return out, (rows * scan.spacing_mm[1] / n_y, columns * scan.spacing_mm[2] / n_x)


def _close_cut_edges(part: np.ndarray) -> None:
    """Where the edge of the picture cuts the trunk, the edge closes it, in place.

    Else a lung at the edge of a cropped picture would be open to the outside.
    """
    for edge in (part[0], part[-1], part[:, 0], part[:, -1]):
        cut = np.flatnonzero(edge)
        if len(cut):
            edge[cut[0]:cut[-1] + 1] = True


def find_body(hu: np.ndarray, pixel_mm: tuple[float, float]) -> np.ndarray:
    """The trunk with all air inside, slice by slice; table, clothes and free arms are left out.

    Parameters
    ----------
    hu
        [z, y, x], of `coarse_hu`.
    pixel_mm
        Its (dy, dx).

    Returns
    -------
    ndarray
        bool [z, y, x]; a slice without anything dense has none.
    """
    body = np.zeros(hu.shape, bool)
    # A cross of three pixels takes sheets of up to two; of large pixels it would take chest walls.
    small = 2 * max(pixel_mm) <= SHEET_MM
    sheet = ndimage.generate_binary_structure(2, 1) if small else np.ones((1, 1), bool)
    for z, dense in enumerate(hu > BODY_ABOVE_HU):
        parts, n = ndimage.label(ndimage.binary_opening(dense, sheet))
        if n == 0:
            continue
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        # Arms are parts too; the trunk is what holds air, and by far the largest.
        trunk = parts == sizes.argmax()
        _close_cut_edges(trunk)
        body[z] = ndimage.binary_fill_holes(trunk)
    return body


def body_mask(scan: Scan) -> np.ndarray:
    """`find_body` on the scan's own grid, bool [z, y, x]."""
    hu, pixel_mm = coarse_hu(scan)
    coarse = find_body(hu, pixel_mm)
    del hu
    up = resize_matrix(coarse.shape[1], scan.shape[1])
    out = resize_matrix(coarse.shape[2], scan.shape[2]).T
    mask = np.empty(scan.shape, bool)
    for z, body in enumerate(coarse):
        mask[z] = up @ body.astype(np.float32) @ out > 0.5
    return mask


def without_outside(mask: LesionMask, body: np.ndarray) -> LesionMask:
    """A lesion mask with background wherever there is no patient.

    Parameters
    ----------
    mask
        On the scan's grid.
    body
        Of `body_mask`, bool [z, y, x].
    """
    return LesionMask(mask.labels * body, mask.grid, mask.case_id, mask.orientation)


def noise_hu(hu: np.ndarray) -> float | None:
    """SD of a CT's noise, from neighbours in soft tissue [z, y, x]; None where there is none."""
    soft = (hu > SOFT_TISSUE_HU[0]) & (hu < SOFT_TISSUE_HU[1])
    pairs = soft[:, :, 1:] & soft[:, :, :-1]
    if not pairs.any():
        return None
    steps = np.diff(hu.astype(np.float32), axis=2)[pairs]
    # Of two equal tissues with noise s the difference has s sqrt(2); MAD leaves out edges.
    return float(1.4826 * np.median(np.abs(steps)) / np.sqrt(2))
