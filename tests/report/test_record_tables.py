"""Tables that checklists ask for: acquisition, failures, every choice, and its picture."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from deeplung_nb.report import every_choice, record_tables
from deeplung_nb.stats import multiverse


def test_acquisition_is_what_the_manifest_says_and_no_more():
    people = pd.DataFrame({
        "role": ["cv"] * 4, "extra_kvp": ["100", "120", "", "120"], "extra_kernel":
        ["B70", "B30", "B30", np.nan], "slice_gap_mm": [1.0, 5.0, 5.0, 2.0], "scanner": [""] * 4,
        "protocol": ["unknown"] * 4, "n_slices": [60, 70, 80, 90]})
    found = record_tables.acquisition(people).set_index(["characteristic", "level"])
    row = found.loc["tube voltage, kVp", ""]
    assert (row.n_known, row.n_total, row["median"], row.low, row.high) == (3, 4, 120, 100, 120)
    assert found.loc[("kernel", "B30"), "n"] == 2
    assert "scanner" not in found.index.get_level_values(0)
    assert "contrast medium" not in found.index.get_level_values(0)
    many = people.assign(scanner=["16", "64", "16", "64"])
    levels = record_tables.acquisition(many).set_index("characteristic").loc["scanner"]
    assert levels.level.tolist() == ["16", "64"]  # names, though they look like numbers
    many = pd.DataFrame({"role": "cv", "scanner": [f"S{k:02d}" for k in range(15)]})
    assert record_tables.acquisition(many).level.tolist()[-1] == "3 others"
    printed = record_tables.format_acquisition(found.reset_index()).as_raw_html()
    assert "120 (100 to 120)" in printed
    assert "2 of 3" in printed


def test_failures_come_with_their_reasons_and_the_worst_with_what_was_missed(measured):
    table = measured.copy()
    failed = (table.case_id == "X003") & (table.reader == "model")
    table.loc[failed, "status"] = "failed"
    table.loc[failed, "note"] = "truncated file"
    found = record_tables.failures(table)
    first = found.iloc[0]
    assert (first.case_id, first.what, first.note) == ("X003", "failed", "truncated file")
    worst = found[found.what == "lowest Dice"]
    assert worst.groupby("role").size().to_dict() == {"cv": 5, "external": 5}
    lesion = table[(table.reader == "model") & (table.structure == "lesion") & ~failed]
    lowest = lesion[lesion.role == "cv"].nsmallest(5, "dice")
    assert worst[worst.role == "cv"].case_id.tolist() == lowest.case_id.tolist()
    row, whole = worst.iloc[0], lowest.iloc[0]
    assert row.missed_ml == pytest.approx(whole.fn * whole.voxel_mm3 / 1000)
    assert "1 case(s) failed" in record_tables.format_failures(found).as_raw_html()


def test_every_choice_is_told_for_each_group_structure_and_question(measured):
    found = every_choice.every_choice(measured)
    assert {key[0] for key in found} == {"cv", "external"}
    assert {key[2] for key in found} == {"bias", "limits", "dice"}
    frame = every_choice.choices_frame(found)
    assert len(frame) == 2 * 3 * 3
    assert (frame.value_min <= frame.value_max).all()
    printed = every_choice.format_choices(frame).as_raw_html()
    assert "no margin was declared" in printed
    assert "declared margin of 12.5 mL" in every_choice.format_choices(frame, 12.5).as_raw_html()
    # A table of readings alone has no Dice and no role.
    bare = measured.assign(role=pd.NA, tp=np.nan, fp=np.nan, fn=np.nan)
    assert {key[::2] for key in every_choice.every_choice(bare)} == {("", "bias"), ("", "limits")}


@pytest.mark.parametrize("question", ["bias", "limits", "dice"])
def test_the_picture_shows_every_analysis_in_order(measured, question):
    found = every_choice.every_choice(measured, 20.0)["cv", "lesion", question]
    figure = every_choice.draw_choices(found, "Bias of any lesion")
    top, below = figure.axes
    offsets = np.concatenate([points.get_offsets() for points in top.collections
                              if hasattr(points, "get_offsets") and len(points.get_offsets())
                              == len(found.analyses)])
    values = np.sort(found.analyses["value"])
    assert np.allclose(offsets[:, 1], values)
    drawn = sum(len(points.get_offsets()) for points in below.collections)
    rows = found.analyses
    shown = [name for name in multiverse.DIMENSIONS if name in rows and name != "left_out"
             and rows[name].nunique() > 1]
    assert drawn == len(shown) * len(rows) + int((rows.left_out != multiverse.NOBODY).sum())
    assert found.sentence in figure.alt
