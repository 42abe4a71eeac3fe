"""A reader study in words: the paragraph for Methods, its results, and the items of GRRAS."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb import __version__
from deeplung_nb.corrections.study import ARMS, PLAN, ReaderStudy
from deeplung_nb.labels import REGIONS, TITLES, counted
from deeplung_nb.stats import reader_study as sums

AUTHOR = "only the authors can say"
WAYS = {"majority": "majority", "staple": "STAPLE consensus"}


def _frozen(study: ReaderStudy) -> str:
    return json.loads((study.folder / PLAN).read_text(encoding="utf-8"))["frozen"]


def _done(study: ReaderStudy) -> str:
    done, planned = len(study.finished()), len(study.sessions)
    return "all of them read" if done == planned else f"{done} of them read so far"


def methods_text(study: ReaderStudy) -> str:
    """The study's design for a Methods section, from its frozen plan alone."""
    plan = study.plan
    arms = "; ".join(f"{arm}: {words}" for arm, words in plan["arms"].items())
    n_again = sum(session.occasion == 2 for session in study.of(plan["readers"][0]))
    declared = " ".join(f"{name.capitalize()} declared beforehand: {plan[name]}."
                        for name in ("hypothesis", "margin") if plan[name])
    repeats = (f" Of these, {counted(n_again, 'case')} came again in one arm to each reader, in a "
               "block of their own.") if n_again else ""
    return (
        f"{counted(len(plan['readers']), 'reader')} ({', '.join(plan['readers'])}) read "
        f"{counted(len(plan['cases']), 'case')} in {counted(len(plan['arms']), 'arm')} ({arms}), "
        "each case once in each arm, in blocks at least "
        f"{plan['washout_days']:g} days apart. The order was random for each reader (seed "
        f"{plan['seed']}), the arms were spread over the cases of a block and turned from reader "
        f"to reader.{repeats} The page named no case by its own name and showed no colleague's "
        f"marks{', nor that a case came again' if n_again else ''}. Marks were drawn on all planes "
        f"with deeplung_nb {__version__}, every stroke kept with its time; time at work counts "
        f"pauses of up to 30 seconds. The plan ({counted(len(study.sessions), 'reading')}, "
        f"{_done(study)}) was frozen at {_frozen(study)} (SHA-256 {study.sha256[:16]}…), before "
        "the first reading."
        + (f" {declared}" if declared else ""))


def _interval(row: dict[str, Any], name: str, digits: int) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if not np.isfinite([low, high]).all():
        return f"{row[name]:.{digits}f} (no interval: these readings don't differ enough)"
    return f"{row[name]:.{digits}f} (95 % CI {low:.{digits}f} to {high:.{digits}f})"


