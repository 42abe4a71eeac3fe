"""One scan of a cohort: measured once, and known again.

A scan's folder holds its results and `record.json`, which is written last: what was measured, of
which bytes, by which network and which code, and the hashes of the results. Who meets a record that
fits keeps it; anything else (none, half a result, another scan, network or program) is done anew.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import functools
import hashlib
import json
import math
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeplung_nb.files import explain, recover, remove_leftovers, sha256_of, write_text
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.labels import GGO, LESION_STRUCTURES
from deeplung_nb.measurements.contract import COLUMNS
from deeplung_nb.runs.code import digest_of_rooms
from deeplung_nb.scaling.scans import ScanJob

if TYPE_CHECKING:  # torch is for who measures: a client that hands out scans stays small
    from deeplung_nb.reading.segment import Segmentation, Segmenter

SCANS, RECORD, ATTEMPTS, HUNG = "scans", "record.json", "attempts.json", "hung.txt"
MOST_DEATHS = 3
"""A scan that ends so many workers is a failure."""
KEPT_KINDS = ("refused",)
"""Failures that lie in the scan: the same scan is not tried again."""
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM,
               errno.EIO)
"""Errors of writing that every other scan would meet too."""


@functools.cache
def code_digest() -> str:
    """SHA-256 of the program on the way from a CT to a row, without comments."""
    return digest_of_rooms("imaging", "network", "reading", "labels.py", "kernels.py",
                           "measurements", "stats/lesions.py", "stats/overlap.py",
                           "stats/surface.py", "scaling/one.py")


def short_hash(text: str) -> str:
    """Twelve digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Plan:
    """How the scans of a cohort are measured: the same for all of them, and for all workers."""

    output: str
    checkpoints: tuple[str, ...]
    network_sha256: str
    trained_on: str
    run_id: str
    code: str
    token: str
    """Of this call: what earlier calls counted against a scan is forgotten."""
    force: bool = False
    limit_seconds: float | None = None
    verify: bool = False
    """Whether a scan's bytes are compared also where size and time of its files are the same."""
    dicom_seg: bool = False
    dicom_sr: bool = False

    def folder(self, case_id: str) -> Path:
        """Where a scan's results lie."""
        return Path(self.output) / SCANS / case_id

    @property
    def asked(self) -> dict[str, Any]:
        """What besides the scan decides its result."""
        return {"network": self.network_sha256, "code": self.code, "force": self.force,
                "dicom": [self.dicom_seg, self.dicom_sr]}


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


@dataclass(frozen=True)
class Outcome:
    """What came of a scan in this call; its rows are in its record."""

    case_id: str
    kind: str
    """done, kept; refused, missing, hung, died, memory, error; disk: nothing can be written."""
    reason: str = ""
    seconds: float = 0.0
    host: str = ""


def _files(path: str) -> list[Path]:
    place = Path(path)
    return sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() \
        else [place]


def _stat(path: str) -> str:
    """Stands for place, size and time of each file of a scan: what tells that nothing was touched.

    A hash, since folders and files are called after patients.
    """
    facts = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in _files(path)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def without_names(reason: str, job: ScanJob) -> str:
    """An error's words without the names of the scan's folders and files."""
    for what, path in _inputs(job).items():
        reason = reason.replace(path, f"<{what}>")
        names = {Path(path).name, *({name for file in _files(path) for name in (
            file.relative_to(path).as_posix(), file.name)} if Path(path).is_dir() else ())}
        for name in sorted(names, key=len, reverse=True):
            reason = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", f"<file of {what}>", reason)
        parent = Path(path).parent
        while parent != parent.parent:
            reason = reason.replace(f"{parent}{os.sep}", f"<folder of {what}>/")
            parent = parent.parent
    return reason


def _inputs(job: ScanJob) -> dict[str, str]:
    return {name: path for name in ("image", "mask", "lung_mask")
            if (path := getattr(job, name)) is not None}


