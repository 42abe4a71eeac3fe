"""The cohort browser: a manifest as a table to search, filter and pick from.

Filter, order and pages are made here, so that the distributions beside the table follow and five
thousand rows stay quick; the table widget (itables, whose JavaScript is in its wheel) has one page.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pandas as pd
import traitlets
from itables.widget import ITable

from deeplung_nb import measurements
from deeplung_nb.cohorts.cases import list_cohorts
from deeplung_nb.cohorts.manifest import Cohort, read_manifest
from deeplung_nb.cohorts.schema import ManifestError
from deeplung_nb.labels import VALUES
from deeplung_nb.measurements.spreadsheets import read_csv
from deeplung_nb.report.diagrams import draw_columns, draw_flow
from deeplung_nb.runs import Run
from deeplung_nb.widgets.picture import OPENING, PointPicture, WithStill

ALL = "all"
MOST_CHOICES = 30
HIDDEN = re.compile(r"sha256$|^ph_|^(image|mask|lung_mask)$")
"""Columns of files and of phantoms' settings, which tell a reader nothing."""
MOST_PANELS = 8
THUMBNAILS = 12
"""Pictures shown at once, of the first cases that meet the filter."""
PAGE = 12
"""Rows of the table at once."""
GRID = {"select": "single", "showIndex": False, "maxBytes": 0, "scrollX": False, "paging": False,
        "ordering": False, "classes": "display compact nowrap",
        # Search, order and pages are ours: thousands of rows built anew in the page are slow.
        "layout": {"topStart": None, "topEnd": None, "bottomStart": None, "bottomEnd": None}}
LINE = re.compile(r"\(line (\d+)\)|^line (\d+)")


def _faulty(path: Path, error: ManifestError) -> pd.DataFrame:
    """A manifest that breaks the rules, with what is wrong on each row."""
    table = read_csv(path)
    faults: dict[int, list[str]] = {}
    for fault in error.faults:
        # A fault of the whole table names no line, and stands on every row.
        found = {int(a or b) - 2 for a, b in LINE.findall(fault)} or range(len(table))
        for row in found:
            faults.setdefault(row, []).append(fault)
    table["faults"] = ["; ".join(faults.get(row, [])) for row in range(len(table))]
    for name in table.columns:
        numbers = pd.to_numeric(table[name], errors="coerce")
        if table[name].notna().any() and (numbers.notna() == table[name].notna()).all() \
                and not name.endswith("_id"):
            table[name] = numbers
    if "exclude" in table:
        table["exclude"] = table["exclude"].astype(str).isin(["1", "1.0", "True"])
    return table


