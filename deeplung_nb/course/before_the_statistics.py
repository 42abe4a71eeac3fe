"""The questions of notebooks 00 to 06: from the list of cases to what the network answers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb.course.questions import NothingToAsk, Question


def _percent_contrast(people: pd.DataFrame, role: str = "cv", known: str = "contrast") -> float:
    cases = people[people.role == role] if role else people
    protocol = cases.protocol.dropna()
    if protocol.eq("").all() or not len(protocol):
        raise NothingToAsk("No protocol is known in this run")
    return 100 * float((protocol == known).mean())


def _pixel_mm(box: Any, scan: Any, size: int) -> float:
    return box.side * scan.spacing_mm[1] / size


def _best_epoch(history: pd.DataFrame, column: str = "validation_loss", largest: bool = False
                ) -> float:
    values = history[column].dropna() if column in history else pd.Series(dtype=float)
    if not len(values):
        raise NothingToAsk("This training was watched by no validation cases")
    return float(history.epoch[values.idxmax() if largest else values.idxmin()])


def _cases(measured: pd.DataFrame, reader: str = "model") -> pd.DataFrame:
    return measured.loc[(measured.reader == reader) & (measured.structure == "high_opacity")]


def _folds(external: pd.DataFrame) -> pd.Series:
    rows = external[external.reader.str.startswith("fold-") & (external.structure == "lesion")]
    means = rows.groupby("reader").dice.mean().dropna()
    if len(means) < 2:
        raise NothingToAsk("This profile has no external volumes read by several folds")
    return means


QUESTIONS = {
    "00.1": Question(
        "A patient's lungs hold 4,500 mL, and 300 mL of that is lesion. How large is the "
        "*burden*, the lesion's share of the lungs, in per cent?",
        100 * 300 / 4500, (
            (300 / 4500, "That is the share, not yet per cent.", "Per cent are hundredths."),
            (4500 / 300, "The division is the other way round.", "A part over the whole."),
            (100 * 300 / 4800, "The lesion was added to the lungs.",
             "Ill lung is lung: it stands in the 4,500 mL already."),
            (100 * 300 / 4200, "The lesion was taken out of the lungs.",
             "The whole is all lung, ill and well."),
            (300, "That is the volume.", "How much of 4,500 mL is it?")),
        "300 of 4,500 mL are 6.7 %. Whoever leaves consolidated lung out of the lungs gets "
        "another burden for the same lesion: so the lung mask belongs to the result."),
    "00.2": Question(
        "An expert needs at least 15 minutes a patient. The paper has 197 CTs in its training "
        "cohort and 67 external ones. How many working days of 8 hours is that, at the least?",
        264 * 15 / 60 / 8, (
            (264 * 15 / 60, "These are hours.", "A working day has 8 of them."),
            (264 * 15, "These are minutes.", "60 to the hour, 8 hours to the day."),
            (9, "In whole days, rounded up, it is; the exact number is asked for.",
             "66 hours over 8."),
            (264 * 20 / 60 / 8, "That is by 20 minutes a patient.", "The least is asked for."),
            (197 * 15 / 60 / 8, "The external CTs are missing.", "197 + 67."),
            (264 * 15 / 60 / 24, "A day of 24 hours is nobody's working day.", "8 hours.")),
        "264 × 15 min = 66 h = 8.25 days of one expert, for one reading of each. A second "
        "reader, who would say how far experts differ, costs as much again: that is why there is "
        "rarely one."),
    "01.1": Question(
        "Of the cases in cross-validation (`people`, `role` is `cv`), how many per cent were "
        "scanned with contrast?",
        _percent_contrast, (
            (lambda people: _percent_contrast(people) / 100, "That is the share, not yet per cent.",
             "Per cent are hundredths."),
            (lambda people: _percent_contrast(people, ""), "The external cases are in it.",
             "people.query(\"role == 'cv'\")"),
            (lambda people: _percent_contrast(people, "external"), "These are the external cases.",
             "people.query(\"role == 'cv'\")"),
            (lambda people: _percent_contrast(people, "cv", "non-contrast"),
             "These are the cases without contrast.", "The word in the column is contrast."),
            (lambda people: float((people[people.role == "cv"].protocol == "contrast").sum()),
             "That is their number.", "Over how many?")),
        "people.query(\"role == 'cv'\").protocol.eq(\"contrast\").mean() * 100. "
        "Contrast makes vessels and pleura brighter, and consolidated lung too.", ("people",)),
    "01.2": Question(
        "Imagine: external cases come from another scanner, have slices of 5 mm instead of 1 mm, "
        "and smaller lesions. Their Dice is 0.1 lower. What explains it?\n\na) the scanner\n\n"
        "b) the thick slices\n\nc) the small lesions\n\nd) any of these, or all: it can't be told "
        "from these cases",
        "d", (
            ("a", "Perhaps; but the slices changed at the same time.",
             "Which case differs in the scanner only?"),
            ("b", "Perhaps; but the scanner changed at the same time.",
             "Which case differs in its slices only?"),
            ("c", "Perhaps: small lesions have a lower Dice anywhere. But so may thick slices.",
             "Which case differs in its lesion only?")),
        "Three things changed together, so none can be named. One would need cases that differ "
        "in one of them only, such as one scan reconstructed with both thicknesses."),
    "02.1": Question(
        "HU are clipped to −1024 to 600 and mapped to 0 to 1. Which value does muscle of 50 HU "
        "get?",
        1074 / 1624, (
            (50 / 600, "The lower end became 0 HU.", "How far is 50 above −1024?"),
            (1050 / 1600, "That is with a window from −1000.", "It begins at −1024."),
            (1024 / 1624, "That is water, 0 HU.", "Muscle is 50 HU above it."),
            (50 / 1624, "The lower end was not taken off.", "−1024 becomes 0, not −0.63."),
            (1074, "That is the distance from the lower end, in HU.",
             "The whole window becomes 1."),
            (1 - 1074 / 1624, "It is upside down.", "Air is 0, bone is 1.")),
        "(50 + 1024) / (600 + 1024) = 0.661. Below −1024 there is nothing but "
        "what scanners write outside their round picture; above 600 there is "
        "bone and metal.", tolerance=0.003),
    "02.2": Question(
        "How wide is a pixel of the network's grid for this scan, in mm? (`box.side` pixels of "
        "the scan become `run.config.network.image_size` pixels of the grid; "
        "`case.scan.spacing_mm` is in the order z, y, x.)",
        lambda box, scan, size: _pixel_mm(box, scan, size), (
            (lambda box, scan, size: box.side / size, "These are pixels of the scan, not mm.",
             "How wide is one of them?"),
            (lambda box, scan, size: scan.spacing_mm[1], "That is a pixel of the scan.",
             "The box has another number of pixels than the grid."),
            (lambda box, scan, size: scan.hu.shape[1] * scan.spacing_mm[1] / size,
             "The whole slice was taken for the box.", "Only the box is sent to the network."),
            (lambda box, scan, size: box.side * scan.spacing_mm[0] / size,
             "That is with the distance of the slices.", "The spacing is (z, y, x)."),
            (lambda box, scan, size: size / box.side * scan.spacing_mm[1],
             "The ratio of the pixels is the other way round.", "A coarser grid has wider pixels."),
            (lambda box, scan, size: 1 / _pixel_mm(box, scan, size), "It is the other way round.",
             "A coarser grid has wider pixels.")),
        "box.side * case.scan.spacing_mm[1] / run.config.network.image_size. A vessel thinner "
        "than that is a guess to the network.",
        ("box", "case.scan", "run.config.network.image_size")),
    "03.1": Question(
        "The main branch says −2, the neighbours say 3, and α is 0.75. What is the fused score?",
        -0.75, (
            (1.75, "α was given to the neighbours.", "With α near 1 the main branch decides."),
            (0.5, "That is the mean of both: an α of one half.",
             "Here the main branch counts for more."),
            (1.0, "That is the sum.", "The weights α and 1 − α make 1 together."),
            (-1.5, "The neighbours are missing.", "They count for 1 − α."),
            (-2.25, "The neighbours were taken off.", "S_main · α + S_attn · (1 − α).")),
        "−2 · 0.75 + 3 · 0.25 = −0.75: below 0, so against it, although the neighbours say so "
        "loudly."),
    "03.2": Question(
        "Slices are 5 mm apart, and the attention branch sees five on either side of the one in "
        "question. How far apart are the centres of the first and of the last, in mm?",
        50, (
            (55, "Eleven slices have ten distances between them.", "Fence posts and gaps."),
            (25, "That is one side.", "Five on either side."),
            (45, "One slice too few.", "5 + 1 + 5 slices are eleven."),
            (11, "That is the number of slices.", "How far apart are they?"),
            (10, "That is the number of gaps.", "Each of them is 5 mm wide."),
            (5, "That is one gap, or the slices of one side.", "From the first to the last."),
            (60, "One slice too many.", "5 + 1 + 5 slices are eleven.")),
        "Ten distances of 5 mm. With slices of 1 mm the same network sees a fifth of that: it "
        "counts slices, not millimetres, and another slice gap is another view."),
    "04.1": Question(
        "In which epoch of `history` is the validation loss lowest?",
        _best_epoch, (
            (lambda history: _best_epoch(history, "train_loss"),
             "There the training loss is lowest.", "history.validation_loss"),
            (lambda history: _best_epoch(history, "validation_loss", True),
             "There the validation loss is highest.", "idxmin, not idxmax."),
            (lambda history: float(history.epoch.iloc[-1]), "That is the last one.",
             "A network may have been better before."),
            (lambda history: float(history.validation_loss.min()), "That is the loss itself.",
             "In which row does it stand? idxmin tells."),
            (lambda history: float(history.validation_loss.dropna().idxmin())
             if history.validation_loss.notna().any() else math.nan,
             "That is the row, which counts from 0.", "history.epoch of that row.")),
        "history.epoch[history.validation_loss.idxmin()]. Whether the weights of "
        "that epoch are kept, or the last ones, is the setting keep.", ("history",)),
    "04.2": Question(
        "The paper starts at a learning rate of 10⁻³, divides it by ten whenever the validation "
        "loss stands still, and stops as soon as it reaches 10⁻⁷. After how many divisions does "
        "it stop?",
        4, (
            (3, "10⁻⁶ is not there yet.", "Count: 10⁻⁴, 10⁻⁵, ..."),
            (5, "That is one more than needed.", "10⁻³ is where it starts, not a division."),
            (10, "Ten is the number of epochs without progress that it waits.",
             "How many times a tenth?"),
            (7, "That is the exponent at the end.", "From 3 to 7."),
            (10_000, "That is how much smaller it got.", "How many times a tenth?")),
        "Four: 10⁻⁴, 10⁻⁵, 10⁻⁶, 10⁻⁷. Each waits for ten epochs without progress, so that "
        "training takes forty epochs more than it needs."),
    "05.1": Question(
        "For how many cases of `measured` has the reader `model` no Dice of high opacity "
        "(structure `high_opacity`)?",
        lambda measured: float(_cases(measured).dice.isna().sum()), (
            (lambda measured: float(_cases(measured).dice.notna().sum()),
             "That is how many have one.", "isna, not notna."),
            (lambda measured: float(len(_cases(measured))), "These are all cases.",
             "Dice is empty where neither reader sees it."),
            (lambda measured: float((_cases(measured).dice == 0).sum()),
             "These have a Dice of 0: one of the two saw it, and they share nothing.",
             "Empty is not 0."),
            (lambda measured: float((_cases(measured, "expert").volume_ml == 0).sum()),
             "In these the expert sees none; the network may all the same.",
             "Both must see nothing."),
            (lambda measured: float((_cases(measured).volume_ml == 0).sum()),
             "In these the network sees none; the expert may all the same.",
             "Both must see nothing.")),
        "measured.query(\"reader == 'model' and structure == 'high_opacity'\").dice.isna().sum(). "
        "They are in no mean; a network that marks something in a healthy lung turns one of them "
        "into a 0.",
        ("measured",)),
    "05.2": Question(
        "Two cases. In the first 900 voxels are common, 100 only the expert's and 100 only the "
        "network's; in the second 5, 10 and 10. What is the Dice of all voxels thrown together "
        "(*pooled*)?",
        1810 / 2030, (
            ((0.9 + 1 / 3) / 2, "That is the mean of the two cases.",
             "Add the voxels first, then divide once."),
            (905 / 1125, "That is the Jaccard index of the pooled voxels.",
             "The common part counts twice, above and below."),
            (0.9, "That is the first case alone.", "The second has few voxels, but not none."),
            (1 / 3, "That is the second case alone.", "Add the voxels of both."),
            (905 / 2030, "It is half of it.",
             "Twice the common part, over the sum of both masks.")),
        "2 · 905 / (2 · 905 + 110 + 110) = 0.892; the mean of the two cases is "
        "0.617. The small lesion is nearly invisible in the first.", tolerance=0.004),
    "06.1": Question(
        "Five folds read the same external cases with a mean Dice of 0.70, 0.72, 0.74, 0.71 and "
        "0.78. Nothing but chance parts them. What should one expect of such a network on the "
        "next hospital's cases, which are alike?",
        0.73, (
            (0.78, "That is the best one: its luck will not come along.",
             "If nothing but chance parts them, each is as good as all."),
            (0.72, "That is the median; near, and no bad answer with so few.",
             "The mean is asked for."),
            (0.70, "That is the worst one: its bad luck will not come along either.",
             "If nothing but chance parts them, each is as good as all."),
            (0.71, "That is one of the folds.", "Which of them should stand for all?"),
            (0.74, "That is the middle of the lowest and the highest.", "The mean of all five.")),
        "0.73, their mean. Whoever prints 0.78 because it is the best has chosen on test cases.",
        tolerance=0.004),
    "06.2": Question(
        "How far apart are the best and the worst *fold* in the mean Dice of any lesion "
        "(`lesion`), over the external cases of `external`?",
        lambda external: float(_folds(external).max() - _folds(external).min()), (
            (lambda external: float(np.std(_folds(external), ddof=1)),
             "That is the SD of the folds.", "The largest minus the smallest."),
            (lambda external: float(_folds(external).max()), "That is the best fold itself.",
             "The largest minus the smallest."),
            (lambda external: float(_folds(external).min()), "That is the worst fold itself.",
             "The largest minus the smallest."),
            (lambda external: float(_folds(external).mean()), "That is their mean.",
             "The largest minus the smallest."),
            (lambda external: float(external[external.structure == "lesion"].dice.max()
                                    - external[external.structure == "lesion"].dice.min()),
             "That is from case to case.", "First the mean of each fold: groupby(\"reader\").")),
        "Rows of any lesion by readers that begin with fold-, grouped by "
        "reader, mean of dice, largest minus smallest. That much of a "
        "result is luck of the training cases.", ("external",), 0.02),
}
