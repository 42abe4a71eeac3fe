"""Every oracle case (R, published tables) that has a counterpart in the interface."""

import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deeplung_nb.stats import (
    agreement,
    correlation,
    equivalence,
    limits,
    paired,
    regression,
    reliability,
)

FOLDER = Path(__file__).parent / "oracle"


@pytest.fixture(scope="module")
def oracle():
    """`oracle(name)`: the pair (reference, test) or the table of a case, and R's values."""
    cases = tomllib.loads((FOLDER / "values.toml").read_text(encoding="utf-8"))

    def case(name):
        entry = cases[name]
        table = pd.read_csv(FOLDER / entry["table"], comment="#") if "table" in entry else None
        pair = (table[entry["x"]], table[entry["y"]]) if "x" in entry else table
        return pair, entry["values"]

    return case


def close(found, wanted, rtol=1e-8):
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("name", ["pefr_ba", "sbp_ba_J1_S1", "giavarina_ba"])
def test_bland_altman(oracle, name):
    (x, y), wanted = oracle(name)
    r = agreement.bland_altman(x, y)
    close([r.n, r.bias, r.sd, *r.bias_ci], [wanted["n"], wanted["bias"], wanted["sd"],
                                            *wanted["bias_ci"]])
    close([r.loa_lower, r.loa_upper], wanted["loa"])
    close(r.percent_outside, wanted["pct_outside"])
    close(r.shapiro_p, wanted["shapiro_p"], rtol=1e-5)
    two_sd = agreement.bland_altman(x, y, multiplier=2)
    close([two_sd.loa_lower, two_sd.loa_upper], wanted["loa_2sd"])
    for ci, key, rtol in (("approximate", "loa_ci_ba1999", 1e-8), ("mover", "loa_ci_mover", 1e-8),
                          ("exact", "loa_ci_exact_individual", 1e-7),
                          ("pair", "loa_ci_carkeet_pair", 1e-6)):
        r = agreement.bland_altman(x, y, ci=ci)
        close(r.loa_lower_ci, wanted[key]["lower"], rtol)
        close(r.loa_upper_ci, wanted[key]["upper"], rtol)


def test_quantile_limits(oracle):
    (x, y), wanted = oracle("sbp_np_J1_S1")
    r = agreement.bland_altman(x, y, limits="quantile")
    close([r.loa_lower, r.loa_upper], wanted["q_type8"])
    assert "146" in r.reason
    r = agreement.bland_altman(x, y, limits="harrell-davis")
    low, _, high = wanted["harrell_davis"]
    close([r.loa_lower, r.loa_upper], [low, high])


def test_trend_regression_limits_ratio_and_percent(oracle):
    (x, y), wanted = oracle("giavarina_hetero_log")
    hetero, log = wanted["hetero"], wanted["logpct"]
    r = agreement.bland_altman(x, y, limits="regression")
    close([r.slope, *r.slope_ci, r.slope_p],
          [hetero["slope"], *hetero["slope_ci"], hetero["slope_p"]])
    close(r.heteroscedasticity_p, hetero["breusch_pagan_p"])
    close([*r.bias_line, *r.sd_line],
          [hetero["intercept"], hetero["slope"],
           *(np.sqrt(np.pi / 2) * hetero[f"absres_{part}"] for part in ("intercept", "slope"))])
    at = np.array(hetero["at_mean"])
    centre = r.bias_line[0] + r.bias_line[1] * at
    spread = 1.959963984540054 * (r.sd_line[0] + r.sd_line[1] * at)
    close(centre - spread, hetero["loa_regression_lower"], 1e-4)
    close(centre + spread, hetero["loa_regression_upper"], 1e-4)
    ratio = agreement.bland_altman(x, y, scale="ratio", ci="approximate")
    close([ratio.bias, *ratio.bias_ci], [log["gm_ratio"], *log["gm_ratio_ci"]])
    close([ratio.loa_lower, ratio.loa_upper], log["ratio_loa"])
    close([*ratio.loa_lower_ci, *ratio.loa_upper_ci],
          log["ratio_loa_ci_lower"] + log["ratio_loa_ci_upper"])
    assert (ratio.n, ratio.n_excluded) == (log["n_positive_pairs"], log["n_excluded"])
    percent = agreement.bland_altman(x, y, scale="percent")
    close([percent.bias, percent.sd], [log["pct_bias"], log["pct_sd"]])
    close([percent.loa_lower, percent.loa_upper], log["pct_loa"])


