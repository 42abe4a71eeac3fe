"""How far a scan lies from those that a network was trained on, in a few plain properties.

It is no probability of an error. A network may read a strange scan well and fail on a familiar
one; but of a scan unlike all that it has seen, its makers know nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from deeplung_nb.imaging.body import SOFT_TISSUE_HU, noise_hu
from deeplung_nb.imaging.lungs import LungMask
from deeplung_nb.imaging.scan import Scan

PROPERTIES: dict[str, tuple[str, str, float]] = {
    # name: words, unit, least width of a range (of few scans it would be too narrow)
    "slice_gap_mm": ("distance between slices", "mm", 2.0),
    "pixel_mm": ("pixel size", "mm", 0.5),  # nominal in MedSeg
    "soft_tissue_hu": ("most frequent soft tissue", "HU", 60.0),
    "lung_hu": ("median of the lungs", "HU", 100.0),
    "noise_hu": ("noise in soft tissue", "HU", 10.0),
    "burden_percent": ("lesions", "% of the lungs", 10.0),
}
FAR = 0.5
"""A distance above it is warned of: half of the range's width beyond the range."""
MOST_SLICES = 24


def describe_scan(scan: Scan, lungs: LungMask | None,
                  burden_percent: float | None = None) -> dict[str, float]:
    """The `PROPERTIES` of a scan; what can't be told is left out."""
    keep = np.unique(np.linspace(0, scan.n_slices - 1, MOST_SLICES).round().astype(int))
    hu = scan.hu[keep]
    found = {"slice_gap_mm": scan.spacing_mm[0], "pixel_mm": scan.spacing_mm[2]}
    soft = (hu > SOFT_TISSUE_HU[0]) & (hu < SOFT_TISSUE_HU[1])
    if soft.any():
        low, high = SOFT_TISSUE_HU
        counts, edges = np.histogram(hu[soft], np.arange(low, high + 1, 10))
        found["soft_tissue_hu"] = float(edges[counts.argmax()]) + 5.0
    noise = noise_hu(hu)
    if noise is not None:
        found["noise_hu"] = noise
    if lungs is not None and lungs.mask.any():
        found["lung_hu"] = float(np.median(scan.hu[lungs.mask]))
    if burden_percent is not None and np.isfinite(burden_percent):
        found["burden_percent"] = float(burden_percent)
    return found


def training_ranges(scans: Iterable[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Property -> (lowest, highest) of the scans of a training, by `describe_scan`."""
    scans = list(scans)
    ranges = {}
    for name in PROPERTIES:
        values = [scan[name] for scan in scans if name in scan]
        if values:
            ranges[name] = (min(values), max(values))
    return ranges


def distances(scan: Mapping[str, float],
              ranges: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Property -> how far beyond the range, in widths of the range; 0 inside."""
    found = {}
    for name, value in scan.items():
        if name in ranges:
            low, high = ranges[name]
            width = max(high - low, PROPERTIES[name][2])
            found[name] = max(low - value, value - high, 0.0) / width
    return found


def warnings_of(scan: Mapping[str, float],
                ranges: Mapping[str, tuple[float, float]]) -> list[str]:
    """One sentence for each property that is `FAR` from the training scans'."""
    return [f"unlike the training scans: {PROPERTIES[name][0]} {scan[name]:.3g} "
            f"{PROPERTIES[name][1]}, trained on {ranges[name][0]:.3g} to {ranges[name][1]:.3g}"
            for name, distance in distances(scan, ranges).items() if distance > FAR]
