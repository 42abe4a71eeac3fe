"""Reading and writing: orientation from the affine only, and refusals with a remedy."""

import re
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk

from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.io import read_lung_mask, read_mask, read_scan, write_mask, write_scan
from deeplung_nb.imaging.scan import LesionMask, Scan, fill_to_air


def make_image(size=(20, 24, 6), spacing=(0.8, 0.8, 5.0)):
    """A lopsided chest: one dense block, so that any flip shows."""
    array = np.full(size[::-1], -850, np.int16)
    array[1:3, 4:9, 2:8] = 40
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin((-30.0, 12.0, 100.0))
    return image


def write(image, path):
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"])
def test_formats_give_the_same_scan(tmp_path, suffix):
    scan = read_scan(write(make_image(), tmp_path / f"case7{suffix}"))
    assert scan.case_id == "case7"
    assert scan.shape == (6, 24, 20)
    np.testing.assert_allclose(scan.spacing_mm, (5.0, 0.8, 0.8), rtol=1e-6)
    assert scan.voxel_mm3 == pytest.approx(3.2)
    np.testing.assert_array_equal(scan.hu, sitk.GetArrayFromImage(make_image()))
    assert "6x24x20" in repr(scan)


@pytest.mark.parametrize("code", ["LPS", "RAS", "LPI", "RAI", "PSL", "SRA"])
def test_the_same_patient_in_any_voxel_order_is_the_same_scan(tmp_path, code):
    """Invariant 1: array, geometry and volumes do not depend on how a file stores its voxels."""
    image = make_image()
    plain = read_scan(write(image, tmp_path / "plain.nii.gz"))
    turned = read_scan(write(sitk.DICOMOrient(image, code), tmp_path / "turned.nii.gz"))
    assert turned.orientation == code
    np.testing.assert_array_equal(turned.hu, plain.hu)
    np.testing.assert_allclose(turned.affine, plain.affine, atol=1e-4)
    assert (turned.hu > 0).sum() * turned.voxel_mm3 == pytest.approx(
        (plain.hu > 0).sum() * plain.voxel_mm3)


@pytest.mark.parametrize("code", ["LPS", "RAS", "LPI"])
def test_masks_go_back_to_the_grid_of_the_file(tmp_path, code):
    source = sitk.DICOMOrient(make_image(), code)
    scan = read_scan(write(source, tmp_path / "scan.nii.gz"))
    mask = LesionMask.like(scan, (scan.hu > 0).astype(np.uint8))
    assert mask.affine is scan.affine
    write_mask(mask, tmp_path / "mask.nii.gz")
    back = sitk.ReadImage(str(tmp_path / "mask.nii.gz"))
    assert back.GetSize() == source.GetSize()
    np.testing.assert_allclose(back.GetOrigin(), source.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(back.GetDirection(), source.GetDirection(), atol=1e-6)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back) == 1,
                                  sitk.GetArrayFromImage(source) > 0)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii.gz", scan).labels, mask.labels)


def test_the_affine_points_where_itk_points(tmp_path):
    scan = read_scan(write(make_image(), tmp_path / "s.nii.gz"))
    image = make_image()
    for index in ((0, 0, 0), (3, 7, 2)):
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        np.testing.assert_allclose((scan.affine @ [*index, 1])[:3], lps * [-1, -1, 1], atol=1e-4)


def test_oblique_scans_keep_their_direction(tmp_path):
    image = make_image()
    angle = np.deg2rad(8)
    image.SetDirection((1, 0, 0, 0, np.cos(angle), -np.sin(angle), 0, np.sin(angle),
                        np.cos(angle)))
    scan = read_scan(write(image, tmp_path / "s.nrrd"))
    np.testing.assert_allclose(scan.grid.to_image(scan.hu).GetDirection(),
                               image.GetDirection(), atol=1e-6)
    assert scan.voxel_mm3 == pytest.approx(3.2)


