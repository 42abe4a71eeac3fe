"""From a scan to the network's grid and back.

One body box serves a whole scan: boxes per slice would shift the eleven slices of a window against
each other. The box is a square, so that both directions are scaled by the same factor, and may
reach beyond the image, where there is air.

Both ways are linear maps along rows and columns: two small matrices, whose products with a slice
the way there takes; the way back, defined by the same box, takes their few weights that are not 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.kernels import can_compile, compiled
from deeplung_nb.labels import LABELS

HU_WINDOW = (-1024.0, 600.0)
"""The paper's fixed window (section 2.4)."""
BODY_THRESHOLD_HU = -400.0
BODY_MARGIN_MM = 5.0
COARSE_MM = 4.0


def window_indices(z: int, n_slices: int, offsets: range) -> np.ndarray:
    """Slice indices z + offsets, the first and last slice repeated beyond the ends."""
    return np.clip(z + np.asarray(offsets), 0, n_slices - 1)


@dataclass(frozen=True)
class BodyBox:
    """A square in the image plane, in pixels: rows `top` ... `top + side`, columns `left` ...

    `top` and `left` may be negative and the square may reach beyond the image.
    """

    top: int
    left: int
    side: int

    def inside(self, rows: int, columns: int) -> tuple[slice, slice]:
        """The part of an image of this shape which the box covers, as slices of rows, columns."""
        return (
            slice(max(self.top, 0), min(self.top + self.side, rows)),
            slice(max(self.left, 0), min(self.left + self.side, columns)),
        )


