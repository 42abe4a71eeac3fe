"""Everything that the explorer can be asked, answered beforehand: for a page without a kernel.

A page has one answer for each choice of readers, structure, value and cases, and for each of these
the ways in which it can be shown (scale, kind of limits). All numbers are those of
`report.explore.answer`; the page draws them, and computes of a point the mean and on other scales
than the difference its height.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb.labels import COLOURS, NO_AMOUNTS, STRUCTURES, TITLES, VALUES
from deeplung_nb.measurements import MeasurementsError
from deeplung_nb.report.agreement_plots import (
    SCALES,
    agreement_title,
    correlation_title,
    lines_of,
    scale_words,
    words_of,
)
from deeplung_nb.report.explore import (
    LIMIT_NAMES,
    Answer,
    LeftOut,
    Question,
    answer,
    first_readers,
)
from deeplung_nb.report.style import READERS, reader_names
from deeplung_nb.stats.limits import differences

CONTROLS = ("readers", "structure", "value", "cases", "scale", "limits")
WAYS_TO_SHOW = (("difference", "auto"), ("difference", "constant"), ("difference", "regression"),
                ("difference", "quantile"), ("difference", "harrell-davis"),
                ("percent", "constant"), ("percent", "quantile"), ("ratio", "constant"),
                ("ratio", "quantile"))
GROUPED_BY = ("protocol", "scanner", "centre")
FEWEST, MOST_SETS = 3, 90
"""Pairs that an answer needs, and how many choices of pairs a page answers at most."""
MOST_CASES = 5000
VALUES_ASKED = ("volume_ml", "burden_percent", "mean_hu")
EVERYONE = "all cases"


def _groups(table: pd.DataFrame) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
    """Name and condition of each choice of cases, whole roles first; roles are not pooled."""
    roles = [str(role) for role in pd.Series(table["role"]).dropna().unique()]
    whole: list[tuple[str, tuple[tuple[str, str], ...]]] = \
        [(role, (("role", role),)) for role in roles] if len(roles) > 1 else [(EVERYONE, ())]
    found = list(whole)
    for column in GROUPED_BY:
        for name, where in whole:
            part = table if not where else table[table["role"].astype(str) == where[0][1]]
            known: Any = part[column]
            values = sorted({str(value) for value in known.dropna()} - {"", "unknown"})
            if len(values) > 1:
                found += [(f"{name}, {column} {value}", (*where, (column, value)))
                          for value in values]
    return found


def _pairs_of_readers(table: pd.DataFrame, first: Question) -> list[tuple[str, str]]:
    """(reference, test): the question's own first, then everyone else against its reference."""
    others = [str(name) for name in table["reader"].unique()
              if name not in (first.reference, first.test)]
    return [(first.reference, first.test), *((first.reference, name) for name in others)]


def _short(values: Any) -> list[float | None]:
    """Five digits: a place on a page."""
    return [None if not np.isfinite(value) else float(f"{value:.5g}")
            for value in np.asarray(values, float)]


def _shown(found: Answer) -> dict[str, Any]:
    """How an answer is drawn and printed."""
    x, _, _ = differences(found.pairs["reference"].to_numpy(float),
                          found.pairs["test"].to_numpy(float), found.agreement.scale)
    labels = scale_words(found.pairs, found.agreement.scale)
    return {
        "lines": [{"name": line.name, "x": _short(line.x), "y": _short(line.y),
                   "dashed": line.dashed,
                   "band": None if line.band is None else _short(line.band)}
                  for line in lines_of(x, found.agreement, found.limits)],
        "title": agreement_title(found.pairs, found.agreement, found.limits,
                                 found.question.structure).split("\n"),
        "labels": labels[:2], "none": SCALES[found.agreement.scale][3],
        "limits": words_of(found.limits), "table": found.printed.to_numpy().tolist(),
    }


