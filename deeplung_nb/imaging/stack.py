"""Do slices make one volume? Scouts and doubles out, gaps and tilt found, the rest gets an affine.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.frames import Frame
from deeplung_nb.imaging.regrid import MOST_GAP_MM, evenly, upright
from deeplung_nb.imaging.scan import OUTSIDE_HU

GAP_TOLERANCE = 0.015
"""How far a slice may lie from the line through all of them, as a part of the gap ..."""
ROUNDED_MM = 0.06
"""... or in mm: headers are written with one decimal or two."""
MISSING_GAP = 1.5
"""A gap so many times the usual one: a slice is missing."""
TILT_TOLERANCE_DEGREES = 0.5
PARALLEL_DEGREES = 10.0
"""Pictures that lie further from the others' direction are scouts."""
FEW_SHARE, FEW = 0.1, 2
"""What may be split off a series: this share of it, or so many."""
NEIGHBOUR_HU = 300.0
"""How far the 10th, 50th and 90th percentile of neighbouring slices may lie apart where their
rescaling differs."""


def split_off_scouts(slices: list[Frame]) -> tuple[list[Frame], list[str]]:
    """The slices that lie as most do; a few that lie across them are scouts without the name."""
    normals = np.array([one.normal for one in slices])
    along = np.abs(normals @ normals.T) > np.cos(np.radians(PARALLEL_DEGREES))
    usual = along[along.sum(axis=1).argmax()]
    across = ~usual & (np.linalg.norm(normals, axis=1) > 0.9)
    if not across.any() or across.sum() > max(FEW, FEW_SHARE * len(slices)) \
            or across.sum() >= usual.sum():
        return slices, []
    return [one for one, odd in zip(slices, across, strict=True) if not odd], [
        f"left out {across.sum()} image(s) of the series that lie across the slices (scouts)"]


def check_alike(slices: list[Frame], case: str) -> None:
    """That slices have one shape, spacing and orientation.

    Raises
    ------
    ScanError
        One has another.
    """
    first = slices[0]
    for other in slices[1:]:
        for what, a, b, tolerance in (
                ("rows and columns", first.hu.shape, other.hu.shape, 0.0),
                ("pixel spacing", first.spacing_mm, other.spacing_mm, 1e-3),
                ("image orientation", first.orientation, other.orientation, 1e-3)):
            if np.abs(np.subtract(a, b)).max() > tolerance:
                raise ScanError(f"case {case!r}: {other.name} has {what} {tuple(b)}, {first.name} "
                                f"{tuple(a)}; expected one for the whole series. Leave the odd "
                                "slices out of the folder")


def _check_rescaling(slices: list[Frame], case: str) -> None:
    """Of slices in order: all have the tags or none; where they differ, neighbours look alike."""
    without = [one for one in slices if one.rescale is None]
    if without and len(without) < len(slices):
        few, rule = (without, "has no RescaleSlope and RescaleIntercept") \
            if len(without) <= len(slices) / 2 else (
                [one for one in slices if one.rescale], "alone has RescaleIntercept")
        raise ScanError(f"case {case!r}: {few[0].name} {rule}, unlike the rest of the series "
                        f"({len(few)} of {len(slices)} slices): its values would be off. Export "
                        "the series again, or leave the slice out")
    if len({one.rescale for one in slices}) < 2:
        return
    levels = [np.percentile(np.maximum(one.hu[::4, ::4], OUTSIDE_HU), (10, 50, 90))
              for one in slices]
    usual = Counter(one.rescale for one in slices).most_common(1)[0][0]
    for k, one in enumerate(slices):
        around = [levels[j] for j in (k - 1, k + 1) if 0 <= j < len(slices)]
        apart = min(float(np.abs(levels[k] - other).max()) for other in around)
        if one.rescale != usual and apart > NEIGHBOUR_HU:
            raise ScanError(
                f"case {case!r}: {one.name} has RescaleSlope and RescaleIntercept {one.rescale}, "
                f"the series {usual}, and its values lie {apart:.0f} HU from its neighbours', "
                f"expected within {NEIGHBOUR_HU:g}. Export the series again, or leave the slice "
                "out")


def _without_doubles(slices: list[Frame], along: np.ndarray, case: str, force: bool
                     ) -> tuple[list[Frame], np.ndarray, list[str]]:
    """Slices in order, each place once; the same picture twice is once too many and no error."""
    keep, notes, n_same, others = [0], [], 0, []
    for k in range(1, len(slices)):
        before = slices[keep[-1]]
        if along[k] - along[keep[-1]] >= 1e-3:
            keep.append(k)
        elif np.array_equal(slices[k].hu, before.hu):
            n_same += 1
        elif force:
            others.append(slices[k].name)
            if slices[k].number < before.number:
                keep[-1], others[-1] = k, before.name
        else:
            raise ScanError(f"case {case!r}: {before.name} and {slices[k].name} lie at the "
                            f"same position ({along[k]:.2f} mm), expected one slice each. The "
                            "folder may hold two reconstructions: keep one, or --force takes the "
                            "first of each by its instance number")
    if n_same:
        notes.append(f"left out {n_same} slice(s) that are there twice with the same pixels")
    if others:
        notes.append(f"forced: of slices at one position the first was taken, {len(others)} left "
                     "out")
    return [slices[k] for k in keep], along[keep], notes


