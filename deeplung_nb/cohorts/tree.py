"""A manifest of whatever lies in a folder: a hospital's export, a disk of studies, a download.

Everything is read once, whole. What is a chest CT becomes a row; what can't be read, or is none,
is listed with its reason. Which series of a study is taken follows one rule: of its CT series of
slices the one with the most, among equals the one that the scanner numbered first. Names in the
tree are patients' names, so patients and cases get made ones (`pseudonyms`), and the manifest's
paths are these: only who has the list of made names can find the files.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from os.path import commonpath
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from deeplung_nb.cohorts.manifest import write_manifest
from deeplung_nb.cohorts.schema import COLUMNS, NO_MASK
from deeplung_nb.cohorts.splits import make_splits, write_splits
from deeplung_nb.files import atomic_paths, check_name, sha256_of, write_text
from deeplung_nb.imaging.dicom import by_series, is_slice, part_of, read_facts, read_series
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.folder import Header, Inventory, take_stock_of_tree
from deeplung_nb.imaging.io import IMAGE_SUFFIXES, case_name, read_codes, read_scan
from deeplung_nb.imaging.lungs import lungs_for
from deeplung_nb.imaging.plausibility import require_plausible
from deeplung_nb.imaging.scan import Scan
from deeplung_nb.labels import LABELS
from deeplung_nb.pseudonyms import key_folder, pseudonym, remember_all
from deeplung_nb.runs.progress import track

FEWEST_SLICES = 8
MASK_WORDS = "mask|masks|msk|seg|segmentation|label|labels|lesion|lesions|gt|infection"
CT_WORDS = "ct|image|img|im|volume|scan"
_MASK = re.compile(rf"(?:^|[_\-. ])(?:{MASK_WORDS})$", re.I)
_LUNG = re.compile(rf"(?:^|[_\-. ])lungs?(?:[_\-. ]?(?:{MASK_WORDS}))?$", re.I)
_CT = re.compile(rf"(?:^|[_\-. ])(?:{CT_WORDS})$", re.I)


@dataclass
class Tree:
    """What was found: rows of a manifest, and what is in none, with the reason."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """(path within the folder, why)."""
    made_names: dict[str, str] = field(default_factory=dict)

    def made_name(self, path: Path, kind: str, more: str = "") -> str:
        """The made name of a file or folder, which is remembered."""
        name = pseudonym(f"{path.resolve()}{more}", kind)
        self.made_names[name] = str(path.resolve())
        return name

    def table(self) -> pd.DataFrame:
        """The manifest's table."""
        extra = [name for row in self.rows for name in row if name not in COLUMNS]
        return pd.DataFrame(self.rows, columns=[*COLUMNS, *dict.fromkeys(extra)])


@dataclass(frozen=True)
class _Candidate:
    path: Path
    shown: str
    patient: str
    study: str
    series: str | None = None
    """Its number in `list_series` of the folder, where that holds several."""
    n_slices: int = 0
    scanner_number: int = 1 << 31
    facts: dict[str, Any] = field(default_factory=dict)
    headers: tuple[Header, ...] = ()
    beside: Inventory | None = None
    """What else lies in the folder of a series: it is not looked at again."""

    def read(self) -> Scan:
        if self.beside is None:
            return read_scan(self.path, case_id=self.shown)
        # Several series of a folder share one inventory, and reading one adds to its `left_out`.
        own = replace(self.beside, left_out=list(self.beside.left_out))
        return read_series(self.path, self.shown, self.series, inventory=own)


def list_tree(folder: Path, cohort: str, role: str = "external", progress: bool = True) -> Tree:
    """Read everything below a folder, and make manifest rows of the CTs.

    Parameters
    ----------
    folder
        Any tree of DICOM files, NIfTI, NRRD and MetaImage files, and whatever else lies there.
    cohort, role
        What the rows belong to and serve for.

    Returns
    -------
    Tree
        A row for each chosen CT; one without an expert's mask, or that is no plausible chest CT, is
        a row that is excluded with its reason. Files that no CT is made of are in `left_out`.
        A mask belongs to an image file of its folder, or of the folder beside it, that is called so
        but for a word (`case7.nii.gz` and `case7_mask.nii.gz`, `labels/case7.nii.gz`).

    Raises
    ------
    ValueError
        There is nothing that could be a CT.
    """
    tree = Tree()
    chosen, masks = _look(folder, tree)
    for one in track(chosen, "read", "scan", shown=progress):
        try:
            scan = one.read()
        except (ScanError, OSError, MemoryError) as error:
            tree.left_out.append((one.shown, _without_case(str(error))))
            continue
        if scan.n_slices < FEWEST_SLICES:
            tree.left_out.append((one.shown, f"{scan.n_slices} slices, expected "
                                             f"{FEWEST_SLICES} or more"))
            continue
        tree.rows.append(_row(one, scan, folder, masks, cohort, role, tree))
    remember_all(tree.made_names)
    return tree


