"""A reader study: a plan that is frozen, an order that hides, and sums with a known truth."""

import dataclasses
import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pydicom
import pytest

from deeplung_nb import measurements
from deeplung_nb.cohorts import cases, manifest, splits
from deeplung_nb.corrections.export import write_reading
from deeplung_nb.corrections.journal import read_journal
from deeplung_nb.corrections.reading import Reading, ReadingError
from deeplung_nb.corrections.study import ReaderStudy, StudyCase, StudyError
from deeplung_nb.imaging.dicom import read_series
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.io import read_mask, write_mask
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.reading.study_table import consensus_table, study_table
from deeplung_nb.reading.table import collect, import_reading, write_rows
from deeplung_nb.reading.volumes import measure
from deeplung_nb.report import reader_study as words
from deeplung_nb.runs import open_run
from deeplung_nb.runs.config import load_profile
from deeplung_nb.runs.registry import manifest_folder
from deeplung_nb.stats import reader_study as sums
from deeplung_nb.widgets import ReadingDesk, correct
from tests.test_dicom_objects import write_chest

SHAPE = (4, 12, 12)
CASES = [f"case-{k}" for k in range(6)]
READERS = ["AB", "CD"]


def load(name):
    """A chest of noise, whose automatic marks are a square of so many rows as the case's number."""
    number = int(name[-1])
    hu = np.random.default_rng(number).integers(-900, 0, SHAPE).astype(np.int16)
    scan = Scan(hu, Grid.upright(SHAPE, (5.0, 10.0, 10.0)), name, notes=("of a hospital",))
    labels = np.zeros(SHAPE, np.uint8)
    labels[1, 2:4 + number, 2:6] = 1
    return StudyCase(scan, LesionMask.like(scan, labels))


def plan(folder, **options):
    given = {"seed": 3, "repeats": 0.3, "washout_days": 0.0, **options}
    return ReaderStudy(folder, given.pop("cases", CASES), given.pop("readers", READERS), load,
                       **given)


def test_each_reader_reads_each_case_once_in_each_arm_and_some_again(tmp_path):
    study = plan(tmp_path)
    for reader in READERS:
        mine = pd.DataFrame(map(dataclasses.asdict, study.of(reader)))
        first = mine[mine.occasion == 1]
        assert sorted(zip(first.case, first.arm, strict=True)) == sorted(
            (case, arm) for case in CASES for arm in ("unaided", "correcting"))
        assert first.groupby("block").case.nunique().tolist() == [6, 6]
        assert first.groupby(["block", "arm"]).size().tolist() == [3, 3, 3, 3]
        again = mine[mine.occasion == 2]
        assert len(again) == 2  # 30 % of six, rounded up
        assert set(again.block) == {3}
        assert again.case.is_unique
        assert mine.name.is_unique
        assert not any(case in name for case in CASES for name in mine.name)
    one, two = ([(s.case, s.arm) for s in study.of(reader)] for reader in READERS)
    assert one != two


def test_arms_turn_from_reader_to_reader(tmp_path):
    study = plan(tmp_path, cases=[f"c{k}" for k in range(40)], seed=1)
    arms = [{s.case: s.arm for s in study.of(reader) if s.block == 1} for reader in READERS]
    for of_reader in arms:
        assert list(of_reader.values()).count("unaided") == 20
    assert all(arms[0][case] != arms[1][case] for case in arms[0])
    orders = [[s.case for s in study.of(reader) if s.block == 1] for reader in READERS]
    assert orders[0] != orders[1]


def test_a_plan_is_frozen_with_its_hypothesis(tmp_path):
    first = plan(tmp_path, hypothesis="correcting is faster", margin="10 mL")
    again = plan(tmp_path, hypothesis="correcting is faster", margin="10 mL")
    assert first.sha256 == again.sha256
    kept = json.loads((tmp_path / "plan.json").read_text())
    assert kept["plan"]["margin"] == "10 mL"
    assert kept["sha256"] == first.sha256
    with pytest.raises(StudyError, match=r"planned otherwise \(margin changed\) and frozen at 20"):
        plan(tmp_path, hypothesis="correcting is faster", margin="20 mL")
    with pytest.raises(StudyError, match="seed, sessions changed"):
        plan(tmp_path, hypothesis="correcting is faster", margin="10 mL", seed=4)
    assert plan(tmp_path / "other", seed=4).sha256 != first.sha256
    (tmp_path / "plan.json").write_text((tmp_path / "plan.json").read_text().replace(
        "10 mL", "99 mL"))
    with pytest.raises(StudyError, match="changed since it was frozen"):
        plan(tmp_path, hypothesis="correcting is faster", margin="10 mL")


