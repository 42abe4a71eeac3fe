"""Scans and masks in memory, always with their geometry.

Every array is [z, y, x] in one orientation, DICOM's LPS: x runs to the patient's left, y to the
back, z to the head. Where a file keeps its voxels in another order, its affine says so; the order
itself is never trusted. `imaging.io` reads and writes both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.grid import MEMORY_ORIENTATION, Grid
from deeplung_nb.labels import LABELS

OUTSIDE_HU = -1024
"""Air, and what stands for all that lies outside the field of view."""
PADDING_BELOW_HU = -1100
"""Values below mark what lies outside the field of view (-3024, -2048, ...)."""
CIRCLE_FILL_HU = 0
LEAST_FILL = 0.01
"""Resampling tools leave 0 where a scanner has measured nothing. A region of exactly this value at
the edge of the pictures, as large a share of the voxels, is no tissue: there it would be noisy."""
MUST_REACH_HU = -500
"""A CT of the chest has air in it."""


class _OnGrid:
    """What everything on a grid tells of it."""

    grid: Grid

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        return self.grid.shape

    @property
    def affine(self) -> np.ndarray:
        """float64 (4, 4): voxel index (x, y, z, 1) to RAS millimetres (as NIfTI)."""
        return self.grid.affine

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(dz, dy, dx), distances between voxel centres."""
        return self.grid.spacing_mm

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel, |det A|."""
        return self.grid.voxel_mm3


@dataclass(frozen=True, eq=False)
class Scan(_OnGrid):
    """A CT.

    Attributes
    ----------
    hu
        int16 [z, y, x], Hounsfield units.
    grid
        Where its voxels lie; shared by all masks of the scan.
    case_id
        Name for messages and outputs.
    source
        The file or folder it came from.
    orientation
        Axis code of the file's own voxel order; masks are written in it.
    series
        Of DICOM: the series' UID and description.
    geometry
        Of NIfTI: `sform` or `qform`, where it had to be chosen; its masks are read so too.
    notes
        What a reader of results should know of how it was read: a sentence each.
    left_out
        What lay in its folder and is no part of it: (file, why).
    """

    hu: np.ndarray
    grid: Grid
    case_id: str
    source: str = ""
    orientation: str = MEMORY_ORIENTATION
    series: str = ""
    geometry: str | None = None
    notes: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.hu.ndim != 3:
            raise ScanError(f"case {self.case_id!r}: HU of {self.hu.ndim} dimensions, expected 3 "
                            "(z, y, x). A single slice is hu[None]")
        if self.hu.shape != self.grid.shape:
            raise ScanError(f"case {self.case_id!r}: HU of shape {self.hu.shape} on a grid of "
                            f"{self.grid.shape} (z, y, x), expected the same. Give the grid of "
                            "these voxels")

    @property
    def n_slices(self) -> int:
        """Axial slices."""
        return self.hu.shape[0]

    def require_shape(self, array: np.ndarray, what: str) -> None:
        """That an array lies on this scan's grid.

        Raises
        ------
        ScanError
            The shapes differ.
        """
        if array.shape != self.shape:
            raise ScanError(f"case {self.case_id!r}: {what} of shape {array.shape}, expected the "
                            f"scan's {self.shape}. Resample onto the scan's grid")

    def __repr__(self) -> str:
        size = "x".join(map(str, self.shape))
        gaps = "x".join(f"{s:.4g}" for s in self.spacing_mm)
        return (f"Scan({self.case_id!r}: {size} slices x rows x columns; {gaps} mm; HU "
                f"{self.hu.min()} to {self.hu.max()}; stored {self.orientation}; "
                f"{self.hu.nbytes / 2**20:.0f} MiB)")


@dataclass(frozen=True, eq=False)
class LesionMask(_OnGrid):
    """A label map on the grid of a scan: uint8 [z, y, x] of codes in `labels.LABELS`."""

    labels: np.ndarray
    grid: Grid
    case_id: str
    orientation: str = MEMORY_ORIENTATION

    @classmethod
    def like(cls, scan: Scan, labels: np.ndarray) -> LesionMask:
        """A mask with the geometry of a scan.

        Raises
        ------
        ScanError
            The shapes differ.
        """
        scan.require_shape(labels, "labels")
        return cls(labels, scan.grid, scan.case_id, scan.orientation)

    def __repr__(self) -> str:
        counts = {label.name: int((self.labels == label.code).sum()) for label in LABELS[1:]}
        return f"LesionMask({self.case_id!r}: {self.labels.shape}; voxels {counts})"


def check_hu(array: np.ndarray, case: str, source: str) -> np.ndarray:
    """Plausible HU as int16, padding outside the field of view turned to air.

    Raises
    ------
    ScanError
        NaN or infinite values, a constant image, 8-bit grey levels, or no air anywhere.
    """
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        n_bad = int(np.count_nonzero(~np.isfinite(array)))
        raise ScanError(f"case {case!r}: {source} has {n_bad} voxels that are NaN or infinite, "
                        "expected HU everywhere. Fill them with -1024, or export the CT again")
    low, high = float(array.min()), float(array.max())
    if low == high:
        raise ScanError(f"case {case!r}: {source} is {low:g} everywhere, expected a CT. "
                        "The file is empty: export it again")
    if low >= 0 and high <= 255:
        raise ScanError(f"case {case!r}: {source} has values {low:g} to {high:g}, like an 8-bit "
                        "picture, expected HU (air near -1000). Export the CT in HU, not as a "
                        "picture")
    if low > MUST_REACH_HU:
        raise ScanError(f"case {case!r}: {source} is never below {MUST_REACH_HU} HU (lowest "
                        f"{low:g}), expected a chest with air in it. Is the rescale intercept "
                        "missing? Convert the values to HU")
    if high > 32767 or low < -32768:
        array = np.clip(array, -32768, 32767)
    hu = np.rint(array).astype(np.int16) if array.dtype.kind == "f" else array.astype(np.int16)
    for plane in hu:
        plane[plane < PADDING_BELOW_HU] = OUTSIDE_HU
    return hu


def fill_to_air(hu: np.ndarray) -> bool:
    """Turn what lies outside the reconstruction circle, if it is filled with 0 HU, to air.

    Parameters
    ----------
    hu
        int16 [z, y, x]; changed in place.

    Returns
    -------
    bool
        Whether there was such a region.
    """
    fill = hu == CIRCLE_FILL_HU
    if fill.mean() < LEAST_FILL:
        return False
    for one in fill:
        edge = np.zeros(one.shape, bool)
        edge[[0, -1]], edge[:, [0, -1]] = one[[0, -1]], one[:, [0, -1]]
        one[:] = ndimage.binary_propagation(edge, mask=one) if edge.any() else False
    if fill.mean() < LEAST_FILL:
        return False
    hu[fill] = OUTSIDE_HU
    return True


def scan_from_image(image: sitk.Image, case: str, source: str, series: str = "") -> Scan:
    """A checked scan from an ITK image in any orientation."""
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    if code != MEMORY_ORIENTATION:
        image = sitk.DICOMOrient(image, MEMORY_ORIENTATION)
    hu = check_hu(sitk.GetArrayViewFromImage(image), case, source)  # which copies
    notes = ("0 HU outside the reconstruction circle was read as air",) if fill_to_air(hu) else ()
    return Scan(hu, Grid.of_image(image), case, source, code, series, notes=notes)
