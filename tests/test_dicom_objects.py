"""Results as DICOM: on the slices of the series, read back by others' readers, voxel for voxel."""

import dataclasses
import shutil

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from deeplung_nb.__main__ import main
from deeplung_nb.imaging.dicom import read_series
from deeplung_nb.imaging.dicom_masks import read_rtstruct, read_segmentation
from deeplung_nb.imaging.dicom_objects import (
    Algorithm,
    make_report,
    make_segmentation,
    series_datasets,
)
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.io import read_mask, read_scan
from deeplung_nb.imaging.scan import LesionMask
from deeplung_nb.labels import GGO, HIGH_OPACITY, LABELS

BY = Algorithm("a network", "0.1 abc")
AXIAL, PRONE, TURNED = [1, 0, 0, 0, 1, 0], [-1, 0, 0, 0, -1, 0], [0, 1, 0, -1, 0, 0]


def write_chest(folder, hu, spacing_mm=(5.0, 0.7, 0.8), orientation=AXIAL, rising=True, **tags):
    """A CT series of [slice, row, column] HU, with the tags that a scanner writes."""
    folder.mkdir()
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    normal = np.cross(orientation[:3], orientation[3:])
    for k, plane in enumerate(hu):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = CTImageStorage
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
        one.PatientName, one.PatientID, one.PatientSex, one.PatientBirthDate = "Doe^J", "7", "", ""
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        one.StudyID, one.StudyDate, one.StudyTime = "1", "20200401", "101010"
        one.AccessionNumber, one.ReferringPhysicianName = "", ""
        one.Modality, one.SeriesNumber, one.InstanceNumber = "CT", 2, k + 1
        one.PositionReferenceIndicator, one.ImageType = "", ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.Rows, one.Columns = plane.shape
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation, one.SamplesPerPixel = 15, 1, 1
        one.PhotometricInterpretation = "MONOCHROME2"
        one.PixelSpacing, one.SliceThickness = list(spacing_mm[1:]), spacing_mm[0]
        one.ImageOrientationPatient = orientation
        one.ImagePositionPatient = list(np.array([-90.0, -80, 30]) + normal * spacing_mm[0] * (
            k if rising else len(hu) - 1 - k))
        one.RescaleSlope, one.RescaleIntercept = 1, 0
        one.PixelData = plane.astype(np.int16).tobytes()
        for name, value in tags.items():
            setattr(one, name, value)
        one.save_as(folder / f"{(7 * k) % len(hu):03d}.dcm", enforce_file_format=True)
    return folder


@pytest.fixture
def made(tmp_path):
    """A series of nine small slices, its scan, and a mask that no turn maps onto itself."""
    def make(**how):
        hu = np.random.default_rng(1).integers(-900, 100, (9, 12, 16))
        scan = read_series(write_chest(tmp_path / f"s{len(list(tmp_path.iterdir()))}", hu, **how))
        labels = np.zeros(scan.shape, np.uint8)
        labels[2:5, 1:6, 2:5] = GGO.code
        labels[4:6, 3:5, 4:9] = HIGH_OPACITY.code
        return scan, LesionMask.like(scan, labels)
    return make


@pytest.mark.parametrize("how", [
    {}, {"rising": False}, {"orientation": PRONE}, {"orientation": TURNED}], ids=str)
def test_the_segmentation_lies_on_its_series_voxel_for_voxel(made, tmp_path, how):
    scan, mask = made(**how)
    slices = series_datasets(scan)
    make_segmentation(scan, mask, slices, BY).save_as(tmp_path / "seg.dcm")
    # By highdicom's own volume, which knows nothing of ours: each voxel at its place in space.
    found = hd.seg.segread(tmp_path / "seg.dcm")
    volume = found.get_volume(combine_segments=True)
    image = scan.grid.to_image(mask.labels)
    again = np.zeros(volume.array.shape, np.uint8)
    for index in np.ndindex(again.shape):
        place = volume.affine @ (*index, 1.0)
        x, y, z = image.TransformPhysicalPointToContinuousIndex(place[:3].tolist())
        assert np.abs(np.array([x, y, z]) - np.round([x, y, z])).max() < 1e-4
        again[index] = mask.labels[round(z), round(y), round(x)]
    np.testing.assert_array_equal(volume.array, again)
    back = read_segmentation(tmp_path / "seg.dcm", scan)
    np.testing.assert_array_equal(back.labels, mask.labels)


