"""Pseudo-labels: series that no expert has drawn, labelled by a teacher and a second opinion.

The teacher is a network trained on expert masks alone. Where it and the set's own machine masks
agree there is a label, elsewhere no answer; the class comes from the density, since the machine
masks tell no classes apart. Such cases train; no number is ever reported of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from deeplung_nb.files import sha256_of
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.preprocess import HU_WINDOW, normalise_hu
from deeplung_nb.imaging.scan import Scan
from deeplung_nb.imaging.slices import SliceLayout, grey_to_hu, read_picture
from deeplung_nb.labels import GGO, HIGH_OPACITY, NO_ANSWER
from deeplung_nb.learning.dataset import PreparedCase, on_picture, read_prepared, write_prepared
from deeplung_nb.progress import track
from deeplung_nb.reading.predict import Predictor
from deeplung_nb.registry import read_registry

AIR_HU = HU_WINDOW[0]


class Rule(NamedTuple):
    """When teacher and second opinion, scores from 0 to 1, agree; one that is sure needs no other.

    The numbers were set once, by looking at series, before any of them was trained on.
    """

    lesion: tuple[float, float, float] = (0.5, 0.3, 0.85)
    """A lesion: teacher above the first and opinion above the second, or teacher above the last."""
    background: tuple[float, float, float] = (0.3, 0.6, 0.08)
    """None: both below, or the teacher below the third."""
    high_opacity_hu: float = -250.0
    """A lesion above this, smoothed, is high opacity."""
    smooth_pixels: float = 2.0


RULE = Rule()


def pseudo_labels(teacher: np.ndarray, opinion: np.ndarray, hu: np.ndarray,
                  rule: Rule = RULE) -> np.ndarray:
    """Class codes with `NO_ANSWER`, uint8 [z, Y, X].

    Parameters
    ----------
    teacher
        Its lesion score [z, Y, X]: ground glass + high opacity.
    opinion
        The other machine's, [z, Y, X].
    hu
        [z, Y, X]; smoothed within the slice before it tells the classes apart.
    """
    sure, agrees, alone = rule.lesion
    lesion = ((teacher > sure) & (opinion > agrees)) | (teacher > alone)
    sure, agrees, alone = rule.background
    clear = ((teacher < sure) & (opinion < agrees)) | (teacher < alone)
    smooth = ndimage.gaussian_filter(hu.astype(np.float32),
                                     (0.0, rule.smooth_pixels, rule.smooth_pixels))
    target = np.full(hu.shape, NO_ANSWER, np.uint8)
    target[clear] = 0
    target[lesion] = np.where(smooth[lesion] > rule.high_opacity_hu, HIGH_OPACITY.code, GGO.code)
    return target


class Series(NamedTuple):
    """Neighbouring slices of one patient, and another machine's opinion of them."""

    scan: Scan
    opinion: np.ndarray
    """float32 [z, Y, X], 0 to 1."""
    known: np.ndarray
    """float32 [z, Y, X]: 1 in the pictures, 0 beyond their crop."""


def content_hash(folder: Path) -> str:
    """SHA-256 over names and contents of the pictures in `images/` and `machine_masks/`."""
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("images/*"), *folder.glob("machine_masks/*")]):
        digest.update(f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n".encode())
    return digest.hexdigest()


def find_unlabelled(name: str, data: Path) -> tuple[Path, SliceLayout]:
    """The folder of a set of unlabelled series, its files checked, and how its pictures lie.

    Raises
    ------
    ValueError
        `cohorts.toml` knows no such set.
    FileNotFoundError
        Its folder is not in `data`.
    ScanError
        Other files than those that are known.
    """
    registry = read_registry()
    entry = registry.get(name, {})
    if entry.get("role") != "unlabelled":
        known = ", ".join(key for key, value in registry.items()
                          if value.get("role") == "unlabelled")
        raise ValueError(f"unlabelled {name!r}: expected a set of role 'unlabelled' in "
                         f"cohorts.toml ({known})")
    folder = data / entry["folder"]
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing, expected images/ and machine_masks/ of "
                                f"{entry['title']}. Get them from {entry['url']}")
    found = content_hash(folder)
    if found != entry["sha256"]:
        raise ScanError(f"{folder}: content hash {found[:12]}…, expected {entry['sha256'][:12]}…. "
                        "A file is missing, changed or one too many: copy the folder anew")
    return folder, SliceLayout(**entry["slices"])


