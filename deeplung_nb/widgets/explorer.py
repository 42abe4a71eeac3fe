"""The agreement explorer: any two readers of a table, seen and reported from every side.

It needs a table of readings and nothing else: no CT, no torch. All numbers come from
`report.explore.answer`; a widget here only asks and shows.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
import traitlets

from deeplung_nb import measurements
from deeplung_nb.labels import STRUCTURES, TITLES, VALUES
from deeplung_nb.report.explore import (
    LIMIT_NAMES,
    Answer,
    LeftOut,
    Question,
    answer,
    choosable,
    first_question,
    with_and_without,
)
from deeplung_nb.report.export import export
from deeplung_nb.report.style import reader_names
from deeplung_nb.stats import agreement
from deeplung_nb.widgets.further import Further
from deeplung_nb.widgets.picture import OPENING, PointPicture, WithStill

ALL = "all"
CI_NAMES = {"mover": "MOVER", "exact": "exact, one limit", "pair": "exact, both limits",
            "approximate": "approximate"}
LEVELS = (0.9, 0.95, 0.99)
QUIET_SECONDS = 0.15
"""For which the controls are left alone before they are answered."""
MOST_POINTED = 3000
"""Cases that can be pointed at in a picture of more."""


def _html(frame: pd.DataFrame) -> str:
    return frame.to_html(index=False, border=0, escape=True)


class AgreementExplorer(WithStill, ipywidgets.VBox):
    """Choose readers, cases, value, scale, limits; see plots and every statistic change together.

    Parameters
    ----------
    table
        A table of measurements, or the path of a `measurements.csv`.
    source
        The expression that made `table`, for the exported code; known for a path.
    open_case
        Called with (cohort, case_id) of a picked point; returns a widget to show, or None. Without
        it the readings of the case are shown.
    folder
        Where exports are written.
    plan
        Limits of agreement that the study declared beforehand, as `stats.comparison.compare`: those
        "as reported".

    Attributes
    ----------
    question
        `report.explore.Question`; set it from code, or `observe` it.
    found
        The `Answer` on show; None where the question has none.
    picked
        (cohort, case_id) of the last picked point.
    """

    question = traitlets.Instance(Question)
    found: Any = traitlets.Instance(Answer, allow_none=True)
    picked = traitlets.Tuple(default_value=())

    def __init__(self, table: pd.DataFrame | str | os.PathLike, *, source: str | None = None,
                 open_case: Any = None, folder: str | os.PathLike = "exports",
                 question: Question | None = None, plan: str = "auto") -> None:
        if not isinstance(table, pd.DataFrame):
            source = source or f"measurements.read({str(table)!r})"
            table = measurements.read(table)
        self.table = measurements.check(table)
        self.source = source or "table  # the table of readings, as you made it"
        self.open_case, self.folder = open_case, Path(folder)
        self._plan = question.plan if question else plan
        first = question or first_question(self.table, plan)
        self._make_controls(list(dict.fromkeys(self.table["reader"])),
                            sorted({*LEVELS, first.confidence}))
        super().__init__()
        self.add_class("dl-explorer")
        self.add_class("dl-agreement")
        self.children = self._lay_out()
        self._busy, self._seen = False, None  # what was opened of the last picked case
        self._later: asyncio.TimerHandle | None = None
        for control in self._controls.values():
            control.observe(self._soon, "value")
        self.question = first

    @classmethod
    def from_csv(cls, path: str | os.PathLike, readers: Mapping[str, str] | None = None, *,
                 open_case: Any = None, folder: str | os.PathLike = "exports",
                 **options: Any) -> AgreementExplorer:
        """From any CSV or Excel file with one row a case and one column a reader.

        Parameters
        ----------
        readers
            Reader -> its column; default: the two numeric columns, if there are just two.
        options
            As `measurements.from_wide`: `unit` (of volumes it must be said), `value`, `decimal`,
            `structure`, `case_id` ...

        Raises
        ------
        ValueError
            The file is no table, or it does not say which columns are the readers'.
        """
        table, source = measurements.read_readings(path, readers, **options)
        return cls(table, source=source, open_case=open_case, folder=folder)

    def _make_controls(self, readers: list[str], levels: list[float]) -> None:
        table = self.table

        def choice(label: str, options: Any, tip: str) -> ipywidgets.Dropdown:
            return ipywidgets.Dropdown(
                options=options, description=label, tooltip=tip,
                style={"description_width": "76px"}, layout={"width": "270px"})

        structures = [(TITLES[name], name) for name in STRUCTURES
                      if (table["structure"] == name).any()]
        values = [(f"{words}, {unit}", name) for name, (words, unit) in VALUES.items()
                  if table[name].notna().any()]
        controls = {
            "reference": choice("reference", readers, "Differences are test − reference"),
            "test": choice("test", readers, "Differences are test − reference"),
            "structure": choice("structure", structures, "What was read"),
            "value": choice("value", values, "In what the readers are compared"),
            "scale": choice("scale", agreement.SCALES, "Of differences; ratio leaves out zeros"),
            "limits": choice("limits", [(text, name) for name, text in LIMIT_NAMES.items()],
                             "How the limits of agreement are found"),
            "ci": choice("their CI", [(text, name) for name, text in CI_NAMES.items()],
                         "Interval of bias ± 1.96 SD; the other limits have their own"),
            "confidence": choice("level", [(f"{100 * level:g} %", level) for level in levels],
                                 "Of all intervals"),
        }
        for name in choosable(table):
            shown = sorted(table[name].dropna().astype("str").unique())
            controls[f"where {name}"] = choice(name, [ALL, *shown], f"Only cases of this {name}")
        self._controls = controls

    def _lay_out(self) -> tuple[ipywidgets.Widget, ...]:
        self._picture = PointPicture(self._pick)
        self._table = ipywidgets.HTML(layout={"overflow": "auto"})
        self._table.add_class("dl-scroll")
        self._notes = ipywidgets.HTML()
        self._case = ipywidgets.VBox()
        self._reason = ipywidgets.Text(placeholder="reason, printed with every result",
                                       layout={"width": "300px"})
        self._leave = ipywidgets.Button(description="leave out", disabled=True,
                                        layout={"width": "auto"},
                                        tooltip="Leave the picked case out, for this reason")
        self._leave.on_click(lambda _: self.leave_out(*self.picked, self._reason.value))
        self._back = ipywidgets.VBox()
        self._beside = ipywidgets.Checkbox(value=False, indent=False, disabled=True,
                                           description="with and without, side by side")
        self._beside.observe(lambda _: self._show_table(), "value")
        self._export = ipywidgets.Button(description="export", icon="download", tooltip=
                                         "Figure, table, paragraph and code, as files")
        self._export.on_click(lambda _: self.export())
        self._exported, self._message = ipywidgets.HTML(), ipywidgets.HTML()
        self.further = Further(self)
        rows = ipywidgets.HBox(list(self._controls.values()), layout={"flex_flow": "row wrap"})
        return (rows, self._message, self._picture, self._notes,
                ipywidgets.HBox([self._reason, self._leave, self._beside],
                                layout={"flex_flow": "row wrap"}), self._back,
                self._case, self._table, ipywidgets.HBox([self._export, self._exported]),
                self.further)

    def _soon(self, _: Any) -> None:
        """Ask once the controls have been left alone: of several changes only the last counts."""
        if self._busy:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no page is waiting
            self._ask()
            return
        self._picture.busy = "working it out …"  # said before the kernel is busy with it
        if self._later is not None:
            self._later.cancel()
        self._later = loop.call_later(QUIET_SECONDS, self._ask)

    def _ask(self) -> None:
        """The controls' question."""
        chosen: dict[str, Any] = {name: control.value for name, control in self._controls.items()}
        where = tuple((name.removeprefix("where "), value) for name, value in chosen.items()
                      if name.startswith("where ") and value != ALL)
        plain = {name: value for name, value in chosen.items() if not name.startswith("where ")}
        try:
            self.question = Question(**plain, where=where, plan=self._plan,
                                     margin=self.question.margin, left_out=self.question.left_out)
        except ValueError as error:
            self._say(error)
        finally:
            self._picture.busy = ""

    def _say(self, error: Exception | None) -> None:
        self._message.value = "" if error is None else \
            f'<span class="dl-notes">{escape(str(error))}</span>'

    @traitlets.observe("question")
    def _answer(self, change: Any) -> None:
        question = change["new"]
        self._busy = True
        try:
            for name, control in self._controls.items():
                column = name.removeprefix("where ")
                control.value = dict(question.where).get(column, ALL) if column != name else \
                    getattr(question, name)
        finally:
            self._busy = False
        self._controls["ci"].disabled = question.limits != "constant"
        try:
            found = answer(self.table, question, self.found)
            figure = found.figure
        except ValueError as error:
            self.found = None
            self._say(error)
            return
        self._say(None)
        self.further.clear()
        self.found = found
        number = self._number(*self.picked) if self.picked else -1
        if number < 0:
            self._unpick()
        self._name_leave()
        self._picture.show(figure, self._labels(number), number)
        hidden = len(self._shown) - len(self._picture.labels)
        further = [f"the {MOST_POINTED} cases farthest from the bias can be pointed at, {hidden} "
                   "others found by their name"] * bool(hidden)
        notes = "<br>".join(map(escape, [*found.notes, *further]))
        self._notes.value = f'<span class="dl-notes">{notes}</span>' if notes else ""
        self._beside.disabled = not question.left_out
        if not question.left_out:
            self._beside.value = False
        self._back.children = [self._way_back(case) for case in question.left_out]
        self._show_table()

    @property
    def _shown(self) -> pd.DataFrame:
        """The cases of the picture's points, in their order."""
        return pd.concat([self.found.pairs, self.found.left_out], ignore_index=True)

    def _number(self, cohort: str, case_id: str) -> int:
        """The place of a case among those shown; -1 where it is not."""
        shown = self._shown
        rows = ((shown["cohort"] == cohort) & (shown["case_id"] == case_id)).to_numpy()
        return int(rows.argmax()) if rows.any() else -1

    def _labels(self, picked: int) -> dict[int, str]:
        """What is said of the cases that can be pointed at: all, or those far from the bias."""
        shown = self._shown
        if len(shown) > MOST_POINTED:
            d = shown["test"] - shown["reference"]
            far = np.argsort(-np.abs(d - d.mean()), kind="stable")[:MOST_POINTED]
            n = len(self.found.pairs)
            wanted = {*map(int, far), *range(n, len(shown)), *([picked] if picked >= 0 else [])}
            shown = shown.iloc[sorted(wanted)]
        rows: list[Any] = list(shown.itertuples())
        return {int(row.Index): self._label(row) for row in rows}

    def _label(self, row: Any) -> str:
        names = reader_names(self.found.pairs)
        unit = VALUES[self.question.value][1]
        reason = getattr(row, "reason", None)
        out = f"\nleft out: {reason}" if isinstance(reason, str) else ""
        return (f"{row.cohort} {row.case_id}\n{names[0]} {row.reference:.4g} {unit}, "
                f"{names[1]} {row.test:.4g} {unit}{out}")

    def _show_table(self) -> None:
        if self.found is not None:
            self._table.value = _html(with_and_without(self.table, self.question)
                                      if self._beside.value else self.found.printed)

    def _name_leave(self) -> None:
        """The button says whom it leaves out."""
        out = {(case.cohort, case.case_id) for case in self.question.left_out}
        self._leave.disabled = not self.picked or self.picked in out
        self._leave.description = f"leave out {self.picked[1]}" if self.picked else "leave out"

    def _unpick(self) -> None:
        self.picked = ()
        self._picture.picked, self._case.children = -1, ()
        self._name_leave()

    def _pick(self, number: int) -> None:
        row = self._shown.iloc[number]
        if str(number) not in self._picture.labels:
            self._picture.show(self.found.figure, self._labels(number), number)
        self._picture.picked = number
        if self.picked == (row.cohort, row.case_id):
            return
        self.picked = (row.cohort, row.case_id)
        self._name_leave()
        cohort, case_id = self.picked
        rows = self.table.query("cohort == @cohort and case_id == @case_id")
        columns = ["reader", "structure", *(name for name in ("volume_ml", "burden_percent",
                                                              "mean_hu", "dice", "note")
                                            if rows[name].notna().any())]
        head = ipywidgets.HTML(f"<b>{escape(cohort)} {escape(case_id)}</b>" + _html(
            rows[columns].round(3).astype(object).fillna("")))
        head.layout.overflow = "auto"
        head.add_class("dl-scroll")
        self._case.children = [head, *([ipywidgets.HTML(OPENING)] if self.open_case else [])]
        try:
            seen = self.open_case and self.open_case(*self.picked)
        except (ImportError, OSError, ValueError) as error:
            seen = ipywidgets.HTML(f'<span class="dl-notes">{escape(str(error))}</span>')
        if self._seen is not None and self._seen is not seen:
            self._seen.close()
        self._seen = seen
        self._case.children = [head, *([seen] if seen is not None else [])]

    def pick(self, cohort: str, case_id: str) -> None:
        """What a click on the case's point does; where it is not among those shown, none is picked.
        """
        number = -1 if self.found is None else self._number(cohort, case_id)
        if number >= 0:
            self._pick(number)
        else:
            self._unpick()

    def _way_back(self, case: LeftOut) -> ipywidgets.Widget:
        button = ipywidgets.Button(description="take back", layout={"width": "90px"})
        button.on_click(lambda _: self.take_back(case.cohort, case.case_id))
        return ipywidgets.HBox([button, ipywidgets.HTML(
            f"left out: {escape(case.cohort)} {escape(case.case_id)} ({escape(case.reason)})")])

    def leave_out(self, cohort: str, case_id: str, reason: str) -> None:
        """Leave a case out of all numbers; the reason is printed with every result."""
        try:
            case = LeftOut(cohort, case_id, reason)
            answer(self.table, replace(self.question, left_out=(case,)))
        except ValueError as error:
            self._say(error)
            return
        kept = tuple(other for other in self.question.left_out
                     if (other.cohort, other.case_id) != (cohort, case_id))
        self._reason.value = ""
        self.question = replace(self.question, left_out=(*kept, case))

    def take_back(self, cohort: str, case_id: str) -> None:
        """A case that was left out counts again."""
        self.question = replace(self.question, left_out=tuple(
            case for case in self.question.left_out
            if (case.cohort, case.case_id) != (cohort, case_id)))

    @property
    def code(self) -> str:
        """A cell that makes this state again."""
        return self.question.code(self.source)

    def export(self, folder: str | os.PathLike | None = None) -> list[Path]:
        """Write figure (PDF, SVG, PNG), table (CSV, LaTeX, Word), paragraph and code.

        Returns
        -------
        list of Path
            New files; none is replaced.
        """
        if self.found is None:
            return []
        files = export(self.found, Path(folder or self.folder), self.code)
        self._exported.value = "written: " + ", ".join(escape(str(path)) for path in files)
        return files

    def still(self) -> Any:
        """The figure of the answer on show; None where the question has none."""
        return None if self.found is None else self.found.figure

    @property
    def curtain(self) -> Any:
        """The living figure, which hides the still one."""
        return self._picture
