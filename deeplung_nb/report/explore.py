"""One question to a table of readings, and its whole answer: numbers, figure, words, code.

What the agreement explorer shows, without any widget: the exported code cell calls `answer` with
the same `Question`, so that a picture made by clicking can be made again by a script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb import measurements
from deeplung_nb.labels import STRUCTURES, TITLES, VALUES
from deeplung_nb.report.agreement_plots import limit_words, scale_words
from deeplung_nb.report.numbers import interval, number, p_cell
from deeplung_nb.report.pair_plots import draw_comparison
from deeplung_nb.report.prose import report_text
from deeplung_nb.report.style import PrintFigure, reader_names
from deeplung_nb.stats import agreement, correlation, regression
from deeplung_nb.stats._results import check_confidence
from deeplung_nb.stats.comparison import PLANS, Comparison, compare
from deeplung_nb.stats.trend import proportional_bias


@dataclass(frozen=True)
class LeftOut:
    """A case that somebody left out, and why."""

    cohort: str
    case_id: str
    reason: str

    def __post_init__(self) -> None:
        if not self.reason.strip():
            raise ValueError(f"case {self.cohort}/{self.case_id}: left out without a reason. "
                             "Say why: it is printed with every result")


@dataclass(frozen=True)
class Question:
    """Whom to compare, in what, over which cases, and how.

    Raises
    ------
    ValueError
        An unknown structure, value, scale, kind of limits or interval; a reader against itself.
    """

    reference: str = "expert"
    test: str = "model"
    structure: str = "lesion"
    value: str = "volume_ml"
    where: tuple[tuple[str, str], ...] = ()
    """(column, value) pairs that a case must meet, such as `("protocol", "contrast")`."""
    scale: str = "difference"
    limits: str = "auto"
    """Of `agreement.LIMITS`; `auto`: those that `stats.comparison` reports (on the scale
    `difference`; constant ones on others)."""
    ci: str = "mover"
    """Of constant limits; the others have their own."""
    confidence: float = 0.95
    left_out: tuple[LeftOut, ...] = ()
    plan: str = "auto"
    """Limits that the study declared beforehand, as `stats.comparison.compare`."""
    margin: float | None = None
    """Of equivalence, in the value's unit, declared before the data were seen: the text has its
    test."""

    def __post_init__(self) -> None:
        for name, allowed in (("structure", STRUCTURES), ("value", tuple(VALUES)),
                              ("scale", agreement.SCALES),
                              ("limits", ("auto", *agreement.LIMITS)), ("plan", PLANS),
                              ("ci", agreement.INTERVALS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r}: expected one of "
                                 f"{', '.join(allowed)}")
        check_confidence(self.confidence)
        if self.reference == self.test:
            raise ValueError(f"reader {self.test!r} against itself: choose two readers")

    def code(self, source: str) -> str:
        """A notebook cell, or a script, that asks this question again.

        Parameters
        ----------
        source
            An expression that makes the table, such as `measurements.read("measurements.csv")`.
        """
        given = []
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value != entry.default and entry.name != "left_out":
                given.append(f"    {entry.name}={value!r},")
        if self.left_out:
            given += ["    left_out=(", *(f"        {case!r}," for case in self.left_out), "    ),"]
        imported = "LeftOut, Question, answer" if self.left_out else "Question, answer"
        call = ["question = Question()"] if not given else ["question = Question(", *given, ")"]
        return "\n".join([
            "from deeplung_nb import measurements",
            f"from deeplung_nb.report.explore import {imported}", "",
            f"table = {source}", *call, "found = answer(table, question)",
            "print(found.text)", "print(found.printed.to_string(index=False))",
            "found.figure  # in a script: found.figure.savefig('agreement.png')", ""])


@dataclass(frozen=True, eq=False, repr=False)
class Answer:
    """All that a table of readings says to a question."""

    question: Question
    pairs: pd.DataFrame
    """Pairs that count, as `measurements.pair`; none is empty."""
    left_out: pd.DataFrame
    """Pairs that somebody left out, with the column `reason`."""
    n_empty: int
    """Pairs without a value in one of the readers (as a mean HU of nothing)."""
    agreement: agreement.BlandAltman
    """On the scale that was asked for."""
    limits: agreement.BlandAltman
    """The limits that were asked for; by `auto` they may be of the ratio, on any scale."""
    line: regression.MethodRegression
    comparison: Comparison
    """All else: on the scale of differences, whatever is drawn."""
    source: str
    """How the table was made, as code."""

    def __repr__(self) -> str:
        question = self.question
        return (f"{question.test} against {question.reference}, {question.structure}, "
                f"{question.value}: n = {len(self.pairs)}, bias {number(self.agreement.bias)}")

    @property
    def correlation(self) -> correlation.Correlation:
        """Spearman's rho."""
        return self.comparison.spearman

    @cached_property
    def row(self) -> Mapping[str, Any]:
        """The comparison as a row of `stats.summary.agreement_table`."""
        return self.comparison.row()

    @property
    def notes(self) -> list[str]:
        """What to mind: flags, reasons, cases that are not in the numbers."""
        notes = [text for text in (self.row["flags"], self.row["reasons"]) if text]
        attrs = self.pairs.attrs
        if attrs["n_failed"]:
            notes.append(f"{attrs['n_failed']} failed, not compared: {_some(attrs['failed'])}")
        roles = self.pairs["role"].dropna().unique() if "role" in self.pairs else ()
        if len(roles) > 1:
            notes.append(f"cases of different roles together ({', '.join(sorted(roles))}): what "
                         "networks were tested on while they were made, and what they never met")
        if attrs["n_unread"]:
            notes.append(f"{attrs['n_unread']} not read by both: {_some(attrs['unread'])}")
        if attrs["unmatched"]:
            notes.append(f"read by one reader only: {_some(attrs['unmatched'])}")
        if self.n_empty:
            notes.append(f"{self.n_empty} without a value in one of the readers")
        notes += [f"left out: {row.cohort}/{row.case_id} ({row.reason})"
                  for row in self.left_out.itertuples()]
        return notes

    @property
    def code(self) -> str:
        """A notebook cell, or a script, that makes this answer again."""
        return self.question.code(self.source)

    @cached_property
    def statistics(self) -> pd.DataFrame:
        """`statistic, value, lower, upper, p, n, unit`: one row each, full precision."""
        row, drawn, limits = self.row, self.agreement, self.limits
        unit = VALUES[self.question.value][1]
        on_scale = scale_words(self.pairs, drawn.scale)[2].strip()
        names = dict(zip(("reference", "test"), reader_names(self.pairs), strict=True))
        at = " at the mean" if limits.limits == "regression" else ""
        kind = "ratio" if limits.scale == "ratio" else limits.limits
        of_limits = scale_words(self.pairs, limits.scale)[2].strip()
        n, all_n = drawn.n, row["n"]
        unlike = int((self.pairs["reference"] != self.pairs["test"]).sum())

        def of(name: str, prefix: str, n: int = all_n, unit: str = "", p: str = "") -> tuple:
            return (name, row[prefix], row.get(f"{prefix}_lower"), row.get(f"{prefix}_upper"),
                    row.get(p), n, unit)

        slope = self.comparison.slope if drawn.scale == "difference" else proportional_bias(
            self.pairs["reference"], self.pairs["test"], _patients_of(self.pairs),
            scale=drawn.scale, confidence=self.question.confidence)
        rows = [
            *((f"median (quartiles), {names[side]}", row[f"{side}_median"], row[f"{side}_q1"],
               row[f"{side}_q3"], None, all_n, unit) for side in names),
            *((title, row[f"detected_{key}"], None, None, None, all_n, "cases")
              for title, key in (("above 0 by both", "both"),
                                 (f"above 0 by {names['reference']} alone", "reference_only"),
                                 (f"above 0 by {names['test']} alone", "test_only"),
                                 ("above 0 by neither", "neither"))
              if not pd.isna(row[f"detected_{key}"])),
            (f"bias{at}", drawn.bias, *drawn.bias_ci, None, n, on_scale),
            (f"lower limit{at} ({kind})", limits.loa_lower, *limits.loa_lower_ci, None, limits.n,
             of_limits),
            (f"upper limit{at} ({kind})", limits.loa_upper, *limits.loa_upper_ci, None, limits.n,
             of_limits),
            ("outside the limits", limits.percent_outside, None, None, None, limits.n, "%"),
            ("slope of difference on mean", slope.slope, *slope.slope_ci, slope.p_value, slope.n,
             ""),
            ("constant spread (Breusch–Pagan)", None, None, None, drawn.heteroscedasticity_p, n,
             ""),
            ("normal differences (Shapiro–Wilk)", None, None, None, drawn.shapiro_p, n, ""),
            ("signed-rank test", None, None, None, row["signed_rank_p"], unlike, ""),
            of("Hodges–Lehmann shift of the unlike", "hodges_lehmann", unlike, unit),
            of("Hodges–Lehmann shift of all", "hodges_lehmann_all", unit=unit),
            of("rank-biserial correlation", "rank_biserial", unlike),
            of("Spearman ρ", "spearman", p="spearman_p"),
            of("Pearson r", "pearson"),
            of("concordance (CCC)", "ccc"),
            of("concordance of ranks", "ccc_rank"),
            ("Deming slope", self.line.slope, *self.line.slope_ci, None, self.line.n, ""),
            ("Deming intercept", self.line.intercept, *self.line.intercept_ci, None, self.line.n,
             unit),
        ]
        frame = pd.DataFrame(rows, columns=["statistic", "value", "lower", "upper", "p", "n",
                                            "unit"])
        return frame.astype({name: float for name in ("value", "lower", "upper", "p")})

    @property
    def printed(self) -> pd.DataFrame:
        """`statistics` as text, three digits, ready to be read."""
        shown = [(row.statistic,
                  "" if np.isnan(row.value) else f"{row.value:.0f} {row.unit}"
                  if row.unit == "cases" else f"{number(row.value)} {row.unit}".strip(),
                  interval((row.lower, row.upper)) if not np.isnan(row.lower) else "",
                  p_cell(row.p) if not np.isnan(row.p) else "", str(row.n))
                 for row in self.statistics.itertuples()]
        level = f"{100 * self.question.confidence:g} %"
        return pd.DataFrame(shown, columns=["statistic", "estimate",
                                            f"{level} interval (quartiles)", "p", "n"])

    @property
    def text(self) -> str:
        """Methods and Results, and what was left out."""
        question, drawn = self.question, self.agreement
        quantity, unit = VALUES[question.value]
        names = reader_names(self.pairs)
        text = report_text(self.pairs, reference=f"reader “{names[0]}”",
                           test=f"reader “{names[1]}”", quantity=f"{TITLES[question.structure]} "
                           f"{quantity}".lower(), unit=unit, confidence=question.confidence,
                           limits=question.plan, margin=question.margin)
        more = []
        if (question.scale, question.limits) != ("difference", "auto"):
            on_scale = scale_words(self.pairs, drawn.scale)[2]
            more.append(f"Drawn on the scale “{drawn.scale}” with {drawn.limits} limits: bias "
                        f"{number(drawn.bias)}{on_scale}, "
                        f"{limit_words(self.limits, on_scale)} (n = {drawn.n}).")
        for column, value in question.where:
            more.append(f"Only cases with {column} “{value}” were compared.")
        if len(self.left_out):
            cases = "; ".join(f"{row.cohort}/{row.case_id}: {row.reason}"
                              for row in self.left_out.itertuples())
            more.append(f"Left out by the analyst, {len(self.left_out)}: {cases}.")
        return "\n\n".join([text, " ".join(more)]) if more else text

    @cached_property
    def figure(self) -> PrintFigure:
        """Bland–Altman, scatter with the lines of identity and of Deming, and the pairs."""
        return draw_comparison(self.pairs, self.agreement, self.correlation, self.line,
                               self.left_out, self.question.structure, self.question.where,
                               limits=self.limits)


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _patients_of(pairs: pd.DataFrame) -> pd.Series | None:
    """Who each pair is of; None where nobody says."""
    return None if pairs["patient_id"].isna().any() else pairs["patient_id"]


