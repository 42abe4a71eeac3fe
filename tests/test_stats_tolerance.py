"""What the next patient's reading is likely to be, from few that were read before."""

import numpy as np
import pandas as pd
import pytest

from deeplung_nb.reading.uncertainty import likely_volume
from deeplung_nb.stats import paired, tolerance
from deeplung_nb.stats.comparison import compare
from deeplung_nb.stats.tolerance import ratio_range


@pytest.mark.parametrize("draw", [
    lambda rng, shape: rng.lognormal(0, 0.4, shape),
    lambda rng, shape: rng.pareto(1.5, shape) + 0.01,  # no variance
    lambda rng, shape: np.where(rng.random(shape) < 0.2, 5.0, 1.0) * rng.uniform(0.9, 1.1, shape),
], ids=["lognormal", "heavy tail", "two kinds"])
@pytest.mark.parametrize(("m", "leave"), [(4, 0), (10, 0), (10, 1)])
def test_a_new_patient_lies_in_the_range_as_often_as_said(draw, m, leave):
    rng = np.random.default_rng(m)
    runs = 2000
    held = 0
    ratios, new = draw(rng, (runs, m)), draw(rng, runs)
    for ratio, following in zip(ratios, new, strict=True):
        r = ratio_range(50.0 * ratio, np.full(m, 50.0), np.arange(m), leave=leave)
        held += r.lower <= following <= r.upper
    assert r.chance == (m - 1 - 2 * leave) / (m + 1)
    assert held / runs == pytest.approx(r.chance, abs=0.025)


def test_several_cases_of_a_patient_are_one_patient_at_its_worst():
    r = ratio_range([10.0, 30, 10], [10.0, 10, 20], ["a", "a", "b"])
    assert (r.n, r.n_patients, r.lower, r.upper, r.chance) == (3, 2, 0.5, 3.0, 1 / 3)


def test_what_has_no_ratio_is_said():
    few = ratio_range([10.0, 0.0], [12.0, 0.0], ["a", "b"])
    assert np.isnan(few.lower)
    assert "1 patients with something to measure: too few" in few.reason
    missed = ratio_range([10.0, 20, 0], [0.0, 20, 30], list("abc"))
    assert (missed.lower, missed.upper, missed.n_patients) == (0.0, np.inf, 3)
    assert np.isnan(ratio_range([1.0, 2, 3], [1.0, 2, 3], list("abc"), leave=1).chance)
    with pytest.raises(ValueError, match="expected amounts"):
        ratio_range([-500.0, 1], [1.0, 2], list("ab"))
    with pytest.raises(ValueError, match="leave=-1"):
        ratio_range([1.0, 1], [1.0, 2], list("ab"), leave=-1)


def test_the_likely_volume_holds_where_some_patients_have_hardly_any_lesion():
    """A tenth are nearly healthy, with false marks; each has his turn to be the new one."""
    rng = np.random.default_rng(5)
    inner = outer = 0
    runs = 800
    for _ in range(runs):
        expert = np.where(rng.random(12) < 0.1, 0.2, rng.lognormal(5, 1, 12))
        marked = expert * rng.lognormal(0, 0.4, 12) + 15.0 * (expert < 1)
        unseen = [{"patient_id": k, "unit": "mL", "expert": expert[k], "automatic": marked[k]}
                  for k in range(11)]
        likely = likely_volume(marked[11], unseen)
        inner += likely["low_ml"] <= expert[11] <= likely["high_ml"]
        outer += likely["lowest_ml"] <= expert[11] <= likely["highest_ml"]
    assert (likely["chance"], likely["chance_of_extremes"]) == (8 / 12, 10 / 12)
    assert inner / runs > 8 / 12 - 0.03
    assert outer / runs > 10 / 12 - 0.03


def test_the_error_of_the_variance_is_that_of_leaving_out_each_patient():
    """From all pairs of differences of two patients, without the formula's sums."""
    rng = np.random.default_rng(8)
    readings = [rng.normal(rng.normal(0, 3), 2, n) for n in (3, 1, 4, 2, 5, 2)]

    def log_variance(patients):
        return np.log(np.mean([np.mean((one[:, None] - other[None]) ** 2) / 2
                               for k, one in enumerate(patients)
                               for j, other in enumerate(patients) if j != k]))

    means = np.array([one.mean() for one in readings])
    squares = np.array([(one**2).mean() for one in readings])
    (found,), (error,) = tolerance._log_variances(means, squares, np.ones((1, 6)))
    without = np.array([log_variance(readings[:k] + readings[k + 1:]) for k in range(6)])
    assert found == pytest.approx(log_variance(readings))
    assert error == pytest.approx(np.sqrt(5 / 6 * ((without - without.mean()) ** 2).sum()))


def test_a_one_sided_signed_rank_by_patients_is_one_sided():
    rng = np.random.default_rng(9)
    who = np.repeat(np.arange(12), 2)
    a = rng.lognormal(3, 1, 24)
    b = a + 2 + rng.normal(0, 1, 24)
    of = {side: paired.wilcoxon_signed_rank(a, b, cluster=who, alternative=side).p_value
          for side in ("greater", "less", "two-sided")}
    assert of["greater"] < 0.01 < 0.99 < of["less"]
    assert of["two-sided"] == pytest.approx(2 * of["greater"])


def test_readings_of_whole_numbers_that_may_be_missing_are_numbers():
    pairs = pd.DataFrame({"reference": [10, 20, 30, 45], "test": [11, 19, 33, 40]})
    nullable = pairs.astype("Int64")
    pd.testing.assert_series_equal(pd.Series(compare(nullable).row()),
                                   pd.Series(compare(pairs).row()))
