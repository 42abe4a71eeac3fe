"""Shapes of a synthetic chest as *depths*: positive inside, 0 on the surface, roughly in mm.

A depth is a function of position, so that a shape can be sampled on any grid. Lengths are in mm; x
runs to the patient's left, y to the back, z to the head.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

LOBULE_MM = 13.0
"""A secondary lobule of the lung measures 10 to 25 mm."""
SEPTUM_MM = 1.1
"""Half of a thickened septum between two lobules."""
REACH_MM = 12.0
"""How far around a tube its depth is exact."""


def covered(depth: np.ndarray, edge_mm: float) -> np.ndarray:
    """Part of a voxel that a structure covers: 0 outside, 1 inside, a ramp of `edge_mm` between."""
    return np.clip(depth / np.float32(edge_mm) + np.float32(0.5), 0, 1)


def ring(x, y, a_mm, b_mm, power: float) -> np.ndarray:
    """Depth in a superellipse around the origin; negative half widths give an empty one."""
    scalar = isinstance(a_mm, float)
    a = max(a_mm, 1e-3) if scalar else np.maximum(a_mm, np.float32(1e-3))
    b = max(b_mm, 1e-3) if scalar else np.maximum(b_mm, np.float32(1e-3))
    rho = ((np.abs(x) / a) ** power + (np.abs(y) / b) ** power) ** (1 / power)
    return (1 - rho) * (np.sqrt(x * x + y * y) / np.maximum(rho, 1e-3) + 1e-3)


def ellipsoid(x, y, z, centre, axes, turn_degrees: float = 0.0) -> np.ndarray:
    """Depth in an ellipsoid, turned about z (from left towards the back)."""
    c, s = math.cos(math.radians(turn_degrees)), math.sin(math.radians(turn_degrees))
    dx, dy, dz = x - float(centre[0]), y - float(centre[1]), z - float(centre[2])
    u, v = c * dx + s * dy, c * dy - s * dx
    a, b, c = map(float, axes)
    return (1 - np.sqrt((u / a) ** 2 + (v / b) ** 2 + (dz / c) ** 2)) * min(a, b, c)


def table_value(at, points, values):
    """Linear interpolation; a plain float for one value, which leaves float32 arrays float32."""
    value = np.interp(at, points, values)
    return value.astype(np.float32) if np.ndim(value) else float(value)


def smooth_min(a, b, blend_mm: float):
    """The smaller of two depths, with the edge between them rounded over `blend_mm`."""
    h = np.maximum(blend_mm - np.abs(a - b), 0) / blend_mm
    return np.minimum(a, b) - h * h * (blend_mm / 4)


def smooth_max(a, b, blend_mm: float):
    """The larger of two depths, the groove between them filled over `blend_mm`."""
    return -smooth_min(-a, -b, blend_mm)


@functools.lru_cache(maxsize=512)
def _spline_weights(at: bytes, kind: str, count: int) -> np.ndarray:
    """Weights [places, knots] of cubic B-splines; the same places are asked for slice by slice."""
    far = np.abs(np.frombuffer(at, kind)[:, None] - np.arange(count)[None, :])
    near = np.where(far < 1, 2 / 3 - far**2 + far**3 / 2, np.clip(2 - far, 0, None) ** 3 / 6)
    return near.astype(np.float32)


@dataclass(frozen=True)
class Field:
    """A smooth random function of position: mean 0, standard deviation 1, cubic B-splines."""

    knots: np.ndarray
    step_mm: float
    origin: tuple[float, float, float]

    @classmethod
    def random(cls, rng: np.random.Generator, step_mm: float) -> Field:
        """Values on a lattice that covers any chest."""
        low, high = np.array((-60, -170, -240)), np.array((340, 190, 240))
        shape = np.ceil((high - low) / step_mm).astype(int) + 4
        # 0.479 = sum of squared cubic B-spline weights, averaged over one cell.
        knots = rng.standard_normal(shape).astype(np.float32) / 0.479**1.5
        return cls(knots, step_mm, tuple(low.astype(float)))

    def _weights(self, positions: np.ndarray, axis: int) -> np.ndarray:
        at = (np.atleast_1d(positions) - self.origin[axis]) / self.step_mm + 1
        return _spline_weights(at.tobytes(), at.dtype.str, self.knots.shape[axis])

    def __call__(self, z: float, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """On one slice: float32 [len(y), len(x)]."""
        plane = np.tensordot(self._weights(np.array([z]), 0)[0], self.knots, 1)
        return self._weights(y, 1) @ plane @ self._weights(x, 2).T


class Lobules:
    """Space divided into cells of about `size_mm`, as the lung is into secondary lobules.

    Each cell belongs to the nearest of randomly moved lattice points, and has a number of its own
    (mean 0, standard deviation 1).
    """

    def __init__(self, rng: np.random.Generator, size_mm: float, low, high) -> None:
        axes = [np.arange(a, b, size_mm) for a, b in zip(low, high, strict=True)]
        lattice = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        self.centres = lattice + rng.uniform(-0.5, 0.5, lattice.shape) * size_mm
        self.numbers = rng.standard_normal(len(lattice)).astype(np.float32)
        self._tree = cKDTree(self.centres)

    def at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(number of the cell, distance to its border in mm) of points [n, 3]."""
        distance, which = self._tree.query(points, k=2)
        apart = np.linalg.norm(self.centres[which[:, 0]] - self.centres[which[:, 1]], axis=1)
        border = (distance[:, 1] ** 2 - distance[:, 0] ** 2) / (2 * apart)
        return self.numbers[which[:, 0]], border.astype(np.float32)


