"""Overlap of two masks: counts first, ratios after, and what is done with empty masks by name.

"Dice" alone names no number. On one set of 67 masks the mean is 0.43 with empty pairs as 0, 0.56
without them, 0.66 with them as 1, and 0.76 pooled over voxels. So each mean here carries its policy
and the counts of empty masks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from deeplung_nb.labels import BACKGROUND, LABELS, structure_mask
from deeplung_nb.stats._results import Result

EMPTY_POLICIES = ("nan", "zero", "one", "nan_reference")
"""What a case counts as whose Dice is undefined, both masks being empty.

`nan`: left out. `zero`, `one`: as 0, as 1. `nan_reference`: every case with an empty reference is
left out, also where the prediction is not empty (the other policies count that as 0).
"""


@dataclass(frozen=True)
class Confusion:
    """Voxel counts of a predicted mask against a reference mask."""

    tp: int
    fp: int
    fn: int
    tn: int = 0

    @property
    def reference_voxels(self) -> int:
        """Voxels of the reference mask."""
        return self.tp + self.fn

    @property
    def predicted_voxels(self) -> int:
        """Voxels of the predicted mask."""
        return self.tp + self.fp

    @property
    def both_empty(self) -> bool:
        """Neither mask has a voxel: Dice is 0 / 0."""
        return self.tp + self.fp + self.fn == 0

    def dice(self, empty: str = "nan") -> float:
        """2 TP / (2 TP + FP + FN); see `EMPTY_POLICIES` for 0 / 0."""
        return float(dice_of_counts([self.tp], [self.fp], [self.fn], empty=empty)[0])


def _check_policy(empty: str) -> None:
    if empty not in EMPTY_POLICIES:
        raise ValueError(f"empty={empty!r}: expected one of {', '.join(EMPTY_POLICIES)}")


def confusion(reference: np.ndarray, predicted: np.ndarray) -> Confusion:
    """Voxel counts of two boolean masks.

    Parameters
    ----------
    reference, predicted
        Boolean, of one shape, for example [z, y, x].

    Returns
    -------
    Confusion
        `tp, fp, fn, tn`: voxels in both, in the prediction only, in the reference only, in neither.

    Raises
    ------
    ValueError
        The shapes differ: numpy would otherwise stretch one over the other.

    Formula
    -------
    Each voxel falls into one of the four.

    Source
    ------
    Taha & Hanbury 2015, BMC Med Imaging 15:29, section "Basic cardinalities".

    Checked against
    ---------------
    Counts by hand.

    Examples
    --------
    >>> counts = confusion(np.array([True, True, False]), np.array([True, False, False]))
    >>> counts.tp, counts.fp, counts.fn, counts.tn
    (1, 0, 1, 1)
    """
    reference, predicted = np.asarray(reference), np.asarray(predicted)
    if reference.shape != predicted.shape:
        raise ValueError(f"reference has shape {reference.shape}, predicted {predicted.shape}: "
                         "masks must lie on one grid")
    reference, predicted = reference.astype(bool), predicted.astype(bool)
    tp = int(np.count_nonzero(reference & predicted))
    fp = int(np.count_nonzero(predicted)) - tp
    fn = int(np.count_nonzero(reference)) - tp
    return Confusion(tp, fp, fn, reference.size - tp - fp - fn)


def _mask(labels: np.ndarray, label: int | str) -> np.ndarray:
    if label == BACKGROUND.name:
        return labels == BACKGROUND.code
    if isinstance(label, str):
        return structure_mask(labels, label)
    if label not in [known.code for known in LABELS]:
        raise ValueError(f"label {label!r}: expected one of {[known.code for known in LABELS]} "
                         "or the name of a structure")
    return labels == label


def confusions(
    reference: np.ndarray, predicted: np.ndarray, labels: Sequence[int | str],
) -> dict[int | str, Confusion]:
    """Voxel counts for each label of two label arrays.

    Parameters
    ----------
    reference, predicted
        Label codes, integer arrays of one shape, for example [z, y, x].
    labels
        Codes (1) or names (`"ggo"`, `"lesion"` for the merged classes, `"background"`).

    Returns
    -------
    dict
        Label -> `Confusion`.

    Formula
    -------
    `confusion` of the voxels that have the label; classes are merged before they are compared.

    Source
    ------
    As `confusion`.

    Checked against
    ---------------
    Counts by hand.

    Examples
    --------
    >>> confusions(np.array([1, 2, 0]), np.array([2, 2, 0]), ["lesion"])["lesion"].tp
    2
    """
    reference, predicted = np.asarray(reference), np.asarray(predicted)
    return {label: confusion(_mask(reference, label), _mask(predicted, label)) for label in labels}


def dice(
    reference: np.ndarray, predicted: np.ndarray, labels: Sequence[int | str], *,
    empty: str = "nan",
) -> dict[int | str, float]:
    """Dice coefficient of two label arrays, for each label.

    Parameters
    ----------
    reference, predicted
        Label codes, integer arrays of one shape, for example [z, y, x].
    labels
        Codes or names; `"lesion"` merges the lesion classes before it compares.
    empty
        One of `EMPTY_POLICIES`.

    Returns
    -------
    dict
        Label -> Dice, 0 to 1, NaN where the policy leaves the case out.

    Formula
    -------
    2 TP / (2 TP + FP + FN).

    Source
    ------
    Dice 1945, Ecology 26:297.

    Checked against
    ---------------
    Counts by hand.

    Examples
    --------
    >>> import numpy as np
    >>> expert = np.array([[[0, 1, 1, 2]]])
    >>> model = np.array([[[0, 1, 2, 2]]])
    >>> scores = dice(expert, model, ["ggo", "high_opacity", "lesion"])
    >>> {name: round(score, 3) for name, score in scores.items()}
    {'ggo': 0.667, 'high_opacity': 0.667, 'lesion': 1.0}
    """
    _check_policy(empty)
    return {label: counts.dice(empty)
            for label, counts in confusions(reference, predicted, labels).items()}


def dice_of_counts(
    tp: Sequence[int], fp: Sequence[int], fn: Sequence[int], *, empty: str = "nan",
) -> np.ndarray:
    """Dice of each case from its voxel counts.

    Parameters
    ----------
    tp, fp, fn
        Counts, shape (n,).
    empty
        One of `EMPTY_POLICIES`.

    Returns
    -------
    ndarray
        float64, shape (n,), 0 to 1; NaN where the policy leaves a case out.

    Formula
    -------
    2 TP / (2 TP + FP + FN).

    Source
    ------
    Dice 1945, Ecology 26:297.

    Checked against
    ---------------
    Counts by hand, under each policy.

    Examples
    --------
    >>> dice_of_counts([8, 0], [2, 0], [2, 0], empty="one").tolist()
    [0.8, 1.0]
    """
    _check_policy(empty)
    tp, fp, fn = (np.asarray(counts, dtype=float) for counts in (tp, fp, fn))
    size = 2 * tp + fp + fn
    undefined = {"zero": 0.0, "one": 1.0}.get(empty, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        scores = np.where(size > 0, 2 * tp / size, undefined)
    if empty == "nan_reference":
        scores = np.where(tp + fn > 0, scores, np.nan)
    # A case without counts is missing, whatever the policy for empty masks.
    return np.where(np.isnan(size), np.nan, scores)


def pooled_dice(cases: Iterable[Confusion], *, empty: str = "nan") -> float:
    """One Dice over all voxels of all cases: large lesions weigh more than small ones.

    Parameters
    ----------
    cases
        Voxel counts, one a case.
    empty
        Value where no case has a voxel in either mask. `nan_reference` pools only the cases with a
        reference; the other policies pool all cases, so that false positives in healthy scans
        count.

    Returns
    -------
    float
        0 to 1.

    Formula
    -------
    2 sum TP / (2 sum TP + sum FP + sum FN).

    Source
    ------
    Crum, Camara & Hill 2006, IEEE TMI 25:1451 (overlap of groups of images, equal weights).

    Checked against
    ---------------
    Counts by hand.

    Examples
    --------
    >>> pooled_dice([Confusion(90, 10, 10), Confusion(0, 5, 5)])
    0.8571428571428571
    """
    _check_policy(empty)
    cases = list(cases)
    if empty == "nan_reference":
        cases = [case for case in cases if case.reference_voxels]
    return Confusion(sum(case.tp for case in cases), sum(case.fp for case in cases),
                     sum(case.fn for case in cases)).dice(empty)


@dataclass(frozen=True, repr=False)
class OverlapSummary(Result):
    """Dice over cases, with its policy and the counts of empty masks."""

    n: int
    n_scored: int
    n_both_empty: int
    n_reference_empty: int
    n_prediction_empty: int
    empty: str
    dice_mean: float
    dice_sd: float
    dice_median: float
    dice_pooled: float
    sensitivity_pooled: float
    precision_pooled: float


def summary(cases: Iterable[Confusion], *, empty: str = "nan") -> OverlapSummary:
    """Dice per case and pooled over one set of cases.

    Parameters
    ----------
    cases
        Voxel counts, one a case.
    empty
        One of `EMPTY_POLICIES`.

    Returns
    -------
    OverlapSummary
        `n` cases, `n_scored` of them in mean, SD (ddof 1) and median under policy `empty`;
        `n_both_empty`, `n_reference_empty` and `n_prediction_empty` (that one mask only is empty);
        pooled Dice, sensitivity and precision (NaN where 0 / 0).

    Formula
    -------
    `dice_of_counts` averaged; `pooled_dice`; sensitivity = sum TP / sum (TP + FN), precision =
    sum TP / sum (TP + FP).

    Source
    ------
    Maier-Hein et al. 2024, Nat Methods 21:195 (what empty masks do to an average).

    Checked against
    ---------------
    Counts by hand, under each policy.

    Examples
    --------
    >>> cases = [Confusion(8, 2, 2), Confusion(0, 0, 0), Confusion(0, 3, 0)]
    >>> for policy in ("zero", "nan", "one", "nan_reference"):
    ...     print(policy, round(summary(cases, empty=policy).dice_mean, 3))
    zero 0.267
    nan 0.4
    one 0.6
    nan_reference 0.8
    """
    _check_policy(empty)
    cases = list(cases)
    scores = np.array([case.dice(empty) for case in cases])
    scores = scores[~np.isnan(scores)]
    tp, fp, fn = (sum(getattr(case, name) for case in cases) for name in ("tp", "fp", "fn"))
    return OverlapSummary(
        n=len(cases), n_scored=len(scores),
        n_both_empty=sum(case.both_empty for case in cases),
        n_reference_empty=sum(case.reference_voxels == 0 < case.predicted_voxels
                              for case in cases),
        n_prediction_empty=sum(case.predicted_voxels == 0 < case.reference_voxels
                               for case in cases),
        empty=empty,
        dice_mean=float(scores.mean()) if len(scores) else float("nan"),
        dice_sd=float(scores.std(ddof=1)) if len(scores) > 1 else float("nan"),
        dice_median=float(np.median(scores)) if len(scores) else float("nan"),
        dice_pooled=pooled_dice(cases, empty=empty),
        sensitivity_pooled=tp / (tp + fn) if tp + fn else float("nan"),
        precision_pooled=tp / (tp + fp) if tp + fp else float("nan"),
    )
