"""The anatomy of a synthetic chest, as formulas in millimetres.

Every organ is a *depth*: a function of position that is positive inside, zero on the surface and
roughly in mm. So a chest can be sampled on any grid, and its proportions do not depend on the
voxel size.

Axes: x to the patient's left, y to the back, z to the head; x = y = 0 in the middle of the chest,
z = 0 at the lowest rim of the lungs. The proportions are those of an adult at full inspiration,
set by eye against ordinary CTs.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from deeplung_nb.imaging.phantom.shapes import (
    REACH_MM,
    Tubes,
    ellipsoid,
    ring,
    smooth_max,
    smooth_min,
    table_value,
)

LEVELS = (-0.2, 0.0, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95, 1.0, 1.2)
"""Heights at which the tables below are given, as parts of the lung's height."""
PROFILES = {
    # Inner surface of the rib cage: half width, half depth, centre.
    "rib_a": (124, 130, 133, 132, 124, 108, 88, 70, 60, 50),
    "rib_b": (86, 94, 98, 100, 96, 84, 67, 54, 47, 42),
    "rib_y": (0, 0, 0, 0, 1, 4, 9, 13, 15, 15),
    # One half of it: centre and half widths of the lung's own dome.
    "lung_x": (66, 66, 66, 66, 63, 56, 48, 43, 41, 41),
    "lung_a": (64, 66, 68, 68, 63, 53, 40, 26, 4, -30),
    "lung_b": (93, 100, 104, 105, 101, 87, 63, 36, 6, -30),
    "lung_y": (2, 2, 2, 2, 3, 7, 13, 17, 18, 18),
    "spine_y": (46, 50, 54, 56, 56, 54, 48, 42, 38, 28),
    # Muscle beside and before the ribs; the skin follows further out.
    "muscle_a": (4, 4, 5, 9, 20, 38, 58, 76, 85, 92),
    "muscle_b": (3, 3, 3, 5, 9, 13, 16, 18, 20, 22),
}
# Tubes: points (x, y, height, radius); x, y and radius in mm.
AORTA = ((-4, -22, .44, 15), (-11, -27, .55, 15.5), (-9, -22, .645, 15), (0, -8, .70, 14),
         (13, 10, .722, 13), (23, 27, .69, 12.5), (25, 36, .62, 12), (24, 37, .4, 11.5),
         (17, 36, .2, 11), (8, 30, .0, 10.5), (4, 28, -.25, 10))
ARCH_BRANCHES = (
    ((-3, -10, .71, 6.5), (-13, -5, .86, 6), (-22, -4, 1.15, 5)),
    ((8, 2, .73, 4.5), (13, 0, .88, 4.2), (20, -2, 1.15, 4)),
    ((18, 16, .72, 5.5), (24, 14, .88, 5.2), (38, 4, .98, 5), (75, -8, 1.04, 4.5)),
)
PULMONARY = (
    ((15, -38, .40, 13), (20, -28, .51, 14), (20, -14, .565, 13)),
    ((20, -14, .565, 12), (34, -2, .585, 11), (46, 10, .57, 9), (52, 16, .53, 7)),
    ((19, -12, .555, 11.5), (-6, -3, .545, 11), (-30, 1, .535, 10), (-46, 6, .51, 8)),
    ((-8, 4, .42, 7), (-34, 6, .44, 7), (-52, 4, .46, 5)),
    ((14, 6, .43, 7), (38, 8, .45, 6.5), (52, 6, .47, 5)),
)
VENA_CAVA = (
    ((-28, -12, .40, 10), (-27, -17, .55, 9.5), (-24, -20, .74, 9), (-21, -21, .83, 8.5)),
    ((-21, -21, .83, 7.5), (6, -30, .85, 6.5), (32, -30, .92, 6.5), (60, -28, 1.0, 6)),
    ((-21, -21, .83, 8), (-34, -22, .94, 7), (-62, -26, 1.02, 6)),
    ((-21, 6, -.25, 11), (-22, 2, .05, 12), (-23, -8, .26, 12)),
)
OESOPHAGUS = ((2, 6, 1.2, 6.5), (3, 17, .95, 6.5), (5, 27, .7, 7), (8, 24, .5, 6.5),
              (11, 20, .3, 7.5), (16, 12, .1, 9), (26, 0, .0, 10))
