"""Synthetic chest CTs with lesions of known volume.

A phantom is described in millimetres (`PhantomSpec`) and sampled on any grid. The truth is where a
lesion's opacity exceeds one half; the simulated expert draws its borders with errors and misses
small lesions, so that agreement statistics have something to find. No phantom is a patient.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed

from deeplung_nb.files import atomic_path
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.io import write_mask, write_scan
from deeplung_nb.imaging.phantom.disease import Disease
from deeplung_nb.imaging.phantom.painter import Painter, mix
from deeplung_nb.imaging.phantom.scanner import acquire
from deeplung_nb.imaging.phantom.spec import KINDS, PARTS, PhantomError, PhantomSpec, row_of_spec
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.imaging.shapes import Field, covered
from deeplung_nb.labels import GGO, HIGH_OPACITY
from deeplung_nb.runs.progress import track


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic scan with its truth, all arrays [z, y, x].

    `lungs` (bool) is the aerated lung; `lobes` (uint8) its lobes, 1 to 5 as in `anatomy.LOBES`.
    """

    spec: PhantomSpec
    scan: Scan
    truth: LesionMask
    expert: LesionMask
    lungs: np.ndarray
    lobes: np.ndarray


class _Expert:
    """How one reader draws: smooth errors along borders, an offset in each slice, lesions missed.

    The borders of high opacity are less certain than those of ground glass.
    """

    def __init__(self, spec: PhantomSpec) -> None:
        rng = np.random.default_rng((spec.seed, 1))
        self.habit = rng.normal(0.1, 0.5)
        self.of_slice = rng.normal(0, 0.5, spec.n_slices)
        self.border, self.between = Field.random(rng, 15.0), Field.random(rng, 18.0)
        chance = rng.uniform(size=len(spec.lesions))
        # Half of the lesions below 2 mL are missed, hardly any above 6 mL.
        self.missed = [draw < 0.55 * np.exp(-((lesion.volume_ml / 3.0) ** 2))
                       for lesion, draw in zip(spec.lesions, chance, strict=True)]

    def errors(self, k: int, z: float, y: np.ndarray, x: np.ndarray):
        """How far, in mm, the borders of ground glass and of high opacity are drawn too wide."""
        wide = (self.habit + self.of_slice[k] + 1.3 * self.border(z, y, x)).astype(np.float32)
        return wide, wide + 1.5 * self.between(z, y, x)


def _labels(ggo: np.ndarray, dense: np.ndarray, lung: np.ndarray, fluid: np.ndarray) -> np.ndarray:
    """Labels of one slice from depths: fluid and consolidation win over ground glass."""
    labels = np.where((ggo > 0) & (lung > 0), GGO.code, 0)
    labels[(dense > 0) & (lung > 0)] = HIGH_OPACITY.code
    labels[fluid > 0] = HIGH_OPACITY.code
    return labels.astype(np.uint8)


def make_phantom(spec: PhantomSpec) -> Phantom:
    """Make a phantom; the same spec gives the same arrays.

    Raises
    ------
    PhantomError
        A lesion has no voxel in the aerated lung: its volume would be lost.
    """
    painter, expert = Painter(spec), _Expert(spec)
    disease = Disease(painter)
    shape = (spec.n_slices, spec.size, spec.size)
    hu = np.empty(shape, np.float32)
    truth, drawn = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    lobes = np.zeros(shape, np.uint8)
    found = np.zeros(len(spec.lesions), bool)
    blood = np.float32(260 if spec.contrast else 40)
    for k in range(spec.n_slices):
        plane, cavity, fluid, lobe, vessels = painter.slice(k)
        lung = np.minimum(cavity, -fluid)
        # Depths in ground glass and in high opacity: true, and as the expert sees them.
        depths = {who: np.full((2, *plane.shape), -99, np.float32) for who in ("truth", "expert")}
        # How opaque each kind makes a voxel, and what HU it has where it is full.
        opacity = np.zeros((2, *plane.shape), np.float32)
        target = np.zeros((2, *plane.shape), np.float32)
        for i, lesion in enumerate(spec.lesions):
            patch = disease.patch(lesion, k, lung)
            if patch is None:
                continue
            depth, here = patch.depth, (patch.rows, patch.columns)
            kind = int(KINDS[lesion.kind] == HIGH_OPACITY.code)
            for who in ("truth",) if expert.missed[i] else ("truth", "expert"):
                best = depths[who][kind][here]
                np.maximum(best, depth, out=best)
            found[i] |= bool(((depth > 0) & (lung[here] > 0)).any())
            part = covered(depth, min(lesion.softness_mm, 0.8 * min(lesion.axes_mm)))
            over = part > opacity[kind][here]
            target[kind][here] = np.where(over, patch.hu, target[kind][here])
            np.maximum(opacity[kind][here], part, out=opacity[kind][here])
        lobes[k] = np.where(lung > 0, lobe, 0)
        ggo_depth, dense_depth = depths["truth"]
        truth[k] = _labels(ggo_depth, dense_depth, lung, fluid)
        if truth[k].any():
            wide, wide_dense = expert.errors(k, painter.z[k], painter.y_axis, painter.x_axis)
            ggo_depth, dense_depth = depths["expert"]
            drawn[k] = _labels(ggo_depth + wide, dense_depth + wide_dense, lung,
                               np.minimum(fluid + wide, cavity))
        inside = covered(lung, painter.edge)
        mix(plane, opacity[0] * inside, target[0])
        mix(plane, painter.walls[k] * inside, np.float32(-330))
        mix(plane, vessels * covered(lung + 6, painter.edge), blood)
        # Over the vessels: consolidation hides them, but for the air in its bronchi.
        mix(plane, opacity[1] * inside, target[1])
        mix(plane, painter.lumen[k] * inside, np.float32(-960))
        hu[k] = plane
    if not found.all():
        lost = "; ".join(str(spec.lesions[i]) for i in np.flatnonzero(~found))
        raise PhantomError(
            f"case {spec.case_id!r}: no voxel of the lung holds the lesion {lost}. "
            "Expected a centre within the lung and semi-axes above half a slice gap; move it."
        )
    return _assemble(spec, acquire(spec, hu, painter.level), truth, drawn, lobes)


