"""Draws a synthetic chest slice by slice: what a perfect scanner would see, without its lesions.

Structures are laid over one another from the outside in; each replaces what is under it by the part
of the voxel that it covers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from deeplung_nb.imaging.phantom import anatomy
from deeplung_nb.imaging.phantom.spec import PhantomSpec
from deeplung_nb.imaging.shapes import (
    Field,
    Tubes,
    covered,
    ellipsoid,
    grow_tree,
    ring,
    smooth_min,
)


def mix(hu: np.ndarray, part: np.ndarray, value) -> None:
    hu += part * (value - hu)


def _bone(hu, depth, edge: float, marrow=150.0, cortex: float = 480.0) -> None:
    """Marrow within a shell of cortex."""
    part = covered(depth, edge)
    mix(hu, part, marrow + cortex * np.exp(-((np.maximum(depth, 0) / 1.5) ** 2)))


class Anatomy(NamedTuple):
    """One slice as painted: HU before the scanner, and depths in mm."""

    hu: np.ndarray
    cavity: np.ndarray
    """In the pleural cavity."""
    fluid: np.ndarray
    """In pleural fluid."""
    lobes: np.ndarray
    """uint8 codes of `anatomy.LOBES`, everywhere."""
    vessels: np.ndarray
    """Part of each voxel that the lungs' vessels cover."""


class _Plane(NamedTuple):
    """A slice being painted: straight coordinates, and the random fields on it."""

    hu: np.ndarray
    x: np.ndarray
    y: np.ndarray
    z: float
    level: float
    coarse: np.ndarray
    fine: np.ndarray
    grain: np.ndarray
    cage: np.ndarray


