"""Corrected cases train on: what is drawn, who trains, and who judges."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from test_side_by_side import _manifests_of_the_study, one, small  # noqa: F401

from deeplung_nb.cohorts.cases import find_volumes
from deeplung_nb.corrections.reading import ReadingError
from deeplung_nb.learning import corrected, experiment
from deeplung_nb.runs import read_run
from deeplung_nb.runs.resources import shipped

# ruff: noqa: F811
STROKES = {"1": [*({"tool": "polygon", "plane": "axial", "index": z, "code": 0,
                    "path": [[-1, -1], [-1, 17], [17, 17], [17, -1]]} for z in range(3)),
                 {"tool": "polygon", "plane": "axial", "index": 1, "code": 1,
                  "path": [[3.5, 3.5], [3.5, 7.5], [7.5, 7.5], [7.5, 3.5]]}]}
"""All marks wiped, then the ground glass of one slice outlined."""


@pytest.fixture
def run(one, tmp_path):
    """A copy of a finished study, to be spoilt."""
    folder = shutil.copytree(one.folder, tmp_path / "runs" / one.folder.name)
    return read_run(folder, data=one.data)


def test_recorded_strokes_are_drawn_and_kept_and_judge_by_the_expert(run):
    before = run.measurements_csv.read_bytes()
    table = corrected.replay(run, STROKES, cohort="site", progress=False).set_index("structure")
    assert table.loc["ggo", "dice_after"] == 1.0
    assert table.loc["ggo", "dice_before"] < 1.0
    assert table.loc["high_opacity", "dice_after"] == 0.0
    assert table.strokes.eq(4).all()
    case, masks = corrected.read_corrected(run, "1", cohort="site")
    assert np.array_equal(masks["corrected"].labels == 1, case.expert.labels == 1)
    assert set(masks) == {"expert", "automatic", "corrected"}
    again = corrected.replay(run, STROKES, cohort="site", progress=False)
    assert again.set_index("structure").equals(table)  # a finished reading stays
    assert run.measurements_csv.read_bytes() == before
    with pytest.raises(ReadingError, match="not finished"):
        corrected.read_corrected(run, "2", cohort="site")


def test_only_the_corrected_cases_part_the_two_ways_and_strangers_judge(run, monkeypatch):
    corrected.replay(run, STROKES, cohort="site", progress=False)
    trained = []

    def watch(training, validation, config, folder, **options):
        trained.append((training, validation, config, options["seed"], options["start"]))
        return experiment.train_whole.__globals__["train"](training, validation, config, folder,
                                                           **options)
    monkeypatch.setattr(corrected, "train", watch)
    judged = corrected.train_on(run, STROKES, epochs=1, seed=5, cohort="site", progress=False)
    (plain, _, settings, *rest), (more, _, same_settings, *same_rest) = trained
    assert settings == same_settings
    assert rest == same_rest == [5, run.folder / "fold-0" / "checkpoint.pt"]
    assert settings.training.learning_rate == run.config.training.learning_rate / 2
    names = [sorted(case.hu[1, 5, 5] for case in cases) for cases in (plain, more)]
    assert len(names[1]) == len(names[0]) + 1
    extra = next(case for case in more if case.case_id == "1")
    assert set(np.unique(extra.target)) == {0, 1}  # as corrected, without the high opacity
    # Site's case 1 was corrected; the other site's 1 and the external 9 trained in no way.
    assert set(zip(judged.cohort, judged.case_id, strict=True)) == {
        ("site-b", "1"), ("site-b", "9")}
    assert judged.groupby("way").size().to_dict() == dict.fromkeys(corrected.WAYS, 6)
    assert judged.dice.dropna().between(0, 1).all()


def test_another_correction_is_another_training_and_no_relative_judges(run, monkeypatch):
    corrected.replay(run, STROKES, cohort="site", progress=False)
    corrected.train_on(run, STROKES, epochs=1, cohort="site", progress=False)
    folder = run.folder / "corrected" / "fold-0"
    first = {path.name for path in folder.iterdir()}
    corrected.train_on(run, STROKES, epochs=1, cohort="site", progress=False)
    assert {path.name for path in folder.iterdir()} == first  # the same again is found done
    corrected.replay(run, {"1": STROKES["1"][:2]}, cohort="site", reader="other", progress=False)
    corrected.train_on(run, STROKES, epochs=1, cohort="site", reader="other", progress=False)
    assert len({path.name for path in folder.iterdir()}) == 2 * len(first)

    def relatives(cohorts, role):  # the external case is another scan of the corrected patient
        for cohort, row in find_volumes(cohorts, role):
            yield cohort, row if role == "cv" else row.replace(row.patient_id, "P-site-1")
    monkeypatch.setattr(corrected, "find_volumes", relatives)
    judged = corrected.train_on(run, STROKES, epochs=1, cohort="site", progress=False)
    assert set(zip(judged.cohort, judged.case_id, strict=True)) == {("site-b", "1")}


def test_a_case_that_its_network_has_seen_corrects_nothing(run):
    with pytest.raises(ValueError, match=r"case\(s\) 2: expected of 1, which fold 0 left out"):
        corrected.train_on(run, {"2": []}, cohort="site", progress=False)


def test_the_gain_is_that_over_more_steps_alone():
    rows = [{"way": way, "seed": seed, "cohort": "c", "case_id": case,
             "structure": "ggo",
             "dice": base + 0.1 * k + 0.02 * seed}
            for seed in (0, 1) for case, base in (("a", 0.2), ("b", 0.4), ("c", np.nan))
            for k, way in enumerate(corrected.WAYS)]
    found = corrected.compare_ways(pd.DataFrame(rows)).iloc[0]
    assert (found.n, found.better, found.worse) == (2, 2, 0)
    assert found.gain == pytest.approx(0.1)
    assert found[corrected.WAYS[0]] == pytest.approx(0.31)


def test_a_run_without_the_synthetic_cohort_has_nothing_to_replay(run):
    strokes = corrected.recorded_strokes(run)
    assert strokes == {}
    assert corrected.replay(run, strokes).empty
    assert corrected.compare_ways(corrected.train_on(run, strokes)).empty


def test_the_recorded_strokes_belong_to_cases_that_fold_0_leaves_out():
    folder = shipped("data_manifests")
    strokes = json.loads((folder / corrected.RECORDED).read_text())["strokes"]
    splits = pd.read_csv(folder / "splits_phantom.csv").set_index("case_id")
    assert len(strokes) == 3
    assert (splits.loc[list(strokes), "fold"] == 0).all()
    assert all(len(drawn) >= 20 for drawn in strokes.values())
