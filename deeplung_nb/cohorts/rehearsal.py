"""A simulated table of readings of the paper's size: a rehearsal of the analysis without any CT.

What it matches, by construction: patients, protocols, scanners and centres; Table 1's counts, means
and SDs; slices and slices with each class (Table 2); the quartiles of every volume that the paper
prints (SPSS's kind), and the rank correlation of expert and machine to three digits, but for one:
the external high opacity's 0.996 can't be had with an upper quartile of 0 by the expert and of
1.3 mL by the machine (0.977 is the most), unless that 0 is a rounded one.

What it does not match, since those quartiles leave it open: the tails, and so means, bias and
limits of agreement; p values; anything by protocol, and so the twelve quartiles of differences in
section 3.3; Dice, for which there are no masks (the column is
empty). Zeros where the paper prints a quartile of 0 are a choice: the fewest or most that the
quartiles allow, or 30 % of the training cohort's high opacity.

No row is a patient.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from deeplung_nb import measurements
from deeplung_nb.runs.registry import manifest_folder

TAIL_SLOPE = 0.8
"""Growth of a volume's logarithm, per SD of a normal, beyond the outer quartiles: a choice."""
STEEP_SLOPE = 2.5
"""The same where the upper quartile is 0, and only the tail is left."""
SMALLEST_ML = 0.05
N_ZERO = {("cv", "ggo"): (0, 0), ("cv", "high_opacity"): (59, 30), ("external", "ggo"): (0, 0),
          ("external", "high_opacity"): (51, 50)}
"""Zeros of (expert, machine): the quartiles of 0 need at least 49 of 197 and 51 of 67."""
SECTION = {"cv": "s3.1", "external": "s3.2"}


class Rehearsal(NamedTuple):
    """What `simulate` returns."""

    readings: pd.DataFrame
    """As measurements.csv; reader `expert` and `model`."""
    patients: pd.DataFrame
    """Clinical columns, one row per CT, as the rows of a manifest."""


def volumes(n: int, q1: float, median: float, q3: float, n_zero: int,
            rng: np.random.Generator) -> np.ndarray:
    """n volumes in rising order with these quartiles (type 6, as SPSS), the first n_zero of them 0.

    The logarithm is linear in the normal quantile between the quartiles, and beyond them with the
    slope `TAIL_SLOPE`; where on it a volume stands is drawn, but for those that are the quartiles.
    A quartile of 0 is met by zeros.
    """
    fixed = {}  # rank -> logarithm
    for share, value in ((0.25, q1), (0.5, median), (0.75, q3)):
        if value > 0:  # a quartile between two values is met by both
            around = {int(np.floor(share * (n + 1))), int(np.ceil(share * (n + 1)))}
            fixed |= dict.fromkeys(around, np.log(value))
    place = np.arange(n + 2) / (n + 1)
    drawn = [rank for rank in range(n_zero + 1, n + 1) if rank not in fixed]
    place[drawn] += rng.uniform(-0.5, 0.5, len(drawn)) / (n + 1)  # keeps the order
    z = stats.norm.ppf(place[1:-1])
    known = [(stats.norm.ppf(place[rank]), value) for rank, value in sorted(fixed.items())]
    if n_zero:
        known.insert(0, (stats.norm.ppf(place[n_zero]), np.log(SMALLEST_ML)))
    else:
        known.insert(0, (z[0], known[0][1] - TAIL_SLOPE * (known[0][0] - z[0])))
    slope = TAIL_SLOPE if q3 else STEEP_SLOPE
    known.append((z[-1], known[-1][1] + slope * (z[-1] - known[-1][0])))
    values = np.exp(np.interp(z, *zip(*known, strict=True)))
    values[:n_zero] = 0.0
    return values


def couple(first: np.ndarray, second: np.ndarray, spearman: float, rng: np.random.Generator
           ) -> tuple[np.ndarray, np.ndarray]:
    """Both sorted samples dealt to the same cases so that Spearman's rho is as asked for.

    Where zeros put it out of reach, rho is the highest that they allow.
    """
    n = len(first)
    common, own = rng.normal(size=(2, n))
    a = first[stats.rankdata(common).astype(int) - 1]

    def deal(noise: float) -> np.ndarray:
        return second[stats.rankdata(common + noise * own).astype(int) - 1]

    def reached(noise: float) -> float:
        return float(stats.spearmanr(a, deal(noise)).statistic)

    if reached(0.0) < spearman:
        return a, deal(0.0)
    low, high = 0.0, 5.0
    for _ in range(60):  # rho falls with the noise, in small steps
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) > spearman else (low, middle)
    return a, deal(low)


