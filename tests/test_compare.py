"""`deeplung-nb compare`: a statistician's table, from a terminal."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from deeplung_nb.__main__ import main
from deeplung_nb.runs.resources import shipped
from deeplung_nb.stats.agreement import bland_altman

RNG = np.random.default_rng(4)
MANUAL = RNG.lognormal(4, 1, 24).round(1)
AUTOMATIC = (MANUAL * RNG.lognormal(0.05, 0.1, 24)).round(1)


@pytest.fixture
def wide(tmp_path):
    path = tmp_path / "befunde.csv"
    pd.DataFrame({"Fall": [f"F{k}" for k in range(24)], "von Hand (mL)": MANUAL,
                  "KI (mL)": AUTOMATIC}).to_csv(path, sep=";", decimal=",", index=False)
    return path


def compare(*arguments):
    return main(["compare", *map(str, arguments)])


def bias(folder):
    made, = folder.glob("*.csv")
    return pd.read_csv(made).set_index("statistic").loc["bias", ["value", "lower", "upper"]]


def test_any_table_becomes_figure_tables_words_and_code(wide, tmp_path, capsys):
    assert compare(wide, "--unit", "mL", "--case-id", "Fall", "--margin", "25", "--output",
                   tmp_path / "out") == 0
    said = capsys.readouterr().out
    found = bland_altman(MANUAL, AUTOMATIC)
    assert bias(tmp_path / "out").tolist() == pytest.approx([found.bias, *found.bias_ci])
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {
        ".csv", ".tex", ".docx", ".txt", ".py", ".pdf", ".svg", ".png"}
    assert "within ± 25.0 mL, a margin declared in advance" in said
    assert all(str(path) in said for path in (tmp_path / "out").iterdir())

    code, = (tmp_path / "out").glob("*.py")
    again = subprocess.run([sys.executable, str(code)], cwd=tmp_path, capture_output=True,
                           text=True, check=True).stdout
    assert again.splitlines()[0] in said
    assert "a margin declared in advance" in again


def test_what_is_odd_in_a_table_is_a_line_and_no_line_of_code(wide, tmp_path, capsys):
    rows = wide.read_text(encoding="utf-8").splitlines()
    wide.write_text("\n".join([*rows, *rows[1:]]) + "\n", encoding="utf-8")
    assert compare(wide, "--unit", "mL", "--output", tmp_path / "out") == 0
    said = capsys.readouterr().err.splitlines()
    assert all(line.startswith("warning: ") for line in said)
    assert any("row(s) 25, 26" in line for line in said)


def test_the_readers_are_those_that_are_named(wide, tmp_path):
    options = ("--unit", "mL", "--output", tmp_path / "out")
    assert compare(wide, *options, "--reference", "KI (mL)", "--test", "von Hand (mL)") == 0
    assert bias(tmp_path / "out").value == pytest.approx((MANUAL - AUTOMATIC).mean())


def test_one_row_a_reading_in_excel(tmp_path):
    path = tmp_path / "long.xlsx"
    pd.DataFrame({"case_id": np.repeat(range(24), 2), "who": ["A", "B"] * 24,
                  "cc": np.c_[MANUAL, AUTOMATIC].ravel()}).to_excel(path, index=False)
    assert compare(path, "--reading", "cc", "--reader", "who", "--unit", "cc", "--output",
                   tmp_path / "out") == 0
    assert bias(tmp_path / "out").value == pytest.approx((AUTOMATIC - MANUAL).mean())


def test_a_runs_table_needs_no_word_more(tmp_path, capsys):
    table = shipped("results/example") / "measurements.csv"
    assert compare(table, "--structure", "ggo", "--output", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "Only cases with role “cv” were compared" in said
    assert "model_vs_expert_ggo_volume_ml.csv" in said


def test_value_and_cases_of_a_runs_table_are_those_that_are_said(tmp_path, capsys):
    table = shipped("results/example") / "measurements.csv"
    assert compare(table, "--value", "burden_percent", "--only", "role=external", "--reference",
                   "expert", "--test", "ensemble", "--output", tmp_path / "out") == 0
    assert "Only cases with role “external” were compared" in capsys.readouterr().out
    assert (tmp_path / "out" / "ensemble_vs_expert_lesion_burden_percent.csv").exists()
    assert compare(table, "--only", "ward=3", "--output", tmp_path / "no") == 1
    assert "expected COLUMN=VALUE, with a column of" in capsys.readouterr().err


def test_a_page_that_lives_lies_beside_and_replaces_none(wide, tmp_path):
    (tmp_path / "out").mkdir()
    mine = tmp_path / "out" / "KI_mL__vs_von_Hand_mL__lesion_volume_ml.html"
    mine.write_text("mine")
    assert compare(wide, "--unit", "mL", "--page", "--confidence", "0.93", "--output",
                   tmp_path / "out") == 0
    assert mine.read_text() == "mine"
    mine.unlink()
    page, = (tmp_path / "out").glob("*.html")
    assert page.stem == next((tmp_path / "out").glob("*.csv")).stem
    assert "Content-Security-Policy" in page.read_text(encoding="utf-8")


def test_a_page_that_cannot_be_made_leaves_no_other_file(wide, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "deeplung_nb.widgets.page", None)  # it can't be imported
    assert compare(wide, "--unit", "mL", "--page", "--output", tmp_path / "out") == 1
    assert "pip install" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("options", "words"), [
    ([], "unit of the volumes: not said"),
    (["--unit", "mL", "--reference", "hand", "--test", "KI"], "missing column(s) hand, KI; the "
     "table has Fall, von Hand (mL), KI (mL)"),
    (["--unit", "mL", "--reference", "KI (mL)"], "give both, or neither"),
    (["--unit", "mm3"], "says ml, but its readings would be taken as mm3"),
    (["--unit", "mL", "--limits", "wide"], "'wide': expected one of auto, constant"),
    (["--unit", "mL", "--structure", "tumour"], "'tumour': expected one of"),
    (["--unit", "mL", "--confidence", "95"], "confidence"),
    (["--unit", "mL", "--margin", "-5"], "margin"),
])
def test_what_is_wrong_is_said_and_nothing_is_written(wide, tmp_path, capsys, options, words):
    assert compare(wide, *options, "--output", tmp_path / "out") == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
