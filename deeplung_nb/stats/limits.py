"""What stands behind `agreement.bland_altman`: scales, limits and the intervals of limits."""

from __future__ import annotations

import functools
import warnings
from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats

from deeplung_nb.stats._results import FEWEST, groups_left_out, jackknife_error, rounding

NAN = float("nan")
NO_CI = (NAN, NAN)


class Differences(NamedTuple):
    """Where each pair stands in a Bland-Altman plot."""

    mean: np.ndarray
    """Of the pair; the geometric mean on the scale `ratio`."""
    difference: np.ndarray
    """test - reference; in percent of the mean; or the logarithm of test / reference."""
    usable: np.ndarray
    """bool, one for each pair that came in: whether the scale can express it."""


def differences(reference: np.ndarray, test: np.ndarray, scale: str) -> Differences:
    """Means and differences of the usable pairs on a scale: `difference`, `percent`, `ratio`."""
    a, b = reference, test
    mean = (a + b) / 2
    if scale == "difference":
        return Differences(mean, b - a, np.ones(len(a), bool))
    if scale == "percent":
        usable = mean != 0
        return Differences(mean[usable], 100 * (b - a)[usable] / mean[usable], usable)
    usable = (a > 0) & (b > 0)
    with np.errstate(divide="ignore"):
        return Differences(np.sqrt(a[usable] * b[usable]), np.log(b[usable] / a[usable]), usable)


def carkeet_factor(n: int, confidence: float, multiplier: float) -> float:
    """Carkeet's k: with this confidence, mean ± k SD holds at least the central share of the
    differences that mean ± `multiplier` sigma holds (an exact two-sided tolerance factor).

    Parameters
    ----------
    n
        Pairs.
    confidence
        The outer bounds of a 95 % interval of the pair of limits take 0.975, the inner ones 0.025.
    multiplier
        SDs from bias to limit.

    Returns
    -------
    float
        k.

    Formula
    -------
    With u ~ N(0, 1/n) for the sample mean and r(u) the half-width that holds the share around u,
    P(k) = E[ P(chi^2_(n-1) >= (n - 1) r(u)^2 / k^2) ]; solved for P(k) = confidence.

    Source
    ------
    Carkeet 2015, Optom Vis Sci 92:e71.

    Checked against
    ---------------
    The paper's table of factors.

    Examples
    --------
    >>> round(carkeet_factor(30, 0.975, 1.959964), 2)
    2.69
    """
    return _carkeet_factor(int(n), float(confidence), float(multiplier))


@functools.cache
def _carkeet_factor(n: int, confidence: float, multiplier: float) -> float:
    share = 2 * stats.norm.cdf(multiplier) - 1
    nodes, weights = np.polynomial.legendre.leggauss(200)
    u = (nodes + 1) / 2 * 9 / np.sqrt(n)  # 9 standard errors; symmetric about 0
    density = 2 * stats.norm.pdf(u * np.sqrt(n)) * np.sqrt(n) * weights * 9 / np.sqrt(n) / 2
    low, half = np.zeros(len(u)), u + multiplier + 8
    for _ in range(60):  # bisection, all nodes at once
        middle = (low + half) / 2
        enough = special.ndtr(u + middle) - special.ndtr(u - middle) >= share
        low, half = np.where(enough, low, middle), np.where(enough, middle, half)

    def held(k: float) -> float:
        return float(density @ stats.chi2.sf((n - 1) * (half / k) ** 2, n - 1))

    most = 1e3
    while held(most) < confidence:  # two pairs, and a confidence near 1
        most *= 10
    return float(optimize.brentq(lambda k: held(k) - confidence, 1e-3, most, xtol=1e-11))


