"""Numbers as they are printed."""

from __future__ import annotations

import numpy as np
import pytest

from deeplung_nb.report import (
    numbers,
)


@pytest.mark.parametrize(("p", "words_", "cell"), [
    (0.00099, "p < 0.001", "<0.001"), (0.001, "p = 0.001", "0.001"), (0.0349, "p = 0.035", "0.035"),
    (1.0, "p = 1.000", "1.000"), (np.nan, "p not defined", "–")])
def test_p_values_for_sentences_and_for_columns(p, words_, cell):
    assert numbers.p_words(p) == words_
    assert numbers.p_cell(p) == cell


@pytest.mark.parametrize(("value", "printed"), [
    (0.0, "0"), (12.345, "12.3"), (-0.04567, "−0.046"), (1234.5, "1234"), (np.nan, "–"),
    (np.inf, "∞"), (999.6, "1000"),
])
def test_numbers_in_figures_have_about_three_digits(value, printed):
    assert numbers.number(value) == printed
