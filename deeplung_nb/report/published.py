"""The numbers the paper prints, beside those of this run, and whether they can be compared.

`published.csv` lists what is printed; `measure` finds the counterparts in a run's own tables, under
the same ids; `compare` joins the two. A number without a counterpart stays in the table, empty.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from deeplung_nb import measurements as table
from deeplung_nb.imaging.preprocess import HU_WINDOW
from deeplung_nb.report import counts
from deeplung_nb.report.panels import choose_case
from deeplung_nb.runs.config import FULL_WIDTHS, Config
from deeplung_nb.runs.registry import manifest_folder
from deeplung_nb.stats import agreement, correlation, paired, summary

NAN = float("nan")
CLASSES = ("ggo", "high_opacity")
SECTIONS = {"cv": "s3.1", "external": "s3.2"}


def _of_plateau(config: Config, value: float) -> float:
    """A setting of the schedule that the paper names; NaN in a run with another one."""
    return value if config.training.schedule == "plateau" else NAN


SETTINGS = {
    "s2.4.image_size": lambda c: c.network.image_size,
    "s2.4.rotation.min": lambda c: -c.training.rotation_degrees,
    "s2.4.rotation.max": lambda c: c.training.rotation_degrees,
    "s2.4.translation": lambda c: c.training.translation_pixels,
    "s2.4.scale.min": lambda c: c.training.scale_range[0],
    "s2.4.scale.max": lambda c: c.training.scale_range[1],
    "s2.5.n_neighbours": lambda c: c.network.n_neighbours,
    "s2.5.window_slices": lambda c: c.network.n_slices,
    "s2.6.momentum": lambda c: c.training.momentum if c.training.optimiser == "sgd" else NAN,
    "s2.6.learning_rate": lambda c: c.training.learning_rate,
    "s2.6.weight_decay": lambda c: c.training.weight_decay,
    "s2.6.plateau_factor": lambda c: _of_plateau(c, c.training.plateau_factor),
    "s2.6.plateau_patience": lambda c: _of_plateau(c, c.training.plateau_patience),
    "s2.6.batch": lambda c: c.training.batch_slices,
    "s2.6.stop_learning_rate": lambda c: _of_plateau(c, c.training.stop_learning_rate),
    "s2.7.n_folds": lambda c: c.n_folds,
    "s2.7.test_percent": lambda c: 100.0 / c.n_folds,
    "journal.n_folds": lambda c: c.n_folds,
    "s2.4.hu.min": lambda _: HU_WINDOW[0],
    "s2.4.hu.max": lambda _: HU_WINDOW[1],
}
"""Published id -> where the setting stands in a `Config`."""


PAPER_SIZE = 256
"""Side of the paper's pictures, pixels."""
BENCHMARKED = {"abstract.speed.n_slices": 120, "journal.speed.n_slices": 120, "s3.4.n_slices": 120,
               "s3.5.n_slices": 16}
"""Published id -> the slices that were timed."""
MISSING = {
    "the paper's own scanners and centres": ("table1.scanner.", "s2.1.centre."),
    "how scans were taken is in no table": ("s2.2.",),
    "parts of the paper's cohort": (
        "s2.1.n_patients.registry", "s2.1.protocol.", "s2.1.n_patients.open_access",
        "s2.1.n_patients.external_",
        "table2.n_patients.external_", "table2.n_slices.external_",
        "table2.n_lesion_slices.external_"),
    "what the readers did and had": ("s2.3.n_readers", "s2.3.reader", "s2.3.window",
                                     "s3.4.manual."),
    "the paper's own hardware and software": ("s2.8.spss", "s2.9.cpu_generation", "s2.9.pytorch"),
    "not of the study": ("s1.",),
    "in the run's splits, not in its tables": ("s2.7.n_train", "s2.7.n_validation"),
    "the run's training has no such setting": ("s2.6.",),
    "no GPU was timed": ("abstract.speed.titan", "s2.9.gpu_memory", "s3.4.gram", "s3.4.gpu",
                         "s3.4.clock", "s3.4.time.titan", "s3.4.time.k1200", "table3.titan",
                         "table3.k1200",
                         "table4.unet2d.gpu", "table4.unet3d.gpu", "table4.ours.gpu",
                         "table4.unet2d.memory", "table4.unet3d.memory", "table4.ours.memory",
                         "journal.speed.titan"),
    "no controls are studied": ("journal.auc", "journal.n_patients.controls"),
    "part of the design, the same here": ("s2.3.burden.factor", "s2.4.scaled", "s2.5.",
                                          "s2.8.alpha", "s2.8.dice_factor"),
}
"""Why a published number has no counterpart: the beginnings of its ids."""
CHARACTERISTICS = {
    "Men": "men", "Current smoker": "current_smoker", "Former smoker": "former_smoker",
    "History of lung disease": "lung_disease", "Non-contrast": "non_contrast",
    "Contrast-enhanced": "contrast", "ECG-gated": "ecg_gated",
}
"""Row of `counts.count_characteristics` -> its part of the ids of Table 1. The paper's scanners are
no others' scanners."""


