"""Draws a synthetic chest slice by slice: what a perfect scanner would see, without lesions' HU.

Structures are laid over one another from the outside in; each replaces what is under it by the part
of the voxel that it covers.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from deeplung_nb.imaging.phantom import anatomy
from deeplung_nb.imaging.phantom.shapes import Field, covered, ellipsoid, grow_tree, ring
from deeplung_nb.imaging.phantom.spec import Lesion, PhantomSpec


def mix(hu: np.ndarray, part: np.ndarray, value) -> None:
    hu += part * (value - hu)


def _bone(hu, depth, edge: float, marrow=150.0, cortex: float = 480.0) -> None:
    """Marrow within a shell of cortex."""
    part = covered(depth, edge)
    mix(hu, part, marrow + cortex * np.exp(-((np.maximum(depth, 0) / 1.5) ** 2)))


class Painter:
    """Draws one phantom slice by slice; holds what all slices share."""

    def __init__(self, spec: PhantomSpec) -> None:
        self.spec, self.chest = spec, spec.chest
        self.rng = np.random.default_rng(spec.seed)
        self.z, y, x = spec.positions_mm()
        self.y_axis, self.x_axis, self.y, self.x = y, x, y[:, None], x[None, :]
        self.edge = max(spec.spacing_mm[2], 0.8)
        under = np.arange(60, 220, dtype=np.float32)
        self.back_mm = max(float(under[spec.chest.body(0 * under, under, float(z)) > 0].max())
                           for z in np.linspace(0, 0.8, 5) * spec.chest.height_mm)
        self.coarse, self.fine = Field.random(self.rng, 26.0), Field.random(self.rng, 9.0)
        self.clumps = Field.random(self.rng, 14.0)
        chest = self.chest
        self.aorta = chest.tubes(anatomy.AORTA, *anatomy.ARCH_BRANCHES)
        self.venous = chest.tubes(*anatomy.PULMONARY, *anatomy.VENA_CAVA[:3])
        self.cava = chest.tubes(anatomy.VENA_CAVA[3])
        self.oesophagus = chest.tubes(anatomy.OESOPHAGUS)
        self.trachea = chest.tubes(*anatomy.TRACHEA)
        self.clavicles = chest.tubes(*anatomy.CLAVICLES)
        shape = (spec.n_slices, spec.size, spec.size)
        self.vessels, self.walls = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.lumen = np.zeros(shape, np.float32)
        self._grow()

    def _grow(self) -> None:
        """Vessels and airways from the hila to the pleura."""
        chest, rng = self.chest, self.rng
        s, h = chest.size, chest.height_mm
        slab = min(0.5 * self.spec.spacing_mm[0], 3.0)
        axes = (self.z, self.y_axis, self.x_axis, self.edge, slab)
        for side in (-1, 1):
            low = np.array((0 if side > 0 else -140 * s, -100 * s, 0))
            high = np.array((140 * s if side > 0 else 0, 100 * s, h))
            points = rng.uniform(low, high, (6000, 3))
            depth = chest.cavity(*points.T)
            root = chest.place(*anatomy.HILA[side])
            inner = points[depth > 4]
            for start, n, tip in ((root, 900, 0.60), (root + np.array((0, 2, -12)), 600, 0.56)):
                tree = grow_tree(rng, start, rng.permutation(inner)[:n], tip * s)
                tree.paint(self.vessels, *axes)
            deep = rng.permutation(points[depth > 14])[:60]
            tree = grow_tree(rng, root + np.array((0, 4, 2)), deep, 0.62 * s, murray=2.5)
            tree.paint(self.walls, *axes, 0.5 * s)
            tree.paint(self.lumen, *axes)

    def slice(self, k: int):
        """One slice: (hu before the scanner, depth in the pleural cavity, depth in its fluid)."""
        z, x, y, edge, chest = float(self.z[k]), self.x, self.y, self.edge, self.chest
        hu = np.full((len(y), x.shape[1]), -1000, np.float32)
        cage = chest.cage(x, y, z)
        coarse, fine = (f(z, self.y_axis, self.x_axis) for f in (self.coarse, self.fine))
        body = self._wall(hu, z, cage, coarse, fine)
        self._abdomen(hu, z, cage, coarse)
        self._skeleton(hu, z, cage, body, fine)
        self._mediastinum(hu, z, fine)
        cavity = chest.cavity(x, y, z)
        free = chest.fluid(x, y, np.float32(z), self.spec.effusion_mm)
        # Gravity makes the dependent lung denser; emphysema thins it in clumps.
        air = -868 + 0.28 * (y + 20) + 9 * coarse + 6 * fine
        if self.spec.emphysema:
            thin = covered(self.clumps(z, self.y_axis, self.x_axis) - 0.3, 1)
            air -= 90 * self.spec.emphysema * thin
        mix(air, covered(free, edge), np.float32(12))
        mix(hu, covered(cavity, edge), air)
        fluid = np.minimum(cavity, free)
        return hu, cavity, fluid

    def _wall(self, hu, z, cage, coarse, fine) -> np.ndarray:
        """Skin, fat and muscle, and the table; the depth under the skin comes back."""
        x, y, edge, chest = self.x, self.y, self.edge, self.chest
        body = chest.body(x, y, z)
        if chest.breast_mm:
            h, s = chest.height_mm, chest.size
            for side in (-1, 1):
                breast = ellipsoid(
                    x, y, z, chest.place(side * 72, -104 - 0.4 * chest.fat_mm, 0.36),
                    (62 * s, chest.breast_mm, 0.3 * h), side * 12)
                body = np.maximum(body, breast)
        mix(hu, covered(body, edge), -102 + 7 * fine)
        mix(hu, covered(2.0 - np.abs(body - 1.2), edge), np.float32(5))
        muscle = chest.body(x, y, z, chest.fat_mm) + 2.0 * coarse
        layer = covered(muscle, edge)
        # Sheets of fat between the muscles, following the ribs at two depths.
        for depth_mm, width in ((16.5, 1.5), (30, 2.2), (50, 2.5)):
            gap = width + 1.6 * fine - np.abs(cage + depth_mm + 3 * coarse)
            layer *= 1 - 0.85 * covered(gap, 2 * edge) * (cage < -11)
        mix(hu, layer, 52 + 6 * fine)
        self._table(hu, z)
        return body

    def _table(self, hu, z) -> None:
        """Two curved shells under the patient."""
        for below, bow, value in ((3, 900, -150), (20, 520, -60)):
            line = self.back_mm + below - self.x**2 / bow * 0.5
            shell = covered(1.3 - np.abs(self.y - line), self.edge) * (np.abs(self.x) < 205)
            mix(hu, shell * (hu < -500), np.float32(value))

    def _abdomen(self, hu, z, cage, coarse) -> None:
        """Fat within the ribs, and liver, stomach and spleen under the diaphragm."""
        chest, x, y, edge = self.chest, self.x, self.y, self.edge
        s, contrast = chest.size, self.spec.contrast
        mix(hu, covered(cage, edge), -100 + 8 * coarse)
        if z > 0.36 * chest.height_mm:
            return
        below = np.minimum(-chest.diaphragm(x, y, z) - 1.2, cage - 2)
        # The left lobe crosses the middle in front.
        liver = np.minimum(below, 0.75 * (20 * s + 5 * coarse - x - 0.8 * (y + 22 * s)))
        spleen = np.minimum(below, ellipsoid(
            x, y, z, (88 * s, 40 * s, -5), (44 * s, 48 * s, 60), 20))
        stomach = np.minimum(below - 3, ellipsoid(
            x, y, z, (62 * s, -28 * s, -8), (44 * s, 42 * s, 62), 10))
        mix(hu, covered(liver, edge), np.float32(98 if contrast else 58))
        mix(hu, covered(spleen, edge), np.float32(112 if contrast else 49))
        mix(hu, covered(stomach, edge), np.float32(38))
        gas = np.minimum(stomach - 3.5, -(y + 34 * s))
        mix(hu, covered(gas, edge), np.float32(-960))

    def _skeleton(self, hu, z, cage, body, fine) -> None:
        chest, x, y, edge = self.chest, self.x, self.y, self.edge
        s, level = chest.size, z / chest.height_mm
        rib, angle = chest.rib_phase(x, y, z, cage)
        mix(hu, covered(5 * s - np.abs(cage + 5.6 * s), edge), np.float32(50))
        front = angle > 2.55 - 0.5 * (level < 0.35)
        _bone(hu, np.where(front | (angle < 0.32), -9, rib), edge)
        mix(hu, covered(np.where(front, rib + 0.6, -9), edge), np.float32(115))
        # Back muscles beside the spine.
        y0 = chest.at("spine_y", z)
        for side in (-1, 1):
            erector = ring(x - side * 25 * s, y - y0 - 43 * s, 23 * s, 16 * s, 2.3)
            mix(hu, covered(np.minimum(erector + 1.2 * fine, body - 5), edge), np.float32(54))
        phase = (level / anatomy.RIB_PITCH) % 1.0
        column = chest.spine(x, y, z)
        if phase < 0.18:  # a disc
            mix(hu, covered(column, edge), np.float32(85))
        else:
            _bone(hu, column, edge, 170 + 25 * fine, 260)
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
            y1 = -float(chest.at("rib_b", z)) + float(chest.at("rib_y", z)) - 6 * s
            wide = (15 if level < 0.72 else 24) * s
            _bone(hu, ring(x, y - y1, wide, 6.5 * s, 3.0), edge, 120)
        if 0.48 < level < 1.05:
            out = -cage - (25 + 12 * (angle - 1.2)) * s
            blade = np.minimum(2.2 * s + 3 * s * covered(level - 0.88, 0.1) - np.abs(out),
                               60 * s * np.minimum(angle - 0.75, 1.5 - angle))
            _bone(hu, blade, edge, 230, 250)
        _bone(hu, self.clavicles.depth(x, y, z), edge)

    def _mediastinum(self, hu, z, fine) -> None:
        chest, x, y, edge = self.chest, self.x, self.y, self.edge
        s, h, contrast = chest.size, chest.height_mm, self.spec.contrast
        muscle, left, right = (115, 285, 320) if contrast else (48, 42, 42)
        inlet = ellipsoid(x, y, z, (0, 12 * s, 1.06 * h), (46 * s, 34 * s, 0.22 * h))
        mix(hu, 0.75 * covered(inlet + 3 * fine, 2 * edge), np.float32(50))
        mix(hu, covered(chest.heart(x, y, z), edge), np.float32(muscle))
        for (cx, cy, level), axes, turn, value in (
            ((44, -34, 0.31), (30, 21, 34), -30, left), ((8, -62, 0.32), (40, 15, 36), -22, right),
            ((-20, -34, 0.37), (17, 24, 30), 0, right), ((2, -8, 0.40), (32, 20, 24), 4, left),
        ):
            axes = (axes[0] * s, axes[1] * s, axes[2] * h / 240)
            chamber = ellipsoid(x, y, z, chest.place(cx, cy, level), axes, turn)
            mix(hu, covered(chamber, 2 * edge), np.float32(value))
        mix(hu, covered(self.cava.depth(x, y, z), edge), np.float32(150 if contrast else 42))
        mix(hu, covered(self.venous.depth(x, y, z), edge), np.float32(right))
        aorta = self.aorta.depth(x, y, z)
        mix(hu, covered(1.2 - np.abs(aorta + 0.8), edge), np.float32(-10))
        mix(hu, covered(aorta, edge), np.float32(left))
        mix(hu, covered(self.oesophagus.depth(x, y, z), edge), np.float32(36))
        airway = self.trachea.depth(x, y, z)
        mix(hu, covered(airway + 1.6, edge), np.float32(40))
        mix(hu, covered(airway, edge), np.float32(-985))

    def lesion(self, lesion: Lesion, k: int):
        """(rows, columns, depth) of a lesion in one slice; None where it does not reach."""
        z, (cx, cy, cz), axes = float(self.z[k]), lesion.centre_mm, np.array(lesion.axes_mm)
        reach = axes * (1 + 3 * lesion.roughness_mm / axes.min()) + 6
        if abs(z - cz) > reach[2]:
            return None
        rows = slice(*np.searchsorted(self.y_axis, (cy - reach[1], cy + reach[1])))
        columns = slice(*np.searchsorted(self.x_axis, (cx - reach[0], cx + reach[0])))
        x, y = self.x_axis[columns], self.y_axis[rows]
        if not (len(x) and len(y)):
            return None
        depth = ellipsoid(x[None, :], y[:, None], z, lesion.centre_mm, axes)
        if lesion.roughness_mm:
            stray = 0.8 * self.clumps(z, y, x) + 0.6 * self.fine(z, y, x)
            depth = depth + np.float32(lesion.roughness_mm) * stray
        return rows, columns, depth

    def texture(self, k: int) -> np.ndarray:
        """HU to add to ground glass: clumps, and a faint net of thickened septa."""
        clumps = self.clumps(self.z[k], self.y_axis, self.x_axis)
        fine = self.fine(self.z[k], self.y_axis, self.x_axis)
        return 42 * clumps + 100 * np.exp(-((fine / 0.25) ** 2)) - 28

    def acquire(self, hu: np.ndarray) -> np.ndarray:
        """What the scanner makes of it: kernel, sharpening, noise, streaks; int16 [z, y, x]."""
        spec = self.spec
        rng = np.random.default_rng((spec.seed, 2))
        pixel = spec.spacing_mm[1:]
        out = np.empty(hu.shape, np.int16)
        # More noise where the rays cross more tissue: in the middle, and between the shoulders.
        middle = 0.75 + 0.5 * np.exp(-(self.x / 110) ** 2 - ((self.y - 5) / 80) ** 2)
        for k, plane in enumerate(hu):
            sharp = ndimage.gaussian_filter(plane, [spec.kernel_mm / p for p in pixel])
            halo = ndimage.gaussian_filter(sharp, [1.6 / p for p in pixel])
            sharp += spec.sharpness * (sharp - halo)
            noise = rng.standard_normal(plane.shape, np.float32)
            noise = ndimage.gaussian_filter(noise, [0.85 * spec.kernel_mm / p for p in pixel])
            shoulders = np.clip(self.z[k] / spec.chest.height_mm - 0.8, 0, 0.3) / 0.3
            streaks = rng.standard_normal((plane.shape[0], 1), np.float32) * 14 * shoulders
            noise = noise * (spec.noise_hu / noise.std()) * (1 + 0.6 * shoulders) + streaks
            out[k] = np.clip(np.rint(sharp + noise * middle), -1024, 3071)
        return out
