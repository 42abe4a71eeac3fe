"""One scan of a cohort: measured, or found to be done; whatever goes wrong with it is told."""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import fcntl
import functools
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplung_nb.files import NO_LOCKS, explain, recover, remove_leftovers, sha256_of, write_text
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.labels import GGO, LESION_STRUCTURES
from deeplung_nb.runs.code import digest_of_rooms
from deeplung_nb.scaling.record import (
    RECORD,
    REFUSED,
    Outcome,
    Plan,
    failed_rows,
    fingerprints,
    inputs_of,
    is_current,
    read_record,
    rows_for,
    state_of,
    without_names,
    write_record,
)
from deeplung_nb.scaling.scans import ScanJob
from deeplung_nb.workers import MOST_DEATHS

if TYPE_CHECKING:  # torch is for who measures: a client that hands out scans stays small
    from deeplung_nb.imaging.scan import LesionMask
    from deeplung_nb.reading.segment import Segmentation, Segmenter

ATTEMPTS, HUNG, LOCK = "attempts.json", "hung.txt", ".lock"
OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Errors that every other scan would meet too; others do so only in the folder of the results."""


@functools.cache
def code_digest() -> str:
    """SHA-256 of the program on the way from a CT to a row, without comments."""
    return digest_of_rooms("imaging", "network", "reading", "labels.py", "kernels.py",
                           "measurements", "stats/lesions.py", "stats/overlap.py",
                           "stats/surface.py", "scaling/one.py", "scaling/record.py")


def describe_networks(checkpoints: Sequence[str | os.PathLike] | None) -> dict[str, Any]:
    """Files (absolute), hash and training data of these networks; default: the packaged one.

    Raises
    ------
    FileNotFoundError, ValueError
        A file is missing or no checkpoint of this package.
    """
    from deeplung_nb.reading.segment import Segmenter

    segmenter = Segmenter(list(checkpoints) if checkpoints else None)
    return {"checkpoints": tuple(os.path.abspath(path) for path in segmenter.checkpoints),
            "network_sha256": segmenter.network["sha256"],
            "trained_on": segmenter.network["trained_on"]}


class _WrongWorker(Exception):
    """This worker can measure no scan of the cohort."""


@functools.lru_cache(maxsize=1)
def _segmenter(checkpoints: tuple[str, ...], network_sha256: str) -> Segmenter:
    """The networks of a worker, loaded once; those that the call was planned with."""
    from deeplung_nb.reading.segment import Segmenter

    try:
        segmenter = Segmenter(checkpoints)
    except (OSError, ValueError) as error:
        raise _WrongWorker(str(error)) from error
    if segmenter.network["sha256"] != network_sha256:
        raise _WrongWorker(f"{', '.join(checkpoints)} are not the networks that the cohort is "
                           f"measured with ({network_sha256[:12]}…)")
    return segmenter


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One worker at a time: one that was given up for dead may still be at work.

    The lock goes with its process. On a disk without locks there is none.
    """
    with (folder / LOCK).open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield


@contextlib.contextmanager
def _limited(plan: Plan, folder: Path) -> Iterator[None]:
    """End this worker where the block takes too long, also one that never comes back to Python.

    `hung.txt` then tells where it was.
    """
    if plan.limit_seconds is None:
        yield
        return
    with (folder / HUNG).open("w", encoding="utf-8") as stream:
        faulthandler.dump_traceback_later(plan.limit_seconds, exit=True, file=stream)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
    (folder / HUNG).unlink(missing_ok=True)


def _deaths(plan: Plan, folder: Path) -> int:
    """How many workers this scan has ended in this call."""
    try:
        seen = json.loads((folder / ATTEMPTS).read_text(encoding="utf-8"))
        return int(seen["n"]) if seen["token"] == plan.token else 0
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0


def _has_hung(folder: Path) -> bool:
    try:
        return "Timeout" in (folder / HUNG).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return False


def measure_one(plan: Plan, job: ScanJob) -> Outcome:
    """Measure a scan, or find that it is done. Nothing is raised: what went wrong is told."""
    begin, folder = time.monotonic(), plan.folder(job.case_id)

    def outcome(kind: str, reason: str = "") -> Outcome:
        return Outcome(job.case_id, kind, " ".join(without_names(reason, job).split())[:400],
                       time.monotonic() - begin, socket.gethostname())

    try:
        if plan.code != code_digest():
            return outcome("worker", "it has another version of deeplung_nb than the call")
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            n_deaths = _deaths(plan, folder)
            if n_deaths and plan.limit_seconds and _has_hung(folder):
                return _fail(plan, job, outcome("hung", "took longer than "
                                                f"{plan.limit_seconds:g} s (--limit); {HUNG} in "
                                                "its folder says where it was"))
            if n_deaths >= MOST_DEATHS:
                return _fail(plan, job, outcome(
                    "died", f"ended {n_deaths} workers: it needs more memory than one has "
                            "(--memory), or they were killed"))
            write_text(folder / ATTEMPTS, json.dumps({"token": plan.token, "n": n_deaths + 1}))
            with _limited(plan, folder):
                found = _find_or_measure(plan, job, folder, outcome)
            (folder / ATTEMPTS).unlink(missing_ok=True)
            return found
    except _WrongWorker as error:
        return outcome("worker", str(error))
    except OSError as error:
        within = str(error.filename or "").startswith(plan.output)
        return outcome("disk" if error.errno in OF_WRITING or within else "error", explain(error))
    except Exception as error:
        return outcome("error", f"{type(error).__name__}: {error}")


