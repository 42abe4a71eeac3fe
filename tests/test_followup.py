"""The same patient again: changes by hand, phantoms that grew, and the page of it."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from deeplung_nb.__main__ import main
from deeplung_nb.imaging.io import write_scan
from deeplung_nb.imaging.phantom.make import make_phantom
from deeplung_nb.imaging.phantom.spec import Lesion, PhantomSpec
from deeplung_nb.reading import followup
from deeplung_nb.report.followup_page import make_followup_page
from deeplung_nb.stats.followup import change_table, changes
from tests.test_patient_page import result_of

UNSEEN = [{"patient_id": f"p{k}", "unit": "mL", "expert": 100.0, "automatic": 100.0 * factor}
          for k, factor in enumerate((0.8, 0.9, 1.0, 1.1, 1.3))]


def readings(**patients):
    return pd.DataFrame([
        {"patient_id": who, "day": day, "reader": "r", "structure": "lesion", "volume_ml": ml}
        for who, values in patients.items() for day, ml in enumerate(values)])


def test_each_reading_is_judged_against_the_one_before():
    table = change_table(readings(a=[100, 120, 200], b=[50, 30], alone=[7]), 1.3)
    assert table.verdict.tolist() == ["within error", "larger", "smaller"]
    assert table[["from", "to"]].to_numpy().tolist() == [[0, 1], [1, 2], [0, 1]]
    assert table.ratio.round(3).tolist() == [1.2, 1.667, 0.6]
    assert "alone" not in set(table.patient_id)


def test_zeros_and_gaps_have_no_factor():
    table = change_table(readings(a=[0, 5], b=[5, 0], c=[0, 0], d=[5, np.nan]), 1.3)
    assert table.verdict.tolist() == ["appeared", "vanished", "none", "unknown"]
    assert table.ratio.isna().all()


def test_it_is_the_same_as_changes_on_logarithms():
    rng = np.random.default_rng(0)
    before, after = rng.lognormal(4, 1, (2, 30))
    frame = readings(**{f"p{k:02d}": (before[k], after[k]) for k in range(30)})
    expected = changes(np.log(before), np.log(after), np.log(1.5)).verdict.tolist()
    assert change_table(frame, 1.5).verdict.tolist() == expected


def test_order_is_by_day_not_by_row():
    frame = readings(a=[100, 200]).iloc[::-1]
    assert change_table(frame, 1.3).verdict.tolist() == ["larger"]


@pytest.mark.parametrize(("frame", "factor", "said"), [
    (readings(a=[1, 2]), 0.9, "expected a factor of 1 or more"),
    (readings(a=[1, 2]).drop(columns="day"), 1.3, "no column 'day'"),
    (pd.concat([readings(a=[1, 2])] * 2), 1.3, "several readings at day 0"),
    (readings(a=[-1, 2]), 1.3, "below 0")])
def test_bad_tables_are_named(frame, factor, said):
    with pytest.raises(ValueError, match=said):
        change_table(frame, factor)


def test_the_factor_is_that_of_two_independent_readings():
    logs = np.log([0.8, 0.9, 1.0, 1.1, 1.3])
    factor, n = followup.detectable_factor(UNSEEN)
    assert n == 5
    assert factor == pytest.approx(np.exp(1.959964 * np.sqrt(2) * logs.std(ddof=1)))
    assert np.isnan(followup.detectable_factor(UNSEEN[:4])[0])
    assert np.isnan(followup.detectable_factor([])[0])
    nothing = [{**one, "expert": 0.5} for one in UNSEEN]
    assert np.isnan(followup.detectable_factor(nothing)[0])


@pytest.fixture(scope="module")
def grown():
    """One patient three times: the lesion grows, and the second scan has other slices."""
    made = []
    for radius, n in ((20, 24), (30, 40), (31, 24)):
        made.append(make_phantom(PhantomSpec(
            "grown", seed=3, size=120, n_slices=n, spacing_mm=(240.0 / n, 3.0, 3.0),
            lesions=(Lesion("ggo", (-75.0, 40.0, 90.0), (radius,) * 3),))))
    return made


def results(grown):
    found = [result_of(one) for one in grown]
    for one in found:
        one.provenance["network"]["unseen"] = UNSEEN
    return found


def test_growth_is_told_from_error(grown):
    found = followup.follow(results(grown), [737000, 737007, 737014], 1.3)
    lesion = found.table[found.table.structure == "lesion"]
    assert lesion.verdict.tolist() == ["larger", "within error"]
    assert found.days == (0.0, 7.0, 14.0)
    assert found.because == "declared"
    assert set(found.table.structure) == {"ggo", "high_opacity", "lesion"}


def test_days_decide_the_order_and_the_network_the_factor(grown):
    found = followup.follow(results(grown)[:2], [20, 13])
    assert found.table[found.table.structure == "lesion"].verdict.tolist() == ["smaller"]
    assert found.smallest_factor == followup.detectable_factor(UNSEEN)[0]
    assert "5 patients" in found.because


def test_slices_are_compared_by_height_not_by_number(grown):
    first, second, _ = results(grown)
    for height in followup.HEIGHTS:
        places = [(followup.slice_at(one, height) + 0.5) * one.scan.spacing_mm[0]
                  for one in (first, second)]
        assert abs(places[0] - places[1]) <= 10.0
    assert followup.slice_at(second, 0.5) != followup.slice_at(first, 0.5)


def test_what_makes_scans_hard_to_compare_is_said(grown):
    one, two, _ = results(grown)
    two = dataclasses.replace(two, table=two.table.assign(volume_ml=two.table.volume_ml * 1.3))
    two.provenance["network"]["sha256"] = "ef" * 32
    said = " ".join(followup.follow([one, two], None, 1.3).warnings)
    assert "another breath" in said
    assert "slices are 10, 6 mm apart" in said
    assert "different networks" in said


def test_too_little_to_compare_is_refused(grown):
    one, two, _ = results(grown)
    with pytest.raises(ValueError, match="expected two or more"):
        followup.follow([one])
    with pytest.raises(ValueError, match="a different day for each"):
        followup.follow([one, two], [3, 3])
    one.provenance["network"]["unseen"] = []
    with pytest.raises(ValueError, match="--smallest-factor"):
        followup.follow([one, two])


def test_the_page_says_what_changed_and_by_whose_error(grown):
    page = make_followup_page(followup.follow(results(grown), None, 1.3), "<P1>")
    text = re.sub(r"<[^>]+>", " ", page.split("<main>")[1])
    for words in ("yes, larger", "more than 1.30 times", "declared", "scan 1 to scan 2",
                  "Not a medical device"):
        assert words in text
    assert "&lt;P1&gt;" in page
    assert not re.search(r"https?://|<script", page)
    assert "nan" not in text
    assert page.count("<circle") == 9


def test_the_command_segments_and_compares(grown, checkpoint_file, tmp_path, capsys):
    paths = []
    for k, one in enumerate(grown[:2]):
        paths.append(tmp_path / f"Zq{k}.nii.gz")
        write_scan(one.scan, paths[-1])
    call = ["followup", *map(str, paths), "--output", str(tmp_path / "out"), "--case-id", "P7",
            "--checkpoint", str(checkpoint_file)]
    assert main(call) == 1
    assert "how far this network errs is not known" in capsys.readouterr().err
    assert main([*call, "--smallest-factor", "1.3", "--dates", "2020-04-01", "2020-04-15"]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert {"P7_followup.csv", "P7_followup.html", "P7-1_lesions.nii.gz",
            "P7-2_preview.png"} <= set(names)
    assert pd.read_csv(tmp_path / "out" / "P7_followup.csv").to.tolist() == [14.0] * 3
    assert "2020-04" not in (tmp_path / "out" / "P7_followup.html").read_text()
    assert main([*call, "--smallest-factor", "1.3"]) == 1
    assert "is there already" in capsys.readouterr().err
    assert main([*call, "--smallest-factor", "1.3", "--dates", "1.4.2020", "15.4.2020"]) == 1
    assert "as 2020-04-01" in capsys.readouterr().err
    assert main([*call, "--smallest-factor", "1.3", "--dates", "2020-04-01"]) == 1
    assert "1 different dates of 2 scans" in capsys.readouterr().err