def read_record(folder: Path) -> dict[str, Any] | None:
    """A scan's record; None where there is none, or no whole one."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, NotADirectoryError):
        return None
    needed = {"status", "job", "asked", "token"}
    return record if isinstance(record, dict) and needed <= set(record) else None


def is_current(plan: Plan, job: ScanJob, record: dict[str, Any] | None) -> bool:
    """Whether a record is of this scan's bytes, asked for in the same way, and its results whole.

    A clock that was set back does no harm: times are compared with what they were, not with now.
    """
    if record is None or record["asked"] != plan.asked or record["job"] != _as_json(job):
        return False
    if record["status"] != "ok" and record["kind"] not in KEPT_KINDS:
        return False
    folder = plan.folder(job.case_id)
    for name, digest in record["outputs"].items():
        path = folder / name
        if not path.is_file() or sha256_of(path) != digest:
            return False
    for name, path in _inputs(job).items():
        known = record["inputs"].get(name)
        if known is None or not Path(path).exists():
            return False
        if (plan.verify or known["files"] != _stat(path)) and sha256_of(path) != known["sha256"]:
            return False
    return True


def _as_json(job: ScanJob) -> dict[str, Any]:
    """What is said of a scan, but not where it lies: its bytes are known by their hashes."""
    facts = json.loads(json.dumps(asdict(job)))
    return {name: value for name, value in facts.items() if name not in _inputs(job)}


@functools.lru_cache(maxsize=1)
def _segmenter(checkpoints: tuple[str, ...], network_sha256: str) -> Segmenter:
    """The networks of a worker, loaded once; those that the call was planned with.

    Raises
    ------
    ValueError
        This machine has other files under these names.
    """
    from deeplung_nb.reading.segment import Segmenter

    segmenter = Segmenter(checkpoints)
    if segmenter.network["sha256"] != network_sha256:
        raise ValueError(f"{socket.gethostname()}: {', '.join(checkpoints)} are not the networks "
                         f"that the cohort is measured with ({network_sha256[:12]}…). Give all "
                         "machines the same files")
    return segmenter


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


def measure_one(plan: Plan, job: ScanJob) -> Outcome:
    """Measure a scan, or find that it is done. Nothing is raised: what went wrong is told."""
    begin = time.monotonic()
    folder = plan.folder(job.case_id)

    def outcome(kind: str, reason: str = "") -> Outcome:
        return Outcome(job.case_id, kind, " ".join(without_names(reason, job).split())[:400],
                       time.monotonic() - begin, socket.gethostname())

    try:
        if plan.code != code_digest():
            return outcome("error", f"{socket.gethostname()} has another version of deeplung_nb "
                                    "than the call. Install the same one on all machines")
        recover(folder)
        record = read_record(folder)
        if is_current(plan, job, record):
            assert record is not None
            if record["status"] != "ok":
                return outcome(record["kind"], record["reason"])
            # A worker may die between its record and its word of it.
            return outcome("done" if record["token"] == plan.token else "kept")
        n_deaths = _deaths(plan, folder)
        hung = (folder / HUNG).exists() and "Timeout" in (folder / HUNG).read_text("utf-8")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORD).unlink(missing_ok=True)
        if n_deaths and hung:
            return _fail(plan, job, outcome("hung", f"took longer than {plan.limit_seconds:g} s "
                                            f"(--limit); {HUNG} in its folder says where it was"))
        if n_deaths >= MOST_DEATHS:
            return _fail(plan, job, outcome("died", f"ended {n_deaths} workers: it needs more "
                                            "memory than one has (--memory), or they were killed"))
        write_text(folder / ATTEMPTS, json.dumps({"token": plan.token, "n": n_deaths + 1}))
        remove_leftovers(folder)
        with _limited(plan, folder):
            try:
                rows, outputs = _measure(plan, job, folder)
            except FileNotFoundError as error:
                return _fail(plan, job, outcome("missing", str(error)))
            except (ScanError, ValueError) as error:
                gone = not all(Path(path).exists() for path in _inputs(job).values())
                return _fail(plan, job, outcome("missing" if gone else "refused", str(error)))
            except MemoryError as error:
                return _fail(plan, job, outcome("memory", f"memory ran out ({error})"))
            except OSError:
                raise
            except Exception as error:  # whatever it is, it is this scan's: the others go on
                return _fail(plan, job, outcome("error", f"{type(error).__name__}: {error}"))
        written = outcome("done")
        _write_record(plan, job, {"status": "ok", "kind": "done", "reason": "", "rows": rows,
                                  "seconds": round(written.seconds, 2), "host": written.host,
                                  "outputs": outputs})
        return written
    except OSError as error:
        kind = "disk" if error.errno in OF_THE_DISK else "error"
        return outcome(kind, explain(error))
    except Exception as error:
        return outcome("error", f"{type(error).__name__}: {error}")


def _write_record(plan: Plan, job: ScanJob, facts: dict[str, Any]) -> None:
    folder = plan.folder(job.case_id)
    inputs = {name: {"sha256": sha256_of(path), "files": _stat(path)}
              for name, path in _inputs(job).items() if Path(path).exists()}
    record = {"job": _as_json(job), "asked": plan.asked, "run_id": plan.run_id,
              "token": plan.token, **facts, "inputs": inputs}
    write_text(folder / RECORD, json.dumps(record, indent=None, ensure_ascii=False,
                                           default=lambda value: value.item()))
    for name in (ATTEMPTS, HUNG) if facts["kind"] != "hung" else (ATTEMPTS,):
        (folder / name).unlink(missing_ok=True)


def _fail(plan: Plan, job: ScanJob, outcome: Outcome) -> Outcome:
    """A scan that failed stays in the table, as such: nothing is imputed."""
    empty = [{"structure": structure, "note": outcome.reason[:300]}
             for structure in LESION_STRUCTURES]
    readers = ["model", *(["expert"] if job.mask is not None else [])]
    rows = [line for reader in readers for line in _rows(plan, job, reader, empty, "failed")]
    _write_record(plan, job, {"status": "failed", "kind": outcome.kind, "reason": outcome.reason,
                              "rows": rows, "seconds": round(outcome.seconds, 2),
                              "host": outcome.host, "outputs": {}})
    return outcome


def fail(plan: Plan, job: ScanJob, reason: str) -> Outcome:
    """Record that a scan could not be measured, for one that can't say so itself."""
    return _fail(plan, job, Outcome(job.case_id, "died", without_names(reason, job)))


