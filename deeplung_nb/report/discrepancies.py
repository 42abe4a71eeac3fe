"""Do the paper's printed numbers fit each other? Computed from published.csv, for every cohort.

Each check derives a number from some printed ones and sets it beside another printed one. A flag
is the outcome of its arithmetic: correct a value in the file, and the flag goes. The reasons and
what this project does instead stand in docs/paper.md under the same numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from deeplung_nb.runs.registry import manifest_folder


class Check(NamedTuple):
    """One comparison of printed numbers."""

    place: str
    what: str
    printed: float
    implied: float
    fits: bool
    topic: int | None = None
    """Heading in docs/paper.md; None for a sum."""


COLUMNS = ("place", "what", "printed", "implied", "fits", "topic")


def check_published(published_csv: str | os.PathLike | None = None) -> pd.DataFrame:
    """Every check as a row: `place, what, printed, implied, fits, topic`, the misfits first.

    Parameters
    ----------
    published_csv
        None: `published.csv` beside the manifests.

    Examples
    --------
    >>> row = check_published().set_index("place").loc["Table 3, Table 4"]
    >>> float(row["printed"]), float(row["implied"]), bool(row["fits"])
    (145.0, 27.75, False)
    """
    path = published_csv or manifest_folder() / "published.csv"
    value = pd.read_csv(path).set_index("id")["value"]
    rows = pd.DataFrame([check for make in CHECKS for check in make(value)], columns=COLUMNS)
    return rows.sort_values("fits", kind="stable", ignore_index=True)


def _equal(place: str, what: str, printed: float, implied: float, topic: int | None = None,
           within: float = 1e-9) -> Check:
    return Check(place, what, float(printed), float(implied),
                 bool(abs(printed - implied) <= within), topic)


def _sums(p: pd.Series) -> Iterator[Check]:
    centres = p.filter(like="s2.1.centre.").sum()
    yield _equal("2.1", "patients: sum of the centres and the open-access cases",
                 p["s2.1.n_patients.cv"], centres + p["s2.1.n_patients.open_access"])
    yield _equal("2.1", "registry scans: contrast and non-contrast", p["s2.1.n_patients.registry"],
                 p["s2.1.protocol.non_contrast"] + p["s2.1.protocol.contrast"])
    yield _equal("Table 1", "scans: sum over scanners", p["table1.n.images"],
                 p.filter(regex=r"^table1\.scanner\..*\.n$").sum())
    yield _equal("Table 2", "external slices: both parts", p["s2.1.n_slices.external"],
                 p["table2.n_slices.external_monzino"] + p["table2.n_slices.external_mosmed"])
    yield _equal("2.1", "patients of both cohorts", p["s2.1.n_patients.all"],
                 p["s2.1.n_patients.cv"] + p["s2.1.n_patients.external"])
    yield _equal("2.1, journal", "external patients in both versions",
                 p["s2.1.n_patients.external"], p["journal.n_patients.external"], 5)


def _dice(p: pd.Series) -> Iterator[Check]:
    classes = [p[f"table4.ours.dice.{name}"] for name in ("ggo", "high_opacity", "background")]
    yield _equal("3.1, Table 4", "Dice of the folds: mean of the classes, with background",
                 p["s3.1.dice.cv.mean"], np.mean(classes), 1, within=0.0005)
    yield _equal("3.1, Table 4", "Dice of the folds: mean of the lesion classes",
                 p["s3.1.dice.cv.mean"], np.mean(classes[:2]), 1, within=0.0005)
    n = p["s2.1.n_patients.cv"]
    yield _equal("3.1, journal", "SD of Dice, if ± were a standard error",
                 p["journal.dice.cv.sd"], p["s3.1.dice.cv.spread"] * np.sqrt(n), 2, within=0.005)
    means, spreads, sizes = (
        [p[f"{name.format(group)}"] for group in ("non_contrast", "contrast")]
        for name in ("s3.3.dice.{}.mean", "s3.3.dice.{}.spread", "table1.{}.n"))
    as_sd = stats.ttest_ind_from_stats(means[0], spreads[0], sizes[0], means[1], spreads[1],
                                       sizes[1], equal_var=False).pvalue
    alpha = p["s2.8.alpha"]
    what = "p of Dice between protocols, ± taken as {}; the text: p < 0.001 and no difference"
    yield Check("3.3", what.format("SD"), p["s3.3.dice.p"], as_sd,
                bool(as_sd < p["s3.3.dice.p"] and as_sd > alpha), 3)
    as_error = float(2 * stats.norm.sf((means[0] - means[1]) / np.hypot(*spreads)))
    yield Check("3.3", what.format("standard error"), p["s3.3.dice.p"], as_error,
                bool(as_error < p["s3.3.dice.p"] and as_error > alpha), 3)


def _p_values(p: pd.Series) -> Iterator[Check]:
    for structure, title in (("ggo", "ground glass"), ("high_opacity", "high opacity")):
        training, external = p[f"s3.1.p.cv.{structure}"], p[f"s3.2.p.external.{structure}"]
        yield Check("3.1, 3.2", f"p of {title}: two cohorts, two values", training, external,
                    bool(training != external), 4)


def _zeros(p: pd.Series) -> Iterator[Check]:
    """The highest rank correlation that the zeros of the printed quartiles allow."""
    n = int(p["s2.1.n_patients.external"])
    # Type 6 quartile at rank 0.75 (n + 1): a quartile of 0 needs that many zeros.
    rank = int(np.ceil(0.75 * (n + 1)))
    zero = {reader: p[f"s3.2.volume.external.high_opacity.{reader}.q3"] == 0
            for reader in ("expert", "model")}
    readings = [np.maximum(np.arange(n) - (rank if zero[reader] else rank - 1) + 1, 0)
                for reader in ("expert", "model")]
    highest = float(stats.spearmanr(*readings).statistic)
    printed = p["s3.2.correlation.external.high_opacity"]
    yield Check("3.2", "external high opacity: highest ρ that the printed quartiles allow",
                printed, highest, bool(printed <= highest + 0.0005), 7)
    both = {}
    for cohort, slices, lesion in (
        ("training", "cv", p["s2.1.n_lesion_slices.cv"]),
        ("external", "external_monzino", p["s2.1.n_lesion_slices.external"]
         - p["table2.n_lesion_slices.external_mosmed.ggo"]),
    ):
        high = p[f"table2.n_lesion_slices.{slices}.high_opacity"]
        both[cohort] = 100 * (p[f"table2.n_lesion_slices.{slices}.ggo"] + high - lesion) / high
    yield Check("2.1, Table 2", "% of slices with high opacity that hold ground glass too: "
                "training (printed) and external (implied) within 20 points", both["training"],
                both["external"], bool(abs(both["training"] - both["external"]) < 20), 6)


def _quartiles(p: pd.Series) -> Iterator[Check]:
    where = "s3.1.volume.cv.high_opacity"
    expert, model = p[f"{where}.expert.q3"], p[f"{where}.model.q3"]
    yield Check("3.1", "upper quartile of high opacity, mL: expert (printed) and automatic "
                "(implied) within 10 %, as ‘no difference’ says", expert, model,
                bool(abs(model / expert - 1) < 0.1), 15)


def _times(p: Any) -> Iterator[Check]:
    yield _equal("Table 3, Table 4", "CPU seconds of 120 slices, from those of 16",
                 p["table3.i7.120"], p["table4.ours.cpu_time"] / 16 * 120, 17,
                 within=0.2 * p["table3.i7.120"])
    printed, implied = p["table3.titan_rtx.120"], p["table4.ours.gpu_time"] / 1000 / 16 * 120
    yield _equal("Table 3, Table 4", "GPU seconds of 120 slices, from those of 16", printed,
                 implied, 21, within=0.2 * printed)
    card, needed = p["s3.4.gpu_memory.k1200"], p["table4.ours.memory"]
    yield Check("3.4, Table 4", "GB of the card that ran it (printed), of what it needs (implied)",
                card, needed, bool(needed <= card), 21)


CHEST_MM = 250.0
"""Less than the height of nearly any adult's chest in a CT of it."""


def _slices(p: Any) -> Iterator[Check]:
    height = p["s2.1.n_slices.cv"] / p["s2.1.n_patients.cv"] * p["s2.2.thickness.non_contrast.max"]
    yield Check("2.1, 2.2", "mm from end to end of a mean scan, at the thickest slices (implied); "
                "a chest has more than (printed column)", CHEST_MM, height,
                bool(height >= CHEST_MM), 21)


def _table_1(p: pd.Series) -> Iterator[Check]:
    off = []
    for name in p.index[p.index.str.match(r"table1\.scanner\..*\.n$")]:
        exact = 100 * p[name] / p["table1.n.images"]
        off.append(abs(p[name.removesuffix(".n") + ".percent"] - exact))
    yield Check("Table 1", "percentages of the scanners: largest distance from their counts, "
                "at most 0.05", 0.05, max(off), bool(max(off) <= 0.05))


CHECKS: tuple[Callable[[pd.Series], Iterator[Check]], ...] = (
    _sums, _table_1, _dice, _p_values, _zeros, _quartiles, _times, _slices)
