"""The infinitesimal jackknife: what each pair adds to a coefficient, and the interval from it."""

from __future__ import annotations

import numpy as np
from scipy import stats

from deeplung_nb.stats._results import FEWEST, NAN_PAIR


def weight_above(at: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """For each place, the mean of the weights of the values above it, and half of its equals'."""
    order = np.argsort(values)
    ordered, sums = values[order], np.concatenate([[0.0], np.cumsum(weights[order])])
    ends = sums[np.searchsorted(ordered, at, "left")], sums[np.searchsorted(ordered, at, "right")]
    return (sums[-1] - (ends[0] + ends[1]) / 2) / len(values)


def from_influence(value: float, influence: np.ndarray, codes: np.ndarray, confidence: float
                    ) -> tuple[float, float]:
    """Fisher's z of a coefficient ± t SE, from what each reading adds to its mean."""
    m = int(codes.max(initial=-1)) + 1
    if m < FEWEST or abs(value) > 1 - 1e-12:
        return NAN_PAIR
    error = np.sqrt(np.sum(np.bincount(codes, influence) ** 2) * m / (m - 1)) / len(influence)
    half = stats.t.ppf((1 + confidence) / 2, m - 1) * error / (1 - value**2)
    low, high = np.tanh(np.arctanh(value) + np.array([-half, half]))
    return float(low), float(high)
