"""Sheets as strangers keep them: titles above the names, merged cells, columns of other names."""

import warnings

import numpy as np
import openpyxl
import pandas as pd
import pytest

from deeplung_nb import measurements
from deeplung_nb.measurements.spreadsheets import CsvError, read_csv, read_sheet
from deeplung_nb.runs.resources import shipped

READERS = {"expert": "A", "model": "B"}


def sheet(path, rows, merged=()):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for cells in merged:
        book.active.merge_cells(cells)
    book.save(path)
    return path


def readings(n=6):
    return [[f"p{k}", 10.0 + k, 11.5 + k] for k in range(n)]


@pytest.mark.parametrize("above", [
    [["Volumes of the study", None, None], []],
    [[None, "Volume (mL)", None]],
    [["Volumes", None, None], ["2020", None, None], [None, "read by", None]],
])
def test_a_title_above_the_names_is_told_with_a_remedy_that_works(tmp_path, above):
    path = sheet(tmp_path / "titled.xlsx", [*above, ["case", "A", "B"], *readings()])
    with pytest.raises(CsvError, match=rf"row {len(above) + 1} looks like them"):
        measurements.read_table(path, READERS, unit="mL", case_id="case")
    with pytest.raises(CsvError, match=rf"header={len(above)}\)") as refused:
        read_sheet(path)
    remedy = str(refused.value).rpartition(": ")[2]
    found = measurements.read_table(eval(remedy, {"pd": pd}), READERS, unit="mL", case_id="case")
    assert found.query("reader == 'model'").volume_ml.tolist() == [11.5 + k for k in range(6)]


@pytest.mark.parametrize(("above", "sign", "skipped"), [
    ("Volumes of the study\n\n", ";", 2), ("Volumes;;\n;;\n", ";", 2), ("Volumes\n", "\t", 1),
    ('"Volumes, by two readers"\n', ",", 1),
])
def test_a_title_above_a_csv_is_told_too(tmp_path, above, sign, skipped):
    path = tmp_path / "titled.csv"
    rows = [["case", "A", "B"], *readings()]
    path.write_text(above + "".join(sign.join(map(str, row)) + "\n" for row in rows))
    with pytest.raises(CsvError, match=rf"skiprows={skipped}, dtype=str\)") as refused:
        read_sheet(path)
    remedy = str(refused.value).rpartition(": ")[2]
    found = measurements.read_table(eval(remedy, {"pd": pd}), READERS, unit="mL", case_id="case")
    assert len(found) == 12


@pytest.mark.parametrize("text", [
    "A;B\n1,5;2,5\n3,5;4\n", "case;A;B;note\nx;1;2;\ny;3;4;\nz;5;6;seen twice\n",
    ";A\nx;1\ny;2\n", "A\n1\n2\n",
])
def test_names_that_are_names_stay_so(tmp_path, text):
    path = tmp_path / "plain.csv"
    path.write_text(text)
    assert list(read_sheet(path).columns) == text.splitlines()[0].split(";")


def test_numbers_below_a_short_first_row_are_no_names(tmp_path):
    path = tmp_path / "short.csv"
    path.write_text("expert,,,\n1,2,3,4\n5,6,7,8\n")
    with pytest.raises(CsvError, match="'' appears more than once"):
        read_sheet(path)


