"""Names for what must not be named: keyed, so that only who has the key can tell who is who.

A hospital's folders and files are called after patients. Where an output needs a name and nobody
gave one, it is made of what it stands for with a secret key (HMAC-SHA-256): the same folder gives
the same name on this machine, and nobody without the key can guess back. The key lies in the user's
own folder, beside a list of what each made name stands for; neither is an output.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from deeplung_nb.files import write_text

KEY_FOLDER = "DEEPLUNG_KEY_FOLDER"
"""Environment variable: where key and list lie; default `~/.config/deeplung_nb`."""
KEY, LIST = "pseudonym.key", "pseudonyms.tsv"
LETTERS = 12


def key_folder() -> Path:
    """Where key and list lie."""
    return Path(os.environ.get(KEY_FOLDER) or Path.home() / ".config" / "deeplung_nb")


def read_key() -> bytes:
    """The key, made at its first use; only the user may read it.

    Raises
    ------
    OSError
        It is not there and can't be made.
    ValueError
        The file holds no key.
    """
    path = key_folder() / KEY
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _place_once(path, secrets.token_hex(32) + "\n")
    except OSError as error:
        raise OSError(f"{path}: the key for made names can't be written ({error.strerror}). Name "
                      f"the case (--case-id), or a folder of yours in {KEY_FOLDER}") from error
    text = path.read_text(encoding="ascii").strip()
    if len(text) != 64:
        raise ValueError(f"{path}: no key of 64 letters, expected what was written there once. "
                         "Put it back, or remove the file: made names will then be others")
    return bytes.fromhex(text)


def _place_once(path: Path, text: str) -> None:
    """A file of the user's alone, whole or not at all; of two processes the first one's stays."""
    part = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as stream:
        stream.write(text)
    try:
        os.link(part, path)
    except FileExistsError:
        pass
    finally:
        part.unlink()


def pseudonym(stands_for: str, kind: str = "case") -> str:
    """A name for something, as `case-5f2a90c1b7de`; it and what it stands for go into the list."""
    digest = hmac.new(read_key(), f"{kind}\0{stands_for}".encode("utf-8", "surrogateescape"),
                      hashlib.sha256).hexdigest()
    return f"{kind}-{digest[:LETTERS]}"


def remember(name: str, stands_for: str) -> Path:
    """Write into the user's list what a made name stands for; the list's path."""
    return remember_all({name: stands_for})


def remember_all(names: Mapping[str, str]) -> Path:
    """`remember` several at once."""
    path = key_folder() / LIST
    known = _listed(path)
    new = {name: _line(text) for name, text in names.items() if known.get(name) != _line(text)}
    if new:
        lines = [f"{name}\t{text}" for name, text in {**known, **new}.items()]
        write_text(path, "\n".join(lines) + "\n")
        path.chmod(0o600)
    return path


def stands_for(name: str) -> str | None:
    """What a made name stands for, by the user's list; None where it is not in it."""
    return _listed(key_folder() / LIST).get(name)


def _line(text: str) -> str:
    return " ".join(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").split())


def _listed(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return dict(line.split("\t", 1) for line in lines if "\t" in line)
