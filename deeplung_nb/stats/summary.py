"""The tables that everything printed comes from, by group, and what they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb import measurements
from deeplung_nb.labels import LESION_STRUCTURES, NO_AMOUNTS
from deeplung_nb.stats.agreement import BlandAltman
from deeplung_nb.stats.comparison import Lead, compare
from deeplung_nb.stats.correlation import Correlation
from deeplung_nb.stats.description import describe
from deeplung_nb.stats.detection import detection, detection_table
from deeplung_nb.stats.dice import groups_of

__all__ = ["agreement_results", "agreement_row", "agreement_table", "compare", "describe",
           "detection", "detection_table"]


def agreement_results(
    frame: pd.DataFrame, role: str, structures: Sequence[str] = ("ggo", "high_opacity"), *,
    reference: str = "expert", test: str = "model", value: str = "volume_ml",
    limits: str = "auto",
) -> tuple[dict[str, pd.DataFrame], dict[str, BlandAltman], dict[str, Correlation],
           dict[str, Lead]]:
    """What Fig. 6 and Fig. i draw: pairs, bias, Spearman, limits to report; by structure.

    Parameters
    ----------
    frame
        A checked table of measurements.
    role
        `cv` or `external`.
    reference, test, value
        As `measurements.pair`.
    limits
        As `comparison.compare`.
    """
    pairs = {name: measurements.pair(frame, reference, test, name, value, role=role)
             for name in structures}
    found = {name: compare(pair, limits=limits) for name, pair in pairs.items()}
    return (pairs, *({name: getattr(one, part) for name, one in found.items()}
                     for part in ("limits", "spearman", "lead")))


def agreement_row(pairs: pd.DataFrame, confidence: float = 0.95, **given: Any) -> dict[str, Any]:
    """One table of pairs as a row of `agreement_table`: `comparison.compare(pairs).row()`.

    Parameters
    ----------
    pairs, confidence
        As `comparison.compare`, and so are `cluster`, `ci`, `missing` and `limits`.
    """
    return compare(pairs, confidence=confidence, **given).row()


def agreement_table(
    frame: pd.DataFrame, by: Sequence[str] = ("cohort", "role", "structure", "protocol"), *,
    reference: str = "expert", test: str = "model", value: str = "volume_ml",
    subset: str = "all", confidence: float = 0.95, missing: str = "raise",
    cluster: str | None = "auto", ci: str = "auto", limits: str = "auto",
) -> pd.DataFrame:
    """One row of agreement statistics for each group, and for all protocols together.

    Parameters
    ----------
    frame
        A checked table of measurements.
    by
        Columns that make the groups; with `protocol` among them, rows `protocol = all` are added,
        and are the only ones of a table that names no protocol.
    reference, test, value
        As `measurements.pair`.
    subset
        `all`, or `both-positive`: only pairs in which both readers see the structure. With many
        zeros, show detection first, then agreement among these, then all.
    missing
        Of an empty `value`: `raise`, or `drop` and count in `n_missing`.
    cluster, ci
        As `comparison.compare`: by patients where one has several pairs in a group, or None; and
        intervals of the correlations that hold with zeros and skew (`auto`), or `classical`: the
        column `intervals` says which.
    limits
        As `comparison.compare`: which limits of agreement lead, declared beforehand, or `auto`.

    Returns
    -------
    DataFrame
        The group's columns, `subset` and `value`, then those of `comparison.ROW`: who is compared
        (`reference`, `test`), counts (pairs, patients, zeros, failed, missing, the 2 x 2 of
        detection, NaN of what is no amount), both readers, the kind of `intervals`,
        bias, median difference, correlation and concordance, the limits to report (`limits` says
        constant, ratio, regression or quantile; `limit_*`, a ratio being without unit, those by
        regression at the mean of all readings;
        `limit_percent_outside` of the `limit_n` pairs that have one), then constant
        limits (MOVER), those of the ratio, by quantiles and by regression, slope and spread,
        signed-rank p with its method, `flags` (what to mind), `reasons` (why a field is empty) and
        `same_p_as`: the numbers of the other rows (from 0) with the very same signed-rank p, which
        real data of two groups hardly give. `independent` says whether intervals take `pairs` or
        `patients` as such. A group with fewer than three pairs keeps its row, with NaN where
        nothing can be estimated.

    Raises
    ------
    ValueError
        No group holds both readers, an unknown `subset`, or `both-positive` of what is no amount.
    """
    if subset not in ("all", "both-positive"):
        raise ValueError(f"subset={subset!r}: expected 'all' or 'both-positive'")
    if subset == "both-positive" and value in NO_AMOUNTS:
        raise ValueError(f"subset='both-positive': of {value} 0 is no absence. Expected an amount, "
                         "as volume_ml")
    ways = [list(by)]
    if "protocol" in by:
        together = [name for name in by if name != "protocol"]
        ways = [together, *ways] if set(frame["protocol"].dropna()) else [together]
    rows = []
    structures = [name for name in LESION_STRUCTURES if (frame["structure"] == name).any()] \
        or sorted(set(frame["structure"]))  # a table of nothing but lungs is one of lungs
    for way in ways:
        for group, part in groups_of(frame, way):
            for structure in structures:
                of_structure = part[part["structure"] == structure]
                read = of_structure[of_structure["status"] == "ok"]
                if not {reference, test} <= set(of_structure["reader"]) or read.empty:
                    continue  # not told apart here, as in a cohort with binary masks
                pair = measurements.pair(part, reference, test, structure, value)
                if subset == "both-positive":
                    pair = pair[~((pair["reference"] <= 0) | (pair["test"] <= 0))]
                row = agreement_row(pair, confidence, missing=missing, cluster=cluster, ci=ci,
                                    limits=limits)
                over = len(read[read["reader"].isin([reference, test])
                                & (read["burden_percent"] > 100)][["cohort", "case_id"]]
                           .drop_duplicates())
                if over:
                    row["flags"] = "; ".join(filter(None, [
                        row["flags"], f"burden over 100 % of the lung in {over}"]))
                rows.append({**group, "structure": structure,
                             "protocol": group.get("protocol", "all"), "subset": subset,
                             "value": value, **row})
    if not rows:
        raise ValueError(f"no group holds readings of both {reference!r} and {test!r}; readers "
                         f"here: {', '.join(sorted(set(frame['reader'].astype(str)))) or 'none'}")
    order = [*dict.fromkeys([*by, "structure", "protocol"])]
    table = pd.DataFrame(rows)
    table["same_p_as"] = _same_p(table)
    return table[[*order, *[name for name in table.columns if name not in order]]]


def _same_p(table: pd.DataFrame) -> list[str]:
    p_values = table["signed_rank_p"].where(table["signed_rank_p"] < 1)
    own = table["protocol"].to_numpy()
    found = []
    for row, p_value in enumerate(p_values):
        twins = [other for other in np.flatnonzero(p_values.to_numpy() == p_value)
                 # "all" of one protocol only repeats that protocol's row
                 if other != row and (own[row] == own[other] or "all" not in
                                      (own[row], own[other]))]
        found.append(", ".join(map(str, twins)))
    return found
