"""The two tables that everything printed comes from, and who may import what."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from deeplung_nb import measurements
from deeplung_nb.stats import summary
from deeplung_nb.stats.dice import bootstrap_ratio_ci, dice_table


def table(n=24, seed=0, structures=("ggo", "high_opacity", "lesion"), cohort="site"):
    """Readings of n cases by expert and model in two protocols and three folds."""
    rng = np.random.default_rng(seed)
    rows = []
    for case in range(n):
        for structure in structures:
            tp, fp, fn = (int(v) for v in rng.integers(0, 400, 3))
            if case % 6 == 0:
                tp = fn = 0
            if case % 12 == 0:
                fp = 0
            for reader, voxels in (("expert", tp + fn), ("model", tp + fp)):
                row = dict.fromkeys(measurements.COLUMNS)
                row.update(run_id="r", cohort=cohort, role="cv", case_id=f"{case:03}",
                           patient_id=f"p{case // 2}", fold=case % 3, reader=reader,
                           protocol=("contrast", "non-contrast")[case % 2], status="ok",
                           structure=structure, n_voxels=voxels, voxel_mm3=1.0,
                           volume_ml=voxels / 1000)
                if reader == "model":
                    size = 2 * tp + fp + fn
                    row.update(tp=tp, fp=fp, fn=fn, tn=5000 - tp - fp - fn,
                               dice=2 * tp / size if size else None)
                rows.append(row)
    return measurements.check(pd.DataFrame(rows))


@pytest.fixture(scope="module")
def frame():
    return table()


def test_describe_has_both_kinds_of_quartiles():
    # Hyndman & Fan 1996: type 7 (R) and type 6 (SPSS) of 1 ... 10.
    d = summary.describe(range(1, 11))
    assert (d.q1, d.q3, d.q1_spss, d.q3_spss) == (3.25, 7.75, 2.75, 8.25)
    assert d.se == pytest.approx(d.sd / np.sqrt(10))
    assert (d.minimum, d.maximum, d.n_zero) == (1, 10, 0)


@pytest.mark.filterwarnings("error")
def test_describe_of_little():
    assert summary.describe([]).n == 0
    one = summary.describe([2.0])
    assert (one.mean, one.median) == (2, 2)
    assert np.isnan(one.sd)
    with pytest.raises(ValueError, match="NaN"):
        summary.describe([1.0, np.nan])
    assert summary.describe([1.0, np.nan], missing="drop").n_missing == 1


def test_agreement_has_a_row_for_each_group_and_for_all_protocols(frame):
    rows = summary.agreement_table(frame)
    assert len(rows) == 3 * 3
    assert list(rows.columns[:4]) == ["cohort", "role", "structure", "protocol"]
    whole = rows.query("structure == 'ggo' and protocol == 'all'").iloc[0]
    pairs = measurements.pair(frame, "expert", "model", "ggo")
    assert whole["n"] == 24
    assert whole["bias"] == pytest.approx((pairs.test - pairs.reference).mean())
    assert whole["loa_lower_ci_lower"] < whole["loa_lower"] < whole["loa_lower_ci_upper"]
    assert sum(whole[f"detected_{name}"] for name in
               ("both", "reference_only", "test_only", "neither")) == 24
    assert summary.agreement_table(frame, by=("cohort",))["n"].tolist() == [24] * 3


def test_agreement_among_those_that_both_see(frame):
    rows = summary.agreement_table(frame, by=("cohort", "structure"), subset="both-positive")
    assert (rows["n_zero"] == 0).all()
    assert (rows["n"] == 20).all()
    # One that the model alone misses, one that it alone sees.
    missed = frame.copy()
    for case, reader in (("001", "model"), ("002", "expert")):
        missed.loc[(missed.case_id == case) & (missed.reader == reader), "volume_ml"] = 0.0
    rows = summary.agreement_table(missed, by=("cohort", "structure"), subset="both-positive")
    assert (rows["n_zero"] == 0).all()
    assert (rows["n"] == 18).all()


def test_identical_p_values_of_two_cohorts_are_flagged(frame):
    twins = pd.concat([frame, frame.assign(cohort="twin")])
    rows = summary.agreement_table(twins, by=("cohort", "structure"))
    assert rows["same_p_as"].tolist() == ["3", "4", "5", "0", "1", "2"]
    alone = summary.agreement_table(frame)
    assert (alone["same_p_as"] == "").all()


def test_a_burden_over_the_whole_lung_is_flagged(frame):
    odd = frame.copy()
    odd["burden_percent"] = 5.0
    odd.loc[(odd.case_id == "007") & (odd.structure == "lesion"), "burden_percent"] = 104.0
    flags = summary.agreement_table(odd, by=("cohort", "structure")).set_index("structure")["flags"]
    assert "burden over 100 % of the lung in 1" in flags["lesion"]
    assert "burden" not in flags["ggo"]


def test_failed_cases_are_counted_and_change_no_estimate(frame):
    failed = frame[frame.case_id == "003"].assign(case_id="bad", status="failed")
    for name in ("n_voxels", "volume_ml", "dice", "tp", "fp", "fn", "tn"):
        failed[name] = None
    more = measurements.check(pd.concat([frame, failed]).astype(object))
    before, after = (summary.agreement_table(f, by=("cohort", "structure"))
                     for f in (frame, more))
    assert after["n_failed"].tolist() == [1, 1, 1]
    pd.testing.assert_series_equal(before["bias"], after["bias"])
    assert (dice_table(more)["n_failed"] == 1).all()


def test_a_group_of_two_keeps_its_row_and_says_why():
    rows = summary.agreement_table(table(n=2), by=("cohort", "structure"))
    assert rows["n"].tolist() == [2, 2, 2]
    assert rows["ccc"].isna().all()
    assert rows["reasons"].str.contains("fewer than 3 pairs").all()


def test_a_structure_that_is_not_told_apart_has_no_row():
    rows = summary.agreement_table(table(structures=("lesion",)), by=("cohort", "structure"))
    assert rows["structure"].tolist() == ["lesion"]
    with pytest.raises(ValueError, match="expert, model"):
        summary.agreement_table(table(), test="ensemble")


def test_each_dice_is_named_and_computed_as_named(frame):
    rows = dice_table(frame).set_index(["structure", "averaging", "empty"])
    cases = frame.query("structure == 'ggo' and reader == 'model'")
    size = (2 * cases.tp + cases.fp + cases.fn).astype(float)
    scores = (2 * cases.tp.astype(float) / size.where(size > 0))
    assert scores.isna().sum() == 2
    def per_case(policy):
        return rows.loc[("ggo", "per case", policy)]

    assert per_case("nan")["dice"] == pytest.approx(scores.mean())
    assert per_case("nan")["sd_cases"] == pytest.approx(scores.std())
    assert per_case("zero")["dice"] == pytest.approx(scores.fillna(0).mean())
    assert per_case("one")["dice"] == pytest.approx(scores.fillna(1).mean())
    assert per_case("nan_reference")["dice"] == pytest.approx(
        scores[cases.tp + cases.fn > 0].mean())
    median = rows.loc[("ggo", "median of cases", "nan")]
    assert median["dice"] == pytest.approx(scores.median())
    assert median["ci_lower"] < median["dice"] < median["ci_upper"]
    alone = dice_table(frame.assign(patient_id=frame.case_id)).set_index(
        ["structure", "averaging", "empty"]).loc[("ggo", "median of cases", "nan")]
    # Of 22 values: the 6th and the 17th, P(Bin(22, 1/2) < 6) = 0.0085, < 7 = 0.026.
    ordered = np.sort(scores.dropna())
    assert (alone["ci_lower"], alone["ci_upper"]) == pytest.approx((ordered[5], ordered[16]))
    pooled = rows.loc[("ggo", "pooled", "no weight")]
    assert pooled["dice"] == pytest.approx(2 * cases.tp.sum() / size.sum())
    folds = scores.groupby(cases.fold).mean()
    assert rows.loc[("ggo", "per fold", "nan"), "dice"] == pytest.approx(folds.mean())
    assert rows.loc[("ggo", "per fold", "nan"), "sd_folds"] == pytest.approx(folds.std())
    sums = (2 * cases.tp).groupby(cases.fold).sum() / size.groupby(cases.fold).sum()
    assert rows.loc[("ggo", "pooled per fold", "no weight"), "dice"] == pytest.approx(sums.mean())
    assert (pooled[["n", "n_both_empty", "n_reference_empty"]] == [24, 2, 2]).all()
    for row in (per_case("nan"), pooled):
        assert row["ci_lower"] < row["dice"] < row["ci_upper"]


def test_pooled_dice_has_the_interval_of_its_patients(frame):
    """Two cases a patient, each of which the second copies: no more is known than by one."""
    doubled = frame.copy()
    twin = frame[frame.reader == "model"].copy()
    twin["case_id"] = twin.case_id + "b"
    doubled = pd.concat([frame[frame.reader == "model"], twin], ignore_index=True)
    rows = dice_table(doubled, by=("cohort",))
    row = rows[(rows.averaging == "pooled") & (rows.structure == "ggo")].iloc[0]
    cases = doubled[doubled.structure == "ggo"]
    over, under = 2 * cases.tp.astype(float), (2 * cases.tp + cases.fp + cases.fn).astype(float)
    by_patient, by_case = (bootstrap_ratio_ci(over, under, cluster) for cluster in (
        cases.patient_id, None))
    assert (row.ci_lower, row.ci_upper) == pytest.approx(by_patient)
    assert np.ptp(by_patient) > 1.15 * np.ptp(by_case)


def test_background_and_the_means_over_classes_come_on_request(frame):
    rows = dice_table(frame, background=True).set_index(["structure", "averaging",
                                                                 "empty"])["dice"]
    where = ("pooled", "no weight")
    cases = frame.query("structure == 'lesion' and reader == 'model'")
    assert rows[("background", *where)] == pytest.approx(
        2 * cases.tn.sum() / (2 * cases.tn + cases.fp + cases.fn).sum())
    assert rows[("mean of ggo, high_opacity", *where)] == pytest.approx(
        (rows[("ggo", *where)] + rows[("high_opacity", *where)]) / 2)
    assert rows[("mean of background, ggo, high_opacity", *where)] == pytest.approx(
        (rows[("background", *where)] + rows[("ggo", *where)] + rows[("high_opacity", *where)]) / 3)


def test_dice_without_counts_is_refused(frame):
    bare = frame.copy()
    bare.loc[(bare.reader == "model") & (bare.case_id == "004"), "tp"] = pd.NA
    with pytest.raises(ValueError, match="first case '004'"):
        dice_table(bare)


def test_the_bootstrap_resamples_patients_and_repeats_itself():
    values = np.repeat(np.random.default_rng(0).normal(size=20), 5)
    alone = bootstrap_ratio_ci(values)
    clustered = bootstrap_ratio_ci(values, cluster=np.repeat(np.arange(20), 5))
    assert clustered == bootstrap_ratio_ci(values, cluster=np.repeat(np.arange(20), 5))
    # Five copies of a patient are no new knowledge: the interval is sqrt(5) times as wide.
    assert np.ptp(clustered) / np.ptp(alone) == pytest.approx(np.sqrt(5), rel=0.15)
    assert np.isnan(bootstrap_ratio_ci([1.0])).all()


def test_statistics_need_no_torch_and_no_image_reader():
    code = ("import sys; import deeplung_nb.stats.summary; "
            "print([m for m in ('torch', 'monai', 'SimpleITK') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
