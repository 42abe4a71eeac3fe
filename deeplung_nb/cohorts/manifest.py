"""The manifest: one CSV per cohort, one row per case, checked as a whole before anything runs.

A manifest holds paths (relative to the cohort's data folder), hashes, geometry and what Table 1
needs. It never holds a date, a name or a DICOM identifier. An excluded case stays as a row with a
reason, so that the flow of patients can be counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from deeplung_nb.cohorts.schema import (
    READER_COLUMNS,
    SCHEMA,
    ManifestError,
    check_manifest,
    find_file,
)
from deeplung_nb.files import atomic_path
from deeplung_nb.imaging.slices import SliceLayout
from deeplung_nb.labels import LABELS, ROLES
from deeplung_nb.measurements.spreadsheets import CsvError, read_csv
from deeplung_nb.runs.registry import cohort_files, read_registry


@dataclass(frozen=True, eq=False, repr=False)
class Cohort:
    """A checked manifest and where its files lie.

    `frame` has one row per case, excluded ones too, in the manifest's order; `exclude` is boolean,
    an empty cell is NaN. `mask_codes` says what a value in a mask file means: file code -> label
    code. `data` is None where only the table is needed.
    """

    frame: pd.DataFrame
    name: str
    data: Path | None = None
    mask_codes: dict[int, int] | None = None
    slices: SliceLayout | None = None
    """Of a set of isolated slices: how its pictures lie. Such cases train, and are no volumes."""

    def __repr__(self) -> str:
        used = self.included
        roles = ", ".join(f"{(used.role == role).sum()} {role}" for role in ROLES)
        return (f"Cohort {self.name!r}: {len(used)} cases of {used.patient_id.nunique()} patients "
                f"({roles}), {int(self.frame.exclude.sum())} excluded; "
                f"data: {self.data if self.data else 'no folder given'}")

    def __len__(self) -> int:
        return len(self.included)

    @property
    def included(self) -> pd.DataFrame:
        """The cases that are used."""
        return self.frame[~self.frame.exclude].reset_index(drop=True)

    def cases(self, role: str) -> pd.DataFrame:
        """The included cases of one role: `cv` or `external`."""
        if role not in ROLES:
            raise ValueError(f"role {role!r}: expected {' or '.join(ROLES)}")
        return self.included.query("role == @role").reset_index(drop=True)

    def flow(self) -> pd.DataFrame:
        """Counts for a flow diagram: columns `step, n_cases, n_patients`, from the top down."""
        left_out = self.frame[self.frame.exclude]
        steps = [("assessed", self.frame)]
        steps += [(f"excluded: {why}", rows) for why, rows in left_out.groupby("exclude_reason")]
        steps += [("included", self.included)]
        steps += [(role, self.cases(role)) for role in ROLES]
        return pd.DataFrame(
            [(step, len(rows), rows.patient_id.nunique()) for step, rows in steps],
            columns=["step", "n_cases", "n_patients"],
        )

    def case(self, case_id: str) -> pd.Series:
        """The row of one case."""
        found = self.frame[self.frame.case_id == str(case_id)]
        if found.empty:
            known = ", ".join(self.frame.case_id.head(8))
            raise ValueError(f"case {case_id!r} is not in cohort {self.name!r}; it has {known}, …")
        return found.iloc[0]

    def _path(self, case_id: str, column: str) -> Path | None:
        value = self.case(case_id)[column]
        if pd.isna(value):
            return None
        if self.data is None:
            raise ValueError(
                f"case {case_id!r}: no data folder is known for cohort {self.name!r}. "
                "Give one: set DEEPLUNG_DATA, or pass `data` to read_manifest."
            )
        return find_file(self.data, value)

    def image_path(self, case_id: str) -> Path:
        """The case's CT."""
        return self._path(case_id, "image")

    @property
    def readers(self) -> tuple[str, ...]:
        """Further readers than the expert, by the columns `reader_<name>`."""
        return tuple(name.removeprefix(READER_COLUMNS) for name in self.frame.columns
                     if name.startswith(READER_COLUMNS))

    def reader_path(self, case_id: str, reader: str) -> Path | None:
        """A further reader's mask of a case; None where there is none."""
        return self._path(case_id, f"{READER_COLUMNS}{reader}")

    def series(self, case_id: str) -> str | None:
        """Which series of its DICOM folder the CT is; None where there is one."""
        value = self.case(case_id).get("series")
        return None if value is None or pd.isna(value) else str(value)

    def mask_path(self, case_id: str) -> Path:
        """The expert's lesion mask."""
        return self._path(case_id, "mask")

    def lung_mask_path(self, case_id: str) -> Path | None:
        """The reference lung mask; None where the manifest names none."""
        return self._path(case_id, "lung_mask")


