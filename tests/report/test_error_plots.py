"""Where the errors are: by case and by slice."""

from __future__ import annotations

import numpy as np
import pytest

from deeplung_nb.measurements import pair
from deeplung_nb.report import (
    error_plots,
)


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
