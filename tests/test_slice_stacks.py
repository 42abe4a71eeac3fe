"""Published stacks of isolated slices: each slice becomes a picture with its own row."""

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from deeplung_nb.cohorts.adapters import make_manifest
from deeplung_nb.cohorts.cases import read_external_slice, read_for_training
from deeplung_nb.cohorts.manifest import read_manifest
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.slice_stacks import lay_out_stack, lung_box
from deeplung_nb.imaging.slices import SliceLayout
from deeplung_nb.learning.estimate import score_external_slices
from deeplung_nb.network.packaged import packaged_checkpoints
from deeplung_nb.runs.registry import read_registry

READERS = ("STAPLE", "1", "2", "3")


def upright(number):
    """A slice [Y, X]: air, body, two lungs, a spine below; ground glass in the left of the picture,
    a dense spot that touches the pleura."""
    hu = np.full((128, 128), -1000.0)
    hu[20:110, 10:118] = 40
    hu[30:90, 18:56] = hu[30:90, 70:110] = -850
    hu[92:106, 58:70] = 400
    mask = np.zeros(hu.shape, np.uint8)
    mask[50:60 + number, 24:34] = 1
    mask[84:92, 74:90] = 2  # beyond the aerated lung: the crop must keep it
    hu[mask == 1], hu[mask == 2] = -600 + number, 30
    return hu, mask


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def layout_of(name):
    return SliceLayout(**read_registry()[name]["slices"])


def longciu(folder, n=3, twin=False):
    slices, masks = map(np.stack, zip(*map(upright, range(n)), strict=True))
    if twin:
        slices[2], masks[2] = slices[0], masks[0]
    write(folder / "longciu_img.nii.gz", slices.astype(np.int16))
    for k, name in enumerate(READERS):
        shifted = np.roll(masks, k, axis=1)
        write(folder / f"longciu_{name}_tgt.nii.gz", shifted)
    return slices, masks


def read_longciu(folder, tmp_path):
    path, = make_manifest("longciu", folder, tmp_path / "out", overwrite=True)
    return path, read_manifest(path, folder, mask_codes={1: 1, 2: 2}, slices=layout_of("longciu"))


def test_each_slice_of_longciu_is_a_case_in_hu_with_three_readers(tmp_path):
    slices, masks = longciu(tmp_path / "d")
    _, cohort = read_longciu(tmp_path / "d", tmp_path)
    assert cohort.readers == ("1", "2", "3")
    for at in range(3):
        case = read_external_slice(cohort, str(at))
        box = lung_box(slices[at], np.maximum.reduce([np.roll(masks[at], k, 0) for k in range(4)])
                       > 0)
        # One grey level is 5.4 HU; the window ends at 287.
        truth = np.clip(slices[at][box], -1024, 286.7)
        assert np.abs(case.scan.hu[0] - truth).max() <= 3.5
        assert np.array_equal(case.expert.labels[0], masks[at][box])
        assert np.array_equal(case.readers["2"].labels[0], np.roll(masks[at], 2, 0)[box])
        assert (case.expert.labels == 2).sum() == (masks[at] == 2).sum()  # nothing is cut off


def test_a_slice_that_is_there_twice_is_used_once(tmp_path):
    longciu(tmp_path / "d", twin=True)
    path, cohort = read_longciu(tmp_path / "d", tmp_path)
    frame = pd.read_csv(path, dtype=str).set_index("case_id")
    assert frame.exclude.to_dict() == {"0": "0", "1": "0", "2": "1"}
    assert frame.exclude_reason["2"] == "the same picture as 0"
    assert len(cohort.cases("external")) == 2


def test_readers_stand_beside_the_network_in_pixels(tmp_path):
    longciu(tmp_path / "d", n=1)
    _, cohort = read_longciu(tmp_path / "d", tmp_path)
    found = score_external_slices({"together": packaged_checkpoints()[:1]}, [cohort],
                                  progress=False)
    assert set(found.reader) == {"together", "reader-1", "reader-2", "reader-3"}
    lesion = found[found.structure == "ggo"].set_index("reader").dice
    # Shifted by one, two, three rows of ten: 2 (10 - k) / 20, before the picture is made smaller.
    for k in (1, 2, 3):
        assert lesion[f"reader-{k}"] == pytest.approx(1 - k / 10, abs=0.08)
    assert lesion["reader-1"] > lesion["reader-2"] > lesion["reader-3"]
    assert set(found.structure) == {"ggo", "high_opacity", "lesion"}


def test_medseg1_as_published_becomes_upright_pictures_that_train(tmp_path):
    slices, masks = map(np.stack, zip(*map(upright, range(6)), strict=True))
    masks[masks == 2] = 3  # effusion, which counts as high opacity
    # As nibabel reads the published file, a quarter turn clockwise sets a slice upright.
    published = np.rot90(slices, 1, axes=(1, 2)).transpose(0, 2, 1)
    marks = np.rot90(masks, 1, axes=(1, 2)).transpose(0, 2, 1)
    folder = tmp_path / "d"
    write(folder / "tr_im.nii.gz", published.astype(np.float32))
    write(folder / "tr_mask.nii.gz", marks.astype(np.float32))
    table, folds = make_manifest("medseg1", folder, tmp_path / "out")
    cohort = read_manifest(table, folder, mask_codes={1: 1, 2: 2, 3: 2},
                           slices=layout_of("medseg1"))
    assert len(pd.read_csv(folds)) == len(cohort.frame) == 6
    scan, mask = read_for_training(cohort, "4")
    box = lung_box(slices[4], masks[4] > 0)
    assert np.array_equal(mask.labels[0], np.minimum(masks[4], 2)[box])
    lung = slices[4][box] == -850
    assert np.abs(scan.hu[0][lung] + 850).max() <= 6


def test_stacks_that_do_not_belong_together_are_told_and_nothing_is_written(tmp_path):
    longciu(tmp_path / "d")
    other = np.zeros((2, 128, 128), np.uint8)
    write(tmp_path / "other.nii.gz", other)
    for mask, told in ((tmp_path / "other.nii.gz", r"shape \(2, 128, 128\), expected that of"),
                       (tmp_path / "d" / "longciu_img.nii.gz", "expected codes, whole numbers"),
                       (tmp_path / "absent.nii.gz", "can't be read")):
        with pytest.raises(ScanError, match=told):
            lay_out_stack(tmp_path / "d" / "longciu_img.nii.gz", {"masks": mask}, tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_a_stack_that_is_missing_is_named(tmp_path):
    longciu(tmp_path / "d")
    (tmp_path / "d" / "longciu_2_tgt.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"longciu_2_tgt\.nii\.gz missing"):
        make_manifest("longciu", tmp_path / "d", tmp_path / "out")


def test_a_slice_without_lungs_stays_whole():
    assert lung_box(np.full((50, 60), 40.0), np.zeros((50, 60), bool)) == np.s_[:, :]
