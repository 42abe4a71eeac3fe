"""The cases of a run: its cohorts, folds, files, and what has been read of them. Without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from deeplung_nb.cohorts.manifest import Cohort, check_apart, read_cohort
from deeplung_nb.cohorts.splits import check_splits, read_splits
from deeplung_nb.files import write_text
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.io import read_mask, read_scan
from deeplung_nb.imaging.lungs import LungMask, lungs_for
from deeplung_nb.imaging.phantom.make import write_cohort
from deeplung_nb.imaging.phantom.spec import read_specs
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.imaging.slices import read_slice, read_slice_mask, read_stack
from deeplung_nb.labels import GGO, LESION_STRUCTURES
from deeplung_nb.runs import Run, check_inputs, code_digest, manifest_digest, results_folder
from deeplung_nb.runs.registry import cohort_files, is_phantom


class Case(NamedTuple):
    """All of one case that is read from files."""

    scan: Scan
    expert: LesionMask
    lungs: LungMask | None
    structures: tuple[str, ...]
    readers: dict[str, LesionMask | None] = {}
    """Further readers' masks; None of one who has not read this case."""


class SliceCase(NamedTuple):
    """An isolated slice: itself, its mask, and itself among its neighbours, as slice `at`."""

    scan: Scan
    expert: LesionMask
    stack: Scan
    at: int
    readers: dict[str, LesionMask] = {}
    """Further readers' masks, of those who have read it."""


def load_cohorts(run: Run) -> list[Cohort]:
    """The run's cohorts, checked; synthetic ones are generated on first use.

    Raises
    ------
    ManifestError
        With all faults of a manifest at once.
    ValueError
        A real cohort was asked for without a data folder.
    """
    cohorts = []
    for name in run.config.cohorts:
        data = run.data
        if is_phantom(name):
            data = _phantom_folder(run, name)
            write_cohort(read_specs(cohort_files(name)[0]), data)
        else:
            check_inputs(run.config, data)
        cohorts.append(read_cohort(name, data, verify=not _verified(run, name)))
        _remember_verified(run, name)
    check_apart(cohorts)
    return cohorts


def _phantom_folder(run: Run, name: str) -> Path:
    """Beside the runs, addressed by its manifest and code: all runs share it.

    The package's own example has no place beside it.
    """
    key = manifest_digest((name,)) + code_digest((name,))
    key = hashlib.sha256(key.encode()).hexdigest()[:12]
    beside = results_folder() if run.shipped else run.folder.parent
    return beside / "cohorts" / f"{name}-{key}"


def _cohort_with(run: Run, name: str, case_id: str) -> Cohort:
    """The cohort of a case, of whose files only this one's are needed.

    A phantom is drawn in a second, its whole cohort in a minute.
    """
    if not is_phantom(name):
        return next(cohort for cohort in load_cohorts(run) if cohort.name == name)
    data = _phantom_folder(run, name)
    write_cohort([spec for spec in read_specs(cohort_files(name)[0]) if spec.case_id == case_id],
                 data, progress=False)
    return replace(read_cohort(name, None, verify=False), data=data)


def list_cohorts(run: Run) -> list[Cohort]:
    """The run's cohorts as their manifests list them: no CT is made, read or compared by hash.

    Raises
    ------
    ManifestError
        With all faults of a manifest at once.
    """
    cohorts = [read_cohort(name, None, verify=False) for name in run.config.cohorts]
    check_apart(cohorts)
    return cohorts


def _verified(run: Run, name: str) -> bool:
    return run.folder.joinpath(f".verified-{name}").exists()


def _remember_verified(run: Run, name: str) -> None:
    """Hashes are compared once a run: reading every file again in each notebook would be waste."""
    if not (run.shipped or _verified(run, name)):
        write_text(run.path(f".verified-{name}"), "file hashes agreed with the manifest\n")


def find_cases(cohorts: list[Cohort], role: str) -> Iterator[tuple[Cohort, pd.Series]]:
    """The cases of a role in all cohorts, each with its row of the manifest."""
    for cohort in cohorts:
        for _, row in cohort.cases(role).iterrows():
            yield cohort, row


