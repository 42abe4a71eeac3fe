"""DICOM series: sorted by position, refused when they do not make one volume."""

import warnings

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

from deeplung_nb.imaging.dicom import list_series, read_series
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.io import read_scan


def write_slice(path, z, series="1.2.3", value=0, **changes):
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.file_meta.MediaStorageSOPClassUID = d.SOPClassUID = CTImageStorage
    d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID = generate_uid()
    d.SeriesInstanceUID, d.Modality, d.ImageType = series, "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    d.Rows = d.Columns = 8
    d.BitsAllocated = d.BitsStored = 16
    d.HighBit, d.PixelRepresentation, d.SamplesPerPixel = 15, 0, 1
    d.PhotometricInterpretation = "MONOCHROME2"
    d.PixelSpacing, d.SliceThickness = [0.7, 0.7], 5
    d.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    d.ImagePositionPatient = [-10, -20, z]
    d.RescaleSlope, d.RescaleIntercept = 1, -1024
    pixels = np.full((8, 8), 100, np.uint16)
    pixels[0, 0] = 1024 + value
    d.PixelData = pixels.tobytes()
    for name, content in changes.items():
        if content is None:
            delattr(d, name)
        else:
            setattr(d, name, content)
    d.save_as(path, enforce_file_format=True)


def make_series(folder, positions=(0, 5, 10, 15), **changes):
    folder.mkdir(exist_ok=True)
    order = np.random.default_rng(0).permutation(len(positions))
    for name, k in enumerate(order):
        write_slice(folder / f"{name}.dcm", float(positions[k]), value=int(k), **changes)
    return folder


def write_enhanced(path, shared, frames):
    """An enhanced CT: functional groups that frames share, and each frame's own."""
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.file_meta.MediaStorageSOPClassUID = d.SOPClassUID = EnhancedCTImageStorage
    d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID = generate_uid()
    d.SeriesInstanceUID, d.Modality, d.ImageType = "1.2.9", "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    d.Rows, d.Columns, d.NumberOfFrames = 8, 8, len(frames)
    d.BitsAllocated = d.BitsStored = 16
    d.HighBit, d.PixelRepresentation, d.SamplesPerPixel = 15, 0, 1
    d.PhotometricInterpretation = "MONOCHROME2"

    def group(values):
        made = Dataset()
        for sequence, tags in values.items():
            item = Dataset()
            for name, value in tags.items():
                setattr(item, name, value)
            setattr(made, sequence, [item])
        return made

    d.SharedFunctionalGroupsSequence = [group(shared)]
    d.PerFrameFunctionalGroupsSequence = [group(frame) for frame in frames]
    pixels = np.full((len(frames), 8, 8), 1100, np.uint16)
    pixels[:, 0, 0] = 24  # air
    d.PixelData = pixels.tobytes()
    d.save_as(path, enforce_file_format=True)


def test_rows_and_columns_have_each_their_spacing(tmp_path):
    """PixelSpacing: the distance of rows first, that is along y."""
    scan = read_scan(make_series(tmp_path / "P1", PixelSpacing=[0.9, 0.6]))
    assert scan.spacing_mm == pytest.approx((5.0, 0.9, 0.6))


def test_a_frames_own_values_go_before_those_that_all_share(tmp_path):
    (tmp_path / "E").mkdir()
    upright = {"PlaneOrientationSequence": {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}}
    shared = {**upright, "PixelMeasuresSequence": {"PixelSpacing": [0.9, 0.6], "SliceThickness": 5},
              "PixelValueTransformationSequence": {"RescaleSlope": 1, "RescaleIntercept": -1024}}
    frames = [{"PlanePositionSequence": {"ImagePositionPatient": [-10, -20, 5.0 * k]}}
              for k in range(3)]
    frames[1]["PixelValueTransformationSequence"] = {"RescaleSlope": 1, "RescaleIntercept": -1000}
    write_enhanced(tmp_path / "E" / "one.dcm", shared, frames)
    scan = read_scan(tmp_path / "E")
    assert scan.spacing_mm == pytest.approx((5.0, 0.9, 0.6))
    assert scan.hu[:, 4, 4].tolist() == [76, 100, 76]


