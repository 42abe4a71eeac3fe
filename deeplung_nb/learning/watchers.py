"""Who follows a training, and may stop it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deeplung_nb.learning.team import Team
from deeplung_nb.runs.progress import Progress

if TYPE_CHECKING:
    from deeplung_nb.network.checkpoint import Network


class Watcher:
    """Somebody who follows a training; each method may be left as it is.

    `prepare`, `step` and `epoch` may return True to ask for a stop. The training then ends at once;
    what its last whole epoch left goes on, the next time, as if nothing had happened: the steps of
    an unfinished epoch are done again.
    """

    def prepare(self, n_done: int, n_cases: int) -> bool | None:
        """While cases are made ready, before the training: how many of them are."""

    def start(self, n_steps: int, n_done: int) -> None:
        """Before the first step: steps planned in all, and done in earlier calls."""

    def step(self, epoch: int, loss: float) -> bool | None:
        """After each step."""

    def epoch(self, row: dict[str, Any], network: Network) -> bool | None:
        """After each epoch, once its files are written: its row of history.csv."""

    def end(self, finished: bool) -> None:
        """When the training is left: whether nothing is left to do. Also after an error."""


class Bar(Watcher):
    """The progress bar."""

    def __init__(self, label: str, shown: bool) -> None:
        self.label, self.shown = label, shown

    def start(self, n_steps: int, n_done: int) -> None:
        self.bar = Progress(self.label, n_steps, "step", n_done, shown=self.shown)

    def step(self, epoch: int, loss: float) -> None:
        self.bar.update(epoch=epoch, loss=f"{loss:.3f}")

    def end(self, finished: bool) -> None:
        if finished:  # on a plateau, before all planned steps
            self.bar.update(self.bar.state.total - self.bar.state.done)
        self.bar.close()


class Stopped(Exception):
    """A watcher asked for a stop."""


class Watchers:
    """Tells all of them, and stops where one asks: then every process of a team."""

    def __init__(self, watchers: Sequence[Watcher], team: Team) -> None:
        self.watchers, self.team = watchers, team

    def tell(self, event: str, *facts: Any) -> None:
        # Each hears of it, even where the first has asked for a stop.
        asked = any([getattr(watcher, event)(*facts) for watcher in self.watchers])
        if self.team.any(asked):
            raise Stopped
