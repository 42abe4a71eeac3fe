"""Frozen splits: who trains, who validates and who tests, as a list of ids and not as a seed.

Each case is tested in exactly one fold (`fold`) and validates at most one other (`validation_in`);
in all other folds it trains. A patient's cases always go together.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from deeplung_nb.files import atomic_path
from deeplung_nb.measurements.spreadsheets import CsvError, read_csv

COLUMNS = ("cohort", "case_id", "patient_id", "fold", "validation_in")
DESCRIPTIONS = {
    "cohort": "name of the cohort",
    "case_id": "as in the manifest; every included case of role `cv`, once",
    "patient_id": "as in the manifest; all cases of a patient share `fold` and `validation_in`",
    "fold": "the fold in which the case is tested, from 0",
    "validation_in": "the fold whose training it watches over; empty: it trains in all others",
}


class SplitError(ValueError):
    """All that is wrong with a split, one line a fault."""

    def __init__(self, source: str, faults: list[str]) -> None:
        self.faults = faults
        super().__init__(source + ":" + "".join(f"\n  - {fault}" for fault in faults))


class CaseKey(NamedTuple):
    """What names a case: two cohorts may both have a case `1`."""

    cohort: str
    case_id: str

    def __str__(self) -> str:
        return f"{self.cohort}/{self.case_id}"


class Fold(NamedTuple):
    """The cases of one fold."""

    train: list[CaseKey]
    validation: list[CaseKey]
    test: list[CaseKey]


def _cv_cases(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[(frame.role == "cv") & ~frame.exclude.astype(bool)]


def _pick(patients: pd.DataFrame, target: int) -> list[str]:
    """Patients with about `target` cases, each stratum in proportion; at least one patient."""
    wanted = patients.groupby("stratum").n_cases.sum() * target / patients.n_cases.sum()
    left, chosen, n_chosen = patients.copy(), [], 0
    while len(left) and n_chosen < target:
        patient = left.loc[left.stratum.map(wanted).idxmax()]
        left = left.drop(patient.name)
        if not chosen or n_chosen + patient.n_cases <= target:
            chosen.append(patient.patient_id)
            n_chosen += patient.n_cases
            wanted[patient.stratum] -= patient.n_cases
    return chosen


def make_splits(frame: pd.DataFrame, n_folds: int, seed: int, validation_fraction: float = 0.2,
                stratify: tuple[str, ...] = ("protocol",)) -> pd.DataFrame:
    """Deal the included `cv` cases of a manifest to folds.

    Patients are dealt one by one, those with most cases first, to the fold that has fewest cases
    of their stratum (and then fewest at all). The validation cases of fold f are drawn from the
    test cases of the next fold, so that a case validates at most once.

    Parameters
    ----------
    frame
        Manifest table.
    n_folds
        At least 3, and at most the number of patients.
    seed
        Decides the order among equals.
    validation_fraction
        Part of the cases outside the test set that validate; at most 1 / (n_folds - 1).
    stratify
        Columns to balance; a patient counts with the values of their first case.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`, in the manifest's order.
    """
    cases = _cv_cases(frame)
    patients = cases.groupby("patient_id", sort=True).agg(
        n_cases=("case_id", "size"), **{name: (name, "first") for name in stratify}
    ).reset_index()
    if not 3 <= n_folds <= len(patients):
        raise ValueError(f"n_folds is {n_folds}, expected 3 to {len(patients)}, the number of "
                         "patients. A fold needs its own patients to train, validate and test")
    if not 0 < validation_fraction <= 1 / (n_folds - 1):
        raise ValueError(f"validation_fraction is {validation_fraction}, expected above 0 and at "
                         f"most {1 / (n_folds - 1):.3g} for {n_folds} folds")
    patients["stratum"] = [" / ".join(map(str, row)) for row in
                           patients[list(stratify)].itertuples(index=False)]
    patients = patients.loc[np.random.default_rng(seed).permutation(len(patients))]
    common = patients.stratum.map(patients.stratum.value_counts())
    # Rare strata last: they then even out the totals.
    patients = patients.assign(common=common).sort_values(
        ["n_cases", "common", "stratum"], ascending=[False, False, True], kind="stable"
    ).reset_index(drop=True)

    in_stratum: dict[tuple[int, str], int] = {}
    total = [0] * n_folds
    folds = []
    for patient in patients.itertuples():
        fold = min(range(n_folds),
                   key=lambda f: (in_stratum.get((f, patient.stratum), 0), total[f], f))
        in_stratum[fold, patient.stratum] = (
            in_stratum.get((fold, patient.stratum), 0) + patient.n_cases)
        total[fold] += patient.n_cases
        folds.append(fold)
    patients["fold"] = folds

    watches: dict[str, int] = {}
    for fold in range(n_folds):
        # 1e-9: a fraction such as 0.2 * 160 must not be rounded up by its last bit.
        target = math.ceil(validation_fraction * (len(cases) - total[fold]) - 1e-9)
        neighbours = patients[patients.fold == (fold + 1) % n_folds]
        watches.update(dict.fromkeys(_pick(neighbours, target), fold))

    splits = cases[["cohort", "case_id", "patient_id"]].reset_index(drop=True)
    splits["fold"] = splits.patient_id.map(patients.set_index("patient_id").fold)
    splits["validation_in"] = splits.patient_id.map(watches).astype("Int64")
    return check_splits(splits, frame, "make_splits")


def fold_cases(splits: pd.DataFrame, fold: int) -> Fold:
    """The cases (train, validation, test) of one fold, in the order of the table."""
    known = sorted(splits.fold.unique())
    if fold not in known:
        raise ValueError(f"fold {fold!r}: expected one of {', '.join(map(str, known))}")
    test = splits.fold == fold
    validation = (splits.validation_in == fold).fillna(False).astype(bool)
    train = ~test & ~validation
    keys = splits[["cohort", "case_id"]]
    return Fold(*([CaseKey(*key) for key in keys[part].itertuples(index=False)]
                  for part in (train, validation, test)))


def check_splits(splits: pd.DataFrame, frame: pd.DataFrame | None = None,
                 source: str = "splits") -> pd.DataFrame:
    """Check a split, by itself and against the manifest table `frame`; it comes back unchanged.

    Raises
    ------
    SplitError
        With all faults: a patient in two folds, a case tested twice or never, a case that
        validates the fold it is tested in, an empty part of a fold.
    """
    missing = [name for name in COLUMNS if name not in splits.columns]
    if missing:
        raise SplitError(source, [f"column {name!r} is missing, expected {', '.join(COLUMNS)}"
                                  for name in missing])
    faults = []
    for key, rows in splits.groupby(["cohort", "case_id"]):
        if len(rows) > 1:
            faults.append(f"case {key[1]!r} appears {len(rows)} times, expected once. "
                          "Delete the repeats")
    for patient, rows in splits.groupby("patient_id"):
        for column in ("fold", "validation_in"):
            values = rows[column].unique()
            if len(values) > 1:
                shown = " and ".join("none" if pd.isna(v) else str(v) for v in values)
                faults.append(f"patient {patient!r} has {column} {shown} (cases "
                              f"{', '.join(rows.case_id)}), expected one: the same lungs would "
                              "train and judge. Give all the patient's cases the same")
    own = splits[(splits.validation_in == splits.fold).fillna(False).astype(bool)]
    faults += [f"case {row.case_id!r} validates fold {row.fold}, in which it is tested. Choose "
               "another fold for validation_in" for row in own.itertuples()]
    folds = sorted(splits.fold.unique())
    if folds != list(range(len(folds))):
        faults.append(f"folds are {', '.join(map(str, folds))}, expected 0, 1, 2, … without a gap")
    strange = set(splits.validation_in.dropna()) - set(folds)
    if strange:
        faults.append(f"validation_in holds {', '.join(map(str, sorted(strange)))}, which is no "
                      f"fold; expected one of {', '.join(map(str, folds))}")
    for fold in folds:
        empty = [part for part, ids in fold_cases(splits, fold)._asdict().items() if not ids]
        faults += [f"fold {fold} has no {part} case, expected one or more. Move a patient"
                   for part in empty]
    if frame is not None:
        faults += _against_manifest(splits, frame)
    if faults:
        raise SplitError(source, faults)
    return splits


def _against_manifest(splits: pd.DataFrame, frame: pd.DataFrame) -> list[str]:
    cases = _cv_cases(frame)
    remedy = "Add its row, or make the splits anew"
    faults = [f"case {case!r} of the manifest has no fold, expected one. {remedy}"
              for case in cases.case_id if case not in set(splits.case_id)]
    faults += [f"case {case!r} has a fold but is no included 'cv' case of the manifest. "
               "Delete its row" for case in splits.case_id if case not in set(cases.case_id)]
    both = splits.merge(cases, on="case_id", suffixes=("", "_manifest"))
    for row in both.itertuples():
        for name in ("patient_id", "cohort"):
            here, there = getattr(row, name), getattr(row, f"{name}_manifest")
            if here != there:
                faults.append(f"case {row.case_id!r} has {name} {here!r}, expected {there!r} as "
                              "in the manifest. Correct the cell")
    return faults


def read_splits(csv: str | os.PathLike, frame: pd.DataFrame | None = None) -> pd.DataFrame:
    """Read a frozen split and check it (against the manifest table where `frame` is given)."""
    csv = Path(csv)
    if not csv.is_file():
        raise SplitError(csv.name, [f"{csv} is missing. Make it once with splits.make_splits and "
                                    "splits.write_splits, and keep it with the manifest"])
    try:
        table = read_csv(csv)
    except CsvError as error:
        raise SplitError(csv.name, [str(error)]) from error
    for name in ("fold", "validation_in"):
        if name not in table.columns:
            continue
        numbers = pd.to_numeric(table[name], errors="coerce")
        bad = table[(numbers.isna() | (numbers % 1 != 0))
                    & (table[name].notna() | (name == "fold"))]
        if len(bad):
            raise SplitError(csv.name, [
                f"case {row.case_id!r}: {name} is {row[name]!r}, expected a whole number"
                for _, row in bad.iterrows()
            ])
        table[name] = numbers.astype("int64" if name == "fold" else "Int64")
    return check_splits(table, frame, csv.name)


def write_splits(splits: pd.DataFrame, csv: str | os.PathLike) -> None:
    """Check a split and write it, whole or not at all."""
    check_splits(splits, source=Path(csv).name)
    with atomic_path(csv) as part:
        splits[list(COLUMNS)].to_csv(part, index=False, lineterminator="\n", encoding="utf-8")
