"""Several readers and a machine; readers who give classes; shifts and limits with intervals."""

import itertools

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import optimize, stats
from statsmodels.stats.inter_rater import aggregate_raters, cohens_kappa
from statsmodels.stats.inter_rater import fleiss_kappa as other_fleiss

from deeplung_nb import measurements
from deeplung_nb.stats import (
    agreement,
    classes,
    equivalence,
    mixed,
    paired,
    readers,
    reliability,
    robust,
    summary,
)


def long(table, names=None, patients=None):
    """A table [subjects, readers] as rows; NaN is a reading that is not there."""
    n, k = np.shape(table)
    names = names or [f"r{j}" for j in range(k)]
    frame = pd.DataFrame({"s": np.repeat(np.arange(n), k), "r": names * n,
                          "v": np.ravel(table)})
    return frame if patients is None else frame.assign(p=np.repeat(patients, k))


def readings(seed, n=30, k=3, holes=0.0, subject=10.0, reader=2.0, error=3.0):
    rng = np.random.default_rng(seed)
    table = (rng.normal(0, subject, (n, 1)) + rng.normal(0, reader, k)
             + rng.normal(0, error, (n, k)) + 50)
    table[rng.random((n, k)) < holes] = np.nan
    return table


# --- interchangeability ------------------------------------------------------------------------


@pytest.mark.parametrize("measure", readers.MEASURES)
def test_the_machine_is_compared_with_each_reader_and_readers_with_each_other(measure):
    table = readings(1, k=4, holes=0.15)
    frame = long(table, ["a", "b", "c", "machine"])
    found = readers.interchangeability(frame, "s", "r", "v", "machine", measure=measure)
    between, beside, n = [], [], 0
    for row in table:
        read = [v for v in row[:3] if np.isfinite(v)]
        if len(read) < 2 or np.isnan(row[3]):
            continue
        n += 1
        power = 1 if measure == "absolute" else 2
        between.append(np.mean([abs(x - y) ** power for x, y in itertools.combinations(read, 2)]))
        beside.append(np.mean([abs(x - row[3]) ** power for x in read]))
    assert (found.n, found.n_missing) == (n, len(table) - n)
    assert 0 < found.n_missing
    assert found.between_readers == pytest.approx(np.mean(between))
    assert found.with_machine == pytest.approx(np.mean(beside))
    d = np.subtract(beside, between)
    assert found.difference_ci == pytest.approx(stats.ttest_1samp(d, 0).confidence_interval())
    assert found.ratio == pytest.approx(np.mean(beside) / np.mean(between))
    assert found.ratio_ci[0] < found.ratio < found.ratio_ci[1]


def test_the_ratio_holds_1_where_the_difference_holds_0():
    for seed in range(40):
        table = readings(seed, n=10, k=4, error=3.0)
        found = readers.interchangeability(long(table, ["a", "b", "c", "m"]), "s", "r", "v", "m")
        low, high = found.ratio_ci
        assert (low <= 1 <= high) == (found.difference_ci[0] <= 0 <= found.difference_ci[1])
        assert 0 <= low <= found.ratio <= high
    # Readers who nearly always agree: how many times as far the machine is has no upper bound.
    table = np.column_stack([np.zeros(6), [0, 0, 0, 0, 0, 3.0], np.arange(6.0)])
    found = readers.interchangeability(long(table, ["a", "b", "m"]), "s", "r", "v", "m")
    assert np.isinf(found.ratio_ci[1])


def test_a_machine_worse_than_the_readers_is_called_so_and_a_twin_of_them_is_not():
    rng = np.random.default_rng(3)
    truth = rng.lognormal(3, 1, 80)
    three = truth[:, None] + rng.normal(0, 2, (80, 3))
    worse = long(np.column_stack([three, truth + rng.normal(0, 8, 80)]), ["a", "b", "c", "m"])
    found = readers.interchangeability(worse, "s", "r", "v", "m")
    assert found.difference_ci[0] > 0
    assert found.ratio_ci[0] > 1
    assert found.within_range < 0.4 < found.within_range_expected == 0.5
    twin = long(np.column_stack([three, truth + rng.normal(0, 2, 80)]), ["a", "b", "c", "m"])
    found = readers.interchangeability(twin, "s", "r", "v", "m")
    assert found.difference_ci[0] < 0 < found.difference_ci[1]
    assert found.within_range == pytest.approx(0.5, abs=0.15)


