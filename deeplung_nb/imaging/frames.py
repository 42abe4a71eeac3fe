"""The frames of one DICOM file: where each lies, and its pixels in HU."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from scipy import ndimage

from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.folder import CT_CLASSES, Header, read_dataset
from deeplung_nb.imaging.scan import OUTSIDE_HU

TISSUE_HU = (-900.0, 3100.0)
"""Padding that is declared to be as dense as tissue is believed only at the picture's border."""
JPEG_END = b"\xff\xd9"
LOSSY_SYNTAXES = {
    "1.2.840.10008.1.2.4.50": "JPEG baseline", "1.2.840.10008.1.2.4.51": "JPEG extended",
    "1.2.840.10008.1.2.4.53": "JPEG spectral selection",
    "1.2.840.10008.1.2.4.55": "JPEG progression", "1.2.840.10008.1.2.4.81": "JPEG-LS near-lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
}


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame: where it lies and its pixels in HU (int16)."""

    name: str
    position_mm: np.ndarray
    orientation: np.ndarray
    spacing_mm: tuple[float, float]
    thickness_mm: float | None
    hu: np.ndarray
    rescale: tuple[float, float] | None
    """Slope and intercept; None where it has none."""
    number: int
    lossy: str = ""

    @property
    def normal(self) -> np.ndarray:
        """The direction across the slice, unit length (0 where the header's is no direction)."""
        across = np.cross(self.orientation[:3], self.orientation[3:])
        length = np.linalg.norm(across)
        return across / length if length > 0.5 else np.zeros(3)


def _need(dataset: Dataset, tag: str, name: str, case: str):
    value = dataset.get(tag)
    if value is None or value == "":
        raise ScanError(f"case {case!r}: {name} has no {tag}, which says how its slices lie. "
                        "Export the original series, with its metadata")
    return value


def _decoded_by_gdcm(dataset: Dataset) -> np.ndarray:
    """Pixels as they are stored, through ITK's GDCM: the JPEG kinds that pydicom leaves to others.

    GDCM rescales, so it is given the file without its rescaling. It makes a picture of half a
    stream too, so that each must have its end.
    """
    n_frames = int(dataset.get("NumberOfFrames") or 1)
    for stream in generate_frames(dataset.PixelData, number_of_frames=n_frames):
        if not stream.rstrip(b"\0").endswith(JPEG_END):
            raise ValueError("compressed pixels end too early")
    plain = Dataset()
    plain.update({element.tag: element for element in dataset if element.tag.group in (8, 0x28)
                  or element.tag in (0x7FE00010, 0x00200032, 0x00200037)})
    for tag in ("RescaleSlope", "RescaleIntercept", "RescaleType", "PixelPaddingValue"):
        plain.pop(tag, None)
    plain.file_meta = dataset.file_meta
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frame.dcm"
        plain.save_as(path, enforce_file_format=True)
        return np.squeeze(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))


def _pixels(dataset: Dataset, name: str, case: str) -> tuple[np.ndarray, str]:
    """Pixels as they are stored, and how they were compressed with loss, if they were."""
    if int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise ScanError(f"case {case!r}: {name} is a colour image, expected CT slices. "
                        "Leave screenshots out of the folder")
    syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
    try:
        try:
            return dataset.pixel_array, LOSSY_SYNTAXES.get(syntax, "")
        except MemoryError:
            raise
        except Exception as error:  # no decoder, or it gave up
            try:
                found = _decoded_by_gdcm(dataset)
            except Exception:
                raise error from None
            shape = (int(dataset.Rows), int(dataset.Columns))
            if found.shape[-2:] != shape:
                raise error
            return found, LOSSY_SYNTAXES.get(syntax, "")
    except MemoryError:
        raise
    except Exception as error:
        raise ScanError(
            f"case {case!r}: the pixels of {name} can't be decoded (transfer syntax "
            f"{syntax or 'unknown'}: {str(error).partition(chr(10))[0][:140]}). The file may be "
            "damaged: copy it anew, or export it uncompressed") from error


def _rescale_of(dataset: Dataset, name: str, case: str) -> tuple[float, float] | None:
    """Slope and intercept; None where a file has neither."""
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    if slope in (None, "") and intercept in (None, ""):
        return None
    slope = 1.0 if slope in (None, "") else float(slope)
    intercept = 0.0 if intercept in (None, "") else float(intercept)
    if not math.isfinite(slope * intercept) or slope == 0.0:
        raise ScanError(f"case {case!r}: {name} has RescaleSlope {slope:g} and RescaleIntercept "
                        f"{intercept:g}, expected numbers, the slope not 0. Export it again")
    return slope, intercept


