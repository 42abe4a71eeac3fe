"""Agreement by region: the same statistics as of any volume, for each part of the lungs."""

import numpy as np
import pandas as pd
import pytest

from deeplung_nb import measurements
from deeplung_nb.labels import REGIONS
from deeplung_nb.report.region_tables import format_regions
from deeplung_nb.stats import summary
from deeplung_nb.stats.lesions import component_sizes
from deeplung_nb.stats.regions import region_table


@pytest.fixture
def frame():
    """Twelve cases; the network reads twice as much on the right and nothing on the left."""
    rng = np.random.default_rng(0)
    right, left = rng.lognormal(3, 1, 12), rng.lognormal(2, 1, 12)
    wide = pd.DataFrame({"expert": right + left, "model": 2 * right})
    table = measurements.from_wide(wide, {"expert": "expert", "model": "model"}, unit="mL",
                                   case_id=None)
    for name in REGIONS:
        table[f"volume_{name}_ml"] = np.nan
    for reader, values in (("expert", (right, left)), ("model", (2 * right, 0 * left))):
        rows = table.reader == reader
        table.loc[rows, "volume_right_ml"], table.loc[rows, "volume_left_ml"] = values
    return table


def test_each_region_has_the_statistics_of_its_own_volumes(frame):
    table = region_table(frame).set_index("region")
    assert list(table.index) == ["right", "left"]
    for name in ("right", "left"):
        pairs = measurements.pair(frame, "expert", "model", "lesion", f"volume_{name}_ml")
        alone = summary.agreement_row(pairs)
        for key in ("n", "bias", "bias_lower", "spearman", "reference_median", "test_q3"):
            np.testing.assert_equal(table.loc[name, key], alone[key])
    assert table.loc["right", "bias"] > 0 > table.loc["left", "bias"]


def test_cases_without_lungs_are_counted_as_missing(frame):
    frame.loc[frame.case_id == frame.case_id.iloc[0], "volume_right_ml"] = np.nan
    table = region_table(frame).set_index("region")
    assert table.loc["right", "n"] == 11
    assert table.loc["right", "n_missing"] == 1
    assert table.loc["left", "n"] == 12


def test_percentages_of_opacity_follow_where_they_were_measured(frame):
    percent = np.where(frame.reader == "model", 3.0, 2.0) * (1 + np.arange(len(frame)) % 7)
    table = region_table(frame.assign(po_percent=percent, pho_percent=percent / 2))
    assert table.region.tolist() == ["right", "left", "po_percent", "pho_percent"]
    page = format_regions(table).as_raw_html()
    assert "Percentage of opacity, %" in page
    assert "Percentage of high opacity, %" in page


def test_a_table_without_regions_gives_none(frame):
    none = frame.drop(columns=[f"volume_{name}_ml" for name in REGIONS])
    assert region_table(none).empty
    assert region_table(frame.assign(volume_right_ml=np.nan, volume_left_ml=np.nan)).empty


def test_the_printed_table_names_regions_and_limits_nothing_to_one_division(frame):
    page = format_regions(region_table(frame)).as_raw_html()
    for words in ("Right lung", "Left lung", "within 20 mm", "Right lung, mL"):
        assert words in page


def test_sizes_of_lesions_by_face_edge_and_corner():
    mask = np.zeros((4, 6, 6), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = True  # touch by corners
    mask[3, 4:6, 4:6] = True
    assert sorted(component_sizes(mask).tolist()) == [3, 4]
    assert component_sizes(mask & False).tolist() == []