def test_lesions_of_a_patient_count_together():
    table = readings(5, n=12, k=3)
    alone = readers.interchangeability(long(table, ["a", "b", "m"]), "s", "r", "v", "m")
    copies = long(np.repeat(table, 4, axis=0), ["a", "b", "m"], np.repeat(np.arange(12), 4))
    found = readers.interchangeability(copies, "s", "r", "v", "m", patient="p")
    assert (found.n, found.n_patients) == (48, 12)
    assert found.difference_ci == pytest.approx(alone.difference_ci)
    assert found.ratio_ci == pytest.approx(alone.ratio_ci)
    naive = readers.interchangeability(copies, "s", "r", "v", "m")
    assert np.ptp(naive.difference_ci) < 0.6 * np.ptp(found.difference_ci)


def test_what_readers_can_not_tell_is_refused_or_has_a_reason():
    frame = long(readings(1, n=6, k=3), ["a", "b", "m"])
    with pytest.raises(ValueError, match="machine 'net' is not in the column 'r'"):
        readers.interchangeability(frame, "s", "r", "v", "net")
    with pytest.raises(ValueError, match="more than one reading"):
        readers.interchangeability(pd.concat([frame, frame[:1]]), "s", "r", "v", "m")
    torn = frame.assign(p=[*range(9), *range(9)])
    with pytest.raises(ValueError, match="of more than one p"):
        readers.interchangeability(torn, "s", "r", "v", "m", patient="p")
    lone = readers.interchangeability(frame[frame.r != "b"], "s", "r", "v", "m")
    assert lone.n == 0
    assert "two readers" in lone.reason
    few = readers.interchangeability(frame[frame.s < 3], "s", "r", "v", "m")
    assert np.isnan(few.difference_ci).all()
    assert "fewer than 4 patients" in few.reason
    same = frame.assign(v=frame.v.where(frame.r == "m", 7.0))
    assert readers.interchangeability(same, "s", "r", "v", "m").reason == \
        "the readers never differ: no ratio"


def volumes(**columns):
    return measurements.from_wide(pd.DataFrame({"case_id": list("xyz"), **columns}),
                                  {name: name for name in columns}, unit="mL")


def test_the_mean_of_readers_is_a_reader_as_any_other():
    table = volumes(ann=[10.0, 20, 30], bob=[14.0, 20, 36], model=[11.0, 24, 30])
    more = readers.add_mean_reader(table, ["ann", "bob"])
    pairs = measurements.pair(more, "mean of readers", "model", "lesion")
    assert pairs.reference.tolist() == [12.0, 20.0, 33.0]
    assert pairs.test.tolist() == [11.0, 24.0, 30.0]
    assert len(more) == 12
    with pytest.raises(ValueError, match="expected two or more of ann, bob, model"):
        readers.add_mean_reader(table, ["ann", "eve"])
    with pytest.raises(ValueError, match="give another"):
        readers.add_mean_reader(table, ["ann", "bob"], "model")


def test_a_mean_without_one_of_its_readers_is_asked_about():
    table = volumes(ann=[10.0, 20, 30], bob=[14.0, 20, 36])
    gone = table[~((table.reader == "bob") & (table.case_id == "y"))]
    with pytest.raises(ValueError, match="case 'y', lesion: read by 1 of 2"):
        readers.add_mean_reader(gone, ["ann", "bob"])
    kept = readers.add_mean_reader(gone, ["ann", "bob"], missing="drop")
    mean = kept[kept.reader == "mean of readers"].set_index("case_id")
    assert mean.status.to_dict() == {"x": "ok", "y": "failed", "z": "ok"}
    assert mean.note["y"] == "not read by all of ann, bob"
    assert mean.volume_ml["z"] == 33.0
    table = summary.agreement_table(kept, reference="mean of readers", test="ann",
                                    by=("structure",))
    assert table.loc[0, ["n", "n_failed"]].tolist() == [2, 1]


# --- ICC with missing cells -----------------------------------------------------------------------


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


def test_with_every_cell_read_the_mixed_icc_is_the_usual_one():
    table = readings(7)
    found = mixed.icc(long(table), "s", "r", "v")
    usual = reliability.icc(long(table), "s", "r", "v")
    assert found.icc_a1 == pytest.approx(usual.icc_a1, abs=1e-6)
    assert found.icc_c1 == pytest.approx(usual.icc_c1, abs=1e-6)
    assert (found.n_missing, found.reason) == (0, "")


