"""Marks that grow stroke by stroke, with undo and redo without limit."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from deeplung_nb.corrections.tools import StrokeError, find_change
from deeplung_nb.imaging.scan import Scan

UNDO, REDO = "undo", "redo"


class Step(NamedTuple):
    """What a stroke did."""

    where: np.ndarray
    """Flat indices of the voxels that changed."""
    before: np.ndarray
    after: np.ndarray

    @property
    def check(self) -> int:
        """A number that another change has not: CRC-32 of places and new codes."""
        return zlib.crc32(self.after.tobytes(), zlib.crc32(self.where.astype("<i8").tobytes()))

    def box(self, shape: tuple[int, ...]) -> list[tuple[int, int]] | None:
        """First and last index along z, y, x; None where nothing changed."""
        if not len(self.where):
            return None
        return [(int(at.min()), int(at.max())) for at in np.unravel_index(self.where, shape)]


class Drawing:
    """A label volume, and the steps that led to it.

    Attributes
    ----------
    labels
        Codes [z, y, x], as they are now; not to be changed but by `apply`.
    """

    def __init__(self, scan: Scan, start: np.ndarray, lungs: np.ndarray | None = None) -> None:
        self.scan, self.lungs = scan, lungs
        self.labels = np.ascontiguousarray(start, np.uint8).copy()
        self._done: list[Step] = []
        self._undone: list[Step] = []

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether a step was taken back since the last stroke."""
        return bool(self._undone)

    def apply(self, stroke: Mapping[str, Any], keep: Callable[[Step], object] = lambda _: None
              ) -> Step:
        """A stroke of `tools`, or `{"tool": "undo"}`, or `{"tool": "redo"}`.

        `keep` is called with what it will do, before anything changes: what it raises leaves the
        drawing as it was.

        Raises
        ------
        StrokeError
            It is none, or there is nothing to take back; then nothing has changed.
        """
        tool = stroke.get("tool")
        if tool in (UNDO, REDO):
            source, target = (self._done, self._undone) if tool == UNDO \
                else (self._undone, self._done)
            if not source:
                raise StrokeError(f"{tool}: there is nothing to {tool}")
            step = source[-1]
            if tool == UNDO:
                step = Step(step.where, step.after, step.before)
            keep(step)
            target.append(source.pop())
        else:
            step = self._find(stroke)
            keep(step)
            self._done.append(step)
            self._undone.clear()
        self.labels.reshape(-1)[step.where] = step.after
        return step

    def _find(self, stroke: Mapping[str, Any]) -> Step:
        box, where, codes = find_change(stroke, self.labels, self.scan, self.lungs)
        here = self.labels[box]
        new = np.broadcast_to(codes, here.shape)
        changed = np.nonzero(where & (new != here))
        before, after = here[changed].copy(), new[changed].copy()
        places = [at + part.start for at, part in zip(changed, box, strict=True)]
        return Step(np.asarray(np.ravel_multi_index(places, self.labels.shape)), before, after)
