"""Several readings a subject: intraclass correlation, and limits of agreement of clustered data."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from deeplung_nb.stats._patients import effective_number, mean_squares, spread_of_pairs
from deeplung_nb.stats._results import (
    NAN_PAIR,
    Result,
    check_confidence,
    complete_readings,
    full_rows,
    rounding,
)
from deeplung_nb.stats.limits import limit_intervals, plain

NAN = float("nan")
METHODS = ("anova", "reml", "replicates")


@dataclass(frozen=True, repr=False)
class Intraclass(Result):
    """Result of `icc`: McGraw & Wong's names; `1` one-way, `a` agreement, `c` consistency, `k`
    mean of all readers."""

    n: int
    n_readers: int
    icc1: float
    icc1_ci: tuple[float, float]
    icc_a1: float
    icc_a1_ci: tuple[float, float]
    icc_c1: float
    icc_c1_ci: tuple[float, float]
    icc1k: float
    icc1k_ci: tuple[float, float]
    icc_ak: float
    icc_ak_ci: tuple[float, float]
    icc_ck: float
    icc_ck_ci: tuple[float, float]
    f_one_way: float
    p_one_way: float
    f_two_way: float
    p_two_way: float
    n_missing: int
    reason: str


@dataclass(frozen=True, repr=False)
class ClusteredLimits(Result):
    """Result of `clustered_limits`; differences are test - reference."""

    n: int
    n_subjects: int
    bias: float
    bias_ci: tuple[float, float]
    sd: float
    loa_lower: float
    loa_upper: float
    loa_lower_ci: tuple[float, float]
    loa_upper_ci: tuple[float, float]
    variance_between: float
    variance_within: float
    method: str
    n_missing: int
    reason: str


def icc(frame: pd.DataFrame, subject: str, reader: str, value: str, *,
        confidence: float = 0.95, missing: str = "raise") -> Intraclass:
    """Intraclass correlation in its six forms, with intervals and F tests.

    Parameters
    ----------
    frame
        One row per subject and reader; every reader has read every subject once.
    subject, reader, value
        Its columns.
    missing
        `raise`, or `drop`: a subject without a reading of every reader is left out and counted.

    Returns
    -------
    Intraclass
        `f_one_way` belongs to `icc1` and `icc1k`, `f_two_way` to the others; null hypothesis of
        both: subjects do not differ.

    Formula
    -------
    From the mean squares of subjects (R), readers (C), error (E) and within (W), k readers, n
    subjects: icc1 = (R - W) / (R + (k - 1) W); icc_c1 = (R - E) / (R + (k - 1) E);
    icc_a1 = (R - E) / (R + (k - 1) E + k (C - E) / n); of k readers' mean: the same by
    Spearman-Brown.

    Source
    ------
    Shrout & Fleiss 1979, Psychol Bull 86:420; McGraw & Wong 1996, Psychol Methods 1:30, table 7.

    Checked against
    ---------------
    R psych::ICC, and the published table of Shrout & Fleiss. R irr::icc gives the same but for
    the interval of `icc_ak` and the p of both agreement forms.

    Raises
    ------
    ValueError
        A reading is missing or given twice.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"s": [1, 1, 2, 2, 3, 3], "r": ["a", "b"] * 3,
    ...                       "v": [1.0, 2.0, 4.0, 5.0, 8.0, 9.0]})
    >>> r = icc(frame, "s", "r", "v")
    >>> round(r.icc_a1, 6), round(r.icc_c1, 6)
    (0.961039, 1.0)
    """
    check_confidence(confidence)
    wide, n_missing = complete_readings(frame, subject, reader, value, missing,
                                        ", or take mixed.icc_reml")
    x = wide.to_numpy(float)
    n, k = x.shape
    if n < 2 or k < 2 or np.ptp(x) == 0:
        why = "all readings are equal" if x.size and np.ptp(x) == 0 else "needs 2 subjects, readers"
        return Intraclass(n, k, *[NAN, NAN_PAIR] * 6, NAN, NAN, NAN, NAN, n_missing, why)
    msr, msc, mse = mean_squares(x)
    msw = float(((x - x.mean(axis=1, keepdims=True)) ** 2).sum()) / (n * (k - 1))
    if mse < 1e-24 * max(msr, msc):
        mse = 0.0  # rounding left over from readers that differ by a constant
    upper_tail = (1 + confidence) / 2

    def f_forms(error: float, df: int) -> tuple[float, float, tuple[float, float],
                                                tuple[float, float], float, float]:
        single, average = (msr - error) / (msr + (k - 1) * error), (msr - error) / msr
        if not (error and msr):
            return single, average, NAN_PAIR, NAN_PAIR, NAN, NAN
        f = msr / error
        low = f / stats.f.ppf(upper_tail, n - 1, df)
        high = f * stats.f.ppf(upper_tail, df, n - 1)
        return (single, average,
                (float((low - 1) / (low + k - 1)), float((high - 1) / (high + k - 1))),
                (float(1 - 1 / low), float(1 - 1 / high)), f, float(stats.f.sf(f, n - 1, df)))

    def agreement_interval(r: float) -> tuple[float, float]:
        """McGraw & Wong's interval of absolute agreement of one reader."""
        if not (mse and msr):
            return NAN_PAIR
        a, b = k * r / (n * (1 - r)), 1 + k * r * (n - 1) / (n * (1 - r))
        df = (a * msc + b * mse) ** 2 / ((a * msc) ** 2 / (k - 1)
                                         + (b * mse) ** 2 / ((n - 1) * (k - 1)))
        low = stats.f.ppf(upper_tail, n - 1, df)
        high = stats.f.ppf(upper_tail, df, n - 1)
        rest = k * msc + (k * n - k - n) * mse
        return (float(n * (msr - low * mse) / (low * rest + n * msr)),
                float(n * (high * msr - mse) / (rest + n * high * msr)))

    def of_the_mean(r: float) -> float:
        """Spearman-Brown; one reader's -1 / (k - 1) is minus infinity of their mean."""
        return k * r / (1 + (k - 1) * r) if not 1 + (k - 1) * r <= 0 else -np.inf

    one, one_k, one_ci, one_k_ci, f_one, p_one = f_forms(msw, n * (k - 1))
    c1, ck, c1_ci, ck_ci, f_two, p_two = f_forms(mse, (n - 1) * (k - 1))
    a1 = (msr - mse) / (msr + (k - 1) * mse + k * (msc - mse) / n)
    ak = (msr - mse) / (msr + (msc - mse) / n)
    a1_ci = agreement_interval(a1)
    ak_ci = (of_the_mean(a1_ci[0]), of_the_mean(a1_ci[1]))
    why = "" if not np.isnan([*one_ci, *c1_ci, *a1_ci, *ak_ci]).any() else (
        "no interval where the readers differ by a constant only, or subjects not at all")
    return Intraclass(n, k, one, one_ci, a1, a1_ci, c1, c1_ci, one_k, one_k_ci, ak, ak_ci, ck,
                      ck_ci, f_one, p_one, f_two, p_two, n_missing, why)