def body_box(scan: Scan) -> BodyBox:
    """The square around the body over all slices of a scan.

    The body is the largest connected part denser than `BODY_THRESHOLD_HU` after an opening that
    parts it from the table, found on a coarse grid of about `COARSE_MM`. Where nothing is dense
    enough, the box is the whole image.
    """
    step_y, step_x = (max(1, round(COARSE_MM / s)) for s in scan.spacing_mm[1:])
    coarse = np.asarray(scan.hu[:, ::step_y, ::step_x]) > BODY_THRESHOLD_HU
    # Thin things (table top, clothes, tubes) vanish in the plane; 3 x 3 is about 12 mm.
    opened = ndimage.binary_opening(coarse, np.ones((1, 3, 3), bool))
    parts, n_parts = ndimage.label(opened)
    rows, columns = scan.shape[1:]
    if n_parts == 0:
        side = max(rows, columns)
        return BodyBox((rows - side) // 2, (columns - side) // 2, side)
    sizes = np.bincount(parts.ravel())[1:]
    _, in_rows, in_columns = ndimage.find_objects(parts)[int(sizes.argmax())]
    margin_y, margin_x = (int(np.ceil(BODY_MARGIN_MM / s)) for s in scan.spacing_mm[1:])
    top = max(in_rows.start * step_y - margin_y, 0)
    left = max(in_columns.start * step_x - margin_x, 0)
    height = min(in_rows.stop * step_y + margin_y, rows) - top
    width = min(in_columns.stop * step_x + margin_x, columns) - left
    side = max(height, width)
    return BodyBox(top - (side - height) // 2, left - (side - width) // 2, side)


def resize_matrix(n_in: int, n_out: int) -> np.ndarray:
    """Weights (n_out, n_in) of a linear resize of one axis, pixel areas aligned.

    A triangle as wide as the coarser of the two grids: plain linear interpolation when enlarging,
    area-preserving smoothing (anti-aliasing) when shrinking. Each row sums to one, so constants
    are kept.
    """
    scale = n_in / n_out
    centres = (np.arange(n_out) + 0.5) * scale - 0.5
    reach = max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - np.abs(np.arange(n_in)[None, :] - centres[:, None]) / reach)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _taps(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of a resize, where each row's weights begin, and they alone: [n_out], [n_out, taps]."""
    some = weights != 0
    first = some.argmax(axis=1)
    n_taps = int((weights.shape[1] - some[:, ::-1].argmax(axis=1) - first).max(initial=1))
    first = np.minimum(first, weights.shape[1] - n_taps)
    return first, np.take_along_axis(weights, first[:, None] + np.arange(n_taps), axis=1)


def label_by_matrices(scores: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Which class scores highest after a resize: [class, S, S] and two matrices to uint8 [y, x].

    As it is written; `_label_by_taps` is the same in one pass, without the zeros.
    """
    return (rows @ scores @ columns.T).argmax(axis=0).astype(np.uint8)


if can_compile():

    @compiled
    def _label_by_taps(scores, first_row, of_row, first_column, of_column, labels):
        """`label_by_matrices` from the few weights of each row and column, into `labels`."""
        n_classes, _, width = scores.shape
        line = np.empty((n_classes, width), np.float32)
        for y in range(len(first_row)):
            line[:] = 0
            for k in range(of_row.shape[1]):
                w, at = of_row[y, k], first_row[y] + k
                for c in range(n_classes):
                    for x in range(width):
                        line[c, x] += w * scores[c, at, x]
            for x in range(len(first_column)):
                label, highest = 0, np.float32(0)
                for c in range(n_classes):
                    value = np.float32(0)
                    for k in range(of_column.shape[1]):
                        value += of_column[x, k] * line[c, first_column[x] + k]
                    if c == 0 or value > highest:
                        label, highest = c, value
                labels[y, x] = label


def _crop(image: np.ndarray, box: BodyBox, fill: float) -> np.ndarray:
    """The box out of one slice, float32 [side, side]; `fill` beyond the image."""
    rows, columns = box.inside(*image.shape)
    square = np.full((box.side, box.side), fill, np.float32)
    square[rows.start - box.top:rows.stop - box.top,
           columns.start - box.left:columns.stop - box.left] = image[rows, columns]
    return square


def to_model_grid(scan: Scan, size: int, box: BodyBox | None = None) -> tuple[np.ndarray, BodyBox]:
    """HU on the network's grid.

    Returns
    -------
    (hu, box)
        float32 [z, size, size], and the box (found when not given). Air (-1024) beyond the image.
    """
    box = box or body_box(scan)
    weights = resize_matrix(box.side, size)
    out = np.empty((scan.n_slices, size, size), np.float32)
    for z in range(scan.n_slices):
        out[z] = weights @ _crop(scan.hu[z], box, HU_WINDOW[0]) @ weights.T
    return out, box


def normalise_hu(hu: np.ndarray) -> np.ndarray:
    """Clip to the window and map it to [0, 1], float32."""
    low, high = HU_WINDOW
    out = np.clip(hu, low, high).astype(np.float32, copy=False)
    out -= low  # in place: a long scan is large
    out /= high - low
    return out


def prepare(scan: Scan, size: int = 256) -> tuple[np.ndarray, BodyBox]:
    """What the network sees of a scan: float32 [z, size, size] in [0, 1], and the body box."""
    slices, box = to_model_grid(scan, size)
    for one in slices:
        one[:] = normalise_hu(one)
    return slices, box


def prepare_mask(mask: LesionMask, box: BodyBox, size: int = 256) -> np.ndarray:
    """The share of each class in each pixel of the network's grid: float32 [z, class, size, size].

    Its arg-max over the classes is the training target.
    """
    weights = resize_matrix(box.side, size)
    out = np.empty((mask.labels.shape[0], len(LABELS), size, size), np.float32)
    for z, labels in enumerate(mask.labels):
        square = _crop(labels, box, 0)
        for code in range(1, len(LABELS)):
            out[z, code] = weights @ (square == code).astype(np.float32) @ weights.T
        out[z, 0] = 1.0 - out[z, 1:].sum(axis=0)
    return out


class Restorer:
    """Class scores on the network's grid to a mask on the scan's own grid, batch by batch.

    A batch is resized, arg-maxed and dropped, so that a long scan's score maps never lie in
    memory together.

    Parameters
    ----------
    box
        The box of `prepare`.
    scan
        The scan; beyond the box the mask is background.
    """

    def __init__(self, box: BodyBox, scan: Scan) -> None:
        self.box, self.scan = box, scan
        self.labels = np.zeros(scan.shape, np.uint8)
        self.n_done = 0

    def add(self, scores: np.ndarray) -> None:
        """The next slices' scores, [slices, class, size, size].

        Raises
        ------
        ValueError
            More slices than the scan has.
        """
        if self.n_done + len(scores) > self.scan.n_slices:
            raise self._wrong_count(self.n_done + len(scores))
        box = self.box
        rows, columns = box.inside(*self.scan.shape[1:])
        weights = resize_matrix(scores.shape[-1], box.side)
        to_rows = weights[rows.start - box.top:rows.stop - box.top]
        to_columns = weights[columns.start - box.left:columns.stop - box.left]
        taps = (*_taps(to_rows), *_taps(to_columns)) if can_compile() else None
        for of_slice in np.ascontiguousarray(scores, np.float32):
            native = self.labels[self.n_done, rows, columns]
            if taps:
                _label_by_taps(of_slice, *taps, native)
            else:
                native[:] = label_by_matrices(of_slice, to_rows, to_columns)
            self.n_done += 1

    def mask(self) -> LesionMask:
        """The mask, once every slice has been added.

        Raises
        ------
        ValueError
            Slices are missing.
        """
        if self.n_done != self.scan.n_slices:
            raise self._wrong_count(self.n_done)
        return LesionMask.like(self.scan, self.labels)

    def _wrong_count(self, n_scored: int) -> ValueError:
        return ValueError(
            f"case {self.scan.case_id!r}: scores for {n_scored} slices, expected "
            f"{self.scan.n_slices}. Score every slice of the scan once, in order."
        )


def restore(score_batches: Iterable[np.ndarray], box: BodyBox, scan: Scan) -> LesionMask:
    """A `Restorer` fed with batches of scores: the mask on the scan's own grid.

    Raises
    ------
    ValueError
        The batches hold another number of slices than the scan.
    """
    restorer = Restorer(box, scan)
    for scores in score_batches:
        restorer.add(scores)
    return restorer.mask()
