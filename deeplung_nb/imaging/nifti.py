"""NIfTI headers: what they say of sizes, scaling and place, and the files that ITK can't read.

A header may place its voxels twice, by a qform and by an sform. Readers differ in which they take,
so where the two disagree nobody can know what others will show: the caller must choose.
"""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import BinaryIO

import nibabel
import numpy as np
import SimpleITK as sitk

from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.grid import Grid

GEOMETRIES = ("sform", "qform")
HEADER_BYTES = 544
"""Of NIfTI-2 and its extension flag; NIfTI-1 has 348."""
SIZE_TOLERANCE = 0.01
"""Relative difference allowed between a header's two statements of a voxel's size."""
PLACE_TOLERANCE = 0.5
"""Of the smallest voxel side: further apart, a qform and an sform are two places."""
MOST_SHEAR = 1e-3
"""Cosine of the angle between two axes that is still a right one."""
_COPY = "The file is damaged: copy it anew from its source"


def is_packed(path: Path) -> bool:
    """Whether a file is gzip, whatever its name says."""
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def open_voxels(path: Path) -> BinaryIO:
    """The unpacked bytes of a NIfTI file."""
    return gzip.open(path, "rb") if is_packed(path) else path.open("rb")


def is_itks(path: Path) -> bool:
    """Whether ITK reads it: NIfTI-1, packed where its name says so."""
    with open_voxels(path) as stream:
        size = int.from_bytes(stream.read(4), "little")
    return is_packed(path) == path.name.lower().endswith(".gz") and \
        size not in (540, int.from_bytes((540).to_bytes(4, "big"), "little"))


def read_header(head: bytes, path: Path, case: str) -> nibabel.Nifti1Header:
    """The header in a file's first bytes, after the checks of sizes and scaling.

    Raises
    ------
    ScanError
        It is none, or contradicts itself.
    """
    kind = (nibabel.Nifti2Header if 540 in (int.from_bytes(head[:4], order) for order in
                                            ("little", "big")) else nibabel.Nifti1Header)
    try:
        header = kind.from_fileobj(io.BytesIO(head), check=False)
        shape, dtype = header.get_data_shape(), header.get_data_dtype()
        sizes = np.asarray(header["pixdim"][1:4], float)
        offset = float(header["vox_offset"])
    except Exception as error:
        raise ScanError(f"case {case!r}: {path} has no NIfTI header that can be understood "
                        f"({str(error)[:120]}). {_COPY}") from error
    if not shape or min(shape) < 1 or dtype.itemsize == 0:
        raise ScanError(f"case {case!r}: {path} says it holds {shape} voxels of {dtype}, expected "
                        f"a volume. {_COPY}")
    if not abs(offset) < 1 << 40:  # not a number neither
        raise ScanError(f"case {case!r}: {path} says that its voxels begin at byte {offset} "
                        f"(vox_offset), expected a place in the file. {_COPY}")
    if len(shape) >= 3 and not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise ScanError(f"case {case!r}: {path} says that a voxel measures "
                        f"{' x '.join(f'{size:g}' for size in sizes)} (pixdim), expected three "
                        "lengths above 0. Volumes would be wrong: export the scan again")
    if header["sform_code"] > 0:
        columns = np.linalg.norm(header.get_sform()[:3, :3], axis=0)
        if not np.allclose(columns, sizes, rtol=SIZE_TOLERANCE, atol=0.0):
            raise ScanError(
                f"case {case!r}: {path} gives two sizes of a voxel: "
                f"{' x '.join(f'{size:.4g}' for size in sizes)} (pixdim) and "
                f"{' x '.join(f'{size:.4g}' for size in columns)} (sform), expected one. Volumes "
                "would be wrong: export the scan again, or set the header that is wrong")
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0.0 and np.isfinite(intercept) and intercept != 0.0:
        raise ScanError(f"case {case!r}: {path} has scl_slope 0 with scl_inter {intercept:g}: the "
                        "standard then means no scaling, many readers add the intercept. Set the "
                        "slope to 1, or the intercept to 0")
    return header


def _shown(affine: np.ndarray) -> str:
    """Where the axes of an affine run to, and where they begin."""
    code = "".join(nibabel.aff2axcodes(affine))
    first = ", ".join(f"{value:.4g}" for value in affine[:3, 3])
    return f"axes run to {code}, first voxel at ({first}) mm"


