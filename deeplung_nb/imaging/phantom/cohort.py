"""The synthetic cohort: who is in it, on which scanner, with which disease.

`python -m deeplung_nb.imaging.phantom.cohort` writes `data_manifests/phantom.csv` anew. The cohort
is drawn so that it resembles the paper's in what statistics see: most cases without contrast
medium, skewed volumes, many cases without high opacity, a table of patients like Table 1. The
external part comes from other scanners.
"""

from __future__ import annotations

import csv
import os
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from deeplung_nb.files import atomic_path
from deeplung_nb.imaging.phantom.anatomy import Chest
from deeplung_nb.imaging.phantom.spec import DENSITY_HU, PARTS, Lesion, PhantomSpec, row_of_spec
from deeplung_nb.runs.registry import manifest_folder

SEED = 20210322
COHORT = "phantom"
SHORTEST_MM = 4.0
"""Least semi-axis along z: above half of the widest slice gap, so that no lesion is lost."""
MANIFEST_COLUMNS = (
    "cohort", "case_id", "patient_id", "role", "image", "mask", "lung_mask", "image_sha256",
    "mask_sha256", "lung_mask_sha256", "mask_kind", "protocol", "scanner", "centre", "n_slices",
    "slice_gap_mm", "exclude", "exclude_reason", "age", "sex", "bmi", "smoking", "lung_disease",
    "ecg_gated",
)


class Scanner(NamedTuple):
    """How a scanner's images look."""

    name: str
    size: int
    gap_mm: float
    kernel_mm: float
    sharpness: float
    noise_hu: float
    orientation: str


SCANNERS = {
    "cv": (
        Scanner("Scanner A", 216, 5.0, 0.75, 0.7, 18, "LPS"),
        Scanner("Scanner B", 192, 5.0, 1.1, 0.3, 13, "RAS"),
        Scanner("Scanner C", 240, 4.0, 0.6, 0.9, 26, "LPS"),
        Scanner("Scanner D", 208, 5.0, 0.9, 0.5, 16, "LPI"),
    ),
    "external": (
        Scanner("Scanner E", 224, 5.0, 1.3, 0.2, 22, "LAS"),
        Scanner("Scanner F", 208, 4.0, 0.55, 1.0, 30, "LPS"),
    ),
}
CENTRES = {"cv": ("Centre 1", "Centre 2", "Centre 3"), "external": ("Centre 4", "Centre 5")}
"""Each has every scanner of its role, so that Dice by centre is another thing than by scanner."""
# Disease of each case: how many, and whether there is ground glass, consolidation, effusion.
DISEASE = {
    "cv": ((4, ()), (7, ("ggo",)), (12, ("ggo", "dense")), (4, ("ggo", "dense", "fluid")),
           (3, ("ggo", "fluid"))),
    "external": ((1, ()), (5, ("ggo",)), (5, ("ggo", "dense")), (1, ("ggo", "dense", "fluid"))),
}
N_CONTRAST = {"cv": 6, "external": 0}


def _aerated(chest: Chest, effusion_mm, points: np.ndarray) -> np.ndarray:
    """Depth of points [n, 3] (x, y, z) in the lung above the fluid, mm."""
    x, y, z = (v.astype(np.float32) for v in chest.straight(*points.T))
    cavity = chest.cavity(x, y, z)
    return np.minimum(cavity, -chest.fluid(x, y, z, effusion_mm))


def _volume_ml(rng: np.random.Generator, chest: Chest, effusion_mm, lesion: Lesion) -> float:
    """About how much of a lesion lies in the aerated lung, by points drawn at random."""
    points = rng.standard_normal((250, 3))
    points *= (rng.uniform(size=250) ** (1 / 3) / np.linalg.norm(points, axis=1))[:, None]
    points = points * lesion.axes_mm + lesion.centre_mm
    depth = _aerated(chest, effusion_mm, points)
    centre = np.array(lesion.centre_mm)[None, :]
    lobes = [chest.lobes(*chest.straight(*some.T)) for some in (points, centre)]
    inside = (depth > 0) & (lobes[0] == lobes[1])
    if lesion.band_mm:
        inside &= depth < lesion.band_mm
    return lesion.volume_ml * float(inside.mean())


