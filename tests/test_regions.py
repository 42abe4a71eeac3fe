"""Where in the lungs: sides, thirds, depth and lobes, of boxes and phantoms of known truth."""

import dataclasses

import numpy as np
import pytest

from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.io import write_mask
from deeplung_nb.imaging.lungs import LungMask, lungs_for
from deeplung_nb.imaging.phantom.make import make_phantom
from deeplung_nb.imaging.phantom.spec import Lesion, PhantomSpec
from deeplung_nb.imaging.regions import (
    LEFT,
    PERIPHERAL_MM,
    RIGHT,
    LungRegions,
    depth_mm,
    order_lobes,
    read_lobes,
    severity_of,
)
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.labels import GGO, LOBES, REGIONS
from deeplung_nb.reading.volumes import hu_percentiles, measure

SPACING = (4.0, 2.0, 2.0)


def in_a_scan(array, hu=-850):
    affine = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])
    scan = Scan(np.full(array.shape, hu, np.int16), Grid(array.shape, affine), "box")
    return scan, LungMask.like(scan, array, "reference")


@pytest.fixture
def two_boxes():
    """Two lungs of 60 x 60 mm and 120 mm height, 40 mm apart, [30, 60, 100]."""
    lungs = np.zeros((40, 60, 100), bool)
    lungs[5:35, 15:45, 10:40] = True
    lungs[5:35, 15:45, 60:90] = True
    return lungs


@pytest.fixture(scope="module")
def phantom():
    """One lesion of 40 mL low in the right lung, one of 20 mL high in the left one."""
    return make_phantom(PhantomSpec("regions", seed=3, lesions=(
        Lesion("ggo", (-75.0, 40.0, 45.0), (20.0, 20.0, 24.0)),
        Lesion("ggo", (70.0, 15.0, 175.0), (16.0, 16.0, 19.0)))))


def test_each_division_sums_to_the_whole(two_boxes):
    rng = np.random.default_rng(0)
    _, lungs = in_a_scan(two_boxes)
    mask = rng.random(two_boxes.shape) < 0.01
    found = LungRegions.of(lungs).count(mask)
    assert list(found) == list(REGIONS)
    n = int(mask.sum())
    assert found["right"] + found["left"] == n
    assert found["upper"] + found["middle"] + found["lower"] == n
    assert found["central"] + found["peripheral"] == n


def test_the_right_lung_is_where_the_patients_right_is(two_boxes):
    _, lungs = in_a_scan(two_boxes)
    regions = LungRegions.of(lungs)
    found = regions.count(two_boxes)
    assert found["right"] == found["left"] == 30 * 30 * 30
    lesion = np.zeros_like(two_boxes)
    lesion[10, 20:25, 12:20] = True  # low x is the patient's right
    assert regions.count(lesion)["left"] == 0


def test_thirds_are_thirds_of_the_lungs_height_not_of_the_scan(two_boxes):
    _, lungs = in_a_scan(two_boxes)
    found = LungRegions.of(lungs).count(two_boxes)
    assert found["upper"] == found["middle"] == found["lower"] == two_boxes.sum() / 3
    below = np.zeros_like(two_boxes)
    below[0, 30, 30] = True
    above = np.zeros_like(two_boxes)
    above[39, 30, 30] = True
    assert LungRegions.of(lungs).count(below)["lower"] == 1
    assert LungRegions.of(lungs).count(above)["upper"] == 1


def test_central_is_what_lies_deeper_than_the_limit_in_all_three_directions(two_boxes):
    _, lungs = in_a_scan(two_boxes)
    found = LungRegions.of(lungs).count(two_boxes)
    # A voxel is deep where its distance to the nearest voxel outside exceeds the limit.
    deep = [sum(min((k + 1) * mm, (n - k) * mm) > PERIPHERAL_MM for k in range(n))
            for n, mm in ((30, 4.0), (30, 2.0), (30, 2.0))]
    assert found["central"] == 2 * np.prod(deep)


def test_depth_is_in_mm_and_holes_of_vessels_are_no_surface():
    lungs = np.zeros((21, 41, 41), bool)
    lungs[1:-1, 1:-1, 1:-1] = True
    solid = depth_mm(lungs, (5.0, 1.0, 1.0))
    assert solid[10, 20, 20] == pytest.approx(20.0)
    assert solid[1, 20, 20] == pytest.approx(5.0)
    assert solid[0].max() == 0
    holed = lungs.copy()
    holed[5:15, 10, 10] = False
    assert np.array_equal(depth_mm(holed, (5.0, 1.0, 1.0)), solid)


def test_a_lung_at_the_edge_of_the_picture_has_a_surface_there():
    lungs = np.ones((9, 30, 30), bool)
    assert depth_mm(lungs, (5.0, 2.0, 2.0))[0].max() == pytest.approx(5.0)


def test_lungs_that_touch_are_cut_where_they_are_thinnest(two_boxes):
    two_boxes[20:25, 20:23, 40:60] = True  # a bridge in front of the heart
    _, lungs = in_a_scan(two_boxes)
    regions = LungRegions.of(lungs)
    sides = regions.sides[22, 30]
    assert (sides[10:40] == RIGHT).all()
    assert (sides[60:90] == LEFT).all()


def test_a_lung_that_reaches_over_the_middle_stays_one_lung():
    lungs = np.zeros((12, 60, 100), bool)
    lungs[1:11, 15:45, 8:38] = True
    lungs[1:11, 25:45, 58:92] = True
    lungs[1:11, 15:20, 46:92] = True  # the left lung, in front of the heart, over the middle
    lungs[1:11, 20:25, 80:92] = True
    _, mask = in_a_scan(lungs)
    sides = LungRegions.of(mask).sides
    assert (sides[5, 15:20, 46:92] == LEFT).all()
    assert (sides[5, 15:45, 8:38] == RIGHT).all()