def test_one_slice_is_a_scan_and_a_lone_fourth_axis_is_dropped(tmp_path):
    one = make_image()[:, :, 1:2]
    assert read_scan(write(one, tmp_path / "one.nii.gz")).n_slices == 1
    four = sitk.JoinSeries([make_image()])
    assert read_scan(write(four, tmp_path / "four.nii.gz")).shape == (6, 24, 20)


def test_padding_outside_the_field_of_view_becomes_air(tmp_path):
    image = make_image()
    image[0, 0, 0] = -3024
    assert read_scan(write(image, tmp_path / "s.nii.gz")).hu.min() == -1024


def filled(value, dtype=np.int16):
    image = sitk.GetImageFromArray(np.full((4, 8, 8), value, dtype))
    return image


def with_nan():
    array = np.full((4, 8, 8), -800, np.float32)
    array[1, 2, 3] = np.nan
    return sitk.GetImageFromArray(array)


def picture():
    rng = np.random.default_rng(0)
    return sitk.GetImageFromArray(rng.integers(0, 256, (4, 8, 8)).astype(np.int16))


def airless():
    return sitk.GetImageFromArray(np.arange(256, dtype=np.int16).reshape(4, 8, 8) * 3 - 100)


@pytest.mark.parametrize(("image", "message"), [
    (filled(0), "0 everywhere"), (with_nan(), "1 voxels that are NaN"),
    (picture(), "8-bit picture"), (airless(), "never below -500 HU"),
    (sitk.JoinSeries([make_image(), make_image()]), "4 dimensions"),
    (make_image()[:, :, 0], "2 dimensions"),
    (sitk.Compose([sitk.Cast(make_image(), sitk.sitkFloat32)] * 3), "3 values a voxel"),
], ids=["zeros", "nan", "8-bit", "no air", "4-D", "2-D", "colour"])
def test_what_is_no_ct_is_refused(tmp_path, image, message):
    path = write(image, tmp_path / "X017.nrrd")
    with pytest.raises(ScanError, match=message) as caught:
        read_scan(path)
    assert "X017" in str(caught.value)