def test_pair_factors_of_carkeet(oracle):
    _, wanted = oracle("carkeet_factors")
    for df, row in zip(wanted["df"], wanted["R_K_factor_exact_P_1p96"], strict=True):
        for q, expected in zip(wanted["columns"], row, strict=True):
            found = limits.carkeet_factor(df + 1, float(q), 1.96)
            # R integrates to about four digits here; the published table has four decimals.
            close(found, expected, 1e-4)


@pytest.mark.parametrize("name", ["wsr_small_zeros_ties", "wsr_noties_exact",
                                  "wsr_symmetric_many_zeros"])
def test_signed_rank(oracle, name):
    (x, y), wanted = oracle(name)
    exact = paired.wilcoxon_signed_rank(x, y, method="exact")
    assert (exact.n, exact.n_zero, exact.n_positive, exact.n_negative) == (
        wanted["n"], wanted["n_zero"], wanted["n_pos"], wanted["n_neg"])
    close([exact.w_plus, exact.w_minus], [wanted["V"], wanted["W_minus"]])
    close(exact.p_value, wanted["p_exact_zeros_dropped"])
    close(exact.rank_biserial, wanted["rank_biserial_zeros_dropped"])
    close(paired.wilcoxon_signed_rank(x, y, zeros="pratt", method="exact").p_value,
          wanted["coin_pratt_exact_p"])
    for correction, key in ((True, "p_normal_corr"), (False, "p_normal_nocorr")):
        close(paired.wilcoxon_signed_rank(x, y, method="asymptotic",
                                          correction=correction).p_value, wanted[key])
    dropped = paired.wilcoxon_signed_rank(x, y, method="asymptotic", correction=False)
    close([dropped.z, dropped.p_value], [wanted["coin_wilcoxon_z"], wanted["coin_wilcoxon_p"]])
    close(exact.p_value, wanted["coin_wilcoxon_exact_p"])
    pratt = paired.wilcoxon_signed_rank(x, y, zeros="pratt", method="asymptotic",
                                        correction=False)
    close([pratt.z, pratt.p_value], [wanted["coin_pratt_z"], wanted["coin_pratt_p"]])
    close(paired.sign_test(x, y).p_value, wanted["sign_test_p"])


@pytest.mark.parametrize("name", ["hl_small_zeros_ties", "hl_noties"])
def test_hodges_lehmann(oracle, name):
    (x, y), wanted = oracle(name)
    dropped = paired.wilcoxon_signed_rank(x, y)
    kept = paired.wilcoxon_signed_rank(x, y, zeros="pratt")
    close(dropped.hodges_lehmann, wanted["pseudomedian_walsh_nonzero"])
    close(dropped.hodges_lehmann_ci, wanted["ci_walsh_signrank_nonzero"])
    close(kept.hodges_lehmann, wanted["pseudomedian_walsh_all"])
    close(kept.hodges_lehmann_ci, wanted["ci_walsh_signrank_all"])


@pytest.mark.parametrize("name", ["spearman_ties", "spearman_exact_n9"])
def test_correlation(oracle, name):
    (x, y), wanted = oracle(name)
    r = correlation.spearman(x, y, ci="bonett-wright")
    close([r.r, *r.ci], [wanted["spearman"], *wanted["ci_bonett_wright"]])
    close(r.p_value, wanted.get("p_exact", wanted["p_asymptotic_t"]))
    close(correlation.spearman(x, y, ci="fisher").ci, wanted["ci_fisher_plain"])
    p = correlation.pearson(x, y, ci="fisher")
    close([p.r, p.p_value, *p.ci], [wanted["pearson"], wanted["pearson_p"], *wanted["pearson_ci"]])


@pytest.mark.parametrize("name", ["ccc_pefr", "ccc_sbp"])
def test_concordance(oracle, name):
    (x, y), wanted = oracle(name)
    r = agreement.concordance(x, y, ci="lin")
    close([r.ccc, *r.ccc_ci], [wanted["ccc"], *wanted["ci_ztransform"]])
    close([r.bias_correction, abs(r.location_shift)],
          [wanted["C_b"], abs(wanted["location_shift"])])
    close(min(r.scale_shift, 1 / r.scale_shift),
          min(wanted["scale_shift"], 1 / wanted["scale_shift"]))


