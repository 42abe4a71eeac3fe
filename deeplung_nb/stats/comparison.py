"""All that is said of one table of pairs, as one row: what is printed comes from here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from deeplung_nb.spreadsheets import with_patients
from deeplung_nb.stats import agreement, correlation, paired, reliability, robust
from deeplung_nb.stats import clusters as by_cluster
from deeplung_nb.stats import limits as limits_of
from deeplung_nb.stats._results import plain_differences
from deeplung_nb.stats.description import describe
from deeplung_nb.stats.detection import detection
from deeplung_nb.stats.trend import proportional_bias

NAN = float("nan")
ALPHA = 0.05
"""Level of the tests that speak against constant limits."""

SHARE = 0.975
"""Of the quantile that an upper limit is."""
Z = float(stats.norm.ppf(SHARE))
COUNTS = ("reference", "test", "n", "n_patients", "independent", "n_zero", "n_missing", "n_failed",
          "detected_")
LEAD = ("bias", "median_difference", "hodges_lehmann_all", "spearman", "ccc")


def _flags(row: dict[str, Any]) -> str:
    found = []
    if row["independent"] == "patients":
        found.append(f"{row['n']} pairs of {row['n_patients']} patients: by patients")
    elif row["n_patients"] < row["n"]:
        found.append(f"{row['n']} pairs of {row['n_patients']} patients, taken as independent")
    if row["slope_p"] < ALPHA:
        found.append("proportional bias")
    if row["heteroscedasticity_p"] < ALPHA:
        grows = row["regression_sd_slope"] > 0
        found.append(f"spread {'grows' if grows else 'shrinks'} with size")
    if row["shapiro_p"] < ALPHA:
        found.append("differences not normal")
    if row["n"] and np.isfinite(row["percent_outside"]):
        outside = round(row["percent_outside"] * row["n"] / 100)
        if stats.binomtest(outside, row["n"], 0.05).pvalue < 0.01:
            found.append(f"{row['percent_outside']:.0f} % outside the limits, expected 5")
    if row["n_zero"] > row["n"] / 3:
        found.append("many zeros")
    return "; ".join(found)


CLUSTERS = ("auto", "ignore")
INTERVALS = ("auto", "classical")
BY_PATIENTS = "by patients"
"""The kind of interval where a patient has several pairs."""


def _by_patients(a: np.ndarray, b: np.ndarray, patients: np.ndarray,
                 confidence: float) -> tuple[dict[str, Any], str]:
    """What of a row changes where patients, not readings, are independent; and what to mind."""
    limits = reliability.clustered_limits(
        pd.DataFrame({"patient": patients, "reference": a, "test": b}), "patient", "reference",
        "test", confidence=confidence)
    d, sizes = b - a, np.unique(patients, return_counts=True)[1]
    found = {"bias": limits.bias, "bias_lower": limits.bias_ci[0], "bias_upper": limits.bias_ci[1],
             "sd": limits.sd, "loa_lower": limits.loa_lower, "loa_upper": limits.loa_upper,
             "percent_outside": 100.0 * float(np.mean((d < limits.loa_lower)
                                                      | (d > limits.loa_upper)))}
    # Kish's design effect: what so many alike pairs of a patient are worth.
    alike = limits.variance_between / limits.sd**2 if limits.sd > 0 else 1.0
    effective = len(a) / (1 + ((sizes**2).sum() / len(a) - 1) * alike)
    ends = dict(zip(("loa_lower_ci", "loa_upper_ci"), limits_of.limit_intervals(
        max(2.0, effective), limits.bias, limits.sd, "mover", confidence, Z), strict=True))
    for name, share in (("quantile_lower_ci", 1 - SHARE), ("quantile_upper_ci", SHARE),
                        ("median_difference", 0.5)):
        ends[name] = robust.clustered_quantile_interval(d, share, effective,
                                                        confidence=confidence)
    unlike = plain_differences(a, b)
    ends["rank_biserial"] = robust.rank_biserial_interval(
        unlike[unlike != 0], patients[unlike != 0], confidence=confidence)
    for name, (low, high) in ends.items():
        found[f"{name}_lower"], found[f"{name}_upper"] = low, high
    rank = by_cluster.signed_rank(a, b, patients)
    found |= {"signed_rank_p": rank.p_value, "signed_rank_method": f"{rank.method}, by patients",
              "hodges_lehmann_lower": NAN, "hodges_lehmann_upper": NAN,
              "hodges_lehmann_all_lower": NAN, "hodges_lehmann_all_upper": NAN, "spearman_p": NAN}
    return found, limits.reason


def _lead(row: dict[str, Any]) -> dict[str, Any]:
    """The limits to report: constant ones where nothing speaks against them, else quantiles.

    Constant limits need differences that are normal, and as wide for large readings as for small;
    quantiles need neither.
    """
    against = [row[name] < ALPHA for name in ("shapiro_p", "slope_p", "heteroscedasticity_p")]
    too_many = row["n"] > agreement.MOST_FOR_SHAPIRO  # nobody tested; quantiles are sharp here
    kind = "quantile" if any(against) or too_many else "constant"
    source = {"quantile": "quantile", "constant": "loa"}[kind]
    return {"limits": kind, **{f"limit_{end}": row[f"{source}_{end}"] for end in (
        "lower", "upper", "lower_ci_lower", "lower_ci_upper", "upper_ci_lower",
        "upper_ci_upper")}}


def _patients(both: pd.DataFrame, clusters: str) -> int:
    """How many patients there are; without a name for any, as many as pairs."""
    if "patient_id" not in both or both["patient_id"].isna().all():
        return len(both)
    nameless = both["patient_id"].isna()
    if nameless.any() and clusters == "auto":
        raise ValueError(f"patient_id: empty in {int(nameless.sum())} of {len(both)} pairs (first "
                         f"at position {int(np.flatnonzero(nameless)[0])}), so nobody can tell "
                         "which pairs belong together. Fill it in, leave the pairs out, or say "
                         "clusters='ignore'")
    return both["patient_id"].nunique() + int(nameless.sum())


def agreement_row(pair: pd.DataFrame, confidence: float = 0.95, *, missing: str = "raise",
                  clusters: str = "auto", ci: str = "auto") -> dict[str, Any]:
    """Every agreement statistic of one table of pairs, as one flat row (volumes in mL).

    Parameters
    ----------
    pair
        A table of `measurements.pair`.
    clusters
        `auto`: where the column `patient_id` (or `PatientID`, `patient` ...) repeats, intervals
        and tests are by patients (`clustered_limits`, `robust`, `trend`, the clustered signed-rank
        test), and the row says so in
        `independent`. `ignore`: every pair as independent.
    ci
        Of Spearman, Pearson and CCC. `auto`: `robust`, which holds with zeros and skew;
        `classical`: Bonett-Wright, Fisher and Lin, as other programs print, for normal readings
        of independent pairs.

    Returns
    -------
    dict
        See `agreement_table` for the columns.
    """
    if clusters not in CLUSTERS:
        raise ValueError(f"clusters={clusters!r}: expected one of {', '.join(CLUSTERS)}")
    if ci not in INTERVALS:
        raise ValueError(f"ci={ci!r}: expected one of {', '.join(INTERVALS)}")
    pair = with_patients(pair)
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
    n_patients = _patients(both, clusters)
    grouped = clusters == "auto" and 1 < n_patients < len(both)
    if grouped and ci == "classical":
        raise ValueError("ci='classical' takes pairs as independent, and patients have several: "
                         "say clusters='ignore' as well, or leave ci out")
    patients = both["patient_id"].to_numpy() if grouped else None
    moments = robust.studentized(reference, test, patients, confidence=confidence)
    if ci == "auto":
        ranks = replace(ranks, ci=robust.spearman_interval(reference, test, patients,
                                                           confidence=confidence))
        line, ccc = replace(line, ci=moments.pearson), replace(ccc, ccc_ci=moments.ccc)
    slope = proportional_bias(reference, test, patients, confidence=confidence)
    a, b = describe(reference), describe(test)
    middle = limits_of.quantile_interval(test - reference, 0.5, confidence) \
        if len(test) else (NAN, NAN)
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
        "quantile_lower_ci_lower": quantiles.loa_lower_ci[0],
        "quantile_lower_ci_upper": quantiles.loa_lower_ci[1],
        "quantile_upper_ci_lower": quantiles.loa_upper_ci[0],
        "quantile_upper_ci_upper": quantiles.loa_upper_ci[1],
        "median_difference": float(np.median(test - reference)) if len(test) else NAN,
        "median_difference_lower": middle[0], "median_difference_upper": middle[1],
        "regression_bias_intercept": regression.bias_line[0],
        "regression_bias_slope": regression.bias_line[1],
        "regression_sd_intercept": regression.sd_line[0],
        "regression_sd_slope": regression.sd_line[1],
        "slope": slope.slope, "slope_lower": slope.slope_ci[0],
        "slope_upper": slope.slope_ci[1], "slope_p": slope.p_value,
        "heteroscedasticity_p": limits.heteroscedasticity_p, "shapiro_p": limits.shapiro_p,
        "spearman": ranks.r, "spearman_lower": ranks.ci[0], "spearman_upper": ranks.ci[1],
        "spearman_p": ranks.p_value,
        "pearson": line.r, "pearson_lower": line.ci[0], "pearson_upper": line.ci[1],
        "ccc": ccc.ccc, "ccc_lower": ccc.ccc_ci[0], "ccc_upper": ccc.ccc_ci[1],
        "signed_rank_p": rank.p_value, "signed_rank_method": rank.method,
        "signed_rank_zeros": rank.zeros, "rank_biserial": rank.rank_biserial,
        "rank_biserial_lower": rank.rank_biserial_ci[0],
        "rank_biserial_upper": rank.rank_biserial_ci[1],
        "hodges_lehmann": rank.hodges_lehmann,
        "hodges_lehmann_lower": rank.hodges_lehmann_ci[0],
        "hodges_lehmann_upper": rank.hodges_lehmann_ci[1],
        "hodges_lehmann_all": every.hodges_lehmann,
        "hodges_lehmann_all_lower": every.hodges_lehmann_ci[0],
        "hodges_lehmann_all_upper": every.hodges_lehmann_ci[1],
    }
    said = ""
    if grouped:
        changed, said = _by_patients(reference, test, patients, confidence)
        row |= changed
    # Each method says why a field is empty; the reasons travel with the row.
    reasons = {reason for why in (limits.reason, ranks.reason, ccc.reason, rank.reason,
                                  slope.reason, said)
               for reason in why.split("; ") if reason}
    if grouped:
        reasons.add("no interval of the shift, and no p of Spearman's correlation, by patients")
    flags = {"flags": _flags(row), "reasons": "; ".join(sorted(reasons))}
    # What holds on such readings leads.
    lead = {name: row.pop(name) for name in [*row] if name.startswith(LEAD)}
    counts = {name: row.pop(name) for name in [*row] if name.startswith(COUNTS)}
    return {**counts, "intervals": ci, **lead, **_lead(row | lead | counts), **row, **flags}


class Fitting(NamedTuple):
    """Limits that stand beside constant ones where these don't fit."""

    limits: agreement.BlandAltman
    against: dict[str, float]
    """Tests that speak against constant limits -> their p."""


