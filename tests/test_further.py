"""What one asks after the first look: the statistics' own numbers, in words, and under a button."""

import dataclasses
import html

import numpy as np
import pandas as pd
import pytest
from report.fakes import HOSTILE, fake_measurements

from deeplung_nb import measurements
from deeplung_nb.report.further import further_statistics, reader_statistics
from deeplung_nb.report.numbers import number, p_cell
from deeplung_nb.stats import classes, coverage, equivalence, multiverse, paired, regression
from deeplung_nb.widgets import further as widget
from deeplung_nb.widgets.explorer import AgreementExplorer


@pytest.fixture(scope="module")
def measured():
    return fake_measurements()


@pytest.fixture(scope="module")
def pairs(measured):
    return measurements.pair(measured, "expert", "model", "lesion", role="cv")


def test_further_statistics_are_those_of_the_library(pairs):
    found = further_statistics(pairs, 40.0).set_index("statistic")
    line = regression.passing_bablok(pairs.reference, pairs.test)
    assert found.loc["Passing–Bablok slope", "estimate"] == number(line.slope)
    same = equivalence.wilcoxon_tost(pairs.reference, pairs.test, 40.0)
    row = found.loc["equivalence of ranks within ± 40"]
    assert row.estimate == f"{number(same.hodges_lehmann)} mL"
    assert row.p == p_cell(same.p_value)
    d = pairs.test - pairs.reference
    try:
        wanted = str(equivalence.sample_size(d.mean(), d.std(ddof=1), 40.0).n)
    except ValueError:
        wanted = "–"
    assert found.loc["pairs for limits within ± 40", "estimate"] == wanted
    plain = further_statistics(pairs)
    assert not plain.statistic.str.contains("equivalence|pairs for").any()
    assert not found.estimate.str.contains("nan").any()


def test_what_can_not_be_computed_says_why(pairs):
    few = further_statistics(pairs.iloc[:2], 10.0)
    assert len(few) == 7
    assert (few["what it says"] != "").all()
    assert not few.astype(str).apply(lambda column: column.str.contains("nan")).any().any()


def test_persons_are_compared_by_kappa_holm_and_their_repeats(measured):
    rng = np.random.default_rng(1)
    second = measured[measured.reader == "expert"].copy()
    second["reader"] = "reader-ann"
    second["volume_ml"] = second.volume_ml * rng.normal(1.05, 0.05, len(second))
    second.loc[second.case_id == "X004", "volume_ml"] = 0.0
    table = pd.concat([measured, second], ignore_index=True)
    found = reader_statistics(table, "high_opacity").set_index("statistic")
    part = table[(table.structure == "high_opacity") & table.reader.isin(["expert", "reader-ann"])]
    kappa = classes.fleiss_kappa(part.assign(sees=part.volume_ml > 0), "case_id", "reader", "sees")
    assert found.loc["Fleiss’ κ of above 0", "estimate"] == number(kappa.kappa)
    p = []
    for name in ("model", "reader-ann"):
        wide = table[table.structure == "high_opacity"].pivot(
            index="case_id", columns="reader", values="volume_ml")
        p.append(paired.wilcoxon_signed_rank(wide.expert, wide[name]).p_value)
    adjusted = paired.holm(p)
    for name, value in zip(("model", "reader-ann"), adjusted, strict=True):
        assert found.loc[f"signed ranks, {name} against expert", "p"] == p_cell(value)
    assert not found.index.str.startswith("repeatability").any()
    twice = table.assign(patient_id=table.case_id.map(lambda name: f"P{int(name[1:]) // 2}"))
    found = reader_statistics(twice, "lesion").set_index("statistic")
    assert {"repeatability, expert", "repeatability, reader-ann"} <= set(found.index)
    assert reader_statistics(measured[measured.reader == "model"], "lesion").empty


# ---- under the explorer ----


@pytest.fixture
def explorer(measured):
    return AgreementExplorer(measured)


def test_buttons_answer_for_the_pairs_on_show_and_a_new_question_clears_them(explorer):
    below = explorer.further
    below._ask(below.every_choice)
    bias = multiverse.bias_choices(explorer.found.pairs)
    assert html.escape(bias.sentence) in below._place.value
    assert "The mean Dice goes from" in below._place.value
    assert below._picture.children[0].value[:4] == b"\x89PNG"
    below.margin.value = "40"
    below._ask(below.every_choice)
    assert "margin" in below._place.value
    below._ask(below.more)
    assert "Passing–Bablok" in below._place.value
    assert "equivalence of means within" in below._place.value
    assert below._picture.children == ()
    explorer.question = dataclasses.replace(explorer.question, structure="ggo")
    assert below._place.value == ""


@pytest.mark.parametrize("text", ["ten", "-3", "0", "nan", HOSTILE])
def test_a_margin_that_is_none_is_told(explorer, text):
    explorer.further.margin.value = text
    explorer.further._ask(explorer.further.more)
    assert "expected a number above 0" in explorer.further._place.value
    assert HOSTILE not in explorer.further._place.value


def test_coverage_shows_its_progress_and_marks_what_to_take(explorer, monkeypatch):
    monkeypatch.setattr(widget, "MOST_STUDIES", 5)
    told = []
    explorer.further._bar.observe(lambda change: told.append(change["new"]), "value")
    explorer.further._ask(explorer.further.coverage)
    assert told[-1] == 10
    assert explorer.further._bar.layout.display == "none"
    pairs = explorer.found.pairs
    found = coverage.coverage_of(pairs.reference, pairs.test, n_studies=5)
    arrows = explorer.further._place.value.count("<td>←")
    assert arrows == found[found.chosen].what.nunique()
    assert "parametric world" in explorer.further._place.value
    few = AgreementExplorer(explorer.table[explorer.table.case_id < "X005"])
    few.further._ask(few.further.coverage)
    assert "too few to make a world of" in few.further._place.value


def test_a_bare_table_without_masks_has_every_choice_but_dice():
    wide = pd.DataFrame({"a": [1.0, 2, 3, 4, 5, 6, 7], "b": [1.1, 2.2, 3, 4.4, 5.1, 6.3, 7.2]})
    table = measurements.from_wide(wide, {"expert": "a", "model": "b"}, unit="mL", case_id=None)
    one = AgreementExplorer(table)
    one.further._ask(one.further.every_choice)
    assert "The bias, with its interval, is" in one.further._place.value
    assert "Dice" not in one.further._place.value


def test_persons_are_those_of_the_cases_on_show(measured):
    rng = np.random.default_rng(2)
    second = measured[measured.reader == "expert"].assign(reader="reader-ann")
    second["volume_ml"] = second.volume_ml * rng.normal(1.05, 0.05, len(second))
    third = second.assign(reader="reader-bob", volume_ml=second.volume_ml * 1.1)
    others = pd.concat([second, third]).assign(n_voxels=pd.NA, voxel_mm3=np.nan)
    table = measurements.check(pd.concat([measured, others], ignore_index=True))
    explorer = AgreementExplorer(table)
    explorer.question = dataclasses.replace(explorer.question, where=(("role", "external"),))
    explorer.further._ask(explorer.further.more)
    outside = table[table.role == "external"]
    wanted = reader_statistics(outside, explorer.question.structure)
    for words in wanted["what it says"]:
        assert html.escape(words, quote=False) in explorer.further._place.value
    assert reader_statistics(table.assign(mean_hu=-500.0), "lesion", "mean_hu").statistic.str \
        .contains("κ").sum() == 0
