"""A cohort while it is measured: how far, how long still, what failed; from its output folder.

It only reads `progress.json`, so that any notebook on any machine that sees the folder can look on,
while the work runs elsewhere.
"""

from __future__ import annotations

import json
import os
import threading
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets

from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.io import read_mask, read_scan
from deeplung_nb.labels import GGO
from deeplung_nb.runs.progress import words_for
from deeplung_nb.scaling.record import SCANS
from deeplung_nb.scaling.scans import list_scans
from deeplung_nb.scaling.tally import PROGRESS
from deeplung_nb.widgets.viewer import view_ct

EVERY_SECONDS = 2.0
KINDS = {"done": "measured", "kept": "kept from before", "refused": "refused: no plausible chest "
         "CT, or damaged", "missing": "missing", "unreadable": "can't be read",
         "hung": "took too long", "died": "ended their workers", "memory": "ran out of memory",
         "error": "another error"}
STATES = {"measuring": "measuring", "finished": "finished", "stopped": "stopped: the same command "
          "goes on"}


class CohortMonitor(ipywidgets.VBox):
    """Looks on while `deeplung-nb cohort` works, or tells how it ended.

    Parameters
    ----------
    folder
        The `--output` of the command; it may not be there yet.
    every_seconds
        How often to look; 0: only when `refresh` is called.

    Attributes
    ----------
    told
        What `progress.json` said last.
    """

    def __init__(self, folder: str | Path, every_seconds: float = EVERY_SECONDS) -> None:
        self.folder, self.told = Path(folder), {}
        self._bar = ipywidgets.IntProgress(min=0, max=1, layout={"width": "24em"})
        self._words = ipywidgets.HTML()
        self._counts = ipywidgets.HTML()
        self._ended = threading.Event()
        super().__init__([self._bar, self._words, self._counts])
        self.add_class("dl-cohort-monitor")
        self.refresh()
        if every_seconds and self.told.get("state") != "finished":
            threading.Thread(target=self._look_on, args=(every_seconds,), daemon=True).start()

    def _look_on(self, every_seconds: float) -> None:
        while not self._ended.wait(every_seconds) and self.refresh() != "finished":
            pass

    def close(self) -> None:
        """No more looks."""
        self._ended.set()
        super().close()

    def refresh(self) -> str:
        """Look once; the state: `waiting`, `measuring`, `stopped` or `finished`."""
        try:
            self.told = json.loads((self.folder / PROGRESS).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            self._words.value = escape(f"waiting for {self.folder / PROGRESS}")
            return "waiting"
        counts: dict[str, Any] = self.told["counts"]
        n_done, n_scans, state = sum(counts.values()), self.told["n_scans"], self.told["state"]
        n_failed = n_done - counts.get("done", 0) - counts.get("kept", 0)
        self._bar.max, self._bar.value = max(1, n_scans), n_done
        self._bar.bar_style = {"finished": "success", "stopped": "danger"}.get(state, "info")
        left = self.told.get("seconds_left")
        words = [f"{n_done:,} of {n_scans:,} scans", STATES.get(state, state),
                 f"{words_for(self.told['seconds'])} so far"]
        words += [f"about {words_for(left)} left"] if state == "measuring" and left else []
        words += [f"{n_failed:,} failed"] if n_failed else []
        self._words.value = escape(" · ".join(words))
        order = [kind for kind in KINDS if kind in counts] + [k for k in counts if k not in KINDS]
        rows = "".join(f"<tr><td>{escape(KINDS.get(kind, kind))}</td><td style='text-align:right;"
                       f"padding-left:1em'>{counts[kind]:,}</td></tr>" for kind in order)
        self._counts.value = (f"<table>{rows}</table><small>{escape(self.told['workers'])}"
                              f"{'; why: failures.csv' if n_failed else ''}</small>")
        return state


def view_measured(source: str | os.PathLike, output: str | os.PathLike, case_id: str,
                  data: str | os.PathLike | None = None, **options: Any) -> Any:
    """A scan that `deeplung-nb cohort` has measured, with the marks it found and the expert's.

    Parameters
    ----------
    source, output, data
        As the command was given them: its results name no file, the list does.
    case_id
        As in measurements.csv.

    Raises
    ------
    ValueError
        The list has no such scan.
    FileNotFoundError
        It is not measured: failures.csv says why, if it was tried.
    """
    jobs = {job.case_id: job for job in list_scans(source, data)[0]}
    if case_id not in jobs:
        few = ", ".join(list(jobs)[:6])
        raise ValueError(f"case {case_id!r}: expected one of {few}{' …' * (len(jobs) > 6)}")
    job = jobs[case_id]
    found = Path(output, SCANS, case_id, f"{case_id}_lesions.nii.gz")
    if not found.exists():
        raise FileNotFoundError(f"{found}: is missing, the scan is not measured. See failures.csv, "
                                "or give the command again")
    scan = read_scan(job.image, case_id=case_id, series=job.series)
    masks: dict[str, Any] = {"automatic": read_mask(found, scan)}
    if job.mask is not None:
        codes = {1: GGO.code} if job.binary else dict(job.mask_codes) if job.mask_codes else None
        try:
            masks = {"expert": read_mask(job.mask, scan, codes), **masks}
        except ScanError as error:
            options.setdefault("note", f"the expert's mask can't be used: {error}")
    return view_ct(scan, masks, **options)
