"""The study: training of the folds, cross-validation and external validation of one run.

Each function leaves its result in the run folder and finds it there the next time, so that the
notebooks can call them in any order and an interrupted study goes on where it stopped.
"""

from __future__ import annotations

import functools
import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from deeplung_nb import measurements
from deeplung_nb.cohorts.cases import (
    Case,
    find_volumes,
    load_cohorts,
    load_splits,
    read_case,
    read_for_training,
)
from deeplung_nb.cohorts.manifest import Cohort
from deeplung_nb.cohorts.splits import CaseKey, fold_cases
from deeplung_nb.files import write_text
from deeplung_nb.imaging import consensus
from deeplung_nb.imaging.body import body_mask, without_outside
from deeplung_nb.imaging.io import write_mask
from deeplung_nb.imaging.lungs import lungs_for
from deeplung_nb.imaging.plausibility import examine
from deeplung_nb.imaging.preprocess import Restorer, prepare
from deeplung_nb.imaging.regions import LungRegions
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.labels import CONSENSUS, LESION_STRUCTURES, READER_PREFIX, structure_mask
from deeplung_nb.learning.dataset import (
    PreparedCase,
    prepare_case,
    prepare_slice,
    read_prepared,
    write_prepared,
)
from deeplung_nb.learning.train import Stopped, Watcher, train_whole
from deeplung_nb.network.checkpoint import CHECKPOINT
from deeplung_nb.network.deeplung import DeepLungNet
from deeplung_nb.network.device import choose_device, use_threads
from deeplung_nb.reading.predict import Predictor
from deeplung_nb.reading.volumes import measure
from deeplung_nb.runs import Run
from deeplung_nb.runs.progress import Progress, track
from deeplung_nb.stats import overlap

FACTS = ("cohort", "role", "case_id", "patient_id", "protocol", "scanner", "centre")


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
    from the first case that is made ready.
    """
    cohorts = load_cohorts(run)
    parts = fold_cases(load_splits(run, cohorts), fold)
    ready = itertools.count(1)
    n_cases = len(parts.train) + len(parts.validation)

    def tell() -> None:
        n_done = next(ready)
        if any([watcher.prepare(n_done, n_cases) for watcher in watchers]):
            raise Stopped

    try:
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
    folder = run.folder / run.fold_folder(fold, name)
    seconds = sum(pd.read_csv(path)["seconds"].sum() for path in folder.rglob("history.csv"))
    label = f"fold_{fold}" if name == DeepLungNet.name else f"{name}_fold_{fold}"
    run.record(f"train_{label}", device=str(choose_device()), threads=torch.get_num_threads(),
               torch_cpu=torch.backends.cpu.get_cpu_capability(),
               **{f"seconds_train_{label}": round(float(seconds), 1)})
    return history


def _rows(run: Run, row: pd.Series, reader: str, fold: int | None, measured: list[dict[str, Any]],
          status: str = "ok") -> list[dict[str, Any]]:
    facts = {name: row[name] for name in FACTS}
    return [{"run_id": run.run_id, **facts, "fold": fold, "reader": reader, "status": status,
             **values} for values in measured]


def _failed(run: Run, row: pd.Series, folds: dict[str, int | None],
            error: Exception) -> list[dict[str, Any]]:
    """A case that failed stays in the table, as such: nothing is imputed."""
    note = " ".join(str(error).split())[:300]
    empty = [{"structure": structure, "note": note} for structure in LESION_STRUCTURES]
    return [line for reader, fold in folds.items()
            for line in _rows(run, row, reader, fold, empty, status="failed")]


class Reader(NamedTuple):
    """A machine reader: the mean score of some networks of one kind."""

    network: str
    """`deeplung`, or the name of a baseline."""
    checkpoints: tuple[Path, ...]
    fold: int | None


class Work(NamedTuple):
    """A case to measure, and the machine readers to measure it with: values, no live network."""

    cohort: Cohort
    row: pd.Series
    readers: dict[str, Reader]


class _Predictors:
    """The predictors of a run, each loaded once."""

    def __init__(self, batch: int) -> None:
        self._load = functools.cache(
            lambda checkpoints: Predictor.from_checkpoints(checkpoints, batch=batch))

    def masks(self, readers: dict[str, Reader], scan: Scan, size: int) -> dict[str, LesionMask]:
        """Each reader's mask of a scan; every network scores it once."""
        prepared, box = prepare(scan, size)
        restorers = {name: Restorer(box, scan) for name in readers}
        for kind in dict.fromkeys(reader.network for reader in readers.values()):
            mine = {name: reader for name, reader in readers.items() if reader.network == kind}
            files = tuple(dict.fromkeys(
                path for reader in mine.values() for path in reader.checkpoints))
            predictor = self._load(files)
            for scores in predictor.scores_per_network(prepared):
                for name, reader in mine.items():
                    own = [files.index(path) for path in reader.checkpoints]
                    restorers[name].add(predictor.decide(scores[own]))
        body = body_mask(scan)
        return {name: without_outside(restorer.mask(), body)
                for name, restorer in restorers.items()}


