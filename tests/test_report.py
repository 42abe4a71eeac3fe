"""Figures, tables, the comparison with the paper, and the page that binds them."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import docx
import matplotlib as mpl
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from deeplung_nb.config import load_profile
from deeplung_nb.labels import GGO, HIGH_OPACITY, LESION_STRUCTURES
from deeplung_nb.measurements import COLUMNS, check, pair
from deeplung_nb.registry import manifest_folder
from deeplung_nb.report import (
    counts,
    error_plots,
    figures,
    html,
    numbers,
    panels,
    published,
    tables,
)
from deeplung_nb.report.counts import read_history
from deeplung_nb.report.discrepancies import check_published
from deeplung_nb.report.style import MM, PAGE_MM, STYLE, new_figure, save_figure
from deeplung_nb.report.word import PrintedTable
from deeplung_nb.stats import agreement, correlation, summary
from deeplung_nb.stats.comparison import compare
from deeplung_nb.stats.dice import dice_table

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


@pytest.fixture
def run(tmp_path):
    fake = FakeRun(tmp_path / "quick-0123456789ab")
    fake.path("run.json").write_text("{}", encoding="utf-8")
    return fake


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


@pytest.fixture(scope="module")
def measured():
    return fake_measurements()


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


@pytest.fixture(scope="module")
def timings():
    return fake_timings()


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


def test_same_figure_gives_same_bytes(measured, run, tmp_path):
    other = FakeRun(tmp_path / "again" / run.folder.name)
    for target in (run, other):
        save_figure(agreement_figure(measured), target, "fig6")
    for suffix in ("pdf", "svg", "png", "json"):
        first = run.path("figures", f"fig6.{suffix}").read_bytes()
        assert first == other.path("figures", f"fig6.{suffix}").read_bytes(), suffix
        assert first

def test_equal_clip_paths_have_one_name_however_often_they_were_made(run):
    """Matplotlib counts objects: whether it kept a path or made it anew would show in the file."""
    from types import SimpleNamespace

    from matplotlib.path import Path as Outline

    from deeplung_nb.report.style import _clip_number
    renderer = SimpleNamespace(_clip_path_ids={})
    circle, square = Outline.unit_circle(), Outline.unit_rectangle()
    again = Outline(circle.vertices.copy(), circle.codes.copy())
    assert [_clip_number(renderer, path) for path in (circle, again, square, circle)] == [
        0, 0, 1, 0]


def test_names_in_an_svg_do_not_hang_on_the_last_digits_of_the_layout(measured, run, monkeypatch):
    """The solver of the layout leaves them to chance; here they are changed on purpose."""
    from matplotlib.backends.backend_svg import RendererSVG
    save_figure(agreement_figure(measured), run, "first")
    clip = RendererSVG._get_clip_attrs

    def shaken(self, gc):
        rectangle = gc.get_clip_rectangle()
        if rectangle is not None:
            gc.set_clip_rectangle(Bbox.from_bounds(*(v * (1 + 1e-12) for v in rectangle.bounds)))
        return clip(self, gc)

    monkeypatch.setattr(RendererSVG, "_get_clip_attrs", shaken)
    save_figure(agreement_figure(measured), run, "second")
    first, second = (run.path("figures", f"{name}.svg").read_bytes()
                     for name in ("first", "second"))
    assert first == second


def test_pdf_embeds_its_fonts_and_svg_needs_none(run):
    save_figure(figures.draw_splits(SPLITS), run, "fig3")
    pdf = run.path("figures", "fig3.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf
    assert "<text" not in run.path("figures", "fig3.svg").read_text(encoding="utf-8")


def test_png_is_300_dpi_of_page_width(run):
    save_figure(figures.draw_splits(SPLITS), run, "fig3")
    header = run.path("figures", "fig3.png").read_bytes()[16:20]
    assert int.from_bytes(header, "big") == pytest.approx(PAGE_MM * MM * 300, abs=1)


def test_synthetic_footer_on_synthetic_runs_only(run, tmp_path):
    figure = figures.draw_architecture(LAYERS)
    save_figure(figure, run, "fig2")
    save_figure(figure, run, "fig2")
    assert words(figure).count("synthetic cohort") == 1
    real = figures.draw_architecture(LAYERS)
    save_figure(real, FakeRun(tmp_path / "public-1", synthetic=False), "fig2")
    assert "synthetic" not in words(real)


def test_drawing_leaves_no_pyplot_state_and_no_settings_behind(measured):
    before = mpl.rcParams["font.size"]
    agreement_figure(measured)
    assert mpl.rcParams["font.size"] == before != STYLE["font.size"]
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()


@pytest.mark.filterwarnings("error")
def test_no_text_leaves_a_figure(measured):
    hu, labels = slice_of_lungs()
    history = pd.DataFrame({"epoch": [1, 2, 3], "lr": 1e-3, "train_loss": [3.0, 2, 1],
                            "validation_loss": [3.0, 1, 2], "dice_ggo": [0.1, 0.2, 0.3],
                            "dice_high_opacity": [0.1, 0.2, 0.3], "dice_lesion": [0.1, 0.2, 0.3]})
    drawn = {
        "agreement": agreement_figure(measured),
        "curves": figures.draw_learning_curves({0: history, 1: history}),
        "dice": figures.draw_dice_by(measured, "protocol"),
        "splits": figures.draw_splits(SPLITS),
        "architecture": figures.draw_architecture(LAYERS),
        "case": figures.draw_case(hu, labels, labels, (1.0, 1.0), {"lesion": 0.857}, "X001",
                                  "the median"),
        "preparation": figures.draw_preparation({"input": hu, "body box": hu, "crop": hu,
                                                 "augmented": hu, "normalised": hu * 0}),
    }
    for name, figure in drawn.items():
        pixels = mpl.image.imread(io.BytesIO(figure.png()))
        edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
        # A label that is cut off touches the edge.
        assert all(edge.min() == 1 for edge in edges), name
        assert figure.alt


def test_agreement_figure_prints_the_numbers_it_was_given(measured):
    p = pair(measured, "expert", "model", "high_opacity")
    result = agreement.bland_altman(p["reference"], p["test"])
    said = words(agreement_figure(measured))
    both = int(((p["reference"] == 0) & (p["test"] == 0)).sum())
    assert both > 0
    assert f"n = {len(p)}" in said
    assert f"both {both}" in said
    assert "ring: all with both 0 (counted above)" in said
    assert f"bias {numbers.number(result.bias)}" in said
    assert numbers.number(result.loa_upper) in said
    assert "automatic − expert" in said


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("options", [
    {"limits": "regression"}, {"limits": "quantile", "scale": "percent"}, {"scale": "ratio"},
    {"limits": "regression", "scale": "ratio"},
])
def test_every_kind_of_limits_and_scale_can_be_drawn(measured, options):
    p = pair(measured, "expert", "model", "high_opacity")
    result = agreement.bland_altman(p["reference"], p["test"], **options)
    figure = figures.draw_agreement({"high_opacity": p}, {"high_opacity": result}, {
        "high_opacity": correlation.spearman(p["reference"], p["test"])})
    figure.png(50)
    said = words(figure)
    assert result.limits in said
    if result.n_excluded:
        assert f"{result.n_excluded} left out" in said
    # The drawn limits are the printed ones; with regression, at the mean size of the readings.
    a, b = (p[name][(p["reference"] > 0) & (p["test"] > 0)] if options.get("scale") == "ratio"
            else p[name] for name in ("reference", "test"))
    size = np.sqrt(a * b) if options.get("scale") == "ratio" else (a + b) / 2
    drawn = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    at_mean = result.lines(np.exp(np.log(size).mean()) if options.get("scale") == "ratio"
                           else size.mean())
    for side, line, value in zip(("lower", "upper"), drawn, (result.loa_lower, result.loa_upper),
                                 strict=True):
        assert getattr(at_mean, side) == pytest.approx(value)
        x, y = map(np.asarray, line.get_data())
        np.testing.assert_allclose(y, getattr(result.lines(x), side))


@pytest.mark.parametrize("multiplier", [1.0, 1.959963984540054])
@pytest.mark.parametrize("scale", ["difference", "percent", "ratio"])
def test_sloped_limits_are_drawn_where_the_regression_puts_them(scale, multiplier):
    """By hand: bias and |residual| on size by least squares, half-width z sqrt(pi/2) |residual|;
    of a ratio, on the logarithm of the size."""
    rng = np.random.default_rng(4)
    a = rng.uniform(5, 200, 60)
    b = a * np.exp(rng.normal(0.1, 0.05 + np.sqrt(a) / 50))
    size = np.log(a * b) / 2 if scale == "ratio" else (a + b) / 2
    d = {"difference": b - a, "percent": 200 * (b - a) / (a + b), "ratio": np.log(b / a)}[scale]
    line = np.polynomial.Polynomial.fit(size, d, 1)
    spread = np.polynomial.Polynomial.fit(size, np.abs(d - line(size)), 1)
    result = agreement.bland_altman(a, b, limits="regression", scale=scale, multiplier=multiplier)
    figure = Figure()
    axes = figure.subplots()
    figures.draw_bland_altman(axes, pd.DataFrame({"reference": a, "test": b}), result, "ggo")
    drawn = [line for line in axes.lines if line.get_linestyle() == "--"]
    for sign, of_limit in zip((-1, 1), drawn, strict=True):
        x, y = map(np.asarray, of_limit.get_data())
        at = np.log(x) if scale == "ratio" else x
        wanted = line(at) + sign * multiplier * np.sqrt(np.pi / 2) * np.maximum(spread(at), 0)
        np.testing.assert_allclose(y, np.exp(wanted) if scale == "ratio" else wanted)


def orange(axes):
    return [line for line in axes.lines if line.get_linestyle() == "-."]


def test_the_worst_case_says_what_is_not_among_the_candidates():
    rows = []
    for case, expert, dice in (("a", 5.0, 0.4), ("b", 9.0, 0.7), ("c", 0.0, 0.0), ("d", 0.0, None)):
        rows += [{"cohort": "x", "case_id": case, "reader": reader, "structure": structure,
                  "volume_ml": expert, "dice": dice if reader == "model" else None,
                  "status": "ok", "role": "cv"}
                 for reader in ("expert", "model") for structure in LESION_STRUCTURES]
    chosen = figures.choose_case(pd.DataFrame(rows), "worst")
    assert (chosen.case_id, chosen.n_candidates) == ("a", 2)
    assert chosen.rule == (
        "the lowest Dice (any lesion) of 2 cases in which the expert drew a lesion; not among "
        "them 1 without one in which the network drew some (Dice 0)")


def test_limits_that_fit_stand_beside_constant_ones_that_do_not():
    rng = np.random.default_rng(2)
    a = rng.uniform(1, 400, 60)
    pairs = {"grows": (a, a + rng.normal(0, 0.02 + 0.1 * a)), "even": (a, a + rng.normal(0, 5, 60)),
             "heavy": (a, a + np.random.default_rng(5).standard_t(1.5, 60))}
    drawn = {}
    for name, (first, second) in pairs.items():
        p = pd.DataFrame({"reference": first, "test": second})
        axes = Figure().subplots()
        fitting = compare(p).fitting
        result = agreement.bland_altman(first, second)
        figures.draw_bland_altman(axes, p, result, "ggo", fitting)
        drawn[name] = axes, fitting, axes.get_title(loc="left")
    assert orange(drawn["even"][0]) == []
    assert drawn["even"][1] is None
    axes, fitting, title = drawn["grows"]
    assert "spread p = 0.002: limits by regression (orange)" in title
    by_size = agreement.bland_altman(*pairs["grows"], limits="regression")
    for side, line in zip(("lower", "upper"), orange(axes), strict=True):
        x, y = map(np.asarray, line.get_data())
        np.testing.assert_allclose(y, getattr(by_size.lines(x), side))
    axes, fitting, title = drawn["heavy"]
    low, high = np.quantile(np.subtract(*pairs["heavy"][::-1]), [0.025, 0.975],
                            method="median_unbiased")
    assert [line.get_ydata()[0] for line in orange(axes)] == pytest.approx([low, high])
    assert "normality p < 0.001: 95 % from" in title
    assert fitting.limits.limits == "quantile"


def test_the_last_epoch_has_its_learning_rate_as_wide_as_any():
    history = pd.DataFrame({"epoch": [0, 1, 2], "lr": [1e-3, 5e-4, 1e-5], "train_loss": 1.0,
                            "validation_loss": 1.0, "dice_ggo": 0.5, "dice_high_opacity": 0.5,
                            "dice_lesion": 0.5})
    figure = figures.draw_learning_curves({0: history})
    values, edges, _ = figure.axes[2].patches[0].get_data()
    assert edges.tolist() == [0, 1, 2, 3]
    assert values.tolist() == [1e-3, 5e-4, 1e-5]


def plotted(axes):
    """(x, y) of every point that is drawn, filled or hollow; the ring of double zeros apart."""
    points = [(x, y) for line in axes.lines
              if line.get_marker() == "o" and line.get_markerfacecolor() != "none"
              for x, y in zip(*map(np.asarray, line.get_data()), strict=True)]
    return sorted(points)


TWO_READERS = pd.DataFrame({"reference": [0.0, 0.0, 4.0, 10.0, 20.0, 31.0, 50.0],
                            "test": [0.0, 3.0, 0.0, 12.0, 19.0, 30.0, 56.0]})


@pytest.mark.parametrize(("scale", "points"), [
    ("difference", [(1.5, 3.0), (2.0, -4.0), (11.0, 2.0), (19.5, -1.0), (30.5, -1.0), (53.0, 6.0)]),
    ("percent", [(1.5, 200.0), (2.0, -200.0), (11.0, 200 / 11), (19.5, -100 / 19.5),
                 (30.5, -100 / 30.5), (53.0, 600 / 53)]),
    ("ratio", [(120**0.5, 1.2), (380**0.5, 0.95), (930**0.5, 30 / 31), (2800**0.5, 1.12)]),
])
def test_every_pair_stands_where_it_belongs_zeros_too(scale, points):
    result = agreement.bland_altman(TWO_READERS.reference, TWO_READERS.test, scale=scale)
    axes = Figure().subplots()
    figures.draw_bland_altman(axes, TWO_READERS, result, "ggo")
    np.testing.assert_allclose(plotted(axes), points)
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert sum(len(line.get_xdata()) for line in hollow) == (0 if scale == "ratio" else 2)


def test_every_pair_is_in_the_scatter_plot():
    axes = Figure().subplots()
    ranks = correlation.spearman(TWO_READERS.reference, TWO_READERS.test)
    figures.draw_correlation(axes, TWO_READERS, ranks, "ggo")
    both = TWO_READERS[(TWO_READERS > 0).any(axis=1)]
    np.testing.assert_allclose(plotted(axes), sorted(both.itertuples(index=False)))


def test_figures_and_tables_name_the_readers_that_were_compared(measured):
    second = measured[measured.reader == "model"].assign(reader="second reader")
    frame = pd.concat([measured, second])
    p = pair(frame, "second reader", "expert", "ggo")
    figure = figures.draw_agreement(
        {"ggo": p}, {"ggo": agreement.bland_altman(p.reference, p.test)},
        {"ggo": correlation.spearman(p.reference, p.test)})
    said = words(figure)
    for expected in ("expert − second reader, mL", "mean of second reader and expert, mL",
                     f"0 mL: second reader {(p.reference == 0).sum()}"):
        assert expected in said
    assert "automatic" not in said + figure.alt
    waterfall = error_plots.draw_waterfall({"ggo": p})
    assert "expert − second reader, mL" in words(waterfall)
    assert "automatic" not in words(waterfall)
    table = summary.agreement_table(frame, reference="second reader", test="expert")
    page = tables.format_agreement(table).as_raw_html()
    assert "Difference = expert − second reader" in page
    assert "automatic" not in page.lower()


def test_the_agreement_table_has_each_reader_in_its_own_column(measured):
    frame = summary.agreement_table(measured, by=("structure",))
    row = frame.query("structure == 'ggo'").iloc[0]
    p = pair(measured, "expert", "model", "ggo")
    assert row.reference_median == p.reference.median() != row.test_median == p.test.median()
    page = tables.format_agreement(frame.query("structure == 'ggo'")).as_raw_html()
    heads = re.findall(r'<th[^>]*scope="col"[^>]*>(.*?)</th>', page)[1:]  # the first names rows
    cells = dict(zip(heads, re.findall(r'<td[^>]*gt_row[^>]*>(.*?)</td>', page), strict=True))
    assert cells["Expert, mL"].startswith(f"{p.reference.median():.1f} [")
    assert cells["Automatic, mL"].startswith(f"{p.test.median():.1f} [")


@pytest.mark.parametrize(("name", "words_"), [
    ("s2.4.image_size", "a setting: equal or chosen otherwise"),
    ("table4.ours.cpu_time", "no: own hardware; only ratios compare"),
    ("s3.1.dice.cv.mean", "no: which Dice is averaged is not printed"),
    ("s3.1.dice.cv.spread", "no: what it spreads over is not printed"),
    ("s3.1.p.cv.ggo", "no: a p value is not a target"),
    ("table4.unet2d.dice.ggo",
     "same statistic, other patients; width and schedule as in Table 4 of this run"),
    ("table4.ours.dice.ggo", "same statistic, other patients; empty references: not printed"),
    ("s3.1.bias.cv.ggo", "same statistic, other patients; sign not printed"),
])
def test_whether_a_published_number_can_be_compared_is_said_in_these_words(name, words_):
    told = published.compare(None, {name: 1.0}).set_index("id").comparability
    assert told[name] == words_
    assert told.drop(name).str.startswith("no counterpart").all()
    own = published.compare(None, {name: 1.0}, same_patients=True).set_index("id").comparability
    assert own[name] == words_.replace("same statistic, other patients", "yes")
    made = published.compare(None, {name: 1.0}, simulated=True).set_index("id").comparability
    assert made[name] == (words_ if words_.startswith(("a setting", "no")) else
                          "no: simulated from the printed numbers")


def test_a_figure_says_which_confidence_its_intervals_have(measured):
    p = pair(measured, "expert", "model", "ggo")
    figure = figures.draw_agreement(
        {"ggo": p}, {"ggo": agreement.bland_altman(p.reference, p.test, confidence=0.9)},
        {"ggo": correlation.spearman(p.reference, p.test, confidence=0.9)})
    assert "90 % confidence intervals" in words(figure)
    assert "95 %" not in words(figure)


def test_the_ring_in_the_learning_curves_is_at_the_best_validation_loss():
    history = pd.DataFrame({"epoch": range(4), "lr": [0.1] * 4, "train_loss": [4.0, 3, 2, 1],
                            "validation_loss": [3.0, 1.5, 2.5, 2.0],
                            **{f"dice_{name}": [0.1] * 4 for name in LESION_STRUCTURES}})
    axes = figures.draw_learning_curves({0: history}).axes[0]
    ring, = (line for line in axes.lines if line.get_marker() == "o")
    assert (list(ring.get_xdata()), list(ring.get_ydata())) == ([1], [1.5])


def test_a_training_in_two_stages_is_shown_as_one(tmp_path):
    def write(folder, losses):
        folder.mkdir(exist_ok=True)
        n = len(losses)
        pd.DataFrame({"epoch": range(n), "step": range(5, 5 * n + 1, 5), "lr": [0.1] * n,
                      "train_loss": losses, "validation_loss": losses,
                      **{f"dice_{name}": [0.1] * n for name in LESION_STRUCTURES},
                      }).to_csv(folder / "history.csv", index=False)

    write(tmp_path, [2.0, 1.5])
    alone = read_history(tmp_path)
    assert alone["epoch"].tolist() == [0, 1]
    axes = figures.draw_learning_curves({0: alone}).axes[0]
    assert not [line for line in axes.lines if list(line.get_xdata()) == [0.5, 0.5]]
    write(tmp_path / "main", [1.0, 0.9, 0.8])
    (tmp_path / "stopped").mkdir()
    write(tmp_path / "stopped" / "main", [1.0, 0.9])
    stopped = read_history(tmp_path / "stopped")
    assert stopped["stage"].tolist() == ["main branch"] * 2
    assert "Learning curves of 1 folds" in figures.draw_learning_curves({0: stopped}).alt
    history = read_history(tmp_path)
    assert history["epoch"].tolist() == [0, 1, 2, 3, 4]
    assert history["step"].tolist() == [5, 10, 15, 20, 25]
    assert history["stage"].tolist() == ["main branch"] * 3 + ["whole"] * 2
    figure = figures.draw_learning_curves({0: history})
    for panel, at in zip(figure.axes, (2.5, 2.5, 3), strict=True):
        assert [line for line in panel.lines if list(line.get_xdata()) == [at, at]]
    assert "whole network" in words(figure)
    # Not the main branch's best, which is of another network.
    ring, = (line for line in figure.axes[0].lines if line.get_marker() == "o")
    assert list(ring.get_xdata()) == [4]
    with pytest.raises(FileNotFoundError, match="expected the history"):
        read_history(tmp_path / "nowhere")


@pytest.mark.parametrize(("p", "words_", "cell"), [
    (0.00099, "p < 0.001", "<0.001"), (0.001, "p = 0.001", "0.001"), (0.0349, "p = 0.035", "0.035"),
    (1.0, "p = 1.000", "1.000"), (np.nan, "p not defined", "–")])
def test_p_values_for_sentences_and_for_columns(p, words_, cell):
    assert numbers.p_words(p) == words_
    assert numbers.p_cell(p) == cell


def test_dice_figure_counts_what_is_undefined(measured):
    said = words(figures.draw_dice_by(measured, "protocol"))
    rows = measured.query("reader == 'model' and structure == 'high_opacity'")
    for _, group in rows.groupby("protocol"):
        assert f"n = {group['dice'].notna().sum()}" in said
        assert f"{group['dice'].isna().sum()} undefined" in said


@pytest.mark.parametrize(("value", "printed"), [
    (0.0, "0"), (12.345, "12.3"), (-0.04567, "−0.046"), (1234.5, "1234"), (np.nan, "–"),
    (np.inf, "∞"), (999.6, "1000"),
])
def test_numbers_in_figures_have_about_three_digits(value, printed):
    assert numbers.number(value) == printed


def test_waterfall_shows_every_error_in_order(measured):
    table = pair(measured, "expert", "model", "ggo", role="cv")
    figure = error_plots.draw_waterfall({"ggo": table})
    bars = [patch.get_height() for patch in figure.axes[0].patches][len(table):]
    np.testing.assert_allclose(bars, np.sort(table.test - table.reference))
    assert f"{(table.test < table.reference).sum()} of {len(table)} cases read smaller" in (
        figure.axes[0].get_title(loc="left"))


def test_slice_profile_has_the_areas_of_both_masks():
    expert, automatic = (np.zeros((4, 10, 10), np.uint8) for _ in range(2))
    expert[1, :5, :4] = 1
    automatic[1:3, :5, :2] = 1
    automatic[2, 8:, 8:] = 2
    figure = error_plots.draw_slice_profile(expert, automatic, (5.0, 2.0, 1.0), "a")
    ggo, dense = figure.axes
    for line, areas in zip(ggo.lines, ([0, 0.4, 0, 0], [0, 0.2, 0.2, 0]), strict=True):
        np.testing.assert_allclose(line.get_ydata(), areas)
    np.testing.assert_allclose(dense.lines[1].get_ydata(), [0, 0, 0.08, 0])
    with pytest.raises(ValueError, match="case 'a': masks of shape"):
        error_plots.draw_slice_profile(expert, automatic[:2], (5.0, 2.0, 1.0), "a")


def test_architecture_refuses_a_table_without_a_part():
    with pytest.raises(ValueError, match="convlstm"):
        figures.draw_architecture(LAYERS[LAYERS["part"] != "convlstm"])


def test_architecture_prints_the_sum_of_parameters():
    assert "3,380 parameters in all" in words(figures.draw_architecture(LAYERS))


def test_overlay_is_blue_for_ggo_and_yellow_for_high_opacity():
    _, labels = slice_of_lungs()
    rgba = panels.overlay(labels)
    assert (rgba[..., 3] > 0).sum() == (labels > 0).sum()
    red, green, blue, _ = rgba[11, 11]
    assert blue > red
    red, green, blue, _ = rgba[13, 13]
    assert min(red, green) > blue


def test_case_with_masks_of_another_shape_is_refused():
    hu, labels = slice_of_lungs()
    with pytest.raises(ValueError, match="X7"):
        figures.draw_case(hu, labels, labels[1:], case_id="X7")


def test_median_case_is_the_one_nearest_the_median(measured):
    chosen = figures.choose_case(measured, "median_both")
    table = measured.query("reader == 'expert'").pivot(index="case_id", columns="structure",
                                                       values="volume_ml")
    candidates = table[(table["ggo"] > 0) & (table["high_opacity"] > 0)].index
    dice = measured.query("reader == 'model' and structure == 'lesion'").set_index("case_id")
    dice = dice["dice"][candidates]
    assert chosen.n_candidates == len(candidates)
    assert abs(chosen.dice["lesion"] - dice.median()) == (dice - dice.median()).abs().min()
    assert str(len(candidates)) in chosen.rule


def test_rule_that_no_case_fits_says_so(measured):
    without = measured[measured["structure"] != "high_opacity"]
    empty = measured[measured["structure"] == "high_opacity"].assign(volume_ml=0.0)
    with pytest.raises(ValueError, match="median_both"):
        figures.choose_case(pd.concat([without, empty]), "median_both")
    with pytest.raises(ValueError, match="prettiest"):
        figures.choose_case(measured, "prettiest")


def test_slice_with_the_largest_lesion_that_has_both_classes():
    labels = np.zeros((3, 8, 8), np.uint8)
    labels[0] = GGO.code
    labels[1, :2] = GGO.code
    labels[1, 2] = HIGH_OPACITY.code
    assert figures.choose_slice(labels) == 0
    assert figures.choose_slice(labels, CLASSES) == 1
    with pytest.raises(ValueError, match="high_opacity"):
        figures.choose_slice(labels[:1], CLASSES)


def manifest() -> pd.DataFrame:
    return pd.DataFrame({
        "cohort": "fake", "case_id": list("abcd"), "patient_id": ["P1", "P1", "P2", "P3"],
        "role": "cv", "protocol": "non-contrast", "scanner": [HOSTILE, HOSTILE, None, "Z"],
        "centre": "C_1", "exclude": [0, 0, 0, 1], "exclude_reason": ["", "", "", "no lung"],
        "age": [50, 50, 70, 90], "sex": ["male", "male", None, "female"],
        "lung_disease": [1, 1, 0, 1],
    })


def test_characteristics_count_patients_once_and_scans_each():
    frame = counts.count_characteristics(manifest()).set_index("characteristic")
    assert frame.loc["Patients", "n"] == 2
    assert frame.loc["CT scans", "n"] == 3
    assert frame.loc["Age, years", "mean"] == 60
    assert (frame.loc["Men", "n"], frame.loc["Men", "n_known"]) == (1, 1)
    assert frame.loc["History of lung disease", "percent"] == 50
    assert frame.loc[HOSTILE, "n"] == 2
    assert frame.loc["Unknown", "n"] == 1


def test_slices_of_an_untold_class_stay_empty_not_zero(measured):
    frame = counts.count_slices(measured)
    expected = measured.query("reader == 'expert' and structure == 'ggo' and role == 'cv'")
    row = frame.set_index("role").loc["cv"]
    assert row["slices_ggo"] == expected["slices_with"].sum()
    assert row["n_slices"] == 40 * 20
    binary = counts.count_slices(measured[~measured["structure"].isin(CLASSES)])
    assert binary["slices_ggo"].isna().all()
    assert "–" in tables.format_slices(binary).as_raw_html()


def test_models_are_compared_within_one_run(timings):
    trained = pd.DataFrame({"model": ["ours", "unet2d"], "width": [0, 16],
                            "training_steps": [288, 72], "dice_background": [0.99, 0.98],
                            "dice_ggo": [0.7, 0.6], "dice_high_opacity": [0.5, np.nan]})
    models = counts.collect_models(timings, trained)
    frame = models.set_index(["model", "width"])
    assert frame.loc[("unet2d", 64), "cpu_ratio"] == 2
    assert frame.loc[("unet2d", 16), "dice_ggo"] == 0.6
    assert np.isnan(frame.loc[("unet2d", 64), "dice_ggo"])  # another width than was trained
    assert np.isnan(frame.loc[("unet2d", 16), "gpu_seconds"])
    assert frame.loc[("ours", 0), "memory_gb"] == 2.5
    page = tables.format_models(models).as_raw_html()
    for words in ("0.700", "Dice on test cases", "U-Net 2D, 16 to 256 channels",
                  "do not rank the designs"):
        assert words in page


def test_dice_of_the_classes_and_the_background_follow_from_the_counts(measured):
    rows = measured.query("reader == 'model' and role == 'cv'").set_index("structure")
    found = counts.class_dice(measured)
    for structure in CLASSES:
        assert found[structure] == pytest.approx(rows.loc[structure, "dice"].mean())
    lesion = rows.loc["lesion"].astype({"tn": float, "fp": float, "fn": float})
    wanted = 2 * lesion.tn / (2 * lesion.tn + lesion.fp + lesion.fn)
    assert found["background"] == pytest.approx(wanted.mean())
    assert np.isnan(counts.class_dice(measured, "unet2d")["ggo"])


def test_times_table_refuses_a_model_that_was_not_timed(timings):
    page = tables.format_times(timings).as_raw_html()
    assert "22.00 (21.00 to 23.00)" in page
    assert "92.00<" in page  # taken once: no range
    assert "256 × 256 pixels" in page
    with pytest.raises(ValueError, match="nnunet"):
        tables.format_times(timings, "nnunet")


def test_csv_of_a_table_keeps_full_precision(run):
    frame = pd.DataFrame({"step": ["included"], "n_cases": [3], "n_patients": [2],
                          "x": [0.1 + 0.2]})
    path = tables.save_table(tables.format_flow(frame), frame, run, "flow")
    assert pd.read_csv(path)["x"][0] == 0.1 + 0.2
    first = {suffix: run.path("tables", f"flow.{suffix}").read_bytes()
             for suffix in ("csv", "html", "tex")}
    tables.save_table(tables.format_flow(frame), frame, run, "flow")
    for suffix, content in first.items():
        assert content == run.path("tables", f"flow.{suffix}").read_bytes()
    assert b"Synthetic cohort" in first["html"]


@pytest.mark.filterwarnings("error")
def test_latex_escapes_what_a_manifest_may_hold(run):
    frame = counts.count_characteristics(manifest().assign(scanner="A_1 & 5 % #"))
    tables.save_table(tables.format_characteristics(frame), frame, run, "table1")
    tex = run.path("tables", "table1.tex").read_text(encoding="utf-8")
    assert r"A\_1 \& 5 \% \#" in tex


def test_dice_and_agreement_tables_name_their_estimand(measured):
    frame = dice_table(measured)
    page = Page(tables.format_dice(frame).as_raw_html()).words
    for words_of_row in ("per case", "pooled", "per fold", "left out", "both empty: 0"):
        assert words_of_row in page
    assert set(frame["empty"]) <= set(tables.EMPTY)
    assert f"{frame['dice'].iloc[0]:.3f}" in page
    frame = summary.agreement_table(measured)
    page = Page(tables.format_agreement(frame).as_raw_html()).words
    assert "automatic − expert" in page
    row = frame.iloc[0]
    assert tables.with_interval(row["bias"], row["bias_lower"], row["bias_upper"]) in page


def test_published_numbers_meet_their_counterparts(measured, timings):
    found = published.measure(measured, load_profile("paper"), timings)
    frame = published.compare(None, found).set_index("id")
    p = pair(measured, "expert", "model", "ggo", role="cv")
    row = frame.loc["s3.1.bias.cv.ggo"]
    assert row["value"] == 11.5
    assert row["measured"] == pytest.approx((p["test"] - p["reference"]).mean())
    assert row["difference"] == row["measured"] - 11.5
    assert frame.loc["table2.n_slices.cv", "measured"] == 800
    assert frame.loc["table4.ours.gpu_time", "measured"] == pytest.approx(30)
    assert frame.loc[["table3.i7.120", "table3.i7.500", "s3.4.time.i7"], "measured"].tolist() == [
        22, 92, 22]
    assert frame.loc["s3.4.ram", "measured"] == 1.1
    assert np.isnan(frame.loc["table3.titan_rtx.120", "measured"])
    assert frame.loc["fig5.dice", "measured"] == figures.choose_case(
        measured.query("role == 'cv'"), "median_both").dice["lesion"]
    assert frame.loc["fig4.dice", "comparability"].startswith("no: one chosen case")
    parts = frame.loc[["s2.1.n_patients.cv", "s2.1.n_patients.external"], "measured"]
    assert frame.loc["s2.1.n_patients.all", "measured"] == parts.sum()
    assert frame.loc[["s2.7.n_test.min", "s2.7.n_test.max"], "measured"].tolist() == [4, 4]
    # Of those that have none, each beginning that says why catches something, and no two the same.
    without = frame.index[frame["comparability"].str.startswith("no counterpart:")]
    for beginnings in published.MISSING.values():
        for beginning in beginnings:
            assert frame.index.str.startswith(beginning).any(), beginning
    said = [why for name in without for why, some in published.MISSING.items()
            if name.startswith(some)]
    assert len(said) == len(without)
    assert frame.loc["s2.8.spss", "comparability"].endswith("hardware and software")
    assert frame.loc["s1.cases_worldwide", "comparability"] == "no counterpart in this run"
    assert frame.loc["table3.k1200.500", "comparability"] == "no counterpart: no GPU was timed"
    assert frame.loc["table1.scanner.unknown.n", "comparability"] == (
        "no counterpart: the paper's own scanners and centres")
    assert len(frame) == len(pd.read_csv(published.manifest_folder() / "published.csv"))
    page = tables.format_comparison(frame.reset_index()).as_raw_html()
    assert "11.5mL" in page


def test_cases_with_a_binary_reference_are_left_out_of_the_classes(measured):
    binary = (measured["reader"] == "expert") & (measured["case_id"] < "X005")
    part = measured[~(binary & measured["structure"].isin(CLASSES))]
    found = published.measure(part)
    p = pair(measured, "expert", "model", "ggo", role="cv").query("case_id >= 'X005'")
    assert found["s3.1.bias.cv.ggo"] == pytest.approx((p["test"] - p["reference"]).mean())
    assert "s3.1.bias.cv.ggo" not in published.measure(part[part["case_id"] < "X005"])


def test_a_table_with_the_union_alone_has_no_chosen_case_and_stops_nobody(measured):
    for kept in (["lesion"], ["ggo"]):
        found = published.measure(measured[measured["structure"].isin(kept)])
        assert "fig5.dice" not in found


def test_paper_profile_has_the_settings_the_paper_prints():
    found = {name: float(read(load_profile("paper"))) for name, read in published.SETTINGS.items()}
    frame = published.compare(None, found).dropna(subset=["measured"])
    assert len(frame) == len(published.SETTINGS)
    assert frame["difference"].abs().max() == 0


def test_digest_holds_each_case_and_the_agreement(measured, tmp_path, capsys):
    from deeplung_nb.__main__ import main

    measured.to_csv(tmp_path / "measurements.csv", index=False)
    assert main(["digest", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    table = pair(measured, "expert", "model", "ggo", role="external")
    bias = agreement.bland_altman(table.reference, table.test).bias
    assert f"| Ground-glass opacity (external) | {len(table)} |" in text
    assert numbers.number(bias) in text
    for case in table.itertuples():
        if len(table) <= 20:
            assert f"| {case.case_id} | {numbers.number(case.reference)}, " in text
    assert main(["digest", str(tmp_path / "absent.csv")]) == 1
    assert "absent.csv: no such file, expected a measurements.csv" in capsys.readouterr().err


def test_number_that_is_not_published_is_refused():
    with pytest.raises(ValueError, match=r"s9\.9"):
        published.compare(None, {"s9.9.invented": 1.0})


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


def test_report_is_one_page_that_needs_no_network(run, measured):
    save_figure(figures.draw_splits(SPLITS), run, "fig3", caption="Fig. 3. Cross-validation.")
    frame = counts.count_slices(measured)
    tables.save_table(tables.format_slices(frame), frame, run, "table2_slices")
    run.path("run.json").write_text(json.dumps({"config": {"seed": 7}}), encoding="utf-8")
    first = html.write_report(run).read_bytes()
    assert html.write_report(run).read_bytes() == first
    page = Page(first.decode())
    anchors = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe")
        for name in ("src", "href"):
            value = attributes.get(name, "#reading")
            assert value.startswith("data:image/") or value[1:] in anchors, value
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 1
    assert "Cross-validation of 10 cases" in pictures[0]["alt"]
    content = base64.b64decode(pictures[0]["src"].split(",")[1])
    assert content.startswith((b"\x89PNG", b"<?xml"))
    assert "config.seed" in page.words
    assert "Synthetic cohort" in page.words


def test_report_goes_from_the_cases_to_the_agreement(run, measured):
    figure = agreement_figure(measured)
    save_figure(figure, run, figures.AGREEMENT_NAMES["cv"])
    save_figure(figures.draw_splits(SPLITS), run, "fig3_cross_validation")
    save_figure(figures.draw_splits(SPLITS), run, "zz_of_a_user")
    for name, frame, draw in (("agreement", summary.agreement_table(measured),
                               tables.format_agreement),
                              ("table2_slices", counts.count_slices(measured),
                               tables.format_slices)):
        tables.save_table(draw(frame), frame, run, name)
    measured.to_csv(run.path("measurements.csv"), index=False)
    page = Page(html.write_report(run).read_text(encoding="utf-8"))
    pieces = [attributes["id"] for tag, attributes in page.tags if tag == "section"
              and attributes.get("id", "").startswith(("table-", "figure-"))]
    assert pieces == ["table-table2_slices", "figure-fig3_cross_validation", "table-agreement",
                      "figure-fig6_agreement_cv", "figure-zz_of_a_user"]
    assert "Training (cross-validation): 20 patients; intervals are wide" in page.words
    assert "Fig. 6 agreement (cross-validation)" in page.words
    assert "window of 11 slices" in page.words
    assert "U-Nets were trained and tested on the same folds: 2-D (16 to 256" in page.words


def test_word_file_holds_the_printed_tables(run, measured):
    frame = dice_table(measured)
    tables.save_table(tables.format_dice(frame), frame, run, "dice_cv")
    html.write_report(run)
    document = docx.Document(run.path("tables.docx"))
    words = "\n".join(paragraph.text for paragraph in document.paragraphs)
    assert "Dice of automatic against expert, in every averaging" in words
    assert "no case is a patient" in words
    table, = document.tables
    cells = [[cell.text for cell in row.cells] for row in table.rows]
    assert cells[0][-3:] == ["Cases with an empty mask"] * 3  # one cell over three columns
    assert cells[1][:2] == cells[0][:2] == ["", "Averaging"]
    assert cells[1][-3:] == ["both", "expert", "automatic"]
    assert len(cells) == 2 + len(frame) + frame.groupby(["cohort", "role"]).ngroups
    row = next(row for row in cells if row[1:3] == ["per case", "both empty: left out"])
    first = frame[(frame["averaging"] == "per case") & (frame["empty"] == "nan")].iloc[0]
    assert row[4].startswith(f"{first['dice']:.3f} [")


def test_report_asks_a_browser_for_nothing_outside_its_file(run, measured):
    """In a real browser: one request, for the page; light and dark can both be read."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    browser_path = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser_path is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    save_figure(agreement_figure(measured), run, figures.AGREEMENT_NAMES["cv"])
    frame = counts.count_slices(measured)
    tables.save_table(tables.format_slices(frame), frame, run, "table2_slices")
    page_file = html.write_report(run)
    asked, said = [], []
    with sync_api.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=browser_path, args=[
            "--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        for scheme, paper in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(21, 24, 28)")):
            page = browser.new_page(color_scheme=scheme)
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda message: said.append(message.text))
            page.goto(page_file.as_uri())
            page.wait_for_load_state("networkidle")
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
            assert page.evaluate("document.images[0].naturalWidth") > 0
        browser.close()
    assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()] * 2
    assert said == []