def _reml(d: np.ndarray, codes: np.ndarray) -> tuple[float, float, float, float, str]:
    """Mean and its SE, variances between and within, by a mixed model; and what to mind."""
    from statsmodels.regression.mixed_linear_model import MixedLM

    sizes = np.bincount(codes)
    scale = float(d.std())  # the solver's tolerances are absolute
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say of the fit becomes the reason
        fit = MixedLM(d / scale, np.ones((len(d), 1)), groups=codes).fit(reml=True)
    between, within = (float(np.ravel(value)[0]) * scale**2 for value in (fit.cov_re, fit.scale))
    reason = "" if fit.converged else "the mixed model did not converge: use method='anova'"
    if between <= 1e-6 * within:
        between, within = 0.0, float(d.var(ddof=1))
        reason = "variance between subjects at its boundary, 0 (singular fit): pairs of a subject "\
                 "are no more alike than others"
    weight = sizes / (within + sizes * between)  # of a subject: 1 / variance of its mean
    means = np.bincount(codes, d) / sizes
    return (float(weight @ means / weight.sum()), float(1 / np.sqrt(weight.sum())), between,
            within, reason)


def clustered_limits(
    frame: pd.DataFrame, subject: str, reference: str, test: str, *, method: str = "anova",
    multiplier: float | None = None, confidence: float = 0.95, missing: str = "raise",
) -> ClusteredLimits:
    """Limits of agreement with several pairs of readings a subject (lesions or slices a patient).

    Parameters
    ----------
    frame
        One row per pair of readings.
    subject, reference, test
        Its columns: who, and the two readings.
    method
        `anova`: the pairs belong together and the true value changes between them, as with several
        lesions (Bland & Altman 2007, section 3). `reml`: the same by a mixed model (statsmodels).
        `replicates`: repeated readings of one true value, in no order (1999, section 5.1).
    multiplier
        SDs from bias to limit; default 1.95996.
    missing
        `raise`, or `drop` pairs with an empty reading and count them.

    Returns
    -------
    ClusteredLimits
        `sd` is of the difference of one pair of single readings; variances of the differences
        between and within subjects (`replicates`: of the subjects' mean differences, and what is
        added for single readings). Intervals of the limits are MOVER's, for as many pairs as
        these are worth (`replicates`: as many as there are subjects, which is cautious).

    Formula
    -------
    bias ± z sqrt(between + within); `anova`: within is the mean square within subjects, between
    = (mean square between - within) / n0, n0 = (N - sum m_i^2 / N) / (subjects - 1); where that is
    negative, 0 and the variance of all differences.

    Source
    ------
    Bland & Altman 1999, Stat Methods Med Res 8:135; 2007, J Biopharm Stat 17:571.

    Checked against
    ---------------
    The 1999 paper's data by its formula in R, the SD printed in the 1986 paper (37.7); `anova` and
    `reml` against each other.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"s": [1, 1, 2, 2, 3, 3], "a": [1.0, 2, 3, 4, 5, 6],
    ...                       "b": [2.0, 3, 3, 5, 7, 9]})
    >>> r = clustered_limits(frame, "s", "a", "b")
    >>> round(r.bias, 6), round(r.variance_between, 6), round(r.variance_within, 6)
    (1.333333, 0.916667, 0.333333)
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r}: expected one of {', '.join(METHODS)}")
    check_confidence(confidence)
    frame, n_missing = full_rows(frame, (subject,), missing, (reference, test))
    a, b = (frame[name].to_numpy(float) for name in (reference, test))
    codes = pd.factorize(frame[subject])[0]
    sizes = np.bincount(codes) if len(codes) else np.zeros(0, int)
    total, n = len(codes), len(sizes)
    if n < 2 or total == n:
        why = "fewer than 2 subjects" if n < 2 else "one pair a subject: use bland_altman"
        return ClusteredLimits(total, n, NAN, NAN_PAIR, NAN, NAN, NAN, NAN_PAIR, NAN_PAIR, NAN, NAN,
                               method, n_missing, why)

    def split(values: np.ndarray) -> tuple[np.ndarray, float]:
        """Means of the subjects, and the mean square within them."""
        means = np.bincount(codes, values) / sizes
        return means, float(((values - means[codes]) ** 2).sum() / (total - n))

    reason, d = "", b - a
    if method != "replicates" and np.ptp(d) <= rounding(a, b):
        bias = float(d.mean())
        return ClusteredLimits(total, n, bias, (bias, bias), 0.0, bias, bias, (bias, bias),
                               (bias, bias), 0.0, 0.0, method, n_missing,
                               "all differences are equal: no variance to split")
    means, within = split(d)
    if method == "replicates":
        bias, between = float(means.mean()), float(means.var(ddof=1))
        # A mean of m readings varies less than one of them: put back (1 - 1/m) of each method's
        # variance, m the harmonic mean number.
        extra = (split(a)[1] + split(b)[1]) * (1 - float(np.mean(1 / sizes)))
        se, within = float(np.sqrt(between / n)), extra
    elif method == "anova":
        bias, se, between, within, _, _, reason = spread_of_pairs(d, codes)
    else:
        bias, se, between, within, reason = _reml(d, codes)
    sd = float(np.sqrt(between + within))
    z = float(stats.norm.ppf(0.975)) if multiplier is None else float(multiplier)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * se
    worth = float(n) if method == "replicates" else effective_number(
        sizes, between / sd**2 if sd > 0 else 1.0)
    lower, upper = limit_intervals(max(2.0, worth), bias, sd, "mover", confidence, z)
    return ClusteredLimits(total, n, bias, (bias - half, bias + half), sd, bias - z * sd,
                           bias + z * sd, plain(lower), plain(upper), between, within, method,
                           n_missing, reason)
