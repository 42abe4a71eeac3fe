"""The study: who trains, who scores whom, and what is kept of it; training itself is replaced."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from deeplung_nb import measurements
from deeplung_nb.cohorts import manifest, splits
from deeplung_nb.cohorts.cases import load_cohorts, load_splits, read_case
from deeplung_nb.cohorts.schema import COLUMNS
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.io import write_mask, write_scan
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.learning import estimate, evaluate, experiment
from deeplung_nb.learning.watchers import Watcher
from deeplung_nb.runs import open_run
from deeplung_nb.runs.config import Config, NetworkConfig, TrainingConfig, UNetConfig

SIZE, FOLDS = 16, 3
BODY = slice(2, 14)
"""Rows and columns of the body."""
HU_OF = {("site", "1"): -800, ("site", "2"): -780, ("site", "3"): -760,
         ("site-b", "1"): -740, ("site-b", "2"): -720, ("site-b", "3"): -700,
         ("site-b", "9"): -680}
"""Each case is known by the HU of its lungs; both sites have cases 1, 2 and 3."""
TOML = """
[site]
manifest = "site.csv"
splits = "splits_site.csv"

[site-b]
manifest = "site-b.csv"
splits = "splits_site-b.csv"
"""


def write_case(folder, cohort, case, hu):
    grid = Grid.upright((3, SIZE, SIZE), (20.0, 20.0, 20.0))
    voxels = np.full(grid.shape, -1000, np.int16)
    voxels[:, BODY, BODY] = 40
    voxels[:, 4:12, 4:12] = hu
    scan = Scan(voxels, grid, case)
    labels = np.zeros(grid.shape, np.uint8)
    labels[1, 4:8, 4:8] = 1
    labels[1, 8:10, 4:8] = 2
    write_scan(scan, folder / f"{cohort}-{case}.nii.gz")
    write_mask(LesionMask.like(scan, labels), folder / f"{cohort}-{case}-mask.nii.gz")
    lungs = LesionMask.like(scan, (voxels == hu).astype(np.uint8))
    write_mask(lungs, folder / f"{cohort}-{case}-lungs.nii.gz")


def write_study(place):
    """Two sites with the same case ids; case n of both is tested in fold n - 1.

    The folders of its manifests and data, and its settings.
    """
    folder, data = place / "manifests", place / "data"
    folder.mkdir()
    (folder / "cohorts.toml").write_text(TOML)
    rows = []
    for (cohort, case), hu in HU_OF.items():
        write_case(data, cohort, case, hu)
        rows.append({
            "cohort": cohort, "case_id": case, "patient_id": f"P-{cohort}-{case}",
            "role": "external" if case == "9" else "cv", "image": f"{cohort}-{case}.nii.gz",
            "mask": f"{cohort}-{case}-mask.nii.gz", "lung_mask": f"{cohort}-{case}-lungs.nii.gz",
            "mask_kind": "ggo+high_opacity", "protocol": "unknown", "exclude": 0})
    for cohort, part in pd.DataFrame(rows).groupby("cohort"):
        frame = part.reindex(columns=[*part.columns, "image_sha256", "mask_sha256", "n_slices",
                                      "lung_mask_sha256", "scanner", "centre", "slice_gap_mm",
                                      "exclude_reason"])
        manifest.write_manifest(frame.reset_index(drop=True), folder / f"{cohort}.csv")
        cv = frame[frame.role == "cv"]
        fold = cv.case_id.astype(int) - 1
        splits.write_splits(cv[["cohort", "case_id", "patient_id"]].assign(
            fold=fold, validation_in=((fold + 1) % FOLDS).astype("Int64")),
            folder / f"splits_{cohort}.csv")
    return folder, data, Config(
        profile="test", cohorts=("site", "site-b"), n_folds=FOLDS, seed=70,
        network=NetworkConfig(image_size=SIZE, n_neighbours=1, dense_blocks=1, hidden=2),
        training=TrainingConfig(schedule="cosine", keep="last", max_epochs=1),
        baselines=(UNetConfig("unet2d", 2),))


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A run of `write_study`."""
    folder, data, config = write_study(tmp_path)
    monkeypatch.setenv("DEEPLUNG_MANIFESTS", str(folder))
    return open_run(config=config, data=data, results=tmp_path / "results")


