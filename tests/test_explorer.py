"""The agreement explorer and the question behind it, without a browser."""

import asyncio
import contextlib
import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ipywidgets
import numpy as np
import pandas as pd
import pytest
from docx import Document
from PIL import Image

from deeplung_nb import measurements
from deeplung_nb.report.explore import LeftOut, Question, answer, with_and_without
from deeplung_nb.report.export import export
from deeplung_nb.stats import agreement, correlation, regression, summary
from deeplung_nb.widgets import AgreementExplorer
from tests.cells import shown_in_a_cell

EXAMPLE = Path(__file__).resolve().parent.parent / "results" / "example" / "measurements.csv"


@pytest.fixture(scope="module")
def table():
    return measurements.read(EXAMPLE)


@pytest.fixture
def explorer(tmp_path):
    return AgreementExplorer(EXAMPLE, folder=tmp_path / "exports")


def shown(found, name):
    return found.statistics.set_index("statistic").loc[name]


@pytest.mark.parametrize("scale", agreement.SCALES)
@pytest.mark.parametrize("limits", agreement.LIMITS)
def test_every_number_is_that_of_the_statistics(table, scale, limits):
    question = Question(structure="ggo", scale=scale, limits=limits, confidence=0.9)
    found = answer(table, question)
    pair = measurements.pair(table, "expert", "model", "ggo")
    a, b = pair.reference, pair.test
    expected = agreement.bland_altman(a, b, scale=scale, limits=limits, confidence=0.9)
    assert repr(found.agreement) == repr(expected)
    bias = shown(found, "bias at the mean" if limits == "regression" else "bias")
    np.testing.assert_equal((bias.value, bias.lower, bias.upper, bias.n),
                            (expected.bias, *expected.bias_ci, expected.n))
    assert bias.unit == {"difference": "mL", "percent": "%", "ratio": ""}[scale]
    assert shown(found, "outside the limits").value == expected.percent_outside
    ranks = correlation.spearman(a, b, ci="auto", confidence=0.9)
    rho = shown(found, "Spearman ρ")
    assert (rho.value, rho.lower, rho.upper, rho.p) == (ranks.r, *ranks.ci, ranks.p_value)
    assert shown(found, "Deming slope").value == regression.deming(a, b).slope
    row = summary.agreement_row(pair, 0.9)
    assert shown(found, "concordance (CCC)").value == row["ccc"]
    shift = shown(found, "Hodges–Lehmann shift of the unlike")
    assert shift.value == row["hodges_lehmann"]
    assert shift.n == (a != b).sum()
    assert len(found.figure.points) == 3 * len(pair) + expected.n


def test_cases_are_chosen_and_values_without_a_reading_are_counted(table):
    found = answer(table, Question(structure="high_opacity", value="mean_hu",
                                   where=(("role", "cv"), ("protocol", "contrast"))))
    rows = table.query("role == 'cv' and protocol == 'contrast' and structure == 'high_opacity'")
    both = rows[rows.reader.isin(["expert", "model"])].pivot(
        index="case_id", columns="reader", values="mean_hu")
    assert len(found.pairs) == both.notna().all(axis=1).sum()
    assert found.n_empty == both.isna().any(axis=1).sum() > 0
    assert any("without a value" in note for note in found.notes)
    assert "contrast" in found.text
    assert shown(found, "bias").unit == "HU"


def test_a_case_left_out_is_in_no_number_and_in_every_word(table):
    whole = answer(table, Question(structure="ggo"))
    case = whole.pairs.iloc[7]
    question = Question(structure="ggo", left_out=(
        LeftOut(case.cohort, case.case_id, "moved while breathing"),))
    found = answer(table, question)
    assert len(found.pairs) == len(whole.pairs) - 1
    assert case.case_id not in set(found.pairs.case_id)
    assert found.left_out.case_id.tolist() == [case.case_id]
    rest = whole.pairs.drop(index=7)
    assert found.agreement.bias == pytest.approx((rest.test - rest.reference).mean())
    assert "moved while breathing" in found.text
    assert any("moved while breathing" in note for note in found.notes)
    assert len(found.figure.points) == len(whole.figure.points)  # still to be seen
    both = with_and_without(table, question)
    assert (both["with all: estimate"] == whole.printed["estimate"]).all()
    assert (both["without 1: estimate"] == found.printed["estimate"]).all()
    with pytest.raises(ValueError, match="left out without a reason"):
        LeftOut("phantom", "P001", " ")
    with pytest.raises(ValueError, match="left out, but not in the table: phantom/X"):
        answer(table, replace(question, left_out=(LeftOut("phantom", "X", "why"),)))