def _share(total: int, weight: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Whole numbers that sum to `total`, about in proportion to `weight`, none above `most`."""
    whole = np.zeros(len(weight), int)
    if total > most.sum():
        raise ValueError(f"{total} can't be shared out: there is room for {most.sum()}")
    while (left := total - whole.sum()) > 0:
        room = (whole < most) & (weight > 0)
        part = left * weight * room / (weight * room).sum()
        step = np.minimum(np.floor(part).astype(int), most - whole)
        if not step.any():
            order = np.argsort(-part * room, kind="stable")[:left]
            step = np.zeros(len(weight), int)
            step[order] = 1
            step = np.minimum(step, most - whole)
        whole += step
    return whole


def _labels(counts: dict[str, float], rng: np.random.Generator | None) -> np.ndarray:
    names = np.repeat(list(counts), [int(count) for count in counts.values()])
    return names if rng is None else rng.permutation(names)


def _exact(n: int, mean: float, sd: float, rng: np.random.Generator) -> np.ndarray:
    """n normal values with exactly this mean and SD."""
    values = rng.normal(size=n)
    return mean + sd * (values - values.mean()) / values.std(ddof=1)


def _training(printed: pd.Series, rng: np.random.Generator) -> pd.DataFrame:
    """Table 1: 187 registry patients, then the ten open-access scans without clinical data."""
    named = {key: printed[f"s2.1.centre.{key}"] for key in (
        "cedars_sinai", "monzino", "auxologico", "monash", "showa")}
    n, n_open = int(printed["s2.1.n_patients.registry"]), int(
        printed["s2.1.n_patients.open_access"])
    scanners = {name: printed[f"table1.scanner.{name}.n"] for name in (
        "aquilion_one", "ge_revolution", "ge_discovery", "lightspeed_vct", "brilliance_ict")}
    n_contrast, n_men = int(printed["s2.1.protocol.contrast"]), int(printed["table1.men.n"])
    n_gated, n_ill = int(printed["table1.ecg_gated.n"]), int(printed["table1.lung_disease.n"])
    smokers = {"current": printed["table1.current_smoker.n"],
               "former": printed["table1.former_smoker.n"]}
    smokers["never"] = n - sum(smokers.values())
    clinical = {
        "centre": _labels(named, None), "scanner": _labels(scanners, rng),
        "protocol": _labels({"contrast": n_contrast, "non-contrast": n - n_contrast}, rng),
        "sex": _labels({"male": n_men, "female": n - n_men}, rng),
        "smoking": _labels(smokers, rng),
        "lung_disease": _labels({"1": n_ill, "0": n - n_ill}, rng),
        "ecg_gated": _labels({"1": n_gated, "0": n - n_gated}, rng),
        "age": _exact(n, printed["table1.age.mean"], printed["table1.age.sd"], rng),
        "bmi": _exact(n, printed["table1.bmi.mean"], printed["table1.bmi.sd"], rng),
    }
    open_access = pd.DataFrame({"centre": ["open access"] * n_open, "scanner": "unknown",
                                "protocol": "non-contrast", "ecg_gated": "0"})
    frame = pd.concat([pd.DataFrame(clinical), open_access], ignore_index=True)
    frame["role"], frame["group"] = "cv", "cv"
    return frame


def _external(printed: pd.Series) -> pd.DataFrame:
    groups = _labels({name: printed[f"s2.1.n_patients.external_{name}"]
                      for name in ("mosmed", "monzino")}, None)
    return pd.DataFrame({"centre": groups, "scanner": "unknown", "protocol": "non-contrast",
                         "role": "external", "group": [f"external_{name}" for name in groups]})


def _read(patients: pd.DataFrame, role: str, printed: pd.Series, rng: np.random.Generator
          ) -> pd.DataFrame:
    """Volumes of both readers, with the cases in the order of `patients`."""
    n, found = len(patients), {}
    for structure in ("ggo", "high_opacity"):
        ordered = []
        for reader, n_zero in zip(("expert", "model"), N_ZERO[role, structure], strict=True):
            key = f"{SECTION[role]}.volume.{role}.{structure}.{reader}"
            ordered.append(volumes(n, *(printed[f"{key}.{q}"] for q in ("q1", "median", "q3")),
                                   n_zero, rng))
        rho = printed[f"{SECTION[role]}.correlation.{role}.{structure}"]
        pair = np.array(couple(*ordered, rho, rng))
        # A binary mask holds no high opacity: the cases without any go to MosMedData.
        binary = patients["centre"].eq("mosmed").to_numpy()
        if structure == "high_opacity" and binary.any():
            order = np.lexsort([pair[1], pair[0]])
            places = np.concatenate([np.flatnonzero(binary), np.flatnonzero(~binary)])
            pair[:, places] = pair[:, order]
        found[f"expert_{structure}"], found[f"model_{structure}"] = pair
    return pd.DataFrame(found)


def _count_slices(frame: pd.DataFrame, printed: pd.Series) -> pd.DataFrame:
    """Table 2's slices, shared out by volume: a slice with a lesion for each case that has one."""
    parts = []
    for group, cases in frame.groupby("group", sort=False):
        total = int(printed[f"table2.n_slices.{group}"])
        n_slices = _share(total, np.ones(len(cases)), np.full(len(cases), total))
        part = pd.DataFrame({"n_slices": n_slices}, index=cases.index)
        for structure in ("ggo", "high_opacity"):
            weight = np.sqrt(cases[f"expert_{structure}"].to_numpy())
            # In training nearly every slice with high opacity has ground glass too.
            within = structure == "high_opacity" and group == "cv"
            part[f"slices_{structure}"] = _share(
                int(printed[f"table2.n_lesion_slices.{group}.{structure}"]), weight,
                part["slices_ggo"].to_numpy() if within else n_slices)
        both = part[["slices_ggo", "slices_high_opacity"]]
        if group == "cv":
            total = int(printed["s2.1.n_lesion_slices.cv"])
        else:
            ggo_of_mosmed = int(printed["table2.n_lesion_slices.external_mosmed.ggo"])
            total = (ggo_of_mosmed if group == "external_mosmed" else
                     int(printed["s2.1.n_lesion_slices.external"]) - ggo_of_mosmed)
        least, most = both.max(axis=1), both.sum(axis=1).clip(upper=part["n_slices"])
        more = _share(total - int(least.sum()), (most - least).to_numpy(float),
                      (most - least).to_numpy())
        part["slices_lesion"] = least + more
        parts.append(part)
    return frame.join(pd.concat(parts))


def simulate(seed: int = 20210322) -> Rehearsal:
    """Readings and patients of the paper's 197 + 67, simulated from what it prints.

    The module's text says what is matched and what can't be.
    """
    printed = pd.read_csv(manifest_folder() / "published.csv").set_index("id")["value"]
    rng = np.random.default_rng(seed)
    patients = [_training(printed, rng), _external(printed)]
    frame = pd.concat([people.join(_read(people, people["role"].iloc[0], printed, rng))
                       for people in patients], ignore_index=True)
    frame = _count_slices(frame, printed)
    frame["cohort"] = frame["role"].map({"cv": "rehearsal_training",
                                         "external": "rehearsal_external"})
    frame["case_id"] = [f"S{k:03}" for k in range(1, len(frame) + 1)]
    frame["patient_id"], frame["exclude"] = frame["case_id"], 0
    # 40, 40, 39, 39, 39 test cases.
    frame["fold"] = np.where(frame["role"] == "cv", np.arange(len(frame)) % 5, np.nan)

    rows = []
    for reader in ("expert", "model"):
        for structure in ("ggo", "high_opacity", "lesion"):
            rows.append(frame.assign(
                reader=reader, structure=structure, run_id="rehearsal", status="ok",
                note="simulated", slices_with=frame[f"slices_{structure}"],
                volume_ml=frame[f"{reader}_ggo"] + frame[f"{reader}_high_opacity"]
                if structure == "lesion" else frame[f"{reader}_{structure}"]))
    readings = pd.concat(rows, ignore_index=True).reindex(columns=list(measurements.COLUMNS))
    readings.loc[readings["reader"] == "model", "slices_with"] = np.nan
    clinical = ["cohort", "case_id", "patient_id", "role", "exclude", "centre", "scanner",
                "protocol", "ecg_gated", "age", "sex", "bmi", "smoking", "lung_disease"]
    return Rehearsal(measurements.check(readings, "rehearsal"), frame[clinical])
