"""Is an image file whole? Asked of its bytes, before a reader smooths a fault over.

ITK fills the missing end of a truncated NIfTI file with zeros (0 HU, soft tissue), turns NaN into
0, a voxel size of 0 into 1 mm, and compares no checksum of compressed data. So each file is walked
through once first: checksums to the end, the number of bytes against the header, raw values that
are no numbers, and a NIfTI header's two statements of its voxel size against each other.

What can't be known: a changed byte in uncompressed voxels, which carry no checksum.
"""

from __future__ import annotations

import gzip
import math
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.nifti import HEADER_BYTES, open_voxels, read_header

CHUNK_BYTES = 1 << 24
MOST_BYTES = 1 << 34
"""Of voxels, 16 GiB: four thousand slices of 1024 x 1024. What unpacks to more is no CT."""
MOST_BYTES_AFTER = 1 << 24
"""Of whatever may follow the voxels in a file."""
_COPY = "The file is damaged: copy it anew from its source"
_META_BYTES = {"MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4,
               "MET_UINT": 4, "MET_LONG": 4, "MET_ULONG": 4, "MET_LONG_LONG": 8,
               "MET_ULONG_LONG": 8, "MET_FLOAT": 4, "MET_DOUBLE": 8}


def require_plain_file(path: Path, case: str) -> None:
    """That a path is a file, or a link to one: a pipe or a device never ends.

    Raises
    ------
    ScanError
        It is something else.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = next((words for test, words in (
            (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe (FIFO)"),
            (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"))
            if test(mode)), "no file")
        raise ScanError(f"case {case!r}: {path} is {kind}, expected a file. Save the image as a "
                        "file first")


def data_file(path: Path, case: str) -> Path | None:
    """The file in which the voxels of a detached header lie (`.mhd`, `.nhdr`); None: in its own.

    Raises
    ------
    ScanError
        The header names anything but one plain file beside it. A list or a pattern of names, or a
        place elsewhere, is refused: ITK would follow it to any file of this machine, and takes a
        pattern for a format string, which ends the process.
    """
    name = path.name.lower()
    if name.endswith((".mha", ".mhd")):
        named = _meta_fields(path, case).get("ElementDataFile", "LOCAL")
        if named.upper() == "LOCAL":
            return None
    elif name.endswith((".nrrd", ".nhdr")):
        fields = _nrrd_fields(path)
        named = fields.get("data file") or fields.get("datafile")
        if named is None:
            return None
    else:
        return None
    beside = path.parent / named
    if ("%" in named or named.upper().split()[:1] == ["LIST"] or Path(named).name != named
            or "\\" in named or named in ("", ".", "..") or not named.isprintable()):
        raise ScanError(f"case {case!r}: {path} names {named[:120]!r} as its data, expected the "
                        "name of one file beside it. Lists, patterns and files elsewhere are not "
                        "followed: save the image as one file")
    if not beside.exists():
        raise ScanError(f"case {case!r}: {beside} is missing, in which {path.name} says that its "
                        "voxels lie. Copy both files, under their own names")
    require_plain_file(beside, case)
    return beside


def check_whole(path: Path, case: str) -> None:
    """Check a NIfTI, NRRD or MetaImage file before it is read.

    Raises
    ------
    ScanError
        The file is no plain file, truncated or damaged, has values that are no numbers, unpacks to
        more than it says or than `MOST_BYTES`, or has a header that contradicts itself or leads
        elsewhere. Other faults are left to the reader.
    """
    require_plain_file(path, case)
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
    with open_voxels(path) as stream:
        head = stream.read(HEADER_BYTES)
        if len(head) < 348:
            raise ScanError(f"case {case!r}: {path} holds {len(head)} bytes, expected at least a "
                            f"NIfTI header of 348. {_COPY}")
        header = read_header(head, path, case)
        dtype = header.get_data_dtype()
        expected = math.prod(header.get_data_shape()) * dtype.itemsize
        _require_size(expected, path, case)
        stream.seek(max(int(header["vox_offset"]), 0))
        found, n_bad = 0, 0
        for chunk in _chunks(stream, expected):
            found += len(chunk)
            if dtype.kind == "f":
                values = np.frombuffer(chunk[:len(chunk) // dtype.itemsize * dtype.itemsize], dtype)
                n_bad += int(np.count_nonzero(~np.isfinite(values)))
        if found < expected:
            raise _short(path, case, found, expected)
        # To the checksum, which stands at the end.
        after = sum(map(len, _chunks(stream, MOST_BYTES_AFTER + 1)))
        if after > MOST_BYTES_AFTER:
            raise ScanError(f"case {case!r}: {path} goes on for more than {MOST_BYTES_AFTER >> 20} "
                            f"MB after its voxels, expected its end. {_COPY}")
    if n_bad:
        raise ScanError(f"case {case!r}: {path} has {n_bad} voxels that are NaN or infinite, "
                        "expected HU everywhere. Fill them with -1024, or export the CT again")


def _require_size(n_bytes: int, path: Path, case: str) -> None:
    if n_bytes > MOST_BYTES:
        raise ScanError(f"case {case!r}: {path} unpacks to {n_bytes / 2**30:.1f} GiB of voxels or "
                        f"more, expected at most {MOST_BYTES >> 30}. It is no CT: crop it, or "
                        "export it again")


def _inflate(stream: BinaryIO, window_bits: int, path: Path, case: str) -> int:
    """Bytes unpacked from zlib or gzip data; its checksum is compared.

    Raises
    ------
    EOFError, zlib.error
        The data end too early, or are damaged.
    ScanError
        They are more than `MOST_BYTES`.
    """
    unpacker, n_bytes = zlib.decompressobj(window_bits), 0
    while not unpacker.eof:
        chunk = unpacker.unconsumed_tail or stream.read(CHUNK_BYTES)
        if not chunk:
            raise EOFError("compressed data end before their checksum")
        n_bytes += len(unpacker.decompress(chunk, CHUNK_BYTES))
        _require_size(n_bytes, path, case)
    return n_bytes


def _nrrd_fields(path: Path) -> dict[str, str]:
    """The fields of an NRRD header; `` (an empty name) holds how many bytes it takes."""
    fields, n_bytes = {}, 0
    with path.open("rb") as stream:
        while line := stream.readline(1 << 16):
            n_bytes += len(line)
            if not line.strip():
                break
            name, colon, value = line.decode("utf-8", "replace").partition(":")
            if colon and not value.startswith("="):
                fields[name.strip().lower()] = value.strip()
    return {**fields, "": str(n_bytes)}


def _check_nrrd(path: Path, case: str) -> None:
    data, fields = data_file(path, case), _nrrd_fields(path)
    if fields.get("encoding", "raw").lower() not in ("gzip", "gz"):
        return  # the reader itself counts raw bytes
    with (data or path).open("rb") as stream:
        stream.seek(0 if data else int(fields[""]))
        _inflate(stream, 31, path, case)


def _meta_fields(path: Path, case: str) -> dict[str, str]:
    """The fields of a MetaImage header, up to the one that names its data.

    Raises
    ------
    ScanError
        It is not written as `name = value`, line by line: ITK might read something else in it.
    """
    fields, n_bytes = {}, 0
    with path.open("rb") as stream:
        while "ElementDataFile" not in fields and (line := stream.readline(1 << 16)):
            n_bytes += len(line)
            name, *value = re.split("[=:]", line.decode("utf-8", "replace"), maxsplit=1)
            if name.strip() and not value:
                break
            fields[name.strip()] = "".join(value).strip()
    if "ElementDataFile" not in fields:
        raise ScanError(f"case {case!r}: {path} has no MetaImage header that can be understood "
                        f"(lines 'name = value' that end with ElementDataFile). {_COPY}")
    return {**fields, "": str(n_bytes)}


def _check_meta(path: Path, case: str) -> None:
    data, fields = data_file(path, case), _meta_fields(path, case)
    try:
        expected = (math.prod(int(n) for n in fields["DimSize"].split())
                    * int(fields.get("ElementNumberOfChannels", 1))
                    * _META_BYTES[fields["ElementType"].removesuffix("_ARRAY")])
        skipped = int(fields.get("HeaderSize", 0))
    except (KeyError, ValueError) as error:
        raise ScanError(f"case {case!r}: {path} has no DimSize and ElementType that can be "
                        f"understood ({error}). {_COPY}") from error
    _require_size(expected, path, case)
    with (data or path).open("rb") as stream:
        stream.seek(0 if data else int(fields[""]))
        if fields.get("CompressedData", "False").lower() == "true":
            found = _inflate(stream, 15, path, case)
        else:
            if data:
                # -1: the voxels are the end of the file.
                size = data.stat().st_size
                stream.seek(skipped if skipped >= 0 else max(size - expected, 0))
            found = sum(map(len, _chunks(stream, expected)))
    if expected <= 0 or found < expected:
        raise _short(path, case, found, max(expected, 1))