def fitting_limits(pair: pd.DataFrame, row: dict[str, Any]) -> Fitting | None:
    """Limits by regression where the differences change with size, by quantiles where they are
    only not normal; None where nothing speaks against constant ones.

    Parameters
    ----------
    pair
        A table of `measurements.pair`.
    row
        Its `agreement_row`, whose tests decide.
    """
    against = {name: row[column] for name, column in (
        ("slope", "slope_p"), ("spread", "heteroscedasticity_p")) if row[column] < ALPHA}
    kind = "regression" if against else "quantile"
    if not against and row["shapiro_p"] < ALPHA:
        against = {"normality": row["shapiro_p"]}
    if not against:
        return None
    both = pair[["reference", "test"]].dropna()
    limits = agreement.bland_altman(both["reference"], both["test"], limits=kind)
    if not np.isfinite(limits.loa_lower):
        return None
    return Fitting(limits, against)


def of_row(row: dict[str, Any], limits: agreement.BlandAltman, ranks: correlation.Correlation
           ) -> tuple[agreement.BlandAltman, correlation.Correlation]:
    """Limits (constant, of differences) and Spearman's rho with the intervals of their row.

    So figure, table and sentence say the same.
    """
    ranks = replace(ranks, ci=(row["spearman_lower"], row["spearman_upper"]),
                    p_value=row["spearman_p"])
    if row["independent"] == "pairs":
        return limits, ranks
    ends = {field: (row[f"{name}_lower"], row[f"{name}_upper"]) for field, name in (
        ("bias_ci", "bias"), ("loa_lower_ci", "loa_lower_ci"), ("loa_upper_ci", "loa_upper_ci"),
        ("slope_ci", "slope"))}
    same = {name: row[name] for name in ("bias", "sd", "loa_lower", "loa_upper", "slope",
                                         "slope_p", "percent_outside")}
    return replace(limits, ci=BY_PATIENTS, **ends, **same), ranks
