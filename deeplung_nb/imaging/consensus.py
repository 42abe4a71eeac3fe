"""Several readers' masks of one scan, made one: by majority, or by STAPLE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import SimpleITK as sitk

from deeplung_nb.imaging.scan import LesionMask
from deeplung_nb.labels import LABELS

FEWEST = 3
"""Readers of which there is a consensus: of two, neither can outvote the other."""


def majority(masks: Sequence[LesionMask]) -> LesionMask:
    """Each voxel's class by more than half of the readers; without such a class, none.

    Where most see a lesion and no class has most, it is that of the most readers among the two, and
    of a tie ground glass: any lesion is what most readers call so.
    """
    _require(masks)
    half = len(masks) / 2
    votes = [sum((mask.labels == label.code).astype(np.uint8) for mask in masks)
             for label in LABELS]
    ill = sum(votes[1:]) > half
    best = 1 + np.argmax(np.stack(votes[1:]), axis=0)
    return replace(masks[0], labels=np.where(ill, best, 0).astype(np.uint8))


def staple(masks: Sequence[LesionMask]) -> LesionMask:
    """The classes that the readers' masks make most likely, each weighed by how well it fits.

    Source
    ------
    Warfield, Zou & Wells 2004, IEEE TMI 23:903; of several classes Rohlfing, Russakoff & Maurer
    2004, IEEE TMI 23:983 (SimpleITK's MultiLabelSTAPLE). What it can't decide is no lesion.
    """
    _require(masks)
    together = np.any([mask.labels > 0 for mask in masks], axis=0)
    if not together.any():
        return replace(masks[0], labels=np.zeros_like(masks[0].labels))
    # Around what anyone marks: far from it all agree, and would rule how well each one does.
    box = tuple(slice(max(0, int(places[0]) - 2), int(places[-1]) + 3) for places in (
        np.flatnonzero(together.any(axis=tuple(other for other in range(3) if other != axis)))
        for axis in range(3)))
    images = [sitk.GetImageFromArray(np.ascontiguousarray(mask.labels[box])) for mask in masks]
    found = sitk.GetArrayFromImage(sitk.MultiLabelSTAPLE(images, 0))
    labels = np.zeros_like(masks[0].labels)
    labels[box] = found
    return replace(masks[0], labels=labels)


def _require(masks: Sequence[LesionMask]) -> None:
    if len(masks) < FEWEST:
        raise ValueError(f"{len(masks)} masks: expected {FEWEST} or more for a consensus")
    shapes = {mask.labels.shape for mask in masks}
    if len(shapes) > 1:
        raise ValueError(f"masks of shapes {sorted(shapes)}: expected one grid")
