"""A patient is never forgotten: one way to name her, one interval of one quantity."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from deeplung_nb.stats import (
    agreement,
    classes,
    concordance,
    correlation,
    detection,
    equivalence,
    paired,
    planning,
    readers,
    regression,
    reliability,
    rivals,
    robust,
    tolerance,
    trend,
)
from deeplung_nb.stats.comparison import ROW, compare

PAIRED = {
    "bland_altman": agreement.bland_altman, "concordance": concordance.concordance,
    "rank_concordance": concordance.rank_concordance, "spearman": correlation.spearman,
    "pearson": correlation.pearson, "wilcoxon_signed_rank": paired.wilcoxon_signed_rank,
    "sign_test": paired.sign_test, "proportional_bias": trend.proportional_bias,
    "tost": lambda a, b, **given: equivalence.tost(a, b, 5.0, **given),
    "wilcoxon_tost": lambda a, b, **given: equivalence.wilcoxon_tost(a, b, 5.0, **given),
    "total_deviation_index": equivalence.total_deviation_index,
    "tolerance_limits": tolerance.tolerance_limits, "deming": regression.deming,
    "passing_bablok": regression.passing_bablok,
    "accuracy": lambda a, b, **given: detection.accuracy(a, b, threshold=30.0, **given),
    "quantile limits": lambda a, b, **given: agreement.bland_altman(a, b, limits="quantile",
                                                                    **given),
    "regression limits": lambda a, b, **given: agreement.bland_altman(a, b, limits="regression",
                                                                      **given),
    "ratio limits": lambda a, b, **given: agreement.bland_altman(a, b, scale="ratio", **given),
    "weighted_kappa": lambda a, b, **given: classes.weighted_kappa(
        classes.severity(a / 3), classes.severity(b / 3), **given),
}
"""Every statistic of pairs."""


def lesions(seed=0, n_patients=18, each=5, alike=0.8):
    """Several lesions a patient, whose sizes and differences belong together."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(n_patients), rng.integers(1, 2 * each, n_patients))
    size = rng.gamma(2, 25, n_patients)[who] * rng.lognormal(0, 0.4, len(who))
    size[rng.random(len(who)) < 0.15] = 0
    d = 0.2 * size * (alike * rng.normal(size=n_patients)[who]
                      + np.sqrt(1 - alike**2) * rng.normal(size=len(who)))
    return size, np.maximum(size + d, 0), who


def ends(result):
    """All intervals of a result, those that are one."""
    return {name: value for name, value in result.to_dict().items()
            if isinstance(value, tuple) and name.endswith("ci") and np.isfinite(value).all()}


@pytest.mark.parametrize("name", PAIRED)
def test_each_patient_alone_is_what_no_patients_are(name):
    a, b, _ = lesions(1)
    alone = PAIRED[name](a, b).to_dict()
    np.testing.assert_equal(PAIRED[name](a, b, cluster=np.arange(len(a))).to_dict(), alone)
    np.testing.assert_equal(PAIRED[name](a, b, cluster=None).to_dict(), alone)


@pytest.mark.parametrize("name", PAIRED)
def test_pairs_of_a_patient_that_are_alike_widen_every_interval(name):
    a, b, who = lesions(2, alike=0.97)
    alone, grouped = PAIRED[name](a, b), PAIRED[name](a, b, cluster=who)
    mine, theirs = ends(grouped), ends(alone)
    assert grouped.to_dict().get("n_clusters", 18) == 18
    shared = [field for field in mine if (field in theirs and field != "slope_ci")
              or (name in ("proportional_bias", "deming", "passing_bablok") and field in theirs)]
    widths = [(mine[field][1] - mine[field][0]) / (theirs[field][1] - theirs[field][0])
              for field in shared if theirs[field][1] > theirs[field][0]]
    told = [field for field in ("p_value", "mcnemar_p", "tdi_upper", "upper")
            if np.isfinite(getattr(grouped, field, np.nan)) and getattr(alone, field) != 1]
    assert widths or told
    assert not widths or np.mean(widths) > 1.1
    for field in told:
        assert getattr(grouped, field) != getattr(alone, field)


