"""Windows, augmentation and the draw of slices."""

import numpy as np
import pytest
import torch

from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.preprocess import window_indices
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.learning.dataset import (
    PreparedCase,
    SliceSampler,
    augment,
    cut_windows,
    normalise,
    prepare_case,
    random_affine,
    read_prepared,
    write_prepared,
)
from deeplung_nb.runs.config import TrainingConfig

TWO, ONE = range(-2, 3), range(1)


def make_case(n_slices=8, size=16, case_id="A"):
    hu = np.full((n_slices, size, size), -1000, np.int16)
    hu += np.arange(n_slices, dtype=np.int16)[:, None, None]
    target = np.zeros((n_slices, size, size), np.uint8)
    target[2:4, 5:9, 5:9] = 1
    target[5, 5:9, 5:9] = 2
    return PreparedCase(case_id, hu, target)


def test_windows_repeat_the_end_slices():
    five = range(-5, 6)
    assert window_indices(0, 20, five).tolist() == [0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5]
    assert window_indices(18, 20, five).tolist() == [13, 14, 15, 16, 17, 18, 19, 19, 19, 19, 19]
    assert window_indices(0, 1, five).tolist() == [0] * 11


def test_the_middle_of_a_window_is_its_target_slice():
    case = make_case()
    hu, target = cut_windows([case], [(0, 3), (0, 7)], TWO, ONE)
    assert hu.shape == (2, 5, 16, 16)
    assert hu[:, :, 0, 0].tolist() == [
        [-999, -998, -997, -996, -995], [-995, -994, -993, -993, -993]]
    assert target[0].sum() == 16
    assert target[1].sum() == 0


def test_a_slab_has_a_target_for_each_of_its_slices():
    case, slab = make_case(), range(-2, 2)
    hu, target = cut_windows([case], [(0, 4), (0, 7)], slab, slab)
    assert hu.shape == target.shape == (2, 4, 16, 16)
    assert target[0].amax(dim=(1, 2)).tolist() == [1, 1, 0, 2]
    assert hu[1, :, 0, 0].tolist() == [-995, -994, -993, -993]


def test_normalise_clips_to_the_window_of_the_paper():
    values = normalise(torch.tensor([-3000.0, -1024.0, -212.0, 600.0, 3000.0]))
    torch.testing.assert_close(values, torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]))


def test_no_augmentation_is_the_identity():
    config = TrainingConfig(rotation_degrees=0, translation_pixels=0, scale_range=(1.0, 1.0))
    hu, target = cut_windows([make_case()], [(0, 3)], TWO, ONE)
    moved, moved_target = augment(hu, target, config, np.random.default_rng(0))
    torch.testing.assert_close(moved, hu)
    assert (moved_target == target).all()


def test_augmentation_moves_every_slice_of_a_window_and_the_target_together():
    case = make_case(size=64)
    hu = np.where(case.target == 1, 0, -1024).astype(np.int16)
    hu[:] = hu[2]
    case = PreparedCase("A", hu, case.target)
    windows, target = cut_windows([case], [(0, 2)] * 4, TWO, ONE)
    moved, moved_target = augment(windows, target, TrainingConfig(), np.random.default_rng(1))
    assert (moved_target != target).any()
    for k in range(5):
        torch.testing.assert_close(moved[:, k], moved[:, 0])
    inside = moved[:, 0][moved_target[:, 0] == 1]
    outside = moved[:, 0][moved_target[:, 0] == 0]
    assert inside.mean() > -400
    assert outside.mean() < -1000


def test_a_moved_target_has_no_class_between_two():
    """High opacity turned by some degrees: no rim of ground glass (1) between 2 and 0 appears."""
    target = torch.zeros(6, 1, 64, 64, dtype=torch.uint8)
    target[..., 20:44, 20:44] = 2
    _, moved = augment(torch.zeros(6, 1, 64, 64), target, TrainingConfig(),
                       np.random.default_rng(1))
    assert set(moved.unique().tolist()) == {0, 2}
    assert not (moved == target).all()


