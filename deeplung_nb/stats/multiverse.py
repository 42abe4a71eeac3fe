"""Every defensible choice: one analysis for each way that somebody could have taken it.

A bias of volumes can be a mean or a Hodges-Lehmann shift, of all pairs or of those that both
readers saw, with cases or patients as what is independent, with or without any one case. Each is
defensible, and one of them gets printed. Here are all of them, and what the answer turns on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb.stats import agreement, overlap, paired
from deeplung_nb.stats._results import FEWEST

DIMENSIONS = ("estimate", "limits", "empty", "pairs", "independent", "left_out")
"""Columns of choices; each question has some of them."""
WORDS = {"estimate": "the estimate", "limits": "the kind of limits", "empty": "what an empty mask "
         "counts", "pairs": "the zeros", "independent": "what is independent", "left_out":
         "single cases"}
NOBODY = "none"
MOST_LEFT_OUT = 60
"""Cases that are left out in turn: those that move the bias most, where there are more."""
NO_VERDICT = "not defined"
WITHIN_BOTH, NOT_BOTH = "both within the margin", "not both within the margin"


@dataclass(frozen=True, repr=False)
class Multiverse:
    """The analyses of one question.

    Attributes
    ----------
    question
        `bias`, `limits` or `dice`.
    analyses
        One row each: the choices (of `DIMENSIONS`), `n`, `value, low, high`, and `verdict`.
    margin
        What was declared; None: the bias is compared with 0, limits and Dice with nothing.
    n_cases_left
        Cases that were not left out in turn, because they move the bias less.
    """

    question: str
    analyses: pd.DataFrame
    margin: float | None
    n_cases_left: int = 0

    def __repr__(self) -> str:
        return self.sentence

    @property
    def verdicts(self) -> dict[str, int]:
        """Verdict -> analyses, the commonest first."""
        return {str(name): int(n) for name, n in
                self.analyses["verdict"].value_counts(sort=True).items()}

    @property
    def turns_on(self) -> list[tuple[str, str]]:
        """(choice, words) of what moves the share of the commonest verdict, most first.

        Empty where all analyses say the same.
        """
        if len(self.verdicts) < 2:
            return []
        commonest = self.analyses["verdict"] == next(iter(self.verdicts))
        found = []
        for name in DIMENSIONS:
            if name not in self.analyses:
                continue
            shares: Any = commonest.groupby(self.analyses[name], sort=False).mean()
            spread = float(shares.max() - shares.min())
            if spread > 0.005:
                low, high = str(shares.idxmin()), str(shares.idxmax())
                found.append((spread, name, f"{WORDS[name]} ({shares[high]:.0%} with “{high}”, "
                              f"{shares[low]:.0%} with “{low}”)"))
        return [(name, words) for _, name, words in sorted(found, key=lambda one: -one[0])]

    @property
    def sentence(self) -> str:
        """How many analyses say what, or over which range, and what it turns on."""
        n = len(self.analyses)
        if not n:
            return f"No analysis of the {self.question} can be made of these readings."
        many = f"{n} analyses" if n > 1 else "one analysis"
        none = self.verdicts.get(NO_VERDICT, 0)
        if self.question == "dice" or (self.question == "limits" and self.margin is None):
            values = self.analyses["value"].dropna()  # nothing to be within: how far they go
            if values.empty:
                return f"None of {many} has limits of agreement."
            what = {"dice": "The mean Dice goes", "limits": "The distance of the limits of "
                    "agreement goes"}[self.question]
            turns = self._widest()
            return (f"{what} from {values.min():.3g} to {values.max():.3g} over {many}"
                    + (f", {none} of them without limits" if none else "")
                    + (f"; it turns on {turns}." if turns else "."))
        what = {"bias": "The bias, with its interval, is",
                "limits": "The limits of agreement are"}[self.question]
        said = [f"{words} in {count} of {many}" if k == 0 else f"{words} in {count}"
                for k, (words, count) in enumerate(self.verdicts.items())]
        turns = self.turns_on
        return f"{what} {', '.join(said)}" + (f"; it turns on {turns[0][1]}." if turns else
                                              ", whatever is chosen.")

    def _widest(self) -> str:
        """The choice that moves the value most, in words."""
        best, words = 0.0005, ""
        for name in DIMENSIONS:
            if name in self.analyses:
                means: Any = self.analyses["value"].groupby(self.analyses[name], sort=False).mean()
                if float(means.max() - means.min()) > best:
                    best = float(means.max() - means.min())
                    words = (f"{WORDS[name]} ({means.min():.3g} with “{means.idxmin()}”, "
                             f"{means.max():.3g} with “{means.idxmax()}”, on average)")
        return words


def _verdict(low: float, high: float, margin: float | None) -> str:
    if not np.isfinite([low, high]).all():
        return NO_VERDICT
    if margin is not None:
        if -margin < low and high < margin:
            return "within the margin"
        return "beyond the margin" if low >= margin or high <= -margin else "open"
    return "above 0" if low > 0 else "below 0" if high < 0 else "not told from 0"


def _parts(pairs: pd.DataFrame, amounts: bool) -> dict[str, np.ndarray]:
    a, b = (pairs[name].to_numpy(float) for name in ("reference", "test"))
    found = {"all": np.ones(len(a), bool)}
    if not amounts:
        return found
    for name, chosen in (("reference above 0", a > 0), ("both above 0", (a > 0) & (b > 0))):
        if not any(np.array_equal(chosen, other) for other in found.values()):
            found[name] = chosen
    return found


def _left_out(pairs: pd.DataFrame) -> tuple[list[tuple[str, int]], int]:
    """Names and places of cases that are left out in turn, and how many are not."""
    d = (pairs["test"] - pairs["reference"]).to_numpy(float)
    order = np.argsort(-np.abs(d - d.mean()), kind="stable")
    names = pairs["case_id"].astype(str) if "case_id" in pairs else pd.Series(
        [str(k + 1) for k in range(len(pairs))])
    chosen = sorted(order[:MOST_LEFT_OUT].tolist())
    return [(NOBODY, -1), *((names.iloc[k], k) for k in chosen)], max(0, len(d) - MOST_LEFT_OUT)


def _independent(pairs: pd.DataFrame, patient: str) -> dict[str, Any]:
    whose = pairs[patient].to_numpy() if patient in pairs else np.empty(0)
    if len(whose) and not pd.isna(whose).any() and len(set(whose)) < len(whose):
        return {"cases": None, "patients": whose}
    return {"cases": None}


def _subsets(pairs: pd.DataFrame, patient: str, amounts: bool
             ) -> Iterator[tuple[dict[str, str], np.ndarray, np.ndarray, Any]]:
    """The choices, both readings and whose they are, of each subset of pairs."""
    a, b = (pairs[name].to_numpy(float) for name in ("reference", "test"))
    places, _ = _left_out(pairs)
    for part, inside in _parts(pairs, amounts).items():
        for who, cluster in _independent(pairs, patient).items():
            for name, place in places:
                if place >= 0 and not inside[place]:
                    continue  # it is not among these pairs: the same analysis again
                kept = inside.copy()
                if place >= 0:
                    kept[place] = False
                if kept.sum() < FEWEST:
                    continue
                yield ({"pairs": part, "independent": who, "left_out": name}, a[kept], b[kept],
                       None if cluster is None else cluster[kept])


def bias_choices(pairs: pd.DataFrame, margin: float | None = None, *, patient: str = "patient_id",
                 amounts: bool = True) -> Multiverse:
    """The bias under every choice of estimate, pairs, independence, and without each case.

    Parameters
    ----------
    pairs
        `reference, test`, perhaps `case_id` and `patient`; as `measurements.pair` gives them.
    margin
        Declared beforehand, in the readings' unit: the interval lies `within the margin`, beyond
        it, or it is `open`. Without one the interval is compared with 0.
    patient
        Column of who a pair is of; without it, cases alone are what is independent.
    amounts
        Whether 0 is an absence, as of volumes; of attenuations it is not, and no pair is chosen by
        it.

    Returns
    -------
    Multiverse
        `estimate` is `mean` (Student's interval, of patients where they are what is independent)
        or `Hodges-Lehmann` (of all differences; cases only, as it has no interval for patients).

    Formula
    -------
    All combinations; a case that a choice of pairs leaves out anyway is not left out once more.

    Source
    ------
    Steegen, Tuerlinckx, Gelman & Vanpaemel 2016, Perspect Psychol Sci 11:702 (multiverse);
    Simonsohn, Simmons & Nelson 2020, Nat Hum Behav 4:1208 (specification curve).

    Checked against
    ---------------
    Counts by hand; each analysis alone by `bland_altman` and `wilcoxon_signed_rank`.

    Examples
    --------
    >>> pairs = pd.DataFrame({"reference": [10.0, 20, 30, 40, 50], "test": [11.0, 22, 33, 44, 55]})
    >>> bias_choices(pairs, margin=8.0).verdicts
    {'within the margin': 12}
    """
    rows: list[dict[str, Any]] = []
    for choices, a, b, cluster in _subsets(pairs, patient, amounts):
        found = agreement.bland_altman(a, b, cluster=cluster)
        rows.append({"estimate": "mean", **choices, "n": len(a), "value": found.bias,
                     "low": found.bias_ci[0], "high": found.bias_ci[1]})
        if cluster is None:
            shift = paired.wilcoxon_signed_rank(a, b, zeros="pratt")
            low, high = shift.hodges_lehmann_ci
            rows.append({"estimate": "Hodges-Lehmann", **choices, "n": len(a),
                         "value": shift.hodges_lehmann, "low": low, "high": high})
    for row in rows:
        row["verdict"] = _verdict(row["low"], row["high"], margin)
    return Multiverse("bias", _frame(rows, "estimate"), margin, _left_out(pairs)[1])


def limits_choices(pairs: pd.DataFrame, margin: float | None = None, *,
                   kinds: Sequence[str] = agreement.LIMITS, patient: str = "patient_id",
                   amounts: bool = True) -> Multiverse:
    """The limits of agreement under every choice of their kind, pairs, independence and cases.

    Parameters
    ----------
    pairs, margin
        As `bias_choices`; the limits are both within the margin or not (their intervals are not
        asked: the margin is one of single cases).
    kinds
        Of `agreement.LIMITS`; by regression they are those at the mean.
    patient, amounts
        As `bias_choices`.

    Returns
    -------
    Multiverse
        `value` is the distance of the limits, `low` and `high` they themselves.

    Formula
    -------
    As `bias_choices`.

    Source
    ------
    As `bias_choices`; the limits as `agreement.bland_altman` (Bland & Altman 1999).

    Checked against
    ---------------
    Each analysis alone by `bland_altman`.

    Examples
    --------
    >>> pairs = pd.DataFrame({"reference": [10.0, 20, 30, 40, 50], "test": [11.0, 22, 33, 44, 55]})
    >>> limits_choices(pairs, margin=20.0, kinds=("constant",)).verdicts
    {'both within the margin': 6}
    """
    rows: list[dict[str, Any]] = []
    for choices, a, b, cluster in _subsets(pairs, patient, amounts):
        for kind in kinds:
            found = agreement.bland_altman(a, b, limits=kind, cluster=cluster)
            low, high = found.loa_lower, found.loa_upper
            if not np.isfinite([low, high]).all():
                verdict = NO_VERDICT
            elif margin is None:
                verdict = ""
            else:
                verdict = WITHIN_BOTH if -margin < low and high < margin else NOT_BOTH
            rows.append({"limits": kind, **choices, "n": len(a), "value": high - low, "low": low,
                         "high": high, "verdict": verdict})
    return Multiverse("limits", _frame(rows, "limits"), margin, _left_out(pairs)[1])


def dice_choices(cases: pd.DataFrame) -> Multiverse:
    """The mean Dice under every choice of what an empty mask counts, averaging, and cases.

    Parameters
    ----------
    cases
        `tp, fp, fn` of each case, and perhaps `case_id`.

    Returns
    -------
    Multiverse
        `estimate` is the mean over cases or over all voxels (`pooled`; nothing is empty then).

    Formula
    -------
    2 TP / (2 TP + FP + FN), by case or of sums.

    Source
    ------
    As `bias_choices`; the policies are those of `overlap.dice_of_counts` (Dice 1945).

    Checked against
    ---------------
    Means by hand.

    Examples
    --------
    >>> counts = pd.DataFrame({"tp": [8, 0], "fp": [2, 0], "fn": [2, 0]})
    >>> sorted({round(value, 2) for value in dice_choices(counts).analyses["value"]})
    [0.0, 0.4, 0.8, 0.9, 1.0]
    """
    known = cases.dropna(subset=["tp", "fp", "fn"]).reset_index(drop=True)
    counts = known[["tp", "fp", "fn"]].to_numpy(float)
    names = known["case_id"].astype(str).tolist() if "case_id" in known else \
        [str(k + 1) for k in range(len(known))]
    rows: list[dict[str, Any]] = []
    for name, place in [(NOBODY, -1), *zip(names, range(len(names)), strict=True)]:
        kept = np.delete(counts, place, axis=0) if place >= 0 else counts
        for policy in overlap.EMPTY_POLICIES:
            scores = overlap.dice_of_counts(*kept.T.tolist(), empty=policy)
            if np.isfinite(scores).any():
                rows.append({"estimate": "mean over cases", "empty": policy, "left_out": name,
                             "n": int(np.isfinite(scores).sum()),
                             "value": float(np.nanmean(scores))})
        tp, fp, fn = kept.sum(axis=0)
        if tp + fp + fn > 0:
            rows.append({"estimate": "pooled", "empty": "nan", "left_out": name, "n": len(kept),
                         "value": 2 * tp / (2 * tp + fp + fn)})
    frame = pd.DataFrame(rows, columns=["estimate", "empty", "left_out", "n", "value"])
    return Multiverse("dice", frame.assign(low=np.nan, high=np.nan, verdict=""), None)


def _frame(rows: list[dict[str, Any]], first: str) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[first, "pairs", "independent", "left_out", "n", "value",
                                       "low", "high", "verdict"])
