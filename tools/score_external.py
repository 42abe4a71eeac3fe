"""How the packaged network reads external slices: .venv/bin/python tools/score_external.py DATA

For docs/numbers.md: the mean of the packaged networks, and each alone.
"""

import sys
from pathlib import Path

from deeplung_nb.cohorts.manifest import read_cohort
from deeplung_nb.learning.estimate import score_external_slices
from deeplung_nb.network.packaged import packaged_checkpoints
from deeplung_nb.stats.dice import dice_table


def main(data: Path) -> None:
    """Print the table in Markdown."""
    files = packaged_checkpoints()
    readers = {"together": files, **{f"network {k}": [file] for k, file in enumerate(files)}}
    found = score_external_slices(readers, [read_cohort("coronacases_expert", data)])
    dice = found.pivot(index="case_id", columns="reader", values="dice")[list(readers)]
    sizes = found[found.reader == "together"].set_index("case_id")[["n_expert", "n_found"]]
    print(f"| slice | expert's pixels | found | {' | '.join(dice)} |")
    print(f"{'|---' * (len(readers) + 3)}|")
    for case, row in dice.iterrows():
        print(f"| {case} | {sizes.n_expert[case]:,} | {sizes.n_found[case]:,} | "
              f"{' | '.join(f'{value:.3f}' for value in row)} |")
    rows = {name: dice_table(found, test=name).set_index("averaging") for name in readers}
    for words, averaging, spread in ((f"mean of {len(dice)} slices ± SD", "per case", True),
                                     ("95 % interval, patients resampled", "per case", False),
                                     ("pooled pixels", "pooled", False)):
        cells = []
        for name in readers:
            one = rows[name].loc[[averaging]].iloc[0]
            cells.append(f"{one.dice:.3f} ± {one.sd_cases:.3f}" if spread else f"{one.dice:.3f}"
                         if averaging == "pooled" else f"{one.ci_lower:.3f} to {one.ci_upper:.3f}")
        print(f"| {words} | | | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
