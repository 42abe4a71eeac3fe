"""The table contract: what it refuses, what it keeps to the last bit, how it pairs."""

import re
import zipfile

import numpy as np
import openpyxl
import pandas as pd
import pytest

from deeplung_nb import measurements
from deeplung_nb.measurements import COLUMNS, MeasurementsError
from deeplung_nb.measurements.contract import ADDED
from deeplung_nb.report.prose import report_text


def rows(case_id="007", cohort="site", status="ok", **values):
    """Expert's and model's row of one case."""
    both = []
    for reader, voxels in (("expert", 1000), ("model", 1100)):
        row = dict.fromkeys(COLUMNS)
        row.update(run_id="r", cohort=cohort, role="cv", case_id=case_id, patient_id="p",
                   protocol="contrast", scanner="Ä 64", fold=0, reader=reader,
                   structure="lesion", status=status)
        if status == "ok":
            row.update(n_voxels=voxels, voxel_mm3=0.1, volume_ml=voxels * 0.1 / 1000,
                       n_slices=20, slices_with=3)
            if reader == "model":
                row.update(tp=900, fp=200, fn=100, tn=5, dice=1800 / 2100)
        row.update(values)
        both.append(row)
    return both


def table(*parts):
    return pd.DataFrame([row for part in parts for row in part])


def test_a_file_reads_back_to_the_last_bit(tmp_path):
    frame = table(rows(), rows("10", volume_ml=None, burden_percent=0.1 + 0.2, n_voxels=None),
                  rows("x", status="failed", note="no lung, \"none\"\nat all"))
    path = measurements.write(frame, tmp_path / "measurements.csv")
    back = measurements.read(path)
    first = back[(back.case_id == "007") & (back.reader == "model")].iloc[0]
    assert first.dice == 1800 / 2100
    assert (back.loc[back.case_id == "10", "burden_percent"] == 0.1 + 0.2).all()
    assert first.scanner == "Ä 64"
    assert back.n_voxels.dtype == "Int64"
    assert back.loc[back.case_id == "x", "n_voxels"].isna().all()
    assert back.loc[back.case_id == "x", "note"].iloc[0] == "no lung, \"none\"\nat all"


def test_the_same_rows_give_the_same_bytes_in_any_order(tmp_path):
    frame = table(rows(), rows("10"), rows("2", cohort="a"))
    one = measurements.write(frame, tmp_path / "one.csv").read_bytes()
    other = measurements.write(frame.sample(frac=1, random_state=1)[list(COLUMNS)[::-1]],
                               tmp_path / "other.csv").read_bytes()
    again = measurements.write(measurements.read(tmp_path / "one.csv"), tmp_path / "again.csv")
    assert one == other == again.read_bytes()
    assert b"\r" not in one
    assert one.decode("utf-8").splitlines()[0] == ",".join(COLUMNS)


def test_a_refused_table_leaves_the_old_file(tmp_path):
    path = measurements.write(table(rows()), tmp_path / "measurements.csv")
    before = path.read_bytes()
    with pytest.raises(MeasurementsError):
        measurements.write(table(rows(volume_ml=-1)), path)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["measurements.csv"]


def test_all_faults_are_named_at_once():
    frame = table(rows(), rows(), rows("neg", volume_ml=-1.0, n_voxels=None),
                  rows("odd", structure="liver", role="train", status="maybe"),
                  rows("", volume_ml=None), rows("half", n_slices=1.5))
    with pytest.raises(MeasurementsError) as caught:
        measurements.check(frame)
    text = str(caught.value)
    for words in ("repeated: site/007/expert/lesion", "negative: site/neg", "unknown liver",
                  "unknown train", "unknown maybe", "'case_id': empty", "not a count in site/half"):
        assert words in text
    assert len(caught.value.faults) >= 7


def test_missing_columns_are_named():
    with pytest.raises(MeasurementsError, match=r"missing column.*dice.*nsd"):
        measurements.check(table(rows()).drop(columns=["dice", "nsd"]))


