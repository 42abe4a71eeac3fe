"""What differences of clustered pairs tell of bias and spread: one analysis of variance for all."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

RESAMPLES = 2000
NEGATIVE = ("variance between subjects came out negative: taken as 0, and the limits from the SD "
            "of all pairs")


class Spread(NamedTuple):
    """Bias and variance of the difference of a pair, where a patient may have several."""

    bias: float
    se: float
    between: float
    within: float
    effective: float
    """How many independent pairs these are worth."""
    n_clusters: int
    reason: str

    @property
    def sd(self) -> float:
        """Of the difference of one pair."""
        return float(np.sqrt(self.between + self.within))


def spread_of_pairs(d: np.ndarray, codes: np.ndarray) -> Spread:
    """Mean and variance components of differences, by the analysis of variance between patients.

    Parameters
    ----------
    d
        Differences, 1-D, two or more.
    codes
        Which patient each is of, as whole numbers from 0. All different: mean and SD of the pairs.
    """
    sizes = np.bincount(codes)
    total, n = len(d), len(sizes)
    bias = float(d.mean())
    if total == n:
        variance = float(d.var(ddof=1)) if n > 1 else np.nan
        return Spread(bias, float(np.sqrt(variance / n)), 0.0, variance, float(n), n, "")
    if n < 2:
        return Spread(bias, np.nan, np.nan, np.nan, np.nan, n, "fewer than 2 patients")
    means, reason = np.bincount(codes, d) / sizes, ""
    within = float(((d - means[codes]) ** 2).sum() / (total - n))
    mean_square = float((sizes * (means - bias) ** 2).sum() / (n - 1))
    typical = (total**2 - float((sizes**2).sum())) / ((n - 1) * total)
    between = (mean_square - within) / typical
    if between < 0:
        # The mean square within may rest on a degree of freedom or two; all pairs tell better.
        between, within, reason = 0.0, float(d.var(ddof=1)), NEGATIVE
    se = float(np.sqrt(between * (sizes**2).sum() / total**2 + within / total))
    return Spread(bias, se, between, within, effective_number(
        sizes, between / (between + within) if between + within > 0 else 1.0), n, reason)


def effective_number(sizes: np.ndarray, alike: float) -> float:
    """How many independent pairs clusters of these sizes are worth (Kish's design effect).

    Kish 1965, Survey Sampling, section 8.2; for unequal sizes the weighted mean size.
    """
    total = float(sizes.sum())
    return total / (1 + ((sizes**2).sum() / total - 1) * alike)


def mean_squares(x: np.ndarray) -> tuple[float, float, float]:
    """Of subjects, readers and what is left; [subjects, readers]."""
    n, k = x.shape
    rows, columns, mean = x.mean(axis=1), x.mean(axis=0), x.mean()
    return (k * float(((rows - mean) ** 2).sum()) / (n - 1),
            n * float(((columns - mean) ** 2).sum()) / (k - 1),
            float(((x - rows[:, None] - columns + mean) ** 2).sum()) / ((n - 1) * (k - 1)))


def drawn_patients(m: int, seed: int = 0) -> Iterator[np.ndarray]:
    """How often each of m patients is drawn, [some resamples, m], until there are `RESAMPLES`."""
    rows = max(1, 100_000 // m)  # at a time: in the processor's cache
    drawn = _drawn(m, seed, rows)
    for start in range(0, RESAMPLES, rows):
        yield drawn[start:start + rows].astype(float)


@functools.lru_cache(maxsize=2)  # 10 MB for 5,000 patients; the next question is often of as many
def _drawn(m: int, seed: int, rows: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    parts = [rng.multinomial(m, np.full(m, 1 / m), min(rows, RESAMPLES - start))
             for start in range(0, RESAMPLES, rows)]
    return np.concatenate(parts).astype(np.uint16)
