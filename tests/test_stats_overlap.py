"""Overlap: counts by hand, the policies for empty masks, surface distances by brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from deeplung_nb.stats import overlap, surface
from deeplung_nb.stats.overlap import Confusion


def test_counts_by_hand():
    reference = np.array([[[1, 1, 0, 0]]], dtype=bool)
    predicted = np.array([[[1, 0, 1, 0]]], dtype=bool)
    assert overlap.confusion(reference, predicted) == Confusion(1, 1, 1, 1)


def test_masks_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match="one grid"):
        overlap.confusion(np.ones((2, 3)), np.ones((1, 3)))


def test_merging_the_classes_comes_before_the_comparison():
    expert, model = np.full((1, 2, 2), 1), np.full((1, 2, 2), 2)
    scores = overlap.dice(expert, model, ["ggo", "high_opacity", "lesion", "background", 1])
    assert scores["ggo"] == scores["high_opacity"] == scores[1] == 0
    assert scores["lesion"] == 1
    assert np.isnan(scores["background"])
    with pytest.raises(ValueError, match="label 7"):
        overlap.dice(expert, model, [7])


@pytest.mark.parametrize(("case", "expected"), [
    (Confusion(0, 0, 0), {"nan": np.nan, "zero": 0, "one": 1, "nan_reference": np.nan}),
    (Confusion(0, 4, 0), {"nan": 0, "zero": 0, "one": 0, "nan_reference": np.nan}),
    (Confusion(0, 0, 4), {"nan": 0, "zero": 0, "one": 0, "nan_reference": 0}),
])
def test_policies_for_empty_masks(case, expected):
    for policy, value in expected.items():
        np.testing.assert_equal(case.dice(policy), float(value))
    with pytest.raises(ValueError, match="empty='skip'"):
        case.dice("skip")


def test_summary_counts_each_kind_of_emptiness():
    found = overlap.summary([Confusion(8, 2, 2), Confusion(0, 0, 0), Confusion(0, 3, 0),
                             Confusion(0, 0, 5)])
    assert (found.n, found.n_scored) == (4, 3)
    assert (found.n_both_empty, found.n_reference_empty, found.n_prediction_empty) == (1, 1, 1)
    assert found.dice_pooled == pytest.approx(16 / 28)
    assert found.dice_mean == pytest.approx(0.8 / 3)
    assert found.sensitivity_pooled == pytest.approx(8 / 15)
    assert found.precision_pooled == pytest.approx(8 / 13)


def test_pooling_counts_false_alarms_in_healthy_scans_unless_told():
    cases = [Confusion(10, 0, 0), Confusion(0, 10, 0)]
    assert overlap.pooled_dice(cases) == pytest.approx(2 / 3)
    assert overlap.pooled_dice(cases, empty="nan_reference") == 1
    assert np.isnan(overlap.pooled_dice([]))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1), st.floats(0, 1))
def test_dice_is_symmetric_and_agrees_with_its_counts(seed, share, other):
    rng = np.random.default_rng(seed)
    a, b = rng.random((3, 4, 5)) < share, rng.random((3, 4, 5)) < other
    there, back = overlap.confusion(a, b), overlap.confusion(b, a)
    np.testing.assert_equal(there.dice(), back.dice())
    assert there.tp + there.fp + there.fn + there.tn == a.size
    assert (there.reference_voxels, there.predicted_voxels) == (a.sum(), b.sum())


def brute_force(a, b, spacing, tolerance):
    """By distance transforms over the whole grid of corners, and area piece by piece."""
    areas, sides = surface._areas_of_cells(tuple(spacing)), []
    for mask in (a, b):
        padded = np.pad(mask, 1).astype(int)
        sides.append(sum(padded[z:z - 1 or None, y:y - 1 or None, x:x - 1 or None] << bit
                         for bit, (z, y, x) in enumerate(surface.CORNERS)))
    at = [(code > 0) & (code < 255) for code in sides]
    to = [ndimage.distance_transform_edt(~here, sampling=spacing) for here in at]
    far = to[1][at[0]], to[0][at[1]]
    weight = [areas[code[here]] for code, here in zip(sides, at, strict=True)]
    met = sum(w[d <= tolerance + 1e-9].sum() for d, w in zip(far, weight, strict=True))
    farthest = [min(end for end in np.unique(d) if w[d <= end].sum() >= 0.95 * w.sum())
                for d, w in zip(far, weight, strict=True)]
    return max(farthest), met / sum(w.sum() for w in weight)


@pytest.mark.parametrize("seed", range(6))
def test_surface_distances_agree_with_distance_transforms(seed):
    rng = np.random.default_rng(seed)
    smooth = [ndimage.gaussian_filter(rng.normal(size=(12, 20, 18)), 2) for _ in range(2)]
    a, b = (field > 0.01 for field in smooth)
    spacing, tolerance = (5.0, 0.7, 0.8), (0.0, 1.4, 3.0)[seed % 3]
    np.testing.assert_allclose(
        surface.hd95_and_nsd(a, b, spacing, tolerance_mm=tolerance),
        brute_force(a, b, spacing, tolerance), rtol=1e-12)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 0.7, 0.7), (1.0, 2.0, 3.0)])
def test_areas_and_surface_dice_are_those_of_monai(spacing):
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("monai.metrics")
    table, kernel = metrics.utils.create_table_neighbour_code_to_surface_area(list(spacing))
    bits = kernel.numpy().ravel()  # value of each corner in MONAI's codes
    theirs = [sum(int(bits[k]) for k in range(8) if code >> k & 1) for code in range(256)]
    np.testing.assert_allclose(surface._areas_of_cells(tuple(spacing)), table.numpy()[theirs],
                               rtol=1e-6)
    rng = np.random.default_rng(1)
    a = ndimage.gaussian_filter(rng.normal(size=(20, 40, 40)), 3) > 0.005
    b = np.roll(a, 1, axis=0)
    batch = [torch.tensor(mask)[None, None].float() for mask in (b, a)]
    for tolerance in (0.5 * spacing[0], 3.0):
        wanted = metrics.compute_surface_dice(*batch, [tolerance], include_background=True,
                                              spacing=spacing, use_subvoxels=True)
        _, found = surface.hd95_and_nsd(a, b, spacing, tolerance_mm=tolerance)
        assert found == pytest.approx(float(wanted), abs=1e-6)


def test_the_area_of_a_box_and_what_is_met_of_it():
    """A plate of 10 x 10 x 1 voxels, moved by its thickness: its faces are met, half its rim."""
    plate = np.zeros((6, 14, 14), bool)
    plate[2, 2:12, 2:12] = True
    _, area = surface._surface(plate, (5.0, 1.0, 1.0))
    assert area.sum() == pytest.approx(2 * 100 + 4 * 50, rel=0.12)  # corners are cut off
    moved = np.roll(plate, 1, axis=0)
    assert surface.hd95_and_nsd(plate, moved, (5.0, 1.0, 1.0))[1] == pytest.approx(0.5, abs=0.01)
    assert surface.hd95_and_nsd(plate, moved, (5.0, 1.0, 1.0), tolerance_mm=5)[1] == 1
    assert surface.tolerance_of_readers(plate, moved, (5.0, 1.0, 1.0)) == 5
    assert np.isnan(surface.tolerance_of_readers(plate, plate & False, (5.0, 1.0, 1.0)))
    with pytest.raises(ValueError, match=r"masks \[z, y, x\]"):
        surface.hd95_and_nsd(plate[0], plate[0], (1.0, 1.0))


def test_a_shift_is_found_in_mm_along_its_own_axis():
    a = np.zeros((20, 20, 20), dtype=bool)
    a[5:10, 5:10, 5:10] = True
    for axis, spacing in enumerate((5.0, 2.0, 0.5)):
        b = np.roll(a, 2, axis=axis)
        hd95, _ = surface.hd95_and_nsd(a, b, (5.0, 2.0, 0.5))
        assert hd95 == 2 * spacing


def test_surface_distances_of_empty_masks():
    empty, full = np.zeros((2, 3, 3), dtype=bool), np.ones((2, 3, 3), dtype=bool)
    assert np.isnan(surface.hd95_and_nsd(empty, empty, (1, 1, 1))).all()
    for pair in ((empty, full), (full, empty)):
        hd95, nsd = surface.hd95_and_nsd(*pair, (1, 1, 1))
        assert np.isnan(hd95)
        assert nsd == 0
    assert surface.hd95_and_nsd(full, full, (1, 1, 1)) == (0, 1)
    with pytest.raises(ValueError, match="positive"):
        surface.hd95_and_nsd(full, full, (0, 1, 1))
