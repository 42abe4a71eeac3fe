"""One question has one answer: table, figure, sentence, digest, explorer print the same limits."""

import re

import numpy as np
import pandas as pd
import pytest

from deeplung_nb.measurements import pair
from deeplung_nb.report import digest, figures, tables
from deeplung_nb.report.explore import Question, answer
from deeplung_nb.report.numbers import interval, number, with_interval
from deeplung_nb.report.prose import report_text
from deeplung_nb.stats import summary
from tests.report.fakes import fake_measurements, words

PLANS = ("auto", "constant", "ratio", "regression")


@pytest.fixture(scope="module")
def readings():
    """More cases than the other tests have, so that every kind of limits can be carried."""
    parts = []
    for k in range(2):
        part = fake_measurements().assign(run_id="r")
        part[["case_id", "patient_id"]] += f"-{k}"
        part.loc[part.reader == "model", "volume_ml"] *= 1 + 0.07 * k
        parts.append(part)
    both = pd.concat(parts, ignore_index=True)
    both.loc[both.volume_ml.notna(), "n_voxels"] = (both.volume_ml * 1000).round()
    return both


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("structure", ["ggo", "lesion"])
def test_every_output_prints_the_same_limits_with_their_intervals(readings, plan, structure):
    cv = readings[readings.role == "cv"]
    table = summary.agreement_table(cv, by=("role", "structure"), limits=plan)
    row = table[table.structure == structure].iloc[0]
    if plan != "auto":
        assert row.limits == plan
    ends = [(row[f"limit_{side}"], row[f"limit_{side}_ci_lower"], row[f"limit_{side}_ci_upper"])
            for side in ("lower", "upper")]
    assert np.isfinite(ends).all()
    short = [f"{number(value)} {interval(ci)}" for value, *ci in ends]

    pairs = pair(cv, "expert", "model", structure)
    drawn = words(figures.draw_agreement(
        *summary.agreement_results(cv, "cv", (structure,), limits=plan)))
    paragraph = report_text(pairs, limits=plan)
    asked = answer(cv, Question(structure=structure, plan=plan))
    shown = asked.printed.set_index("statistic")
    markdown = digest.write_digest(cv, limits=plan)
    printed = tables.format_agreement(table).as_raw_html()
    decimals = 2 if row.limits == "ratio" else 1
    for side, text, (value, low, high) in zip(("lower", "upper"), short, ends, strict=True):
        assert text in drawn
        assert text in words(asked.figure)
        assert text in markdown
        assert with_interval(value, low, high, decimals) in printed
        line, = (name for name in shown.index if name.startswith(f"{side} limit"))
        assert f"({row.limits})" in line
        assert shown.estimate[line].split()[0] == number(value)
        assert shown.iloc[:, 1][line] == interval((low, high))
        assert f"{number(value, most_decimals=6)} (95 % CI {number(low, most_decimals=6)} to " \
               f"{number(high, most_decimals=6)})" in paragraph
    assert asked.row["limits"] == row.limits


def test_the_sentence_says_whether_the_limits_were_declared(readings):
    pairs = pair(readings[readings.role == "cv"], "expert", "model", "ggo")
    declared, chosen = (report_text(pairs, limits=plan) for plan in ("ratio", "auto"))
    assert "was declared before the data were seen" in declared
    assert "not declared beforehand" in chosen
    assert "not declared" not in declared
    # One kind of limits, not several to choose from.
    for text in (declared, chosen):
        assert len(re.findall(r"limits of agreement (?:were|from)", text)) == 1
    few = report_text(pairs[:8], limits="ratio")
    assert "can't carry the planned ratio limits" in few