def test_the_papers_misfits_are_computed_from_its_numbers(tmp_path):
    checks = check_published()
    assert checks["fits"].dtype == bool
    off = checks[~checks["fits"]]
    assert {1, 3, 4, 5, 6, 7, 15, 17} <= set(off["topic"].dropna().astype(int))
    table = pd.read_csv(manifest_folder() / "published.csv")
    table.loc[table["id"] == "table3.i7.120", "value"] = 27.75
    table.loc[table["id"] == "s3.2.p.external.ggo", "value"] = 0.0001
    table.to_csv(tmp_path / "mended.csv", index=False)
    mended = check_published(tmp_path / "mended.csv")
    assert len(off) - (~mended["fits"]).sum() == 2
    page = Page(tables.format_checks(checks).as_raw_html()).words
    assert f"{len(off)} of {len(checks)} checks do not fit" in page
    assert "<0.001" in page


def test_no_value_can_inject_markup(run):
    frame = counts.count_characteristics(manifest())
    tables.save_table(tables.format_characteristics(frame), frame, run, "table1")
    splits = SPLITS.assign(case_id=HOSTILE)
    save_figure(figures.draw_splits(splits), run, "fig3", caption=HOSTILE,
                alt='" onload="x' + HOSTILE)
    run.path("run.json").write_text(json.dumps({HOSTILE: [HOSTILE]}), encoding="utf-8")
    page = Page(html.write_report(run).read_text(encoding="utf-8"))
    assert "script" not in {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.words.count(HOSTILE) == 4


def test_report_of_an_empty_run_says_so(run):
    page = html.write_report(run).read_text(encoding="utf-8")
    assert "No table and no figure has been written yet" in page
    assert "Nothing has been measured yet" in page


def test_report_imports_without_torch():
    code = ("import sys, deeplung_nb.report.figures, deeplung_nb.report.tables, "
            "deeplung_nb.report.published, deeplung_nb.report.html; "
            "sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_figure_shows_itself_in_a_notebook_with_words():
    bundle = figures.draw_splits(SPLITS)._repr_mimebundle_()
    assert bundle["image/png"].startswith(b"\x89PNG")
    assert "10 cases" in bundle["text/plain"]
    assert new_figure(84, 40).get_size_inches()[0] == pytest.approx(84 / 25.4)


SNAPSHOT = Path(__file__).resolve().parent / "snapshots" / "tables.txt"


def printed_tables(measured, timings) -> str:
    """Every kind of table as it is printed, cell by cell."""
    trained = pd.DataFrame({"model": ["ours", "unet2d"], "width": [0, 16],
                            "training_steps": [288, 72], "dice_background": [0.99, 0.98],
                            "dice_ggo": [0.7, 0.6], "dice_high_opacity": [0.5, np.nan]})
    flow = pd.DataFrame({"cohort": "fake", "step": ["assessed", "cv", "external"],
                         "n_cases": [1234, 20, 10], "n_patients": [1200, 20, 10]})
    comparison = published.compare(None, published.measure(measured, load_profile("quick")))
    tables_of = {
        "flow": tables.format_flow(flow),
        "table1": tables.format_characteristics(counts.count_characteristics(manifest())),
        "table2": tables.format_slices(counts.count_slices(measured)),
        "table3": tables.format_times(timings),
        "table4": tables.format_models(counts.collect_models(timings, trained)),
        "agreement": tables.format_agreement(summary.agreement_table(measured)),
        "dice": tables.format_dice(dice_table(measured)),
        "published": tables.format_comparison(comparison),
        "checks": tables.format_checks(check_published()),
    }
    lines = []
    for name, gt in tables_of.items():
        printed = PrintedTable(gt.as_raw_html())
        lines += [f"== {name}", *printed.titles]
        lines += [" | ".join(words for words, _, _ in row) for row in printed.head + printed.body]
        lines += [*printed.notes, ""]
    return "\n".join(line.rstrip() for line in lines)


def test_tables_are_printed_as_recorded(measured, timings):
    """After a wanted change: python -m tests.test_report, and read the difference."""
    assert printed_tables(measured, timings) == SNAPSHOT.read_text(encoding="utf-8")


if __name__ == "__main__":
    SNAPSHOT.parent.mkdir(exist_ok=True)
    SNAPSHOT.write_text(printed_tables(fake_measurements(), fake_timings()), encoding="utf-8")
