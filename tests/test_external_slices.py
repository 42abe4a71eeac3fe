"""Isolated slices of external cohorts: read among their neighbours, and only ever tested."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from deeplung_nb.cohorts import adapters
from deeplung_nb.cohorts.cases import read_external_slice
from deeplung_nb.cohorts.manifest import read_cohort, read_manifest
from deeplung_nb.cohorts.schema import COLUMNS
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.slices import SliceLayout, read_stack
from deeplung_nb.learning.estimate import score_external_slices
from deeplung_nb.network.packaged import packaged_checkpoints
from deeplung_nb.runs.config import load_profile
from deeplung_nb.runs.registry import manifest_folder, read_registry
from deeplung_nb.stats.dice import dice_table

LAYOUT = SliceLayout(quarter_turns=1, longest_share=0.8, lung_grey=(5, 40), soft_grey=(70, 120),
                     neighbours=2)


def picture(number, shape=(40, 60)):
    """Soft tissue of grey 90, two lungs of 17, and a spot whose grey is the slice's number."""
    grey = np.full(shape, 90, np.uint8)
    grey[8:-8, 6:shape[1] // 2 - 3] = 17
    grey[8:-8, shape[1] // 2 + 3:-6] = 17
    grey[shape[0] // 2, shape[1] // 2] = 40 + number
    return grey


def write(path, grey):
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(np.ascontiguousarray(np.rot90(grey))), str(path))


@pytest.fixture
def series(tmp_path):
    """Slices 3 to 7 of a series, the last two of them cropped otherwise."""
    for number in range(3, 8):
        write(tmp_path / "images" / f"a_{number}.png",
              picture(number, (40, 60) if number < 6 else (36, 64)))
    return tmp_path


def test_a_slice_lies_among_the_neighbours_that_are_there(series):
    scan, at = read_stack(series / "images" / "a_5.png", "a", LAYOUT)
    assert (scan.shape, at) == ((5, 40, 60), 2)
    scan, at = read_stack(series / "images" / "a_3.png", "a", LAYOUT)
    assert (scan.shape, at) == ((3, 40, 60), 0)
    scan, at = read_stack(series / "images" / "a_5.png", "a", LAYOUT._replace(neighbours=0))
    assert (scan.shape, at) == ((1, 40, 60), 0)


def test_the_order_is_that_of_the_numbers_and_frames_meet_in_the_middle(series):
    scan, _ = read_stack(series / "images" / "a_5.png", "a", LAYOUT)
    spot = scan.hu[:, 20, 30].astype(float)  # rises by one grey level from slice to slice
    assert np.diff(spot) == pytest.approx(890 / 73, abs=1.1)
    lungs, soft = scan.hu[:, 12, 12], scan.hu[:, 20, 28]
    assert np.abs(lungs + 850).max() <= 6
    assert np.abs(soft - 40).max() <= 6
    assert (scan.hu[3:, [0, 1, -1], :] == -1024).all()  # 36 rows in a frame of 40


def test_a_name_without_a_number_has_no_neighbours(series):
    write(series / "images" / "x.png", picture(0))
    with pytest.raises(ScanError, match="<name>_<number>"):
        read_stack(series / "images" / "x.png", "x", LAYOUT)


def cohort_of(series, role="external"):
    mask = np.zeros((40, 60), np.uint8)
    mask[15:25, 10:20] = 255
    write(series / "masks" / "a_5.png", mask)
    table = pd.DataFrame([{"cohort": "c", "case_id": "5", "patient_id": "p", "role": role,
                           "image": "images/a_5.png", "mask": "masks/a_5.png",
                           "mask_kind": "binary", "protocol": "unknown", "centre": "x",
                           "n_slices": 1, "exclude": 0}], columns=list(COLUMNS))
    table.to_csv(series / "c.csv", index=False)
    return read_manifest(series / "c.csv", series, mask_codes={255: 1}, slices=LAYOUT)


def test_a_set_without_codes_has_the_projects_own(series):
    cohort = cohort_of(series)
    mask = np.zeros((40, 60), np.uint8)
    mask[15:25, 10:20] = 2
    write(series / "masks" / "a_5.png", mask)
    case = read_external_slice(replace(cohort, mask_codes=None), "5")
    assert (case.expert.labels == 2).sum() == 100


def test_a_case_is_its_slice_its_mask_and_its_neighbours(series):
    case = read_external_slice(cohort_of(series), "5")
    assert np.array_equal(case.stack.hu[case.at], case.scan.hu[0])
    assert case.expert.labels[0, 15:25, 10:20].all()
    assert case.expert.labels.sum() == 100


def test_every_reader_reads_every_slice_and_a_binary_mask_scores_any_lesion(
        series, checkpoint_file):
    cohort = cohort_of(series)
    found = score_external_slices({"one": [checkpoint_file], "two": [checkpoint_file] * 2},
                                  [cohort], progress=False)
    assert found.structure.tolist() == ["lesion", "lesion"]
    assert found.reader.tolist() == ["one", "two"]
    assert found.n_expert.nunique() == 1
    # 100 pixels of a slice whose 60 columns take 0.8 of 32.
    assert found.n_expert[0] == pytest.approx(100 * (0.8 * 32 / 60) ** 2, abs=4)
    assert (found.tp + found.fn == found.n_expert).all()
    assert (2 * found.tp / (found.n_expert + found.n_found)).tolist() == pytest.approx(
        found.dice.tolist())
    assert found.dice[0] == found.dice[1]
    table = dice_table(found, test="one").set_index("averaging")
    assert table.n.unique().tolist() == [1]
    assert table.dice["pooled"] == pytest.approx(found.dice[0])


def test_a_cohort_that_trains_is_no_external_one(series, checkpoint_file):
    for cohorts in ([cohort_of(series, "cv")], []):
        found = score_external_slices({"one": [checkpoint_file]}, cohorts, progress=False)
        assert found.empty
        assert "dice" in found


def test_the_external_patients_of_public_train_nothing():
    registry, config = read_registry(), load_profile("public")
    external = [name for name in config.cohorts if registry[name]["role"] == "external"]
    assert external == ["coronacases_expert"]
    cohort = read_cohort("coronacases_expert", None, verify=False)
    assert set(cohort.frame.role) == {"external"}
    assert cohort.frame.patient_id.tolist() == [f"CC{n:03d}" for n in (1, 3, 5, 6, 8, 10)]


def test_the_manifest_is_that_of_the_files(shared_data, tmp_path):
    shared_data("coronacases_expert")
    files = adapters.make_manifest("coronacases_expert", shared_data("."), tmp_path)
    assert [path.name for path in files] == ["coronacases_expert.csv"]  # no folds
    assert files[0].read_bytes() == (manifest_folder() / files[0].name).read_bytes()


@pytest.mark.nightly
def test_the_packaged_network_reads_patients_of_another_source(shared_data):
    shared_data("coronacases_expert")
    found = score_external_slices({"packaged": packaged_checkpoints()},
                                  [read_cohort("coronacases_expert", shared_data("."))], False)
    assert found.dice.mean() == pytest.approx(0.730, abs=0.01)  # docs/numbers.md
