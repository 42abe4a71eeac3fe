"""One DICOM series to a scan: sorted by position, checked for gaps, tilt and mixtures.

What can be read without a guess is read, and what was left out is said. What would be a guess is an
error; some of these can be resampled (`force`), which the scan's notes then say.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.folder import (
    CT_CLASSES,
    Header,
    Inventory,
    require_none_lost,
    take_stock,
    understanding,
)
from deeplung_nb.imaging.frames import Frame, read_frames
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.scan import Scan, scan_from_image
from deeplung_nb.imaging.stack import check_alike, make_volume, split_off_scouts


def is_slice(header: Header) -> bool:
    """Whether an image may be a slice of a CT."""
    return (not header.is_localizer and not header.is_page
            and (header.modality == "CT" or (not header.modality
                                             and header.sop_class in CT_CLASSES)))


def by_series(inventory: Inventory) -> dict[str, list[Header]]:
    """The images of each series by its UID: the longest first, then by the scanner's number."""
    series: dict[str, list[Header]] = defaultdict(list)
    for header in inventory.images:
        series[header.series].append(header)
    return dict(sorted(series.items(), key=lambda item: (
        -sum(header.n_frames for header in item[1]),
        min((h.series_number for h in item[1] if h.series_number is not None), default=1 << 31),
        item[0])))


