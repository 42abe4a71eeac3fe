"""What averaging the weights is worth: .venv/bin/python tools/compare_averaging.py RUN DATA

Each unseen case by its fold's averaged weights, and by the weights themselves. These are written
beside the checkpoints as not-averaged.pt.
"""

import sys

import numpy as np
import pandas as pd

from deeplung_nb.cohorts.cases import load_cohorts, load_splits
from deeplung_nb.cohorts.splits import fold_cases
from deeplung_nb.imaging.preprocess import normalise_hu
from deeplung_nb.learning.ablation import not_averaged
from deeplung_nb.learning.estimate import Unseen, count_overlap
from deeplung_nb.learning.experiment import prepared_cases
from deeplung_nb.network.checkpoint import CHECKPOINT
from deeplung_nb.reading.predict import Predictor
from deeplung_nb.runs import read_run


def main(folder, data):
    run = read_run(folder, data)
    cohorts = load_cohorts(run)
    splits = load_splits(run, cohorts)
    rows = []
    for fold in range(run.config.n_folds):
        place = run.folder / run.fold_folder(fold)
        keys = fold_cases(splits, fold).test
        cases = prepared_cases(run, cohorts, keys, False)
        for how, path in (("averaged", place / CHECKPOINT), ("not averaged", not_averaged(place))):
            predictor = Predictor.from_checkpoints([path], batch=8)
            for key, case in zip(keys, cases, strict=True):
                prepared = normalise_hu(np.asarray(case.hu, np.float32))
                scores = np.concatenate([batch.mean(axis=0) for batch in
                                         predictor.scores_per_network(prepared)])
                unseen = Unseen(key, fold, case.source == "slice", scores, np.asarray(case.target))
                rows += [{"weights": how, **row} for row in
                         count_overlap(unseen, run.config.network.lesion_threshold)]
    table = pd.DataFrame(rows).groupby(["isolated", "structure", "weights"])["dice"].mean()
    print(table.unstack().round(3).to_string())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
