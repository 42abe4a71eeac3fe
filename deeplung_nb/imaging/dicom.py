"""One DICOM series to a scan: sorted by position, checked for gaps, tilt and mixtures."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID

from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.scan import Scan, scan_from_image

GAP_TOLERANCE = 0.01
TILT_TOLERANCE_DEGREES = 0.5
CT_CLASSES = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1",
              "1.2.840.10008.5.1.4.1.1.2.2")
"""CT Image Storage; Enhanced CT; Legacy Converted Enhanced CT."""
LOSSY_SYNTAXES = {
    "1.2.840.10008.1.2.4.50": "JPEG baseline", "1.2.840.10008.1.2.4.51": "JPEG extended",
    "1.2.840.10008.1.2.4.53": "JPEG spectral selection",
    "1.2.840.10008.1.2.4.55": "JPEG progression", "1.2.840.10008.1.2.4.81": "JPEG-LS near-lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
}


@dataclass(frozen=True)
class _Slice:
    """One frame: where it lies and its pixels in HU."""

    name: str
    position_mm: np.ndarray
    orientation: np.ndarray
    spacing_mm: tuple[float, float]
    thickness_mm: float | None
    hu: np.ndarray


def _looks_like_dicom(file: Path) -> bool:
    with file.open("rb") as stream:
        return (stream.read(132)[128:] == b"DICM"
                or file.suffix.lower() in (".dcm", ".dicom", ".ima"))


def _read_dataset(file: Path, case: str) -> Dataset | None:
    """The images of a file; None where it is something else (a text, a report, a DICOMDIR).

    A slice that can't be read must not vanish from its series without a word: at either end of
    the scan nobody would miss it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values against their type, and of early ends
            dataset = pydicom.dcmread(file)
            meta = getattr(dataset, "file_meta", Dataset())
            # Named twice: where a file was cut, one of the two may be cut as well.
            kinds = {str(uid) for uid in (dataset.get("SOPClassUID"),
                                          meta.get("MediaStorageSOPClassUID")) if uid}
    except Exception as error:
        if not _looks_like_dicom(file):
            return None
        raise ScanError(f"case {case!r}: {file} can't be read as DICOM ({str(error)[:120]}). The "
                        "file is damaged: copy it anew, or take it out of the folder") from error
    if "PixelData" in dataset and kinds:
        return dataset
    other = kinds and not kinds & set(CT_CLASSES) and all(UID(uid).name != uid for uid in kinds)
    if not other and _looks_like_dicom(file):
        raise ScanError(f"case {case!r}: {file} is a DICOM file without its pixels: it is "
                        "truncated. Copy it anew, or take it out of the folder")
    return None


def _read_datasets(path: Path, case: str) -> list[tuple[Path, Dataset]]:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    read = [(file, _read_dataset(file, case)) for file in files]
    found = [(file, dataset) for file, dataset in read if dataset is not None]
    if not found:
        raise ScanError(f"case {case!r}: {path} holds no DICOM image, expected a series "
                        "of CT slices. Give the folder of one series, or the NIfTI, NRRD or "
                        "MetaImage file itself")
    return found


@contextlib.contextmanager
def _understanding(file: Path, case: str) -> Iterator[None]:
    """Values are decoded when they are first asked for: only then a damaged one shows."""
    try:
        yield
    except ScanError:
        raise
    except Exception as error:
        raise ScanError(f"case {case!r}: {file} has a header that can't be understood "
                        f"({str(error)[:120]}). The file is damaged: copy it anew, or take it out "
                        "of the folder") from error


def _by_series(found: list[tuple[Path, Dataset]],
               case: str) -> dict[str, list[tuple[Path, Dataset]]]:
    """The images of each series, by its UID, the longest series first."""
    series: dict[str, list[tuple[Path, Dataset]]] = defaultdict(list)
    for file, dataset in found:
        with _understanding(file, case):
            series[str(dataset.get("SeriesInstanceUID", "none"))].append((file, dataset))
    return dict(sorted(series.items(), key=lambda item: (-len(item[1]), item[0])))


def _describe(series: dict[str, list[tuple[Path, Dataset]]]) -> list[str]:
    lines = []
    for number, (uid, items) in enumerate(series.items(), 1):
        first = items[0][1]
        thickness = first.get("SliceThickness")
        plural = "s" if len(items) > 1 else ""
        lines.append(f"{number}: {len(items)} image{plural}, "
                     f"{first.get('SeriesDescription') or 'no description'}"
                     + (f", {float(thickness):g} mm" if thickness else "") + f" ({uid})")
    return lines


def list_series(path: str | os.PathLike) -> list[str]:
    """A line for each DICOM series in a folder, the longest first; its number serves `series`.

    Raises
    ------
    ScanError
        There is no DICOM image.
    """
    path = Path(path)
    return _describe(_by_series(_read_datasets(path, path.name), path.name))


