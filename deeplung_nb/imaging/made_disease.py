"""Disease made in the lungs of a CT, real or synthetic: what is there is known to the voxel.

Expert masks of dense disease are few. What is made here serves twice: as cases whose truth is known
(how much of a consolidation of 37 % of the lungs is found?), and as a change of training windows.
A shape is a field over the lungs, and the lesion is where it exceeds the value that the wanted
share of the lungs exceeds: so every kind has the volume that was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from deeplung_nb.imaging.body import noise_hu
from deeplung_nb.imaging.shapes import LOBULE_MM, SEPTUM_MM, Field, Lobules, covered
from deeplung_nb.labels import GGO, HIGH_OPACITY

KINDS = ("dependent", "patch", "lobules", "crescent")
"""`dependent`: below a wavy, tilted level, as effusion and dorsal consolidation; `patch`: around a
centre, as lobar and round consolidation; `lobules`: some of the secondary lobules around it;
`crescent`: along the pleura near it."""
TEXTURES = ("plain", "net", "bronchograms")
"""`net`: thickened septa between lobules (crazy paving); `bronchograms`: air in branching tubes."""
SIDES = ("both", "right", "left")
DENSE_ABOVE_HU = -300.0
"""What is made denser is high opacity. Readers draw their line elsewhere in each case: see the
densities of both classes in docs/model_card.md."""
BRONCHUS_MM = 2.2
BRONCHUS_HU = -880.0
EDGE_MM = {HIGH_OPACITY.code: 2.5, GGO.code: 6.0}
"""Over which the border of a class fades."""
OTHER_LUNG_MM = 80.0
"""So much further away from a centre counts what lies in the other lung."""
WAVE_MM = 7.0
"""How far the level of what is dependent strays."""


@dataclass(frozen=True)
class MadeLesion:
    """One lesion to make.

    Attributes
    ----------
    kind
        One of `KINDS`.
    share
        Of the lungs of its side that it takes, above 0 and below 1.
    hu
        Its density where its opacity is full.
    opacity
        1: nothing of the lung shines through; less: vessels do.
    side
        One of `SIDES`.
    texture
        One of `TEXTURES`.
    seed
        Decides place and form.
    """

    kind: str
    share: float
    hu: float
    opacity: float = 1.0
    side: str = "both"
    texture: str = "plain"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, known in (("kind", self.kind, KINDS), ("side", self.side, SIDES),
                                   ("texture", self.texture, TEXTURES)):
            if value not in known:
                raise ValueError(f"{name} {value!r}: expected one of {', '.join(known)}")
        for name, value in (("share", self.share), ("opacity", self.opacity)):
            if not 0.0 < value <= 1.0 or (name == "share" and value == 1.0):
                raise ValueError(f"{name} {value}: expected a share above 0 and below 1")

    @property
    def code(self) -> int:
        """Its class, by its density."""
        return HIGH_OPACITY.code if self.hu > DENSE_ABOVE_HU else GGO.code


class _Space:
    """Millimetres of an array [z, y, x], and fields over it."""

    def __init__(self, shape: tuple[int, int, int], voxel_mm: tuple[float, float, float],
                 rng: np.random.Generator) -> None:
        self.shape, self.voxel_mm, self.rng = shape, voxel_mm, rng
        middle = (140.0, 0.0, 0.0)  # of the lattice of a `Field`, in mm
        self.z, self.y, self.x = (
            (np.arange(n) - (n - 1) / 2.0) * mm + at
            for n, mm, at in zip(shape, voxel_mm, middle, strict=True))

    def field(self, step_mm: float) -> np.ndarray:
        """A smooth random field, mean 0 and SD 1, float32 [z, y, x]."""
        one = Field.random(self.rng, step_mm)
        return np.stack([one(float(z), self.y, self.x) for z in self.z])

    def points(self, where: np.ndarray) -> np.ndarray:
        """(x, y, z) in mm of the voxels of a mask, [n, 3]."""
        z, y, x = np.nonzero(where)
        return np.column_stack((self.x[x], self.y[y], self.z[z]))


def _middle(lungs: np.ndarray) -> int:
    """The column between the lungs."""
    columns = np.flatnonzero(lungs.any(axis=(0, 1)))
    return int(columns[0] + columns[-1] + 1) // 2


def _side(lungs: np.ndarray, side: str) -> np.ndarray:
    """The lungs on one side of their middle; x runs to the patient's left."""
    if side == "both" or not lungs.any():
        return lungs
    middle, out = _middle(lungs), lungs.copy()
    out[..., middle:] &= side == "left"
    out[..., :middle] &= side == "right"
    return out


