"""Worlds of two readers whose truth is known, from which studies are drawn.

One like a user's own pairs (`World.of`), and those in which this package's intervals were tried
(`EXAMPLES`; docs/statistics.md has what came of it).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

from deeplung_nb.stats._results import cluster_codes, two_arrays

FEWEST = 10
"""Pairs of which a world can be made."""

Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray, np.ndarray | None]]
"""Readings of so many patients: reference, test, and whose they are (None: all of others)."""


@dataclass(frozen=True)
class World:
    """Volumes of two readers: zeros, skewed sizes, and an error that has a part of each kind.

    Attributes
    ----------
    zero
        Share of pairs that neither reader sees.
    mu, sigma
        Of the logarithm of the reference's volume, mL, where it sees one.
    bias, error
        Of the test reader, as shares of the volume: mean, and SD.
    bias_ml, error_ml
        Those that don't grow with it.
    reference_only, test_only
        Shares of the seen pairs in which only one of the two sees anything.
    alike
        Share of the error's variance that the readings of one patient have in common.
    sizes
        Readings of each patient, drawn from; one: each is of another patient.
    """

    zero: float = 0.0
    mu: float = 2.0
    sigma: float = 1.3
    bias: float = 0.0
    error: float = 0.2
    bias_ml: float = 0.0
    error_ml: float = 0.0
    reference_only: float = 0.0
    test_only: float = 0.0
    alike: float = 0.0
    sizes: tuple[int, ...] = (1,)

    def draw(self, rng: np.random.Generator, n: int
             ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Readings of `n` patients: reference, test, and whose they are (None: all of others)."""
        who = None
        if self.sizes != (1,):
            who = np.repeat(np.arange(n), rng.choice(self.sizes, n))
        size = n if who is None else len(who)
        a = np.where(rng.random(size) < self.zero, 0.0, rng.lognormal(self.mu, self.sigma, size))
        noise = rng.normal(size=size)
        if who is not None and self.alike > 0:
            noise = math.sqrt(self.alike) * rng.normal(size=n)[who] + \
                math.sqrt(1 - self.alike) * noise
        spread = np.hypot(self.error * a, self.error_ml)
        b = np.maximum(a + np.where(a > 0, self.bias_ml + self.bias * a + spread * noise, 0.0), 0.0)
        if self.reference_only > 0 or self.test_only > 0:
            lost = rng.random(size)
            b = np.where(lost < self.reference_only, 0.0, b)
            only = (lost >= self.reference_only) & (lost < self.reference_only + self.test_only)
            a = np.where(only, 0.0, a)
        return a, b, who

    @classmethod
    def of(cls, reference: Any, test: Any, cluster: Any = None) -> World:
        """The world that a user's pairs look like.

        Parameters
        ----------
        reference, test, cluster
            Volumes of one pair or more each, and whose they are.

        Raises
        ------
        ValueError
            Fewer than ten pairs, or fewer than three that both see.
        """
        a, b, _ = two_arrays(reference, test)
        both = (a > 0) & (b > 0)
        if len(a) < FEWEST or both.sum() < 3 or (a < 0).any() or (b < 0).any():
            raise ValueError(f"{len(a)} pairs, {int(both.sum())} of them above 0 in both, expected "
                             f"{FEWEST} or more volumes and 3: too few to make a world of")
        x, d = a[both], (b - a)[both]
        line = np.zeros(2)
        fixed, grown = 0.0, float(np.std(d / x))
        for _ in range(8):  # the spread weighs the line, and the line's rest gives the spread
            weights = 1 / np.maximum(fixed ** 2 + (grown * x) ** 2, 1e-9 * (1 + x ** 2))
            design = np.column_stack([np.ones(len(x)), x]) * np.sqrt(weights)[:, None]
            line = np.linalg.lstsq(design, d * np.sqrt(weights), rcond=None)[0]
            squares = (d - line[0] - line[1] * x) ** 2
            fixed, grown = _two_parts(x, squares, weights)
        codes = cluster_codes(cluster, len(a))
        counts = np.bincount(codes)
        whose = codes[both]
        rest = (d - line[0] - line[1] * x) / np.maximum(np.hypot(grown * x, fixed), 1e-12)
        seen = (a > 0) | (b > 0)
        logs = np.log(np.where(a > 0, a, b)[seen])
        return cls(zero=float((~seen).mean()), mu=float(logs.mean()),
                   sigma=float(logs.std(ddof=1)) if len(logs) > 1 else 0.0,
                   bias=float(line[1]), bias_ml=float(line[0]), error=grown, error_ml=fixed,
                   reference_only=float(((a > 0) & (b == 0)).sum() / seen.sum()),
                   test_only=float(((b > 0) & (a == 0)).sum() / seen.sum()),
                   alike=_alike(rest, whose), sizes=tuple(map(int, np.sort(counts)))
                   if counts.max() > 1 else (1,))