def part_of(inventory: Inventory, folder: str) -> Inventory:
    """What of an inventory lies in a folder of it (a name with `/`; `.` is all) and below."""
    if folder == ".":
        return inventory
    start = f"{folder}/"

    def inside(listed: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return [item for item in listed if item[0].startswith(start)]

    return Inventory([one for one in inventory.images if one.member.name.startswith(start)],
                     inside(inventory.left_out), inside(inventory.oddments),
                     inside(inventory.suspects))


def _describe(series: dict[str, list[Header]]) -> list[str]:
    lines = []
    for number, (uid, headers) in enumerate(series.items(), 1):
        first = headers[0]
        n_images = sum(header.n_frames for header in headers)
        facts = [f"{n_images} image{'s' if n_images > 1 else ''}",
                 first.description or "no description"]
        if first.thickness_mm:
            facts.append(f"{first.thickness_mm:g} mm")
        if first.kernel:
            facts.append(f"kernel {first.kernel}")
        facts.append(first.modality or "no modality")
        if first.series_number is not None:
            facts.append(f"scanner's series {first.series_number}")
        if not any(map(is_slice, headers)):
            facts.append("no CT slices")
        lines.append(f"{number}: {', '.join(facts)} ({uid})")
    return lines


def _take_stock(path: Path, case: str) -> Inventory:
    inventory = take_stock(path, case)
    if not inventory.images:
        odd = "; ".join(f"{name}: {why}" for name, why in
                        [*inventory.suspects, *inventory.oddments, *inventory.left_out][:6])
        raise ScanError(f"case {case!r}: {path} holds no DICOM image{f' ({odd})' if odd else ''}, "
                        "expected a series of CT slices. Give the folder of one series, or the "
                        "NIfTI, NRRD or MetaImage file itself")
    return inventory


def _series_path(path: str | os.PathLike) -> Path:
    """A DICOMDIR stands for its folder: the slices are what was read, and what is hashed."""
    path = Path(path)
    return path.parent if path.is_file() and path.name.upper() == "DICOMDIR" else path


def list_series(path: str | os.PathLike) -> list[str]:
    """A line for each DICOM series in a folder, the longest first; its number serves `series`.

    Only headers are read.

    Raises
    ------
    ScanError
        There is no DICOM image.
    """
    path = _series_path(path)
    return _describe(by_series(_take_stock(path, path.name)))


def _choose_series(inventory: Inventory, path: Path, case: str, wanted: str | None
                   ) -> list[Header]:
    series = by_series(inventory)
    listed = "\n  ".join(["", *_describe(series)])
    if wanted is not None:
        numbered = {str(number): uid for number, uid in enumerate(series, 1)}
        uid = numbered.get(wanted, wanted)
        if uid not in series:
            raise ScanError(f"case {case!r}: {path} has no series {wanted!r}, expected a number or "
                            f"UID of{listed}")
    else:
        of_slices = [uid for uid, headers in series.items() if any(map(is_slice, headers))]
        if len(series) > 1 and len(of_slices) != 1:
            raise ScanError(f"case {case!r}: {path} holds {len(series)} series, expected one. "
                            f"Choose with --series <number or UID>, in Python series='1':{listed}")
        uid = of_slices[0] if of_slices else next(iter(series))
    for other, headers in series.items():
        if other != uid:
            inventory.left_out += [(header.member.name, f"of another series ({other})")
                                   for header in headers]
    return series[uid]


def _split_off_pages(headers: list[Header], inventory: Inventory) -> tuple[list[Header], list[str]]:
    """Scouts, dose pages and the like out of a series, where the rest is slices; and a note."""
    shapes = Counter(header.shape for header in headers)
    usual = shapes.most_common(1)[0][0]
    directions = Counter(header.orientation for header in headers if header.shape == usual)
    direction = directions.most_common(1)[0][0]
    kept, left = [], []
    for header in headers:
        called = header.is_localizer or header.is_page or (
            not header.has_place and header.shape != usual)
        # What lies as a slice does, and is as large, may be one under a wrong name.
        fits = header.shape == usual and header.orientation == direction
        (left if called and not fits else kept).append(header)
    if not kept or not left:
        return headers, []
    inventory.left_out += [(header.member.name, "a scout, a dose page or a screenshot")
                           for header in left]
    return kept, [f"left out {len(left)} image(s) of the series that are scouts, dose pages or "
                  "screenshots"]


def read_facts(header: Header) -> dict[str, Any]:
    """What a slice's header says of patient, study, scanner and exposure (CLAIM item 13).

    `patient` and `study` name them as the hospital does: for grouping, never for an output.
    """
    with understanding(header.member.name, header.member.name), header.member.open() as stream:
        one = pydicom.dcmread(stream, stop_before_pixels=True, force=True)

        def text(name: str) -> str:
            return " ".join(str(one.get(name) or "").split())[:60]

        def number(name: str) -> float | None:
            value = str(one.get(name) or "")
            return float(value) if re.fullmatch(r"-?\d+(\.\d+)?", value) else None

        age = re.fullmatch(r"0*(\d{1,3})Y", text("PatientAge"))
        sex = {"F": "female", "M": "male"}.get(text("PatientSex"))
        maker = f"{text('Manufacturer')} {text('ManufacturerModelName')}".strip()
        found = {
            "patient": text("PatientID") or text("PatientName"), "study": text("StudyInstanceUID"),
            "scanner": maker or None, "age": float(age[1]) if age else None, "sex": sex,
            "protocol": "contrast" if text("ContrastBolusAgent") else "unknown",
            "extra_kvp": number("KVP"), "extra_kernel": text("ConvolutionKernel") or None,
            "extra_ctdi_mgy": number("CTDIvol"), "extra_thickness_mm": number("SliceThickness")}
    return {name: value for name, value in found.items() if value is not None}


def datasets_of(path: Path, case: str, series: str) -> list[Dataset]:
    """The headers of the images of a series, without pixels, as `read_series` chooses them."""
    inventory = _take_stock(path, case)
    chosen, _ = _split_off_pages(_choose_series(inventory, path, case, series), inventory)
    found = []
    for header in chosen:
        with understanding(header.member.name, case), header.member.open() as stream:
            found.append(pydicom.dcmread(stream, stop_before_pixels=True, force=True))
    return found


def read_series(path: str | os.PathLike, case_id: str | None = None,
                series: str | None = None, *, force: bool = False,
                inventory: Inventory | None = None) -> Scan:
    """Read one CT series.

    Parameters
    ----------
    path
        A folder (searched with its subfolders), a zip, a DICOMDIR, or a single file, also an
        enhanced multi-frame one. What is no slice is passed over and named in `Scan.left_out`.
    case_id
        Name for messages and outputs; default: the folder's name.
    series
        Which series to take where a folder holds several of slices: its UID, or its number in
        `list_series`.
    force
        Whether a tilted gantry, uneven gaps (up to `MOST_GAP_MM`) and doubled slices are resampled
        to an even stack; `Scan.notes` say what was done.
    inventory
        What lies in the folder, where somebody has looked already; it gets the names left out.

    Returns
    -------
    Scan
        HU [z, y, x] after each slice's own rescale slope and intercept, sorted by position.

    Raises
    ------
    ScanError
        No DICOM, several series, another modality, a localizer, missing geometry, slices that do
        not fit together, files that may be slices and can't be read, uneven gaps, gantry tilt,
        pixels that can't be decoded.
    """
    path = _series_path(path)
    case = case_id or (path.name if path.is_dir() else path.stem)
    if not path.exists():
        raise ScanError(f"case {case!r}: {path} is missing, expected DICOM. Check the path")
    inventory = inventory or _take_stock(path, case)
    chosen, notes = _split_off_pages(_choose_series(inventory, path, case, series), inventory)
    require_none_lost(inventory, chosen, path, case)
    slices: list[Frame] = []
    for header in chosen:
        with understanding(header.member.name, case):
            slices += read_frames(header, case)
    lossy = next((one for one in slices if one.lossy), None)
    if lossy:
        n_lossy = sum(bool(one.lossy) for one in slices)
        notes.append(f"{n_lossy} of {len(slices)} slices are compressed with loss ({lossy.lossy}): "
                     "HU are approximate")
        warnings.warn(f"case {case!r}: {notes[-1]}; the first is {lossy.name}", stacklevel=2)
    slices, scouts = split_off_scouts(slices)
    check_alike(slices, case)
    volume, affine, done = make_volume(slices, case, force)
    del slices
    first = chosen[0]
    image = Grid(volume.shape, affine).to_image(volume)
    scan = scan_from_image(image, case, str(path), f"{first.series} {first.description}".strip())
    return replace(scan, notes=(*notes, *scouts, *done, *scan.notes),
                   left_out=tuple(sorted(inventory.left_out)))
