"""Which voxels a tool changes, and to what: plain functions of a label volume.

A stroke is a dict of plain values, as the journal keeps it and as a browser sends it. Places in a
plane are pairs along the two axes that are left, in the order z, y, x, in voxels: the centre of a
voxel is a whole number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from deeplung_nb.imaging.scan import Scan
from deeplung_nb.labels import LABELS

PLANES = ("axial", "coronal", "sagittal")
"""Each at the place of its axis in [z, y, x]."""
MOST_RADIUS_MM = 100.0
MOST_POINTS = 20_000
ROUNDING_MM = 1e-6
GROWS_MM = 60.0
"""How far a region grows from where it was begun, unless told otherwise."""
Change = tuple[tuple[slice, ...], np.ndarray, np.ndarray]
"""A box [z, y, x], the voxels of it that change, and their new codes (or one for all)."""


class StrokeError(ValueError):
    """A stroke that no tool understands: says what was expected."""


def _number(stroke: Mapping[str, Any], name: str, low: float, high: float,
            default: float | None = None) -> float:
    value = stroke.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) \
            or not math.isfinite(value) or not low <= value <= high:
        raise StrokeError(f"{name} {value!r}: expected a number from {low:g} to {high:g}")
    return float(value)


def _whole(stroke: Mapping[str, Any], name: str, n: int) -> int:
    value = stroke.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < n:
        raise StrokeError(f"{name} {value!r}: expected a whole number from 0 to {n - 1}")
    return value


def _plane(stroke: Mapping[str, Any], shape: Sequence[int]) -> tuple[int, int]:
    """Axis, and index along it."""
    plane = stroke.get("plane")
    if plane not in PLANES:
        raise StrokeError(f"plane {plane!r}: expected one of {', '.join(PLANES)}")
    axis = PLANES.index(plane)
    return axis, _whole(stroke, "index", shape[axis])


def _code(stroke: Mapping[str, Any], name: str = "code", lowest: int = 0) -> int:
    value = stroke.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value < len(LABELS):
        raise StrokeError(f"{name} {value!r}: expected a class, {lowest} to {len(LABELS) - 1}")
    return value


def _points(stroke: Mapping[str, Any], fewest: int) -> np.ndarray:
    """(n, 2), voxels."""
    points: np.ndarray
    try:
        points = np.asarray(stroke.get("path"), np.float64)
    except (TypeError, ValueError):
        points = np.empty((0, 2))
    if points.ndim != 2 or points.shape[1] != 2 or not fewest <= len(points) <= MOST_POINTS \
            or not np.isfinite(points).all() or np.abs(points).max() > 1e6:
        raise StrokeError(f"path: expected {fewest} to {MOST_POINTS:,} pairs of numbers, in voxels")
    return points


def _hu(stroke: Mapping[str, Any]) -> tuple[float, float] | None:
    found = stroke.get("hu")
    if found is None:
        return None
    if not isinstance(found, Sequence) or len(found) != 2:
        raise StrokeError(f"hu {found!r}: expected two numbers, lowest and highest")
    ends = {"lowest": found[0], "highest": found[1]}
    low, high = (_number(ends, name, -32768, 32767) for name in ends)
    if low > high:
        raise StrokeError(f"hu {found!r}: expected the lowest first")
    return low, high


def _slice_box(axis: int, index: int, low: Sequence[int], high: Sequence[int]
               ) -> tuple[slice, ...]:
    """A box of one slice: `low` to `high` (without it) along the two other axes."""
    box = [slice(a, b) for a, b in zip(low, high, strict=True)]
    box.insert(axis, slice(index, index + 1))
    return tuple(box)


def near_path(points: np.ndarray, shape: Sequence[int], pixel_mm: Sequence[float],
              radius_mm: float) -> tuple[list[int], np.ndarray]:
    """Pixels whose centre is within a radius of a path, and those that its points lie in.

    Returns
    -------
    (corner, inside)
        First row and column of a box, and the pixels of it [row, column].
    """
    size = np.asarray(pixel_mm, np.float64)
    reach = radius_mm / size
    low = np.clip(np.floor(points.min(axis=0) - reach), 0, shape).astype(int)
    high = np.clip(np.ceil(points.max(axis=0) + reach) + 1, low, shape).astype(int)
    inside: np.ndarray = np.zeros(high - low, bool)
    ends = np.vstack([points[1:], points[-1:]])
    for start, end in zip(points, ends, strict=True):
        first = np.clip(np.floor(np.minimum(start, end) - reach), low, high).astype(int)
        last = np.clip(np.ceil(np.maximum(start, end) + reach) + 1, low, high).astype(int)
        rows, columns = (np.arange(a, b, dtype=np.float64)
                         for a, b in zip(first, last, strict=True))
        y, x = (rows[:, None] - start[0]) * size[0], (columns[None, :] - start[1]) * size[1]
        dy, dx = (end - start) * size
        length = dy * dy + dx * dx
        along = np.clip((y * dy + x * dx) / length, 0.0, 1.0) if length > 0 else 0.0
        near = np.hypot(y - along * dy, x - along * dx) <= radius_mm + ROUNDING_MM
        corner = first - low
        inside[corner[0]:corner[0] + near.shape[0], corner[1]:corner[1] + near.shape[1]] |= near
    for row, column in np.rint(points).astype(int) - low:
        if 0 <= row < inside.shape[0] and 0 <= column < inside.shape[1]:
            inside[row, column] = True
    return low.tolist(), inside


def inside_polygon(corners: np.ndarray, shape: Sequence[int]) -> tuple[list[int], np.ndarray]:
    """Pixels whose centre lies in a polygon, by the even-odd rule; as `near_path`."""
    low = np.clip(np.floor(corners.min(axis=0)), 0, shape).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)) + 1, low, shape).astype(int)
    rows, columns = (np.arange(a, b, dtype=np.float64) for a, b in zip(low, high, strict=True))
    inside = np.zeros((len(rows), len(columns)), bool)
    for (r0, c0), (r1, c1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        crosses = (r0 > rows) != (r1 > rows)
        with np.errstate(divide="ignore", invalid="ignore"):
            at = c0 + (rows - r0) * (c1 - c0) / (r1 - r0)
        inside ^= crosses[:, None] & (columns[None, :] < at[:, None])
    return low.tolist(), inside


def _allowed(stroke: Mapping[str, Any], box: tuple[slice, ...], labels: np.ndarray, scan: Scan,
             lungs: np.ndarray | None) -> np.ndarray:
    """Where in a box a stroke may change anything: by HU, by lungs, by the class that is there."""
    allowed = np.ones(labels[box].shape, bool)
    limits = _hu(stroke)
    if limits is not None:
        allowed &= (scan.hu[box] >= limits[0]) & (scan.hu[box] <= limits[1])
    if stroke.get("in_lungs"):
        allowed &= _lungs(lungs)[box]
    if stroke.get("only") is not None:
        allowed &= labels[box] == _code(stroke, "only")
    return allowed


def _lungs(lungs: np.ndarray | None) -> np.ndarray:
    if lungs is None:
        raise StrokeError("in_lungs: the lungs of this scan are not known. Leave it out, or open "
                          "the reading with lungs=")
    return lungs


def _brush(stroke: Mapping[str, Any], labels: np.ndarray, scan: Scan,
           lungs: np.ndarray | None) -> Change:
    return _in_plane(stroke, labels, scan, lungs, lambda shape, pixel_mm: near_path(
        _points(stroke, 1), shape, pixel_mm, _number(stroke, "radius_mm", 0, MOST_RADIUS_MM)))


def _polygon(stroke: Mapping[str, Any], labels: np.ndarray, scan: Scan,
             lungs: np.ndarray | None) -> Change:
    return _in_plane(stroke, labels, scan, lungs,
                     lambda shape, _: inside_polygon(_points(stroke, 3), shape))


def _in_plane(stroke: Mapping[str, Any], labels: np.ndarray, scan: Scan, lungs: np.ndarray | None,
              find: Callable[..., tuple[list[int], np.ndarray]]) -> Change:
    axis, index = _plane(stroke, labels.shape)
    code = _code(stroke)
    left = [k for k in range(3) if k != axis]
    (row, column), inside = find([labels.shape[k] for k in left],
                                 [scan.spacing_mm[k] for k in left])
    box = _slice_box(axis, index, (row, column),
                     (row + inside.shape[0], column + inside.shape[1]))
    where = np.expand_dims(inside, axis) & _allowed(stroke, box, labels, scan, lungs)
    return box, where, np.array(code, np.uint8)


def _seed(stroke: Mapping[str, Any], shape: Sequence[int]) -> tuple[int, int, int]:
    found = stroke.get("at")
    if not isinstance(found, Sequence) or len(found) != 3:
        raise StrokeError(f"at {found!r}: expected a voxel (z, y, x)")
    ends = dict(zip("zyx", found, strict=True))
    return (_whole(ends, "z", shape[0]), _whole(ends, "y", shape[1]), _whole(ends, "x", shape[2]))


def _around(seed: Sequence[int], stroke: Mapping[str, Any], scan: Scan,
            reach_mm: float) -> tuple[slice, ...]:
    """The box about a seed in which a region may lie: one slice, or all around."""
    reach = [math.ceil(reach_mm / mm) for mm in scan.spacing_mm]
    if not stroke.get("whole", False):
        reach[_plane(stroke, scan.shape)[0]] = 0
    return tuple(slice(max(0, at - n), min(size, at + n + 1))
                 for at, n, size in zip(seed, reach, scan.shape, strict=True))


def _connected(mask: np.ndarray, seed: Sequence[int]) -> np.ndarray:
    """What is connected (by faces) with a place of a mask; nothing where that is outside."""
    parts = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, output=parts)
    number = parts[tuple(seed)]
    return parts == number if number else np.zeros(mask.shape, bool)


def _grow(stroke: Mapping[str, Any], labels: np.ndarray, scan: Scan,
          lungs: np.ndarray | None) -> Change:
    """What is connected with a voxel and as dense, in a slice or (`whole`) in all directions."""
    if _hu(stroke) is None:
        raise StrokeError("hu: a region grows within limits, expected (lowest, highest)")
    seed = _seed(stroke, labels.shape)
    reach = _number(stroke, "reach_mm", 1, 400, GROWS_MM)
    box = _around(seed, stroke, scan, reach)
    inside = [at - part.start for at, part in zip(seed, box, strict=True)]
    mm = np.meshgrid(*((np.arange(part.start, part.stop) - at) * size for part, at, size in
                       zip(box, seed, scan.spacing_mm, strict=True)), indexing="ij", sparse=True)
    near = sum(part ** 2 for part in mm) <= reach ** 2
    where = _connected(_allowed(stroke, box, labels, scan, lungs) & near, inside)
    return box, where, np.array(_code(stroke), np.uint8)


def _fill(stroke: Mapping[str, Any], labels: np.ndarray, scan: Scan,
          lungs: np.ndarray | None) -> Change:
    """Holes of a class in a slice."""
    axis, index = _plane(stroke, labels.shape)
    code = _code(stroke, lowest=1)
    shape = [n for k, n in enumerate(labels.shape) if k != axis]
    box = _slice_box(axis, index, (0, 0), shape)
    marked = np.squeeze(labels[box], axis) == code
    holes = ndimage.binary_fill_holes(marked) & ~marked
    return box, np.expand_dims(holes, axis), np.array(code, np.uint8)


def _swap(stroke: Mapping[str, Any], labels: np.ndarray, scan: Scan,
          lungs: np.ndarray | None) -> Change:
    """The lesion at a place becomes another class: in the slice, or (`whole`) all of it."""
    seed = _seed(stroke, labels.shape)
    code = _code(stroke, lowest=1)
    if not labels[seed]:
        raise StrokeError(f"at {list(seed)}: nothing is marked there whose class could change")
    box = tuple(slice(0, n) for n in labels.shape)
    if not stroke.get("whole", False):
        axis = _plane(stroke, labels.shape)[0]
        box = _slice_box(axis, seed[axis], (0, 0),
                         [n for k, n in enumerate(labels.shape) if k != axis])
    inside = [at - part.start for at, part in zip(seed, box, strict=True)]
    where = _connected(labels[box] == labels[seed], inside)
    return box, where, np.array(code, np.uint8)


def _copy(stroke: Mapping[str, Any], labels: np.ndarray, scan: Scan,
          lungs: np.ndarray | None) -> Change:
    """A slice gets the marks of another one, of one class (`code`) or of all."""
    axis, index = _plane(stroke, labels.shape)
    source = _whole(stroke, "from", labels.shape[axis])
    shape = [n for k, n in enumerate(labels.shape) if k != axis]
    box = _slice_box(axis, index, (0, 0), shape)
    marks = labels[_slice_box(axis, source, (0, 0), shape)]
    wanted = marks > 0 if stroke.get("code") is None else marks == _code(stroke, lowest=1)
    return box, wanted, marks


def _signed_mm(mask: np.ndarray, pixel_mm: Sequence[float]) -> np.ndarray:
    """Distance to the border, mm: positive inside."""
    inside, outside = (np.asarray(ndimage.distance_transform_edt(part, sampling=pixel_mm))
                       for part in (mask, ~mask))
    return inside - outside


def _interpolate(stroke: Mapping[str, Any], labels: np.ndarray, scan: Scan,
                 lungs: np.ndarray | None) -> Change:
    """The slices between two marked ones get the shape between their shapes.

    Source: Raya & Udupa 1990, IEEE Trans Med Imaging 9:32 (distances to the border, interpolated).
    """
    axis, last = _plane(stroke, labels.shape)
    first = _whole(stroke, "from", labels.shape[axis])
    first, last = sorted((first, last))
    code = _code(stroke, lowest=1)
    if last - first < 2:
        raise StrokeError(f"slices {first} and {last}: expected two with slices between them")
    left = [k for k in range(3) if k != axis]
    pixel_mm = [scan.spacing_mm[k] for k in left]
    ends = [np.take(labels, index, axis=axis) == code for index in (first, last)]
    if not all(end.any() for end in ends):
        raise StrokeError(f"slices {first} and {last}: expected the class {LABELS[code].title} "
                          "marked in both")
    low, high = (_signed_mm(end, pixel_mm) for end in ends)
    shares = np.arange(1, last - first) / (last - first)
    between = np.stack([(1 - share) * low + share * high > 0 for share in shares], axis=axis)
    box = [slice(0, n) for n in labels.shape]
    box[axis] = slice(first + 1, last)
    where = between & (labels[tuple(box)] == 0)  # what a person has marked there stays
    return tuple(box), where, np.array(code, np.uint8)


TOOLS: dict[str, Callable[[Mapping[str, Any], np.ndarray, Scan, np.ndarray | None], Change]] = {
    "brush": _brush, "polygon": _polygon, "grow": _grow, "fill": _fill, "swap": _swap,
    "copy": _copy, "interpolate": _interpolate,
}
"""`brush` with code 0 is the eraser, with `hu` the threshold brush."""


def find_change(stroke: Mapping[str, Any], labels: np.ndarray, scan: Scan,
                lungs: np.ndarray | None = None) -> Change:
    """What a stroke changes.

    Parameters
    ----------
    stroke
        `tool` of `TOOLS`, and what it needs: `plane` and `index` of the slice; `path` and
        `radius_mm`; `code`, the class (0: none); `hu`, (lowest, highest), `in_lungs` and `only`, a
        class, limit what is changed; `at`, a voxel (z, y, x); `whole`: in all slices; `from`,
        another slice.
    labels
        Codes [z, y, x].
    lungs
        Mask [z, y, x].

    Raises
    ------
    StrokeError
        The stroke is not one.
    """
    tool = stroke.get("tool")
    if not isinstance(tool, str) or tool not in TOOLS:
        raise StrokeError(f"tool {tool!r}: expected one of {', '.join(TOOLS)}")
    return TOOLS[tool](stroke, labels, scan, lungs)