def _rows(plan: Plan, job: ScanJob, reader: str, measured: list[dict[str, Any]],
          status: str = "ok") -> list[dict[str, Any]]:
    facts = {"run_id": plan.run_id, "cohort": job.cohort, "role": "external",
             "case_id": job.case_id,
             "patient_id": job.patient_id or job.case_id, "protocol": job.protocol,
             "scanner": job.scanner, "centre": job.centre}
    return [{name: value for name, value in {**facts, "reader": reader, "status": status,
                                             **_plain(values)}.items()
             if name in COLUMNS and value is not None} for values in measured]


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Numbers as Python has them; what is not there is left out."""
    plain = {name: value.item() if hasattr(value, "item") else value
             for name, value in values.items()}
    return {name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in plain.items()}


def _measure(plan: Plan, job: ScanJob, folder: Path
             ) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The scan's rows, and the hashes of the files that were written."""
    from deeplung_nb.imaging.io import read_mask, read_scan
    from deeplung_nb.network.device import use_threads
    from deeplung_nb.reading.results import plan_outputs, write_segmentation

    use_threads(1)
    more = ["dicom_seg"] if plan.dicom_seg or plan.dicom_sr else []
    more += ["dicom_sr"] if plan.dicom_sr else []
    inputs = [Path(path) for path in _inputs(job).values()]
    outputs = plan_outputs(folder, job.case_id, inputs, overwrite=True, more=more)
    scan = read_scan(job.image, case_id=job.case_id, series=job.series, force=plan.force)
    expert = None
    if job.mask is not None:
        codes = {1: GGO.code} if job.binary else dict(job.mask_codes) if job.mask_codes else None
        expert = read_mask(job.mask, scan, codes)
    result = _segmenter(plan.checkpoints, plan.network_sha256)(
        scan, job.lung_mask, case_id=job.case_id, force=plan.force, progress=False)
    rows = _rows_of(plan, job, result, expert)
    write_segmentation(result, outputs, overwrite=True)
    return rows, {path.name: sha256_of(path) for path in outputs}


def _rows_of(plan: Plan, job: ScanJob, result: Segmentation, expert: Any) -> list[dict[str, Any]]:
    from deeplung_nb.imaging.regions import LungRegions
    from deeplung_nb.reading.volumes import measure

    scan, lungs = result.scan, result.lungs
    regions = None if lungs is None else LungRegions.of(lungs)
    structures = ("lesion",) if job.binary else LESION_STRUCTURES
    found = measure(scan, result.mask, lungs, reference=expert, regions=regions,
                    structures=structures if expert is not None else LESION_STRUCTURES)
    for row in found:
        row["note"] = "; ".join([row["note"], *result.warnings])
    lines = _rows(plan, job, "model", found)
    if expert is not None:
        lines += _rows(plan, job, "expert", measure(scan, expert, lungs, structures=structures,
                                                    regions=regions))
    return lines
