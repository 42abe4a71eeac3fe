"""What lies in a folder that came from a PACS, a CD or somebody's Mac: slices, and all the rest.

A first walk reads headers alone. Every file ends in one of three places: an image, something that
is known to be none (named, so that the results can say it), or something that may have been a
slice. The last is an error: at either end of a scan nobody would miss it.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import re
import stat
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.misc import is_dicom
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from deeplung_nb.imaging.errors import ScanError

CT_CLASSES = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1",
              "1.2.840.10008.5.1.4.1.1.2.2")
"""CT Image Storage; Enhanced CT; Legacy Converted Enhanced CT."""
MOST_UNPACKED_BYTES = 1 << 33
"""Of a zip, and of a packed file in it: 8 GiB."""
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
KNOWN_NAMES = {".ds_store", "thumbs.db", "desktop.ini", "dicomdir", "readme", "license", "licence",
               "version", "autorun.inf", "lockfile", ".directory"}
KNOWN_SUFFIXES = {
    ".txt", ".md", ".xml", ".htm", ".html", ".css", ".js", ".json", ".csv", ".tsv", ".pdf", ".doc",
    ".docx", ".xls", ".xlsx", ".rtf", ".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff",
    ".ico", ".svg", ".exe", ".dll", ".jar", ".bat", ".sh", ".inf", ".ini", ".cfg", ".log", ".chm",
    ".hlp", ".cab", ".dat", ".db", ".sqlite", ".md5", ".sha1", ".sha256", ".nii", ".nrrd", ".mha",
    ".py", ".url", ".lnk", ".pkl", ".npy", ".npz", ".bvec", ".bval", ".yaml", ".yml", ".toml"}
SHOWN = 6


@dataclass(frozen=True)
class Member:
    """A file in a folder or a zip: its name from there, and how to open it (unpacked)."""

    name: str
    open: Callable[[], BinaryIO]


@dataclass(frozen=True)
class Header:
    """What the header of an image says; pixels are not read."""

    member: Member
    series: str
    number: int | None
    """Instance number."""
    modality: str
    sop_class: str
    image_type: tuple[str, ...]
    shape: tuple[int, int]
    colour: bool
    n_frames: int
    description: str = ""
    kernel: str = ""
    series_number: int | None = None
    thickness_mm: float | None = None
    orientation: tuple[float, ...] | None = None
    """Direction cosines of rows and columns; None where the file itself gives none."""
    has_place: bool = True

    @property
    def is_localizer(self) -> bool:
        """A scout: one picture of the whole chest, seen from the front or the side."""
        return "LOCALIZER" in self.image_type

    @property
    def is_page(self) -> bool:
        """A dose report, a protocol or a screenshot: a picture of words, not of a slice."""
        return (self.colour or self.sop_class == SecondaryCaptureImageStorage
                or bool({"SCREEN SAVE", "DOSE_INFO", "DOSE INFO", "PROTOCOL", "REPORT"}
                        & set(self.image_type)))


@dataclass
class Inventory:
    """All that was found: images, what is known to be none, and what may be lost slices."""

    images: list[Header] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """(file, why)."""
    oddments: list[tuple[str, str]] = field(default_factory=list)
    """(file, why) of what is no slice, unless its name is like theirs."""
    suspects: list[tuple[str, str]] = field(default_factory=list)
    """(file, what is wrong with it)."""


def _limited(stream: BinaryIO, name: str) -> BinaryIO:
    """All of an unpacked stream, up to a size."""
    content = stream.read(MOST_UNPACKED_BYTES + 1)
    if len(content) > MOST_UNPACKED_BYTES:
        raise ScanError(f"{name} unpacks to more than {MOST_UNPACKED_BYTES >> 30} GiB, expected a "
                        "CT. It is no scan: unpack it yourself to look at it")
    return io.BytesIO(content)


def _opener(path: Path) -> Callable[[], BinaryIO]:
    if path.name.lower().endswith(".gz"):
        return lambda: _limited(gzip.open(path), path.name)
    return lambda: path.open("rb")


def _walk(folder: Path, inventory: Inventory) -> Iterator[Member]:
    """The plain files of a folder and those below it, sorted."""
    def unreadable(error: OSError) -> None:
        raise ScanError(f"{error.filename} can't be opened ({error.strerror}), and may hold "
                        "slices. Ask for the right to read it, or copy the series anew") from error

    for here, folders, files in os.walk(folder, onerror=unreadable):
        folders.sort()
        for name in sorted(files):
            path = Path(here, name)
            shown = path.relative_to(folder).as_posix()
            try:
                mode = path.stat().st_mode
            except FileNotFoundError:
                inventory.suspects.append((shown, "a link to a file that is not there"))
                continue
            except OSError as error:
                inventory.suspects.append((shown, str(error.strerror)))
                continue
            if not stat.S_ISREG(mode):
                inventory.oddments.append((shown, "a pipe or a device"))
            else:
                yield Member(shown, _opener(path))


def _unzip(path: Path, case: str) -> Iterator[Member]:
    """The files of a zip, read in memory: no name in it can lead anywhere on the disk."""
    with zipfile.ZipFile(path) as packed:
        entries = [entry for entry in packed.infolist() if not entry.is_dir()]
    total = sum(entry.file_size for entry in entries)
    if total > MOST_UNPACKED_BYTES:
        raise ScanError(f"case {case!r}: {path} unpacks to {total / 2**30:.1f} GiB, expected at "
                        f"most {MOST_UNPACKED_BYTES >> 30}. Unpack the series that you want")
    if any(entry.flag_bits & 1 for entry in entries):
        raise ScanError(f"case {case!r}: {path} is encrypted, expected a plain zip. Unpack it with "
                        "its password, and give the folder")

    def opener(entry: zipfile.ZipInfo) -> Callable[[], BinaryIO]:
        def read() -> BinaryIO:
            with zipfile.ZipFile(path) as packed, packed.open(entry) as stream:
                content = _limited(stream, entry.filename)
            return _limited(gzip.open(content), entry.filename) \
                if entry.filename.lower().endswith(".gz") else content
        return read

    for entry in sorted(entries, key=lambda entry: entry.filename):
        yield Member(entry.filename, opener(entry))


def members(path: Path, case: str, inventory: Inventory) -> Iterator[Member]:
    """The files of a folder or of a zip; or a file alone."""
    if path.is_dir():
        yield from _walk(path, inventory)
    elif zipfile.is_zipfile(path):
        try:
            yield from _unzip(path, case)
        except (zipfile.BadZipFile, RuntimeError) as error:
            raise ScanError(f"case {case!r}: {path} is a damaged or unknown zip ({error}). Copy it "
                            "anew, or unpack it yourself") from error
    else:
        yield Member(path.name, _opener(path))


def _starts_like_dicom(head: bytes) -> bool:
    """A preamble, or (as old software writes) the first elements at once."""
    return head[128:132] == b"DICM" or head[:4] in (b"\x08\x00\x05\x00", b"\x08\x00\x00\x00",
                                                    b"\x08\x00\x08\x00", b"\x02\x00\x00\x00",
                                                    b"\x02\x00\x10\x00", b"\x08\x00\x16\x00")


def _is_text(head: bytes) -> bool:
    return bool(head) and all(byte in b"\t\n\r\f" or 32 <= byte < 127 or byte >= 128
                              for byte in head)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without pydicom's words on values that break its rules: folders are full of them."""
    level = pydicom.config.logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.config.logger.setLevel("ERROR")
        try:
            yield
        finally:
            pydicom.config.logger.setLevel(level)