def test_slices_are_sorted_by_position_not_by_name(tmp_path):
    folder = make_series(tmp_path / "P1")
    (folder / "notes.txt").write_text("not DICOM")
    scan = read_scan(folder)
    assert scan.case_id == "P1"
    assert scan.hu[:, 0, 0].tolist() == [0, 1, 2, 3]
    assert scan.spacing_mm == pytest.approx((5.0, 0.7, 0.7))
    assert (scan.affine @ [0, 0, 0, 1])[:3].tolist() == [10.0, 20.0, 0.0]


def test_rescaling_is_each_slice_its_own(tmp_path):
    folder = make_series(tmp_path / "P1")
    write_slice(folder / "z.dcm", 20.0, value=50, RescaleSlope=2, RescaleIntercept=-2000)
    assert read_scan(folder).hu[4, 0, 0] == 2 * 1074 - 2000


@pytest.mark.parametrize(("positions", "changes", "message"), [
    ((0, 5, 10, 20), {}, 
     r"slice gap varies 5–10 mm .*: from \d\.dcm at 10\.00 mm to \d\.dcm at 20\.00 mm"),
    ((0, 5, 10, 15.25), {}, "slice gap varies 5–5.25 mm"),
    ((0, 5, 5, 10), {}, "same position"),
    ((0, 5, 10), {"Modality": "MR"}, "modality MR, expected CT"),
    ((0, 5, 10), {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
    ((0, 5, 10), {"ImagePositionPatient": None}, "has no ImagePositionPatient"),
    ((0, 5, 10), {"PixelSpacing": None}, "has no PixelSpacing"),
    ((0, 5, 10), {"ImageOrientationPatient": [1, 0, 0, 0, 0.95, 0.3122]}, "tilted by 18.2"),
    ((0, 5, 10), {"ImageOrientationPatient": [1, 0, 0, 0, 0.99985, 0.01745]}, "tilted by 1"),
    ((0,), {"SliceThickness": None}, "single slice without SliceThickness"),
])
def test_what_is_no_volume_is_refused(tmp_path, positions, changes, message):
    folder = make_series(tmp_path / "X017", positions, **changes)
    with pytest.raises(ScanError, match=message) as caught:
        read_series(folder)
    assert "X017" in str(caught.value)


def test_what_rounding_does_to_gaps_and_angles_is_no_fault(tmp_path):
    folder = make_series(tmp_path / "P1", (0, 5, 10.02, 15.0),
                         ImageOrientationPatient=[1, 0, 0, 0, 0.99999, 0.00436])
    assert read_scan(folder).n_slices == 4


def test_mixed_series_are_listed_and_can_be_chosen(tmp_path):
    folder = make_series(tmp_path / "mixed", series="1.2.3")
    for z in (0, 5):
        write_slice(folder / f"b{z}.dcm", float(z), series="9.9", SeriesDescription="LUNG")
    with pytest.raises(ScanError, match=r"(?s)2 series.*--series.*2: 2 images, LUNG, 5 mm"):
        read_series(folder)
    assert read_series(folder, series="9.9").n_slices == 2
    assert read_series(folder, series="2").n_slices == 2
    assert [line[:12] for line in list_series(folder)] == ["1: 4 images,", "2: 2 images,"]


@pytest.mark.parametrize("spoil", [
    lambda content: b"", lambda content: content[:300], lambda content: content[:-600],
    lambda content: b"no DICOM at all" * 30], ids=["empty", "header cut", "pixels cut", "text"])
def test_a_slice_that_cannot_be_read_is_no_slice_that_is_not_there(tmp_path, spoil):
    """At the end of a series nobody would miss it: no gap would show."""
    folder = make_series(tmp_path / "X017")
    last = sorted(folder.iterdir())[-1]
    last.write_bytes(spoil(last.read_bytes()))
    with pytest.raises(ScanError, match=last.name):
        read_series(folder)


def test_other_files_in_the_folder_are_passed_over(tmp_path):
    folder = make_series(tmp_path / "X017")
    (folder / "readme.txt").write_text("text")
    (folder / "thumbs.db").write_bytes(b"")
    assert read_series(folder).n_slices == 4


def test_odd_slices_and_empty_folders_are_named(tmp_path):
    folder = make_series(tmp_path / "odd")
    write_slice(folder / "odd.dcm", 20.0, PixelSpacing=[0.8, 0.8])
    with pytest.raises(ScanError, match="pixel spacing"):
        read_series(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScanError, match="holds no DICOM image"):
        read_series(tmp_path / "empty")


def test_a_series_agrees_with_itk(shared_data):
    folder = shared_data("dicom/lung_pet_ct_dx_a0001")
    scan = read_scan(folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    other = reader.Execute()
    assert scan.n_slices == 64
    np.testing.assert_allclose(scan.spacing_mm, other.GetSpacing()[::-1], rtol=1e-5)
    np.testing.assert_allclose((scan.affine @ [0, 0, 0, 1])[:3],
                               np.array(other.GetOrigin()) * [-1, -1, 1], atol=1e-3)
    theirs = sitk.GetArrayFromImage(other)
    np.testing.assert_array_equal(scan.hu[::9], np.maximum(theirs[::9], -1024))


def test_the_same_chest_as_dicom_and_nrrd(shared_data):
    a = read_scan(shared_data("dicom/cip_ct64"))
    b = read_scan(shared_data("nrrd") / "ct-64.nrrd")
    np.testing.assert_array_equal(a.hu, b.hu)
    np.testing.assert_allclose(a.spacing_mm, b.spacing_mm, rtol=1e-3)


def test_transfer_syntaxes(shared_data):
    folder = shared_data("dicom/compressed")
    plain = read_scan(folder / "CTImage.dcm").hu.astype(int)
    lossless = ("BigEndian", "Deflated", "JPEG2000LosslessOnly", "JPEGLSLossless",
                "JPEGProcess14SV1", "JPEGProcess14Transfer", "LittleEndian", "RLELossless")
    lossy = ("JPEG2000Transfer", "JPEGLSLossy", "JPEGProcess1Transfer", "JPEGProcess2_4",
             "JPEGProcess10_12", "JPEGProcess6_8")
    for path in sorted(folder.glob("CTImage.dcm_*")):
        kind = path.name.removeprefix("CTImage.dcm_")
        if kind.startswith(lossless):
            np.testing.assert_array_equal(read_scan(path).hu, plain)
        elif kind.startswith(lossy):
            with pytest.warns(UserWarning, match="compressed with loss"):
                found = read_scan(path).hu.astype(int)
            assert np.abs(found - plain).mean() < 20  # 8-bit JPEG is the coarsest
        else:
            pytest.fail(f"{kind} is neither")


def test_compressed_pixels_that_were_cut_are_no_picture(shared_data, tmp_path):
    """Half a stream decodes to half a picture without a word in some libraries."""
    for path in sorted(shared_data("dicom/compressed").glob("CTImage.dcm_*JPEG*")):
        dataset = pydicom.dcmread(path)
        stream, = pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)
        dataset.PixelData = pydicom.encaps.encapsulate([stream[:len(stream) // 2 // 2 * 2]])
        dataset.save_as(tmp_path / "cut.dcm")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(ScanError, match="can't be decoded"):
                read_scan(tmp_path / "cut.dcm")


def test_hard_cases_of_the_development_data(shared_data):
    with pytest.raises(ScanError, match=r"tilted by 18\.5 degrees"):
        read_scan(shared_data("dicom/gantry_tilt_ge"))
    enhanced = read_scan(shared_data("dicom/enhanced"))
    assert (enhanced.n_slices, enhanced.spacing_mm[0]) == (2, pytest.approx(10.0))
    bare = read_scan(shared_data("dicom/bare_slices"))  # without Modality, a CT by its class
    assert (bare.n_slices, bare.spacing_mm) == (2, pytest.approx((1.0, 0.625, 0.625)))
    single = next(p for p in shared_data("dicom/ny_sbu").rglob("*") if p.is_file())
    assert pydicom.dcmread(single).Modality == "CT"
    assert read_scan(single).hu.min() >= -1100
