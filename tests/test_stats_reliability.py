"""Intraclass correlation of complete tables."""


import numpy as np
import pandas as pd
import pytest

from deeplung_nb.stats import (
    reliability,
)
from tests.stats_cases import ORACLE


@pytest.fixture(scope="module")
def ratings():
    return pd.read_csv(ORACLE / "shrout_fleiss_1979.csv", comment="#").melt("target")


def test_the_coefficients_printed_by_shrout_and_fleiss(ratings):
    r = reliability.icc(ratings, "target", "variable", "value")
    assert [round(v, 2) for v in (r.icc1, r.icc_a1, r.icc_c1, r.icc1k, r.icc_ak, r.icc_ck)] == [
        0.17, 0.29, 0.71, 0.44, 0.62, 0.91]


def test_consistency_ignores_a_constant_between_readers_and_agreement_does_not(ratings):
    shifted = ratings.assign(value=ratings["value"] + 10.0 * (ratings["variable"] == "judge1"))
    before, after = (reliability.icc(f, "target", "variable", "value") for f in (ratings, shifted))
    assert after.icc_c1 == pytest.approx(before.icc_c1)
    assert after.icc_a1 < before.icc_a1 / 2


def test_icc_refuses_gaps_and_repeats(ratings):
    with pytest.raises(ValueError, match="lacks a reader"):
        reliability.icc(ratings.iloc[1:], "target", "variable", "value")
    with pytest.raises(ValueError, match="more than one reading"):
        reliability.icc(pd.concat([ratings, ratings[:1]]), "target", "variable", "value")
    same = reliability.icc(ratings.assign(value=3.0), "target", "variable", "value")
    assert np.isnan(same.icc1)
    assert same.reason