@contextlib.contextmanager
def understanding(name: str, case: str) -> Iterator[None]:
    """Values are decoded when they are first asked for: only then a damaged one shows."""
    try:
        with quiet():
            yield
    except (ScanError, MemoryError):
        raise
    except Exception as error:
        raise ScanError(f"case {case!r}: {name} has a header that can't be understood "
                        f"({str(error)[:120]}). The file is damaged: copy it anew, or take it out "
                        "of the folder") from error


def read_dataset(member: Member, case: str, *, pixels: bool = True) -> tuple[Dataset, bool]:
    """A DICOM file, and whether it holds pixels (which `pixels=False` leaves unread).

    Raises
    ------
    ScanError
        It is damaged.
    """
    try:
        with member.open() as stream:
            head = stream.read(132)
            stream.seek(0)
            dataset = pydicom.dcmread(stream, force=head[128:132] != b"DICM",
                                      stop_before_pixels=not pixels)
            meta = getattr(dataset, "file_meta", FileMetaDataset())
            if "TransferSyntaxUID" not in meta:  # old files do not say; the reader has seen it
                implicit, little = dataset.original_encoding
                meta.TransferSyntaxUID = (ImplicitVRLittleEndian if implicit else
                                          ExplicitVRLittleEndian if little else ExplicitVRBigEndian)
                dataset.file_meta = meta
            deflated = meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian
            if not pixels and deflated:
                stream.seek(0)
                return pydicom.dcmread(stream), True
            # The reader stops where the pixels begin.
            return dataset, "PixelData" in dataset or (not pixels and bool(stream.read(8)))
    except (MemoryError, ScanError):
        raise
    except Exception as error:
        raise ScanError(f"case {case!r}: {member.name} can't be read as DICOM "
                        f"({str(error)[:120]}). The file is damaged: copy it anew, or take it out "
                        "of the folder") from error