@dataclass(frozen=True)
class Tubes:
    """Tapering tubes: segments from `start` to `end` ([n, 3] as x, y, z) with end radii, mm."""

    start: np.ndarray
    end: np.ndarray
    start_radius: np.ndarray
    end_radius: np.ndarray

    def depth(self, x, y, z) -> np.ndarray:
        """Depth in the nearest of the tubes: exact within `REACH_MM` of it, -99 beyond.

        Either points (x, y, z of one length) or a slice (x [1, n], y [m, 1], z a number).
        """
        shape = np.broadcast_shapes(np.shape(x), np.shape(y), np.shape(z))
        best = np.full(shape, -99, np.float32)
        reach = np.maximum(self.start_radius, self.end_radius) + REACH_MM
        low = np.minimum(self.start, self.end) - reach[:, None]
        high = np.maximum(self.start, self.end) + reach[:, None]
        for i in np.flatnonzero((low[:, 2] <= np.max(z)) & (high[:, 2] >= np.min(z))):
            part, px, py = best, x, y
            if len(shape) == 2:  # only the piece of the slice where the tube is
                rows = slice(*np.searchsorted(y[:, 0], (low[i, 1], high[i, 1])))
                columns = slice(*np.searchsorted(x[0], (low[i, 0], high[i, 0])))
                part, px, py = best[rows, columns], x[:, columns], y[rows]
            a, d = self.start[i].tolist(), (self.end[i] - self.start[i]).tolist()
            px, py, pz = px - a[0], py - a[1], z - a[2]
            along = (px * d[0] + (py * d[1] + pz * d[2])) / sum(v * v for v in d)
            along = np.clip(along, 0, 1)
            distance = np.sqrt((px - along * d[0]) ** 2 + (py - along * d[1]) ** 2
                               + (pz - along * d[2]) ** 2)
            r0, r1 = float(self.start_radius[i]), float(self.end_radius[i])
            np.maximum(part, r0 + along * (r1 - r0) - distance, out=part)
        return best

    def paint(self, canvas: np.ndarray, z_mm, y_mm, x_mm, edge_mm: float, slab_mm: float,
              grow: float = 0) -> None:
        """Raise `canvas` [z, y, x] to the part of each voxel that the tubes cover.

        For thousands of thin segments: all are drawn at once, each on a small patch. A slice shows
        what passes through a slab of `slab_mm`, the fainter the thinner it is.
        """
        pieces = np.maximum(np.ceil(np.linalg.norm(self.end - self.start, axis=1) / 6), 1)
        which = np.repeat(np.arange(len(pieces)), pieces.astype(int))
        first = np.arange(len(which)) - np.repeat(np.cumsum(pieces) - pieces, pieces.astype(int))
        f0, f1 = first / pieces[which], (first + 1) / pieces[which]
        span, taper = (self.end - self.start)[which], (self.end_radius - self.start_radius)[which]
        a, d = self.start[which] + f0[:, None] * span, (f1 - f0)[:, None] * span
        ra, dr = self.start_radius[which] + f0 * taper + grow, (f1 - f0) * taper
        middle, half = a + d / 2, np.linalg.norm(d, axis=1) / 2 + np.maximum(ra, ra + dr) + edge_mm
        pixel = x_mm[1] - x_mm[0]
        for z_index, z in enumerate(z_mm):
            near = np.flatnonzero(np.abs(middle[:, 2] - z) < half + slab_mm / 2)
            size = np.ceil(half[near] / pixel).astype(int)
            for n in np.unique(size):
                i = near[size == n]
                offset = np.arange(-n, n + 1)
                column = np.rint((middle[i, 0] - x_mm[0]) / pixel).astype(int)[:, None] + offset
                row = np.rint((middle[i, 1] - y_mm[0]) / pixel).astype(int)[:, None] + offset
                px = (x_mm[0] + column * pixel - a[i, 0, None])[:, None, :]
                py = (y_mm[0] + row * pixel - a[i, 1, None])[:, :, None]
                pz = (z - a[i, 2])[:, None, None]
                pz = np.sign(pz) * np.maximum(np.abs(pz) - slab_mm / 2, 0)
                dx, dy, dz = (d[i, k][:, None, None] for k in range(3))
                along = np.clip((px * dx + py * dy + pz * dz) / (dx**2 + dy**2 + dz**2), 0, 1)
                distance = np.sqrt((px - along * dx) ** 2 + (py - along * dy) ** 2
                                   + (pz - along * dz) ** 2)
                radius = ra[i, None, None] + along * dr[i, None, None]
                part = covered(radius - distance, edge_mm)
                # A tube thinner than the ramp would look too thick: keep its area.
                thin = np.minimum(radius, edge_mm / 2)
                part *= 2 * thin * edge_mm / (thin + edge_mm / 2) ** 2
                part *= np.minimum((0.4 * slab_mm + 2 * radius) / (slab_mm + 1e-6), 1)
                part = part.astype(np.float32)
                row, column = np.broadcast_arrays(row[:, :, None], column[:, None, :])
                keep = (part > 0) & (row >= 0) & (row < len(y_mm))
                keep &= (column >= 0) & (column < len(x_mm))
                np.maximum.at(canvas[z_index], (row[keep], column[keep]), part[keep])


