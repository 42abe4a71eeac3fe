"""The data sets that this project knows, as `data_manifests/cohorts.toml` describes them."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from deeplung_nb.runs.resources import clone, copy_missing, shipped, work_folder

KINDS = ("patients", "phantoms", "simulated readings")
"""What a cohort's cases are; `patients` where nothing is said."""


REGISTRY = "cohorts.toml"


def manifest_folder() -> Path:
    """Where the manifests lie: `DEEPLUNG_MANIFESTS`, else `data_manifests/`.

    In a clone that of the clone; where the package is installed that of the current folder if it
    holds a `cohorts.toml`, and else the package's own.
    """
    if os.environ.get("DEEPLUNG_MANIFESTS"):
        return Path(os.environ["DEEPLUNG_MANIFESTS"])
    own = work_folder() / "data_manifests"
    return own if (own / REGISTRY).is_file() else shipped("data_manifests")


def own_manifest_folder() -> Path:
    """The folder that a new manifest goes to: `manifest_folder`, never inside the package."""
    found = manifest_folder()
    inside = clone() is None and found == shipped("data_manifests")
    return work_folder() / "data_manifests" if inside else found


def complete_manifests(folder: Path) -> None:
    """Put the package's manifests beside own ones, so that the folder is found as `data_manifests`.

    What is there already stays as it is.
    """
    if not (folder / REGISTRY).exists():
        copy_missing(shipped("data_manifests"), folder)


def read_registry() -> dict[str, dict[str, Any]]:
    """What `cohorts.toml` says of each cohort: title, kind, DOI, licence, citation, files, counts.

    Raises
    ------
    ValueError
        The file is missing or no TOML, or a cohort is of an unknown kind.
    """
    path = manifest_folder() / REGISTRY
    try:
        registry = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: can't be read as TOML ({error}), expected the list of cohorts. "
                         "Correct it, or set DEEPLUNG_MANIFESTS to the folder that has it"
                         ) from error
    for name, entry in registry.items():
        if entry.get("kind", KINDS[0]) not in KINDS:
            raise ValueError(f"{path}: cohort {name!r} has kind {entry['kind']!r}, expected one of "
                             f"{', '.join(KINDS)}. Correct it")
    return registry


def _is(cohort: str, kind: str) -> bool:
    return read_registry().get(cohort, {}).get("kind") == kind


def is_phantom(cohort: str) -> bool:
    """Whether a cohort's CTs are generated."""
    return _is(cohort, "phantoms")


def is_simulated(cohort: str) -> bool:
    """Whether a cohort is a table of simulated readings, without any CT."""
    return _is(cohort, "simulated readings")


def cohort_files(cohort: str) -> tuple[Path, Path]:
    """The manifest and the frozen folds of a cohort; neither need be there."""
    entry = read_registry().get(cohort, {})
    folder = manifest_folder()
    return (folder / entry.get("manifest", f"{cohort}.csv"),
            folder / entry.get("splits", f"splits_{cohort}.csv"))


def read_encoders() -> dict[str, dict[str, str]]:
    """What `encoders.toml` says of pretrained encoders: file, SHA-256, source, licence, how."""
    path = manifest_folder() / "encoders.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def terms_table() -> str:
    """The terms of every data set and encoder that this project knows, as Markdown."""
    rows = ["| what | terms | source |", "|---|---|---|"]
    for name, entry in (read_registry() | read_encoders()).items():
        source = entry.get("doi") or entry.get("url") or entry.get("source") or "this project"
        terms = "MIT, as this project" if entry["licence"] == "as this project" \
            else entry["licence"]
        rows.append(f"| `{name}` | {terms} | {source} |")
    return "\n".join(rows)
