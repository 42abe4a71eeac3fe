"""Published stacks of isolated slices (one file of 100 that are no volume), laid out as pictures.

Such a stack opens as a volume and is none: its slices are of different people. As pictures, a file
each, they have names, hashes and rows of a manifest like any other slice (`imaging.slices`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from deeplung_nb.files import atomic_path
from deeplung_nb.imaging.errors import ScanError

WINDOW_HU = (-1080.5, 286.7)
"""HU of grey 0 and 255: -850 is grey 43 and +40 is grey 209, as `SliceLayout.usual_grey` has it."""
AIR_HU = -300.0
LEAST_LUNG_SHARE = 0.01
"""Of the slice: a smaller dark region is no lung (trachea, bowel, noise)."""
MARGIN_PIXELS = 4


def _read(path: Path) -> np.ndarray:
    try:
        stack = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError as error:
        raise ScanError(f"{path}: can't be read as an image. The file is missing or damaged: get "
                        "it again") from error
    if stack.ndim != 3:
        raise ScanError(f"{path}: has shape {stack.shape}, expected (slices, rows, columns)")
    return stack


def lung_box(hu: np.ndarray, keep: np.ndarray) -> tuple[slice, slice]:
    """The box of the lungs in a slice [Y, X] and of `keep`; the whole slice where no lung is seen.

    Lungs are dark regions that do not touch the slice's border.
    """
    labelled: Any = ndimage.label(hu < AIR_HU)
    regions: np.ndarray = labelled[0]
    border = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    lungs = np.bincount(regions.ravel()) >= LEAST_LUNG_SHARE * hu.size
    lungs[0], lungs[border] = False, False
    if not lungs.any():
        return np.s_[:, :]
    inside = lungs[regions] | keep
    low = [max(0, int(at.min()) - MARGIN_PIXELS) for at in np.nonzero(inside)]
    high = [int(at.max()) + MARGIN_PIXELS + 1 for at in np.nonzero(inside)]
    return np.s_[low[0]:high[0], low[1]:high[1]]


def lay_out_stack(image: str | os.PathLike, masks: Mapping[str, str | os.PathLike],
                  folder: str | os.PathLike, transposed: bool = False) -> int:
    """Write `folder/images/N.png` and `folder/<name>/N.png` of each stack in `masks`; how many.

    Pictures of 8 bits over `WINDOW_HU`, cropped to the lungs; masks hold the codes of their files.
    What is there already is written anew.

    Parameters
    ----------
    image
        Stack of HU (or about HU), [slice, row, column] as SimpleITK reads it.
    masks
        Folder's name -> stack of codes 0 to 255 of the same shape.
    transposed
        Rows and columns are exchanged in the pictures: for sets whose pictures are known so.

    Raises
    ------
    ScanError
        A stack can't be read, or their shapes differ; no picture has been written then.
    """
    hu = _read(Path(image))
    stacks = {name: _read(Path(path)) for name, path in masks.items()}
    for name, stack in stacks.items():
        if stack.shape != hu.shape:
            raise ScanError(f"{masks[name]}: has shape {stack.shape}, expected that of {image}, "
                            f"{hu.shape}. Get both from the same version of the set")
        if stack.min() < 0 or stack.max() > 255 or (stack != np.rint(stack)).any():
            raise ScanError(f"{masks[name]}: holds {stack.min():g} to {stack.max():g}, expected "
                            "codes, whole numbers from 0 to 255. Is it the stack of images?")
    low, high = WINDOW_HU
    grey = np.clip(np.rint((hu - low) * 255 / (high - low)), 0, 255).astype(np.uint8)
    for at in range(len(hu)):
        marked = np.zeros(hu.shape[1:], bool)
        for stack in stacks.values():
            marked |= stack[at] > 0
        box = lung_box(hu[at], marked)
        for name, stack in {"images": grey, **stacks}.items():
            picture = stack[at][box].astype(np.uint8)
            path = Path(folder) / name / f"{at}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as part:
                sitk.WriteImage(sitk.GetImageFromArray(
                    np.ascontiguousarray(picture.T if transposed else picture)), str(part))
    return len(hu)
