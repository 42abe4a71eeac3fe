"""Dice in its averagings, for `dice_table`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from deeplung_nb.labels import LESION_STRUCTURES
from deeplung_nb.stats import overlap, paired, robust
from deeplung_nb.stats._results import cluster_codes, one_array

NAN = float("nan")
BOOTSTRAP_RESAMPLES = 2000


def bootstrap_ratio_ci(
    numerators: Any, denominators: Any = None, cluster: Any = None, *, confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of sum / sum, patients resampled.

    Parameters
    ----------
    numerators, denominators
        1-D, one a case. Without denominators this is the interval of a mean.
    cluster
        Which patient each case is of, one value a case; None: each is of another one.
    confidence, seed
        Of the interval, 0 to 1. The same values and seed give the same interval.

    Returns
    -------
    (lower, upper)
        NaN with fewer than two patients, or where a resample has denominator 0.

    Formula
    -------
    Quantiles of sum / sum over resamples of the patients, drawn with replacement.

    Source
    ------
    Davison & Hinkley 1997, Bootstrap Methods and their Application, sections 3.8 and 5.3.

    Checked against
    ---------------
    Five copies of each patient: sqrt(5) times as wide as if the copies were patients.

    Examples
    --------
    >>> low, high = bootstrap_ratio_ci([1.0, 2.0, 3.0, 4.0])
    >>> 1.0 <= low < 2.5 < high <= 4.0
    True
    """
    a, _ = one_array(numerators, "numerators")
    b = np.ones(len(a)) if denominators is None else one_array(denominators, "denominators")[0]
    codes = cluster_codes(cluster, len(a))
    m = int(codes.max(initial=-1)) + 1
    if m < 2:
        return NAN, NAN
    over, under = np.bincount(codes, a), np.bincount(codes, b)
    draws = np.random.default_rng(seed).integers(m, size=(BOOTSTRAP_RESAMPLES, m))
    below = under[draws].sum(axis=1)
    if not below.all():
        return NAN, NAN
    low, high = np.quantile(over[draws].sum(axis=1) / below,
                            [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def groups_of(frame: pd.DataFrame, by: Sequence[str]
            ) -> Iterable[tuple[dict[str, Any], pd.DataFrame]]:
    keys = [name for name in by if name != "structure"]
    if not keys:
        yield {}, frame
        return
    # A group without a name is a group: its cases do not vanish.
    for values, rows in frame.groupby(keys, sort=True, dropna=False):
        yield dict(zip(keys, values, strict=True)), rows


def dice_table(frame: pd.DataFrame, *, test: str = "model", by: Sequence[str] = ("cohort", "role"),
               background: bool = False) -> pd.DataFrame:
    """Dice in every averaging that a paper can mean, each named, with the counts of empties.

    Parameters
    ----------
    frame
        A checked table of measurements with `tp, fp, fn` (and `tn` for the background).
    test
        The reader compared with the expert.
    background
        Add the structure `background` and the means over classes, without and with it.

    Returns
    -------
    DataFrame
        Columns: the group, `structure, averaging, empty, n, n_used, dice, sd_cases, sd_folds,
        ci_lower, ci_upper, n_both_empty, n_reference_empty, n_prediction_empty, n_failed`.
        Averagings: `per case` (mean over cases; `empty` says what two empty masks count), `median
        of cases`, `pooled` (all voxels together), `per fold` and `pooled per fold` (mean over folds
        of each). Intervals resample patients; the median's is by order statistics, for as many
        scans as those of the patients are worth; those over folds are Student's t.

    Raises
    ------
    ValueError
        A scored case has no voxel counts, or with `background` no `tn`.
    """
    mine = frame[(frame["reader"] == test) & frame["structure"].isin(LESION_STRUCTURES)]
    ok = mine["status"] == "ok"
    needed = ["tp", "fp", "fn", *(["tn"] if background else [])]
    bare = mine[ok & mine[needed].isna().any(axis=1)]
    if len(bare):
        raise ValueError(f"reader {test!r}: no {', '.join(needed)} for {len(bare)} row(s), first "
                         f"case {bare['case_id'].iloc[0]!r}: Dice can't be averaged without "
                         "counts")
    rows = []
    for group, part in groups_of(mine, by):
        failed = part.loc[part["status"] == "failed", ["cohort", "case_id"]]
        n_failed = len(failed.drop_duplicates())
        scored = part[part["status"] == "ok"]
        classes: dict[str, list[dict[str, Any]]] = {}
        for structure in LESION_STRUCTURES:
            cases = scored[scored["structure"] == structure]
            if len(cases):
                classes[structure] = _averagings(cases)
        if background and "lesion" in classes:
            cases = scored[scored["structure"] == "lesion"]
            # What is background to one and not to the other is the lesion's error, mirrored.
            classes["background"] = _averagings(
                cases.assign(tp=cases["tn"], fp=cases["fn"], fn=cases["fp"]))
            parts = [name for name in ("ggo", "high_opacity") if name in classes]
            for names in (parts, ["background", *parts]):
                if len(names) > 1 and parts:
                    classes[f"mean of {', '.join(names)}"] = _class_means(
                        [classes[name] for name in names])
        rows += [{**group, "structure": structure, **row, "n_failed": n_failed}
                 for structure, averaged in classes.items() for row in averaged]
    return pd.DataFrame(rows)


def _averagings(cases: pd.DataFrame) -> list[dict[str, Any]]:
    tp, fp, fn = (cases[name].to_numpy(dtype=float) for name in ("tp", "fp", "fn"))
    confusions = [overlap.Confusion(*map(int, counts)) for counts in zip(tp, fp, fn, strict=True)]
    patients = cases["patient_id"].to_numpy()
    folds = cases["fold"].to_numpy(dtype=float, na_value=NAN)
    counted = overlap.summary(confusions).to_dict()
    empties = {f"n_{name}_empty": counted[f"n_{name}_empty"]
               for name in ("both", "reference", "prediction")}

    def row(averaging: str, empty: str, n_used: int, dice: float, ends: tuple[float, float],
            sd_cases: float = NAN, sd_folds: float = NAN) -> dict[str, Any]:
        return {"averaging": averaging, "empty": empty, "n": len(cases), "n_used": n_used,
                "dice": dice, "sd_cases": sd_cases, "sd_folds": sd_folds, "ci_lower": ends[0],
                "ci_upper": ends[1], **empties}

    def over_folds(averaging: str, empty: str, n_used: int, means: pd.Series
                   ) -> list[dict[str, Any]]:
        means = means.dropna()
        if len(means) < 2:
            return []
        sd = float(means.std(ddof=1))
        half = float(stats.t.ppf(0.975, len(means) - 1)) * sd / np.sqrt(len(means))
        mean = float(means.mean())
        return [row(averaging, empty, n_used, mean, (mean - half, mean + half), sd_folds=sd)]

    rows = []
    for empty in overlap.EMPTY_POLICIES:
        values = overlap.dice_of_counts(tp, fp, fn, empty=empty)
        used = ~np.isnan(values)
        kept = pd.Series(values[used])
        rows.append(row("per case", empty, len(kept), float(kept.mean()),
                        bootstrap_ratio_ci(kept, cluster=patients[used]),
                        sd_cases=float(kept.std(ddof=1))))
        rows.append(row("median of cases", empty, len(kept), float(kept.median()),
                        _median_interval(kept.to_numpy(), patients[used])))
        rows += over_folds("per fold", empty, len(kept), kept.groupby(folds[used]).mean())
    size = 2 * tp + fp + fn
    rows.append(row("pooled", "no weight", len(cases), overlap.pooled_dice(confusions),
                    bootstrap_ratio_ci(2 * tp, size, patients)))
    sums = pd.DataFrame({"over": 2 * tp, "under": size}).groupby(folds).sum()
    return rows + over_folds("pooled per fold", "no weight", len(cases),
                             sums["over"] / sums["under"].where(sums["under"] > 0))


def _median_interval(values: np.ndarray, patients: np.ndarray) -> tuple[float, float]:
    low, high = robust.quantile_interval(values, 0.5, patients)
    return max(low, 0.0), min(high, 1.0)  # an end that so few can't secure is Dice's own


def _class_means(classes: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Means over classes of each averaging that all of them have; no SD or interval of such."""
    found = []
    for first in classes[0]:
        same = [row for rows in classes for row in rows
                if (row["averaging"], row["empty"]) == (first["averaging"], first["empty"])]
        if len(same) == len(classes):
            found.append({"averaging": first["averaging"], "empty": first["empty"],
                          "n": first["n"], "n_used": min(row["n_used"] for row in same),
                          "dice": float(np.mean([row["dice"] for row in same])),
                          **dict.fromkeys(("sd_cases", "sd_folds", "ci_lower", "ci_upper"), NAN)})
    return found


def dice_by_reader(frame: pd.DataFrame, *, by: Sequence[str] = ("cohort", "role"),
                   reference: str = "expert") -> pd.DataFrame:
    """Dice of every automatic reader beside the others: each fold's network, their ensemble.

    Parameters
    ----------
    frame
        A checked table of measurements with `tp, fp, fn`.
    by
        Columns within whose groups they stand.
    reference
        The reader that the others are scored against, which has no Dice of its own.

    Returns
    -------
    DataFrame
        A row a group, structure and reader: `n, n_used, dice, sd_cases, ci_lower, ci_upper`, the
        mean over the cases in which the reference marked something, the same for every reader, with
        its interval from resampled patients; `n_false`, the cases in which it marked nothing and
        the reader did; and `pooled` over all voxels.

    Formula
    -------
    The rows `per case` (cases with an empty reference left out) and `pooled` of `dice_table`.

    Source
    ------
    As `dice_table`.

    Checked against
    ---------------
    `dice_table` reader by reader.

    Examples
    --------
    >>> frame = pd.DataFrame({
    ...     "cohort": "c", "role": "external", "structure": "lesion", "status": "ok", "fold": 0,
    ...     "reader": ["fold-0", "fold-0", "ensemble", "ensemble"], "patient_id": list("abab"),
    ...     "case_id": list("abab"), "tp": [5, 8, 9, 9], "fp": 1, "fn": 1})
    >>> dice_by_reader(frame)[["reader", "n_used", "dice"]].round(3).values.tolist()
    [['ensemble', 2, 0.9], ['fold-0', 2, 0.861]]
    """
    tables = []
    for reader in sorted(set(frame["reader"].dropna().astype(str)) - {reference}):
        scored = frame.loc[~((frame["reader"] == reader) & frame["tp"].isna())]
        table = dice_table(scored, test=reader, by=by)
        if table.empty:
            continue
        cases = table[(table["averaging"] == "per case") & (table["empty"] == "nan_reference")]
        pooled = table.loc[table["averaging"] == "pooled", "dice"].to_numpy()
        tables.append(cases.assign(reader=reader, pooled=pooled, n_false=cases[
            "n_reference_empty"]))
    keys = [*by, "structure", "reader"]
    shown = [*keys, "n", "n_used", "dice", "sd_cases", "ci_lower", "ci_upper", "n_false",
             "pooled"]
    if not tables:
        return pd.DataFrame(columns=shown)
    found = pd.concat(tables, ignore_index=True)[shown]
    order = {name: number for number, name in enumerate(LESION_STRUCTURES)}
    place = found.assign(structure=[order[name] for name in found["structure"]])
    return found.loc[place.sort_values(keys).index].reset_index(drop=True)


def dice_between(frame: pd.DataFrame, group: str = "protocol", *, test: str = "model",
                 by: Sequence[str] = ("role",), confidence: float = 0.95) -> pd.DataFrame:
    """Dice of the cases of one protocol (scanner, centre ...) against those of another.

    Parameters
    ----------
    frame
        A checked table of measurements.
    group
        The column whose values are compared, each with each.
    test
        The reader compared with the expert.
    by
        Columns within whose groups they are compared.
    confidence
        Of the interval.

    Returns
    -------
    DataFrame
        A row a structure and pair of values: `first, second, n_first, n_second, median_first,
        median_second, difference` (Hodges-Lehmann, first - second) with `lower` and `upper`,
        `p_value`, `n_patients`; NaN where a value has no case whose Dice is defined.

    Formula
    -------
    `paired.mann_whitney` of the cases' Dice, each case as independent.

    Source
    ------
    Hollander, Wolfe & Chicken 2014, Nonparametric Statistical Methods, chapter 4.

    Checked against
    ---------------
    scipy.stats.mannwhitneyu; the median of all differences by hand.

    Examples
    --------
    >>> frame = pd.DataFrame({
    ...     "role": "cv", "reader": "model", "status": "ok", "structure": "lesion",
    ...     "patient_id": list("abcdef"), "protocol": ["plain"] * 3 + ["contrast"] * 3,
    ...     "dice": [0.8, 0.82, 0.9, 0.7, 0.71, 0.6]})
    >>> dice_between(frame)[["first", "second", "difference"]].round(2).values.tolist()
    [['contrast', 'plain', -0.19]]
    """
    mine = frame[(frame["reader"] == test) & (frame["status"] == "ok") & frame[group].notna()]
    rows = []
    for within, part in groups_of(mine, by):
        values = sorted(part[group].astype(str).unique())
        for structure in [name for name in LESION_STRUCTURES if name in set(part["structure"])]:
            cases = part[part["structure"] == structure].dropna(subset=["dice"])
            of = {value: cases.loc[cases[group].astype(str) == value, "dice"].to_numpy(float)
                  for value in values}
            for first, second in combinations(values, 2):
                a, b = of[first], of[second]
                found = paired.mann_whitney(a, b, confidence=confidence)
                rows.append({
                    **within, "group": group, "structure": structure, "first": first,
                    "second": second, "n_first": len(a), "n_second": len(b),
                    "median_first": float(np.median(a)) if len(a) else NAN,
                    "median_second": float(np.median(b)) if len(b) else NAN,
                    "difference": found.hodges_lehmann, "lower": found.hodges_lehmann_ci[0],
                    "upper": found.hodges_lehmann_ci[1], "p_value": found.p_value,
                    "n_patients": cases["patient_id"].nunique()})
    return pd.DataFrame(rows)