@pytest.mark.parametrize(("values", "words"), [
    ({"dice": 0.5}, "overlap given for the expert"),
    ({"dice": 1.5}, "outside 0 to 1"),
    ({"volume_ml": float("inf")}, "not a number"),
    ({"volume_ml": "much"}, "not a number"),
    ({"volume_ml": 7.0}, "volume_ml is not n_voxels"),
    ({"volume_ml": None}, "status ok without"),
    ({"status": "failed", "n_voxels": 1}, "status failed, yet with values"),
    ({"slices_with": 21}, "more slices"),
    ({"tp": 1, "fp": 1, "fn": 1}, "dice is not 2 tp"),
    ({"tp": 0, "fp": 0, "fn": 0}, "both masks are empty"),
])
def test_a_row_that_contradicts_itself_is_refused(values, words):
    with pytest.raises(MeasurementsError, match=words):
        measurements.check(table(rows(**values)))


def test_pairing_leaves_out_failed_cases_and_counts_them():
    frame = table(rows("a"), rows("b", status="failed"), rows("c"))
    pairs = measurements.pair(frame, "expert", "model", "lesion")
    assert list(pairs.case_id) == ["a", "c"]
    assert (pairs.test - pairs.reference).tolist() == pytest.approx([0.01, 0.01])
    assert pairs.attrs["n_failed"] == 1
    assert pairs.attrs["failed"] == ["site/b"]


def test_pairing_names_unmatched_cases():
    frame = table(rows("a"), rows("lone")[:1], rows("other")[1:])
    with pytest.raises(MeasurementsError, match=r"'expert' only: site/lone\n.*'model' only: "
                                                "site/other"):
        measurements.pair(frame, "expert", "model", "lesion")
    pairs = measurements.pair(frame, "expert", "model", "lesion", unmatched="drop")
    assert list(pairs.case_id) == ["a"]
    assert pairs.attrs["unmatched"] == ["site/lone", "site/other"]


def test_pairing_goes_by_case_and_not_by_order():
    frame = table(rows("b", volume_ml=2.0, n_voxels=None), rows("a"))
    frame = frame.iloc[[0, 3, 2, 1]]
    pairs = measurements.pair(frame, "expert", "model", "lesion")
    assert list(pairs.case_id) == ["a", "b"]
    assert pairs.reference.tolist() == pytest.approx([0.1, 2.0])


def test_pairing_says_which_readers_there_are():
    with pytest.raises(MeasurementsError, match=r"'ensemble' has no row.*expert, model"):
        measurements.pair(table(rows()), "expert", "ensemble", "lesion")
    with pytest.raises(MeasurementsError, match="structure 'liver'"):
        measurements.pair(table(rows()), "expert", "model", "liver")


def test_the_same_case_number_in_two_cohorts_is_two_cases():
    frame = table(rows("1", cohort="a"), rows("1", cohort="b"))
    assert len(measurements.pair(frame, "expert", "model", "lesion")) == 2
    assert len(measurements.pair(frame, "expert", "model", "lesion", cohort="a")) == 1


def test_pairs_keep_an_empty_value_and_count_it():
    pairs = measurements.pair(table(rows()), "expert", "model", "lesion", value="burden_percent")
    assert pairs.reference.isna().all()
    assert pairs.attrs["n_missing"] == 1


def test_a_wide_table_of_readings_becomes_measurements(tmp_path):
    wide = pd.DataFrame({"case_id": [1, 2, 3], "manual": [0.0, 1.5, 2.0],
                         "auto": [0.5, np.nan, 2.0], "protocol": ["contrast"] * 3})
    frame = measurements.from_wide(wide, {"expert": "manual", "model": "auto"}, unit="mL",
                                   structure="ggo")
    pairs = measurements.pair(measurements.read(measurements.write(frame, tmp_path / "m.csv")),
                              "expert", "model", "ggo")
    assert list(pairs.case_id) == ["1", "3"]
    assert (pairs.attrs["unread"], pairs.attrs["n_unread"]) == (["table/2"], 1)
    assert pairs.attrs["failed"] == []
    with pytest.raises(MeasurementsError, match="automatic"):
        measurements.from_wide(wide, {"expert": "manual", "model": "automatic"}, unit="mL")