def make_volume(slices: list[Frame], case: str, force: bool
                ) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Slices as an even stack.

    Parameters
    ----------
    slices
        In any order, of one shape, spacing and orientation (`check_alike`).
    force
        Whether tilt, gaps and doubled slices are resampled.

    Returns
    -------
    (volume, affine, notes)
        int16 [z, y, x]; float64 (4, 4), voxel index to RAS millimetres; what was done.

    Raises
    ------
    ScanError
        Doubled slices, tilt or gaps without `force`; a gap above `MOST_GAP_MM`; rescaling that does
        not fit; a single slice of unknown thickness.
    """
    across, down = slices[0].orientation[:3], slices[0].orientation[3:]
    normal = slices[0].normal
    row_mm, column_mm = slices[0].spacing_mm
    slices = sorted(slices, key=lambda one: float(one.position_mm @ normal))
    along = np.array([float(one.position_mm @ normal) for one in slices])
    slices, along, notes = _without_doubles(slices, along, case, force)
    _check_rescaling(slices, case)
    volume, first = np.stack([one.hu for one in slices]), slices[0].position_mm
    if len(slices) == 1:
        if slices[0].thickness_mm is None:
            raise ScanError(f"case {case!r}: {slices[0].name} is a single slice without "
                            "SliceThickness, so its volume is unknown. Export it with its metadata")
        step = normal * slices[0].thickness_mm
    else:
        step = (slices[-1].position_mm - first) / (len(slices) - 1)
        off = np.array([one.position_mm - first for one in slices])
        tilt = np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1.0, 1.0)))
        if tilt > TILT_TOLERANCE_DEGREES:
            if not force:
                raise ScanError(f"case {case!r}: the gantry was tilted by {tilt:.1f} degrees "
                                "(slices are shifted against each other), expected none. --force "
                                "resamples the series upright (its masks then lie on that grid), "
                                "or exclude the case")
            volume, moved = upright(
                volume, np.column_stack([off @ down / row_mm, off @ across / column_mm]))
            first = first + moved[0] * row_mm * down + moved[1] * column_mm * across
            step = normal * (along[-1] - along[0]) / (len(along) - 1)
            notes.append(f"forced: resampled upright, the gantry was tilted by {tilt:.1f} degrees")
        if (uneven := _uneven(slices, along)) is not None:
            volume, n_made = _made_even(volume, along, uneven, case, force)
            step = normal * (along[-1] - along[0]) / (len(volume) - 1)
            notes.append(f"forced: slice gaps of {np.diff(along).min():.4g} to "
                         f"{np.diff(along).max():.4g} mm resampled to {np.linalg.norm(step):.4g} "
                         f"mm; {n_made} of {len(volume)} slices are made up of their neighbours")
    affine = np.eye(4)
    to_ras = np.diag([-1.0, -1.0, 1.0])
    affine[:3, :3] = to_ras @ np.column_stack([across * column_mm, down * row_mm, step])
    affine[:3, 3] = to_ras @ first
    return volume, affine, notes


def _uneven(slices: list[Frame], along: np.ndarray) -> str | None:
    """What is uneven about slices' distances; None where they are even but for rounding."""
    gaps = np.diff(along)
    middle = float(np.median(gaps))
    numbers = np.arange(len(along))
    line = np.polynomial.Polynomial.fit(numbers, along, 1)
    off = np.abs(along - line(numbers)).max()
    allowed = max(GAP_TOLERANCE * middle, min(ROUNDED_MM, 10 * GAP_TOLERANCE * middle))
    if off <= allowed and gaps.max() < MISSING_GAP * middle:
        return None
    at = int(np.abs(gaps - middle).argmax())
    return (f"slice gap varies {gaps.min():.4g}–{gaps.max():.4g} mm (slices may lie {allowed:.2g} "
            f"mm off an even stack, one lies {off:.2g}): from {slices[at].name} at "
            f"{along[at]:.2f} mm to {slices[at + 1].name} at {along[at + 1]:.2f} mm "
            f"there are {gaps[at]:.4g} mm, elsewhere {middle:.4g}")


def _made_even(volume: np.ndarray, along: np.ndarray, uneven: str, case: str, force: bool
               ) -> tuple[np.ndarray, int]:
    widest = float(np.diff(along).max())
    if not force:
        raise ScanError(f"case {case!r}: {uneven}. Complete the series, let --force interpolate "
                        "it, or exclude it in its manifest (column 'exclude')")
    if widest > MOST_GAP_MM:
        raise ScanError(f"case {case!r}: {uneven}. {widest:.4g} mm are too far to interpolate "
                        f"(at most {MOST_GAP_MM:g}): complete the series")
    return evenly(volume, along, float(np.median(np.diff(along))))