def test_where_a_patient_has_several_cases_intervals_are_by_patients(table):
    """Three cases a patient: the figure, the table and the words say the same."""
    order = {case: k for k, case in enumerate(sorted(table.case_id.unique()))}
    grouped = table.assign(patient_id=[f"P{order[case] // 3}" for case in table.case_id])
    found = answer(grouped, Question(structure="ggo"))
    row = summary.agreement_row(found.pairs)
    assert row["independent"] == "patients"
    assert row["n_patients"] == 14
    bias = shown(found, "bias")
    assert (bias.lower, bias.upper) == (row["bias_lower"], row["bias_upper"])
    assert found.agreement.ci == "mover, by patients"
    assert f"bias {bias.value:.1f}".replace("-", "−") in \
        "".join(axes.get_title(loc="left") for axes in found.figure.axes)
    assert "42 pairs of 14 patients" in " ".join(found.notes)
    assert "14 patients" in found.text
    plain = answer(table, Question(structure="ggo"))
    assert plain.agreement.ci == "mover"
    other = answer(grouped, Question(structure="ggo", limits="quantile"))
    assert other.agreement.ci == "order statistics, by patients"
    deming = shown(found, "Deming slope")
    assert deming.lower == regression.deming(
        found.pairs.reference, found.pairs.test, cluster=found.pairs.patient_id).slope_ci[0]


@pytest.mark.parametrize(("wrong", "said"), [
    ({"structure": "heart"}, "structure 'heart': expected one of lung, ggo"),
    ({"value": "dice"}, "value 'dice': expected one of volume_ml"),
    ({"limits": "wide"}, "limits 'wide'"), ({"ci": "wide"}, "ci 'wide'"),
    ({"confidence": 95}, "confidence"), ({"test": "expert"}, "against itself"),
])
def test_a_question_that_has_no_answer_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Question(**wrong)


def test_an_unknown_column_or_reader_is_named(table):
    with pytest.raises(ValueError, match="column 'sex': expected one of"):
        answer(table, Question(where=(("sex", "f"),)))
    with pytest.raises(ValueError, match="reader 'nobody' has no row"):
        answer(table, Question(test="nobody"))


def test_controls_and_question_follow_each_other(explorer):
    # Cross-validation and external cases are pooled when somebody asks for it, and that is said.
    assert explorer.question.where == (("role", "cv"),)
    assert explorer.found.row["n"] == 30
    explorer._controls["structure"].value = "ggo"
    assert explorer.question.structure == "ggo"
    explorer._controls["where role"].value = "all"
    assert explorer.found.row["n"] == 42
    assert "roles together (cv, external)" in explorer._notes.value
    explorer._controls["where role"].value = "external"
    assert "roles together" not in explorer._notes.value
    assert explorer.question.where == (("role", "external"),)
    assert len(explorer.found.pairs) == 12
    assert "12" in explorer._table.value
    before = explorer._picture.png
    explorer._controls["limits"].value = "quantile"
    assert explorer._controls["ci"].disabled
    assert explorer._picture.png != before
    explorer.question = Question(test="unet2d", structure="lesion", scale="percent",
                                 limits="constant")
    assert explorer._controls["test"].value == "unet2d"
    assert explorer._controls["where role"].value == "all"
    assert not explorer._controls["ci"].disabled
    assert "unet2d" in explorer._picture.alt


def test_a_question_without_answer_leaves_a_sentence_and_the_controls(explorer):
    explorer._controls["reference"].value = "model"  # against itself
    assert "against itself" in explorer._message.value
    assert explorer.question.reference == "expert"
    explorer._controls["reference"].value = "expert"
    explorer._controls["test"].value = "unet2d"
    explorer._controls["where role"].value = "external"  # no U-Net read those
    assert "unet2d" in explorer._message.value
    assert explorer.found is None
    assert explorer.export() == []
    explorer._controls["where role"].value = "cv"
    assert explorer._message.value == ""
    assert explorer.found is not None


