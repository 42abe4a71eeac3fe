"""A result as DICOM: a Segmentation beside its series, and a report (TID 1500) of its measurements.

Both go where the series came from, so they name its patient and study, as the standard wants it.
Each frame lies on a slice of the series and refers to it.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.labels import LABELS, Label

if TYPE_CHECKING:
    from highdicom.seg import Segmentation
    from highdicom.sr import Comprehensive3DSR
    from pydicom.dataset import Dataset

MAKER, MODEL = "deeplung_nb", "deeplung_nb"
SEG_SERIES, SR_SERIES = 901, 902
"""Series numbers that scanners leave free."""
PLACE_TOLERANCE_MM = 0.07
"""A slice of the series lies no further from the mask's: headers round their distances."""


@dataclass(frozen=True)
class Algorithm:
    """What marked the lesions: its name and version, as the objects name it.

    `person` corrected its marks; with a person and no name they were drawn by hand alone.
    """

    name: str
    version: str
    person: str = ""

    @property
    def kind(self) -> str:
        """DICOM's word for it."""
        return "AUTOMATIC" if not self.person else "SEMIAUTOMATIC" if self.name else "MANUAL"


def series_datasets(scan: Scan) -> list[Dataset]:
    """The headers of the series that a scan was read from, one a slice, in its own order.

    Raises
    ------
    ScanError
        The scan is no DICOM series, or its slices are not those of the scan (resampled, enhanced).
    """
    from deeplung_nb.imaging.dicom import datasets_of

    what = f"case {scan.case_id!r}: DICOM SEG and SR"
    source = Path(scan.source)
    if not scan.series or not source.exists():
        raise ScanError(f"{what} refer to the slices of a DICOM series, and {source.name or 'it'} "
                        "is none. Give the DICOM folder, or take the NIfTI mask")
    found = datasets_of(source, scan.case_id, scan.series.split(" ")[0])
    for one in found:
        if "ImagePositionPatient" not in one or "ImageOrientationPatient" not in one:
            raise ScanError(f"{what}: a slice of {source.name} has no place of its own (an "
                            "enhanced multi-frame file, or one without geometry), expected one "
                            "file a slice. Take the NIfTI mask")
    across, down = np.asarray(found[0].ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(across, down)
    places = [float(np.asarray(one.ImagePositionPatient, float) @ normal) for one in found]
    # A slice that is there twice counts once, as when the scan was read.
    once = {round(place, 3): one for place, one in
            sorted(zip(places, found, strict=True), key=lambda pair: pair[0], reverse=True)}
    kept = [once[place] for place in sorted(once)]
    _require_same_place(scan, kept, what)
    return kept


def file_order(array: np.ndarray, of: Scan | LesionMask) -> sitk.Image:
    """An array as an image in the order of the scan's own file, as its slices lie."""
    return sitk.DICOMOrient(of.grid.to_image(array), of.orientation)


def _require_same_place(scan: Scan, slices: Sequence[Dataset], what: str) -> None:
    image = file_order(np.zeros(scan.shape, np.uint8), scan)
    columns, rows, n_slices = image.GetSize()
    why = None
    if len(slices) != n_slices:
        why = f"it has {len(slices)} slices, the scan {n_slices}"
    elif (slices[0].Rows, slices[0].Columns) != (rows, columns):
        why = (f"its slices are {slices[0].Rows} x {slices[0].Columns}, the scan's {rows} x "
               f"{columns}")
    else:
        for k, one in enumerate(slices):
            here = np.asarray(image.TransformIndexToPhysicalPoint((0, 0, k)))
            shift = float(np.linalg.norm(here - np.asarray(one.ImagePositionPatient, float)))
            if shift > PLACE_TOLERANCE_MM:
                why = f"slice {k + 1} lies {shift:.2f} mm from where the series has it"
                break
    if why:
        raise ScanError(f"{what} must lie on the slices of the series, and {why}: the scan was "
                        "resampled (gaps, a tilted gantry). Take the NIfTI mask")


@contextlib.contextmanager
def _names_as_they_are() -> Iterator[None]:
    """The patient's name is the series' own: a word on how names should look helps nobody."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The string .* is unlikely to represent")
        yield


def _coded(label: Label) -> Any:
    from pydicom.sr.codedict import codes

    return {"ggo": codes.DCM.GroundGlassOpacity, "high_opacity": codes.DCM.Opacity}[label.name]


def make_segmentation(scan: Scan, mask: LesionMask, slices: Sequence[Dataset],
                      algorithm: Algorithm) -> Segmentation:
    """A binary DICOM Segmentation of a mask.

    Parameters
    ----------
    slices
        Of `series_datasets`.

    Returns
    -------
    highdicom.seg.Segmentation
        A segment for ground glass and one for high opacity, in our colours, also where one is
        empty; frames without a voxel are left out.
    """
    import highdicom as hd
    from highdicom.color import CIELabColor
    from highdicom.seg import (
        SegmentAlgorithmTypeValues,
        SegmentationTypeValues,
        SegmentDescription,
    )
    from pydicom.sr.codedict import codes

    by = hd.AlgorithmIdentificationSequence(
        name=algorithm.name[:64], version=algorithm.version[:64], source=MAKER,
        family=codes.DCM.ArtificialIntelligence) if algorithm.name else None
    how = {"AUTOMATIC": "automatic", "SEMIAUTOMATIC": "corrected by hand",
           "MANUAL": "drawn by hand"}[algorithm.kind]
    segments = [SegmentDescription(
        segment_number=label.code, segment_label=label.title,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=_coded(label),
        algorithm_type=SegmentAlgorithmTypeValues[algorithm.kind], algorithm_identification=by,
        anatomic_regions=[codes.SCT.Lung],
        tracking_uid=hd.UID(), tracking_id=f"{MAKER} {label.name}",
        display_color=CIELabColor.from_rgb(*_rgb(label.colour)),
    ) for label in LABELS[1:]]
    frames = sitk.GetArrayFromImage(file_order(mask.labels, mask))
    with _names_as_they_are():
        return hd.seg.Segmentation(
            source_images=list(slices), pixel_array=frames,
            segmentation_type=SegmentationTypeValues.BINARY, segment_descriptions=segments,
            series_instance_uid=hd.UID(), series_number=SEG_SERIES, sop_instance_uid=hd.UID(),
            instance_number=1, manufacturer=MAKER, manufacturer_model_name=MODEL,
            software_versions=algorithm.version[:64], device_serial_number="0",
            series_description=f"COVID-19 lesions ({how}, research)",
            content_label="COVID19_LESIONS", content_creator_name=algorithm.person or None,
            content_description=f"{how.capitalize()}, not a medical device",
            omit_empty_frames=bool(frames.any()))


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def make_report(segmentation: Segmentation, slices: Sequence[Dataset],
                measured: Mapping[str, Mapping[str, float]], algorithm: Algorithm
                ) -> Comprehensive3DSR:
    """A structured report (TID 1500) of the measurements of each segment.

    Parameters
    ----------
    segmentation
        Of `make_segmentation`.
    measured
        Name of a class (`ggo`, `high_opacity`) -> `volume_ml`, `mean_hu`, `burden_percent`; what
        is NaN or missing is left out.
    """
    import highdicom as hd
    from highdicom import sr
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    units = {"volume_ml": (codes.SCT.Volume, Code("mL", "UCUM", "milliliter")),
             "mean_hu": (codes.DCM.AttenuationCoefficient,
                         Code("[hnsf'U]", "UCUM", "Hounsfield unit")),
             "burden_percent": (Code("BURDEN", "99DEEPLUNG", "Share of the lungs' volume"),
                                Code("%", "UCUM", "Percent"))}
    by = sr.AlgorithmIdentification(name=algorithm.name[:64], version=algorithm.version[:64])
    device = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=hd.UID(), manufacturer_name=MAKER, model_name=MODEL))
    groups = []
    for label in LABELS[1:]:
        numbers = [sr.Measurement(
            name=name, value=float(measured[label.name][key]), unit=unit,
            derivation=codes.SCT.Mean if key == "mean_hu" else None, algorithm_id=by)
            for key, (name, unit) in units.items()
            if np.isfinite(measured.get(label.name, {}).get(key, np.nan))]
        if not _has_frames(segmentation, label):
            continue
        groups.append(sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=sr.TrackingIdentifier(
                uid=segmentation.get_segment_description(label.code).tracking_uid,
                identifier=f"{MAKER} {label.name}"),
            referenced_segment=sr.ReferencedSegment.from_segmentation(
                segmentation, label.code),
            finding_type=_coded(label),
            finding_sites=[sr.FindingSite(codes.SCT.Lung)],
            measurements=numbers, algorithm_id=by))
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=device),
        procedure_reported=Code("24627-2", "LN", "CT Chest"),
        imaging_measurements=groups or None,
        title=codes.DCM.ImagingMeasurementReport)
    with _names_as_they_are():
        return sr.Comprehensive3DSR(
            evidence=[*slices, segmentation], content=content, series_instance_uid=hd.UID(),
            series_number=SR_SERIES, sop_instance_uid=hd.UID(), instance_number=1,
            manufacturer=MAKER, manufacturer_model_name=MODEL,
            series_description="COVID-19 lesions, measurements (automatic, research)",
            is_complete=True, is_final=False, is_verified=False)


def _has_frames(segmentation: Segmentation, label: Label) -> bool:
    found = {int(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
             for frame in segmentation.PerFrameFunctionalGroupsSequence}
    return label.code in found
