"""Disease made in lungs: as much as was asked for, where it belongs, and nothing else touched."""

import dataclasses

import numpy as np
import pytest

from deeplung_nb.imaging.body import noise_hu
from deeplung_nb.imaging.made_disease import (
    BRONCHUS_HU,
    KINDS,
    TEXTURES,
    MadeLesion,
    make_disease,
)
from deeplung_nb.labels import GGO, HIGH_OPACITY
from deeplung_nb.learning import made
from deeplung_nb.learning.dataset import PreparedCase, SliceSampler, cut_windows
from deeplung_nb.learning.made import make_in_windows, random_lesion
from deeplung_nb.runs.config import TrainingConfig

VOXEL_MM = (5.0, 3.0, 3.0)


@pytest.fixture(scope="module")
def chest():
    """HU, labels and lungs of two ellipsoids of lung with vessels, in soft tissue with noise."""
    rng = np.random.default_rng(1)
    z, y, x = np.mgrid[:40, :80, :110]
    lungs = np.zeros(z.shape, bool)
    for centre in (30, 80):
        lungs |= ((z - 20) / 18) ** 2 + ((y - 40) / 30) ** 2 + ((x - centre) / 20) ** 2 < 1
    hu = np.where(lungs, -850.0, 50.0)
    hu[lungs & ((y + 3 * x) % 17 < 2)] = 0.0  # vessels
    hu += rng.normal(0, 10, hu.shape)
    return hu.round().astype(np.int16), np.zeros(hu.shape, np.uint8), lungs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texture", TEXTURES)
def test_a_lesion_takes_the_share_that_was_asked_for_and_nothing_outside_the_lungs(
        chest, kind, texture):
    hu, labels, lungs = chest
    for hu_full, code in ((20.0, HIGH_OPACITY.code), (-500.0, GGO.code)):
        lesion = MadeLesion(kind, 0.2, hu_full, texture=texture, seed=3)
        made, truth = make_disease(hu, labels, lungs, VOXEL_MM, lesion)
        assert (truth == code).sum() / lungs.sum() == pytest.approx(0.2, abs=1e-3)
        assert np.array_equal(truth > 0, (truth > 0) & lungs)
        assert np.array_equal(made[~lungs], hu[~lungs])
        assert made.dtype == np.float32
        if texture != "bronchograms":
            assert (made >= hu).all()


def test_dense_lesions_have_their_density_and_the_noise_of_the_scan(chest):
    hu, labels, lungs = chest
    made, truth = make_disease(hu, labels, lungs, VOXEL_MM, MadeLesion("dependent", 0.37, 30.0))
    inside = made[truth > 0]
    assert np.median(inside) == pytest.approx(30, abs=8)
    assert noise_hu(hu) == pytest.approx(10, abs=1.5)
    assert noise_hu(made) == pytest.approx(10, abs=2.5)


def test_what_is_dependent_lies_behind_on_the_side_that_was_asked_for(chest):
    hu, labels, lungs = chest
    rows = np.nonzero(lungs)[1]
    for side, left in (("left", True), ("right", False), ("both", None)):
        _, truth = make_disease(hu, labels, lungs, VOXEL_MM,
                                MadeLesion("dependent", 0.3, 0.0, side=side, seed=5))
        _, y, x = np.nonzero(truth)
        assert y.mean() > np.percentile(rows, 70)
        assert left is None or ((x >= 55) == left).all()


def test_a_patch_stays_in_one_lung_and_a_crescent_at_the_pleura(chest):
    hu, labels, lungs = chest
    for seed in range(6):
        _, truth = make_disease(hu, labels, lungs, VOXEL_MM,
                                MadeLesion("patch", 0.1, -50.0, seed=seed))
        assert len(np.unique(np.nonzero(truth)[2] >= 55)) == 1
    inner = lungs.copy()
    for _ in range(6):
        inner[:, 1:-1] = inner[:, 1:-1] & inner[:, :-2] & inner[:, 2:]
        inner[..., 1:-1] = inner[..., 1:-1] & inner[..., :-2] & inner[..., 2:]
    _, truth = make_disease(hu, labels, lungs, VOXEL_MM, MadeLesion("crescent", 0.08, -50.0))
    assert (inner & (truth > 0)).sum() < 0.25 * (truth > 0).sum()


def test_a_patch_of_one_side_ends_at_no_line_in_its_lung(chest):
    hu, labels, lungs = chest
    shares = []
    for seed in range(6):
        _, truth = make_disease(hu, labels, lungs, VOXEL_MM,
                                MadeLesion("patch", 0.4, -50.0, side="right", seed=seed))
        shares.append((np.nonzero(truth)[2] >= 30).mean())  # the right lung's own middle
    assert sum(0.05 < share < 0.95 for share in shares) >= 3


def test_vessels_shine_through_ground_glass_and_air_through_consolidation(chest):
    hu, labels, lungs = chest
    faint, truth = make_disease(hu, labels, lungs, VOXEL_MM,
                                MadeLesion("patch", 0.3, -550.0, opacity=0.6))
    vessels = (truth > 0) & (hu > -200)
    assert np.array_equal(faint[vessels], hu[vessels])
    dense, truth = make_disease(hu, labels, lungs, VOXEL_MM,
                                MadeLesion("patch", 0.3, 30.0, texture="bronchograms"))
    share = (dense[truth > 0] < 0.7 * BRONCHUS_HU).mean()
    assert 0.003 < share < 0.15


