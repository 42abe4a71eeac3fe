"""The architecture's picture."""

from __future__ import annotations

import pytest

from deeplung_nb.report import (
    figures,
)
from tests.report.fakes import LAYERS, words


def test_architecture_refuses_a_table_without_a_part():
    with pytest.raises(ValueError, match="convlstm"):
        figures.draw_architecture(LAYERS[LAYERS["part"] != "convlstm"])


def test_architecture_prints_the_sum_of_parameters():
    assert "3,380 parameters in all" in words(figures.draw_architecture(LAYERS))
