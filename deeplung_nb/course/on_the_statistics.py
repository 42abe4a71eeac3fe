"""The questions of notebooks 07 to 13 and E2: from a table of readings to what it is worth."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from deeplung_nb.course.questions import NothingToAsk, Question
from deeplung_nb.stats import agreement


def _outside(pairs: pd.DataFrame) -> tuple[int, int]:
    """How many differences lie below and above the constant limits."""
    limits = agreement.bland_altman(pairs.reference, pairs.test)
    if not math.isfinite(limits.loa_lower):
        raise NothingToAsk("There are no limits in this run")
    d = pairs.test - pairs.reference
    return int((d < limits.loa_lower).sum()), int((d > limits.loa_upper).sum())


def _lesions(measured: pd.DataFrame) -> pd.DataFrame:
    """Any lesion of each case of the cross-validation: a column for each of both readers."""
    rows = measured[(measured.role == "cv") & (measured.structure == "lesion")
                    & measured.reader.isin(["expert", "model"])]
    table = rows.pivot_table(index=["cohort", "case_id"], columns="reader", values="volume_ml")
    if not {"expert", "model"} <= set(table) or not len(table.dropna()):
        raise NothingToAsk("No case was read by the expert and the network in this run")
    return table.dropna()


def _error_of_largest(measured: pd.DataFrame) -> tuple[float, float]:
    """The expert's and the network's volume in the case whose lesion is the largest."""
    row = _lesions(measured).sort_values("expert").iloc[-1]
    if min(row["expert"], row["model"]) <= 0:
        raise NothingToAsk("In this run one of the readers marks nothing in it")
    return float(row["expert"]), float(row["model"])


def _share_less(measured: pd.DataFrame) -> float:
    table = _lesions(measured)
    return 100 * float(_more(table).lt(0).mean())


def _more(table: pd.DataFrame) -> pd.Series:
    """By how much the network measures more."""
    return table.loc[:, "model"] - table.loc[:, "expert"]


QUESTIONS = {
    "07.1": Question(
        "Three patients: the expert measures 100, 200 and 330 mL, the network 90, 190 and 300. "
        "What is the bias, in mL?",
        -50 / 3, (
            (50 / 3, "It is turned round.", "Automatic − expert: it reads less."),
            (-10, "That is the median of the differences.", "Bias is their mean."),
            (-50, "That is their sum.", "Over three patients."),
            (100 * (580 / 630 - 1), "These are per cent of the expert's sum.", "mL are asked for."),
            (580 / 630, "That is a ratio.", "Bias is a mean of differences.")),
        "(−10 − 10 − 30) / 3 = −16.7 mL. The large lesion makes more than half "
        "of it: look whether differences grow with the size.", tolerance=0.005),
    "07.2": Question(
        "In how many cases of `pairs` does the difference lie outside of the constant limits of "
        "agreement?",
        lambda pairs: float(sum(_outside(pairs))), (
            (lambda pairs: 100 * sum(_outside(pairs)) / len(pairs), "These are per cent.",
             "percent_outside, of how many cases?"),
            (lambda pairs: 0.05 * len(pairs), "That is what one expects if all assumptions hold.",
             "Count what is there."),
            (lambda pairs: float(_outside(pairs)[0]), "These lie below the lower limit.",
             "Outside is below or above."),
            (lambda pairs: float(_outside(pairs)[1]), "These lie above the upper limit.",
             "Outside is below or above."),
            (lambda pairs: float(len(pairs) - sum(_outside(pairs))), "These lie inside.",
             "The others are asked for.")),
        "limits.percent_outside / 100 * limits.n. About 5 of 100 are expected; where "
        "all that lie outside are large lesions, the limits are too wide for the "
        "small ones.", ("pairs",)),
    "07.3": Question(
        "The margin is 50 mL, declared beforehand. The mean difference is −39 mL, its 90 % "
        "interval −56 to −23 mL. What is shown?\n\na) the readers are equivalent\n\nb) the "
        "network reads less; equivalence is not shown\n\nc) the readers are not equivalent\n\nd) "
        "nothing",
        "b", (
            ("a", "The interval reaches beyond −50 mL.", "All of it has to lie within the margin."),
            ("c", "The mean may as well lie within the margin: most of the interval does.",
             "Not shown is not shown that not."),
            ("d", "The whole interval lies below 0.", "Which question does that answer?")),
        "0 is outside of the interval, so the network reads less; −50 is inside, so the mean may "
        "be worse than the margin. A larger study could show either."),
    "08.1": Question(
        "The expert's lesion has an area of 30 cm² on each of four slices that are 5 mm apart; "
        "the network marks 20 cm² on each of six slices. By how many mL do the volumes differ?",
        0, (
            (-60, "The network's is missing.", "20 cm² on six slices of 0.5 cm are 60 mL as well."),
            (60, "That is each of the two volumes.", "One minus the other."),
            (-20, "The number of slices counts too.", "Area times slices times gap."),
            (-10, "That is the difference of the areas.", "A volume needs slices and their gap."),
            (10, "That is by the slices alone.", "Area times slices times gap.")),
        "Both are 60 mL. Equal volumes need not be the same lesion: in two of six slices the "
        "network marks what the expert does not. That is why the profile stands beside the "
        "number."),
    "08.2": Question(
        "In how many per cent of the cases in cross-validation does the network (`model`) measure "
        "*less* of any lesion than the expert?",
        _share_less, (
            (lambda measured: _share_less(measured) / 100, "That is the share.",
             "Per cent are hundredths."),
            (lambda measured: float(_more(_lesions(measured)).lt(0).sum()),
             "That is their number.", "Over how many cases?"),
            (lambda measured: 100 * float(_more(_lesions(measured)).gt(0).mean()),
             "In these it measures more.", "Less is asked for."),
            (lambda measured: 100 - _share_less(measured), "Equal readings are not less.",
             "Where both write 0, neither is less."),
            (lambda measured: 100 * float(_more(_lesions(measured)).le(0).mean()),
             "Equal readings are in it.", "Less, not less or equal.")),
        "In the waterfall these are the bars below 0. Half and half would be no "
        "bias; the length of the bars says what it comes to.", ("measured",)),
    "09.1": Question(
        "The paper's Table 4 has 3.7 s for 16 slices on a CPU. How many seconds are that for 120 "
        "slices?",
        3.7 * 120 / 16, (
            (3.7 * 120, "3.7 s are for 16 slices together.", "How long does one take?"),
            (3.7 * 16 / 120, "It is the other way round.", "More slices take longer."),
            (145, "That is what the paper prints elsewhere.", "From the 3.7 s."),
            (3.7, "That is for 16.", "120 are 7.5 times as many."),
            (3.7 * 7, "120 over 16 is 7.5.", "Round at the end only.")),
        "27.75 s, where Table 3 prints 145 s: five times as long. At most one of them is this "
        "network on this CPU.",
        tolerance=0.004),
    "09.2": Question(
        "Ours against a U-Net on the same cases: the mean Dice differs by 0.02 (95 % interval "
        "−0.01 to 0.05). What may be written?\n\na) ours is better\n\nb) both are equal\n\nc) "
        "ours is significantly better\n\nd) ours may be worse by 0.01 or better by 0.05; these "
        "cases can't tell",
        "d", (
            ("a", "The interval holds 0 and less.", "What does its lower end say?"),
            ("b", "It holds 0, and 0.05 as well.", "Not shown to differ is not shown to be equal."),
            ("c", "The interval holds 0.", "What would be significant at 5 %?")),
        "An interval says what the data leave open. To write of equality one needs a margin that "
        "was declared before and an interval that lies within it."),
    "10.1": Question(
        "In a case 40 mL are green (both alike), 10 pink (only the expert), 30 orange (only the "
        "machine) and 5 light blue (lesion for both, of another class). What is the Dice of *any* "
        "lesion?",
        2 * 45 / (2 * 45 + 40), (
            (80 / 120, "The light blue is missing: it is lesion for both.",
             "Whatever the class is."),
            (80 / 130, "The light blue was counted as an error of both.",
             "Of any lesion the class does not matter."),
            (45 / 85, "That is the Jaccard index.", "The common part counts twice."),
            (45 / 55, "That is the sensitivity.", "What is orange costs something too."),
            (45 / 75, "That is the precision.", "What is pink costs something too.")),
        "2 · 45 / (2 · 45 + 10 + 30) = 0.69. By classes it is lower, since the light blue is "
        "wrong for both of them.",
        tolerance=0.005),
    "10.2": Question(
        "Take the case in cross-validation whose lesion is the largest by the expert. By how many "
        "per cent of the expert's volume is the network's off (below 0 where it reads less)?",
        lambda measured: 100 * (_error_of_largest(measured)[1]
                                / _error_of_largest(measured)[0] - 1), (
            (lambda measured: _error_of_largest(measured)[1] - _error_of_largest(measured)[0],
             "These are mL.", "Over the expert's volume, times 100."),
            (lambda measured: 100 * (1 - _error_of_largest(measured)[0]
                                     / _error_of_largest(measured)[1]),
             "That is of the network's volume.", "Per cent of what? Of the expert's."),
            (lambda measured: 100 * _error_of_largest(measured)[1] / _error_of_largest(measured)[0],
             "That is how large it is, not how far off.", "Less 100."),
            (lambda measured: _error_of_largest(measured)[1] / _error_of_largest(measured)[0] - 1,
             "That is the share.", "Per cent are hundredths."),
            (lambda measured: _error_of_largest(measured)[0], "That is its volume.",
             "And the network's?")),
        "100 * (model / expert - 1) in the row with the largest expert. A large "
        "lesion may be off by many mL and few per cent, a small one the other way "
        "round.", ("measured",)),
    "11.1": Question(
        "One reader reads each CT twice, and the SD of a single reading is 12 mL. By how many mL "
        "must a patient change to be beyond the error in 95 of 100?",
        1.959964 * math.sqrt(2) * 12, (
            (1.959964 * 12, "The first reading was taken as exact.",
             "A difference of two readings has the error of both: √2."),
            (math.sqrt(2) * 12, "That is the SD of a difference.", "1.96 of them hold 95 of 100."),
            (12, "That is one SD of one reading.", "Two readings, and 1.96."),
            (2 * 1.959964 * 12, "Two errors do not add up, their squares do.", "√2, not 2."),
            (1.959964 * 2 * math.sqrt(2) * 12, "That is twice too much.", "1.96 · √2 · 12.")),
        "1.96 · √2 · 12 = 33 mL: the smallest detectable change. A hospital that compares two "
        "readers has to add what they differ by."),
    "11.2": Question(
        "The logarithm of a single reading has an SD of 0.08. From which factor on is an "
        "increase beyond the error, in 95 of 100?",
        math.exp(1.959964 * math.sqrt(2) * 0.08), (
            (math.exp(1.959964 * 0.08), "The first reading was taken as exact.",
             "A difference of two readings has the error of both: √2."),
            (1.959964 * math.sqrt(2) * 0.08, "That is still a logarithm.",
             "np.exp makes a factor of it."),
            (math.exp(math.sqrt(2) * 0.08), "That is one SD.", "1.96 of them hold 95 of 100."),
            (math.exp(0.08), "That is one SD of one reading.", "√2, and 1.96."),
            (math.exp(-1.959964 * math.sqrt(2) * 0.08), "That is the factor of a decrease.",
             "An increase is above 1.")),
        "exp(1.96 · √2 · 0.08) = 1.25: a quarter more. A decrease must go below 1 / 1.25 = 0.80.",
        tolerance=0.004),
    "12.1": Question(
        "15 patients have four lesions each. The errors of one patient's lesions correlate with "
        "0.5. As many *independent* lesions would tell as much of the bias as these 60?",
        60 / 2.5, (
            (60, "So it would be if lesions of one patient had nothing in common.",
             "60 over 1 + (4 − 1) · 0.5."),
            (15, "So it would be if they had everything in common.", "60 over 1 + (4 − 1) · 0.5."),
            (2.5, "That is by how much the variance grows.", "60 over it."),
            (150, "Dependence never adds information.", "Divide, do not multiply."),
            (60 / math.sqrt(2.5), "The root belongs to the interval, not to the number.",
             "The variance grows by 1 + (4 − 1) · 0.5.")),
        "60 / (1 + 3 · 0.5) = 24 (the design effect, Kish 1965). An interval by 60 lesions is "
        "too narrow by a factor of √2.5 = 1.6."),
    "12.2": Question(
        "The margin is 3 mL, declared beforehand. The machine's distance from the readers exceeds "
        "theirs from each other by 1.2 mL (95 % interval 0.3 to 2.4 mL). What may be "
        "written?\n\na) the machine is as good as a reader\n\nb) the machine is further off than "
        "a reader, by less than the margin\n\nc) the machine may not stand in\n\nd) the machine "
        "is better",
        "b", (
            ("a", "The whole interval lies above 0.", "It is further off; by how much matters."),
            ("c", "The whole interval lies below the margin.", "What was declared beforehand?"),
            ("d", "Its distance is larger, not smaller.", "More is worse here.")),
        "Both are true: it is worse than a reader (0 is outside), and by less than was declared "
        "to matter (3 is outside). A p alone would have said only the first."),
    "13.1": Question(
        "Dice was 0.64 before, 0.70 after some steps more with the old cases, and 0.71 after as "
        "many steps with the corrected cases among them. How much did the corrections bring?",
        0.01, (
            (0.07, "That is steps and corrections together.", "What would the steps alone have "
             "brought?"),
            (0.06, "That is what the steps alone brought.", "The last two differ in the "
             "corrections alone."),
            (0.71, "That is where it ended.", "A gain is a difference."),
            (0.71 / 0.64, "That is a ratio, and of the wrong two.", "0.71 less 0.70."),
            (0.35, "That is no mean of any gain.", "0.71 less 0.70.")),
        "0.71 − 0.70 = 0.01. Without the control, 0.07 would have been written, six sevenths of "
        "them wrongly.", tolerance=0.02),
    "13.2": Question(
        "Which mask may serve as the reference for the machine's Dice?\n\na) the machine's marks, "
        "corrected by an expert\n\nb) an expert's, drawn while the machine's were shown\n\nc) an "
        "expert's, drawn before the machine's were seen\n\nd) any of these",
        "c", (
            ("a", "What nobody touched agrees by construction.", "Whose border is it where the "
             "reader found it good enough?"),
            ("b", "What one sees draws one's hand.", "Who has seen the machine's marks is no "
             "independent judge."),
            ("d", "Two of them have seen the machine's marks.", "Which one has not?")),
        "Only c is independent. With a or b the machine is compared in part with itself, and its "
        "Dice comes out too high: a reader study keeps an unaided arm for that reason."),
    "E2.1": Question(
        "Volumes of 10, 20, 30 and 40 mL. What is the lower quartile by type 6, as in SPSS, in mL?",
        float(np.quantile([10, 20, 30, 40], 0.25, method="weibull")), (
            (float(np.quantile([10, 20, 30, 40], 0.25)), "That is type 7, of R and Python.",
             "Type 6 stands at place (n + 1) / 4."),
            (15, "That is the median of the lower half.", "Type 6 stands at place (n + 1) / 4."),
            (10, "That is the smallest.", "Place 1.25 is a quarter of the way to the next one."),
            (20, "That is the second.", "Place 1.25 is a quarter of the way to the next one."),
            (1.25, "That is the place.", "Which volume stands there?")),
        "Place (4 + 1) / 4 = 1.25: 10 + 0.25 · (20 − 10) = 12.5 mL. Between types 6 and 7 lies "
        "what a paper and its re-analysis may differ by without any fault."),
    "E2.2": Question(
        "Two cohorts share n, all quartiles and Spearman's ρ. Which of these can still differ "
        "between them?\n\na) the median\n\nb) the mean difference\n\nc) the number of cases above "
        "the upper quartile\n\nd) whether large is large for both",
        "b", (
            ("a", "It is one of the quartiles.", "Which number needs the tails?"),
            ("c", "A quarter of the cases: n and the quartile fix it.",
             "Which number needs the tails?"),
            ("d", "That is what ρ says.", "Which number needs the tails?")),
        "A mean hangs on the largest values, and no quartile knows them."),
}
