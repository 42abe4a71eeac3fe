"""What authors say of their study: read as it stands, and refused with line and remedy."""

from datetime import date

import pytest

from deeplung_nb.runs.study_record import StudyRecord, StudyRecordError, read_study_record

WHOLE = """
[study]
title = "Deep learning of lungs"   # with a comment
design = "retrospective"

[sampling]
method = "consecutive"
from = 2020-01-01
to = 2020-04-30
inclusion = ["PCR positive", "CT within 2 days"]

[margin]
ml = 12.5
declared = 2020-05-01

[[readers]]
name = "AB"
years = 12
blinding = "to the machine"

[[readers]]
name = "CD"
blinding = "to all"
"""


def write(tmp_path, text):
    path = tmp_path / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_said_is_kept_and_nothing_else(tmp_path):
    record = read_study_record(write(tmp_path, WHOLE))
    assert record.text("study.title") == "Deep learning of lungs"
    assert record.text("sampling.inclusion") == "PCR positive; CT within 2 days"
    assert record.said["margin.ml"] == 12.5
    assert record.said["margin.declared"] == date(2020, 5, 1)
    assert record.text("readers.blinding") == "AB: to the machine; CD: to all"
    assert record.text("readers.years") == "AB: 12"
    assert record.text("study.ethics") == ""
    assert record.text("readers.tool") == ""


def test_no_file_is_no_fault_and_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPLUNG_MANIFESTS", str(tmp_path))
    assert read_study_record() == StudyRecord()
    with pytest.raises(FileNotFoundError):
        read_study_record(tmp_path / "study.toml")
    write(tmp_path, WHOLE)
    assert read_study_record().text("margin.ml") == "12.5"
    assert read_study_record(write(tmp_path, "\ufeff")).said == {}


@pytest.mark.parametrize(("change", "words"), [
    (('design = "retrospective"', 'design = "looking back"'),
     r"line 4: study\.design is 'looking back', expected \"prospective\" or \"retrospective\""),
    (('title = "Deep', 'titel = "Deep'), r"line 3: study has no 'titel', expected of title, des"),
    (("ml = 12.5", "ml = -1"), r"line 13: margin\.ml is -1, expected a number above 0"),
    (("ml = 12.5", "ml = inf"), r"line 13: margin\.ml is inf, expected a number above 0"),
    (("ml = 12.5", "ml = true"), r"line 13: margin\.ml is True, expected a number above 0"),
    (("declared = 2020-05-01", 'declared = "May 2020"'), r"line 14: .*expected a day, 2020-04-30"),
    (("to = 2020-04-30", "to = 2019-04-30"),
     r"line 9: sampling\.to is 2019-04-30, before sampling\.from, 2020-01-01"),
    (('inclusion = ["PCR positive", "CT within 2 days"]', "inclusion = [1, 2]"),
     r"line 10: sampling\.inclusion is \[1, 2\], expected a list of texts"),
    (('blinding = "to all"', "blinding = 3"), r"line 23: readers\.blinding is 3, expected text"),
    (("[margin]", "[margins]"), r"line 12: no table 'margins' is known, expected of study, samp"),
    ((WHOLE[:WHOLE.index("[sampling]")], "study = 1\n"),
     r"line 1: study = 1, expected a table: a line \[study\]"),
    (("[[readers]]\nname = \"AB\"", "[readers]\nname = \"AB\""), r"no TOML|readers, expected \[\["),
    (("= 2020-01-01", "= 2020-13-01"), r"line 8.*no TOML\. Texts stand in quotes"),
    (('"Deep learning of lungs"', '""'), r"line 3: study\.title is '', expected text in quotes"),
])
def test_a_fault_is_told_with_its_line_and_a_remedy(tmp_path, change, words):
    assert change[0] in WHOLE
    with pytest.raises(StudyRecordError, match=rf"study\.toml: 1 fault\n  - .*{words}"):
        read_study_record(write(tmp_path, WHOLE.replace(*change)))


def test_all_faults_are_told_at_once(tmp_path):
    text = WHOLE.replace("12.5", "0").replace('"consecutive"', '"some"')
    with pytest.raises(StudyRecordError) as error:
        read_study_record(write(tmp_path, text))
    assert len(error.value.faults) == 2
    (tmp_path / "study.toml").write_bytes("[study]\ntitle = \"Müller\"".encode("latin-1"))
    with pytest.raises(StudyRecordError, match="not in UTF-8"):
        read_study_record(tmp_path / "study.toml")