def test_a_patient_merged_over_several_scans_is_that_of_each(tmp_path):
    rows = [[f"P{k // 2}" if k % 2 == 0 else None, f"s{k}", 10.0 + k, 11.0 + k] for k in range(6)]
    head = ["Patient", "scan", "A", "B"]
    merged = sheet(tmp_path / "merged.xlsx", [head, *rows], ["A2:A3", "A4:A5", "A6:A7"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measurements.read_table(merged, READERS, unit="mL", case_id="scan")
    pairs = measurements.pair(found, "expert", "model", "lesion")
    assert pairs.patient_id.tolist() == ["P0", "P0", "P1", "P1", "P2", "P2"]

    blank = sheet(tmp_path / "blank.xlsx", [head, *rows])
    with pytest.warns(UserWarning, match=r"'Patient' names no patient in 6 of 12 .*ffill\(\)"):
        measurements.read_table(blank, READERS, unit="mL", case_id="scan")


def test_patients_under_a_name_that_nobody_knows_are_asked_about():
    table = pd.DataFrame({
        "case_id": range(12), "Kuerzel": [f"{name}K1" for name in "ABCDEF" for _ in (1, 2)],
        "A": [float(k) for k in range(12)], "B": [k + 0.5 for k in range(12)],
        "side": ["left", "right"] * 6, "kernel": ["B30f", "B70f", "I31f", "I50f"] * 3,
        "lobe": ["RUL", "RML", "RLL", "LUL", "LLL", "L1"] * 2,
        "comment": [f"seen by {k % 7}" for k in range(12)],
        "day": [f"2020-03-{k // 2:02d}" for k in range(12)]})
    with pytest.warns(UserWarning, match="patient_id='Kuerzel'") as told:
        measurements.from_wide(table, READERS, unit="mL")
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = measurements.from_wide(table, READERS, unit="mL", patient_id="Kuerzel")
        assert found.patient_id.nunique() == 6
        measurements.from_wide(table.drop_duplicates("Kuerzel"), READERS, unit="mL")


def test_rows_that_are_there_twice_are_told(tmp_path):
    table = pd.DataFrame({"name": list("abc"), "A": [1.0, 0, 3], "B": [1.5, 0, 2]})
    twice = pd.concat([table, table], ignore_index=True)
    with pytest.warns(UserWarning, match=r"row\(s\) 4, 6 are as earlier ones in each cell"):
        measurements.from_wide(twice, READERS, unit="mL", case_id=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measurements.from_wide(table, READERS, unit="mL", case_id=None)
        measurements.from_wide(twice.assign(name=range(6)), READERS, unit="mL", case_id=None)
        measurements.from_wide(twice.drop(columns="name"), READERS, unit="mL", case_id=None)
        blank = pd.DataFrame(np.nan, [0, 1], list(table), dtype=object)
        measurements.from_wide(pd.concat([table.astype(object), blank], ignore_index=True),
                               READERS, unit="mL", case_id=None)


@pytest.mark.parametrize(("name", "content", "words"), [
    ("a.csv", "case,A,B\n", "no row below the names"),
    ("a.csv", "case,A,B\nx,1.5 mL,2 mL\ny,3 mL,0.5 mL\n",
     r"'A' holds numbers with a unit, as '1.5 mL'"),
    ("a.csv", "case,A,B,C\nx,1,2,3\ny,3,4,5\n", "A, B, C; expected two.*--reference"),
    ("a.xls", "", r"a.xls: a .xls file, .*pd.read_excel\("),
    ("a.parquet", "", r"pd.read_parquet\("),
])
def test_a_file_that_leaves_the_readers_open_is_asked_about(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=words):
        measurements.read_readings(tmp_path / name, unit="mL")


@pytest.mark.parametrize("text", [
    "CaseID,manual,auto\n1,10.5,12.1 mL\n2,20.5,22.1 mL\n3,0,1 mL\n",
    "ScanID,manual,auto\n1,-,2\n2,-,3\n3,-,4\n4,1.5,2\n",
    "Exam,reader,ml\n101,M,1.5\n101,A,2\n102,M,3\n102,A,4\n",
    "case,volume_ml,n_slices\n1,2.5,40\n2,3.5,50\n",
    "case,volume_ml,lesion present\n1,2.5,TRUE\n2,3.5,FALSE\n",
])
def test_no_number_that_is_no_reading_is_taken_for_one(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=r"expected two|a row is a reading"):
        measurements.read_readings(tmp_path / "a.csv", unit="mL")


def test_an_index_case_numbers_and_years_are_no_obstacle(tmp_path):
    table = pd.DataFrame({"ID": ["1", "2", "4a"], 2019: [1.0, 2, 3], 2020: [1.5, 2.5, 3.5],
                          "row": [7, 8, 9], "seen": [True, False, True]})
    table.drop(columns="row").to_excel(tmp_path / "a.xlsx")
    found, _ = measurements.read_readings(tmp_path / "a.xlsx", unit="mL")
    assert sorted(set(found.reader)) == ["2019", "2020"]
    found, _ = measurements.read_readings(tmp_path / "a.xlsx", {"a": "2019", "b": "2020"},
                                          unit="mL", case_id=["ID", "seen"])
    assert found.query("reader == 'b'").volume_ml.tolist() == [1.5, 2.5, 3.5]
    wide = measurements.from_wide(table, {"a": "row", "b": 2020}, unit="mL", case_id=None)
    assert wide.query("reader == 'a'").volume_ml.tolist() == [7, 8, 9]
    twice = pd.DataFrame([["x", 1.0, 2.0, "k", ["l"]]], columns=["case_id", "A", "B", "c", "c"])
    assert len(measurements.from_wide(twice, READERS, unit="mL")) == 2


def test_merged_readings_count_once_and_empty_merges_nowhere(tmp_path):
    rows = [["case", "lobe", "A", "B"], ["a", "RUL", 10.5, 3.0], ["a", "RLL", None, 4.0],
            ["b", "RUL", 7.0, None], ["b", "RLL", 1.0, 2.0]]
    path = sheet(tmp_path / "merged.xlsx", rows, ["C2:C3", "A9:A12", "H2:H5", "F9:G12"])
    with pytest.warns(UserWarning, match="number in C2:C3 is merged"):
        found = measurements.read_table(path, READERS, unit="mL", case_id=["case", "lobe"])
    assert found.query("reader == 'expert'").volume_ml.fillna(-1).tolist() == [10.5, -1, 7, 1]


def test_of_a_measurements_csv_nothing_more_is_said():
    table = shipped("results/example") / "measurements.csv"
    assert len(measurements.read_readings(table, unit="mL")[0])
    with pytest.raises(ValueError, match="which says itself what unit, below would say"):
        measurements.read_readings(table, unit="mm3", below="half")


def test_a_column_of_lengths_with_their_unit_is_left_alone(tmp_path):
    (tmp_path / "a.csv").write_text("case,A,B,gap\nx,1,2,5 mm\ny,3,4,3 mm\n")
    table, code = measurements.read_readings(tmp_path / "a.csv", unit="mL")
    assert set(table.reader) == {"A", "B"}
    assert "from_wide" in code


def test_an_excel_file_where_a_csv_is_expected_is_called_so(tmp_path):
    path = sheet(tmp_path / "mine.xlsx", [["case", "A", "B"], *readings()])
    with pytest.raises(CsvError, match=r"mine.xlsx: an Excel file.* compare"):
        read_csv(path)
