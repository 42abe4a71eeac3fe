"""Scans and masks: reading, checking, writing, always with their geometry.

In memory every array is [z, y, x] in one orientation, DICOM's LPS: x runs to the patient's left, y
to the back, z to the head. Where a file keeps its voxels in another order, its affine says so; the
order itself is never trusted. Masks go back to the order and geometry of the file of their scan.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from deeplung_nb.files import atomic_path
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.integrity import check_whole
from deeplung_nb.labels import LABELS

AIR_HU = -1024
PADDING_BELOW_HU = -1100
"""Values below mark what lies outside the field of view (-3024, -2048, ...): air."""
MUST_REACH_HU = -500
"""A CT of the chest has air in it."""
MEMORY_ORIENTATION = "LPS"
IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
WRITTEN_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")
"""Formats of one file: two files can't appear whole or not at all."""


@dataclass(frozen=True, eq=False)
class Scan:
    """A CT.

    Attributes
    ----------
    hu
        int16 [z, y, x], Hounsfield units.
    spacing_mm
        (dz, dy, dx), distances between voxel centres.
    affine
        float64 (4, 4): voxel index (x, y, z, 1) to RAS millimetres (as NIfTI).
    case_id
        Name for messages and outputs.
    source
        The file or folder it came from.
    orientation
        Axis code of the file's own voxel order; masks are written in it.
    series
        Of DICOM: the series' UID and description.
    """

    hu: np.ndarray
    spacing_mm: tuple[float, float, float]
    affine: np.ndarray
    case_id: str
    source: str = ""
    orientation: str = MEMORY_ORIENTATION
    series: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        return self.hu.shape

    @property
    def n_slices(self) -> int:
        """Axial slices."""
        return self.hu.shape[0]

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel, |det A|."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def __repr__(self) -> str:
        size = "x".join(map(str, self.shape))
        gaps = "x".join(f"{s:.4g}" for s in self.spacing_mm)
        return (f"Scan({self.case_id!r}: {size} slices x rows x columns; {gaps} mm; HU "
                f"{self.hu.min()} to {self.hu.max()}; stored {self.orientation}; "
                f"{self.hu.nbytes / 2**20:.0f} MiB)")


@dataclass(frozen=True, eq=False)
class LesionMask:
    """A label map on the grid of a scan: uint8 [z, y, x] of codes in `labels.LABELS`."""

    labels: np.ndarray
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]
    case_id: str
    orientation: str = field(default=MEMORY_ORIENTATION)

    @classmethod
    def like(cls, scan: Scan, labels: np.ndarray) -> LesionMask:
        """A mask with the geometry of a scan.

        Raises
        ------
        ScanError
            The shapes differ.
        """
        if labels.shape != scan.shape:
            raise ScanError(f"case {scan.case_id!r}: labels of shape {labels.shape}, expected the "
                            f"scan's {scan.shape}. Resample them onto the scan's grid")
        return cls(labels, scan.affine, scan.spacing_mm, scan.case_id, scan.orientation)

    def __repr__(self) -> str:
        counts = {label.name: int((self.labels == label.code).sum()) for label in LABELS[1:]}
        return f"LesionMask({self.case_id!r}: {self.labels.shape}; voxels {counts})"