def _subpleural(rng: np.random.Generator, chest: Chest, effusion_mm, radius_mm: float, basal: float,
                band_mm: float) -> tuple[np.ndarray, np.ndarray] | None:
    """(centre, axes) of a lesion that lies against the pleura; None if the draw does not fit."""
    side = rng.choice((-1, 1))
    level = rng.beta(1.6 + (1 - basal), 1.6 + 1.6 * basal) * 0.8 + 0.06
    angle = np.deg2rad(abs(rng.normal(0, 55)))
    direction = np.array((side * np.sin(angle), np.cos(angle), 0))
    z = level * chest.height_mm
    start = chest.bent(np.array((side * chest.at("lung_x", z), chest.at("lung_y", z), z)))
    steps = np.arange(0, 110, 1.5)[:, None]
    depth = _aerated(chest, effusion_mm, start + steps * direction)
    inside = np.flatnonzero(depth > 0)
    if not len(inside):
        return None
    flat = rng.uniform(0.6, 0.95)
    outward = np.abs(direction[:2]) / np.abs(direction[:2]).sum()
    axes = radius_mm * np.array((flat if outward[0] > 0.5 else 1.1,
                                 flat if outward[1] > 0.5 else 1.1, rng.uniform(0.9, 1.3)))
    wall = start + steps[inside[-1]] * direction
    into = 0.5 * band_mm if band_mm else radius_mm * flat * rng.uniform(0.35, 0.75) + 1
    centre = wall - direction * into
    centre[2] += rng.uniform(-4, 4)
    axes[2] = max(axes[2], SHORTEST_MM)
    if _aerated(chest, effusion_mm, centre[None])[0] < 2:
        return None
    return centre, axes


def _rounded(kind: str, centre, axes, *numbers: float) -> Lesion:
    # Few digits in the manifest: it is read by people too.
    return Lesion(kind, tuple(float(round(c)) for c in centre),
                  tuple(float(max(round(a), 3)) for a in axes),
                  *(round(float(number), 1) for number in numbers))


def _lesions(rng: np.random.Generator, chest: Chest, effusion_mm, kind: str, target_ml: float,
             hosts: list[Lesion]) -> list[Lesion]:
    """Lesions of one kind that fill about `target_ml` of lung."""
    lesions: list[Lesion] = []
    total = 0.0
    for _ in range(400):
        if total > 0.93 * target_ml:
            break
        volume = min(float(rng.lognormal(np.log(60 if kind == "ggo" else 15), 0.9)),
                     1.2 * (target_ml - total), 220.0)
        radius = max((volume * 1000 * 0.75 / np.pi) ** (1 / 3), 6.0)
        fits, band, net, hu = None, 0.0, 0.0, DENSITY_HU[kind]
        # A small lesion stays whole and smooth: a rough border could swallow it.
        rough = min(3.5, 0.18 * radius) if radius > 9 else 0.0
        if kind == "ggo":
            hu = float(np.rint(rng.uniform(-640, -430)))
            if radius > 14 and rng.uniform() < 0.55:
                # A crescent is wider than a ball of its volume.
                band, radius = rng.uniform(9, 20), 1.35 * radius
            if rough and rng.uniform() < 0.4:
                net = rng.uniform(0.3, 1.0)
            fits = _subpleural(rng, chest, effusion_mm, radius, 0.5, band)
        elif hosts and rng.uniform() < 0.6:
            # Consolidation often lies in the middle of ground glass.
            host = hosts[rng.integers(len(hosts))]
            centre = np.array(host.centre_mm) + rng.normal(0, 0.25, 3) * host.axes_mm
            axes = radius * rng.uniform(0.8, 1.2, 3)
            axes[2] = max(axes[2], SHORTEST_MM)
            if _aerated(chest, effusion_mm, centre[None])[0] > 2:
                fits = centre, axes
        else:
            fits = _subpleural(rng, chest, effusion_mm, radius, 1.0, band)
        if fits is None:
            continue
        lesion = _rounded(kind, *fits, hu, rough, band, net)
        filled = _volume_ml(rng, chest, effusion_mm, lesion)
        if filled < 0.15 * lesion.volume_ml and filled < 1.0:
            continue  # a sliver between the pleura and a fissure
        lesions.append(lesion)
        total += filled
    return lesions


def _normal(n: int) -> np.ndarray:
    """n quantiles of the standard normal distribution, evenly spaced, rising."""
    return np.array([NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)])


def _quantiles(rng: np.random.Generator, n: int, mean: float, sd: float, low: float,
               high: float) -> np.ndarray:
    """n values spread like a normal distribution, in random order."""
    return np.clip(rng.permutation(mean + sd * _normal(n)), low, high)


def _flags(rng: np.random.Generator, n: int, share: float) -> np.ndarray:
    return rng.permutation(np.arange(n) < round(share * n))


