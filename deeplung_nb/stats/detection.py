"""Who sees the structure at all: by case, and lesion by lesion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

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