TRACHEA = (
    ((0, -12, 1.2, 8.5), (0, 2, .95, 8.5), (1, 13, .625, 9)),
    ((1, 13, .63, 7.5), (-19, 14, .585, 7.2), (-38, 15, .545, 6), (-48, 16, .50, 4.8)),
    ((1, 13, .63, 7.2), (22, 16, .575, 6.3), (42, 19, .535, 5.6), (50, 22, .49, 4.5)),
)
CLAVICLES = tuple(((s * 14, -60, .90, 8), (s * 48, -64, .96, 6), (s * 92, -46, 1.01, 5.5),
                   (s * 140, -14, 1.08, 7)) for s in (-1, 1))
HILA = {-1: (-46, 10, .52), 1: (49, 12, .535)}
RIB_PITCH, RIB_DROP = 0.094, 0.175
"""Distance between ribs, and how far a rib descends per radian from back to front (of height)."""
WALL_MM = 11.5
"""From the inner surface of the ribs to the muscles over them."""


@dataclass(frozen=True)
class Chest:
    """One person's proportions.

    `size` scales the chest (1: a man of middle height), `height_mm` is the lungs' height, `fat_mm`
    the layer under the skin, `breast_mm` adds breasts.
    """

    size: float = 1.0
    height_mm: float = 240.0
    fat_mm: float = 14.0
    breast_mm: float = 0.0

    def at(self, name: str, z):
        """A profile's value at height z, mm."""
        return table_value(np.asarray(z) / self.height_mm, LEVELS, PROFILES[name]) * self.size

    def tubes(self, *chains) -> Tubes:
        """Chains of (x, y, height, radius), scaled to this chest."""
        scale = np.array((self.size, self.size, self.height_mm, self.size))
        parts = [np.array(chain, float) * scale for chain in chains]
        a, b = np.vstack([p[:-1] for p in parts]), np.vstack([p[1:] for p in parts])
        return Tubes(a[:, :3], b[:, :3], a[:, 3], b[:, 3])

    def place(self, x: float, y: float, level: float) -> np.ndarray:
        """A point given as in the tables, in mm."""
        return np.array((x * self.size, y * self.size, level * self.height_mm))

    @functools.cached_property
    def left_tubes(self) -> Tubes:
        """Aorta and its branches, oesophagus, airways."""
        return self.tubes(AORTA, *ARCH_BRANCHES, OESOPHAGUS, *TRACHEA)

    @functools.cached_property
    def right_tubes(self) -> Tubes:
        """Pulmonary vessels and the venae cavae."""
        return self.tubes(*PULMONARY, *VENA_CAVA)

    @property
    def half_width_mm(self) -> float:
        """Half of the widest part of the body."""
        z = np.linspace(0, 1, 20) * self.height_mm
        lean = self.at("rib_a", z) + WALL_MM * self.size + self.at("muscle_a", z)
        return float(1.06 * lean.max() + self.fat_mm)

    def body(self, x, y, z, without_mm: float = 0.0) -> np.ndarray:
        """Depth under the skin, or under the fat (`without_mm` less); flat where it lies."""
        wall = WALL_MM * self.size
        a = self.at("rib_a", z) + wall + self.at("muscle_a", z) + self.fat_mm - without_mm
        b = self.at("rib_b", z) + wall - 1 + self.at("muscle_b", z) + self.fat_mm - without_mm
        # Flatter and broader at the back, where it lies on the table.
        back = b - 0.35 * (self.fat_mm - without_mm)
        y0 = y - self.at("rib_y", z)
        lean = 0.06 * table_value(z / self.height_mm, (0.2, 0.6), (0.3, 1.0))
        broad = 1 + lean * np.tanh(y0 / 50)
        return ring(x / broad, np.where(y0 > 0, y0 * (b / back), y0), a, b, 2.3)

    def cage(self, x, y, z) -> np.ndarray:
        """Depth in the rib cage's inner surface."""
        return ring(x, y - self.at("rib_y", z), self.at("rib_a", z), self.at("rib_b", z), 2.4)

    def rib_phase(self, x, y, z, cage: np.ndarray):
        """(depth in a rib, angle from the back in radians)."""
        angle = np.arctan2(np.abs(x), y - self.at("rib_y", z) - 12 * self.size)
        turn = (z / self.height_mm + RIB_DROP * angle) / RIB_PITCH
        off = (turn - np.rint(turn)) * (RIB_PITCH * self.height_mm)
        thick, high = 4.3 * self.size, 6.8 * self.size
        rho = np.sqrt(((cage + 5.6 * self.size) / thick) ** 2 + (off / high) ** 2)
        return (1 - rho) * thick, angle

    def diaphragm(self, x, y, z) -> np.ndarray:
        """Depth above the domes of the diaphragm; the right one stands higher."""
        left = x > 0
        top = np.where(left, np.float32(52), np.float32(66)) * (self.height_mm / 240)
        u = (np.abs(x) - 64 * self.size) / (78 * self.size)
        v = (y + 18 * self.size) / (112 * self.size)
        dome = top * np.maximum(1 - u * u - v * v, 0) * 1.08
        return (z - dome) * 0.75

    def heart(self, x, y, z) -> np.ndarray:
        """Depth in heart and atria."""
        s, h = self.size, self.height_mm
        main = ellipsoid(x, y, z, (26 * s, -45 * s, 0.31 * h), (57 * s, 43 * s, 54 * h / 240), -25)
        atria = ellipsoid(x, y, z, (2 * s, -8 * s, 0.40 * h), (36 * s, 25 * s, 30 * h / 240), 4)
        return np.maximum(main, atria)

    def spine(self, x, y, z) -> np.ndarray:
        """Depth in the vertebral column without its processes."""
        s = self.size
        return ring(x, y - self.at("spine_y", z), 18.5 * s, 15 * s, 2.3)

    def mediastinum(self, x, y, z) -> np.ndarray:
        """Depth in what lies between the lungs, with a little fat around."""
        s, h = self.size, self.height_mm
        # Fat fills the grooves between the organs.
        depth = smooth_max(self.left_tubes.depth(x, y, z) + 2.5,
                         self.right_tubes.depth(x, y, z) + 2.5, REACH_MM)
        depth = smooth_max(depth, self.heart(x, y, z) + 3.5, REACH_MM)
        core = ellipsoid(x, y, z, self.place(1, 4, .80), (25 * s, 33 * s, 0.36 * h))
        depth = smooth_max(depth, core, REACH_MM)
        # The sheet of fat behind the sternum, wider at the heart.
        spine_y = self.at("spine_y", z)
        half = s * table_value(z / h, (0, .25, .5, .7, .9, 1), (12, 7, 3, 4, 8, 8))
        sheet = smooth_min(half - np.abs(x - 5 * s), spine_y - y, 8)
        depth = smooth_max(depth, sheet, 6)
        # The column, and what lies behind it between the ribs' heads.
        behind = smooth_min(11 * s + 0.4 * (y - spine_y) - np.abs(x), y - spine_y, 8)
        return smooth_max(depth, np.maximum(self.spine(x, y, z) + 2.5, behind), 8)

    def pleura(self, x, y, z) -> np.ndarray:
        """Depth in the two domes under the ribs and above the diaphragm, mediastinum included."""
        u = np.abs(x) - self.at("lung_x", z)
        # Towards the middle the dome is wide: there the mediastinum is the border.
        dome = ring(np.where(u < 0, 0.75 * u, u), y - self.at("lung_y", z),
                    self.at("lung_a", z), self.at("lung_b", z), 2.4)
        depth = smooth_min(dome, self.cage(x, y, z), 6)
        return smooth_min(depth, self.diaphragm(x, y, z), 5)

    def cavity(self, x, y, z) -> np.ndarray:
        """Depth in the pleural cavities; x < 0 is the right one."""
        return smooth_min(self.pleura(x, y, z), -self.mediastinum(x, y, z), 4)

    def fluid(self, x, y, z, effusion_mm: tuple[float, float]) -> np.ndarray:
        """Depth in what the lungs leave free when pleural fluid lifts them from the back.

        The fluid is where this and `cavity` are positive. `effusion_mm` is its depth at the right
        and at the left base.
        """
        shape = np.broadcast_shapes(np.shape(x), np.shape(y), np.shape(z))
        free = np.full(shape, -99, np.float32)
        for at_base, half in zip(effusion_mm, (x < 0, x >= 0), strict=True):
            rest = np.clip(1 - z / (70 + 2.2 * at_base), 0, 1)
            if at_base <= 0 or not np.any(rest):
                continue
            shift = (at_base * rest**0.8).astype(np.float32)
            lifted = np.minimum(-self.pleura(x, y + shift, z), y + 30 * self.size)
            free = np.where(half & (shift > 0), lifted, free)
        return free
