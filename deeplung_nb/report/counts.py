"""Counts behind Tables 1 to 4, as tidy rows. Estimates come from `deeplung_nb.stats`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from deeplung_nb.labels import LESION_STRUCTURES
from deeplung_nb.stats import summary

CONTINUOUS = {"age": "Age, years", "bmi": "Body mass index, kg/m²"}
LEVELS: dict[str, tuple[str, dict[str, str]]] = {
    # column: section, level -> title; levels that are not listed are printed as they are
    "sex": ("Patients", {"male": "Men", "m": "Men", "female": "Women", "f": "Women"}),
    "smoking": ("Patients", {"current": "Current smoker", "former": "Former smoker",
                             "never": "Never smoked"}),
    "lung_disease": ("Patients", {"1": "History of lung disease", "true": "History of lung disease",
                                  "yes": "History of lung disease"}),
    "scanner": ("CT scanner", {}),
    "protocol": ("Protocol", {"non-contrast": "Non-contrast", "contrast": "Contrast-enhanced",
                              "unknown": "Unknown protocol"}),
    "ecg_gated": ("Protocol", {"1": "ECG-gated", "true": "ECG-gated", "yes": "ECG-gated"}),
    "centre": ("Centre", {}),
}
NEGATIVE = {"0", "false", "no"}
"""Levels of a yes-or-no column that get no row of their own."""


def _text(values: pd.Series) -> pd.Series:
    """Levels as text: 1.0 and True become `1`; empty stays missing."""
    def word(value: object) -> str:
        if isinstance(value, (bool, np.bool_)):
            return str(int(value))
        if isinstance(value, (float, np.floating)) and float(value).is_integer():
            return str(int(value))
        return str(value).strip()

    known = values.notna() & (values.astype(str).str.strip() != "")
    return values[known].map(word).reindex(values.index)


def count_characteristics(manifest: pd.DataFrame) -> pd.DataFrame:
    """Table 1: who is in the study.

    Parameters
    ----------
    manifest
        The rows of one or more manifests (`Cohort.frame`); excluded cases are left out. Clinical
        columns may be absent.

    Returns
    -------
    DataFrame
        One row for each role and characteristic: `role, section, characteristic, n_total, n_known,
        n, percent, mean, sd`. `percent` is of `n_known`. Patients are counted once in the section
        Patients, scans in all others.
    """
    used = manifest[~manifest["exclude"].fillna(0).astype(bool)]
    rows: list[dict[str, object]] = []
    for role, cases in used.groupby("role", sort=True):
        patients = cases.drop_duplicates("patient_id")
        both = {"role": role, "section": "Size"}
        rows.append({**both, "characteristic": "Patients", "n": len(patients)})
        rows.append({**both, "characteristic": "CT scans", "n": len(cases)})
        for column, title in CONTINUOUS.items():
            if column not in cases:
                continue
            values = pd.to_numeric(patients[column]).dropna()
            if len(values):
                described = summary.describe(values.to_numpy(float))
                rows.append({"role": role, "section": "Patients", "characteristic": title,
                             "n_total": len(patients), "n_known": len(values),
                             "mean": described.mean, "sd": described.sd})
        for column, (section, titles) in LEVELS.items():
            if column not in cases:
                continue
            whole = patients if section == "Patients" else cases
            levels = _text(whole[column])
            known = levels.dropna().str.lower() if titles else levels.dropna()
            if section in ("CT scanner", "Centre"):
                known = levels.fillna("Unknown")
            named = known.map(lambda level, titles=titles: titles.get(level, level))
            for level, n in sorted(named[~known.isin(NEGATIVE)].value_counts().items()):
                rows.append({"role": role, "section": section, "characteristic": level,
                             "n_total": len(whole), "n_known": len(known), "n": n,
                             "percent": 100 * n / len(known)})
    columns = ["role", "section", "characteristic", "n_total", "n_known", "n", "percent", "mean",
               "sd"]
    return pd.DataFrame(rows, columns=columns)


def count_slices(measurements: pd.DataFrame, reader: str = "expert") -> pd.DataFrame:
    """Table 2: slices and slices with each lesion, by cohort and role.

    A structure that the reference does not tell apart (a binary mask has no class) has no rows in
    the measurements and stays empty here, which is not 0.

    Returns
    -------
    DataFrame
        `cohort, role, n_patients, n_cases, n_slices, slices_ggo, slices_high_opacity,
        slices_lesion, slices_both` (`slices_both` = GGO + high opacity - lesion).
    """
    rows = []
    read = measurements.query("reader == @reader and status == 'ok'")
    for (cohort, role), group in read.groupby(["cohort", "role"], sort=True):
        cases = group.drop_duplicates("case_id")
        row = {"cohort": cohort, "role": role, "n_patients": cases["patient_id"].nunique(),
               "n_cases": len(cases), "n_slices": int(cases["n_slices"].sum())}
        for structure in LESION_STRUCTURES:
            values = group.loc[group["structure"] == structure, "slices_with"]
            row[f"slices_{structure}"] = values.sum(min_count=1)
        row["slices_both"] = row["slices_ggo"] + row["slices_high_opacity"] - row["slices_lesion"]
        rows.append(row)
    return pd.DataFrame(rows).astype({name: "Int64" for name in (
        *(f"slices_{structure}" for structure in LESION_STRUCTURES), "slices_both")})


def collect_models(timings: pd.DataFrame, dice: Mapping[str, Mapping[str, float]],
                   n_slices: int = 16) -> pd.DataFrame:
    """Table 4: this network beside its baselines, times and memory over `n_slices` slices.

    Parameters
    ----------
    timings
        Rows of timings.csv.
    dice
        Model (`ours`, `unet2d`, `unet3d`) -> class (`background`, `ggo`, `high_opacity`) -> mean
        Dice, for those that were trained.

    Returns
    -------
    DataFrame
        `model, n_slices, dice_background, dice_ggo, dice_high_opacity, parameters_million,
        cpu_seconds, cpu_ratio, gpu_seconds, gpu_ratio, memory_gb`; a ratio is to `ours`,
        the memory is that of the GPU where one was measured.
    """
    of_size = timings[timings["n_slices"] == n_slices]
    rows = []
    for model in dict.fromkeys(("ours", *timings["model"])):
        mine = of_size[of_size["model"] == model]
        if mine.empty:
            continue
        row: dict[str, object] = {"model": model, "n_slices": n_slices}
        for name in ("background", "ggo", "high_opacity"):
            row[f"dice_{name}"] = dice.get(model, {}).get(name, np.nan)
        row["parameters_million"] = float(mine["parameters_million"].iloc[0])
        for device in ("cpu", "gpu"):
            is_cpu = mine["device"].astype(str).str.startswith("cpu")
            times = mine.loc[is_cpu == (device == "cpu"), "seconds_median"]
            row[f"{device}_seconds"] = float(times.min()) if len(times) else np.nan
        on_gpu = ~mine["device"].astype(str).str.startswith("cpu")
        memory = mine[on_gpu] if on_gpu.any() else mine
        row["memory_gb"] = float(memory["peak_memory_gb"].max())
        rows.append(row)
    frame = pd.DataFrame(rows)
    for device in ("cpu", "gpu"):
        place = frame.columns.get_loc(f"{device}_seconds") + 1
        own = frame.loc[frame["model"] == "ours", f"{device}_seconds"]
        whole = float(own.iloc[0]) if len(own) else np.nan
        frame.insert(place, f"{device}_ratio", frame[f"{device}_seconds"] / whole)
    return frame