def test_a_prepared_case_has_the_hu_of_the_scan_and_the_classes_of_its_mask():
    hu = np.full((2, 32, 32), -1000, np.int16)
    hu[:, 2:30, 2:30] = 40
    hu[:, 8:24, 8:24] = -850
    labels = np.zeros(hu.shape, np.uint8)
    labels[1, 10:20, 10:20] = 2
    scan = Scan(hu, Grid.upright(hu.shape, (5.0, 8.0, 8.0)), "c")
    case = prepare_case(scan, LesionMask.like(scan, labels), 64)
    assert case.hu[0, 32, 32] == -850
    assert np.isin([40, -850], case.hu).all()
    assert case.hu.min() >= -1024
    assert case.target[1, 30, 30] == 2
    assert case.target[0].max() == 0
    assert case.source == "volume"


def test_random_transforms_stay_in_the_range_of_the_paper():
    config = TrainingConfig()
    theta = random_affine(500, 256, config, np.random.default_rng(0)).double()
    linear = theta[:, :, :2]
    scale = 1 / torch.linalg.det(linear).sqrt()
    angle = torch.rad2deg(torch.atan2(linear[:, 0, 1], linear[:, 0, 0]))
    # A point at the centre moves by the translation: solve theta(out) = 0 for out.
    centre = torch.linalg.solve(linear, -theta[:, :, 2]) * 256 / 2
    assert 0.9 - 1e-6 <= scale.min() < 0.92
    assert 1.03 < scale.max() <= 1.05 + 1e-6
    assert angle.abs().max() <= 10 + 1e-4
    assert angle.abs().max() > 9
    assert 9 < centre.abs().max() <= 10 + 1e-3


def test_what_comes_in_from_outside_is_air_and_background():
    config = TrainingConfig(rotation_degrees=0, translation_pixels=10, scale_range=(0.9, 0.9))
    hu = torch.zeros(4, 3, 32, 32)
    moved, moved_target = augment(hu, torch.ones(4, 1, 32, 32, dtype=torch.uint8), config,
                                  np.random.default_rng(0))
    assert moved.min() == -1024
    assert moved_target.min() == 0


def test_the_draw_is_a_function_of_seed_and_epoch():
    config = TrainingConfig(steps_per_epoch=3, batch_slices=4, lesion_fraction=0.5)

    def draw(seed, epoch):
        return [picks for picks, _ in SliceSampler([make_case()], config, seed).batches(epoch)]

    assert draw(1, 0) == draw(1, 0)
    assert draw(1, 0) != draw(1, 1)
    assert draw(1, 0) != draw(2, 0)


def test_batches_hold_the_asked_share_of_lesion_slices_half_of_them_with_high_opacity():
    config = TrainingConfig(steps_per_epoch=5, batch_slices=8, lesion_fraction=0.75)
    for picks, _ in SliceSampler([make_case()], config, 0).batches(0):
        assert sum(z in (2, 3) for _, z in picks) == 3
        assert sum(z == 5 for _, z in picks) == 3


def test_without_a_class_slices_come_as_they_are():
    case = make_case()
    mild = PreparedCase("mild", case.hu, np.minimum(case.target, 1))
    config = TrainingConfig(steps_per_epoch=2, batch_slices=4, lesion_fraction=0.5)
    shown = [pick for picks, _ in SliceSampler([mild], config, 0).batches(0) for pick in picks]
    assert sorted(z for _, z in shown) == list(range(8))


def test_without_a_share_an_epoch_shows_every_slice_once():
    config = TrainingConfig(batch_slices=4)
    sampler = SliceSampler([make_case(), make_case(case_id="B")], config, 0)
    shown = [pick for picks, _ in sampler.batches(0) for pick in picks]
    assert sampler.steps == 4
    assert sorted(shown) == sorted(sampler.every)


def test_nothing_to_train_on_is_said():
    with pytest.raises(ValueError, match="no case to train on"):
        SliceSampler([], TrainingConfig(), 0)


def test_prepared_cases_survive_on_disk(tmp_path):
    case = make_case()
    assert read_prepared("A", tmp_path) is None
    write_prepared(case, tmp_path)
    again = read_prepared("A", tmp_path)
    np.testing.assert_array_equal(again.hu, case.hu)
    np.testing.assert_array_equal(again.target, case.target)
