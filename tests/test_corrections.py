"""Drawing: what each tool changes, undo without limit, and a journal that loses no stroke.

Tools are compared with plain definitions over every voxel, which know nothing of boxes.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deeplung_nb.corrections import reading as readings
from deeplung_nb.corrections import tools
from deeplung_nb.corrections.drawing import Drawing
from deeplung_nb.corrections.journal import Journal, JournalError, read_journal
from deeplung_nb.corrections.reading import Reading, ReadingError, read_finished
from deeplung_nb.corrections.tools import StrokeError, find_change
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.io import read_mask, write_mask
from deeplung_nb.imaging.scan import LesionMask, Scan

SHAPE, SPACING = (5, 9, 11), (4.0, 1.5, 0.8)
PLANES = ("axial", "coronal", "sagittal")


def make_scan(shape=SHAPE, spacing=SPACING, seed=0):
    hu = np.random.default_rng(seed).integers(-900, 100, shape).astype(np.int16)
    return Scan(hu, Grid.upright(shape, spacing), "case-1")


SCAN = make_scan()
LUNGS = np.zeros(SHAPE, bool)
LUNGS[1:, 2:8, 2:9] = True


def left_of(axis):
    return [k for k in range(3) if k != axis]


def segment_distance(points, place, mm):
    """From a place to a path, by definition: the nearest of many points along it."""
    points, place = np.asarray(points, float) * mm, np.asarray(place, float) * mm
    best = np.inf
    for start, end in zip(points, [*points[1:], points[-1]], strict=True):
        way, length = end - start, float(np.dot(end - start, end - start))
        share = np.clip(np.dot(place - start, way) / length, 0, 1) if length else 0.0
        best = min(best, float(np.linalg.norm(place - start - share * way)))
    return best


def naive(stroke, labels):
    """What a brush makes of a volume, voxel by voxel."""
    out, axis = labels.copy(), PLANES.index(stroke["plane"])
    mm = np.array(SPACING)[left_of(axis)]
    touched = {tuple(np.rint(point).astype(int)) for point in stroke["path"]}
    for place in np.ndindex(labels.shape):
        if place[axis] != stroke["index"]:
            continue
        flat = tuple(place[k] for k in left_of(axis))
        near = segment_distance(stroke["path"], flat, mm) <= stroke["radius_mm"] + 1e-6
        allowed = "hu" not in stroke or stroke["hu"][0] <= SCAN.hu[place] <= stroke["hu"][1]
        allowed &= not stroke.get("in_lungs") or LUNGS[place]
        allowed &= stroke.get("only") is None or labels[place] == stroke["only"]
        if (near or flat in touched) and allowed:
            out[place] = stroke["code"]
    return out


@st.composite
def brush_strokes(draw):
    plane = draw(st.sampled_from(PLANES))
    axis = PLANES.index(plane)
    sizes = [SHAPE[k] for k in left_of(axis)]
    place = st.tuples(*(st.floats(-3, n + 2, allow_nan=False).map(lambda v: round(v, 2))
                        for n in sizes))
    stroke = {"tool": "brush", "plane": plane, "index": draw(st.integers(0, SHAPE[axis] - 1)),
              "path": [list(point) for point in draw(st.lists(place, min_size=1, max_size=4))],
              "radius_mm": draw(st.sampled_from([0.0, 0.7, 1.9, 4.3])),
              "code": draw(st.integers(0, 2))}
    if draw(st.booleans()):
        stroke["hu"] = sorted(draw(st.tuples(st.integers(-900, 100), st.integers(-900, 100))))
    if draw(st.booleans()):
        stroke["in_lungs"] = True
    if draw(st.booleans()):
        stroke["only"] = draw(st.integers(0, 2))
    return stroke


@settings(max_examples=60, deadline=None, derandomize=True)
@example([{"tool": "brush", "plane": "axial", "index": 0, "path": [[1.98, 0.0], [0.0, 0.0]],
           "radius_mm": 0.0, "code": 1}])
@given(st.lists(st.one_of(brush_strokes(), st.sampled_from(["undo", "redo"])), max_size=12))
def test_any_strokes_undone_and_redone_are_those_of_a_naive_model(actions):
    drawing = Drawing(SCAN, np.zeros(SHAPE, np.uint8), LUNGS)
    past, future = [np.zeros(SHAPE, np.uint8)], []
    for action in actions:
        if isinstance(action, dict):
            drawing.apply(action)
            past.append(naive(action, past[-1]))
            future.clear()
        else:
            source = past[1:] if action == "undo" else future
            if not source:
                with pytest.raises(StrokeError, match=f"nothing to {action}"):
                    drawing.apply({"tool": action})
                continue
            drawing.apply({"tool": action})
            if action == "undo":
                future.append(past.pop())
            else:
                past.append(future.pop())
        assert np.array_equal(drawing.labels, past[-1])


def change(stroke, labels, scan=SCAN, lungs=LUNGS):
    drawing = Drawing(scan, labels, lungs)
    drawing.apply(stroke)
    return drawing.labels


def empty():
    return np.zeros(SHAPE, np.uint8)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_polygon_fills_the_centres_inside_it(axis):
    corners = [[0.5, 0.5], [0.5, 3.5], [3.5, 3.5], [3.5, 0.5]]
    out = change({"tool": "polygon", "plane": PLANES[axis], "index": 2, "path": corners,
                  "code": 2}, empty())
    wanted = np.zeros([SHAPE[k] for k in left_of(axis)], np.uint8)
    wanted[1:4, 1:4] = 2
    assert np.array_equal(np.take(out, 2, axis=axis), wanted)
    assert np.count_nonzero(out) == 9


def test_a_polygon_that_crosses_itself_leaves_what_is_inside_twice():
    star = [[0.5, 0.5], [8.5, 0.5], [8.5, 10.5], [0.5, 10.5], [0.5, 0.5],
            [2.5, 2.5], [6.5, 2.5], [6.5, 8.5], [2.5, 8.5], [2.5, 2.5]]
    out = change({"tool": "polygon", "plane": "axial", "index": 0, "path": star, "code": 1},
                 empty())
    assert out[0, 4, 5] == 0
    assert out[0, 1, 5] == 1


def flood(seed, allowed):
    """What is connected by faces, by a walk."""
    found, left = set(), [tuple(seed)] if allowed[tuple(seed)] else []
    while left:
        place = left.pop()
        if place in found:
            continue
        found.add(place)
        for k in range(3):
            for by in (-1, 1):
                beside = (*place[:k], place[k] + by, *place[k + 1:])
                if 0 <= beside[k] < allowed.shape[k] and allowed[beside]:
                    left.append(beside)
    return found


@pytest.mark.parametrize("whole", [False, True])
def test_a_region_grows_over_what_is_connected_and_as_dense(whole):
    seed = (2, 4, 5)
    scan = dataclasses.replace(SCAN, hu=np.where(SCAN.hu > -100, SCAN.hu, SCAN.hu).copy())
    scan.hu[seed] = -500
    stroke = {"tool": "grow", "plane": "axial", "index": 2, "at": list(seed), "code": 1,
              "hu": [-800, -150], "whole": whole, "in_lungs": True, "reach_mm": 400}
    allowed = (scan.hu >= -800) & (scan.hu <= -150) & LUNGS
    if not whole:
        allowed[[z for z in range(SHAPE[0]) if z != 2]] = False
    out = change(stroke, empty(), scan)
    assert set(zip(*np.nonzero(out), strict=True)) == flood(seed, allowed)
    near = change({**stroke, "reach_mm": 2.0}, empty(), scan)
    far = np.linalg.norm((np.argwhere(near) - seed) * SPACING, axis=1)
    assert far.max() <= 2.0
    assert 0 < np.count_nonzero(near) < np.count_nonzero(out)


def test_a_region_begun_outside_the_limits_changes_nothing():
    scan = dataclasses.replace(SCAN, hu=np.full(SHAPE, 40, np.int16))
    out = change({"tool": "grow", "plane": "axial", "index": 2, "at": [2, 4, 5], "code": 1,
                  "hu": [-800, -150]}, empty(), scan)
    assert not out.any()


def test_holes_are_filled_in_their_slice_alone():
    labels = empty()
    labels[1:3, 2:7, 2:7] = 1
    labels[1:3, 4, 4] = 0
    out = change({"tool": "fill", "plane": "axial", "index": 1, "code": 1}, labels)
    assert out[1, 4, 4] == 1
    assert out[2, 4, 4] == 0


def test_a_lesion_changes_its_class_and_no_other_lesion_does():
    labels = empty()
    labels[1:3, 1:3, 1:3] = 1
    labels[1, 6:8, 6:8] = 1
    stroke = {"tool": "swap", "plane": "axial", "index": 1, "at": [1, 1, 1], "code": 2}
    out = change(stroke, labels)
    assert (out[1, 1:3, 1:3] == 2).all()
    assert (out[2, 1:3, 1:3] == 1).all()
    assert (out[1, 6:8, 6:8] == 1).all()
    assert (change({**stroke, "whole": True}, labels)[1:3, 1:3, 1:3] == 2).all()


def test_a_slice_is_copied_from_the_one_beside_it():
    labels = empty()
    labels[1, 2:4, 2:4], labels[1, 5:7, 5:7], labels[2, 8, 8] = 1, 2, 1
    stroke = {"tool": "copy", "plane": "axial", "index": 2, "from": 1}
    out = change(stroke, labels)
    assert np.array_equal(out[2, :8], labels[1, :8])
    assert out[2, 8, 8] == 1  # what was marked there stays
    assert set(np.unique(change({**stroke, "code": 2}, labels)[2, :8])) == {0, 2}


def test_between_two_discs_lie_discs_of_sizes_between():
    scan = make_scan((9, 41, 41), (2.0, 1.0, 1.0))
    y, x = np.mgrid[:41, :41] - 20
    labels = np.zeros(scan.shape, np.uint8)
    labels[0], labels[8] = np.hypot(y, x) <= 4, np.hypot(y, x) <= 16
    out = change({"tool": "interpolate", "plane": "axial", "index": 8, "from": 0, "code": 1},
                 labels, scan, None)
    radii = np.sqrt([part.sum() / np.pi for part in out])
    assert np.allclose(radii, np.linspace(radii[0], radii[8], 9), atol=0.6)
    assert (np.diff(radii) > 0).all()


@pytest.mark.parametrize(("stroke", "words"), [
    ({"tool": "saw"}, "tool 'saw': expected one of brush"),
    ({"plane": "oblique"}, "plane 'oblique'"),
    ({"index": 5}, "index 5: expected a whole number from 0 to 4"),
    ({"index": True}, "index True"),
    ({"code": 3}, "code 3: expected a class"),
    ({"radius_mm": float("nan")}, "radius_mm nan"),
    ({"radius_mm": -1}, "radius_mm -1"),
    ({"path": []}, "path: expected 1 to"),
    ({"path": [[1, float("inf")]]}, "path: expected"),
    ({"path": [[1, 2, 3]]}, "path: expected"),
    ({"path": "all of it"}, "path: expected"),
    ({"hu": [100, -100]}, "expected the lowest first"),
    ({"hu": [None, 3]}, "lowest None"),
    ({"in_lungs": True}, "the lungs of this scan are not known"),
])
def test_what_is_no_stroke_is_told_and_changes_nothing(stroke, words):
    good = {"tool": "brush", "plane": "axial", "index": 1, "path": [[3, 3]], "radius_mm": 2.0,
            "code": 1}
    drawing = Drawing(SCAN, empty())
    with pytest.raises(StrokeError, match=words):
        drawing.apply({**good, **stroke})
    assert not drawing.labels.any()
    assert not drawing.can_undo


def test_a_stroke_far_outside_changes_nothing():
    box, where, _ = find_change({"tool": "brush", "plane": "axial", "index": 1, "code": 1,
                                 "path": [[-500, 4], [-400, 900]], "radius_mm": 3}, empty(), SCAN)
    assert not where.any()
    assert len(box) == 3


# ---- the journal ----


STROKES = [{"tool": "brush", "plane": PLANES[k % 3], "index": k % 5, "path": [[k % 4, 2.5 + k % 3]],
            "radius_mm": 1.5, "code": 1 + k % 2} for k in range(6)]


@pytest.fixture
def whole(tmp_path):
    """A journal of six strokes and an undo, and the marks after each event."""
    reading = Reading.open(SCAN, "AB", tmp_path / "whole")
    states = [reading.labels.copy()]
    for stroke in [*STROKES, {"tool": "undo"}]:
        reading.draw(stroke)
        states.append(reading.labels.copy())
    reading.close()
    return reading.folder, states


def test_a_journal_cut_at_any_byte_gives_the_marks_up_to_that_stroke(whole, tmp_path):
    folder, states = whole
    content = (folder / "journal.jsonl").read_bytes()
    ends = np.cumsum([len(line) for line in content.splitlines(keepends=True)])
    place = tmp_path / "cut" / "AB"
    place.mkdir(parents=True)
    (place / "start.nii.gz").write_bytes((folder / "start.nii.gz").read_bytes())
    for cut in [*range(ends[0], len(content) + 1, 7), *ends, *(ends[1:] - 1)]:
        (place / "journal.jsonl").write_bytes(content[:cut])
        with Reading.open(SCAN, "AB", tmp_path / "cut") as reading:
            n_whole = int(np.sum(ends <= cut)) - 1
            assert np.array_equal(reading.labels, states[n_whole]), cut
            reading.draw(STROKES[0])  # and it goes on from there
        assert len(read_journal(place / "journal.jsonl")[0]) == n_whole + 2


@pytest.mark.parametrize("harm", ["change", "lose", "exchange"])
def test_a_journal_that_was_tampered_with_is_not_believed(whole, harm):
    folder, _ = whole
    path = folder / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    if harm == "change":
        lines[2] = lines[2].replace(b'"code":', b'"code" :')
    elif harm == "lose":
        del lines[2]
    else:
        lines[2], lines[3] = lines[3], lines[2]
    path.write_bytes(b"".join(lines))
    with pytest.raises(ReadingError, match=r"journal.jsonl, line 3: not as it was written"):
        Reading.open(SCAN, "AB", folder.parent)


def test_a_whole_last_line_that_was_changed_is_not_taken_for_a_cut_one(whole):
    folder, _ = whole
    path = folder / "journal.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-9] + b"X" + content[-8:])
    with pytest.raises(ReadingError, match="line 8: not as it was written"):
        Reading.open(SCAN, "AB", folder.parent)
    assert len(path.read_bytes()) == len(content)


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_leaves_a_stroke_on_disk_and_in_the_marks_or_in_neither(tmp_path, monkeypatch,
                                                                             when):
    """Jupyter's stop button, as an exception in the middle of a write and as a signal."""
    reading = Reading.open(SCAN, "AB", tmp_path)
    reading.draw(STROKES[0])
    sync = os.fsync

    def stopped(number):
        if when == "after":
            sync(number)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", stopped)
        with pytest.raises(KeyboardInterrupt):
            reading.draw(STROKES[1])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            reading.draw(STROKES[2])
    reading.draw(STROKES[3])
    drawn, n = reading.labels.copy(), reading.n_strokes
    reading.close()
    with Reading.open(SCAN, "AB", tmp_path) as again:
        assert np.array_equal(again.labels, drawn)
        assert again.n_strokes == n == 3