def compare(published_csv: str | os.PathLike | None, measured: Mapping[str, float],
            same_patients: bool = False, simulated: bool = False,
            synthetic: bool = False, image_size: int | None = None) -> pd.DataFrame:
    """Every published number, this run's counterpart, and whether the two can be compared.

    Parameters
    ----------
    published_csv
        None: `published.csv` beside the manifests.
    measured
        Published id -> value in the unit of the published one (`measure`).
    same_patients
        True where the run's cohort is the paper's own.
    simulated
        True where the readings were made to have the printed quartiles.
    synthetic
        True where the cases are phantoms.
    image_size
        Side of the pictures that were timed, pixels.

    Returns
    -------
    DataFrame
        The columns of published.csv, then `measured, difference` (measured - published) and
        `comparability`.

    Raises
    ------
    ValueError
        `measured` has an id that is not published.
    """
    path = published_csv or manifest_folder() / "published.csv"
    frame = pd.read_csv(path, dtype={"section": str}, keep_default_na=False,
                        na_values={"value": [""], "structure": [""], "cohort": [""],
                                   "unit": [""], "note": [""]})
    if frame["id"].duplicated().any():
        twice = ", ".join(frame.loc[frame["id"].duplicated(), "id"])
        raise ValueError(f"{path}: id twice: {twice}. Give each published number its own")
    unknown = sorted(set(measured) - set(frame["id"]))
    if unknown:
        raise ValueError(f"not in {path}: {', '.join(unknown)}. Expected ids of that file")
    frame["value"] = pd.to_numeric(frame["value"])
    frame["measured"] = frame["id"].map(measured).astype(float)
    frame["difference"] = frame["measured"] - frame["value"]
    frame["comparability"] = [comparability(row, same_patients, simulated, synthetic, image_size)
                              for row in frame.itertuples()]
    return frame


def comparability(row: object, same_patients: bool = False, simulated: bool = False,
                  synthetic: bool = False, image_size: int | None = None) -> str:
    """Whether a published number and this run's can be set against each other, in a few words.

    `row` has the fields `id, quantity, statistic` and `measured` of a row of `compare`.
    """
    quantity, statistic = row.quantity, str(row.statistic)
    if np.isnan(row.measured):
        for why, beginnings in MISSING.items():
            if row.id.startswith(beginnings):
                return f"no counterpart: {why}"
        return "no counterpart in this run"
    if row.id in SETTINGS or row.id in BENCHMARKED:
        return "a setting: equal or chosen otherwise"
    if quantity.startswith("time") or quantity == "memory":
        size = f"pictures of {image_size} pixels, " if image_size not in (None, PAPER_SIZE) else ""
        return f"no: {size}own hardware; only ratios compare"
    if row.id.startswith("fig"):
        return "no: one chosen case; the paper's rule is not printed"
    if quantity == "p_value":
        return "no: a p value is not a target"
    if "spread" in statistic:
        return "no: what it spreads over is not printed"
    if quantity == "dice" and row.structure == "lesion":
        return "no: which Dice is averaged is not printed"
    if simulated:
        return "no: simulated from the printed numbers"
    patients = "yes" if same_patients else \
        f"same statistic, {'phantoms' if synthetic else 'other patients'}"
    if quantity == "correlation":
        return "no: which correlation is not said there" if row.id.startswith("journal.") else \
            f"{patients}; Spearman, by section 2.8"
    if statistic.startswith(("q1", "q3")):
        patients += "; quartile of type 6, as in SPSS"
    if quantity == "dice" and ".unet" in row.id:
        return f"{patients}; width and schedule as in Table 4 of this run"
    if quantity == "dice":
        return f"{patients}; empty references: not printed"
    if quantity in ("bias_ml", "difference_ml"):
        return f"{patients}; sign not printed"
    return patients


