"""The slopes of all pairs by rank, without listing them: for Passing-Bablok of many readings."""

from __future__ import annotations

import numpy as np
from scipy import stats

from deeplung_nb.stats._pairwise import Pairwise

GRID = 2.0**51
"""Steps of the angle of a slope, from straight down to straight up."""


def _tied(*values: np.ndarray) -> int:
    """Pairs that are equal in all of these."""
    counts = np.unique(np.column_stack(values), axis=0, return_counts=True)[1].astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())


class Slopes:
    """Slopes (y_j - y_i) / (x_j - x_i) of all pairs but identical points and slopes of -1.

    How many lie at or below t is how many pairs x and y - t x order otherwise: Kendall's count of
    discordant pairs, O(n log n). Vertical ones count as plus or minus infinity by the sign of
    y_j - y_i, i < j.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        unit = np.ptp(y) / np.ptp(x)  # so that slopes are about 1
        self.x, self.y, self.unit = x, y / unit, unit
        n = len(x)
        total, self.tied_x = n * (n - 1) // 2, _tied(x)
        self.identical = _tied(x, y)
        # Groups of one x in their order; of them, what falls is discordant.
        order = np.lexsort((np.arange(n), x))
        group = np.unique(x[order], return_inverse=True)[1]
        falls = group * n + np.unique(y[order], return_inverse=True)[1]
        self.down = self._discordant(np.arange(n), falls, 0, _tied(falls), 0)
        at_minus_one = -1 / unit
        self.excluded, below = 0, self._at_or_below(at_minus_one)
        line = self._line(at_minus_one)
        self.excluded = _tied(line) - _tied(x, line)
        self.shift = below - self.excluded
        self.n_pairs = total - self.identical - self.excluded
        up = self.tied_x - self.identical - self.down
        self.finite = (self.down, self.n_pairs - up)  # ranks from, to before
        self.ordered = Pairwise(self.n_pairs, 1.0, self._count, (int(-GRID), int(GRID)), None)

    def _line(self, slope: float) -> np.ndarray:
        """y - slope x, rounded so that what is on one line stays on it."""
        line = self.y - slope * self.x
        grain = 1e-12 * max(np.abs(self.y).max(), np.abs(slope * self.x).max())
        return np.round(line / grain) if grain else line

    def _discordant(self, first: np.ndarray, second: np.ndarray, tied_first: int,
                    tied_second: int, tied_both: int) -> int:
        total = len(first) * (len(first) - 1) // 2
        tau = stats.kendalltau(first, second, method="asymptotic").statistic
        if np.isnan(tau):  # all of one are equal
            return 0
        lead = tau * np.sqrt(float(total - tied_first)) * np.sqrt(float(total - tied_second))
        return round((total - tied_first - tied_second + tied_both - lead) / 2)

    def _at_or_below(self, slope: float) -> int:
        line = self._line(slope)
        tied, both = _tied(line), _tied(self.x, line)
        return self._discordant(self.x, line, self.tied_x, tied, both) + tied - both + self.down

    def _count(self, step: int) -> int:
        slope = float(np.tan(step / GRID * np.pi / 2))
        return self._at_or_below(slope) - (self.excluded if slope >= -1 / self.unit else 0)

    def __getitem__(self, rank: int) -> float:
        """The slope of a rank, 0-based."""
        if not self.finite[0] <= rank < self.finite[1]:
            return -np.inf if rank < self.finite[0] else np.inf
        return float(np.tan(self.ordered[rank] / GRID * np.pi / 2)) * self.unit