def _choose_series(found: list[tuple[Path, Dataset]], path: Path, case: str,
                   wanted: str | None) -> list[tuple[Path, Dataset]]:
    series = _by_series(found, case)
    listed = "\n  ".join(["", *_describe(series)])
    if wanted is not None:
        numbered = {str(number): uid for number, uid in enumerate(series, 1)}
        uid = numbered.get(wanted, wanted)
        if uid not in series:
            raise ScanError(f"case {case!r}: {path} has no series {wanted!r}, expected a number or "
                            f"UID of{listed}")
        return series[uid]
    if len(series) > 1:
        raise ScanError(f"case {case!r}: {path} holds {len(series)} series, expected one. Choose "
                        f"with --series <number or UID>, in Python series='1':{listed}")
    return next(iter(series.values()))


def _need(dataset: Dataset, tag: str, file: Path, case: str):
    value = dataset.get(tag)
    if value is None or value == "":
        raise ScanError(f"case {case!r}: {file.name} has no {tag}, which says how its slices lie. "
                        "Export the original series, with its metadata")
    return value


def _rescaled(pixels: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    return pixels.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _pixels(dataset: Dataset, file: Path, case: str) -> np.ndarray:
    if int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise ScanError(f"case {case!r}: {file.name} is a colour image, expected CT slices. "
                        "Leave screenshots out of the folder")
    syntax = str(getattr(dataset.file_meta, "TransferSyntaxUID", ""))
    if syntax in LOSSY_SYNTAXES:
        warnings.warn(f"case {case!r}: {file.name} is compressed with loss "
                      f"({LOSSY_SYNTAXES[syntax]}): HU are approximate", stacklevel=2)
    try:
        return dataset.pixel_array
    except Exception as error:
        raise ScanError(
            f"case {case!r}: the pixels of {file.name} can't be decoded (transfer syntax "
            f"{syntax or 'unknown'}: {str(error).partition(chr(10))[0][:140]}). The file may be "
            "damaged: copy it anew, or export it uncompressed") from error


def _frames(dataset: Dataset, file: Path, case: str) -> list[_Slice]:
    modality = str(dataset.get("Modality", "unknown"))
    if modality != "CT":
        raise ScanError(f"case {case!r}: {file.name} is of modality {modality}, expected CT. "
                        "Leave other images out of the folder")
    if "LOCALIZER" in [str(part).upper() for part in dataset.get("ImageType", [])]:
        raise ScanError(f"case {case!r}: {file.name} is a localizer (scout), expected axial "
                        "slices. Leave it out of the folder")
    if "PerFrameFunctionalGroupsSequence" in dataset:
        return _enhanced_frames(dataset, file, case)
    position, orientation, spacing = (
        np.array([float(v) for v in _need(dataset, tag, file, case)])
        for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))
    pixels = _pixels(dataset, file, case)
    if pixels.ndim != 2:
        raise ScanError(f"case {case!r}: {file.name} has {pixels.shape[0]} frames without their "
                        "positions, expected single slices or an enhanced CT. Export it anew")
    thickness = dataset.get("SliceThickness")
    hu = _rescaled(pixels, float(dataset.get("RescaleSlope", 1) or 1),
                   float(dataset.get("RescaleIntercept", 0) or 0))
    return [_Slice(file.name, position, orientation, (spacing[0], spacing[1]),
                   float(thickness) if thickness else None, hu)]


def _enhanced_frames(dataset: Dataset, file: Path, case: str) -> list[_Slice]:
    """The frames of an enhanced multi-frame CT; a frame's own values go before the shared ones."""
    shared = dataset.get("SharedFunctionalGroupsSequence", [Dataset()])[0]
    pixels = _pixels(dataset, file, case)
    pixels = pixels if pixels.ndim == 3 else pixels[None]
    frames = []
    for number, (group, frame) in enumerate(
            zip(dataset.PerFrameFunctionalGroupsSequence, pixels, strict=True)):
        def item(sequence: str, group: Dataset = group) -> Dataset:
            found = group.get(sequence) or shared.get(sequence)
            return found[0] if found else Dataset()

        measures = item("PixelMeasuresSequence")
        value = item("PixelValueTransformationSequence")
        position, orientation, spacing = (
            np.array([float(v) for v in _need(part, tag, file, case)])
            for part, tag in ((item("PlanePositionSequence"), "ImagePositionPatient"),
                              (item("PlaneOrientationSequence"), "ImageOrientationPatient"),
                              (measures, "PixelSpacing")))
        thickness = measures.get("SliceThickness")
        frames.append(_Slice(
            f"{file.name} frame {number + 1}", position, orientation, (spacing[0], spacing[1]),
            float(thickness) if thickness else None,
            _rescaled(frame, float(value.get("RescaleSlope", 1) or 1),
                      float(value.get("RescaleIntercept", 0) or 0))))
    return frames