def _together(pictures: list[np.ndarray], fill: float) -> np.ndarray:
    """Slices that were cropped one by one to the lungs, centred in the largest; [z, Y, X]."""
    rows, columns = np.max([picture.shape for picture in pictures], axis=0)
    stack = np.full((len(pictures), rows, columns), fill, np.float32)
    for slot, picture in zip(stack, pictures, strict=True):
        top, left = (rows - picture.shape[0]) // 2, (columns - picture.shape[1]) // 2
        slot[top:top + picture.shape[0], left:left + picture.shape[1]] = picture
    return stack


def read_series(folder: Path, layout: SliceLayout) -> Iterator[Series]:
    """All series of `images/<patient>_<number>.jpg`, patient by patient, slices in order.

    The greys are calibrated by patient: all slices of one come from one scan.
    """
    patients: dict[str, list[Path]] = {}
    for path in folder.glob("images/*.jpg"):
        patients.setdefault(path.stem.split("_")[0], []).append(path)
    for patient in sorted(patients):
        paths = sorted(patients[patient], key=lambda path: int(path.stem.split("_")[1]))
        pictures = [read_picture(path, patient, layout) for path in paths]
        opinions = [read_picture(folder / "machine_masks" / f"{path.stem}.png", patient, layout)
                    .astype(np.float32) / 255.0 for path in paths]
        greys = np.concatenate([picture.ravel() for picture in pictures])
        ends = np.cumsum([picture.size for picture in pictures])[:-1]
        hu = _together([values.reshape(picture.shape) for values, picture in zip(
            np.split(np.rint(grey_to_hu(greys, layout)), ends), pictures, strict=True)], AIR_HU)
        scan = Scan(hu.astype(np.int16), Grid.upright(hu.shape, (1.0, 1.0, 1.0)), patient,
                    str(folder))
        known = _together([np.ones(picture.shape) for picture in pictures], 0.0)
        yield Series(scan, _together(opinions, 0.0), known)


def teach(teacher: Path, name: str, data: Path, folder: Path, size: int,
          progress: bool = True) -> list[PreparedCase]:
    """The series of a set with the labels that a teacher gives them, kept in `folder`.

    Parameters
    ----------
    teacher
        A checkpoint whose training saw no patient that its pupil will be tested on.
    name
        Of the set in `cohorts.toml`; `data` holds its folder.
    size
        Side of the network's picture, pixels.
    """
    source, layout = find_unlabelled(name, data)
    predictor = None
    cases = []
    for series in track(list(read_series(source, layout)), "pseudo-labels", "series",
                        shown=progress):
        case = read_prepared(series.scan.case_id, folder, source="pseudo")
        if case is None:
            predictor = predictor or Predictor.from_checkpoints([teacher], batch=8)
            hu, _ = on_picture(series.scan.hu, size, layout.longest_share)
            opinion, known = (on_picture(array, size, layout.longest_share, fill=0.0)[0]
                              for array in (series.opinion, series.known))
            scores = np.concatenate([
                predictor.decide(batch)[:, 1:].sum(axis=1)
                for batch in predictor.scores_per_network(normalise_hu(hu))])
            # The air padded around a crop is background; at its edge, half picture and half
            # padding, there is no answer.
            beyond = np.where(known > 0.01, NO_ANSWER, 0)
            target = np.where(known > 0.99, pseudo_labels(scores, opinion, hu), beyond)
            case = PreparedCase(series.scan.case_id, np.rint(hu).astype(np.int16), target,
                                source="pseudo")
            write_prepared(case, folder)
        cases.append(case)
    return cases
