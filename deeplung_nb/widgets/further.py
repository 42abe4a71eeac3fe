"""Below the explorer: what one asks after the first look, computed when it is asked for."""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets

from deeplung_nb.labels import NO_AMOUNTS, TITLES
from deeplung_nb.report.every_choice import draw_choices
from deeplung_nb.report.explore import cases_of
from deeplung_nb.report.further import further_statistics, reader_statistics
from deeplung_nb.stats import coverage, multiverse

NOTHING = "nothing can be said of these pairs"
MOST_STUDIES = 200


class Further(ipywidgets.VBox):
    """Three buttons: every defensible choice, further statistics, how often intervals hold.

    Parameters
    ----------
    explorer
        An `AgreementExplorer`; its pairs, whatever they are when a button is pressed, are asked.

    Attributes
    ----------
    margin
        Text field: largest difference that does not matter; empty for none.
    """

    def __init__(self, explorer: Any) -> None:
        self.explorer = explorer
        self.margin = ipywidgets.Text(placeholder="margin, declared beforehand",
                                      layout={"width": "210px"})
        self._place = ipywidgets.HTML(layout={"overflow": "auto"})
        self._place.add_class("dl-scroll")
        self._picture = ipywidgets.VBox()
        self._bar = ipywidgets.IntProgress(layout={"width": "210px", "display": "none"})
        buttons = []
        for text, tip, action in (
                ("every choice", "Bias, limits and Dice under every defensible choice",
                 self.every_choice),
                ("further statistics", "Equivalence, deviation, robust lines, plans, readers",
                 self.more),
                ("coverage", "How often each interval would hold on data like these",
                 self.coverage)):
            button = ipywidgets.Button(description=text, tooltip=tip, layout={"width": "auto"})
            button.on_click(lambda _, action=action: self._ask(action))
            buttons.append(button)
        super().__init__([ipywidgets.HBox([*buttons, self.margin, self._bar],
                                          layout={"flex_flow": "row wrap"}),
                          self._picture, self._place])

    def clear(self) -> None:
        """What stands here is of other pairs."""
        self._place.value, self._picture.children = "", ()

    def _ask(self, action: Any) -> None:
        self.clear()
        if self.explorer.found is None:
            self._say(NOTHING)
            return
        try:
            action()
        except ValueError as error:
            self._say(str(error))
        finally:
            self._bar.layout.display = "none"

    def _say(self, *words: str, table: Any = None) -> None:
        said = "".join(f'<p class="dl-notes">{escape(one)}</p>' for one in words)
        self._place.value = said + ("" if table is None else
                                    table.to_html(index=False, border=0, escape=True))

    def _margin(self) -> float | None:
        text = self.margin.value.strip().replace(",", ".")
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not value > 0:
            raise ValueError(f"margin {text!r}: expected a number above 0 in the readings' unit")
        return value

    def every_choice(self) -> None:
        """The sentences of all questions, and the specification plot of the bias."""
        found, margin = self.explorer.found, self._margin()
        amounts = found.question.value not in NO_AMOUNTS
        bias = multiverse.bias_choices(found.pairs, margin, amounts=amounts)
        said = [bias.sentence,
                multiverse.limits_choices(found.pairs, margin, amounts=amounts).sentence]
        counts = self._counts()
        if counts is not None:
            said.append(multiverse.dice_choices(counts).sentence)
        if len(bias.analyses):
            title = f"Bias of {TITLES[found.question.structure].lower()}"
            figure = draw_choices(bias, title)
            self._picture.children = [ipywidgets.Image(value=figure.png(110), format="png",
                                                       layout={"max_width": "100%"})]
        self._say(*said)

    def _counts(self) -> Any:
        """The test reader's voxel counts in the cases on show; None where there are none."""
        question, pairs = self.explorer.question, self.explorer.found.pairs
        table = self.explorer.table
        mine = table[(table["reader"] == question.test)
                     & (table["structure"] == question.structure)]
        mine = mine.merge(pairs[["cohort", "case_id"]], on=["cohort", "case_id"])
        mine = mine.dropna(subset=["tp", "fp", "fn"])
        return mine if question.reference == "expert" and len(mine) else None

    def more(self) -> None:
        """Two tables: of the two readers, and of all persons."""
        found = self.explorer.found
        question = found.question
        frame = further_statistics(found.pairs, self._margin())
        self._say(table=frame)
        table: Any = cases_of(self.explorer.table, question.where)
        out = {(one.cohort, one.case_id) for one in question.left_out}
        kept = [key not in out for key in zip(table["cohort"], table["case_id"], strict=True)]
        persons = reader_statistics(table[kept], question.structure, question.value)
        if len(persons):
            self._place.value += persons.to_html(index=False, border=0, escape=True)

    def coverage(self) -> None:
        """Simulated studies with the pairs' own zeros, skew, error and patients."""
        pairs = self.explorer.found.pairs
        who = None if pairs["patient_id"].isna().any() else pairs["patient_id"]
        self._bar.layout.display = ""
        self._bar.value = 0

        def tell(done: int, n: int) -> None:
            self._bar.max, self._bar.value = n, done

        found = coverage.coverage_of(pairs["reference"], pairs["test"], who,
                                     n_studies=MOST_STUDIES, tell=tell)
        key = ["what", "how"]
        wide: Any = found.pivot(index=key, columns="world", values=["holds", "width"])
        first: Any = found.drop_duplicates(key)
        ways = list(zip(first["what"], first["how"], strict=True))
        shown = first[key].assign(**{
            f"{name} world": [f"{100 * share:.0f} %" for share in wide.loc[ways, ("holds", name)]]
            for name in found["world"].unique()})
        shown["to take"] = ["←" if one else "" for one in first["chosen"]]
        self._say(f"How often each 95 % interval holds the truth in {MOST_STUDIES} studies like "
                  "this one, in each of two worlds. ← marks the narrowest way that keeps its word "
                  "in both, or, where none does, the one that comes nearest.", table=shown)