def measure(measurements: pd.DataFrame, config: Config | None = None,
            timings: pd.DataFrame | None = None, reader: str = "model",
            characteristics: pd.DataFrame | None = None) -> dict[str, float]:
    """This run's counterparts of the published numbers, under the ids of published.csv.

    `characteristics` are rows of `counts.count_characteristics`, for Table 1.

    Dice is the mean over cases in which it is defined; `spread` is the SD over cases.
    """
    found: dict[str, float] = {}
    if config is not None:
        found |= {name: float(read(config)) for name, read in SETTINGS.items()}
    for role in SECTIONS:
        rows = measurements[measurements["role"] == role]
        if len(rows):
            found |= _counts(rows, role) | _volumes(rows, role, reader) | _dice(rows, role, reader)
    seen = measurements[(measurements["reader"] == "expert") & (measurements["status"] == "ok")]
    found["s2.1.n_patients.all"] = float(seen["patient_id"].nunique())
    training = measurements[measurements["role"] == "cv"]
    if training["protocol"].isin(("contrast",)).any():
        found |= _protocols(training, reader)
    if characteristics is not None:
        found |= _characteristics(characteristics[characteristics["role"] == "cv"])
    if timings is not None:
        found |= _times(timings)
    return {name: value for name, value in found.items() if not np.isnan(value)}


def _pair(rows: pd.DataFrame, structure: str, reader: str) -> pd.DataFrame | None:
    """Volumes of the cases whose reference tells this class apart; None where none does.

    A binary reference has no row of a class: its cases can't be paired.
    """
    key = ["cohort", "case_id"]
    told = rows.loc[(rows["reader"] == "expert") & (rows["structure"] == structure), key]
    if told.empty:
        return None
    return table.pair(rows.merge(told, on=key), "expert", reader, structure)


def _scored(rows: pd.DataFrame, structure: str, reader: str) -> np.ndarray:
    """Dice of the cases in which it is defined."""
    chosen = rows.query("structure == @structure and reader == @reader and status == 'ok'")
    return chosen["dice"].dropna().to_numpy(float)


def _counts(rows: pd.DataFrame, role: str) -> dict[str, float]:
    expert = rows[(rows["reader"] == "expert") & (rows["status"] == "ok")]
    cases = expert.drop_duplicates(["cohort", "case_id"])
    n_patients = float(len(cases.drop_duplicates(["cohort", "patient_id"])))
    slices = expert["slices_with"].astype(float)
    with_class = {structure: float(slices[expert["structure"] == structure].sum(min_count=1))
                  for structure in (*CLASSES, "lesion")}
    found = {f"abstract.n_patients.{role}": n_patients, f"s2.1.n_patients.{role}": n_patients,
             f"journal.n_patients.{role}": n_patients,
             f"s2.1.n_slices.{role}": float(cases["n_slices"].sum()),
             f"s2.1.n_lesion_slices.{role}": with_class["lesion"]}
    if role == "cv":
        found |= {"table2.n_patients.cv": n_patients,
                  "table2.n_slices.cv": float(cases["n_slices"].sum())}
        found |= {f"table2.n_lesion_slices.cv.{name}": with_class[name] for name in CLASSES}
        tested = cases.groupby("fold").size()
        if len(tested):
            found |= {"s2.7.n_patients.cv": n_patients, "s2.7.n_test.min": float(tested.min()),
                      "s2.7.n_test.max": float(tested.max())}
    return found


def _characteristics(rows: pd.DataFrame) -> dict[str, float]:
    """Table 1, of the training cohort."""
    rows = rows.set_index("characteristic")
    found = {f"table1.n.{name}": float(rows["n"].get(title, np.nan))
             for name, title in (("baseline", "Patients"), ("images", "CT scans"))}
    for column, title in counts.CONTINUOUS.items():
        found |= {f"table1.{column}.{name}": float(rows[name].get(title, np.nan))
                  for name in ("mean", "sd")}
    for title, name in CHARACTERISTICS.items():
        found |= {f"table1.{name}.{column}": float(rows[column].get(title, np.nan))
                  for column in ("n", "percent")}
    return found


def _quartiles(values: Any) -> dict[str, float]:
    """Median and quartiles as SPSS has them: the paper's numbers are SPSS's (section 2.8)."""
    described = summary.describe(values)
    return {"median": described.median, "q1": described.q1_spss, "q3": described.q3_spss}


