"""Slices of a scan and of its masks as a person looks at them, and as the browser gets them.

A plane is shown as radiologists agree to: the patient's right on the left of an axial or coronal
picture, the head up, in a sagittal one the front on the left. Memory's order (foot to head, front
to back, right to left) makes that a cut and, where z runs up the picture, a flip.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from deeplung_nb.labels import LABELS, LESION_STRUCTURES, structure_mask
from deeplung_nb.stats import overlap

PLANES = ("axial", "coronal", "sagittal")
"""Each at the place of its axis in [z, y, x]."""
LETTERS = {"axial": ("R", "L", "A", "P"), "coronal": ("R", "L", "H", "F"),
           "sagittal": ("A", "P", "H", "F")}
"""What lies left, right, up and down: right, left, anterior, posterior, head, foot."""
MOST_MASKS = 4
BITS = 2
"""Bits of a mask in a packed voxel: label codes 0 to 3."""
COMPRESSION = 1
"""zlib's fastest: a slice must be packed in less time than a person takes to turn a wheel."""
AGREEMENT = ("both", "reference only", "other only", "class exchanged")


def cut(volume: np.ndarray, plane: str, index: int) -> np.ndarray:
    """One slice [row, column] of a volume [z, y, x], as it is shown."""
    part = np.take(volume, index, axis=PLANES.index(plane))
    return part if plane == "axial" else part[::-1]


def pixel_mm(spacing_mm: tuple[float, float, float], plane: str) -> tuple[float, float]:
    """(row, column) size of a shown pixel, mm, from (dz, dy, dx)."""
    dz, dy, dx = spacing_mm
    return {"axial": (dy, dx), "coronal": (dz, dx), "sagittal": (dz, dy)}[plane]


def pack_labels(masks: Mapping[str, np.ndarray], plane: str, index: int) -> np.ndarray:
    """Up to four label maps in one byte a pixel: the first in the lowest two bits."""
    packed: np.ndarray | None = None
    for place, labels in enumerate(masks.values()):
        part = cut(labels, plane, index).astype(np.uint8) << np.uint8(BITS * place)
        packed = part if packed is None else packed | part
    return packed


def encode(hu: np.ndarray, masks: Mapping[str, np.ndarray], plane: str,
           index: int) -> dict[str, Any]:
    """A slice for the browser.

    Returns
    -------
    dict
        `plane, index, rows, columns, data`: zlib over int16 differences along the rows (they pack
        better than HU; a running sum undoes them), then a byte of labels a pixel where there are
        masks.
    """
    shown = cut(hu, plane, index)
    steps = np.diff(shown, axis=1, prepend=np.zeros((len(shown), 1), np.int16)).astype("<i2")
    labels = pack_labels(masks, plane, index)
    content = steps.tobytes() + (b"" if labels is None else np.ascontiguousarray(labels).tobytes())
    return {"plane": plane, "index": int(index), "rows": shown.shape[0],
            "columns": shown.shape[1], "data": zlib.compress(content, COMPRESSION)}


def agreement_map(reference: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where two label maps agree: 0 neither, then the places of `AGREEMENT` from 1 on."""
    out = np.zeros(reference.shape, np.uint8)
    out[(reference > 0) & (reference == other)] = 1
    out[(reference > 0) & (other == 0)] = 2
    out[(reference == 0) & (other > 0)] = 3
    out[(reference > 0) & (other > 0) & (reference != other)] = 4
    return out


def profile(masks: Mapping[str, np.ndarray], voxel_mm3: float) -> dict[str, dict[str, list[float]]]:
    """Reader -> class -> volume by axial slice, mL."""
    ml = voxel_mm3 / 1000.0
    return {name: {label.name: [ml * int((part == label.code).sum()) for part in labels]
                   for label in LABELS[1:]} for name, labels in masks.items()}


def compare(reference: np.ndarray, other: np.ndarray, voxel_mm3: float) -> dict[str, Any]:
    """How two readers agree, by axial slice and in the case.

    Returns
    -------
    dict
        `slices` and `case`: mL of each of `AGREEMENT`, and `dice` by structure (None where neither
        marked it); `slices` holds lists.
    """
    ml = voxel_mm3 / 1000.0
    by_slice: dict[str, list[float]] = {name: [] for name in AGREEMENT}
    counts: dict[str, list[overlap.Confusion]] = {name: [] for name in LESION_STRUCTURES}
    for a, b in zip(reference, other, strict=True):
        found = np.bincount(agreement_map(a, b).ravel(), minlength=len(AGREEMENT) + 1)
        for name, n in zip(AGREEMENT, found[1:], strict=True):
            by_slice[name].append(ml * int(n))
        for name in LESION_STRUCTURES:
            counts[name].append(overlap.confusion(structure_mask(a, name), structure_mask(b, name)))

    def score(tp: int, fp: int, fn: int) -> float | None:
        return 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None

    return {
        "slices": {**by_slice, "dice": {name: [score(c.tp, c.fp, c.fn) for c in some]
                                        for name, some in counts.items()}},
        "case": {**{name: sum(values) for name, values in by_slice.items()},
                 "dice": {name: score(*(sum(getattr(c, part) for c in some)
                                        for part in ("tp", "fp", "fn")))
                          for name, some in counts.items()}},
    }
