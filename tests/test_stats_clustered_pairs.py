"""Several pairs of a subject."""


import numpy as np
import pandas as pd
import pytest

from deeplung_nb.stats import (
    agreement,
    reliability,
)
from tests.stats_cases import ORACLE


@pytest.fixture(scope="module")
def replicates():
    frame = pd.read_csv(ORACLE / "pefr_1986.csv", comment="#")
    return pd.concat([frame[["subject", f"mini{i}", f"wright{i}"]].set_axis(
        ["subject", "mini", "wright"], axis=1) for i in (1, 2)])


def test_the_corrected_sd_printed_by_bland_and_altman_1986(replicates):
    r = reliability.clustered_limits(replicates, "subject", "mini", "wright", method="replicates")
    assert round(r.sd, 1) == 37.7
    assert round(r.bias, 1) == -6.0


def test_anova_and_reml_agree_where_subjects_have_equal_numbers(replicates):
    anova, reml = (reliability.clustered_limits(replicates, "subject", "mini", "wright", method=m)
                   for m in ("anova", "reml"))
    assert anova.loa_lower == pytest.approx(reml.loa_lower, rel=1e-4)
    assert anova.bias_ci == pytest.approx(reml.bias_ci, rel=1e-4)


def test_clusters_widen_the_interval_of_the_bias():
    rng = np.random.default_rng(0)
    sizes = rng.integers(2, 9, 12)
    own = np.repeat(rng.normal(0, 5, 12), sizes)
    frame = pd.DataFrame({"s": np.repeat(np.arange(12), sizes), "a": 0.0,
                          "b": own + rng.normal(0, 1, len(own))})
    naive = agreement.bland_altman(frame.a, frame.b)
    r = reliability.clustered_limits(frame, "s", "a", "b")
    assert np.ptp(r.bias_ci) > 1.5 * np.ptp(naive.bias_ci)
    assert r.variance_within == pytest.approx(1, rel=0.5)
    assert r.variance_between == pytest.approx(25, rel=0.8)


def test_one_pair_a_subject_is_no_cluster(replicates):
    r = reliability.clustered_limits(replicates[:17], "subject", "mini", "wright")
    assert "bland_altman" in r.reason