def _rows(table: pd.DataFrame, structure: str | None = None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [dict(zip(table.columns, values, strict=True))
                                  for values in table.itertuples(index=False, name=None)]
    return [row for row in rows if structure is None or row["structure"] == structure]


def _where(row: dict[str, Any]) -> str:
    """In which parts of the lungs most was changed: the fullest of sides, of thirds, of depths."""
    if not row.get("n_regions") or not np.isfinite(row["share_right"]):
        return ""
    fullest = []
    for names in (("right", "left"), ("upper", "middle", "lower"), ("peripheral", "central")):
        name = max(names, key=lambda name: row[f"share_{name}"])
        fullest.append(f"{row[f'share_{name}']:.0%} in the {REGIONS[name]}")
    return f" Of what was changed {', '.join(fullest[:-1])} and {fullest[-1]}."


def results_text(table: pd.DataFrame, structure: str = "lesion",
                 together: pd.DataFrame | None = None) -> str:
    """What was found of a structure, in sentences; what too few readings carry is not said.

    Parameters
    ----------
    table
        Of `reading.study_table`.
    together
        Of `reading.study_table.consensus_table`, to compare the machine with the consensus.
    """
    said = []
    between = sums.between_readers(table)
    for row in _rows(between, structure):
        if np.isfinite(row["icc"]):
            said.append(f"Between readers ({row['arm']}, {counted(int(row['n']), 'case')}) "
                        "the intraclass correlation (two-way, absolute agreement, one reader) "
                        f"was {_interval(row, 'icc', 2)}.")
        if np.isfinite(row.get("difference", np.nan)):
            said.append("The mean absolute difference of the machine and a reader, less that of "
                        f"two readers, was {_interval(row, 'difference', 1)} mL.")
    within = sums.within_readers(table)
    for row in _rows(within, structure):
        if np.isfinite(row.get("coefficient", np.nan)):
            said.append(f"{row['reader']} repeated {counted(int(row['n']), 'case')} ({row['arm']}) "
                        "with a repeatability coefficient (95 % of differences) of "
                        f"{_interval(row, 'coefficient', 1)} mL.")
    for row in _rows(sums.time_saved(table)):
        said.append(f"With the machine ({row['arm']}) a reading took {row['mean_with']:.0f} s on "
                    f"average, without {row['mean_without']:.0f} s: a ratio (geometric mean of "
                    f"{counted(int(row['n']), 'pair')}) of {_interval(row, 'ratio', 2)}, p = "
                    f"{row['p']:.3f} (cases as clusters).")
    changed = sums.corrections(table)
    for row in _rows(changed, structure):
        words = (f"Correcting added {row['added_ml']:.1f} mL and removed {row['removed_ml']:.1f} "
                 f"mL on average of {counted(int(row['n']), 'reading')}, in "
                 f"{row['slices_changed']:.1f} slices")
        if np.isfinite(row.get("dice_after", np.nan)):
            words += (f"; the mean Dice went from {row['dice_before']:.3f} to "
                      f"{row['dice_after']:.3f} (n = {row['n_dice']})")
        said.append(words + "." + _where(row))
    if together is not None and len(together):
        for row in _rows(sums.with_consensus(together), structure):
            said.append(
                f"Against the {WAYS[row['way']]} of {row['readers']} or more readers "
                f"({row['arm']}, {counted(int(row['cases']), 'case')}) the mean difference, "
                f"machine less consensus, was {_interval(row, 'difference', 1)} mL"
                + (f"; the mean Dice (n = {row['n_dice']}) was {row['dice_automatic']:.3f}, that "
                   f"of the readers, who are a part of it, {row['dice_readers']:.3f}"
                   if row["n_dice"] else "") + ".")
    if not said:
        return "Too few readings for any statement: at least three cases, and two readers or arms."
    return f"{TITLES[structure]}. " + " ".join(said)


def grras_table(study: ReaderStudy, table: pd.DataFrame,
                together: pd.DataFrame | None = None) -> pd.DataFrame:
    """The fifteen items of GRRAS: what this study says to each, and what only its authors can.

    In our own words, after Kottner et al. 2011, J Clin Epidemiol 64:96.

    Returns
    -------
    DataFrame
        `item, asks, says`.
    """
    plan = study.plan
    done = study.finished()
    repeats = sum(session.occasion == 2 for session in done)
    process = (f"arms {', '.join(f'{arm} ({ARMS[arm]})' for arm in plan['arms'])}; blocks "
               f"{plan['washout_days']:g} days apart; order by seed {plan['seed']}; made names")
    items: list[tuple[str, str]] = [
        ("title or abstract name the study of agreement", AUTHOR),
        ("the instrument is named and described", f"deeplung_nb {__version__}, brush and tools of "
         "corrections.tools, strokes in journals"),
        ("the population of subjects", AUTHOR),
        ("the population of raters", f"{len(plan['readers'])} readers; who they are: {AUTHOR}"),
        ("what is known of agreement, and why it is studied", plan["hypothesis"] or AUTHOR),
        ("how many raters, subjects and repeats were planned, and why", f"{len(plan['readers'])} "
         f"readers, {len(plan['cases'])} cases, {plan['repeats']:.0%} of them repeated; why: "
         + (f"margin {plan['margin']}" if plan["margin"] else AUTHOR)),
        ("how subjects and raters were sampled", AUTHOR),
        ("the rating process: intervals, what was known, blinding", process),
        ("whether ratings were independent", "each reader had a folder of their own; nobody's "
         "marks were shown to another; the automatic ones by arm, which the journals keep"),
        ("the statistics", "stats.reader_study: two-way ICC, repeatability, interchangeability, "
         "time by cases as clusters"),
        ("how many raters, subjects and repeats there were", f"{len(done)} readings of "
         f"{len({session.case for session in done})} cases, {repeats} of them repeats"),
        ("the raters' and subjects' characteristics", AUTHOR),
        ("estimates of agreement with their uncertainty", results_text(
            table, together=together) if len(table)
         else "nothing is read yet"),
        ("what the results mean in practice", AUTHOR),
        ("detailed results", "the table of the study, a row for each reading and structure"),
    ]
    rows: list[dict[str, Any]] = [{"item": number, "asks": asks, "says": says}
                                  for number, (asks, says) in enumerate(items, 1)]
    return pd.DataFrame(rows)