def grow_tree(rng, root, targets: np.ndarray, tip_radius: float, balance: float = 0.45,
              murray: float = 2.35) -> Tubes:
    """A vessel tree from `root` to the `targets` ([n, 3], mm).

    A spanning tree that weighs wire length against the way back to the root (Cuntz et al., PLoS
    Comput Biol 2010); radii by Murray's law from the number of tips that a branch feeds.
    """
    points = np.vstack([root, targets])
    n = len(points)
    parent, way = np.zeros(n, int), np.full(n, np.inf)
    cost, via = np.linalg.norm(points - points[0], axis=1), np.zeros(n, int)
    way[0], cost[0], order = 0.0, np.inf, []
    for _ in range(n - 1):
        new = int(np.argmin(cost))
        parent[new], cost[new] = via[new], np.inf
        way[new] = way[via[new]] + np.linalg.norm(points[new] - points[via[new]])
        order.append(new)
        offer = np.linalg.norm(points - points[new], axis=1) + balance * way[new]
        better = (offer < cost) & np.isinf(way)
        cost[better], via[better] = offer[better], new
    has_child = np.zeros(n, bool)
    has_child[parent[1:]] = True
    tips = np.where(has_child, 0.0, 1.0)
    heir, heir_tips = np.arange(n), np.zeros(n)
    for i in reversed(order):
        tips[parent[i]] += tips[i]
        if tips[i] > heir_tips[parent[i]]:
            heir[parent[i]], heir_tips[parent[i]] = i, tips[i]
    inner = np.array([i for i in order if heir[i] != i], int)
    for _ in range(3):  # Branches bend gently: each fork moves towards its neighbours' middle.
        middle = (points[parent[inner]] + points[heir[inner]]) / 2
        points[inner] += 0.5 * (middle - points[inner])
    radius = tip_radius * np.maximum(tips, 1) ** (1 / murray)
    child = np.array(order)
    # A twig leaves a trunk with its own width, not with the trunk's.
    start = np.minimum(radius[parent[child]], radius[child] * 1.25)
    return Tubes(points[parent[child]], points[child], start,
                 np.where(has_child[child], radius[child], radius[child] * 0.6))
