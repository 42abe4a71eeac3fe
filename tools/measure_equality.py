"""What faster scoring changes on real CTs: .venv/bin/python tools/measure_equality.py DATA [CASE]

DATA holds medseg2/. For each case: the fast way against the plain one, one thread against two, and
what leaving out slices far from the lungs would save and lose.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from deeplung_nb.imaging.io import read_scan
from deeplung_nb.imaging.lungs import lungs_for
from deeplung_nb.imaging.preprocess import prepare, restore
from deeplung_nb.network.packaged import packaged_checkpoints
from deeplung_nb.reading.predict import Predictor

BESIDE = 5
"""Slices of a window on each side: beyond so many no lung is in any window of the lungs."""


def main(folder, cases):
    ways = {name: Predictor.from_checkpoints(packaged_checkpoints(), fast=name != "plain")
            for name in ("plain", "fast")}
    rows = []
    for case in cases:
        scan = read_scan(folder / "medseg2" / "rp_im" / f"{case}.nii.gz", case_id=case)
        prepared, box = prepare(scan, 256)
        scores, labels = {}, {}
        for name, threads in (("plain", 2), ("fast", 2), ("fast", 1)):
            torch.set_num_threads(threads)
            batches = list(ways[name].score_batches(prepared))
            scores[name, threads] = np.concatenate(batches)
            labels[name, threads] = restore(iter(batches), box, scan).labels
        fast, its = scores["fast", 2], labels["fast", 2]
        lungs = lungs_for(scan)
        where = np.flatnonzero(lungs.mask.any(axis=(1, 2))) if lungs else np.arange(scan.n_slices)
        far = np.ones(scan.n_slices, bool)
        far[max(0, where[0] - BESIDE):where[-1] + BESIDE + 1] = False
        rows.append({
            "case": case, "slices": scan.n_slices, "lesion voxels": int((its > 0).sum()),
            "fast, score": np.abs(fast - scores["plain", 2]).max(),
            "fast, voxels": int((its != labels["plain", 2]).sum()),
            "1 thread, score": np.abs(fast - scores["fast", 1]).max(),
            "1 thread, voxels": int((its != labels["fast", 1]).sum()),
            "far from lungs": int(far.sum()), "lesion voxels there": int((its[far] > 0).sum()),
        })
        print(pd.DataFrame(rows[-1:]).to_string(index=False, header=len(rows) == 1), flush=True)
    table = pd.DataFrame(rows)
    print(table.drop(columns="case").agg(
        {name: "max" if "score" in name else "sum" for name in table.columns[1:]}).to_string())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or ["1", "2", "3", "5", "6", "8"])
