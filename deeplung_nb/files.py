"""Files that appear whole or not at all, their hashes, and why they can't be written."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PART = ".part-"
"""Unfinished files begin so: `.part-<machine>-<process>-<random><suffixes>`."""
JOURNAL = f"{PART}journal.json"
"""Lists the files that are being placed: there for the moment that this takes, or after a kill."""
LOCK = f"{PART}lock"
LOCK_SECONDS = 60.0
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a disk that knows no locks answers."""
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.\-]*\Z"
"""What may name a case, and so a file: it never leaves its folder, on any system."""
LONGEST_NAME = 100
STALE_SECONDS = 24 * 3600.0
"""An unfinished file of another machine (a shared disk) is a leftover after this time."""

_REMEDIES = {
    errno.EFBIG: "Files may not be as large there (ulimit -f, or the disk's kind): choose another "
                 "folder, or lift the limit",
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
    """An empty unfinished file beside `path`, with the rights that the user's umask leaves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Writers choose their format by the suffixes.
    suffixes = "".join(path.suffixes[-2:])[-20:]
    part = path.parent / f"{PART}{_machine()}-{os.getpid()}-{secrets.token_hex(6)}{suffixes}"
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    return part


def _sync(path: Path) -> None:
    """To the disk itself: some of a full or broken one's errors only show here."""
    with path.open("rb") as written:
        os.fsync(written.fileno())


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time places files in a folder; the lock goes when its process dies."""
    lock, until = folder / LOCK, time.monotonic() + LOCK_SECONDS
    while True:
        stream = lock.open("wb")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            if time.monotonic() > until:
                raise OSError(f"{folder}: another process has been placing files there for "
                              f"{LOCK_SECONDS:g} seconds. Wait for it, or end it") from None
            time.sleep(0.02)
            continue
        except OSError as error:  # a disk that knows no locks
            if error.errno not in NO_LOCKS:
                raise
        # Another one may have removed the name that was opened: then the lock is of no file.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), lock.stat()):
                break
        stream.close()
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        stream.close()


class TakenError(OSError):
    """Another process works in a folder: says which one."""


@contextlib.contextmanager
def only_one(folder: str | os.PathLike, work: str) -> Iterator[None]:
    """One process at a time does a work in a folder, which is made; the lock goes with it.

    Parameters
    ----------
    work
        What it does, as `measures a cohort`.

    Raises
    ------
    TakenError
        Another one is at it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            raise TakenError(f"{folder}: {stream.read().strip() or 'another process'} {work} "
                             "there. Wait for it, end it, or choose another folder") from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        stream.flush()
        yield


def _listed(journal: Path) -> list[tuple[str, str]]:
    """(part, target) names of a journal; empty where there is none."""
    try:
        pairs = json.loads(journal.read_text("utf-8"))
        names = [(str(part), str(target)) for part, target in pairs]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        raise OSError(f"{journal}: no list of files to place ({error}). Remove it") from error
    if any(Path(name).name != name for pair in names for name in pair) \
            or not all(part.startswith(PART) for part, _ in names):
        raise OSError(f"{journal}: lists files of other folders. It is not of this package: "
                      "remove it")
    return names


def _complete(journal: Path) -> None:
    """Place what a journal lists and is not placed yet; then the journal goes.

    What is to be replaced goes first, the last file before the others: at no moment do files of
    two makings lie beside each other, and the last one (a card, a provenance) is there only with
    all the others.
    """
    names = _listed(journal)
    left = [(journal.with_name(part), journal.with_name(target)) for part, target in names
            if journal.with_name(part).exists()]
    for _, target in reversed(left):
        target.unlink(missing_ok=True)
    for part, target in left:
        part.replace(target)
    journal.unlink()


def recover(folder: str | os.PathLike) -> bool:
    """Finish what a process was placing in `folder` when it was killed; whether there was any."""
    folder = Path(folder)
    if not (folder / JOURNAL).exists():
        return False
    with _locked(folder):
        if not (folder / JOURNAL).exists():  # somebody else has just done it
            return False
        _complete(folder / JOURNAL)
    return True


def _place(parts: list[Path], targets: list[Path], replace: bool) -> None:
    """Unfinished files to their names, all or none; see `atomic_paths`."""
    folder = targets[0].parent
    if any(target.parent != folder for target in targets):
        raise ValueError(f"files to appear together lie in {len({t.parent for t in targets})} "
                         "folders, expected one")
    if len(targets) == 1 and replace and not (folder / JOURNAL).exists():
        parts[0].replace(targets[0])
        return
    with _locked(folder):
        if (folder / JOURNAL).exists():
            _complete(folder / JOURNAL)
        for target in targets:
            if target.is_dir():
                raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
            if not replace and target.exists():
                raise FileExistsError(f"{target}: is there already; another process wrote it "
                                      "meanwhile. Choose another name, or --overwrite it")
        if len(targets) == 1:
            parts[0].replace(targets[0])
            return
        journal = _make_part(folder / JOURNAL)
        try:
            journal.write_text(json.dumps([(part.name, target.name) for part, target in
                                           zip(parts, targets, strict=True)]), encoding="utf-8")
            _sync(journal)
            journal.replace(folder / JOURNAL)  # from here on, all of them
        finally:
            journal.unlink(missing_ok=True)
        _complete(folder / JOURNAL)


@contextlib.contextmanager
def atomic_paths(*paths: str | os.PathLike, replace: bool = True) -> Iterator[list[Path]]:
    """Temporary paths beside `paths`; they become `paths` when the block ends without an error.

    Nobody ever sees half a file, also when the disk fills up. Several files (of one folder) appear
    together or not at all: a list of them, put in place by one rename, makes it certain, and who
    is killed after it is finished by the next one who writes there (`recover`). What a process
    killed before leaves behind, `remove_leftovers` takes away.

    Parameters
    ----------
    paths
        The files; of several, the last is the one that says that all are there.
    replace
        Whether files that are there may be replaced.

    Raises
    ------
    FileExistsError
        One is there already, though it was not to be replaced.
    """
    targets = [Path(path) for path in paths]
    parts: list[Path] = []
    try:
        for target in targets:
            parts.append(_make_part(target))
        yield parts
        for part in parts:
            _sync(part)
        _place(parts, targets, replace)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(targets[0].parent)  # of a stream that names no file
        raise
    finally:
        wanted = {part for part, _ in _listed(parts[0].parent / JOURNAL)} if parts else set()
        for part in parts:
            if part.name not in wanted:
                part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike, *, replace: bool = True) -> Iterator[Path]:
    """`atomic_paths` of a single file."""
    with atomic_paths(path, replace=replace) as (part,):
        yield part


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all; what is no text in it is escaped."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n", errors="backslashreplace")


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

    What they had begun to place is placed first. Files of living processes stay. `below`: in the
    folders below too.
    """
    for place in sorted(Path(folder).rglob(JOURNAL)) if below else [Path(folder) / JOURNAL]:
        recover(place.parent)
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
