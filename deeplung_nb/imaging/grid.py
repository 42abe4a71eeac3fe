"""A grid of voxels: its shape and where it lies; everything else follows from the two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

MEMORY_ORIENTATION = "LPS"
_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of a scan and of all its masks lie.

    Attributes
    ----------
    shape
        (slices, rows, columns) of arrays [z, y, x].
    affine
        float64 (4, 4): voxel index (x, y, z, 1) to RAS millimetres (as NIfTI).
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    @classmethod
    def upright(cls, shape: tuple[int, int, int],
                spacing_mm: tuple[float, float, float]) -> Grid:
        """A grid in the order of memory (LPS) without rotation; spacing is (dz, dy, dx)."""
        dz, dy, dx = spacing_mm
        return cls(tuple(shape), np.diag([-dx, -dy, dz, 1.0]))

    @classmethod
    def of_image(cls, image: sitk.Image) -> Grid:
        """The grid of an ITK image; ITK itself counts in LPS."""
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
        affine[:3, 3] = image.GetOrigin()
        affine[:2] *= -1.0
        return cls(tuple(image.GetSize()[::-1]), affine)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(dz, dy, dx), distances between voxel centres."""
        dx, dy, dz = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return dz, dy, dx

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel, |det A|."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def to_image(self, array: np.ndarray) -> sitk.Image:
        """An array [z, y, x] on this grid as an ITK image."""
        return self.place(sitk.GetImageFromArray(array))

    def place(self, image: sitk.Image) -> sitk.Image:
        """An ITK image moved to this grid; it comes back."""
        lps = np.diag(_RAS_TO_LPS) @ self.affine[:3, :3]
        spacing = np.linalg.norm(lps, axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetDirection((lps / spacing).ravel().tolist())
        image.SetOrigin((_RAS_TO_LPS * self.affine[:3, 3]).tolist())
        return image

    def farthest_shift_mm(self, other: Grid) -> float:
        """How far the corners of this grid lie from where `other` puts them, at most, in mm."""
        corners = np.array([[x, y, z, 1.0] for x in (0, self.shape[2]) for y in (0, self.shape[1])
                            for z in (0, self.shape[0])]).T
        return float(np.abs((other.affine - self.affine) @ corners)[:3].max())
