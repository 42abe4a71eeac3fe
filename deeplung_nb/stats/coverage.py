"""How often an interval holds the truth on data like these: worlds made of a user's own pairs.

A 95 % interval holds the truth in 95 of 100 studies only where its assumptions hold. Here studies
like the user's are made, with as many patients and readings, zeros, skew and error, in worlds whose
truth is known; each interval is asked in every one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from deeplung_nb.stats import agreement, correlation, paired, robust
from deeplung_nb.stats._results import check_confidence, cluster_codes, two_arrays

WORLDS = ("parametric", "resampled")
OF_THE_TRUTH = 40_000
"""Pairs from which a world's true values are computed."""
FEWEST = 10
"""Pairs of which a world can be made."""
MOST_WITHOUT = 0.05
"""Share of studies without an interval, above which a way is none to choose."""
SMOOTHING = 0.05
"""SD of what is added to a resampled difference, in its own SD: no study repeats a reading."""


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


def _resampled(reference: np.ndarray, test: np.ndarray, codes: np.ndarray
               ) -> Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray,
                                                               np.ndarray | None]]:
    """Patients drawn with replacement, each time as another one, their readings moved a little."""
    order = np.argsort(codes, kind="stable")
    starts = np.r_[0, np.cumsum(np.bincount(codes))]
    d = test - reference
    spread = SMOOTHING * float(d.std())
    single = bool((np.bincount(codes) == 1).all())

    def draw(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        chosen = rng.integers(len(starts) - 1, size=n)
        sizes = starts[chosen + 1] - starts[chosen]
        rows = order[np.repeat(starts[chosen], sizes) + np.arange(sizes.sum())
                     - np.repeat(np.cumsum(sizes) - sizes, sizes)]
        a, b = reference[rows], test[rows]
        moved = rng.normal(0, spread, (2, len(rows))) if spread > 0 else np.zeros((2, len(rows)))
        a, b = (np.where(one > 0, np.abs(one + move), one) for one, move in
                zip((a, b), moved, strict=True))
        return a, b, None if single else np.repeat(np.arange(n), sizes)

    return draw


def _intervals(a: np.ndarray, b: np.ndarray, who: np.ndarray | None, confidence: float
               ) -> dict[tuple[str, str], tuple[float, float]]:
    """(what, how) -> interval."""
    found: dict[tuple[str, str], tuple[float, float]] = {}
    mover = agreement.bland_altman(a, b, cluster=who, confidence=confidence)
    found["bias", "Student’s t"] = mover.bias_ci
    found["lower limit", "MOVER"], found["upper limit", "MOVER"] = \
        mover.loa_lower_ci, mover.loa_upper_ci
    if who is None:
        for ci in ("exact", "approximate"):
            one = agreement.bland_altman(a, b, ci=ci, confidence=confidence)
            found["lower limit", ci], found["upper limit", ci] = one.loa_lower_ci, one.loa_upper_ci
        found["Hodges–Lehmann shift", "signed ranks"] = paired.wilcoxon_signed_rank(
            a, b, zeros="pratt", confidence=confidence).hodges_lehmann_ci
        found["Spearman’s ρ", "Bonett–Wright"] = correlation.spearman(
            a, b, ci="bonett-wright", confidence=confidence).ci
    for kind, how in (("quantile", "order statistics"), ("harrell-davis", "Harrell–Davis")):
        one = agreement.bland_altman(a, b, limits=kind, cluster=who, confidence=confidence)
        found["2.5 % quantile", how] = one.loa_lower_ci
        found["97.5 % quantile", how] = one.loa_upper_ci
    if ((a > 0) & (b > 0)).sum() >= FEWEST:
        one = agreement.bland_altman(a, b, scale="ratio", cluster=who, confidence=confidence)
        found["lower limit of the ratio", "MOVER"] = one.loa_lower_ci
        found["upper limit of the ratio", "MOVER"] = one.loa_upper_ci
        found["ratio", "Student’s t of logarithms"] = one.bias_ci
    found["Spearman’s ρ", "jackknife"] = robust.spearman_interval(a, b, who, confidence=confidence)
    return found


def _truth(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """What each interval is of, in a world's many pairs."""
    d = b - a
    both = (a > 0) & (b > 0)
    logs = np.log(b[both] / a[both])
    some = d[:: max(1, len(d) // 3000)]
    first, second = np.triu_indices(len(some))
    return {
        "bias": float(d.mean()), "lower limit": float(d.mean() - 1.959964 * d.std()),
        "upper limit": float(d.mean() + 1.959964 * d.std()),
        "2.5 % quantile": float(np.quantile(d, 0.025)),
        "97.5 % quantile": float(np.quantile(d, 0.975)),
        "ratio": float(np.exp(logs.mean())) if len(logs) else math.nan,
        "lower limit of the ratio": float(np.exp(logs.mean() - 1.959964 * logs.std()))
        if len(logs) else math.nan,
        "upper limit of the ratio": float(np.exp(logs.mean() + 1.959964 * logs.std()))
        if len(logs) else math.nan,
        "Hodges–Lehmann shift": float(np.median((some[first] + some[second]) / 2)),
        "Spearman’s ρ": float(correlation.spearman(a, b, ci="fisher").r),
    }


def coverage_of(reference: Any, test: Any, cluster: Any = None, *, n_studies: int = 300,
                seed: int = 0, confidence: float = 0.95,
                tell: Callable[[int, int], object] | None = None) -> pd.DataFrame:
    """How often each interval would hold the truth in studies like this one.

    Parameters
    ----------
    reference, test
        Paired volumes, 1-D, none below 0.
    cluster
        Which patient each pair is of; None: each is of another one.
    n_studies
        Made in each world; the share is known to about 1.3 % with 300.
    seed
        The same one gives the same table.
    tell
        Called with (done, all) after each study.

    Returns
    -------
    DataFrame
        One row for each of `WORLDS`, what is estimated and how: `world, what, how, holds, error,
        width, n_studies, n_none, truth, chosen`. `holds` is the share of the studies that had an
        interval (`n_none` had none) whose interval holds the truth, `error` its standard error,
        `width` the median width. `chosen`: the narrowest of those ways that hold it as often as
        said, within two standard errors, in both worlds; where none does, the one that holds it
        most often. A way that had no interval in more than one of twenty studies is never chosen.

    Formula
    -------
    Parametric: `World.of` the pairs (lognormal sizes; zeros; an error with a fixed part and one
    that grows; patients whose errors are alike). Resampled: patients drawn with replacement, each
    reading above 0 moved by a normal error of a twentieth of the differences' SD. True values are
    those of 40,000 patients of the world.

    Source
    ------
    Burton, Altman, Royston & Holder 2006, Stat Med 25:4279; Morris, White & Crowther 2019, Stat Med
    38:2074 (simulation studies of methods).

    Checked against
    ---------------
    The simulations of docs/statistics.md: a normal world, and a skewed one with 35 % zeros.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> a = rng.lognormal(3, 1, 30)
    >>> found = coverage_of(a, a * rng.normal(1.0, 0.1, 30), n_studies=20)
    >>> sorted(set(found["world"]))
    ['parametric', 'resampled']
    """
    check_confidence(confidence)
    a, b, _ = two_arrays(reference, test)
    codes = cluster_codes(cluster, len(a))
    m = int(codes.max(initial=-1)) + 1
    world = World.of(a, b, codes)
    draws = {"parametric": world.draw, "resampled": _resampled(a, b, codes)}
    rows: list[dict[str, Any]] = []
    done = 0
    for name in WORLDS:
        rng = np.random.default_rng([seed, WORLDS.index(name)])
        many = draws[name](rng, OF_THE_TRUTH)
        truth = _truth(many[0], many[1])
        held: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for _ in range(n_studies):
            x, y, who = draws[name](rng, m)
            for key, ends in _intervals(x, y, who, confidence).items():
                held.setdefault(key, []).append(ends)
            done += 1
            if tell is not None:
                tell(done, len(WORLDS) * n_studies)
        for (what, how), ends in held.items():
            low, high = np.asarray(ends, float).T
            known = np.isfinite(low) & np.isfinite(high)
            share = float(np.mean((low[known] <= truth[what]) & (truth[what] <= high[known]))) \
                if known.any() else math.nan
            n = int(known.sum())
            rows.append({
                "world": name, "what": what, "how": how, "holds": share,
                "error": math.sqrt(max(share * (1 - share), 0.25 / max(n, 1)) / n)
                if n else math.nan,
                "width": float(np.median((high - low)[known])) if n else math.nan,
                "n_studies": n_studies, "n_none": n_studies - n, "truth": truth[what]})
    return _choose(pd.DataFrame(rows), confidence)


def _choose(frame: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Which way to take for each thing: the narrowest that keeps its word in both worlds."""
    def worst(part: Any) -> tuple[float, float]:
        """Of all studies, those without an interval included."""
        share = part["holds"].fillna(0.0) * (1 - part["n_none"] / part["n_studies"])
        return float(share.min()), float((share + 2 * part["error"].fillna(0.0)).min())

    chosen: set[tuple[str, str]] = set()
    for what, ways in frame.groupby("what", sort=False):
        each: Any = {how: part for how, part in ways.groupby("how", sort=False)
                     if np.all(part["n_none"] <= MOST_WITHOUT * part["n_studies"])
                     and len(part) == len(WORLDS)}
        if not each:
            continue
        good = {how: float(part["width"].max()) for how, part in each.items()
                if worst(part)[1] >= confidence}
        best = min(good, key=lambda how: good[how]) if good else \
            max(each, key=lambda how: worst(each[how])[0])
        chosen.add((str(what), str(best)))
    keys = zip(frame["what"], frame["how"], strict=True)
    return frame.assign(chosen=[key in chosen for key in keys])
