"""The program itself as a hash: what can change a number, without its comments."""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

from deeplung_nb.runs.resources import PACKAGE_FOLDER


@functools.cache
def code_without_comments(path: Path, changed_ns: int) -> str:
    """The program in a file; kept as long as the file is not changed, since parsing takes time."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # Docstrings and the string "docstrings" of attributes change no number.
            node.body = [  # type: ignore[attr-defined]
                item for item in body
                if not (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))
            ]
    return ast.dump(tree)


def digest_of_rooms(*names: str) -> str:
    """SHA-256 over the code of some rooms or files of the package, without comments."""
    places = [PACKAGE_FOLDER / name for name in names]
    return digest_of([path for place in places
                       for path in (sorted(place.rglob("*.py")) if place.is_dir() else [place])])


def digest_of(files: list[Path]) -> str:
    """SHA-256 over the code in some files of the package, without comments."""
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(PACKAGE_FOLDER).as_posix().encode())
        digest.update(code_without_comments(path, path.stat().st_mtime_ns).encode())
    return digest.hexdigest()
