"""Every defensible choice: all analyses are there, each is the one it says, and no other."""

import numpy as np
import pandas as pd
import pytest

from deeplung_nb.stats import agreement, multiverse, paired


def make_pairs(n=12, zeros=3, patients=None, seed=0):
    rng = np.random.default_rng(seed)
    reference = rng.lognormal(3, 1, n)
    reference[:zeros] = 0
    test = reference * rng.normal(1.1, 0.1, n)
    test[0] = 4.0  # seen by the test reader alone
    return pd.DataFrame({"case_id": [f"c{k}" for k in range(n)], "reference": reference,
                         "test": test, "patient_id": patients if patients is not None
                         else [f"p{k}" for k in range(n)]})


def test_each_choice_is_made_once_with_each_other():
    found = multiverse.bias_choices(make_pairs()).analyses
    # Reference above 0 and both above 0 are the same nine pairs: one choice.
    assert found["pairs"].drop_duplicates().tolist() == ["all", "reference above 0"]
    assert len(found) == 2 * ((1 + 12) + (1 + 9))
    assert not found.duplicated(["estimate", "pairs", "independent", "left_out"]).any()
    assert set(found.independent) == {"cases"}
    twice = multiverse.bias_choices(make_pairs(patients=list("aabbccddeeff"))).analyses
    assert set(twice.independent) == {"cases", "patients"}
    assert len(twice) == 3 * ((1 + 12) + (1 + 9))  # the mean by both, the shift by cases


@pytest.mark.parametrize("seed", range(3))
def test_each_analysis_is_the_one_it_says(seed):
    pairs = make_pairs(patients=list("aabbccddeeff"), seed=seed)
    rng = np.random.default_rng(seed)
    rows = multiverse.bias_choices(pairs).analyses
    for row in rows.iloc[rng.choice(len(rows), 12, replace=False)].itertuples():
        part = pairs[pairs.case_id != row.left_out]
        if row.pairs == "reference above 0":
            part = part[part.reference > 0]
        assert row.n == len(part)
        cluster = part.patient_id if row.independent == "patients" else None
        if row.estimate == "mean":
            alone = agreement.bland_altman(part.reference, part.test, cluster=cluster)
            assert (row.value, row.low, row.high) == pytest.approx((alone.bias, *alone.bias_ci))
            assert row.value == pytest.approx((part.test - part.reference).mean())
        else:
            alone = paired.wilcoxon_signed_rank(part.reference, part.test, zeros="pratt")
            assert (row.value, row.low, row.high) == pytest.approx(
                (alone.hodges_lehmann, *alone.hodges_lehmann_ci))
    rows = multiverse.limits_choices(pairs).analyses
    for row in rows.iloc[rng.choice(len(rows), 12, replace=False)].itertuples():
        part = pairs[pairs.case_id != row.left_out]
        if row.pairs == "reference above 0":
            part = part[part.reference > 0]
        cluster = part.patient_id if row.independent == "patients" else None
        alone = agreement.bland_altman(part.reference, part.test, limits=row.limits,
                                       cluster=cluster)
        if np.isfinite(alone.loa_lower):
            assert (row.low, row.high) == pytest.approx((alone.loa_lower, alone.loa_upper))
            assert row.value == pytest.approx(row.high - row.low)


def test_verdicts_are_those_of_the_interval():
    pairs = pd.DataFrame({"reference": [10.0, 20, 30, 40, 50, 60],
                          "test": [15.0, 26, 34, 46, 54, 65]})
    assert multiverse.bias_choices(pairs).verdicts == {"above 0": 14}
    assert multiverse.bias_choices(pairs, 100.0).verdicts == {"within the margin": 14}
    assert multiverse.bias_choices(pairs, 1.0).verdicts == {"beyond the margin": 14}
    turned = pairs.rename(columns={"reference": "test", "test": "reference"})
    assert multiverse.bias_choices(turned).verdicts == {"below 0": 14}
    assert "whatever is chosen" in multiverse.bias_choices(pairs).sentence
    assert multiverse.limits_choices(pairs, 100.0).verdicts.keys() == {
        multiverse.WITHIN_BOTH}
    found = multiverse.limits_choices(pairs, 1.0)
    assert found.verdicts.keys() == {multiverse.NOT_BOTH}
    assert found.sentence.startswith("The limits of agreement are not both within the margin in ")


