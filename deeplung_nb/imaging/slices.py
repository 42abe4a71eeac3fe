"""Isolated slices from pictures (8 bits of grey): turned, calibrated to about HU, without a scale.

Published sets of single slices are pictures for the eye: cropped, turned, in a window that nobody
noted. Two tissues bring the HU back, since their modes stand out in the histogram: aerated lung at
about -850 HU and soft tissue at about +40. It is good for training, not for a density.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.labels import LABELS

LUNG_HU, SOFT_HU = -850.0, 40.0
LEAST_SHARE = 0.15
"""A mode is at least this high, against the highest one."""
LEAST_HU, MOST_HU = -1024.0, 1000.0


class SliceLayout(NamedTuple):
    """How the pictures of a set lie."""

    quarter_turns: int
    """Clockwise, until the spine is at the bottom."""
    longest_share: float
    """Of the network's picture that the longest side takes, so that lungs are as large as in whole
    scans."""
    lung_grey: tuple[int, int] = (10, 70)
    """Where the mode of aerated lung is looked for; the default is a lung window's."""
    soft_grey: tuple[int, int] = (180, 245)
    """The same of soft tissue; the rest is vessels, lesions, bone and the picture's ends."""
    usual_grey: tuple[float, float] = (43.0, 209.0)
    """Both modes where one is not found (a narrow window, or no healthy lung); the default is the
    median over the 50 slices of MedSeg-1."""
    neighbours: int = 0
    """So many pictures on each side of a slice lie beside its own, where the series has them:
    `<name>_<number>`, numbered from slice to slice."""


def _mode(histogram: np.ndarray, low: int, high: int, usual: float) -> float:
    at = low + int(np.argmax(histogram[low:high + 1]))
    # At an end of the range it is the flank of another hill, not a mode.
    if at in (low, high) or histogram[at] < LEAST_SHARE * histogram[low:-1].max():
        return usual
    return float(at)


def grey_to_hu(grey: np.ndarray, layout: SliceLayout) -> np.ndarray:
    """Grey levels (0 to 255) as about HU, float32, by the line through the two modes."""
    (low, high), (soft_low, soft_high) = layout.lung_grey, layout.soft_grey
    histogram = ndimage.gaussian_filter1d(
        np.bincount(grey.ravel(), minlength=256).astype(float), 3.0)
    histogram = histogram[:soft_high + 1]  # beyond lies the picture's end, no tissue
    lung = _mode(histogram, low, high, layout.usual_grey[0])
    soft = _mode(histogram, soft_low, soft_high, layout.usual_grey[1])
    hu = LUNG_HU + (grey.astype(np.float32) - lung) * (SOFT_HU - LUNG_HU) / (soft - lung)
    return np.clip(hu, LEAST_HU, MOST_HU)


def read_picture(path: Path, case: str, layout: SliceLayout) -> np.ndarray:
    """A picture's grey levels, uint8 [Y, X], turned as its set needs.

    Raises
    ------
    ScanError
        The file is no 8-bit grey picture.
    """
    try:
        picture = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError as error:
        raise ScanError(f"case {case!r}: {path} can't be read as a picture. The file is missing or "
                        "damaged: copy it anew") from error
    if picture.ndim != 2 or picture.dtype != np.uint8:
        raise ScanError(f"case {case!r}: {path} is {picture.dtype} of shape {picture.shape}, "
                        "expected 8-bit grey (rows, columns). Convert it")
    return np.rot90(picture, -layout.quarter_turns)


def read_slice(path: str | os.PathLike, case_id: str, layout: SliceLayout) -> Scan:
    """One picture as a scan of one slice; its grid of 1 mm is nominal, the true size unknown.

    Raises
    ------
    ScanError
        The file is no 8-bit grey picture.
    """
    grey = read_picture(Path(path), case_id, layout)
    hu = np.rint(grey_to_hu(grey, layout)).astype(np.int16)[None]
    return Scan(hu, Grid.upright(hu.shape, (1.0, 1.0, 1.0)), case_id, str(path))


def read_stack(path: str | os.PathLike, case_id: str, layout: SliceLayout) -> tuple[Scan, int]:
    """A picture among its neighbours as a scan, and which of its slices it is.

    Neighbours that are not there are left out. Pictures are cropped slice by slice as a rule: each
    lies in the middle of the slice's own frame, air around it. The line to HU is that of all
    pictures together.

    Raises
    ------
    ScanError
        A file is no 8-bit grey picture, or has no number.
    """
    path = Path(path)
    found = re.fullmatch(r"(.*?)(\d+)", path.stem)
    if found is None and layout.neighbours:
        raise ScanError(f"case {case_id!r}: {path.name} has no number at its end, expected "
                        "<name>_<number>, as its neighbours have. Rename it")
    beside = [] if found is None else [
        path.with_name(f"{found[1]}{int(found[2]) + k}{path.suffix}")
        for k in range(-layout.neighbours, layout.neighbours + 1) if k]
    n_below = layout.neighbours
    files = [*beside[:n_below], path, *beside[n_below:]]
    there = [file for file in files if file == path or file.is_file()]
    pictures = [read_picture(file, case_id, layout) for file in there]
    at = there.index(path)
    values = grey_to_hu(np.concatenate([picture.ravel() for picture in pictures]), layout)
    parts = np.split(values, np.cumsum([picture.size for picture in pictures])[:-1])
    hu = np.stack([_in_the_middle(part.reshape(picture.shape), pictures[at].shape)
                   for part, picture in zip(parts, pictures, strict=True)])
    hu = np.rint(hu).astype(np.int16)
    return Scan(hu, Grid.upright(hu.shape, (1.0, 1.0, 1.0)), case_id, str(path)), at


def _in_the_middle(hu: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A picture cut, or filled up with air, to another shape about its middle."""
    out = np.full(shape, LEAST_HU, np.float32)
    source, target = [], []
    for have, want in zip(hu.shape, shape, strict=True):
        cut, pad = max(0, (have - want) // 2), max(0, (want - have) // 2)
        n = min(have, want)
        source.append(slice(cut, cut + n))
        target.append(slice(pad, pad + n))
    out[tuple(target)] = hu[tuple(source)]
    return out


def read_slice_mask(path: str | os.PathLike, scan: Scan,
                    codes: dict[int, int] | None, layout: SliceLayout) -> LesionMask:
    """The mask of such a slice: file codes to label codes, as `io.read_mask`.

    Raises
    ------
    ScanError
        Another shape than the slice's, or an unknown code.
    """
    picture = read_picture(Path(path), scan.case_id, layout)[None]
    known = {0: 0, **(codes or {label.code: label.code for label in LABELS})}
    strange = sorted(set(np.unique(picture).tolist()) - set(known))
    if strange:
        raise ScanError(f"case {scan.case_id!r}: mask {path} holds label codes "
                        f"{', '.join(map(str, strange))}, expected "
                        f"{', '.join(map(str, sorted(known)))}. Correct mask_codes in cohorts.toml")
    table = np.zeros(256, np.uint8)
    for value, code in known.items():
        table[value] = code
    return LesionMask.like(scan, table[picture])