def _padding(dataset: Dataset, pixels: np.ndarray) -> np.ndarray | None:
    """Where pixels are declared to show nothing (PixelPaddingValue, PixelPaddingRangeLimit)."""
    value = dataset.get("PixelPaddingValue")
    if value is None or value == "" or pixels.dtype.kind not in "iu":
        return None
    bits = 8 * pixels.dtype.itemsize

    def stored(number: object) -> int:
        """As the pixels are: 63536 and -2000 are the same 16 bits."""
        whole = int(str(number)) % (1 << bits)
        return whole - (1 << bits) if pixels.dtype.kind == "i" and whole >> (bits - 1) else whole

    low = high = stored(value)
    limit = dataset.get("PixelPaddingRangeLimit")
    if limit not in (None, ""):
        low, high = sorted((low, stored(limit)))
    return (pixels >= low) & (pixels <= high)


def _touching_border(mask: np.ndarray) -> np.ndarray:
    """The connected parts of a mask [y, x] that reach the picture's border."""
    parts, _ = ndimage.label(mask)
    rim = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    return np.isin(parts, np.unique(rim[rim > 0]))


def _to_hu(pixels: np.ndarray, rescale: tuple[float, float] | None, padding: np.ndarray | None
           ) -> np.ndarray:
    """int16 HU of one frame; what shows nothing is air."""
    slope, intercept = rescale or (1.0, 0.0)
    hu = pixels.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    out = np.clip(np.rint(hu), -32768, 32767).astype(np.int16)
    if padding is not None and padding.any():
        if TISSUE_HU[0] < hu[padding].max() < TISSUE_HU[1]:
            padding = _touching_border(padding)
        out[padding] = OUTSIDE_HU
    return out


def read_frames(header: Header, case: str) -> list[Frame]:
    """The frames of a file: one, or those of an enhanced multi-frame CT.

    Raises
    ------
    ScanError
        A localizer, another modality, missing geometry, pixels that can't be decoded.
    """
    member, name = header.member, header.member.name
    if header.is_localizer:
        raise ScanError(f"case {case!r}: {name} is a localizer (scout), expected axial "
                        "slices. Leave it out of the folder")
    if header.modality != "CT" and (header.modality or header.sop_class not in CT_CLASSES):
        raise ScanError(f"case {case!r}: {name} is of modality {header.modality or 'unknown'}, "
                        "expected CT. Leave other images out of the folder")
    dataset, _ = read_dataset(member, case)
    if "PerFrameFunctionalGroupsSequence" in dataset:
        return _enhanced_frames(dataset, header, case)
    position, orientation, spacing = (
        np.array([float(v) for v in _need(dataset, tag, name, case)])
        for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))
    pixels, lossy = _pixels(dataset, name, case)
    if pixels.ndim != 2:
        raise ScanError(f"case {case!r}: {name} has {pixels.shape[0]} frames without their "
                        "positions, expected single slices or an enhanced CT. Export it anew")
    rescale = _rescale_of(dataset, name, case)
    return [Frame(name, position, orientation, (spacing[0], spacing[1]), header.thickness_mm,
                  _to_hu(pixels, rescale, _padding(dataset, pixels)), rescale,
                  header.number or 0, lossy)]


def _enhanced_frames(dataset: Dataset, header: Header, case: str) -> list[Frame]:
    """The frames of an enhanced multi-frame CT; a frame's own values go before the shared ones."""
    name = header.member.name
    shared = dataset.get("SharedFunctionalGroupsSequence", [Dataset()])[0]
    pixels, lossy = _pixels(dataset, name, case)
    pixels = pixels if pixels.ndim == 3 else pixels[None]
    frames = []
    for number, (group, frame) in enumerate(
            zip(dataset.PerFrameFunctionalGroupsSequence, pixels, strict=True)):
        def item(sequence: str, group: Dataset = group) -> Dataset:
            found = group.get(sequence) or shared.get(sequence)
            return found[0] if found else Dataset()

        measures = item("PixelMeasuresSequence")
        rescale = _rescale_of(item("PixelValueTransformationSequence"), name, case)
        position, orientation, spacing = (
            np.array([float(v) for v in _need(part, tag, name, case)])
            for part, tag in ((item("PlanePositionSequence"), "ImagePositionPatient"),
                              (item("PlaneOrientationSequence"), "ImageOrientationPatient"),
                              (measures, "PixelSpacing")))
        thickness = measures.get("SliceThickness")
        frames.append(Frame(
            f"{name} frame {number + 1}", position, orientation, (spacing[0], spacing[1]),
            float(thickness) if thickness else None,
            _to_hu(frame, rescale, _padding(dataset, frame)), rescale, number, lossy))
    return frames