def _form(space: _Space, lungs: np.ndarray, middle: int, lesion: MadeLesion) -> np.ndarray:
    """How deep each voxel lies in the lesion, in mm but for a constant: float32 [z, y, x].

    `middle` is the column between both lungs.
    """
    rng = space.rng
    z, y, x = (axis.astype(np.float32).reshape(shape) for axis, shape in (
        (space.z, (-1, 1, 1)), (space.y, (1, -1, 1)), (space.x, (1, 1, -1))))
    rough = space.field(24.0) * np.float32(0.7) + space.field(9.0) * np.float32(0.35)
    if lesion.kind == "dependent":
        tilt = rng.normal(0.0, 0.12, 2).astype(np.float32)
        return y + tilt[0] * x + tilt[1] * (z - np.float32(140)) + np.float32(WAVE_MM) * rough
    places = space.points(lungs)
    centre = places[rng.integers(len(places))].astype(np.float32)
    stretch = rng.uniform(0.7, 1.4, 3).astype(np.float32)
    away = np.sqrt(((x - centre[0]) * stretch[0]) ** 2 + ((y - centre[1]) * stretch[1]) ** 2
                   + ((z - centre[2]) * stretch[2]) ** 2)
    away = away + np.float32(OTHER_LUNG_MM) * (
        (x >= space.x[middle]) != (centre[0] >= space.x[middle]))
    if lesion.kind == "patch":
        return np.float32(10.0) * rough - away
    if lesion.kind == "crescent":
        pleura = np.asarray(ndimage.distance_transform_edt(
            np.pad(lungs, ((0, 0), (1, 1), (1, 1))), sampling=space.voxel_mm))[:, 1:-1, 1:-1]
        return (np.float32(4.0) * rough - np.float32(2.5) * pleura - away / np.float32(3.0)
                ).astype(np.float32)
    form = np.full(space.shape, -np.inf, np.float32)  # lobules
    number, border = _lobules(space, places)
    form[lungs] = np.float32(14.0) * number - away[lungs] / np.float32(2.0) \
        + np.minimum(border, np.float32(2.0))
    return form


def _lobules(space: _Space, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = places.min(axis=0) - LOBULE_MM, places.max(axis=0) + 2 * LOBULE_MM
    return Lobules(space.rng, LOBULE_MM, low, high).at(places)


def _density(space: _Space, inside: np.ndarray, lesion: MadeLesion, noise_hu: float) -> np.ndarray:
    """HU of the lesion's own tissue, float32 [z, y, x]."""
    spread = np.float32(10.0 if lesion.code == HIGH_OPACITY.code else 35.0)
    hu = np.float32(lesion.hu) + spread * space.field(11.0)
    if lesion.texture == "net":
        _, border = _lobules(space, space.points(inside))
        net = covered(np.float32(SEPTUM_MM) - border, max(space.voxel_mm[1:]))
        hu[inside] += np.float32(200.0) * (net - np.float32(0.25))
    if lesion.texture == "bronchograms":
        # Where two fields are both 0 is a set of curves: tubes around them.
        step = 22.0
        off = np.hypot(space.field(step), space.field(step)) * np.float32(step / 2)
        part = covered(np.float32(BRONCHUS_MM) - off, max(space.voxel_mm[1:]))
        hu += part * (np.float32(BRONCHUS_HU) - hu)
    noise = space.rng.standard_normal(space.shape, dtype=np.float32)
    return hu + np.float32(noise_hu) * noise


def make_disease(
    hu: np.ndarray, labels: np.ndarray, lungs: np.ndarray,
    voxel_mm: tuple[float, float, float], lesion: MadeLesion,
) -> tuple[np.ndarray, np.ndarray]:
    """Make one lesion in a CT.

    Nothing outside the lungs changes, and disease only ever adds density: a vessel stays in ground
    glass, and ground glass made where consolidation is leaves it as it was.

    Parameters
    ----------
    hu
        [z, y, x], HU, from foot to head, front to back, right to left.
    labels
        uint8 [z, y, x], the class codes of the disease that is there already.
    lungs
        bool [z, y, x], with their disease.
    voxel_mm
        (dz, dy, dx).

    Returns
    -------
    (hu, labels)
        float32 and uint8: copies in which the lesion is.

    Raises
    ------
    ValueError
        The shapes differ.
    """
    if not hu.shape == labels.shape == lungs.shape or hu.ndim != 3:
        raise ValueError(f"HU {hu.shape}, labels {labels.shape} and lungs {lungs.shape}: expected "
                         "one shape (z, y, x)")
    out, truth = hu.astype(np.float32), labels.copy()
    mine = _side(lungs, lesion.side)
    if not mine.any():
        return out, truth
    space = _Space(hu.shape, voxel_mm, np.random.default_rng(lesion.seed))
    form = _form(space, mine, _middle(lungs), lesion)
    level = np.float32(np.quantile(form[mine], 1.0 - lesion.share))
    inside = mine & (form > level)
    # The border fades over some millimetres, but never beyond the lungs.
    part = np.where(mine, covered(form - level, EDGE_MM[lesion.code]), 0).astype(np.float32)
    tissue = _density(space, inside, lesion, noise_hu(hu) or 0.0)
    made = out + np.float32(lesion.opacity) * part * (tissue - out)
    thinner = made < out
    if lesion.texture == "bronchograms":  # air that was lung before
        thinner &= tissue > np.float32(lesion.hu - 100.0)
    out = np.where(thinner, out, made)
    truth[inside & ~(truth == HIGH_OPACITY.code)] = lesion.code
    return out, truth
