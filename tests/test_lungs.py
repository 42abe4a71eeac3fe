"""The built-in lungs: on a chest of simple shapes, and against masks of real cases."""

import numpy as np
import pytest

from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.io import read_lung_mask, read_scan
from deeplung_nb.imaging.lungs import LungError, LungMask, segment_lungs
from deeplung_nb.imaging.scan import Scan


def make_chest(n_slices=20, size=150, lesion=True):
    """Two lungs, a windpipe, a table; bowel gas below. Returns the scan and the true lungs."""
    z, y, x = np.mgrid[:n_slices, :size, :size].astype(float)
    hu = np.full(z.shape, -1000, np.int16)
    hu[((y - 75) / 50) ** 2 + ((x - 75) / 68) ** 2 < 1] = 40
    true = np.zeros(z.shape, bool)
    for centre in (45, 105):
        true |= (((y - 75) / 36) ** 2 + ((x - centre) / 22) ** 2 + ((z - 11) / 9) ** 2) < 1
    hu[true] = -850
    if lesion:
        hu[((y - 100) / 6) ** 2 + ((x - 45) / 6) ** 2 + ((z - 11) / 3) ** 2 < 1] = 30
        hu[((y - 75) / 10) ** 2 + ((x - 105) / 8) ** 2 + ((z - 11) / 3) ** 2 < 1] = -550
    hu[((y - 70) / 4) ** 2 + ((x - 75) / 4) ** 2 < 1] = -990
    hu[:3][(((y - 60) / 8) ** 2 + ((x - 75) / 8) ** 2 < 1)[:3]] = -990
    hu[:, 135:137, 10:140] = 100
    spacing = (10.0, 2.4, 2.4)
    return Scan(hu, Grid.upright(hu.shape, spacing), "chest"), true


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_lungs_hold_their_lesions_and_nothing_else():
    scan, true = make_chest()
    found = segment_lungs(scan)
    assert found.origin == "built-in"
    assert dice(found.mask, true) > 0.97
    assert not found.mask[:, 135:, :].any()
    assert found.mask[11, 97:100, 45].all()       # consolidation at the pleura
    assert not found.mask[10, 68:73, 74:77].any()  # windpipe


@pytest.mark.parametrize(("side", "found"), [(15, True), (11, False)])
def test_lungs_are_lungs_from_fifteen_square_centimetres_on(side, found):
    """Two squares of so many pixels of 2.4 mm: 2,592 mm2 together, or 1,394."""
    hu = np.full((6, 100, 100), -1000, np.int16)
    hu[:, 10:90, 10:90] = 40
    for left in (25, 55):
        hu[1:5, 40:40 + side, left:left + side] = -850
    scan = Scan(hu, Grid.upright(hu.shape, (10.0, 2.4, 2.4)), "small")
    if found:
        assert segment_lungs(scan).mask.any()
    else:
        with pytest.raises(LungError, match=r"largest area of air .* cm², expected at least 15"):
            segment_lungs(scan)


def test_a_windpipe_that_opens_into_both_lungs_is_left_out_above_its_fork():
    """Joined by the main bronchi it is no small part of the air any more: it must be followed."""
    scan, _ = make_chest()
    hu = scan.hu.copy()
    hu[11, 66:74, 55:95] = -990
    found = segment_lungs(Scan(hu, scan.grid, "forked")).mask
    assert not found[14:, 66:74, 71:79].any()
    assert found[14, 75, 45]
    assert found[14, 75, 105]


def test_gas_in_the_stomach_is_no_lung():
    scan, true = make_chest()
    assert scan.hu[1, 60, 75] == -990
    assert not true[1, 60, 75]
    found = segment_lungs(scan).mask
    assert not found[:3, 53:67, 68:82].any()


def test_a_dense_pocket_at_the_pleura_counts_as_lung():
    """A consolidation 17 mm wide that opens to the chest wall, 12 mm deep."""
    scan, true = make_chest(lesion=False)
    hu = scan.hu.copy()
    edge = np.flatnonzero(true[11, 75])[0]
    hu[9:14, 72:79, edge - 1:edge + 5] = 30
    found = segment_lungs(Scan(hu, scan.grid, "pocket")).mask
    assert found[11, 73:78, edge + 1:edge + 5].mean() > 0.9


def test_one_slice_is_enough():
    scan, true = make_chest()
    one = Scan(scan.hu[11:12], Grid((1, *scan.shape[1:]), scan.affine), "one")
    assert dice(segment_lungs(one).mask, true[11:12]) > 0.93


def test_no_lung_is_said_with_a_remedy():
    scan, _ = make_chest()
    body = Scan(np.where(scan.hu < -400, np.where(scan.hu == -1000, scan.hu, 40), scan.hu).astype(
        np.int16), scan.grid, "belly")
    with pytest.raises(LungError, match=r"'belly': no lung found.*give a lung mask"):
        segment_lungs(body)


def test_an_unknown_origin_is_refused():
    with pytest.raises(ValueError, match="reference, built-in, lungmask"):
        LungMask(np.zeros((1, 2, 2), bool), Grid.upright((1, 2, 2), (1, 1, 1)), "guess")


def test_real_cases_agree_with_their_lung_masks(shared_data):
    folder = shared_data("medseg2")
    scores = {}
    for path in sorted((folder / "rp_im").glob("*.nii.gz")):
        scan = read_scan(path)
        reference = read_lung_mask(folder / "rp_lung_msk" / path.name, scan)
        scores[scan.case_id] = dice(segment_lungs(scan).mask, reference)
    print({case: round(float(score), 4) for case, score in scores.items()})
    assert np.mean(list(scores.values())) >= 0.93
    assert min(scores.values()) >= 0.90
