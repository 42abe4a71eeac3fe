"""Folders as PACS, CDs and Macs leave them: read whole, or refused with the missing file."""

import gzip
import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pydicom
import pytest
from pydicom.uid import SecondaryCaptureImageStorage

from deeplung_nb.imaging import folder as room
from deeplung_nb.imaging.dicom import list_series, read_series
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.io import read_scan
from tests.test_dicom import make_series, write_slice


@pytest.fixture
def chest(shared_data, tmp_path):
    """A real series of 64 slices, as links: a slice is replaced, never written to."""
    folder = tmp_path / "chest"
    folder.mkdir()
    for path in sorted(shared_data("dicom/lung_pet_ct_dx_a0001").glob("*")):
        (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture
def toy(tmp_path):
    return make_series(tmp_path / "toy", tuple(range(0, 60, 5)))


def changed(path, **tags):
    """A slice with other tags, in place of the link to it; None takes a tag away."""
    dataset = pydicom.dcmread(path)
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    path.unlink()
    dataset.save_as(path)
    return dataset


def by_height(folder):
    return sorted(folder.iterdir(), key=lambda path: float(
        pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient[2]))


def left_out(scan):
    return dict(scan.left_out)


# What may lie beside the slices

def test_what_macs_and_cds_leave_is_passed_over_and_named(toy):
    truth = read_series(toy)
    (toy / "._3.dcm").write_bytes(b"\0\5\26\7" + bytes(4000))
    (toy / ".DS_Store").write_bytes(bytes(100))
    (toy / "Thumbs.db").write_bytes(b"")
    (toy / "DICOMDIR").write_bytes(b"not needed")
    (toy / "viewer").mkdir()
    (toy / "viewer" / "start.exe").write_bytes(b"MZ\0\1" * 200)
    (toy / "viewer" / "help.html").write_text("<html>")
    (toy / "report.pdf").write_bytes(b"%PDF-1.4\0")
    scan = read_series(toy)
    np.testing.assert_array_equal(scan.hu, truth.hu)
    assert set(left_out(scan)) == {"._3.dcm", ".DS_Store", "Thumbs.db", "DICOMDIR",
                                   "viewer/start.exe", "viewer/help.html", "report.pdf"}
    assert "Mac" in left_out(scan)["._3.dcm"]
    assert scan.notes == ()


@pytest.mark.parametrize("uid", ["1.3.12.2.1107.5.9.1", "1.2.840.10008.5.1.4.1.1.88.67",
                                 "1.2.840.10008.5.1.4.1.1.11.1"],
                         ids=["Siemens CSA", "dose report", "presentation state"])
@pytest.mark.parametrize("series", ["1.2.3", "7.7"])
def test_objects_that_are_no_image_are_left_out_and_named(toy, uid, series):
    write_slice(toy / "odd.dcm", 0, series=series, PixelData=None, SOPClassUID=uid)
    scan = read_series(toy)
    assert scan.n_slices == 12
    assert "no image" in left_out(scan)["odd.dcm"]


@pytest.mark.parametrize("change", [
    {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"],
     "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
    {"SOPClassUID": SecondaryCaptureImageStorage, "ImagePositionPatient": None,
     "ImageOrientationPatient": None, "Modality": "CT"},
    {"ImageType": ["DERIVED", "SECONDARY", "DOSE_INFO"], "ImageOrientationPatient": None,
     "ImagePositionPatient": None},
    {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
], ids=["localizer", "screenshot", "dose page", "scout without the name"])
def test_pictures_that_are_no_slices_are_split_off_where_the_rest_fits(toy, change):
    write_slice(toy / "extra.dcm", 2.5, **change)
    scan = read_series(toy)
    assert scan.n_slices == 12
    assert any("left out 1 image" in note for note in scan.notes)


def test_a_slice_that_is_only_called_a_scout_is_no_scout(toy):
    write_slice(toy / "next.dcm", 60.0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    with pytest.raises(ScanError, match=r"next\.dcm is a localizer"):
        read_series(toy)


def test_a_series_of_scouts_beside_the_slices_needs_no_choice(toy):
    write_slice(toy / "scout.dcm", 0, series="4.4", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    scan = read_series(toy)
    assert scan.n_slices == 12
    assert "another series" in left_out(scan)["scout.dcm"]


def test_the_same_slice_twice_is_read_once_and_another_at_its_place_is_an_error(toy):
    shutil.copy(toy / "3.dcm", toy / "copy of 3.dcm")
    scan = read_series(toy)
    assert scan.n_slices == 12
    assert any("twice with the same pixels" in note for note in scan.notes)
    write_slice(toy / "other.dcm", 5.0, value=77)
    with pytest.raises(ScanError, match="same position"):
        read_series(toy)
    forced = read_series(toy, force=True)
    assert forced.n_slices == 12
    assert any("forced" in note and "1 left out" in note for note in forced.notes)


def test_a_slice_that_lost_its_place_is_no_page(toy):
    """At the end of the series no gap would show."""
    changed(by_height(toy)[-1], ImagePositionPatient=None, ImageOrientationPatient=None)
    with pytest.raises(ScanError, match="has no ImagePositionPatient"):
        read_series(toy)


def test_the_folder_of_a_dicomdir_is_what_is_hashed(toy):
    (toy / "DICOMDIR").write_bytes(b"index")
    assert read_scan(toy / "DICOMDIR").source == str(toy)


# How the slices lie

def test_positions_that_were_rounded_are_even(tmp_path):
    thin = [round(0.625 * k, 2) for k in range(60)]
    rng = np.random.default_rng(0)
    wavy = [5.0 * k + float(rng.uniform(-0.06, 0.06)) for k in range(40)]
    tenths = [round(0.7 * 1.04 * k, 1) for k in range(60)]
    for name, positions, gap in (("thin", thin, 0.625), ("wavy", wavy, 5.0),
                                 ("tenths", tenths, 0.728)):
        scan = read_series(make_series(tmp_path / name, tuple(positions)))
        assert scan.spacing_mm[0] == pytest.approx(gap, rel=0.003)


@pytest.mark.parametrize("at", [1, 20, 38])
@pytest.mark.parametrize("gap", [0.625, 1.0, 5.0])
def test_a_missing_slice_is_found_wherever_it_is_and_forced_it_is_made_up(tmp_path, gap, at):
    positions = [round(gap * k, 2) for k in range(40) if k != at]
    folder = make_series(tmp_path / "gap", tuple(positions))
    with pytest.raises(ScanError, match="slice gap varies") as caught:
        read_series(folder)
    assert "--force" in str(caught.value)
    scan = read_series(folder, force=True)
    assert scan.n_slices == 40
    assert scan.spacing_mm[0] == pytest.approx(gap, rel=0.01)
    assert "1 of 40 slices are made up" in scan.notes[0]
    # The pixel that counts slices: between its neighbours.
    assert scan.hu[at, 0, 0] == pytest.approx(at - 0.5, abs=0.51)


def test_what_is_too_far_apart_stays_an_error(tmp_path):
    folder = make_series(tmp_path / "far", (0, 5, 10, 15, 45, 50))
    with pytest.raises(ScanError, match="too far to interpolate"):
        read_series(folder, force=True)


def test_a_tilted_gantry_is_set_upright_when_forced(tmp_path):
    """A rod that runs from foot to head is straight afterwards."""
    folder, angle = tmp_path / "tilted", np.radians(20)
    folder.mkdir()
    down = [0.0, np.cos(angle), -np.sin(angle)]
    normal = np.cross([1, 0, 0], down)
    for k in range(8):
        first = np.array([-4.0, -10.0, 4.0 * k])
        row = 10.0 / np.cos(angle) / 0.5  # a rod along the table, at x = y = 0
        pixels = np.full((60, 16), 100, np.uint16)
        pixels[round(row), 8] = 2024
        write_slice(folder / f"{k}.dcm", 0.0, ImagePositionPatient=first.tolist(),
                    ImageOrientationPatient=[1, 0, 0, *np.round(down, 8)], PixelSpacing=[0.5, 0.5],
                    Rows=60, Columns=16, PixelData=pixels.tobytes())
    with pytest.raises(ScanError, match="tilted by 20"):
        read_series(folder)
    scan = read_series(folder, force=True)
    assert "tilted by 20" in scan.notes[0]
    assert scan.spacing_mm[0] == pytest.approx(4.0 * abs(normal[2]), rel=1e-3)
    assert np.linalg.det(scan.affine[:3, :3]) == pytest.approx(
        np.prod(scan.spacing_mm) * np.sign(np.linalg.det(scan.affine[:3, :3])), rel=1e-4)
    moved = scan.hu.max(axis=2).argmax(axis=1)
    assert np.ptp(moved) <= np.ceil(7 * 4.0 * np.sin(angle) / 0.5)
    back = scan.affine @ np.column_stack([np.full(8, 8), moved, np.arange(8), np.ones(8)]).T
    # The rod stays where it is in the patient: at x = y = 0.
    assert np.abs(back[:2]).max() < 0.6


def test_the_tilted_head_of_the_development_data_can_be_forced(shared_data):
    scan = read_series(shared_data("dicom/gantry_tilt_ge"), force=True)
    assert [note.split(":")[0] for note in scan.notes] == ["forced"] * len(scan.notes)
    assert "tilted by 18.5" in scan.notes[0]
    affine = scan.affine[:3, :3] / np.linalg.norm(scan.affine[:3, :3], axis=0)
    np.testing.assert_allclose(affine.T @ affine, np.eye(3), atol=1e-3)


# What the values mean

def test_a_slice_without_rescale_tags_is_named(chest):
    odd = by_height(chest)[30]
    changed(odd, RescaleSlope=None, RescaleIntercept=None)
    with pytest.raises(ScanError, match=rf"{odd.name} has no RescaleSlope") as caught:
        read_series(chest)
    assert "1 of 64" in str(caught.value)


def test_a_slice_with_another_intercept_is_named_unless_its_values_fit(chest):
    odd = by_height(chest)[30]
    dataset = changed(odd, RescaleIntercept=0)
    with pytest.raises(ScanError, match=f"{odd.name} has RescaleSlope and RescaleIntercept"):
        read_series(chest)
    pixels = dataset.pixel_array + 24
    dataset.RescaleIntercept, dataset.PixelData = -1048, pixels.tobytes()
    dataset.save_as(odd)
    assert read_series(chest).n_slices == 64


@pytest.mark.parametrize(("value", "pixel"), [(63536, 63536), (-2000, 63536), (0, 0)])
def test_padding_is_air(tmp_path, value, pixel):
    """63536 is -2000 in sixteen bits; 0 in the body is water, at the border it is nothing."""
    folder = tmp_path / "padded"
    folder.mkdir()
    for k in range(4):
        pixels = np.full((8, 8), 1060, np.uint16)
        pixels[0], pixels[:, 0], pixels[4, 4] = pixel, pixel, pixel
        pixels[7, 7] = 200
        intercept = 0 if value == 0 else -1024
        stored = pixels if intercept else np.where(pixels == 200, 64712, pixels).astype(np.uint16)
        write_slice(folder / f"{k}.dcm", 5.0 * k, PixelData=stored.tobytes(),
                    PixelRepresentation=0 if intercept else 1, RescaleIntercept=intercept)
        dataset = pydicom.dcmread(folder / f"{k}.dcm")
        dataset.add_new(0x00280120, "SS" if value < 0 or not intercept else "US", value)
        dataset.save_as(folder / f"{k}.dcm")
    hu = read_series(folder).hu
    assert (hu[:, 0] == -1024).all()
    assert (hu[:, 1:, 0] == -1024).all()
    assert (hu[:, 4, 4] == (0 if value == 0 else -1024)).all()


# Other packings

def test_packed_slices_a_zip_and_a_dicomdir_are_read(toy, tmp_path):
    truth = read_series(toy)
    packed = tmp_path / "packed"
    packed.mkdir()
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as into:
        for path in toy.iterdir():
            (packed / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            into.write(path, f"../../{path.name}")  # leads nowhere: nothing is unpacked to disk
        into.writestr("readme.txt", "text")
    (toy / "DICOMDIR").write_bytes(b"index")
    for source in (packed, tmp_path / "all.zip", toy / "DICOMDIR"):
        np.testing.assert_array_equal(read_scan(source).hu, truth.hu)
    assert not (tmp_path.parent / "0.dcm").exists()


def test_a_zip_that_unpacks_to_too_much_or_is_damaged_is_refused(toy, tmp_path, monkeypatch):
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as into:
        for file in toy.iterdir():
            into.write(file, file.name)
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + bytes(40) + whole[240:])
    with pytest.raises(ScanError, match=r"damaged|can't be read"):
        read_scan(path)
    path.write_bytes(whole)
    monkeypatch.setattr(room, "MOST_UNPACKED_BYTES", 1000)
    with pytest.raises(ScanError, match="unpacks to"):
        read_scan(path)


def test_a_folder_with_one_image_is_that_image(tmp_path, chest_file):
    (tmp_path / "one").mkdir()
    shutil.copy(chest_file, tmp_path / "one" / "ct.nii.gz")
    (tmp_path / "one" / "._ct.nii.gz").write_bytes(b"\0\5")
    assert read_scan(tmp_path / "one").n_slices == read_scan(chest_file).n_slices
    shutil.copy(chest_file, tmp_path / "one" / "mask.nii.gz")
    with pytest.raises(ScanError, match=r"2 images \(ct\.nii\.gz, mask\.nii\.gz\)"):
        read_scan(tmp_path / "one")


def test_files_without_preamble_or_modality_are_read(toy):
    truth = read_series(toy)
    for path in list(toy.iterdir()):
        dataset = pydicom.dcmread(path)
        del dataset.Modality
        dataset.save_as(path)
        content = path.read_bytes()
        path.unlink()
        (toy / path.stem).write_bytes(content[content.index(b"\x08\x00\x08\x00CS"):])
    np.testing.assert_array_equal(read_series(toy).hu, truth.hu)


def test_another_modality_is_the_reason_that_is_given(toy):
    for path in toy.iterdir():
        changed(path, Modality=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    with pytest.raises(ScanError, match="modality unknown, expected CT"):
        read_series(toy)


# Slices that are not there

@pytest.mark.parametrize("spoil", [
    lambda path: path.write_bytes(b""), lambda path: path.write_bytes(bytes(9000)),
    lambda path: path.symlink_to("nowhere"), lambda path: path.write_bytes(b"\x89\0\1\2" * 99)],
    ids=["empty", "zeros", "dangling link", "garbage"])
@pytest.mark.parametrize("suffix", [".dcm", "", ".IMA"])
def test_what_may_have_been_a_slice_is_an_error_that_names_it(toy, spoil, suffix):
    for path in list(toy.iterdir()):
        path.rename(toy / f"IM{int(path.stem):04d}{suffix}")
    for k in (0, 11):
        (toy / f"IM{k:04d}{suffix}").unlink()
        spoil(toy / f"IM{k:04d}{suffix}")
    with pytest.raises(ScanError, match=r"may be slices|without its pixels") as caught:
        read_series(toy)
    assert f"IM0000{suffix}" in str(caught.value)
    assert "2 file" in str(caught.value) or "truncated" in str(caught.value)


@pytest.mark.parametrize("suffix", ["", ".dat"])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>" * 20], ids=["empty", "text"])
def test_a_text_under_a_slices_name_was_a_slice(toy, suffix, content):
    for path in list(toy.iterdir()):
        path.rename(toy / f"IM{int(path.stem):04d}{suffix}")
    (toy / f"IM0012{suffix}").write_bytes(content)
    (toy / "notes").write_text("seen by nobody")
    with pytest.raises(ScanError, match="1 file") as caught:
        read_series(toy)
    assert f"IM0012{suffix}" in str(caught.value)
    (toy / f"IM0012{suffix}").unlink()
    assert left_out(read_series(toy))["notes"] == "no DICOM"


def test_a_hole_in_the_numbers_makes_any_unreadable_file_a_suspect(toy):
    for path in by_height(toy):
        dataset = pydicom.dcmread(path)
        dataset.InstanceNumber = int(float(dataset.ImagePositionPatient[2]) / 5) + 1
        dataset.save_as(path)
    last = by_height(toy)[-1]
    (toy / "lost.bin").write_bytes(bytes(500))
    assert left_out(read_series(toy))["lost.bin"] == "filled with zeros"
    changed(last, InstanceNumber=13)  # 1 to 11, and 13
    with pytest.raises(ScanError, match=r"lost\.bin"):
        read_series(toy)


def test_a_folder_that_cannot_be_opened_is_an_error(toy, monkeypatch):
    (toy / "more").mkdir()
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("more"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)
    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(ScanError, match="can't be opened"):
        read_series(toy)


def test_a_pipe_in_the_folder_is_not_waited_for(toy):
    os.mkfifo(toy / "pipe")
    assert left_out(read_series(toy))["pipe"] == "a pipe or a device"


# The list of series

def test_the_list_reads_headers_only_and_tells_series_apart(tmp_path):
    folder = tmp_path / "two"
    folder.mkdir()
    for number, kernel, uid in ((5, "B60f", "9.1"), (4, "B30f", "9.2")):
        for k in range(6):
            write_slice(folder / f"{number}-{k}.dcm", 5.0 * k, series=uid, SeriesNumber=number,
                        ConvolutionKernel=kernel, SeriesDescription="Thorax")
    lines = list_series(folder)
    assert lines[0].startswith("1: 6 images, Thorax, 5 mm, kernel B30f, CT, scanner's series 4")
    assert "kernel B60f" in lines[1]
    with pytest.raises(ScanError, match="2 series"):
        read_series(folder)


def test_the_list_needs_no_room_for_pixels(shared_data, tmp_path):
    """Ten links to a series of 33 MB."""
    folder = tmp_path / "large"
    folder.mkdir()
    for k in range(10):
        for path in sorted(shared_data("dicom/lung_pet_ct_dx_a0001").glob("*")):
            (folder / f"{k}-{path.name}").symlink_to(path)
    code = ("import sys; from deeplung_nb.imaging.dicom import list_series\n"
            "from deeplung_nb.runs import peak_memory_gb\n"
            "before = peak_memory_gb(); line = list_series(sys.argv[1])[0]\n"
            "print(line[:13], peak_memory_gb() - before)")
    said = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True,
                          check=True).stdout.split()
    assert said[:3] == ["1:", "640", "images"]
    assert float(said[3]) < 0.05