def test_a_picked_point_opens_its_case(tmp_path, table):
    opened = []
    explorer = AgreementExplorer(table, open_case=lambda *case: opened.append(case))
    explorer._picture._hear(None, {"kind": "pick", "case": 4}, [])
    row = explorer.found.pairs.iloc[4]
    assert explorer.picked == (row.cohort, row.case_id)
    assert opened == [explorer.picked]
    assert row.case_id in explorer._case.children[0].value
    explorer._picture._hear(None, {"kind": "pick", "case": 4000}, [])
    assert len(opened) == 1

    def missing(cohort, case_id):
        raise FileNotFoundError("no images <here>")

    explorer.open_case = missing
    explorer._pick(2)
    assert "no images &lt;here&gt;" in explorer._case.children[1].value


def test_what_did_not_change_is_taken_from_the_answer_before(table):
    first = answer(table, Question(where=(("role", "cv"),)))
    other = answer(table, replace(first.question, scale="ratio", limits="constant"), first)
    assert other.comparison is first.comparison
    anew = answer(table, other.question)
    pd.testing.assert_frame_equal(other.statistics, anew.statistics)
    for changed in ({"structure": "ggo"}, {"where": ()}, {"confidence": 0.9}, {"test": "unet2d"},
                    {"left_out": (LeftOut("phantom", "P001", "moved"),)}, {"plan": "ratio"}):
        assert answer(table, replace(first.question, **changed), first).comparison \
            is not first.comparison, changed


def test_the_picked_case_is_one_and_named_on_the_button(explorer):
    names = explorer.found.pairs["case_id"].tolist()
    explorer._picture._hear(None, {"kind": "pick", "case": 3}, [])
    assert explorer.picked == ("phantom", names[3])
    assert explorer._picture.picked == 3
    assert explorer._leave.description == f"leave out {names[3]}"
    explorer.pick("phantom", names[7])
    assert explorer._picture.picked == 7
    assert explorer._leave.description == f"leave out {names[7]}"
    # Another question: the same case, wherever it stands now; or none.
    explorer._controls["scale"].value = "percent"
    assert explorer.picked == ("phantom", names[7])
    assert explorer._picture.labels[str(explorer._picture.picked)].startswith(
        f"phantom {names[7]}\n")
    explorer._controls["where role"].value = "external"
    assert (explorer.picked, explorer._picture.picked) == ((), -1)
    assert explorer._leave.disabled
    assert explorer._leave.description == "leave out"
    assert explorer._case.children == ()
    explorer.pick("phantom", names[7])  # is not among those shown
    assert explorer.picked == ()


def test_what_was_opened_of_a_case_is_closed_with_the_next_one_also_after_none_was_picked(explorer):
    opened = []

    class Seen(ipywidgets.HTML):
        pass

    def open_case(cohort, case_id):
        opened.append(Seen())
        return opened[-1]

    explorer.open_case = open_case
    names = explorer.found.pairs["case_id"].tolist()
    explorer.pick("phantom", names[0])
    explorer.pick("phantom", "nobody")  # not among those shown
    explorer.pick("phantom", names[1])
    assert [one.comm is None for one in opened] == [True, False]


def test_of_many_cases_those_far_from_the_bias_can_be_pointed_at(monkeypatch):
    monkeypatch.setattr("deeplung_nb.widgets.explorer.MOST_POINTED", 5)
    rng = np.random.default_rng(3)
    a = rng.uniform(10, 100, 40)
    b = a + rng.normal(0, 1, 40)
    b[[4, 17]] += [60, -50]
    wide = pd.DataFrame({"case_id": [f"C{k:02}" for k in range(40)], "expert": a, "model": b})
    explorer = AgreementExplorer(measurements.from_wide(
        wide, {"expert": "expert", "model": "model"}, unit="mL"))
    assert len(explorer._picture.labels) == 5
    assert {"4", "17"} <= set(explorer._picture.labels)
    assert "35 others" in explorer._notes.value
    explorer.pick("table", "C09")  # found by its name
    assert "9" in explorer._picture.labels
    assert explorer.picked == ("table", "C09")


def test_a_page_that_turns_several_controls_is_answered_once(explorer, monkeypatch):
    asked = []
    monkeypatch.setattr(explorer, "_ask", lambda: asked.append(1))
    monkeypatch.setattr("deeplung_nb.widgets.explorer.QUIET_SECONDS", 0.01)

    async def page():
        for value in ("ratio", "percent", "difference", "ratio"):
            explorer._controls["scale"].value = value
        assert explorer._picture.busy  # said at once
        await asyncio.sleep(0.1)

    asyncio.run(page())
    assert asked == [1]


