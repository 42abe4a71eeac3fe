"""Files of scans and masks; a mask goes back to the order and geometry of its scan's file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from deeplung_nb.files import atomic_path
from deeplung_nb.imaging.dicom import read_series
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.grid import MEMORY_ORIENTATION, Grid
from deeplung_nb.imaging.integrity import check_whole
from deeplung_nb.imaging.scan import LesionMask, Scan, scan_from_image
from deeplung_nb.labels import LABELS

IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
WRITTEN_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha")
"""Formats of one file: two files can't appear whole or not at all."""
WRITTEN_WITHIN_MM = 0.01
"""A NIfTI header keeps a rotation in float32: corners move by so much at most."""
GRID_TOLERANCE = 0.1
"""Of the smallest voxel side. Headers round: so much moves no voxel to its neighbour."""


def case_name(path: Path) -> str:
    """A case's name from its file: without folder and suffixes."""
    name = path.name
    for suffix in sorted(IMAGE_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return path.stem or name


def _read_image(path: Path, case: str) -> sitk.Image:
    """A 3-D scalar image, in its own order."""
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
    return image


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
        return read_series(path, case, series)
    return scan_from_image(_read_image(path, case), case, str(path))


def _read_on_grid(path: Path, scan: Scan) -> np.ndarray:
    """An array [z, y, x] of whole numbers on the grid of a scan."""
    if scan.source and path.exists() and os.path.exists(scan.source) \
            and os.path.samefile(path, scan.source):
        raise ScanError(f"case {scan.case_id!r}: {path} is the scan itself, expected its mask. "
                        "Give the mask's file")
    image = sitk.DICOMOrient(_read_image(path, scan.case_id), MEMORY_ORIENTATION)
    array = sitk.GetArrayFromImage(image)
    if array.shape != scan.shape:
        raise ScanError(f"case {scan.case_id!r}: mask {path} is {array.shape} (z, y, x), expected "
                        f"the scan's {scan.shape}. Resample it onto the scan's grid")
    shift = scan.grid.farthest_shift_mm(Grid.of_image(image))
    if shift > GRID_TOLERANCE * min(scan.spacing_mm):
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


def _write(array: np.ndarray, of: Scan | LesionMask, path: Path, note: str = "") -> None:
    if not path.name.lower().endswith(WRITTEN_SUFFIXES):
        raise ScanError(f"{path}: unknown suffix, expected one of {', '.join(WRITTEN_SUFFIXES)}")
    image = sitk.DICOMOrient(of.grid.to_image(array), of.orientation)
    if note:
        image.SetMetaData("ITK_FileNotes", note[:79])  # NIfTI's field `descrip` holds 80 bytes
    with atomic_path(path) as part:
        try:
            sitk.WriteImage(image, str(part), useCompression=True)
        except RuntimeError as error:
            raise OSError(f"{path} could not be written; is the disk full? "
                          f"({str(error).splitlines()[-1].strip()[:120]})") from error
        _require_written(image, part, path)


def _require_written(image: sitk.Image, part: Path, path: Path) -> None:
    """Read back what was written: a writer that runs out of room may say nothing of it.

    Raises
    ------
    OSError
        The file is not whole, or holds something else.
    """
    try:
        check_whole(part, path.name)
        found = sitk.ReadImage(str(part))
        same = (found.GetSize() == image.GetSize() and np.array_equal(
            sitk.GetArrayViewFromImage(found), sitk.GetArrayViewFromImage(image))
            and Grid.of_image(found).farthest_shift_mm(Grid.of_image(image)) < WRITTEN_WITHIN_MM)
    except (ScanError, RuntimeError) as error:
        raise OSError(errno.EIO, "not whole when it was read back; is the disk full?",
                      str(path)) from error
    if not same:
        raise OSError(errno.EIO, "other voxels or another place when it was read back", str(path))


def write_mask(mask: LesionMask, path: str | os.PathLike, note: str = "") -> None:
    """Write a mask in the voxel order and geometry of its scan's file, whole or not at all.

    `note` goes into a NIfTI file's field `descrip` (79 signs are kept).
    """
    _write(mask.labels, mask, Path(path), note)


def write_scan(scan: Scan, path: str | os.PathLike) -> None:
    """Write a scan in its own voxel order and geometry, whole or not at all."""
    _write(scan.hu, scan, Path(path))
