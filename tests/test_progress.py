"""Progress across processes, and a time left that can be believed."""

import io
import json

import pytest

from deeplung_nb.learning.plan import _train_seconds
from deeplung_nb.runs import progress
from deeplung_nb.runs.config import load_profile
from deeplung_nb.runs.progress import Overview, Progress, State, read_states, track, words_for


def test_under_reproduce_lines_go_to_the_file_and_no_bar_is_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(progress.ENVIRONMENT, str(tmp_path / "p"))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with Progress("train deeplung fold-0", 10, "step", done=4) as bar:
        for _ in range(6):
            bar.update(loss="0.5")
    assert list(track("abc", "prepare", "case")) == ["a", "b", "c"]
    states, place = read_states(tmp_path / "p")
    assert states[0] == State("train deeplung fold-0", 4, 10, 4)
    assert State("train deeplung fold-0", 10, 10, 4) in states
    assert states[-1] == State("prepare", 3, 3, 0)
    assert place == (tmp_path / "p").stat().st_size
    assert capsys.readouterr().err == ""


def test_a_line_that_is_half_written_waits(tmp_path):
    path = tmp_path / "p"
    path.write_text(json.dumps(State("a", 1, 2, 0)) + '\n["b", 1,')
    states, place = read_states(path)
    assert [state.label for state in states] == ["a"]
    path.write_text(path.read_text() + " 5, 0]\n")
    assert read_states(path, place)[0] == [State("b", 1, 5, 0)]
    assert read_states(tmp_path / "absent") == ([], 0)


def test_silent_work_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv(progress.ENVIRONMENT, str(tmp_path / "p"))
    list(track(range(3), "quiet", "x", shown=False))
    assert not (tmp_path / "p").exists()


PLAN = {"train": (100, 2.0), "measure": (20, 5.0), "notebook": (1, 10.0)}


@pytest.mark.parametrize("factor", [0.4, 1.0, 7.0])
def test_the_time_left_is_right_on_a_faster_and_on_a_slower_machine(factor):
    """310 s of work as measured; this machine takes `factor` times as long for all of it."""
    overview = Overview(PLAN)
    overview.take(State("train", 50, 100, 0))
    assert overview.share == pytest.approx(100 / 310)
    assert overview.seconds_left(100 * factor) == pytest.approx(210 * factor)
    overview.take(State("train", 100, 100, 0))
    overview.take(State("measure", 10, 20, 0))
    assert overview.seconds_left(250 * factor) == pytest.approx(60 * factor)
    assert overview.latest == "measure 10/20"


def test_work_of_an_earlier_call_does_not_make_this_one_look_fast():
    overview = Overview(PLAN)
    overview.take(State("train", 100, 100, 100))
    overview.take(State("measure", 10, 20, 0))
    assert overview.seconds_left(50) == pytest.approx(60)


def test_two_processes_on_one_work_are_one_work():
    """Notebook 04 trains a fold that notebook 05 then finds done."""
    overview = Overview(PLAN)
    overview.take(State("train", 100, 100, 0))
    overview.take(State("train", 100, 100, 100))
    assert overview.seconds_left(200) == pytest.approx(110)


def test_no_time_is_promised_before_anything_was_measured():
    overview = Overview(PLAN)
    assert overview.seconds_left(60) is None
    overview.take(State("train", 1, 100, 0))
    assert overview.seconds_left(60) is None


@pytest.mark.parametrize(("seconds", "words"), [(3, "a few s"), (38, "40 s"), (400, "7 min"),
                                                (4300, "72 min"), (12_000, "3 h 20 min")])
def test_times_are_for_people(seconds, words):
    assert words_for(seconds) == words


def test_a_bar_in_a_terminal_moves(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    list(track(range(3), "prepare", "case"))
    assert "prepare" in stream.getvalue()


def test_the_plan_knows_that_larger_pictures_and_batches_take_longer():
    quick, paper = load_profile("quick"), load_profile("paper")
    assert _train_seconds(paper, "deeplung") > 16 * _train_seconds(quick, "deeplung")
    assert _train_seconds(paper, "unet2d") > _train_seconds(quick, "unet2d")