def test_each_frame_refers_to_the_slice_it_lies_on(made, tmp_path):
    scan, mask = made()
    slices = series_datasets(scan)
    make_segmentation(scan, mask, slices, BY).save_as(tmp_path / "seg.dcm")
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    by_uid = {one.SOPInstanceUID: one for one in slices}
    assert seg.StudyInstanceUID == slices[0].StudyInstanceUID
    assert seg.SeriesInstanceUID != slices[0].SeriesInstanceUID
    assert seg.FrameOfReferenceUID == slices[0].FrameOfReferenceUID
    assert seg.NumberOfFrames == 5  # three slices of ground glass, two of high opacity
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        there = by_uid[source.ReferencedSOPInstanceUID].ImagePositionPatient
        here = frame.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(np.array(here, float), np.array(there, float), atol=1e-4)


def test_segments_are_coded_coloured_and_name_their_network(made):
    scan, mask = made()
    seg = make_segmentation(scan, mask, series_datasets(scan), BY)
    assert [(one.SegmentNumber, one.SegmentLabel) for one in seg.SegmentSequence] == [
        (label.code, label.title) for label in LABELS[1:]]
    codes = [one.SegmentedPropertyTypeCodeSequence[0] for one in seg.SegmentSequence]
    assert [(code.CodeValue, code.CodingSchemeDesignator) for code in codes] == [
        ("112120", "DCM"), ("112001", "DCM")]
    for one, label in zip(seg.SegmentSequence, LABELS[1:], strict=True):
        assert one.SegmentAlgorithmType == "AUTOMATIC"
        named = one.SegmentationAlgorithmIdentificationSequence[0]
        assert (named.AlgorithmName, named.AlgorithmVersion) == (BY.name, BY.version)
        rgb = tuple(int(label.colour[k:k + 2], 16) for k in (1, 3, 5))
        lab = hd.color.CIELabColor.from_rgb(*rgb).value
        assert tuple(one.RecommendedDisplayCIELabValue) == tuple(lab)


def test_the_report_has_the_measurements_and_refers_to_the_segments(made, tmp_path):
    scan, mask = made()
    slices = series_datasets(scan)
    seg = make_segmentation(scan, mask, slices, BY)
    measured = {"ggo": {"volume_ml": 12.5, "mean_hu": -512.0, "burden_percent": 3.25},
                "high_opacity": {"volume_ml": 1.5, "mean_hu": float("nan")}}
    make_report(seg, slices, measured, BY).save_as(tmp_path / "sr.dcm")
    report = hd.sr.srread(tmp_path / "sr.dcm")
    groups = report.content.get_volumetric_roi_measurement_groups()
    found = [{one.name.meaning: (one.value, one.unit.value) for one in group.get_measurements()}
             for group in groups]
    assert found == [{"Volume": (12.5, "mL"), "Attenuation Coefficient": (-512.0, "[hnsf'U]"),
                      "Share of the lungs' volume": (3.25, "%")}, {"Volume": (1.5, "mL")}]
    for group, label in zip(groups, LABELS[1:], strict=True):
        segment = group.referenced_segment
        assert segment.referenced_sop_instance_uid == seg.SOPInstanceUID
        assert list(segment.referenced_segment_numbers) == [label.code]
    assert report.VerificationFlag == "UNVERIFIED"
    assert report.StudyInstanceUID == slices[0].StudyInstanceUID


def test_a_healthy_scan_has_its_empty_segments(made, tmp_path):
    scan, mask = made()
    empty = dataclasses.replace(mask, labels=np.zeros_like(mask.labels))
    slices = series_datasets(scan)
    seg = make_segmentation(scan, empty, slices, BY)
    seg.save_as(tmp_path / "seg.dcm")
    assert len(hd.seg.segread(tmp_path / "seg.dcm").SegmentSequence) == 2
    assert not read_segmentation(tmp_path / "seg.dcm", scan).labels.any()
    make_report(seg, slices, {}, BY).save_as(tmp_path / "sr.dcm")
    hd.sr.srread(tmp_path / "sr.dcm")


