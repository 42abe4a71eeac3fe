"""Pages that live without a kernel: what they hold is what the widgets say, and no more."""

import base64
import hashlib
import json
import re
import zlib

import numpy as np
import pandas as pd
import pytest
from report.fakes import HOSTILE, fake_measurements

from deeplung_nb import measurements
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.scan import Scan
from deeplung_nb.report import states
from deeplung_nb.report.explore import LeftOut, Question, answer
from deeplung_nb.widgets import page
from deeplung_nb.widgets.explorer import AgreementExplorer
from deeplung_nb.widgets.viewer import view_ct


@pytest.fixture(scope="module", autouse=True)
def few_choices():
    """What is asked first is what matters here; all of it takes a while."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(states, "MOST_SETS", 10)
        yield


@pytest.fixture(scope="module")
def measured():
    return fake_measurements()


@pytest.fixture(scope="module")
def all_states(measured):
    return states.explorer_states(measured)


def make_viewer(shape=(6, 20, 24), spacing=(5.0, 0.7, 0.8), seed=3, name="c1"):
    rng = np.random.default_rng(seed)
    hu = rng.integers(-1100, 700, shape).astype(np.int16)
    scan = Scan(hu, Grid.upright(shape, spacing), name)
    masks = {reader: rng.integers(0, 3, shape).astype(np.uint8) for reader in ("expert", "model")}
    return view_ct(scan, masks, reference="expert")


def unpack(packed):
    return np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8)


def data_of(text):
    blob = re.search(r'id="dp-data">([^<]*)<', text)[1]
    return json.loads(zlib.decompress(base64.b64decode(blob)))


def test_each_state_says_what_the_explorer_says(measured, all_states):
    controls = all_states["controls"]
    rng = np.random.default_rng(1)
    keys = list(all_states["states"])
    groups = dict(states._groups(measured))
    for key in rng.choice(keys, 12, replace=False):
        _, s, v, c, scale, limits = map(int, key.split("|"))
        question = Question(
            "expert", "model", ["lesion", "lung", "ggo", "high_opacity"][s],
            states.VALUES_ASKED[v], groups[controls["cases"][c]], controls["scale"][scale],
            list(states.LIMIT_NAMES)[limits])
        assert controls["structure"][s] == states.TITLES[question.structure]
        found, state = answer(measured, question), all_states["states"][key]
        assert state["table"] == found.printed.to_numpy().tolist(), key
        level = {line["name"].split("\n")[0]: line["y"][0] for line in state["lines"]
                 if not line["x"]}
        assert level.get("bias", found.agreement.bias) == pytest.approx(
            found.agreement.bias, rel=1e-4)
        if "lower limit" in level:
            assert level["lower limit"] == pytest.approx(found.limits.loa_lower, rel=1e-4)
        one = all_states["sets"]["|".join(key.split("|")[:4])]
        assert [all_states["cases"][k]["name"] for k in one["cases"]] == \
            found.pairs["case_id"].tolist()
        assert one["reference"] == pytest.approx(found.pairs["reference"].tolist(), rel=1e-4)


def test_what_a_case_does_to_the_bias_is_the_bias_without_it(all_states):
    one = all_states["sets"]["0|0|0|0"]
    d = np.array(one["test"]) - np.array(one["reference"])
    for k in (0, 7, 19):
        assert one["shift"][k] == pytest.approx(np.delete(d, k).mean() - d.mean(), rel=1e-3,
                                                abs=1e-3)


def test_cases_that_were_left_out_stay_out_and_are_named(measured):
    question = Question(where=(), left_out=(LeftOut("fake", "X001", "moved"),))
    found = states.explorer_states(measured, question)
    one = found["sets"]["0|0|0|0"]
    assert "X001" not in [found["cases"][k]["name"] for k in one["cases"]]
    assert any("X001 (moved)" in note for note in one["notes"])


def test_roles_are_not_pooled_and_few_pairs_not_compared(measured):
    found = states.explorer_states(measured)
    assert found["controls"]["cases"][:2] == ["cv", "external"]
    few = measured[measured.case_id.isin(["X000", "X001"])]
    nothing = states.explorer_states(few)
    assert nothing["states"] == {}
    assert len(nothing["cases"]) == 2
    with pytest.raises(ValueError, match="expected two or more to compare"):
        states.explorer_states(measured[measured.reader == "expert"])


def test_more_choices_than_a_page_answers_are_counted(measured, monkeypatch):
    monkeypatch.setattr(states, "MOST_SETS", 5)
    found = states.explorer_states(measured)
    assert len(found["sets"]) == 5
    assert found["left"] > 0
    assert "0|0|0|0" in found["sets"]


def test_voxels_in_a_page_are_those_of_the_scan_to_its_steps():
    viewer = make_viewer()
    packed = page.pack_viewer(viewer)
    n = viewer.scan.hu.size
    content = unpack(packed.voxels)
    grey = np.cumsum(content[:n].reshape(viewer.scan.shape), axis=2, dtype=np.uint8)
    hu = -1024 + grey.astype(float) * 1624 / 255
    inside = np.clip(viewer.scan.hu, -1024, 600)
    assert np.abs(hu - inside).max() <= 1624 / 255 / 2 + 0.01
    labels = content[n:].reshape(viewer.scan.shape)
    assert np.array_equal(labels & 3, viewer.masks["expert"])
    assert np.array_equal((labels >> 2) & 3, viewer.masks["model"])
    assert packed.state["info"]["comparison"] == viewer.info["comparison"]
    assert "HU in steps of 6.4" in packed.state["info"]["note"]


def test_a_case_that_is_too_large_gets_coarser_and_says_so_with_its_own_numbers():
    viewer = make_viewer((8, 120, 120))
    whole = page.pack_viewer(viewer)
    small = page.pack_viewer(viewer, len(whole.voxels) // 3)
    assert len(small.voxels) <= len(whole.voxels) // 3
    info = small.state["info"]
    assert "pixels of" in info["note"]
    assert info["shape"][1] < 120
    assert info["comparison"] == viewer.info["comparison"]
    assert info["profile"] == viewer.info["profile"]
    # A shown pixel lies in the middle of what it covers, and has the mark that is there.
    by = np.array([8, 120, 120]) / info["shape"]
    first = [0, *((by[1:] - 1) / 2)]
    assert np.allclose(np.array(info["affine"]) @ [0, 0, 0, 1],
                       viewer.scan.affine @ [*first[::-1], 1])
    n = int(np.prod(info["shape"]))
    labels = unpack(small.voxels)[n:].reshape(info["shape"])
    for z, y, x in np.random.default_rng(4).integers(0, info["shape"], (40, 3)):
        at = viewer.masks["expert"][z, int((y + 0.5) * by[1]), int((x + 0.5) * by[2])]
        assert labels[z, y, x] & 3 == at
    tiny = page.pack_viewer(viewer, 1500)
    assert "slice" in tiny.state["info"]["note"]
    assert len(tiny.state["info"]["profile"]["expert"]["ggo"]) == tiny.state["info"]["shape"][0]
    assert tiny.state["info"]["comparison"]["case"] == viewer.info["comparison"]["case"]
    with pytest.raises(ValueError, match="do not fit"):
        page.pack_viewer(viewer, 10)


def test_a_page_allows_its_own_script_alone_and_is_the_same_each_time(measured, tmp_path):
    explorer = AgreementExplorer(measured)
    first = page.save_page([explorer, make_viewer()], tmp_path / "a.html").read_text()
    again = page.save_page([explorer, make_viewer()], tmp_path / "b.html").read_text()
    assert first == again
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', first)[1]
    code = re.search(r'<script type="module">(.*?)</script>', first, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert policy == ("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src "
                      f"'sha256-{digest}'; base-uri 'none'; form-action 'none'")
    assert first.count("<script") == 3  # the data, a case, and the script
    for word in ("localStorage", "indexedDB", "fetch(\"", "XMLHttpRequest", "innerHTML", "import("):
        assert word not in code, word
    assert not re.search(r"https?://(?!www\.w3\.org)", first)


def test_hostile_names_are_text(measured, tmp_path):
    table = measured.copy()
    table["case_id"] = table["case_id"].replace("X001", HOSTILE)
    table["scanner"] = HOSTILE + table["scanner"]
    text = page.save_page(AgreementExplorer(table), tmp_path / "a.html",
                          title=HOSTILE).read_text()
    assert HOSTILE not in text
    assert any(one["name"] == HOSTILE for one in data_of(text)["explorer"]["cases"])


def test_five_thousand_readings_fit_and_more_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    n = 5000
    a = rng.lognormal(4, 1, n)
    wide = pd.DataFrame({"case_id": [f"k{k:05d}" for k in range(n)], "expert": a,
                         "model": a * rng.normal(1, 0.1, n)})
    table = measurements.from_wide(wide, {"expert": "expert", "model": "model"}, unit="mL")
    target = page.save_page(AgreementExplorer(table), tmp_path / "a.html")
    assert target.stat().st_size < 3e6
    assert len(data_of(target.read_text())["explorer"]["cases"]) == n
    more = pd.concat([table, table.assign(cohort="other")], ignore_index=True)
    with pytest.raises(ValueError, match="10000 cases: a page holds 5000"):
        states.explorer_states(more)


@pytest.mark.parametrize("given", [[], "page", [make_viewer, 3]])
def test_what_needs_a_kernel_is_refused_by_name(given, tmp_path):
    with pytest.raises(TypeError, match="expected CT viewers, and at most one AgreementExplorer"):
        page.save_page(given, tmp_path / "a.html")
    assert not list(tmp_path.iterdir())


def test_a_ct_stands_under_its_own_case_or_under_none(measured, tmp_path):
    both = pd.concat([measured, measured.assign(cohort="other")], ignore_index=True)
    text = page.save_page([AgreementExplorer(both), make_viewer(name="X001")],
                          tmp_path / "a.html").read_text()
    assert [one["number"] for one in data_of(text)["viewers"]] == [None]
    text = page.save_page([AgreementExplorer(measured), make_viewer(name="X001"),
                           make_viewer(name="X001"), make_viewer(name="X002")],
                          tmp_path / "b.html").read_text()
    data = data_of(text)
    numbers = [one["number"] for one in data["viewers"]]
    assert numbers[:2] == [None, None]
    assert data["explorer"]["cases"][numbers[2]]["name"] == "X002"
