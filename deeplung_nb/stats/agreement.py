"""Agreement of two methods on the scale of measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from deeplung_nb.stats import robust
from deeplung_nb.stats._patients import spread_of_pairs
from deeplung_nb.stats._results import Result, check_confidence, clustered_pairs, rounding
from deeplung_nb.stats.concordance import concordance
from deeplung_nb.stats.limits import (
    NAN,
    NO_CI,
    NO_SPREAD,
    Spread,
    differences,
    limit_intervals,
    plain,
    quantile_limits,
    regression_intervals,
    regression_limits,
    trend,
)

__all__ = ["INTERVALS", "LIMITS", "SCALES", "BlandAltman", "Lines", "bland_altman", "concordance",
           "limits_by_size"]

LIMITS = ("constant", "regression", "quantile", "harrell-davis")
SCALES = ("difference", "percent", "ratio")
INTERVALS = ("approximate", "mover", "exact", "pair")
OWN_INTERVALS = {"constant": "mover", "regression": "jackknife", "quantile": "order statistics",
                 "harrell-davis": "order statistics"}
"""What `auto` is; constant limits alone leave a choice."""
BY_PATIENTS = ", by patients"
MOST_FOR_SHAPIRO = 5000
"""Pairs up to which the p value of Royston's algorithm is sound."""


class Lines(NamedTuple):
    """Bias and limits over the size of the readings, in the unit of the result's scale."""

    bias: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True, repr=False)
class BlandAltman(Result):
    """Result of `bland_altman`. With `limits="regression"` bias and limits are at the mean."""

    n: int
    n_clusters: int
    """Patients; as many as pairs where each has one."""
    bias: float
    bias_ci: tuple[float, float]
    sd: float
    loa_lower: float
    loa_upper: float
    loa_lower_ci: tuple[float, float]
    loa_upper_ci: tuple[float, float]
    percent_outside: float
    n_excluded: int
    slope: float
    slope_ci: tuple[float, float]
    slope_p: float
    heteroscedasticity_p: float
    shapiro_p: float
    limits: str
    scale: str
    ci: str
    confidence: float
    n_zero: int
    n_missing: int
    bias_line: tuple[float, float]
    """Intercept and slope of the bias on the mean (slope 0 but for regression limits); with the
    scale `ratio`, here and below, on the logarithm of the mean."""
    sd_line: tuple[float, float]
    """Intercept and slope of the SD on the mean."""
    sd_power: tuple[float, float]
    """Amplitude and exponent of `limits.Spread`, where regression limits use this power of the
    size instead of that line; else NaN."""
    sd_size: tuple[float, float]
    """Its lowest mean, and its scale."""
    multiplier: float
    """SDs from bias to limit."""
    reason: str
    """Why a field is NaN; empty where none is."""

    @property
    def by_patients(self) -> bool:
        """Whether a patient has several pairs, so that intervals take patients as independent."""
        return self.n_clusters < self.n

    def lines(self, mean: Any) -> Lines:
        """Bias and limits at these means of pairs (geometric means on the scale `ratio`)."""
        mean = np.asarray(mean, float)
        if self.limits != "regression" or not np.isfinite(self.loa_lower):
            ends = (self.bias, self.loa_lower, self.loa_upper)
            return Lines(*(np.full(mean.shape, value) for value in ends))
        size = np.log(mean) if self.scale == "ratio" else mean
        bias = self.bias_line[0] + self.bias_line[1] * size
        half = self.multiplier * (
            Spread(*self.sd_power, *self.sd_size).at(size) if np.isfinite(self.sd_power[0])
            else np.maximum(self.sd_line[0] + self.sd_line[1] * size, 0.0))
        lines = Lines(bias, bias - half, bias + half)
        return Lines(*map(np.exp, lines)) if self.scale == "ratio" else lines


