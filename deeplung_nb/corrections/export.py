"""A finished reading in the format that another program asks for."""

from __future__ import annotations

import os
from pathlib import Path

from deeplung_nb import __version__
from deeplung_nb.corrections.reading import NOTHING, ReadingError, read_finished
from deeplung_nb.files import atomic_path
from deeplung_nb.imaging.io import WRITTEN_SUFFIXES, write_mask
from deeplung_nb.imaging.scan import Scan

FORMATS = (*WRITTEN_SUFFIXES, ".dcm")


def write_reading(folder: str | os.PathLike, scan: Scan, path: str | os.PathLike) -> Path:
    """Write a finished reading's mask on its scan's grid: NIfTI, NRRD, or DICOM Segmentation.

    A Segmentation says whether its marks were drawn by hand, or others corrected, and by whom.

    Parameters
    ----------
    folder
        Of the reading, `<folder>/<reader>`.
    scan
        The CT it was drawn on; for `.dcm` as read from its DICOM series.
    path
        Its ending decides: one of `FORMATS`. A file that is there is not overwritten.

    Raises
    ------
    ReadingError
        It is not finished, of another scan, or another format is asked for.
    ScanError
        A Segmentation of a scan that is no DICOM series.
    FileExistsError
    """
    path = Path(path)
    if not path.name.lower().endswith(FORMATS):
        raise ReadingError(f"{path.name}: expected a name that ends with {', '.join(FORMATS)}")
    if path.exists():
        raise FileExistsError(f"{path}: is there already. Choose another name")
    mask, record = read_finished(folder, scan)
    if path.suffix.lower() != ".dcm":
        write_mask(mask, path)
        return path
    from deeplung_nb.imaging.dicom_objects import Algorithm, make_segmentation, series_datasets

    start = record["start_from"]
    by = Algorithm("" if start == NOTHING else start, __version__, person=record["reader"])
    found = make_segmentation(scan, mask, series_datasets(scan), by)
    with atomic_path(path) as part:
        found.save_as(part)
    return path
