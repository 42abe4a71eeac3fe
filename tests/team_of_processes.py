"""What each process of a team does in `test_team.py`: `torchrun` starts several of these.

`python team_of_processes.py <folder>` trains, in <folder>/<name>, each network of `NETWORKS`.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch
from test_train import SMALL, StopAfter, make_cases

from deeplung_nb.learning.team import Team, joined
from deeplung_nb.learning.train import train
from deeplung_nb.runs.config import Config, UNetConfig

# Plain gradient steps: Adam's would turn a rounding into a whole step where a gradient is nothing.
SGD = dataclasses.replace(SMALL.training, optimiser="sgd", learning_rate=0.02, batch_slices=6,
                          rotation_degrees=5.0, hu_noise=20.0, blur_fraction=0.5, flip=True,
                          hu_offset=10.0, hu_gain=0.05)


def settings(network=None, baselines=(), **training) -> Config:
    return dataclasses.replace(
        SMALL, training=dataclasses.replace(SGD, **training), baselines=baselines,
        network=dataclasses.replace(SMALL.network, **(network or {})))


NETWORKS = {
    "rmi": ("deeplung", settings(main_branch_loss=0.4, average_decay=0.5)),
    "classes": ("deeplung", settings({"lungs": True, "output": "softmax"}, region_weight=0.0,
                                     class_weight=1.0, lung_weight=0.3, made_fraction=0.5)),
    "plateau": ("deeplung", settings(schedule="plateau", keep="best", gradient_norm=1.0)),
    "parts": ("deeplung", settings(accumulate=3)),
    "unet2d": ("unet2d", settings(baselines=(UNetConfig("unet2d", 2),))),
    "interrupted": ("deeplung", settings(max_epochs=4)),
}
EPOCHS_BEFORE = 2
"""Of the interrupted one, which then goes on with another number of processes."""


def cases():
    lungs = np.zeros((6, 32, 32), bool)
    lungs[:, 4:28, 4:28] = True
    return [dataclasses.replace(case, lungs=lungs, lungs_marked=True) for case in make_cases()]


def train_one(folder, name, **options):
    network, config = NETWORKS[name]
    training = cases()
    return train(training, training[:1], config, folder / name, seed=5, name=network,
                 progress=False, device=torch.device("cpu"), **options)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with joined() as team:
        assert team == Team.current()
        for name in NETWORKS:
            watchers = [StopAfter(epochs=EPOCHS_BEFORE)] if name == "interrupted" else []
            history = train_one(folder, name, watchers=watchers)
            (folder / f"{name}-{team.rank}-of-{team.size}.csv").write_text(
                history.drop(columns="seconds").to_csv(index=False))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
