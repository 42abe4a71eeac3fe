"""Prediction: windows over a scan, ensembles, one slice, and measurement of the result."""

import dataclasses

import numpy as np
import pytest
import torch

from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.lungs import LungMask
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.network.baselines import UNet
from deeplung_nb.network.deeplung import DeepLungNet
from deeplung_nb.reading.predict import Predictor, lesion_first
from deeplung_nb.reading.volumes import measure, outside_lungs
from deeplung_nb.runs.config import NetworkConfig, UNetConfig

SMALL = NetworkConfig(image_size=32, n_neighbours=2, dense_blocks=1, hidden=2)


def make_network(seed=0):
    torch.manual_seed(seed)
    return DeepLungNet(SMALL).eval()


def make_scan(n_slices=7, size=48):
    rng = np.random.default_rng(3)
    hu = np.full((n_slices, size, size), -1000, np.int16)
    hu[:, 8:40, 6:42] = rng.integers(-900, 200, (n_slices, 32, 36))
    return Scan(hu, Grid.upright(hu.shape, (5.0, 2.0, 2.0)), "small")


def all_scores(predictor, slices):
    return np.concatenate(list(predictor.score_batches(slices)))


def test_scores_equal_those_of_windows_cut_by_hand():
    network = make_network()
    slices = np.random.default_rng(0).random((6, 32, 32), dtype=np.float32)
    padded = np.concatenate([slices[:1]] * 2 + [slices] + [slices[-1:]] * 2)
    with torch.no_grad():
        wanted = np.stack([
            torch.sigmoid(network(torch.from_numpy(padded[None, z:z + 5])).fused)[0].numpy()
            for z in range(6)
        ])
    np.testing.assert_allclose(all_scores(Predictor([network], batch=4), slices), wanted,
                               atol=1e-5)


def test_the_batch_size_changes_nothing():
    slices = np.random.default_rng(0).random((6, 32, 32), dtype=np.float32)
    one, four = (all_scores(Predictor([make_network()], batch=b), slices) for b in (1, 4))
    np.testing.assert_allclose(one, four, atol=1e-5)


def test_an_ensemble_is_the_mean_of_its_members():
    slices = np.random.default_rng(0).random((3, 32, 32), dtype=np.float32)
    a, b = make_network(1), make_network(2)
    both = all_scores(Predictor([a, b]), slices)
    mean = (all_scores(Predictor([a]), slices) + all_scores(Predictor([b]), slices)) / 2
    np.testing.assert_allclose(both, mean, atol=1e-6)


def test_networks_of_different_grids_do_not_mix():
    other = DeepLungNet(NetworkConfig(image_size=64, n_neighbours=2, dense_blocks=1))
    with pytest.raises(ValueError, match="one image size"):
        Predictor([make_network(), other])


@pytest.mark.parametrize("n_slices", [1, 2, 7])
def test_a_mask_lies_on_the_grid_of_its_scan(n_slices):
    scan = make_scan(n_slices)
    mask = Predictor([make_network()]).segment(scan)
    assert mask.labels.shape == scan.shape
    assert mask.affine is scan.affine
    assert set(np.unique(mask.labels)) <= {0, 1, 2}


def test_rows_of_measurement_by_hand():
    scan = make_scan(4)
    expert, found = np.zeros(scan.shape, np.uint8), np.zeros(scan.shape, np.uint8)
    expert[1, 10:14, 10:20] = 1      # 40 voxels
    found[1, 12:14, 10:20] = 1       # 20 of them
    found[2, 30:32, 30:35] = 2       # 10 voxels, outside the lung mask
    lung = np.zeros(scan.shape, bool)
    lung[1:3, 8:28, 8:28] = True     # 800 voxels
    rows = {row["structure"]: row for row in measure(
        scan, LesionMask.like(scan, found), LungMask.like(scan, lung, "reference"),
        reference=LesionMask.like(scan, expert))}
    assert rows["lung"]["volume_ml"] == pytest.approx(800 * 20 / 1000)
    ggo, high, lesion = rows["ggo"], rows["high_opacity"], rows["lesion"]
    assert (ggo["tp"], ggo["fp"], ggo["fn"]) == (20, 0, 20)
    assert ggo["dice"] == pytest.approx(40 / 60)
    assert ggo["volume_ml"] == pytest.approx(20 * 20 / 1000)
    assert ggo["mean_hu"] == pytest.approx(scan.hu[found == 1].mean())
    assert high["dice"] == 0.0
    assert high.get("hd95_mm") is None
    assert (high["n_slices"], high["slices_with"]) == (4, 1)
    assert lesion["burden_percent"] == pytest.approx(100 * 30 / 800)
    assert lesion["burden_in_lung_percent"] == pytest.approx(100 * 20 / 800)


def test_what_lies_outside_the_lungs_is_a_quantity_of_its_own_for_every_class():
    scan = make_scan(3)
    labels = np.zeros(scan.shape, np.uint8)
    labels[1, 8:10, 8:13] = 1        # 10 voxels of ground glass in the lung mask
    labels[1, 30:32, 30:37] = 1      # 14 outside it
    labels[2, 8:10, 8:10] = 2        # 4 of high opacity in it
    labels[2, 30:31, 30:36] = 2      # 6 outside it
    lung = np.zeros(scan.shape, bool)
    lung[1:3, 8:28, 8:18] = True     # 400 voxels
    rows = {row["structure"]: row for row in measure(
        scan, LesionMask.like(scan, labels), LungMask.like(scan, lung, "reference"))}
    found = {name: (rows[name]["burden_percent"], rows[name]["burden_in_lung_percent"],
                    round(rows[name]["outside_lungs_ml"] * 1000 / scan.voxel_mm3))
             for name in ("ggo", "high_opacity", "lesion")}
    assert found == {"ggo": (6.0, 2.5, 14), "high_opacity": (2.5, 1.0, 6),
                     "lesion": (8.5, 3.5, 20)}
    assert "outside_lungs_ml" not in measure(scan, LesionMask.like(scan, labels), None)[0]