def lung_hu(case):
    """The HU by which a prepared case is known."""
    return int(np.median(case.hu[:, SIZE // 2, SIZE // 2]))


@pytest.fixture
def trained(study, monkeypatch):
    """(fold, network) -> what training was given; a checkpoint is a line that names it."""
    seen = {}

    def train(training, validation, config, folder, *, seed, name, progress, **options):
        fold = int(folder.name.removeprefix("fold-"))
        seen[fold, name] = {"train": sorted(map(lung_hu, training)), "seed": seed,
                            "validation": sorted(map(lung_hu, validation))}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / experiment.CHECKPOINT).write_text(f"{name} {fold}")
        history = pd.DataFrame({"validation_loss": [LOSSES[fold]], "seconds": [1.0]})
        history.to_csv(folder / "history.csv", index=False)
        return history

    monkeypatch.setattr(experiment, "train_whole", train)
    return seen


LOSSES = (0.7, 0.3, 0.5)


class Marked:
    """A predictor whose network of fold n finds ground glass in the first 2 (n + 1) rows only.

    Of the body, that is; above it, where nothing counts, they all see it.
    """

    above = BODY.start

    def __init__(self, checkpoints):
        self.rows = []
        for path in checkpoints:
            name, fold = path.read_text().split()
            self.rows.append(2 * (int(fold) + 1) + (name == "unet2d"))

    @classmethod
    def from_checkpoints(cls, checkpoints, **_):
        return cls(checkpoints)

    @staticmethod
    def decide(scores):
        return scores.mean(axis=0)

    def score_batches(self, prepared):
        for scores in self.scores_per_network(prepared):
            yield self.decide(scores)

    def scores_per_network(self, prepared):
        scores = np.zeros((len(self.rows), len(prepared), 3, SIZE, SIZE), np.float32)
        scores[:, :, 0] = 0.5
        for k, rows in enumerate(self.rows):
            scores[k, :, 1, :self.above + rows] = 1.0
        yield scores


class InPicture(Marked):
    """The same over an isolated slice, which is all body."""

    above = 0


@pytest.fixture
def measured(study, trained, monkeypatch):
    monkeypatch.setattr(evaluate, "Predictor", Marked)
    experiment.cross_validate(study, progress=False)
    experiment.validate_external(study, progress=False)
    frame = measurements.read(study.measurements_csv)
    assert (frame.status == "ok").all()
    return frame


def found_rows(frame, reader):
    """Case -> rows of the body with ground glass, by which the network is known that read it."""
    part = frame[(frame.reader == reader) & (frame.structure == "ggo")]
    counts = part.set_index(["cohort", "case_id"]).n_voxels / (3 * (BODY.stop - BODY.start))
    return {key: int(rows) for key, rows in counts.items()}


def test_each_case_is_scored_by_the_network_that_never_saw_its_patient(study, trained, measured):
    cv = measured[measured.role == "cv"]
    for (cohort, case), rows in found_rows(cv, "model").items():
        fold = rows // 2 - 1
        assert fold == int(case) - 1
        assert HU_OF[cohort, case] not in trained[fold, "deeplung"]["train"]
        assert HU_OF[cohort, case] not in trained[fold, "deeplung"]["validation"]
    assert found_rows(cv, "unet2d") == {
        key: rows + 1 for key, rows in found_rows(cv, "model").items()}
    folds = cv[cv.reader == "model"].set_index("case_id").fold
    assert all(fold == int(case) - 1 for case, fold in folds.items())


def test_cases_of_two_sites_with_one_id_are_two_cases(study, trained, measured):
    for fold in range(FOLDS):
        part = trained[fold, "deeplung"]
        tested = {HU_OF[site, str(fold + 1)] for site in ("site", "site-b")}
        everybody = [hu for (_, case), hu in HU_OF.items() if case != "9"]
        assert sorted([*part["train"], *part["validation"], *tested]) == sorted(everybody)
        assert len(part["validation"]) == 2
    expert = measured[(measured.reader == "expert") & (measured.structure == "lung")]
    hu = expert.set_index(["cohort", "case_id"]).mean_hu
    assert hu.to_dict() == pytest.approx(HU_OF)


def test_names_that_run_together_do_not_share_a_file(study):
    rows = [pd.Series({"cohort": "site-b", "case_id": "1"}),
            pd.Series({"cohort": "site", "case_id": "b-1"})]
    assert len({experiment._part(study, "cv", row) for row in rows}) == 2


def test_each_fold_has_a_seed_of_its_own(study, trained, measured):
    assert [trained[fold, "deeplung"]["seed"] for fold in range(FOLDS)] == [70, 71, 72]


def test_external_cases_are_read_by_each_fold_by_the_best_and_by_all_together(measured):
    external = measured[measured.role == "external"]
    case = ("site-b", "9")
    assert set(external.case_id) == {"9"}
    for fold in range(FOLDS):
        assert found_rows(external, f"fold-{fold}") == {case: 2 * (fold + 1)}
    assert found_rows(external, "model") == {case: 4}  # fold 1 has the lowest loss
    # Background scores 0.5 everywhere: two of three networks must see it.
    assert found_rows(external, "ensemble") == {case: 4}
    assert external[external.reader == "model"].fold.unique().tolist() == [1]
    assert external[external.reader == "ensemble"].fold.isna().all()


def test_the_ensemble_is_the_mean_of_all_folds_not_one_of_them(study, trained, monkeypatch):
    """Each network alone sees it in a third of the rows; no two of them agree, and none wins."""

    class Apart(Marked):
        def scores_per_network(self, prepared):
            scores = np.zeros((len(self.rows), len(prepared), 3, SIZE, SIZE), np.float32)
            scores[:, :, 0] = 0.4
            for k in range(len(self.rows)):
                top = BODY.start + 4 * k
                scores[k, :, 1, top:top + 4] = 1.0
            yield scores

    monkeypatch.setattr(evaluate, "Predictor", Apart)
    experiment.cross_validate(study, progress=False)
    external = experiment.validate_external(study, progress=False)
    assert found_rows(external, "fold-0") == {("site-b", "9"): 4}
    assert found_rows(external, "ensemble") == {("site-b", "9"): 0}


@pytest.mark.parametrize(("keep", "histories", "chosen"), [
    ("best", ([0.9, 0.2, 0.8], [0.3, 0.4, 0.5], [0.6, 0.6, 0.6]), 0),
    ("last", ([0.9, 0.2, 0.8], [0.3, 0.4, 0.5], [0.6, 0.6, 0.6]), 1),
    ("last", ([0.9, 0.8], [np.nan, np.nan], [0.7, 0.6]), 2),
    ("last", ([np.nan], [np.nan], [np.nan]), 0),
])
def test_the_fold_with_the_best_kept_weights_is_chosen(study, keep, histories, chosen):
    config = dataclasses.replace(
        study.config, training=dataclasses.replace(study.config.training, keep=keep))
    for fold, losses in enumerate(histories):
        path = study.path(f"fold-{fold}", "history.csv")
        pd.DataFrame({"validation_loss": losses}).to_csv(path, index=False)
    assert experiment.chosen_fold(dataclasses.replace(study, config=config)) == chosen


def test_a_fold_tells_of_its_cases_and_stops_while_they_are_made_ready(study):
    told = []

    class Impatient(Watcher):
        def prepare(self, n_done, n_cases):
            told.append((n_done, n_cases))
            return n_done == 2

        def start(self, n_steps, n_done):
            raise AssertionError("it trained")

    history = experiment.train_fold(study, 0, progress=False, watchers=[Impatient()])
    assert len(history) == 0
    assert not history.attrs["finished"]
    assert [n for n, _ in told] == [1, 2]
    parts = splits.fold_cases(load_splits(study, load_cohorts(study)), 0)
    assert told[0][1] == len(parts.train) + len(parts.validation)


def test_a_case_that_fails_keeps_a_row_for_every_reader_and_structure(study, trained, monkeypatch):
    monkeypatch.setattr(evaluate, "Predictor", Marked)
    (study.data / "site-2.nii.gz").write_bytes(b"damaged")
    (study.folder / ".verified-site").write_text("")
    keys = [key for key in HU_OF if key != ("site-b", "9")]
    monkeypatch.setattr(experiment, "prepared_cases", lambda *_: [])
    frame = experiment.cross_validate(study, progress=False)
    failed = frame[frame.status == "failed"]
    assert set(zip(failed.cohort, failed.case_id, strict=True)) == {("site", "2")}
    assert set(zip(failed.reader, failed.structure, strict=True)) == {
        (reader, structure) for reader in ("expert", "model", "unet2d")
        for structure in ("ggo", "high_opacity", "lesion")}
    assert failed.set_index("reader").fold.to_dict() == {"expert": 1, "model": 1, "unet2d": 1}
    pairs = measurements.pair(frame, "expert", "model", "ggo")
    assert pairs.attrs["failed"] == ["site/2"]
    assert len(pairs) == len(keys) - 1


def test_a_binary_mask_does_not_train_as_ground_glass(study):
    cohort = load_cohorts(study)[0]
    cohort.frame.loc[:, "mask_kind"] = "binary"
    with pytest.raises(ValueError, match=r"case site/1: mask_kind is 'binary'.*role 'external'"):
        experiment.prepared_cases(study, [cohort], [splits.CaseKey("site", "1")], progress=False)
    assert not list(study.folder.glob("prepared/**/*.npy"))


def test_a_binary_mask_is_scored_as_merged_lesion_only(study):
    cohort = load_cohorts(study)[0]
    case = read_case(cohort, "1")
    assert case.structures == ("ggo", "high_opacity", "lesion")
    cohort.frame.loc[:, "mask_kind"] = "binary"
    write_mask(LesionMask.like(case.scan, (case.expert.labels > 0).astype(np.uint8)),
               cohort.mask_path("1"))
    assert read_case(cohort, "1").structures == ("lesion",)


def test_a_patient_of_two_sites_stays_in_one_fold(study):
    cohorts = load_cohorts(study)
    table = splits.read_splits(study.data.parent / "manifests" / "splits_site-b.csv")
    table["patient_id"] = table.patient_id.replace("P-site-b-1", "P-site-2")
    frame = cohorts[1].frame
    frame["patient_id"] = frame.patient_id.replace("P-site-b-1", "P-site-2")
    splits.write_splits(table, study.data.parent / "manifests" / "splits_site-b.csv")
    with pytest.raises(splits.SplitError, match=r"patient 'P-site-2' has fold"):
        load_splits(study, cohorts)


@pytest.fixture
def with_slices(study, monkeypatch):
    """The study with three isolated slices beside, one for each fold; each is known by its grey."""
    folder = study.data.parent / "manifests"
    (folder / "cohorts.toml").write_text(TOML + """
[pictures]
manifest = "pictures.csv"
splits = "splits_pictures.csv"
slices = { quarter_turns = 0, longest_share = 1.0 }
mask_codes = { 1 = "ggo" }
""")
    rows = []
    for case in ("1", "2", "3"):
        grey = np.full((SIZE, SIZE), 209, np.uint8)
        grey[:, :8] = 43
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[:4] = 1
        for name, array in (("image", grey), ("mask", mask)):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(study.data / f"{name}{case}.png"))
        rows.append({"cohort": "pictures", "case_id": case, "patient_id": f"S{case}", "role": "cv",
                     "image": f"image{case}.png", "mask": f"mask{case}.png", "exclude": 0,
                     "mask_kind": "ggo+high_opacity", "protocol": "unknown", "n_slices": 1})
    frame = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    manifest.write_manifest(frame, folder / "pictures.csv")
    splits.write_splits(frame[["cohort", "case_id", "patient_id"]].assign(
        fold=range(3), validation_in=pd.array([1, 2, 0], "Int64")), folder / "splits_pictures.csv")
    config = dataclasses.replace(study.config, cohorts=("site", "site-b", "pictures"),
                                 baselines=())
    return open_run(config=config, data=study.data, results=study.data.parent / "results")


def test_isolated_slices_train_and_are_scored_apart(with_slices, trained, monkeypatch):
    monkeypatch.setattr(evaluate, "Predictor", Marked)
    frame = experiment.cross_validate(with_slices, progress=False)
    assert set(frame.cohort) == {"site", "site-b"}
    assert len(trained[0, "deeplung"]["train"]) == 3  # two volumes and a slice; as many validate
    monkeypatch.setattr(estimate, "Predictor", InPicture)
    slices, thresholds, calibration, sizes = estimate.estimate(with_slices, progress=False)
    assert set(slices.cohort) == {"pictures"}
    ggo = slices[slices.structure == "ggo"].set_index("case_id")
    # The network of fold n finds 2 (n + 1) rows of 16 pixels; four of them are right.
    for fold, case in enumerate(("1", "2", "3")):
        rows = 2 * (fold + 1)
        assert ggo.fold[case] == fold
        assert ggo.tp[case] == 16 * min(rows, 4)
        assert ggo.fp[case] == 16 * max(rows - 4, 0)
        assert ggo.dice[case] == pytest.approx(2 * min(rows, 4) / (rows + 4))
    assert slices[slices.structure == "high_opacity"].dice.isna().all()
    # Each case is there once at each threshold, and each pixel in one bin: ground glass scores 1
    # in the network's rows and 0 elsewhere.
    lesion = thresholds[thresholds.structure == "lesion"]
    assert lesion.groupby(["cohort", "case_id"]).size().unique() == [len(estimate.THRESHOLDS)]
    assert len(lesion) == 9 * len(estimate.THRESHOLDS)
    bins = calibration[calibration.isolated].set_index("mean_score")
    assert bins.n.to_dict() == {0.0: (14 + 12 + 10) * 16, 1.0: (2 + 4 + 6) * 16}
    assert bins.share[1.0] == pytest.approx((2 + 4 + 4) / 12)
    assert bins.share[0.0] == pytest.approx(2 / 36)
    # One row for each slice with a lesion: four rows of sixteen are marked in each picture.
    pictures = sizes[sizes.isolated].set_index("case_id")
    assert pictures.index.tolist() == ["1", "2", "3"]
    assert (pictures.percent_of_picture == 25.0).all()
    assert pictures.tp.tolist() == [16 * rows for rows in (2, 4, 4)]
    assert pictures.dice.tolist() == ggo.dice.tolist()
    volumes = sizes[~sizes.isolated]
    assert set(volumes.slice) == {1}  # of three slices the middle one holds the lesion
    assert len(volumes) == 6
    again = estimate.estimate(with_slices, progress=False)
    pd.testing.assert_frame_equal(again.slices, slices, check_dtype=False)


def test_work_is_made_of_values_that_another_process_could_read(study, trained, measured):
    parts = sorted(study.folder.glob("measured/*/*/*.json"))
    assert len(parts) == len(HU_OF)
    assert {tuple(path.parts[-3:-1]) for path in parts} == {
        ("cv", "site"), ("cv", "site-b"), ("external", "site-b")}
    facts = sorted(path.name for path in study.folder.glob("facts/*.json"))
    assert {f"train_fold_{fold}.json" for fold in range(FOLDS)} <= set(facts)
    assert json.loads((study.folder / "facts" / "choice.json").read_text())[
        "external_model_fold"] == 1
