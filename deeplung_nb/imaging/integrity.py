"""Is an image file whole? Asked of its bytes, before a reader smooths a fault over.

ITK fills the missing end of a truncated NIfTI file with zeros (0 HU, soft tissue), turns NaN into
0, a voxel size of 0 into 1 mm, and compares no checksum of compressed data. So each file is walked
through once first: checksums to the end, the number of bytes against the header, raw values that
are no numbers, and a NIfTI header's two statements of its voxel size against each other.

What can't be known: a changed byte in uncompressed voxels, which carry no checksum.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import nibabel
import numpy as np

from deeplung_nb.imaging.errors import ScanError

CHUNK_BYTES = 1 << 24
SIZE_TOLERANCE = 0.01
"""Relative difference allowed between a header's two statements of a voxel's size."""
_COPY = "The file is damaged: copy it anew from its source"
_META_BYTES = {"MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4,
               "MET_UINT": 4, "MET_LONG": 4, "MET_ULONG": 4, "MET_LONG_LONG": 8,
               "MET_ULONG_LONG": 8, "MET_FLOAT": 4, "MET_DOUBLE": 8}


def check_whole(path: Path, case: str) -> None:
    """Check a NIfTI, NRRD or MetaImage file before it is read.

    Raises
    ------
    ScanError
        The file is truncated or damaged, has values that are no numbers, or a header that
        contradicts itself. Other faults are left to the reader.
    """
    name = path.name.lower()
    try:
        if name.endswith((".nii", ".nii.gz")):
            _check_nifti(path, case)
        elif name.endswith((".nrrd", ".nhdr")):
            _check_nrrd(path, case)
        elif name.endswith((".mha", ".mhd")):
            _check_meta(path, case)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ScanError(f"case {case!r}: {path} is truncated or damaged ({error}), expected "
                        f"compressed data whole to its checksum. {_COPY}") from error


def _short(path: Path, case: str, found: int, expected: int) -> ScanError:
    return ScanError(f"case {case!r}: {path} holds {found} bytes of voxels, expected {expected} "
                     f"({found / expected:.0%} are there). {_COPY}")


def _chunks(stream: BinaryIO, n_bytes: int) -> Iterator[bytes]:
    while n_bytes > 0 and (chunk := stream.read(min(CHUNK_BYTES, n_bytes))):
        n_bytes -= len(chunk)
        yield chunk


def _check_nifti(path: Path, case: str) -> None:
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"  # some files carry the suffix without being packed
    with gzip.open(path, "rb") if packed else path.open("rb") as stream:
        head = stream.read(544)
        if len(head) < 348:
            raise ScanError(f"case {case!r}: {path} holds {len(head)} bytes, expected at least a "
                            f"NIfTI header of 348. {_COPY}")
        header = _nifti_header(head, path, case)
        dtype = header.get_data_dtype()
        expected = math.prod(header.get_data_shape()) * dtype.itemsize
        start = max(int(header["vox_offset"]), 0)
        stream.seek(start)
        found, n_bad = 0, 0
        for chunk in _chunks(stream, expected):
            found += len(chunk)
            if dtype.kind == "f":
                values = np.frombuffer(chunk[:len(chunk) // dtype.itemsize * dtype.itemsize], dtype)
                n_bad += int(np.count_nonzero(~np.isfinite(values)))
        if found < expected:
            raise _short(path, case, found, expected)
        for _ in _chunks(stream, 1 << 62):  # to the checksum, which stands at the end
            pass
    if n_bad:
        raise ScanError(f"case {case!r}: {path} has {n_bad} voxels that are NaN or infinite, "
                        "expected HU everywhere. Fill them with -1024, or export the CT again")


def _nifti_header(head: bytes, path: Path, case: str) -> nibabel.Nifti1Header:
    """The header, after the checks of what it says of sizes and scaling."""
    kind = (nibabel.Nifti2Header if 540 in (int.from_bytes(head[:4], order) for order in
                                            ("little", "big")) else nibabel.Nifti1Header)
    try:
        header = kind.from_fileobj(io.BytesIO(head), check=False)
        shape, dtype = header.get_data_shape(), header.get_data_dtype()
        sizes = np.asarray(header["pixdim"][1:4], float)
    except Exception as error:
        raise ScanError(f"case {case!r}: {path} has no NIfTI header that can be understood "
                        f"({str(error)[:120]}). {_COPY}") from error
    if not shape or min(shape) < 1 or dtype.itemsize == 0:
        raise ScanError(f"case {case!r}: {path} says it holds {shape} voxels of {dtype}, expected "
                        f"a volume. {_COPY}")
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


def _inflate(stream: BinaryIO, window_bits: int) -> int:
    """Bytes unpacked from zlib or gzip data; its checksum is compared.

    Raises
    ------
    EOFError, zlib.error
        The data end too early, or are damaged.
    """
    unpacker, n_bytes = zlib.decompressobj(window_bits), 0
    while not unpacker.eof:
        chunk = unpacker.unconsumed_tail or stream.read(CHUNK_BYTES)
        if not chunk:
            raise EOFError("compressed data end before their checksum")
        n_bytes += len(unpacker.decompress(chunk, CHUNK_BYTES))
    return n_bytes


def _check_nrrd(path: Path, case: str) -> None:
    with path.open("rb") as stream:
        fields = {}
        while (line := stream.readline(1 << 16)).strip():
            name, colon, value = line.decode("ascii", "replace").partition(":")
            if colon and not value.startswith("="):
                fields[name.strip().lower()] = value.strip()
        if fields.get("encoding", "raw").lower() not in ("gzip", "gz"):
            return  # the reader itself counts raw bytes
        detached = fields.get("data file") or fields.get("datafile")
        if detached is None:
            _inflate(stream, 31)
        elif (path.parent / detached).is_file():
            with (path.parent / detached).open("rb") as other:
                _inflate(other, 31)


def _check_meta(path: Path, case: str) -> None:
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        while "ElementDataFile" not in fields and (line := stream.readline(1 << 16)):
            name, _, value = line.decode("ascii", "replace").partition("=")
            fields[name.strip()] = value.strip()
        place = fields.get("ElementDataFile", "")
        if place.upper() != "LOCAL":
            if not (path.parent / place).is_file() or not place:
                return  # the reader says what is missing
            stream = (path.parent / place).open("rb")
        with stream:
            try:
                expected = (math.prod(int(n) for n in fields["DimSize"].split())
                            * int(fields.get("ElementNumberOfChannels", 1))
                            * _META_BYTES[fields["ElementType"].removesuffix("_ARRAY")])
            except (KeyError, ValueError) as error:
                raise ScanError(f"case {case!r}: {path} has no DimSize and ElementType that can be "
                                f"understood ({error}). {_COPY}") from error
            if fields.get("CompressedData", "False").lower() == "true":
                found = _inflate(stream, 15)
            else:
                if place.upper() != "LOCAL":
                    skipped = int(fields.get("HeaderSize", 0))
                    # -1: the voxels are the end of the file.
                    stream.seek(*((skipped, 0) if skipped >= 0 else (-expected, 2)))
                found = sum(map(len, _chunks(stream, expected)))
    if expected <= 0 or found < expected:
        raise _short(path, case, found, max(expected, 1))