def _set(found: Answer, places: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    """What all ways to show one choice of pairs have in common; cases by their number."""
    pairs = found.pairs
    d = (pairs["test"] - pairs["reference"]).to_numpy(float)
    n = len(d)
    key = list(zip(pairs["cohort"], pairs["case_id"], strict=True))
    line = found.line
    return {
        "names": list(reader_names(pairs)), "unit": VALUES[found.question.value][1],
        "structure": found.question.structure, "cases": [places[one] for one in key],
        "reference": _short(pairs["reference"]), "test": _short(pairs["test"]),
        "difference": _short(d),
        # Of the bias, were this case left out, less the bias of all.
        "shift": _short((d.sum() - d) / (n - 1) - d.mean()) if n > 1 else [None] * n,
        "deming": _short([line.intercept, line.slope]) if np.isfinite(line.slope) else None,
        "title": correlation_title(found.correlation, found.question.structure).split("\n"),
        "notes": found.notes, "columns": list(found.printed.columns), "text": found.text,
    }


def _ask(table: pd.DataFrame, question: Question, before: Answer | None) -> Answer | None:
    """An answer, or None where there is none to give."""
    try:
        found = answer(table, question, before)
    except (ValueError, MeasurementsError):
        return None
    return found if len(found.pairs) >= FEWEST else None


def _cases(table: pd.DataFrame) -> tuple[list[dict[str, Any]], dict[tuple[str, str], int]]:
    """The cases with what is known of them, and each one's number."""
    first: Any = table.drop_duplicates(["cohort", "case_id"])
    facts = [name for name in ("role", *GROUPED_BY) if first[name].notna().any()
             and first[name].astype(str).nunique() > 1]
    rows = [{"name": str(row["case_id"]), "cohort": str(row["cohort"]),
             **{name: "" if pd.isna(row[name]) else str(row[name]) for name in facts}}
            for row in first.to_dict("records")]
    return rows, {(row["cohort"], row["name"]): k for k, row in enumerate(rows)}


def _readings(table: pd.DataFrame, places: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    """Per case: a row for each reader and structure, of the columns that say anything."""
    said: Any = table.notna().any()
    columns = [name for name in ("volume_ml", "burden_percent", "mean_hu", "dice", "hd95_mm")
               if said[name]]
    rows: dict[str, list[list[Any]]] = {}
    for row in table.to_dict("records"):
        number = places[row["cohort"], row["case_id"]]
        note = "" if row["status"] == "ok" else str(row["status"])
        rows.setdefault(str(number), []).append([
            READERS.get(row["reader"], row["reader"]), TITLES.get(row["structure"], ""),
            *_short([row[name] for name in columns]), note])
    return {"columns": ["reader", "structure", *columns, ""], "rows": rows}


def explorer_states(table: pd.DataFrame, first: Question | None = None) -> dict[str, Any]:
    """All answers of a page, ready for JSON.

    Parameters
    ----------
    table
        Of measurements.
    first
        What is shown first: its readers, structure, value and plan, and the cases it leaves out.

    Returns
    -------
    dict
        `controls`: name -> choices in words; `sets` and `states` by the places of the choices
        ("0|1|0|2", and two more for how it is shown); `cases`, `readings`; `left`: how many choices
        of pairs were not answered because there are too many.

    Raises
    ------
    ValueError
        Fewer than two readers, or more than `MOST_CASES` cases.
    """
    names = list(table["reader"].unique())
    if len(names) < 2:
        raise ValueError(f"readers: {', '.join(names) or 'none'}; expected two or more to compare")
    cases, places = _cases(table)
    if len(cases) > MOST_CASES:
        raise ValueError(f"{len(cases)} cases: a page holds {MOST_CASES}. Choose some of them")
    first = first or Question(*first_readers(names))
    table = table.assign(cohort=table["cohort"].astype(str), case_id=table["case_id"].astype(str))
    left_out = tuple(LeftOut(str(one.cohort), str(one.case_id), one.reason)
                     for one in first.left_out)
    said: Any = table.notna().any()
    choices: dict[str, list[Any]] = {
        "readers": _pairs_of_readers(table, first),
        "structure": sorted(set(STRUCTURES) & set(table["structure"]),
                            key=lambda name: (name != first.structure,
                                             STRUCTURES.index(name))),
        "value": sorted((name for name in VALUES_ASKED if said[name]),
                        key=lambda name: name != first.value),
        "cases": _groups(table),
    }
    sets: dict[str, Any] = {}
    states: dict[str, Any] = {}
    scales = list(SCALES)
    limits = list(LIMIT_NAMES)
    n_left = 0
    # What is asked most comes first: the question's own readers in all, others in what is reported.
    order = sorted(
        ((r, s, v, c) for r in range(len(choices["readers"]))
         for s in range(len(choices["structure"])) for v in range(len(choices["value"]))
         for c in range(len(choices["cases"]))),
        key=lambda key: (bool(key[0]) + bool(key[2]) + (len(choices["cases"][key[3]][1]) > 1), key))
    for r, s, v, c in order:
        reference, test = choices["readers"][r]
        value = choices["value"][v]
        if len(sets) >= MOST_SETS:
            n_left += 1
            continue
        found: Answer | None = None
        for scale, kind in WAYS_TO_SHOW if r == 0 else WAYS_TO_SHOW[:1]:
            if value in NO_AMOUNTS and scale != "difference":
                continue
            question = Question(reference, test, choices["structure"][s], value,
                                choices["cases"][c][1], scale, kind, left_out=left_out,
                                plan=first.plan, confidence=first.confidence)
            shown = _ask(table, question, found)
            if shown is None:
                if found is None:
                    break  # no pairs
                continue
            found = shown
            key = f"{r}|{s}|{v}|{c}"
            if key not in sets:
                sets[key] = _set(found, places)
            states[f"{key}|{scales.index(scale)}|{limits.index(kind)}"] = _shown(found)
    words = {
        "readers": [" against ".join(str(READERS.get(name, name)) for name in reversed(pair))
                    for pair in choices["readers"]],
        "structure": [TITLES[name] for name in choices["structure"]],
        "value": [", ".join(VALUES[name]) for name in choices["value"]],
        "cases": [name for name, _ in choices["cases"]], "scale": scales,
        "limits": list(LIMIT_NAMES.values()),
    }
    return {"controls": words, "sets": sets, "states": states, "cases": cases,
            "readings": _readings(table, places), "left": n_left,
            "colours": {name: COLOURS[name] for name in choices["structure"]}}