def test_with_empty_cells_it_maximises_the_restricted_likelihood():
    table = readings(8, n=15, holes=0.25)
    present = np.isfinite(table)
    found = mixed.icc(long(table), "s", "r", "v")
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
    one, other = (mixed.icc(long(t), "s", "r", "v") for t in (table, table * unit))
    assert other.icc_a1 == pytest.approx(one.icc_a1, rel=1e-5)
    assert other.icc_c1_ci == pytest.approx(one.icc_c1_ci, rel=1e-4)
    assert other.variance_readers == pytest.approx(one.variance_readers * unit**2, rel=1e-3)


def test_the_mixed_icc_says_what_it_can_not_tell():
    table = readings(1, n=8)
    flat = mixed.icc(long(np.full((5, 2), 3.0)), "s", "r", "v")
    assert flat.reason == "all readings are equal"
    shifted = np.column_stack([table[:, 0], table[:, 0] + 1])
    assert "constant" in mixed.icc(long(shifted), "s", "r", "v").reason
    single = np.where(np.eye(8, 3, dtype=bool), table, np.nan)
    single[3:, 0] = 5.0
    assert "two readings" in mixed.icc(long(single), "s", "r", "v").reason
    alike = np.random.default_rng(5).normal(50, 10, (25, 1)) + np.random.default_rng(7).normal(
        0, 3, (25, 2))
    alike -= alike.mean(axis=0)  # readers without any difference on average
    assert "between readers at its boundary, 0" in mixed.icc(long(alike), "s", "r", "v").reason
    noise = mixed.icc(long(np.random.default_rng(2).normal(0, 1, (9, 3))), "s", "r", "v")
    assert "at its boundary, 0" in noise.reason


# --- classes --------------------------------------------------------------------------------------


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


# --- shifts ---------------------------------------------------------------------------------------


def test_one_sided_signed_rank_tests_count_the_ways_of_signs():
    d = np.array([1.5, -0.5, 2.0, 3.0, 0.5, 4.0, -1.0])
    ranks = stats.rankdata(np.abs(d))
    sums = np.array([np.dot(signs, ranks) for signs in itertools.product([0, 1], repeat=7)])
    w = ranks[d > 0].sum()
    zero = np.zeros(7)
    greater = paired.wilcoxon_signed_rank(zero, d, alternative="greater")
    less = paired.wilcoxon_signed_rank(zero, d, alternative="less")
    assert greater.p_value == pytest.approx(np.mean(sums >= w))
    assert less.p_value == pytest.approx(np.mean(sums <= w))
    both = paired.wilcoxon_signed_rank(zero, d)
    assert both.p_value == pytest.approx(2 * min(greater.p_value, less.p_value))
    normal = [paired.wilcoxon_signed_rank(zero, d, alternative=side, method="asymptotic").p_value
              for side in ("greater", "less")]
    other = [stats.wilcoxon(d, alternative=side, method="asymptotic", correction=True).pvalue
             for side in ("greater", "less")]
    assert normal == pytest.approx(other)


def test_wilcoxon_tost_speaks_for_a_shift_within_the_margin_only():
    rng = np.random.default_rng(5)
    a = rng.normal(100, 20, 40)
    near, far = a + rng.laplace(0.5, 2, 40), a + rng.laplace(6, 2, 40)
    assert equivalence.wilcoxon_tost(a, near, 3).p_value < 0.001
    found = equivalence.wilcoxon_tost(a, far, 3)
    assert found.p_upper > 0.99 > 0.01 > found.p_lower
    # The interval of 90 % lies within the margin where both tests are below 5 %.
    for margin in (0.8, 1.0, 1.5, 2.0):
        one = equivalence.wilcoxon_tost(a, near, margin)
        low, high = one.hodges_lehmann_ci
        assert (one.p_value < 0.05) == (-margin < low and high < margin)
    on_it = equivalence.wilcoxon_tost([1, 2, 3, 4], [2, 3, 4, 5], 1)
    assert on_it.p_value == 1.0


def jackknifed(statistic, d, codes):
    parts = np.unique(codes)
    without = np.arctanh([statistic(d[codes != p]) for p in parts])
    m = len(parts)
    return np.sqrt((m - 1) / m * ((without - without.mean()) ** 2).sum())