@pytest.mark.parametrize("name", PAIRED)
def test_a_patient_of_nobody_is_asked_about_everywhere(name):
    a, b, who = lesions(3)
    nameless = [None, *who[1:]]
    with pytest.raises(ValueError, match="cluster: empty at position 0"):
        PAIRED[name](a, b, cluster=nameless)
    with pytest.raises(ValueError, match=r"cluster: expected \d+ values, one for each pair"):
        PAIRED[name](a, b, cluster=who[1:])


@pytest.mark.parametrize("grouped", [False, True])
def test_one_quantity_of_the_same_pairs_has_one_interval(grouped):
    a, b, who = lesions(4)
    cluster = who if grouped else None
    pairs = pd.DataFrame({"reference": a, "test": b})
    pairs = pairs.assign(patient_id=who) if grouped else pairs
    found, given = compare(pairs), {"cluster": cluster}
    row = found.row()
    limits = agreement.bland_altman(a, b, **given)

    def of(name):
        return row[f"{name}_lower"], row[f"{name}_upper"]

    assert of("bias") == limits.bias_ci
    assert equivalence.tost(a, b, 5, confidence=0.975, **given).bias_ci == pytest.approx(
        limits.bias_ci)
    assert (of("loa_lower_ci"), of("loa_upper_ci")) == (limits.loa_lower_ci, limits.loa_upper_ci)
    if grouped:
        frame = reliability.clustered_limits(pairs, "patient_id", "reference", "test")
        assert frame.bias_ci == limits.bias_ci
        assert (frame.loa_lower_ci, frame.loa_upper_ci) == pytest.approx(
            np.array((limits.loa_lower_ci, limits.loa_upper_ci)))
        assert (frame.sd, frame.loa_lower) == (limits.sd, limits.loa_lower)
    else:
        size = paired.wilcoxon_signed_rank(a, b, zeros="pratt")
        assert of("hodges_lehmann_all") == size.hodges_lehmann_ci
        assert equivalence.wilcoxon_tost(a, b, 5, confidence=0.975).hodges_lehmann_ci == \
            pytest.approx(size.hodges_lehmann_ci)
    moments = robust.studentized(a, b, cluster)
    assert of("pearson") == moments.pearson == correlation.pearson(a, b, **given).ci
    assert of("ccc") == moments.ccc == concordance.concordance(a, b, **given).ccc_ci
    assert of("spearman") == robust.spearman_interval(a, b, cluster) == correlation.spearman(
        a, b, **given).ci
    assert of("ccc_rank") == concordance.rank_concordance(a, b, **given).ci
    unlike = a != b
    assert of("rank_biserial") == pytest.approx(robust.rank_biserial_interval(
        np.round(b - a, 9)[unlike], None if cluster is None else who[unlike]))
    assert of("slope") == trend.proportional_bias(a, b, cluster).slope_ci
    by_size = agreement.limits_by_size(a, b, [(a + b).mean() / 2], **given).iloc[0]
    regression_limits = agreement.bland_altman(a, b, limits="regression", **given)
    assert (by_size.loa_upper_ci_lower, by_size.loa_upper_ci_upper) == pytest.approx(
        regression_limits.loa_upper_ci)
    median = robust.quantile_interval(b - a, 0.5, cluster)
    assert of("median_difference") == median
    yes = classes.weighted_kappa(a > 0, b > 0, weights="none", **given)
    assert detection.accuracy(a, b, **given).kappa_ci == yes.kappa_ci
    index = equivalence.total_deviation_index(a, b, **given)
    whole = tolerance.tolerance_limits(a, b, **given)
    assert index.tdi_upper == pytest.approx(abs(whole.bias) + (whole.upper - whole.lower) / 2)


def test_a_row_says_nothing_that_its_results_do_not_say():
    a, b, who = lesions(5)
    found = compare(pd.DataFrame({"reference": a, "test": b, "patient_id": who}))
    row = found.row()
    for column, path in ROW.items():
        value = found
        for part in path.split("."):
            value = value[int(part)] if part.isdigit() else getattr(value, part)
        shown = (row[f"{column}lower"], row[f"{column}upper"]) if column.endswith("_") \
            else row[column]
        np.testing.assert_equal(shown, value)


