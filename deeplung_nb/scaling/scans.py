"""What is to be measured: a manifest's CTs, a plain list's, or those that lie in a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from deeplung_nb.files import check_name
from deeplung_nb.labels import LABELS
from deeplung_nb.measurements.spreadsheets import read_csv
from deeplung_nb.pseudonyms import pseudonym, remember_all
from deeplung_nb.runs.registry import read_registry

PATH_COLUMNS = ("image", "scan", "path", "file", "ct")
"""What a plain list may call the column of its CTs, in any case."""


@dataclass(frozen=True)
class ScanJob:
    """A CT to measure, and what its rows in the table say besides. Paths are absolute."""

    case_id: str
    image: str
    patient_id: str = ""
    cohort: str = "cohort"
    protocol: str = "unknown"
    scanner: str | None = None
    centre: str | None = None
    series: str | None = None
    mask: str | None = None
    """The expert's; with it the scan's rows have the expert's volumes and the overlap."""
    mask_codes: tuple[tuple[int, int], ...] | None = None
    binary: bool | None = None
    """Whether the mask tells no classes apart; None: so if it holds nothing but ones."""
    lung_mask: str | None = None


def list_scans(source: str | os.PathLike, data: str | os.PathLike | None = None
               ) -> tuple[list[ScanJob], list[tuple[str, str]]]:
    """The CTs of a manifest, of a CSV with a column of paths, or of a folder; what is left out.

    In the order of their names, so that any way of measuring them leaves the same table. No CT is
    opened: of a folder of DICOM the headers are.

    Parameters
    ----------
    source
        A manifest (its excluded CTs are left out, but for those that merely lack a mask); or a CSV
        with a column `image`, and perhaps `case_id` (else made names), `patient_id`, `series`,
        `mask`, `mask_kind`, `lung_mask`; or a folder.
    data
        Where its paths start; default: `DEEPLUNG_DATA`, or the folder of the CSV.

    Raises
    ------
    ValueError
        There is no CT, the table has faults (all of them are told), or ids repeat.
    """
    source = Path(source)
    if source.is_dir():
        from deeplung_nb.cohorts.tree import find_scans

        found, left_out = find_scans(source)
        jobs = [ScanJob(one.case_id, os.path.abspath(one.image), one.patient_id, "folder",
                        series=one.series, mask=_absolute(one.mask),
                        lung_mask=_absolute(one.lung_mask)) for one in found]
    elif not source.is_file():
        raise ValueError(f"{source}: is missing, expected a manifest (CSV) or a folder of CTs. "
                         "Check the path")
    else:
        table = read_csv(source)
        start = Path(data or os.environ.get("DEEPLUNG_DATA") or source.parent)
        jobs, left_out = _of_manifest(source, start) if {"cohort", "mask_kind"} <= set(
            table.columns) else _of_list(source, table, start)
    if not jobs:
        raise ValueError(f"{source}: names no CT that is used, expected one or more")
    _require_different([job.case_id for job in jobs], source)
    return sorted(jobs, key=lambda job: (job.cohort, job.case_id)), left_out


def _absolute(path: Path | None) -> str | None:
    return None if path is None else os.path.abspath(path)


def _require_different(ids: list[str], source: Path) -> None:
    # Case ids are folders, and some disks take A and a for one.
    series = pd.Series(ids).str.casefold()
    again = sorted({ids[at] for at in series.index[series.duplicated(keep=False)]})
    if again:
        raise ValueError(f"{source}: case id(s) {', '.join(again[:6])} stand more than once (or "
                         "differ in case only), expected each once. Rename them")


def _of_manifest(source: Path, start: Path) -> tuple[list[ScanJob], list[tuple[str, str]]]:
    from deeplung_nb.cohorts.manifest import read_manifest
    from deeplung_nb.cohorts.schema import NO_MASK, find_file

    cohort = read_manifest(source, None, verify=False)
    try:
        inside = read_registry().get(cohort.name, {})
    except ValueError:  # own manifests without a list of cohorts
        inside = {}
    if (start / inside.get("folder", cohort.name)).is_dir():
        start = start / inside.get("folder", cohort.name)
    known = {label.name: label.code for label in LABELS}
    codes = tuple((int(value), known[name]) for value, name in
                  inside.get("mask_codes", {}).items()) or None
    jobs, left_out = [], []
    for row in cohort.frame.to_dict("records"):
        cell: dict[str, Any] = {name: None if pd.isna(value) else value
                                for name, value in row.items()}
        if (cell["exclude"] and cell["exclude_reason"] != NO_MASK) or cell["image"] is None:
            left_out.append((cell["case_id"], cell["exclude_reason"] or "no image"))
            continue
        paths = {name: os.path.abspath(find_file(start, cell[name])) if cell[name] else None
                 for name in ("mask", "lung_mask")}
        jobs.append(ScanJob(
            cell["case_id"], os.path.abspath(find_file(start, cell["image"])),
            mask_codes=codes, binary=cell["mask_kind"] == "binary", series=cell.get("series"),
            cohort=cohort.name, **paths, **{name: cell[name] for name in (
                "patient_id", "protocol", "scanner", "centre")}))
    return jobs, left_out


def _of_list(source: Path, table: pd.DataFrame, start: Path
             ) -> tuple[list[ScanJob], list[tuple[str, str]]]:
    called = {str(name).strip().casefold(): name for name in table.columns}
    column = next((called[name] for name in PATH_COLUMNS if name in called), None)
    if column is None:
        raise ValueError(f"{source}: no column of CTs, expected one called "
                         f"{' or '.join(PATH_COLUMNS)} (found {', '.join(map(str, table.columns))})"
                         ". Rename it, or write a manifest (data_manifests/README.md)")

    def cell(row: pd.Series, name: str) -> str | None:
        value = row.get(called.get(name, name))
        return None if value is None or pd.isna(value) else str(value).strip() or None

    jobs, left_out, made = [], [], {}
    for at, row in table.iterrows():
        image = cell(row, str(column).strip().casefold())
        if image is None:
            left_out.append((f"line {int(str(at)) + 2}", "no path"))
            continue
        # By its path, so that a line more or less in the list is no other name.
        image = os.path.abspath(start / image)
        case = check_name(cell(row, "case_id") or pseudonym(
            f"{image}#{cell(row, 'series') or ''}", "scan"))
        made[case] = image
        mask, lungs = (path and os.path.abspath(start / path)
                       for path in (cell(row, "mask"), cell(row, "lung_mask")))
        kind = cell(row, "mask_kind")
        jobs.append(ScanJob(case, image, cell(row, "patient_id") or case,
                            series=cell(row, "series"), mask=mask, lung_mask=lungs,
                            binary=None if kind is None else kind == "binary"))
    remember_all({case: path for case, path in made.items() if case.startswith("scan-")})
    return jobs, left_out
