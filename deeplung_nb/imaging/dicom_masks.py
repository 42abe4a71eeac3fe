"""Masks that others keep as DICOM: Segmentations and RTSTRUCTs, on the grid of their scan."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import SimpleITK as sitk

from deeplung_nb.imaging.dicom_objects import file_order
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.folder import understanding
from deeplung_nb.imaging.grid import MEMORY_ORIENTATION
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.labels import GGO, HIGH_OPACITY

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def read_segmentation(path: str | os.PathLike, scan: Scan,
                      codes: Mapping[int, int] | None = None) -> LesionMask:
    """The mask of a DICOM Segmentation that somebody made, on the grid of its scan.

    Parameters
    ----------
    codes
        What its segments mean: segment number to label code. Default: ground glass where the
        segment is coded or called so, high opacity where it is called consolidation, effusion or
        opacity; any other name is an error that lists them.

    Raises
    ------
    ScanError
        No Segmentation; segments whose meaning is not known; of another series, or a place that is
        none of its slices.
    """
    import highdicom as hd

    case = f"case {scan.case_id!r}"
    try:
        segmentation = hd.seg.segread(path)
    except Exception as error:  # whatever a file that is no SEG makes a reader do
        raise ScanError(f"{case}: {path} can't be read as a DICOM Segmentation ({error})") from None
    names = {number: _words_of(segmentation, number)
             for number in range(1, segmentation.number_of_segments + 1)}
    meant = dict(codes) if codes else meaning(names, str(path), case)
    image = file_order(np.zeros(scan.shape, np.uint8), scan)
    out = sitk.GetArrayFromImage(image)
    frames = np.atleast_3d(segmentation.pixel_array)
    if segmentation.pixel_array.ndim == 2:
        frames = segmentation.pixel_array[None]
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    for number, (frame, facts) in enumerate(zip(
            frames, segmentation.PerFrameFunctionalGroupsSequence, strict=True), 1):
        segment = int(facts.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        if segment not in meant or not frame.any():
            continue
        z = _slice_of(facts, shared, image, frame.shape, f"{case}: frame {number} of {path}")
        here = out[z]
        here[(frame > 0) & (here < meant[segment])] = meant[segment]
    return _in_memory_order(out, image, scan)


def _in_memory_order(array: np.ndarray, image: sitk.Image, scan: Scan) -> LesionMask:
    again = sitk.GetImageFromArray(array)
    again.CopyInformation(image)
    return LesionMask.like(scan, sitk.GetArrayFromImage(
        sitk.DICOMOrient(again, MEMORY_ORIENTATION)))


def _words_of(segmentation: Any, number: int) -> str:
    one = segmentation.get_segment_description(number)
    return f"{one.segment_label}, {one.segmented_property_type.meaning}"


def _slice_of(facts: Dataset, shared: Dataset, image: sitk.Image, shape: tuple[int, int],
              what: str) -> int:
    """On which slice of an image a frame lies."""
    def first(name: str) -> Dataset:
        return (getattr(facts, name, None) or getattr(shared, name))[0]

    try:
        place = np.asarray(first("PlanePositionSequence").ImagePositionPatient, float)
        turned = np.asarray(first("PlaneOrientationSequence").ImageOrientationPatient, float)
    except AttributeError:
        raise ScanError(f"{what} has no place, expected its position and orientation") from None
    index = np.asarray(image.TransformPhysicalPointToContinuousIndex(place.tolist()))
    z = round(index[2])
    direction = np.asarray(image.GetDirection()).reshape(3, 3)
    apart = np.abs(direction[:, :2].T.reshape(-1) - turned).max()
    columns, rows, n_slices = image.GetSize()
    near = np.abs(index - (0, 0, z)).max()
    if shape != (rows, columns) or not 0 <= z < n_slices or near > 0.1 or apart > 1e-3:
        raise ScanError(f"{what} lies on no slice of the scan ({shape[0]} x {shape[1]} pixels, "
                        f"{near:.2g} voxels off), expected {rows} x {columns} on one of "
                        f"{n_slices}. Is it of another series?")
    return z


def meaning(names: Mapping[int, str], path: str, case: str) -> dict[int, int]:
    """Number of a segment to label code, by what it is called; lungs are passed over.

    Raises
    ------
    ScanError
        A name says neither ground glass nor what is dense, and is not of lungs.
    """
    found, unknown = {}, []
    for number, name in names.items():
        words = re.findall(r"[a-z]+", name.casefold())
        if "ggo" in words or "ground" in words:
            found[number] = GGO.code
        elif {"consolidation", "consolidations", "effusion", "opacity", "opacities"} & set(words):
            found[number] = HIGH_OPACITY.code
        elif not {"lung", "lungs"} & set(words):
            unknown.append(f"{number}: {name}")
    if unknown or not found:
        raise ScanError(f"{case}: {path} has segments of unknown meaning "
                        f"({'; '.join(unknown) or 'lungs alone'}), expected ground glass, "
                        "consolidation, effusion or opacity. Name them with codes={segment: 1 for "
                        "ground glass, 2 for high opacity}")
    return found


def read_rtstruct(path: str | os.PathLike, scan: Scan,
                  codes: Mapping[int, int] | None = None) -> LesionMask:
    """The mask of an RTSTRUCT's contours, on the grid of its scan.

    A voxel is in a contour where its centre is; contours of one structure on one slice are taken
    out of each other where they overlap (a hole is a contour within a contour).

    Parameters
    ----------
    codes
        As `read_segmentation`, by ROI number.

    Raises
    ------
    ScanError
        No RTSTRUCT; structures whose meaning is not known; a contour that lies on no slice.
    """
    case = f"case {scan.case_id!r}"
    with understanding(str(path), scan.case_id):
        plan = pydicom.dcmread(path)
        if plan.get("Modality") != "RTSTRUCT":
            raise ScanError(f"{case}: {path} is {plan.get('Modality') or 'no modality'}, expected "
                            "an RTSTRUCT or a DICOM Segmentation")
        names = {int(roi.ROINumber): str(roi.ROIName) for roi in plan.StructureSetROISequence}
        contours = [(int(roi.ReferencedROINumber),
                     np.asarray(one.ContourData, float).reshape(-1, 3))
                    for roi in plan.get("ROIContourSequence", [])
                    for one in roi.get("ContourSequence", [])
                    if one.ContourGeometricType == "CLOSED_PLANAR"]
    meant = dict(codes) if codes else meaning(names, str(path), case)
    image = file_order(np.zeros(scan.shape, np.uint8), scan)
    columns, rows, n_slices = image.GetSize()
    drawn: dict[tuple[int, int], np.ndarray] = {}
    for number, points in contours:
        if number not in meant:
            continue
        index = np.array([image.TransformPhysicalPointToContinuousIndex(point.tolist())
                          for point in points])
        z = round(float(index[:, 2].mean()))
        off = float(np.abs(index[:, 2] - z).max())
        if not 0 <= z < n_slices or off > 0.25:
            raise ScanError(f"{case}: a contour of {names.get(number, number)!r} in {path} lies on "
                            f"no slice of the scan ({off:.2g} slices off). Is it of another "
                            "series?")
        inside = _within(index[:, :2], rows, columns)
        key = (number, z)
        drawn[key] = drawn[key] ^ inside if key in drawn else inside
    out = np.zeros((n_slices, rows, columns), np.uint8)
    for (number, z), inside in drawn.items():
        here = out[z]
        here[inside & (here < meant[number])] = meant[number]
    return _in_memory_order(out, image, scan)


def _within(corners: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """bool [rows, columns]: pixels whose centre lies in a polygon of corners (x, y), even-odd."""
    inside = np.zeros((rows, columns), bool)
    x, y = corners.T
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    centres = np.arange(columns)
    for row in range(max(0, int(np.ceil(y.min()))), min(rows - 1, int(np.floor(y.max()))) + 1):
        crossed = (y <= row) != (next_y <= row)
        at = x[crossed] + (row - y[crossed]) / (next_y - y)[crossed] * (next_x - x)[crossed]
        inside[row] = (at[:, None] > centres).sum(axis=0) % 2 == 1
    return inside


def read_dicom_mask(path: str | os.PathLike, scan: Scan,
                    codes: Mapping[int, int] | None = None) -> LesionMask:
    """The mask of a DICOM Segmentation or of an RTSTRUCT, whichever the file is."""
    with understanding(str(path), scan.case_id):
        modality = pydicom.dcmread(path, stop_before_pixels=True, force=True).get("Modality")
    read = read_rtstruct if modality == "RTSTRUCT" else read_segmentation
    return read(path, scan, codes)
