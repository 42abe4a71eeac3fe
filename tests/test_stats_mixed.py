"""Intraclass correlation with empty cells: the mixed model."""


import numpy as np
import pandas as pd
import pytest
from scipy import optimize

from deeplung_nb.stats import (
    mixed,
    reliability,
)
from tests.stats_cases import ORACLE, long, readings


def whole_matrices(logs, x, present):
    """-2 log restricted likelihood from its definition, variances of subject, reader, residual."""
    s, r = np.nonzero(present)
    y = x[present]
    a, b, c = np.exp(logs)
    v = a * (s[:, None] == s) + b * (r[:, None] == r) + c * np.eye(len(y))
    inverse = np.linalg.inv(v)
    one = np.ones(len(y))
    precision = one @ inverse @ one
    rest = y - one @ inverse @ y / precision
    return np.linalg.slogdet(v)[1] + np.log(precision) + rest @ inverse @ rest


@pytest.fixture(scope="module")
def ratings():
    return pd.read_csv(ORACLE / "shrout_fleiss_1979.csv", comment="#").melt("target")


def test_with_every_cell_read_the_mixed_icc_is_the_usual_one():
    table = readings(7)
    found = mixed.icc_reml(long(table), "s", "r", "v")
    usual = reliability.icc(long(table), "s", "r", "v")
    assert found.icc_a1 == pytest.approx(usual.icc_a1, abs=1e-6)
    assert found.icc_c1 == pytest.approx(usual.icc_c1, abs=1e-6)
    assert (found.n_missing, found.reason) == (0, "")


def test_with_empty_cells_it_maximises_the_restricted_likelihood():
    table = readings(8, n=15, holes=0.25)
    present = np.isfinite(table)
    found = mixed.icc_reml(long(table), "s", "r", "v")
    best = optimize.minimize(whole_matrices, [4, 1, 2], (table, present), method="Nelder-Mead",
                             options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 5000})
    np.testing.assert_allclose(
        [found.variance_subjects, found.variance_readers, found.variance_residual],
        np.exp(best.x), rtol=1e-3)
    assert found.n_missing == (~present).sum() > 0
    a, b, c = np.exp(best.x)
    assert found.icc_a1 == pytest.approx(a / (a + b + c), abs=1e-4)
    assert found.icc_a1_ci[0] < found.icc_a1 < found.icc_a1_ci[1]


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_the_mixed_icc_has_no_unit(unit):
    table = readings(9, n=12, holes=0.1)
    one, other = (mixed.icc_reml(long(t), "s", "r", "v") for t in (table, table * unit))
    assert other.icc_a1 == pytest.approx(one.icc_a1, rel=1e-5)
    assert other.icc_c1_ci == pytest.approx(one.icc_c1_ci, rel=1e-4)
    assert other.variance_readers == pytest.approx(one.variance_readers * unit**2, rel=1e-3)


def test_the_mixed_icc_says_what_it_can_not_tell():
    table = readings(1, n=8)
    flat = mixed.icc_reml(long(np.full((5, 2), 3.0)), "s", "r", "v")
    assert flat.reason == "all readings are equal"
    shifted = np.column_stack([table[:, 0], table[:, 0] + 1])
    assert "constant" in mixed.icc_reml(long(shifted), "s", "r", "v").reason
    single = np.where(np.eye(8, 3, dtype=bool), table, np.nan)
    single[3:, 0] = 5.0
    assert "two readings" in mixed.icc_reml(long(single), "s", "r", "v").reason
    alike = np.random.default_rng(5).normal(50, 10, (25, 1)) + np.random.default_rng(7).normal(
        0, 3, (25, 2))
    alike -= alike.mean(axis=0)  # readers without any difference on average
    assert "between readers at its boundary, 0" in mixed.icc_reml(long(alike), "s", "r", "v").reason
    noise = mixed.icc_reml(long(np.random.default_rng(2).normal(0, 1, (9, 3))), "s", "r", "v")
    assert "at its boundary, 0" in noise.reason


def test_the_mixed_model_gives_the_printed_coefficients_too(ratings):
    r = mixed.icc_reml(ratings, "target", "variable", "value")
    assert (round(r.icc_a1, 2), round(r.icc_c1, 2)) == (0.29, 0.71)  # ICC(2,1), ICC(3,1)