def _assemble(spec: PhantomSpec, hu, truth, expert, lobes) -> Phantom:
    (dz, dy, dx), (z, y, x) = spec.spacing_mm, spec.positions_mm()
    # From LPS to RAS: x and y change sign.
    affine = np.array([[-dx, 0, 0, -x[0]], [0, -dy, 0, -y[0]], [0, 0, dz, z[0]], [0, 0, 0, 1]],
                      np.float64)
    scan = Scan(hu, Grid(hu.shape, affine), spec.case_id, "phantom", spec.orientation)
    return Phantom(spec, scan, LesionMask.like(scan, truth), LesionMask.like(scan, expert),
                   lobes > 0, lobes)


CODE = ("spec.py", "make.py", "painter.py", "disease.py", "scanner.py", "anatomy.py",
        "../shapes.py")


def _recipe(spec: PhantomSpec) -> str:
    """The spec and the code that a case's files were made from."""
    code = hashlib.sha256()
    for name in CODE:
        code.update((Path(__file__).parent / name).read_bytes())
    return json.dumps({"spec": row_of_spec(spec), "code": code.hexdigest()}, indent=1) + "\n"


def _paths(spec: PhantomSpec, folder: Path) -> dict[str, Path]:
    return {part: folder / name / f"{spec.case_id}.nii.gz" for part, name in PARTS.items()}


def _is_written(spec: PhantomSpec, folder: Path) -> bool:
    note = folder / "recipes" / f"{spec.case_id}.json"
    return (all(path.is_file() for path in _paths(spec, folder).values()) and note.is_file()
            and note.read_text(encoding="utf-8") == _recipe(spec))


def _write_case(spec: PhantomSpec, folder: Path) -> None:
    phantom, paths = make_phantom(spec), _paths(spec, folder)
    write_scan(phantom.scan, paths["image"])
    write_mask(phantom.truth, paths["truth"])
    write_mask(phantom.expert, paths["mask"])
    lungs = LesionMask.like(phantom.scan, phantom.lungs.astype(np.uint8))
    write_mask(lungs, paths["lung_mask"])
    with atomic_path(folder / "recipes" / f"{spec.case_id}.json") as part:
        part.write_text(_recipe(spec), encoding="utf-8")


def write_cohort(
    specs: Iterable[PhantomSpec], folder: str | os.PathLike, progress: bool = True
) -> None:
    """Write each phantom's files: `images/`, `truth/`, `expert/` and `lungs/<case_id>.nii.gz`.

    A case is skipped when its files are there and `recipes/<case_id>.json`, which is written last,
    names the same spec and code. Many cases are shared out among the processor's cores.
    """
    folder = Path(folder)
    todo = [spec for spec in specs if not _is_written(spec, folder)]
    # A helper process takes a second or two to start: not for a handful of cases.
    n_jobs = max(1, min(os.cpu_count() or 1, len(todo) // 8))
    written = Parallel(n_jobs=n_jobs, return_as="generator_unordered")(
        delayed(_write_case)(spec, folder) for spec in todo)
    for _ in track(written, "phantoms", "case", len(todo), shown=progress and bool(todo)):
        pass
