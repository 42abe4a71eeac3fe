"""Equivalence within a declared margin: two one-sided tests, total deviation, sample size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, stats

from deeplung_nb.labels import counted
from deeplung_nb.stats import paired, tolerance
from deeplung_nb.stats._patients import spread_of_pairs
from deeplung_nb.stats._results import (
    NAN_PAIR,
    Result,
    check_confidence,
    clustered_pairs,
    rounding,
)

NAN = float("nan")


@dataclass(frozen=True, repr=False)
class Equivalence(Result):
    """Result of `tost`; differences are test - reference."""

    n: int
    n_clusters: int
    bias: float
    bias_ci: tuple[float, float]
    margin: float
    t_lower: float
    p_lower: float
    t_upper: float
    p_upper: float
    p_value: float
    confidence: float
    n_missing: int
    reason: str


@dataclass(frozen=True, repr=False)
class RankEquivalence(Result):
    """Result of `wilcoxon_tost`; differences are test - reference."""

    n: int
    n_clusters: int
    hodges_lehmann: float
    hodges_lehmann_ci: tuple[float, float]
    margin: float
    p_lower: float
    p_upper: float
    p_value: float
    method: str
    confidence: float
    n_missing: int
    reason: str


@dataclass(frozen=True, repr=False)
class TotalDeviation(Result):
    """Result of `total_deviation_index`."""

    n: int
    n_clusters: int
    share: float
    tdi: float
    tdi_upper: float
    tdi_approximate: float
    tdi_empirical: float
    margin: float
    coverage: float
    coverage_empirical: float
    n_missing: int
    reason: str


@dataclass(frozen=True, repr=False)
class SampleSize(Result):
    """Result of `sample_size`."""

    n: int
    power: float
    bias: float
    sd: float
    margin: float
    confidence: float
    share: float


def _check_margin(margin: float) -> None:
    if not (np.isfinite(margin) and margin > 0):
        raise ValueError(f"margin={margin}: expected a positive number, declared before looking "
                         "at the data, in the unit of the readings")


def _too_few(n: int, m: int) -> str:
    return f"{counted(n, 'pair')}: needs 2 or more" if m == n else "one patient: needs 2 or more"


def tost(reference: Any, test: Any, margin: float, *, cluster: Any = None,
         confidence: float = 0.95, missing: str = "raise") -> Equivalence:
    """Two one-sided t tests: is the mean difference within ± margin?

    Null hypothesis: the bias is as large as the margin, or larger. A small p speaks for
    equivalence of the means (not of single readings: see the limits of agreement).

    Parameters
    ----------
    reference, test
        Paired readings, 1-D.
    margin
        Largest bias that does not matter, in the unit of the readings.
    cluster
        Which patient each pair is of, one value a pair; None: each is of another one. Where one
        has several, bias and its error are those of `reliability.clustered_limits`.
    confidence
        1 - level of each test; the interval of the bias has 2 x confidence - 1 (90 % at 0.95).

    Returns
    -------
    Equivalence
        `p_value` is the larger of the two; equivalence at the level is the same as `bias_ci`
        lying within ± margin.

    Formula
    -------
    t_lower = (bias + margin) / SE, t_upper = (bias - margin) / SE, n - 1 degrees of freedom, n the
    pairs, or the patients where they have several.

    Source
    ------
    Schuirmann 1987, J Pharmacokinet Biopharm 15:657.

    Checked against
    ---------------
    R stats::t.test, one-sided.

    Examples
    --------
    >>> r = tost([10, 20, 30, 40], [11, 19, 31, 40], margin=3)
    >>> round(r.p_value, 6)
    0.005239
    """
    check_confidence(confidence)
    _check_margin(margin)
    a, b, codes, n_missing = clustered_pairs(reference, test, cluster, missing)
    d, n, m = b - a, len(a), int(codes.max(initial=-1)) + 1
    if m < 2 or np.ptp(d) <= rounding(a, b):
        why = _too_few(n, m) if m < 2 else "all differences are equal"
        return Equivalence(n, m, float(d.mean()) if n else NAN, NAN_PAIR, margin, NAN, NAN, NAN,
                           NAN, NAN, confidence, n_missing, why)
    found = spread_of_pairs(d, codes)
    half = float(stats.t.ppf(confidence, m - 1)) * found.se
    t_lower, t_upper = ((found.bias + side * margin) / found.se for side in (1, -1))
    p_lower, p_upper = float(stats.t.sf(t_lower, m - 1)), float(stats.t.cdf(t_upper, m - 1))
    return Equivalence(n, m, found.bias, (found.bias - half, found.bias + half), margin, t_lower,
                       p_lower, t_upper, p_upper, max(p_lower, p_upper), confidence, n_missing, "")


def wilcoxon_tost(reference: Any, test: Any, margin: float, *, method: str = "auto",
                  correction: bool = True, cluster: Any = None, confidence: float = 0.95,
                  missing: str = "raise") -> RankEquivalence:
    """Two one-sided signed-rank tests: is the shift within ± margin?

    Null hypothesis: the differences are symmetric about a shift as large as the margin, or larger.
    It needs no normal differences, but symmetric ones; where they are skewed, `tost` speaks of the
    mean.

    Parameters
    ----------
    reference, test
        Paired readings, 1-D.
    margin
        Largest shift that does not matter, in the unit of the readings.
    method, correction
        As in `paired.wilcoxon_signed_rank`.
    cluster
        Which patient each pair is of, one value a pair; None: each is of another one. Where one
        has several, the tests are `clusters.signed_rank` (no correction) and the shift has no
        interval.
    confidence
        1 - level of each test; the interval of the shift has 2 x confidence - 1 (90 % at 0.95).

    Returns
    -------
    RankEquivalence
        `p_value` is the larger of the two. `hodges_lehmann` is over all pairs, zeros included.

    Formula
    -------
    Signed-rank tests of d + margin above 0 (`p_lower`) and of d - margin below 0 (`p_upper`).

    Source
    ------
    Wellek 2010, Testing Statistical Hypotheses of Equivalence and Noninferiority, section 5.4;
    Wilcoxon 1945, Biometrics Bull 1:80.

    Checked against
    ---------------
    R stats::wilcox.test, one-sided.

    Examples
    --------
    >>> r = wilcoxon_tost([10, 20, 30, 40, 50, 60], [11, 19, 31, 40, 52, 60], margin=5)
    >>> r.p_value, r.hodges_lehmann
    (0.015625, 0.5)
    """
    check_confidence(confidence)
    if confidence <= 0.5:
        raise ValueError(f"confidence={confidence}: expected more than 0.5")
    _check_margin(margin)
    a, b, codes, n_missing = clustered_pairs(reference, test, cluster, missing)
    n, m = len(a), int(codes.max(initial=-1)) + 1
    if not n:
        return RankEquivalence(0, 0, NAN, NAN_PAIR, margin, NAN, NAN, NAN, "none", confidence,
                               n_missing, "no pair")
    lower, upper = (
        paired.wilcoxon_signed_rank(a + shift, b, method=method, correction=correction,
                                    alternative=side, cluster=codes)
        for shift, side in ((-margin, "greater"), (margin, "less")))
    # Differences that all lie on a margin don't lie within it.
    p_lower, p_upper = (1.0 if side.method.startswith("none") else side.p_value
                        for side in (lower, upper))
    every = paired.wilcoxon_signed_rank(a, b, zeros="pratt", confidence=2 * confidence - 1,
                                        cluster=codes)
    return RankEquivalence(n, m, every.hodges_lehmann, every.hodges_lehmann_ci, margin, p_lower,
                           p_upper, max(p_lower, p_upper), lower.method, confidence, n_missing,
                           every.reason)


def total_deviation_index(reference: Any, test: Any, *, share: float = 0.95,
                          margin: float | None = None, cluster: Any = None,
                          confidence: float = 0.95, missing: str = "raise") -> TotalDeviation:
    """Total deviation index: the size that a given share of all differences stays below.

    Parameters
    ----------
    reference, test
        Paired readings, 1-D.
    share
        Of the differences, 0 to 1.
    margin
        For the coverage probability: the share of differences within ± margin.
    cluster
        Which patient each pair is of, one value a pair; None: each is of another one.
    confidence
        Of the one-sided upper bound.

    Returns
    -------
    TotalDeviation
        `tdi` for normal differences, `tdi_upper` which it lies below with this confidence (is it
        below what is tolerable? then so many differences are), its common approximation, the
        empirical quantile (type 7) of |d|; coverage for normal differences, and counted (NaN
        without margin).

    Formula
    -------
    P(|N(bias, sd)| < tdi) = share; approximation z sqrt(bias^2 + sd^2). Upper bound
    |bias| + k sd, bias ± k sd being the tolerance interval of that share
    (`tolerance.tolerance_limits`): somewhat too wide where the bias is large.

    Source
    ------
    Lin 2000, Stat Med 19:255; Lin et al. 2002, JASA 97:257; bound by a tolerance interval:
    Escaramis et al. 2010, BMC Med Res Methodol 10:31.

    Checked against
    ---------------
    R MethComp::TDI.

    Examples
    --------
    >>> r = total_deviation_index([10, 20, 30, 40], [11, 19, 31, 40], margin=2)
    >>> round(r.tdi, 4), r.coverage_empirical
    (1.9388, 1.0)
    """
    check_confidence(share)
    check_confidence(confidence)
    if margin is not None:
        _check_margin(margin)
    a, b, codes, n_missing = clustered_pairs(reference, test, cluster, missing)
    d, n, m = b - a, len(a), int(codes.max(initial=-1)) + 1
    if m < 2 or np.ptp(d) <= rounding(a, b):
        why = _too_few(n, m) if m < 2 else "all differences are equal"
        return TotalDeviation(n, m, share, *[NAN] * 7, n_missing, why)
    found = tolerance.tolerance_limits(a, b, share=share, cluster=codes, confidence=confidence)
    bias, sd = found.bias, found.sd
    if not np.isfinite(sd):
        return TotalDeviation(n, m, share, *[NAN] * 7, n_missing, found.reason)

    def within(size: float) -> float:
        return float(stats.norm.cdf(size, bias, sd) - stats.norm.cdf(-size, bias, sd))

    z = float(stats.norm.ppf((1 + share) / 2))
    tdi = float(optimize.brentq(lambda size: within(size) - share, 0.0,
                                abs(bias) + (z + 8) * sd, xtol=1e-12))
    return TotalDeviation(
        n, m, share, tdi, abs(bias) + (found.upper - bias), z * float(np.hypot(bias, sd)),
        float(np.quantile(np.abs(d), share)), NAN if margin is None else margin,
        NAN if margin is None else within(margin),
        NAN if margin is None else float(np.mean(np.abs(d) <= margin)), n_missing, found.reason)


def sample_size(bias: float, sd: float, margin: float, *, confidence: float = 0.95,
                power: float = 0.8, share: float = 0.95) -> SampleSize:
    """Pairs needed to show that both limits of agreement lie within ± margin.

    Parameters
    ----------
    bias, sd
        Expected mean and SD of the differences.
    margin
        Largest difference of a single pair that does not matter, same unit.
    confidence, power
        Of the limits' intervals; with which they are to lie within the margin.
    share
        Of the differences that the limits are to hold.

    Returns
    -------
    SampleSize
        `n` pairs, and what they rest on.

    Formula
    -------
    Each limit's interval end is taken as t-distributed about the limit with
    SE sd sqrt(1/n + z^2 / (2 (n - 1))); power from the noncentral t, both sides.

    Source
    ------
    Lu et al. 2016, Int J Biostat 12(2). The paper's own example prints 83 where this gives 79.

    Checked against
    ---------------
    R SimplyAgree 0.3.0 (79, as here).

    Examples
    --------
    >>> sample_size(0.001167, 0.001129, 0.004).n
    79
    """
    check_confidence(confidence)
    check_confidence(power)
    check_confidence(share)
    _check_margin(margin)
    z = float(stats.norm.ppf((1 + share) / 2))
    if sd <= 0 or margin <= abs(bias) + z * sd:
        raise ValueError(f"bias {bias}, SD {sd}: the limits of agreement reach "
                         f"{abs(bias) + z * sd:.6g}, beyond the margin {margin}; no number of "
                         "pairs can show agreement")

    def power_of(n: int) -> float:
        se = sd * np.sqrt(1 / n + z**2 / (2 * (n - 1)))
        t = stats.t.ppf((1 + confidence) / 2, n - 1)
        missed = sum(stats.nct.cdf(t, n - 1, (margin - side * bias - z * sd) / se)
                     for side in (-1, 1))
        return float(1 - missed)

    n = 2
    while power_of(n) < power:
        n += 1
        if n > 100_000:
            raise ValueError(f"more than 100,000 pairs for power {power}: margin {margin} lies too "
                             "close to the limits")
    return SampleSize(n, power_of(n), bias, sd, margin, confidence, share)
