"""Tables: what they count, print and keep; snapshots."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from deeplung_nb.measurements import pair
from deeplung_nb.report import (
    counts,
    published,
    tables,
)
from deeplung_nb.report.discrepancies import check_published
from deeplung_nb.report.word import PrintedTable
from deeplung_nb.runs.config import load_profile
from deeplung_nb.stats import detection, summary
from deeplung_nb.stats.dice import dice_between, dice_by_reader, dice_table
from tests.report.fakes import CLASSES, HOSTILE, Page, fake_measurements, fake_timings, manifest


def test_the_agreement_table_has_each_reader_in_its_own_column(measured):
    frame = summary.agreement_table(measured, by=("structure",))
    row = frame.query("structure == 'ggo'").iloc[0]
    p = pair(measured, "expert", "model", "ggo")
    assert row.reference_median == p.reference.median() != row.test_median == p.test.median()
    page = tables.format_agreement(frame.query("structure == 'ggo'")).as_raw_html()
    heads = re.findall(r'<th[^>]*scope="col"[^>]*>(.*?)</th>', page)[1:]  # the first names rows
    cells = dict(zip(heads, re.findall(r'<td[^>]*gt_row[^>]*>(.*?)</td>', page), strict=True))
    assert cells["Expert, mL"].startswith(f"{p.reference.median():.1f} [")
    assert cells["Automatic, mL"].startswith(f"{p.test.median():.1f} [")


def test_characteristics_count_patients_once_and_scans_each():
    frame = counts.count_characteristics(manifest()).set_index("characteristic")
    assert frame.loc["Patients", "n"] == 2
    assert frame.loc["CT scans", "n"] == 3
    assert frame.loc["Age, years", "mean"] == 60
    assert (frame.loc["Men", "n"], frame.loc["Men", "n_known"]) == (1, 1)
    assert frame.loc["History of lung disease", "percent"] == 50
    assert frame.loc[HOSTILE, "n"] == 2
    assert frame.loc["Unknown", "n"] == 1


def test_slices_of_an_untold_class_stay_empty_not_zero(measured):
    frame = counts.count_slices(measured)
    expected = measured.query("reader == 'expert' and structure == 'ggo' and role == 'cv'")
    row = frame.set_index("role").loc["cv"]
    assert row["slices_ggo"] == expected["slices_with"].sum()
    assert row["n_slices"] == 40 * 20
    binary = counts.count_slices(measured[~measured["structure"].isin(CLASSES)])
    assert binary["slices_ggo"].isna().all()
    assert "–" in tables.format_slices(binary).as_raw_html()


def test_models_are_compared_within_one_run(timings):
    trained = pd.DataFrame({"model": ["ours", "unet2d"], "width": [0, 16],
                            "training_steps": [288, 72], "dice_background": [0.99, 0.98],
                            "dice_ggo": [0.7, 0.6], "dice_high_opacity": [0.5, np.nan]})
    models = counts.collect_models(timings, trained)
    frame = models.set_index(["model", "width"])
    assert frame.loc[("unet2d", 64), "cpu_ratio"] == 2
    assert frame.loc[("unet2d", 16), "dice_ggo"] == 0.6
    assert np.isnan(frame.loc[("unet2d", 64), "dice_ggo"])  # another width than was trained
    assert np.isnan(frame.loc[("unet2d", 16), "gpu_seconds"])
    assert frame.loc[("ours", 0), "memory_gb"] == 2.5
    page = tables.format_models(models).as_raw_html()
    for words in ("0.700", "Dice on test cases", "U-Net 2D, 16 to 256 channels",
                  "do not rank the designs"):
        assert words in page


def test_dice_of_the_classes_and_the_background_follow_from_the_counts(measured):
    rows = measured.query("reader == 'model' and role == 'cv'").set_index("structure")
    found = counts.class_dice(measured)
    for structure in CLASSES:
        assert found[structure] == pytest.approx(rows.loc[structure, "dice"].mean())
    lesion = rows.loc["lesion"].astype({"tn": float, "fp": float, "fn": float})
    wanted = 2 * lesion.tn / (2 * lesion.tn + lesion.fp + lesion.fn)
    assert found["background"] == pytest.approx(wanted.mean())
    assert np.isnan(counts.class_dice(measured, "unet2d")["ggo"])


def test_times_table_refuses_a_model_that_was_not_timed(timings):
    page = tables.format_times(timings).as_raw_html()
    assert "22.00 (21.00 to 23.00)" in page
    assert "92.00<" in page  # taken once: no range
    assert "256 × 256 pixels" in page
    with pytest.raises(ValueError, match="nnunet"):
        tables.format_times(timings, "nnunet")


def test_csv_of_a_table_keeps_full_precision(run):
    frame = pd.DataFrame({"step": ["included"], "n_cases": [3], "n_patients": [2],
                          "x": [0.1 + 0.2]})
    path = tables.save_table(tables.format_flow(frame), frame, run, "flow")
    assert pd.read_csv(path)["x"][0] == 0.1 + 0.2
    first = {suffix: run.path("tables", f"flow.{suffix}").read_bytes()
             for suffix in ("csv", "html", "tex")}
    tables.save_table(tables.format_flow(frame), frame, run, "flow")
    for suffix, content in first.items():
        assert content == run.path("tables", f"flow.{suffix}").read_bytes()
    assert b"Synthetic cohort" in first["html"]


@pytest.mark.filterwarnings("error")
def test_latex_escapes_what_a_manifest_may_hold(run):
    frame = counts.count_characteristics(manifest().assign(scanner="A_1 & 5 % #"))
    tables.save_table(tables.format_characteristics(frame), frame, run, "table1")
    tex = run.path("tables", "table1.tex").read_text(encoding="utf-8")
    assert r"A\_1 \& 5 \% \#" in tex


def test_dice_and_agreement_tables_name_their_estimand(measured):
    frame = dice_table(measured)
    page = Page(tables.format_dice(frame).as_raw_html()).words
    for words_of_row in ("per case", "pooled", "per fold", "left out", "both empty: 0"):
        assert words_of_row in page
    assert set(frame["empty"]) <= set(tables.EMPTY)
    assert f"{frame['dice'].iloc[0]:.3f}" in page
    frame = summary.agreement_table(measured)
    page = Page(tables.format_agreement(frame).as_raw_html()).words
    assert "automatic − expert" in page
    row = frame.iloc[0]
    assert tables.with_interval(row["bias"], row["bias_lower"], row["bias_upper"]) in page


def test_a_row_stands_once_and_the_column_of_protocols_only_where_there_are_some(measured):
    frame = summary.agreement_table(measured)
    both = [len(PrintedTable(tables.format_agreement(part).as_raw_html()).body) for part in (
        frame, frame[frame.role == "cv"])]
    assert both == [2 * (1 + 9), 1 + 9]  # a line of the group's name; all, and two protocols
    alone = summary.agreement_table(measured[measured.protocol == "contrast"])
    assert len(alone) == 12
    printed = PrintedTable(tables.format_agreement(alone).as_raw_html())
    assert len(printed.body) == 2 * (1 + 3)
    assert "Protocol" not in [words for words, _, _ in printed.head[-1]]


def test_names_with_underscores_and_carets_are_text_in_latex():
    gt = tables.format_flow(pd.DataFrame({"cohort": "my_cohort^2", "step": "read_twice",
                                          "n_cases": [3], "n_patients": [2]}))
    text = gt.as_latex()
    assert r"my\_cohort\textasciicircum{}2" in text
    assert r"Read\_twice" in text
    assert not re.search(r"(?<!\\)[_^](?!\{)", text)


SNAPSHOT = Path(__file__).resolve().parents[1] / "snapshots" / "tables.txt"


def printed_tables(measured, timings) -> str:
    """Every kind of table as it is printed, cell by cell."""
    trained = pd.DataFrame({"model": ["ours", "unet2d"], "width": [0, 16],
                            "training_steps": [288, 72], "dice_background": [0.99, 0.98],
                            "dice_ggo": [0.7, 0.6], "dice_high_opacity": [0.5, np.nan]})
    flow = pd.DataFrame({"cohort": "fake", "step": ["assessed", "cv", "external"],
                         "n_cases": [1234, 20, 10], "n_patients": [1200, 20, 10]})
    comparison = published.compare(None, published.measure(measured, load_profile("quick")))
    tables_of = {
        "flow": tables.format_flow(flow),
        "table1": tables.format_characteristics(counts.count_characteristics(manifest())),
        "table2": tables.format_slices(counts.count_slices(measured)),
        "table3": tables.format_times(timings),
        "table4": tables.format_models(counts.collect_models(timings, trained)),
        "agreement": tables.format_agreement(summary.agreement_table(measured)),
        "dice": tables.format_dice(dice_table(measured)),
        "readers": tables.format_readers(dice_by_reader(measured)),
        "detection": tables.format_detection(detection.detection_table(measured)),
        "between": tables.format_between(dice_between(measured)),
        "published": tables.format_comparison(comparison),
        "checks": tables.format_checks(check_published()),
    }
    lines = []
    for name, gt in tables_of.items():
        printed = PrintedTable(gt.as_raw_html())
        lines += [f"== {name}", *printed.titles]
        lines += [" | ".join(words for words, _, _ in row) for row in printed.head + printed.body]
        lines += [*printed.notes, ""]
    return "\n".join(line.rstrip() for line in lines)


def test_tables_are_printed_as_recorded(measured, timings):
    """After a wanted change: python -m tests.report.test_tables, and read the difference."""
    assert printed_tables(measured, timings) == SNAPSHOT.read_text(encoding="utf-8")


if __name__ == "__main__":
    SNAPSHOT.parent.mkdir(exist_ok=True)
    SNAPSHOT.write_text(printed_tables(fake_measurements(), fake_timings()), encoding="utf-8")
