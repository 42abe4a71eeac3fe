"""Does training with sharpened windows make the packaged network steadier? For docs/numbers.md.

    .venv/bin/python tools/train_packaged_on.py DATA RUNS [EPOCHS]

DATA holds the cohorts of the profile `public` and `dicom/lung_pet_ct_dx_a0001`; in RUNS lie the
run and the trainings, which go on where they stopped. Each packaged network trains on from its
weights on the patients that it was trained on, with and without sharpened windows, as many steps
and the same draws' seed. Patients that trained in none judge. Half an hour on two cores.
"""

import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
from compare_reading import AS_IT_IS, FEWEST_ML, of_slices, of_volumes
from measure_variants import measured, variants

from deeplung_nb.cohorts.cases import load_cohorts, load_splits
from deeplung_nb.cohorts.splits import fold_cases
from deeplung_nb.imaging.io import read_scan
from deeplung_nb.learning.experiment import prepared_cases
from deeplung_nb.learning.train import train
from deeplung_nb.network.checkpoint import CHECKPOINT
from deeplung_nb.network.packaged import packaged_checkpoints, read_card
from deeplung_nb.reading.predict import Predictor
from deeplung_nb.runs import open_run

WAYS = {"trained on": 0.0, "trained on, sharpened in 40 %": 0.4}
RATE = 2.5e-4
FORMS = ("soft kernel (Gaussian, 1 pixel)", "mean of 2×2 pixels", "sharp kernel",
         "sharp kernel, noise of 25 HU")


def train_on(data: Path, runs: Path, epochs: int) -> dict[str, list[Path]]:
    """Way -> its networks, in the order of the packaged ones."""
    run = open_run("public", data=str(data), results=str(runs))
    cohorts = load_cohorts(run)
    splits = load_splits(run, cohorts)
    found: dict[str, list[Path]] = {"packaged": packaged_checkpoints()}
    for way, share in WAYS.items():
        config = replace(run.config, first=None, training=replace(
            run.config.training, max_epochs=epochs, learning_rate=RATE, warmup_steps=5,
            sharpen_fraction=share))
        found[way] = []
        for entry, start in zip(read_card()["files"], packaged_checkpoints(), strict=True):
            fold = entry["fold"]
            cases = prepared_cases(run, cohorts, fold_cases(splits, fold).train, progress=False)
            folder = runs / f"on-{share:g}-{epochs}" / f"fold-{fold}"
            train(cases, [], config, folder, seed=100 + fold, start=start, data=run.data,
                  progress=f"{way}, fold {fold}")
            found[way].append(folder / CHECKPOINT)
    return found


def judge(data: Path, checkpoints: list[Path]) -> dict[str, float]:
    """Dice of unseen volumes and slices, mL where there is nearly nothing, and of a CT's forms."""
    rows = pd.DataFrame(of_volumes(data, checkpoints) + of_slices(data, checkpoints))
    rows = rows[rows["way"] == AS_IT_IS]
    little = (rows["kind"] == "volume") & (rows["expert_ml"] < FEWEST_ML)
    dice = rows[~little].groupby("kind")["dice"].mean()
    scan = read_scan(data / "dicom" / "lung_pet_ct_dx_a0001")
    predictor = Predictor.from_checkpoints(checkpoints)
    ml = {name: measured(name, *rest, predictor)["lesion"] for name, *rest in variants(scan)
          if name in (AS_IT_IS, *FORMS)}
    return {"volumes, mean Dice": dice["volume"], "slices, mean Dice": dice["slice"],
            "mL in the nearly healthy": rows.loc[little, "found_ml"].sum(),
            "mL in the tumour's CT": ml[AS_IT_IS],
            **{f"{name}, %": 100 * (ml[name] / ml[AS_IT_IS] - 1) for name in FORMS}}


def main(data: Path, runs: Path, epochs: int = 5) -> None:
    """Print the table in Markdown."""
    table = pd.DataFrame({way: judge(data, paths)
                          for way, paths in train_on(data, runs, epochs).items()}).T
    print("| network | " + " | ".join(table.columns) + " |")
    print("|---" * (len(table.columns) + 1) + "|")
    for way, row in table.iterrows():
        cells = [f"{value:+.1f}" if name.endswith("%") else
                 f"{value:.3f}" if name.endswith("Dice") else f"{value:.1f}"
                 for name, value in row.items()]
        print(f"| {way} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:4]))
