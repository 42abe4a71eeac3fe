"""Damaged files are refused before a reader smooths them over."""

import gzip

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.io import read_lung_mask, read_scan


def chest(dtype=np.int16):
    rng = np.random.default_rng(5)
    array = rng.integers(-900, -700, (30, 40, 36)).astype(dtype)
    array[4:20, 8:30, 6:28] += 800
    return array


def write(path, array=None, packed=False):
    image = sitk.GetImageFromArray(chest() if array is None else array)
    image.SetSpacing((0.8, 0.8, 5.0))
    sitk.WriteImage(image, str(path), packed)
    return path


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(("suffix", "packed"), [
    (".nii.gz", True), (".nii", False), (".nrrd", True), (".nrrd", False), (".mha", True),
    (".mha", False)])
def test_a_truncated_file_is_refused(tmp_path, suffix, packed, share):
    path = write(tmp_path / f"cut{suffix}", packed=packed)
    whole = path.read_bytes()
    path.write_bytes(whole[:int(share * len(whole))])
    with pytest.raises(ScanError, match="cut"):
        read_scan(path)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("share", [0.6, 0.8, 0.95])
def test_one_flipped_byte_in_packed_voxels_is_noticed(tmp_path, suffix, share):
    path = write(tmp_path / f"flip{suffix}", packed=True)
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(ScanError, match="damaged"):
        read_scan(path)


def test_a_wrong_checksum_alone_is_noticed(tmp_path):
    """The voxels are whole and right, as far as any reader of voxels can tell."""
    path = write(tmp_path / "crc.nii.gz", packed=True)
    content = bytearray(path.read_bytes())
    content[-6] ^= 0x01
    path.write_bytes(content)
    with pytest.raises(ScanError, match="CRC"):
        read_scan(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_found_before_itk_hides_them(tmp_path, value):
    array = chest(np.float32)
    array[3, 4, 5] = value
    path = tmp_path / "nan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(array.T, np.diag([-0.8, -0.8, 5, 1])), path)
    with pytest.raises(ScanError, match="1 voxels that are NaN or infinite"):
        read_scan(path)


def changed_header(path, **fields):
    """A NIfTI file with other header fields, by name."""
    image = nibabel.Nifti1Image(chest().T, np.diag([-0.8, -0.8, 5, 1]))
    nibabel.save(image, path)
    content = bytearray(path.read_bytes())
    header = nibabel.Nifti1Header.from_fileobj(open(path, "rb"), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("fields", "message"), [
    ({"pixdim": [1, 0, 0.8, 5, 1, 1, 1, 1]}, "expected three lengths above 0"),
    ({"pixdim": [1, np.nan, 0.8, 5, 1, 1, 1, 1]}, "expected three lengths above 0"),
    ({"pixdim": [1, 0.8, 0.8, 2.5, 1, 1, 1, 1]}, "two sizes of a voxel"),
    ({"scl_slope": 0, "scl_inter": 500}, "scl_slope 0 with scl_inter 500"),
    ({"dim": [3, 36, 40, 3000, 1, 1, 1, 1]}, "bytes of voxels, expected"),
    ({"datatype": 1234}, "no NIfTI header that can be understood"),
])
def test_headers_that_contradict_themselves_are_refused(tmp_path, fields, message):
    path = changed_header(tmp_path / "odd.nii", **fields)
    with pytest.raises(ScanError, match=message):
        read_scan(path)


def test_whole_files_pass_also_unpacked_ones_with_a_packed_suffix(tmp_path):
    for suffix, packed in ((".nii", False), (".nii.gz", True), (".nrrd", True), (".mha", True),
                           (".mhd", False), (".nhdr", False)):
        np.testing.assert_array_equal(
            read_scan(write(tmp_path / f"ok{suffix}", packed=packed)).hu, chest())
    plain = write(tmp_path / "plain.nii").read_bytes()
    (tmp_path / "named.nii.gz").write_bytes(plain)
    np.testing.assert_array_equal(read_scan(tmp_path / "named.nii.gz").hu, chest())
    (tmp_path / "two.nii.gz").write_bytes(gzip.compress(plain[:500]) + gzip.compress(plain[500:]))
    np.testing.assert_array_equal(read_scan(tmp_path / "two.nii.gz").hu, chest())


def test_a_scan_is_no_mask_of_itself(tmp_path):
    scan = read_scan(write(tmp_path / "ct.nii.gz", packed=True))
    (tmp_path / "link.nii.gz").symlink_to(tmp_path / "ct.nii.gz")
    for name in ("ct.nii.gz", "link.nii.gz"):
        with pytest.raises(ScanError, match="is the scan itself"):
            read_lung_mask(tmp_path / name, scan)