def test_classical_intervals_are_refused_where_patients_have_several():
    a, b, who = lesions(6)
    for function, ci in ((agreement.bland_altman, "exact"), (correlation.spearman, "fisher"),
                         (correlation.pearson, "fisher"), (concordance.concordance, "lin")):
        with pytest.raises(ValueError, match=r"takes pairs as independent, and patients have "):
            function(a, b, ci=ci, cluster=who)
        function(a, b, ci=ci, cluster=np.arange(len(a)))  # each has one


def test_any_column_can_say_who_a_pair_is_of():
    a, b, who = lesions(7)
    pairs = pd.DataFrame({"reference": a, "test": b, "ward": who})
    assert compare(pairs).n_patients == len(a)
    assert compare(pairs, cluster="ward").n_patients == 18
    with pytest.raises(ValueError, match="cluster='bed': no such column"):
        compare(pairs, cluster="bed")
    renamed = pairs.rename(columns={"ward": "Patient ID"})
    assert compare(renamed).independent == "patients"
    ignored = compare(renamed.rename(columns={"Patient ID": "patient_id"}), cluster=None)
    assert ignored.independent == "pairs"
    assert "18 patients, taken as independent" in ignored.flags


# --- what leads


def test_ratio_limits_lead_for_zeros_and_skew_and_quantiles_where_there_is_no_ratio():
    rng = np.random.default_rng(8)
    size = rng.gamma(0.9, 60, 40) * (rng.random(40) > 0.4)
    a, b = (size * rng.lognormal(0, 0.15, 40) for _ in range(2))
    found = compare(pd.DataFrame({"reference": a, "test": b}))
    assert found.lead.kind == "ratio"
    assert found.lead.limits.n == ((a > 0) & (b > 0)).sum()
    assert 0.5 < found.lead.limits.loa_lower < 1 < found.lead.limits.loa_upper < 2
    assert np.isfinite(found.lead.limits.loa_upper_ci).all()
    below = compare(pd.DataFrame({"reference": a - 500, "test": b - 500}))  # as HU
    assert below.ratio is None
    assert below.lead.kind == "regression"
    few = compare(pd.DataFrame({"reference": [0.0] * 20 + list(a[a > 0][:5]),
                                "test": [0.0] * 20 + list(b[a > 0][:5] * 3)}))
    assert few.lead.kind == "constant"  # five ratios, and 25 pairs bound no quantile
    assert "pairs are too few for others" in few.flags
    size = rng.gamma(0.9, 60, 300)
    heavy = size * np.exp(0.1 * rng.standard_t(2, 300))
    large = compare(pd.DataFrame({"reference": size, "test": heavy}))
    assert large.ratio.shapiro_p < 0.05
    assert large.lead.kind == "quantile"  # three hundred bound them
    assert compare(pd.DataFrame({"reference": size[:60], "test": heavy[:60]})).lead.kind == "ratio"
    even = rng.uniform(50, 60, 40)
    plain = compare(pd.DataFrame({"reference": even, "test": even + rng.normal(0, 1, 40)}))
    assert plain.lead.kind == "constant"


def test_limits_that_a_study_declared_are_taken_whatever_tests_say_if_pairs_carry_them():
    rng = np.random.default_rng(8)
    even = rng.uniform(50, 60, 200)
    pairs = pd.DataFrame({"reference": even - rng.normal(0, 1, 200),
                          "test": even + rng.normal(0, 1, 200)})
    assert compare(pairs).lead.kind == "constant"
    for kind in ("constant", "ratio", "regression", "quantile"):
        lead = compare(pairs, limits=kind).lead
        assert (lead.kind, lead.planned, lead.note) == (kind, True, "")
    assert compare(pairs, limits="quantile").lead.limits.limits == "quantile"
    unbounded = compare(pairs[:60], limits="quantile")  # sixty pairs bound no 2.5 % quantile
    assert unbounded.lead.kind == "constant"
    assert not unbounded.lead.planned
    assert "can't carry the planned quantile limits" in unbounded.flags
    few = compare(pairs[:9], limits="ratio")
    assert (few.lead.kind, few.lead.planned) == ("constant", False)
    with pytest.raises(ValueError, match="limits='wide': expected one of auto, constant, ratio"):
        compare(pairs, limits="wide")


