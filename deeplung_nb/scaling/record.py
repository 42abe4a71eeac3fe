"""What is known of a scan's result: of which bytes it is, by which network, whether it is whole.

`record.json` is written last into a scan's folder. Who meets one that fits keeps the result; with
anything else (none, half a result, another scan, network or program) the scan is done anew. Paths
stand in no record, since folders and files are called after patients.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deeplung_nb.files import sha256_of, write_text
from deeplung_nb.labels import LESION_STRUCTURES
from deeplung_nb.measurements.contract import COLUMNS
from deeplung_nb.scaling.scans import ScanJob

SCANS, RECORD = "scans", "record.json"
REFUSED = "refused"
"""The one failure that lies in the scan: the same bytes are not tried again."""
PLAIN_WORDS = {"images", "image", "masks", "mask", "scans", "scan", "data", "lungs", "lung", "home",
               "tmp", "case", "cases", "series", "file", "files"}
"""Names of folders that name nobody, and stand in errors as words."""

UID, OF_A_SERIES = re.compile(r"\b\d+(\.\d+){5,}"), re.compile(r"\s*\d+: \d+ images?, ")
"""Of a DICOM object; a line of `list_series`, which holds free text of its header."""


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


@dataclass(frozen=True)
class Outcome:
    """What came of a scan in this call; its rows are in its record."""

    case_id: str
    kind: str
    """done, kept; refused, missing, unreadable, hung, died, memory, error; and what stops a cohort:
    disk (nothing can be written), worker (it has other files or another program)."""
    reason: str = ""
    seconds: float = 0.0
    host: str = ""


def inputs_of(job: ScanJob) -> dict[str, str]:
    """The files and folders that a scan is read from, by what they are."""
    return {name: path for name in ("image", "mask", "lung_mask")
            if (path := getattr(job, name)) is not None}


def _files(path: str) -> list[Path]:
    """All files of an input: those below a folder, and the voxels beside a detached header."""
    place = Path(path)
    if place.is_dir():
        return sorted(file for file in place.rglob("*") if file.is_file())
    from deeplung_nb.imaging.errors import ScanError
    from deeplung_nb.imaging.io import scan_files

    try:
        return scan_files(place, "")
    except ScanError:  # its header names voxels that are not there
        return [place]


def state_of(path: str) -> str:
    """Stands for place, size and time of an input's files: what tells that none was touched.

    Raises
    ------
    OSError
        One is not there, or may not be looked at.
    """
    facts = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in _files(path)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _bytes_of(path: str) -> str:
    lines = "".join(f"{sha256_of(file)}  {os.path.relpath(file, path)}\n" for file in _files(path))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def fingerprints(job: ScanJob) -> dict[str, dict[str, str]]:
    """State and bytes of a scan's inputs, taken before they are read.

    Raises
    ------
    OSError
        One can't be read.
    """
    return {name: {"files": state_of(path), "sha256": _bytes_of(path)}
            for name, path in inputs_of(job).items()}


def facts_of(job: ScanJob) -> dict[str, Any]:
    """What is said of a scan, but not where it lies: its bytes are known by their hashes."""
    facts = json.loads(json.dumps(asdict(job)))
    return {name: value for name, value in facts.items() if name not in inputs_of(job)}


def read_record(plan: Plan, job: ScanJob) -> dict[str, Any] | None:
    """A scan's record, if it is one of what is asked for now; else None."""
    try:
        record = json.loads((plan.folder(job.case_id) / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    needed = {"status", "kind", "reason", "job", "asked", "token", "inputs", "outputs", "rows"}
    if not isinstance(record, dict) or not needed <= set(record):
        return None
    return record if record["asked"] == plan.asked and record["job"] == facts_of(job) else None


def is_current(plan: Plan, job: ScanJob, record: dict[str, Any] | None) -> bool:
    """Whether a record is of this scan's bytes, and its results are whole.

    A clock that was set back does no harm: times are compared with what they were, not with now.
    """
    if record is None or (record["status"] != "ok" and record["kind"] != REFUSED):
        return False
    folder = plan.folder(job.case_id)
    with contextlib.suppress(OSError):
        return set(record["inputs"]) == set(inputs_of(job)) and all(
            sha256_of(folder / name) == digest for name, digest in record["outputs"].items()
        ) and all(
            (record["inputs"][name]["files"] == state_of(path) and not plan.verify)
            or record["inputs"][name]["sha256"] == _bytes_of(path)
            for name, path in inputs_of(job).items())
    return False


def write_record(plan: Plan, job: ScanJob, outcome: Outcome, rows: list[dict[str, Any]],
                 inputs: dict[str, dict[str, str]], outputs: dict[str, str]) -> None:
    """Say what came of a scan: the last file of its folder."""
    status = "ok" if outcome.kind == "done" else "failed"
    record = {"status": status, "kind": outcome.kind, "reason": outcome.reason,
              "job": facts_of(job), "asked": plan.asked, "token": plan.token,
              "seconds": round(outcome.seconds, 2), "host": outcome.host, "inputs": inputs,
              "outputs": outputs, "rows": rows}
    write_text(plan.folder(job.case_id) / RECORD, json.dumps(record, ensure_ascii=False))


def rows_for(plan: Plan, job: ScanJob, reader: str, measured: list[dict[str, Any]],
             status: str = "ok") -> list[dict[str, Any]]:
    """Rows of the table of measurements; what is not there is left out."""
    facts = {"run_id": plan.run_id, "cohort": job.cohort, "role": "external",
             "case_id": job.case_id, "patient_id": job.patient_id or job.case_id,
             "protocol": job.protocol, "scanner": job.scanner, "centre": job.centre,
             "reader": reader, "status": status}
    lines = []
    for values in measured:
        plain = {name: value.item() if hasattr(value, "item") else value
                 for name, value in values.items()}
        lines.append({name: value for name, value in {**facts, **plain}.items()
                      if name in COLUMNS and value is not None and value == value})
    return lines


def failed_rows(plan: Plan, job: ScanJob, reason: str) -> list[dict[str, Any]]:
    """A scan that failed stays in the table, as such: nothing is imputed."""
    empty = [{"structure": structure, "note": reason[:300]} for structure in LESION_STRUCTURES]
    readers = ["model", *(["expert"] if job.mask is not None else [])]
    return [line for reader in readers for line in rows_for(plan, job, reader, empty, "failed")]


def without_names(text: str, job: ScanJob) -> str:
    """Words without what names patients: folders, files, UIDs, descriptions of series."""
    text = "\n".join(line for line in text.splitlines() if not OF_A_SERIES.match(line))
    text = UID.sub("…", text)
    for what, path in inputs_of(job).items():
        if not text:
            break
        text = text.replace(path, f"<{what}>")
        names = set(Path(path).parts[1:])
        with contextlib.suppress(OSError, ValueError):
            for file in _files(path):
                names |= {file.name, *Path(os.path.relpath(file, path)).parts}
        with contextlib.suppress(OSError, ValueError, zipfile.BadZipFile):
            if zipfile.is_zipfile(path):
                names |= {part for name in zipfile.ZipFile(path).namelist()
                          for part in (name, *Path(name).parts)}
        # A number alone names nobody, and stands in messages as one.
        names = {name for name in names if len(name) > 2 and not name.isdigit()
                 and name.casefold() not in PLAIN_WORDS}
        for name in sorted(names, key=len, reverse=True):
            if name in text:
                text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "…", text)
    return text
