"""Where a reader of a study sits: one case after the other, in the order of the plan."""

from __future__ import annotations

import ipywidgets as widgets

from deeplung_nb.corrections.reading import ReadingError
from deeplung_nb.corrections.study import ReaderStudy, StudyError
from deeplung_nb.widgets.corrector import Corrector


class ReadingDesk(widgets.VBox):
    """The readings of one reader; the page knows of a case what the arm allows, and its made name.

    Parameters
    ----------
    study
        The study, whose folder keeps every stroke.
    reader
        Who sits here.

    Raises
    ------
    StudyError
        Nobody of this name reads.
    """

    def __init__(self, study: ReaderStudy, reader: str) -> None:
        self.study, self.reader, self.n = study, reader, len(study.of(reader))
        self.corrector: Corrector | None = None
        self._words = widgets.HTML()
        self._next = widgets.Button(description="Next case", button_style="primary")
        self._pause = widgets.Button(description="Pause",
                                     tooltip="Close the case; all strokes are kept")
        self._next.on_click(lambda _: self.go_on())
        self._pause.on_click(lambda _: self.pause())
        self._place = widgets.VBox()
        super().__init__([widgets.HBox([self._next, self._pause, self._words]), self._place])
        self._say("press “Next case” to begin")

    def _say(self, words: str) -> None:
        done = sum(self.study.finished_at(session) is not None
                   for session in self.study.of(self.reader))
        busy = self.corrector is not None and not self.corrector.reading.finished
        self._next.disabled, self._pause.disabled = busy, self.corrector is None
        self._words.value = f"Reader {self.reader}: {done} of {self.n} readings finished · {words}"

    def go_on(self) -> None:
        """Open the next case, or say why there is none now."""
        self._leave()
        try:
            session = self.study.next(self.reader)
            if session is None:
                self._say("all is read, thank you")
                return
            reading, shown = self.study.open(session)
        except (StudyError, ReadingError, OSError) as error:
            self._say(str(error))
            return
        self.corrector = Corrector(reading, shown, reading.drawing.lungs,
                                   on_finish=lambda _: self._finished())
        self._place.children = [self.corrector]
        self._say(f"reading {session.number}; “Finish reading” leads to the next")

    def _finished(self) -> None:
        self._say("finished: “Next case” goes on")

    def pause(self) -> None:
        """Close the case; the next time it goes on where it was left."""
        self._leave()
        self._say("paused, all strokes are kept")

    def _leave(self) -> None:
        self._place.children = []
        if self.corrector is not None:
            self.corrector.reading.close()
            self.corrector.close()
            self.corrector = None

    def close(self) -> None:
        """Leave, with all that is drawn kept."""
        self._leave()
        super().close()
