"""Several experts in one study: each a reader, their consensus, and the machine among them."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest

from deeplung_nb import measurements
from deeplung_nb.cohorts import splits
from deeplung_nb.cohorts.manifest import read_manifest
from deeplung_nb.imaging.consensus import majority, staple
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.io import read_mask, read_scan, write_mask
from deeplung_nb.imaging.phantom.make import write_cohort
from deeplung_nb.imaging.phantom.spec import read_specs
from deeplung_nb.imaging.scan import LesionMask
from deeplung_nb.labels import people
from deeplung_nb.learning import evaluate, experiment
from deeplung_nb.report.panel_tables import format_dice_between, format_panel
from deeplung_nb.runs import open_run
from deeplung_nb.runs.config import load_profile
from deeplung_nb.runs.registry import manifest_folder
from deeplung_nb.stats.panel import dice_between_readers, panel_table
from deeplung_nb.stats.readers import interchangeability


def masks_of(*arrays):
    grid = Grid.upright((1, *np.shape(arrays[0])), (5.0, 1.0, 1.0))
    return [LesionMask(np.asarray(one, np.uint8)[None], grid, "case") for one in arrays]


def test_the_majority_is_what_more_than_half_say():
    a = [[1, 1, 0, 0, 2, 1]]
    b = [[1, 0, 0, 2, 1, 2]]
    c = [[1, 0, 1, 2, 0, 0]]
    # The last two: two of three see a lesion; its class is undecided, so ground glass.
    assert majority(masks_of(a, b, c)).labels.tolist() == [[[1, 0, 0, 2, 1, 1]]]


def test_of_four_readers_two_are_no_majority():
    assert majority(masks_of([[1]], [[1]], [[0]], [[0]])).labels.tolist() == [[[0]]]


def test_staple_is_the_mask_that_all_draw_and_resists_one_who_draws_noise():
    truth = np.zeros((40, 40), np.uint8)
    truth[10:30, 10:20] = 1
    truth[10:30, 20:28] = 2
    assert np.array_equal(staple(masks_of(truth, truth, truth)).labels[0], truth)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 3, truth.shape)
    near = truth.copy()
    near[10:30, 10] = 0
    found = staple(masks_of(truth, truth, near, noise)).labels[0]
    assert (found == truth).mean() > 0.99
    assert not staple(masks_of(*[np.zeros((5, 5))] * 3)).labels.any()


def test_a_consensus_needs_three_on_one_grid():
    with pytest.raises(ValueError, match="expected 3 or more"):
        majority(masks_of([[1]], [[1]]))
    with pytest.raises(ValueError, match="expected one grid"):
        staple([*masks_of([[1]], [[1]]), *masks_of([[1, 0]])])


def test_people_are_neither_machines_nor_consensus():
    names = ["model", "reader-bob", "expert", "unet2d", "fold-0", "consensus-staple", "reader-ann"]
    assert people(names) == ["expert", "reader-bob", "reader-ann"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Five phantoms read by three people, of whom one has not read the last case."""
    folder = tmp_path_factory.mktemp("several")
    patch = pytest.MonkeyPatch()
    manifests, data = folder / "manifests", folder / "data"
    manifests.mkdir()
    for name in ("published.csv", "cohorts.toml"):
        shutil.copy(manifest_folder() / name, manifests)
    registry = manifests / "cohorts.toml"
    registry.write_text("\n".join(line for line in registry.read_text().splitlines()
                                  if not line.startswith("expected")))
    table = pd.read_csv(manifest_folder() / "phantom.csv", dtype=str, keep_default_na=False)
    table = table[table.case_id.isin(["P001", "P002", "P003", "P004", "P005"])]
    table.to_csv(manifests / "phantom.csv", index=False)
    write_cohort([spec.resampled(96, 20) for spec in read_specs(manifests / "phantom.csv")], data)
    table["cohort"], table["reader_ann"], table["reader_bob"] = "site_training", "", ""
    for row, (at, one) in enumerate(table.iterrows()):
        scan = read_scan(data / one.image)
        expert = read_mask(data / one["mask"], scan)
        for k, name in enumerate(("ann", "bob")):
            if (row, name) == (4, "bob"):
                continue
            drawn = dataclasses.replace(expert, labels=np.roll(expert.labels, k + 1, axis=2))
            write_mask(drawn, data / f"{name}_{one.case_id}.nii.gz")
            table.loc[at, f"reader_{name}"] = f"{name}_{one.case_id}.nii.gz"
    keep = [name for name in table if not name.startswith("ph_")]
    table[keep].to_csv(manifests / "site_training.csv", index=False)
    patch.setenv("DEEPLUNG_MANIFESTS", str(manifests))
    frame = read_manifest(manifests / "site_training.csv").frame
    splits.write_splits(splits.make_splits(frame, 3, 1, 0.3),
                        manifests / "splits_site_training.csv")
    quick = load_profile("quick")
    config = dataclasses.replace(
        quick, profile="several", cohorts=("site_training",), n_folds=3, threads=1, baselines=(),
        network=dataclasses.replace(quick.network, image_size=32, n_neighbours=1, hidden=2),
        first=dataclasses.replace(quick.first, max_epochs=1, steps_per_epoch=2),
        training=dataclasses.replace(quick.training, max_epochs=1, steps_per_epoch=2,
                                     batch_slices=2, validation_slices=2))
    settings = folder / "several.json"
    settings.write_text(json.dumps(config.to_dict()))
    run = open_run(str(settings), data=str(data), results=folder / "results")
    measured = experiment.cross_validate(run, progress=False)
    patch.undo()
    return run, measured


