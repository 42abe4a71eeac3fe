"""Files of scans and masks; a mask goes back to the order and geometry of its scan's file."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from deeplung_nb.files import atomic_path
from deeplung_nb.imaging.dicom import read_series
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.folder import holds_dicom
from deeplung_nb.imaging.grid import MEMORY_ORIENTATION, Grid
from deeplung_nb.imaging.integrity import check_whole, data_file, require_plain_file
from deeplung_nb.imaging.nifti import choose_affine, has_two_places, is_itks, read_by_nibabel
from deeplung_nb.imaging.scan import LesionMask, Scan, scan_from_image
from deeplung_nb.labels import LABELS

NIFTI_SUFFIXES = (".nii", ".nii.gz")
DETACHED_SUFFIXES = (".nhdr", ".mhd")
IMAGE_SUFFIXES = (*NIFTI_SUFFIXES, ".nrrd", ".mha", *DETACHED_SUFFIXES)
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


@contextlib.contextmanager
def _for_itk(path: Path) -> Iterator[str]:
    """A path as ITK takes it: a name that is no UTF-8 ends the process, so a link stands in."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            suffixes = re.sub(r"[^\w.]", "", "".join(path.suffixes[-2:]))[-20:]
            link = Path(folder) / f"image{suffixes}"
            link.symlink_to(path.absolute())
            detached = path.suffix.lower() in DETACHED_SUFFIXES
            if detached and (data := data_file(path, path.name)) is not None:
                (Path(folder) / data.name).symlink_to(data.absolute())
            yield str(link)
    else:
        yield str(path)


def _out_of_memory(error: Exception, path: Path) -> bool:
    """Whether a library's own words (not the file's name in them) mean that memory ran out."""
    said = str(error).replace(str(path), "").lower()
    return isinstance(error, MemoryError) or any(
        words in said for words in ("bad_alloc", "bad alloc", "allocate memory", "out of memory"))


def _read_image(path: Path, case: str, geometry: str | None = None) -> tuple[sitk.Image, str]:
    """A 3-D scalar image, in its own order, and a note where its place is a guess."""
    if not path.exists():
        raise ScanError(f"case {case!r}: {path} is missing, expected an image file. Check the path")
    if not path.name.lower().endswith(IMAGE_SUFFIXES):
        raise ScanError(f"case {case!r}: {path} has an unknown suffix, expected one of "
                        f"{', '.join(IMAGE_SUFFIXES)} or DICOM. Convert the file")
    check_whole(path, case)
    affine, note, is_nifti = None, "", path.name.lower().endswith(NIFTI_SUFFIXES)
    if is_nifti:
        affine, note = choose_affine(path, case, geometry)
    elif geometry is not None:
        raise ScanError(f"case {case!r}: {path} is no NIfTI file, which alone places its voxels "
                        "twice. Leave --geometry out")
    itks = not is_nifti or is_itks(path)
    try:
        with _for_itk(path) as name:
            image = sitk.ReadImage(name) if itks else read_by_nibabel(path)
    except (RuntimeError, MemoryError) as error:
        if _out_of_memory(error, path):
            raise MemoryError(f"case {case!r}: memory ran out while {path} was read. Close other "
                              "programs, or use a machine with more of it") from error
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
    if affine is not None and (geometry is not None or not itks):
        Grid(tuple(image.GetSize()[::-1]), affine).place(image)
    return image, note


def scan_files(path: Path, case: str) -> list[Path]:
    """What a scan is read from: the folder or file itself, and the data of a detached header."""
    detached = data_file(path, case) if path.is_file() else None
    return [path] if detached is None else [path, detached]


