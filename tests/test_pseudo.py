"""Pseudo-labels, and the ablation that says what they and other parts are worth."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from deeplung_nb.cohorts.splits import CaseKey
from deeplung_nb.config import TrainingConfig, load_profile
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.slices import SliceLayout
from deeplung_nb.labels import NO_ANSWER
from deeplung_nb.learning import ablation, pseudo, train
from deeplung_nb.learning.dataset import PreparedCase

LAYOUT = SliceLayout(0, 1.0, lung_grey=(5, 40), soft_grey=(70, 120), usual_grey=(17.0, 92.0))


def test_a_pseudo_label_needs_two_that_agree_or_a_teacher_that_is_sure():
    #                    both  alone  sure   neither  clear  doubted  sure of none
    teacher = np.array([[[0.6, 0.60, 0.90, 0.40, 0.20, 0.20, 0.05]]])
    opinion = np.array([[[0.4, 0.20, 0.00, 0.90, 0.50, 0.70, 0.90]]])
    hu = np.full(teacher.shape, -600.0)
    found = pseudo.pseudo_labels(teacher, opinion, hu)
    assert found.dtype == np.uint8
    assert found[0, 0].tolist() == [1, NO_ANSWER, 1, NO_ANSWER, 0, NO_ANSWER, 0]


def test_density_smoothed_within_the_slice_tells_the_classes_apart():
    hu = np.full((3, 20, 40), -600.0)
    hu[1, :, 20:] = 0.0
    hu[1, 10, 35] = -900.0  # a hole in consolidation is none
    hu[1, 10, 5] = 100.0  # a vessel in ground glass is no consolidation
    found = pseudo.pseudo_labels(np.ones(hu.shape), np.ones(hu.shape), hu)
    assert (found[1, :, :15] == 1).all()
    assert (found[1, :, 25:] == 2).all()
    assert (found[[0, 2]] == 1).all()  # nothing of it comes from the neighbouring slice


@pytest.fixture
def folder(tmp_path):
    """Two patients; the slices of the first are cropped differently and number 2 and 10."""
    for name in ("images", "machine_masks"):
        (tmp_path / "set" / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, shape in (("001_10", (40, 60)), ("001_2", (36, 52)), ("002_1", (40, 60))):
        grey = rng.normal(92, 2, shape)
        grey[5:30, 5:30] = rng.normal(17, 2, (25, 25))
        mask = np.zeros(shape, np.uint8)
        mask[0] = 255 if name == "001_2" else 51
        for part, array, suffix in (("images", grey, "jpg"), ("machine_masks", mask, "png")):
            sitk.WriteImage(sitk.GetImageFromArray(array.astype(np.uint8)),
                            str(tmp_path / "set" / part / f"{name}.{suffix}"))
    return tmp_path / "set"


def test_a_series_is_in_order_calibrated_and_centred_in_its_largest_slice(folder):
    first, second = pseudo.read_series(folder, LAYOUT)
    assert (first.scan.case_id, second.scan.case_id) == ("001", "002")
    assert first.scan.shape == (2, 40, 60)
    assert first.opinion[0].max() == 1.0  # number 2 comes before number 10
    assert first.opinion[1].max() == pytest.approx(0.2)
    assert first.known[0].sum() == 36 * 52
    assert first.known[0, 2:38, 4:56].all()
    assert first.known[1].all()
    assert np.median(first.scan.hu[1, 8:28, 8:28]) == pytest.approx(-850, abs=20)
    assert np.median(first.scan.hu[0, 34:36, 40:50]) == pytest.approx(40, abs=20)
    assert (first.scan.hu[0][first.known[0] == 0] == -1024).all()


TOML = """
[series]
title = "Ten patients"
role = "unlabelled"
url = "https://example.org"
folder = "set"
sha256 = "{sha256}"
slices = {{ quarter_turns = 0, longest_share = 0.5, lung_grey = [5, 40], soft_grey = [70, 120], \
usual_grey = [17, 92] }}

