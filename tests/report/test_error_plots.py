"""Where the errors are: by case and by slice."""

from __future__ import annotations

import numpy as np
import pytest

from deeplung_nb.measurements import pair
from deeplung_nb.report import (
    error_plots,
)
from deeplung_nb.stats.regions import density_table


def test_waterfall_shows_every_error_in_order(measured):
    table = pair(measured, "expert", "model", "ggo", role="cv")
    figure = error_plots.draw_waterfall({"ggo": table})
    bars = [patch.get_height() for patch in figure.axes[0].patches][len(table):]
    np.testing.assert_allclose(bars, np.sort(table.test - table.reference))
    assert f"{(table.test < table.reference).sum()} of {len(table)} cases read smaller" in (
        figure.axes[0].get_title(loc="left"))


def test_densities_are_medians_over_cases_and_a_case_counts_once(measured):
    rng = np.random.default_rng(2)
    names = [f"hu_p{k:02d}" for k in (5, 25, 50, 75, 95)]
    table = measured.copy()
    table[names] = np.sort(rng.normal(-500, 200, (len(table), 5)), axis=1)
    table.loc[(table.reader == "model") & (table.structure == "ggo")
              & (table.case_id == table.case_id.iloc[0]), names] = np.nan
    found = density_table(table)
    of = table.query("role == 'cv' and reader == 'model' and structure == 'ggo'")
    row = found.query("role == 'cv' and reader == 'model' and structure == 'ggo'").iloc[0]
    assert row.n == of.hu_p50.notna().sum() == of.case_id.nunique() - 1
    np.testing.assert_allclose(row[names].astype(float), of[names].median())
    assert len(found.query("structure == 'lung'")) == found.role.nunique()  # once, for all readers
    figure = error_plots.draw_densities(found)
    assert len(figure.axes) == found.role.nunique()
    assert f"automatic: median {row.hu_p50:.0f} HU of {row.n} cases" in figure.alt
    assert f"Ground-glass opacity, automatic ({row.n})" in [
        label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert density_table(measured.drop(columns=names, errors="ignore")).empty


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
