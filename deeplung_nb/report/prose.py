"""The Methods and Results sentences of an agreement analysis."""

from __future__ import annotations

import platform
from importlib.metadata import version

import numpy as np
import pandas as pd

from deeplung_nb import __version__
from deeplung_nb.report.numbers import number, p_words
from deeplung_nb.spreadsheets import with_patients
from deeplung_nb.stats import agreement, equivalence
from deeplung_nb.stats.comparison import MOST_LEVERAGE, compare

TREND = ("Proportional bias was tested by regression of the difference on the mean of the pair, "
         "with weights from the spread at each size")
PACKAGES = ("numpy", "scipy", "statsmodels")


def _number(value: float) -> str:
    return "not estimable" if np.isnan(value) else number(value, most_decimals=6)


def _interval(ends: tuple[float, float], level: str) -> str:
    if np.isnan(ends).any():
        return f"{level} CI not estimable"
    below, above = ("no bound" if np.isinf(end) else _number(end) for end in ends)
    return f"{level} CI {below} to {above}"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _paragraphs(methods: list[str], results: list[str]) -> str:
    """Both as prose; a sentence may begin with a reader's name."""
    methods, results = ([text[0].upper() + text[1:] for text in part]
                        for part in (methods, results))
    return "Methods. " + " ".join(methods) + "\n\nResults. " + " ".join(results)


