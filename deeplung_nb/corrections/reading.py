"""One reader's reading of one scan: opened, gone on with, finished, measured.

A folder holds the marks it began with (`start.nii.gz`), the journal of all strokes, and, once it is
finished, the mask and its record. Whatever dies in between, the journal has every stroke that the
reader has seen drawn.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from deeplung_nb import __version__
from deeplung_nb.corrections.drawing import REDO, UNDO, Drawing, Step
from deeplung_nb.corrections.journal import Journal, JournalError
from deeplung_nb.corrections.tools import StrokeError
from deeplung_nb.files import TakenError, check_name, only_one, sha256_of, write_text
from deeplung_nb.imaging.io import read_mask, write_mask
from deeplung_nb.imaging.scan import LesionMask, Scan

START, LUNGS, JOURNAL = "start.nii.gz", "lungs.nii.gz", "journal.jsonl"
MASK, RECORD = "mask.nii.gz", "reading.json"
NOTHING = "nothing"
"""A reading that begins without marks says so."""
VERSION = 1
MOST_SECONDS = 300.0
"""More time between two strokes was no work at this reading."""
_open: dict[Path, Reading] = {}


class ReadingError(ValueError):
    """A reading that can't be opened, or not be changed: says why, and what to do."""


def scan_digest(scan: Scan, name: str) -> str:
    """SHA-256 over a scan's voxels, where they lie, and the name it is read under.

    The same for the same CT in another file; two readings of one CT under two names don't show
    that it is one.
    """
    digest = hashlib.sha256(np.ascontiguousarray(scan.hu, "<i2").data)
    digest.update(name.encode())
    digest.update(np.round(scan.affine, 3).astype("<f8").tobytes())
    return digest.hexdigest()