def _evaluate_case(run: Run, work: Work, predictors: _Predictors) -> list[dict[str, Any]]:
    """Rows of the expert and of each reader for one case; the mask of `model` is written."""
    config = run.config
    cohort, row = work.cohort, work.row
    # Surface distances take long where a mask is wild, and Table 4 has none.
    baselines = {unet.name for unet in config.baselines}
    folds = {"expert": work.readers["model"].fold,
             **{name: reader.fold for name, reader in work.readers.items()}}
    try:
        case = read_case(cohort, row.case_id)
        odd = examine(case.scan, case.lungs)
        regions = None if case.lungs is None else LungRegions.of(case.lungs)
        lines = _rows(run, row, "expert", folds["expert"], measure(
            case.scan, case.expert, case.lungs, structures=case.structures, regions=regions))
        lines += _read_by_others(run, row, case, regions, folds["expert"])
        masks = predictors.masks(work.readers, case.scan, config.network.image_size)
        for name, mask in masks.items():
            lines += _rows(run, row, name, folds[name], measure(
                case.scan, mask, case.lungs, reference=case.expert, structures=case.structures,
                tolerance_mm=config.nsd_tolerance_mm, surface=name not in baselines,
                regions=regions))
        for line in lines:
            line["note"] = "; ".join([line["note"], *(f"implausible: {error}" for error in
                                                      odd.errors), *odd.warnings])
        _compare_readers(run, row, case, masks["model"])
        write_mask(masks["model"], run.path("masks", row.cohort, f"{row.case_id}.nii.gz"))
    except (ValueError, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise  # a full disk is no property of the case
        others = {f"{READER_PREFIX}{name}": folds["expert"] for name in cohort.readers}
        return _failed(run, row, {**folds, **others}, error)
    return lines


def _together(case: Case) -> dict[str, LesionMask]:
    """Everybody's mask of a case, and of three or more what they say together."""
    people = {"expert": case.expert, **{f"{READER_PREFIX}{name}": mask
                                        for name, mask in case.readers.items() if mask is not None}}
    if len(people) < consensus.FEWEST:
        return people
    masks = list(people.values())
    ways = (consensus.majority(masks), consensus.staple(masks))
    return {**people, **dict(zip(CONSENSUS, ways, strict=True))}


def _read_by_others(run: Run, row: pd.Series, case: Case, regions: LungRegions | None,
                    fold: int | None) -> list[dict[str, Any]]:
    """Rows of further readers and of their consensus; of one who has not read it, unread."""
    if not case.readers:
        return []
    masks = _together(case)
    wanted = [f"{READER_PREFIX}{name}" for name in case.readers]
    wanted += CONSENSUS if len(wanted) + 1 >= consensus.FEWEST else []
    unread = [{"structure": name, "note": "not read by this reader, or by too few for a consensus"}
              for name in case.structures]
    lines = [line for name in wanted if name not in masks
             for line in _rows(run, row, name, fold, unread, status="unread")]
    for name, mask in masks.items():
        if name != "expert":
            lines += _rows(run, row, name, fold, measure(
                case.scan, mask, case.lungs, reference=case.expert, structures=case.structures,
                tolerance_mm=run.config.nsd_tolerance_mm, regions=regions))
    return lines


def _compare_readers(run: Run, row: pd.Series, case: Case, model: LesionMask) -> None:
    """Overlap of every two readers, the network and the consensus among them, beside the rows."""
    if not case.readers:
        return
    masks = {**_together(case), "model": model}
    lines = []
    for (first, one), (second, other) in itertools.combinations(masks.items(), 2):
        for structure in case.structures:
            counts = overlap.confusion(structure_mask(one.labels, structure),
                                       structure_mask(other.labels, structure))
            size = 2 * counts.tp + counts.fp + counts.fn
            lines.append({"cohort": row.cohort, "role": row.role, "case_id": row.case_id,
                          "patient_id": row.patient_id, "structure": structure,
                          "first": first, "second": second,
                          "dice": 2 * counts.tp / size if size else None})
    write_text(run.path("between_readers", row.role, row.cohort, f"{row.case_id}.json"),
               json.dumps(lines))


def overlap_between_readers(run: Run) -> pd.DataFrame:
    """Dice of every two readers in every case: `first, second, dice`; empty of one reader."""
    paths = sorted(run.folder.glob("between_readers/*/*/*.json"))
    return pd.DataFrame([line for path in paths
                         for line in json.loads(path.read_text(encoding="utf-8"))])


def _part(run: Run, role: str, row: pd.Series) -> Path:
    return run.path("measured", role, row.cohort, f"{row.case_id}.json")


def _collect(run: Run) -> pd.DataFrame:
    """measurements.csv from all parts there are."""
    lines = [line for path in sorted(run.folder.glob("measured/*/*/*.json"))
             for line in json.loads(path.read_text(encoding="utf-8"))]
    frame = pd.DataFrame(lines)
    for name in measurements.COLUMNS:
        if name not in frame:
            frame[name] = np.nan
    frame = frame[list(measurements.COLUMNS)]
    return measurements.read(measurements.write(frame, run.path("measurements.csv")))


def _evaluate(run: Run, role: str, todo: list[Work], progress: bool) -> pd.DataFrame:
    use_threads(run.config.threads)
    start = time.perf_counter()
    parts = [_part(run, role, work.row) for work in todo]
    left = [(work, part) for work, part in zip(todo, parts, strict=True) if not part.exists()]
    predictors = _Predictors(run.config.batch_predict)
    with Progress(f"measure {role}", len(todo), "case", len(todo) - len(left), progress) as bar:
        for work, part in left:
            write_text(part, json.dumps(_evaluate_case(run, work, predictors), default=_plain))
            bar.update()
    frame = _collect(run)
    if left:
        seconds = round(time.perf_counter() - start, 1)
        run.record(f"measure_{role}", **{f"seconds_measure_{role}": seconds})
    return frame.query("role == @role").reset_index(drop=True)


def _plain(value: Any) -> Any:
    """numpy's scalars and pandas' missing values for JSON."""
    if value is pd.NA:
        return None
    return value.item()


def cross_validate(run: Run, progress: bool = True) -> pd.DataFrame:
    """Train all folds and measure each case with the networks that never saw its patient.

    Returns
    -------
    DataFrame
        Rows of measurements.csv with role `cv`; reader `model` is the fold's network, the
        baselines of the run are readers under their own names.
    """
    cohorts = load_cohorts(run)
    splits = load_splits(run, cohorts)
    fold_of = splits.set_index(["cohort", "case_id"])["fold"]
    names = {"model": DeepLungNet.name, **{unet.name: unet.name for unet in run.config.baselines}}
    folds = range(run.config.n_folds)
    for name in names.values():
        for fold in folds:
            train_fold(run, fold, progress, name=name)
    todo = []
    for cohort, row in find_volumes(cohorts, "cv"):
        fold = int(fold_of[row.cohort, row.case_id])
        todo.append(Work(cohort, row, {
            reader: Reader(name, _checkpoints(run, [fold], name), fold)
            for reader, name in names.items()}))
    return _evaluate(run, "cv", todo, progress)


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


def validate_external(run: Run, progress: bool = True) -> pd.DataFrame:
    """Measure the external cohorts with every fold's network, the chosen one and the ensemble.

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
    return _evaluate(run, "external", todo, progress)
