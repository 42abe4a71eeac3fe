"""What three corrected cases bring the next patients, by several seeds: `docs/corrections.md`.

Usage: `python tools/measure_corrections.py RUN_FOLDER`, a run of the profile `quick`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from deeplung_nb.learning import corrected
from deeplung_nb.runs import read_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    run = read_run(options.run)
    strokes = corrected.recorded_strokes(run)
    print(corrected.replay(run, strokes, progress=False).round(3).to_string(index=False))
    judged = [corrected.train_on(run, strokes, seed=seed) for seed in range(options.seeds)]
    for seed, one in enumerate(judged):
        gains = corrected.compare_ways(one).set_index("structure")["gain"].round(4).to_dict()
        print(f"seed {seed}: gain {gains}")
    print(corrected.compare_ways(pd.concat(judged)).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