def _labels_digest(labels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(labels, np.uint8).data).hexdigest()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """An interrupt (Jupyter's stop button) waits: a stroke is on disk and in the marks, or neither.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[object] = []
    before = signal.signal(signal.SIGINT, lambda *_: caught.append(_))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        raise KeyboardInterrupt


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _spent(seconds: float) -> float:
    return round(min(max(float(seconds), 0.0), MOST_SECONDS), 1)


class Reading:
    """A reading that is open in this process; `Reading.open` makes one.

    Attributes
    ----------
    labels
        The marks as they are now, codes [z, y, x].
    seconds
        What the reader has worked at it, in all sittings.
    """

    def __init__(self, folder: Path, drawing: Drawing, journal: Journal,
                 stack: contextlib.ExitStack) -> None:
        self.folder, self.drawing, self.journal, self._stack = folder, drawing, journal, stack
        self.begin = journal.events[0]
        self.seconds, self.finished, self.n_strokes = 0.0, False, 0
        # A page's strokes may come in another thread than cells run in (JupyterLab's subshells).
        self._turn = threading.RLock()
        for event in journal.events[1:]:
            self._follow(event)

    @classmethod
    def open(cls, scan: Scan, reader: str, folder: str | os.PathLike, *,
             start: LesionMask | np.ndarray | None = None, start_from: str = NOTHING,
             lungs: np.ndarray | None = None, facts: Mapping[str, Any] | None = None) -> Reading:
        """Begin a reading, or go on with it.

        Parameters
        ----------
        scan
            The CT.
        reader
            Who reads: a name or initials, which become part of the folder.
        folder
            Of all readings of this scan; the reading lies in `<folder>/<reader>`.
        start, start_from
            The marks that it begins with (none: empty), and whose they are, such as `automatic`.
            A reading that was begun keeps its own.
        lungs
            Mask [z, y, x] for tools that stay in them; a reading that was begun keeps its own.
        facts
            What else the record should say: plain values.

        Raises
        ------
        ReadingError
            It is open elsewhere, of another scan, or damaged.
        """
        place = Path(folder).resolve() / check_name(reader, "reader")
        if place in _open:  # its cell was run again
            _open[place].close()
        stack = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            undo.callback(stack.close)
            try:
                stack.enter_context(only_one(place, f"has the reading of {reader} open"))
            except TakenError as error:
                raise ReadingError(str(error)) from None
            try:
                reading = cls._load(place, scan, reader, start, start_from, lungs, facts, stack)
            except JournalError as error:
                raise ReadingError(str(error)) from None
            undo.pop_all()
        _open[place] = reading
        return reading

    @classmethod
    def _load(cls, place: Path, scan: Scan, reader: str, start: LesionMask | np.ndarray | None,
              start_from: str, lungs: np.ndarray | None, facts: Mapping[str, Any] | None,
              stack: contextlib.ExitStack) -> Reading:
        if lungs is not None:
            scan.require_shape(lungs, "lungs")
        journal = Journal(place / JOURNAL)
        stack.callback(journal.close)
        if not journal.events:
            labels = start.labels if isinstance(start, LesionMask) else start
            labels = np.zeros(scan.shape, np.uint8) if labels is None else labels
            scan.require_shape(labels, "start")
            write_mask(LesionMask.like(scan, labels.astype(np.uint8)), place / START)
            if lungs is not None:
                write_mask(LesionMask.like(scan, lungs.astype(np.uint8)), place / LUNGS)
            journal.write({"event": "begin", "version": VERSION, "reader": reader,
                           "case_id": scan.case_id,
                           "scan_sha256": scan_digest(scan, scan.case_id),
                           "start_sha256": _labels_digest(labels), "start_from": start_from,
                           "lungs_sha256": None if lungs is None else _labels_digest(lungs),
                           "at": _now(), "package": __version__, "facts": dict(facts or {})})
        begin = journal.events[0]
        if begin.get("event") != "begin" or begin.get("version") != VERSION:
            raise ReadingError(f"{place / JOURNAL}: of version {begin.get('version')!r}, expected "
                               f"{VERSION}. Open it with the package that wrote it")
        if begin["scan_sha256"] != scan_digest(scan, begin["case_id"]):
            raise ReadingError(f"{place}: a reading of another scan (case {begin['case_id']!r}): "
                               "voxels or geometry differ. Open the scan it was drawn on, or "
                               "choose another folder")
        labels = read_mask(place / START, scan).labels
        if _labels_digest(labels) != begin["start_sha256"]:
            raise ReadingError(f"{place / START}: not the marks that the reading began with. "
                               "Restore the file from a copy")
        kept_lungs = None
        if begin["lungs_sha256"] is not None:  # those of the day when it was begun
            kept_lungs = read_mask(place / LUNGS, scan).labels.astype(bool)
            if _labels_digest(kept_lungs) != begin["lungs_sha256"]:
                raise ReadingError(f"{place / LUNGS}: not the lungs that the reading began with. "
                                   "Restore the file from a copy")
        drawing = Drawing(scan, labels, kept_lungs)
        strokes = [event for event in journal.events if event["event"] == "stroke"]
        for number, event in enumerate(strokes, 1):
            try:
                step = drawing.apply(event["stroke"])
            except StrokeError as error:
                raise ReadingError(f"{place / JOURNAL}: stroke {number} can't be drawn again "
                                   f"({error})") from None
            if step.check != event["check"]:
                raise ReadingError(f"{place / JOURNAL}: stroke {number} changes other voxels than "
                                   f"it did with deeplung_nb {begin['package']}, which drew it. "
                                   "Open the reading with that version")
        reading = cls(place, drawing, journal, stack)
        if reading.finished:
            reading._complete()
        return reading

    def _complete(self) -> None:
        """What finishing leaves, where it was killed on the way."""
        path = self.folder / RECORD
        kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if kept.get("finished") and kept.get("mask_sha256") == _labels_digest(self.labels):
            return
        write_mask(self.mask, self.folder / MASK)
        self._record()

    def _follow(self, event: Mapping[str, Any]) -> None:
        self.seconds += float(event.get("seconds", 0.0))
        kind = event["event"]
        self.n_strokes += kind == "stroke"
        self.finished = {"finish": True, "reopen": False}.get(kind, self.finished)

    def _write(self, event: Mapping[str, Any]) -> None:
        event = {**event, "at": _now()}
        self.journal.write(event)
        self._follow(event)

    @property
    def scan(self) -> Scan:
        """The CT."""
        return self.drawing.scan

    @property
    def reader(self) -> str:
        """Who reads."""
        return self.begin["reader"]

    @property
    def labels(self) -> np.ndarray:
        """The marks as they are now."""
        return self.drawing.labels

    @property
    def mask(self) -> LesionMask:
        """The marks as they are now, on the scan's grid."""
        return LesionMask.like(self.scan, self.labels.copy())

    def draw(self, stroke: Mapping[str, Any], seconds: float = 0.0) -> Step:
        """Apply a stroke, once it is on disk; `seconds` is the work since the last one.

        Raises
        ------
        ReadingError
            The reading is finished.
        StrokeError
            It is no stroke, or there is nothing to take back.
        """
        with self._turn, _uninterrupted():
            self._require_open()
            return self.drawing.apply(stroke, lambda step: self._write(
                {"event": "stroke", "stroke": dict(stroke), "seconds": _spent(seconds),
                 "check": step.check}))

    def undo(self) -> Step:
        """Take the last stroke back."""
        return self.draw({"tool": UNDO})

    def redo(self) -> Step:
        """Draw again what was taken back last."""
        return self.draw({"tool": REDO})

    def note(self, what: str, **facts: Any) -> None:
        """Write into the journal what else happened, such as what was shown."""
        with self._turn, _uninterrupted():
            self._write({"event": what, **facts})

    def work(self, seconds: float) -> None:
        """So much more work was done without a stroke; none at a finished reading."""
        if not self.finished and _spent(seconds) > 0:
            self.note("active", seconds=_spent(seconds))

    def finish(self) -> Path:
        """Write mask and record; nothing is drawn any more, unless it is reopened with a reason."""
        with self._turn:
            self._require_open()
            write_mask(self.mask, self.folder / MASK)
            self.note("finish", mask_sha256=_labels_digest(self.labels))
            self._record()
        return self.folder / MASK

    def reopen(self, reason: str) -> None:
        """Go on with a finished reading; the reason stays in its record.

        Raises
        ------
        ReadingError
            No reason is given.
        """
        if not reason.strip():
            raise ReadingError("a finished reading is reopened for a reason: give it in words")
        if self.finished:
            self.note("reopen", reason=reason.strip())
            self._record()

    def _require_open(self) -> None:
        if self.finished:
            raise ReadingError(f"the reading of {self.reader} is finished: reopen it with a reason "
                               "(reading.reopen('...'), which is kept)")

    def record(self) -> dict[str, Any]:
        """Who read, from whose marks, how long, with how many strokes, when."""
        events = self.journal.events
        tools = [event["stroke"]["tool"] for event in events if event["event"] == "stroke"]
        return {
            "reader": self.reader, "case_id": self.begin["case_id"],
            "scan_sha256": self.begin["scan_sha256"], "start_from": self.begin["start_from"],
            "start_sha256": self.begin["start_sha256"], "mask_sha256": _labels_digest(self.labels),
            "active_seconds": round(self.seconds, 1), "strokes": self.n_strokes,
            "tools": {tool: tools.count(tool) for tool in sorted(set(tools))},
            "begun": self.begin["at"], "finished": self.finished,
            "finished_at": [event["at"] for event in events if event["event"] == "finish"],
            "reopened": [{"at": event["at"], "reason": event["reason"]} for event in events
                         if event["event"] == "reopen"],
            "package": __version__, **self.begin["facts"],
        }

    def _record(self) -> None:
        write_text(self.folder / RECORD, json.dumps(self.record(), indent=2, sort_keys=True) + "\n")

    def close(self) -> None:
        """Let go of the folder; the reading can be opened again, here or elsewhere."""
        if _open.get(self.folder) is self:
            del _open[self.folder]
        self._stack.close()

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read_finished(folder: str | os.PathLike, scan: Scan) -> tuple[LesionMask, dict[str, Any]]:
    """The mask of a finished reading, and its record.

    Raises
    ------
    ReadingError
        It is not finished, of another scan, or its mask is not the one that was drawn.
    """
    folder = Path(folder)
    path = folder / RECORD
    if not path.exists():
        raise ReadingError(f"{folder}: no {RECORD}, the reading is not finished")
    record = json.loads(path.read_text(encoding="utf-8"))
    if not record["finished"]:
        raise ReadingError(f"{folder}: reopened and not finished again")
    if record["scan_sha256"] != scan_digest(scan, record["case_id"]):
        raise ReadingError(f"{folder}: a reading of another scan (case {record['case_id']!r})")
    mask = read_mask(folder / MASK, scan)
    if _labels_digest(mask.labels) != record["mask_sha256"]:
        raise ReadingError(f"{folder / MASK}: not the mask that was drawn "
                           f"(SHA-256 of the file {sha256_of(folder / MASK)[:12]}…). Open the "
                           "reading and finish it again")
    return mask, record
