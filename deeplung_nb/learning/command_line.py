"""The commands `train`, `train-packaged` and `ablate`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def _train(options: argparse.Namespace) -> None:
    from deeplung_nb.cohorts.cases import load_cohorts
    from deeplung_nb.learning.experiment import train_fold, train_side_by_side
    from deeplung_nb.learning.team import joined
    from deeplung_nb.runs import open_run
    from deeplung_nb.workers import Pool

    with joined() as team:
        if team.size > 1 and options.workers > 1:
            raise ValueError(f"--workers {options.workers} under torchrun: expected one or the "
                             "other, folds side by side or several processes for each")
        with team.first_before_others():
            run = open_run(options.profile, options.data, options.results)
            load_cohorts(run)
        folds = list(range(run.config.n_folds)) if options.fold is None else options.fold
        for fold in folds:
            if fold not in range(run.config.n_folds):
                raise ValueError(f"--fold {fold}: expected 0 to {run.config.n_folds - 1}")
        if options.workers > 1:
            with Pool(options.workers) as pool:
                train_side_by_side(run, [options.network], pool, folds=folds)
        for fold in folds:
            history = train_fold(run, fold, name=options.network)
            if team.is_first:
                several = "es" if team.size > 1 else ""
                print(f"fold {fold}: {len(history)} epochs by {team.size} process{several}, "
                      f"training loss {history['train_loss'].iloc[-1]:.4f}")
                print(run.folder / run.fold_folder(fold, options.network))


def _train_packaged(options: argparse.Namespace) -> None:
    from deeplung_nb.learning.release import train_packaged

    print(train_packaged(options.data, options.output, networks=options.networks,
                         results=options.results))


def _ablate(options: argparse.Namespace) -> None:
    from deeplung_nb.learning.ablation import ablate, summarise
    from deeplung_nb.runs import open_run

    run = open_run("public", options.data, options.results)
    print(summarise(ablate(run, options.seeds)).round(3).to_string(index=False))


def add_train(commands: Any) -> None:
    """The command `train`."""
    command = commands.add_parser(
        "train", help="train the folds of a run, by several devices where torchrun starts it",
        description="Train folds of a profile, or go on with them: 'reproduce' then finds them. "
                    "Started by torchrun (docs/scale.md), the processes of one or more machines "
                    "train each network together, and get the weights that one would get.")
    command.add_argument("--profile", help="as of reproduce")
    command.add_argument("--data", help="as of reproduce")
    command.add_argument("--results", help="as of reproduce")
    command.add_argument("--fold", type=int, action="append", help="repeat it for several "
                         "(default: all)")
    command.add_argument("--network", default="deeplung", help="deeplung (default), or a baseline "
                         "of the profile")
    command.add_argument("--workers", type=int, default=1, metavar="N",
                         help="folds that are trained side by side (default: 1)")
    command.set_defaults(run=_train)


def add_train_packaged(commands: Any) -> None:
    """The command `train-packaged`."""
    command = commands.add_parser(
        "train-packaged", help="train the network that comes with the package anew",
        description="Train the folds of the profile 'public' (or take those that 'reproduce' has "
                    "trained), test each on the patients it never saw, and write "
                    "deeplung_nb/weights/. An interrupted training goes on where it stopped.")
    command.add_argument("--data", type=Path, required=True,
                         help="folder with the cohorts of the profile 'public' and encoders/")
    command.add_argument("--output", type=Path, help="folder of the weights (default: the package)")
    command.add_argument("--networks", type=int, default=3,
                         help="folds whose networks are averaged (default 3)")
    command.add_argument("--results", type=Path, help="folder for the run (default: results/)")
    command.set_defaults(run=_train_packaged)


def add_ablate(commands: Any) -> None:
    """The command `ablate`."""
    command = commands.add_parser(
        "ablate", help="what each part of the recipe is worth",
        description="Train profile 'public' with one part changed at a time and test on patients "
                    "left out; up to two hours on two cores, resumable.")
    command.add_argument("--data", type=Path, required=True,
                         help="folder of the profile's cohorts, and encoders/")
    command.add_argument("--seeds", type=int, default=3, help="trainings of each (default 3)")
    command.add_argument("--results", type=Path, help="folder for the run (default: results/)")
    command.set_defaults(run=_ablate)