def test_a_coefficient_that_hangs_on_one_patient_says_so():
    a = np.random.default_rng(9).uniform(10, 30, 30)
    b = a + np.random.default_rng(10).normal(0, 1, 30)
    assert "one patient decides" not in compare(pd.DataFrame({"reference": a, "test": b})).flags
    b[4] += 60
    found = compare(pd.DataFrame({"reference": a, "test": b}))
    assert "one patient decides CCC and Pearson's r" in found.flags
    assert found.ccc.ccc < 0.6
    assert found.ranks.coefficient > 0.85


# --- the single functions against their definitions


def test_concordance_of_ranks_is_the_intraclass_form_of_pooled_ranks():
    rng = np.random.default_rng(11)
    a = rng.gamma(2, 20, 200).round()
    b = (a * rng.lognormal(0.1, 0.3, 200)).round()
    found = concordance.rank_concordance(a, b)
    ranks = stats.rankdata(np.concatenate([a, b]))
    u, v = ranks[:200], ranks[200:]
    mean = ranks.mean()
    assert found.coefficient == pytest.approx(
        ((u - mean) * (v - mean)).sum() / (((u - mean)**2 + (v - mean)**2).sum() / 2))
    logs = concordance.rank_concordance(np.log1p(a), np.log1p(b))
    assert [logs.coefficient, *logs.ci] == pytest.approx([found.coefficient, *found.ci])
    without = [np.arctanh(concordance.rank_concordance(
        np.delete(a, k), np.delete(b, k)).coefficient) for k in range(200)]
    se = np.sqrt(199 / 200 * ((without - np.mean(without))**2).sum())
    half = (np.arctanh(found.ci[1]) - np.arctanh(found.ci[0])) / 2
    assert half == pytest.approx(stats.t.ppf(0.975, 199) * se, rel=0.05)
    assert concordance.rank_concordance(a, 2 * a + 1).coefficient < 0.95  # a shift costs


def test_tolerance_limits_of_single_pairs_hold_their_share_as_often_as_they_say():
    """The factor is exact: of 100,000 samples of 20 drawn here, 95 % are held."""
    rng = np.random.default_rng(12)
    a, d = rng.uniform(10, 50, 20), rng.normal(1, 2, 20)
    found = tolerance.tolerance_limits(a, a + d)
    k = (found.upper - found.bias) / d.std(ddof=1)
    mean = rng.normal(0, 1 / np.sqrt(20), 100_000)
    sd = np.sqrt(rng.chisquare(19, 100_000) / 19)
    held = stats.norm.cdf(mean + k * sd) - stats.norm.cdf(mean - k * sd) >= 0.95
    assert held.mean() == pytest.approx(0.95, abs=4 * np.sqrt(0.05 * 0.95 / 100_000))
    ahead = stats.t.ppf(0.975, 19) * d.std(ddof=1) * np.sqrt(1 + 1 / 20)
    assert found.prediction_upper - found.bias == pytest.approx(ahead)


def nested(rng, m):
    """Patient > scan > lesion, each with a variance of 1."""
    of_scan = np.repeat(np.arange(m), rng.integers(1, 4, m))
    of_lesion = np.repeat(np.arange(len(of_scan)), rng.integers(1, 5, len(of_scan)))
    d = (rng.normal(size=m)[of_scan] + rng.normal(size=len(of_scan)))[of_lesion]
    return d + rng.normal(size=len(d)), of_scan[of_lesion]


def test_the_variance_of_a_nested_difference_counts_every_level_once():
    rng, found = np.random.default_rng(13), []
    for _ in range(60):
        d, who = nested(rng, 40)
        found.append(tolerance.tolerance_limits(np.zeros(len(d)), d, cluster=who).sd**2)
    assert np.mean(found) == pytest.approx(3, abs=4 * np.std(found) / np.sqrt(60))


