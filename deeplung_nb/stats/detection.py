"""Who sees the structure at all: by case, and lesion by lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from deeplung_nb.labels import LESION_STRUCTURES
from deeplung_nb.measurements import pair
from deeplung_nb.stats import classes, clusters
from deeplung_nb.stats._patients import spread_of_pairs
from deeplung_nb.stats._results import FEWEST, NAN_PAIR, Result, check_confidence, clustered_pairs
from deeplung_nb.stats.dice import groups_of

NAN = float("nan")


@dataclass(frozen=True, repr=False)
class DetectionAccuracy(Result):
    """Result of `accuracy`."""

    n: int
    n_clusters: int
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


def _wilson(said: np.ndarray, of: np.ndarray, codes: np.ndarray, confidence: float
            ) -> tuple[float, tuple[float, float]]:
    """Share of `said` among `of`, and Wilson's interval for as many cases as these are worth."""
    part = said[of].astype(float)
    if not len(part):
        return NAN, NAN_PAIR
    share, worth = float(part.mean()), float(len(part))
    whose = np.unique(codes[of], return_inverse=True)[1]
    if whose.max() + 1 < len(part):
        worth = spread_of_pairs(part, whose).effective if np.ptp(part) else whose.max() + 1.0
        worth = worth if np.isfinite(worth) else 1.0
    z2 = float(stats.norm.ppf((1 + confidence) / 2)) ** 2
    centre = (share + z2 / (2 * worth)) / (1 + z2 / worth)
    half = np.sqrt(z2 * (share * (1 - share) / worth + z2 / (4 * worth**2))) / (1 + z2 / worth)
    return share, (max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def accuracy(reference: Any, test: Any, *, threshold: float = 0.0, cluster: Any = None,
             confidence: float = 0.95, missing: str = "raise") -> DetectionAccuracy:
    """How well one reader finds what the other calls present.

    Parameters
    ----------
    reference, test
        Paired readings, 1-D.
    threshold
        Present is above this, in the unit of the readings.
    cluster
        Which patient each pair is of, one value a pair; None: each is of another one.

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
    binomial distribution of the two discordant counts. Where patients have several pairs: Wilson's
    score for as many cases as these are worth (design effect of the share), and for McNemar's test
    each patient's difference of the two counts turns its sign as a whole.

    Source
    ------
    Wilson 1927, JASA 22:209; McNemar 1947, Psychometrika 12:153; Cohen 1960, Educ Psychol Meas
    20:37; by patients: Korn & Graubard 1998, Surv Methodol 24:193; Durkalski et al. 2003, Stat Med
    22:2417.

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
    a, b, codes, n_missing = clustered_pairs(reference, test, cluster, missing)
    yes, said, m = a > threshold, b > threshold, int(codes.max(initial=-1)) + 1
    both, first = int((yes & said).sum()), int((yes & ~said).sum())
    second, neither = int((~yes & said).sum()), int((~yes & ~said).sum())
    agreed = classes.weighted_kappa(yes, said, weights="none", cluster=codes,
                                    confidence=confidence)
    shares: dict[str, Any] = {}
    empty = []
    for name, part, whole in (("sensitivity", said, yes), ("specificity", ~said, ~yes),
                              ("positive_predictive", yes, said),
                              ("negative_predictive", ~yes, ~said)):
        shares[name], shares[f"{name}_ci"] = _wilson(part, whole, codes, confidence)
        if not whole.any():
            empty.append(name.replace("_", " "))
    if np.isnan(agreed.kappa):
        empty.append("kappa")
    if not first + second:
        p_value = 1.0
    elif m == len(a):
        p_value = float(stats.binomtest(first, first + second).pvalue)
    else:
        p_value = clusters.turned_p(np.bincount(codes, yes.astype(float) - said))
    return DetectionAccuracy(
        len(a), m, both, first, second, neither, **shares, kappa=agreed.kappa,
        kappa_ci=agreed.kappa_ci, mcnemar_p=p_value if len(a) else NAN, threshold=threshold,
        n_missing=n_missing, reason=f"no case to tell of: {', '.join(empty)}" if empty else "")


def _mean_interval(counts: np.ndarray, patients: np.ndarray, confidence: float
                   ) -> tuple[float, float]:
    """Student's t on patients, of a mean of counts; NaN for few patients or where all are equal."""
    codes = pd.factorize(patients)[0]
    m = int(codes.max(initial=-1)) + 1
    if m < FEWEST or np.ptp(counts) == 0:
        return NAN_PAIR
    found = spread_of_pairs(counts, codes)
    half = float(stats.t.ppf((1 + confidence) / 2, m - 1)) * found.se
    return max(0.0, found.bias - half), found.bias + half


def lesion_table(frame: pd.DataFrame, *, test: str = "model",
                 by: Sequence[str] = ("cohort", "role"), confidence: float = 0.95) -> pd.DataFrame:
    """Lesion by lesion, from the columns of a run: what was found, and what was found besides.

    Parameters
    ----------
    frame
        A checked table of measurements with `n_lesions*`.
    test
        The reader compared with the expert.
    by
        Columns that make the groups.
    confidence
        Of the intervals.

    Returns
    -------
    DataFrame
        A row a group and structure: `n_cases`, `lesions` of the expert, `found` of them,
        `sensitivity` with `sensitivity_lower` and `_upper`, `marked` lesions of the test, `false`
        ones, `precision`, and `false_per_case` with its interval (NaN where no case has any).

    Formula
    -------
    sensitivity = sum found / sum lesions, interval by Wilson's score for as many lesions as those
    of the patients are worth (design effect); precision = 1 - sum false / sum marked; the interval
    of false marks a case by Student's t on patients.

    Source
    ------
    Reinke et al. 2024, Nat Methods 21:182 (detection by overlap; say the rule); Korn & Graubard
    1998, Surv Methodol 24:193 (shares of clusters).

    Checked against
    ---------------
    Counts by hand; coverage by simulation.

    Examples
    --------
    >>> frame = pd.DataFrame({
    ...     "cohort": "c", "role": "cv", "reader": "model", "status": "ok", "structure": "lesion",
    ...     "patient_id": list("abcd"), "n_lesions": [3, 1, 2, 0], "n_lesions_false": [1, 0, 1, 0],
    ...     "n_lesions_expert": [2, 1, 1, 1], "n_lesions_found": [2, 1, 1, 0]})
    >>> lesion_table(frame)[["sensitivity", "precision", "false_per_case"]].round(3).values.tolist()
    [[0.8, 0.667, 0.5]]
    """
    mine = frame[(frame["reader"] == test) & (frame["status"] == "ok")
                 & frame["n_lesions_expert"].notna()]
    if mine.empty:
        raise ValueError(f"reader {test!r} has no lesions counted: the run was made before they "
                         "were. Make it again")
    rows = []
    for group, part in groups_of(mine, by):
        for structure in [name for name in LESION_STRUCTURES if name in set(part["structure"])]:
            cases = part[part["structure"] == structure]
            n, wrong, lesions, found = (cases[f"n_lesions{name}"].to_numpy(float) for name in (
                "", "_false", "_expert", "_found"))
            whose = cases["patient_id"].to_numpy()
            # A lesion is a yes or no, of a patient.
            of_lesions = np.repeat(pd.factorize(whose)[0], lesions.astype(int))
            hit = np.concatenate([np.arange(int(all_of)) < seen for all_of, seen in zip(
                lesions, found, strict=True)])
            share, sensitivity = _wilson(hit, np.ones(len(hit), bool), of_lesions, confidence)
            besides = _mean_interval(wrong, whose, confidence)
            rows.append({
                **group, "structure": structure, "n_cases": len(cases),
                "lesions": int(lesions.sum()), "found": int(found.sum()),
                "sensitivity": share,
                "sensitivity_lower": sensitivity[0], "sensitivity_upper": sensitivity[1],
                "marked": int(n.sum()), "false": int(wrong.sum()),
                "precision": 1 - wrong.sum() / n.sum() if n.sum() else NAN,
                "false_per_case": float(wrong.mean()), "false_per_case_lower": besides[0],
                "false_per_case_upper": besides[1]})
    return pd.DataFrame(rows)


def detection_table(frame: pd.DataFrame, *, reference: str = "expert", test: str = "model",
                    by: Sequence[str] = ("cohort", "role"), value: str = "volume_ml",
                    confidence: float = 0.95) -> pd.DataFrame:
    """Who sees each structure at all: to be read before any agreement of volumes.

    Parameters
    ----------
    frame
        A checked table of measurements.
    reference, test, value
        As `measurements.pair`.
    by
        Columns that make the groups.
    confidence
        Of the intervals.

    Returns
    -------
    DataFrame
        A row a group and structure: `n, n_patients, both, reference_only, test_only, neither`, and
        `sensitivity`, `specificity` (with `_lower` and `_upper`) and `mcnemar_p` of `accuracy`.

    Formula
    -------
    As `accuracy`: seen is above 0; by patients where they have several cases.

    Source
    ------
    Bossuyt et al. 2015 (STARD), BMJ 351:h5527, item 23.

    Checked against
    ---------------
    Counts by hand.

    Examples
    --------
    >>> frame = pd.DataFrame({
    ...     "cohort": "c", "role": "cv", "status": "ok", "structure": "lesion",
    ...     "reader": ["expert"] * 3 + ["model"] * 3, "case_id": list("abcabc"),
    ...     "patient_id": list("abcabc"), "volume_ml": [0.0, 2.0, 3.0, 0.0, 0.0, 4.0]})
    >>> detection_table(frame)[["both", "reference_only", "neither"]].values.tolist()
    [[1, 1, 1]]
    """
    rows = []
    for group, part in groups_of(frame, by):
        for structure in [name for name in LESION_STRUCTURES if name in set(part["structure"])]:
            of_structure = part[part["structure"] == structure]
            if not {reference, test} <= set(of_structure["reader"]):
                continue  # not told apart here, as in a cohort with binary masks
            pairs = pair(part, reference, test, structure, value)
            whose = None if pairs["patient_id"].isna().any() else pairs["patient_id"]
            found = accuracy(pairs["reference"], pairs["test"], cluster=whose,
                             confidence=confidence)
            row = {**group, "reference": reference, "test": test, "structure": structure,
                   "n": found.n, "n_patients": found.n_clusters, "both": found.both,
                   "reference_only": found.reference_only, "test_only": found.test_only,
                   "neither": found.neither}
            for name in ("sensitivity", "specificity"):
                row[name] = getattr(found, name)
                row[f"{name}_lower"], row[f"{name}_upper"] = getattr(found, f"{name}_ci")
            rows.append({**row, "mcnemar_p": found.mcnemar_p})
    return pd.DataFrame(rows)
