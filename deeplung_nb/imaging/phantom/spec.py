"""What a phantom is, in millimetres: chest, lesions, scanner; and how a manifest says so."""

from __future__ import annotations

import csv
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deeplung_nb.imaging.phantom.anatomy import Chest
from deeplung_nb.labels import GGO, HIGH_OPACITY

DENSITY_HU = {"ggo": -520.0, "consolidation": 38.0}
"""Of a lesion of which nothing else is said."""
KINDS = {"ggo": GGO.code, "consolidation": HIGH_OPACITY.code}
PARTS = {"image": "images", "truth": "truth", "mask": "expert", "lung_mask": "lungs"}
"""Folders of a written cohort; `image`, `mask` and `lung_mask` are columns of the manifest."""


class PhantomError(ValueError):
    """A phantom cannot be made as described."""


@dataclass(frozen=True)
class Lesion:
    """A region of opacity within an ellipsoid; what lies outside the aerated lung is cut off.

    Parameters
    ----------
    kind
        `ggo` or `consolidation`.
    centre_mm, axes_mm
        (x, y, z) and semi-axes in the phantom's coordinates (see `anatomy`).
    hu
        Where the opacity is full; None: `DENSITY_HU` of its kind.
    roughness_mm
        How far the border strays from the ellipsoid (standard deviation); it then also ends at the
        fissures of its lobe. With 0 and without a band, and away from the lung's border, the volume
        is exactly `volume_ml`.
    band_mm
        A crescent: only what lies no deeper than this under the pleura. 0: the whole ellipsoid.
    net
        How visible thickened septa are in it, 0 to 1 (crazy paving); for rough borders.
    """

    kind: str
    centre_mm: tuple[float, float, float]
    axes_mm: tuple[float, float, float]
    hu: float | None = None
    roughness_mm: float = 0.0
    band_mm: float = 0.0
    net: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise PhantomError(f"lesion kind {self.kind!r}: expected one of {', '.join(KINDS)}")
        if self.hu is None:
            object.__setattr__(self, "hu", DENSITY_HU[self.kind])
        if min(self.axes_mm) <= 0:
            raise PhantomError(f"lesion axes {self.axes_mm} mm: expected three positive numbers")

    @property
    def softness_mm(self) -> float:
        """Width of the border from clear to full opacity; the truth lies in its middle."""
        return 9.0 if self.kind == "ggo" else 4.0

    @property
    def volume_ml(self) -> float:
        """Of the whole ellipsoid: 4/3 pi abc, mL."""
        return 4 / 3 * np.pi * float(np.prod(self.axes_mm)) / 1000

    def __str__(self) -> str:
        numbers = (*self.centre_mm, *self.axes_mm, self.hu, self.roughness_mm, self.band_mm,
                   self.net)
        return f"{self.kind} " + " ".join(f"{n:g}" for n in numbers)

    @classmethod
    def parse(cls, text: str) -> Lesion:
        """The inverse of `str(lesion)`."""
        kind, *words = text.split()
        try:
            x, y, z, a, b, c, *rest = map(float, words)
            hu, roughness, band, net = rest
        except ValueError:
            raise PhantomError(
                f"lesion {text!r}: expected a kind and ten numbers: x y z, three semi-axes (mm), "
                "HU, roughness (mm), band (mm), net"
            ) from None
        return cls(kind, (x, y, z), (a, b, c), hu, roughness, band, net)


