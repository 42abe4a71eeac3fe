"""Checks of the exercises: each says whether an answer is right, else what kind of mistake it is.

An answer is tried on several inputs, so that a number that happens to fit is not right; what it
gives is compared with the answers of people who made a usual mistake, so that the mistake can be
named. None of them raises: a learner's error is an answer too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from deeplung_nb.course.verdict import Verdict
from deeplung_nb.stats import agreement, correlation, overlap, paired

Answer = Callable[..., Any]
Mistake = tuple[Answer, str, str]
"""Somebody's answer, what is wrong with it, and what to think of."""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "…"


def _asked(arguments: Sequence[Any]) -> str:
    return ", ".join(f"{len(one)} readings" if isinstance(one, np.ndarray) else _shown(one)
                     for one in arguments)


def _try(answer: Answer, arguments: Sequence[Any]) -> tuple[Any, Verdict | None]:
    """What an answer gives; or the verdict where it ended with an error."""
    given = [one.copy() if isinstance(one, np.ndarray) else one for one in arguments]
    try:
        return answer(*given), None
    except Exception as error:  # whatever a learner's function may do
        return None, Verdict(False, f"Your function ended with {type(error).__name__}: {error} "
                             f"(it was asked for {_asked(arguments)}).",
                             "Try it by itself, in a cell of its own, with these numbers.")


def _same(found: Any, expected: Any, tolerance: float) -> bool:
    try:
        a, b = np.asarray(found, float), np.asarray(expected, float)
    except (TypeError, ValueError):
        return False
    return a.shape == b.shape and np.allclose(a, b, rtol=tolerance, atol=1e-6, equal_nan=True)


def _judge(answer: Answer, right: Answer, inputs: Sequence[Sequence[Any]],
           mistakes: Sequence[Mistake], praise: str, tolerance: float = 1e-6) -> Verdict:
    """Compare an answer with the right one on all inputs, and else with known mistakes."""
    found, wrong = [], None
    for arguments in inputs:
        value, ended = _try(answer, arguments)
        if ended is not None:
            return ended
        found.append(value)
        if wrong is None and not _same(value, right(*arguments), tolerance):
            wrong = arguments
    if wrong is None:
        return Verdict(True, praise)
    if all(repr(value) == repr(found[0]) for value in found):
        return Verdict(False, f"It gives {_shown(found[0])} whatever it is asked.",
                       "Use what the function is given: the check asks with other numbers too.")
    for mistaken, words, hint in mistakes:
        with np.errstate(all="ignore"):
            if all(_same(value, mistaken(*arguments), tolerance)
                   for value, arguments in zip(found, inputs, strict=True)):
                return Verdict(False, words, hint)
    value = found[next(k for k, one in enumerate(inputs) if one is wrong)]
    expected = right(*wrong)
    try:
        np.asarray(value, float)
    except (TypeError, ValueError):
        return Verdict(False, f"It gives a {type(value).__name__}, expected "
                       f"{'a number' if np.ndim(expected) == 0 else 'numbers'}.",
                       "A result of a test has the number as one of its fields.")
    return Verdict(False, f"For {_asked(wrong)} it gives {_shown(value)}, expected "
                   f"{_shown(expected)}.")


