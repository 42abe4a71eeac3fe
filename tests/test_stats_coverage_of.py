"""Coverage on a user's own data: worlds that are what they say, and intervals judged by them."""

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, optimize, stats

from deeplung_nb.stats import coverage
from deeplung_nb.stats.coverage import coverage_in, coverage_of
from deeplung_nb.stats.worlds import EXAMPLES, World


def test_a_world_is_recovered_from_its_own_pairs():
    world = World(zero=0.3, mu=5.0, sigma=0.8, bias=-0.1, error=0.15, error_ml=3.0, bias_ml=1.0,
                  reference_only=0.06, test_only=0.03)
    a, b, who = world.draw(np.random.default_rng(2), 20_000)
    assert who is None
    found = World.of(a, b)
    for name, within in (("zero", 0.02), ("mu", 0.05), ("sigma", 0.05), ("bias", 0.02),
                         ("error", 0.01), ("error_ml", 1.0), ("bias_ml", 0.6),
                         ("reference_only", 0.02), ("test_only", 0.01)):
        assert getattr(found, name) == pytest.approx(getattr(world, name), abs=within), name
    assert found.alike == 0
    assert found.sizes == (1,)


def test_patients_whose_errors_are_alike_are_recovered_too():
    world = World(alike=0.6, error=0.2, sizes=(1, 3, 5))
    a, b, who = world.draw(np.random.default_rng(3), 3000)
    found = World.of(a, b, who)
    assert found.alike == pytest.approx(0.6, abs=0.06)
    assert set(found.sizes) == {1, 3, 5}
    assert World.of(a, b).alike == 0


def test_resampled_studies_have_the_pairs_patients_and_zeros():
    rng = np.random.default_rng(4)
    who = np.repeat(np.arange(12), rng.integers(1, 4, 12))
    a, b, _ = World(zero=0.3).draw(rng, len(who))
    draw = coverage._resampled(a, b, who)
    x, _, again = draw(np.random.default_rng(5), 4000)
    assert (x == 0).mean() == pytest.approx(
        np.mean([(a[who == k] == 0).sum() for k in range(12)])
        / np.mean([(who == k).sum() for k in range(12)]), abs=0.03)
    assert x.mean() == pytest.approx(a[np.isin(who, who)].mean(), rel=0.25)
    assert len(np.unique(again)) == 4000
    assert set(np.bincount(again)) <= set(np.bincount(who))
    single = coverage._resampled(a, b, np.arange(len(a)))
    assert single(np.random.default_rng(6), 5)[2] is None


def test_where_assumptions_hold_intervals_hold_what_they_say():
    """Normal differences that don't grow: Student's t and MOVER are right, and chosen ways say so.
    """
    rng = np.random.default_rng(7)
    a = rng.normal(300, 30, 60)
    found = coverage_of(a, a + rng.normal(5, 10, 60), n_studies=150, seed=1)
    parametric = found[found.world == "parametric"].set_index(["what", "how"])
    for key in (("bias", "Student’s t"), ("upper limit", "MOVER"), ("lower limit", "exact")):
        assert parametric.loc[key, "holds"] == pytest.approx(
            0.95, abs=4 * parametric.loc[key, "error"]), key
    # 97.5 % of normal differences lie below the upper limit: two names of one value.
    assert parametric.loc[("upper limit", "MOVER"), "truth"] == pytest.approx(
        parametric.loc[("97.5 % quantile", "order statistics"), "truth"], abs=0.6)
    chosen = found[found.chosen]
    assert chosen.groupby("what").how.nunique().eq(1).all()
    # Sixty pairs are too few for order statistics of 2.5 %: there is no way to choose.
    assert set(found.what) - set(chosen.what) == {"2.5 % quantile", "97.5 % quantile"}


def test_where_they_do_not_hold_the_table_shows_it():
    """35 % zeros and an error that grows: limits ± 1.96 SD hold far less often than they say."""
    a, b, _ = World(zero=0.35).draw(np.random.default_rng(8), 67)
    found = coverage_of(a, b, n_studies=120, seed=2)
    worst = found[(found.what == "upper limit") & (found.how == "MOVER")].holds.min()
    ratio = found[(found.what == "upper limit of the ratio") & (found.world == "parametric")]
    assert worst < 0.85
    assert ratio.holds.min() > worst


def test_patients_that_are_taken_for_independent_cost_coverage():
    world = World(alike=0.8, error=0.2, sizes=(1, 6), sigma=0.4)
    a, b, who = world.draw(np.random.default_rng(9), 40)
    right = coverage_of(a, b, who, n_studies=100, seed=3)
    bias = right[(right.what == "bias") & (right.world == "parametric")].iloc[0]
    assert bias.holds > 0.88
    # The same studies, their patients forgotten.
    rng = np.random.default_rng(10)
    fitted = World.of(a, b, who)
    truth = np.mean([np.mean(np.subtract(*fitted.draw(rng, 2000)[1::-1])) for _ in range(20)])
    held = []
    for _ in range(100):
        x, y, _ = fitted.draw(rng, 40)
        d = y - x
        half = stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d))
        held.append(abs(d.mean() - truth) <= half)
    assert np.mean(held) < bias.holds - 0.05


def test_the_same_seed_gives_the_same_table_and_progress_is_told():
    a, b, _ = World().draw(np.random.default_rng(11), 20)
    told = []
    first = coverage_of(a, b, n_studies=6, seed=4, tell=lambda *done: told.append(done))
    assert first.equals(coverage_of(a, b, n_studies=6, seed=4))
    assert told == [(k, 12) for k in range(1, 13)]
    assert not first.equals(coverage_of(a, b, n_studies=6, seed=5))


