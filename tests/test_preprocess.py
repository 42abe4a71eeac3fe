"""The way to the network's grid and back."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from deeplung_nb.imaging import preprocess
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.preprocess import (
    BodyBox,
    body_box,
    normalise_hu,
    prepare,
    prepare_mask,
    resize_matrix,
    restore,
    to_model_grid,
)
from deeplung_nb.imaging.scan import LesionMask, Scan


def make_scan(n_slices=6, size=200, spacing=(5.0, 1.8, 1.8), table=True):
    """An elliptic body on a table, in air, off the centre."""
    y, x = np.mgrid[:size, :size]
    hu = np.full((n_slices, size, size), -1000, np.int16)
    body = ((y - 90) / 55) ** 2 + ((x - 110) / 80) ** 2 < 1
    hu[:, body] = 40
    if table:
        hu[:, 160:162, 20:195] = 100
    return Scan(hu, Grid.upright(hu.shape, spacing), "box")


def ellipsoid_mask(scan, centre, radii_mm, code=1):
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in scan.shape], indexing="ij"), axis=-1)
    distance = ((grid - centre) * np.asarray(scan.spacing_mm) / radii_mm) ** 2
    labels = np.zeros(scan.shape, np.uint8)
    labels[distance.sum(axis=-1) < 1] = code
    return LesionMask.like(scan, labels)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_the_box_holds_the_body_and_leaves_out_the_table():
    box = body_box(make_scan())
    rows, columns = box.inside(200, 200)
    assert rows.start <= 35
    assert rows.stop >= 145
    assert columns.start <= 30
    assert columns.stop >= 190
    assert box.side < 185
    assert body_box(make_scan(table=False)) == box


def test_the_box_leaves_about_half_a_centimetre_around_the_body():
    scan = make_scan(table=False)
    places = np.nonzero(scan.hu[0] > 0)
    box = body_box(scan)
    widest = max(np.ptp(axis) + 1 for axis in places) * 1.8
    assert 2 * 3.0 <= box.side * 1.8 - widest <= 2 * (5.0 + 4.0)


@pytest.mark.parametrize("pixel_mm", [0.5, 1.0])
def test_the_margin_of_the_box_is_in_millimetres(pixel_mm):
    """A block whose edges the coarse grid of 4 mm meets: only the margin is left."""
    hu = np.full((2, 400, 400), -1000, np.int16)
    step = round(4 / pixel_mm)
    hu[:, 10 * step:30 * step, 10 * step:30 * step] = 40
    box = body_box(Scan(hu, Grid.upright(hu.shape, (5.0, pixel_mm, pixel_mm)), "block"))
    assert box.side * pixel_mm == pytest.approx(20 * 4 + 2 * 5.0)
    assert box.top == 10 * step - round(5 / pixel_mm)


def test_an_image_of_air_gets_the_whole_image_as_box():
    scan = make_scan()
    air = Scan(np.full_like(scan.hu, -1000), scan.grid, "air")
    assert body_box(air) == BodyBox(0, 0, 200)


def test_one_box_serves_all_slices():
    scan = make_scan()
    hu = scan.hu.copy()
    hu[0] = -1000
    hu[0, 85:95, 100:120] = 40
    tapered = Scan(hu, scan.grid, "tapered")
    assert body_box(tapered) == body_box(scan)


@pytest.mark.parametrize(("n_in", "n_out"), [(200, 128), (512, 256), (100, 256), (64, 64)])
def test_resize_equals_the_antialiased_resize_of_torch(n_in, n_out):
    image = np.random.default_rng(0).normal(size=(n_in, n_in)).astype(np.float32)
    weights = resize_matrix(n_in, n_out)
    ours = weights @ image @ weights.T
    theirs = functional.interpolate(
        torch.from_numpy(image)[None, None], size=(n_out, n_out), mode="bilinear",
        align_corners=False, antialias=True)[0, 0].numpy()
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_resize_keeps_constants_and_the_identity():
    np.testing.assert_allclose(resize_matrix(300, 256).sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(resize_matrix(256, 256), np.eye(256, dtype=np.float32))


def test_window_of_the_paper():
    np.testing.assert_allclose(
        normalise_hu(np.array([-2000, -1024, -212, 600, 3000])), [0, 0, 0.5, 1, 1])


def test_beyond_the_image_there_is_air():
    scan = make_scan()
    hu, _ = to_model_grid(scan, 64, BodyBox(-100, -100, 400))
    assert hu.shape == (6, 64, 64)
    assert hu[0, 0, 0] == -1024


@pytest.mark.parametrize(("size", "native"), [(256, 200), (128, 200), (256, 400)])
def test_there_and_back_keeps_a_mask(size, native):
    """Invariant 2: Dice over 0.99 and the closed-form volume within 0.5 %."""
    scale = native / 200
    scan = make_scan(n_slices=24, size=200)
    if native != 200:
        hu = np.kron(scan.hu, np.ones((1, 2, 2), np.int16))
        scan = Scan(hu, Grid.upright(hu.shape, (5.0, 0.9, 0.9)), "fine")
    radii = (40.0, 45.0, 60.0)
    mask = ellipsoid_mask(scan, np.array([11.7, 90 * scale, 110 * scale]), radii)
    _, box = prepare(scan, size)
    shares = prepare_mask(mask, box, size)
    back = restore(np.array_split(shares, 5), box, scan)
    assert dice(back.labels > 0, mask.labels > 0) > 0.99
    closed_form = 4 / 3 * np.pi * np.prod(radii) / 1000
    volume = (back.labels > 0).sum() * scan.voxel_mm3 / 1000
    assert abs(volume / closed_form - 1) < 0.005
    assert back.affine is scan.affine


def test_restore_takes_any_batches_and_refuses_a_wrong_number_of_slices():
    scan = make_scan()
    mask = ellipsoid_mask(scan, np.array([3, 90, 110]), (12, 40, 40), code=2)
    _, box = prepare(scan, 128)
    shares = prepare_mask(mask, box, 128)
    one = restore(iter(shares[:, None]), box, scan)
    whole = restore([shares], box, scan)
    np.testing.assert_array_equal(one.labels, whole.labels)
    for wrong in ([shares[:4]], [shares, shares]):
        with pytest.raises(ValueError, match="expected 6"):
            restore(wrong, box, scan)


def test_restore_holds_one_batch_at_a_time():
    scan = make_scan()
    _, box = prepare(scan, 128)
    alive = []

    def batches():
        import weakref

        for _ in range(6):
            batch = np.zeros((1, 3, 128, 128), np.float32)
            alive.append(weakref.ref(batch))
            yield batch
            del batch
            assert sum(ref() is not None for ref in alive) <= 1

    restore(batches(), box, scan)


@pytest.mark.parametrize(("side", "size"), [(360, 256), (506, 64), (40, 96), (96, 97), (30, 29)])
def test_the_way_back_in_one_pass_is_that_of_the_matrices(monkeypatch, side, size):
    """Enlarged and shrunk, within the image and beyond it."""
    hu = np.zeros((3, 400, 380), np.int16)
    scan = Scan(hu, Grid.upright(hu.shape, (5.0, 1.0, 1.0)), "x")
    box = BodyBox(-20, 10, side)
    scores = np.random.default_rng(0).random((3, 3, size, size), dtype=np.float32)
    found = restore([scores[:1], scores[1:]], box, scan).labels
    monkeypatch.setattr(preprocess, "can_compile", lambda: False)
    wanted = restore([scores], box, scan).labels
    # What differs are ties but for rounding.
    assert (found != wanted).mean() < 1e-4
    assert len(np.unique(wanted)) == 3


def test_of_equal_scores_the_first_class_wins_on_both_ways(monkeypatch):
    scan = Scan(np.zeros((1, 20, 20), np.int16), Grid.upright((1, 20, 20), (5.0, 1.0, 1.0)), "x")
    scores = np.full((1, 3, 10, 10), 0.25, np.float32)
    scores[:, 1:, 5:] = 0.5
    for compiled in (True, False):
        monkeypatch.setattr(preprocess, "can_compile", lambda compiled=compiled: compiled)
        labels = restore([scores], BodyBox(0, 0, 20), scan).labels
        assert (labels[0, :8] == 0).all()
        assert (labels[0, 12:] == 1).all()
