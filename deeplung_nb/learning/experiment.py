"""The study: training of the folds, cross-validation and external validation of one run.

Each function leaves its result in the run folder and finds it there the next time, so that the
notebooks can call them in any order and an interrupted study goes on where it stopped.
"""

from __future__ import annotations

import functools
import itertools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from deeplung_nb import measurements, workers
from deeplung_nb.cohorts.cases import find_volumes, load_cohorts, load_splits, read_for_training
from deeplung_nb.cohorts.manifest import Cohort
from deeplung_nb.cohorts.splits import CaseKey, fold_cases
from deeplung_nb.imaging.lungs import lungs_for
from deeplung_nb.learning.dataset import (
    PreparedCase,
    prepare_case,
    prepare_slice,
    read_prepared,
    write_prepared,
)
from deeplung_nb.learning.evaluate import Predictors, Reader, Work, evaluate_case
from deeplung_nb.learning.team import Team
from deeplung_nb.learning.train import train_whole
from deeplung_nb.learning.watchers import Stopped, Watcher
from deeplung_nb.network.checkpoint import CHECKPOINT
from deeplung_nb.network.deeplung import DeepLungNet
from deeplung_nb.network.device import choose_device, use_threads
from deeplung_nb.reading.table import collect, write_rows
from deeplung_nb.runs import Run
from deeplung_nb.runs.progress import ENVIRONMENT, Progress, track

WORKERS = "DEEPLUNG_WORKERS"
"""Environment: processes that train and measure side by side, where none is told."""


def prepared_cases(
    run: Run, cohorts: list[Cohort], keys: Sequence[CaseKey], progress: bool = True,
    tell: Callable[[], None] | None = None,
) -> list[PreparedCase]:
    """Cases on the network's grid, prepared once and kept in `prepared/<cohort>/`.

    `tell` is called after each.

    Raises
    ------
    ValueError
        A case can't train: its mask does not tell the classes apart.
    """
    by_name = {cohort.name: cohort for cohort in cohorts}
    needs_lungs = run.config.network.lungs or any(
        one and one.made_fraction > 0.0 for one in (run.config.first, run.config.training))
    prepared = []
    for key in track(keys, "prepare", "case", shown=progress):
        folder, cohort = run.folder / "prepared" / key.cohort, by_name[key.cohort]
        case = read_prepared(key.case_id, folder,
                             source="volume" if cohort.slices is None else "slice")
        if case is None:
            scan, mask = read_for_training(cohort, key.case_id)
            size = run.config.network.image_size
            lungs = lungs_for(scan, cohort.lung_mask_path(key.case_id)) \
                if needs_lungs else None
            case = prepare_case(scan, mask, size, lungs) if cohort.slices is None else \
                prepare_slice(scan, mask, size, cohort.slices.longest_share, lungs)
            write_prepared(case, folder)
        prepared.append(case)
        if tell is not None:
            tell()
    return prepared


def train_fold(run: Run, fold: int, progress: bool = True, *, name: str = DeepLungNet.name,
               watchers: Sequence[Watcher] = (), **options: Any) -> pd.DataFrame:
    """Train one fold (or go on, or find it done): its history, one row per epoch.

    `name` is that of the network: `deeplung`, or one of the run's baselines; `watchers` are told
    from the first case that is made ready. In a team (`learning.team`) all of its processes call
    this.
    """
    team = Team.current()
    cohorts = load_cohorts(run)
    parts = fold_cases(load_splits(run, cohorts), fold)
    ready = itertools.count(1)
    n_cases = len(parts.train) + len(parts.validation)

    def tell() -> None:
        n_done = next(ready)
        if any([watcher.prepare(n_done, n_cases) for watcher in watchers]):
            raise Stopped

    progress = progress and team.is_first
    try:
        with team.first_before_others():
            training, validation = (prepared_cases(run, cohorts, keys, progress, tell)
                                    for keys in (parts.train, parts.validation))
    except Stopped:  # what is ready is kept for the next time
        history = pd.DataFrame()
        history.attrs["finished"] = False
        return history
    history = train_whole(
        training, validation,
        run.config, run.path(run.fold_folder(fold, name), CHECKPOINT).parent,
        seed=run.config.seed + fold, name=name, progress=progress, data=run.data,
        watchers=watchers, **options,
    )
    if not team.is_first:
        return history
    folder = run.folder / run.fold_folder(fold, name)
    seconds = sum(sum(pd.read_csv(path)["seconds"]) for path in folder.rglob("history.csv"))
    work = _work_of(fold, name)
    run.record(work, device=str(choose_device()), threads=torch.get_num_threads(),
               **({"processes": team.size} if team.size > 1 else {}),
               torch_cpu=torch.backends.cpu.get_cpu_capability(),
               **{f"seconds_{work}": round(seconds, 1)})
    return history