def bland_altman(
    reference: Any, test: Any, *, limits: str = "constant", scale: str = "difference",
    ci: str = "auto", cluster: Any = None, multiplier: float | None = None,
    confidence: float = 0.95, missing: str = "raise",
) -> BlandAltman:
    """Bias and limits of agreement of two methods.

    Parameters
    ----------
    reference, test
        Paired readings, 1-D, same unit (mL unless said).
    limits
        `constant`: mean ± multiplier SD. `regression`: bias and SD by the mean, intervals by the
        jackknife (`limits_by_size` gives them along the mean, and by patients).
        `quantile`: the 2.5 % and 97.5 % quantiles (median-unbiased, type 8), no normality needed,
        intervals from order statistics; `harrell-davis`: the same by the smoother estimator.
    scale
        `difference` (test - reference), `percent` (of the pair's mean), `ratio` (test / reference,
        worked out on logarithms; pairs with a zero are left out and counted).
    ci
        Of constant limits: `approximate` (Bland & Altman 1999), `mover` (Zou 2013), `exact` (one
        limit, noncentral t), `pair` (both limits together, Carkeet 2015); `auto`: `mover`, and of
        other limits the only one there is.
    cluster
        Which patient each pair is of, one value a pair; None: each is of another one. Where a
        patient has several, bias and SD are those of `reliability.clustered_limits`, and intervals
        take patients as independent: t on the patients, MOVER and order statistics for as many
        pairs as these are worth, the jackknife of patients.
    multiplier
        SDs from bias to limit; default the normal 97.5 % quantile, 1.95996.
    missing
        `raise`, or `drop` and count.

    Returns
    -------
    BlandAltman
        `slope` and `slope_p` are those of ordinary least squares (difference on mean), as other
        programs print: where the spread grows with the size, as it mostly does, they find slopes
        that are not there (`trend.proportional_bias` does not). `heteroscedasticity_p`
        is Breusch-Pagan's (Koenker's form), `shapiro_p` tests normal differences; these three take
        pairs as independent, whatever `cluster`. With `ratio`,
        bias and limits are ratios; `sd`, `slope` and the tests stay on logarithms (of the ratio
        against the logarithm of the geometric mean).

    Formula
    -------
    d = test - reference; bias = mean d; limits = bias ± z SD(d), SD with n - 1.

    Source
    ------
    Bland & Altman 1986, Lancet 1:307; 1999, Stat Methods Med Res 8:135.

    Checked against
    ---------------
    The published tables of both papers, Giavarina 2015, Carkeet 2015, and R.

    Examples
    --------
    >>> r = bland_altman([10.0, 20.0, 30.0, 40.0], [11.0, 19.0, 33.0, 41.0])
    >>> round(r.bias, 6), round(r.sd, 6), round(r.loa_upper, 4)
    (1.0, 1.632993, 4.2006)
    """
    for name, value, allowed in (("limits", limits, LIMITS), ("scale", scale, SCALES),
                                 ("ci", ci, ("auto", *INTERVALS))):
        if value not in allowed:
            raise ValueError(f"{name} {value!r}: expected one of {', '.join(allowed)}")
    if limits != "constant" and ci != "auto":
        raise ValueError(f"ci={ci!r} is for constant limits: {limits} limits have "
                         f"{OWN_INTERVALS[limits]}. Leave ci out")
    check_confidence(confidence)
    if multiplier is not None and not (np.isfinite(multiplier) and multiplier > 0):
        raise ValueError(f"multiplier={multiplier}: expected SDs from bias to limit, above 0")
    a, b, codes, n_missing = clustered_pairs(reference, test, cluster, missing)
    if scale != "difference" and ((a < 0) | (b < 0)).any():
        raise ValueError(f"scale {scale!r} needs readings of 0 or more: correct the negative ones")
    n_zero = int(((a == 0) | (b == 0)).sum())
    mean, d, usable = differences(a, b, scale)
    if scale == "ratio":
        mean = np.log(mean)  # a ratio changes by the factor, not by the mL
    n, n_excluded = len(d), int((~usable).sum())
    z = float(stats.norm.ppf(0.975)) if multiplier is None else float(multiplier)
    codes = pd.factorize(codes[usable])[0]
    m = int(codes.max(initial=-1)) + 1
    if m < n and ci not in ("auto", "mover"):
        raise ValueError(f"ci={ci!r} takes pairs as independent, and patients have several: "
                         "expected 'auto' or 'mover', or leave cluster out")
    ci = (OWN_INTERVALS[limits] if ci == "auto" else ci) + BY_PATIENTS * (m < n)
    found_of = spread_of_pairs(d, codes) if n else None
    bias = found_of.bias if found_of else NAN
    sd = found_of.sd if found_of and n > 1 else NAN
    bias_ci, lower, upper, lower_ci, upper_ci = NO_CI, NAN, NAN, NO_CI, NO_CI
    bias_line, sd_line, outside, reasons = (bias, 0.0), (sd, 0.0), NAN, []
    power = NO_SPREAD
    if n < 2:
        reasons.append(f"{n} usable pairs: limits need 2 or more")
    elif m < 2:
        reasons.append("one patient: limits need 2 or more")
    else:
        reasons += [found_of.reason] * bool(found_of.reason)
        half = float(stats.t.ppf((1 + confidence) / 2, m - 1)) * found_of.se
        worth = max(2.0, found_of.effective)
        bias_ci = (bias - half, bias + half)
        lower_line, upper_line = np.full(n, bias - z * sd), np.full(n, bias + z * sd)
        if limits == "constant":
            lower_ci, upper_ci = limit_intervals(worth, bias, sd, ci.removesuffix(BY_PATIENTS),
                                                 confidence, z)
        elif limits in ("quantile", "harrell-davis"):
            share = float(stats.norm.cdf(z))
            low, high = quantile_limits(d, share, limits)
            lower_line, upper_line = np.full(n, low), np.full(n, high)
            lower_ci, upper_ci = (robust.quantile_interval(
                d, at, effective=worth, confidence=confidence) for at in (1 - share, share))
            needed = int(np.ceil(np.log((1 - confidence) / 2) / np.log(share)))
            if worth < needed:
                reasons.append(f"outer ends of the limits' intervals are unbounded: they need "
                               f"n >= {needed}" + " independent pairs" * (m < n))
        elif n < 3 or np.ptp(mean) == 0:
            lower_line = upper_line = np.full(n, NAN)
            reasons.append("regression limits need 3 pairs of different size")
        else:
            found = regression_limits(mean, d)
            bias_line, sd_line, power = found.bias_line, found.sd_line, found.power or NO_SPREAD
            _, lower_line, upper_line = found.at(mean, z)
            if found.power:
                reasons.append("a line of the SD would not be positive everywhere: the limits' SD "
                               "is a power of the size")
            ends = regression_intervals(found, mean, d, mean.mean(keepdims=True), codes, z,
                                        confidence)
            lower_ci, upper_ci = ends[:, 1, 0], ends[:, 2, 0]
            if np.isnan(ends).any():
                reasons.append("no interval of regression limits: too few pairs or sizes, or "
                               "the fit without one pair does not settle")
        noise = 1e-12 * np.abs(d).max()  # a limit may lie on a difference but for rounding
        outside = float(100 * np.mean((d < lower_line - noise) | (d > upper_line + noise)))
        lower, upper = float(lower_line[0]), float(upper_line[0])
        if limits == "regression" and np.isfinite(lower):
            _, lower, upper = (float(end[0]) for end in found.at(mean.mean(keepdims=True), z))
    slope, slope_ci, slope_p, spread_p = trend(mean, d, confidence)
    if n >= 2 <= m and np.isnan(slope):
        reasons.append("no trend: fewer than 3 pairs, or all means or differences equal")
    elif n >= 2 <= m and np.isnan(spread_p):
        reasons.append("no test of the spread: the differences lie on a line")
    shapiro = NAN
    if n > MOST_FOR_SHAPIRO:
        reasons.append(f"no Shapiro-Wilk test above {MOST_FOR_SHAPIRO} pairs")
    elif n >= 3 and np.ptp(d) > rounding(mean, d):
        shapiro = float(stats.shapiro(d).pvalue)
    if scale == "ratio":
        bias, lower, upper = (float(np.exp(v)) for v in (bias, lower, upper))
        bias_ci, lower_ci, upper_ci = (
            (float(np.exp(ends[0])), float(np.exp(ends[1])))
            for ends in (bias_ci, lower_ci, upper_ci))
    return BlandAltman(
        n=n, n_clusters=m, bias=bias, bias_ci=plain(bias_ci), sd=sd, loa_lower=lower,
        loa_upper=upper, loa_lower_ci=plain(lower_ci), loa_upper_ci=plain(upper_ci),
        percent_outside=outside,
        n_excluded=n_excluded, slope=slope, slope_ci=slope_ci, slope_p=slope_p,
        heteroscedasticity_p=spread_p, shapiro_p=shapiro, limits=limits, scale=scale, ci=ci,
        confidence=confidence, n_zero=n_zero, n_missing=n_missing, bias_line=bias_line,
        sd_line=sd_line, sd_power=power[:2], sd_size=power[2:], multiplier=z,
        reason="; ".join(reasons))