def check_volume(answer: Answer) -> Verdict:
    """`volume_ml(n_voxels, spacing_mm)`: the volume of a mask, mL."""
    return _judge(
        answer, lambda n, mm: n * mm[0] * mm[1] * mm[2] / 1000,
        [(52_000, (5.0, 0.8, 0.8)), (1000, (1.25, 0.7, 0.9)), (0, (5.0, 0.8, 0.8))], [
            (lambda n, mm: n * mm[0] * mm[1] * mm[2], "These are cubic millimetres.",
             "How many cubic millimetres are one millilitre?"),
            (lambda n, mm: n * mm[0] * mm[1] * mm[2] / 100, "It is ten times too much.",
             "A centimetre is 10 mm; a cubic centimetre is 10 × 10 × 10 of them."),
            (lambda n, mm: n * mm[0] * mm[1] * mm[2] / 1e6, "These are litres.",
             "One millilitre is 1,000 cubic millimetres, a litre a million."),
            (lambda n, mm: n * mm[0] * mm[1] ** 2 / 1000,
             "One side of the pixel stands for both: right only where pixels are square.",
             "The spacing has three numbers; each is needed once."),
            (lambda n, mm: n * mm[0] * mm[2] ** 2 / 1000,
             "One side of the pixel stands for both: right only where pixels are square.",
             "The spacing has three numbers; each is needed once."),
            (lambda n, mm: n * mm[1] * mm[2] / 1000, "That is an area: the distance between the "
             "slices is missing.", "A voxel is as high as the slices are apart."),
            (lambda n, mm: n * mm[1] * mm[2], "That is an area: the distance between the slices "
             "is missing.", "A voxel is as high as the slices are apart."),
            (lambda n, mm: mm[0] * mm[1] * mm[2] / 1000, "That is the volume of one voxel.",
             "The mask has many."),
            (lambda n, mm: n * sum(mm) / 1000, "The three distances are added.",
             "The volume of a box is the product of its sides."),
        ], "Also where pixels are not square, and for an empty mask.")


def check_dice(answer: Answer) -> Verdict:
    """`dice(tp, fp, fn)`: NaN where both masks are empty."""
    def right(tp: float, fp: float, fn: float) -> float:
        return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else float("nan")

    some = [(80, 30, 10), (5, 0, 15), (0, 4, 7)]
    value, ended = _try(answer, (0, 0, 0))
    if ended is not None and "ZeroDivision" in ended.words:
        before = _judge(answer, right, some, _DICE, "")
        return Verdict(False, "Two empty masks divide 0 by 0." if before else before.words,
                       "Ask first whether anything was marked at all, and return "
                       "float('nan') if nothing was." if before else before.hint)
    verdict = _judge(answer, right, [*some, (0, 0, 0)], _DICE,
                     "And two empty masks have no Dice, which is neither 0 nor 1.")
    if not verdict and ended is None and _judge(answer, right, some, (), "") \
            and not (isinstance(value, float) and np.isnan(value)):
        return Verdict(False, f"For two empty masks it gives {_shown(value)}, expected nan: 0/0 is "
                       "no number.", "Whoever averages must decide what an empty case counts; "
                       "a 1 would praise the machine for every healthy patient, a 0 blame it.")
    return verdict


_DICE: list[Mistake] = [
    (lambda tp, fp, fn: tp / (tp + fp + fn) if tp + fp + fn else float("nan"),
     "That is the Jaccard index (intersection over union), which is smaller.",
     "Dice counts the common part twice, since it stands in both masks."),
    (lambda tp, fp, fn: tp / (2 * tp + fp + fn) if tp + fp + fn else float("nan"),
     "It is half of it.", "Twice the common part, over the sum of both masks."),
    (lambda tp, fp, fn: tp / (tp + fn) if tp + fn else float("nan"),
     "That is the sensitivity: what was marked beside the lesion costs nothing.",
     "The sum of both masks holds fp as well."),
    (lambda tp, fp, fn: tp / (tp + fp) if tp + fp else float("nan"),
     "That is the precision: what was missed costs nothing.",
     "The sum of both masks holds fn as well."),
]


