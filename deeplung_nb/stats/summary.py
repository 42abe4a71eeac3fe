"""Descriptives, and the two tables that everything printed comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from deeplung_nb import measurements
from deeplung_nb.labels import LESION_STRUCTURES
from deeplung_nb.stats import agreement, correlation, paired, reliability
from deeplung_nb.stats import clusters as by_cluster
from deeplung_nb.stats._results import Result, one_array
from deeplung_nb.stats.dice import groups_of

NAN = float("nan")


@dataclass(frozen=True, repr=False)
class Description(Result):
    """Result of `describe`; quartiles of type 7 (R, numpy) and of type 6 (SPSS)."""

    n: int
    mean: float
    sd: float
    se: float
    median: float
    q1: float
    q3: float
    iqr: float
    q1_spss: float
    q3_spss: float
    iqr_spss: float
    minimum: float
    maximum: float
    n_zero: int
    n_missing: int


def describe(values: Any, *, missing: str = "raise") -> Description:
    """Mean, SD, SE, median, quartiles and extremes.

    Parameters
    ----------
    values
        1-D.
    missing
        `raise`, or `drop` and count.

    Returns
    -------
    Description
        In the unit of the values; NaN where n does not allow it.

    Formula
    -------
    SD with n - 1; SE = SD / sqrt(n); quartiles of type 7 (`q1`), and of type 6 (`q1_spss`).

    Source
    ------
    Hyndman & Fan 1996, Am Stat 50:361: type 7 is R's and numpy's default, type 6 is SPSS's.

    Checked against
    ---------------
    numpy, and quartiles by hand.

    Examples
    --------
    >>> d = describe([1.0, 2.0, 3.0, 4.0])
    >>> d.median, d.q1, d.q1_spss
    (2.5, 1.75, 1.25)
    """
    a, n_missing = one_array(values, missing=missing)
    n = len(a)
    if n == 0:
        return Description(0, *[NAN] * 12, 0, n_missing)
    sd = float(a.std(ddof=1)) if n > 1 else NAN
    q1, q3 = np.quantile(a, [0.25, 0.75])
    spss = np.quantile(a, [0.25, 0.75], method="weibull")
    return Description(n, float(a.mean()), sd, sd / np.sqrt(n) if n > 1 else NAN,
                       float(np.median(a)), float(q1), float(q3), float(q3 - q1),
                       float(spss[0]), float(spss[1]), float(spss[1] - spss[0]),
                       float(a.min()), float(a.max()), int((a == 0).sum()), n_missing)


def detection(pair: pd.DataFrame) -> dict[str, int]:
    """2 x 2 of any against none: who sees the structure at all.

    Parameters
    ----------
    pair
        Columns `reference` and `test`, one row a case.

    Returns
    -------
    dict
        Cases of `both`, `reference_only`, `test_only`, `neither`; a pair with an empty reading is
        none of them.

    Formula
    -------
    Seen is above 0.

    Source
    ------
    Bossuyt et al. 2015 (STARD), BMJ 351:h5527, item 23: cross tabulation.

    Checked against
    ---------------
    Counts by hand.

    Examples
    --------
    >>> detection(pd.DataFrame({"reference": [0.0, 2.0, 3.0], "test": [0.0, 0.0, 4.0]}))
    {'both': 1, 'reference_only': 1, 'test_only': 0, 'neither': 1}
    """
    read = pair[["reference", "test"]].dropna()
    wanted, found = read.reference > 0, read.test > 0
    return {"both": int((wanted & found).sum()), "reference_only": int((wanted & ~found).sum()),
            "test_only": int((~wanted & found).sum()), "neither": int((~wanted & ~found).sum())}


def _flags(row: dict[str, Any]) -> str:
    found = []
    if row["independent"] == "patients":
        found.append(f"{row['n']} pairs of {row['n_patients']} patients: by patients")
    elif row["n_patients"] < row["n"]:
        found.append(f"{row['n']} pairs of {row['n_patients']} patients, taken as independent")
    if row["slope_p"] < 0.05:
        found.append("proportional bias")
    if row["heteroscedasticity_p"] < 0.05:
        grows = row["regression_sd_slope"] > 0
        found.append(f"spread {'grows' if grows else 'shrinks'} with size")
    if row["shapiro_p"] < 0.05:
        found.append("differences not normal")
    if row["n"] and np.isfinite(row["percent_outside"]):
        outside = round(row["percent_outside"] * row["n"] / 100)
        if stats.binomtest(outside, row["n"], 0.05).pvalue < 0.01:
            found.append(f"{row['percent_outside']:.0f} % outside the limits, expected 5")
    if row["n_zero"] > row["n"] / 3:
        found.append("many zeros")
    return "; ".join(found)


CLUSTERS = ("auto", "ignore")
BY_PATIENTS = "by patients"
"""The kind of interval where a patient has several pairs."""
Z = float(stats.norm.ppf(0.975))


def _resampled(a: np.ndarray, b: np.ndarray, _: np.ndarray) -> list[float]:
    """Limits, Spearman, Pearson, CCC of one resample, as fast as numpy can."""
    d = b - a
    half = Z * d.std(ddof=1)

    def r(x: np.ndarray, y: np.ndarray) -> float:
        x, y = x - x.mean(), y - y.mean()
        return (x @ y) / np.sqrt((x @ x) * (y @ y))

    shared = np.mean((a - a.mean()) * (b - b.mean()))
    return [d.mean() - half, d.mean() + half, r(stats.rankdata(a), stats.rankdata(b)), r(a, b),
            2 * shared / (a.var() + b.var() + (a.mean() - b.mean()) ** 2)]


def _by_patients(a: np.ndarray, b: np.ndarray, patients: np.ndarray,
                 confidence: float) -> dict[str, Any]:
    """What of a row changes where patients, not readings, are independent."""
    import statsmodels.api as sm

    limits = reliability.clustered_limits(
        pd.DataFrame({"patient": patients, "reference": a, "test": b}), "patient", "reference",
        "test", confidence=confidence)
    ends = by_cluster.bootstrap(_resampled, a, b, patients, confidence=confidence)
    found = {"bias": limits.bias, "bias_lower": limits.bias_ci[0], "bias_upper": limits.bias_ci[1],
             "sd": limits.sd, "loa_lower": limits.loa_lower, "loa_upper": limits.loa_upper,
             "percent_outside": 100.0 * float(np.mean((b - a < limits.loa_lower)
                                                      | (b - a > limits.loa_upper)))}
    for name, (low, high) in zip(
            ("loa_lower_ci", "loa_upper_ci", "spearman", "pearson", "ccc"), ends, strict=True):
        found[f"{name}_lower"], found[f"{name}_upper"] = low, high
    rank = by_cluster.signed_rank(a, b, patients)
    found |= {"signed_rank_p": rank.p_value, "signed_rank_method": f"{rank.method}, by patients",
              "hodges_lehmann_lower": NAN, "hodges_lehmann_upper": NAN,
              "hodges_lehmann_all_lower": NAN, "hodges_lehmann_all_upper": NAN, "spearman_p": NAN}
    mean = (a + b) / 2
    if len(a) > 3 and np.ptp(mean) > 0 and np.ptp(b - a) > 0:
        fit = sm.OLS(b - a, sm.add_constant(mean)).fit(
            cov_type="cluster", cov_kwds={"groups": pd.factorize(patients)[0]}, use_t=True)
        low, high = fit.conf_int(1 - confidence)[1]
        found |= {"slope_lower": float(low), "slope_upper": float(high),
                  "slope_p": float(fit.pvalues[1])}
    return found


def agreement_row(pair: pd.DataFrame, confidence: float = 0.95, *, missing: str = "raise",
                  clusters: str = "auto") -> dict[str, Any]:
    """Every agreement statistic of one table of pairs, as one flat row (volumes in mL).

    Parameters
    ----------
    pair
        A table of `measurements.pair`.
    clusters
        `auto`: where the column `patient_id` repeats, intervals and tests are by patients
        (`clustered_limits`, a bootstrap of patients, the clustered signed-rank test), and the row
        says so in `independent`. `ignore`: every pair as independent.

    Returns
    -------
    dict
        See `agreement_table` for the columns.
    """
    if clusters not in CLUSTERS:
        raise ValueError(f"clusters={clusters!r}: expected one of {', '.join(CLUSTERS)}")
    both = pair[["reference", "test", *(["patient_id"] if "patient_id" in pair else [])]]
    if missing == "drop":
        both = both.dropna(subset=["reference", "test"])
    reference, test = (both[name].to_numpy(float) for name in ("reference", "test"))
    limits = agreement.bland_altman(reference, test, confidence=confidence)
    quantiles = agreement.bland_altman(reference, test, limits="quantile", confidence=confidence)
    regression = agreement.bland_altman(reference, test, limits="regression", confidence=confidence)
    rank = paired.wilcoxon_signed_rank(reference, test, confidence=confidence)
    ranks = correlation.spearman(reference, test, confidence=confidence)
    line = correlation.pearson(reference, test, confidence=confidence)
    ccc = agreement.concordance(reference, test, confidence=confidence)
    every = paired.wilcoxon_signed_rank(reference, test, zeros="pratt", confidence=confidence)
    n_patients = both["patient_id"].nunique() if "patient_id" in both else len(both)
    grouped = clusters == "auto" and 1 < n_patients < len(both) \
        and not both["patient_id"].isna().any()
    a, b = describe(reference), describe(test)
    row = {
        **{side: pair.attrs.get(side, side) for side in ("reference", "test")},
        "n": limits.n, "n_patients": n_patients,
        "independent": "patients" if grouped else "pairs", "n_zero": limits.n_zero,
        "n_missing": len(pair) - len(both),
        "n_failed": pair.attrs.get("n_failed", 0),
        **{f"detected_{key}": value for key, value in detection(both).items()},
        "reference_median": a.median, "reference_q1": a.q1, "reference_q3": a.q3,
        "test_median": b.median, "test_q1": b.q1, "test_q3": b.q3,
        "reference_mean": a.mean, "reference_sd": a.sd, "test_mean": b.mean, "test_sd": b.sd,
        "bias": limits.bias, "bias_lower": limits.bias_ci[0], "bias_upper": limits.bias_ci[1],
        "sd": limits.sd, "loa_lower": limits.loa_lower, "loa_upper": limits.loa_upper,
        "loa_lower_ci_lower": limits.loa_lower_ci[0], "loa_lower_ci_upper": limits.loa_lower_ci[1],
        "loa_upper_ci_lower": limits.loa_upper_ci[0], "loa_upper_ci_upper": limits.loa_upper_ci[1],
        "percent_outside": limits.percent_outside,
        "quantile_lower": quantiles.loa_lower, "quantile_upper": quantiles.loa_upper,
        "regression_bias_intercept": regression.bias_line[0],
        "regression_bias_slope": regression.bias_line[1],
        "regression_sd_intercept": regression.sd_line[0],
        "regression_sd_slope": regression.sd_line[1],
        "slope": limits.slope, "slope_lower": limits.slope_ci[0],
        "slope_upper": limits.slope_ci[1], "slope_p": limits.slope_p,
        "heteroscedasticity_p": limits.heteroscedasticity_p, "shapiro_p": limits.shapiro_p,
        "spearman": ranks.r, "spearman_lower": ranks.ci[0], "spearman_upper": ranks.ci[1],
        "spearman_p": ranks.p_value,
        "pearson": line.r, "pearson_lower": line.ci[0], "pearson_upper": line.ci[1],
        "ccc": ccc.ccc, "ccc_lower": ccc.ccc_ci[0], "ccc_upper": ccc.ccc_ci[1],
        "signed_rank_p": rank.p_value, "signed_rank_method": rank.method,
        "signed_rank_zeros": rank.zeros, "rank_biserial": rank.rank_biserial,
        "hodges_lehmann": rank.hodges_lehmann,
        "hodges_lehmann_lower": rank.hodges_lehmann_ci[0],
        "hodges_lehmann_upper": rank.hodges_lehmann_ci[1],
        "hodges_lehmann_all": every.hodges_lehmann,
        "hodges_lehmann_all_lower": every.hodges_lehmann_ci[0],
        "hodges_lehmann_all_upper": every.hodges_lehmann_ci[1],
    }
    if grouped:
        row |= _by_patients(reference, test, both["patient_id"].to_numpy(), confidence)
    # Each method says why a field is empty; the reasons travel with the row.
    reasons = {reason for result in (limits, ranks, ccc, rank)
               for reason in result.reason.split("; ") if reason}
    if grouped:
        reasons.add("no interval of the shift, and no p of Spearman's correlation, by patients")
    return {**row, "flags": _flags(row), "reasons": "; ".join(sorted(reasons))}


def of_row(row: dict[str, Any], limits: agreement.BlandAltman, ranks: correlation.Correlation
           ) -> tuple[agreement.BlandAltman, correlation.Correlation]:
    """Limits (constant, of differences) and Spearman's rho with the intervals of their row.

    Where its pairs are independent that is what they are already; else they become those by
    patients, so that figure, table and sentence say the same.
    """
    if row["independent"] == "pairs":
        return limits, ranks
    ends = {field: (row[f"{name}_lower"], row[f"{name}_upper"]) for field, name in (
        ("bias_ci", "bias"), ("loa_lower_ci", "loa_lower_ci"), ("loa_upper_ci", "loa_upper_ci"),
        ("slope_ci", "slope"))}
    same = {name: row[name] for name in ("bias", "sd", "loa_lower", "loa_upper",
                                         "percent_outside", "slope_p")}
    return (replace(limits, ci=BY_PATIENTS, **ends, **same),
            replace(ranks, ci=(row["spearman_lower"], row["spearman_upper"]),
                    p_value=row["spearman_p"]))


def agreement_results(
    frame: pd.DataFrame, role: str, structures: Sequence[str] = ("ggo", "high_opacity"), *,
    reference: str = "expert", test: str = "model", value: str = "volume_ml",
) -> tuple[dict[str, pd.DataFrame], dict[str, agreement.BlandAltman],
           dict[str, correlation.Correlation]]:
    """What Fig. 6 and Fig. i draw: pairs, Bland-Altman and Spearman, each by structure.

    Parameters
    ----------
    frame
        A checked table of measurements.
    role
        `cv` or `external`.
    reference, test, value
        As `measurements.pair`.
    """
    pairs = {name: measurements.pair(frame, reference, test, name, value, role=role)
             for name in structures}
    limits, ranks = {}, {}
    for name, pair in pairs.items():
        both = pair["reference"], pair["test"]
        limits[name], ranks[name] = of_row(
            agreement_row(pair), agreement.bland_altman(*both), correlation.spearman(*both))
    return pairs, limits, ranks


def agreement_table(
    frame: pd.DataFrame, by: Sequence[str] = ("cohort", "role", "structure", "protocol"), *,
    reference: str = "expert", test: str = "model", value: str = "volume_ml",
    subset: str = "all", confidence: float = 0.95, missing: str = "raise",
    clusters: str = "auto",
) -> pd.DataFrame:
    """One row of agreement statistics for each group, and for all protocols together.

    Parameters
    ----------
    frame
        A checked table of measurements.
    by
        Columns that make the groups; with `protocol` among them, rows `protocol = all` are added.
    reference, test, value
        As `measurements.pair`.
    subset
        `all`, or `both-positive`: only pairs in which both readers see the structure. With many
        zeros, show detection first, then agreement among these, then all.
    missing
        Of an empty `value`: `raise`, or `drop` and count in `n_missing`.
    clusters
        As `agreement_row`: by patients where one has several pairs in a group, or `ignore`.

    Returns
    -------
    DataFrame
        The group's columns, `subset`, then those of `agreement_row`: who is compared (`reference`,
        `test`; columns that begin so are that reader's), counts (pairs, patients, zeros, failed,
        missing, the 2 x 2 of detection), both readers, bias, limits with intervals (MOVER), limits
        by quantiles and by regression, slope and spread, correlations, CCC, signed-rank p with its
        method, `flags` (what to mind), `reasons` (why a field is empty) and `same_p_as`: the
        numbers of the other rows (from 0) with the very same signed-rank p, which real data of
        two groups hardly give. `independent` says whether intervals take `pairs` or `patients` as
        such. A group with fewer than three pairs keeps its row, with NaN where nothing can be
        estimated.

    Raises
    ------
    ValueError
        No group holds both readers, or an unknown `subset`.
    """
    if subset not in ("all", "both-positive"):
        raise ValueError(f"subset={subset!r}: expected 'all' or 'both-positive'")
    ways = [list(by)]
    if "protocol" in by:
        ways.insert(0, [name for name in by if name != "protocol"])
    rows = []
    for way in ways:
        for group, part in groups_of(frame, way):
            for structure in LESION_STRUCTURES:
                of_structure = part[part["structure"] == structure]
                read = of_structure[of_structure["status"] == "ok"]
                if not {reference, test} <= set(of_structure["reader"]) or read.empty:
                    continue  # not told apart here, as in a cohort with binary masks
                pair = measurements.pair(part, reference, test, structure, value)
                if subset == "both-positive":
                    pair = pair[~((pair["reference"] <= 0) | (pair["test"] <= 0))]
                row = agreement_row(pair, confidence, missing=missing, clusters=clusters)
                over = len(read[read["reader"].isin([reference, test])
                                & (read["burden_percent"] > 100)][["cohort", "case_id"]]
                           .drop_duplicates())
                if over:
                    row["flags"] = "; ".join(filter(None, [
                        row["flags"], f"burden over 100 % of the lung in {over}"]))
                rows.append({**group, "structure": structure,
                             "protocol": group.get("protocol", "all"), "subset": subset, **row})
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