def test_leaving_out_and_taking_back_by_buttons(explorer):
    n = len(explorer.found.pairs)
    assert explorer._leave.disabled
    explorer._pick(3)
    explorer._leave.click()
    assert "without a reason" in explorer._message.value
    explorer._reason.value = "motion"
    explorer._leave.click()
    assert len(explorer.found.pairs) == n - 1
    explorer._beside.value = True
    assert "without 1: estimate" in explorer._table.value
    assert "motion" in explorer._back.children[0].children[1].value
    explorer._back.children[0].children[0].click()
    assert len(explorer.found.pairs) == n
    assert "without 1" not in explorer._table.value


def test_names_and_reasons_of_others_are_text_not_markup(table, tmp_path):
    named = table.replace({"case_id": {"P001": "<img src=x>"}, "cohort": {"phantom": "<b>c</b>"}})
    explorer = AgreementExplorer(named, folder=tmp_path)
    explorer.leave_out("<b>c</b>", "<img src=x>", "<script>moved</script>")
    said = explorer._back.children[0].children[1].value
    for word in ("&lt;img src=x&gt;", "&lt;b&gt;c&lt;/b&gt;", "&lt;script&gt;moved"):
        assert word in said
    for page in (said, explorer._notes.value, explorer._table.value):
        assert not re.search(r"<(img|script|b>c)", page)


def run_cell(code):
    """The exported cell's answer, as a script would make it."""
    space = {}
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(code, space)
    return space["found"], said.getvalue()


@pytest.mark.nightly
def test_the_exported_cell_makes_all_numbers_again(explorer):
    explorer._controls["structure"].value = "ggo"
    explorer._controls["where role"].value = "cv"
    explorer._controls["scale"].value = "percent"
    explorer._controls["limits"].value = "regression"
    explorer._controls["confidence"].value = 0.9
    explorer._pick(5)
    explorer.leave_out(*explorer.picked, 'it\'s "odd"')
    files = explorer.export()
    again, said = run_cell(next(p for p in files if p.suffix == ".py").read_text())
    pd.testing.assert_frame_equal(again.statistics, explorer.found.statistics, check_exact=True)
    assert again.question == explorer.question
    assert said.startswith(explorer.found.text)
    assert explorer.found.printed.to_string(index=False) in said
    pictures = [np.asarray(Image.open(io.BytesIO(found.figure.png())), float)
                for found in (again, explorer.found)]
    assert np.abs(pictures[0] - pictures[1]).mean() < 0.5  # the layout's last digits are chance


def test_exports_tell_what_was_left_out_and_replace_nothing(explorer):
    explorer._pick(5)
    explorer.leave_out(*explorer.picked, "moved")
    first, second = explorer.export(), explorer.export()
    assert not set(first) & set(second)
    by_suffix = {path.suffix: path for path in first}
    assert set(by_suffix) == {".csv", ".tex", ".docx", ".txt", ".py", ".pdf", ".svg", ".png"}
    for suffix in (".csv", ".tex", ".txt", ".py"):
        assert "moved" in by_suffix[suffix].read_text(encoding="utf-8"), suffix
    document = Document(str(by_suffix[".docx"]))
    assert any("moved" in paragraph.text for paragraph in document.paragraphs)
    assert document.tables
    csv = pd.read_csv(by_suffix[".csv"])
    n = len(explorer.found.statistics)
    np.testing.assert_array_equal(csv["value"][:n], explorer.found.statistics["value"])
    assert by_suffix[".png"].read_bytes().startswith(b"\x89PNG")