def read_manifest(csv: str | os.PathLike, data: str | os.PathLike | None = None,
                  verify: bool = True, mask_codes: dict[int, int] | None = None,
                  remake: str = "", slices: SliceLayout | None = None) -> Cohort:
    """Read and check a manifest.

    Parameters
    ----------
    csv
        The manifest.
    data
        The folder that its paths start from; None: only the table is checked.
    verify
        Compare the SHA-256 of each file with the manifest (about a second per GB).
    mask_codes, slices, remake
        See `Cohort` and `check_manifest`.

    Raises
    ------
    ManifestError
        With all faults at once.
    """
    csv = Path(csv)
    if not csv.is_file():
        raise ManifestError(csv.name, [
            f"{csv} is missing, expected a CSV with one row for each case. Write it (the columns "
            "are in data_manifests/README.md)"
        ])
    try:
        table = read_csv(csv)
    except CsvError as error:
        raise ManifestError(csv.name, [str(error)]) from error
    folder = Path(data) if data is not None else None
    frame = check_manifest(table, csv.name, folder, verify, remake)
    return Cohort(frame, str(frame.cohort.iloc[0]), folder, mask_codes, slices)


def check_apart(cohorts: Iterable[Cohort]) -> None:
    """Nobody trains in one cohort and is external in another: not a patient, not a CT's hash.

    Raises
    ------
    ManifestError
        Naming each patient or CT that is on both sides. Patient ids are compared as they are
        written, so that two sites must not use one pseudonym for two people.
    """
    used = pd.concat([cohort.included for cohort in cohorts], ignore_index=True)
    faults = []
    for column in ("patient_id", "image_sha256"):
        for value, rows in used.groupby(column):
            if {"cv", "external"} <= set(rows.role):
                places = ", ".join(f"{row.cohort}/{row.case_id} ({row.role})"
                                   for row in rows.itertuples())
                faults.append(f"{column} {value!r} is in cv and in external: {places}, expected "
                              "one role. Exclude the case in one cohort, with the reason")
    if faults:
        raise ManifestError("cohorts", faults)


def write_manifest(frame: pd.DataFrame, csv: str | os.PathLike) -> None:
    """Check a manifest table and write it, whole or not at all; columns in the schema's order."""
    table = frame.copy()
    for name in table.columns:
        filled = table[name].notna()
        if name in ("exclude", "lung_disease", "ecg_gated", "n_slices"):
            table[name] = table[name].astype("Int64")
        table[name] = table[name].astype(str).where(filled)
    check_manifest(table, Path(csv).name)
    known = [name for name in SCHEMA.columns if name in table.columns]
    rest = [name for name in table.columns if name not in known]
    with atomic_path(csv) as part:
        table[known + rest].to_csv(part, index=False, lineterminator="\n", encoding="utf-8")


def read_cohort(name: str, data: str | os.PathLike | None = None, verify: bool = True) -> Cohort:
    """The cohort of this name in `cohorts.toml`.

    `data` is the cohort's own folder, or one that holds it as `<data>/<name>` (or `folder`).
    """
    registry = read_registry()
    entry = registry.get(name, {})
    if "manifest" not in entry:
        ready = ", ".join(key for key, value in registry.items() if "manifest" in value)
        raise ValueError(f"cohort {name!r} has no manifest in cohorts.toml, expected one of "
                         f"{ready}. Add an entry for it")
    folder = Path(data) if data is not None else None
    inside = entry.get("folder", name)
    if folder is not None and (folder / inside).is_dir():
        folder = folder / inside
    label_codes = {label.name: label.code for label in LABELS}
    codes = {int(value): label_codes[name] for value, name in entry.get("mask_codes", {}).items()}
    remake = entry.get("remake", "").format(folder=folder)
    layout = SliceLayout(**entry["slices"]) if "slices" in entry else None
    return read_manifest(cohort_files(name)[0], folder, verify, codes or None, remake, layout)