@pytest.mark.parametrize(("a", "b", "words"), [
    ([1.0] * 5, [1.0] * 5, "5 pairs, 5 of them above 0"),
    ([0.0] * 20, [1.0] * 20, "20 pairs, 0 of"),
    ([-1.0, *[2.0] * 19], [1.0] * 20, "expected 10 or more volumes")])
def test_what_no_world_can_be_made_of_is_refused(a, b, words):
    with pytest.raises(ValueError, match=words):
        coverage_of(a, b)


def test_a_way_that_hardly_ever_has_an_interval_is_not_chosen():
    row = {"what": "bias", "n_studies": 200, "truth": 0.0}
    frame = pd.DataFrame([
        {**row, "world": world, "how": how, "holds": holds, "error": error, "width": width,
         "n_none": none}
        for world in ("parametric", "resampled") for how, holds, error, width, none in (
            ("rare", 0.0, 0.5, 1.0, 199), ("good", 0.95, 0.015, 4.0, 0),
            ("narrow", 0.7, 0.03, 2.0, 0))])
    found = coverage._choose(frame, 0.95)
    assert set(found[found.chosen].how) == {"good"}
    nobody = coverage._choose(frame.assign(n_none=200, holds=np.nan, width=np.nan), 0.95)
    assert not nobody.chosen.any()
    worst = coverage._choose(frame[frame.how != "good"], 0.95)
    assert set(worst[worst.chosen].how) == {"narrow"}


# --- worlds that are stated ---


def beyond(limit):
    """Share of the skewed world's differences above a limit: 0.2 x volume x normal, 65 % seen."""
    return 0.65 * integrate.quad(lambda z: stats.norm.pdf(z) * stats.lognorm.sf(
        limit / (0.2 * z), 1.3, scale=np.exp(2.0)), 1e-9, 9)[0]


OF_SKEWED = optimize.brentq(lambda limit: beyond(limit) - 0.025, 1, 50)
TRUE = {  # by formula, of each world: what, value, to within
    "normal": [("bias", 5.0, 0.2), ("upper limit", 5 + 19.6, 0.4),
               ("97.5 % quantile", 5 + 19.6, 0.6)],
    "skewed": [("bias", 0.0, 0.15), ("97.5 % quantile", OF_SKEWED, 0.4)],
    "clustered": [("bias", 5.0, 0.3), ("upper limit", 5 + 19.6, 0.4)],  # SD of 8 and 6 is 10
    "repeats": [("bias", 5.0, 0.2), ("upper limit", 5 + 1.96 * np.hypot(6, 6), 0.4)],
    "gross": [("Hodges–Lehmann shift", 0.0, 0.2), ("ratio", 1.0, 0.05)],
    "exchangeable": [("bias", 0.0, 0.3), ("ratio", 1.0, 0.01),
                     ("upper limit of the ratio", np.exp(1.96 * 0.15 * np.sqrt(2)), 0.06)],
}


@pytest.mark.parametrize("name", list(EXAMPLES))
def test_what_is_true_in_an_example_is_what_its_formula_says(name):
    found = coverage_in(name, 20, n_studies=2).drop_duplicates("what").set_index("what")
    assert set(found.world) == {name}
    for what, value, within in TRUE[name]:
        assert found.truth[what] == pytest.approx(value, abs=within), what


def test_a_stated_world_and_the_example_of_it_say_the_same():
    stated = coverage_in(World(zero=0.35, mu=2.0, sigma=1.3, error=0.2), 40, n_studies=5, seed=3)
    named = coverage_in("skewed", 40, n_studies=5, seed=3)
    pd.testing.assert_frame_equal(stated.drop(columns="world"), named.drop(columns="world"))
    assert not stated.equals(coverage_in("skewed", 40, n_studies=5, seed=4).assign(world="stated"))


def test_gross_errors_leave_the_shift_a_way_and_take_it_from_the_limit():
    found = coverage_in("gross", 67, n_studies=100, seed=1).set_index(["what", "how"])
    assert found.holds["upper limit", "MOVER"] < 0.5
    assert found.holds["Hodges–Lehmann shift", "signed ranks"] > 0.9
    chosen = found[found.chosen].reset_index()
    assert chosen.groupby("what").how.nunique().eq(1).all()
    assert set(found.reset_index().what) - set(chosen.what) == {"2.5 % quantile",
                                                                "97.5 % quantile"}


def test_a_study_with_a_reading_below_zero_has_no_ratio_and_all_else(monkeypatch):
    """Normal volumes of 300 ± 80 mL fall below 0 in some studies, which must not end the others."""
    monkeypatch.setitem(EXAMPLES, "normal", lambda rng, n: (
        np.r_[-5.0, rng.normal(300, 20, n - 1)], rng.normal(300, 20, n), None))
    found = coverage_in("normal", 20, n_studies=4)
    assert not found.what.str.contains("ratio").any()
    assert found.set_index(["what", "how"]).n_none["bias", "Student’s t"] == 0


def test_progress_counts_the_studies_of_the_one_world():
    told = []
    coverage_in("normal", 12, n_studies=3, tell=lambda done, of: told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_world_that_nobody_knows_and_too_few_patients_are_refused():
    with pytest.raises(ValueError, match="'lognormal', expected a World or one of normal, skewed"):
        coverage_in("lognormal", 30)
    with pytest.raises(ValueError, match="5 patients, expected 10 or more"):
        coverage_in("normal", 5)
