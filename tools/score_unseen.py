"""The packaged networks on unseen patients: .venv/bin/python tools/score_unseen.py DATA

Each is a fold of a cross-validation, named in its card: the volumes of that fold are read as they
are, and with disease made in their lungs (`learning.stress`).
"""

import sys
from pathlib import Path

import numpy as np

from deeplung_nb.cohorts.manifest import read_cohort
from deeplung_nb.cohorts.splits import read_splits
from deeplung_nb.learning.stress import NONE, score_unseen, summarise_made
from deeplung_nb.network.packaged import packaged_checkpoints, read_card
from deeplung_nb.report.numbers import number
from deeplung_nb.runs.registry import cohort_files

COHORT = "medseg2"


def markdown(head, rows):
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in lines)


def of_made(found):
    """By what was made: how much of it is found, and what becomes of the lungs."""
    return markdown(
        ["what is made", "cases", "of it found", "Dice of any lesion, mean ± SD",
         "volume found / there", "Dice of the lungs", "lung volume found / there"],
        [[row.made, row.n, "" if np.isnan(row.percent_of_made_found)
          else f"{row.percent_of_made_found:.0f} %", f"{number(row.dice)} ± {number(row.dice_sd)}",
          number(row.ratio), number(row.lungs_dice), number(row.lungs_ratio)]
         for row in summarise_made(found).itertuples()])


def main(data: Path) -> None:
    """Print both tables in Markdown."""
    cohort = read_cohort(COHORT, data)
    splits = read_splits(cohort_files(COHORT)[1], cohort.frame)
    checkpoints = {entry["fold"]: path for entry, path in zip(
        read_card()["files"], packaged_checkpoints(), strict=True)}
    found = score_unseen([cohort], splits, checkpoints, progress=False)
    print(markdown(
        ["case", "fold", "any lesion, mL: expert, network", "Dice", "lungs, mL: mask, network",
         "Dice of the lungs"],
        [[row.case_id, row.fold, f"{number(row.expert_ml)}, {number(row.found_ml)}",
          number(row.dice), f"{row.lungs_ml:.0f}, {row.lungs_found_ml:.0f}",
          number(row.lungs_dice)] for row in found[found.made == NONE].itertuples()]))
    print(f"\n{of_made(found)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