@pytest.mark.parametrize("grouped", [False, True])
def test_the_interval_of_the_rank_biserial_is_that_of_leaving_out_each_patient(grouped):
    rng = np.random.default_rng(11)
    d = rng.normal(0.4, 1, 120)
    codes = np.arange(120) // 3 if grouped else np.arange(120)

    def value(x):
        return paired.wilcoxon_signed_rank(np.zeros(len(x)), x).rank_biserial

    low, high = robust.rank_biserial_interval(d, codes)
    m = codes.max() + 1
    half = (np.arctanh(high) - np.arctanh(low)) / 2 / stats.t.ppf(0.975, m - 1)
    assert half == pytest.approx(jackknifed(value, d, codes), rel=0.03)
    assert np.tanh((np.arctanh(high) + np.arctanh(low)) / 2) == pytest.approx(value(d))


def test_pratts_rank_biserial_has_an_interval_about_itself():
    d = np.array([0, 0, 0, 1, -2, 3, 4, 5, -1, 6, 7.0])
    r = paired.wilcoxon_signed_rank(np.zeros(11), d, zeros="pratt")
    low, high = r.rank_biserial_ci
    assert np.tanh((np.arctanh(high) + np.arctanh(low)) / 2) == pytest.approx(r.rank_biserial)
    one_sign = paired.wilcoxon_signed_rank(np.zeros(5), np.arange(1.0, 6))
    assert np.isnan(one_sign.rank_biserial_ci).all()


def test_the_interval_of_two_samples_counts_pairs():
    rng = np.random.default_rng(12)
    x, y = rng.normal(0.5, 2, 25), np.round(rng.normal(0, 1, 40), 1)
    wins = np.sign(np.subtract.outer(x, y))
    value = wins.mean()
    parts = wins.mean(axis=1).var(ddof=1) / 25, wins.mean(axis=0).var(ddof=1) / 40
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 24 + parts[1] ** 2 / 39)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(sum(parts)) / (1 - value**2)
    r = paired.mann_whitney(x, y)
    assert r.rank_biserial == pytest.approx(value)
    assert r.rank_biserial_ci == pytest.approx(
        (np.tanh(np.arctanh(value) - half), np.tanh(np.arctanh(value) + half)))


# --- limits by size -------------------------------------------------------------------------------


def by_size(seed, n=80):
    rng = np.random.default_rng(seed)
    mean = rng.uniform(5, 200, n)
    d = 0.05 * mean + rng.normal(0, 1, n) * (1 + 0.1 * mean)
    return mean - d / 2, mean + d / 2


def test_limits_by_size_are_the_regression_limits_with_intervals_of_the_jackknife():
    a, b = by_size(1)
    sizes = np.array([20.0, 100.0, 180.0])
    table = agreement.limits_by_size(a, b, sizes)
    lines = agreement.bland_altman(a, b, limits="regression").lines(sizes)
    np.testing.assert_allclose(table[["bias", "loa_lower", "loa_upper"]].to_numpy().T,
                               np.array(lines))
    without = np.array([
        agreement.bland_altman(*(np.delete(x, k) for x in (a, b)), limits="regression"
                               ).lines(sizes).upper for k in range(80)])
    half = stats.t.ppf(0.975, 79) * np.sqrt(79 / 80 * ((without - without.mean(0)) ** 2).sum(0))
    np.testing.assert_allclose(table.loa_upper_ci_upper - table.loa_upper, half, rtol=1e-6)
    at_mean = agreement.bland_altman(a, b, limits="regression")
    one = agreement.limits_by_size(a, b, [((a + b) / 2).mean()])
    assert at_mean.loa_upper_ci == pytest.approx(
        (one.loa_upper_ci_lower[0], one.loa_upper_ci_upper[0]))
    assert at_mean.reason == ""


def test_limits_by_size_of_skewed_readings_have_the_power_and_its_jackknife():
    rng = np.random.default_rng(4)
    a = np.where(rng.random(67) < 0.35, 0.0, rng.lognormal(2, 1.3, 67))
    b = a * (1 + 0.2 * rng.normal(size=67))
    whole = agreement.bland_altman(a, b, limits="regression")
    assert np.isfinite(whole.sd_power[0])  # the data are such
    table = agreement.limits_by_size(a, b, [1.0, 30.0])
    assert (table.loa_lower_ci_lower < table.loa_lower).all()
    _, _, lowest, scale = *whole.sd_power, *whole.sd_size
    mean, d, sizes = (a + b) / 2, b - a, np.array([1.0, 30.0])

    def grown(size):
        return sm.add_constant(np.log1p(np.maximum(size - lowest, 0) / scale))

    without = []
    for k in range(67):
        m, e = np.delete(mean, k), np.delete(d, k)
        line = np.polynomial.Polynomial.fit(m, e, 1)
        fit = sm.GLM(np.abs(e - line(m)), grown(m), family=sm.families.Poisson()).fit()
        half = np.sqrt(np.pi / 2) * fit.predict(grown(sizes))
        without.append(line(sizes) + stats.norm.ppf(0.975) * half)
    spread = np.std(without, axis=0) * np.sqrt(66)
    found = (table.loa_upper_ci_upper - table.loa_upper).to_numpy() / stats.t.ppf(0.975, 66)
    np.testing.assert_allclose(found, spread, rtol=1e-4)


