"""Files that mean harm, or that nobody could mean: refused in a line, and nothing hangs or dies."""

import gzip
import os
import re
import resource
import subprocess
import sys
import zlib

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from deeplung_nb.files import sha256_of
from deeplung_nb.imaging import integrity
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.io import read_mask, read_scan, write_mask, write_scan
from deeplung_nb.imaging.scan import LesionMask, Scan


@pytest.fixture
def scan():
    hu = np.random.default_rng(0).integers(-1000, 400, (6, 20, 24)).astype(np.int16)
    return Scan(hu, Grid.upright(hu.shape, (5.0, 0.8, 0.8)), "x")


HEADER = ("ObjectType = Image\nNDims = 3\nDimSize = 24 20 6\nElementType = MET_SHORT\n"
          "ElementSpacing = 0.8 0.8 5\n")


@pytest.mark.parametrize("named", [
    "%n.raw 1 46 1", "%s%s%s%s.raw", "%n.raw", "LIST", "list\na.raw", "slice%03d.raw 1 6 1",
    "/etc/passwd", "../../etc/passwd", "sub/a.raw", "..", ".", "", "a\\b.raw", "a.raw\x00b"])
@pytest.mark.parametrize("equals", [" = ", "=", " : ", ":"])
def test_a_metaimage_that_names_other_files_never_reaches_itk(tmp_path, monkeypatch, named, equals):
    """`%` is a format string to ITK, which ends the process."""
    monkeypatch.setattr(sitk, "ReadImage", lambda *a: pytest.fail("ITK saw it"))
    path = tmp_path / "ct.mhd"
    path.write_bytes(f"{HEADER}ElementDataFile{equals}{named}\n".encode())
    with pytest.raises(ScanError, match=r"ct\.mhd"):
        read_scan(path)


@pytest.mark.parametrize("named", ["%03d.raw 1 6 1", "LIST", "/dev/zero", "../up.raw", "sub/a.raw"])
def test_an_nrrd_that_names_other_files_never_reaches_itk(tmp_path, monkeypatch, named):
    monkeypatch.setattr(sitk, "ReadImage", lambda *a: pytest.fail("ITK saw it"))
    path = tmp_path / "ct.nhdr"
    path.write_text("NRRD0004\ntype: short\ndimension: 3\nsizes: 24 20 6\nencoding: raw\n"
                    f"endian: little\ndata file: {named}\n")
    with pytest.raises(ScanError, match=r"ct\.nhdr"):
        read_scan(path)


@pytest.mark.parametrize("text", ["", "\n", "no header at all\n", HEADER, "x" * 70000,
                                  "ElementDataFile\n= a.raw\n", "elementdatafile = a.raw\n"])
def test_what_is_no_metaimage_header_is_said_to_be_none(tmp_path, text):
    path = tmp_path / "ct.mhd"
    path.write_text(text)
    with pytest.raises(ScanError, match=r"no MetaImage header|names|DimSize"):
        read_scan(path)


def test_an_honest_detached_header_is_read_and_its_data_are_in_the_hash(tmp_path, scan):
    image = scan.grid.to_image(scan.hu)
    for suffix in (".mhd", ".nhdr"):
        path = tmp_path / f"ct{suffix}"
        sitk.WriteImage(image, str(path))
        np.testing.assert_array_equal(read_scan(path).hu, scan.hu)
    from deeplung_nb.reading.provenance import describe_source
    before = describe_source(read_scan(tmp_path / "ct.mhd"))
    raw = tmp_path / "ct.raw"
    content = bytearray(raw.read_bytes())
    content[100] ^= 1
    raw.write_bytes(content)
    after = describe_source(read_scan(tmp_path / "ct.mhd"))
    assert before["sha256"] != after["sha256"]
    assert "header and the file of its voxels" in after["sha256_is_of"]
    assert after["sha256"] != sha256_of(tmp_path / "ct.mhd")


