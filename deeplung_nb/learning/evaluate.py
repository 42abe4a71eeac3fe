"""Measuring a case: rows of the expert, of further readers and of the networks, and their overlap.

A case that fails stays in the table as such. Nothing here knows of other cases, so that any process
can do it.
"""

from __future__ import annotations

import functools
import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from deeplung_nb.cohorts.cases import Case, read_case
from deeplung_nb.cohorts.manifest import Cohort
from deeplung_nb.files import write_text
from deeplung_nb.imaging import consensus
from deeplung_nb.imaging.body import body_mask, without_outside
from deeplung_nb.imaging.io import write_mask
from deeplung_nb.imaging.plausibility import examine
from deeplung_nb.imaging.preprocess import Restorer, prepare
from deeplung_nb.imaging.regions import LungRegions
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.labels import CONSENSUS, LESION_STRUCTURES, READER_PREFIX, structure_mask
from deeplung_nb.reading.predict import Predictor
from deeplung_nb.reading.table import FACTS
from deeplung_nb.reading.volumes import measure
from deeplung_nb.runs import Run
from deeplung_nb.stats import overlap


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


class Predictors:
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


def evaluate_case(run: Run, work: Work, predictors: Predictors) -> list[dict[str, Any]]:
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
