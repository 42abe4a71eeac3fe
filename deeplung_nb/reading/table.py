"""A run's table of measurements: of all parts there are, and of readings drawn by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb import measurements
from deeplung_nb.cohorts.cases import Case, read_reading
from deeplung_nb.corrections.reading import JOURNAL, Reading, ReadingError
from deeplung_nb.files import write_text
from deeplung_nb.imaging.io import read_mask
from deeplung_nb.imaging.regions import LungRegions
from deeplung_nb.labels import READER_PREFIX
from deeplung_nb.reading.volumes import measure
from deeplung_nb.runs import Run

ROWS = "rows.json"
FACTS = ("cohort", "role", "case_id", "patient_id", "protocol", "scanner", "centre")


def read_rows(paths: Iterable[Path]) -> pd.DataFrame:
    """The rows of some parts, with all columns of a table of measurements."""
    lines = [line for path in paths for line in json.loads(path.read_text(encoding="utf-8"))]
    frame = pd.DataFrame(lines)
    for name in measurements.COLUMNS:
        if name not in frame:
            frame[name] = np.nan
    return frame.loc[:, list(measurements.COLUMNS)]


def write_rows(lines: list[dict[str, Any]], path: Path) -> None:
    """Keep rows as a part."""
    write_text(path, json.dumps(lines, default=_plain))


def _plain(value: Any) -> Any:
    """numpy's scalars and pandas' missing values for JSON."""
    if value is pd.NA:
        return None
    return value.item()


def collect(run: Run) -> pd.DataFrame:
    """measurements.csv of a run from all parts there are."""
    parts = [*sorted(run.folder.glob("measured/*/*/*.json")),
             *sorted(run.folder.glob(f"readings/*/*/*/{ROWS}"))]
    return measurements.read(measurements.write(read_rows(parts), run.path("measurements.csv")))


def rows_of_reading(run_id: str, facts: dict[str, Any], case: Case, reading: Reading,
                    tolerance_mm: float | None = None) -> list[dict[str, Any]]:
    """A reading drawn by hand, measured like any other; `seconds` is the work at it.

    Parameters
    ----------
    facts
        Of the case: `FACTS`, and its fold.
    """
    regions = None if case.lungs is None else LungRegions.of(case.lungs)
    measured = measure(case.scan, reading.mask, case.lungs, reference=case.expert,
                       structures=case.structures, tolerance_mm=tolerance_mm, regions=regions)
    record = reading.record()
    note = f"drawn by hand from {record['start_from']}, {record['strokes']} strokes"
    return [{"run_id": run_id, **facts, "reader": f"{READER_PREFIX}{reading.reader}",
             "status": "ok", **values, "seconds": record["active_seconds"], "note": note}
            for values in measured]


def add_reading(run: Run, cohort: str, case: Case, reading: Reading, in_run: bool = True) -> Path:
    """Measure a finished reading; in a run's own folder its rows enter measurements.csv."""
    table = measurements.read(run.measurements_csv)
    mine = table[(table["cohort"] == cohort) & (table["case_id"] == case.scan.case_id)]
    facts = {name: mine.iloc[0][name] for name in FACTS}
    lines = rows_of_reading(run.run_id, facts, case, reading, run.config.nsd_tolerance_mm)
    write_rows(lines, reading.folder / ROWS)
    if in_run:
        collect(run)
    return reading.folder / ROWS


def import_reading(run: Run, cohort: str, case_id: str, reader: str,
                   path: str | os.PathLike) -> Path:
    """A mask that was drawn elsewhere (3D Slicer, ITK-SNAP) as a finished reading of a run's case.

    Parameters
    ----------
    path
        NIfTI, NRRD or DICOM Segmentation on the scan's grid, with the project's codes.

    Returns
    -------
    Path
        Of its rows, which are now in the run's measurements.csv as `reader-<reader>`.

    Raises
    ------
    ScanError
        Another grid, or codes that are not known.
    ReadingError
        This reader has a reading of the case already.
    """
    case, _ = read_reading(run, cohort, case_id)
    mask = read_mask(path, case.scan)
    place = run.path("readings", cohort, case_id, reader).parent
    if (place / reader / JOURNAL).exists():
        raise ReadingError(f"{place / reader}: {reader} has read this case already. Give another "
                           "reader's name, or remove that folder")
    with Reading.open(case.scan, reader, place, start=mask,
                      start_from="a mask of another tool") as reading:
        reading.finish()
        return add_reading(run, cohort, case, reading)
