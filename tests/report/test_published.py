"""What the paper prints beside what a run found."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from deeplung_nb.measurements import pair
from deeplung_nb.report import (
    figures,
    published,
    tables,
)
from deeplung_nb.report.discrepancies import check_published
from deeplung_nb.runs.config import load_profile
from deeplung_nb.runs.registry import manifest_folder
from tests.report.fakes import CLASSES, Page


@pytest.mark.parametrize(("name", "words_"), [
    ("s2.4.image_size", "a setting: equal or chosen otherwise"),
    ("table4.ours.cpu_time", "no: own hardware; only ratios compare"),
    ("s3.1.dice.cv.mean", "no: which Dice is averaged is not printed"),
    ("s3.1.dice.cv.spread", "no: what it spreads over is not printed"),
    ("s3.1.p.cv.ggo", "no: a p value is not a target"),
    ("table4.unet2d.dice.ggo",
     "same statistic, other patients; width and schedule as in Table 4 of this run"),
    ("table4.ours.dice.ggo", "same statistic, other patients; empty references: not printed"),
    ("s3.1.bias.cv.ggo", "same statistic, other patients; sign not printed"),
])
def test_whether_a_published_number_can_be_compared_is_said_in_these_words(name, words_):
    told = published.compare(None, {name: 1.0}).set_index("id").comparability
    assert told[name] == words_
    assert told.drop(name).str.startswith("no counterpart").all()
    own = published.compare(None, {name: 1.0}, same_patients=True).set_index("id").comparability
    assert own[name] == words_.replace("same statistic, other patients", "yes")
    made = published.compare(None, {name: 1.0}, simulated=True).set_index("id").comparability
    assert made[name] == (words_ if words_.startswith(("a setting", "no")) else
                          "no: simulated from the printed numbers")


def test_published_numbers_meet_their_counterparts(measured, timings):
    found = published.measure(measured, load_profile("paper"), timings)
    frame = published.compare(None, found).set_index("id")
    p = pair(measured, "expert", "model", "ggo", role="cv")
    row = frame.loc["s3.1.bias.cv.ggo"]
    assert row["value"] == 11.5
    assert row["measured"] == pytest.approx((p["test"] - p["reference"]).mean())
    assert row["difference"] == row["measured"] - 11.5
    assert frame.loc["table2.n_slices.cv", "measured"] == 800
    assert frame.loc["table4.ours.gpu_time", "measured"] == pytest.approx(30)
    assert frame.loc[["table3.i7.120", "table3.i7.500", "s3.4.time.i7"], "measured"].tolist() == [
        22, 92, 22]
    assert frame.loc["s3.4.ram", "measured"] == 1.1
    assert np.isnan(frame.loc["table3.titan_rtx.120", "measured"])
    assert frame.loc["fig5.dice", "measured"] == figures.choose_case(
        measured.query("role == 'cv'"), "median_both").dice["lesion"]
    assert frame.loc["fig4.dice", "comparability"].startswith("no: one chosen case")
    parts = frame.loc[["s2.1.n_patients.cv", "s2.1.n_patients.external"], "measured"]
    assert frame.loc["s2.1.n_patients.all", "measured"] == parts.sum()
    assert frame.loc[["s2.7.n_test.min", "s2.7.n_test.max"], "measured"].tolist() == [4, 4]
    # Of those that have none, each beginning that says why catches something, and no two the same.
    without = frame.index[frame["comparability"].str.startswith("no counterpart:")]
    for beginnings in published.MISSING.values():
        for beginning in beginnings:
            assert frame.index.str.startswith(beginning).any(), beginning
    said = [why for name in without for why, some in published.MISSING.items()
            if name.startswith(some)]
    assert len(said) == len(without)
    assert frame.loc["s2.8.spss", "comparability"].endswith("hardware and software")
    assert frame.loc["s1.cases_worldwide", "comparability"] == "no counterpart: not of the study"
    assert frame.loc["table3.k1200.500", "comparability"] == "no counterpart: no GPU was timed"
    assert frame.loc["table1.scanner.unknown.n", "comparability"] == (
        "no counterpart: the paper's own scanners and centres")
    assert len(frame) == len(pd.read_csv(published.manifest_folder() / "published.csv"))
    page = tables.format_comparison(frame.reset_index()).as_raw_html()
    assert "11.5mL" in page


def test_cases_with_a_binary_reference_are_left_out_of_the_classes(measured):
    binary = (measured["reader"] == "expert") & (measured["case_id"] < "X005")
    part = measured[~(binary & measured["structure"].isin(CLASSES))]
    found = published.measure(part)
    p = pair(measured, "expert", "model", "ggo", role="cv").query("case_id >= 'X005'")
    assert found["s3.1.bias.cv.ggo"] == pytest.approx((p["test"] - p["reference"]).mean())
    assert "s3.1.bias.cv.ggo" not in published.measure(part[part["case_id"] < "X005"])


def test_a_table_with_the_union_alone_has_no_chosen_case_and_stops_nobody(measured):
    for kept in (["lesion"], ["ggo"]):
        found = published.measure(measured[measured["structure"].isin(kept)])
        assert "fig5.dice" not in found


def test_settings_that_a_run_has_not_have_no_counterpart_and_small_pictures_are_said(measured,
                                                                                     timings):
    quick = load_profile("quick")  # AdamW along a cosine
    found = published.measure(measured, quick, timings)
    frame = published.compare(None, found, image_size=64).set_index("id")
    for name in ("momentum", "plateau_factor", "plateau_patience", "stop_learning_rate"):
        assert frame.loc[f"s2.6.{name}", "comparability"] == (
            "no counterpart: the run's training has no such setting")
    assert frame.loc["s2.6.learning_rate", "measured"] == quick.training.learning_rate
    assert frame.loc["table3.i7.120", "comparability"].startswith("no: pictures of 64 pixels, own")
    assert frame.loc["journal.correlation.cv.ggo", "comparability"].startswith("no: which")


def test_paper_profile_has_the_settings_the_paper_prints():
    found = {name: float(read(load_profile("paper"))) for name, read in published.SETTINGS.items()}
    frame = published.compare(None, found).dropna(subset=["measured"])
    assert len(frame) == len(published.SETTINGS)
    assert frame["difference"].abs().max() == 0


def test_number_that_is_not_published_is_refused():
    with pytest.raises(ValueError, match=r"s9\.9"):
        published.compare(None, {"s9.9.invented": 1.0})


def test_the_papers_misfits_are_computed_from_its_numbers(tmp_path):
    checks = check_published()
    assert checks["fits"].dtype == bool
    off = checks[~checks["fits"]]
    assert {1, 3, 4, 5, 6, 7, 15, 17, 21} <= set(off["topic"].dropna().astype(int))
    table = pd.read_csv(manifest_folder() / "published.csv")
    table.loc[table["id"] == "table3.i7.120", "value"] = 27.75
    table.loc[table["id"] == "s3.2.p.external.ggo", "value"] = 0.0001
    # 16 slices in 240 ms are 120 in 1.8 s; half of the memory fits; slices of 1.6 mm make a chest
    table.loc[table["id"] == "table4.ours.gpu_time", "value"] = 240.0
    table.loc[table["id"] == "table4.ours.memory", "value"] = 2.42
    table.loc[table["id"] == "s2.2.thickness.non_contrast.max", "value"] = 1.6
    table.to_csv(tmp_path / "mended.csv", index=False)
    mended = check_published(tmp_path / "mended.csv")
    assert len(off) - (~mended["fits"]).sum() == 5
    page = Page(tables.format_checks(checks).as_raw_html()).words
    assert f"{len(off)} of {len(checks)} checks do not fit" in page
    assert "<0.001" in page
