"""The cohort browser and the dashboard, without a browser."""

import io
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deeplung_nb import measurements
from deeplung_nb.__main__ import main
from deeplung_nb.cohorts import cases
from deeplung_nb.cohorts.manifest import Cohort, read_cohort
from deeplung_nb.report.diagrams import draw_columns, draw_flow
from deeplung_nb.report.thumbnails import make_thumbnail
from deeplung_nb.runs import read_run
from deeplung_nb.runs.registry import cohort_files
from deeplung_nb.widgets import CohortBrowser, show_dashboard, view_case
from deeplung_nb.widgets.browser import cases_of_table
from tests.browser import served_dashboard
from tests.test_packaging import EXAMPLE


@pytest.fixture(scope="module")
def run():
    return read_run(EXAMPLE)


@pytest.fixture
def browser(run):
    return CohortBrowser(run)


def test_search_and_choices_narrow_the_cases_together(browser):
    assert len(browser.shown) == 42
    browser._choices["role"].value = "external"
    assert len(browser.shown) == 12
    browser._search.value = "scanner E"
    expected = browser.frame.query("role == 'external' and scanner == 'Scanner E'")
    assert browser.shown.case_id.tolist() == expected.case_id.tolist()
    assert 0 < len(expected) < 12
    assert f"{len(expected)} of 42 cases" in browser._count.value
    assert browser._grid.df.case_id.tolist() == expected.case_id.tolist()
    browser._search.value = "no such word"
    assert len(browser.shown) == 0
    assert "0 of 42" in browser._count.value


def test_pages_and_order_are_those_of_all_cases_not_of_a_page(browser):
    assert len(browser._grid.df) == 12
    assert browser._earlier.disabled
    browser._sort.value, browser._down.value = "expert lesion mL", True
    expected = browser.frame.sort_values("expert lesion mL", ascending=False, kind="stable")
    assert browser._grid.df.case_id.tolist() == expected.case_id[:12].tolist()
    before = bytes(browser._columns.png)
    for _ in range(5):
        browser._later.click()
    assert browser._grid.df.case_id.tolist() == expected.case_id[36:].tolist()
    assert browser._later.disabled
    assert "here 37 to 42" in browser._count.value
    assert bytes(browser._columns.png) == before
    browser._grid.selected_rows = [1]
    assert browser.picked == ("phantom", expected.case_id.iloc[37])
    browser._choices["role"].value = "external"  # begins at the first page again
    assert "here 1 to 12" in browser._count.value


def test_distributions_follow_the_filter(browser):
    before = bytes(browser._columns.png)
    assert browser.figure.alt.startswith("42 cases")
    browser._choices["protocol"].value = "contrast"
    assert bytes(browser._columns.png) != before
    assert browser.figure.alt.startswith(f"{len(browser.shown)} cases")


def test_only_the_open_tab_is_drawn_and_thumbnails_are_made_once(run):
    made = []

    def thumbnail(cohort, case_id):
        made.append(case_id)
        return b"\xff\xd8"

    browser = CohortBrowser(run, thumbnail=thumbnail)
    assert made == []
    browser._tabs.selected_index = 2
    assert made == browser.shown.case_id.head(12).tolist()
    browser._choices["role"].value = "cv"
    browser._choices["role"].value = "all"
    assert len(made) == len(set(made))
    browser._tabs.selected_index = 1
    assert browser.figure.alt.startswith("Flow of cases. assessed: 42")


def test_the_browser_shows_what_was_measured(browser, run):
    measured = measurements.read(run.measurements_csv)
    row = browser.frame.set_index("case_id").loc["P007"]
    of_case = measured.query("case_id == 'P007' and structure == 'lesion'").set_index("reader")
    assert row["expert lesion mL"] == of_case.volume_ml["expert"]
    assert row["lesion Dice"] == of_case.dice["model"]
    assert not [name for name in browser.frame if "sha256" in name or name.startswith("ph_")]


def test_the_list_says_which_cases_have_images(browser, run):
    kept = {path.name.removesuffix(".nii.gz") for path in (run.folder / "masks").rglob("*.nii.gz")}
    assert len(kept) == 5
    browser._choices["images"].value = "yes"
    assert set(browser.shown.case_id) == kept
    for case in kept:  # as it says
        assert view_case(run, "phantom", case).masks.keys() >= {"expert", "automatic"}
    browser._choices["images"].value = "no"
    assert len(browser.shown) == 42 - len(kept)