def _check_alike(slices: list[_Slice], case: str) -> None:
    first = slices[0]
    for other in slices[1:]:
        for what, a, b, tolerance in (
                ("rows and columns", first.hu.shape, other.hu.shape, 0.0),
                ("pixel spacing", first.spacing_mm, other.spacing_mm, 1e-3),
                ("image orientation", first.orientation, other.orientation, 1e-3)):
            if np.abs(np.subtract(a, b)).max() > tolerance:
                raise ScanError(f"case {case!r}: {other.name} has {what} {tuple(b)}, {first.name} "
                                f"{tuple(a)}; expected one for the whole series. Leave the odd "
                                "slices out of the folder")


def _slice_step(slices: list[_Slice], normal: np.ndarray, case: str) -> np.ndarray:
    """The vector from one slice to the next, after the checks of gaps and tilt."""
    if len(slices) == 1:
        if slices[0].thickness_mm is None:
            raise ScanError(f"case {case!r}: {slices[0].name} is a single slice without "
                            "SliceThickness, so its volume is unknown. Export it with its metadata")
        return normal * slices[0].thickness_mm
    along = np.array([s.position_mm @ normal for s in slices])
    gaps = np.diff(along)
    if gaps.min() < 1e-3:
        at = int(gaps.argmin())
        raise ScanError(f"case {case!r}: {slices[at].name} and {slices[at + 1].name} lie at the "
                        f"same position ({along[at]:.2f} mm), expected one slice each. The folder "
                        "may hold two reconstructions: keep one")
    step = (slices[-1].position_mm - slices[0].position_mm) / (len(slices) - 1)
    tilt = np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1.0, 1.0)))
    if tilt > TILT_TOLERANCE_DEGREES:
        raise ScanError(f"case {case!r}: the gantry was tilted by {tilt:.1f} degrees (slices are "
                        "shifted against each other), expected none. Correct the tilt by "
                        "resampling the series, or exclude the case")
    middle = float(np.median(gaps))
    if np.abs(gaps - middle).max() > GAP_TOLERANCE * middle:
        at = int(np.abs(gaps - middle).argmax())
        raise ScanError(f"case {case!r}: slice gap varies {gaps.min():.4g}–{gaps.max():.4g} mm "
                        f"(allowed {GAP_TOLERANCE:.0%}): from {slices[at].name} at "
                        f"{along[at]:.2f} mm to {slices[at + 1].name} at {along[at + 1]:.2f} mm "
                        f"there are {gaps[at]:.4g} mm, elsewhere {middle:.4g}. Complete or "
                        "resample the series, or exclude it in its manifest (column 'exclude')")
    return step


def read_series(path: str | os.PathLike, case_id: str | None = None,
                series: str | None = None) -> Scan:
    """Read one CT series.

    Parameters
    ----------
    path
        A folder (searched with its subfolders; files that are no DICOM images are passed over)
        or a single file, also an enhanced multi-frame one.
    case_id
        Name for messages and outputs; default: the folder's name.
    series
        Which series to take where a folder holds several: its UID, or its number in
        `list_series`.

    Returns
    -------
    Scan
        HU [z, y, x] after each slice's own rescale slope and intercept, sorted by position.

    Raises
    ------
    ScanError
        No DICOM, several series, another modality, a localizer, missing geometry, slices that do
        not fit together, uneven gaps, gantry tilt, pixels that can't be decoded.
    """
    path = Path(path)
    case = case_id or (path.name if path.is_dir() else path.stem)
    if not path.exists():
        raise ScanError(f"case {case!r}: {path} is missing, expected DICOM. Check the path")
    chosen = _choose_series(_read_datasets(path, case), path, case, series)
    slices: list[_Slice] = []
    for file, dataset in chosen:
        with _understanding(file, case):
            slices += _frames(dataset, file, case)
    _check_alike(slices, case)
    across, down = slices[0].orientation[:3], slices[0].orientation[3:]
    normal = np.cross(across, down)
    slices.sort(key=lambda s: float(s.position_mm @ normal))
    step = _slice_step(slices, normal, case)
    row_mm, column_mm = slices[0].spacing_mm
    to_ras = np.diag([-1.0, -1.0, 1.0])
    affine = np.eye(4)
    affine[:3, :3] = to_ras @ np.column_stack([across * column_mm, down * row_mm, step])
    affine[:3, 3] = to_ras @ slices[0].position_mm
    volume = np.stack([s.hu for s in slices])
    first = chosen[0][1]
    about = f"{first.get('SeriesInstanceUID', 'none')} {first.get('SeriesDescription') or ''}"
    image = Grid(volume.shape, affine).to_image(volume)
    return scan_from_image(image, case, str(path), about.strip())