@pytest.mark.nightly
def test_nested_tolerance_limits_hold_their_share_as_often_as_they_say():
    held, ahead = [], []
    for k in range(200):
        d, who = nested(np.random.default_rng([14, k]), 40)
        found = tolerance.tolerance_limits(np.zeros(len(d)), d, cluster=who)

        def inside(low, high):
            return np.diff(stats.norm.cdf([low, high], 0, np.sqrt(3)))[0]

        held.append(inside(found.lower, found.upper) >= 0.95)
        ahead.append(inside(found.prediction_lower, found.prediction_upper))
    assert np.mean(held) > 0.93 - 3 * np.sqrt(0.05 * 0.95 / 200)
    assert np.mean(ahead) == pytest.approx(0.95, abs=0.01)


def test_exact_mann_whitney_with_ties_is_the_share_of_all_permutations():
    for seed in range(4):
        rng = np.random.default_rng(seed)
        x, y = rng.integers(0, 4, 5).astype(float), rng.integers(0, 5, 4).astype(float)
        ranks = stats.rankdata(np.concatenate([x, y]))
        sums = np.array([ranks[list(pick)].sum() for pick in itertools.combinations(range(9), 5)])
        far = np.abs(sums - 5 * ranks.mean())
        wanted = (far >= abs(ranks[:5].sum() - 5 * ranks.mean()) - 1e-9).mean()
        found = paired.mann_whitney(x, y)
        assert (found.method, found.p_value) == ("exact", pytest.approx(wanted))
    with pytest.raises(ValueError, match="above 200 it takes minutes"):
        paired.mann_whitney(np.zeros(201), np.ones(3), method="exact")


def test_gwets_coefficient_by_hand_and_where_kappa_fails():
    """Feinstein & Cicchetti 1990: 118 + 5 + 2 + 0 of 125: they agree in 94 %, kappa is negative."""
    first = np.repeat([1, 1, 2, 2], [118, 5, 2, 0])
    second = np.repeat([1, 2, 1, 2], [118, 5, 2, 0])
    frame = pd.DataFrame({"s": [*range(125)] * 2, "r": ["a"] * 125 + ["b"] * 125,
                          "c": [*first, *second]})
    found = classes.gwet_ac(frame, "s", "r", "c")
    share = (first == 1).mean() / 2 + (second == 1).mean() / 2
    by_chance = 2 * share * (1 - share)
    assert found.agreement == pytest.approx(118 / 125)
    assert found.kappa == pytest.approx((118 / 125 - by_chance) / (1 - by_chance))
    assert found.kappa > 0.9 > 0 > classes.weighted_kappa(first, second, weights="none").kappa
    words = frame.assign(c=frame.c.map({1: "no", 2: "yes"}))
    same = classes.gwet_ac(words, "s", "r", "c", levels=["no", "yes"])
    assert (same.kappa, same.kappa_ci) == (found.kappa, found.kappa_ci)
    more = classes.gwet_ac(words, "s", "r", "c", levels=["no", "maybe", "yes"], weights="linear")
    assert more.n_classes == 3
    with pytest.raises(ValueError, match="none of the levels"):
        classes.gwet_ac(words, "s", "r", "c", levels=["no", "maybe"])
    named = classes.fleiss_kappa(words, "s", "r", "c", levels=["no", "maybe", "yes"])
    assert named.kappa == classes.fleiss_kappa(words, "s", "r", "c").kappa
    assert named.n_classes == 3
    with pytest.raises(ValueError, match="none of the levels"):
        classes.fleiss_kappa(words, "s", "r", "c", levels=["no", "maybe"])


def test_repeated_measures_correlation_is_the_analysis_of_covariance():
    import statsmodels.formula.api as smf

    rng = np.random.default_rng(15)
    who = np.repeat(np.arange(12), 4)
    x = rng.normal(0, 5, 12)[who] + rng.normal(size=48)
    frame = pd.DataFrame({"x": x, "y": -x + rng.normal(0, 9, 12)[who] + rng.normal(size=48),
                          "who": who})
    fit = smf.ols("y ~ C(who) + x", frame).fit()
    without = smf.ols("y ~ C(who)", frame).fit()
    found = correlation.repeated_measures(frame.x, frame.y, who)
    assert found.r == pytest.approx(-np.sqrt(1 - fit.ssr / without.ssr))
    assert found.p_value == pytest.approx(fit.pvalues["x"])
    assert found.ci[0] < found.r < found.ci[1] < 0
    assert "fewer than 2 patients" in correlation.repeated_measures([1, 2, 3], [1, 2, 4],
                                                                    [1, 2, 3]).reason


