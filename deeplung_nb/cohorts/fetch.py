"""Published data sets: what is known of them, and how to get their files.

The facts (title, DOI, licence, files, hashes) stand in `data_manifests/cohorts.toml`. Only hashes
that somebody has published are there: a file without one is checked from then on against the
manifest made of it.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pooch

from deeplung_nb.files import atomic_path
from deeplung_nb.runs.registry import read_registry


class FetchError(ValueError):
    """A published file could not be had: names the file, the place and the remedy."""


@dataclass(frozen=True)
class PublishedFile:
    """One file of a data set; `hash` is `algorithm:digest`, None where none is published."""

    name: str
    url: str
    hash: str | None = None


@dataclass(frozen=True)
class Dataset:
    """What is known of a published data set."""

    name: str
    title: str
    licence: str
    citation: str
    doi: str = ""
    url: str = ""
    note: str = ""
    files: tuple[PublishedFile, ...] = ()


def datasets() -> dict[str, Dataset]:
    """The data sets of `cohorts.toml`, by name."""
    texts = ("title", "licence", "citation", "doi", "url", "note")
    return {
        name: Dataset(
            name, **{key: entry[key] for key in texts if key in entry},
            files=tuple(PublishedFile(**file) for file in entry.get("files", ())),
        )
        for name, entry in read_registry().items()
    }


def fetch(name: str, folder: str | os.PathLike, progress: bool = True) -> list[Path]:
    """Download a data set's files to `folder`; those already there with the right hash stay.

    A zip archive is unpacked into `<folder>/<archive name without .zip>/`. Paths of the files come
    back, those in an archive instead of the archive.

    Raises
    ------
    FetchError
        No direct download exists, the network does not answer, or a file's hash differs from the
        published one. The message names the file, its address and where to put it by hand.
    """
    known = datasets()
    if name not in known:
        raise FetchError(f"data set {name!r}: expected one of {', '.join(known)}")
    dataset, folder = known[name], Path(folder)
    if not dataset.files:
        raise FetchError(f"data set {name!r} has no direct download ({dataset.note or 'no files'}) "
                         f"Get it at {dataset.url or 'its site'} and put it in {folder}")
    paths = []
    for file in dataset.files:
        target = folder / file.name
        try:
            pooch.retrieve(file.url, known_hash=file.hash, fname=file.name, path=folder,
                           progressbar=progress)
        except ValueError as error:
            raise FetchError(f"{target}: the file from {file.url} is not the published one "
                             f"(expected {file.hash}). Delete it and fetch it again. {error}"
                             ) from error
        except OSError as error:  # requests' errors are OSErrors too
            raise FetchError(f"{target} is missing and {file.url} did not answer ({error}). "
                             f"Without a network: put {file.name} of {dataset.doi or dataset.url} "
                             f"at {target} yourself") from error
        paths += _unpack(target) if target.suffix == ".zip" else [target]
    return paths


def _unpack(archive: Path) -> list[Path]:
    """Unpack into a folder of the archive's name: images and masks may have the same names."""
    target = archive.with_suffix("")
    paths = []
    with zipfile.ZipFile(archive) as content:
        members = [member for member in content.infolist()
                   if not member.is_dir() and not member.filename.startswith("__MACOSX/")]
        nested = all(member.filename.startswith(f"{target.name}/") for member in members)
        for member in members:
            path = (target.parent if nested else target) / member.filename
            if not path.resolve().is_relative_to(target.resolve()):
                raise FetchError(f"{archive}: member {member.filename!r} leaves {target}. Do not "
                                 "trust this archive; fetch it again from its publisher")
            if not path.exists() or path.stat().st_size != member.file_size:
                with content.open(member) as source, atomic_path(path) as part, \
                        part.open("wb") as written:
                    shutil.copyfileobj(source, written)
            paths.append(path)
    return paths