def _forms(header: nibabel.Nifti1Header) -> dict[str, np.ndarray]:
    found = {}
    if header["sform_code"] > 0:
        found["sform"] = header.get_sform()
    if header["qform_code"] > 0:
        found["qform"] = header.get_qform()
    return found


def _millimetres_apart(header: nibabel.Nifti1Header, forms: dict[str, np.ndarray]) -> float:
    """Between the places of a voxel by sform and by qform, at most; 0 where they agree."""
    if len(forms) < 2:
        return 0.0
    shape = (*header.get_data_shape(), 1, 1)[2::-1]
    apart = Grid(shape, forms["sform"]).farthest_shift_mm(Grid(shape, forms["qform"]))
    return 0.0 if apart <= PLACE_TOLERANCE * float(np.min(header["pixdim"][1:4])) else apart


def _header_of(path: Path, case: str) -> nibabel.Nifti1Header:
    try:
        with open_voxels(path) as stream:
            head = stream.read(HEADER_BYTES)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ScanError(f"case {case!r}: {path} is truncated or damaged ({error}), expected "
                        f"compressed data whole to its checksum. {_COPY}") from error
    return read_header(head, path, case)


def has_two_places(path: Path, case: str) -> bool:
    """Whether a file's sform and qform disagree."""
    header = _header_of(path, case)
    return _millimetres_apart(header, _forms(header)) > 0.0


def choose_affine(path: Path, case: str, geometry: str | None) -> tuple[np.ndarray | None, str]:
    """The affine that was asked for, or the only one; and a note where there is none.

    Returns
    -------
    (affine, note)
        float64 (4, 4), voxel index to RAS millimetres; None where the header gives no place.

    Raises
    ------
    ScanError
        qform and sform disagree and none was asked for; the one asked for is not there; the axes
        do not stand at right angles.
    """
    if geometry is not None and geometry not in GEOMETRIES:
        raise ScanError(f"case {case!r}: geometry {geometry!r}, expected one of "
                        f"{', '.join(GEOMETRIES)}")
    header = _header_of(path, case)
    forms = _forms(header)
    if geometry is not None and geometry not in forms:
        raise ScanError(f"case {case!r}: {path} has no {geometry}, expected one of "
                        f"{', '.join(forms) or 'none'}. Leave --geometry out")
    if not forms:
        return None, ("the file does not say how its voxels lie (sform_code and qform_code are 0): "
                      "left and right, head and feet are a guess")
    if geometry is None and (apart := _millimetres_apart(header, forms)):
        lines = "".join(f"\n  {name}: {_shown(affine)}" for name, affine in forms.items())
        raise ScanError(
            f"case {case!r}: {path} places its voxels twice, up to {apart:.4g} mm apart:"
            f"{lines}\nViewers differ in which they take. Find out which is right and give it: "
            "--geometry sform or --geometry qform (the outputs then carry it as both)")
    name = geometry or next(iter(forms))
    affine = forms[name]
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if not np.abs(axes.T @ axes - np.eye(3)).max() <= MOST_SHEAR:
        if len(forms) == 2 and geometry is None:
            return forms["qform"], ""  # the same place, without the rounding
        raise ScanError(
            f"case {case!r}: {path} has an {name} whose axes do not stand at right angles (no "
            "orthonormal direction cosines), expected a rotation. Set a rotation without shear "
            "(for instance qform to sform) and save it again")
    return affine, ""


def read_by_nibabel(path: Path) -> sitk.Image:
    """What ITK can't read: NIfTI-2, and gzip under a name that does not say so."""
    with open_voxels(path) as stream:
        content = stream.read()
    kind = nibabel.Nifti2Image if 540 in (int.from_bytes(content[:4], order) for order in
                                          ("little", "big")) else nibabel.Nifti1Image
    loaded = kind.from_bytes(content)
    array = np.asanyarray(loaded.dataobj)
    if array.dtype.fields is not None or array.dtype.kind not in "iuf":
        raise RuntimeError(f"voxels of type {array.dtype}, expected numbers")
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    native = array.T.astype(array.dtype.newbyteorder("="), copy=False)
    image = sitk.GetImageFromArray(np.ascontiguousarray(native))
    image.SetSpacing([float(size) for size in loaded.header.get_zooms()[:image.GetDimension()]])
    return image