def report_text(
    pairs: pd.DataFrame, *, reference: str = "the expert", test: str = "the network",
    quantity: str = "volume", unit: str = "mL", margin: float | None = None,
    confidence: float = 0.95, cluster: str | None = "auto", what: str = "case",
) -> str:
    """Methods and Results of the agreement of two readers, as sentences for a paper.

    Everything that was done is said: the sign of the difference, the kind of interval, zeros, the
    form of the signed-rank test, software versions. What can't be estimated is said to be so.

    Parameters
    ----------
    pairs
        Columns `reference` and `test`, one row per case, as from `measurements.pair`.
    reference, test
        What to call the two readers.
    quantity, unit
        What was read, in which unit.
    cluster
        As `stats.comparison.compare`: by patients where one has several pairs.
    what
        What a row is: `case`, `scan`, `lesion`.
    margin
        An equivalence margin in that unit, declared before the data were seen; None: no test of
        equivalence, and no word of it.

    Returns
    -------
    str
        Two paragraphs, `Methods.` and `Results.`

    Raises
    ------
    ValueError
        A column is absent, or a reading is empty.

    Examples
    --------
    >>> import pandas as pd
    >>> pairs = pd.DataFrame({"reference": [0, 4.0, 9, 20, 31], "test": [0, 5.0, 8, 24, 33]})
    >>> "bias of the network against the expert was 1.20 mL" in report_text(pairs)
    True
    """
    absent = [name for name in ("reference", "test") if name not in pairs]
    if absent:
        raise ValueError(f"pairs has no column {', '.join(absent)}: expected 'reference' and "
                         "'test', as measurements.pair gives them")
    a, b = (pairs[name].to_numpy(float, na_value=np.nan) for name in ("reference", "test"))
    found = compare(pairs, confidence=confidence, cluster=cluster)
    row, regression, ratio = found.row(), found.regression, found.ratio
    by_patients = found.limits.by_patients
    patients = None
    if by_patients:
        patients = with_patients(pairs)["patient_id"] if cluster == "auto" else pairs[cluster]
    n = row["n"]
    level = f"{100 * confidence:g} %"
    how = {"exact": "exact", "asymptotic": "normal approximation with continuity correction",
           "none": "not possible, all differences being zero"}.get(row["signed_rank_method"], "")
    called_for = {"regression": row["slope_p"] < 0.05 or row["heteroscedasticity_p"] < 0.05,
                  "quantile": row["shapiro_p"] < 0.05, "ratio": found.lead.kind == "ratio"}

    of_whom = _count(n, what)
    if row["n_patients"] < n:
        of_whom += f" of {_count(row['n_patients'], 'patient')}"
    methods = [
        f"Paired readings of {quantity} ({unit}) by {reference} and {test} were compared in "
        f"{of_whom}.",
        f"Differences are {test} − {reference}.",
    ]
    of_patients = " of patients" if by_patients else ""
    if by_patients:
        methods += [
            f"Since patients have several {what}s, not {what}s but patients were taken as "
            f"independent: bias and 95 % limits of agreement (bias ± 1.96 SD) are those of "
            f"clustered pairs (Bland & Altman 2007), the {level} confidence interval (CI) of the "
            "bias by Student's t on the patients, those of the limits by the MOVER method for as "
            "many pairs as these are worth (Kish's design effect).",
            f"{TREND} and a wild bootstrap by patients (Cameron, Gelbach & Miller 2008); spread "
            "(Breusch–Pagan) and normality (Shapiro–Wilk) of the differences as if pairs were "
            "independent.",
            f"A shift was tested by the clustered signed-rank test (Rosner, Glynn & Lee 2006; "
            f"{row['signed_rank_method'].split(',')[0]}; zero differences left out).",
        ]
    else:
        methods += [
            f"Bias (mean difference) is given with its {level} confidence interval (CI, Student's "
            f"t), 95 % limits of agreement (bias ± 1.96 SD) with {level} CIs by the MOVER method.",
            f"{TREND} and a wild bootstrap (Davidson & Flachaire 2008), constant spread by the "
            "Breusch–Pagan test, normality of the differences by the "
            "Shapiro–Wilk test.",
            f"A shift was tested with Wilcoxon's signed-rank test (two-sided; {how}; zero "
            "differences left out before ranking) and estimated by the Hodges–Lehmann estimator.",
        ]
    methods.append(
        "Association was measured by Spearman's ρ (CI by the infinitesimal jackknife"
        f"{of_patients}), agreement about the line of identity by Lin's concordance correlation "
        f"coefficient (CCC; CI by a studentized bootstrap{of_patients}, symmetric, on Fisher's "
        "scale, 2,000 resamples) and, which single large differences can't decide, by the "
        f"concordance of ranks (Tu et al. 2023; CI by the infinitesimal jackknife{of_patients}); "
        "none needs normal readings.")
    if called_for["regression"]:
        methods.append("Since the differences change with size, limits by regression of bias "
                       "and SD on the mean of the pair are given too (Bland & Altman 1999), with "
                       f"CIs by the jackknife{of_patients}.")
    if called_for["quantile"]:
        methods.append("Since the differences are not normal, their 2.5 % and 97.5 % quantiles "
                       "(type 8) are given too, with CIs by order statistics"
                       f"{', for as many pairs as these are worth (Kish)' * by_patients}.")
    if called_for["ratio"]:
        methods.append("Since constant limits do not fit, limits of the ratio "
                       f"{test} / {reference} are given for the {what}s that both measured (mean ± "
                       "1.96 SD of its logarithm; CIs by the MOVER method), those with a zero "
                       "being told apart by detection.")
    if margin is not None:
        equal = equivalence.tost(a, b, margin, cluster=patients)
        methods.append(f"Equivalence of the means within ± {_number(margin)} {unit}, a margin "
                       "declared in advance, was tested by two one-sided t tests "
                       f"(TOST, 5 %{'; on the patients' * by_patients}).")
    methods.append("P values were not adjusted for their number.")
    software = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    methods.append(f"Computed with deeplung_nb {__version__} (Python {platform.python_version()}, "
                   f"{software}).")

    both, first = int(((a > 0) & (b > 0)).sum()), int(((a > 0) & (b <= 0)).sum())
    second, neither = int(((a <= 0) & (b > 0)).sum()), int(((a <= 0) & (b <= 0)).sum())
    results = [
        f"Both readers found it in {_count(both, what)}, {reference} alone in {first}, {test} "
        f"alone in {second}, neither in {neither}.",
    ]
    failed = pairs.attrs.get("n_failed", 0)
    if failed:
        results.append(f"{_count(failed, what)} failed and could not be compared.")
    unread = pairs.attrs.get("n_unread", 0)
    if unread:
        results.append(f"{_count(unread, what)} not read by both could not be compared.")
    if n == 0:
        return _paragraphs(methods, results)
    quartiles = [np.quantile(values, [0.25, 0.5, 0.75]) for values in (a, b)]
    first_iqr, second_iqr = (f"{_number(q[1])} {unit} (quartiles {_number(q[0])} to "
                             f"{_number(q[2])})" for q in quartiles)
    unlike = int((a != b).sum())
    shift = (f"the Hodges–Lehmann shift over all {_count(n, what)} "
             f"{_number(row['hodges_lehmann_all'])} {unit}")
    if not by_patients:
        ends = (row["hodges_lehmann_all_lower"], row["hodges_lehmann_all_upper"])
        shift += f" ({_interval(ends, level)})"
        if unlike < n:
            ends = (row["hodges_lehmann_lower"], row["hodges_lehmann_upper"])
            shift += (f", over the {unlike} that differ {_number(row['hodges_lehmann'])} {unit} "
                      f"({_interval(ends, level)})")
    results += [
        f"The median {quantity} was {first_iqr} by {reference} and {second_iqr} by {test} "
        "(quartiles of type 7).",
        f"The bias of {test} against {reference} was {_number(row['bias'])} {unit} "
        f"({_interval((row['bias_lower'], row['bias_upper']), level)}), with limits of agreement "
        f"from {_number(row['loa_lower'])} "
        f"({_interval((row['loa_lower_ci_lower'], row['loa_lower_ci_upper']), level)}) to "
        f"{_number(row['loa_upper'])} {unit} "
        f"({_interval((row['loa_upper_ci_lower'], row['loa_upper_ci_upper']), level)}); "
        f"{_number(row['percent_outside'])} % of the differences lay outside them.",
        f"Of {n} differences {n - unlike} were zero, {int((b > a).sum())} positive and "
        f"{int((b < a).sum())} negative (signed-rank {p_words(row['signed_rank_p'])}; null "
        f"hypothesis: differences symmetric about zero), {shift}.",
        f"Spearman's ρ was {_number(row['spearman'])} "
        f"({_interval((row['spearman_lower'], row['spearman_upper']), level)}), the CCC "
        f"{_number(row['ccc'])} ({_interval((row['ccc_lower'], row['ccc_upper']), level)}), "
        f"that of ranks {_number(row['ccc_rank'])} "
        f"({_interval((row['ccc_rank_lower'], row['ccc_rank_upper']), level)}).",
    ]
    if found.leverage > MOST_LEVERAGE:
        results.append("One patient makes most of the CCC's variance: its interval may fall short, "
                       "and the coefficients of ranks say more.")
    if margin is not None:
        verdict = "lay within" if equal.p_value < 0.05 else "was not shown to lie within"
        results.append(f"The bias {verdict} the margin of ± {_number(margin)} {unit} "
                       f"(TOST {p_words(equal.p_value)}; its 90 % CI is "
                       f"{_number(equal.bias_ci[0])} to {_number(equal.bias_ci[1])} {unit}).")
    if row["slope_p"] < 0.05:
        results.append(f"The difference changed with the size of the reading (slope "
                       f"{_number(row['slope'])} per {unit}, {p_words(row['slope_p'])}); unequal "
                       "error variances of the two readers alone would make such a slope.")
    if row["heteroscedasticity_p"] < 0.05:
        results.append("The spread changed with the size "
                       f"({p_words(row['heteroscedasticity_p'])}).")
    if called_for["ratio"]:
        results.append(
            f"In the {ratio.n} {what}s that both measured the ratio {test} / {reference} was "
            f"{_number(ratio.bias)} on average (geometric; {_interval(ratio.bias_ci, level)}), "
            f"with limits from {_number(ratio.loa_lower)} "
            f"({_interval(ratio.loa_lower_ci, level)}) to "
            f"{_number(ratio.loa_upper)} ({_interval(ratio.loa_upper_ci, level)}), which held "
            f"{_number(100 - ratio.percent_outside)} % of them.")
        if ratio.shapiro_p < 0.05:
            results.append(f"The ratios were not normal ({p_words(ratio.shapiro_p)}): where single "
                           "pairs lie far off, their limits hold less than they say.")
    if called_for["regression"] and np.isfinite(regression.loa_lower):
        by_size = agreement.limits_by_size(
            a, b, np.quantile((a + b) / 2, [0.25, 0.75]), confidence=confidence,
            cluster=patients)
        results.append("By regression the limits were " + " and ".join(
            f"{_number(at.loa_lower)} "
            f"({_interval((at.loa_lower_ci_lower, at.loa_lower_ci_upper), level)}) to "
            f"{_number(at.loa_upper)} "
            f"({_interval((at.loa_upper_ci_lower, at.loa_upper_ci_upper), level)}) {unit} at "
            f"{_number(at.size)} {unit}" for at in by_size.itertuples())
            + f" (the quartiles of the means); {_number(regression.percent_outside)} % of the "
            "differences lay outside.")
    if called_for["quantile"]:
        low, high = ((row[f"quantile_{side}_ci_lower"], row[f"quantile_{side}_ci_upper"])
                     for side in ("lower", "upper"))
        results.append(f"The differences were not normal ({p_words(row['shapiro_p'])}); 95 % of "
                       f"them lay between {_number(row['quantile_lower'])} "
                       f"({_interval(low, level)}) and {_number(row['quantile_upper'])} {unit} "
                       f"({_interval(high, level)}; 2.5 % and 97.5 % quantiles).")
    if row["n_zero"] > n / 3:
        results.append(f"In {row['n_zero']} of {n} pairs a reading was zero: the correlation rests "
                       "on the others.")
    if row["reasons"]:
        results.append(f"Not estimable, or with reserve: {row['reasons']}.")
    return _paragraphs(methods, results)