def test_missing_corrupt_and_unknown_files_are_named(tmp_path):
    with pytest.raises(ScanError, match=r"absent\.nii\.gz is missing"):
        read_scan(tmp_path / "absent.nii.gz")
    whole = write(make_image(), tmp_path / "s.nii.gz").read_bytes()
    for name, content in (("cut.nii.gz", whole[: len(whole) // 2]), ("text.nii", b"no image")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ScanError, match=name):
            read_scan(tmp_path / name)


def test_masks_that_do_not_fit_are_refused(tmp_path):
    scan = read_scan(write(make_image(), tmp_path / "s.nii.gz"))
    labels = sitk.Cast(make_image() > 0, sitk.sitkUInt8)

    def changed(name, change):
        image = sitk.Image(labels)
        image = change(image) or image
        return write(image, tmp_path / name)

    cases = {
        "shape.nii.gz": (lambda i: i[:, :, 1:], "expected the scan's"),
        "moved.nii.gz": (lambda i: i.SetOrigin((-30, 12, 105)), "5 mm from the scan's grid"),
        "flipped.nii.gz": (lambda i: i.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, -1)), "grid"),
        "codes.nii.gz": (lambda i: i * 7, r"label codes 7 \(60 voxels\)"),
        "shares.nii.gz": (lambda i: sitk.Cast(i, sitk.sitkFloat32) * 0.5, "whole numbers"),
    }
    for name, (change, message) in cases.items():
        with pytest.raises(ScanError, match=message):
            read_mask(changed(name, change), scan)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mask_may_lie_a_tenth_of_a_voxel_off_and_no_more(tmp_path, axis):
    """A tenth of the smallest side, for headers that round; the mask is the scan's all the same."""
    image = make_image()
    scan = read_scan(write(image, tmp_path / "s.nii.gz"))
    labels = sitk.Cast(image > 0, sitk.sitkUInt8)
    for share, fits in ((0.09, True), (0.11, False), (0.5, False)):
        origin = list(image.GetOrigin())
        origin[axis] += share * min(image.GetSpacing())
        labels.SetOrigin(origin)
        path = write(labels, tmp_path / f"{share}.nii.gz")
        if fits:
            assert read_mask(path, scan).affine is scan.affine
        else:
            with pytest.raises(ScanError, match="from the scan's grid"):
                read_mask(path, scan)


def test_codes_of_a_file_are_translated(tmp_path):
    scan = read_scan(write(make_image(), tmp_path / "s.nii.gz"))
    path = write(sitk.Cast(make_image() > 0, sitk.sitkUInt8) * 3, tmp_path / "m.nii.gz")
    assert (read_mask(path, scan, {1: 1, 2: 2, 3: 2}).labels == 2).sum() == 60
    assert read_lung_mask(path, scan).sum() == 60


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    scan = read_scan(write(make_image(), tmp_path / "s.nii.gz"))

    def full(*_args, **_kwargs):
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(sitk, "WriteImage", full)
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(OSError, match="disk full"):
        write_scan(scan, folder / "s.nii.gz")
    assert list(folder.iterdir()) == []


def test_real_cases_keep_their_published_counts(shared_data):
    folder = shared_data("medseg2")
    scan = read_scan(folder / "rp_im" / "2.nii.gz")
    mask = read_mask(folder / "rp_msk" / "2.nii.gz", scan)
    assert [(mask.labels == code).sum() for code in (1, 2)] == [14_512, 30_534]
    np.testing.assert_allclose(scan.spacing_mm, (6, 0.6836, 0.6836), atol=1e-3)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_a_file_cut_by_a_full_disk_is_no_success(tmp_path, suffix):
    """ITK says nothing of a short write of a NIfTI file: the limit stands in for the disk's end."""
    code = ("import sys, numpy as np; from pathlib import Path\n"
            "from deeplung_nb.imaging.grid import Grid; from deeplung_nb.imaging.io import *\n"
            "hu = np.random.default_rng(0).integers(-1000, 400, (9, 99, 99)).astype('int16')\n"
            "scan = Scan(hu, Grid.upright(hu.shape, (5, 1, 1)), 'x')\n"
            "try:\n    write_scan(scan, sys.argv[1])\n"
            "except OSError as error:\n    print(error)\nelse:\n    print('success')")
    path = tmp_path / f"mask{suffix}"
    for limit, words in ((16, "disk full|too large|read back"), (4096, "success")):
        found = subprocess.run(
            ["bash", "-c", f'ulimit -f {limit}; exec "$0" -c "$1" "$2"', sys.executable, code,
             str(path)], capture_output=True, text=True)
        assert re.search(words, found.stdout, re.IGNORECASE), found
        assert path.exists() == (words == "success")


@pytest.mark.parametrize("fill", [0, -1024])
def test_what_lies_outside_the_reconstruction_circle_is_air(tmp_path, fill):
    y, x = np.mgrid[:128, :128] - 63.5
    hu = np.full((4, 128, 128), -1000, np.int16)
    hu[:, (y / 38) ** 2 + (x / 50) ** 2 < 1] = 0  # tissue of exactly this value, within
    hu[:, (y / 20) ** 2 + (x / 30) ** 2 < 1] = -850
    outside = y**2 + x**2 > 64**2
    hu[:, outside] = fill
    grid = Grid.upright(hu.shape, (5.0, 3.0, 3.0))
    write_scan(Scan(hu, grid, "circle"), tmp_path / "circle.nii.gz")
    scan = read_scan(tmp_path / "circle.nii.gz")
    assert (scan.hu[:, outside] == -1024).all()
    assert (scan.hu[:, ~outside] == hu[:, ~outside]).all()
    assert any("reconstruction circle" in note for note in scan.notes) == (fill == 0)


def test_tissue_of_zero_hu_that_reaches_no_edge_stays():
    hu = np.full((2, 50, 50), -1000, np.int16)
    hu[:, 5:45, 5:45] = 0
    assert not fill_to_air(hu)
    assert (hu[:, 5:45, 5:45] == 0).all()