def _volumes(rows: pd.DataFrame, role: str, reader: str) -> dict[str, float]:
    found, section = {}, SECTIONS[role]
    for structure in CLASSES:
        pair = _pair(rows, structure, reader)
        if pair is None or len(pair) < 3:
            continue
        expert, automatic = pair["reference"], pair["test"]
        for name, values in (("expert", expert), ("model", automatic)):
            found |= {f"{section}.volume.{role}.{structure}.{name}.{statistic}": value
                      for statistic, value in _quartiles(values).items()}
        ranks = correlation.spearman(expert, automatic)
        for where in (section, "abstract", "journal"):
            found[f"{where}.correlation.{role}.{structure}"] = ranks.r
        found[f"{section}.correlation_p.{role}.{structure}"] = ranks.p_value
        found[f"{section}.bias.{role}.{structure}"] = agreement.bland_altman(expert, automatic).bias
        found[f"{section}.p.{role}.{structure}"] = paired.wilcoxon_signed_rank(
            expert, automatic).p_value
    return found


def _dice(rows: pd.DataFrame, role: str, reader: str) -> dict[str, float]:
    found, section = {}, SECTIONS[role]
    scores = _scored(rows, "lesion", reader)
    if len(scores) > 1:
        described = summary.describe(scores)
        for where, spread in ((section, "spread"), ("abstract", "spread"), ("journal", "sd")):
            found[f"{where}.dice.{role}.mean"] = described.mean
            found[f"{where}.dice.{role}.{spread}"] = described.sd
    if role == "cv":
        for figure, rule in (("fig4", "median_ggo"), ("fig5", "median_both")):
            with contextlib.suppress(ValueError):  # no case fits the rule
                found[f"{figure}.dice"] = choose_case(rows, rule, reader).dice["lesion"]
        for model, name in {"ours": reader, "unet2d": "unet2d", "unet3d": "unet3d"}.items():
            found |= {f"table4.{model}.dice.{structure}": value
                      for structure, value in counts.class_dice(rows, name).items()}
    return found


def _protocols(rows: pd.DataFrame, reader: str) -> dict[str, float]:
    """Section 3.3: contrast-enhanced against non-contrast scans of the training cohort."""
    found = {}
    names = {"non_contrast": "non-contrast", "contrast": "contrast"}
    dice = {key: _scored(rows[rows["protocol"] == name], "lesion", reader)
            for key, name in names.items()}
    if min(len(scores) for scores in dice.values()) > 1:
        for key, scores in dice.items():
            described = summary.describe(scores)
            found[f"s3.3.dice.{key}.mean"] = described.mean
            found[f"s3.3.dice.{key}.spread"] = described.sd
        found["s3.3.dice.p"] = paired.mann_whitney(dice["non_contrast"], dice["contrast"]).p_value
    for structure in CLASSES:
        pair = _pair(rows, structure, reader)
        if pair is None:
            continue
        change = {key: (pair["test"] - pair["reference"])[pair["protocol"] == name].to_numpy(float)
                  for key, name in names.items()}
        if min(len(values) for values in change.values()) < 2:
            continue
        for key, values in change.items():
            found |= {f"s3.3.difference.{structure}.{key}.{statistic}": value
                      for statistic, value in _quartiles(values).items()}
        found[f"s3.3.difference.{structure}.p"] = paired.mann_whitney(
            change["non_contrast"], change["contrast"]).p_value
    return found


def _times(timings: pd.DataFrame) -> dict[str, float]:
    """Table 3: seconds over 120 and 500 slices; Table 4: seconds on a CPU, milliseconds and memory
    on a GPU, over 16.

    The U-Nets are those of the paper's width.
    """
    found = {}
    rows = counts.fastest_ways(timings)
    rows = rows[rows["width"] == rows["model"].map(FULL_WIDTHS).fillna(0)]
    on_cpu = rows["device"].astype(str).str.startswith("cpu")
    found |= {name: float(n) for name, n in BENCHMARKED.items() if (rows["n_slices"] == n).any()}
    for (model, is_cpu), group in rows[rows["n_slices"] == 16].groupby(["model", on_cpu]):
        if is_cpu:
            found[f"table4.{model}.cpu_time"] = float(group["seconds_median"].min())
        else:
            found[f"table4.{model}.gpu_time"] = 1000 * float(group["seconds_median"].min())
            found[f"table4.{model}.memory"] = float(group["peak_memory_gb"].max())
    ours = rows[rows["model"] == "ours"]
    for (n_slices, is_cpu), group in ours.groupby(["n_slices", on_cpu]):
        device = "i7" if is_cpu else "titan_rtx"
        if n_slices in (120, 500):
            found[f"table3.{device}.{n_slices}"] = float(group["seconds_median"].min())
        if n_slices == 120:
            found[f"s3.4.time.{device}"] = float(group["seconds_median"].min())
            if is_cpu:
                found["s3.4.ram"] = float(group["peak_memory_gb"].max())
    return found
