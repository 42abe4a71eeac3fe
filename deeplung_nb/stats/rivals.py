"""Two tests on the same cases against one reference: two networks, or a network and a reader."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from deeplung_nb.labels import LESION_STRUCTURES
from deeplung_nb.stats import agreement, paired
from deeplung_nb.stats._results import (
    FEWEST,
    NAN_PAIR,
    cluster_codes,
    groups_left_out,
    jackknife_error,
)
from deeplung_nb.stats.dice import groups_of

NAN = float("nan")


def pooled_difference(first: Any, second: Any, cluster: Any = None, *, confidence: float = 0.95
                      ) -> tuple[float, tuple[float, float]]:
    """Difference of two pooled Dice coefficients of the same cases, second - first.

    Parameters
    ----------
    first, second
        Counts of two tests, shape (n, 3): tp, fp, fn of each case.
    cluster
        Which patient each case is of, one value a case; None: each is of another one.
    confidence
        Of the interval.

    Returns
    -------
    difference, (lower, upper)
        NaN interval with fewer than four patients.

    Formula
    -------
    2 sum tp / (2 sum tp + sum fp + sum fn) of each; ± t SE, SE by the jackknife of patients.

    Source
    ------
    Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 11.

    Checked against
    ---------------
    Each patient left out by hand; coverage by simulation.

    Examples
    --------
    >>> a = [[80, 20, 20], [10, 5, 5], [40, 10, 20], [50, 5, 10]]
    >>> b = [[90, 10, 10], [12, 5, 3], [45, 10, 15], [50, 5, 10]]
    >>> round(pooled_difference(a, b)[0], 3)
    0.062
    """
    tables = [np.asarray(counts, float) for counts in (first, second)]
    if any(table.ndim != 2 or table.shape[1] != 3 for table in tables) \
            or len(tables[0]) != len(tables[1]):
        raise ValueError("first and second: expected tp, fp, fn of the same cases, shape (n, 3)")
    codes = cluster_codes(cluster, len(tables[0]))
    m = int(codes.max(initial=-1)) + 1

    def pooled(sums: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return 2 * sums[..., 0] / (2 * sums[..., 0] + sums[..., 1] + sums[..., 2])

    if not m:
        return NAN, NAN_PAIR
    found = float(pooled(tables[1].sum(axis=0)) - pooled(tables[0].sum(axis=0)))
    group = groups_left_out(m)[codes]
    less = [table.sum(axis=0) - np.stack([np.bincount(group, column) for column in table.T], axis=1)
            for table in tables]
    without = pooled(less[1]) - pooled(less[0])
    if m < FEWEST or not np.isfinite(without).all():
        return found, NAN_PAIR
    half = float(stats.t.ppf((1 + confidence) / 2, len(without) - 1) * jackknife_error(without))
    return found, (found - half, found + half)


def rivals_table(frame: pd.DataFrame, first: str, second: str, *, reference: str = "expert",
                 by: Sequence[str] = ("cohort", "role"), confidence: float = 0.95) -> pd.DataFrame:
    """Which of two tests is nearer to the reference, on the cases that both read.

    Parameters
    ----------
    frame
        A checked table of measurements.
    first, second, reference
        Readers; a reader without masks (a second radiologist's volumes) has no Dice. Dice is
        against the expert: with another reference only errors of volume are compared.
    by
        Columns that make the groups.
    confidence
        Of the intervals.

    Returns
    -------
    DataFrame
        A row a group, structure and `measure`: `dice` (mean over cases in which both have one),
        `dice pooled`, `volume error` (mean |volume - reference's|, mL). `first` and `second` are
        the values of each, `difference` = second - first with `lower` and `upper` (t, or the
        jackknife, on patients), `p_value` of the signed-rank test, `n` cases of `n_patients`.
        More Dice is better, less error.
    """
    rows = []
    ok = frame[frame["status"] == "ok"]
    for group, part in groups_of(ok, by):
        for structure in LESION_STRUCTURES:
            of = {name: part[(part["reader"] == name) & (part["structure"] == structure)]
                  .set_index(["cohort", "case_id"]) for name in (first, second, reference)}
            cases = of[first].index.intersection(of[second].index)
            if cases.empty:
                continue
            a, b = (of[name].loc[cases] for name in (first, second))
            truth = of[reference]["volume_ml"].reindex(cases)
            measures = {"dice": (a["dice"], b["dice"]),
                        "volume error": tuple((one["volume_ml"] - truth).abs() for one in (a, b))}
            if reference != "expert":
                del measures["dice"]
            for measure, (x, y) in measures.items():
                both = (x.notna() & y.notna()).to_numpy(bool)
                if not both.any():
                    continue
                x, y = x[both].to_numpy(float), y[both].to_numpy(float)
                whose = a["patient_id"].to_numpy()[both]
                limits = agreement.bland_altman(x, y, cluster=whose, confidence=confidence)
                rank = paired.wilcoxon_signed_rank(x, y, cluster=whose, confidence=confidence)
                rows.append({**group, "structure": structure, "measure": measure, "n": limits.n,
                             "n_patients": limits.n_clusters, "first": float(x.mean()),
                             "second": float(y.mean()), "difference": limits.bias,
                             "lower": limits.bias_ci[0], "upper": limits.bias_ci[1],
                             "p_value": rank.p_value})
            counts = [one[["tp", "fp", "fn"]].to_numpy(float, na_value=NAN) for one in (a, b)]
            full = np.isfinite(counts).all(axis=(0, 2)) & (reference == "expert")
            if full.any():
                x, y = (one[full] for one in counts)
                whose = a["patient_id"].to_numpy()[full]
                found, ends = pooled_difference(x, y, whose, confidence=confidence)
                each = [2 * one[:, 0].sum() / (one @ [2, 1, 1]).sum() for one in (x, y)]
                rows.append({**group, "structure": structure, "measure": "dice pooled",
                             "n": int(full.sum()), "n_patients": len(set(whose)),
                             "first": float(each[0]), "second": float(each[1]),
                             "difference": found, "lower": ends[0], "upper": ends[1],
                             "p_value": NAN})
    if not rows:
        raise ValueError(f"no case that both {first!r} and {second!r} have read; readers here: "
                         f"{', '.join(sorted(set(frame['reader'].astype(str))))}")
    return pd.DataFrame(rows).assign(first_reader=first, second_reader=second)
