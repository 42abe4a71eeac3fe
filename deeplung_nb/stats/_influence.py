"""The infinitesimal jackknife: what each pair adds to a coefficient, and the interval from it."""

from __future__ import annotations

import numpy as np
from scipy import stats

from deeplung_nb.stats._results import FEWEST, NAN_PAIR

ALIKE = "no interval: by chance each patient moves it alike"
"""Why `from_influence` gives none."""


def places_of(*arrays: np.ndarray) -> list[np.ndarray]:
    """Where each value stands among the different values of all arrays, as whole numbers from 0."""
    places = np.unique(np.concatenate(arrays), return_inverse=True)[1]
    return np.split(places, np.cumsum([len(array) for array in arrays])[:-1])


def weight_above(at: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """For each place, the mean of the weights of the values above it, and half of its equals'.

    `at` and `values` are places of `places_of`.
    """
    there = np.bincount(values, weights, int(max(at.max(), values.max())) + 1)
    return ((there[::-1].cumsum()[::-1] - there / 2) / len(values))[at]


def from_influence(value: float, influence: np.ndarray, codes: np.ndarray, confidence: float
                    ) -> tuple[float, float]:
    """Fisher's z of a coefficient ± t SE, from what each reading adds to its mean."""
    m = int(codes.max(initial=-1)) + 1
    if m < FEWEST or abs(value) > 1 - 1e-12:
        return NAN_PAIR
    error = np.sqrt(np.sum(np.bincount(codes, influence) ** 2) * m / (m - 1)) / len(influence)
    if error < 1e-9:  # by chance every patient moves it alike: that is no coefficient without error
        return NAN_PAIR
    half = stats.t.ppf((1 + confidence) / 2, m - 1) * error / (1 - value**2)
    low, high = np.tanh(np.arctanh(value) + np.array([-half, half]))
    return float(low), float(high)