def _find_or_measure(plan: Plan, job: ScanJob, folder: Path, outcome: Any) -> Outcome:
    recover(folder)
    record = read_record(plan, job)
    if record is not None and is_current(plan, job, record):
        if record["status"] != "ok":
            return outcome(record["kind"], record["reason"])
        # A worker may die between its record and its word of it.
        return outcome("done" if record["token"] == plan.token else "kept")
    (folder / RECORD).unlink(missing_ok=True)
    remove_leftovers(folder)
    absent = [what for what, path in inputs_of(job).items() if not os.path.exists(path)]
    if absent:
        return _fail(plan, job, outcome("missing", f"{' and '.join(absent)}: there is no such file "
                                        "or folder. Check the path in the list"))
    inputs: dict[str, dict[str, str]] = {}
    try:
        inputs = fingerprints(job)
        rows, outputs = _measure(plan, job, folder)
        if any(inputs[name]["files"] != state_of(path) for name, path in inputs_of(job).items()):
            return _fail(plan, job, outcome("error", "its files changed while it was measured"))
    except ScanError as error:
        unchanged = all(os.path.exists(path) and inputs[name]["files"] == state_of(path)
                        for name, path in inputs_of(job).items())
        return _fail(plan, job, outcome(REFUSED if unchanged else "error", str(error)), inputs)
    except MemoryError as error:
        return _fail(plan, job, outcome("memory", f"memory ran out ({error})"))
    except OSError as error:
        if error.errno in OF_WRITING or str(error.filename or "").startswith(plan.output):
            raise
        return _fail(plan, job, outcome("unreadable", explain(error)))
    except _WrongWorker:
        raise
    except Exception as error:  # whatever it is, it is this scan's: the others go on
        return _fail(plan, job, outcome("error", f"{type(error).__name__}: {error}"))
    done = outcome("done")
    write_record(plan, job, done, rows, inputs, outputs)
    return done


def _fail(plan: Plan, job: ScanJob, outcome: Outcome,
          inputs: dict[str, dict[str, str]] | None = None) -> Outcome:
    """Say so in its record; results of another time, when it could be measured, go."""
    folder = plan.folder(job.case_id)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(f"{job.case_id}_*"):
        path.unlink(missing_ok=True)
    write_record(plan, job, outcome, failed_rows(plan, job, outcome.reason), inputs or {}, {})
    (folder / ATTEMPTS).unlink(missing_ok=True)
    return outcome


def fail(plan: Plan, job: ScanJob, reason: str) -> Outcome:
    """Record that a scan could not be measured, for one that can't say so itself."""
    outcome = Outcome(job.case_id, "died", without_names(reason, job))
    with contextlib.suppress(OSError):
        _fail(plan, job, outcome)
    return outcome


def _measure(plan: Plan, job: ScanJob, folder: Path
             ) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The scan's rows, and the hashes of the files that were written."""
    segmenter = _segmenter(plan.checkpoints, plan.network_sha256)
    from deeplung_nb.imaging.dicom_objects import series_datasets
    from deeplung_nb.imaging.io import read_mask, read_scan
    from deeplung_nb.network.device import use_threads
    from deeplung_nb.reading.results import plan_outputs, write_segmentation

    use_threads(1)
    more = ["dicom_seg"] if plan.dicom_seg or plan.dicom_sr else []
    more += ["dicom_sr"] if plan.dicom_sr else []
    inputs = [Path(path) for path in inputs_of(job).values()]
    outputs = plan_outputs(folder, job.case_id, inputs, overwrite=True, more=more)
    scan = read_scan(job.image, case_id=job.case_id, series=job.series, force=plan.force)
    if more:
        series_datasets(scan)  # what DICOM can't be made for is said before the work
    expert, binary, fault = None, job.binary, ""
    if job.mask is not None:
        codes = {1: GGO.code} if binary else dict(job.mask_codes) if job.mask_codes else None
        try:
            expert = read_mask(job.mask, scan, codes)
        except ScanError as error:  # the CT is none the worse for it
            fault = without_names(f"the expert's mask can't be used: {error}", job)
        if binary is None and expert is not None:
            # Nobody said so: a mask of ones alone tells no classes apart.
            binary = int(expert.labels.max()) <= GGO.code
    result = segmenter(scan, job.lung_mask, case_id=job.case_id, force=plan.force, progress=False)
    structures = ("lesion",) if binary else LESION_STRUCTURES
    rows = _rows_of(plan, job, result, expert, structures)
    if fault:
        rows += rows_for(plan, job, "expert", [{"structure": name, "note": " ".join(fault.split())}
                                               for name in LESION_STRUCTURES], "failed")
    write_segmentation(result, outputs, overwrite=True)
    return rows, {path.name: sha256_of(path) for path in outputs}


def _rows_of(plan: Plan, job: ScanJob, result: Segmentation, expert: LesionMask | None,
             structures: tuple[str, ...]) -> list[dict[str, Any]]:
    from deeplung_nb.imaging.regions import LungRegions
    from deeplung_nb.reading.volumes import measure

    scan, lungs = result.scan, result.lungs
    regions = None if lungs is None else LungRegions.of(lungs)
    found = measure(scan, result.mask, lungs, reference=expert, regions=regions,
                    structures=structures if expert is not None else LESION_STRUCTURES)
    for row in found:
        row["note"] = without_names("; ".join([row["note"], *result.warnings]), job)
    lines = rows_for(plan, job, "model", found)
    if expert is not None:
        lines += rows_for(plan, job, "expert", measure(scan, expert, lungs, structures=structures,
                                                       regions=regions))
    return lines