def test_holm(oracle):
    _, wanted = oracle("holm")
    close(paired.holm(wanted["p"]), wanted["holm"])


@pytest.mark.parametrize("name", ["icc_shrout_fleiss", "ccc_sbp"])
def test_intraclass_correlation(oracle, name):
    found, wanted = oracle(name)
    table = (found.set_index("target") if isinstance(found, pd.DataFrame)
             else pd.concat(found, axis=1))
    wanted = wanted.get("icc", wanted)["psych"]
    long = table.reset_index(names="subject").melt("subject", var_name="reader")
    r = reliability.icc(long, "subject", "reader", "value")
    for form, key in (("1", "ICC1"), ("_a1", "ICC2"), ("_c1", "ICC3"), ("1k", "ICC1k"),
                      ("_ak", "ICC2k"), ("_ck", "ICC3k")):
        way = "one_way" if "1" in key else "two_way"
        close([getattr(r, f"icc{form}"), *getattr(r, f"icc{form}_ci"), getattr(r, f"f_{way}"),
               getattr(r, f"p_{way}")], wanted[key], 1e-7)


def test_equivalence_and_total_deviation(oracle):
    (x, y), wanted = oracle("tost_pefr")
    r, told = equivalence.tost(x, y, 25), wanted["tost"]
    close([r.t_lower, r.p_lower, r.t_upper, r.p_upper, r.p_value, *r.bias_ci],
          [told[key] for key in ("t_lower", "p_lower", "t_upper", "p_upper", "p_tost")]
          + told["ci90"])
    ranked = equivalence.wilcoxon_tost(x, y, 25, method="asymptotic")  # R's choice with ties
    close([ranked.p_lower, ranked.p_upper, ranked.p_value],
          [told[f"wilcoxon_p_{side}"] for side in ("lower", "upper", "tost")])
    r, told = equivalence.total_deviation_index(x, y, margin=50), wanted["tdi"]
    close([r.tdi_approximate, r.tdi_empirical, r.coverage, r.coverage_empirical],
          [told[key] for key in ("tdi95_approx", "tdi95_empirical_type7", "cp_normal",
                                 "cp_empirical")])
    close(r.tdi, told["tdi95_exact_normal"], 1e-6)


def test_sample_size(oracle):
    _, wanted = oracle("sample_size_loa")
    r = equivalence.sample_size(wanted["mu"], wanted["sd"], wanted["delta"])
    assert r.n == wanted["n_noncentral_t"]
    close(r.power, wanted["power_at_79"])


def test_limits_of_replicated_readings(oracle):
    table, wanted = oracle("sbp_replicates_1999")
    long = pd.concat([table[["id", f"S{i}", f"J{i}"]].set_axis(["id", "S", "J"], axis=1)
                      for i in (1, 2, 3)])
    r = reliability.clustered_limits(long, "id", "S", "J", method="replicates")
    close([r.bias, r.sd, r.loa_lower, r.loa_upper],
          [wanted["bias"], wanted["corrected_sd"], *wanted["loa"]])


@pytest.mark.parametrize("name", ["regression_creatinine", "regression_ferritin"])
def test_regression_of_two_methods(oracle, name):
    (x, y), wanted = oracle(name)
    r = regression.deming(x, y)
    close([r.slope, r.intercept], [wanted["deming_slope"], wanted["deming_intercept"]])
    close([*r.slope_ci, *r.intercept_ci],
          wanted["deming_slope_ci_jackknife"] + wanted["deming_intercept_ci_jackknife"], 1e-6)
    r = regression.passing_bablok(x, y)
    close([r.intercept, r.slope], wanted["pb_deming_pkg_coef"])
    # R's packages differ from each other here (ties).
    close([r.slope, *r.slope_ci], [wanted["pb_slope"], *wanted["pb_slope_ci"]], 5e-4)
    np.testing.assert_allclose([r.intercept, *r.intercept_ci],
                               [wanted["pb_intercept"], *wanted["pb_intercept_ci"]], 2e-3, 1e-9)
