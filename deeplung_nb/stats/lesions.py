"""Lesion by lesion: which of one mask's another one finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from deeplung_nb.stats._results import Result

NAN = float("nan")

@dataclass(frozen=True, repr=False)
class LesionDetection(Result):
    """Result of `lesions`."""

    n_reference: int
    n_found: int
    n_test: int
    n_false: int
    sensitivity: float
    precision: float
    smallest_missed: int
    largest_missed: int
    reason: str


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The part of an array that holds a mask: beyond it there is nothing to find."""
    return tuple(slice(places[0], places[-1] + 1) if len(places) else slice(0, 1) for places in (
        np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        for axis in range(mask.ndim)))


def component_sizes(mask: np.ndarray) -> np.ndarray:
    """Voxels of each lesion of a mask.

    Parameters
    ----------
    mask
        Boolean, of any number of dimensions; a lesion is what touches by face, edge or corner.

    Returns
    -------
    ndarray
        Sizes, in the order in which the lesions are met; empty where there is none.

    Formula
    -------
    Connected components with the largest neighbourhood (26 in three dimensions).

    Source
    ------
    Rosenfeld & Pfaltz 1966, J ACM 13:471 (connected components).

    Checked against
    ---------------
    Boxes placed by hand.

    Examples
    --------
    >>> component_sizes(np.array([1, 1, 0, 0, 1, 1, 1, 0], bool)).tolist()
    [2, 3]
    """
    found: Any = ndimage.label(mask[_box(mask)], np.ones((3,) * mask.ndim))
    places, n = found
    return np.bincount(places.ravel(), minlength=n + 1)[1:]


def lesions(reference: Any, predicted: Any, *, overlap: float = 0.0, smallest: int = 1
            ) -> LesionDetection:
    """Which lesions of one mask another one finds, and how many it finds besides.

    Parameters
    ----------
    reference, predicted
        Boolean masks of one shape; a lesion is what touches by face, edge or corner.
    overlap
        Share of a lesion's voxels that the other mask must hold more than; 0: one voxel is enough.
    smallest
        Lesions of fewer voxels are not counted, in either mask; a mark of any size can find one.

    Returns
    -------
    LesionDetection
        `n_found` of the `n_reference` lesions, `n_false` of the `n_test`; the sizes of the
        smallest and the largest one missed (0: none), in voxels; NaN with a `reason` where a mask
        has no lesion.

    Formula
    -------
    A reference lesion is found where the predicted mask holds more than the share `overlap` of
    it; a predicted one is false where the reference holds no more than that of it.

    Source
    ------
    Reinke et al. 2024, Nat Methods 21:182 (detection by overlap; say the rule).

    Checked against
    ---------------
    Boxes placed by hand.

    Examples
    --------
    >>> a = np.array([1, 1, 0, 0, 1, 1, 0, 0, 0], bool)
    >>> b = np.array([0, 1, 0, 0, 0, 0, 0, 1, 1], bool)
    >>> r = lesions(a, b)
    >>> r.n_found, r.n_reference, r.n_false, r.largest_missed
    (1, 2, 1, 2)
    """
    first, second = (np.asarray(mask) for mask in (reference, predicted))
    if first.shape != second.shape:
        raise ValueError(f"reference has shape {first.shape}, predicted {second.shape}: expected "
                         "masks on one grid")
    if first.dtype != bool or second.dtype != bool:
        raise ValueError(f"masks of type {first.dtype}, {second.dtype}: expected bool; of labels, "
                         "compare with a code first (labels == 1)")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap={overlap}: expected a share from 0 to below 1")

    either = first | second
    box = _box(either)
    first, second = first[box], second[box]

    def parts(mask: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sizes of a mask's lesions, and which of them the other holds."""
        places, n = ndimage.label(mask, np.ones((3,) * mask.ndim))
        sizes = np.bincount(places.ravel(), minlength=n + 1)[1:]
        held = np.bincount(places[other], minlength=n + 1)[1:]
        large = sizes >= smallest
        return sizes[large], held[large] > overlap * sizes[large]

    sizes, found = parts(first, second)
    _, true = parts(second, first)
    missed = sizes[~found]
    n, m = len(sizes), len(true)
    empty = [name for name, count in (("reference", n), ("predicted mask", m)) if not count]
    return LesionDetection(
        n, int(found.sum()), m, int(m - true.sum()), float(found.mean()) if n else NAN,
        float(true.mean()) if m else NAN, int(missed.min(initial=np.iinfo(int).max))
        if len(missed) else 0, int(missed.max(initial=0)),
        f"no lesion in the {' and the '.join(empty)}" if empty else "")
