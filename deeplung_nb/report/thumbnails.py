"""Small pictures of cases: the slice with the most lesion, and the expert's mask on it."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from deeplung_nb.cohorts.cases import read_reading
from deeplung_nb.files import atomic_path, check_name
from deeplung_nb.labels import LABELS
from deeplung_nb.report.panels import choose_slice
from deeplung_nb.runs import Run

WIDTH = 72
"""Pixels."""
LOW_HU, HIGH_HU = -1150.0, 350.0


def make_thumbnail(hu: np.ndarray, labels: np.ndarray, pixel_mm: tuple[float, float]) -> bytes:
    """A JPEG of one slice with its mask.

    Parameters
    ----------
    hu, labels
        [Y, X], HU and class codes.
    pixel_mm
        (Y, X), so that proportions are true.
    """
    grey = np.clip((hu.astype(np.float32) - LOW_HU) / (HIGH_HU - LOW_HU), 0, 1)
    picture = np.repeat(grey[..., None], 3, axis=2)
    for label in LABELS[1:]:
        where = labels == label.code
        picture[where] = 0.45 * picture[where] + 0.55 * np.array(to_rgb(label.colour))
    height = max(1, round(WIDTH * hu.shape[0] * pixel_mm[0] / (hu.shape[1] * pixel_mm[1])))
    small = Image.fromarray((255 * picture).astype(np.uint8)).resize((WIDTH, height),
                                                                     Image.Resampling.BOX)
    stream = io.BytesIO()
    small.save(stream, format="JPEG", quality=60, optimize=True)
    return stream.getvalue()


def thumbnail_of(run: Run, cohort: str, case_id: str) -> bytes:
    """A measured case's thumbnail, kept in the run folder where that can be written.

    Raises
    ------
    FileNotFoundError, ValueError
        It is not there, and the case's images are not either; the ids are no names of files.
    """
    path = (run.folder / "thumbnails" / check_name(cohort, "cohort")
            / f"{check_name(case_id)}.jpg")
    if path.exists():
        return path.read_bytes()
    case, _ = read_reading(run, cohort, case_id)
    labels = case.expert.labels
    z = choose_slice(labels) if labels.any() else len(labels) // 2
    made = make_thumbnail(case.scan.hu[z], labels[z], tuple(case.scan.spacing_mm[1:]))
    with contextlib.suppress(OSError), atomic_path(path) as part:
        part.write_bytes(made)
    return made
