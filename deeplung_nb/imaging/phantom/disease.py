"""The lesions of a synthetic chest: where each lies in a slice, and what it looks like there.

A lesion starts as an ellipsoid. With a rough border it becomes a patch as pneumonia makes them: its
edge strays, follows secondary lobules and ends at the fissures of its lobe; with a band it is a
crescent along the pleura. Its depth (see `shapes`) is what the truth is drawn from.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from deeplung_nb.imaging.phantom.painter import Painter
from deeplung_nb.imaging.phantom.spec import Lesion
from deeplung_nb.imaging.shapes import (
    LOBULE_MM,
    SEPTUM_MM,
    Lobules,
    covered,
    ellipsoid,
    smooth_min,
)


class Patch(NamedTuple):
    """A lesion in one slice: the piece of the slice, and two maps on it."""

    rows: slice
    columns: slice
    depth: np.ndarray
    """Depth in the lesion, mm."""
    hu: np.ndarray
    """Where its opacity is full."""


class Disease:
    """Places the lesions of one phantom."""

    def __init__(self, painter: Painter) -> None:
        self.painter, self.chest = painter, painter.chest
        low = (-160, -130, -20)
        high = (160, 130, painter.chest.height_mm + 20)
        self.lobules = Lobules(np.random.default_rng((painter.spec.seed, 3)), LOBULE_MM, low, high)

    def _above_fissures(self, centre_mm) -> tuple[bool, bool, bool]:
        """(left, above the oblique, above the horizontal fissure) of a lesion's centre."""
        x, y, z = (np.array([v], np.float32) for v in centre_mm)
        oblique, flat = self.painter.fissures(float(z[0]), y, x)
        straight, _, _ = self.chest.straight(x, y, z)
        return bool(straight[0] > 0), bool(oblique[0, 0] > 0), bool(flat[0, 0] > 0)

    def patch(self, lesion: Lesion, k: int, lung: np.ndarray) -> Patch | None:
        """A lesion in slice `k`; None where it does not reach. `lung` is the depth in the lung."""
        painter = self.painter
        z, (cx, cy, cz), axes = float(painter.z[k]), lesion.centre_mm, np.array(lesion.axes_mm)
        reach = axes * (1 + 3 * lesion.roughness_mm / axes.min()) + 6
        if abs(z - cz) > reach[2]:
            return None
        rows = slice(*np.searchsorted(painter.y_axis, (cy - reach[1], cy + reach[1])))
        columns = slice(*np.searchsorted(painter.x_axis, (cx - reach[0], cx + reach[0])))
        x, y = painter.x_axis[columns], painter.y_axis[rows]
        if not (len(x) and len(y)):
            return None
        depth = ellipsoid(x[None, :], y[:, None], z, lesion.centre_mm, axes)
        if lesion.band_mm:
            depth = smooth_min(depth, np.float32(lesion.band_mm) - lung[rows, columns], 5)
        clumps, fine = painter.clumps(z, y, x), painter.fine(z, y, x)
        hu = np.float32(lesion.hu) + (42 * clumps if lesion.kind == "ggo" else 9 * fine)
        if not lesion.roughness_mm:
            return Patch(rows, columns, depth, hu)
        rough = np.float32(lesion.roughness_mm)
        near = (depth > -3 * rough) & (lung[rows, columns] > -3)
        if near.any():
            at = np.argwhere(near)
            points = np.column_stack((x[at[:, 1]], y[at[:, 0]], np.full(len(at), z)))
            number, border = self.lobules.at(points)
            depth[near] += rough * 0.7 * number
            if lesion.net:
                net = covered(SEPTUM_MM - border, painter.edge)
                hu[near] += np.float32(200 * lesion.net) * (net - np.float32(0.25))
        depth = depth + rough * (0.6 * clumps + 0.5 * fine)
        left, above, over = self._above_fissures(lesion.centre_mm)
        oblique, flat = painter.fissures(z, y, x)
        side, _, _ = self.chest.straight(x[None, :], y[:, None], np.float32(z))
        depth = np.minimum(depth, side if left else -side)
        depth = np.minimum(depth, oblique if above else -oblique)
        if above and not left:
            depth = np.minimum(depth, flat if over else -flat)
        return Patch(rows, columns, depth.astype(np.float32), hu)