@pytest.mark.parametrize("name", ["pipe.nii.gz", "pipe.mhd", "pipe.dcm", "pipe"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ScanError, match="is a pipe"):
        read_scan(tmp_path / name)


@pytest.mark.parametrize("link", ["zero.nii", "zero.nrrd", "zero.mha", "zero.dcm", "zero"])
def test_a_device_is_not_read_to_its_end(tmp_path, link):
    (tmp_path / link).symlink_to("/dev/zero")
    with pytest.raises(ScanError, match="is a device"):
        read_scan(tmp_path / link)


# NIfTI

def nifti(path, scan, sform=None, qform=None, codes=(1, 1), kind=nibabel.Nifti1Image):
    image = kind(np.ascontiguousarray(scan.hu.T), scan.affine)
    image.set_sform(scan.affine if sform is None else sform, code=codes[0])
    image.set_qform(scan.affine if qform is None else qform, code=codes[1])
    nibabel.save(image, path)
    return path


MIRRORS = {"left-right": np.diag([-1.0, 1, 1, 1]), "head-feet": np.diag([1.0, 1, -1, 1]),
           "front-back": np.diag([1.0, -1, 1, 1])}


@pytest.mark.parametrize("codes", [(2, 1), (1, 1), (1, 2), (4, 1)])
@pytest.mark.parametrize("mirror", MIRRORS)
def test_two_places_in_one_header_are_a_question_not_a_guess(tmp_path, scan, mirror, codes):
    other = scan.affine @ MIRRORS[mirror]
    path = nifti(tmp_path / "ct.nii.gz", scan, sform=other, codes=codes)
    with pytest.raises(ScanError, match="--geometry sform or --geometry qform") as caught:
        read_scan(path)
    assert len(set(re.findall(r"axes run to ([A-Z]{3})", str(caught.value)))) == 2
    for geometry, affine in (("sform", other), ("qform", scan.affine)):
        found = read_scan(path, geometry=geometry)
        truth = read_scan(nifti(tmp_path / "one.nii.gz", scan, sform=affine, qform=affine))
        np.testing.assert_array_equal(found.hu, truth.hu)
        np.testing.assert_allclose(found.affine, truth.affine, atol=1e-5)
        # What is drawn on it lies so in every viewer.
        mask = LesionMask.like(found, (found.hu > 0).astype(np.uint8))
        write_mask(mask, tmp_path / "mask.nii.gz")
        header = nibabel.load(tmp_path / "mask.nii.gz").header
        np.testing.assert_allclose(header.get_sform(), header.get_qform(), atol=1e-4)
        np.testing.assert_allclose(header.get_sform(), affine, atol=1e-4)
        assert header["sform_code"] > 0
        assert header["qform_code"] > 0
        again = read_mask(tmp_path / "mask.nii.gz", found)
        np.testing.assert_array_equal(again.labels, mask.labels)


def test_a_mask_with_the_scans_two_places_is_read_as_the_scan_was(tmp_path, scan):
    other = scan.affine @ MIRRORS["left-right"]
    path = nifti(tmp_path / "ct.nii.gz", scan, sform=other)
    labels = Scan((scan.hu > 0).astype(np.int16), scan.grid, "m")
    mask_path = nifti(tmp_path / "mask.nii.gz", labels, sform=other)
    found = read_scan(path, geometry="qform")
    np.testing.assert_array_equal(read_mask(mask_path, found).labels, found.hu > 0)


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (0, 0)])
def test_a_header_with_one_place_or_none(tmp_path, scan, codes):
    path = nifti(tmp_path / "ct.nii.gz", scan, codes=codes)
    found = read_scan(path)
    assert bool(found.notes) == (codes == (0, 0))
    with pytest.raises(ScanError, match=r"has no [sq]form"):
        read_scan(path, geometry="sform" if codes[0] == 0 else "qform")


def test_rounding_of_a_rotation_is_no_second_place(tmp_path, scan):
    angle = np.radians(3.7)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ scan.affine
    path = nifti(tmp_path / "ct.nii.gz", scan, sform=affine, qform=affine)
    assert read_scan(path).notes == ()


def test_nifti_2_and_gzip_under_another_name_are_read(tmp_path, scan):
    truth = read_scan(nifti(tmp_path / "one.nii.gz", scan))
    two = nifti(tmp_path / "two.nii.gz", scan, kind=nibabel.Nifti2Image)
    plain = nifti(tmp_path / "two.nii", scan, kind=nibabel.Nifti2Image)
    hidden = tmp_path / "hidden.nii"
    hidden.write_bytes((tmp_path / "one.nii.gz").read_bytes())
    bare = tmp_path / "bare.nii.gz"
    bare.write_bytes(gzip.decompress((tmp_path / "one.nii.gz").read_bytes()))
    for path in (two, plain, hidden, bare):
        found = read_scan(path)
        np.testing.assert_array_equal(found.hu, truth.hu)
        np.testing.assert_allclose(found.affine, truth.affine, atol=1e-5)
        assert found.orientation == truth.orientation