def test_of_a_synthetic_cohort_the_case_that_is_looked_at_is_drawn_alone(run, monkeypatch):
    write, drawn = cases.write_cohort, []
    monkeypatch.setattr(cases, "write_cohort", lambda specs, folder, **options: (
        drawn.extend(spec.case_id for spec in specs), write(specs, folder, **options)))
    case, automatic = cases.read_reading(run, "phantom", "P007")
    assert drawn == ["P007"]
    assert case.scan.shape == automatic.labels.shape


def test_a_picked_row_tells_and_opens_its_case(run):
    browser = CohortBrowser(run, on_pick=lambda *case: opened.append(case))
    opened = []
    browser._choices["role"].value = "external"
    browser._grid.selected_rows = [2]
    row = browser.shown.iloc[2]
    assert browser.picked == (row.cohort, row.case_id)
    assert opened == [browser.picked]
    words = browser._case.children[0].children[-1].value
    assert row.case_id in words
    assert row.scanner in words


def test_a_faulty_manifest_shows_its_faults_on_the_row(tmp_path):
    table = pd.read_csv(cohort_files("phantom")[0], dtype=str)
    table.loc[3, "role"] = "test"
    table.loc[5, ["case_id", "image"]] = table.loc[4, ["case_id", "image"]]
    path = tmp_path / "site.csv"
    table.to_csv(path, index=False)
    browser = CohortBrowser(path)
    faulty = browser.frame[browser.frame.faults != ""]
    assert faulty.index.tolist() == [3, 4, 5]
    assert "'test'" in browser.frame.faults[3]
    assert "appears 2 times" in browser.frame.faults[5]
    browser._choices["faults"].value = "with faults"
    assert len(browser.shown) == 3
    with pytest.raises(ValueError, match="is missing, expected a CSV"):
        CohortBrowser(tmp_path / "absent.csv")


def test_the_flow_is_that_of_the_reasons(tmp_path):
    table = pd.read_csv(cohort_files("phantom")[0], dtype=str)
    table.loc[[0, 1], "exclude"] = "1"
    table.loc[0, "exclude_reason"], table.loc[1, "exclude_reason"] = "motion", "no contrast noted"
    path = tmp_path / "site.csv"
    table.to_csv(path, index=False)
    browser = CohortBrowser(path)
    browser._tabs.selected_index = 1
    for words in ("assessed: 42", "excluded: motion: 1", "excluded: no contrast noted: 1",
                  "included: 40"):
        assert words in browser.figure.alt


def test_five_thousand_rows_are_filtered_by_one_control(run):
    frame = pd.concat([cases_of_table(measurements.read(run.measurements_csv))] * 120,
                      ignore_index=True)
    frame["case_id"] = [f"C{k}" for k in range(len(frame))]
    browser = CohortBrowser(frame)
    browser._search.value = "C4999"
    assert browser.shown.case_id.tolist() == ["C4999"]


def test_a_simulated_run_has_cases_too(tmp_path, run):
    frame = cases_of_table(measurements.read(run.measurements_csv))
    assert {"expert mL", "model mL", "unet2d mL"} <= set(frame.columns)
    browser = CohortBrowser(frame)
    assert browser._tabs.titles == ("distributions", "flow of cases")  # no images, no thumbnails


def test_a_cohort_is_a_source(run):
    cohort = read_cohort("phantom", None, verify=False)
    assert isinstance(cohort, Cohort)
    assert len(CohortBrowser(cohort).shown) == 42


def test_columns_without_a_value_are_drawn_and_counted():
    frame = pd.DataFrame({"age": [None, 50.0, 60.0], "none": [None, None, None],
                          "sex": ["f", None, "m"]})
    alt = draw_columns(frame, ["age", "none", "sex"]).alt
    assert "age: 2 values" in alt
    assert "none: 0 values" in alt


def test_a_flow_without_roles_is_drawn():
    flow = pd.DataFrame([("assessed", 3, 2), ("included", 3, 2)],
                        columns=["step", "n_cases", "n_patients"])
    assert "assessed: 3 of 2 patients" in draw_flow(flow).alt


