"""How often an interval holds the truth on data like these: worlds made of a user's own pairs.

A 95 % interval holds the truth in 95 of 100 studies only where its assumptions hold. Here studies
like the user's are made, with as many patients and readings, zeros, skew and error, in worlds whose
truth is known; each interval is asked in every one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb.stats import agreement, correlation, paired, robust
from deeplung_nb.stats._results import check_confidence, cluster_codes, two_arrays
from deeplung_nb.stats.worlds import EXAMPLES, FEWEST, Draw, World

OF_THE_TRUTH = 40_000
"""Pairs from which a world's true values are computed."""
MOST_WITHOUT = 0.05
"""Share of studies without an interval, above which a way is none to choose."""
SMOOTHING = 0.05
"""SD of what is added to a resampled difference, in its own SD: no study repeats a reading."""


def _resampled(reference: np.ndarray, test: np.ndarray, codes: np.ndarray) -> Draw:
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
    # Normal worlds have a reading below 0 now and then, of which there is no ratio.
    if ((a > 0) & (b > 0)).sum() >= FEWEST and min(a.min(), b.min()) >= 0:
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
        One row for each world (parametric, resampled), what is estimated and how: `world, what,
        how, holds, error, width, n_studies, n_none, truth, chosen`. `holds` is the share of the
        studies that had an interval (`n_none` had none) whose interval holds the truth, `error` its
        standard error, `width` the median width. `chosen`: the narrowest of those ways that hold it
        as often as said, within two standard errors, in both worlds; where none does, the one that
        holds it most often. A way that had no interval in more than one of twenty studies is never
        chosen.

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
    world = World.of(a, b, codes)
    draws: dict[str, Draw] = {"parametric": world.draw, "resampled": _resampled(a, b, codes)}
    return _table(draws, int(codes.max(initial=-1)) + 1, n_studies, seed, confidence, tell)


def coverage_in(world: World | str, n_patients: int, *, n_studies: int = 300, seed: int = 0,
                confidence: float = 0.95, tell: Callable[[int, int], object] | None = None
                ) -> pd.DataFrame:
    """How often each interval would hold the truth in studies of a world that you state.

    For planning, before there are readings: state zeros, sizes and error, ask before counting.

    Parameters
    ----------
    world
        A `World`, or one of `worlds.EXAMPLES` by name: normal, skewed, clustered, repeats, gross,
        exchangeable.
    n_patients
        Of each study.
    n_studies, seed, confidence, tell
        As in `coverage_of`.

    Returns
    -------
    DataFrame
        As of `coverage_of`, with the one world; `chosen` is what holds there.

    Raises
    ------
    ValueError
        A name that is no example, or fewer than ten patients.

    Formula
    -------
    Studies are drawn by `World.draw`, or that of the example; true values are those of 40,000
    patients.

    Source
    ------
    Burton, Altman, Royston & Holder 2006, Stat Med 25:4279; Morris, White & Crowther 2019, Stat Med
    38:2074 (simulation studies of methods).

    Checked against
    ---------------
    The simulations of docs/statistics.md, which draw from the same examples.

    Examples
    --------
    >>> found = coverage_in("normal", 30, n_studies=20)
    >>> sorted(set(found["world"]))
    ['normal']
    """
    check_confidence(confidence)
    name = "stated"
    if isinstance(world, str):
        if world not in EXAMPLES:
            raise ValueError(f"world {world!r}, expected a World or one of {', '.join(EXAMPLES)}")
        name, draw = world, EXAMPLES[world]
    else:
        draw = world.draw
    if n_patients < FEWEST:
        raise ValueError(f"{n_patients} patients, expected {FEWEST} or more")
    return _table({name: draw}, n_patients, n_studies, seed, confidence, tell)


def _table(draws: dict[str, Draw], n_patients: int, n_studies: int, seed: int, confidence: float,
           tell: Callable[[int, int], object] | None) -> pd.DataFrame:
    """Studies of each world, and in how many of them each interval held that world's truth."""
    rows: list[dict[str, Any]] = []
    done = 0
    for k, (name, draw) in enumerate(draws.items()):
        rng = np.random.default_rng([seed, k])
        many = draw(rng, OF_THE_TRUTH)
        truth = _truth(many[0], many[1])
        held: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for _ in range(n_studies):
            x, y, who = draw(rng, n_patients)
            for key, ends in _intervals(x, y, who, confidence).items():
                held.setdefault(key, []).append(ends)
            done += 1
            if tell is not None:
                tell(done, len(draws) * n_studies)
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
    """Which way to take for each thing: the narrowest that keeps its word in every world."""
    n_worlds = frame["world"].nunique()

    def worst(part: Any) -> tuple[float, float]:
        """Of all studies, those without an interval included."""
        share = part["holds"].fillna(0.0) * (1 - part["n_none"] / part["n_studies"])
        return float(share.min()), float((share + 2 * part["error"].fillna(0.0)).min())

    chosen: set[tuple[str, str]] = set()
    for what, ways in frame.groupby("what", sort=False):
        each: Any = {how: part for how, part in ways.groupby("how", sort=False)
                     if np.all(part["n_none"] <= MOST_WITHOUT * part["n_studies"])
                     and len(part) == n_worlds}
        if not each:
            continue
        good = {how: float(part["width"].max()) for how, part in each.items()
                if worst(part)[1] >= confidence}
        best = min(good, key=lambda how: good[how]) if good else \
            max(each, key=lambda how: worst(each[how])[0])
        chosen.add((str(what), str(best)))
    keys = zip(frame["what"], frame["how"], strict=True)
    return frame.assign(chosen=[key in chosen for key in keys])