def _readings(seed: int, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    expert = rng.lognormal(4, 0.8, n)
    return expert, expert * rng.normal(0.93, 0.12, n) + 3


def check_limits(answer: Answer) -> Verdict:
    """`limits(expert, automatic)`: bias, lower and upper limit of agreement."""
    def made(scale: float = 1.0, ddof: int = 1, sign: float = 1.0,
             shift: Answer = np.mean, by_root_n: bool = False) -> Answer:
        def limits(expert: np.ndarray, automatic: np.ndarray) -> tuple[float, float, float]:
            d = sign * (automatic - expert)
            spread = 1.959964 * scale * d.std(ddof=ddof) / (np.sqrt(len(d)) if by_root_n else 1)
            return float(shift(d)), float(shift(d) - spread), float(shift(d) + spread)
        return limits

    return _judge(
        answer, made(), [_readings(1), _readings(2, 12)], [
            (made(sign=-1.0), "The difference is the other way round: expert − automatic.",
             "Here it is automatic − expert: a positive bias means that the machine reads more."),
            (made(ddof=0), "The standard deviation has n in the denominator, not n − 1.",
             "numpy's std takes ddof=0 unless it is told ddof=1."),
            (made(by_root_n=True), "That is the interval of the bias, not of a patient's "
             "difference.", "The standard error gets small with many patients; patients do not."),
            (made(scale=1 / 1.959964), "The standard deviation is taken once, not 1.96 times.",
             "Within one standard deviation lie only about 68 of 100."),
            (made(scale=2 / 1.959964), "Twice the standard deviation is near it, but the task "
             "says 1.96.", "2 is a common rounding; it makes the limits 2 % wider."),
            (made(shift=np.median), "The bias is the median of the differences.",
             "The limits of Bland and Altman are about the mean."),
            (lambda a, b: made()(a, b)[1:] + made()(a, b)[:1], "All three are right, in another "
             "order.", "First the bias, then the lower limit, then the upper one."),
            (lambda a, b: made()(a, b)[1:], "The bias is missing.",
             "Three numbers: bias, lower limit, upper limit."),
            (lambda a, b: (float(np.mean(b - a)), *map(float, np.quantile(b - a, [0.025, 0.975]))),
             "These are quantiles, which assume nothing, but are not what was asked for.",
             "bias ± 1.96 standard deviations."),
        ], "As agreement.bland_altman, but for the fifth digit of 1.96.", 1e-4)


def check_useless_machine(answer: Answer) -> Verdict:
    """`useless_machine(expert)`: rank correlation 1, concordance below one half."""
    for seed in (1, 2):
        expert = _readings(seed)[0]
        found, ended = _try(answer, (expert,))
        if ended is not None:
            return ended
        machine = np.asarray(found, float) if np.size(found) else np.array([])
        if machine.shape != expert.shape or not np.isfinite(machine).all():
            return Verdict(False, f"Expected a finite reading for each of the {len(expert)} "
                           f"patients, found shape {machine.shape}.",
                           "Do something to all of the expert's readings at once: expert * ...")
        if np.ptp(machine) == 0:
            return Verdict(False, "The same reading for everybody has no correlation at all: it "
                           "is not defined.", "Large must stay large.")
        again, _ = _try(answer, (expert,))
        if not _same(again, machine, 1e-12):
            return Verdict(False, "Asked twice it gives two answers: chance is at work.",
                           "Nothing but the expert's readings may be used.")
        rho = correlation.spearman(expert, machine).r
        ccc = agreement.concordance(expert, machine).ccc
        if rho < -0.999999:
            return Verdict(False, "The rank correlation is −1: the order is turned round.",
                           "The largest reading of the expert must be the machine's largest.")
        if rho < 0.999999:
            return Verdict(False, f"The rank correlation is {rho:.3f}, expected 1.",
                           "A function that only rises keeps the order: of two patients the one "
                           "with more must get more.")
        if ccc >= 0.5:
            close = "it agrees too well" if ccc < 0.999 else "that is the expert himself"
            return Verdict(False, f"The concordance is {ccc:.2f}, expected below 0.5: {close}.",
                           "By which factor would a wrong voxel size be wrong? Try a larger one.")
    return Verdict(True, "Perfect by correlation, and of no use.")


def check_three_cases(answer: Answer) -> Verdict:
    """`three_cases()`: pooled Dice above 0.9, mean of cases below 0.5."""
    found, ended = _try(answer, ())
    if ended is not None:
        return ended
    try:
        cases = list(found)
        assert all(isinstance(one, overlap.Confusion) for one in cases)
    except (TypeError, AssertionError):
        return Verdict(False, f"Expected three overlap.Confusion, found {_shown(found)}.",
                       "return overlap.Confusion(tp, fp, fn), overlap.Confusion(...), ...")
    if len(cases) != 3:
        return Verdict(False, f"{len(cases)} cases, expected 3.", "One for each of the sentence.")
    empty = [one for one in cases if one.tp + one.fp + one.fn == 0]
    missed = [one for one in cases if one.tp == 0 and one.fn > 0]
    if len(empty) != 1:
        return Verdict(False, f"{len(empty)} of the cases have two empty masks, expected one.",
                       "In a healthy lung the expert marks nothing; this machine marked nothing "
                       "either.")
    if len(missed) != 1:
        return Verdict(False, f"{len(missed)} of the lesions were missed, expected one.",
                       "Of a missed lesion no voxel is found: tp is 0, fn is its size.")
    summary = overlap.summary(cases)
    if summary.dice_pooled <= 0.9:
        return Verdict(False, f"The pooled Dice is {summary.dice_pooled:.2f}, expected above 0.9.",
                       "All voxels of all cases are thrown together: let the large lesion be much "
                       "larger than the missed one.")
    if summary.dice_mean >= 0.5:
        return Verdict(False, f"The mean of the cases is {summary.dice_mean:.2f}, expected below "
                       "0.5.", "A missed lesion has a Dice of 0; the healthy lung is in no mean.")
    return Verdict(True, f"Pooled {summary.dice_pooled:.2f}, mean of the cases "
                   f"{summary.dice_mean:.2f}: the same three patients.")


def check_p_of_pairs(answer: Answer) -> Verdict:
    """`p_of_pairs(expert, automatic)`: p of the signed-rank test."""
    def of(seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        expert = rng.lognormal(5, 1, 60)
        return expert, expert * rng.normal(0.985, 0.06, 60)

    def by(test: Answer) -> Answer:
        return lambda a, b: float(test(a, b).pvalue)

    return _judge(
        answer, lambda a, b: paired.wilcoxon_signed_rank(a, b).p_value, [of(0), of(3)], [
            (lambda a, b: paired.mann_whitney(a, b).p_value,
             "That is the test of two independent groups: it does not know who belongs to whom.",
             "It compares patients, who differ far more than the readers do. Look for pairs."),
            (by(stats.mannwhitneyu),
             "That is the test of two independent groups: it does not know who belongs to whom.",
             "It compares patients, who differ far more than the readers do. Look for pairs."),
            (by(stats.ttest_rel), "That is the paired t test, which is of means.",
             "The null hypothesis here is symmetry about zero, by ranks of the differences."),
            (by(stats.ttest_ind), "That is the t test of two independent groups.",
             "Look for pairs, and for ranks."),
            (lambda a, b: paired.sign_test(a, b).p_value, "That is the sign test: it only counts "
             "who is larger.", "The signed-rank test asks as well how much larger."),
            (lambda a, b: correlation.spearman(a, b).p_value, "That is the p value of a "
             "correlation: nobody doubts that large is large for both.",
             "The question is whether there is a shift."),
            (lambda a, b: 1 - paired.wilcoxon_signed_rank(a, b).p_value, "That is 1 − p.",
             "A small p speaks against the null hypothesis."),
            (lambda a, b: paired.wilcoxon_signed_rank(a, b).p_value / 2, "That is one-sided: half "
             "of it.", "Nobody said beforehand which reader would read less."),
        ], "Other programs' p may differ in the third digit: exact, or by the normal curve.", 0.02)