def test_a_thumbnail_shows_both_classes_in_true_proportions():
    hu = np.full((40, 60), -850, np.int16)
    labels = np.zeros(hu.shape, np.uint8)
    labels[:20, :30], labels[20:, 30:] = 1, 2
    picture = Image.open(io.BytesIO(make_thumbnail(hu, labels, (2.0, 1.0))))
    assert picture.size == (72, 96)  # 80 mm high, 60 mm wide
    rgb = np.asarray(picture, float)
    blue, yellow, grey = rgb[24, 18], rgb[72, 54], rgb[24, 54]
    assert blue[2] > blue[0] + 40
    assert yellow[0] > yellow[2] + 40
    assert np.ptp(grey) < 12


def test_the_example_run_has_a_thumbnail_of_each_case(run):
    cases = measurements.read(run.measurements_csv)[["cohort", "case_id"]].drop_duplicates()
    for row in cases.itertuples():
        path = run.folder / "thumbnails" / row.cohort / f"{row.case_id}.jpg"
        assert Image.open(path).width == 72
    assert sum(path.stat().st_size for path in run.folder.rglob("*")
               if path.is_file() and not path.name.startswith(".")) < 400_000


def test_the_dashboard_links_its_parts(run):
    tabs = show_dashboard(run)
    explorer, browser = tabs.explorer, tabs.browser
    tabs.selected_index = 1
    browser._grid.selected_rows = [4]
    assert explorer.picked == browser.picked != ()
    assert tabs.selected_index == 1  # a pick does not turn the page
    assert explorer._leave.description == f"leave out {browser.picked[1]}"
    assert explorer._case.children[-1] is browser._case.children[-1]  # one viewer, seen in both
    # Picked in the plot: the list shows the same case, on whatever page it stands.
    other = len(explorer.found.pairs) - 1
    explorer._picture._hear(None, {"kind": "pick", "case": other}, [])
    assert browser.picked == explorer.picked == (
        "phantom", explorer.found.pairs["case_id"].iloc[other])
    row = browser.shown.iloc[browser._first + browser._grid.selected_rows[0]]
    assert row["case_id"] == browser.picked[1]
    # Of a case that the plot does not show nothing can be left out.
    external = browser.frame.index[browser.frame["role"] == "external"][0]
    browser.pick("phantom", browser.frame["case_id"][external])
    assert explorer.picked == ()
    assert explorer._leave.disabled
    assert browser.picked == ("phantom", browser.frame["case_id"][external])


def test_the_dashboard_of_a_bare_table(tmp_path):
    path = tmp_path / "readings.csv"
    path.write_text("manual,auto\n0,0\n1.5,2\n3,2.5\n8,9\n")
    tabs = show_dashboard(path, unit="mL")
    assert len(tabs.browser.shown) == len(tabs.explorer.found.pairs) == 4
    assert "manual mL" in tabs.browser.frame


@pytest.mark.parametrize(("name", "said"), [
    ("absent", "no such run folder or table"), ("empty", "no run.json"),
    ("one.csv", "expected two")])
def test_a_dashboard_of_nothing_is_refused_before_it_is_served(tmp_path, capsys, name, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "one.csv").write_text("manual\n1\n2\n")
    assert main(["dashboard", str(tmp_path / name)]) == 1
    assert said in capsys.readouterr().err


def test_the_dashboard_is_served_to_this_machine_with_a_token():
    with served_dashboard(EXAMPLE) as address:
        assert address.startswith("http://127.0.0.1:")
        place, token = address.split("/?")
        assert len(token) > 30
        with urllib.request.urlopen(f"{place}/", timeout=600) as page:
            assert "/login" in page.url  # no token, no notebook
        # Nor may another name lead here, which a page from elsewhere could have made up.
        foreign = urllib.request.Request(f"{place}/?{token}", headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(foreign, timeout=600)
        if Path("/proc/self/cmdline").exists():
            secret = token.removeprefix("token=").encode()
            lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")
                     if path.exists()]
            assert any(b"voila" in line for line in lines)
            assert not [line for line in lines if secret in line]


def test_the_name_of_a_case_is_text_not_markup():
    from types import SimpleNamespace

    from deeplung_nb.widgets.browser import CohortBrowser

    shown = CohortBrowser.picture(SimpleNamespace(_thumbnail=None, _thumbnails={}),
                                  SimpleNamespace(cohort="c", case_id="<img src=x>"))
    said = " ".join(getattr(child, "value", "") for child in shown.children)
    assert "&lt;img src=x&gt;" in said
    assert "<img" not in said