def _crossed(order: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """`count` cases, as evenly from every group as may be, each group's in this order."""
    ranks = np.empty(len(order), int)  # of each case within its group
    for group in np.unique(groups):
        mine = np.flatnonzero(groups[order] == group)
        ranks[order[mine]] = np.arange(len(mine))
    chosen = np.zeros(len(order), bool)
    chosen[np.lexsort((np.argsort(order), ranks))[:count]] = True
    return chosen


def default_cohort(seed: int = SEED) -> list[dict[str, str]]:
    """The rows of `phantom.csv`: manifest, clinical table and the columns `ph_...`.

    The same seed gives the same rows.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for role, scanners in SCANNERS.items():
        disease = [kinds for count, kinds in DISEASE[role] for _ in range(count)]
        disease = [disease[i] for i in rng.permutation(len(disease))]
        n = len(disease)
        of_scanner = np.arange(n) % len(scanners)
        contrast = _crossed(rng.permutation(n), of_scanner, N_CONTRAST[role])
        age, bmi = _quantiles(rng, n, 61, 16, 19, 95), _quantiles(rng, n, 26.8, 5.3, 17, 45)
        male, ill = _flags(rng, n, 0.657), _flags(rng, n, 0.101)
        smoking = rng.permutation(np.repeat(
            ("current", "former", "never"),
            (round(0.117 * n), round(0.053 * n), n - round(0.117 * n) - round(0.053 * n))))
        gated = _flags(rng, n, 0.178)
        # Volumes are skewed, as in the paper: a few cases carry most of the disease.
        ggo_ml = rng.permutation(280 * np.exp(_normal(n)))
        dense_ml = rng.permutation(28 * np.exp(1.1 * _normal(n)))
        for i, kinds in enumerate(disease):
            scanner = scanners[of_scanner[i]]
            centre = CENTRES[role][i // len(scanners) % len(CENTRES[role])]
            chest = Chest(
                round(float(rng.normal(1.0 if male[i] else 0.91, 0.03)), 3),
                float(round(rng.normal(243 if male[i] else 218, 10))),
                float(round(np.clip(13 + 1.3 * (bmi[i] - 26.8), 5, 34))),
                0.0 if male[i] else float(round(np.clip(20 + 0.9 * (bmi[i] - 26.8), 10, 34))),
                *(round(float(value), 2) for value in (
                    rng.normal(1.0, 0.05), rng.normal(1.0 + 0.002 * (age[i] - 61), 0.06),
                    rng.normal(0, 4))),
            )
            fluid = (0.0, 0.0)
            if "fluid" in kinds:
                depth = float(round(rng.uniform(10, 30)))
                fluid = [(depth, 0.0), (0.0, depth), (depth, round(depth / 2))][rng.integers(3)]
            lesions = []
            if "ggo" in kinds:
                lesions += _lesions(rng, chest, fluid, "ggo", float(min(ggo_ml[i], 1300)), [])
                for _ in range(rng.integers(0, 4)):  # what an expert may overlook
                    lesions += _lesions(rng, chest, fluid, "ggo", 1.5, [])
            if "dense" in kinds:
                lesions += _lesions(rng, chest, fluid, "consolidation", float(dense_ml[i]),
                                    [lesion for lesion in lesions if lesion.volume_ml > 15])
            pixel = round((2 * chest.half_width_mm + 22) / scanner.size, 3)
            n_slices = int(np.clip(round(1.1 * chest.height_mm / scanner.gap_mm), 40, 72))
            spec = PhantomSpec(
                f"{'P' if role == 'cv' else 'X'}{i + 1:03d}", int(rng.integers(1, 2**31)),
                scanner.size, n_slices, (scanner.gap_mm, pixel, pixel), bool(contrast[i]),
                scanner.name, chest, tuple(lesions), tuple(map(float, fluid)),
                round(float(rng.uniform(0.4, 1)), 2) if ill[i] else 0.0,
                scanner.kernel_mm, scanner.sharpness, scanner.noise_hu, scanner.orientation,
                float(round(np.clip(rng.normal(60, 40), 0, 140))),
                round(float(np.clip(rng.normal(0.2, 0.8), 0, 2.5)), 1),
            )
            case = spec.case_id
            row = {name: "" for name in MANIFEST_COLUMNS}
            row |= {name: f"{folder}/{case}.nii.gz" for name, folder in PARTS.items()
                    if name in MANIFEST_COLUMNS}
            row |= {
                "cohort": COHORT, "patient_id": f"{case}-patient", "role": role, "exclude": "0",
                "mask_kind": "ggo+high_opacity", "centre": centre,
                "age": f"{age[i]:.0f}", "sex": "male" if male[i] else "female",
                "bmi": f"{bmi[i]:.1f}", "smoking": str(smoking[i]),
                "lung_disease": str(int(ill[i])), "ecg_gated": str(int(gated[i])),
                **row_of_spec(spec),
            }
            rows.append(row)
    return rows


def write_default_cohort(path: str | os.PathLike | None = None, seed: int = SEED) -> None:
    """Write the manifest of the synthetic cohort, `data_manifests/phantom.csv` by default."""
    rows = default_cohort(seed)
    target = path or manifest_folder() / f"{COHORT}.csv"
    with atomic_path(target) as part, part.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    write_default_cohort()