def limits_by_size(
    reference: Any, test: Any, sizes: Any = None, *, cluster: Any = None,
    multiplier: float | None = None, confidence: float = 0.95, missing: str = "raise",
) -> pd.DataFrame:
    """Regression limits of agreement at chosen sizes, with their intervals.

    Parameters
    ----------
    reference, test
        Paired readings, 1-D, same unit.
    sizes
        Means of a pair at which to give them; None: the quartiles of the means.
    cluster
        Which patient each pair is of, where one has several.
    multiplier
        SDs from bias to limit; default 1.95996.

    Returns
    -------
    DataFrame
        A row a size: `size`, and `bias`, `loa_lower`, `loa_upper`, each with its `_ci_lower` and
        `_ci_upper`; NaN beyond the sizes that were read, with fewer than three pairs or one size
        only. No interval with fewer than four patients.

    Formula
    -------
    bias and SD as lines of the mean (the SD a power of it where a line would not be positive);
    intervals ± t SE, SE by the jackknife that leaves out each patient.

    Source
    ------
    Bland & Altman 1999, Stat Methods Med Res 8:135, section 3.2; Efron & Tibshirani 1993, An
    Introduction to the Bootstrap, ch. 11 (jackknife).

    Checked against
    ---------------
    `bland_altman(limits="regression")` and its oracle; coverage by simulation.

    Examples
    --------
    >>> a = np.arange(1.0, 21)
    >>> table = limits_by_size(a, a * (1 + 0.1 * (-1) ** np.arange(20)), [5, 15])
    >>> (table.loa_upper - table.loa_lower).round(1).tolist()
    [2.5, 7.4]
    """
    check_confidence(confidence)
    a, b, codes, _ = clustered_pairs(reference, test, cluster, missing)
    mean, d = (a + b) / 2, b - a
    if sizes is None:
        at = np.quantile(mean, [0.25, 0.5, 0.75]) if len(mean) else np.full(3, NAN)
    else:
        at = np.atleast_1d(np.asarray(sizes, float))
    z = float(stats.norm.ppf(0.975)) if multiplier is None else float(multiplier)
    if len(a) < 3 or np.ptp(mean) == 0:
        values, (low, high) = np.full((3, len(at)), NAN), np.full((2, 3, len(at)), NAN)
    else:
        found = regression_limits(mean, d)
        values = found.at(at, z)
        low, high = regression_intervals(found, mean, d, at, codes, z, confidence)
        beyond = (at < mean.min()) | (at > mean.max())
        values[:, beyond] = low[:, beyond] = high[:, beyond] = NAN
    table: dict[str, np.ndarray] = {"size": at}
    for name, *row in zip(("bias", "loa_lower", "loa_upper"), values, low, high, strict=True):
        table |= dict(zip((name, f"{name}_ci_lower", f"{name}_ci_upper"), row, strict=True))
    return pd.DataFrame(table)
