"""The label table: the one place where a code, a name and a colour of a structure are written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Label:
    """One class of a label map."""

    code: int
    name: str
    title: str
    colour: str


BACKGROUND = Label(0, "background", "Background", "#000000")
GGO = Label(1, "ggo", "Ground-glass opacity", "#2f7fd6")
HIGH_OPACITY = Label(2, "high_opacity", "High opacity", "#f2c230")

LABELS: tuple[Label, ...] = (BACKGROUND, GGO, HIGH_OPACITY)
"""The classes of the network, in the order of its scores."""
NO_ANSWER = 255
"""In a training target: what is here is not known, and nothing is learned from it."""

def counted(n: int, thing: str) -> str:
    """`1 pair`, `2 pairs`."""
    return f"{n} {thing}" + "s" * (n != 1)


LESION_STRUCTURES: tuple[str, ...] = (GGO.name, HIGH_OPACITY.name, "lesion")
STRUCTURES: tuple[str, ...] = ("lung", *LESION_STRUCTURES)
"""What is measured; `lesion` is the union of ground-glass and high opacity."""

TITLES: dict[str, str] = {
    "lung": "Lung",
    GGO.name: GGO.title,
    HIGH_OPACITY.name: HIGH_OPACITY.title,
    "lesion": "Any lesion",
}
COLOURS: dict[str, str] = {
    "lung": "#7a8b99",
    GGO.name: GGO.colour,
    HIGH_OPACITY.name: HIGH_OPACITY.colour,
    "lesion": "#3a9d6e",
}

REGIONS: dict[str, str] = {
    "right": "right lung", "left": "left lung",
    "upper": "upper third", "middle": "middle third", "lower": "lower third",
    "central": "central lung", "peripheral": "peripheral lung",
}
"""Parts of the lungs (`imaging.regions` defines them) -> words; three ways to divide the whole."""
LOBES: dict[str, str] = {
    "right_upper": "right upper lobe", "right_middle": "right middle lobe",
    "right_lower": "right lower lobe", "left_upper": "left upper lobe",
    "left_lower": "left lower lobe",
}

VALUES = {"volume_ml": ("volume", "mL"), "burden_percent": ("burden", "%"),
          "burden_in_lung_percent": ("burden in the lung mask", "%"),
          "mean_hu": ("mean attenuation", "HU"),
          **{f"volume_{name}_ml": (f"volume in the {words}", "mL")
             for name, words in REGIONS.items()},
          "po_percent": ("percentage of opacity", "%"),
          "pho_percent": ("percentage of high opacity", "%"),
          "hu_p50": ("median attenuation", "HU"),
          "hu_p95": ("95th percentile of attenuation", "HU")}
"""What two readers are compared in: column -> name and unit."""

NO_AMOUNTS = ("mean_hu", "hu_p50", "hu_p95")
"""Of these 0 is no absence, and a ratio has no meaning."""

READER_PREFIX, CONSENSUS = "reader-", {
    "consensus-majority": "Majority of the readers", "consensus-staple": "STAPLE of the readers"}
"""Further readers of a study (`reader-ann`), and what several of them say together."""


def people(readers: Iterable[str]) -> list[str]:
    """Of a table's readers those who are no machine and no consensus, the expert first."""
    names = list(dict.fromkeys(readers))
    return [name for name in names if name == "expert"] + [
        name for name in names if name.startswith(READER_PREFIX)]


ROLES: dict[str, str] = {
    "cv": "Training (cross-validation)",
    "external": "External validation",
}
"""What a case serves for; each of `cv` is scored by the fold that never saw its patient."""


def structure_mask(labels: np.ndarray, structure: str) -> np.ndarray:
    """Voxels of one lesion structure, as a boolean array of the shape of `labels`.

    Raises
    ------
    ValueError
        `structure` is not one of `LESION_STRUCTURES`. The lung is no class of the label map: it has
        a mask of its own.
    """
    if structure == GGO.name:
        return labels == GGO.code
    if structure == HIGH_OPACITY.name:
        return labels == HIGH_OPACITY.code
    if structure == "lesion":
        return labels > BACKGROUND.code
    raise ValueError(f"structure {structure!r}: expected one of {', '.join(LESION_STRUCTURES)}")