@pytest.mark.parametrize(("name", "sep"), [("r.csv", ","), ("r.csv", ";"), ("r.tsv", "\t"),
                                           ("r.xlsx", "")])
def test_a_bare_file_with_two_columns_is_enough(tmp_path, name, sep):
    wide = pd.DataFrame({"manual": [1000, 2500.5, 0], "automatic": [1100, 2400, 3]})
    path = tmp_path / name
    if sep:
        wide.to_csv(path, sep=sep, index=False)
    else:
        wide.to_excel(path, index=False)
    frame = measurements.from_wide(path, {"expert": "manual", "model": "automatic"}, unit="mm3",
                                   case_id=None)
    pairs = measurements.pair(frame, "expert", "model", "lesion")
    assert pairs.case_id.tolist() == ["1", "2", "3"]
    np.testing.assert_allclose(pairs.reference, [1, 2.5005, 0], rtol=1e-15)
    np.testing.assert_allclose(pairs.test, [1.1, 2.4, 0.003], rtol=1e-15)


def test_readings_that_are_no_volumes_are_named(tmp_path):
    def read(wide, **options):
        return measurements.from_wide(wide, {"expert": "a", "model": "b"},
                                      **{"unit": "mL", "case_id": None, **options})

    with pytest.raises(MeasurementsError, match=r"table/2/expert"):
        read(pd.DataFrame({"a": [1.0, -2.0], "b": [1.0, 2.0]}))
    with pytest.raises(ValueError, match=r"column 'b', row 2: 'about 3' is no number"):
        read(pd.DataFrame({"a": ["1.5", "2"], "b": ["1", "about 3"]}))
    with pytest.raises(ValueError, match="unit='pint': expected one of mL, cm3"):
        read(pd.DataFrame({"a": [1.0], "b": [2.0]}), unit="pint")
    with pytest.raises(ValueError, match="no such file"):
        read(tmp_path / "absent.csv")
    (tmp_path / "no.xlsx").write_text("not Excel")
    with pytest.raises(ValueError, match=r"no\.xlsx: not a table"):
        read(tmp_path / "no.xlsx")


@pytest.mark.parametrize("name", ["ml", "ML", "cc", "cm³", " mL "])
def test_a_unit_is_known_in_any_case_of_letters(name):
    wide = pd.DataFrame({"a": [2.0], "b": [3.0]})
    frame = measurements.from_wide(wide, {"expert": "a", "model": "b"}, unit=name, case_id=None)
    assert frame.volume_ml.tolist() == [2.0, 3.0]


def test_a_unit_of_volumes_must_be_said():
    wide = pd.DataFrame({"a": [2.0], "b": [3.0]})
    with pytest.raises(ValueError, match=r"unit of the volumes: not said.*unit='mL'"):
        measurements.from_wide(wide, {"expert": "a", "model": "b"}, case_id=None)
    burden = measurements.from_wide(wide, {"expert": "a", "model": "b"}, value="burden_percent",
                                    case_id=None)
    assert burden.burden_percent.tolist() == [2.0, 3.0]


@pytest.mark.parametrize(("texts", "decimal", "read"), [
    (["1,5", "2"], None, [1.5, 2.0]),
    (["1.234,5", "1.234"], None, [1234.5, 1234.0]),
    (["1,234.5", "1,234"], None, [1234.5, 1234.0]),
    (["1 234,5", "0,123"], None, [1234.5, 0.123]),
    (["1'234.5", "7"], None, [1234.5, 7.0]),
    (["1.234", "5"], None, [1.234, 5.0]),
    (["1,234", "5"], ",", [1.234, 5.0]),
    (["1,234", "5"], ".", [1234.0, 5.0]),
    (["1.5e3", "+.5"], None, [1500.0, 0.5]),
])
def test_numbers_are_read_as_people_write_them(texts, decimal, read):
    wide = pd.DataFrame({"a": texts, "b": ["1", "1"]})
    frame = measurements.from_wide(wide, {"expert": "a", "model": "b"}, unit="mL", case_id=None,
                                   decimal=decimal)
    assert frame.loc[frame.reader == "expert", "volume_ml"].tolist() == read