[site]
manifest = "site.csv"
"""


@pytest.fixture
def known_set(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPLUNG_MANIFESTS", str(tmp_path))
    sha256 = pseudo.content_hash(folder)
    (tmp_path / "cohorts.toml").write_text(TOML.format(sha256=sha256))
    return folder


def test_unlabelled_series_are_those_that_are_known_or_refused(known_set, tmp_path):
    found, layout = pseudo.find_unlabelled("series", tmp_path)
    assert found == known_set
    assert layout.longest_share == 0.5
    with pytest.raises(ValueError, match=r"'site': expected a set of role 'unlabelled'.*series"):
        pseudo.find_unlabelled("site", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"Get them from https://example\.org"):
        pseudo.find_unlabelled("series", tmp_path / "elsewhere")
    mask = known_set / "machine_masks" / "002_1.png"
    mask.rename(mask.with_name("002_3.png"))
    with pytest.raises(ScanError, match="copy the folder anew"):
        pseudo.find_unlabelled("series", tmp_path)


class Sure:
    """A teacher that is sure of ground glass everywhere."""

    calls = 0

    @classmethod
    def from_checkpoints(cls, paths, batch):
        return cls()

    def scores_per_network(self, prepared):
        Sure.calls += 1
        scores = np.zeros((1, len(prepared), 3, *prepared.shape[1:]))
        scores[:, :, 1] = 1.0
        yield scores

    @staticmethod
    def decide(scores):
        return scores.mean(axis=0)


def test_beyond_a_crop_there_is_padded_air_and_no_lesion(known_set, tmp_path, monkeypatch):
    monkeypatch.setattr(pseudo, "Predictor", Sure)
    Sure.calls = 0
    arguments = (tmp_path / "teacher.pt", "series", tmp_path, tmp_path / "kept", 64)
    first, second = pseudo.teach(*arguments, progress=False)
    assert {first.source, second.source} == {"pseudo"}
    assert first.hu.shape == first.target.shape == (2, 64, 64)
    lesion = (first.target == 1) | (first.target == 2)
    # Background in the padding, no answer only along the edge of the picture.
    assert set(np.unique(first.target[~lesion])) == {0, NO_ANSWER}
    assert (first.target[:, [0, -1]] == 0).all()
    assert (first.target == NO_ANSWER).sum() < 0.2 * lesion.sum()
    whole = round(64 * 0.5) * round(64 * 0.5 * 40 / 60)
    assert lesion[1].sum() == whole
    assert 0.6 * whole < lesion[0].sum() < 0.9 * whole  # (36 x 52) of (40 x 60), less its edges
    again = pseudo.teach(*arguments, progress=False)
    assert Sure.calls == 2  # kept, and used again
    assert (again[0].target == first.target).all()
    assert again[0].source == "pseudo"


def test_a_teacher_trains_on_experts_alone_and_its_pupil_on_both(tmp_path, monkeypatch):
    """Of both trainings and both stages: who trains on what, and with which share."""
    told = []

    def quickly(training, validation, config, folder, **options):
        told.append((str(folder.relative_to(tmp_path)), [case.source for case in training],
                     config.training.pseudo_fraction, config.unlabelled, options.get("start")))
        history = pd.DataFrame()
        history.attrs["finished"] = len(told) != stop_at
        return history

    stop_at = 0
    zeros = np.zeros((1, 4, 4))
    monkeypatch.setattr(train, "train", quickly)
    monkeypatch.setattr(train, "teach", lambda teacher, *rest: [
        PreparedCase(str(teacher.relative_to(tmp_path)), zeros, zeros, "pseudo")])
    settings = TrainingConfig(pseudo_fraction=0.3)
    config = dataclasses.replace(load_profile("public"), unlabelled="series", first=settings,
                                 training=settings)
    train.train_whole([PreparedCase("a", zeros, zeros)], [], config, tmp_path / "fold", seed=0)
    assert [entry[:3] for entry in told] == [
        ("fold/teacher/main", ["volume"], None), ("fold/teacher", ["volume"], None),
        ("fold/main", ["volume", "pseudo"], 0.3), ("fold", ["volume", "pseudo"], 0.3)]
    assert [entry[3] for entry in told] == [None, None, "series", "series"]
    assert told[-1][4] == tmp_path / "fold" / "main" / "checkpoint.pt"
    for stop_at in (1, 2, 3):  # nothing goes on from a half
        told.clear()
        train.train_whole([PreparedCase("a", zeros, zeros)], [], config, tmp_path / "fold", seed=0)
        assert len(told) == stop_at


def test_each_variant_differs_from_its_base_by_one_part():
    config = load_profile("public")
    todo = ablation.variants(config)
    base = todo[ablation.BASE].change(config)
    assert base.training.max_epochs == config.first.max_epochs * ablation.SHORTER
    assert not base.network.attention
    for name, variant in todo.items():
        made = variant.change(config)
        if variant.start or name == ablation.BASE:
            continue
        changed = {f"{part}.{key}" for part in ("network", "training")
                   for key, value in dataclasses.asdict(getattr(made, part)).items()
                   if value != dataclasses.asdict(getattr(base, part))[key]}
        changed |= {"pretrained"} if made.pretrained != base.pretrained else set()
        assert len({key.split(".hu_")[0] for key in changed} - {"training.blur_fraction"}) == 1 or \
            (made.network.trunk == "densenet121" and changed == {"network.trunk", "pretrained"}), \
            (name, changed)
    further = {name: variant.change(config) for name, variant in todo.items() if variant.start}
    assert {made.training.max_epochs for made in further.values()} == {4}
    assert sorted((made.network.attention, made.network.n_slices) for made in further.values()) \
        == [(False, 11), (True, 3), (True, 11)]


def case_of(name, source, value):
    target = np.zeros((2, 8, 8), np.uint8)
    target[:, :4] = 1
    return PreparedCase(name, np.full((2, 8, 8), value, np.int16), target, source)


@pytest.fixture
def small_study(tmp_path, monkeypatch):
    """Five folds of a volume and a slice each; training is replaced, and noted."""
    keys = [CaseKey(cohort, str(k)) for k in range(5) for cohort in ("volumes", "slices")]
    table = pd.DataFrame([(key.cohort, key.case_id, f"{key}", int(key.case_id), pd.NA)
                          for key in keys], columns=["cohort", "case_id", "patient_id", "fold",
                                                     "validation_in"])
    trained = []

    def prepare(run, cohorts, keys, progress):
        return [case_of(f"{key.cohort}-{key.case_id}", key.cohort[:-1], int(key.case_id))
                for key in keys]

    def quickly(cases, validation, config, folder, *, seed, start=None, **options):
        trained.append((folder.name, [case.case_id for case in cases], seed, start))
        assert start is None or start.exists()
        (folder / "checkpoint.pt").write_text("")

    class Half:
        """Scores ground glass in the upper rows, more of them the more networks there are."""

        def __init__(self, n):
            self.n = n

        @classmethod
        def from_checkpoints(cls, paths, batch):
            return cls(len(paths))

        def scores_per_network(self, prepared):
            scores = np.zeros((1, len(prepared), 3, 8, 8))
            scores[:, :, 0] = 0.5
            scores[:, :, 1, :2 * self.n] = 1.0
            yield scores

    for name, replacement in (
            ("load_cohorts", lambda run: []), ("load_splits", lambda run, cohorts: table),
            ("prepared_cases", prepare), ("train", quickly), ("Predictor", Half),
            ("not_averaged", lambda folder: folder / "checkpoint.pt"),
            ("teach", lambda teacher, *rest: [case_of("series", "pseudo", 0)])):
        monkeypatch.setattr(ablation, name, replacement)

    def path(*parts):
        found = tmp_path.joinpath(*parts)
        found.parent.mkdir(parents=True, exist_ok=True)
        return found

    run = SimpleNamespace(config=load_profile("public"), data=tmp_path, path=path)
    return run, trained


def test_all_variants_meet_the_same_patients_who_never_trained(small_study):
    run, trained = small_study
    frame = ablation.ablate(run, seeds=2, progress=False)
    assert len(trained) == 2 * len(ablation.variants(run.config))
    held_out = {f"{kind}-{fold}" for kind in ("volumes", "slices") for fold in ablation.HELD_OUT}
    for folder, cases, _, _ in trained:
        assert not held_out & set(cases)
        assert ("series" in cases) == folder.startswith("with-pseudo")
        assert any(case.startswith("slices") for case in cases) != \
            folder.startswith("without-isolated")
    assert len({seed for _, _, seed, _ in trained}) == 2
    tested = frame.groupby(["variant", "seed"], dropna=False).case_id.unique()
    assert {tuple(cases) for cases in tested} == {("0", "4")}
    assert {"weights not averaged", "flipped picture averaged at test", "ensemble of 2"} <= \
        set(frame.variant)
    wide = ablation.summarise(frame).set_index("variant")
    assert wide.volumes_ggo[ablation.BASE] == pytest.approx(2 * 2 / (2 + 4))
    assert wide.volumes_ggo["ensemble of 2"] == 1.0
    assert wide.n_seeds.to_dict() == {name: 1 if "ensemble" in name else 2 for name in wide.index}
    assert wide.volumes_ggo_sd[ablation.BASE] == 0.0
    ablation.ablate(run, seeds=2, progress=False)
    assert len(trained) == 2 * len(ablation.variants(run.config))  # nothing is trained again


def test_the_spread_of_a_variant_is_that_of_its_seeds():
    rows = [("a", seed, case, False, "lesion", dice)
            for seed, dices in ((0, (0.2, 0.4)), (1, (0.6, 0.8)))
            for case, dice in zip("xy", dices, strict=True)]
    rows += [("a", seed, "s", True, "lesion", 0.5) for seed in (0, 1)]
    frame = pd.DataFrame(rows, columns=["variant", "seed", "case_id", "isolated", "structure",
                                        "dice"])
    row, = ablation.summarise(frame).to_dict("records")
    assert row["volumes_lesion"] == pytest.approx(0.5)
    assert row["volumes_lesion_sd"] == pytest.approx(np.std([0.3, 0.7], ddof=1))
    assert row["slices_lesion_sd"] == 0.0