def cases_of(table: pd.DataFrame, where: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """The rows of a table that meet all (column, value) pairs.

    Raises
    ------
    ValueError
        No such column.
    """
    for column, value in where:
        if column not in table:
            raise ValueError(f"column {column!r}: expected one of {', '.join(table.columns)}")
        table = table[table[column].astype("str") == str(value)]
    return table


def _same_pairs(question: Question, other: Question) -> bool:
    """Whether two questions differ in nothing but how differences are shown."""
    shown = {"scale": question.scale, "limits": question.limits, "ci": question.ci}
    return bool(question == replace(other, **shown))


LIMIT_NAMES = {"auto": "as reported", "constant": "bias ± 1.96 SD", "regression": "by regression",
               "quantile": "by quantiles", "harrell-davis": "by quantiles, smoother"}
"""Kinds of limits, as they are offered."""


def first_readers(names: Sequence[str]) -> tuple[str, str]:
    """The two readers whom one compares first."""
    reference = "expert" if "expert" in names else names[0]
    others = [name for name in names if name != reference]
    return reference, "model" if "model" in others else others[0]


def first_question(table: pd.DataFrame, plan: str = "auto",
                   between: tuple[str, str] | None = None) -> Question:
    """What one asks a checked table of readings first; `between` these readers, or two usual ones.

    Raises
    ------
    ValueError
        It has fewer than two readers.
    """
    readers = list(dict.fromkeys(table["reader"]))
    if len(readers) < 2:
        raise ValueError(f"readers: {', '.join(readers) or 'none'}; expected two or more to "
                         "compare")
    reference, test = between or first_readers(readers)
    here: Any = table[table["status"] == "ok"]
    structures = [name for name in ("lesion", "ggo", *STRUCTURES)
                  if {reference, test} <= set(here.loc[here["structure"] == name, "reader"])]
    values = [name for name in VALUES if here[name].notna().any()]
    # What networks met while they were made is not pooled with what they never met unasked.
    roles = pd.Series(here["role"]).dropna().unique()
    where = (("role", "cv" if "cv" in roles else str(roles[0])),) if len(roles) > 1 else ()
    return Question(reference, test, (structures or ["lesion"])[0], (values or ["volume_ml"])[0],
                    where=where, plan=plan)


MOST_CHOICES = 30
"""A column with more values than this is no choice of cases."""


def choosable(table: pd.DataFrame) -> list[str]:
    """Columns that cases can be chosen by: a few values, the same for all readers of a case."""
    beside = {"reader", "structure", "case_id", "status", "note", "run_id", "n_slices", *VALUES}
    return [name for name in table.columns
            if name not in beside and 1 < len(table[name].dropna().unique()) <= MOST_CHOICES
            and not pd.api.types.is_float_dtype(table[name])
            and bool(np.all(table.groupby(["cohort", "case_id"])[name].nunique() <= 1))]


def answer(table: pd.DataFrame, question: Question, before: Answer | None = None) -> Answer:
    """Ask a table of readings.

    Parameters
    ----------
    table
        As `measurements.read` or `measurements.from_wide` give it.
    before
        An earlier answer of the same table: what the new question does not change is taken from it.

    Raises
    ------
    MeasurementsError, ValueError
        No such reader, structure or column in the table; a case to leave out that is not there.
    """
    if before is not None and _same_pairs(question, before.question):
        return _answer(question, before.pairs, before.left_out, before.n_empty, before.comparison,
                       before.line, before.source)
    pairs = measurements.pair(cases_of(table, question.where), question.reference, question.test,
                              question.structure, question.value, unmatched="drop")
    attrs = pairs.attrs
    full = pairs[["reference", "test"]].notna().all(axis=1)
    key = pd.MultiIndex.from_frame(pairs[["cohort", "case_id"]])
    reasons = {(case.cohort, case.case_id): case.reason for case in question.left_out}
    absent = [f"{cohort}/{case}" for cohort, case in reasons
              if (cohort, case) not in set(zip(table["cohort"], table["case_id"], strict=True))]
    if absent:
        raise ValueError(f"left out, but not in the table: {_some(absent)}. Expected cohort and "
                         "case_id of one of its cases")
    out = np.asarray(key.isin(list(reasons)), bool) if reasons else np.zeros(len(pairs), bool)
    left = pd.DataFrame(pairs[full & out]).reset_index(drop=True)
    left["reason"] = [reasons[row.cohort, row.case_id] for row in left.itertuples()]
    kept = pd.DataFrame(pairs[full & ~out]).reset_index(drop=True)
    kept.attrs = left.attrs = attrs
    compared = compare(kept, confidence=question.confidence, limits=question.plan)
    line = regression.deming(kept["reference"], kept["test"], cluster=_patients_of(kept),
                             confidence=question.confidence)
    return _answer(question, kept, left, int(np.sum(~full)), compared, line,
                   table.attrs.get("made_by", "...  # put here how the table is made"))


def _answer(question: Question, kept: pd.DataFrame, left: pd.DataFrame, n_empty: int,
            compared: Comparison, line: regression.MethodRegression, source: str) -> Answer:
    # "auto" is MOVER, and the only one where patients have several pairs.
    ci = question.ci if question.limits == "constant" and question.ci != "mover" else "auto"
    kind = "constant" if question.limits == "auto" else question.limits
    drawn = agreement.bland_altman(
        kept["reference"], kept["test"], limits=kind, scale=question.scale, ci=ci,
        cluster=_patients_of(kept), confidence=question.confidence)
    reported = (question.limits, question.scale) == ("auto", "difference")
    return Answer(question, kept, left, n_empty, drawn,
                  compared.lead.limits if reported else drawn, line, compared, source)


def with_and_without(table: pd.DataFrame, question: Question) -> pd.DataFrame:
    """The printed statistics of all cases beside those without the ones left out."""
    every = answer(table, replace(question, left_out=())).printed
    rest = answer(table, question).printed
    columns = list(every.columns)
    both = every[columns[:1]].copy()
    for name, part in (("with all", every), (f"without {len(question.left_out)}", rest)):
        for column in columns[1:]:
            both[f"{name}: {column}"] = part[column].to_numpy()
    return both