def test_the_sentence_names_what_the_answer_turns_on():
    """With zeros that both readers agree on the bias is small; without them it is not."""
    n = 40
    reference = np.r_[np.zeros(n), np.linspace(50, 90, 10)]
    test = np.r_[np.zeros(n), np.linspace(50, 90, 10) + 12 + np.tile([-1, 1], 5)]
    pairs = pd.DataFrame({"case_id": range(n + 10), "reference": reference, "test": test})
    found = multiverse.bias_choices(pairs, margin=10.0)
    assert found.turns_on[0][0] == "pairs"
    assert "it turns on the zeros (" in found.sentence
    assert f"of {len(found.analyses)} analyses" in found.sentence
    assert sum(found.verdicts.values()) == len(found.analyses)


def test_of_many_cases_those_that_move_the_bias_most_are_left_out():
    pairs = make_pairs(n=100, zeros=0)
    found = multiverse.bias_choices(pairs)
    out = set(found.analyses["left_out"]) - {multiverse.NOBODY}
    assert len(out) == multiverse.MOST_LEFT_OUT
    assert found.n_cases_left == 40
    d = pairs.test - pairs.reference
    far = (d - d.mean()).abs()
    assert far[pairs.case_id.isin(out)].min() >= far[~pairs.case_id.isin(out)].max()


def test_the_mean_dice_is_told_by_each_policy():
    counts = pd.DataFrame({"tp": [8, 0, 0], "fp": [2, 0, 5], "fn": [2, 0, 0]})
    found = multiverse.dice_choices(counts).analyses
    whole = found[found.left_out == multiverse.NOBODY].set_index(["estimate", "empty"]).value
    assert whole["mean over cases", "nan"] == pytest.approx((0.8 + 0) / 2)
    assert whole["mean over cases", "one"] == pytest.approx((0.8 + 1 + 0) / 3)
    assert whole["mean over cases", "zero"] == pytest.approx(0.8 / 3)
    assert whole["mean over cases", "nan_reference"] == pytest.approx(0.8)
    assert whole["pooled", "nan"] == pytest.approx(16 / (16 + 2 + 2 + 5))
    assert multiverse.dice_choices(counts).sentence.startswith("The mean Dice goes from 0 to 0.9")


def test_too_few_readings_have_no_analysis():
    few = make_pairs(n=3, zeros=0)
    assert multiverse.bias_choices(few).sentence.startswith("No analysis of the bias can be made")
    assert multiverse.dice_choices(pd.DataFrame({"tp": [], "fp": [], "fn": []})).analyses.empty
    flat = pd.DataFrame({"reference": [5.0] * 6, "test": [5.0] * 6})
    assert "nan" not in multiverse.bias_choices(flat, 1.0).sentence


def test_limits_that_can_not_be_had_are_counted_and_not_compared():
    pairs = make_pairs(n=8, zeros=0, patients=[*"aaaaaaa", "b"])
    found = multiverse.limits_choices(pairs)
    none = int(found.analyses["value"].isna().sum())
    assert none > 0
    assert f"{none} of them without limits" in found.sentence
    assert "nan" not in found.sentence
    assert "  " not in found.sentence


def test_of_what_has_no_absence_no_pair_is_chosen_by_its_sign():
    hu = pd.DataFrame({"reference": [-600.0, -500, -20, 10, 30, -400, 20, 40, 55],
                       "test": [-610.0, -480, 0, 12, 28, -390, 25, 30, 60]})
    found = multiverse.bias_choices(hu, amounts=False).analyses
    assert set(found["pairs"]) == {"all"}
    assert set(multiverse.limits_choices(hu, amounts=False).analyses["pairs"]) == {"all"}
    assert len(set(multiverse.bias_choices(hu).analyses["pairs"])) > 1
