"""Who sees the structure at all: by case, and lesion by lesion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage, stats

from deeplung_nb.stats import classes
from deeplung_nb.stats._results import NAN_PAIR, Result, check_confidence, two_arrays

NAN = float("nan")


@dataclass(frozen=True, repr=False)
class DetectionAccuracy(Result):
    """Result of `accuracy`."""

    n: int
    both: int
    reference_only: int
    test_only: int
    neither: int
    sensitivity: float
    sensitivity_ci: tuple[float, float]
    specificity: float
    specificity_ci: tuple[float, float]
    positive_predictive: float
    positive_predictive_ci: tuple[float, float]
    negative_predictive: float
    negative_predictive_ci: tuple[float, float]
    kappa: float
    kappa_ci: tuple[float, float]
    mcnemar_p: float
    threshold: float
    n_missing: int
    reason: str


@dataclass(frozen=True, repr=False)
class LesionDetection(Result):
    """Result of `lesions`."""

    n_reference: int
    n_found: int
    n_test: int
    n_false: int
    sensitivity: float
    precision: float
    smallest_missed: int
    largest_missed: int
    reason: str


def detection(pair: pd.DataFrame) -> dict[str, int]:
    """2 x 2 of any against none: who sees the structure at all.

    Parameters
    ----------
    pair
        Columns `reference` and `test`, one row a case.

    Returns
    -------
    dict
        Cases of `both`, `reference_only`, `test_only`, `neither`; a pair with an empty reading is
        none of them.

    Formula
    -------
    Seen is above 0.

    Source
    ------
    Bossuyt et al. 2015 (STARD), BMJ 351:h5527, item 23: cross tabulation.

    Checked against
    ---------------
    Counts by hand.

    Examples
    --------
    >>> detection(pd.DataFrame({"reference": [0.0, 2.0, 3.0], "test": [0.0, 0.0, 4.0]}))
    {'both': 1, 'reference_only': 1, 'test_only': 0, 'neither': 1}
    """
    read = pair[["reference", "test"]].dropna()
    wanted, found = read.reference > 0, read.test > 0
    return {"both": int((wanted & found).sum()), "reference_only": int((wanted & ~found).sum()),
            "test_only": int((~wanted & found).sum()), "neither": int((~wanted & ~found).sum())}


def _wilson(part: int, whole: int, confidence: float) -> tuple[float, tuple[float, float]]:
    if not whole:
        return NAN, NAN_PAIR
    ends = stats.binomtest(part, whole).proportion_ci(confidence, method="wilson")
    return part / whole, (float(ends.low), float(ends.high))


def accuracy(reference: Any, test: Any, *, threshold: float = 0.0, confidence: float = 0.95,
             missing: str = "raise") -> DetectionAccuracy:
    """How well one reader finds what the other calls present.

    Parameters
    ----------
    reference, test
        Paired readings, 1-D, one pair a patient.
    threshold
        Present is above this, in the unit of the readings.

    Returns
    -------
    DetectionAccuracy
        The four counts and shares with intervals; Cohen's kappa; McNemar's exact p (null
        hypothesis: one reader calls as many present as the other). NaN with a `reason` where
        a share has no cases.

    Formula
    -------
    sensitivity = both / (both + reference_only); specificity = neither / (neither + test_only);
    intervals by Wilson's score. kappa and its interval: `classes.weighted_kappa`. McNemar: the
    binomial distribution of the two discordant counts.

    Source
    ------
    Wilson 1927, JASA 22:209; McNemar 1947, Psychometrika 12:153; Cohen 1960, Educ Psychol Meas
    20:37.

    Checked against
    ---------------
    scipy and statsmodels (cohens_kappa), Wilson's formula by hand.

    Examples
    --------
    >>> r = accuracy([0, 0, 0, 1, 2, 3, 4, 5], [0, 0, 1, 0, 2, 3, 3, 6])
    >>> r.sensitivity, round(r.kappa, 3), r.mcnemar_p
    (0.8, 0.467, 1.0)
    """
    check_confidence(confidence)
    if not np.isfinite(threshold):
        raise ValueError(f"threshold={threshold}: expected a number in the unit of the readings")
    a, b, n_missing = two_arrays(reference, test, missing)
    yes, said = a > threshold, b > threshold
    both, first = int((yes & said).sum()), int((yes & ~said).sum())
    second, neither = int((~yes & said).sum()), int((~yes & ~said).sum())
    agreed = classes.weighted_kappa(yes, said, weights="none", confidence=confidence)
    kappa, kappa_ci = agreed.kappa, agreed.kappa_ci
    shares = {"sensitivity": (both, both + first), "specificity": (neither, neither + second),
              "positive_predictive": (both, both + second),
              "negative_predictive": (neither, neither + first)}
    found_shares: dict[str, Any] = {}
    for name, (part, whole) in shares.items():
        found_shares[name], found_shares[f"{name}_ci"] = _wilson(part, whole, confidence)
    empty = [name.replace("_", " ") for name, (_, whole) in shares.items() if not whole]
    if np.isnan(kappa):
        empty.append("kappa")
    p_value = float(stats.binomtest(first, first + second).pvalue) if first + second else 1.0
    return DetectionAccuracy(
        len(a), both, first, second, neither, **found_shares, kappa=kappa, kappa_ci=kappa_ci,
        mcnemar_p=p_value if len(a) else NAN, threshold=threshold, n_missing=n_missing,
        reason=f"no case to tell of: {', '.join(empty)}" if empty else "")


def lesions(reference: Any, predicted: Any, *, overlap: float = 0.0, smallest: int = 1
            ) -> LesionDetection:
    """Which lesions of one mask another one finds, and how many it finds besides.

    Parameters
    ----------
    reference, predicted
        Boolean masks of one shape; a lesion is what touches by face, edge or corner.
    overlap
        Share of a lesion's voxels that the other mask must hold more than; 0: one voxel is enough.
    smallest
        Lesions of fewer voxels are not counted, in either mask.

    Returns
    -------
    LesionDetection
        `n_found` of the `n_reference` lesions, `n_false` of the `n_test`; the sizes of the
        smallest and the largest one missed (0: none), in voxels; NaN with a `reason` where a mask
        has no lesion.

    Formula
    -------
    A reference lesion is found where the predicted mask holds more than the share `overlap` of
    it; a predicted one is false where the reference holds no more than that of it.

    Source
    ------
    Reinke et al. 2024, Nat Methods 21:182 (detection by overlap; say the rule).

    Checked against
    ---------------
    Boxes placed by hand.

    Examples
    --------
    >>> a = np.array([1, 1, 0, 0, 1, 1, 0, 0, 0], bool)
    >>> b = np.array([0, 1, 0, 0, 0, 0, 0, 1, 1], bool)
    >>> r = lesions(a, b)
    >>> r.n_found, r.n_reference, r.n_false, r.largest_missed
    (1, 2, 1, 2)
    """
    first, second = (np.asarray(mask) for mask in (reference, predicted))
    if first.shape != second.shape:
        raise ValueError(f"reference has shape {first.shape}, predicted {second.shape}: expected "
                         "masks on one grid")
    if first.dtype != bool or second.dtype != bool:
        raise ValueError(f"masks of type {first.dtype}, {second.dtype}: expected bool; of labels, "
                         "compare with a code first (labels == 1)")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap={overlap}: expected a share from 0 to below 1")

    def parts(mask: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sizes of a mask's lesions, and which of them the other holds."""
        places, n = ndimage.label(mask, np.ones((3,) * mask.ndim))
        sizes = np.bincount(places.ravel(), minlength=n + 1)[1:]
        held = np.bincount(places[other], minlength=n + 1)[1:]
        large = sizes >= smallest
        return sizes[large], held[large] > overlap * sizes[large]

    sizes, found = parts(first, second)
    _, true = parts(second, first)
    missed = sizes[~found]
    n, m = len(sizes), len(true)
    empty = [name for name, count in (("reference", n), ("predicted mask", m)) if not count]
    return LesionDetection(
        n, int(found.sum()), m, int(m - true.sum()), float(found.mean()) if n else NAN,
        float(true.mean()) if m else NAN, int(missed.min(initial=np.iinfo(int).max))
        if len(missed) else 0, int(missed.max(initial=0)),
        f"no lesion in the {' and the '.join(empty)}" if empty else "")
