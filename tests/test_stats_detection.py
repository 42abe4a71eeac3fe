"""Detection, lesion by lesion and case by case; and change over time."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from deeplung_nb.stats import detection, equivalence, followup
from deeplung_nb.stats.dice import dice_between, dice_by_reader, dice_table
from deeplung_nb.stats.lesions import lesions


def readings(both, first, second, neither):
    a = np.repeat([2.0, 2.0, 0.0, 0.0], [both, first, second, neither])
    b = np.repeat([3.0, 0.0, 3.0, 0.0], [both, first, second, neither])
    return a, b


def many_readings(rng, n=24):
    """Two roles, two protocols; patients of two cases each, readings with zeros, and Dice."""
    rows = []
    for k in range(n):
        volumes = {"ggo": rng.gamma(1, 50) * (k % 3 > 0), "high_opacity": rng.gamma(1, 9) * (k % 2)}
        volumes["lesion"] = sum(volumes.values())
        for structure, volume in volumes.items():
            for reader in ("expert", "model"):
                seen = volume * rng.uniform(0.8, 1.2) if rng.random() > 0.2 else 0.0
                rows.append({"cohort": "c", "role": "cv" if k < 16 else "external",
                             "case_id": f"c{k}", "patient_id": f"p{k // 2}", "reader": reader,
                             "protocol": "ab"[k % 4 > 1], "structure": structure, "status": "ok",
                             "volume_ml": volume if reader == "expert" else seen,
                             "dice": rng.uniform(0.3, 0.9)
                             if reader == "model" and volume else None})
    return pd.DataFrame(rows)


def test_a_row_of_the_detection_table_is_the_accuracy_of_its_pairs():
    frame = many_readings(np.random.default_rng(4))
    table = detection.detection_table(frame)
    assert len(table) == 2 * 3
    assert set(table.role) == {"cv", "external"}
    row = table[(table.role == "cv") & (table.structure == "high_opacity")].iloc[0]
    part = frame[(frame.role == "cv") & (frame.structure == "high_opacity")]
    a, b = (part.loc[part.reader == name, "volume_ml"].to_numpy() for name in ("expert", "model"))
    assert (row.both, row.neither) == (((a > 0) & (b > 0)).sum(), ((a == 0) & (b == 0)).sum())
    assert row.test_only == ((a == 0) & (b > 0)).sum()
    assert row.reference_only == ((a > 0) & (b == 0)).sum()
    assert (row.n, row.n_patients) == (16, 8)
    found = detection.accuracy(a, b, cluster=np.arange(16) // 2)
    assert (row.sensitivity_lower, row.specificity_upper) == (
        found.sensitivity_ci[0], found.specificity_ci[1])
    assert row.mcnemar_p == found.mcnemar_p
    binary = frame[~((frame.structure == "ggo") & (frame.reader == "expert"))]
    assert set(detection.detection_table(binary).structure) == {"high_opacity", "lesion"}


def test_each_automatic_reader_has_the_dice_that_its_own_table_gives():
    rng = np.random.default_rng(6)
    frame = pd.DataFrame([
        {"cohort": "c", "role": role, "case_id": f"{role}{k}", "patient_id": f"{role}{k // 2}",
         "fold": 0, "reader": reader, "structure": structure, "status": "ok",
         **({} if reader == "expert" else
            {"tp": 9 * (k > 1), "fp": 3 * (k > 1 or (k == 1 and reader == "fold-0")),
             "fn": int(rng.integers(1, 9)) * (k > 1)})}
        for role in ("cv", "external") for k in range(8)
        for reader in ("ensemble", "expert", "fold-0") for structure in ("ggo", "lesion")])
    found = dice_by_reader(frame)
    assert len(found) == 2 * 2 * 2
    assert "expert" not in set(found.reader)
    for reader, rows in found.groupby("reader"):
        whole = dice_table(frame[frame.reader == reader], test=str(reader))
        for _, row in rows.iterrows():
            own = whole[(whole.role == row.role) & (whole.structure == row.structure)]
            mean = own[(own.averaging == "per case") & (own["empty"] == "nan_reference")].iloc[0]
            assert (row.n, row.n_used, row.dice, row.ci_lower) == (
                8, 6, mean.dice, mean.ci_lower)
            mine = frame[(frame.reader == reader) & (frame.role == row.role)
                         & (frame.structure == row.structure)].iloc[2:]
            assert row.dice == pytest.approx(np.mean(18 / (18 + mine.fp + mine.fn)))
            assert row.n_false == (reader == "fold-0")  # no 0 in its mean for a false mark
            assert row.pooled == own.loc[own.averaging == "pooled", "dice"].iloc[0]
    assert list(found.structure[:4]) == ["ggo", "ggo", "lesion", "lesion"]
    assert dice_by_reader(frame[frame.reader == "expert"]).empty


def test_dice_of_two_protocols_differ_by_the_median_of_all_differences():
    frame = many_readings(np.random.default_rng(5))
    table = dice_between(frame)
    assert len(table) == 2 * 3
    row = table[(table.role == "cv") & (table.structure == "ggo")].iloc[0]
    cases = frame[(frame.role == "cv") & (frame.structure == "ggo") & (frame.reader == "model")]
    a, b = (cases.loc[cases.protocol == name, "dice"].dropna().to_numpy(float) for name in "ab")
    assert (row["first"], row.second, row.n_first, row.n_second) == ("a", "b", len(a), len(b))
    assert row.difference == pytest.approx(np.median(a[:, None] - b[None, :]))
    assert row.lower < row.difference < row.upper
    assert row.p_value == pytest.approx(stats.mannwhitneyu(a, b, method="exact").pvalue)
    alone = dice_between(frame[frame.protocol == "a"])
    assert alone.empty


def test_shares_intervals_kappa_and_mcnemar_by_hand():
    found = detection.accuracy(*readings(30, 5, 2, 13))
    assert (found.both, found.reference_only, found.test_only, found.neither) == (30, 5, 2, 13)
    assert found.sensitivity == 30 / 35
    assert found.specificity == 13 / 15
    assert found.positive_predictive == 30 / 32
    assert found.negative_predictive == 13 / 18
    z, n, p = 1.959963984540054, 35, 30 / 35  # Wilson's score, written out
    middle, half = p + z**2 / 2 / n, z * np.sqrt(p * (1 - p) / n + z**2 / 4 / n**2)
    np.testing.assert_allclose(found.sensitivity_ci, np.array([middle - half, middle + half])
                               / (1 + z**2 / n), rtol=1e-12)
    by_chance = (35 * 32 + 15 * 18) / 50**2
    assert found.kappa == pytest.approx((43 / 50 - by_chance) / (1 - by_chance))
    assert found.kappa_ci[0] < found.kappa < found.kappa_ci[1]
    assert found.mcnemar_p == pytest.approx(2 * sum((1, 7, 21)) / 2**7)
    assert found.reason == ""


def test_a_share_of_no_case_is_empty_and_named():
    found = detection.accuracy([1.0, 2, 3], [1.0, 0, 2])
    assert np.isnan(found.specificity)
    assert found.reason == "no case to tell of: specificity"
    alone = detection.accuracy([1.0, 2], [1.0, 2])
    assert alone.reason == "no case to tell of: specificity, negative predictive, kappa"
    assert detection.accuracy([1, None, 0], [1, 1, 0], missing="drop").n_missing == 1
    with pytest.raises(ValueError, match="threshold=nan"):
        detection.accuracy([1.0], [1.0], threshold=np.nan)


def test_present_is_above_the_threshold():
    found = detection.accuracy([0.1, 0.6, 5.0], [0.7, 0.2, 5.0], threshold=0.5)
    assert (found.both, found.reference_only, found.test_only, found.neither) == (1, 1, 1, 0)


def boxes():
    reference, predicted = np.zeros((2, 12, 20, 20), bool)
    reference[1:3, 1:5, 1:5] = True  # 32 voxels, wholly found
    predicted[1:4, 1:6, 1:6] = True
    reference[6:8, 10:14, 10:14] = True  # 32, of which one voxel is met
    predicted[7, 13, 13] = predicted[8, 14, 14] = True  # one lesion, by a corner
    reference[10, 2, 2] = True  # 1, missed
    predicted[10, 17:20, 17:20] = True  # 9, false
    return reference, predicted


def test_lesions_are_found_missed_and_false():
    reference, predicted = boxes()
    found = lesions(reference, predicted)
    assert (found.n_reference, found.n_found, found.n_test, found.n_false) == (3, 2, 3, 1)
    assert (found.smallest_missed, found.largest_missed) == (1, 1)
    assert found.sensitivity == 2 / 3
    half = lesions(reference, predicted, overlap=0.5)
    # The reference holds 32 of the 75, and 1 of the 2 voxels: not more than half.
    assert (half.n_found, half.n_false, half.largest_missed) == (1, 3, 32)
    third = lesions(reference, predicted, overlap=0.4)
    assert (third.n_found, third.n_false) == (1, 1)
    large = lesions(reference, predicted, smallest=2)
    assert (large.n_reference, large.n_found) == (2, 2)


def test_masks_without_lesions_and_masks_that_are_none():
    empty, some = np.zeros((3, 3), bool), np.eye(3, dtype=bool)
    found = lesions(empty, some)
    assert (found.n_reference, found.n_test, found.n_false) == (0, 1, 1)
    assert found.reason == "no lesion in the reference"
    with pytest.raises(ValueError, match=r"labels == 1"):
        lesions(some.astype(int), some)
    with pytest.raises(ValueError, match="expected masks on one grid"):
        lesions(some, some[:2])
    with pytest.raises(ValueError, match="overlap=1"):
        lesions(some, some, overlap=1)


# Peak flow, Wright meter, two readings of 17 people: Bland & Altman 1986, table 1.
WRIGHT = np.array([[494, 490], [395, 397], [516, 512], [434, 401], [476, 470], [557, 611],
                   [413, 415], [442, 431], [650, 638], [433, 429], [417, 420], [656, 633],
                   [267, 275], [478, 492], [178, 165], [423, 372], [427, 421]], float)


def test_the_repeatability_of_the_wright_peak_flow_meter():
    """SD of the differences of the repeats is 21.7 there, so within subjects 15.3."""
    frame = pd.DataFrame({"who": np.repeat(np.arange(17), 2), "flow": WRIGHT.ravel()})
    found = followup.repeatability(frame, "who", "flow")
    assert round(found.within_sd, 1) == 15.3
    assert round(found.coefficient, 1) == round(1.959964 * np.sqrt(2) * found.within_sd, 1)
    assert found.coefficient_ci[0] < found.coefficient < found.coefficient_ci[1]
    assert found.grows_p > 0.05
    once = followup.repeatability(frame.drop_duplicates("who"), "who", "flow")
    assert once.reason == "no subject was read twice"
    with pytest.raises(ValueError, match="column 'who': empty in row 1"):
        followup.repeatability(frame.assign(who=[None, *frame.who[1:]]), "who", "flow")


def test_the_coefficient_holds_the_share_that_is_asked_for():
    frame = pd.DataFrame({"who": np.repeat(np.arange(17), 2), "flow": WRIGHT.ravel()})
    for share, z in ((0.95, 1.959964), (0.8, 1.281552), (0.99, 2.575829)):
        found = followup.repeatability(frame, "who", "flow", share=share)
        assert found.coefficient == pytest.approx(z * np.sqrt(2) * found.within_sd, rel=1e-6)
        assert found.coefficient_ci[1] == pytest.approx(
            z * np.sqrt(2) * found.within_sd_ci[1], rel=1e-6)


def test_spread_that_goes_with_size_is_tested_by_sd_however_often_somebody_was_read():
    """Large subjects are read often: their sum of squares is large, their SD is not."""
    rng = np.random.default_rng(2)
    sizes = np.array([2, 2, 2, 2, 9, 9, 9, 9])
    who = np.repeat(np.arange(8), sizes)
    values = 10.0 * who + rng.normal(0, 1, len(who))
    of = [values[who == k] for k in range(8)]
    wanted = stats.kendalltau([v.mean() for v in of], [v.std(ddof=1) for v in of]).pvalue
    found = followup.repeatability(pd.DataFrame({"s": who, "v": values}), "s", "v")
    assert found.grows_p == pytest.approx(wanted)
    sums = stats.kendalltau([v.mean() for v in of], [((v - v.mean())**2).sum() for v in of]).pvalue
    assert sums != pytest.approx(wanted)  # or this test could not tell them apart


def test_the_interval_of_the_repeatability_holds_its_truth():
    held = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        who = np.repeat(np.arange(12), rng.integers(1, 5, 12))
        values = rng.normal(100, 30, 12)[who] + rng.normal(0, 4, len(who))
        low, high = followup.repeatability(pd.DataFrame({"s": who, "v": values}), "s",
                                           "v").within_sd_ci
        held += low <= 4 <= high
    assert 0.91 < held / 300 < 0.985


def test_a_change_is_one_where_it_is_larger_than_the_error_of_reading():
    before = pd.Series([10.0, 20, 30, 5], index=list("abcd"))
    found = followup.changes(before, pd.Series([14.0, 25, 20, None], index=list("abcd")), 4.0,
                             missing="drop")
    assert found.verdict.to_dict() == {"a": "within error", "b": "larger", "c": "smaller",
                                       "d": "unknown"}
    with pytest.raises(ValueError, match="missing='drop'"):
        followup.changes([1.0, None], [1.0, 2.0], 1.0)
    with pytest.raises(ValueError, match="different labels"):
        followup.changes(before, pd.Series([1.0, 2, 3, 4], index=list("abce")), 1.0)
    with pytest.raises(ValueError, match="smallest=-1"):
        followup.changes([1.0], [2.0], -1)


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_the_upper_bound_of_the_total_deviation_holds(bias):
    truth = equivalence.total_deviation_index(*population(bias)).tdi
    held = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        a = rng.normal(0, 10, 25)
        found = equivalence.total_deviation_index(a, a + bias + rng.normal(size=25))
        assert found.tdi < found.tdi_upper
        held.append(found.tdi_upper >= truth)
    assert np.mean(held) > 0.92


def population(bias):
    z = np.random.default_rng(0).normal(size=400_000)
    return np.zeros(len(z)), bias + (z - z.mean()) / z.std()
