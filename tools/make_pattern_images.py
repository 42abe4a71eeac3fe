"""Draw docs/images/patterns.png for the glossary: .venv/bin/python tools/make_pattern_images.py

The same synthetic chest five times, healthy and with four kinds of disease; its right lung, once
as a CT shows it and once with the truth.
"""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from PIL import Image

from deeplung_nb.imaging.phantom.make import make_phantom
from deeplung_nb.imaging.phantom.spec import Lesion, PhantomSpec
from deeplung_nb.report import panels

PLACE = Path(__file__).resolve().parent.parent / "docs" / "images" / "patterns.png"
CENTRE_MM, AXES_MM = (-75.0, 45.0, 110.0), (42.0, 42.0, 45.0)
PATTERNS: dict[str, tuple[dict[str, Any], str]] = {
    "Healthy": ({}, "dark air, bright vessels"),
    "Ground glass (GGO)": (
        {"lesions": (Lesion("ggo", CENTRE_MM, AXES_MM, -520.0, 4.0),)},
        "a haze: vessels go on in it"),
    "Crazy paving": (
        {"lesions": (Lesion("ggo", CENTRE_MM, AXES_MM, -520.0, 4.0, 0.0, 1.0),)},
        "a net of septa in the haze;\ncounted as ground glass"),
    "Consolidation": (
        {"lesions": (Lesion("consolidation", CENTRE_MM, AXES_MM, 30.0, 4.0),)},
        "vessels are hidden in it;\nhigh opacity"),
    "Effusion": ({"effusion_mm": (70.0, 0.0)},
                 "fluid behind the lung with a\nsmooth level; high opacity"),
}
MIDDLE = 1
RIGHT_LUNG = (slice(110, 390), slice(35, 265))
LUNG_WINDOW_HU = (-1150.0, 350.0)


def main() -> None:
    """Write the picture."""
    figure, axes = plt.subplots(2, len(PATTERNS), figsize=(11, 5.75), layout="constrained",
                                facecolor="white")
    for (above, below), (name, (disease, words)) in zip(axes.T, PATTERNS.items(), strict=True):
        phantom = make_phantom(PhantomSpec(
            "pattern", seed=7, size=432, n_slices=3, spacing_mm=(5.0, 0.85, 0.85), noise_hu=12.0,
            **disease))
        for one in (above, below):
            one.imshow(phantom.scan.hu[MIDDLE][RIGHT_LUNG], cmap="gray", vmin=LUNG_WINDOW_HU[0],
                       vmax=LUNG_WINDOW_HU[1], interpolation="bilinear")
            one.set(xticks=[], yticks=[])
            one.spines[:].set_visible(False)
        below.imshow(panels.overlay(phantom.truth.labels[MIDDLE][RIGHT_LUNG]))
        above.set_title(name, fontsize=12, fontweight="bold")
        below.set_xlabel(words, fontsize=10)
    figure.text(0.002, 0.002, "synthetic chest, no patient", fontsize=8, color="0.35")
    figure.savefig(PLACE, dpi=130)
    Image.open(PLACE).convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE).save(
        PLACE, optimize=True)
    print(PLACE)


if __name__ == "__main__":
    main()