def test_limits_with_the_mean_of_readers_hold_the_deviations():
    rng = np.random.default_rng(16)
    n, k = 400, 6
    effects = rng.normal(0, 2, k)
    table = rng.normal(100, 20, (n, 1)) + effects + rng.normal(0, 3, (n, k))
    frame = pd.DataFrame({"s": np.repeat(np.arange(n), k), "r": [*"abcdef"] * n,
                          "v": table.ravel()})
    found = readers.limits_with_mean(frame, "s", "r", "v")
    away = table - table.mean(axis=1, keepdims=True)
    assert np.mean(np.abs(away) <= found.half_width) == pytest.approx(0.95, abs=0.03)
    assert found.sd_residual == pytest.approx(3, rel=0.05)
    assert found.half_width_ci[0] < found.half_width < found.half_width_ci[1]
    with pytest.raises(ValueError, match="lacks a reader's reading"):
        readers.limits_with_mean(frame.iloc[1:], "s", "r", "v")


@pytest.mark.nightly
def test_limits_with_the_mean_hold_the_truth():
    held = []
    truth = stats.norm.ppf(0.975) * np.sqrt(3 / 4 * (2**2 + 3**2))
    for seed in range(200):
        rng = np.random.default_rng([17, seed])
        table = rng.normal(100, 20, (30, 1)) + rng.normal(0, 2, 4) + rng.normal(0, 3, (30, 4))
        frame = pd.DataFrame({"s": np.repeat(np.arange(30), 4), "r": [*"abcd"] * 30,
                              "v": table.ravel()})
        low, high = readers.limits_with_mean(frame, "s", "r", "v").half_width_ci
        held.append(low <= truth <= high)
    assert np.mean(held) > 0.95 - 4 * np.sqrt(0.05 * 0.95 / 200)


def test_the_sign_test_and_mcnemars_turn_patients_as_a_whole():
    a, b, who = np.zeros(9), np.array([1.0, 1, 1, -1, 2, 2, 2, 2, 1]), [*"aaabbbccc"]
    found = paired.sign_test(a, b, cluster=who)
    sums = np.array([3, 1, 3])
    wanted = np.mean([abs(np.dot(signs, sums)) >= 7 for signs in
                      itertools.product((1, -1), repeat=3)])
    assert found.p_value == pytest.approx(wanted)
    seen = detection.accuracy(a + 1, b * 0, cluster=who)
    assert seen.mcnemar_p == 0.25  # three patients, all on one side: 2 of 8
    assert detection.accuracy(a + 1, b * 0).mcnemar_p < 0.01


