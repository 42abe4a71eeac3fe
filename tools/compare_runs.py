"""How far two runs of one profile differ: .venv/bin/python tools/compare_runs.py RUN OTHER

For docs/numbers.md: how far numbers move between machines and numbers of threads.
"""

import sys
from pathlib import Path

import pandas as pd

from deeplung_nb import measurements
from deeplung_nb.stats import summary
from deeplung_nb.stats.dice import dice_table

KEY = ["cohort", "case_id", "reader", "structure"]
ROUNDING_ML = 1e-6
"""A millionth of a millilitre is the last digit of a sum, no other volume."""


def main_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """Role and structure -> rank correlation, bias and limits (mL), Dice (empty pairs left out)."""
    by = ["role", "structure"]
    agreement = summary.agreement_table(frame, by=tuple(by)).set_index(by)
    dice = dice_table(frame, by=("role",))
    dice = dice[(dice["empty"] == "nan") | (dice["averaging"] == "pooled")]
    wide = dice.drop_duplicates([*by, "averaging"]).pivot(index=by, columns="averaging",
                                                          values="dice").add_prefix("dice ")
    return agreement[["spearman", "bias", "loa_lower", "loa_upper"]].join(wide)


def main(one: Path, other: Path) -> None:
    """Print what differs."""
    frames = [measurements.read(path / "measurements.csv") for path in (one, other)]
    a, b = (frame.set_index(KEY) for frame in frames)
    machine = a.index.get_level_values("reader") != "expert"
    moved = (a.volume_ml - b.volume_ml.reindex(a.index)).abs()[machine]
    moved = moved.where(moved > ROUNDING_ML, 0.0)
    by_reader = moved.groupby("reader").agg(
        n="size", differ=lambda values: int((values > 0).sum()), most="max",
        median=lambda values: values[values > 0].median())
    print(f"{int((moved > 0).sum())} of {machine.sum()} volumes by machine differ, by up to "
          f"{moved.max():.1f} mL (median of those {moved[moved > 0].median():.2f} mL)\n"
          f"{by_reader.round(2).to_string()}\n")
    first, second = map(main_numbers, frames)
    print(first.astype(float).round(3).to_string(), "\n\ndifference:")
    print((second - first).astype(float).round(3).to_string())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