def _look(folder: Path, tree: Tree) -> tuple[list[_Candidate], _Masks]:
    """The CTs that are taken, and all masks, by headers and names alone."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: is no folder, expected one with CTs in it. Check the path")
    inventory, images = take_stock_of_tree(folder, IMAGE_SUFFIXES)
    masks = _masks(images)
    candidates = [*_series_of(folder, inventory, tree), *(
        _Candidate(folder / name, name, patient="", study=name) for name in images
        if name not in masks.all)]
    for name, why in (*inventory.left_out, *inventory.oddments, *inventory.suspects):
        tree.left_out.append((name, why))
    chosen = _choose(candidates, tree)
    if not chosen:
        raise ValueError(f"{folder}: holds nothing that could be a CT ({len(tree.left_out)} files "
                         "were looked at), expected DICOM slices, NIfTI, NRRD or MetaImage files")
    return chosen, masks


class Found(NamedTuple):
    """A CT in a tree, by headers and names alone."""

    case_id: str
    patient_id: str
    image: Path
    series: str | None
    mask: Path | None
    lung_mask: Path | None


def find_scans(folder: Path) -> tuple[list[Found], list[tuple[str, str]]]:
    """The CTs that `list_tree` would read, and what else lies there with the reason.

    Nothing is read but headers. Their names are made ones, as in a manifest.

    Raises
    ------
    ValueError
        There is nothing that could be a CT.
    """
    tree = Tree()
    chosen, masks = _look(folder, tree)
    found = []
    for one in chosen:
        lesion, lung = (None if one.headers else _of(of_kind, one.shown)
                        for of_kind in (masks.lesions, masks.lungs))
        found.append(Found(
            tree.made_name(one.path, "case", f"#{one.series or ''}"), _patient(one), one.path,
            one.series, *(None if name is None else folder / name for name in (lesion, lung))))
    remember_all(tree.made_names)
    return found, tree.left_out


def _patient(one: _Candidate) -> str:
    return pseudonym(one.patient or str(one.path.resolve()), "patient")


def _without_case(message: str) -> str:
    return re.sub(r"^case (?:'[^']*'|\"[^\"]*\"): ", "", message).split("\n")[0]


def _series_of(folder: Path, inventory: Inventory, tree: Tree) -> list[_Candidate]:
    """The series of slices in the tree, each with the folder that holds all of it."""
    found = []
    # A disc may hold a thousand series in one folder: each folder is sorted once.
    folders: dict[str, tuple[Inventory, dict[str, list[Header]]]] = {}
    for uid, headers in by_series(inventory).items():
        names = [header.member.name for header in headers]
        where = _folder_of(names)
        shown = f"{where} (series {headers[0].description or uid})"
        if not any(map(is_slice, headers)):
            tree.left_out.append((shown, f"{len(headers)} image(s) that are no CT slices"))
            continue
        if where not in folders:
            beside = part_of(inventory, where)
            folders[where] = beside, by_series(beside)
        beside, in_folder = folders[where]
        several = sum(any(map(is_slice, others)) for others in in_folder.values()) > 1
        try:
            facts = read_facts(headers[0])
        except ScanError as error:
            tree.left_out.append((shown, _without_case(str(error))))
            continue
        number = [header.series_number for header in headers if header.series_number is not None]
        found.append(_Candidate(
            folder / where, shown, facts.pop("patient") or where,
            facts.pop("study") or uid, str(list(in_folder).index(uid) + 1) if several else None,
            sum(header.n_frames for header in headers), min(number, default=1 << 31), facts,
            tuple(headers), beside))
    return found


def _folder_of(names: Iterable[str]) -> str:
    folders = {str(PurePosixPath(name).parent) for name in names}
    return (commonpath(folders) if len(folders) > 1 else folders.pop()) or "."


def _choose(candidates: list[_Candidate], tree: Tree) -> list[_Candidate]:
    """One CT of each study: of its series the one with the most slices."""
    studies: dict[tuple[str, str], list[_Candidate]] = defaultdict(list)
    for one in candidates:
        studies[one.patient, one.study].append(one)
    chosen = []
    for several in studies.values():
        first, *others = sorted(several, key=lambda one: (-one.n_slices, one.scanner_number,
                                                          one.shown))
        chosen.append(first)
        tree.left_out += [(one.shown, f"another series of its study has {first.n_slices} slices, "
                           f"this one {one.n_slices}") for one in others]
    return sorted(chosen, key=lambda one: one.shown)


@dataclass(frozen=True)
class _Masks:
    """Names of image files that are masks, by what their CT is called: (folder, stem)."""

    lesions: dict[tuple[str, str], str]
    lungs: dict[tuple[str, str], str]
    all: frozenset[str]


def _stem(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    return str(path.parent), case_name(Path(path.name))


def _key(folder: str, stem: str) -> tuple[str, str]:
    return folder, _CT.sub("", stem).casefold().strip("_-. ")


def _masks(images: Iterable[str]) -> _Masks:
    lesions: dict[tuple[str, str], str] = {}
    lungs: dict[tuple[str, str], str] = {}
    for name in images:
        folder, stem = _stem(name)
        above, here = str(PurePosixPath(folder).parent), PurePosixPath(folder).name
        for pattern, found in ((_LUNG, lungs), (_MASK, lesions)):
            if pattern.search(stem):
                found[_key(folder, pattern.sub("", stem))] = name
                break
            if pattern.search(here):  # masks/case7.nii.gz beside images/case7.nii.gz
                found[_key(above, stem)] = name
                break
    return _Masks(lesions, lungs, frozenset([*lesions.values(), *lungs.values()]))


def _of(found: dict[tuple[str, str], str], name: str) -> str | None:
    """The mask of an image file, in its folder or in a folder beside it."""
    folder, stem = _stem(name)
    return found.get(_key(folder, stem)) or found.get(
        _key(str(PurePosixPath(folder).parent), stem))


def _row(one: _Candidate, scan: Scan, folder: Path, masks: _Masks, cohort: str, role: str,
         tree: Tree) -> dict[str, Any]:
    case = tree.made_name(one.path, "case", f"#{one.series or ''}")
    row: dict[str, Any] = {
        "cohort": cohort, "case_id": case, "role": role,
        "patient_id": _patient(one),
        "image": case, "mask_kind": "ggo+high_opacity", "protocol": "unknown",
        "n_slices": scan.n_slices, "slice_gap_mm": round(scan.spacing_mm[0], 4), "exclude": 0,
        "series": one.series, **one.facts}
    if one.path.is_file():
        row["image_sha256"] = sha256_of(one.path)
    why = None
    for column, of_kind in (("mask", masks.lesions), ("lung_mask", masks.lungs)):
        name = None if one.headers else _of(of_kind, one.shown)
        if name is None:
            continue
        try:
            codes = set(np.unique(read_codes(folder / name, scan)).tolist()) - {0}
        except (ScanError, OSError) as error:
            tree.left_out.append((name, _without_case(str(error))))
            continue
        row[column] = tree.made_name(folder / name, column.replace("_", "-"))
        row[f"{column}_sha256"] = sha256_of(folder / name)
        if column == "mask":
            row["mask_kind"] = "binary" if codes <= {1} else "ggo+high_opacity"
            if codes - {label.code for label in LABELS}:
                why = f"mask with codes {sorted(codes)}: name them in cohorts.toml (mask_codes)"
    try:
        called_so = replace(scan, case_id=case)
        require_plausible(called_so, lungs_for(called_so))
    except ScanError as error:
        why = f"no plausible chest CT: {_without_case(str(error))[:160]}"
    if "mask" not in row:
        why = why or NO_MASK
    return row | ({"exclude": 1, "exclude_reason": why.replace(",", ";")} if why else {})


def write_tree(folder: Path, output: Path, role: str = "external", *, cohort: str | None = None,
               n_folds: int = 5, overwrite: bool = False, progress: bool = True
               ) -> tuple[Tree, list[Path], Path]:
    """Write the manifest of a tree to `output`, and folds where its cases train.

    Returns
    -------
    (tree, files, listed)
        `files` name nobody. `listed` names the files of which no CT was made, with the reason, and
        lies beside the list of made names, with the user.

    Raises
    ------
    FileExistsError
        A file is there already, and `overwrite` was not asked for: folds are frozen.
    ValueError
        There is nothing that could be a CT; too few patients for the folds.
    """
    cohort = check_name(cohort or ("site_training" if role == "cv" else "site_external"), "cohort")
    files = [output / f"{cohort}.csv"]
    if role == "cv":
        files.append(output / f"splits_{cohort}.csv")
    there = [str(path) for path in files if path.exists()]
    if there and not overwrite:
        raise FileExistsError(f"{', '.join(there)}: there already, and the folds are frozen. "
                              "Choose another --output, or --overwrite them")
    tree = list_tree(folder, cohort, role, progress)
    table = tree.table()
    with atomic_paths(*files, replace=overwrite) as parts:
        write_manifest(table, parts[0])
        if role == "cv":
            write_splits(make_splits(table.assign(exclude=table["exclude"] == 1), n_folds, 1),
                         parts[1])
    listed = key_folder() / f"left_out_{cohort}.csv"
    write_text(listed, pd.DataFrame(tree.left_out, columns=["file", "why"]).to_csv(index=False))
    listed.chmod(0o600)
    return tree, files, listed