@pytest.mark.parametrize("given", [True, False])
def test_phantom_lesions_are_found_where_they_were_put(phantom, given):
    scan = phantom.scan
    lungs = LungMask.like(scan, phantom.lungs, "reference") if given else lungs_for(scan)
    rows = {row["structure"]: row for row in measure(scan, phantom.truth, lungs)}
    lesion = rows["lesion"]
    right, left = (phantom.truth.labels[:, :, part].astype(bool).sum() * scan.voxel_mm3 / 1000
                   for part in (slice(None, 108), slice(108, None)))
    assert lesion["volume_right_ml"] == pytest.approx(right, rel=0.01)
    assert lesion["volume_left_ml"] == pytest.approx(left, rel=0.01)
    assert lesion["volume_upper_ml"] == pytest.approx(left, rel=0.1)
    assert lesion["volume_lower_ml"] == pytest.approx(right, rel=0.1)
    lung = rows["lung"]
    assert lung["volume_right_ml"] + lung["volume_left_ml"] == pytest.approx(lung["volume_ml"])


def test_phantom_sides_are_those_of_its_lobes(phantom):
    lungs = LungMask.like(phantom.scan, phantom.lungs, "reference")
    regions = LungRegions.of(lungs)
    right = np.isin(phantom.lobes, (1, 2, 3))
    left = np.isin(phantom.lobes, (4, 5))
    assert (regions.sides[right] == RIGHT).mean() > 0.999
    assert (regions.sides[left] == LEFT).mean() > 0.998  # of 139,488 voxels 141 lie over the middle


def test_opacity_is_of_the_lung_mask_and_high_opacity_of_what_is_dense(two_boxes):
    scan, lungs = in_a_scan(two_boxes)
    labels = np.zeros(two_boxes.shape, np.uint8)
    labels[10:13, 15:25, 10:20] = GGO.code  # 300 voxels in the lung
    labels[10, 0:5, 0:4] = GGO.code  # 20 outside
    scan.hu[10, 15:25, 10:20] = -200  # 100 of them
    scan.hu[11, 15:25, 10:20] = -201
    lesion = measure(scan, LesionMask.like(scan, labels), lungs)[-1]
    assert lesion["po_percent"] == pytest.approx(100 * 300 / two_boxes.sum())
    assert lesion["pho_percent"] == pytest.approx(100 * 100 / two_boxes.sum())
    assert lesion["po_percent"] == pytest.approx(lesion["burden_in_lung_percent"])


def test_without_lungs_there_are_no_regions(two_boxes):
    scan, _ = in_a_scan(two_boxes)
    lesion = measure(scan, LesionMask.like(scan, two_boxes.astype(np.uint8)), None)[-1]
    assert not any(name.startswith("volume_") and name != "volume_ml" for name in lesion)
    assert "po_percent" not in lesion


def test_percentiles_are_those_of_the_voxels():
    rng = np.random.default_rng(1)
    hu = rng.normal(-700, 150, 9_999).astype(np.int16)
    found = hu_percentiles(hu)
    for percent in (5, 25, 50, 75, 95):
        assert found[f"hu_p{percent:02d}"] == np.percentile(hu, percent, method="inverted_cdf")
    assert hu_percentiles(hu[:0]) == {}


@pytest.mark.parametrize(("percent", "points"), [
    (0, 0), (0.01, 1), (4.99, 1), (5, 2), (25, 2), (25.01, 3), (49.9, 3), (50, 4), (75, 4),
    (75.1, 5), (100, 5)])
def test_severity_follows_its_rule(percent, points):
    assert severity_of(percent) == points


def test_lobes_of_another_tool_are_read_in_its_codes(phantom, tmp_path):
    codes = (3, 4, 5, 1, 2)
    theirs = np.zeros(6, np.uint8)
    theirs[1:] = codes
    path = tmp_path / "lobes.nii.gz"
    write_mask(dataclasses.replace(phantom.truth, labels=theirs[phantom.lobes]), path)
    found = read_lobes(path, phantom.scan)
    assert np.array_equal(found, phantom.lobes)
    with pytest.raises(ScanError, match=r"exchanged .*--lobe-codes"):
        read_lobes(path, phantom.scan, (1, 2, 3, 4, 5))
    with pytest.raises(ScanError, match=r"holds the codes .* expected some of"):
        read_lobes(path, phantom.scan, (11, 12, 13, 14, 15))
    with pytest.raises(ScanError, match="five different positive numbers"):
        read_lobes(path, phantom.scan, (1, 1, 2, 3, 4))


def test_upper_and_lower_lobes_exchanged_are_found(phantom):
    with pytest.raises(ScanError, match="upper and lower are exchanged"):
        order_lobes(phantom.lobes, (3, 2, 1, 5, 4), "case", "file")
    one = np.where(phantom.lobes == 2, 2, 0)
    assert set(np.unique(order_lobes(one, (1, 2, 3, 4, 5), "case", "file"))) == {0, 2}


def test_lesions_are_counted_by_lobe(phantom):
    lungs = LungMask.like(phantom.scan, phantom.lungs, "reference")
    regions = LungRegions.of(lungs, phantom.lobes)
    found = regions.count(phantom.truth.labels > 0)
    by_hand = np.bincount(phantom.lobes[phantom.truth.labels > 0], minlength=6)[1:]
    assert [found[name] for name in LOBES] == by_hand.tolist()
    assert found["right_lower"] > 0
    assert found["left_upper"] > 0
