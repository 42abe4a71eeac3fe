"""The Methods and Results sentences of an agreement analysis."""

from __future__ import annotations

import platform
from importlib.metadata import version

import numpy as np
import pandas as pd

from deeplung_nb import __version__
from deeplung_nb.report.numbers import number, p_words
from deeplung_nb.stats import agreement, correlation, equivalence, paired

PACKAGES = ("numpy", "scipy", "statsmodels")


def _number(value: float) -> str:
    return "not estimable" if np.isnan(value) else number(value, most_decimals=6)


def _interval(ends: tuple[float, float], level: str) -> str:
    if np.isnan(ends).any():
        return f"{level} CI not estimable"
    return f"{level} CI {_number(ends[0])} to {_number(ends[1])}"


def _cases(n: int) -> str:
    return f"{n} case" if n == 1 else f"{n} cases"


def _paragraphs(methods: list[str], results: list[str]) -> str:
    """Both as prose; a sentence may begin with a reader's name."""
    methods, results = ([text[0].upper() + text[1:] for text in part]
                        for part in (methods, results))
    return "Methods. " + " ".join(methods) + "\n\nResults. " + " ".join(results)


def report_text(
    pairs: pd.DataFrame, *, reference: str = "the expert", test: str = "the network",
    quantity: str = "volume", unit: str = "mL", margin: float | None = None,
    confidence: float = 0.95,
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
    limits = agreement.bland_altman(a, b, confidence=confidence)
    rank = paired.wilcoxon_signed_rank(a, b, confidence=confidence)
    order = correlation.spearman(a, b, confidence=confidence)
    ccc = agreement.concordance(a, b, confidence=confidence)
    level = f"{100 * confidence:g} %"
    how = {"exact": "exact", "asymptotic": "normal approximation with continuity correction",
           "none": "not possible, all differences being zero"}[rank.method]

    methods = [
        f"Paired readings of {quantity} ({unit}) by {reference} and {test} were compared in "
        f"{_cases(limits.n)}.",
        f"Differences are {test} − {reference}.",
        f"Bias (mean difference) is given with its {level} confidence interval (CI, Student's t), "
        f"95 % limits of agreement (bias ± 1.96 SD) with {level} CIs by the MOVER method.",
        "Proportional bias was tested by regression of the difference on the mean of the pair, "
        "constant spread by the Breusch–Pagan test, normality of the differences by the "
        "Shapiro–Wilk test.",
        f"A shift was tested with Wilcoxon's signed-rank test (two-sided; {how}; zero differences "
        "left out before ranking) and estimated by the Hodges–Lehmann estimator.",
        "Association was measured by Spearman's ρ (Bonett–Wright CI), agreement about the line of "
        "identity by Lin's concordance correlation coefficient (CCC).",
    ]
    if margin is not None:
        equal = equivalence.tost(a, b, margin)
        methods.append(f"Equivalence of the means within ± {_number(margin)} {unit}, a margin "
                       "declared in advance, was tested by two one-sided t tests (TOST, 5 %).")
    methods.append("P values were not adjusted for their number.")
    software = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    methods.append(f"Computed with deeplung_nb {__version__} (Python {platform.python_version()}, "
                   f"{software}).")

    both, first = int(((a > 0) & (b > 0)).sum()), int(((a > 0) & (b <= 0)).sum())
    second, neither = int(((a <= 0) & (b > 0)).sum()), int(((a <= 0) & (b <= 0)).sum())
    results = [
        f"Both readers found it in {_cases(both)}, {reference} alone in {first}, {test} alone in "
        f"{second}, neither in {neither}; all {limits.n} enter the figures below.",
    ]
    failed = pairs.attrs.get("n_failed", 0)
    if failed:
        results.append(f"{_cases(failed)} failed and could not be compared.")
    if limits.n == 0:
        return _paragraphs(methods, results)
    quartiles = [np.quantile(values, [0.25, 0.5, 0.75]) for values in (a, b)]
    first_iqr, second_iqr = (f"{_number(q[1])} {unit} (quartiles {_number(q[0])} to "
                             f"{_number(q[2])})" for q in quartiles)
    results += [
        f"The median {quantity} was {first_iqr} by {reference} and {second_iqr} by {test}.",
        f"The bias of {test} against {reference} was {_number(limits.bias)} {unit} "
        f"({_interval(limits.bias_ci, level)}), with limits of agreement from "
        f"{_number(limits.loa_lower)} ({_interval(limits.loa_lower_ci, level)}) to "
        f"{_number(limits.loa_upper)} {unit} ({_interval(limits.loa_upper_ci, level)}); "
        f"{_number(limits.percent_outside)} % of the differences lay outside them.",
        f"Of {rank.n} differences {rank.n_zero} were zero, {rank.n_positive} positive and "
        f"{rank.n_negative} negative (signed-rank {p_words(rank.p_value)}; null hypothesis: "
        f"differences symmetric about zero), the Hodges–Lehmann shift "
        f"{_number(rank.hodges_lehmann)} {unit} ({_interval(rank.hodges_lehmann_ci, level)}).",
        f"Spearman's ρ was {_number(order.r)} ({_interval(order.ci, level)}), the CCC "
        f"{_number(ccc.ccc)} ({_interval(ccc.ccc_ci, level)}).",
    ]
    if margin is not None:
        verdict = "lay within" if equal.p_value < 0.05 else "was not shown to lie within"
        results.append(f"The bias {verdict} the margin of ± {_number(margin)} {unit} "
                       f"(TOST {p_words(equal.p_value)}).")
    if limits.slope_p < 0.05:
        results.append(f"The difference changed with the size of the reading (slope "
                       f"{_number(limits.slope)} per {unit}, {p_words(limits.slope_p)}): constant "
                       "limits describe neither small nor large readings well.")
    if limits.heteroscedasticity_p < 0.05:
        results.append("The spread changed with the size "
                       f"({p_words(limits.heteroscedasticity_p)}): limits by regression should be "
                       "shown beside these.")
    if limits.shapiro_p < 0.05:
        results.append(f"The differences were not normal ({p_words(limits.shapiro_p)}): limits by "
                       "quantiles should be shown beside these.")
    if limits.n_zero > limits.n / 3:
        results.append(f"In {limits.n_zero} of {limits.n} pairs a reading was zero: the "
                       "correlation rests on the others, and detection should be read first.")
    reasons = dict.fromkeys(filter(None, (limits.reason, rank.reason, order.reason, ccc.reason)))
    if reasons:
        results.append(f"Not estimable, or with reserve: {'; '.join(reasons)}.")
    return _paragraphs(methods, results)
