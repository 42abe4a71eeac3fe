"""Progress of long work: a bar where somebody looks on, lines in a file where a program does.

`make reproduce` runs notebooks in kernels of their own, whose bars nobody sees while they move. It
names a file in `DEEPLUNG_PROGRESS`; the kernels then write a line there now and then instead of
drawing, and one bar outside follows all of them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tqdm.auto import tqdm

ENVIRONMENT = "DEEPLUNG_PROGRESS"
SECONDS_BETWEEN_LINES = 0.5
T = TypeVar("T")


class State(NamedTuple):
    """How far one piece of work is; `start` of its `total` units were done before this call."""

    label: str
    done: int
    total: int
    start: int


class Progress:
    """A context manager that counts units of work.

    Parameters
    ----------
    label
        Name of the work, the same in every call that goes on with it.
    total, done
        Units in all, and those that an earlier call did.
    shown
        False: silent.
    """

    def __init__(self, label: str, total: int, unit: str, done: int = 0, shown: bool = True):
        path = os.environ.get(ENVIRONMENT)
        self.path = Path(path) if path and shown else None
        self.bar = tqdm(total=total, initial=done, desc=label, unit=unit, mininterval=1.0,
                        disable=not shown or self.path is not None)
        self.state = State(label, done, total, done)
        self._written = 0.0
        self._write()

    def update(self, n: int = 1, **facts: Any) -> None:
        """`n` more units are done; `facts` stand beside the bar."""
        self.state = self.state._replace(done=self.state.done + n)
        self.bar.update(n)
        if facts:
            self.bar.set_postfix(facts, refresh=False)
        if time.monotonic() - self._written > SECONDS_BETWEEN_LINES:
            self._write()

    def _write(self) -> None:
        if self.path is None:
            return
        self._written = time.monotonic()
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(self.state) + "\n")

    def close(self) -> None:
        """No more will be done in this call."""
        self._write()
        self.bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def track(items: Iterable[T], label: str, unit: str, total: int | None = None,
          shown: bool = True) -> Iterator[T]:
    """The items, counted as they are used up."""
    if total is None:
        total = len(items) if isinstance(items, Sized) else 0
    with Progress(label, total, unit, shown=shown) as progress:
        for item in items:
            yield item
            progress.update()


def read_states(path: Path, offset: int = 0) -> tuple[list[State], int]:
    """The whole lines of a progress file from a place on, and the place after them."""
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            content = stream.read()
    except FileNotFoundError:
        return [], offset
    whole = content[:content.rfind(b"\n") + 1]
    return [State(*json.loads(line)) for line in whole.splitlines()], offset + len(whole)


def words_for(seconds: float) -> str:
    """A time for people: `40 s`, `7 min`, `1 h 20 min`."""
    if seconds < 90:
        return f"{max(round(seconds, -1), 10):.0f} s" if seconds >= 10 else "a few s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class Overview:
    """How far a plan of several works is, and how long the rest will take.

    Parameters
    ----------
    plan
        Label -> (units, seconds a unit took on the machine where that was measured). The machine
        at hand is faster or slower by one factor for all, which is what is measured here.
    """

    def __init__(self, plan: dict[str, tuple[int, float]]) -> None:
        self.plan = plan
        self.states: dict[str, State] = {}
        self.latest = ""
        self.began = time.monotonic()

    def take(self, state: State) -> None:
        """Note a state."""
        before = self.states.get(state.label)
        # What an earlier process of this call did is no work of an earlier call.
        start = state.start if before is None else before.start
        self.states[state.label] = state._replace(start=start)
        if state.done < state.total:
            self.latest = f"{state.label} {state.done}/{state.total}"

    def _seconds(self, count: str) -> float:
        return sum(self._share(label, count) * units * seconds
                   for label, (units, seconds) in self.plan.items())

    def _share(self, label: str, count: str) -> float:
        state = self.states.get(label)
        if state is None or state.total == 0:
            return 0.0
        return min(getattr(state, count) / state.total, 1.0)

    @property
    def share(self) -> float:
        """Of the whole plan, 0 to 1."""
        whole = sum(units * seconds for units, seconds in self.plan.values())
        return self._seconds("done") / whole if whole else 1.0

    def seconds_left(self, elapsed: float | None = None) -> float | None:
        """From what was done in this call; None while too little was."""
        elapsed = time.monotonic() - self.began if elapsed is None else elapsed
        whole = sum(units * seconds for units, seconds in self.plan.values())
        done, start = self._seconds("done"), self._seconds("start")
        if done - start < 0.02 * whole or elapsed < 5:
            return None
        return (whole - done) * elapsed / (done - start)
