"""Drawing into a mask: the CT viewer with a brush, whose strokes are on disk at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import traitlets

from deeplung_nb.cohorts.cases import list_cohorts, read_reading
from deeplung_nb.corrections.reading import NOTHING, Reading, ReadingError
from deeplung_nb.corrections.tools import StrokeError
from deeplung_nb.files import explain
from deeplung_nb.imaging.lungs import LungMask, segment_lungs
from deeplung_nb.imaging.scan import Scan
from deeplung_nb.reading.names import public_case_id
from deeplung_nb.reading.table import ROWS, add_reading
from deeplung_nb.runs import Run
from deeplung_nb.widgets.picture import script
from deeplung_nb.widgets.planes import MOST_MASKS, PLANES, encode, profile
from deeplung_nb.widgets.viewer import LUNGS, WINDOWS, CTViewer, as_labels, as_scan


class Corrector(CTViewer):
    """A reading that is drawn; `correct` makes one.

    Attributes
    ----------
    reading
        The `corrections.reading.Reading` behind it.
    """

    _esm = script("viewer.js", "correct.js")

    state = traitlets.Dict().tag(sync=True)

    def __init__(self, reading: Reading, others: Mapping[str, np.ndarray],
                 lungs: np.ndarray | None = None, note: str = "",
                 on_finish: Callable[[Reading], object] | None = None) -> None:
        self.reading, self.on_finish = reading, on_finish
        masks = {reading.reader: reading.labels, **others}
        if lungs is not None:
            masks[LUNGS] = lungs.astype(np.uint8)
        super().__init__(reading.scan, masks, None, note, window=list(WINDOWS["lung"]),
                         opacity=0.4, state=self._state())

    def _describe(self) -> dict[str, Any]:
        return {**super()._describe(), "reader": self.reading.reader}

    def _state(self) -> dict[str, Any]:
        drawing = self.reading.drawing
        return {"can_undo": drawing.can_undo, "can_redo": drawing.can_redo,
                "strokes": self.reading.n_strokes, "reader": self.reading.reader,
                "finished": self.reading.finished}

    def _answer(self, _: Any, content: dict[str, Any], buffers: list[bytes]) -> None:
        kind = content.get("kind")
        if kind not in ("stroke", "fresh", "active", "finish", "reopen"):
            super()._answer(_, content, buffers)
            return
        try:
            if kind == "stroke":
                self._draw(content)
            elif kind == "fresh":
                self._send_drawn(content, [(0, n - 1) for n in self.scan.shape])
            elif kind == "active":
                self.reading.work(_seconds(content))
            elif kind == "finish":
                self.reading.work(_seconds(content))
                self.reading.finish()
                if self.on_finish is not None:
                    self.on_finish(self.reading)
            else:
                self.reading.reopen(str(content.get("reason", "")))
            self.state = self._state()
        except (ReadingError, StrokeError, OSError, ValueError) as error:
            why = explain(error) if isinstance(error, OSError) else str(error)
            self.state = self._state()
            self._send_slices(content, {"kind": "refused", "number": content.get("number"),
                                        "why": why})

    def _draw(self, content: dict[str, Any]) -> None:
        stroke = content.get("stroke")
        if not isinstance(stroke, dict):
            raise StrokeError("a stroke is a set of names and values")
        try:
            step = self.reading.draw(stroke, _seconds(content))
        except StrokeError:
            self.reading.work(_seconds(content))
            raise
        self._send_drawn(content, step.box(self.scan.shape))

    def _send_drawn(self, content: dict[str, Any], box: list[tuple[int, int]] | None) -> None:
        """What has changed, in a box: its slices are asked for again, its volumes are here."""
        first, last = box[0] if box else (0, -1)
        part = {self.reading.reader: self.reading.labels[first:last + 1]}
        self._send_slices(content, {
            "kind": "drawn", "number": content.get("number"), "box": box,
            "profile": {"from": first, "values": profile(part, self.scan.voxel_mm3)[
                self.reading.reader]}})

    def _send_slices(self, asked: Mapping[str, Any], answer: dict[str, Any]) -> None:
        """With what the page shows: the slices through its cursor, of which the kernel hears later.
        """
        try:
            cursor = self.inside([int(at) for at in asked.get("cursor", self.cursor)])
        except (traitlets.TraitError, TypeError, ValueError):
            cursor = self.cursor
        found = [encode(self.scan.hu, self.masks, plane, index)
                 for plane, index in zip(PLANES, cursor, strict=True)]
        data = [slice_.pop("data") for slice_ in found]
        self.send({**answer, "slices": found}, buffers=data)


def _seconds(content: Mapping[str, Any]) -> float:
    value = content.get("seconds", 0.0)
    return float(value) if isinstance(value, (int, float)) and np.isfinite(value) else 0.0


def correct(source: Run | Scan | str | os.PathLike, case: str | None = None, *, reader: str,
            folder: str | os.PathLike | None = None, start: Any = None,
            show: Mapping[str, Any] | None = None, lungs: LungMask | None = None,
            series: str | None = None) -> Corrector:
    """Draw a reading of a CT: begin it, or go on where it was left.

    Each stroke is on disk when the line above the pictures says so. "Finish reading" writes
    `mask.nii.gz` and `reading.json` into `<folder>/<reader>/` and locks the reading; of a case of a
    run its rows then stand in the run's measurements.csv, as reader `reader-<reader>`.

    Parameters
    ----------
    source
        A run, or a scan or its path.
    case
        Of a run: `cohort/case`, or the case alone where no two cohorts have it.
    reader
        Who reads: initials or a made name.
    folder
        Of all readings of this scan. Default: `readings/<cohort>/<case>/` in the run's folder, else
        `readings/<case>/` here, where a DICOM folder's case has a made name.
    start
        The marks to begin with: of a run `automatic` (default), `expert` or `nothing`; of a scan a
        mask, its path, or nothing (default). A reading that was begun keeps its own.
    show
        Further masks to look at while drawing: name -> mask or path. Default: none.
    lungs
        For tools that stay in them; of a run its own, of a scan found by threshold where they can
        be.
    series
        Which DICOM series, where a folder holds several.

    Raises
    ------
    ValueError
        No such case, a mask on another grid, or a reading that can't be opened.
    FileNotFoundError
        The case of a run has not been measured yet.
    """
    if isinstance(source, Run):
        return _correct_case(source, case, reader, folder, start, show or {})
    if case is not None:
        raise ValueError(f"case {case!r}: only a run has cases, this is a scan")
    scan = as_scan(source, series)
    scan = replace(scan, case_id=public_case_id(scan))
    given, whose = None, NOTHING
    if start is not None and start is not NOTHING:
        given = as_labels("start", start, scan)
        whose = "a mask"
    if lungs is None:
        lungs = _found(scan)
    place = Path("readings", scan.case_id) if folder is None else Path(folder)
    return _open(scan, reader, place, given, whose, show or {}, lungs)


def _found(scan: Scan) -> LungMask | None:
    try:
        return segment_lungs(scan)
    except ValueError:  # no chest, or too little of one: drawing needs none
        return None


def _open(scan: Scan, reader: str, folder: Path, start: Any, start_from: str,
          show: Mapping[str, Any], lungs: LungMask | None, note: str = "",
          on_finish: Callable[[Reading], object] | None = None) -> Corrector:
    others = {str(name): as_labels(str(name), mask, scan) for name, mask in show.items()}
    if reader in others or LUNGS in others:
        raise ValueError(f"show: {reader!r} and {LUNGS!r} are names of what is drawn itself. Give "
                         "the other masks other names")
    if len(others) + 2 > MOST_MASKS:
        raise ValueError(f"show: {len(others)} masks, expected at most {MOST_MASKS - 2}")
    inside = None if lungs is None else as_labels(LUNGS, lungs, scan).astype(bool)
    reading = Reading.open(scan, reader, folder, start=start, start_from=start_from, lungs=inside)
    if reading.finished and on_finish is not None and not (reading.folder / ROWS).exists():
        on_finish(reading)  # killed between the two
    return Corrector(reading, others, reading.drawing.lungs, note, on_finish)


def _find_case(run: Run, case: str | None) -> tuple[str, str]:
    every = [(cohort.name, case_id) for cohort in list_cohorts(run) if cohort.slices is None
             for case_id in cohort.frame["case_id"]]
    found = [key for key in every if case in (key[1], "/".join(key))]
    if len(found) != 1:
        few = ", ".join("/".join(key) for key in (found or every)[:8])
        raise ValueError(f"case {case!r}: expected {'one of' if found else 'a case of the run:'} "
                         f"{few}{' …' if len(found or every) > 8 else ''}")
    return found[0]


def _correct_case(run: Run, case: str | None, reader: str, folder: str | os.PathLike | None,
                  start: Any, show: Mapping[str, Any]) -> Corrector:
    cohort, case_id = _find_case(run, case)
    if folder is None and run.shipped:
        raise ValueError("the example run comes with the package, where nothing is written. Give "
                         "folder=, or make a run of your own with 'deeplung-nb reproduce'")
    read, automatic = read_reading(run, cohort, case_id)
    start = "automatic" if start is None else start
    choices = {"automatic": automatic, "expert": read.expert, NOTHING: None}
    if start not in choices:
        raise ValueError(f"start {start!r}: expected one of {', '.join(choices)}")
    place = run.path("readings", cohort, case_id, "x").parent if folder is None else Path(folder)
    note = f"synthetic cohort · {run.run_id}" if run.synthetic else run.run_id

    def keep(reading: Reading) -> None:
        add_reading(run, cohort, read, reading, in_run=folder is None)

    return _open(read.scan, reader, place, choices[start], start, show, read.lungs, note, keep)