def _two_parts(x: np.ndarray, squares: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """SDs of an error that is fixed and of one that grows with x, by non-negative least squares.

    A square's spread is as large as what it estimates, so each is weighed by 1 / variance.
    """
    scale = max(float(np.mean(x ** 2)), 1e-12)
    design = np.column_stack([np.ones(len(x)), x ** 2 / scale]) * weights[:, None]
    found, _ = nnls(design, squares * weights)
    return math.sqrt(found[0]), math.sqrt(found[1] / scale)


def _alike(rest: np.ndarray, whose: np.ndarray) -> float:
    """Intraclass correlation of residuals, one-way; 0 where nobody has two."""
    places = np.unique(whose, return_inverse=True)[1]
    counts = np.bincount(places)
    m, n = len(counts), len(rest)
    if n == m or m < 2:
        return 0.0
    means = np.bincount(places, rest) / counts
    within = float(np.sum((rest - means[places]) ** 2) / (n - m))
    between = float(np.sum(counts * (means - rest.mean()) ** 2) / (m - 1))
    usual = (n - np.sum(counts ** 2) / n) / (m - 1)
    total = between + (usual - 1) * within
    return float(np.clip((between - within) / total, 0.0, 0.95)) if total > 0 else 0.0


def _normal(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, None]:
    """Readings of 300 ± 80 mL, differences of 5 ± 10 mL."""
    a = rng.normal(300, 80, n)
    return a, a + rng.normal(5, 10, n), None


def _clustered(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patients with 1 to 7 lesions, whose sizes and differences belong together."""
    who = np.repeat(np.arange(n), rng.integers(1, 8, n))
    a = rng.normal(300, 60, n)[who] + rng.normal(0, 50, len(who))
    return a, a + 5 + rng.normal(0, 8, n)[who] + rng.normal(0, 6, len(who)), who


def _repeats(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three of the patients scanned twice."""
    who = np.concatenate([np.arange(n), np.arange(min(n, 3))])
    a = rng.normal(300, 60, n)[who] + rng.normal(0, 20, len(who))
    return a, a + 5 + rng.normal(0, 6, n)[who] + rng.normal(0, 6, len(who)), who


def _gross(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, None]:
    """Gamma sizes, 40 % zeros, errors of 15 %, 3 % of one reader wrong five times over."""
    size = rng.gamma(0.7, 60, n) * (rng.random(n) > 0.4)
    a, b = (size * np.maximum(1 + 0.15 * rng.normal(size=n), 0) for _ in range(2))
    return a, np.where(rng.random(n) < 0.03, b * rng.choice([0.2, 5.0], n), b), None


def _exchangeable(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, None]:
    """Two readers with the same 15 % of error, lognormal sizes."""
    size = rng.lognormal(3, 1, n)
    a, b = (size * np.maximum(1 + 0.15 * rng.normal(size=n), 0.01) for _ in range(2))
    return a, b, None


EXAMPLES: dict[str, Draw] = {
    "normal": _normal, "skewed": World(zero=0.35, mu=2.0, sigma=1.3, error=0.2).draw,
    "clustered": _clustered, "repeats": _repeats, "gross": _gross, "exchangeable": _exchangeable}
"""Worlds in which the intervals of this package were tried, by name."""