def test_consolidation_that_is_there_stays(chest):
    hu, labels, lungs = chest
    first, there = make_disease(hu, labels, lungs, VOXEL_MM, MadeLesion("dependent", 0.3, 30.0))
    second, both = make_disease(first, there, lungs, VOXEL_MM,
                                MadeLesion("dependent", 0.6, -500.0, seed=2))
    assert np.array_equal(both == HIGH_OPACITY.code, there == HIGH_OPACITY.code)
    assert (both == GGO.code).sum() > 0.2 * lungs.sum()
    assert np.array_equal(second[there > 0], first[there > 0])


def test_a_seed_decides_everything(chest):
    lesion = MadeLesion("lobules", 0.1, -100.0, seed=9)
    one, again = (make_disease(*chest, VOXEL_MM, lesion)[0] for _ in range(2))
    assert np.array_equal(one, again)
    other = make_disease(*chest, VOXEL_MM, dataclasses.replace(lesion, seed=10))[0]
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(("changes", "named"), [
    ({"kind": "nodule"}, "patch"), ({"share": 1.0}, "below 1"), ({"share": 0.0}, "above 0"),
    ({"opacity": 1.2}, "opacity"), ({"side": "top"}, "left"), ({"texture": "x"}, "net")])
def test_a_lesion_that_can_not_be_is_refused(changes, named):
    with pytest.raises(ValueError, match=named):
        MadeLesion(**{"kind": "patch", "share": 0.1, "hu": 0.0, **changes})


def test_arrays_of_other_shapes_are_refused_and_no_lungs_change_nothing(chest):
    hu, labels, lungs = chest
    lesion = MadeLesion("patch", 0.1, 0.0)
    with pytest.raises(ValueError, match="one shape"):
        make_disease(hu, labels[1:], lungs, VOXEL_MM, lesion)
    made, truth = make_disease(hu, labels, np.zeros_like(lungs), VOXEL_MM, lesion)
    assert np.array_equal(made, hu)
    assert not truth.any()


def windows(chest, config, seed=0, sees=range(-2, 3)):
    hu, labels, lungs = chest
    cases = [PreparedCase("a", hu, labels, lungs=lungs), PreparedCase("b", hu, labels),
             PreparedCase("c", hu[20:21], labels[20:21], "slice", lungs[20:21])]
    picks = [(0, 20), (1, 20), (2, 0), (0, 0)]
    window, target = cut_windows(cases, picks, sees, range(1))
    before = window.numpy().copy()
    make_in_windows(window, target, cases, picks, sees, range(1), config,
                    np.random.default_rng(seed))
    return before, window.numpy(), target.numpy()


def test_windows_are_changed_where_lungs_are_known_and_seen(chest):
    config = TrainingConfig(made_fraction=1.0)
    before, window, target = windows(chest, config)
    changed = [not np.array_equal(a, b) for a, b in zip(before, window, strict=True)]
    assert changed == [True, False, True, False]  # no lung mask; no lung in the slice
    assert set(np.unique(target[0])) == {0, HIGH_OPACITY.code}
    # What is scored is what is seen there: the middle slice of the window.
    lesion = target[0, 0] == HIGH_OPACITY.code
    assert (window[0, 2][lesion] > -400).mean() > 0.7
    assert np.array_equal(window[2, 0], window[2, 4])  # a slice without neighbours


def test_what_is_made_does_not_hang_on_the_pixels_of_the_picture(chest, monkeypatch):
    seen = []

    def note(hu, labels, lungs, voxel_mm, lesion):
        seen.append(voxel_mm[1] * hu.shape[-1])
        return make_disease(hu, labels, lungs, voxel_mm, lesion)

    monkeypatch.setattr(made, "make_disease", note)
    half = tuple(np.ascontiguousarray(array[:, ::2, ::2]) for array in chest)
    for arrays in (chest, half):
        before, window, _ = windows(arrays, TrainingConfig(made_fraction=1.0))
        assert not np.array_equal(before[0], window[0])
    assert seen == pytest.approx([made.PICTURE_MM] * len(seen))


def test_a_training_without_known_lungs_can_have_no_made_disease(chest):
    hu, labels, _ = chest
    with pytest.raises(ValueError, match="lungs of no training case"):
        SliceSampler([PreparedCase("b", hu, labels)], TrainingConfig(made_fraction=0.1), 0)


def test_no_window_is_changed_where_none_is_asked_for(chest):
    before, window, target = windows(chest, TrainingConfig())
    assert np.array_equal(before, window)
    assert not target.any()
    _, _, target = windows(chest, TrainingConfig(made_fraction=1.0, made_dense=0.0))
    assert set(np.unique(target)) == {0, GGO.code}


def test_drawn_lesions_are_of_every_kind_and_of_the_class_asked_for():
    rng = np.random.default_rng(2)
    for dense in (True, False):
        drawn = [random_lesion(dense, rng) for _ in range(80)]
        assert {lesion.kind for lesion in drawn} == set(KINDS)
        assert {lesion.code for lesion in drawn} == {(GGO, HIGH_OPACITY)[dense].code}