def _with_readings(frame: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    """The cases with both readers' lesion volume and their Dice."""
    rows = measured[measured["structure"] == "lesion"]
    for reader, column, name in (("expert", "volume_ml", "expert lesion mL"),
                                 ("model", "volume_ml", "automatic lesion mL"),
                                 ("model", "dice", "lesion Dice")):
        values = rows[rows["reader"] == reader].set_index(["cohort", "case_id"])[column]
        frame = frame.join(values.rename(name), on=["cohort", "case_id"])
    return frame


def cases_of_run(run: Run) -> pd.DataFrame:
    """Every case of a run's cohorts, with what was measured of it, as far as that is there."""
    path = run.folder / "measurements.csv"
    measured = measurements.read(path) if path.exists() else None
    if run.simulated:
        if measured is None:
            raise FileNotFoundError(f"{path} is missing: a run of simulated readings is nothing "
                                    "else. Run 'deeplung-nb reproduce --profile rehearsal'")
        return cases_of_table(measured)
    frame = pd.concat([cohort.frame for cohort in list_cohorts(run)], ignore_index=True)
    # Said before somebody waits for them: a run that was given away has the masks of a few cases.
    kept = [(run.folder / "masks" / str(cohort) / f"{case}.nii.gz").exists()
            for cohort, case in zip(frame["cohort"], frame["case_id"], strict=True)]
    frame.insert(list(frame.columns).index("case_id") + 1, "images", np.where(kept, "yes", "no"))
    return frame if measured is None else _with_readings(frame, measured)


def cases_of_table(measured: pd.DataFrame) -> pd.DataFrame:
    """Every case of a table of readings, with what each reader found of any lesion.

    Where nothing was called so, it is the first structure's volume or burden.
    """
    facts = ["cohort", "case_id", "patient_id", "role", "protocol", "scanner", "centre", "n_slices"]
    frame = measured[facts].drop_duplicates(["cohort", "case_id"]).assign(exclude=False)
    structures = measured["structure"].unique()
    rows = measured[measured["structure"] == ("lesion" if "lesion" in structures
                                              else structures[0])]
    value = "volume_ml" if rows["volume_ml"].notna().any() else "burden_percent"
    for reader, part in rows.groupby("reader", sort=False):
        frame = frame.join(part.set_index(["cohort", "case_id"])[value].rename(
            f"{reader} {VALUES[value][1]}"), on=["cohort", "case_id"])
    return frame.dropna(axis=1, how="all")


class CohortBrowser(WithStill, ipywidgets.VBox):
    """All cases of a manifest or a run: search, filter, sort, look, pick.

    Parameters
    ----------
    source
        A `Run`, a `Cohort`, a table of cases (`cases_of_table`), or the path of a manifest, which
        may be faulty: each row then says what is wrong with it.
    on_pick
        Called with (cohort, case_id) of a picked row; returns a widget to show, or None.
    thumbnail
        (cohort, case_id) -> JPEG of the case; default: of the run's images, where there are any.

    Attributes
    ----------
    shown
        The cases that meet the filter, in the order of the table.
    picked
        (cohort, case_id) of the last picked row.
    """

    shown = traitlets.Instance(pd.DataFrame)
    picked = traitlets.Tuple(default_value=())

    def __init__(self, source: Run | Cohort | pd.DataFrame | str | os.PathLike, *,
                 on_pick: Callable[[str, str], Any] | None = None,
                 thumbnail: Callable[[str, str], bytes] | None = None) -> None:
        run = source if isinstance(source, Run) else None
        frame = cases_of_run(run) if run else self._read(source)
        hidden = [name for name in frame.columns if HIDDEN.search(name)]
        self.frame = frame.drop(columns=hidden).dropna(axis=1, how="all").reset_index(drop=True)
        self.on_pick = on_pick
        self._thumbnail = thumbnail or (_of_run(run) if run else None)
        self._thumbnails: dict[tuple[str, str], bytes] = {}
        # Searched as it is read: one text a case, made once.
        words = self.frame.astype(object).fillna("").astype(str)
        self._text = words.agg(" ".join, axis=1).str.lower()
        self._make_controls()
        super().__init__()
        self.add_class("dl-explorer")
        self.add_class("dl-cohort")
        self.children = self._lay_out()
        self._filter()

    @staticmethod
    def _read(source: Cohort | pd.DataFrame | str | os.PathLike) -> pd.DataFrame:
        if isinstance(source, pd.DataFrame):
            return source
        if isinstance(source, Cohort):
            return source.frame
        try:
            return read_manifest(source, verify=False).frame
        except ManifestError as error:
            if not Path(source).is_file():
                raise
            return _faulty(Path(source), error)

    def _make_controls(self) -> None:
        frame = self.frame
        self._search = ipywidgets.Text(placeholder="search in all columns", description="search",
                                       style={"description_width": "96px"},
                                       layout={"width": "290px"})
        self._choices = {}
        for name in frame.columns:
            texts = frame[name].dropna().astype(str).unique()
            if name == "faults":
                texts = ["with faults", "without"]
            elif not 1 < len(texts) <= (
                    3 if pd.api.types.is_numeric_dtype(frame[name]) else MOST_CHOICES):
                continue
            self._choices[name] = ipywidgets.Dropdown(
                options=[ALL, *sorted(texts)], description=name, tooltip=f"Only this {name}",
                style={"description_width": "96px"}, layout={"width": "290px"})
        self._sort = ipywidgets.Dropdown(
            options=[("as in the manifest", ""), *((name, name) for name in frame.columns)],
            description="sort by", tooltip="Column that orders the table; empty cells last",
            style={"description_width": "96px"}, layout={"width": "290px"})
        self._down = ipywidgets.ToggleButton(description="descending", layout={"width": "100px"},
                                             tooltip="From high to low")
        for control in (self._search, self._sort, self._down, *self._choices.values()):
            control.observe(lambda _: self._filter(), "value")
        self._first = 0
        self._earlier = ipywidgets.Button(description="‹ earlier", layout={"width": "90px"},
                                          tooltip="Page before")
        self._later = ipywidgets.Button(description="later ›", layout={"width": "90px"},
                                        tooltip="Next page")
        self._earlier.on_click(lambda _: self._turn(-PAGE))
        self._later.on_click(lambda _: self._turn(PAGE))

    def _lay_out(self) -> tuple[ipywidgets.Widget, ...]:
        self._count = ipywidgets.HTML()
        self._grid = ITable(self.frame.head(0), **GRID)
        # It is wider than most pages: its box can be scrolled by keyboard too.
        table = ipywidgets.Box([self._grid], layout={"overflow": "auto"})
        table.add_class("dl-scroll")
        self._grid.observe(self._pick, "selected_rows")
        self._columns = PointPicture()
        self._flow = PointPicture(layout={"max_width": "560px"})
        self._pictures = ipywidgets.Box(layout={"flex_flow": "row wrap"})
        self._case = ipywidgets.VBox()
        parts = {"distributions": self._columns, "flow of cases": self._flow}
        if self._thumbnail:
            parts["thumbnails"] = self._pictures
        self._tabs = ipywidgets.Tab(list(parts.values()), titles=list(parts))
        self._tabs.observe(lambda _: self._draw(), "selected_index")
        controls = ipywidgets.HBox(
            [self._search, *self._choices.values(), self._sort, self._down],
            layout={"flex_flow": "row wrap"})
        pages = ipywidgets.HBox([self._earlier, self._later, self._count],
                                layout={"flex_flow": "row wrap"})
        return controls, pages, table, self._case, self._tabs

    def _filter(self) -> None:
        keep = pd.Series(True, index=self.frame.index)
        if self._search.value.strip():
            keep &= self._text.str.contains(self._search.value.strip().lower(), regex=False)
        for name, control in self._choices.items():
            if control.value == ALL:
                continue
            if name == "faults":
                keep &= (self.frame[name] != "") == (control.value == "with faults")
            else:
                keep &= self.frame[name].astype(str) == control.value
        shown = self.frame[keep]
        if self._sort.value:
            shown = shown.sort_values(self._sort.value, ascending=not self._down.value,
                                      kind="stable", na_position="last")
        same = len(shown) and set(shown.index) == set(getattr(self, "_drawn", ()))
        self.shown, self._first = shown, 0
        self._turn(0)
        if not same:  # another order changes no distribution
            self._drawn = shown.index
            self._draw()

    def _turn(self, by: int) -> None:
        """Another page of the table."""
        n = len(self.shown)
        self._first = min(max(0, self._first + by), max(0, (n - 1) // PAGE * PAGE))
        end = min(self._first + PAGE, n)
        patients = f", {self.shown['patient_id'].nunique()} patients" \
            if "patient_id" in self.shown else ""
        here = f"{patients}; here {self._first + 1} to {end}" if n else ""
        self._count.value = f"&ensp;{n} of {len(self.frame)} cases{here}"
        self._earlier.disabled, self._later.disabled = self._first == 0, end >= n
        page = self.shown.iloc[self._first:end].reset_index(drop=True).round(3)
        texts = page.select_dtypes(exclude=["number", "bool"]).columns
        page[texts] = page[texts].astype(object).fillna("")
        self._grid.update(page, selected_rows=[], **GRID)

    def _draw(self) -> None:
        """Only what is to be seen: a hidden tab is drawn when it is opened."""
        title = self._tabs.titles[self._tabs.selected_index or 0]
        if title == "distributions":
            names = [name for name in self.shown.columns
                     if name not in ("case_id", "patient_id", "faults", "exclude_reason", "note")
                     and self.frame[name].nunique() > 1][:MOST_PANELS]
            self.figure = draw_columns(self.shown, names)
            self._columns.show(self.figure)
        elif title == "flow of cases":
            self.figure = draw_flow(Cohort(_usable(self.shown), "").flow())
            self._flow.show(self.figure)
        else:
            self._pictures.children = [self.picture(row) for row in
                                       self.shown.head(THUMBNAILS).itertuples()]

    def picture(self, row: Any) -> ipywidgets.Widget:
        """A case's thumbnail with its name; `row` has `cohort` and `case_id`."""
        key = (row.cohort, row.case_id)
        words = ipywidgets.HTML(f"{escape(str(row.case_id))}")
        try:
            if self._thumbnail is None:
                raise FileNotFoundError("no images of this table")
            if key not in self._thumbnails:
                self._thumbnails[key] = self._thumbnail(*key)
            bytes_ = base64.b64encode(self._thumbnails[key]).decode("ascii")
            image = ipywidgets.HTML(
                f'<img src="data:image/jpeg;base64,{bytes_}" style="width: 110px" '
                f'alt="{escape(str(row.case_id), quote=True)}: slice with the most lesion">')
        except (ImportError, OSError, ValueError):
            image = ipywidgets.HTML("no images here")
        return ipywidgets.VBox([image, words], layout={"margin": "4px", "flex": "0 0 auto"})

    def pick(self, cohort: str, case_id: str) -> None:
        """Show a case's row and pick it; where the filter hides it, none is picked."""
        if self.picked == (cohort, case_id):
            return
        rows = ((self.shown["cohort"].astype(str) == cohort)
                & (self.shown["case_id"].astype(str) == case_id)).to_numpy()
        if not rows.any():
            self._grid.selected_rows = []
            self._case.children, self.picked = (), ()
            return
        place = int(rows.argmax())
        if not self._first <= place < self._first + PAGE:
            self._turn(place // PAGE * PAGE - self._first)
        self._grid.selected_rows = [place - self._first]

    def _pick(self, change: Any) -> None:
        if not change["new"]:
            return
        row = self.shown.iloc[self._first + change["new"][-1]]
        words = " &ensp;·&ensp; ".join(
            f"{escape(str(name))} <b>{escape(_shown(value))}</b>"
            for name, value in row.dropna().items() if str(value) != "")
        parts: list[ipywidgets.Widget] = []
        if self._thumbnail:
            parts.append(self.picture(row))
        parts.append(ipywidgets.HTML(words))
        said = ipywidgets.HBox(parts)
        self._case.children = [said, *([ipywidgets.HTML(OPENING)] if self.on_pick else [])]
        self.picked = (str(row["cohort"]), str(row["case_id"]))
        try:
            seen = self.on_pick and self.on_pick(*self.picked)
        except (ImportError, OSError, ValueError) as error:
            seen = ipywidgets.HTML(f'<span class="dl-notes">{escape(str(error))}</span>')
        self._case.children = [said, *([seen] if seen else [])]

    def still(self) -> Any:
        """The figure of the open tab."""
        return self.figure

    @property
    def curtain(self) -> Any:
        """The distributions, which hide the still picture."""
        return self._columns


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _usable(frame: pd.DataFrame) -> pd.DataFrame:
    """With all that `Cohort.flow` asks for, also of a faulty manifest."""
    known = frame.reindex(columns=list(dict.fromkeys(
        [*frame.columns, "exclude", "exclude_reason", "role", "patient_id"])))
    known["exclude"] = known["exclude"].fillna(False).astype(bool)
    known["exclude_reason"] = known["exclude_reason"].astype(object).fillna("no reason given")
    return known


def _of_run(run: Run) -> Callable[[str, str], bytes]:
    def thumbnail(cohort: str, case_id: str) -> bytes:
        kept = run.folder / "thumbnails" / cohort / f"{case_id}.jpg"
        if kept.exists():
            return kept.read_bytes()  # without the libraries that read a CT
        from deeplung_nb.report.thumbnails import thumbnail_of

        return thumbnail_of(run, cohort, case_id)

    return thumbnail