@pytest.mark.parametrize("offset", [np.inf, -np.inf, np.nan, 1e30])
def test_an_offset_that_is_no_place_in_the_file_is_one_line(tmp_path, scan, offset):
    path = nifti(tmp_path / "ct.nii", scan)
    content = bytearray(path.read_bytes())
    content[108:112] = np.float32(offset).tobytes()
    path.write_bytes(content)
    with pytest.raises(ScanError, match=r"ct\.nii"):
        read_scan(path)


# Too much

def test_a_bomb_stops_at_a_stated_size(tmp_path, scan, monkeypatch):
    monkeypatch.setattr(integrity, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(integrity, "MOST_BYTES_AFTER", 1 << 10)
    path = nifti(tmp_path / "after.nii.gz", scan)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(1 << 22)))
    with pytest.raises(ScanError, match="after its voxels"):
        read_scan(path)
    large = Scan(np.zeros((40, 200, 200), np.int16), Grid.upright((40, 200, 200), (1, 1, 1)), "l")
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        path = tmp_path / f"large{suffix}"
        sitk.WriteImage(large.grid.to_image(large.hu), str(path), True)
        with pytest.raises(ScanError, match="unpacks to"):
            read_scan(path)
    (tmp_path / "x.mhd").write_text(HEADER + "CompressedData = True\nElementDataFile = x.zraw\n")
    (tmp_path / "x.zraw").write_bytes(zlib.compress(bytes(1 << 22)))
    with pytest.raises(ScanError, match="unpacks to"):
        read_scan(tmp_path / "x.mhd")


def test_too_little_memory_is_said_as_that(tmp_path):
    scan = Scan(np.zeros((200, 512, 512), np.int16), Grid.upright((200, 512, 512), (1, 1, 1)), "l")
    scan.hu[::2] = -1000
    write_scan(scan, tmp_path / "large.nii.gz")
    code = ("import resource, sys; from deeplung_nb.imaging.io import read_scan\n"
            "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
            "resource.setrlimit(resource.RLIMIT_AS, (used + (60 << 20),) * 2)\n"
            "try:\n    read_scan(sys.argv[1])\nexcept MemoryError as e:\n    print('memory', e)\n"
            "except ValueError as e:\n    print('damaged?', e)")
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path / "large.nii.gz")],
                           capture_output=True, text=True)
    assert found.stdout.startswith("memory"), found
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".mhd"])
def test_names_that_are_no_utf_8_are_read_and_written(tmp_path, scan, suffix):
    name = os.fsdecode(b"M\xfcller ")
    folder = tmp_path / name
    folder.mkdir()
    sitk.WriteImage(scan.grid.to_image(scan.hu), str(tmp_path / f"plain{suffix}"))
    (tmp_path / f"plain{suffix}").rename(folder / f"{name}{suffix}")
    if suffix == ".mhd":
        (tmp_path / "plain.raw").rename(folder / "plain.raw")
    found = read_scan(folder / f"{name}{suffix}")
    np.testing.assert_array_equal(found.hu, scan.hu)
    if suffix != ".mhd":
        write_scan(found, folder / f"again{suffix}")
        np.testing.assert_array_equal(read_scan(folder / f"again{suffix}").hu, scan.hu)


@pytest.mark.parametrize("n_bytes", [0, 5, 100, 400])
def test_a_mask_that_was_cut_is_refused_in_words(tmp_path, scan, n_bytes):
    path = nifti(tmp_path / "mask.nii.gz", scan)
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(ScanError, match=r"mask\.nii\.gz"):
        read_mask(path, scan)


def test_a_damaged_file_in_a_folder_called_memory_is_damaged(tmp_path, scan):
    folder = tmp_path / "allocate memory"
    folder.mkdir()
    (folder / "ct.nrrd").write_bytes(b"NRRD0004\ntype: short\nencoding: raw\n\n" + bytes(99))
    with pytest.raises(ScanError, match="damaged"):
        read_scan(folder / "ct.nrrd")
