"""The training monitor: loss, rate, Dice and a slice while a network learns; stop, and go on later.

It is one more `learning.train.Watcher`, as the progress bar is; the training knows nothing of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
import traitlets

from deeplung_nb.learning.dataset import PreparedCase
from deeplung_nb.learning.train import predict_slice
from deeplung_nb.learning.watchers import Watcher
from deeplung_nb.network.checkpoint import Network
from deeplung_nb.report.counts import read_history
from deeplung_nb.report.training_plots import draw_training
from deeplung_nb.widgets.picture import PointPicture, WithStill

EVERY_SECONDS = 1.0
"""Least time between two pictures."""
STATES = ("ready", "training", "stopping", "stopped", "finished", "failed")


class _Ear(Watcher):
    """What a training is told to tell."""

    def __init__(self, monitor: TrainingMonitor) -> None:
        self.monitor = monitor

    def prepare(self, n_done: int, n_cases: int) -> bool:
        """Whether to stop."""
        return self.monitor.hear_prepare(n_done, n_cases)

    def start(self, n_steps: int, n_done: int) -> None:
        """A stage begins."""
        self.monitor.hear_start(n_steps, n_done)

    def step(self, epoch: int, loss: float) -> bool:
        """Whether to stop."""
        return self.monitor.hear_step(loss)

    def epoch(self, row: dict[str, Any], network: Network) -> bool:
        """Whether to stop."""
        return self.monitor.hear_epoch(row, network)

    def end(self, finished: bool) -> None:
        """A stage is left."""
        self.monitor.hear_end(finished)


class TrainingMonitor(WithStill, ipywidgets.VBox):
    """Watch a training, stop it at the end of a step, and let it go on.

    Parameters
    ----------
    train
        Called with the list of watchers; trains, and finds its own way back where it stopped, as
        `lambda watchers: train_fold(run, 0, watchers=watchers)` does.
    example
        A prepared case of which one slice is shown with the prediction after each epoch; better
        one that does not train.
    slice_index
        Which slice; default: the one with the most lesion.

    Attributes
    ----------
    state
        One of `STATES`.
    history
        Rows of history.csv: of this session while it trains, of all when it has ended or stopped.
    """

    state = traitlets.Enum(STATES, default_value="ready")
    history = traitlets.Instance(pd.DataFrame)

    def __init__(self, train: Callable[[list[Watcher]], pd.DataFrame] | None = None, *,
                 example: PreparedCase | None = None, slice_index: int | None = None) -> None:
        self._train, self.example = train, example
        if example is not None and slice_index is None:
            slice_index = int(np.argmax((example.target > 0).sum(axis=(1, 2))))
        self.slice_index = slice_index
        self.error: Exception | None = None
        self._thread: threading.Thread | None = None
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._seen: np.ndarray | None = None
        self._losses: list[tuple[int, float]] = []
        self._done = self._n_steps = self._begun_with = 0
        self._since = self._drawn = 0.0
        self._finished = False
        self._ready: tuple[int, int] | None = None
        self._go = ipywidgets.Button(description="train", icon="play",
                                     tooltip="Begin, or go on where it stopped")
        self._halt = ipywidgets.Button(description="stop", icon="stop", disabled=True,
                                       tooltip="After this step; it can go on later")
        self._go.on_click(lambda _: self.start())
        self._halt.on_click(lambda _: self.stop())
        self._words = ipywidgets.HTML()
        self._image = PointPicture()
        super().__init__(history=pd.DataFrame())
        self.add_class("dl-explorer")
        self.add_class("dl-training")
        self.children = [ipywidgets.HBox([self._go, self._halt, self._words]), self._image]
        self._show(force=True)

    @classmethod
    def from_history(cls, path: str | Path) -> TrainingMonitor:
        """The same picture of a training that is over, from its history.csv or its folder."""
        path = Path(path)
        if path.name != "history.csv" and not path.is_dir():
            raise FileNotFoundError(f"{path}: expected the history.csv of a training, or its "
                                    "folder")
        monitor = cls()
        monitor.history = read_history(path.parent if path.name == "history.csv" else path)
        monitor._go.layout.display = monitor._halt.layout.display = "none"
        monitor.state = "finished"
        monitor._show(force=True)
        return monitor

    # What the user asks for

    def start(self, wait: bool = False) -> None:
        """Train in the background; the cell returns at once. `wait` blocks until it ends.

        Raises
        ------
        ValueError
            There is nothing to train.
        """
        if self._train is None:
            raise ValueError("nothing to train: TrainingMonitor(lambda watchers: train_fold(run, "
                             "0, watchers=watchers))")
        if self.state not in ("training", "stopping"):
            if self._thread is not None:
                self._thread.join()  # it may be drawing its last picture
            self._stop.clear()
            self.error = None
            self._set("training")
            self._say()
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        if wait:
            self.wait()

    def stop(self) -> None:
        """Ask for a stop at the end of this step; what is unfinished of the epoch is done again."""
        with self._lock:
            if self.state == "training":
                self._stop.set()
                self._set("stopping")
        self._say()

    def wait(self) -> pd.DataFrame:
        """Block until the training ends or stops; an interrupt stops it, resumable.

        Raises
        ------
        Exception
            What the training failed with.
        """
        try:
            while self._thread is not None and self._thread.is_alive():
                self._thread.join(0.2)
        except KeyboardInterrupt:
            self.stop()
            self._thread.join()
        if self.error is not None:
            raise self.error
        return self.history

    def _run(self) -> None:
        try:
            history = self._train([_Ear(self)])
        except Exception as error:
            self.error = error
        else:
            if len(history):  # with the epochs of earlier sessions
                self.history = history
        with self._lock:
            self._set("failed" if self.error else "finished" if self._finished else "stopped")
        self._show(force=True)

    # What the training tells

    def hear_prepare(self, n_done: int, n_cases: int) -> bool:
        """While cases are made ready; True where a stop was asked for."""
        self._ready = (n_done, n_cases)
        self._say()
        return self._stop.is_set()

    def hear_start(self, n_steps: int, n_done: int) -> None:
        """A stage begins: steps planned and done."""
        self._ready = None
        self._n_steps, self._done, self._begun_with = n_steps, n_done, n_done
        self._since = time.perf_counter()
        self._losses = []
        self.history = pd.DataFrame()

    def hear_step(self, loss: float) -> bool:
        """After each step; True where a stop was asked for."""
        self._done += 1
        self._losses.append((self._done, loss))
        self._show()
        return self._stop.is_set()

    def hear_epoch(self, row: dict[str, Any], network: Network) -> bool:
        """After each epoch: its row, and the example as the network sees it now."""
        self.history = pd.concat([self.history, pd.DataFrame([row])], ignore_index=True)
        if self.example is not None:
            self._seen = predict_slice(network, self.example, self.slice_index)
        self._show(force=True)
        return self._stop.is_set()

    def hear_end(self, finished: bool) -> None:
        """A stage is left; the next one, if there is one, begins by itself."""
        self._finished = finished

    # What is to be seen

    def _set(self, state: str) -> None:
        self.state = state
        self._go.disabled = self._train is None or state in ("training", "stopping")
        self._go.description = {"stopped": "go on", "failed": "try again"}.get(state, "train")
        self._halt.disabled = state != "training"

    @property
    def seconds_left(self) -> float | None:
        """By the steps done in this session; None before the first."""
        done = self._done - self._begun_with
        if not done:
            return None
        return (time.perf_counter() - self._since) / done * (self._n_steps - self._done)

    def _show(self, force: bool = False) -> None:
        now = time.perf_counter()
        if not force and now - self._drawn < EVERY_SECONDS:
            return
        self._drawn = now
        self._say()
        example = None
        if self.example is not None:
            z = self.slice_index
            example = (np.asarray(self.example.hu[z]), np.asarray(self.example.target[z]),
                       self._seen)
        self.figure = draw_training(self.history, self._losses, example)
        self._image.show(self.figure)

    def _say(self) -> None:
        """What is being done, in words."""
        left = self.seconds_left
        words = self.state
        if self._ready is not None:
            words += ": case {} of {} is ready".format(*self._ready)
        elif self._n_steps:
            words += f": step {self._done} of {self._n_steps}"
        elif self.state == "training":
            words += ": getting the cases ready"
        if self.state == "training" and left is not None:
            words += f", {left / 60:.0f} min left" if left > 90 else f", {left:.0f} s left"
        if self.error is not None:
            words += f": {self.error}"
        self._words.value = f"&ensp;{escape(words)}"

    def still(self) -> Any:
        """The figure as it is now."""
        return self.figure

    @property
    def curtain(self) -> Any:
        """The living figure, which hides the still one."""
        return self._image
