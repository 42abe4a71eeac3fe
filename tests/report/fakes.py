"""Made-up measurements, times and runs, and what several files of these tests ask of a figure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd

from deeplung_nb.labels import GGO, HIGH_OPACITY
from deeplung_nb.measurements import COLUMNS, check, pair
from deeplung_nb.report import (
    figures,
)
from deeplung_nb.runs.config import load_profile
from deeplung_nb.stats import agreement, correlation

CLASSES = ("ggo", "high_opacity")


HOSTILE = '<script>alert("x")</script>'


@dataclass
class FakeRun:
    """What the report needs of a run."""

    folder: Path
    synthetic: bool = True
    run_id: str = "quick-0123456789ab"
    config: object = load_profile("quick")

    def info(self) -> dict:
        return json.loads(self.path("run.json").read_text(encoding="utf-8"))

    def path(self, *parts: str) -> Path:
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def fake_measurements(n: int = 30, seed: int = 3) -> pd.DataFrame:
    """Cases with skewed volumes, zeros on one side and on both, two protocols, two roles."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        expert = {"ggo": rng.lognormal(4, 1.1), "high_opacity": rng.lognormal(3, 1.2) * (i % 3 > 0)}
        model = {name: value * rng.normal(1, 0.15) for name, value in expert.items()}
        if i % 6 == 0:
            model["high_opacity"] = 2.0
        if i % 5 == 1:
            model["high_opacity"] = 0.0
        shared = {
            "run_id": "r", "cohort": "fake", "role": "cv" if i < 20 else "external",
            "case_id": f"X{i:03d}", "patient_id": f"P{i:03d}", "scanner": "AB"[i % 2],
            "protocol": ("contrast", "non-contrast")[i % 2], "centre": "C", "fold": i % 5,
            "voxel_mm3": 1.0, "n_slices": 40, "mean_hu": -500.0, "status": "ok",
        }
        voxels = {reader: {name: round(1000 * value) for name, value in volumes.items()}
                  for reader, volumes in (("expert", expert), ("model", model))}
        for reader, counted in voxels.items():
            counted["lesion"] = sum(counted.values())
            counted["lung"] = 4_000_000
            for structure, n in counted.items():
                row = {**shared, "reader": reader, "structure": structure, "n_voxels": n,
                       "volume_ml": n / 1000, "burden_percent": n / 40_000,
                       "burden_in_lung_percent": n / 40_000, "slices_with": min(40, n // 5000)}
                if reader == "model" and structure != "lung":
                    wanted = voxels["expert"][structure]
                    row["tp"] = int(min(n, wanted) * rng.uniform(0.5, 1))
                    row["fp"], row["fn"], row["tn"] = n - row["tp"], wanted - row["tp"], 10**6
                    row["dice"] = 2 * row["tp"] / (n + wanted) if n + wanted else None
                rows.append(row)
    return check(pd.DataFrame(rows).reindex(columns=list(COLUMNS)))


def fake_timings() -> pd.DataFrame:
    columns = ["model", "way", "width", "device", "hardware", "threads", "n_slices", "repeats",
               "seconds_median", "seconds_min", "seconds_max", "parameters_million",
               "peak_memory_gb"]
    return pd.DataFrame([
        ("ours", "fast", 0, "cpu", "Chip", 2, 16, 3, 3.0, 2.9, 3.2, 6.05, 1.0),
        ("ours", "plain", 0, "cpu", "Chip", 2, 16, 3, 7.0, 6.9, 7.2, 6.05, 1.5),
        ("ours", "bfloat16", 0, "cpu", "Chip", 2, 16, 3, 2.0, 1.9, 2.2, 6.05, 1.5),
        ("ours", "fast", 0, "cpu", "Chip", 2, 120, 3, 22.0, 21.0, 23.0, 6.05, 1.1),
        ("ours", "fast", 0, "cpu", "Chip", 2, 500, 1, 92.0, 92.0, 92.0, 6.05, 1.2),
        ("ours", "plain", 0, "cuda", "Card", 1, 16, 3, 0.03, 0.029, 0.04, 6.05, 2.5),
        ("unet2d", "plain", 16, "cpu", "Chip", 2, 16, 3, 1.5, 1.4, 1.6, 0.5, 1.4),
        ("unet2d", "plain", 64, "cpu", "Chip", 2, 16, 3, 6.0, 5.9, 6.1, 7.8, 1.4),
    ], columns=columns).assign(task="network", image_size=256)


def agreement_figure(measured):
    pairs = {name: pair(measured, "expert", "model", name) for name in CLASSES}
    return figures.draw_agreement(
        pairs,
        {name: agreement.bland_altman(p["reference"], p["test"]) for name, p in pairs.items()},
        {name: correlation.spearman(p["reference"], p["test"]) for name, p in pairs.items()},
    )


def slice_of_lungs():
    hu = np.full((40, 50), -850.0)
    labels = np.zeros((40, 50), np.uint8)
    labels[10:20, 10:20] = GGO.code
    labels[12:15, 12:15] = HIGH_OPACITY.code
    return hu, labels


LAYERS = pd.DataFrame([
    ("trunk", "512x32x32", 1000), ("main_head", "3x32x32", 2000), ("convlstm", "3x256x256", 300),
    ("attention_branch_head", "3x256x256", 40), ("attention_head", "3x256x256", 40),
    ("fusion", "3x256x256", 0),
], columns=["part", "output_shape", "parameters"])


SPLITS = pd.DataFrame({
    "cohort": "c", "case_id": [f"X{i}" for i in range(10)],
    "patient_id": [f"P{i // 2}" for i in range(10)], "fold": [i // 2 for i in range(10)],
    "validation_in": [(i // 2 + 4) % 5 for i in range(10)],
})


def words(figure) -> str:
    return " | ".join(item.get_text() for item in figure.findobj(lambda a: hasattr(a, "get_text")))


def plotted(axes):
    """(x, y) of every point that is drawn, filled or hollow; the ring of double zeros apart."""
    points = [(x, y) for line in axes.lines
              if line.get_marker() == "o" and line.get_markerfacecolor() != "none"
              for x, y in zip(*map(np.asarray, line.get_data()), strict=True)]
    return sorted(points)


TWO_READERS = pd.DataFrame({"reference": [0.0, 0.0, 4.0, 10.0, 20.0, 31.0, 50.0],
                            "test": [0.0, 3.0, 0.0, 12.0, 19.0, 30.0, 56.0]})


def manifest() -> pd.DataFrame:
    return pd.DataFrame({
        "cohort": "fake", "case_id": list("abcd"), "patient_id": ["P1", "P1", "P2", "P3"],
        "role": "cv", "protocol": "non-contrast", "scanner": [HOSTILE, HOSTILE, None, "Z"],
        "centre": "C_1", "exclude": [0, 0, 0, 1], "exclude_reason": ["", "", "", "no lung"],
        "age": [50, 50, 70, 90], "sex": ["male", "male", None, "female"],
        "lung_disease": [1, 1, 0, 1],
    })


class Page(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words += data