def limit_intervals(n: int, bias: float, sd: float, ci: str, confidence: float,
                     multiplier: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Confidence intervals of the lower and the upper constant limit."""
    tail = (1 - confidence) / 2
    t = float(stats.t.ppf(1 - tail, n - 1))
    if ci == "approximate":  # Bland & Altman 1999, section 2: SE^2 = (1/n + z^2 / (2 (n - 1))) s^2
        half = t * sd * np.sqrt(1 / n + multiplier**2 / (2 * (n - 1)))
        low, high = bias - multiplier * sd, bias + multiplier * sd
        return (low - half, low + half), (high - half, high + half)
    if ci == "mover":  # Zou 2013, Stat Methods Med Res 22:630: from the mean's and the SD's own CI
        mean_half = stats.norm.ppf(1 - tail) * sd / np.sqrt(n)
        sd_low, sd_high = sd * np.sqrt((n - 1) / stats.chi2.ppf([1 - tail, tail], n - 1))
        inner = np.hypot(mean_half, multiplier * (sd - sd_low))
        outer = np.hypot(mean_half, multiplier * (sd_high - sd))
        low, high = bias - multiplier * sd, bias + multiplier * sd
        return (low - outer, low + inner), (high - inner, high + outer)
    if ci == "exact":  # one limit at a time: a quantile of the normal, noncentral t
        inner, outer = stats.nct.ppf([tail, 1 - tail], n - 1, multiplier * np.sqrt(n)) / np.sqrt(n)
    else:
        inner, outer = (carkeet_factor(n, q, multiplier) for q in (tail, 1 - tail))
    return ((bias - outer * sd, bias - inner * sd), (bias + inner * sd, bias + outer * sd))


def trend(mean: np.ndarray, difference: np.ndarray, confidence: float
           ) -> tuple[float, tuple[float, float], float, float]:
    """Slope of difference on mean with CI and p, and the Breusch-Pagan p (statsmodels)."""
    grain = rounding(mean, difference)
    if len(mean) < 3 or np.ptp(mean) <= grain or np.ptp(difference) <= grain:
        return NAN, NO_CI, NAN, NAN
    import statsmodels.api as sm
    from statsmodels.stats.diagnostic import het_breuschpagan

    design = sm.add_constant(mean)
    fit = sm.OLS(difference, design).fit()
    low, high = fit.conf_int(1 - confidence)[1]
    spread_p = NAN
    if np.abs(fit.resid).max() > grain:
        spread_p = float(het_breuschpagan(fit.resid, design)[1])
    return float(fit.params[1]), (float(low), float(high)), float(fit.pvalues[1]), spread_p


HALF_NORMAL = float(np.sqrt(np.pi / 2))
"""E|N(0, s)| = s sqrt(2 / pi)."""


class Spread(NamedTuple):
    """SD of the differences at a size: amplitude (1 + (size - lowest) / scale) ** exponent."""

    amplitude: float
    exponent: float
    lowest: float
    scale: float

    def at(self, mean: np.ndarray) -> np.ndarray:
        """The SD at these means; below the lowest it stays what it is there."""
        size = np.maximum(np.asarray(mean, float) - self.lowest, 0.0) / self.scale
        return self.amplitude * (1.0 + size) ** self.exponent


NO_SPREAD = Spread(NAN, NAN, NAN, NAN)


def spread_of(mean: np.ndarray, residual: np.ndarray) -> Spread:
    """The power of the size that |residual| follows, by quasi-likelihood with a log link.

    No zero disturbs it (Santos Silva & Tenreyro 2006, Rev Econ Stat 88:641).
    """
    import statsmodels.api as sm

    lowest, scale = float(mean.min()), float(np.mean(mean - mean.min()))
    unit = float(residual.mean())  # so that the solver meets numbers about 1
    design = sm.add_constant(np.log1p((mean - lowest) / scale))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a power through few residuals may fit them all
        fit = sm.GLM(residual / unit, design, family=sm.families.Poisson()).fit()
    return Spread(float(np.exp(fit.params[0])) * unit * HALF_NORMAL, float(fit.params[1]),
                  lowest, scale)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Intercept and slope by least squares."""
    slope, intercept = np.polyfit(x, y, 1)
    return float(intercept), float(slope)


class RegressionLimits(NamedTuple):
    """Bias and SD of the differences by size (Bland & Altman 1999, section 3.2)."""

    bias_line: tuple[float, float]
    """Intercept and slope."""
    sd_line: tuple[float, float]
    power: Spread | None
    """Where the SD's line is not positive at every pair, the power that stands in its place."""

    def at(self, size: np.ndarray, multiplier: float) -> np.ndarray:
        """Bias, lower and upper limit at these sizes: [3, n]."""
        bias = self.bias_line[0] + self.bias_line[1] * size
        half = multiplier * (self.power.at(size) if self.power
                             else np.maximum(self.sd_line[0] + self.sd_line[1] * size, 0.0))
        return np.stack([bias, bias - half, bias + half])


def regression_limits(mean: np.ndarray, difference: np.ndarray) -> RegressionLimits:
    """Difference on mean, then |residual| on mean.

    Where that line of the SD is not positive at every pair (many zeros, skew), the SD is a power
    of the size instead (Carroll & Ruppert 1988, Transformation and Weighting in Regression,
    ch. 2).
    """
    bias_line = _line(mean, difference)
    residual = np.abs(difference - bias_line[0] - bias_line[1] * mean)
    sd_line = _line(mean, residual)
    power = None
    if residual.max() > rounding(mean, difference) and (sd_line[0] + sd_line[1] * mean <= 0).any():
        power = spread_of(mean, residual)
    return RegressionLimits(bias_line, (sd_line[0] * HALF_NORMAL, sd_line[1] * HALF_NORMAL), power)


def _refitted(found: RegressionLimits, mean: np.ndarray, difference: np.ndarray
              ) -> RegressionLimits | None:
    """The same kind of limits of other pairs; a power by Newton's steps from the one found, None
    where they don't settle."""
    bias_line = _line(mean, difference)
    residual = np.abs(difference - bias_line[0] - bias_line[1] * mean)
    if not found.power:
        return RegressionLimits(bias_line, tuple(
            HALF_NORMAL * value for value in _line(mean, residual)), None)
    amplitude, exponent, lowest, scale = found.power
    design = np.stack([np.ones(len(mean)), np.log1p(np.maximum(mean - lowest, 0.0) / scale)])
    beta = np.array([np.log(amplitude / HALF_NORMAL), exponent])
    for _ in range(20):
        fitted = np.exp(beta @ design)
        step = np.linalg.solve((design * fitted) @ design.T, design @ (residual - fitted))
        beta = beta + step
        if np.abs(step).max() < 1e-9:
            break
    else:
        return None
    return RegressionLimits(bias_line, found.sd_line, Spread(
        float(np.exp(beta[0])) * HALF_NORMAL, float(beta[1]), lowest, scale))


def regression_intervals(found: RegressionLimits, mean: np.ndarray, difference: np.ndarray,
                         sizes: np.ndarray, codes: np.ndarray, multiplier: float,
                         confidence: float) -> np.ndarray:
    """Intervals of bias, lower and upper limit at `sizes`, leaving out each patient: [2, 3, n].

    Parameters
    ----------
    found
        The limits of all pairs.
    codes
        Which patient each pair is of. Above 200 patients as many groups of them are left out
        (Efron & Tibshirani 1993, ch. 11: the jackknife).

    Returns
    -------
    NaN with fewer than four patients, or where the fit without one of them does not settle.
    """
    nothing = np.full((2, 3, len(sizes)), NAN)
    m = int(codes.max(initial=-1)) + 1
    if m < FEWEST:
        return nothing
    group = groups_left_out(m)[codes]
    without = []
    for k in range(int(group.max()) + 1):
        x, y = mean[group != k], difference[group != k]
        if len(x) < 3 or np.ptp(x) == 0:
            return nothing
        try:
            with np.errstate(all="ignore"):
                other = _refitted(found, x, y)
        except np.linalg.LinAlgError:
            return nothing
        if other is None:
            return nothing
        without.append(other.at(sizes, multiplier))
    half = (stats.t.ppf((1 + confidence) / 2, len(without) - 1)
            * jackknife_error(np.array(without)))
    centre = found.at(sizes, multiplier)
    return np.stack([centre - half, centre + half])


def quantile_limits(difference: np.ndarray, share: float, estimator: str
                    ) -> tuple[float, float]:
    """The quantiles `1 - share` and `share` of the differences: type 8 or Harrell-Davis."""
    if estimator == "harrell-davis":
        low, high = stats.quantile(difference, [1 - share, share], method="harrell-davis")
    else:
        low, high = np.quantile(difference, [1 - share, share], method="median_unbiased")
    return float(low), float(high)


def quantile_interval(difference: np.ndarray, share: float, confidence: float
                      ) -> tuple[float, float]:
    """Distribution-free interval of one quantile, from order statistics.

    Each end errs with probability of at most (1 - confidence) / 2; an end that no observation can
    secure is infinite (for the 2.5 % quantile at 95 %: the lower one where n < 146).

    Source
    ------
    Conover 1999, Practical Nonparametric Statistics, section 3.2.
    """
    n, tail = len(difference), (1 - confidence) / 2
    ordered = np.concatenate([[-np.inf], np.sort(difference), [np.inf]])
    # P(quantile < k-th value) = P(Bin(n, share) < k); 1-based k, 0 and n + 1 are the infinities.
    below = stats.binom.cdf(np.arange(n + 1), n, share)
    lower = int(np.searchsorted(below, tail, side="right"))
    upper = int(np.searchsorted(below, 1 - tail, side="left")) + 1
    return float(ordered[lower]), float(ordered[upper])


def plain(ends: tuple[float, float]) -> tuple[float, float]:
    return float(ends[0]), float(ends[1])