def test_limits_by_size_by_patients_are_wider_where_lesions_belong_together():
    a, b = by_size(2, 20)
    copies = [np.repeat(x, 5) for x in (a, b)]
    alone = agreement.limits_by_size(a, b)
    whose = np.repeat(np.arange(20), 5)
    grouped = agreement.limits_by_size(*copies, alone["size"], cluster=whose)
    np.testing.assert_allclose(grouped.to_numpy(), alone.to_numpy(), rtol=1e-6)


def test_the_trend_of_a_ratio_is_on_the_logarithm_of_the_size():
    rng = np.random.default_rng(4)
    a = rng.lognormal(3, 1.2, 60)
    b = a ** 1.1 * np.exp(rng.normal(0, 0.05, 60))  # log(b / a) = 0.1 log a
    r = agreement.bland_altman(a, b, scale="ratio", limits="regression")
    assert r.slope == pytest.approx(0.1 / 1.05, abs=0.01)  # of log sqrt(a b) = 1.05 log a
    size = np.array([5.0, 50.0, 500.0])
    np.testing.assert_allclose(r.lines(size).bias, (size ** (0.1 / 1.05)), rtol=0.06)


# --- what used to go wrong in silence -------------------------------------------------------------


def test_limits_by_size_do_not_cross_and_are_not_given_beyond_the_sizes_read():
    m = np.arange(20.0, 44)
    d = 0.5 * (m - 18) * np.tile([1, -1, -1, 1], 6)
    table = agreement.limits_by_size(m - d / 2, m + d / 2, [5, 20, 30, 50])
    assert np.isnan(table.drop(columns="size").loc[[0, 3]]).all(axis=None)
    assert (table.loa_lower <= table.loa_upper)[1:3].all()
    lines = agreement.bland_altman(m - d / 2, m + d / 2, limits="regression").lines([20.0, 30.0])
    np.testing.assert_allclose(table.loa_upper[1:3], lines.upper)
    none = agreement.limits_by_size([], [])
    assert len(none) == 3
    assert none.isna().all(axis=None)
    few = agreement.limits_by_size(m - d / 2, m + d / 2, [30], cluster=np.arange(24) % 3)
    assert np.isfinite(few.loa_upper).all()
    assert few.loa_upper_ci_upper.isna().all()  # three patients tell of no interval


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


def test_subjects_of_two_patients_are_refused_and_a_subject_may_be_the_patient():
    torn = pd.DataFrame({"s": [1, 1, 1, 1, 2, 2], "r": list("abcdab"), "v": [0, 1, 0, 1, 1, 1.0],
                         "p": list("AABBCC")})
    with pytest.raises(ValueError, match="subject '1' is of more than one p"):
        classes.fleiss_kappa(torn, "s", "r", "v", patient="p")
    frame = long(readings(3, n=8, k=3), ["a", "b", "m"])
    same = readers.interchangeability(frame, "s", "r", "v", "m", patient="s")
    assert same == readers.interchangeability(frame, "s", "r", "v", "m")


def test_who_was_not_read_at_all_is_counted():
    table = readings(2, n=6, k=3)
    table[5] = np.nan
    found = mixed.icc(long(table), "s", "r", "v")
    assert (found.n, found.n_missing) == (5, 3)
    failed = long(np.column_stack([table[:, :2], np.full(6, np.nan)]), ["a", "b", "m"])
    none = readers.interchangeability(failed, "s", "r", "v", "m")
    assert (none.n, none.n_missing) == (0, 6)
    assert none.reason == "no subject with the machine's and two readers' readings"


def test_classes_with_other_labels_are_not_paired_by_place():
    first = pd.Series([0, 1, 2, 3, 0], index=list("abcde"))
    with pytest.raises(ValueError, match="different labels"):
        classes.weighted_kappa(first, first[::-1])


def test_so_few_shifts_say_that_their_interval_falls_short():
    assert "holds" in equivalence.wilcoxon_tost([1, 2, 3], [1.1, 2.2, 3.4], 1).reason