def read_scan(path: str | os.PathLike, case_id: str | None = None,
              series: str | None = None, *, geometry: str | None = None,
              force: bool = False) -> Scan:
    """Read a CT: NIfTI, NRRD, MetaImage, DICOM (a file, a folder, a zip).

    Parameters
    ----------
    path
        File or folder; a folder without DICOM may hold one image file.
    case_id
        Name for messages and outputs; default: the file's or folder's name.
    series
        Which DICOM series, where a folder holds several: its number or UID.
    geometry
        `sform` or `qform`, where a NIfTI file's two statements of its place disagree.
    force
        Whether a series with gaps, tilt or doubled slices is resampled; `Scan.notes` say how.

    Raises
    ------
    ScanError
        The message names the file, the value, what was expected and the remedy.
    """
    path = Path(path)
    case = case_id or case_name(path)
    if not path.exists():
        raise ScanError(f"case {case!r}: {path} is missing, expected a CT. Check the path")
    if path.is_dir():
        images = [] if holds_dicom(path) else sorted(
            file for file in path.rglob("*") if file.name.lower().endswith(IMAGE_SUFFIXES)
            and not file.name.startswith("._") and file.is_file())
        if len(images) > 1:
            raise ScanError(f"case {case!r}: {path} holds {len(images)} images "
                            f"({', '.join(image.name for image in images[:6])}), expected one CT. "
                            "Give the file itself")
        if images:
            return read_scan(images[0], case, series, geometry=geometry, force=force)
    else:
        require_plain_file(path, case)
    if path.is_dir() or not path.name.lower().endswith(IMAGE_SUFFIXES):
        if geometry is not None:
            raise ScanError(f"case {case!r}: {path} is DICOM, which places its voxels once. Leave "
                            "--geometry out")
        return read_series(path, case, series, force=force)
    image, note = _read_image(path, case, geometry)
    scan = scan_from_image(image, case, str(path))
    return replace(scan, geometry=geometry, notes=(*((note,) if note else ()), *scan.notes))


def is_dicom_file(path: Path) -> bool:
    """Whether a file is DICOM, by its suffix or its first bytes."""
    if not path.is_file() or path.name.lower().endswith(IMAGE_SUFFIXES):
        return False
    with path.open("rb") as stream:
        return path.suffix.lower() == ".dcm" or stream.read(132)[128:] == b"DICM"


def read_codes(path: Path, scan: Scan) -> np.ndarray:
    """A label map as its maker wrote it: whole numbers [z, y, x] on the grid of a scan.

    Raises
    ------
    ScanError
        Another grid, or values that are no whole numbers.
    """
    if scan.source and path.exists() and os.path.exists(scan.source) \
            and os.path.samefile(path, scan.source):
        raise ScanError(f"case {scan.case_id!r}: {path} is the scan itself, expected its mask. "
                        "Give the mask's file")
    # The geometry that was chosen for the scan is that of masks drawn on it.
    geometry = scan.geometry if path.is_file() and path.name.lower().endswith(NIFTI_SUFFIXES) \
        and has_two_places(path, scan.case_id) else None
    image, _ = _read_image(path, scan.case_id, geometry)
    image = sitk.DICOMOrient(image, MEMORY_ORIENTATION)
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
        The mask's file, in any voxel order; or a DICOM Segmentation or RTSTRUCT of the series,
        whose segments are known by their names (`dicom_masks`).
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
    if is_dicom_file(Path(path)):
        from deeplung_nb.imaging.dicom_masks import read_dicom_mask

        return read_dicom_mask(path, scan)
    array = read_codes(Path(path), scan)
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
    return read_codes(Path(path), scan) != 0


def _write(array: np.ndarray, of: Scan | LesionMask, path: Path, note: str = "") -> None:
    if not path.name.lower().endswith(WRITTEN_SUFFIXES):
        raise ScanError(f"{path}: unknown suffix, expected one of {', '.join(WRITTEN_SUFFIXES)}")
    image = sitk.DICOMOrient(of.grid.to_image(array), of.orientation)
    if note:
        image.SetMetaData("ITK_FileNotes", note[:79])  # NIfTI's field `descrip` holds 80 bytes
    with atomic_path(path) as part:
        try:
            with _for_itk(part) as name:
                sitk.WriteImage(image, name, useCompression=True)
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
        with _for_itk(part) as name:
            found = sitk.ReadImage(name)
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