def test_two_networks_on_the_same_cases_are_compared_pair_by_pair():
    rng = np.random.default_rng(18)
    rows = []
    for case in range(20):
        size = rng.uniform(2000, 9000)
        for reader, share in (("model", 0.8), ("other", 0.7)):
            tp = int(size * (share + 0.05 * rng.normal()))
            fn = int(size) - tp
            fp = int(0.1 * size)
            rows.append({"cohort": "c", "role": "cv", "case_id": case, "patient_id": case // 2,
                         "structure": "lesion", "reader": reader, "status": "ok", "tp": tp,
                         "fp": fp, "fn": fn, "dice": 2 * tp / (2 * tp + fp + fn),
                         "volume_ml": (tp + fp) / 100})
        rows.append({**rows[-1], "reader": "expert", "volume_ml": size / 100, "dice": None,
                     "tp": None, "fp": None, "fn": None})
    frame = pd.DataFrame(rows)
    found = rivals.rivals_table(frame, "model", "other").set_index("measure")
    wide = frame.pivot(index="case_id", columns="reader", values="dice").astype(float)
    d = (wide.other - wide.model).to_numpy()
    limits = agreement.bland_altman(wide.model, wide.other, cluster=np.arange(20) // 2)
    assert found.loc["dice", "difference"] == pytest.approx(d.mean())
    assert (found.loc["dice", "lower"], found.loc["dice", "upper"]) == limits.bias_ci
    assert found.loc["dice", "n_patients"] == 10
    assert found.loc["dice pooled", "upper"] < 0
    assert found.loc["volume error", "difference"] == pytest.approx(
        found.loc["volume error", "second"] - found.loc["volume error", "first"])
    with pytest.raises(ValueError, match="no case that both 'model' and 'nobody'"):
        rivals.rivals_table(frame, "model", "nobody")


# --- sample sizes


def test_sample_sizes_give_what_they_promise():
    size = planning.for_mean(0.15, 0.05)
    assert size.reached <= 0.05 < stats.t.ppf(0.975, size.n - 2) * 0.15 / np.sqrt(size.n - 1)
    chance = planning.for_interchangeability(0.5, 10.0, 4.0)
    rng = np.random.default_rng(19)
    d = rng.normal(0.5, 10, (4000, chance.n))
    upper = d.mean(axis=1) + stats.t.ppf(0.975, chance.n - 1) * d.std(axis=1, ddof=1) / np.sqrt(
        chance.n)
    assert (upper < 4).mean() == pytest.approx(0.8, abs=0.025)
    kappa = planning.for_kappa(0.7, 0.3, 0.1)
    found = []
    for _ in range(400):  # two readers of one share who agree as kappa says
        first = rng.random(kappa.n) < 0.3
        second = np.where(rng.random(kappa.n) < 0.7, first, rng.random(kappa.n) < 0.3)
        found.append(classes.weighted_kappa(first, second, weights="none").kappa)
    assert 1.96 * np.std(found) == pytest.approx(0.1, rel=0.12)
    icc = planning.for_icc(0.8, 0.1)
    widths = []
    for _ in range(60):
        table = rng.normal(0, np.sqrt(0.8), (icc.n, 1)) + rng.normal(0, np.sqrt(0.2), (icc.n, 2))
        frame = pd.DataFrame({"s": np.repeat(np.arange(icc.n), 2), "r": [*"ab"] * icc.n,
                              "v": table.ravel()})
        low, high = reliability.icc(frame, "s", "r", "v").icc_c1_ci
        widths.append(high - low)
    assert np.mean(widths) == pytest.approx(0.2, rel=0.12)
    for wrong in (lambda: planning.for_mean(0, 1), lambda: planning.for_icc(1.2, 0.1),
                  lambda: planning.for_interchangeability(5, 1, 4),
                  lambda: planning.for_mean(1, 1, alike=2)):
        with pytest.raises(ValueError, match=r"expected|margin"):
            wrong()


# --- what a stranger's input does


def test_a_case_1_of_two_sites_is_two_patients():
    from deeplung_nb import measurements

    wide = pd.DataFrame({"case_id": [*range(1, 11)] * 2, "cohort": ["A"] * 10 + ["B"] * 10,
                         "e": np.arange(20.0), "m": np.arange(20.0) + np.tile([1.0, 0], 10)})
    table = measurements.from_wide(wide, {"expert": "e", "model": "m"}, unit="mL")
    found = compare(measurements.pair(table, "expert", "model", "lesion"))
    assert (found.n_patients, found.independent) == (20, "pairs")


def test_patients_whose_differences_cancel_are_no_crash():
    who = np.repeat(np.arange(15), 2)
    a = np.repeat(np.arange(5.0, 20), 2)
    found = compare(pd.DataFrame({"reference": a, "test": a + np.tile([1.0, -1], 15),
                                  "patient_id": who}))
    assert found.rank.p_value == 1


def test_few_patients_with_several_pairs_have_a_reason_everywhere():
    rng = np.random.default_rng(20)
    a = rng.normal(10, 3, 9)
    b, who = a + rng.normal(0, 1, 9), [*"aaabbbccc"]
    for name, function in PAIRED.items():
        result = function(a, b, cluster=who)
        empty = [field for field, value in result.to_dict().items()
                 if isinstance(value, tuple) and field.endswith("ci") and np.isnan(value).any()]
        assert result.reason or not empty, (name, empty)
    assert "3 patients" in equivalence.total_deviation_index(a, b, cluster=who).reason


def test_a_named_column_is_found_as_it_is_spelt_and_an_empty_one_is_asked_about():
    a, b, who = lesions(21)
    pairs = pd.DataFrame({"reference": a, "test": b, "PatientID": who})
    assert compare(pairs, cluster="PatientID").n_patients == 18 == compare(pairs).n_patients
    with pytest.raises(ValueError, match=r"PatientID: empty in \d+ of \d+ pairs"):
        compare(pairs.assign(PatientID=None), cluster="PatientID")


def test_series_with_other_labels_are_refused_whoever_they_are():
    a, b, who = lesions(22)
    frame = pd.DataFrame({"a": a, "b": b, "who": who})
    shuffled = frame.sample(frac=1, random_state=3)
    with pytest.raises(ValueError, match="reference and cluster are Series with different labels"):
        agreement.bland_altman(frame.a, frame.b, cluster=shuffled.who)
    classed = pd.Series([0, 1, 2, 0, 1])
    with pytest.raises(ValueError, match="different labels"):
        classes.weighted_kappa(classed, classed.iloc[::-1], levels=[0, 1, 2])


def test_the_order_of_classes_that_are_texts_is_asked_for():
    order = ["none", "mild", "severe"]
    rng = np.random.default_rng(23)
    frame = pd.DataFrame({"s": [*range(30)] * 2, "r": ["a"] * 30 + ["b"] * 30,
                          "c": rng.choice(order, 60)})
    with pytest.raises(ValueError, match="say their order, levels="):
        classes.gwet_ac(frame, "s", "r", "c", weights="linear")
    by_name = classes.gwet_ac(frame, "s", "r", "c", weights="linear", levels=order)
    ordered = frame.assign(c=pd.Categorical(frame.c, order, ordered=True))
    assert classes.gwet_ac(ordered, "s", "r", "c", weights="linear").kappa == by_name.kappa


def test_dice_is_against_the_expert_alone():
    row = {"cohort": "c", "role": "cv", "structure": "lesion", "status": "ok", "tp": 5, "fp": 1,
           "fn": 1, "dice": 10 / 12}
    frame = pd.DataFrame([{**row, "case_id": k, "patient_id": k, "reader": reader,
                           "volume_ml": 10.0 + k + shift}
                          for k in range(6) for reader, shift in (
                              ("expert", 0), ("second", 5), ("m", 1), ("u", 4))])
    assert set(rivals.rivals_table(frame, "m", "u").measure) == {"dice", "dice pooled",
                                                                 "volume error"}
    other = rivals.rivals_table(frame, "m", "u", reference="second")
    assert other.measure.tolist() == ["volume error"]
    assert other.difference.tolist() == [-3.0]


@pytest.mark.nightly
def test_lesions_found_have_an_interval_that_holds_near_one():
    held = []
    for seed in range(200):
        rng = np.random.default_rng([24, seed])
        n = rng.integers(1, 4, 25)
        table = pd.DataFrame({
            "cohort": "c", "role": "cv", "reader": "model", "status": "ok", "structure": "lesion",
            "patient_id": np.arange(25), "n_lesions": n, "n_lesions_false": rng.poisson(0.5, 25),
            "n_lesions_expert": n, "n_lesions_found": rng.binomial(n, 0.95)})
        row = detection.lesion_table(table).iloc[0]
        held.append(row.sensitivity_lower <= 0.95 <= row.sensitivity_upper)
        assert 0 <= row.false_per_case_lower < row.false_per_case_upper
    assert np.mean(held) > 0.93 - 3 * np.sqrt(0.05 * 0.95 / 200)


def test_readers_of_several_lesions_a_patient_have_wider_limits():
    rng = np.random.default_rng(25)
    shared = np.repeat(rng.normal(0, 3, (10, 3)), 6, axis=0)
    table = rng.normal(100, 20, (60, 1)) + shared + rng.normal(0, 1, (60, 3))
    frame = pd.DataFrame({"s": np.repeat(np.arange(60), 3), "r": [*"abc"] * 60,
                          "v": table.ravel(), "p": np.repeat(np.arange(10), 18)})
    alone = readers.limits_with_mean(frame, "s", "r", "v")
    grouped = readers.limits_with_mean(frame, "s", "r", "v", patient="p")
    assert grouped.half_width == alone.half_width
    assert np.ptp(grouped.half_width_ci) > 1.2 * np.ptp(alone.half_width_ci)