def _number(value: object) -> int | None:
    try:
        return int(str(value))
    except ValueError:
        return None


def _text(value: object) -> str:
    if isinstance(value, (list, pydicom.multival.MultiValue)):
        return " ".join(map(str, value))
    return "" if value is None else str(value).strip()


def _header(dataset: Dataset, member: Member) -> Header:
    thickness = dataset.get("SliceThickness")
    frames = dataset.get("NumberOfFrames")
    orientation = dataset.get("ImageOrientationPatient")
    shared = dataset.get("SharedFunctionalGroupsSequence")
    return Header(
        member=member, series=_text(dataset.get("SeriesInstanceUID")) or "none",
        number=_number(dataset.get("InstanceNumber")),
        modality=_text(dataset.get("Modality")), sop_class=_text(dataset.get("SOPClassUID")),
        image_type=tuple(str(part).upper() for part in dataset.get("ImageType") or ()),
        shape=(int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)),
        colour=int(dataset.get("SamplesPerPixel") or 1) != 1,
        n_frames=int(frames) if frames else 1, description=_text(dataset.get("SeriesDescription")),
        kernel=_text(dataset.get("ConvolutionKernel")),
        series_number=_number(dataset.get("SeriesNumber")),
        thickness_mm=float(thickness) if thickness else None,
        orientation=tuple(map(float, orientation)) if orientation else None,
        has_place="ImagePositionPatient" in dataset or shared is not None)


def _sort(member: Member, case: str, inventory: Inventory) -> None:
    """Put one file where it belongs."""
    base = PurePosixPath(member.name).name
    if base.startswith("._"):
        inventory.left_out.append((member.name, "a Mac's note on another file"))
        return
    try:
        with member.open() as stream:
            head = stream.read(512)
            zeros = not head.strip(b"\0")
            while zeros and (more := stream.read(1 << 20)):
                zeros = not more.strip(b"\0")
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        inventory.suspects.append((member.name, f"can't be read ({str(error)[:80]})"))
        return
    known = base.lower() in KNOWN_NAMES or Path(base).suffix.lower() in KNOWN_SUFFIXES
    if zeros:
        found = (member.name, "empty" if not head else "filled with zeros")
        (inventory.oddments if known else inventory.suspects).append(found)
        return
    named_so = base.lower().removesuffix(".gz").endswith(DICOM_SUFFIXES)
    if not _starts_like_dicom(head) and not named_so:
        found = (member.name, "no DICOM")
        (inventory.oddments if known or _is_text(head) else inventory.suspects).append(found)
        return
    dataset, has_pixels = read_dataset(member, case, pixels=False)
    meta = getattr(dataset, "file_meta", Dataset())
    # Named twice: where a file was cut, one of the two may be cut as well.
    kinds = {str(uid) for uid in (dataset.get("SOPClassUID"),
                                  meta.get("MediaStorageSOPClassUID")) if uid}
    if has_pixels and (kinds or "Rows" in dataset):
        with understanding(member.name, case):
            inventory.images.append(_header(dataset, member))
    elif kinds and not kinds & set(CT_CLASSES):
        # UIDs of makers stand in no dictionary: of them only the number is known.
        inventory.left_out.append((member.name, f"no image: {UID(min(kinds)).name}"))
    else:
        raise ScanError(f"case {case!r}: {member.name} is a DICOM file without its pixels: it is "
                        "truncated. Copy it anew, or take it out of the folder")


