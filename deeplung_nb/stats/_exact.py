"""Exact null distributions of rank statistics."""

from __future__ import annotations

import numpy as np
from scipy import stats


def null_distribution(ranks: np.ndarray) -> np.ndarray:
    """Probabilities of 2 W+ = 0, 1, ... over all signs, by shifting.

    The ranks are doubled, so that those of ties are whole.
    """
    doubled = np.rint(2 * ranks).astype(int)
    chances = np.zeros(int(doubled.sum()) + 1)
    chances[0] = 1.0
    for rank in doubled:
        chances[rank:] = (chances[rank:] + chances[:len(chances) - rank]) / 2
        chances[:rank] /= 2
    return chances


def rank_sum_distribution(n_a: int, n_b: int) -> np.ndarray:
    """Probabilities of U = 0 ... n_a n_b without ties, from Gauss's binomial coefficient."""
    counts = [1] + [0] * (n_a * n_b)  # Python's integers: the counts outgrow 64 bits
    for i in range(1, n_a + 1):
        for u in range(len(counts) - 1, n_b + i - 1, -1):  # times 1 - q^(n_b + i)
            counts[u] -= counts[u - n_b - i]
        for u in range(i, len(counts)):  # divided by 1 - q^i
            counts[u] += counts[u - i]
    total = sum(counts)
    return np.array([count / total for count in counts])


def tied_rank_sum_p(x: np.ndarray, y: np.ndarray) -> float:
    """Two-sided exact p of the rank sum where values are tied: all ways to choose the first sample.

    Streitberg & Roehmel's shift algorithm, with doubled ranks, which are whole. As extreme is what
    is as far from the mean.
    """
    ranks = np.rint(2 * stats.rankdata(np.concatenate([x, y]))).astype(int)
    n, total = len(x), int(ranks.sum())
    ways = np.zeros((n + 1, total + 1))
    ways[0, 0] = 1.0
    for k, rank in enumerate(ranks, 1):  # chances stay below 1: each choice weighs its share
        for chosen in range(min(k, n), 0, -1):
            ways[chosen, rank:] += ways[chosen - 1, :total + 1 - rank]
    chances = ways[n] / ways[n].sum()
    mean = n * total / len(ranks)
    far = np.abs(np.arange(total + 1) - mean)
    return float(min(1.0, chances[far >= abs(ranks[:n].sum() - mean) - 1e-9].sum()))
