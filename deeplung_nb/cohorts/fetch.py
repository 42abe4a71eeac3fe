"""Published data sets: what is known of them, and how to get their files.

The facts (title, DOI, licence, files, hashes) stand in `data_manifests/cohorts.toml`. Only hashes
that somebody has published are there: a file without one is checked from then on against the
manifest made of it. A download that breaks off goes on where it stopped.
"""

from __future__ import annotations

import http.client
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch

from deeplung_nb.cohorts.unpack import ArchiveError, unpack
from deeplung_nb.runs.progress import Progress
from deeplung_nb.runs.registry import read_registry

TRIES, WAIT_SECONDS, SILENT_SECONDS = 4, 1.0, 60.0
"""How often a broken download is taken up, how long to wait before, and how long a server may say
nothing."""
CHUNK = 1 << 18


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

    def terms(self) -> str:
        """What one agrees to, in words."""
        lines = [self.title, f"terms    {self.licence}", f"cite     {self.citation}"]
        lines += [f"source   {self.doi or self.url}"] if self.doi or self.url else []
        lines += [f"note     {' '.join(self.note.split())}"] if self.note else []
        lines += [f"files    {', '.join(file.name for file in self.files)}"] if self.files else []
        return "\n".join(lines)


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


def published() -> dict[str, Dataset]:
    """Those that somebody else has published: what `fetch` can say something of."""
    return {name: one for name, one in datasets().items() if one.url or one.doi}


class _Resuming:
    """Downloads for pooch: what has come stays in `<file>.partial` until all of it is there."""

    def __init__(self, partial: Path, shown: bool) -> None:
        self.partial, self.shown = partial, shown

    def __call__(self, url: str, output_file: Any, pooch: Any) -> None:
        if not url.startswith(("https://", "http://")):
            raise OSError(f"{url} is no web address")
        for left in range(TRIES - 1, -1, -1):
            try:
                self._take_up(url)
                break
            except (http.client.HTTPException, TimeoutError, ConnectionError,
                    urllib.error.URLError) as error:
                gone = isinstance(error, urllib.error.HTTPError) and error.code < 500
                if not left or gone:
                    raise OSError(str(error)) from error
                time.sleep(WAIT_SECONDS)
        os.replace(self.partial, output_file)

    def _take_up(self, url: str) -> None:
        have = self.partial.stat().st_size if self.partial.exists() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            answer = urllib.request.urlopen(request, timeout=SILENT_SECONDS)
        except urllib.error.HTTPError as error:
            if error.code == 416 and have:  # nothing is left to send, or another file lies there
                if error.headers.get("Content-Range", "").endswith(f"/{have}"):
                    return
                self.partial.unlink()
                raise ConnectionError("the server has another file now") from error
            raise
        with answer:
            goes_on = answer.status == 206 and answer.headers.get(
                "Content-Range", "").startswith(f"bytes {have}-")
            length = int(answer.headers.get("Content-Length") or 0)
            start = have if goes_on else 0
            with self.partial.open("ab" if goes_on else "wb") as written, Progress(
                    self.partial.name, start + length, "B", start, shown=self.shown) as bar:
                while chunk := answer.read(CHUNK):
                    written.write(chunk)
                    bar.update(len(chunk))
        came = self.partial.stat().st_size
        if length and came != start + length:
            raise ConnectionError(f"broke off after {came} of {start + length} bytes")


def fetch(name: str, folder: str | os.PathLike, progress: bool = True) -> list[Path]:
    """Download a data set's files to `folder`; those already there with the right hash stay.

    A zip archive is unpacked into `<folder>/<archive name without .zip>/`. Paths of the files come
    back, those in an archive instead of the archive.

    Raises
    ------
    FetchError
        No direct download exists, the network does not answer, a file's hash differs from the
        published one, or an archive does what no data set needs. The message names the file, its
        address and where to put it by hand.
    """
    known = datasets()
    if name not in known:
        raise FetchError(f"data set {name!r}: expected one of {', '.join(published())}")
    dataset, folder = known[name], Path(folder)
    if not dataset.files:
        why = " ".join(dataset.note.split()) or "no files are named"
        raise FetchError(f"data set {name!r} has no direct download ({why}). Get it at "
                         f"{dataset.url or dataset.doi or 'its site'} and put it in {folder}, "
                         f"then: deeplung-nb manifest {name} {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for file in dataset.files:
        target = folder / file.name
        downloader: Any = _Resuming(folder / f"{file.name}.partial", progress)
        try:
            pooch.retrieve(file.url, known_hash=file.hash, fname=file.name, path=folder,
                           downloader=downloader)
        except ValueError as error:
            raise FetchError(f"{target}: the file from {file.url} is not the published one "
                             f"(expected {file.hash}). It was deleted: fetch it again, and if it "
                             f"stays so, tell its publisher. {error}") from error
        except OSError as error:
            raise FetchError(f"{target} is missing and {file.url} did not answer ({error}). What "
                             "has come is kept: the same command goes on. Without a network: put "
                             f"{file.name} of {dataset.doi or dataset.url} at {target} yourself"
                             ) from error
        try:
            paths += unpack(target) if target.suffix == ".zip" else [target]
        except ArchiveError as error:
            raise FetchError(str(error)) from error
    return paths