class Painter:
    """Draws one phantom slice by slice; holds what all slices share."""

    def __init__(self, spec: PhantomSpec) -> None:
        self.spec = spec
        self.chest = chest = spec.chest
        self.rng = np.random.default_rng(spec.seed)
        self.z, self.y_axis, self.x_axis = spec.positions_mm()
        self.edge = max(spec.spacing_mm[2], 0.8)
        self.level = self.z / spec.chest.height_mm
        under = np.arange(60, 240, dtype=np.float32)
        self.back_mm = max(
            float(under[chest.body(*chest.straight(0 * under, under, float(z))) > 0].max())
            for z in np.linspace(0, 0.8, 5) * spec.chest.height_mm)
        self.coarse, self.fine = Field.random(self.rng, 26.0), Field.random(self.rng, 9.0)
        self.clumps, self.grain = Field.random(self.rng, 14.0), Field.random(self.rng, 4.5)
        self.aorta = chest.tubes(anatomy.AORTA, *anatomy.ARCH_BRANCHES)
        self.venous = chest.tubes(*anatomy.PULMONARY, *anatomy.VENA_CAVA[:3])
        self.cava = chest.tubes(anatomy.VENA_CAVA[3], *anatomy.AZYGOS)
        self.oesophagus = chest.tubes(anatomy.OESOPHAGUS)
        self.trachea = chest.tubes(*anatomy.TRACHEA)
        self.clavicles = chest.tubes(*anatomy.CLAVICLES)
        shape = (spec.n_slices, spec.size, spec.size)
        self.vessels, self.walls = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.lumen, self.liver_vessels = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.nodes, self.plaques = self._small_things()
        self._grow()

    def _small_things(self) -> tuple[Tubes, Tubes]:
        """Lymph nodes between the great vessels, and chalk in the wall of the aorta."""
        s, h, rng = self.chest.size, self.chest.height_mm, self.rng
        low, high = np.array((-24, -12, .56)), np.array((22, 32, .82))
        at = rng.uniform(low, high, (9, 3)) * (s, s, h)
        turn = rng.uniform(-6, 6, (9, 3)) * (s, s, 0.4)
        radius = rng.uniform(2.0, 4.2, 9) * s
        nodes = Tubes(at, at + turn, radius, radius * 0.8)
        segment = rng.integers(len(self.aorta.start), size=rng.integers(0, 9))
        along, angle = rng.uniform(size=(2, len(segment), 1))
        span = (self.aorta.end - self.aorta.start)[segment]
        centre = self.aorta.start[segment] + along * span
        wide = self.aorta.start_radius[segment][:, None]
        beside = np.hstack((np.cos(2 * np.pi * angle), np.sin(2 * np.pi * angle), 0 * angle))
        place = centre + (wide - 1) * beside
        size = rng.uniform(1.2, 2.2, len(segment)) * s
        return nodes, Tubes(place, place + (0, 0, 3.0), size, size)

    def _grow(self) -> None:
        """Vessels and airways from the hila to the pleura; vessels of the liver."""
        chest, rng = self.chest, self.rng
        s, h = chest.size, chest.height_mm
        slab = min(0.5 * self.spec.spacing_mm[0], 3.0)
        axes = (self.z, self.y_axis, self.x_axis, self.edge, slab)
        for side in (-1, 1):
            low = np.array((0 if side > 0 else -140 * s, -100 * s, 0))
            high = np.array((140 * s if side > 0 else 0, 100 * s, h))
            points = rng.uniform(low, high, (6000, 3))
            depth = chest.cavity(*points.T)
            root = chest.bent(chest.place(*anatomy.HILA[side]))
            inner, deep = chest.bent(points[depth > 4]), chest.bent(points[depth > 14])
            for start, n, tip in ((root, 900, 0.60), (root + np.array((0, 2, -12)), 600, 0.56)):
                tree = grow_tree(rng, start, rng.permutation(inner)[:n], tip * s)
                tree.paint(self.vessels, *axes)
            tree = grow_tree(rng, root + np.array((0, 4, 2)), rng.permutation(deep)[:60], 0.62 * s,
                             murray=2.5)
            tree.paint(self.walls, *axes, 0.5 * s)
            tree.paint(self.lumen, *axes)
        low, high = np.array((-120 * s, -90 * s, -40)), np.array((40 * s, 70 * s, 70))
        points = rng.uniform(low, high, (1500, 3))
        points = points[chest.liver(*points.T) > 6]
        for place in ((-30, 5, 10), (-26, -8, 30)):
            tree = grow_tree(rng, chest.bent(np.array(place) * s), chest.bent(points[:90]), 0.9 * s)
            tree.paint(self.liver_vessels, *axes)

    def fissures(self, z: float, y_axis: np.ndarray, x_axis: np.ndarray):
        """Depths above the oblique and the horizontal fissure of this person, [y, x]."""
        x, y, _ = self.chest.straight(x_axis[None, :], y_axis[:, None], z)
        stray = np.float32(3.0) * self.coarse(z, y_axis, x_axis)
        oblique, flat = self.chest.fissures(x, y, np.float32(z))
        return oblique + stray, flat + stray

    def slice(self, k: int) -> Anatomy:
        """One slice of the chest, its vessels, airways and lesions not yet drawn."""
        z, edge, chest = float(self.z[k]), self.edge, self.chest
        x, y, _ = chest.straight(self.x_axis[None, :], self.y_axis[:, None], z)
        hu = np.full((y.size, x.size), -1000, np.float32)
        fields = (f(z, self.y_axis, self.x_axis) for f in (self.coarse, self.fine, self.grain))
        at = _Plane(hu, x, y, z, float(self.level[k]), *fields, chest.cage(x, y, z))
        body = self._wall(at)
        self._abdomen(at, k)
        rib = self._skeleton(at, body)
        self._mediastinum(at)
        # The pleura bulges between the ribs and strays a little everywhere.
        smooth = chest.cavity(x, y, z)
        bulge = 1.2 * at.coarse + 0.6 * at.fine - 0.25 * np.clip(rib + 7, 0, 7)
        cavity = np.minimum(smooth + bulge, at.cage + 0.5)
        free = chest.fluid(x, y, np.float32(z), self.spec.effusion_mm, bulge)
        oblique, flat = self.fissures(z, self.y_axis, self.x_axis)
        air = self._air(at, cavity, oblique, flat)
        mix(air, covered(free, edge), np.float32(12))
        mix(hu, covered(cavity, edge), air)
        # No vessel crosses a fissure.
        gap = np.where((x < 0) & (oblique > 0), smooth_min(np.abs(oblique), np.abs(flat), 2),
                       np.abs(oblique))
        vessels = self.vessels[k] * (1 - 0.85 * np.exp(-((gap / 5) ** 2)))
        lobes = anatomy.lobe_codes(x, oblique, flat)
        return Anatomy(hu, cavity, np.minimum(cavity, free), lobes, vessels)

    def _air(self, at: _Plane, cavity, oblique, flat) -> np.ndarray:
        """HU of aerated lung, with the fissures in it."""
        spec = self.spec
        # Gravity makes the dependent lung denser; emphysema thins it in clumps.
        air = -868 + 0.28 * (at.y + 20) + 9 * at.coarse + 6 * at.fine + 11 * at.grain
        if spec.dependent_hu:
            low = np.clip((at.y - 15) / 60, 0, 1) * np.exp(-np.clip(cavity, 0, None) / 7)
            air += np.float32(spec.dependent_hu) * low
        if spec.emphysema:
            thin = covered(self.clumps(at.z, self.y_axis, self.x_axis) - 0.3, 1)
            air -= 90 * spec.emphysema * thin
        # A sheet of half a millimetre, seen through the thickness of a slice.
        seen = 0.8 * self.edge + 0.12 * spec.spacing_mm[0]
        sheet = np.exp(-((oblique / seen) ** 2))
        flat_seen = 0.5 * spec.spacing_mm[0]  # lies almost in the slice
        sheet = np.maximum(sheet, 0.6 * np.exp(-((flat / flat_seen) ** 2))
                           * ((at.x < 0) & (oblique > 0)))
        return air + np.float32(260 / (1 + 0.5 * seen)) * sheet

    def _wall(self, at: _Plane) -> np.ndarray:
        """Skin, fat and muscle, and the table; the depth under the skin comes back."""
        hu, x, y, z, edge, chest = at.hu, at.x, at.y, at.z, self.edge, self.chest
        s = chest.size
        body = chest.body(x, y, z) + 1.5 * at.coarse
        if chest.breast_mm:
            for side in (-1, 1):
                breast = ellipsoid(
                    x, y, z, chest.place(side * 72, -104 - 0.4 * chest.fat_mm, 0.36),
                    (62 * s, chest.breast_mm, 0.3 * chest.height_mm), side * 12)
                body = np.maximum(body, breast)
        mix(hu, covered(body, edge), -102 + 7 * at.fine + 5 * at.grain)
        mix(hu, covered(2.0 - np.abs(body - 1.2), edge), np.float32(5))
        muscle = chest.body(x, y, z, chest.fat_mm) + 3.5 * at.coarse
        layer = covered(muscle, edge)
        # Sheets of fat between the muscles, following the ribs at three depths.
        for depth_mm, width in ((16.5, 1.5), (30, 2.2), (50, 2.5)):
            gap = width + 1.6 * at.fine - np.abs(at.cage + depth_mm + 4 * at.coarse)
            layer *= 1 - 0.85 * covered(gap, 2 * edge) * (at.cage < -11)
        # The armpits: fat between the muscles of chest and shoulder blade.
        for side in (-1, 1):
            pit = ellipsoid(x, y, z, chest.place(side * 122, -8, 0.93), (26 * s, 22 * s, 52), 0)
            layer *= 1 - 0.9 * covered(pit + 3 * at.fine, 3 * edge)
        mix(hu, layer, 52 + 6 * at.fine + 8 * at.grain)
        self._table(hu)
        return body

    def _table(self, hu: np.ndarray) -> None:
        """Two curved shells under the patient."""
        x, y = self.x_axis[None, :], self.y_axis[:, None]
        for below, bow, value in ((3, 900, -150), (20, 520, -60)):
            line = self.back_mm + below - x**2 / bow * 0.5
            shell = covered(1.3 - np.abs(y - line), self.edge) * (np.abs(x) < 205)
            mix(hu, shell * (hu < -500), np.float32(value))

    def _abdomen(self, at: _Plane, k: int) -> None:
        """Fat within the ribs; liver, stomach, spleen and kidneys under the diaphragm."""
        chest, hu, x, y, z, edge = self.chest, at.hu, at.x, at.y, at.z, self.edge
        s, contrast = chest.size, self.spec.contrast
        mix(hu, covered(at.cage, edge), -100 + 8 * at.coarse + 5 * at.grain)
        if at.level > 0.36:
            return
        texture = 4 * at.fine + 5 * at.grain
        below = np.minimum(-chest.diaphragm(x, y, z) - 1.2, at.cage - 2)
        # The muscle of the diaphragm, then what it covers.
        mix(hu, covered(np.minimum(below, 2.5 - below), edge) * 0.8, np.float32(45))
        for side in (-1, 1):
            kidney = np.minimum(below - 6, ellipsoid(
                x, y, z, (side * 52 * s, 62 * s, -34), (27 * s, 24 * s, 46), side * 25))
            mix(hu, covered(kidney, edge), np.float32(150 if contrast else 33) + texture)
        liver = smooth_min(chest.liver(x, y, z) + 3 * at.coarse, below, 3)
        inside = covered(liver, edge)
        mix(hu, inside, np.float32(98 if contrast else 58) + texture)
        mix(hu, inside * self.liver_vessels[k], np.float32(150 if contrast else 38))
        spleen = np.minimum(below, ellipsoid(
            x, y, z, (88 * s, 40 * s, -5), (44 * s, 48 * s, 60), 20) + 3 * at.coarse)
        mix(hu, covered(spleen, edge),
            np.float32(112 if contrast else 49) + texture * (3 if contrast else 1))
        stomach = np.minimum(below - 3, ellipsoid(
            x, y, z, (62 * s, -28 * s, -8), (44 * s, 42 * s, 62), 10) + 4 * at.coarse)
        mix(hu, covered(stomach, edge), np.float32(42))
        mix(hu, covered(stomach - 4, edge), 25 + 18 * at.fine)
        gas = np.minimum(stomach - 4.5, -(y + 34 * s))
        mix(hu, covered(gas, edge), np.float32(-960))

    def _skeleton(self, at: _Plane, body) -> np.ndarray:
        """Ribs, spine, breastbone, shoulders; the depth in the ribs comes back."""
        chest, hu, x, y, edge, level = self.chest, at.hu, at.x, at.y, self.edge, at.level
        s = chest.size
        rib, angle = chest.rib_phase(x, y, at.z, at.cage)
        mix(hu, covered(5 * s - np.abs(at.cage + 5.6 * s), edge), np.float32(50))
        front = angle > 2.55 - 0.5 * (level < 0.35)
        _bone(hu, np.where(front | (angle < 0.32), -9, rib), edge)
        mix(hu, covered(np.where(front, rib + 0.6, -9), edge), np.float32(115))
        # Back muscles beside the spine.
        y0 = chest.at("spine_y", at.z)
        for side in (-1, 1):
            erector = ring(x - side * 25 * s, y - y0 - 43 * s, 23 * s, 16 * s, 2.3)
            mix(hu, covered(np.minimum(erector + 1.2 * at.fine, body - 5), edge),
                54 + 10 * at.grain)
        phase = (level / anatomy.RIB_PITCH) % 1.0
        column = chest.spine(x, y, at.z)
        if phase < 0.18:  # a disc
            mix(hu, covered(column, edge), np.float32(85))
        else:
            _bone(hu, column, edge, 165 + 25 * at.fine + 35 * at.grain, 260)
        arch = ring(x, y - y0 - 22 * s, 15 * s, 12.5 * s, 2.2)
        process = np.minimum(3.4 * s - np.abs(x), np.minimum(y - y0 - 30 * s, y0 + 56 * s - y))
        wings = np.minimum(4.2 * s - np.abs(y - y0 - 26 * s - 0.28 * np.abs(x)),
                           36 * s - np.abs(x)) - (0 if phase < 0.6 else 9)
        behind = np.minimum(np.maximum(np.maximum(arch, process), wings), body - 5)
        _bone(hu, behind, edge, 230, 300)
        canal = ring(x, y - y0 - 21.5 * s, 9.5 * s, 8 * s, 2.0)
        mix(hu, covered(canal, edge), np.float32(18))
        mix(hu, covered(canal - 3.5 * s, edge), np.float32(38))
        if 0.36 < level < 0.9:
            y1 = -float(chest.at("rib_b", at.z)) + float(chest.at("rib_y", at.z)) - 6 * s
            wide = (15 if level < 0.72 else 24) * s
            _bone(hu, ring(x, y - y1, wide, 6.5 * s, 3.0), edge, 120)
        self._shoulders(at, angle, body)
        _bone(hu, self.clavicles.depth(x, y, at.z), edge)
        return rib

    def _shoulders(self, at: _Plane, angle: np.ndarray, body: np.ndarray) -> None:
        """Blades with their spines, sockets and the heads of the arms, which are raised."""
        chest, s, level = self.chest, self.chest.size, at.level
        if not 0.48 < level < 1.2:
            return
        parts = []
        if level < 1.05:
            out = -at.cage - (25 + 12 * (angle - 1.2)) * s
            thick = 2.2 * s + 3 * s * covered(level - 0.88, 0.1)
            parts.append(np.minimum(thick - np.abs(out),
                                    60 * s * np.minimum(angle - 0.75, 1.5 - angle)))
        if level > 0.8:
            for side in (-1, 1):
                x = at.x * side
                parts += [
                    ellipsoid(x, at.y, at.z, chest.place(*centre), (a * s, b * s, c), turn)
                    for centre, (a, b, c), turn in anatomy.SHOULDER]
        depth = np.minimum(np.maximum.reduce(parts), body - 4)
        _bone(at.hu, depth, self.edge, 200 + 40 * at.grain, 330)

    def _mediastinum(self, at: _Plane) -> None:
        chest, hu, x, y, z, edge = self.chest, at.hu, at.x, at.y, at.z, self.edge
        s, h, contrast = chest.size, chest.height_mm, self.spec.contrast
        muscle, left, right = (115, 285, 320) if contrast else (50, 41, 41)
        blood = {"left ventricle": left, "left atrium": left, "outflow": left}
        inlet = ellipsoid(x, y, z, (0, 12 * s, 1.06 * h), (46 * s, 34 * s, 0.22 * h))
        mix(hu, 0.75 * covered(inlet + 3 * at.fine, 2 * edge), np.float32(50))
        if at.level < 0.62:
            chambers = chest.chambers(x, y, z)
            # Fat in the sac around the heart and in the grooves between its chambers.
            sac = chest.muscle(chambers, 20.0) + 3.5
            mix(hu, covered(sac, edge), -98 + 6 * at.fine)
            mix(hu, covered(1.0 - np.abs(sac - 0.8), edge) * 0.7, np.float32(5))
            mix(hu, covered(chest.muscle(chambers, 5.0), edge), muscle + 6 * at.fine)
            for name, (depth, _) in zip(anatomy.CHAMBERS, chambers, strict=True):
                mix(hu, covered(depth, 3 * edge), np.float32(blood.get(name, right)))
        mix(hu, covered(self.nodes.depth(x, y, z), edge), np.float32(45))
        mix(hu, covered(self.cava.depth(x, y, z), edge), np.float32(150 if contrast else 42))
        mix(hu, covered(self.venous.depth(x, y, z), edge), np.float32(right))
        aorta = self.aorta.depth(x, y, z)
        mix(hu, covered(1.2 - np.abs(aorta + 0.8), edge), np.float32(-10))
        mix(hu, covered(aorta, edge), np.float32(left))
        mix(hu, covered(self.plaques.depth(x, y, z), edge), np.float32(520))
        oesophagus = self.oesophagus.depth(x, y, z)
        mix(hu, covered(oesophagus, edge), np.float32(36))
        if math.sin(0.11 * z) > 0.4:  # a little air here and there
            mix(hu, covered(oesophagus - 4, edge), np.float32(-500))
        airway = self.trachea.depth(x, y, z)
        mix(hu, covered(airway + 1.6, edge), np.float32(40))
        mix(hu, covered(airway, edge), np.float32(-985))
