"""Published data sets: what is known of them, fetching, and a manifest from what lies on disk.

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

import pandas as pd
import pooch
import SimpleITK as sitk

from deeplung_nb.cohorts.manifest import write_manifest
from deeplung_nb.cohorts.schema import COLUMNS
from deeplung_nb.cohorts.splits import check_splits, make_splits, write_splits
from deeplung_nb.files import atomic_path, sha256_of
from deeplung_nb.registry import read_registry

MEDSEG2_CASES = tuple(str(number) for number in range(1, 10))
MEDSEG2_ONE_PATIENT = {"3": "2"}
"""Case 3 is very probably another series of the patient of case 2."""

MEDSEG2_FOLDS = {"1": (0, None), "6": (0, 1), "2": (1, 2), "3": (1, 2), "5": (2, None), "8": (1, 0)}
"""case: (tested in, validates). data_manifests/README.md says why."""


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


def adapt_medseg2(folder: str | os.PathLike) -> pd.DataFrame:
    """A manifest table of the MedSeg 2 cases found in `folder`.

    Reads headers and hashes, no voxel. A case is taken when its CT, lesion mask and lung mask are
    there; a case with some of the three is an error.

    Parameters
    ----------
    folder
        Holds `rp_im/N.nii.gz`, `rp_msk/N.nii.gz`, `rp_lung_msk/N.nii.gz`.
    """
    folder = Path(folder)
    rows = []
    for case in MEDSEG2_CASES:
        files = {"image": f"rp_im/{case}.nii.gz", "mask": f"rp_msk/{case}.nii.gz",
                 "lung_mask": f"rp_lung_msk/{case}.nii.gz"}
        absent = [name for name in files.values() if not (folder / name).is_file()]
        if len(absent) == len(files):
            continue
        if absent:
            raise ValueError(f"case {case!r}: {', '.join(absent)} missing in {folder}, expected "
                             "CT, mask and lung mask. Unpack rp_im, rp_msk and rp_lung_msk there")
        header = sitk.ImageFileReader()
        header.SetFileName(str(folder / files["image"]))
        header.ReadImageInformation()
        rows.append({
            "cohort": "medseg2", "case_id": case, "role": "cv",
            "patient_id": f"P{MEDSEG2_ONE_PATIENT.get(case, case)}", **files,
            **{f"{name}_sha256": sha256_of(folder / path) for name, path in files.items()},
            "mask_kind": "ggo+high_opacity", "protocol": "unknown", "centre": "Radiopaedia",
            "n_slices": header.GetSize()[2], "slice_gap_mm": round(header.GetSpacing()[2], 4),
            "exclude": 0,
        })
    if not rows:
        raise ValueError(f"{folder}: no MedSeg 2 case found, expected rp_im/1.nii.gz and so on. "
                         f"Get it from {datasets()['medseg2'].url}")
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_medseg2_manifest(folder: str | os.PathLike, manifest_csv: str | os.PathLike,
                           splits_csv: str | os.PathLike) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Make the manifest of the MedSeg 2 files in `folder`, and its splits; both tables come back.

    The six cases of the shipped manifest keep their folds; with any other set of cases the folds
    are dealt anew, three of them.
    """
    table = adapt_medseg2(folder)
    if set(table.case_id) == set(MEDSEG2_FOLDS):
        splits = table[["cohort", "case_id", "patient_id"]].assign(
            fold=[MEDSEG2_FOLDS[case][0] for case in table.case_id],
            validation_in=pd.array([MEDSEG2_FOLDS[case][1] for case in table.case_id], "Int64"),
        )
        check_splits(splits, table)
    else:
        splits = make_splits(table, n_folds=3, seed=1, validation_fraction=0.25)
    write_manifest(table, manifest_csv)
    write_splits(splits, splits_csv)
    return table, splits