def test_what_is_no_series_is_told_why_not(made, tmp_path):
    scan, _ = made()
    sitk.WriteImage(scan.grid.to_image(scan.hu), str(tmp_path / "ct.nii.gz"))
    with pytest.raises(ScanError, match=r"refer to the slices of a DICOM series, and ct.nii.gz"):
        series_datasets(read_scan(tmp_path / "ct.nii.gz"))


def test_a_resampled_scan_has_no_slices_to_lie_on(made, tmp_path):
    scan, _ = made()
    folder = tmp_path / "gap"
    shutil.copytree(scan.source, folder)
    gone = sorted(folder.iterdir(), key=lambda p: pydicom.dcmread(p).ImagePositionPatient[2])[4]
    gone.unlink()
    forced = read_series(folder, force=True)
    with pytest.raises(ScanError, match=r"8 slices, the scan 9: the scan was resampled"):
        series_datasets(forced)


def test_a_segmentation_of_another_series_lies_on_no_slice(made, tmp_path):
    scan, mask = made()
    make_segmentation(scan, mask, series_datasets(scan), BY).save_as(tmp_path / "seg.dcm")
    other = read_series(write_chest(tmp_path / "other", scan.hu, (7.0, 0.7, 0.8)))
    with pytest.raises(ScanError, match="lies on no slice of the scan"):
        read_segmentation(tmp_path / "seg.dcm", other)
    with pytest.raises(ScanError, match="can't be read as a DICOM Segmentation"):
        read_segmentation(next(path for path in (tmp_path / "other").iterdir()), scan)


def test_segments_of_unknown_meaning_are_listed_and_can_be_named(made, tmp_path):
    scan, mask = made()
    seg = make_segmentation(scan, mask, series_datasets(scan), BY)
    for one in seg.SegmentSequence:
        one.SegmentLabel = f"Thing {one.SegmentNumber}"
        one.SegmentedPropertyTypeCodeSequence[0].CodeMeaning = "Mass"
    seg.save_as(tmp_path / "seg.dcm")
    with pytest.raises(ScanError, match=r"unknown meaning \(1: Thing 1, Mass; 2: Thing 2, Mass\)"):
        read_segmentation(tmp_path / "seg.dcm", scan)
    named = read_segmentation(tmp_path / "seg.dcm", scan, {1: 2, 2: 1})
    assert (named.labels == 2).sum() > (named.labels == 1).sum()


def test_one_command_makes_everything(shared_data, tmp_path):
    """Mask, table, preview, page, SEG and SR of a hospital's series, and nothing else."""
    folder = shared_data("dicom/lung_pet_ct_dx_a0001")
    out = tmp_path / "out"
    assert main(["segment", str(folder), "--output", str(out), "--case-id", "a1", "--report",
                 "--dicom-seg", "--dicom-sr"]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "a1_lesions.nii.gz", "a1_measurements.csv", "a1_page.html", "a1_preview.png",
        "a1_provenance.json", "a1_seg.dcm", "a1_sr.dcm"]
    scan = read_scan(folder)
    mask = read_mask(out / "a1_lesions.nii.gz", scan)
    np.testing.assert_array_equal(read_segmentation(out / "a1_seg.dcm", scan).labels, mask.labels)


def test_a_nifti_file_can_have_no_dicom_and_that_is_said_before_the_work(
        chest_file, checkpoint_file, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["segment", str(chest_file), "--output", str(out), "--dicom-seg",
                 "--checkpoint", str(checkpoint_file)]) == 1
    assert "refer to the slices of a DICOM series" in capsys.readouterr().err
    assert not out.exists() or not list(out.iterdir())


