"""Archives that somebody else made: unpacked into their own folder, and nowhere else.

A name may lead out of the folder, a link may point anywhere, a megabyte may unpack to a disk full,
and two names may be one file on another system. Each is an error before anything is written, or,
where only the content shows it, before the file is placed.
"""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from deeplung_nb.files import atomic_path

MOST_TIMES, MOST_MORE = 100, 1 << 30
"""An archive may unpack to so many times its size, and so many bytes more."""
CHUNK = 1 << 20
DISTRUST = "Do not trust this archive; fetch it again from its publisher"


class ArchiveError(ValueError):
    """An archive that is damaged or does what no data set needs; nothing of it is kept."""


def _check_name(archive: Path, name: str) -> PurePosixPath:
    path, windows = PurePosixPath(name), PureWindowsPath(name)
    if (path.is_absolute() or windows.drive or windows.root or "\\" in name or ".." in path.parts
            or "\0" in name or not path.parts):
        raise ArchiveError(f"{archive}: member {name!r} leaves its folder, expected a relative "
                           f"name. {DISTRUST}")
    return path


def list_members(archive: Path) -> list[zipfile.ZipInfo]:
    """The files in a zip, after every check that its table of contents allows.

    Raises
    ------
    ArchiveError
        No zip; a name that leads elsewhere, stands twice, or differs from another in case only; a
        link or a device; encrypted; more than the archive may unpack to.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            entries = content.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise ArchiveError(f"{archive}: can't be read as a zip ({error}). Delete it and fetch it "
                           "again") from error
    members, seen, total = [], {}, 0
    for entry in entries:
        path = _check_name(archive, entry.filename)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind and not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise ArchiveError(f"{archive}: member {entry.filename!r} is a link or a device, "
                               f"expected plain files. {DISTRUST}")
        if entry.flag_bits & 1:
            raise ArchiveError(f"{archive}: member {entry.filename!r} is encrypted, expected a "
                               "plain zip. Unpack it with its password")
        if entry.is_dir() or path.parts[0] == "__MACOSX" or path.name.startswith("._"):
            continue
        key = str(path).casefold()
        if key in seen:
            raise ArchiveError(f"{archive}: members {seen[key]!r} and {entry.filename!r} are one "
                               f"file on some systems, expected different names. {DISTRUST}")
        seen[key] = entry.filename
        total += entry.file_size
        members.append(entry)
    most = MOST_TIMES * archive.stat().st_size + MOST_MORE
    if total > most:
        raise ArchiveError(f"{archive}: unpacks to {total / 1e9:.1f} GB by its own word, expected "
                           f"at most {most / 1e9:.1f} of {archive.stat().st_size / 1e6:.1f} MB. "
                           f"{DISTRUST}")
    return members


def unpack(archive: Path) -> list[Path]:
    """Unpack a zip into a folder of its name; the paths of its files.

    Images and masks may have the same names in different archives, so each has its own folder. What
    is there already with the right size stays.

    Raises
    ------
    ArchiveError
        As `list_members`; or a file that is longer than it says, or damaged.
    OSError
        The disk has no room for it.
    """
    members = list_members(archive)
    target = archive.with_suffix("")
    free, wanted = shutil.disk_usage(archive.parent).free, sum(one.file_size for one in members)
    if wanted > free:
        raise OSError(f"{target}: needs {wanted / 1e9:.1f} GB, and {free / 1e9:.1f} are free. Free "
                      "some space, or choose another folder")
    nested = bool(members) and all(PurePosixPath(one.filename).parts[0] == target.name
                                   and len(PurePosixPath(one.filename).parts) > 1
                                   for one in members)
    paths = []
    with zipfile.ZipFile(archive) as content:
        for member in members:
            path = (target.parent if nested else target) / member.filename
            if not path.parent.resolve().is_relative_to(target.parent.resolve()):
                raise ArchiveError(f"{archive}: member {member.filename!r} goes through a link "
                                   f"that is there already. Remove {path.parent}")
            if not path.is_file() or path.stat().st_size != member.file_size:
                _copy(content, member, path, archive)
            paths.append(path)
    return paths


def _copy(content: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, archive: Path) -> None:
    try:
        with content.open(member) as source, atomic_path(path) as part, part.open("wb") as written:
            length = 0
            while chunk := source.read(CHUNK):
                length += len(chunk)
                if length > member.file_size:
                    raise ArchiveError(f"{archive}: member {member.filename!r} is longer than the "
                                       f"{member.file_size} bytes it says. {DISTRUST}")
                written.write(chunk)
            if length != member.file_size:
                raise ArchiveError(f"{archive}: member {member.filename!r} holds {length} bytes of "
                                   f"{member.file_size}: it is truncated. Fetch the archive again")
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ArchiveError(f"{archive}: member {member.filename!r} is damaged or packed in an "
                           f"unknown way ({error}). Fetch the archive again") from error