def find_volumes(cohorts: list[Cohort], role: str) -> Iterator[tuple[Cohort, pd.Series]]:
    """`find_cases` without isolated slices: what can be measured."""
    return find_cases([cohort for cohort in cohorts if cohort.slices is None], role)


def load_splits(run: Run, cohorts: list[Cohort] | None = None) -> pd.DataFrame:
    """The frozen folds of the run's cohorts for cross-validation.

    Raises
    ------
    SplitError
        Folds that are no folds, or a patient of several cohorts in different ones.
    """
    frames = [
        read_splits(cohort_files(cohort.name)[1], cohort.frame)
        for cohort in cohorts or load_cohorts(run)
        if len(cohort.cases("cv"))
    ]
    splits = check_splits(pd.concat(frames, ignore_index=True), source="folds of all cohorts")
    if not run.config.training.use_validation:
        splits["validation_in"] = pd.array([pd.NA] * len(splits), dtype="Int64")
    return splits


def read_case(cohort: Cohort, case_id: str) -> Case:
    """Scan, expert mask and lung mask of a case.

    The manifest's lung mask wins, else the built-in segmenter's. A binary expert mask serves the
    merged lesion only.
    """
    scan = read_scan(cohort.image_path(case_id), case_id=case_id, series=cohort.series(case_id))
    binary = cohort.case(case_id).mask_kind == "binary"
    codes = {1: GGO.code} if binary else cohort.mask_codes
    expert = read_mask(cohort.mask_path(case_id), scan, codes)
    lungs = lungs_for(scan, cohort.lung_mask_path(case_id))
    paths = {name: cohort.reader_path(case_id, name) for name in cohort.readers}
    readers = {name: None if path is None else read_mask(path, scan, codes)
               for name, path in paths.items()}
    return Case(scan, expert, lungs, ("lesion",) if binary else LESION_STRUCTURES, readers)


def read_for_training(cohort: Cohort, case_id: str) -> tuple[Scan, LesionMask]:
    """Scan and expert mask of a case that trains.

    Raises
    ------
    ValueError
        Its mask is binary: the network would learn consolidation as ground glass.
    """
    if cohort.case(case_id).mask_kind == "binary":
        raise ValueError(f"case {cohort.name}/{case_id}: mask_kind is 'binary', expected a mask "
                         "that tells ground glass from high opacity: the network would learn both "
                         "as ground glass. Give it the role 'external', or exclude it")
    if cohort.slices is not None:
        scan = read_slice(cohort.image_path(case_id), case_id, cohort.slices)
        mask = read_slice_mask(cohort.mask_path(case_id), scan, cohort.mask_codes, cohort.slices)
        return scan, mask
    scan = read_scan(cohort.image_path(case_id), case_id=case_id, series=cohort.series(case_id))
    return scan, read_mask(cohort.mask_path(case_id), scan, cohort.mask_codes)


def read_external_slice(cohort: Cohort, case_id: str) -> SliceCase:
    """An isolated slice that is only ever tested, among its neighbours."""
    assert cohort.slices is not None
    scan, at = read_stack(cohort.image_path(case_id), case_id, cohort.slices)
    own = Scan(scan.hu[at:at + 1], Grid.upright((1, *scan.shape[1:]), scan.spacing_mm), case_id)
    mask = read_slice_mask(cohort.mask_path(case_id), own, cohort.mask_codes, cohort.slices)
    paths = {name: cohort.reader_path(case_id, name) for name in cohort.readers}
    readers = {name: read_slice_mask(path, own, cohort.mask_codes, cohort.slices)
               for name, path in paths.items() if path is not None}
    return SliceCase(own, mask, scan, at, readers)


def read_reading(run: Run, cohort_name: str, case_id: str) -> tuple[Case, LesionMask]:
    """A measured case: what its files hold, and the automatic mask of this run.

    Raises
    ------
    FileNotFoundError
        The case has not been measured yet; the message names the notebook that does it.
    """
    path = run.require("masks", cohort_name, f"{case_id}.nii.gz",
                       made_by="05_cross_validation.ipynb or 06_external_validation.ipynb")
    case = read_case(_cohort_with(run, cohort_name, case_id), case_id)
    return case, read_mask(path, case.scan)
