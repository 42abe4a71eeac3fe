"""What is no chest CT, or lies about its geometry, is found; real chests are not."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.io import read_scan
from deeplung_nb.imaging.lungs import LungError, LungMask, segment_lungs
from deeplung_nb.imaging.phantom.make import make_phantom
from deeplung_nb.imaging.phantom.spec import read_specs
from deeplung_nb.imaging.plausibility import ImplausibleScan, examine, require_plausible
from deeplung_nb.imaging.scan import Scan
from deeplung_nb.runs.registry import manifest_folder

MEDSEG2 = ("1", "2", "3", "5", "6", "8")


def lungs_of(scan):
    try:
        return segment_lungs(scan)
    except LungError:
        return None


def findings(scan):
    return examine(scan, lungs_of(scan))


def flipped(scan, *axes):
    """The same file with its voxels in another order, and the affine that it had."""
    return replace(scan, hu=np.ascontiguousarray(np.flip(scan.hu, axes)))


def stretched(scan, z=1.0, y=1.0, x=1.0):
    return replace(scan, grid=Grid(scan.shape, scan.affine @ np.diag([x, y, z, 1.0])))


def part_of(scan, part):
    """Some of its slices, as if the first of them lay where the scan's first lies."""
    hu = scan.hu[part]
    return replace(scan, hu=hu, grid=Grid(hu.shape, scan.affine))


def posing_as_axial(scan, order):
    """Every third coronal or sagittal slice, under an affine that calls them axial."""
    fine = ndimage.zoom(scan.hu, np.divide(scan.spacing_mm, 2.0), order=1)[::-1]
    hu = np.ascontiguousarray(fine.transpose(order)[::3])
    return Scan(hu, Grid.upright(hu.shape, (6.0, 2.0, 2.0)), "posing")


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(read_specs(manifest_folder() / "phantom.csv")[1]).scan


@pytest.fixture(scope="module", params=["phantom", *MEDSEG2, "pet_ct_dx", "ct-64"])
def chest(request, phantom):
    """A chest that is as it should be: real ones where they are at hand."""
    if request.param == "phantom":
        return phantom
    shared = request.getfixturevalue("shared_data")
    if request.param == "pet_ct_dx":
        return read_scan(shared("dicom") / "lung_pet_ct_dx_a0001")
    if request.param == "ct-64":
        return read_scan(shared("nrrd") / "ct-64.nrrd")
    return read_scan(shared("medseg2") / "rp_im" / f"{request.param}.nii.gz")


def test_a_chest_passes(chest):
    found = findings(chest)
    assert found.errors == ()
    assert not [w for w in found.warnings if "whole lungs" not in w]


@pytest.mark.nightly
@pytest.mark.parametrize(("axes", "message"), [
    ((0,), "from head to feet"), ((1,), "from back to front"), ((0, 1), "from head to feet"),
    ((1, 2), "from back to front")])
def test_a_flipped_file_is_found(chest, axes, message):
    assert any(message in error for error in findings(flipped(chest, *axes)).errors)


@pytest.mark.nightly
def test_a_turned_file_is_found(chest):
    turned = replace(chest, hu=np.ascontiguousarray(np.rot90(chest.hu, axes=(1, 2))))
    assert any("turned" in error for error in findings(turned).errors)


@pytest.mark.nightly
@pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1)], ids=["coronal", "sagittal"])
def test_slices_that_pose_as_axial_are_found(chest, order):
    if chest.case_id == "8":
        pytest.skip("case 8 shows too little of the lungs to be cut otherwise")
    assert findings(posing_as_axial(chest, order)).errors


def test_a_mirrored_chest_is_warned_of_not_refused(phantom):
    found = findings(flipped(phantom, 2))
    assert found.errors == ()
    assert any("mirrored" in warning for warning in found.warnings)


@pytest.mark.parametrize(("factors", "message"), [
    ({"z": 1000.0}, "distance between slices"), ({"z": 3.0}, "lungs|distance"),
    ({"z": 1e-3, "y": 1e-3, "x": 1e-3}, "millimetres"),
    ({"z": 1e3, "y": 1e3, "x": 1e3}, "millimetres"), ({"y": 3.0}, "coronal or sagittal"),
], ids=["gap 1000 times", "gap 3 times", "metres", "micrometres", "pixels no squares"])
def test_wrong_spacing_is_found(phantom, factors, message):
    import re
    assert re.search(message, " ".join(findings(stretched(phantom, **factors)).errors))


