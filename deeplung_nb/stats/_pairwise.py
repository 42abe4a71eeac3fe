"""Averages and differences of all pairs, by rank: where Hodges and Lehmann find their estimates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

PAIRS_IN_MEMORY = 2_000_000
"""Pairwise averages or differences that are sorted outright; of more, ranks are searched for."""


class Pairwise:
    """Sums or differences of all pairs in rising order, one rank at a time, 0-based.

    Few of them are sorted. Of many the value with a rank is searched for: how many lie at or below
    a guess takes one pass in sorted data, O(n log n) time and O(n) memory, and whole numbers make
    it exact (readings to 1e-9, or to 62 bits where they are large). Guesses are interpolated
    (regula falsi, Illinois), halved where that does not narrow, and what they told is kept for
    the next rank.
    """

    def __init__(self, n_pairs: int, scale: float, count: Callable[[int], int],
                 ends: tuple[int, int], values: Callable[[], np.ndarray] | None) -> None:
        self.n_pairs, self.scale, self.count, self.ends = n_pairs, scale, count, ends
        self.ordered = np.sort(values()) if values and n_pairs <= PAIRS_IN_MEMORY else None
        self.known = {ends[0] - 1: 0, ends[1]: n_pairs}

    def __getitem__(self, rank: int) -> float:
        if self.ordered is not None:
            return float(self.ordered[rank])
        # count(low) <= rank < count(high)
        low = max(value for value, count in self.known.items() if count <= rank)
        high = min(value for value, count in self.known.items() if count > rank)
        below, above = (self.known[end] - rank - 0.5 for end in (low, high))
        halve, moved = False, 0
        while high - low > 1:
            width = high - low
            part = 0.5 if halve else below / (below - above)
            guess = min(max(low + round(width * part), low + 1), high - 1)
            self.known[guess] = self.count(guess)
            off = self.known[guess] - rank - 0.5
            if off > 0:
                high, above = guess, off
                below = below / 2 if moved > 0 else below
            else:
                low, below = guess, off
                above = above / 2 if moved < 0 else above
            halve, moved = not halve and high - low > width / 2, 1 if off > 0 else -1
        return high / self.scale

    def median(self) -> float:
        m = self.n_pairs
        return self[m // 2] if m % 2 else (self[m // 2 - 1] + self[m // 2]) / 2


def _whole(*arrays: np.ndarray) -> tuple[float, list[np.ndarray]]:
    """A scale, and the arrays times it as whole numbers whose sums fit 64 bits."""
    largest = max(float(np.abs(array).max()) for array in arrays)
    # Decimal readings stay whole: a power of ten, 1e9 or more for readings below 1.
    scale = 10.0 ** max(9.0, 9.0 - np.floor(np.log10(largest))) if largest else 1.0
    scale = min(scale, 2.0**60 / largest) if largest else scale
    return scale, [np.sort(np.rint(array * scale).astype(np.int64)) for array in arrays]


def walsh_averages(values: np.ndarray) -> Pairwise:
    """The averages (v_i + v_j) / 2 of all pairs i <= j."""
    n = len(values)
    scale, (whole,) = _whole(values)

    def count(twice: int) -> int:
        ordered_pairs = int(np.searchsorted(whole, twice - whole, side="right").sum())
        return (ordered_pairs + int(np.searchsorted(2 * whole, twice, side="right"))) // 2

    def averages() -> np.ndarray:
        i, j = np.triu_indices(n)
        return (values[i] + values[j]) / 2

    return Pairwise(n * (n + 1) // 2, 2 * scale, count,
                     (2 * int(whole[0]), 2 * int(whole[-1])), averages)


def pair_differences(x: np.ndarray, y: np.ndarray) -> Pairwise:
    """The differences x_i - y_j of all pairs."""
    scale, (a, b) = _whole(x, y)

    def count(most: int) -> int:
        return len(a) * len(b) - int(np.searchsorted(b, a - most, side="left").sum())

    return Pairwise(len(a) * len(b), scale, count, (int(a[0] - b[-1]), int(a[-1] - b[0])),
                     lambda: np.subtract.outer(x, y).ravel())