def affine_of(image: sitk.Image) -> np.ndarray:
    """The affine (x, y, z, 1) to RAS mm of an image; ITK itself counts in LPS."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1.0
    return affine


def image_of(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """The inverse of reading: an array [z, y, x] with its affine as an ITK image."""
    lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3, :3]
    spacing = np.linalg.norm(lps, axis=0)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps / spacing).ravel().tolist())
    image.SetOrigin((np.array([-1.0, -1.0, 1.0]) * affine[:3, 3]).tolist())
    return image


def case_name(path: Path) -> str:
    """A case's name from its file: without folder and suffixes."""
    name = path.name
    for suffix in sorted(IMAGE_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return path.stem or name


def _read_image(path: Path, case: str) -> tuple[sitk.Image, str]:
    """A 3-D scalar image in the order of memory, and the code of its own order."""
    if not path.exists():
        raise ScanError(f"case {case!r}: {path} is missing, expected an image file. Check the path")
    if not path.name.lower().endswith(IMAGE_SUFFIXES):
        raise ScanError(f"case {case!r}: {path} has an unknown suffix, expected one of "
                        f"{', '.join(IMAGE_SUFFIXES)} or DICOM. Convert the file")
    check_whole(path, case)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = [line for line in str(error).splitlines() if line.strip()][-1].strip()
        remedy = ("Set a rotation without shear (for instance qform to sform) and save it again"
                  if "orthonormal" in str(error).lower() or "cosines" in str(error).lower()
                  else "The file is damaged or no such image: copy it anew")
        raise ScanError(
            f"case {case!r}: {path} can't be read ({reason[:160]}). {remedy}") from error
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    if image.GetDimension() != 3:
        raise ScanError(f"case {case!r}: {path} has {image.GetDimension()} dimensions "
                        f"{image.GetSize()}, expected 3. Give one volume; a single slice needs a "
                        "third axis of length 1")
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise ScanError(f"case {case!r}: {path} has {image.GetNumberOfComponentsPerPixel()} values "
                        "a voxel (a colour image?), expected one. Give the CT itself")
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    return sitk.DICOMOrient(image, MEMORY_ORIENTATION), code


def check_hu(array: np.ndarray, case: str, source: str) -> np.ndarray:
    """Plausible HU as int16, padding outside the field of view turned to air.

    Raises
    ------
    ScanError
        NaN or infinite values, a constant image, 8-bit grey levels, or no air anywhere.
    """
    if not np.isfinite(array).all():
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
    hu[hu < PADDING_BELOW_HU] = AIR_HU
    return hu


def scan_from_image(image: sitk.Image, case: str, source: str, series: str = "") -> Scan:
    """A checked scan from an ITK image in any orientation."""
    code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    image = sitk.DICOMOrient(image, MEMORY_ORIENTATION)
    spacing = image.GetSpacing()[::-1]
    hu = check_hu(sitk.GetArrayFromImage(image), case, source)
    return Scan(hu, tuple(spacing), affine_of(image), case, source, code, series)


def read_scan(path: str | os.PathLike, case_id: str | None = None,
              series: str | None = None) -> Scan:
    """Read a CT: NIfTI, NRRD, MetaImage, a DICOM file or a folder with one DICOM series.

    Parameters
    ----------
    path
        File or folder.
    case_id
        Name for messages and outputs; default: the file's or folder's name.
    series
        Which DICOM series, where a folder holds several: its number or UID.

    Raises
    ------
    ScanError
        The message names the file, the value, what was expected and the remedy.
    """
    path = Path(path)
    case = case_id or case_name(path)
    if path.is_dir() or (path.is_file() and not path.name.lower().endswith(IMAGE_SUFFIXES)):
        from deeplung_nb.imaging.dicom import read_series

        return read_series(path, case, series)
    image, code = _read_image(path, case)
    hu = check_hu(sitk.GetArrayFromImage(image), case, str(path))
    return Scan(hu, tuple(image.GetSpacing()[::-1]), affine_of(image), case, str(path), code)


def _read_on_grid(path: Path, scan: Scan) -> np.ndarray:
    """An array [z, y, x] of whole numbers on the grid of a scan."""
    if scan.source and path.exists() and os.path.exists(scan.source) \
            and os.path.samefile(path, scan.source):
        raise ScanError(f"case {scan.case_id!r}: {path} is the scan itself, expected its mask. "
                        "Give the mask's file")
    image, _ = _read_image(path, scan.case_id)
    array = sitk.GetArrayFromImage(image)
    if array.shape != scan.shape:
        raise ScanError(f"case {scan.case_id!r}: mask {path} is {array.shape} (z, y, x), expected "
                        f"the scan's {scan.shape}. Resample it onto the scan's grid")
    corners = np.array([[x, y, z, 1.0] for x in (0, scan.shape[2]) for y in (0, scan.shape[1])
                        for z in (0, scan.shape[0])]).T
    shift = np.abs((affine_of(image) - scan.affine) @ corners)[:3].max()
    # Headers round: a tenth of the smallest voxel side moves no voxel to its neighbour.
    if shift > 0.1 * min(scan.spacing_mm):
        raise ScanError(f"case {scan.case_id!r}: mask {path} lies up to {shift:.3g} mm from the "
                        "scan's grid (other origin, spacing or direction), expected the same "
                        "geometry. Resample it onto the scan's grid")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all() or (array != np.rint(array)).any():
            raise ScanError(f"case {scan.case_id!r}: mask {path} has values that are no whole "
                            "numbers, expected label codes. Threshold probabilities first")
        array = array.astype(np.int64)
    return array


def read_mask(path: str | os.PathLike, scan: Scan,
              codes: dict[int, int] | None = None) -> LesionMask:
    """Read a lesion mask on the grid of its scan.

    Parameters
    ----------
    path
        The mask's file, in any voxel order.
    scan
        The scan it belongs to.
    codes
        What a value in the file means: file code to label code; 0 is background. Default: the
        project's own codes.

    Raises
    ------
    ScanError
        Another grid, values that are no whole numbers, or codes that are not known.
    """
    array = _read_on_grid(Path(path), scan)
    known = {0: 0, **(codes or {label.code: label.code for label in LABELS})}
    values, counts = np.unique(array, return_counts=True)
    strange = {int(v): int(n) for v, n in zip(values, counts, strict=True) if int(v) not in known}
    if strange:
        shown = ", ".join(f"{value} ({n} voxels)" for value, n in list(strange.items())[:6])
        raise ScanError(f"case {scan.case_id!r}: mask {path} holds label codes {shown}, expected "
                        f"{', '.join(map(str, sorted(known)))}. Relabel the mask, or name the "
                        "codes in data_manifests/cohorts.toml (mask_codes)")
    labels = np.zeros(scan.shape, np.uint8)
    for value in values:
        if known[int(value)]:
            labels[array == value] = known[int(value)]
    return LesionMask.like(scan, labels)


def read_lung_mask(path: str | os.PathLike, scan: Scan) -> np.ndarray:
    """A lung mask on the grid of its scan, bool [z, y, x]: any value but 0 is lung."""
    return _read_on_grid(Path(path), scan) != 0


def _write(array: np.ndarray, affine: np.ndarray, orientation: str, path: Path,
           note: str = "") -> None:
    if not path.name.lower().endswith(WRITTEN_SUFFIXES):
        raise ScanError(f"{path}: unknown suffix, expected one of {', '.join(WRITTEN_SUFFIXES)}")
    image = sitk.DICOMOrient(image_of(array, affine), orientation)
    if note:
        image.SetMetaData("ITK_FileNotes", note[:79])  # NIfTI's field `descrip` holds 80 bytes
    with atomic_path(path) as part:
        try:
            sitk.WriteImage(image, str(part), useCompression=True)
        except RuntimeError as error:
            raise OSError(f"{path} could not be written; is the disk full? "
                          f"({str(error).splitlines()[-1].strip()[:120]})") from error


def write_mask(mask: LesionMask, path: str | os.PathLike, note: str = "") -> None:
    """Write a mask in the voxel order and geometry of its scan's file, whole or not at all.

    `note` goes into a NIfTI file's field `descrip` (79 signs are kept).
    """
    _write(mask.labels, mask.affine, mask.orientation, Path(path), note)


def write_scan(scan: Scan, path: str | os.PathLike) -> None:
    """Write a scan in its own voxel order and geometry, whole or not at all."""
    _write(scan.hu, scan.affine, scan.orientation, Path(path))