def take_stock(path: Path, case: str) -> Inventory:
    """Read the headers of all that lies in a folder or a zip.

    Raises
    ------
    ScanError
        A DICOM file is damaged; a folder can't be opened; a zip is encrypted, damaged or unpacks to
        too much.
    """
    inventory = Inventory()
    with quiet():
        for member in members(path, case, inventory):
            _sort(member, case, inventory)
    return inventory


def take_stock_of_tree(folder: Path, image_suffixes: tuple[str, ...]
                       ) -> tuple[Inventory, list[str]]:
    """`take_stock` of a tree, where a damaged file is a suspect and no error; a zip is left out.

    Beside it the names of the files with one of `image_suffixes`, which are not opened.
    """
    inventory, images = Inventory(), []
    with quiet():
        for member in _walk(folder, inventory):
            name = PurePosixPath(member.name).name
            if name.lower().endswith(image_suffixes) and not name.startswith("._"):
                images.append(member.name)
            elif name.lower().endswith(".zip"):
                inventory.left_out.append((member.name, "a zip: unpack it, or give it by itself"))
            else:
                try:
                    _sort(member, member.name, inventory)
                except (ScanError, MemoryError) as error:
                    inventory.suspects.append((member.name, str(error).split("\n")[0]))
    return inventory, images


def holds_dicom(folder: Path) -> bool:
    """Whether any file of a folder begins as DICOM does."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("._") \
                and path.name.upper() != "DICOMDIR":
            try:
                if path.name.lower().endswith((*DICOM_SUFFIXES, ".dcm.gz")) or is_dicom(path):
                    return True
            except OSError:
                continue
    return False


def _kind_of_name(name: str) -> tuple[str, str, str]:
    """Folder, suffix, and the name with every number left open."""
    path = PurePosixPath(name)
    suffix = "" if path.suffix[1:].isdigit() else path.suffix.lower()  # the end of a UID
    return str(path.parent), suffix, re.sub(r"\d+", "#", path.name)


def require_none_lost(inventory: Inventory, chosen: list[Header], path: Path, case: str) -> None:
    """That no file which can't be read may be a slice of the chosen series.

    Raises
    ------
    ScanError
        One lies beside the slices under a name like theirs, or the slices' numbers have a hole.
    """
    names = {_kind_of_name(header.member.name) for header in chosen}
    beside = {name[:2] for name in names}
    patterns = {name[2] for name in names}
    lost = [(name, why) for name, why in inventory.suspects
            if _kind_of_name(name)[:2] in beside or _kind_of_name(name)[2] in patterns]
    numbers = sorted({header.number for header in chosen if header.number is not None})
    holes = numbers[-1] - numbers[0] + 1 - len(numbers) if numbers else 0
    if not lost and inventory.suspects and 0 < holes <= len(inventory.suspects):
        lost = list(inventory.suspects)
    lost += [(name, why) for name, why in inventory.oddments
             if _kind_of_name(name)[2] in patterns and re.search(r"\d", name)]
    if lost:
        shown = "".join(f"\n  {name}: {why}" for name, why in lost[:SHOWN])
        more = f"\n  and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        raise ScanError(f"case {case!r}: {path} holds {len(lost)} file(s) that may be slices and "
                        f"can't be read:{shown}{more}\nCopy the series anew, or take them out of "
                        "the folder if they are none")
    inventory.left_out += inventory.oddments + inventory.suspects
