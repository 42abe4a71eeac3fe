"""How far a cohort is, counted by what came of each scan, and left in a file for who looks on."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

from deeplung_nb.files import write_text
from deeplung_nb.runs.progress import Progress

PROGRESS = "progress.json"
EVERY_SECONDS = 1.0
WELL = ("done", "kept")


class Tally:
    """Counts outcomes by kind; `progress.json` in the output folder says the same.

    Time left is from the scans that were measured in this call: those that were kept cost next to
    nothing.
    """

    def __init__(self, output: str, n_scans: int, workers: str, shown: bool) -> None:
        self.path, self.n_scans, self.workers = Path(output) / PROGRESS, n_scans, workers
        self.counts: Counter[str] = Counter()
        self.began = time.monotonic()
        self._written = 0.0
        self.bar = Progress("cohort", n_scans, "scan", shown=shown)
        self.write("measuring")

    def count(self, kind: str) -> None:
        """One scan more has come back."""
        self.counts[kind] += 1
        if self.n_failed:
            self.bar.update(1, failed=self.n_failed)
        else:
            self.bar.update(1)
        if time.monotonic() - self._written >= EVERY_SECONDS:
            self.write("measuring")

    @property
    def n_failed(self) -> int:
        """Scans that neither were measured nor had been."""
        return self.counts.total() - sum(self.counts[kind] for kind in WELL)

    def seconds_left(self) -> float | None:
        """None while too little was done to tell."""
        worked = self.counts.total() - self.counts["kept"]
        elapsed = time.monotonic() - self.began
        return None if worked < 2 or elapsed < 5 else \
            (self.n_scans - self.counts.total()) * elapsed / worked

    def write(self, state: str) -> None:
        """Leave it in the file: `measuring`, `stopped` or `finished`."""
        self._written = time.monotonic()
        left = self.seconds_left() if state == "measuring" else None
        write_text(self.path, json.dumps({
            "state": state, "n_scans": self.n_scans, "counts": dict(sorted(self.counts.items())),
            "seconds": round(time.monotonic() - self.began, 1),
            "seconds_left": None if left is None else round(left), "workers": self.workers}))