@pytest.mark.parametrize(("texts", "decimal", "said"), [
    (["7", "1,234"], None, "row 2: '1,234' may have a decimal comma, or thousands. Say which"),
    (["1,5", "1.5"], None, "row 2: '1.5' is no number"),
    (["12,34.5", "1"], None, "row 1: '12,34.5' is no number"),
    (["1_000", "1"], None, "row 1: '1_000' is no number"),
    (["1,5", "1"], ".", "row 1: '1,5' is no number"),
    (["1,5", "1"], "comma", "decimal='comma': expected '.' or ','"),
])
def test_a_number_that_may_be_two_is_asked_about(texts, decimal, said):
    wide = pd.DataFrame({"a": texts, "b": ["1", "1"]})
    with pytest.raises(ValueError, match=re.escape(said)):
        measurements.from_wide(wide, {"expert": "a", "model": "b"}, unit="mL", case_id=None,
                               decimal=decimal)


def test_names_of_cases_stay_as_they_are_written(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("case_id,a,b\n001,1,2\n01,3,4\n1,5,6\nNA,7,NA\n")
    frame = measurements.from_wide(path, {"expert": "a", "model": "b"}, unit="mL")
    assert frame.case_id.tolist()[:4] == ["001", "01", "1", "NA"]
    unread = frame[frame.status == "unread"]
    assert unread[["case_id", "reader"]].to_numpy().tolist() == [["NA", "model"]]
    excel = tmp_path / "r.xlsx"
    pd.DataFrame({"case_id": ["001", "1", "NA"], "a": [1, 2, 3], "b": [1, 2, None]}).to_excel(
        excel, index=False)
    frame = measurements.from_wide(excel, {"expert": "a", "model": "b"}, unit="mL")
    assert frame.case_id.tolist()[:3] == ["001", "1", "NA"]


def test_a_table_of_one_column_is_not_split_inside_its_name(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("volume_ml\n1.5\n2.5\n")
    frame = measurements.from_wide(path, {"expert": "volume_ml"}, unit="mL", case_id=None)
    assert frame.volume_ml.tolist() == [1.5, 2.5]


def test_a_long_table_is_the_wide_one_turned(tmp_path):
    wide = pd.DataFrame({"case_id": ["x", "y"], "patient_id": ["p", "p"], "a": [1.0, 2.0],
                         "b": [1.5, None]})
    long = wide.melt(["case_id", "patient_id"], var_name="who", value_name="ml").replace(
        {"who": {"a": "expert", "b": "model"}})
    path = tmp_path / "long.csv"
    long.to_csv(path, index=False, sep=";", decimal=",")
    found = measurements.from_long(path, reader="who", reading="ml", unit="mL")
    expected = measurements.from_wide(wide, {"expert": "a", "model": "b"}, unit="mL")
    pd.testing.assert_frame_equal(found.drop(columns="run_id"), expected.drop(columns="run_id"))
    with pytest.raises(MeasurementsError, match=r"missing column.*reader.*has case_id"):
        measurements.from_long(path, reading="ml", unit="mL")
    with pytest.raises(MeasurementsError, match="x/expert/lesion"):
        measurements.from_long(pd.concat([long, long]), reader="who", reading="ml", unit="mL")


def test_a_case_without_a_name_is_refused():
    wide = pd.DataFrame({"case_id": ["x", None], "a": [1.0, 2.0], "b": [1.0, 2.0]})
    with pytest.raises(MeasurementsError, match="column 'case_id': empty in row"):
        measurements.from_wide(wide, {"expert": "a", "model": "b"}, unit="mL")


@pytest.fixture
def messy(shared_data):
    path = shared_data("README.md").parent.parent / "cases/statistics/messy_two_readers.csv"
    if not path.is_file():
        pytest.skip(f"no case at {path}")
    return path


def test_all_cells_that_are_no_numbers_are_named_at_once_with_a_way_to_read_them(messy):
    given = {"readers": {"A": "Reader A (ml)", "B": "Reader B (ml)"}, "unit": "mL",
             "case_id": ["Patient", "Scan"]}
    with pytest.raises(ValueError, match="2 cells are no numbers") as said:
        measurements.read_table(messy, **given)
    for words in ("column 'Reader A (ml)', row 10: '<0,5'", "column 'Reader B (ml)', row 11: '-'",
                  "below='zero', 'half' or 'limit'", "unread=['-']"):
        assert words in str(said.value).replace("Say", "say")
    table = measurements.read_table(messy, below="half", unread=["-"], **given)
    pairs = measurements.pair(table, "A", "B", "lesion")
    assert pairs.set_index("case_id").loc["P09/1", "reference"] == 0.25
    assert pairs.set_index("case_id").loc["007/1", "reference"] == 1234.5
    assert pairs.attrs["unread"] == ["table/P07/1", "table/P08/1", "table/P10/1"]
    assert pairs.attrs["n_failed"] == 0
    assert pairs.patient_id.nunique() == len(pairs) - 1  # 007 has two scans


@pytest.mark.parametrize(("below", "read"), [("zero", 0.0), ("half", 0.25), ("limit", 0.5)])
def test_what_lies_below_a_limit_counts_as_said(below, read):
    frame = measurements.from_wide(pd.DataFrame({"a": ["< 0,5", "2"], "b": ["1,5", "1"]}),
                                   {"e": "a", "m": "b"}, unit="mL", case_id=None, below=below)
    assert frame.volume_ml.tolist() == [read, 2.0, 1.5, 1.0]
    with pytest.raises(ValueError, match="below='nil': expected one of 'zero', 'half', 'limit'"):
        measurements.from_wide(pd.DataFrame({"a": [1], "b": [2]}), {"e": "a", "m": "b"},
                               unit="mL", case_id=None, below="nil")


def test_a_case_named_by_two_columns_is_asked_about_and_read():
    wide = pd.DataFrame({"Patient": ["a", "a", "b"], "Scan": [1, 2, 1], "A": [1.0, 2, 3],
                         "B": [1.0, 2, 4]})
    given = {"readers": {"e": "A", "m": "B"}, "unit": "mL"}
    with pytest.raises(MeasurementsError, match=r"case_id=\['Patient', 'Scan'\]"):
        measurements.from_wide(wide, case_id="Scan", **given)
    found = measurements.from_wide(wide, case_id=["Patient", "Scan"], **given)
    assert found.case_id.tolist()[:3] == ["a/1", "a/2", "b/1"]
    assert found.patient_id.tolist()[:3] == ["a", "a", "b"]


@pytest.mark.parametrize("names", [["Mean", "SD"], ["mean:", " Total "], ["Mittelwert", "Min."]])
def test_rows_that_are_sums_of_the_others_are_asked_about(names):
    wide = pd.DataFrame({"case_id": ["1", "2", *names], "A": [1.0, 3, 2, 1], "B": [1.0, 3, 2, 1]})
    given = {"readers": {"e": "A", "m": "B"}, "unit": "mL"}
    with pytest.raises(MeasurementsError, match=r"row 3.*row 4.*summary_rows='drop'"):
        measurements.from_wide(wide, **given)
    dropped = measurements.from_wide(wide, summary_rows="drop", **given)
    assert sorted(set(dropped.case_id)) == ["1", "2"]
    assert len(measurements.from_wide(wide, summary_rows="keep", **given)) == 8
    tall = wide.melt("case_id", ["A", "B"], "reader", "ml")
    with pytest.raises(MeasurementsError, match="summary_rows"):
        measurements.from_long(tall, reading="ml", unit="mL")
    with pytest.raises(ValueError, match="summary_rows='no'"):
        measurements.from_wide(wide, summary_rows="no", **given)


def test_one_reader_in_two_spellings_is_asked_about():
    tall = pd.DataFrame({"case_id": [1, 1, 2, 2], "reader": ["expert ", "ai", "Expert", "ai"],
                         "ml": [1.0, 2, 3, 4]})
    with pytest.raises(MeasurementsError, match=r"'Expert', 'expert ' differ .* are they one\?"
                       r" Say names=\{'expert ': 'Expert'\}"):
        measurements.from_long(tall, reading="ml", unit="mL")
    one = measurements.from_long(tall, reading="ml", unit="mL", names={"expert ": "Expert"})
    assert sorted(set(one.reader)) == ["Expert", "ai"]
    two = measurements.from_long(tall, reading="ml", unit="mL", names={})
    assert len(set(two.reader)) == 3


def test_a_file_of_any_shape_is_read_by_one_function(tmp_path):
    wide = tmp_path / "wide.csv"
    wide.write_text("case_id,A,B\n1,2,3\n2,4,5\n")
    found = measurements.read_table(wide, {"e": "A", "m": "B"}, unit="mL")
    tall = tmp_path / "tall.csv"
    tall.write_text("case_id,who,ml\n1,e,2\n2,e,4\n1,m,3\n2,m,5\n")
    same = measurements.read_table(tall, reading="ml", reader="who", unit="mL")
    assert same.volume_ml.tolist() == found.volume_ml.tolist()
    ours = measurements.write(found, tmp_path / "measurements.csv")
    assert sorted(measurements.read_table(ours).volume_ml) == sorted(found.volume_ml)
    with pytest.raises(ValueError, match=r"its columns are case_id, A, B\. Say which"):
        measurements.read_table(wide)
    with pytest.raises(ValueError, match="give one of them"):
        measurements.read_table(wide, {"e": "A"}, reading="B")


def test_a_file_of_before_the_newer_columns_is_still_read(tmp_path):
    path = measurements.write(table(rows("a")), tmp_path / "new.csv")
    old = pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns=list(ADDED))
    old.to_csv(tmp_path / "old.csv", index=False)
    pd.testing.assert_frame_equal(measurements.read(tmp_path / "old.csv"), measurements.read(path))


# --- tables whose makers never read our docs ---

def two(columns, **options):
    return measurements.from_wide(pd.DataFrame(columns), {"expert": "E", "model": "K"}, unit="mL",
                                  case_id=None, **options)


def test_a_point_that_may_separate_thousands_is_told():
    with pytest.warns(UserWarning, match=r"'1.250' is read as a number with decimals"):
        found = two({"E": ["1.250", "500"], "K": ["1.234", "480"]})
    assert found.volume_ml.tolist() == [1.25, 500.0, 1.234, 480.0]
    assert two({"E": ["1.250", "500"], "K": ["1.234", "480"]}, decimal=",").volume_ml.max() == 1250


@pytest.mark.parametrize("name", ["Pat.-Nr.", "PatNr", "Pat ID", "PatientenID", "Patienten-ID",
                                  "Patientennummer", "Paciente", "MRN", "Subject No",
                                  "patient_code"])
def test_the_patient_is_found_under_names_that_people_give(name):
    found = two({name: ["a", "a", "b"], "E": [1.0, 2, 3], "K": [1.0, 2, 3]})
    assert found.patient_id.nunique() == 2


@pytest.mark.parametrize("name", ["Patrol", "pattern", "personnel", "patient age", "side"])
def test_other_columns_are_no_patients(name):
    found = two({name: ["a", "a", "b"], "E": [1.0, 2, 3], "K": [1.0, 2, 3]})
    assert found.patient_id.nunique() == 3


def test_a_unit_in_a_columns_name_that_is_another_one_is_refused():
    table = pd.DataFrame({"manual (mm3)": [420300.0], "auto_mL": [408.9], "KI [L]": [0.4],
                          "lobe L": [3.0]})
    for column, unit in (("manual (mm3)", "mL"), ("auto_mL", "L"), ("KI [L]", "cc")):
        with pytest.raises(MeasurementsError, match=r"says (mm3|ml|l), but its readings would be"):
            measurements.from_wide(table, {"expert": column}, unit=unit, case_id=None)
    with pytest.raises(MeasurementsError, match="says ml"):
        measurements.from_wide(table, {"expert": "auto_mL"}, value="burden_percent", case_id=None)
    for column, unit in (("manual (mm3)", "mm³"), ("auto_mL", "cm3"), ("lobe L", "mL")):
        measurements.from_wide(table, {"expert": column}, unit=unit, case_id=None)


def test_patients_spelt_in_two_ways_and_burdens_beyond_the_lungs_are_told():
    with pytest.warns(UserWarning, match="patients 'P0', 'P0 ', 'p0' differ by case or spaces"):
        two({"Patient": ["P0", "p0", "P0 "], "E": [1.0, 2, 3], "K": [1.0, 2, 3]})
    with pytest.warns(UserWarning, match=r"1 burden\(s\) above 100 %, the highest 378.7 %"):
        measurements.from_wide(pd.DataFrame({"E": [378.7, 2.0]}), {"expert": "E"},
                               value="burden_percent", case_id=None)


def test_readings_below_a_limit_are_counted_in_the_text():
    table = two({"E": ["<0,5", "2,5", "7,0"], "K": ["1,0", "2,0", "6,5"]}, below="half")
    pairs = measurements.pair(table, "expert", "model", "lesion")
    assert pairs.attrs["below"] == ["expert: below the limit 0,5, counted as half of it"]
    assert "1 reading below the limit of what can be told was counted as half of it." \
        in report_text(pairs)


def test_a_text_names_the_readers_and_the_value_that_were_paired():
    table = measurements.from_wide(
        pd.DataFrame({"AB": [1.0, 2, 3, 5], "CD": [1.0, 2, 4, 4]}), {"AB": "AB", "CD": "CD"},
        value="burden_percent", case_id=None)
    text = report_text(measurements.pair(table, "AB", "CD", "lesion", value="burden_percent"))
    assert "Paired readings of burden (%) by reader “AB” and reader “CD”" in text
    assert "mL" not in text
    assert "the expert" not in text


def test_an_interval_of_a_shift_says_which_confidence_so_few_pairs_can_give():
    few = pd.DataFrame({"reference": [1.0, 2, 3], "test": [2.0, 4, 6.5]})
    assert "(75 % CI 1" in report_text(few)
    assert "Hodges–Lehmann shift over all 1 case 1.00 mL (no interval from one difference)" \
        in report_text(few[:1])
    assert "none of which could be run" in report_text(few[:1])


def test_a_formula_without_its_value_is_no_empty_reading(tmp_path):
    book = openpyxl.Workbook()
    for row in (["case_id", "E", "K"], ["a", 1.0, "=B2*2"], ["b", None, 3.0]):
        book.active.append(row)
    book.save(tmp_path / "made.xlsx")
    with pytest.raises(ValueError, match=r"cell.s. C2 hold a formula without its value"):
        measurements.read_table(tmp_path / "made.xlsx", {"expert": "E", "model": "K"}, unit="mL")
    book.active["C2"] = 2.0
    book.save(tmp_path / "saved.xlsx")
    found = measurements.read_table(tmp_path / "saved.xlsx", {"expert": "E", "model": "K"},
                                    unit="mL")
    assert (found.status == "unread").sum() == 1


def test_an_empty_answer_of_a_formula_in_a_sheet_that_was_computed_is_no_reading(tmp_path):
    book = openpyxl.Workbook()
    for row in (["case_id", "E", "K"], ["a", 1.0, "=B2*2"], ["b", 4.0, '=IF(B3>3,"",B3)']):
        book.active.append(row)
    book.save(tmp_path / "made.xlsx")
    with zipfile.ZipFile(tmp_path / "made.xlsx") as made, \
            zipfile.ZipFile(tmp_path / "computed.xlsx", "w") as computed:
        for name in made.namelist():  # as a program that computes stores it
            computed.writestr(name, re.sub(rb"(<f>B2\*2</f>)(<v ?/>|<v></v>)", rb"\1<v>2</v>",
                                           made.read(name)))
    found = measurements.read_table(tmp_path / "computed.xlsx", {"expert": "E", "model": "K"},
                                    unit="mL")
    assert found.query("reader == 'model'").volume_ml.fillna(-1).tolist() == [2.0, -1.0]
    assert (found.status == "unread").sum() == 1
