"""Splits: patients never cross, every case is tested once, and what breaks is named."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deeplung_nb.cohorts import manifest, splits
from deeplung_nb.cohorts.splits import SplitError

MANIFESTS = Path(__file__).resolve().parent.parent / "data_manifests"


def cases(sizes: list[int], contrast: int = 0) -> pd.DataFrame:
    """A manifest table with patients of so many cases; the first `contrast` had contrast medium."""
    rows = [
        {"cohort": "site", "case_id": f"c{patient}-{scan}", "patient_id": f"p{patient}",
         "role": "cv", "exclude": False,
         "protocol": "contrast" if patient < contrast else "non-contrast"}
        for patient, size in enumerate(sizes) for scan in range(size)
    ]
    return pd.DataFrame(rows)


def good() -> pd.DataFrame:
    """A split of six cases of six patients that has no fault."""
    return pd.DataFrame({
        "cohort": "site", "case_id": list("abcdef"), "patient_id": [f"P{c}" for c in "abcdef"],
        "fold": [0, 0, 1, 1, 2, 2],
        "validation_in": pd.array([1, None, 2, None, 0, None], "Int64"),
    })


def test_the_papers_cohort_gets_the_papers_folds():
    frame = cases([1] * 197, contrast=30)
    split = splits.make_splits(frame, n_folds=5, seed=20210322, validation_fraction=0.2)
    protocol = frame.set_index(["cohort", "case_id"]).protocol
    for fold in range(5):
        part = splits.fold_cases(split, fold)
        assert len(part.test) in (39, 40)
        assert len(part.validation) == 32
        assert len(part.train) in (125, 126)
        assert (protocol[part.test] == "contrast").sum() == 6
        assert (protocol[part.validation] == "contrast").sum() in (4, 5)


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 4), min_size=5, max_size=30), n_folds=st.integers(3, 5),
       seed=st.integers(0, 99), contrast=st.integers(0, 10))
def test_every_split_keeps_patients_apart_and_tests_each_case_once(sizes, n_folds, seed, contrast):
    frame = cases(sizes, contrast)
    split = splits.make_splits(frame, n_folds, seed, validation_fraction=0.2)
    patient = frame.set_index(["cohort", "case_id"]).patient_id
    every = sorted(patient.index)
    tested = []
    for fold in range(n_folds):
        parts = splits.fold_cases(split, fold)
        assert sorted([*parts.train, *parts.validation, *parts.test]) == every
        people = [set(patient[part]) for part in parts]
        assert all(people)
        assert not people[0] & people[1]
        assert not people[0] & people[2]
        assert not people[1] & people[2]
        tested += parts.test
    assert sorted(tested) == every


def test_test_sets_are_of_even_size():
    frame = cases([2] * 6 + [1] * 11, contrast=7)
    counts = splits.make_splits(frame, 5, seed=3).fold.value_counts()
    assert counts.max() - counts.min() <= 2


def test_the_seed_decides_and_the_rows_keep_their_order():
    frame = cases([1] * 20)
    first, again, other = (splits.make_splits(frame, 4, seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert not first.fold.equals(other.fold)
    assert first.case_id.tolist() == frame.case_id.tolist()


def test_only_included_cv_cases_are_dealt():
    frame = cases([1] * 8)
    frame.loc[0, "role"] = "external"
    frame.loc[1, "exclude"] = True
    assert set(splits.make_splits(frame, 3, seed=0).case_id) == set(frame.case_id[2:])


@pytest.mark.parametrize(("n_folds", "fraction", "said"), [
    (2, 0.2, "n_folds is 2, expected 3 to 6"),
    (7, 0.1, "n_folds is 7, expected 3 to 6"),
    (5, 0.5, "validation_fraction is 0.5, expected above 0 and at most 0.25"),
    (5, 0.0, "validation_fraction is 0.0"),
])
def test_impossible_splits_are_refused(n_folds, fraction, said):
    with pytest.raises(ValueError, match=said):
        splits.make_splits(cases([1] * 6), n_folds, 0, fraction)


def change(table: pd.DataFrame, case: str, column: str, value: object) -> pd.DataFrame:
    table.loc[table.case_id == case, column] = value
    return table


@pytest.mark.parametrize(("table", "said"), [
    (change(good(), "b", "patient_id", "Pc"), r"patient 'Pc' has fold 0 and 1 \(cases b, c\)"),
    (change(good(), "b", "patient_id", "Pa"), "patient 'Pa' has validation_in 1 and none"),
    (pd.concat([good(), good().tail(1)]), "case 'f' appears 2 times"),
    (change(good(), "a", "validation_in", 0), "case 'a' validates fold 0, in which it is tested"),
    (change(good(), "e", "validation_in", 9), "validation_in holds 9, which is no fold"),
    (change(good(), "e", "validation_in", None), "fold 0 has no validation case"),
    (good().replace({"fold": {2: 3}}), "folds are 0, 1, 3"),
    (good().drop(columns="fold"), "column 'fold' is missing"),
])
def test_a_broken_split_names_the_fault(table, said):
    assert splits.check_splits(good()) is not None
    with pytest.raises(SplitError, match=said):
        splits.check_splits(table)


def test_a_split_is_held_against_the_manifest():
    frame = good()[["cohort", "case_id", "patient_id"]].assign(role="cv", exclude=False)
    splits.check_splits(good(), frame)
    new = pd.concat([frame, frame.tail(1).assign(case_id="g", patient_id="Pg")])
    with pytest.raises(SplitError, match="case 'g' of the manifest has no fold"):
        splits.check_splits(good(), new)
    with pytest.raises(SplitError, match="case 'f' has a fold but is no included 'cv' case"):
        splits.check_splits(good(), frame.assign(exclude=frame.case_id == "f"))
    with pytest.raises(SplitError, match="case 'a' has patient_id 'Pa', expected 'Q'"):
        splits.check_splits(good(), frame.replace({"patient_id": {"Pa": "Q"}}))


def test_written_splits_read_back_the_same(tmp_path):
    splits.write_splits(good(), tmp_path / "splits.csv")
    pd.testing.assert_frame_equal(splits.read_splits(tmp_path / "splits.csv"), good())


def test_unreadable_splits_name_the_cell(tmp_path):
    csv = tmp_path / "splits.csv"
    with pytest.raises(SplitError, match="is missing"):
        splits.read_splits(csv)
    good().astype({"fold": object}).replace({"fold": {2: "two"}}).to_csv(csv, index=False)
    with pytest.raises(SplitError, match="case 'e': fold is 'two', expected a whole number"):
        splits.read_splits(csv)


def test_an_unknown_fold_is_refused():
    with pytest.raises(ValueError, match="fold 3: expected one of 0, 1, 2"):
        splits.fold_cases(good(), 3)


@pytest.mark.parametrize("csv", sorted(MANIFESTS.glob("splits_*.csv")), ids=lambda path: path.stem)
def test_a_frozen_split_fits_its_manifest(csv):
    name = csv.stem.removeprefix("splits_")
    splits.read_splits(csv, manifest.read_cohort(name).frame)


def test_each_fold_of_medseg2_tests_and_trains_on_much_lesion():
    split = splits.read_splits(MANIFESTS / "splits_medseg2.csv")
    much_ground_glass, much_consolidation = {"1", "5", "8", "2"}, {"1", "2", "3", "5"}
    for fold in range(3):
        parts = splits.fold_cases(split, fold)
        for keys in (parts.train, parts.test):
            assert much_ground_glass & {key.case_id for key in keys}
        assert much_consolidation & {key.case_id for key in parts.train}


def test_the_readme_describes_the_columns_of_a_split():
    readme = (MANIFESTS / "README.md").read_text(encoding="utf-8")
    for name, meaning in splits.DESCRIPTIONS.items():
        assert f"| `{name}` | {meaning} |" in readme


def test_a_split_has_its_columns_and_rare_strata_are_spread():
    """Two contrast scans among ten never share a fold of five."""
    split = splits.make_splits(cases([1] * 10, contrast=2), 5, seed=1)
    assert list(split) == ["cohort", "case_id", "patient_id", "fold", "validation_in"]
    rare = cases([1] * 10, contrast=2).query("protocol == 'contrast'").case_id
    assert split[split.case_id.isin(rare)].fold.nunique() == 2