def test_a_reading_that_was_killed_while_it_was_finished_is_finished(tmp_path, monkeypatch):
    with Reading.open(SCAN, "AB", tmp_path) as reading:
        reading.draw(STROKES[0])
        drawn = reading.labels.copy()
        with monkeypatch.context() as patch:
            patch.setattr(reading, "_record", lambda: (_ for _ in ()).throw(OSError(28, "full")))
            with pytest.raises(OSError, match="full"):
                reading.finish()
    with Reading.open(SCAN, "AB", tmp_path) as again:
        assert again.finished
    mask, record = read_finished(tmp_path / "AB", SCAN)
    assert np.array_equal(mask.labels, drawn)
    assert record["finished"]


def test_an_old_window_that_closes_leaves_the_new_one_open(tmp_path):
    old = Reading.open(SCAN, "AB", tmp_path)
    new = Reading.open(SCAN, "AB", tmp_path)
    old.close()
    new.draw(STROKES[0])
    Reading.open(SCAN, "AB", tmp_path).close()  # not "open elsewhere, by this very process"


def test_a_full_disk_leaves_journal_and_marks_as_they_were(tmp_path, monkeypatch):
    reading = Reading.open(SCAN, "AB", tmp_path)
    reading.draw(STROKES[0])
    before, labels = (reading.folder / "journal.jsonl").read_bytes(), reading.labels.copy()

    def full(*_):
        raise OSError(28, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            reading.draw(STROKES[1])
    assert (reading.folder / "journal.jsonl").read_bytes() == before
    assert np.array_equal(reading.labels, labels)
    reading.draw(STROKES[1])
    assert len(reading.journal.events) == 3
    reading.close()


def test_a_journal_holds_numbers_only(tmp_path):
    journal = Journal(tmp_path / "j")
    with pytest.raises(ValueError, match="JSON"):
        journal.write({"a": float("nan")})
    assert read_journal(tmp_path / "j")[0] == []
    (tmp_path / "k").write_bytes(b"0 {}\n" * 3)
    with pytest.raises(JournalError):
        Journal(tmp_path / "k")


# ---- readings ----


PAINTER = """
import sys, time
sys.path.insert(0, sys.argv[1])
import test_corrections as t
reading = t.Reading.open(t.SCAN, "AB", sys.argv[2])
for k in range(100000):
    reading.draw(t.STROKES[k % 6] | {"index": k % 5})
    print(k, flush=True)
"""


def test_a_killed_process_costs_at_most_the_stroke_under_way(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", PAINTER, os.path.dirname(__file__), tmp_path],
                               stdout=subprocess.PIPE, text=True)
    seen = 0
    while seen < 40:
        seen = int(process.stdout.readline())
    process.kill()
    rest = process.communicate()[0].split()
    seen = int(rest[-1]) if rest else seen
    with Reading.open(SCAN, "AB", tmp_path) as reading:
        assert reading.n_strokes in (seen + 1, seen + 2)  # one on disk, not yet told of
        drawing = Drawing(SCAN, empty())
        for k in range(reading.n_strokes):
            drawing.apply(STROKES[k % 6] | {"index": k % 5})
        assert np.array_equal(reading.labels, drawing.labels)


def test_two_readers_have_a_folder_each_and_one_reader_one_window(tmp_path):
    one = Reading.open(SCAN, "AB", tmp_path)
    two = Reading.open(SCAN, "CD", tmp_path)
    one.draw(STROKES[0])
    assert not two.labels.any()
    code = ("import sys; sys.path.insert(0, sys.argv[1]); import test_corrections as t;"
            "t.Reading.open(t.SCAN, 'AB', sys.argv[2])")
    other = subprocess.run([sys.executable, "-c", code, os.path.dirname(__file__), tmp_path],
                           capture_output=True, text=True, check=False)
    assert f"process {os.getpid()} on" in other.stderr
    assert "has the reading of AB open" in other.stderr
    again = Reading.open(SCAN, "AB", tmp_path)  # the cell is run again: the first one lets go
    assert np.array_equal(again.labels, one.labels)
    with pytest.raises(ValueError, match="closed"):
        one.draw(STROKES[1])
    again.close()
    two.close()
    assert not readings._open


def test_a_finished_reading_is_kept_as_it_is_until_it_is_reopened_with_a_reason(tmp_path):
    start = empty()
    start[2, 3:6, 3:6] = 1
    with Reading.open(SCAN, "AB", tmp_path, start=start, start_from="automatic") as reading:
        reading.draw(STROKES[0], seconds=12.5)
        reading.work(7.5)
        path = reading.finish()
        with pytest.raises(ReadingError, match="is finished: reopen it with a reason"):
            reading.draw(STROKES[1])
        drawn = reading.labels.copy()
    assert np.array_equal(read_mask(path, SCAN).labels, drawn)
    mask, record = read_finished(tmp_path / "AB", SCAN)
    assert np.array_equal(mask.labels, drawn)
    assert record["active_seconds"] == 20.0
    assert (record["strokes"], record["start_from"]) == (1, "automatic")
    with Reading.open(SCAN, "AB", tmp_path) as again:
        assert again.finished
        with pytest.raises(ReadingError, match="give it in words"):
            again.reopen(" ")
        again.reopen("the effusion was missed")
        again.draw(STROKES[1])
    with pytest.raises(ReadingError, match="reopened and not finished again"):
        read_finished(tmp_path / "AB", SCAN)
    with Reading.open(SCAN, "AB", tmp_path) as again:
        again.finish()
    record = read_finished(tmp_path / "AB", SCAN)[1]
    assert [entry["reason"] for entry in record["reopened"]] == ["the effusion was missed"]
    assert len(record["finished_at"]) == 2


def test_a_reading_belongs_to_its_scan(tmp_path):
    with Reading.open(SCAN, "AB", tmp_path) as reading:
        reading.draw(STROKES[0])
        reading.finish()
    other = make_scan(seed=1)
    with pytest.raises(ReadingError, match="a reading of another scan"):
        Reading.open(other, "AB", tmp_path)
    with pytest.raises(ReadingError, match="a reading of another scan"):
        read_finished(tmp_path / "AB", other)
    moved = dataclasses.replace(SCAN, grid=Grid.upright(SHAPE, (4.0, 1.5, 0.9)))
    with pytest.raises(ReadingError, match="a reading of another scan"):
        Reading.open(moved, "AB", tmp_path)
    write_mask(LesionMask.like(SCAN, empty()), tmp_path / "AB" / "mask.nii.gz")
    with pytest.raises(ReadingError, match="not the mask that was drawn"):
        read_finished(tmp_path / "AB", SCAN)


@pytest.mark.parametrize("reader", ["", "../up", "a/b", "AB "])
def test_a_reader_has_a_name_that_can_name_a_folder(tmp_path, reader):
    with pytest.raises(ValueError, match="reader"):
        Reading.open(SCAN, reader, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_mask_that_could_not_be_written_leaves_the_reading_unfinished(tmp_path, monkeypatch):
    reading = Reading.open(SCAN, "AB", tmp_path)
    reading.draw(STROKES[0])
    with monkeypatch.context() as patch:
        patch.setattr(readings, "write_mask", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            reading.finish()
    assert not reading.finished
    reading.finish()
    assert json.loads((reading.folder / "reading.json").read_text())["finished"]
    reading.close()


def test_a_long_sitting_without_a_stroke_counts_for_little(tmp_path):
    with Reading.open(SCAN, "AB", tmp_path) as reading:
        reading.draw(STROKES[0], seconds=4000)
        reading.draw(STROKES[1], seconds=-3)
        reading.work(9000)
        assert reading.seconds == 2 * readings.MOST_SECONDS
        reading.finish()
        reading.work(50)  # looking at a finished reading is no work
        assert reading.seconds == 2 * readings.MOST_SECONDS


def test_a_stroke_on_a_large_slice_is_the_work_of_a_small_box():
    scan = Scan(np.zeros((3, 630, 630), np.int16), Grid.upright((3, 630, 630), (5, 0.6, 0.6)), "c")
    box, _, _ = find_change({"tool": "brush", "plane": "axial", "index": 1, "code": 1,
                             "path": [[300, 300], [310, 320]], "radius_mm": 6.0},
                            np.zeros(scan.shape, np.uint8), scan)
    assert np.prod([part.stop - part.start for part in box]) < 2000


def test_a_reading_goes_on_with_the_lungs_it_was_begun_with(tmp_path):
    stroke = {**STROKES[0], "radius_mm": 60.0, "in_lungs": True}
    with Reading.open(SCAN, "AB", tmp_path, lungs=LUNGS) as reading:
        reading.draw(stroke)
        drawn = reading.labels.copy()
    with Reading.open(SCAN, "AB", tmp_path, lungs=~LUNGS) as again:
        assert np.array_equal(again.labels, drawn)
        assert np.array_equal(again.drawing.lungs, LUNGS)
    (tmp_path / "AB" / "lungs.nii.gz").write_bytes((tmp_path / "AB" / "start.nii.gz").read_bytes())
    with pytest.raises(ReadingError, match="not the lungs that the reading began with"):
        Reading.open(SCAN, "AB", tmp_path)


def test_a_stroke_that_another_version_would_draw_otherwise_is_found(tmp_path, monkeypatch):
    with Reading.open(SCAN, "AB", tmp_path) as reading:
        reading.draw(STROKES[1])
        reading.draw({"tool": "undo"})
    kept = tools.TOOLS["brush"]
    monkeypatch.setitem(tools.TOOLS, "brush", lambda stroke, *rest: kept(
        {**stroke, "radius_mm": stroke["radius_mm"] + 2}, *rest))
    with pytest.raises(ReadingError, match="stroke 1 changes other voxels than it did"):
        Reading.open(SCAN, "AB", tmp_path)


def test_strokes_of_two_threads_are_each_whole_in_journal_and_marks(tmp_path):
    """A page draws in one thread while a cell draws in another."""
    scan = Scan(np.zeros((4, 30, 30), np.int16), Grid.upright((4, 30, 30), (5.0, 1.0, 1.0)), "two")
    reading = Reading.open(scan, "AB", tmp_path)

    def draw(index):
        for k in range(40):
            reading.draw({"tool": "brush", "plane": "axial", "index": index, "code": 1 + k % 2,
                          "path": [[k % 30, (7 * k) % 30]], "radius_mm": 2.0})
            if k % 5 == 4:
                reading.undo()
    threads = [threading.Thread(target=draw, args=(index,)) for index in (0, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    drawn = reading.labels.copy()
    assert reading.n_strokes == 2 * (40 + 8)
    reading.close()
    with Reading.open(scan, "AB", tmp_path) as again:  # replay checks each stroke's voxels
        assert np.array_equal(again.labels, drawn)
