"""The training monitor: a real, tiny training is watched, stopped and gone on with."""

import threading

import numpy as np
import pandas as pd
import pytest
import torch

from deeplung_nb.learning.train import predict_slice, train
from deeplung_nb.network.checkpoint import CHECKPOINT, load_network
from deeplung_nb.widgets.monitor import TrainingMonitor
from tests.test_train import SMALL, assert_same_weights, make_cases


def training(folder):
    return lambda watchers: train(make_cases(), make_cases(1), SMALL, folder, seed=5,
                                  progress=False, device=torch.device("cpu"), watchers=watchers)


class StopAtStep(TrainingMonitor):
    """Its stop button is pressed during one step."""

    at = 3

    def hear_step(self, loss):
        if self._done + 1 == self.at:
            self._halt.click()
        return super().hear_step(loss)


@pytest.mark.nightly
def test_a_stopped_training_goes_on_to_the_weights_of_an_uninterrupted_one(tmp_path):
    training(tmp_path / "whole")([])
    monitor = StopAtStep(training(tmp_path / "stopped"), example=make_cases(1)[0])
    monitor._go.click()
    monitor.wait()
    assert monitor.state == "stopped"
    assert len(monitor.history) == 1  # of three epochs; the second was begun
    assert monitor._go.description == "go on"
    assert not monitor._go.disabled
    assert monitor._halt.disabled
    assert "step 3 of 6" in monitor._words.value
    monitor.at = 0
    monitor._go.click()
    history = monitor.wait()
    assert monitor.state == "finished"
    assert history["epoch"].tolist() == [0, 1, 2]
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")
    kept = pd.read_csv(tmp_path / "stopped" / "history.csv")
    pd.testing.assert_frame_equal(history.drop(columns="seconds"), kept.drop(columns="seconds"))
    assert bytes(monitor._image.png).startswith(b"\x89PNG")


def test_a_cell_returns_at_once_or_blocks(tmp_path):
    begun, go_on = threading.Event(), threading.Event()

    def slow(watchers):
        begun.set()
        go_on.wait(20)
        return training(tmp_path)(watchers)

    monitor = TrainingMonitor(slow)
    monitor.start()
    assert begun.wait(20)
    assert monitor.state == "training"  # we are here while it trains
    monitor.start()  # a second click does not train twice
    go_on.set()
    assert len(monitor.wait()) == 3
    TrainingMonitor(training(tmp_path / "b")).start(wait=True)
    assert (tmp_path / "b" / CHECKPOINT).exists()


def test_it_says_what_is_done_while_cases_are_made_ready_and_can_stop_then(tmp_path):
    said = []

    def preparing(watchers):
        said.append(monitor._words.value)
        for k in range(1, 4):
            if k == 3:
                monitor._halt.click()
            if any([watcher.prepare(k, 12) for watcher in watchers]):
                said.append(monitor._words.value)
                return pd.DataFrame()
            said.append(monitor._words.value)
        raise AssertionError("it went on")

    monitor = TrainingMonitor(preparing)
    monitor.start(wait=True)
    assert "training: getting the cases ready" in said[0]
    assert [f"training: case {k} of 12 is ready" in said[k] for k in (1, 2)] == [True, True]
    assert "stopping: case 3 of 12 is ready" in said[3]
    assert monitor.state == "stopped"
    assert monitor._go.description == "go on"


def test_an_interrupted_cell_leaves_the_run_resumable(tmp_path, monkeypatch):
    monitor = TrainingMonitor(training(tmp_path))
    real = threading.Thread.join
    calls = []

    def interrupted(self, timeout=None):
        calls.append(timeout)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return real(self, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    monitor.start(wait=True)
    assert monitor.state in ("stopped", "finished")
    monkeypatch.undo()
    monitor.start(wait=True)
    assert monitor.state == "finished"


def test_what_went_wrong_is_said_and_raised():
    def broken(watchers):
        raise OSError("disk <full>")

    monitor = TrainingMonitor(broken)
    with pytest.raises(OSError, match="disk <full>"):
        monitor.start(wait=True)
    assert monitor.state == "failed"
    assert "disk &lt;full&gt;" in monitor._words.value
    with pytest.raises(ValueError, match="nothing to train"):
        TrainingMonitor().start()


def test_a_finished_training_shows_the_same_picture_from_its_history(tmp_path):
    monitor = TrainingMonitor(training(tmp_path))
    monitor.start(wait=True)
    later = TrainingMonitor.from_history(tmp_path / "history.csv")
    assert later.figure.alt == monitor.figure.alt
    assert "3 epochs" in later.figure.alt
    assert later._go.layout.display == "none"
    with pytest.raises(FileNotFoundError, match=r"expected the history\.csv"):
        TrainingMonitor.from_history(tmp_path / "absent.csv")
    assert later.still().png().startswith(b"\x89PNG")


def test_the_example_is_what_the_network_says_now(tmp_path):
    case = make_cases(1)[0]
    monitor = TrainingMonitor(training(tmp_path), example=case)
    assert monitor.slice_index == 2  # both lesions
    monitor.start(wait=True)
    network = load_network(tmp_path / CHECKPOINT)
    seen = predict_slice(network, case, 2)
    np.testing.assert_array_equal(monitor._seen, seen)
    assert seen.shape == (32, 32)
    assert set(np.unique(seen)) <= {0, 1, 2}