@pytest.mark.parametrize(("change", "message"), [
    (lambda hu: hu + 400, "most tissue has"), (lambda hu: hu // 2, "below -700 HU"),
    (lambda hu: np.clip(hu.astype(int) * 2, -3000, 3000).astype(np.int16), "HU"),
    (lambda hu: -hu, "no lung was found"),
    (lambda hu: np.random.default_rng(1).integers(-1024, 1000, hu.shape).astype(np.int16),
     "hardly alike"),
    (lambda hu: np.random.default_rng(1).normal(-500, 400, hu.shape).astype(np.int16),
     "hardly alike"),
], ids=["shifted", "halved", "doubled", "inverted", "uniform noise", "normal noise"])
def test_what_is_no_ct_in_hu_is_found(phantom, change, message):
    assert message in " ".join(findings(replace(phantom, hu=change(phantom.hu))).errors)


def test_values_that_end_are_no_reason_to_refuse(phantom):
    """256 grey levels, all above +150 HU at +150: the pile there is bone, fat's peak is below."""
    bright = np.where(phantom.hu > 150, 150, phantom.hu)
    bright[:, -8:, :] = 150  # a table of it, more than there is of any tissue
    bright[:, :8, :] = 150
    assert not any("most tissue" in error
                   for error in findings(replace(phantom, hu=bright)).errors)
    high = np.where(phantom.hu > 20, 331, phantom.hu).astype(np.int16)
    assert not any("most tissue" in error for error in findings(replace(phantom, hu=high)).errors)


def small(scan, factor):
    """The chest of somebody smaller: all lengths times a factor."""
    return replace(scan, grid=Grid.upright(scan.shape, np.multiply(scan.spacing_mm, factor)))


def test_a_child_is_said_to_be_out_of_range_not_refused(phantom):
    child = small(phantom, (445 / (lungs_of(phantom).mask.sum() * phantom.voxel_mm3 / 1000))
                  ** (1 / 3))
    found = findings(child)
    assert found.errors == ()
    assert any(one.startswith("lungs of 44") and "a child's" in one for one in found.warnings)


def with_body(scan, above=40, below=60):
    """The chest inside a whole body: a trunk with gas in its bowels below, neck and head above."""
    row, column = scan.spacing_mm[1:]
    y, x = (np.arange(n) * mm for n, mm in zip(scan.shape[1:], (row, column), strict=True))
    dy, dx = np.meshgrid(y - y.mean(), x - x.mean(), indexing="ij")
    noise = np.random.default_rng(0).normal(0, 12, (above + below, *scan.shape[1:]))
    trunk = (dy / 95) ** 2 + (dx / 150) ** 2 < 1
    head = (dy / 90) ** 2 + (dx / 75) ** 2 < 1
    skull = head & ((dy / 82) ** 2 + (dx / 67) ** 2 > 1)
    hu = np.full(noise.shape, -1000.0)
    for z in range(below):
        hu[z][trunk] = 40 + noise[z][trunk]
        spine = (dy - 50) ** 2 + dx**2 < 18**2
        hu[z][spine] = 350
        for side in (-70, -10, 60):
            if z % 30 > 4:
                hu[z][(dy + 40) ** 2 + (dx - side) ** 2 < 27**2] = -1000
    for z in range(below, above + below):
        hu[z][head] = 35 + noise[z][head]
        hu[z][skull] = 900
    whole = np.concatenate([hu[:below], scan.hu, hu[below:]])
    return replace(scan, hu=np.rint(whole).astype(np.int16),
                   grid=Grid.upright(whole.shape, scan.spacing_mm))


def test_bowel_gas_in_a_whole_body_is_no_lung(phantom):
    whole = with_body(phantom)
    alone, found = lungs_of(phantom), lungs_of(whole)
    assert found.mask[:60].sum() == 0
    assert found.mask.sum() == pytest.approx(alone.mask.sum(), rel=0.01)
    assert examine(whole, found).errors == ()


def test_a_crop_into_the_body_is_still_axial(phantom):
    rows, columns = (np.flatnonzero((phantom.hu > -400).any(axis=axes)) for axes in
                     ((0, 2), (0, 1)))
    inset = [round(25 / mm) for mm in phantom.spacing_mm[1:]]
    hu = np.ascontiguousarray(phantom.hu[:, rows[0] + inset[0]:rows[-1] - inset[0],
                                         columns[0] + inset[1]:columns[-1] - inset[1]])
    crop = replace(phantom, hu=hu, grid=Grid.upright(hu.shape, phantom.spacing_mm))
    assert findings(crop).errors == ()
    assert lungs_of(crop).mask.sum() == pytest.approx(lungs_of(phantom).mask.sum(), rel=0.03)


def test_a_head_is_no_chest():
    """A ball of brain in a skull, with air in its sinuses."""
    z, y, x = np.ogrid[-60:60:24j, -110:110:128j, -110:110:128j]
    r = np.sqrt((z / 1.1) ** 2 + (y / 1.2) ** 2 + x**2)
    hu = np.where(r < 70, 35, np.where(r < 78, 900, -1000)).astype(np.int16)
    hu[np.sqrt(z**2 + (y + 60) ** 2 + x**2) < 22] = -1000
    head = Scan(hu, Grid.upright(hu.shape, (5.2, 1.73, 1.73)), "head")
    with pytest.raises(ImplausibleScan, match="lung"):
        require_plausible(head, lungs_of(head))


def test_an_empty_lung_mask_and_one_of_another_scan_are_found(phantom):
    nothing = LungMask.like(phantom, np.zeros(phantom.shape, bool), "reference")
    assert "is empty" in examine(phantom, nothing).errors[0]
    bones = LungMask.like(phantom, phantom.hu > 0, "reference")
    assert any("HU (median)" in error for error in examine(phantom, bones).errors)


def test_parts_of_a_chest_are_read_and_said_to_be_parts(phantom):
    half = part_of(phantom, slice(phantom.n_slices // 2, None))
    found = findings(half)
    assert found.errors == ()
    assert "whole lungs" in found.warnings[0]
    one = findings(part_of(phantom, slice(12, 13)))
    assert one.errors == ()
    assert any("a single slice" in warning for warning in one.warnings)


def test_force_lets_it_pass_and_keeps_the_reasons(phantom):
    wrong = flipped(phantom, 0)
    with pytest.raises(ImplausibleScan, match="--force") as caught:
        require_plausible(wrong, lungs_of(wrong))
    assert require_plausible(wrong, lungs_of(wrong), force=True).errors == caught.value.reasons
