"""Disease made in unseen cases: each is read by its own fold, and counted as it is."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from deeplung_nb.cohorts.cases import Case
from deeplung_nb.cohorts.splits import CaseKey
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.lungs import LungMask
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.learning import stress
from deeplung_nb.reading.predict import Reading

SHAPE, SPACING = (10, 64, 64), (6.0, 4.0, 4.0)


def make_case(case_id="a", lungs=True):
    hu = np.full(SHAPE, 40, np.int16)
    hu[:, :4] = -1000
    inside = np.zeros(SHAPE, bool)
    inside[1:9, 16:50, 8:28] = inside[1:9, 16:50, 36:56] = True
    hu[inside] = -850
    labels = np.zeros(SHAPE, np.uint8)
    labels[4, 20:30, 10:20] = 1
    hu[labels > 0] = -500
    scan = Scan(hu, Grid.upright(SHAPE, SPACING), case_id)
    return Case(scan, LesionMask.like(scan, labels),
                LungMask.like(scan, inside, "reference") if lungs else None, ("lesion",))


class ByThreshold:
    """Marks what is denser than -700 HU in the lungs that it is told; half of these as lungs."""

    def __init__(self, lungs, marks_lungs=True):
        self.lungs, self.marks_lungs = lungs, marks_lungs

    def read(self, scan):
        dense = (scan.hu > -700) & self.lungs
        half = self.lungs & (np.arange(SHAPE[2]) < 32)
        return Reading(LesionMask.like(scan, dense.astype(np.uint8)),
                       LungMask.like(scan, half, "network") if self.marks_lungs else None)


def test_what_is_made_is_counted_and_found_beside_what_was_there():
    case = make_case()
    ml = np.prod(SPACING) / 1000
    lungs = case.lungs.mask
    predictor = ByThreshold(lungs)
    plain = stress._score(case, case.lungs, predictor, None)
    assert plain["made_ml"] == 0
    assert np.isnan(plain["percent_of_made_found"])
    assert plain["expert_ml"] == plain["found_ml"] == pytest.approx(100 * ml)
    assert plain["dice"] == 1
    assert plain["lungs_ml"] == pytest.approx(lungs.sum() * ml)
    assert plain["lungs_found_ml"] == pytest.approx(lungs.sum() * ml / 2)
    assert plain["lungs_dice"] == pytest.approx(2 / 3)
    lesion = stress.MADE["dorsal consolidation, 37 % of the lungs, 30 HU"]
    made = stress._score(case, case.lungs, predictor, lesion)
    assert made["expert_ml"] == pytest.approx(plain["expert_ml"] + made["made_ml"])
    assert made["made_ml"] == pytest.approx(0.37 * lungs.sum() * ml, rel=0.05)
    assert made["percent_of_made_found"] > 95
    assert made["lungs_ml"] == plain["lungs_ml"]  # lung stays lung
    blind = ByThreshold(lungs & False, marks_lungs=False)
    none = stress._score(case, case.lungs, blind, lesion)
    assert none["percent_of_made_found"] == none["dice"] == none["found_ml"] == 0
    assert "lungs_dice" not in none


def test_each_case_is_read_by_the_fold_that_never_saw_it_once(tmp_path, monkeypatch):
    cases = {"a": make_case("a"), "b": make_case("b", lungs=False), "c": make_case("c")}
    folds = {"a": 1, "b": 0, "c": 0}
    rows = [SimpleNamespace(case_id=name, patient_id=f"P{name}") for name in cases]
    loaded = []
    monkeypatch.setattr(stress, "load_cohorts", lambda _: [])
    monkeypatch.setattr(stress, "load_splits", lambda *_: None)
    monkeypatch.setattr(stress, "find_volumes", lambda *_: [
        (SimpleNamespace(name="site"), row) for row in rows])
    monkeypatch.setattr(stress, "fold_cases", lambda _, fold: SimpleNamespace(
        test=[CaseKey("site", name) for name, own in folds.items() if own == fold]))
    monkeypatch.setattr(stress, "read_case", lambda _, name: cases[name])

    def load(paths):
        loaded.append(paths[0].parent.name)
        return ByThreshold(cases["a"].lungs.mask)

    monkeypatch.setattr(stress.Predictor, "from_checkpoints", load)
    run = SimpleNamespace(
        config=SimpleNamespace(n_folds=2), path=lambda *parts: tmp_path.joinpath(*parts),
        fold_folder=lambda fold: f"fold-{fold}",
        require=lambda *parts, made_by: tmp_path.joinpath(*parts))
    found = stress.score_made(run, progress=False)
    assert list(found.columns) == list(stress.COLUMNS)
    assert found.groupby("case_id").fold.unique().map(list).to_dict() == {"a": [1], "c": [0]}
    some = stress.score_unseen([], None, {1: tmp_path / "fold-1" / "checkpoint.pt"}, False)
    assert set(some.case_id) == {"a"}  # no network of the other fold is at hand
    assert (found.groupby("case_id").size() == 1 + len(stress.MADE)).all()
    assert sorted(loaded) == ["fold-0", "fold-1", "fold-1"]
    loaded.clear()
    pd.testing.assert_frame_equal(stress.score_made(run, progress=False), found)
    assert loaded == []


def test_means_are_over_cases_and_ratios_are_geometric():
    frame = pd.DataFrame({
        "made": ["x", "x", "none", "none"], "percent_of_made_found": [80.0, 90.0, np.nan, np.nan],
        "expert_ml": [100.0, 100.0, 50.0, 0.2], "found_ml": [50.0, 200.0, 60.0, 9.0],
        "dice": [0.6, 0.8, 0.7, 0.0], "lungs_ml": 4000.0,
        "lungs_found_ml": [4000.0, 3000.0, 1.0, 1.0], "lungs_dice": 0.9})
    table = stress.summarise_made(frame).set_index("made")
    assert table.loc["x", "ratio"] == pytest.approx(1.0)
    assert table.loc["x", "dice"] == pytest.approx(0.7)
    assert table.loc["x", "percent_of_made_found"] == 85.0
    assert table.loc["x", "lungs_ratio"] == pytest.approx(0.875)
    assert table.loc["none", "dice"] == 0.7  # a nearly empty case has no say in Dice and ratio
    assert table.loc["none", "ratio"] == pytest.approx(1.2)
