"""A file that only grows: one line an event, on disk before anybody hears that it happened.

Each line carries a digest over itself and the one before it. A process that is killed while it
writes leaves a cut line, which the next one takes away; a line that was changed or exchanged
afterwards is found, and one that was lost, but at the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DIGITS = 16


class JournalError(ValueError):
    """A journal that can't be trusted: names the file and the line."""


def _line(event: Mapping[str, Any], before: str) -> tuple[bytes, str]:
    body = json.dumps(event, sort_keys=True, separators=(",", ":"), allow_nan=False)
    check = hashlib.sha256(f"{before}{body}".encode()).hexdigest()[:DIGITS]
    return f"{check} {body}\n".encode(), check


def read_journal(path: Path) -> tuple[list[dict[str, Any]], int, str]:
    """The events of a journal, the bytes that they take, and the last one's digest.

    What follows them is a line that was cut while it was written.

    Raises
    ------
    JournalError
        A whole line is not as it was written.
    """
    content = path.read_bytes()
    events, end, check = [], 0, ""
    for number, raw in enumerate(content.splitlines(keepends=True), 1):
        event = _event(raw, check)
        if event is None:
            if raw.endswith(b"\n"):  # the last byte of a line: it was whole once
                raise JournalError(f"{path}, line {number}: not as it was written. Restore the "
                                   "file from a copy, or begin the reading anew in another folder")
            break
        events.append(event)
        check, end = raw[:DIGITS].decode(), end + len(raw)
    return events, end, check


def _event(raw: bytes, before: str) -> dict[str, Any] | None:
    """The event of a whole line that follows the one with the digest `before`; else None."""
    if not raw.endswith(b"\n") or raw[DIGITS:DIGITS + 1] != b" ":
        return None
    body = raw[DIGITS + 1:-1]
    if hashlib.sha256(before.encode() + body).hexdigest()[:DIGITS].encode() != raw[:DIGITS]:
        return None
    with contextlib.suppress(ValueError):
        event = json.loads(body)
        if isinstance(event, dict):
            return event
    return None


class Journal:
    """A journal that is written to; one process at a time (`files.only_one`).

    Attributes
    ----------
    events
        All so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[dict[str, Any]] = []
        self._check, end, self._broken = "", 0, False
        if path.exists():
            self.events, end, self._check = read_journal(path)
        self._stream = path.open("r+b" if path.exists() else "w+b", buffering=0)
        self._stream.truncate(end)  # what a killed process had begun to write
        self._stream.seek(end)

    def write(self, event: Mapping[str, Any]) -> None:
        """Add an event; it is on disk when this returns.

        Raises
        ------
        OSError
            The disk is full; the journal is as it was.
        JournalError
            An earlier line could neither be written nor taken back.
        """
        if self._broken:
            raise JournalError(f"{self.path}: can't be written any more. Open the reading again")
        line, check = _line(event, self._check)
        place = self._stream.tell()
        try:
            written = 0
            while written < len(line):
                written += self._stream.write(line[written:])
            os.fsync(self._stream.fileno())
        except BaseException:  # an interrupt too: what follows must fit what stands there
            self._broken = True
            self._stream.truncate(place)
            self._stream.seek(place)
            self._broken = False
            raise
        self._check = check
        self.events.append(dict(event))

    def close(self) -> None:
        """No more is written."""
        self._stream.close()