def test_two_columns_of_a_csv_are_enough(tmp_path):
    path = tmp_path / "readings.csv"
    path.write_text("manual,auto\n0,0\n1.5,2\n3,2.5\n8,9\n4,\n")
    with pytest.raises(ValueError, match="unit of the volumes: not said"):
        AgreementExplorer.from_csv(path)
    explorer = AgreementExplorer.from_csv(path, unit="mL")
    assert explorer.question == Question(reference="manual", test="auto", structure="lesion")
    assert len(explorer.found.pairs) == 4
    assert any("1 not read by both" in note for note in explorer.found.notes)
    again, _ = run_cell(explorer.code)
    pd.testing.assert_frame_equal(again.statistics, explorer.found.statistics)
    named = tmp_path / "named.csv"
    named.write_text("case_id,patient_id,a,b,c\nx,1,1,2,3\ny,2,4,5,6\n")
    with pytest.raises(ValueError, match=r"numeric columns a, b, c; expected two, or say which"):
        AgreementExplorer.from_csv(named)
    three = AgreementExplorer.from_csv(named, {"one": "a", "two": "c"}, unit="L")
    assert three.found.agreement.bias == 2000.0
    again, _ = run_cell(three.code)
    assert again.agreement == three.found.agreement


def test_the_cells_by_which_a_column_is_none_of_readings_are_named(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("case_id;manual;auto;site\nA;1.5;2;north\nB;3;see note;south\nC;4;5;north\n")
    with pytest.raises(ValueError, match="numeric columns manual; expected two") as caught:
        AgreementExplorer.from_csv(path, unit="mL")
    assert "Column 'auto' would be one but for 1 of its cells: row 2: 'see note' is no number" \
        in str(caught.value)
    assert "site" not in str(caught.value)


def test_a_table_of_one_reader_is_refused(table):
    with pytest.raises(ValueError, match="readers: expert; expected two or more"):
        AgreementExplorer(table[table.reader == "expert"])


def test_it_needs_no_torch_and_no_reader_of_images(tmp_path):
    code = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "monai", "SimpleITK", "pydicom", "nibabel", "k3d"):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from deeplung_nb.widgets import AgreementExplorer
print(len(AgreementExplorer({str(EXAMPLE)!r}, folder={str(tmp_path)!r}).export()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "8", done.stderr


def test_where_no_widget_can_live_a_picture_and_words_stand(explorer):
    (data, _), _ = shown_in_a_cell(explorer)
    assert explorer._picture.mark in data["image/png"]
    assert "30 pairs" in data["text/plain"]


def test_a_file_is_answered_and_exported_without_a_notebook_and_the_script_runs(tmp_path):
    (tmp_path / "mine.csv").write_text(
        "Patient;Scan;manual;auto\n1;1;10,5;11\n1;2;20;22\n2;1;<0,5;0\n3;1;30;-\n4;1;44;40\n"
        "5;1;12;13\n6;1;0;0\n7;1;;9\n")
    found = answer(measurements.read_table(
        tmp_path / "mine.csv", {"expert": "manual", "model": "auto"}, unit="mL",
        case_id=["Patient", "Scan"], below="half", unread=["-"]), Question())
    assert "5 patients" in found.text
    assert "2 cases not read by both could not be compared" in found.text
    assert "failed" not in found.text
    paths = {path.suffix: path for path in export(found, tmp_path)}
    done = subprocess.run([sys.executable, str(paths[".py"])], capture_output=True, text=True,
                          check=True, cwd=tmp_path)
    assert done.stdout.startswith(found.text)
    bare = answer(measurements.from_wide(
        pd.DataFrame({"a": [1.0, 2, 3], "b": [1.0, 2, 4]}), {"expert": "a", "model": "b"},
        unit="mL", case_id=None), Question())
    assert "table = ...  # put here how the table is made" in bare.code


def test_two_scans_or_days_are_readings(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("Fall-Nr,scan 1,scan 2\n1,1.5,2\n2,3,3.5\n3,4,5\n4,2,2\n")
    assert AgreementExplorer.from_csv(path, unit="mL").question.test == "scan 2"


@pytest.mark.parametrize("table", [
    "Fall-Nr;Experte;KI\n1;1,5;2\n2;3;-\n3;4,5;5\n4;2;2\n",
    "Nr,manual,auto\n1,1.5,2\n2,3,k.A.\n3,4,5\n4,2,2\n",
    "patient,age,manual,auto\na,60,1.5,2\nb,61,3,<0.5\nc,65,4,5\nd,70,2,2\n",
    "Fall;Leser;Volumen\n1;AB;1,5\n1;CD;2\n2;AB;3\n2;CD;4\n"])
def test_a_number_of_a_case_or_an_age_is_no_reader(tmp_path, table):
    path = tmp_path / "mine.csv"
    path.write_text(table)
    with pytest.raises(ValueError, match=r"look.s. like none; expected two, or say which"):
        AgreementExplorer.from_csv(path, unit="mL")
