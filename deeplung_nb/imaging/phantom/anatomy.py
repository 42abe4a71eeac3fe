"""The anatomy of a synthetic chest, as formulas in millimetres.

Every organ is a *depth*: a function of position that is positive inside, zero on the surface and
roughly in mm. So a chest can be sampled on any grid, and its proportions do not depend on the
voxel size.

Axes: x to the patient's left, y to the back, z to the head; x = y = 0 in the middle of the chest,
z = 0 at the lowest rim of the lungs. The proportions are those of an adult at full inspiration,
set by eye against ordinary CTs.

The tables describe a straight chest of ordinary depth. `Chest.straight` says where a point of a
person's chest lies in it; every other method takes such points.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from deeplung_nb.imaging.shapes import (
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
    "rib_y": (3, 3, 2, 0, 1, 5, 12, 17, 19, 19),
    # One half of it: centre and half widths of the lung's own dome.
    "lung_x": (66, 66, 66, 66, 63, 56, 48, 43, 41, 41),
    "lung_a": (64, 66, 68, 68, 63, 53, 40, 26, 4, -30),
    "lung_b": (93, 100, 104, 105, 101, 87, 63, 36, 6, -30),
    "lung_y": (5, 5, 4, 2, 3, 8, 16, 21, 23, 23),
    "spine_y": (46, 50, 54, 56, 56, 54, 48, 42, 38, 28),
    # Muscle beside and before the ribs; the skin follows further out.
    "muscle_a": (4, 4, 5, 9, 20, 38, 58, 76, 85, 92),
    "muscle_b": (3, 3, 3, 5, 9, 13, 16, 18, 20, 22),
}
FINE_LEVELS = np.linspace(LEVELS[0], LEVELS[-1], 141)
FINE_PROFILES = {name: PchipInterpolator(LEVELS, values)(FINE_LEVELS)
                 for name, values in PROFILES.items()}
"""Without kinks at the heights of the tables."""
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
# Blood of each chamber: centre (x, y, level), semi-axes and the wall around it, mm; turn, degrees.
CHAMBERS = {
    "left ventricle": ((48, -36, .285), (28, 19, 37), 9.5, -32),
    "right ventricle": ((9, -60, .31), (40, 15, 37), 4.0, -22),
    "right atrium": ((-23, -35, .37), (17, 25, 31), 3.0, 0),
    "left atrium": ((2, -8, .41), (33, 20, 24), 3.0, 4),
    "outflow": ((14, -44, .43), (17, 15, 30), 3.5, 0),
}
AZYGOS = (((-9, 44, 0, 3.5), (-9, 42, .3, 3.8), (-8, 38, .56, 4), (-15, 28, .66, 4.5),
           (-21, 2, .67, 4.8), (-23, -12, .66, 5)),)
# Socket of the shoulder, spine of the blade, head of the arm: centre, semi-axes mm, turn degrees.
SHOULDER = (((122, 22, 1.0), (15, 9, 22), 35), ((104, 46, .95), (40, 5, 16), -24),
            ((143, 8, 1.05), (22, 21, 27), 0))
LOBES = ("right upper", "right middle", "right lower", "left upper", "left lower")
"""Names of the codes 1 to 5 of `Chest.lobes`."""
HILA = {-1: (-46, 10, .52), 1: (49, 12, .535)}
RIB_PITCH, RIB_DROP = 0.094, 0.175
"""Distance between ribs, and how far a rib descends per radian from back to front (of height)."""
WALL_MM = 11.5
"""From the inner surface of the ribs to the muscles over them."""


def lobe_codes(x, oblique: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """uint8 codes of lobes from depths above the fissures: see `Chest.fissures`."""
    right = np.where(oblique <= 0, 3, np.where(flat > 0, 1, 2))
    return np.where(x <= 0, right, np.where(oblique > 0, 4, 5)).astype(np.uint8)


@dataclass(frozen=True)
class Chest:
    """One person's proportions.

    `size` scales the chest (1: a man of middle height), `height_mm` is the lungs' height, `fat_mm`
    the layer under the skin, `breast_mm` adds breasts. `depth` makes it deeper from front to back
    than others of its size, `heart` scales the heart, `lean_mm` is how far the spine bows aside.
    """

    size: float = 1.0
    height_mm: float = 240.0
    fat_mm: float = 14.0
    breast_mm: float = 0.0
    depth: float = 1.0
    heart: float = 1.0
    lean_mm: float = 0.0

    def _lean(self, z):
        return self.lean_mm * np.sin(np.float32(5.0 / self.height_mm) * z + np.float32(0.6))

    def straight(self, x, y, z):
        """(x, y, z) of this person in the straight chest of the tables."""
        return x - self._lean(z), y / self.depth, z

    def bent(self, points: np.ndarray) -> np.ndarray:
        """The inverse of `straight`, of points [..., 3]."""
        x, y, z = np.moveaxis(np.asarray(points, float), -1, 0)
        return np.stack((x + self._lean(z), y * self.depth, z), axis=-1)

    def at(self, name: str, z):
        """A profile's value at height z, mm."""
        level = np.asarray(z) / self.height_mm
        return table_value(level, FINE_LEVELS, FINE_PROFILES[name]) * self.size

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
        inner = self.at("rib_a", z) + WALL_MM * self.size + self.at("muscle_a", z)
        return float(1.06 * inner.max() + self.fat_mm + abs(self.lean_mm))

    def body(self, x, y, z, without_mm: float = 0.0) -> np.ndarray:
        """Depth under the skin, or under the fat (`without_mm` less); flat where it lies."""
        wall = WALL_MM * self.size
        a = self.at("rib_a", z) + wall + self.at("muscle_a", z) + self.fat_mm - without_mm
        b = self.at("rib_b", z) + wall - 1 + self.at("muscle_b", z) + self.fat_mm - without_mm
        # Flatter and broader at the back, where it lies on the table.
        back = b - 0.35 * (self.fat_mm - without_mm)
        y0 = y - self.at("rib_y", z)
        by_height = 0.06 * table_value(z / self.height_mm, (0.2, 0.6), (0.3, 1.0))
        broad = 1 + by_height * np.tanh(y0 / 50)
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
        v = (y + 32 * self.size) / (112 * self.size)
        dome = top * np.maximum(1 - u * u - v * v, 0) * 1.08
        return (z - dome) * 0.75

    def chambers(self, x, y, z) -> list[tuple[np.ndarray, float]]:
        """(depth in its blood, wall in mm) of each chamber of the heart."""
        s = self.size * self.heart
        return [(ellipsoid(x, y, z, self.place(*centre),
                           (axes[0] * s, axes[1] * s, axes[2] * s * self.height_mm / 240), turn),
                 wall) for centre, axes, wall, turn in CHAMBERS.values()]

    @staticmethod
    def muscle(chambers: list[tuple[np.ndarray, float]], blend_mm: float) -> np.ndarray:
        """Depth in the walls around chambers, the grooves between them filled over `blend_mm`."""
        walls = [depth + wall for depth, wall in chambers]
        return functools.reduce(lambda a, b: smooth_max(a, b, blend_mm), walls)

    def pericardium(self, x, y, z) -> np.ndarray:
        """Depth in the sac around the heart, with the fat in it."""
        return self.muscle(self.chambers(x, y, z), 20.0) + 3.5

    def fissures(self, x, y, z) -> tuple[np.ndarray, np.ndarray]:
        """Depths above the oblique and above the horizontal fissure, mm.

        The oblique one falls from the fifth vertebra to the front of the diaphragm, a little
        steeper on the left; the horizontal one is the right lung's, in front of it.
        """
        v, steep = y / self.size, np.where(x > 0, np.float32(0.0050), np.float32(0.0045))
        level = 0.35 + steep * v - np.float32(4e-4 / self.size) * np.abs(x)
        slope = 0.0048 * self.height_mm / self.size
        oblique = (z - level * self.height_mm) / math.sqrt(1 + slope * slope)
        flat = z - (0.515 + 5e-4 * v) * self.height_mm
        return oblique, flat + 0 * x

    def lobes(self, x, y, z) -> np.ndarray:
        """Codes 1 to 5 (`LOBES`) of the lobe to which a place belongs, within a lung."""
        oblique, flat = self.fissures(x, y, z)
        return lobe_codes(x, oblique, flat)

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
        depth = smooth_max(depth, self.pericardium(x, y, z), REACH_MM)
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

    def liver(self, x, y, z) -> np.ndarray:
        """Depth in the liver, if it reached from the diaphragm down without end."""
        s = self.size
        below = np.minimum(-self.diaphragm(x, y, z) - 1.2, self.cage(x, y, z) - 2)
        # The left lobe crosses the middle in front.
        return np.minimum(below, 0.75 * (20 * s - x - 0.8 * (y + 22 * s)))

    def fluid(self, x, y, z, effusion_mm: tuple[float, float], bulge_mm=0.0) -> np.ndarray:
        """Depth in what the lungs leave free when pleural fluid lifts them from the back.

        The fluid is where this and `cavity` are positive. `effusion_mm` is its depth at the right
        and at the left base, `bulge_mm` how far the pleura strays outwards from `pleura`.
        """
        shape = np.broadcast_shapes(np.shape(x), np.shape(y), np.shape(z))
        free = np.full(shape, -99, np.float32)
        for at_base, half in zip(effusion_mm, (x < 0, x >= 0), strict=True):
            rest = np.clip(1 - z / (70 + 2.2 * at_base), 0, 1)
            if at_base <= 0 or not np.any(rest):
                continue
            shift = (at_base * rest**0.8).astype(np.float32)
            lifted = np.minimum(-self.pleura(x, y + shift, z) - bulge_mm, y + 30 * self.size)
            free = np.where(half & (shift > 0), lifted, free)
        return free
