"""What lies beside the package in a clone and inside it once installed.

Notebooks, manifests, pages and the example run are part of what is installed: commands find them
here and never by a path of the clone.
"""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

from deeplung_nb.files import check_writable

PACKAGE_FOLDER = Path(str(files("deeplung_nb"))).resolve()
SHIPPED = ("notebooks", "data_manifests", "docs", "results/example")
"""Folders of the clone that a wheel holds, as `deeplung_nb/shipped/<name>`."""
EXAMPLE = "results/example"

MOVED: dict[str, tuple[tuple[str, str], ...]] = {
    ".": (("../docs/", "docs/"),),
    "docs": (("../notebooks/", "../"), ("../data_manifests/", "data_manifests/")),
    "docs/data_manifests": (("../docs/", "../"),),
}
"""Where links of a folder's texts lead, in the clone and in a folder laid out by `lay_out`."""


def clone() -> Path | None:
    """The clone that this package is used from; None where it is installed."""
    folder = PACKAGE_FOLDER.parent
    return folder if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir() \
        else None


def shipped(name: str) -> Path:
    """The folder that came with the package under this name, one of `SHIPPED`; not to write to.

    Raises
    ------
    FileNotFoundError
        The installation is not whole.
    """
    folder = (clone() or PACKAGE_FOLDER / "shipped") / name
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: missing, expected to come with the package. Install "
                                "deeplung_nb again from its wheel, or work in a clone")
    return folder


def work_folder() -> Path:
    """Where results and own manifests lie by default: the clone, else the current folder."""
    return clone() or Path.cwd()


def copy_missing(source: Path, target: Path) -> list[Path]:
    """Copy a folder's files, but for those that are there; the new ones, which can be written to.
    """
    made = []
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_file() and not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            made.append(copy)
    return made


def lay_out(folder: Path) -> list[Path]:
    """Copy notebooks, pages and the example run into a folder of one's own; the notebooks' paths.

    The example lies in `<folder>/results/example`, where the notebooks look for it, and the pages
    that they name in `<folder>/docs`, with links that hold there.

    Raises
    ------
    FileExistsError
        One of these files is there already: work in it is never replaced.
    OSError
        The folder can't be written to.
    """
    notebooks = sorted(path for path in shipped("notebooks").iterdir()
                       if path.suffix in (".ipynb", ".py"))
    there = [path.name for path in notebooks if (folder / path.name).exists()]
    there += [EXAMPLE] if (folder / EXAMPLE).exists() else []
    if there:
        raise FileExistsError(f"{folder}: {', '.join(there[:4])} is there already, and may hold "
                              "your work. Choose another folder")
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    copy_missing(shipped(EXAMPLE), folder / EXAMPLE)
    pages = copy_missing(shipped("docs"), folder / "docs")
    # Not where own manifests are looked for: a copy there would hide the package's.
    pages += copy_missing(shipped("data_manifests"), folder / "docs" / "data_manifests")
    laid = [Path(shutil.copyfile(path, folder / path.name)) for path in notebooks]
    for path in (*laid, *(page for page in pages if page.suffix == ".md")):
        text = path.read_text(encoding="utf-8")
        moved = text
        for old, new in MOVED.get(path.parent.relative_to(folder).as_posix(), ()):
            moved = moved.replace(f"]({old}", f"]({new}")
        if moved != text:
            path.write_text(moved, encoding="utf-8", newline="\n")
    return laid
