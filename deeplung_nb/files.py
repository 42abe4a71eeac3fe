"""Files that appear whole or not at all, their hashes, and why they can't be written."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PART = ".part-"
"""Unfinished files begin so: `.part-<machine>-<process>-<random><suffixes>`."""
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.\-]*\Z"
"""What may name a case, and so a file: it never leaves its folder, on any system."""
LONGEST_NAME = 100
STALE_SECONDS = 24 * 3600.0
"""An unfinished file of another machine (a shared disk) is a leftover after this time."""

_REMEDIES = {
    errno.ENOSPC: "The disk is full: free some space, or choose another folder",
    errno.EDQUOT: "Your quota is used up: free some space, or choose another folder",
    errno.EACCES: "You may not write there: choose another folder, or ask for the permission",
    errno.EPERM: "You may not do that there: choose another folder, or ask for the permission",
    errno.EROFS: "That disk can only be read: choose another folder",
    errno.EEXIST: "A file stands where a folder is needed: choose another name",
    errno.ENOTDIR: "A file stands where a folder is needed: choose another name",
    errno.EISDIR: "A folder stands where a file is needed: choose another name",
    errno.ENAMETOOLONG: "The name is too long for this disk: choose a shorter one",
    errno.ENOENT: "There is no such file or folder: check the path",
}


def check_name(name: str, what: str = "case id") -> str:
    """A name that is safe as a file's name; it comes back.

    Raises
    ------
    ValueError
        It holds other signs than letters, digits, `_`, `-`, `.`, starts with a sign or is too long.
    """
    if not re.match(NAME_PATTERN, name) or len(name) > LONGEST_NAME:
        raise ValueError(f"{what} {name[:200]!r}: expected at most {LONGEST_NAME} letters, digits, "
                         "'_', '-', '.', a letter or digit first. It names the files that are "
                         "written: choose a pseudonym")
    return name


def safe_name(text: str) -> str:
    """A name that passes `check_name`, as like `text` as can be."""
    return re.sub(r"[^A-Za-z0-9_.\-]+", "_", text).strip("._-")[:LONGEST_NAME] or "case"


def explain(error: OSError) -> str:
    """An operating system's error as a sentence with the path and the remedy.

    An error that this package has worded already is returned as it is.
    """
    if error.errno is None or not error.strerror:
        return str(error)
    place = error.filename2 or error.filename
    where = f"{place}: " if place else ""
    remedy = _REMEDIES.get(error.errno, "Check the path and the disk, and try again")
    return f"{where}{error.strerror.lower()}. {remedy}"


def _machine() -> str:
    return re.sub(r"\W", "_", socket.gethostname())[:40] or "here"


def _make_part(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Writers choose their format by the suffixes.
    handle, name = tempfile.mkstemp(prefix=f"{PART}{_machine()}-{os.getpid()}-",
                                    suffix="".join(path.suffixes[-2:])[-20:], dir=path.parent)
    os.close(handle)
    part = Path(name)
    part.chmod(0o644)
    return part


@contextlib.contextmanager
def atomic_paths(*paths: str | os.PathLike) -> Iterator[list[Path]]:
    """Temporary paths beside `paths`; they become `paths` when the block ends without an error.

    Nobody ever sees half a file, nor some of the files without the others, also when the disk
    fills up. What a killed process leaves behind, `remove_leftovers` takes away.
    """
    targets = [Path(path) for path in paths]
    parts: list[Path] = []
    placed: list[Path] = []
    try:
        for target in targets:
            parts.append(_make_part(target))
        yield parts
        for part in parts:
            with part.open("rb") as written:
                os.fsync(written.fileno())
        for part, target in zip(parts, targets, strict=True):
            was_there = target.exists()
            part.replace(target)
            if not was_there:
                placed.append(target)
    except BaseException:
        for target in placed:
            target.unlink(missing_ok=True)
        raise
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """`atomic_paths` of a single file."""
    with atomic_paths(path) as (part,):
        yield part


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def _is_leftover(part: Path) -> bool:
    found = re.match(rf"{re.escape(PART)}(\w+)-(\d+)-", part.name)
    if found is None or found[1] != _machine():
        try:
            return time.time() - part.stat().st_mtime > STALE_SECONDS
        except FileNotFoundError:
            return False
    try:
        os.kill(int(found[2]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


def remove_leftovers(folder: str | os.PathLike, *, below: bool = False) -> int:
    """Delete the unfinished files of processes that are no more; how many there were.

    Files of living processes stay. `below`: in the folders below too.
    """
    search = Path(folder).rglob if below else Path(folder).glob
    leftovers = [part for part in search(f"{PART}*") if part.is_file() and _is_leftover(part)]
    for part in leftovers:
        part.unlink(missing_ok=True)
    return len(leftovers)


def check_writable(folder: str | os.PathLike, needed_bytes: int = 0) -> None:
    """Find out before long work whether files can be written to `folder` (or where it will be).

    Raises
    ------
    OSError
        It can't be written to, or the disk has less than `needed_bytes` left; see `explain`.
    """
    folder = Path(folder)
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
    try:
        with tempfile.NamedTemporaryFile(prefix=PART, dir=place) as probe:
            probe.write(b"0")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
    free = shutil.disk_usage(place).free
    if free < needed_bytes:
        raise OSError(errno.ENOSPC, f"{free / 1e6:.0f} MB free, about {needed_bytes / 1e6:.0f} MB "
                      "needed", str(folder))


def sha256_of(path: str | os.PathLike) -> str:
    """SHA-256, hexadecimal: of a file's bytes, or of a folder's `<hash>  <name>` lines.

    A folder's lines are those of `sha256sum` for its files, subfolders included, sorted by name.
    """
    path = Path(path)
    if path.is_dir():
        lines = [f"{sha256_of(file)}  {file.relative_to(path).as_posix()}\n"
                 for file in sorted(path.rglob("*")) if file.is_file()]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