@pytest.mark.parametrize(("outside", "volume", "said"), [
    (10.0, 40.0, "10.0 of 40.0 mL lesion (25%) lie outside the lung mask"),
    (7.9, 40.0, None), (1.9, 2.0, None), (None, 40.0, None)])
def test_much_outside_the_lungs_is_said(outside, volume, said):
    found = outside_lungs({"structure": "lesion", "volume_ml": volume, "outside_lungs_ml": outside})
    assert found == said if said is None else found.startswith(said)


def test_much_outside_the_lungs_stands_in_the_note_of_a_row():
    scan = make_scan(3)
    labels = np.full(scan.shape, 1, np.uint8)
    lung = np.zeros(scan.shape, bool)
    lung[1:3, 8:28, 8:18] = True
    rows = measure(scan, LesionMask.like(scan, labels), LungMask.like(scan, lung, "reference"))
    assert "outside the lung mask" in rows[-1]["note"]


def test_both_empty_has_no_dice_and_no_lung_has_no_burden():
    scan = make_scan(3)
    empty = LesionMask.like(scan, np.zeros(scan.shape, np.uint8))
    rows = measure(scan, empty, None, reference=empty)
    assert [row["structure"] for row in rows] == ["ggo", "high_opacity", "lesion"]
    for row in rows:
        assert row["dice"] is None
        assert row.get("burden_percent") is None
        assert "no lung" in row["note"]


def test_burden_over_100_percent_is_flagged():
    scan = make_scan(3)
    mask = LesionMask.like(scan, np.ones(scan.shape, np.uint8))
    lung = np.zeros(scan.shape, bool)
    lung[1, 10:20, 10:20] = True
    rows = measure(scan, mask, LungMask.like(scan, lung, "built-in"))
    assert any("over 100 %" in row["note"] for row in rows if row["structure"] == "ggo")


@pytest.mark.parametrize(("n_voxels", "flagged"), [(100, False), (101, True)])
def test_a_burden_just_over_100_percent_is_flagged_and_100_is_not(n_voxels, flagged):
    scan = make_scan(3)
    lung = np.zeros(scan.shape, bool)
    lung[1, 10:20, 10:20] = True
    labels = lung.astype(np.uint8)
    labels[0, 0, :n_voxels - 100] = 1
    rows = measure(scan, LesionMask.like(scan, labels), LungMask.like(scan, lung, "built-in"))
    row = next(row for row in rows if row["structure"] == "ggo")
    assert row["burden_percent"] == n_voxels
    assert ("over 100 %" in row["note"]) == flagged


def test_surface_distances_are_left_out_only_when_told():
    scan = make_scan(3)
    labels = np.zeros(scan.shape, np.uint8)
    labels[1, 10:20, 10:20] = 1
    expert = LesionMask.like(scan, labels)
    mask = LesionMask.like(scan, np.roll(labels, 1, axis=2))
    for surface in (True, False):
        row = measure(scan, mask, None, reference=expert, surface=surface)[0]
        assert ("hd95_mm" in row) == ("nsd" in row) == surface
        assert row["dice"] == pytest.approx(0.9)


@pytest.mark.parametrize("n_slices", [5, 16, 37])
def test_slabs_score_each_slice_of_a_scan_once(n_slices):
    """By hand: slabs of 16 side by side, the last one filled up with the last slice."""
    torch.manual_seed(0)
    network = UNet(UNetConfig("unet3d", 2), 32).eval()
    slices = np.random.default_rng(0).random((n_slices, 32, 32), dtype=np.float32)
    padded = np.concatenate([slices, np.repeat(slices[-1:], -n_slices % 16, axis=0)])
    with torch.no_grad():
        wanted = np.concatenate([
            torch.sigmoid(network(torch.from_numpy(padded[None, z:z + 16])).fused).numpy()
            for z in range(0, n_slices, 16)])[:n_slices]
    for batch in (1, 4):
        np.testing.assert_allclose(all_scores(Predictor([network], batch=batch), slices), wanted,
                                   atol=1e-5)


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_two_doubtful_classes_make_a_sure_lesion(threshold):
    """By hand: lesion where both together exceed the threshold, then the higher of the two."""
    rng = np.random.default_rng(0)
    scores = rng.dirichlet((2, 1, 1), (2, 16, 16)).transpose(0, 3, 1, 2).astype(np.float32)
    wanted = np.where(scores[:, 1] + scores[:, 2] > threshold,
                      np.where(scores[:, 2] > scores[:, 1], 2, 1), 0)
    assert (lesion_first(scores, threshold).argmax(axis=1) == wanted).all()
    assert (wanted != scores.argmax(axis=1)).any()
    assert lesion_first(scores, None) is scores


def test_networks_of_other_thresholds_are_not_averaged():
    networks = [DeepLungNet(dataclasses.replace(SMALL, lesion_threshold=value))
                for value in (0.3, 0.5)]
    with pytest.raises(ValueError, match="lesion threshold expected"):
        Predictor(networks)


@pytest.mark.parametrize("fast", [False, True])
def test_scores_that_are_no_numbers_are_an_error_not_0_ml(fast):
    network = make_network()
    with torch.no_grad():
        next(network.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="scores are NaN or infinite"):
        Predictor([network], fast=fast).segment(make_scan())
