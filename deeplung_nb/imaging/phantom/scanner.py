"""What a scanner makes of a chest: thickness, breathing, kernel, streaks and noise."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from deeplung_nb.imaging.phantom.spec import PhantomSpec

THICKNESS = (0.1, 0.8, 0.1)
"""How much a slice shows of the one below, of itself and of the one above."""
LONG_PATH_MM = 330.0
"""Of water, along a row: there streaks have a standard deviation of 10 HU; below three quarters of
it there are none."""


def _breathe(plane: np.ndarray, shift: float, y: np.ndarray) -> np.ndarray:
    """Two positions in one slice, half of `shift` pixels to each side: doubled contours.

    The front moves, the back lies on the table.
    """
    moved = [ndimage.shift(plane, (s, 0), order=1, mode="nearest") for s in (-shift / 2, shift / 2)]
    front = np.clip((90 - y[:, None]) / 120, 0, 1)
    return plane + front * ((moved[0] + moved[1]) / 2 - plane)


def _streaks(plane: np.ndarray, pixel_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Streaks along the rows whose rays pass through much tissue, and a shade between bones."""
    path_mm = np.clip(plane + 1000, 0, 2000).sum(axis=1, keepdims=True) * (pixel_mm / 1000)
    strength = 10 * np.clip(path_mm / LONG_PATH_MM - 0.75, 0, 0.8) ** 1.5 / 0.25**1.5
    rough, length = rng.standard_normal(plane.shape, np.float32), max(1, round(50 / pixel_mm))
    for _ in range(2):
        rough = ndimage.uniform_filter1d(rough, length, axis=1)
    bone_mm = (plane > 300).sum(axis=1, keepdims=True) * pixel_mm
    bone_mm = ndimage.gaussian_filter1d(bone_mm.astype(np.float32), 2.0, axis=0)
    shade = -0.35 * np.clip(bone_mm - 25, 0, 60) * (plane > -500) * (plane < 250)
    return strength * (rough / rough.std()) + shade


def acquire(spec: PhantomSpec, hu: np.ndarray, level: np.ndarray) -> np.ndarray:
    """What the scanner of a phantom makes of a perfect picture.

    Parameters
    ----------
    spec
        Kernel, sharpness, noise and breathing.
    hu
        float32 [z, y, x], without blur or noise.
    level
        Height of each slice, as a part of the lungs' height.

    Returns
    -------
    ndarray
        int16 [z, y, x].
    """
    rng = np.random.default_rng((spec.seed, 2))
    pixel = spec.spacing_mm[1:]
    out = np.empty(hu.shape, np.int16)
    thick = ndimage.correlate1d(hu, THICKNESS, axis=0, mode="nearest")
    _, y, x = spec.positions_mm()
    # More noise where the rays cross more tissue: in the middle.
    middle = 0.75 + 0.5 * np.exp(-(x[None, :] / 110) ** 2 - ((y[:, None] - 5) / 80) ** 2)
    for k, plane in enumerate(thick):
        # Most at the diaphragm and the heart, none at the apex.
        breath = spec.breathing_mm * rng.uniform(0.3, 1) * np.clip(1.1 - level[k], 0, 1)
        if spec.breathing_mm:
            plane = _breathe(plane, breath / pixel[0], y)
        sharp = ndimage.gaussian_filter(plane, [spec.kernel_mm / p for p in pixel], truncate=3)
        halo = ndimage.gaussian_filter(sharp, [1.6 / p for p in pixel], truncate=3)
        sharp += spec.sharpness * (sharp - halo)
        noise = rng.standard_normal(plane.shape, np.float32)
        noise = ndimage.gaussian_filter(noise, [0.85 * spec.kernel_mm / p for p in pixel])
        noise = noise * (spec.noise_hu / noise.std()) * middle
        out[k] = np.clip(np.rint(sharp + noise + _streaks(plane, pixel[1], rng)), -1024, 3071)
    return out
