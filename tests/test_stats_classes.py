"""Readers who give classes: kappas."""


import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.inter_rater import aggregate_raters, cohens_kappa
from statsmodels.stats.inter_rater import fleiss_kappa as other_fleiss

from deeplung_nb.stats import (
    agreement,
    classes,
)
from tests.stats_cases import long


def test_fleiss_kappa_is_that_of_statsmodels_and_takes_holes():
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 4, 40)
    table = np.where(rng.random((40, 3)) < 0.7, truth[:, None], rng.integers(0, 4, (40, 3)))
    found = classes.fleiss_kappa(long(table.astype(float)), "s", "r", "v")
    assert found.kappa == pytest.approx(other_fleiss(aggregate_raters(table)[0]))
    assert (found.n, found.n_readers, found.n_classes) == (40, 3, 4)
    holed = table.astype(float)
    holed[:5, 0] = np.nan
    holed[5, :2] = np.nan
    holed[6] = np.nan
    fewer = classes.fleiss_kappa(long(holed), "s", "r", "v")
    assert (fewer.n, fewer.n_missing) == (38, 2)
    assert fewer.kappa == pytest.approx(found.kappa, abs=0.1)


def test_the_interval_of_fleiss_kappa_leaves_out_each_patient():
    rng = np.random.default_rng(6)
    table = rng.integers(0, 3, (20, 3)).astype(float)
    table[:12] = table[:12, :1]
    patients = np.arange(20) // 2
    frame = long(table, patients=patients)
    found = classes.fleiss_kappa(frame, "s", "r", "v", patient="p")
    without = np.array([classes.fleiss_kappa(frame[frame.p != p], "s", "r", "v").kappa
                        for p in range(10)])
    half = stats.t.ppf(0.975, 9) * np.sqrt(9 / 10 * ((without - without.mean()) ** 2).sum())
    assert found.kappa_ci == pytest.approx((found.kappa - half, min(1, found.kappa + half)))


def test_weighted_kappa_by_hand_and_quadratic_as_an_intraclass_correlation():
    rng = np.random.default_rng(8)
    a = rng.integers(0, 5, 60).astype(float)
    b = np.clip(a + rng.integers(-1, 2, 60), 0, 4)
    linear = classes.weighted_kappa(a, b)
    apart = np.abs(a - b).mean()
    by_chance = np.abs(np.subtract.outer(a, b)).mean()
    assert linear.kappa == pytest.approx(1 - apart / by_chance)
    assert linear.agreement == pytest.approx(1 - apart / 4)
    assert linear.kappa_ci[0] < linear.kappa < linear.kappa_ci[1] <= 1
    # Fleiss & Cohen 1973: quadratic kappa is the concordance correlation of the class numbers.
    quadratic = classes.weighted_kappa(a, b, weights="quadratic")
    assert quadratic.kappa == pytest.approx(agreement.concordance(a, b).ccc)
    plain = classes.weighted_kappa(a, b, weights="none")
    for weights, found in (("linear", linear), ("quadratic", quadratic), (None, plain)):
        table = pd.crosstab(a, b).to_numpy()
        assert found.kappa == pytest.approx(cohens_kappa(table, wt=weights).kappa)
    without = np.array([classes.weighted_kappa(np.delete(a, k), np.delete(b, k)).kappa
                        for k in range(60)])
    half = stats.t.ppf(0.975, 59) * np.sqrt(59 / 60 * ((without - without.mean()) ** 2).sum())
    assert linear.kappa_ci == pytest.approx((linear.kappa - half, linear.kappa + half))
    assert plain.kappa < linear.kappa < quadratic.kappa


def test_classes_that_tell_nothing_have_a_reason():
    assert "one class" in classes.weighted_kappa([1, 1], [1, 1]).reason
    assert "no interval" in classes.weighted_kappa([1, 1, 1, 1], [1, 1, 1, 2]).reason
    same = classes.fleiss_kappa(long(np.ones((5, 2))), "s", "r", "v")
    assert same.reason == "all readings are of one class"
    with pytest.raises(ValueError, match="expected ascending"):
        classes.severity([1.0], cuts=(5, 1))
    assert np.isnan(classes.severity([np.nan, 3.0])[0])


def test_fleiss_takes_single_readings_for_the_classes_and_never_a_zero_width():
    """By hand: subjects 5 and 6 have one reading each; they count for the shares alone."""
    nan = np.nan
    table = np.array([[0, 0], [1, 1], [0, 1], [1, 1], [0, nan], [0, nan]], float)
    found = classes.fleiss_kappa(long(table), "s", "r", "v")
    zeros = np.mean([1, 0, 0.5, 0, 1, 1])
    by_chance = zeros**2 + (1 - zeros) ** 2
    assert found.agreement == 0.75
    assert found.kappa == pytest.approx((0.75 - by_chance) / (1 - by_chance))
    assert (found.n, found.n_missing) == (4, 2)
    alike = classes.fleiss_kappa(long(np.array([[0, 0], [1, 1], [0, 0], [1, 1.0], [1, 1]])),
                                 "s", "r", "v")
    assert alike.kappa == 1.0
    assert np.isnan(alike.kappa_ci).all()
    assert "all agree" in alike.reason


def test_classes_with_other_labels_are_not_paired_by_place():
    first = pd.Series([0, 1, 2, 3, 0], index=list("abcde"))
    with pytest.raises(ValueError, match="different labels"):
        classes.weighted_kappa(first, first[::-1])