@dataclass(frozen=True)
class PhantomSpec:
    """Everything that decides a phantom.

    `spacing_mm` is (z, y, x); the grid is centred on the lungs. `effusion_mm` is the depth of
    pleural fluid at the right and the left base. `kernel_mm` is the width of the reconstruction
    kernel (Gaussian sigma), `sharpness` its edge enhancement, `noise_hu` the noise in soft tissue.
    `emphysema` (0 to 1) thins the lung, and `dependent_hu` thickens its lowest rim, without being
    lesions. `breathing_mm` is how far the base moves while it is scanned.
    """

    case_id: str
    seed: int = 0
    size: int = 216
    n_slices: int = 52
    spacing_mm: tuple[float, float, float] = (5.0, 1.75, 1.75)
    contrast: bool = False
    scanner: str = "phantom"
    chest: Chest = Chest()  # noqa: RUF009 (frozen)
    lesions: tuple[Lesion, ...] = ()
    effusion_mm: tuple[float, float] = (0.0, 0.0)
    emphysema: float = 0.0
    kernel_mm: float = 0.9
    sharpness: float = 0.5
    noise_hu: float = 15.0
    orientation: str = "LPS"
    dependent_hu: float = 0.0
    breathing_mm: float = 0.0

    def __post_init__(self) -> None:
        if self.size < 16 or self.n_slices < 1 or min(self.spacing_mm) <= 0:
            raise PhantomError(
                f"case {self.case_id!r}: grid of {self.n_slices} x {self.size} x {self.size} at "
                f"{self.spacing_mm} mm. Expected at least one slice, 16 pixels, positive spacing."
            )

    def resampled(self, size: int, n_slices: int) -> PhantomSpec:
        """The same person and field of view on another grid."""
        dz, dy, dx = self.spacing_mm
        spacing = (dz * self.n_slices / n_slices, dy * self.size / size, dx * self.size / size)
        return dataclasses.replace(self, size=size, n_slices=n_slices, spacing_mm=spacing)

    def positions_mm(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Voxel centres along z, y and x in the phantom's coordinates, float32."""
        counts = (self.n_slices, self.size, self.size)
        middle = (0.47 * self.chest.height_mm, 8.0, 0.0)
        return tuple(
            (m + (np.arange(n) - (n - 1) / 2) * d).astype(np.float32)
            for m, n, d in zip(middle, counts, self.spacing_mm, strict=True)
        )


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split()))


def spec_of_row(row: dict[str, str]) -> PhantomSpec:
    """The phantom that a row of a manifest describes (see `row_of_spec`).

    Raises
    ------
    PhantomError
        Naming the case and the column.
    """
    case = row.get("case_id", "?")

    def get(column: str, convert):
        try:
            return convert(row[column])
        except KeyError:
            raise PhantomError(f"case {case!r}: column {column!r} is missing in the manifest of "
                               "phantoms. Make it anew: python -m deeplung_nb.imaging."
                               "phantom.cohort") from None
        except ValueError as error:
            raise PhantomError(f"case {case!r}: {column} is {row[column]!r}: {error}. "
                               "Correct the cell.") from error

    pixel = get("ph_pixel_mm", float)
    return PhantomSpec(
        case, get("ph_seed", int), get("ph_size", int), get("n_slices", int),
        (get("slice_gap_mm", float), pixel, pixel), get("protocol", str) == "contrast",
        get("scanner", str),
        Chest(*(get(f"ph_{name}", float) for name in _CHEST)),
        get("ph_lesions", lambda text: tuple(map(Lesion.parse, filter(None, text.split("; "))))),
        get("ph_effusion_mm", _numbers), get("ph_emphysema", float), get("ph_kernel_mm", float),
        get("ph_sharpness", float), get("ph_noise_hu", float), get("ph_orientation", str),
        get("ph_dependent_hu", float), get("ph_breathing_mm", float),
    )


_CHEST = {"chest_size": "size", "lung_height_mm": "height_mm", "fat_mm": "fat_mm",
          "breast_mm": "breast_mm", "chest_depth": "depth", "heart_size": "heart",
          "lean_mm": "lean_mm"}


def row_of_spec(spec: PhantomSpec) -> dict[str, str]:
    """The columns of a manifest that describe a phantom, as text."""
    return {
        "case_id": spec.case_id, "n_slices": str(spec.n_slices),
        "slice_gap_mm": f"{spec.spacing_mm[0]:g}", "scanner": spec.scanner,
        "protocol": "contrast" if spec.contrast else "non-contrast",
        "ph_seed": str(spec.seed), "ph_size": str(spec.size),
        "ph_pixel_mm": f"{spec.spacing_mm[2]:g}",
        **{f"ph_{name}": f"{getattr(spec.chest, key):g}" for name, key in _CHEST.items()},
        "ph_lesions": "; ".join(map(str, spec.lesions)),
        "ph_effusion_mm": " ".join(f"{mm:g}" for mm in spec.effusion_mm),
        "ph_emphysema": f"{spec.emphysema:g}", "ph_kernel_mm": f"{spec.kernel_mm:g}",
        "ph_sharpness": f"{spec.sharpness:g}", "ph_noise_hu": f"{spec.noise_hu:g}",
        "ph_orientation": spec.orientation, "ph_dependent_hu": f"{spec.dependent_hu:g}",
        "ph_breathing_mm": f"{spec.breathing_mm:g}",
    }


def read_specs(manifest: str | os.PathLike) -> list[PhantomSpec]:
    """The phantoms that a manifest describes, in its order."""
    with Path(manifest).open(encoding="utf-8", newline="") as lines:
        return [spec_of_row(row) for row in csv.DictReader(lines)]