def write_rtstruct(path, scan, rois, modality="RTSTRUCT"):
    """Contours in mm of each ROI: name -> list of (slice, corners in pixels (x, y))."""
    plan = Dataset()
    plan.file_meta = FileMetaDataset()
    plan.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    plan.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    plan.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    plan.SOPClassUID, plan.Modality = "1.2.840.10008.5.1.4.1.1.481.3", modality
    image = scan.grid.to_image(scan.hu)
    plan.StructureSetROISequence, plan.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(rois.items(), 1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, drawn.ReferencedROINumber = number, name, number
        drawn.ContourSequence = []
        for z, corners in contours:
            one = Dataset()
            one.ContourGeometricType, one.NumberOfContourPoints = "CLOSED_PLANAR", len(corners)
            one.ContourData = [round(v, 4) for x, y in corners for v in
                               image.TransformContinuousIndexToPhysicalPoint((x, y, float(z)))]
            drawn.ContourSequence.append(one)
        plan.StructureSetROISequence.append(roi)
        plan.ROIContourSequence.append(drawn)
    plan.save_as(path, enforce_file_format=True)
    return path


def square(low, high):
    return [(low - 0.5, low - 0.5), (high + 0.5, low - 0.5), (high + 0.5, high + 0.5),
            (low - 0.5, high + 0.5)]


@pytest.mark.parametrize("how", [{}, {"orientation": PRONE}, {"orientation": TURNED}], ids=str)
def test_contours_of_an_rtstruct_are_filled_on_their_slices(made, tmp_path, how):
    scan, _ = made(**how)
    path = write_rtstruct(tmp_path / "rt.dcm", scan, {
        "GGO right": [(3, square(2, 8)), (3, square(4, 5))],  # a hole in it
        "Consolidation": [(3, square(7, 9)), (4, square(1, 1))], "Lung": [(3, square(0, 10))]})
    expected = np.zeros(scan.shape, np.uint8)
    expected[3, 2:9, 2:9] = GGO.code
    expected[3, 4:6, 4:6] = 0
    expected[3, 7:10, 7:10] = HIGH_OPACITY.code
    expected[4, 1, 1] = HIGH_OPACITY.code
    np.testing.assert_array_equal(read_rtstruct(path, scan).labels, expected)
    np.testing.assert_array_equal(read_mask(path, scan).labels, expected)


def test_a_slanted_contour_holds_the_centres_that_lie_in_it(made, tmp_path):
    scan, _ = made()
    corners = [(2.2, 1.3), (9.7, 3.1), (5.4, 10.2)]
    path = write_rtstruct(tmp_path / "rt.dcm", scan, {"ground glass": [(5, corners)]})
    (ax, ay), (bx, by), (cx, cy) = corners
    expected = np.zeros(scan.shape, np.uint8)
    for y in range(12):
        for x in range(16):
            sides = [(bx - ax) * (y - ay) - (by - ay) * (x - ax),
                     (cx - bx) * (y - by) - (cy - by) * (x - bx),
                     (ax - cx) * (y - cy) - (ay - cy) * (x - cx)]
            expected[5, y, x] = all(side > 0 for side in sides)
    np.testing.assert_array_equal(read_rtstruct(path, scan).labels, expected)


def test_an_rtstruct_that_does_not_fit_is_told(made, tmp_path):
    scan, _ = made()
    other = write_rtstruct(tmp_path / "a.dcm", scan, {"GGO": [(30, square(2, 4))]})
    with pytest.raises(ScanError, match="lies on no slice of the scan"):
        read_rtstruct(other, scan)
    unknown = write_rtstruct(tmp_path / "b.dcm", scan, {"Heart": [(3, square(2, 4))]})
    with pytest.raises(ScanError, match=r"unknown meaning \(1: Heart\)"):
        read_mask(unknown, scan)
    assert (read_rtstruct(unknown, scan, {1: 2}).labels == 2).sum() == 9
    plan = write_rtstruct(tmp_path / "c.dcm", scan, {}, modality="RTPLAN")
    with pytest.raises(ScanError, match="expected an RTSTRUCT or a DICOM Segmentation"):
        read_rtstruct(plan, scan)


def test_a_segmentation_serves_as_a_readers_mask(made, tmp_path):
    scan, mask = made()
    make_segmentation(scan, mask, series_datasets(scan), BY).save_as(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(read_mask(tmp_path / "seg.dcm", scan).labels, mask.labels)
