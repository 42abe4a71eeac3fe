"""Statistics that a first look leaves out: equivalence, deviation, robust lines, plans, readers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb.labels import NO_AMOUNTS, VALUES, people
from deeplung_nb.report.numbers import interval, number, p_cell
from deeplung_nb.stats import (
    classes,
    equivalence,
    followup,
    paired,
    regression,
    tolerance,
)

COLUMNS = ("statistic", "estimate", "interval", "p", "what it says")


def _try(make: Callable[[], Any]) -> Any:
    """A result, or the reason why there is none."""
    try:
        return make()
    except ValueError as error:
        return str(error).split(". ")[0]


def further_statistics(pairs: pd.DataFrame, margin: float | None = None) -> pd.DataFrame:
    """Of two readers' pairs, ready to be read.

    Parameters
    ----------
    pairs
        As `measurements.pair`: `reference, test`, perhaps `patient_id`.
    margin
        Largest difference that does not matter, declared beforehand; without one there is no test
        of equivalence and no plan.

    Returns
    -------
    DataFrame
        `COLUMNS`, as text; what can't be computed says why.
    """
    known = pairs.dropna(subset=["reference", "test"])
    a, b = (known[name].to_numpy(float) for name in ("reference", "test"))
    patients = known["patient_id"].to_numpy() if "patient_id" in known else np.array([None])
    who = None if pd.isna(patients).any() else patients
    unit = VALUES.get(pairs.attrs.get("value", "volume_ml"), ("", ""))[1]
    rows: list[tuple[str, str, str, str, str]] = []

    def add(name: str, make: Callable[[], Any], shown: Callable[[Any], tuple[str, str, str, str]]
            ) -> None:
        found = _try(make)
        rows.append((name, "–", "", "", found) if isinstance(found, str)
                    else (name, *shown(found)))

    add("Passing–Bablok slope", lambda: regression.passing_bablok(a, b, cluster=who), lambda r: (
        number(r.slope), interval(r.slope_ci), "", r.reason or "1: no error that grows"))
    add("Passing–Bablok intercept", lambda: regression.passing_bablok(a, b, cluster=who),
        lambda r: (f"{number(r.intercept)} {unit}", interval(r.intercept_ci), "",
                   r.reason or "0: no error that is fixed"))
    add("total deviation index, 95 %", lambda: equivalence.total_deviation_index(
        a, b, margin=margin, cluster=who), lambda r: (
        f"{number(r.tdi)} {unit}", f"to {number(r.tdi_upper)}", "", r.reason or
        "95 % of differences are no larger than this"
        + (f"; {r.coverage:.0%} are within the margin" if margin else "")))
    add("tolerance limits, 95 % of differences", lambda: tolerance.tolerance_limits(
        a, b, cluster=who), lambda r: (
        f"{number(r.bias)} {unit}", interval((r.lower, r.upper)), "", r.reason or
        "with 95 % confidence they hold 95 % of all further differences"))
    if margin is not None:
        add(f"equivalence of means within ± {margin:g}", lambda: equivalence.tost(
            a, b, margin, cluster=who), lambda r: (
            f"{number(r.bias)} {unit}", interval(r.bias_ci), p_cell(r.p_value),
            r.reason or "a small p speaks for equivalence; interval of 90 %"))
        add(f"equivalence of ranks within ± {margin:g}", lambda: equivalence.wilcoxon_tost(
            a, b, margin, cluster=who), lambda r: (
            f"{number(r.hodges_lehmann)} {unit}", interval(r.hodges_lehmann_ci), p_cell(r.p_value),
            r.reason or "the same without normal differences"))
        d = b - a
        add(f"pairs for limits within ± {margin:g}", lambda: equivalence.sample_size(
            float(d.mean()), float(d.std(ddof=1)), margin), lambda r: (
            str(r.n), "", "", f"of a new study with this bias and spread, power {r.power:.0%}"))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def reader_statistics(table: pd.DataFrame, structure: str, value: str = "volume_ml"
                      ) -> pd.DataFrame:
    """Of all persons who read: do they see it at all, and do they repeat themselves.

    Parameters
    ----------
    table
        Of measurements.

    Returns
    -------
    DataFrame
        `COLUMNS`, as text: Fleiss' kappa of "above 0" of two or more persons, each person's
        repeatability where patients have several cases, and Wilcoxon's p of each against the first,
        by Holm.
    """
    rows: list[tuple[str, str, str, str, str]] = []
    part: Any = table[(table["structure"] == structure) & (table["status"] == "ok")]
    cohort = part["cohort"].astype(str)
    part = part.assign(subject=cohort + "/" + part["case_id"].astype(str),
                       patient=(cohort + "/" + part["patient_id"].astype(str)).where(
                           part["patient_id"].notna()),
                       sees=np.where(part[value] > 0, "yes", "no")).dropna(subset=value)
    names = people(list(part["reader"]))
    read = part[part["reader"].isin(names)]
    if len(names) >= 2 and value not in NO_AMOUNTS:
        found = _try(lambda: classes.fleiss_kappa(read, "subject", "reader", "sees"))
        rows.append(("Fleiss’ κ of above 0", "–", "", "", found) if isinstance(found, str) else (
            "Fleiss’ κ of above 0", number(found.kappa), interval(found.kappa_ci), "",
            found.reason or f"{len(names)} persons: who sees it at all, beyond chance"))
    for name in names:
        mine = read[read["reader"] == name].dropna(subset="patient")
        if mine["patient"].duplicated().any():
            found = _try(lambda mine=mine: followup.repeatability(mine, "patient", value))
            rows.append((f"repeatability, {name}", "–", "", "", found) if isinstance(found, str)
                        else (f"repeatability, {name}", number(found.coefficient),
                              interval(found.coefficient_ci), "", found.reason or
                              "two readings of one patient differ by less in 95 of 100, if the "
                              "patient has not changed"))
    others = [name for name in dict.fromkeys(part["reader"]) if names and name != names[0]]
    tests: dict[str, float] = {}
    for name in others:
        wide = part[part["reader"].isin([names[0], name])].pivot_table(
            index="subject", columns="reader", values=value).dropna()
        if len(wide) >= 4 and name in wide:
            found = _try(lambda wide=wide, name=name: paired.wilcoxon_signed_rank(
                wide[names[0]], wide[name]))
            if not isinstance(found, str) and math.isfinite(found.p_value):
                tests[name] = found.p_value
    if len(tests) > 1:
        adjusted = paired.holm(list(tests.values()))
        rows += [(f"signed ranks, {name} against {names[0]}", "", "", p_cell(p),
                  f"for {len(tests)} comparisons, by Holm; alone {p_cell(alone)}")
                 for (name, alone), p in zip(tests.items(), adjusted, strict=True)]
    return pd.DataFrame(rows, columns=list(COLUMNS))
