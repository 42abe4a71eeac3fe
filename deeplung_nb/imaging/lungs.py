"""Lungs by threshold, connectivity and closing: good enough for a burden, and said as such.

The steps are classical (Hu, Hoffman, Reinhardt 2001, IEEE TMI 20:490): air inside the body, its
largest parts, without the windpipe, closed so that dense lesions at the pleura count as lung. All
sizes are in millimetres. A given lung mask is always the better choice; `origin` records which it
was.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from deeplung_nb.imaging.body import BODY_ABOVE_HU, coarse_hu, find_body
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.io import read_lung_mask
from deeplung_nb.imaging.preprocess import resize_matrix
from deeplung_nb.imaging.scan import Scan

ORIGINS = ("reference", "built-in", "lungmask", "network")
AERATED_BELOW_HU = BODY_ABOVE_HU
"""Between aerated lung with ground-glass opacity and soft tissue."""
CLOSING_MM = 14.0
SMALLEST_PART = 0.06
"""Parts of the air below this share of the largest part are no lung (bowel, stomach)."""
GAS_BELOW_HU, GAS_BELOW_LUNG_HU = -930.0, 40.0
"""Gas in stomach and bowel has a median below the first, and the second less than the lungs."""
WINDPIPE_AREA_MM2 = 900.0
WINDPIPE_FROM_MIDLINE_MM = 35.0
LEAST_AREA_MM2 = 1500.0
"""A chest shows at least this much lung in some slice."""


class LungError(ScanError):
    """No lung was found."""


@dataclass(frozen=True, eq=False)
class LungMask:
    """Lungs with their lesions on the grid of a scan.

    Attributes
    ----------
    mask
        bool [z, y, x].
    grid
        That of the scan.
    origin
        Where the mask comes from: one of `ORIGINS`.
    source
        The file it came from, if any.
    """

    mask: np.ndarray
    grid: Grid
    origin: str
    source: str = ""

    @classmethod
    def like(cls, scan: Scan, mask: np.ndarray, origin: str, source: str = "") -> LungMask:
        """A lung mask with the geometry of a scan.

        Raises
        ------
        ScanError
            The shapes differ.
        """
        scan.require_shape(mask, "lung mask")
        return cls(mask, scan.grid, origin, source)

    def __post_init__(self) -> None:
        if self.origin not in ORIGINS:
            raise ValueError(f"origin {self.origin!r}: expected one of {', '.join(ORIGINS)}")


def _large_parts(air: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """The connected parts of the air that can be lungs, which no part of pure gas is."""
    parts, n = ndimage.label(air)
    if n == 0:
        return air
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    keep = np.flatnonzero(sizes >= SMALLEST_PART * sizes.max())
    keep = keep[sizes[keep] > 0]
    medians = np.asarray(ndimage.median(hu, parts, keep))
    gas = (medians < GAS_BELOW_HU) & (medians < medians.max() - GAS_BELOW_LUNG_HU)
    keep = keep[~gas]
    return np.isin(parts, keep[np.argsort(sizes[keep])[::-1]][:3])


def _without_windpipe(air: np.ndarray, body: np.ndarray,
                      pixel_mm: tuple[float, float]) -> np.ndarray:
    """Followed from the top: a small part near the midline that goes on from slice to slice."""
    out = air.copy()
    middle_y, middle_x = (float(np.mean(np.nonzero(body)[axis])) for axis in (1, 2))
    reach = WINDPIPE_FROM_MIDLINE_MM
    previous: np.ndarray | None = None
    for z in range(len(air) - 1, -1, -1):
        parts, n = ndimage.label(air[z])
        found = np.zeros_like(air[z])
        for part in range(1, n + 1):
            here = parts == part
            area = here.sum() * pixel_mm[0] * pixel_mm[1]
            y, x = ndimage.center_of_mass(here)
            central = (abs(x - middle_x) * pixel_mm[1] < reach
                       and abs(y - middle_y) * pixel_mm[0] < 2 * reach)
            follows = previous is not None and bool((here & previous).any())
            if area < WINDPIPE_AREA_MM2 and (follows or (central and previous is None)):
                found |= here
        if found.any():
            previous = ndimage.binary_dilation(found)
            out[z] &= ~previous
        elif previous is not None:
            break
    return out


def _closed(lung: np.ndarray, pixel_mm: tuple[float, float], radius_mm: float) -> np.ndarray:
    """Closing by a disc in one slice, holes filled."""
    pad = int(np.ceil(radius_mm / min(pixel_mm))) + 1
    wide = np.pad(lung, pad)
    grown = ndimage.distance_transform_edt(~wide, sampling=pixel_mm) <= radius_mm
    shrunk = ndimage.distance_transform_edt(grown, sampling=pixel_mm) > radius_mm
    return ndimage.binary_fill_holes(shrunk[pad:-pad, pad:-pad] | lung)


def segment_lungs(scan: Scan, closing_mm: float = CLOSING_MM) -> LungMask:
    """Find both lungs of a chest CT, dense lesions included.

    Parameters
    ----------
    scan
        A chest CT, from one slice on.
    closing_mm
        Radius of the closing: dense pockets at the pleura up to about twice as wide count as
        lung. Each lung is closed by itself, so that nothing between them is taken in.

    Raises
    ------
    LungError
        No slice shows a lung's worth of air inside the body.
    """
    hu, pixel_mm = coarse_hu(scan)
    body = find_body(hu, pixel_mm)
    air = _large_parts(body & (hu < AERATED_BELOW_HU), hu)
    area = air.sum(axis=(1, 2)).max(initial=0) * pixel_mm[0] * pixel_mm[1]
    if area < LEAST_AREA_MM2:
        raise LungError(
            f"case {scan.case_id!r}: no lung found (largest area of air inside the body "
            f"{area / 100:.1f} cm², expected at least {LEAST_AREA_MM2 / 100:.0f}). Is it a chest "
            "CT in HU? Else give a lung mask"
        )
    del hu
    if scan.n_slices > 1:
        air = _without_windpipe(air, body, pixel_mm)
    middle = round(float(np.mean(np.nonzero(body)[2])))
    up = resize_matrix(air.shape[1], scan.shape[1])
    out = resize_matrix(air.shape[2], scan.shape[2]).T
    mask = np.zeros(scan.shape, bool)
    for z, lung in enumerate(air):
        if not lung.any():
            continue
        both = np.zeros_like(lung)
        for side in (slice(None, middle), slice(middle, None)):
            if lung[:, side].any():
                both[:, side] = _closed(lung[:, side], pixel_mm, closing_mm)
        mask[z] = up @ (both & body[z]).astype(np.float32) @ out > 0.5
    return LungMask.like(scan, mask, "built-in")


def large_lungs(logits: np.ndarray) -> np.ndarray:
    """A network's logits of the lungs, [z, y, x], below 0 in all but the largest parts.

    A part goes where it is smaller than `SMALLEST_PART` of the largest.
    """
    parts, n = ndimage.label(logits > 0)
    if n < 2:
        return logits
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    keep = np.flatnonzero(sizes >= SMALLEST_PART * sizes.max())
    return np.where((parts == 0) | np.isin(parts, keep), logits, -np.abs(logits))


def lungs_for(scan: Scan, path: Path | None = None) -> LungMask | None:
    """The lungs of a mask file where one is given, else the built-in ones, else None.

    Without lungs there is no burden; the table of measurements says so.

    Raises
    ------
    ScanError
        The file is no mask on the scan's grid.
    """
    if path is not None:
        return LungMask.like(scan, read_lung_mask(path, scan), "reference", str(path))
    try:
        return segment_lungs(scan)
    except LungError:
        return None