def test_each_reader_and_their_consensus_stand_in_the_table(study):
    _, measured = study
    lesion = measured[measured.structure == "lesion"]
    found = {name: set(part.status) for name, part in lesion.groupby("reader")}
    assert set(found) == {"expert", "reader-ann", "reader-bob", "model", "consensus-majority",
                          "consensus-staple"}
    assert found["reader-ann"] == {"ok"}
    assert found["reader-bob"] == {"ok", "unread"}
    ann = lesion[lesion.reader == "reader-ann"].set_index("case_id")
    expert = lesion[lesion.reader == "expert"].set_index("case_id")
    np.testing.assert_allclose(ann.volume_ml, expert.volume_ml)  # moved by a pixel
    positive = expert.volume_ml > 5
    assert (ann.dice[positive] > 0.6).all()
    assert (ann.dice[positive] < 1).all()


def test_the_machine_is_asked_among_the_people(study):
    _, measured = study
    table = panel_table(measured)
    assert set(table.structure) == {"ggo", "high_opacity", "lesion"}
    row = table.set_index("structure").loc["lesion"]
    part = measured[(measured.structure == "lesion") & measured.reader.isin(
        ["expert", "reader-ann", "reader-bob", "model"]) & measured.volume_ml.notna()]
    alone = interchangeability(part, "case_id", "reader", "volume_ml", "model")
    assert row.with_machine == alone.with_machine
    assert row.readers == 3
    page = format_panel(table).as_raw_html()
    assert "Within the readers" in page
    assert panel_table(measured[measured.reader.isin(["expert", "model"])]).empty


def test_every_two_masks_are_compared(study):
    run, _ = study
    overlap = evaluate.overlap_between_readers(run)
    table = dice_between_readers(overlap)
    lesion = table[table.structure == "lesion"].set_index(["first", "second"])
    assert ("expert", "reader-ann") in lesion.index
    assert ("consensus-majority", "model") in lesion.index
    assert ("reader-ann", "reader-bob") in lesion.index
    # Each is drawn one pixel further than the one before: two pixels overlap less.
    assert lesion.loc[("expert", "reader-ann"), "mean"] > lesion.loc[("expert", "reader-bob"),
                                                                   "mean"]
    assert "STAPLE of the readers" in format_dice_between(table).as_raw_html()
    assert dice_between_readers(overlap.iloc[:0]).empty


def test_pairs_of_any_two_readers_can_be_asked_for(study):
    _, measured = study
    pairs = measurements.pair(measured, "reader-ann", "consensus-majority", "lesion")
    assert len(pairs) == 4  # of two readers there is no majority
    assert set(measured.case_id) - set(pairs.case_id) == set(
        measured[measured.status == "unread"].case_id)


def test_a_readers_mask_that_is_missing_is_a_fault_of_the_manifest(study, tmp_path):
    run, _ = study
    table = pd.read_csv(run.folder.parent.parent / "manifests" / "site_training.csv", dtype=str)
    table.loc[0, "reader_ann"] = "absent.nii.gz"
    table.to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(ValueError, match=r"reader_ann .*absent\.nii\.gz is missing"):
        read_manifest(tmp_path / "m.csv", run.data)
    table.loc[0, "reader_ann"] = "../x.nii.gz"
    table.to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(ValueError, match="leaves the data folder"):
        read_manifest(tmp_path / "m.csv", run.data)