def _work_of(fold: int, name: str) -> str:
    """Under which the facts of a training are recorded, once it has ended."""
    return f"train_fold_{fold}" if name == DeepLungNet.name else f"train_{name}_fold_{fold}"


def _part(run: Run, role: str, row: pd.Series) -> Path:
    return run.path("measured", role, row.cohort, f"{row.case_id}.json")


@functools.cache
def _kept_predictors(batch: int) -> Predictors:
    """Of a worker, which measures one case after the other."""
    return Predictors(batch)


def _at_work(run: Run) -> None:
    """What a worker does before its work: on a machine with several GPUs each takes its own."""
    use_threads(run.config.threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(workers.number() % torch.cuda.device_count())


def _prepare_task(task: tuple[Run, CaseKey]) -> None:
    run, key = task
    prepared_cases(run, load_cohorts(run), [key], progress=False)


def _train_task(task: tuple[Run, int, str]) -> None:
    run, fold, name = task
    _at_work(run)
    # Their bars would lie on top of each other; a program can tell their lines apart.
    train_fold(run, fold, progress=ENVIRONMENT in os.environ, name=name)


def _measure_task(task: tuple[Run, str, Work]) -> None:
    run, role, work = task
    _at_work(run)
    _measure(run, role, work, _kept_predictors(run.config.batch_predict))


def _measure(run: Run, role: str, work: Work, predictors: Predictors) -> None:
    """One case into its part of the table."""
    write_rows(evaluate_case(run, work, predictors), _part(run, role, work.row))


def train_side_by_side(run: Run, networks: Sequence[str], pool: workers.Pool,
                       progress: bool = True, folds: Sequence[int] | None = None) -> None:
    """Train folds (default: all) of these networks, as calls of `train_fold` leave them."""
    cohorts = load_cohorts(run)
    folds = range(run.config.n_folds) if folds is None else folds
    tasks = [(run, fold, name) for name in networks for fold in folds]
    left = [task for task in tasks
            if not run.folder.joinpath("facts", f"{_work_of(*task[1:])}.json").exists()]
    if not left:
        return
    splits = load_splits(run, cohorts)
    parts = [fold_cases(splits, fold) for fold in folds]
    keys = dict.fromkeys(key for one in parts for key in [*one.train, *one.validation])
    missing = [(run, key) for key in keys
               if read_prepared(key.case_id, run.folder / "prepared" / key.cohort) is None]
    for _ in track(pool.each(_prepare_task, missing), "prepare", "case", len(missing),
                   progress and bool(missing)):
        pass
    # Each of them writes progress of its own where a program follows.
    shown = progress and ENVIRONMENT not in os.environ
    with Progress("train", len(tasks), "network", len(tasks) - len(left), shown) as bar:
        for _ in pool.each(_train_task, left):
            bar.update()


def _evaluate(run: Run, role: str, todo: list[Work], progress: bool,
              pool: workers.Pool) -> pd.DataFrame:
    start = time.perf_counter()
    left = [work for work in todo if not _part(run, role, work.row).exists()]
    with Progress(f"measure {role}", len(todo), "case", len(todo) - len(left), progress) as bar:
        if pool.n > 1:
            for _ in pool.each(_measure_task, [(run, role, work) for work in left]):
                bar.update()
        else:
            use_threads(run.config.threads)
            predictors = Predictors(run.config.batch_predict)
            for work in left:
                _measure(run, role, work, predictors)
                bar.update()
    frame = collect(run)
    if left:
        seconds = round(time.perf_counter() - start, 1)
        run.record(f"measure_{role}", **{f"seconds_measure_{role}": seconds})
    return frame.query("role == @role").reset_index(drop=True)


def _how_many(n_workers: int | None) -> int:
    """As told, or as the environment says; else one."""
    text = os.environ.get(WORKERS) or "1"
    if n_workers is None and not text.isdecimal():
        raise ValueError(f"{WORKERS}={text}: expected a number of processes")
    return max(1, int(text) if n_workers is None else n_workers)


def cross_validate(run: Run, progress: bool = True,
                   n_workers: int | None = None) -> pd.DataFrame:
    """Train all folds and measure each case with the networks that never saw its patient.

    Parameters
    ----------
    n_workers
        Processes that train folds and measure cases side by side, each with the threads of the
        settings (or a GPU of its own): results are those of one process, to the byte, on CPUs.
        Default: `DEEPLUNG_WORKERS` of the environment, else one.

    Returns
    -------
    DataFrame
        Rows of measurements.csv with role `cv`; reader `model` is the fold's network, the
        baselines of the run are readers under their own names.
    """
    cohorts = load_cohorts(run)
    splits = load_splits(run, cohorts)
    fold_of = {(cohort, case_id): int(fold) for cohort, case_id, fold in zip(
        splits["cohort"], splits["case_id"], splits["fold"], strict=True)}
    names = {"model": DeepLungNet.name, **{unet.name: unet.name for unet in run.config.baselines}}
    with workers.Pool(_how_many(n_workers)) as pool:
        if pool.n > 1:
            train_side_by_side(run, list(names.values()), pool, progress)
        for name in names.values():
            for fold in range(run.config.n_folds):
                train_fold(run, fold, progress, name=name)
        todo = []
        for cohort, row in find_volumes(cohorts, "cv"):
            fold = fold_of[row.cohort, row.case_id]
            todo.append(Work(cohort, row, {
                reader: Reader(name, _checkpoints(run, [fold], name), fold)
                for reader, name in names.items()}))
        return _evaluate(run, "cv", todo, progress, pool)


def _checkpoints(run: Run, folds: Sequence[int], name: str = DeepLungNet.name) -> tuple[Path, ...]:
    """The trained networks of these folds."""
    return tuple(run.require(run.fold_folder(fold, name), CHECKPOINT,
                             made_by="05_cross_validation.ipynb") for fold in folds)


def chosen_fold(run: Run) -> int:
    """The fold whose kept weights have the lowest validation loss: no test case has a say."""
    losses = []
    for fold in range(run.config.n_folds):
        path = run.require(f"fold-{fold}", "history.csv", made_by="05_cross_validation.ipynb")
        history = pd.read_csv(path)["validation_loss"]
        losses.append(history.min() if run.config.training.keep == "best" else history.iloc[-1])
    if np.isnan(losses).all():
        return 0  # no validation cases: any fold is as good a choice
    return int(np.nanargmin(losses))


def validate_external(run: Run, progress: bool = True,
                      n_workers: int | None = None) -> pd.DataFrame:
    """Measure the external cohorts with every fold's network, the chosen one and the ensemble.

    `n_workers` as of `cross_validate`.

    Returns
    -------
    DataFrame
        Rows of measurements.csv with role `external`, empty where no cohort has such cases.
        Readers: `model` (the fold with the best validation loss), `fold-0` ..., `ensemble`.
    """
    cohorts = load_cohorts(run)
    cases = list(find_volumes(cohorts, "external"))
    if not cases:
        return measurements.read(run.measurements_csv).query("role == 'external'")
    chosen = chosen_fold(run)
    folds = range(run.config.n_folds)
    kind, files = DeepLungNet.name, _checkpoints(run, folds)
    readers = {"model": Reader(kind, (files[chosen],), chosen),
               **{f"fold-{fold}": Reader(kind, (files[fold],), fold) for fold in folds},
               "ensemble": Reader(kind, files, None)}
    run.record("choice", external_model_fold=chosen)
    todo = [Work(cohort, row, readers) for cohort, row in cases]
    with workers.Pool(_how_many(n_workers)) as pool:
        return _evaluate(run, "external", todo, progress, pool)
