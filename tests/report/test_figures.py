"""Figures print what they are given, and every pair stands where it belongs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from deeplung_nb.labels import LESION_STRUCTURES
from deeplung_nb.measurements import pair
from deeplung_nb.report import (
    error_plots,
    figures,
    numbers,
    tables,
)
from deeplung_nb.report.counts import read_history
from deeplung_nb.report.pair_plots import draw_comparison
from deeplung_nb.stats import agreement, correlation, regression, summary
from deeplung_nb.stats.comparison import compare
from tests.report.fakes import TWO_READERS, agreement_figure, plotted, words


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
    assert ("of the ratio" if result.scale == "ratio" else result.limits) in said
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


def test_the_limits_to_report_are_drawn_among_differences_whatever_their_kind():
    """Of the ratio r as lines through the origin: where test = r reference, by hand."""
    rng = np.random.default_rng(2)
    a = rng.uniform(1, 400, 60)
    pair = pd.DataFrame({"reference": a, "test": a * rng.lognormal(0, 0.1, 60)})
    drawn = {}
    for kind in ("constant", "ratio", "regression"):
        axes, lead = Figure().subplots(), compare(pair, limits=kind).lead
        assert lead.kind == kind
        figures.draw_bland_altman(axes, pair, agreement.bland_altman(a, pair.test), "ggo",
                                  lead.limits)
        drawn[kind] = axes, lead.limits, axes.get_title(loc="left")

    def dashed(kind):
        return [line.get_data() for line in drawn[kind][0].lines if line.get_linestyle() == "--"]

    _, limits, title = drawn["ratio"]
    assert f"limits of the ratio {numbers.number(limits.loa_lower)} [" in title
    assert f"({round(60 * (1 - limits.percent_outside / 100))} of 60)" in title
    for (x, y), ratio in zip(dashed("ratio"), (limits.loa_lower, limits.loa_upper), strict=True):
        reference = x / ((1 + ratio) / 2)  # of the pair with this mean and ratio
        np.testing.assert_allclose(y, (ratio - 1) * reference, atol=1e-9)
    _, limits, title = drawn["regression"]
    assert "by regression, at the mean" in title
    for side, (x, y) in zip(("lower", "upper"), dashed("regression"), strict=True):
        np.testing.assert_allclose(y, getattr(limits.lines(x), side))
    assert [y[0] for _, y in dashed("constant")] == pytest.approx(
        [drawn["constant"][1].loa_lower, drawn["constant"][1].loa_upper])


def test_the_last_epoch_has_its_learning_rate_as_wide_as_any():
    history = pd.DataFrame({"epoch": [0, 1, 2], "lr": [1e-3, 5e-4, 1e-5], "train_loss": 1.0,
                            "validation_loss": 1.0, "dice_ggo": 0.5, "dice_high_opacity": 0.5,
                            "dice_lesion": 0.5})
    figure = figures.draw_learning_curves({0: history})
    values, edges, _ = figure.axes[2].patches[0].get_data()
    assert edges.tolist() == [-0.5, 0.5, 1.5, 2.5]
    assert values.tolist() == [1e-3, 5e-4, 1e-5]


def test_a_ring_stands_only_where_those_weights_were_kept_and_the_key_says_what_it_is():
    history = pd.DataFrame({"epoch": [0, 1, 2], "lr": 1e-3, "train_loss": 1.0,
                            "validation_loss": [1.0, 0.4, 0.6], "dice_ggo": 0.5,
                            "dice_high_opacity": 0.5, "dice_lesion": 0.5})
    for keep, rings in (("last", []), ("best", [(1, 0.4)])):
        figure = figures.draw_learning_curves({0: history}, keep=keep, auxiliary=keep == "best")
        drawn = [(line.get_xdata()[0], line.get_ydata()[0]) for line in figure.axes[0].lines
                 if line.get_marker() == "o" and len(line.get_xdata())]
        assert drawn == rings
        assert ("weights kept" in words(figure)) == (keep == "best")
        assert ("main branch’s loss" in words(figure)) == (keep == "best")


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
    axes = figures.draw_learning_curves({0: history}, keep="best").axes[0]
    ring, = (line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata()))
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
    figure = figures.draw_learning_curves({0: history}, keep="best")
    for panel in figure.axes:
        assert [line for line in panel.lines if list(line.get_xdata()) == [2.5, 2.5]]
    assert "whole network" in words(figure)
    # Not the main branch's best, which is of another network.
    ring, = (line for line in figure.axes[0].lines
             if line.get_marker() == "o" and len(line.get_xdata()))
    assert list(ring.get_xdata()) == [4]
    with pytest.raises(FileNotFoundError, match="expected the history"):
        read_history(tmp_path / "nowhere")


def test_dice_figure_counts_what_is_undefined(measured):
    said = words(figures.draw_dice_by(measured, "protocol"))
    rows = measured.query("reader == 'model' and structure == 'high_opacity'")
    for _, group in rows.groupby("protocol"):
        assert f"n = {group['dice'].notna().sum()}" in said
        assert f"{group['dice'].isna().sum()} undefined" in said


@pytest.mark.parametrize("limits", agreement.LIMITS[:3])
@pytest.mark.parametrize("scale", agreement.SCALES)
@pytest.mark.parametrize("reader", ["expert", "senior radiologist (20 years, chest CT only)"])
def test_no_title_of_a_panel_runs_into_the_next(scale, limits, reader):
    rng = np.random.default_rng(3)
    a = np.append(rng.lognormal(4, 1, 30), [0.0, 0.0])
    pair = pd.DataFrame({"reference": a, "test": a * rng.lognormal(0, 0.2, 32)})
    pair.attrs.update(reference=reader, test="model", value="volume_ml")
    result = agreement.bland_altman(pair.reference, pair.test, scale=scale, limits=limits)
    figure = draw_comparison(pair, result, correlation.spearman(pair.reference, pair.test),
                             regression.deming(pair.reference, pair.test), pair.iloc[:0], "ggo")
    figure.draw_without_rendering()
    panels = figure.axes[:3]
    ends = [axes._left_title.get_window_extent() for axes in panels]
    letters = [next(text for text in axes.texts if text.get_text() == name).get_window_extent()
               for name, axes in zip("ABC", panels, strict=True)]
    for title, following in zip(ends, letters[1:], strict=False):
        assert title.x1 <= following.x0
    assert max(box.y1 for box in ends + letters) <= figure.bbox.y1
    assert ends[-1].x1 <= figure.bbox.x1
