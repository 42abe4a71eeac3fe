"""Counts behind Tables 1 to 4, as tidy rows. Estimates come from `deeplung_nb.stats`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from deeplung_nb.labels import LESION_STRUCTURES
from deeplung_nb.runs import Run
from deeplung_nb.stats import overlap, summary

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


def case_names(frame: pd.DataFrame) -> pd.Series:
    """What to call the case of each row: its id, after its cohort where there are several."""
    ids = frame["case_id"].astype(str)
    several = "cohort" in frame and frame["cohort"].nunique() > 1
    return frame["cohort"].astype(str) + "/" + ids if several else ids


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
        cases = group.drop_duplicates("case_id")  # of one cohort
        row = {"cohort": cohort, "role": role, "n_patients": cases["patient_id"].nunique(),
               "n_cases": len(cases), "n_slices": int(cases["n_slices"].sum())}
        for structure in LESION_STRUCTURES:
            values = group.loc[group["structure"] == structure, "slices_with"]
            row[f"slices_{structure}"] = values.sum(min_count=1)
        row["slices_both"] = row["slices_ggo"] + row["slices_high_opacity"] - row["slices_lesion"]
        rows.append(row)
    return pd.DataFrame(rows).astype({name: "Int64" for name in (
        *(f"slices_{structure}" for structure in LESION_STRUCTURES), "slices_both")})


def class_dice(measurements: pd.DataFrame, reader: str = "model",
               role: str = "cv") -> dict[str, float]:
    """Table 4's Dice of a reader: mean over the cases in which it is defined, for each class.

    Returns
    -------
    dict
        `background, ggo, high_opacity` (NaN without a case). The background's overlap follows
        from the voxel counts of `lesion`: what both leave unmarked.
    """
    rows = measurements.query("reader == @reader and role == @role and status == 'ok'")
    found = {}
    for name in ("background", "ggo", "high_opacity"):
        of_class = rows[rows["structure"] == ("lesion" if name == "background" else name)]
        counted = of_class[["tp", "fp", "fn", "tn"]].dropna().astype(int)
        cases = [overlap.Confusion(tn, fn, fp, tp) if name == "background" else
                 overlap.Confusion(tp, fp, fn, tn)
                 for tp, fp, fn, tn in counted.itertuples(index=False)]
        found[name] = overlap.summary(cases).dice_mean
    return found


def read_history(folder: Path) -> pd.DataFrame:
    """A training's history.csv, after that of the main branch alone (`main/`) where there was one.

    Epochs and steps are counted on; `stage` is `main branch` or `whole`. `folder` is a fold's. A
    training that was stopped in its first stage has that alone.

    Raises
    ------
    FileNotFoundError
        Nothing was trained there.
    """
    path, before = folder / "history.csv", folder / "main" / "history.csv"
    if not (path.is_file() or before.is_file()):
        raise FileNotFoundError(f"{path}: no such file, expected the history.csv of a training")
    if not before.is_file():
        return pd.read_csv(path).assign(stage="whole")
    main = pd.read_csv(before).assign(stage="main branch")
    if not path.is_file():
        return main
    whole = pd.read_csv(path).assign(stage="whole")
    whole["epoch"] += len(main)
    whole["step"] += int(main["step"].max())
    return pd.concat([main, whole], ignore_index=True)


def collect_trained(run: Run, measurements: pd.DataFrame) -> pd.DataFrame:
    """The networks that this run trained: `model, width, training_steps, dice_*` on test cases.

    `training_steps` are those of the first fold, with those of the main branch alone.
    """
    networks = {"ours": ("model", "deeplung", 0),
                **{unet.name: (unet.name, unet.name, unet.width) for unet in run.config.baselines}}
    rows = []
    for model, (reader, network, width) in networks.items():
        history = run.require(run.fold_folder(0, network), "history.csv",
                              made_by="05_cross_validation.ipynb")
        scores = class_dice(measurements, reader)
        rows.append({"model": model, "width": width,
                     "training_steps": int(read_history(history.parent)["step"].iloc[-1]),
                     **{f"dice_{name}": value for name, value in scores.items()}})
    return pd.DataFrame(rows)


def fastest_ways(timings: pd.DataFrame) -> pd.DataFrame:
    """Of each network, device and number of slices the fastest way in float32, from slices to
    scores."""
    rows = timings[(timings["task"] == "network") & (timings["way"] != "bfloat16")]
    who = ["model", "width", "device", "hardware", "n_slices"]
    return rows.sort_values("seconds_median", kind="stable").drop_duplicates(who).sort_index()


def collect_models(timings: pd.DataFrame, trained: pd.DataFrame,
                   n_slices: int = 16) -> pd.DataFrame:
    """Table 4: this network beside its baselines, times and memory over `n_slices` slices.

    Parameters
    ----------
    timings
        Rows of timings.csv.
    trained
        Rows of `collect_trained`: a U-Net of another width than was trained has no Dice.

    Returns
    -------
    DataFrame
        `model, width, n_slices, training_steps, dice_background, dice_ggo, dice_high_opacity,
        parameters_million, cpu_seconds, cpu_ratio, gpu_seconds, gpu_ratio, memory_gb`; a ratio is
        to `ours`, the memory is that of the GPU where one was measured.
    """
    of_size = fastest_ways(timings)
    of_size = of_size[of_size["n_slices"] == n_slices]
    known = trained.set_index(["model", "width"])
    rows = []
    for model, width in dict.fromkeys(zip(of_size["model"], of_size["width"], strict=True)):
        mine = of_size[(of_size["model"] == model) & (of_size["width"] == width)]
        row: dict[str, object] = {"model": model, "width": width, "n_slices": n_slices}
        for name in ("training_steps", "dice_background", "dice_ggo", "dice_high_opacity"):
            row[name] = known[name].get((model, width), np.nan)
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
