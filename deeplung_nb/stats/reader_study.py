"""The sums of a reader study: within and between readers, time with and without the machine.

Each function takes the table of a study (`reading.study_table`), or one like it: a row for each
reading and structure, with `case_id, reader, arm, occasion, structure, volume_ml, seconds`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.stats

from deeplung_nb.stats import clusters, followup, planning, readers, reliability

FEWEST_CASES = 3
"""Fewer are no agreement."""


def _need(frame: pd.DataFrame, *names: str) -> None:
    missing = [name for name in names if name not in frame]
    if missing:
        raise ValueError(f"column(s) {', '.join(missing)} are missing, expected the table of a "
                         "reader study (reading.study_table)")


def _first(frame: pd.DataFrame, arm: str, structure: str) -> pd.DataFrame:
    return frame.loc[(frame["arm"] == arm) & (frame["structure"] == structure)
                     & (frame["occasion"] == 1)]


def within_readers(frame: pd.DataFrame) -> pd.DataFrame:
    """How far a reader is from themself: readings of the same case in the same arm.

    Returns
    -------
    DataFrame
        One row for each reader, arm and structure with repeats: `n` cases, `mean_difference`
        (second less first, mL), `within_sd, coefficient` and its interval, of
        `followup.repeatability`; NaN with fewer than three.
    """
    _need(frame, "case_id", "reader", "arm", "occasion", "structure", "volume_ml")
    rows: list[dict[str, Any]] = []
    groups: Any = frame.groupby(["reader", "arm", "structure"], sort=False)
    for (reader, arm, structure), part in groups:
        wide = part.pivot(index="case_id", columns="occasion", values="volume_ml")
        if not {1, 2} <= set(wide.columns):
            continue
        both = wide[[1, 2]].dropna()
        if not len(both):
            continue
        row = {"reader": reader, "arm": arm, "structure": structure, "n": len(both),
               "mean_difference": float((both[2] - both[1]).mean())}
        if len(both) >= FEWEST_CASES:
            long = both.stack().rename("ml").reset_index()
            found = followup.repeatability(long, "case_id", "ml")
            row |= {"within_sd": found.within_sd, "coefficient": found.coefficient,
                    "coefficient_low": found.coefficient_ci[0],
                    "coefficient_high": found.coefficient_ci[1]}
        rows.append(row)
    return pd.DataFrame(rows)


def between_readers(frame: pd.DataFrame, machine: str = "automatic_ml") -> pd.DataFrame:
    """How far readers are from each other, and the machine from them, on first readings.

    Returns
    -------
    DataFrame
        One row for each arm and structure with two readers and three cases that all have read:
        `n, readers, icc` (two-way, absolute agreement, one reader) with its interval, and, but
        for the arms that showed the machine's marks, `difference, difference_low,
        difference_high`: of `readers.interchangeability` with the machine, mL.
    """
    _need(frame, "case_id", "reader", "arm", "occasion", "structure", "volume_ml")
    rows: list[dict[str, Any]] = []
    groups: Any = frame[frame["occasion"] == 1].groupby(["arm", "structure"], sort=False)
    for (arm, structure), part in groups:
        wide = part.pivot(index="case_id", columns="reader", values="volume_ml").dropna()
        if wide.shape[1] < 2 or len(wide) < FEWEST_CASES:
            continue
        long = wide.stack().rename("ml").reset_index()
        found = reliability.icc(long, "case_id", "reader", "ml")
        row = {"arm": arm, "structure": structure, "n": len(wide), "readers": wide.shape[1],
               "icc": found.icc_a1, "icc_low": found.icc_a1_ci[0], "icc_high": found.icc_a1_ci[1]}
        if arm == "unaided" and machine in part:  # elsewhere the readers have seen the machine's
            read = part.drop_duplicates("case_id").set_index("case_id").loc[wide.index, machine]
            of_machine = pd.DataFrame({"case_id": wide.index, "reader": "machine",
                                       "ml": read.to_numpy()})
            both = readers.interchangeability(pd.concat([long, of_machine]), "case_id", "reader",
                                              "ml", "machine")
            row |= {"difference": both.difference, "difference_low": both.difference_ci[0],
                    "difference_high": both.difference_ci[1]}
        rows.append(row)
    return pd.DataFrame(rows)


def time_saved(frame: pd.DataFrame, without: str = "unaided") -> pd.DataFrame:
    """Seconds in each arm against those without the machine, by case and reader.

    Returns
    -------
    DataFrame
        One row for each other arm: `n` pairs, `n_without_time` (left out: a time of 0 has no
        ratio), `cases, readers, mean_without, mean_with`, s, `ratio` (geometric mean of with /
        without) with an interval by a bootstrap of whole cases, and `p` of the signed-rank test in
        which a case is turned as a whole.
    """
    _need(frame, "case_id", "reader", "arm", "occasion", "seconds")
    each = frame.loc[frame["occasion"] == 1].drop_duplicates(["case_id", "reader", "arm"])
    wide = each.pivot(index=["case_id", "reader"], columns="arm", values="seconds")
    rows: list[dict[str, Any]] = []
    for arm in [name for name in wide.columns if name != without and without in wide]:
        both = wide.loc[:, [without, arm]].dropna()
        timed = (both > 0).all(axis=1)
        n_without_time, both = int((~timed).sum()), both.loc[timed]
        case = both.index.get_level_values("case_id").to_numpy()
        if len(set(case)) < FEWEST_CASES:
            continue
        base, other = (np.log(both[name].to_numpy(float)) for name in (without, arm))

        def shift(a: np.ndarray, b: np.ndarray, codes: np.ndarray) -> float:
            return float(np.mean(b - a))

        (low, high), = clusters.bootstrap(shift, base, other, case)
        test = clusters.signed_rank(base, other, case)
        rows.append({
            "arm": arm, "n": len(both), "n_without_time": n_without_time,
            "cases": len(set(case)),
            "readers": both.index.get_level_values("reader").nunique(),
            "mean_without": float(np.mean(both[without])), "mean_with": float(np.mean(both[arm])),
            "ratio": float(np.exp(np.mean(other - base))), "ratio_low": float(np.exp(low)),
            "ratio_high": float(np.exp(high)), "p": test.p_value})
    return pd.DataFrame(rows)


def corrections(frame: pd.DataFrame) -> pd.DataFrame:
    """What correcting has changed: a row a structure, means over readings of the arm `correcting`.

    Returns
    -------
    DataFrame
        `structure, n, added_ml, removed_ml, slices_changed, dice_automatic`, and where the truth is
        known `n_dice, dice_before, dice_after`, of the readings in which both are defined. With
        lungs in the table `n_regions` readings have them, and `share_<region>` is the part of all
        that was changed in these which lies in a region.
    """
    _need(frame, "arm", "structure", "added_ml", "removed_ml", "slices_changed", "dice_automatic")
    part = frame.loc[frame["arm"] == "correcting"]
    regions = [name for name in frame if name.startswith("changed_") and name.endswith("_ml")]
    rows: list[dict[str, Any]] = []
    groups: Any = part.groupby("structure", sort=False)
    for structure, some in groups:
        row = {"structure": structure, "n": len(some),
               **{name: some[name].mean() for name in ("added_ml", "removed_ml", "slices_changed",
                                                       "dice_automatic")}}
        if "dice_before" in some:
            both = some[["dice_before", "dice_after"]].astype(float).dropna()
            row |= {"n_dice": len(both), "dice_before": both["dice_before"].mean(),
                    "dice_after": both["dice_after"].mean()}
        if regions:
            known = some[regions].dropna()
            changed = float((some["added_ml"] + some["removed_ml"]).loc[known.index].sum())
            row |= {"n_regions": len(known), **{
                name.replace("changed_", "share_").removesuffix("_ml"):
                float(known[name].sum()) / changed if changed else float("nan")
                for name in regions}}
        rows.append(row)
    return pd.DataFrame(rows)


def with_consensus(frame: pd.DataFrame) -> pd.DataFrame:
    """The machine against what readers say together.

    Parameters
    ----------
    frame
        Of `reading.study_table.consensus_table`.

    Returns
    -------
    DataFrame
        One row for each arm in which nobody had seen the machine's marks, way and structure:
        `cases, readers` (fewest of a case), the mean
        `difference` (machine less consensus, mL) with an interval over the cases by the t
        distribution (NaN with fewer than three), and mean `dice_automatic, dice_readers` of the
        `n_dice` cases in which both are defined.
    """
    _need(frame, "case_id", "arm", "way", "readers", "structure", "volume_ml", "automatic_ml",
          "dice_automatic", "dice_readers")
    rows: list[dict[str, Any]] = []
    groups: Any = frame.dropna(subset=["automatic_ml"]).groupby(["arm", "way", "structure"],
                                                                sort=False)
    for (arm, way, structure), part in groups:
        d = (part["automatic_ml"] - part["volume_ml"]).to_numpy(float)
        half = float("nan")
        if len(d) >= FEWEST_CASES:
            half = float(scipy.stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d)))
        dice = part[["dice_automatic", "dice_readers"]].astype(float).dropna()
        rows.append({"arm": arm, "way": way, "structure": structure, "cases": len(part),
                     "readers": int(part["readers"].min()), "difference": float(d.mean()),
                     "difference_low": float(d.mean()) - half,
                     "difference_high": float(d.mean()) + half, "n_dice": len(dice),
                     **{name: dice[name].mean() for name in dice}})
    return pd.DataFrame(rows)


def cases_needed(frame: pd.DataFrame, margin_ml: float, *, structure: str = "lesion",
                 arm: str = "unaided", power: float = 0.8) -> planning.Needed:
    """Cases that the study proper needs, by what this pilot shows.

    To show that the machine differs from readers by no more than `margin_ml` beyond what they
    differ by from each other (`planning.for_interchangeability`), at the difference and spread of
    the pilot. A pilot of few cases knows its spread badly: take more.

    Raises
    ------
    ValueError
        The pilot has fewer than two readers or three cases in this arm, or its difference is
        beyond the margin.
    """
    part = _first(frame, arm, structure)
    wide = part.pivot(index="case_id", columns="reader", values="volume_ml").dropna()
    if wide.shape[1] < 2 or len(wide) < FEWEST_CASES:
        raise ValueError(f"arm {arm!r}: {len(wide)} cases that {wide.shape[1]} readers have read, "
                         f"expected {FEWEST_CASES} and two or more")
    machine = part.drop_duplicates("case_id").set_index("case_id").loc[wide.index, "automatic_ml"]
    with_machine = wide.sub(machine, axis=0).abs().mean(axis=1)
    values = wide.to_numpy(float)
    first, second = np.triu_indices(wide.shape[1], 1)
    among = np.abs(values[:, first] - values[:, second]).mean(axis=1)
    d = with_machine.to_numpy(float) - among
    return planning.for_interchangeability(float(d.mean()), float(d.std(ddof=1)), margin_ml,
                                           power=power)
