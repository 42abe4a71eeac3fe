"""A case in a picture, and which case is shown."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from deeplung_nb.labels import GGO, HIGH_OPACITY
from deeplung_nb.report import (
    figures,
    panels,
)
from tests.report.fakes import CLASSES, slice_of_lungs


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
