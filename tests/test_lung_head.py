"""The lungs as the network marks them: head, loss, training, and the way to a scan's own grid."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.lungs import LungMask, large_lungs
from deeplung_nb.imaging.plausibility import apart
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.labels import NO_ANSWER
from deeplung_nb.learning.dataset import (
    PreparedCase,
    cut_lungs,
    prepare_case,
    read_prepared,
    write_prepared,
)
from deeplung_nb.learning.train import train
from deeplung_nb.network.checkpoint import CHECKPOINT, load_network
from deeplung_nb.network.deeplung import DeepLungNet
from deeplung_nb.network.losses import LungLoss
from deeplung_nb.reading.predict import Predictor
from deeplung_nb.runs.config import Config, NetworkConfig, TrainingConfig

MARKS = NetworkConfig(image_size=64, n_neighbours=1, hidden=2, trunk="mobilenet_v2", lungs=True)


def make_network(seed=0, **changes):
    torch.manual_seed(seed)
    return DeepLungNet(dataclasses.replace(MARKS, **changes)).eval()


def make_scan(n_slices=6, size=96):
    """A body of 0 HU in air with two boxes of lung; and the lungs."""
    hu = np.full((n_slices, size, size), -1000, np.int16)
    hu[:, 12:84, 8:88] = 0
    lungs = np.zeros(hu.shape, bool)
    lungs[1:-1, 30:70, 16:40] = lungs[1:-1, 30:70, 56:80] = True
    hu[lungs] = -850
    return Scan(hu, Grid.upright(hu.shape, (5.0, 3.0, 3.0)), "boxes"), lungs


def test_a_network_marks_lungs_at_the_stride_of_its_trunk_where_the_settings_say_so():
    window = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert make_network()(window).lungs.shape == (2, 1, 16, 16)
        assert make_network(attention=False)(window[:, 1:2]).lungs.shape == (2, 1, 16, 16)
        assert make_network(lungs=False)(window).lungs is None


def test_no_lesion_is_where_the_lungs_are_not():
    """Chances by hand: that of the lung times the odds of a lesion, for each branch and both."""
    network = make_network()
    window = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        scores = network(window)
        plain = make_network()
        plain.load_state_dict(network.state_dict())
        plain.lung_head[-1].weight.zero_()
        plain.lung_head[-1].bias.fill_(50.0)  # lung everywhere
        free = plain(window)
        lung = torch.sigmoid(functional.interpolate(scores.lungs, (64, 64), mode="bilinear"))
        for name in ("fused", "main"):
            odds = [torch.exp(getattr(one, name)[:, 1:] - getattr(one, name)[:, :1])
                    for one in (scores, free)]
            torch.testing.assert_close(odds[0], odds[1] * lung, rtol=1e-3, atol=1e-6)
        network.lung_head[-1].weight.zero_()
        network.lung_head[-1].bias.fill_(-50.0)
        assert torch.softmax(network(window).fused, dim=1)[:, 1:].max() < 1e-6


def test_the_fast_way_marks_the_same_lungs():
    slices = np.random.default_rng(0).random((5, 64, 64), dtype=np.float32)
    fast, plain = (Predictor([make_network(), make_network(1)], batch=2, fast=fast)
                   for fast in (True, False))
    for one, other in zip(fast.read_batches(slices), plain.read_batches(slices), strict=True):
        np.testing.assert_allclose(one[0], other[0], atol=1e-4)
        np.testing.assert_allclose(one[1], other[1], atol=1e-3, rtol=1e-3)


def test_logits_of_the_lungs_are_the_mean_of_the_networks_and_of_all_or_none():
    slices = np.random.default_rng(0).random((3, 64, 64), dtype=np.float32)

    def logits(*networks):
        (_, found), = Predictor(networks, batch=3).read_batches(slices)
        return found

    np.testing.assert_allclose(logits(make_network(), make_network(1)),
                               (logits(make_network()) + logits(make_network(1))) / 2, atol=1e-5)
    assert logits(make_network(), make_network(1, lungs=False)) is None


def test_the_loss_of_the_lungs_by_hand():
    """All logits 0: half a chance everywhere, two of four pixels are lung."""
    target = torch.tensor([[[1, 1], [0, 0]]], dtype=torch.uint8)
    dice = 1 - (2 * 1.0 + 1e-5) / (2 + 2 + 1e-5)
    found = LungLoss()(torch.zeros(1, 1, 1, 1), target)
    assert found.item() == pytest.approx(np.log(2) + dice, rel=1e-5)


def test_lungs_that_nobody_marked_teach_nothing():
    target = torch.full((2, 32, 32), NO_ANSWER, dtype=torch.uint8)
    target[0, :, :16] = 1
    logits = torch.zeros(2, 1, 8, 8, requires_grad=True)
    LungLoss()(logits, target).backward()
    assert logits.grad[0, 0, :, :4].abs().min() > 0
    assert not logits.grad[1].any()
    assert not logits.grad[0, 0, :, 5:].any()
    logits.grad = None
    nothing = LungLoss()(logits, torch.full_like(target, NO_ANSWER))
    nothing.backward()
    assert nothing.item() == 0.0
    assert not logits.grad.any()


def test_lungs_that_no_reader_marked_are_taught_where_they_are_sure_alone(tmp_path):
    """Found by threshold, or not at all, with a lesion beside them."""
    scan, lungs = make_scan()
    labels = np.zeros(scan.shape, np.uint8)
    labels[2, 30:70, 41:49] = 2
    mask = LesionMask.like(scan, labels)
    cases = []
    for name, origin in (("a", "reference"), ("b", "built-in"), ("c", None)):
        given = LungMask.like(scan, lungs, origin) if origin else None
        write_prepared(dataclasses.replace(prepare_case(scan, mask, 32, given), case_id=name),
                       tmp_path)
        cases.append(read_prepared(name, tmp_path))
    marked, found, none, above = cut_lungs(cases, [(0, 2), (1, 2), (2, 2), (0, 0)], range(1))[:, 0]
    inside, lesion = (torch.from_numpy(np.array(array)) for array in (
        cases[0].lungs[2], cases[0].target[2] == 2))
    assert lesion.any()
    assert inside.any()
    assert ((marked == 1) == inside).all()
    assert ((marked == 0) == ~inside).all()
    assert ((found == 1) == (inside | lesion)).all()
    assert ((none == 1) == lesion).all()
    for unsure in (found, none):
        assert (unsure[unsure != 1] == NO_ANSWER).all()
    assert not above.any()


def test_a_short_training_finds_the_lungs_of_another_case(tmp_path):
    """Boxes of other places and sizes, with a dense half: the lungs stay whole."""
    rng = np.random.default_rng(0)

    def box(name):
        y, x, h, w = rng.integers((10, 8, 20, 10), (20, 16, 30, 14))
        inside = np.zeros((4, 64, 64), bool)
        inside[:, y:y + h, x:x + w] = inside[:, y:y + h, x + 26:x + 26 + w] = True
        hu = np.where(inside, -850, 0) + rng.normal(0, 20, inside.shape)
        target = np.zeros(inside.shape, np.uint8)
        target[2:, y + h // 2:] = 2 * inside[2:, y + h // 2:]
        hu[target == 2] = 30
        return PreparedCase(name, hu.astype(np.int16), target, lungs=inside, lungs_marked=True)

    cases, other = [box(f"c{k}") for k in range(6)], box("other")
    config = Config(
        profile="test", cohorts=("none",), network=dataclasses.replace(MARKS, attention=False,
                                                                       output="softmax"),
        training=TrainingConfig(optimiser="adamw", schedule="cosine", keep="last", max_epochs=4,
                                steps_per_epoch=15, batch_slices=8, learning_rate=3e-3,
                                region_weight=0.0, class_weight=1.0, lung_weight=1.0,
                                translation_pixels=3.0))
    train(cases, [], config, tmp_path, seed=1, progress=False, device=torch.device("cpu"))
    network = load_network(tmp_path / CHECKPOINT)
    picture = torch.from_numpy(np.clip((other.hu + 1024) / 1624, 0, 1).astype(np.float32))
    with torch.no_grad():
        logits = functional.interpolate(network(picture[:, None]).lungs, (64, 64), mode="bilinear")
    found = (logits[:, 0] > 0).numpy()
    for z, least in ((0, 0.9), (3, 0.8)):  # aerated; half of it dense
        both = 2 * (found[z] & other.lungs[z]).sum()
        assert both / (found[z].sum() + other.lungs[z].sum()) > least


class Marks(Predictor):
    """Sees lungs where it is told to, on a grid of 16."""

    def __init__(self, logits):
        self.logits, self.image_size = logits, 64

    def read_batches(self, prepared, progress=None):
        for z in range(len(prepared)):
            scores = np.zeros((1, 1, 3, 64, 64), np.float32)
            scores[:, :, 0] = 1.0
            yield scores, None if self.logits is None else self.logits[z:z + 1]

    def decide(self, scores):
        return scores.mean(axis=0)


def test_lungs_lie_on_the_scan_where_the_network_saw_them():
    scan, _ = make_scan()
    logits = np.full((6, 16, 16), -4.0, np.float32)
    logits[1:5, 4:12, 2:7] = 4.0
    found = Marks(logits).read(scan).lungs
    assert found.origin == "network"
    assert not found.mask[[0, 5]].any()
    # The box of the picture is the body's, 80 pixels and margins: a cell is some 5.3 pixels.
    y, x = np.nonzero(found.mask[2])
    side = 84 / 16
    for edge, wanted in ((y.min(), 4), (y.max(), 12), (x.min(), 2), (x.max(), 7)):
        origin = 48 - 42
        assert abs(edge - (origin + wanted * side)) < 3
    assert Marks(None).read(scan).lungs is None
    assert Marks(np.full_like(logits, -1.0)).read(scan).lungs is None
    everywhere = Marks(np.ones_like(logits)).read(scan).lungs
    assert not everywhere.mask[scan.hu == -1000].any()  # nothing outside the patient


def test_small_parts_are_no_lungs_and_what_is_outside_stays_outside():
    logits = np.full((3, 12, 12), -2.0, np.float32)
    logits[:, 2:8, 1:5] = logits[:, 2:8, 7:11] = 3.0
    logits[0, 10, 0] = 1.0
    kept = large_lungs(logits)
    assert kept[0, 10, 0] == -1.0
    kept[0, 10, 0] = 1.0
    np.testing.assert_array_equal(kept, logits)
    np.testing.assert_array_equal(large_lungs(np.full_like(logits, -1.0)), -1.0)


def test_lungs_that_shrink_are_told_whoever_lost_them():
    scan, lungs = make_scan()
    half = lungs & (np.arange(96) < 48)
    whole, less = (LungMask.like(scan, mask, "network") for mask in (lungs, half))
    ml = lungs.sum() * scan.voxel_mm3 / 1000
    assert apart(scan, whole, whole) is None
    for found, marked in ((whole, less), (less, whole)):
        said = apart(scan, found, marked)
        assert f"{ml:.0f} mL" in said
        assert f"{ml / 2:.0f} mL" in said
    assert "of 0 mL by threshold" in apart(scan, None, whole)