@pytest.mark.parametrize(("options", "words"), [
    ({"readers": ["AB", "AB"]}, "each once"), ({"cases": ["a"]}, "expected 2 or more"),
    ({"arms": ("helped",)}, "expected of unaided, aided, correcting"),
    ({"repeats": 1.5}, "a share from 0 to 1"), ({"washout_days": -1}, "days from 0 on"),
    ({"readers": ["a/b"]}, "reader"), ({"cases": [f"c{k}" for k in range(400)]}, "more than 900")])
def test_what_is_no_plan_is_told_and_leaves_no_folder(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        plan(tmp_path / "study", **options)
    assert not list(tmp_path.iterdir())


def read(study, session, rows, seconds=10.0):
    """A reader who marks a square of so many rows."""
    reading, shown = study.open(session)
    with reading:
        if reading.labels.any():
            reading.draw({"tool": "polygon", "plane": "axial", "index": 1, "code": 0,
                          "path": [[-1, -1], [-1, 13], [13, 13], [13, -1]]})
        reading.draw({"tool": "polygon", "plane": "axial", "index": 1, "code": 1,
                      "path": [[1.5, 1.5], [1.5, 5.5], [1.5 + rows, 5.5], [1.5 + rows, 1.5]]},
                     seconds=seconds)
        reading.finish()
    return shown


def test_the_automatic_marks_are_nowhere_where_they_are_hidden(tmp_path):
    study = plan(tmp_path, arms=("unaided", "aided", "correcting"))
    seen, scans = {}, []
    for session in study.of("AB"):
        reading, shown = study.open(session)
        with reading:
            automatic = load(session.case).automatic.labels
            seen[session.arm] = (shown.keys(), reading.labels.any())
            assert reading.scan.case_id == session.name
            assert reading.scan.notes == ()
            if session.arm == "unaided":
                assert not reading.labels.any()
            elif session.arm == "correcting":
                assert np.array_equal(reading.labels, automatic)
            events = read_journal(reading.folder / "journal.jsonl")[0]
            assert events[0]["facts"]["arm"] == session.arm
            assert events[0]["facts"]["study"] == study.sha256
            assert events[1]["event"] == "shown"
            assert session.case not in json.dumps(events)
            assert "occasion" not in json.dumps(events)
            scans.append(events[0]["scan_sha256"])
    assert seen == {"unaided": (set(), False), "aided": ({"automatic"}, False),
                    "correcting": (set(), True)}
    assert len(set(scans)) == len(scans)  # nothing shows that two of them are one CT


def test_a_study_goes_on_where_it_was_left_and_says_who_has_read_what(tmp_path):
    study = plan(tmp_path)
    for _ in range(3):
        session = study.next("AB")
        read(study, session, 3)
    half, _ = study.open(study.next("AB"))
    half.draw({"tool": "brush", "plane": "axial", "index": 0, "path": [[3, 3]], "radius_mm": 9,
               "code": 2}, seconds=4.0)
    half.close()
    again = plan(tmp_path)
    assert again.next("AB").number == 4
    reading, _ = again.open(again.next("AB"))
    with reading:
        assert reading.labels.any()  # the half-drawn one
    status = again.status().set_index("reader")
    assert status.loc["AB"].tolist() == [14, 3, 4, 34.0]
    assert status.loc["CD"].tolist() == [14, 0, 0, 0.0]
    with pytest.raises(StudyError, match="expected one of AB, CD"):
        again.next("XY")


def test_the_next_block_waits_for_the_washout(tmp_path):
    study = plan(tmp_path, washout_days=14)
    for session in study.of("AB")[:6]:
        assert study.next("AB") == session
        read(study, session, 3)
    with pytest.raises(StudyError, match="finished block 1: the next one begins"):
        study.next("AB")
    assert study.next("AB", datetime.now(UTC) + timedelta(days=15)).block == 2
    assert study.next("CD").block == 1


def test_a_reading_of_another_study_is_none_of_this_one(tmp_path):
    study = plan(tmp_path)
    session = study.next("AB")
    case = load(session.case)
    scan = dataclasses.replace(case.scan, case_id=session.name)
    Reading.open(scan, "AB", study.place(session).parent).close()
    with pytest.raises(ReadingError, match="a reading of another study"):
        study.open(session)


# ---- what is drawn, measured ----


@pytest.fixture(scope="module")
def pilot(tmp_path_factory):
    """Six cases, two readers, all read: CD marks a row more, correcting takes half the time."""
    study = plan(tmp_path_factory.mktemp("pilot"), repeats=0.5)
    for reader in READERS:
        while (session := study.next(reader)) is not None:
            rows = 2 + int(session.case[-1]) + (reader == "CD") + (session.occasion == 2)
            read(study, session, rows, seconds=60.0 if session.arm == "unaided" else 30.0)
    return study


ML_A_ROW = 4 * 5.0 * 10.0 * 10.0 / 1000


def test_the_table_measures_what_was_drawn(pilot):
    truth = {name: load(name).automatic for name in CASES}
    table = study_table(pilot, truth)
    assert len(table) == 2 * (12 + 3) * 3
    lesion = table[table.structure == "lesion"]
    for row in lesion.itertuples():
        number = int(row.case_id[-1])
        more = (row.reader == "CD") + (row.occasion == 2)
        assert row.automatic_ml == pytest.approx((2 + number) * ML_A_ROW)
        assert row.volume_ml == pytest.approx((2 + number + more) * ML_A_ROW)
        assert row.added_ml == pytest.approx(more * ML_A_ROW)
        assert row.removed_ml == 0
        assert row.slices_changed == (more > 0)
        assert row.dice_after == pytest.approx(2 * (2 + number) / (4 + 2 * number + more))
        assert row.dice_before == 1
    assert table[table.structure == "high_opacity"].dice_after.isna().all()


# ---- in words ----


def test_the_methods_paragraph_says_what_was_planned(tmp_path):
    text = words.methods_text(plan(tmp_path, washout_days=21, hypothesis="correcting is faster",
                                   margin="10 mL"))
    for said in ("2 readers (AB, CD) read 6 cases in 2 arms", "at least 21 days apart", "seed 3",
                 "2 cases came again", "28 readings, 0 of them read so far",
                 "Hypothesis declared beforehand: correcting is faster.", "Margin declared"):
        assert said in text, said
    assert "came again" not in words.methods_text(plan(tmp_path / "b", repeats=0.0))


def test_the_results_are_the_sums_in_words(pilot):
    table = study_table(pilot, {name: load(name).automatic for name in CASES})
    text = words.results_text(table)
    row = sums.between_readers(table).set_index(["arm", "structure"]).loc["unaided", "lesion"]
    assert f"one reader) was {row.icc:.2f} (no interval: these readings don't differ" in text
    rough = table.assign(volume_ml=table.volume_ml + 0.3 * np.sin(np.arange(len(table))))
    row = sums.between_readers(rough).set_index(["arm", "structure"]).loc["unaided", "lesion"]
    assert f"was {row.icc:.2f} (95 % CI {row.icc_low:.2f} to {row.icc_high:.2f})" \
        in words.results_text(rough)
    row = sums.between_readers(table).set_index(["arm", "structure"]).loc["unaided", "lesion"]
    assert f"less that of two readers, was {row.difference:.1f} (95 % CI" in text
    assert "took 30 s on average, without 60 s: a ratio (geometric mean of 12 pairs) of 0.50" \
        in text
    assert "on average of 15 readings, in" in text
    assert "the mean Dice went from 1.000 to" in text
    assert words.results_text(table[table.case_id == "case-0"]).startswith("Any lesion. Correcting")
    few = table[(table.case_id == "case-0") & (table.arm == "unaided")]
    assert words.results_text(few).startswith("Too few readings")
    assert "nan" not in words.results_text(table.assign(volume_ml=0.0, automatic_ml=0.0))
    same = table.assign(volume_ml=table.automatic_ml)
    assert "(no interval" in words.results_text(same)
    assert "nan" not in words.results_text(same)


def test_the_items_of_grras_are_answered_or_left_to_the_authors(pilot, tmp_path):
    table = words.grras_table(pilot, study_table(pilot)).set_index("item").says
    assert table.index.tolist() == list(range(1, 16))
    assert "30 readings of 6 cases, 6 of them repeats" in table[11]
    assert table[3] == words.AUTHOR
    assert "intraclass correlation" in table[13]
    new = words.grras_table(plan(tmp_path), pd.DataFrame()).set_index("item").says
    assert new[13] == "nothing is read yet"


# ---- in a notebook ----


def hear(widget, **content):
    """What a page would send; and the words of a refusal, if it was one."""
    said = []
    widget.send = lambda content, buffers=None: said.append(content)
    widget._answer(widget, content, [])
    return next((one.get("why") for one in said if one["kind"] == "refused"), None)


STROKE = {"tool": "brush", "plane": "axial", "index": 1, "path": [[3, 3]], "radius_mm": 12.0,
          "code": 2}


def test_a_finished_correction_is_a_reader_of_the_runs_table(tmp_path, monkeypatch):
    run = make_run(tmp_path, monkeypatch)
    before = measurements.read(run.measurements_csv)
    widget = correct(run, "P001", reader="AB")
    automatic = widget.reading.labels.copy()
    assert hear(widget, kind="stroke", number=1, stroke=STROKE, seconds=9.0) is None
    assert hear(widget, kind="stroke", number=2, stroke={**STROKE, "index": 999}) \
        .startswith("index 999")
    assert hear(widget, kind="finish", seconds=1.0) is None
    assert hear(widget, kind="stroke", number=3, stroke=STROKE).startswith("the reading of AB is")
    table = measurements.read(run.measurements_csv)
    mine = table[table.reader == "reader-AB"].set_index("structure")
    assert len(table) == len(before) + 4
    n = int((widget.reading.labels == 2).sum())
    assert mine.loc["high_opacity"].n_voxels == n > int((automatic == 2).sum())
    assert mine.loc["lesion"].seconds == 10.0
    assert mine.loc["lesion"].note == "drawn by hand from automatic, 1 strokes"
    assert 0 < mine.loc["lesion"].dice < 1
    widget.reading.close()
    with pytest.raises(ValueError, match=r"case 'P999': expected a case of the run: phantom/P001"):
        correct(run, "P999", reader="AB")
    with pytest.raises(ValueError, match="start 'model': expected one of automatic, expert"):
        correct(run, "P001", reader="AB", start="model")


def test_a_mask_of_another_tool_comes_in_as_a_reader(tmp_path, monkeypatch):
    run = make_run(tmp_path, monkeypatch)
    cohort, = cases.load_cohorts(run)
    case = cases.read_case(cohort, "P002")
    write_mask(case.expert, tmp_path / "slicer.nrrd")
    import_reading(run, "phantom", "P002", "slicer", tmp_path / "slicer.nrrd")
    table = measurements.read(run.measurements_csv).query("case_id == 'P002'")
    mine = table[table.reader == "reader-slicer"].set_index("structure")
    assert mine.loc["lesion"].dice == 1.0
    assert mine.loc["lesion"].note.startswith("drawn by hand from a mask of another tool")
    with pytest.raises(ReadingError, match="slicer has read this case already"):
        import_reading(run, "phantom", "P002", "slicer", tmp_path / "slicer.nrrd")
    other = cases.read_case(cohort, "P001").scan
    write_mask(LesionMask.like(other, np.zeros(other.shape, np.uint8)), tmp_path / "other.nrrd")
    with pytest.raises(ScanError):
        import_reading(run, "phantom", "P002", "itksnap", tmp_path / "other.nrrd")
    assert not (run.folder / "readings" / "phantom" / "P002" / "itksnap").exists()


def make_run(tmp_path, monkeypatch):
    """A run of three phantoms whose automatic masks are the experts', a slice moved."""
    source = manifest_folder()
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    table = pd.read_csv(source / "phantom.csv", dtype=str, keep_default_na=False)
    table = table[table.case_id.isin(["P001", "P002", "P003"])]
    table.to_csv(manifests / "phantom.csv", index=False)
    lines = (source / "cohorts.toml").read_text().splitlines()
    (manifests / "cohorts.toml").write_text(
        "\n".join(line for line in lines if not line.startswith("expected")))
    monkeypatch.setenv("DEEPLUNG_MANIFESTS", str(manifests))
    frame = manifest.read_manifest(manifests / "phantom.csv").frame
    splits.write_splits(splits.make_splits(frame, 3, 1, 0.3), manifests / "splits_phantom.csv")
    config = dataclasses.replace(load_profile("quick"), n_folds=3)
    run = open_run(config=config, results=tmp_path / "results")
    cohort, = cases.load_cohorts(run)
    for case_id in ("P001", "P002"):
        case = cases.read_case(cohort, case_id)
        moved = LesionMask.like(case.scan, np.roll(case.expert.labels, 1, axis=0))
        write_mask(moved, run.path("masks", "phantom", f"{case_id}.nii.gz"))
        row = {"run_id": run.run_id, "cohort": "phantom", "role": "cv", "case_id": case_id,
               "patient_id": case_id, "protocol": "unknown", "fold": 0, "status": "ok"}
        write_rows([{**row, "reader": reader, **values} for reader, mask in
                    (("expert", case.expert), ("model", moved))
                    for values in measure(case.scan, mask, case.lungs)],
                   run.path("measured", "cv", "phantom", f"{case_id}.json"))
    collect(run)
    return run


def test_a_scan_is_read_under_a_name_that_is_no_folders(tmp_path):
    case = load("case-1")
    scan = dataclasses.replace(case.scan, case_id="SMITH^JOHN", source=str(tmp_path / "SMITH^JOHN"))
    (tmp_path / "SMITH^JOHN").mkdir()
    widget = correct(scan, reader="AB", folder=tmp_path / "r", start=case.automatic)
    assert "SMITH" not in (widget.reading.folder / "journal.jsonl").read_text()
    assert "SMITH" not in json.dumps(widget.info)
    assert np.array_equal(widget.reading.labels, case.automatic.labels)
    widget.reading.close()
    with pytest.raises(ValueError, match="only a run has cases"):
        correct(scan, "P001", reader="AB")
    with pytest.raises(ValueError, match="names of what is drawn itself"):
        correct(scan, reader="AB", folder=tmp_path / "r", show={"AB": case.automatic})


def test_a_case_that_cannot_be_read_is_not_named_to_its_reader(tmp_path):
    def fail(name):
        raise FileNotFoundError(2, "No such file", f"/data/{name}.nii.gz")
    study = ReaderStudy(tmp_path, CASES, READERS, fail, seed=1)
    desk = ReadingDesk(study, "AB")
    desk.go_on()
    assert "can't be read (FileNotFoundError): ask who runs the study" in desk._words.value
    assert "case-" not in desk._words.value
    assert study_table(study).empty
    assert words.results_text(study_table(study)).startswith("Too few readings")


def test_a_desk_leads_through_the_plan(tmp_path):
    study = plan(tmp_path, cases=CASES[:2], repeats=0.0, arms=("unaided",))
    desk = ReadingDesk(study, "AB")
    for _ in range(2):
        desk.go_on()
        assert desk._next.disabled  # a case is open
        assert hear(desk.corrector, kind="stroke", number=1, stroke=STROKE) is None
        assert hear(desk.corrector, kind="finish") is None
        assert not desk._next.disabled
    desk.go_on()
    assert "2 of 2 readings finished · all is read" in desk._words.value
    late = ReadingDesk(plan(tmp_path / "late", washout_days=9), "CD")
    for _ in range(6):
        late.go_on()
        hear(late.corrector, kind="finish")
    late.go_on()
    assert "the next one begins" in late._words.value
    late.close()


# ---- what three say together ----


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Six cases of three readers, unaided: AB and CD mark a row more than the machine, EF six."""
    study = plan(tmp_path_factory.mktemp("three"), readers=["AB", "CD", "EF"], repeats=0.0,
                 arms=("unaided",))
    for session in study.sessions:
        more = 6 if session.reader == "EF" else 1
        read(study, session, min(2 + int(session.case[-1]) + more, 10))
    return study


def test_a_consensus_is_what_most_readers_marked(three, pilot, tmp_path):
    together = consensus_table(three)
    assert len(together) == 6 * 2 * 3
    lesion = together[(together.structure == "lesion") & (together.way == "majority")]
    for row in lesion.itertuples():
        rows = 3 + int(row.case_id[-1])
        assert (row.readers, row.volume_ml) == (3, pytest.approx(rows * ML_A_ROW))
        assert row.dice_automatic == pytest.approx(2 * (rows - 1) / (2 * rows - 1))
        far = min(rows + 5, 10)
        assert row.dice_readers == pytest.approx((2 + 2 * rows / (rows + far)) / 3)
    shown = consensus_table(plan(tmp_path, readers=["AB", "CD", "EF"], repeats=0.0,
                                 arms=("correcting",)))
    assert shown.empty
    seen = together.assign(automatic_ml=np.nan, dice_automatic=np.nan)
    assert sums.with_consensus(seen).empty  # where readers saw the machine's marks
    assert set(together.way) == {"majority", "staple"}
    assert consensus_table(pilot).empty  # of two, neither can outvote the other
    found = sums.with_consensus(together).set_index(["way", "structure"])
    assert found.loc[("majority", "lesion"), "difference"] == pytest.approx(-ML_A_ROW)
    text = words.results_text(study_table(three), together=together)
    assert "Against the majority of 3 or more readers (unaided, 6 cases) the mean difference, " \
        f"machine less consensus, was {-ML_A_ROW:.1f} (" in text
    assert "Against the STAPLE consensus" in words.grras_table(
        three, study_table(three), together).says.str.cat()


def test_what_was_changed_is_told_by_where_it_lies(tmp_path):
    """Right of the image is the left lung; the topmost of three slices is the upper third."""
    lungs = np.zeros(SHAPE, bool)
    lungs[1:, 1:11, 1:5] = lungs[1:, 1:11, 7:11] = True

    def with_lungs(name):
        return dataclasses.replace(load(name), lungs=lungs)
    study = ReaderStudy(tmp_path, CASES[:2], ["AB"], with_lungs, seed=1, arms=("correcting",),
                        repeats=0)
    for session in study.sessions:
        reading, _ = study.open(session)
        with reading:  # two voxels more in the left lung, on top; one less in the right, lower
            for index, path, code in ((3, [[5, 8], [5, 9]], 2), (1, [[2, 2]], 0)):
                reading.draw({"tool": "brush", "plane": "axial", "index": index, "path": path,
                              "radius_mm": 1.0, "code": code})
            reading.finish()
    table = study_table(study).set_index("structure")
    ml = 5.0 * 10.0 * 10.0 / 1000
    row = table.loc["lesion"].iloc[0]
    assert row.added_ml == pytest.approx(2 * ml)
    assert row.removed_ml == pytest.approx(ml)
    assert (row.changed_left_ml, row.changed_right_ml) == pytest.approx((2 * ml, ml))
    assert (row.changed_upper_ml, row.changed_lower_ml) == pytest.approx((2 * ml, ml))
    found = sums.corrections(study_table(study)).set_index("structure").loc["lesion"]
    assert found.n_regions == 2
    assert (found.share_left, found.share_upper) == pytest.approx((2 / 3, 2 / 3))
    assert "Of what was changed 67% in the left lung, 67% in the upper third and 100% in the " \
        "peripheral lung." in words.results_text(study_table(study))


# ---- and out again ----


@pytest.mark.parametrize(("start", "kind"), [(None, "MANUAL"), ("automatic", "SEMIAUTOMATIC")])
def test_a_reading_goes_out_as_dicom_by_one_call(tmp_path, start, kind):
    hu = np.random.default_rng(2).integers(-900, 100, (4, 12, 16))
    scan = read_series(write_chest(tmp_path / "ct", hu))
    marks = np.zeros(scan.shape, np.uint8)
    marks[1, 3:6, 3:6] = 1
    with Reading.open(scan, "AB", tmp_path / "r", start=None if start is None else marks,
                      start_from=start or "nothing") as reading:
        with pytest.raises(ReadingError, match="not finished"):
            write_reading(reading.folder, scan, tmp_path / "seg.dcm")
        reading.draw({"tool": "brush", "plane": "axial", "index": 2, "path": [[4, 5]],
                      "radius_mm": 3.0, "code": 2})
        reading.finish()
        folder, drawn = reading.folder, reading.labels.copy()
    for name in ("seg.dcm", "mask.nrrd", "mask.nii.gz"):
        back = read_mask(write_reading(folder, scan, tmp_path / name), scan)
        assert np.array_equal(back.labels, drawn), name
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert {one.SegmentAlgorithmType for one in seg.SegmentSequence} == {kind}
    assert seg.ContentCreatorName == "AB"
    with pytest.raises(FileExistsError, match="Choose another name"):
        write_reading(folder, scan, tmp_path / "seg.dcm")
    with pytest.raises(ReadingError, match=r"seg\.png: expected a name that ends with"):
        write_reading(folder, scan, tmp_path / "seg.png")
    plain = dataclasses.replace(scan, source="", series="")
    with pytest.raises(ScanError, match="refer to the slices of a DICOM series"):
        write_reading(folder, plain, tmp_path / "other.dcm")
    assert not (tmp_path / "other.dcm").exists()
