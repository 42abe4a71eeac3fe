"""Tables for print: each function takes tidy rows of numbers and formats them, nothing else.

`save_table` writes the rows at full precision (CSV) and the printed table (HTML, LaTeX). Rounding
happens here and only here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from great_tables import GT

from deeplung_nb.files import atomic_path, write_text
from deeplung_nb.labels import ROLES, TITLES, VALUES
from deeplung_nb.report.counts import fastest_ways
from deeplung_nb.report.numbers import MISSING, decimals_for, fixed, p_cell, with_interval
from deeplung_nb.report.style import READERS
from deeplung_nb.runs import Run

MODELS = {"ours": "ConvLSTM with attention (ours)", "unet2d": "U-Net 2D", "unet3d": "U-Net 3D"}
PAGE_HEAD = '<!doctype html>\n<meta charset="utf-8">\n'


def format_frame(display: pd.DataFrame, name: str, title: str, subtitle: str = "",
                 notes: Sequence[str] = (), stub: str | None = None,
                 group: str | None = None) -> GT:
    """A table from text that is ready to print; numbers at the right, words at the left."""
    gt = GT(display, id=re.sub(r"\W", "-", name), rowname_col=stub, groupname_col=group)
    gt = gt.tab_header(title=title, subtitle=subtitle or None)
    for note in notes:
        gt = gt.tab_source_note(note)
    words = [column for column in display.columns if column not in (stub, group)]
    if words:
        gt = gt.cols_align("right", columns=words)
    return gt.tab_options(table_font_size="13px", data_row_padding="3px", heading_align="left",
                          row_group_font_weight="bold", source_notes_font_size="11px",
                          table_font_names=["DejaVu Sans", "Verdana", "sans-serif"])


def format_characteristics(frame: pd.DataFrame) -> GT:
    """Table 1 from `counts.count_characteristics`."""
    def cell(row: pd.Series) -> str:
        if pd.notna(row["mean"]):
            known = "" if row["n_known"] == row["n_total"] else f" (n = {int(row['n_known'])})"
            return f"{fixed(row['mean'])} ± {fixed(row['sd'])}{known}"
        if pd.isna(row["percent"]):
            return fixed(row["n"], 0)
        known = "" if row["n_known"] == row["n_total"] else f" of {int(row['n_known'])}"
        return f"{fixed(row['n'], 0)}{known} ({fixed(row['percent'])})"

    rows = frame.assign(cell=frame.apply(cell, axis=1))
    display = rows.pivot(index=["section", "characteristic"], columns="role", values="cell")
    order = rows[["section", "characteristic"]].drop_duplicates()
    sections = list(dict.fromkeys(order["section"]))
    order = order.sort_values("section", key=lambda column: column.map(sections.index),
                              kind="stable")
    display = (display.reindex(pd.MultiIndex.from_frame(order)).fillna(MISSING)
               .rename(columns=ROLES).rename_axis(columns=None).reset_index())
    return format_frame(display, "table1", "Table 1. Characteristics",
                        notes=["n (%) or mean ± SD. Percent of the known; n or ‘of’ is given where "
                               "a value is missing for some."],
                        stub="characteristic", group="section")


def format_slices(frame: pd.DataFrame) -> GT:
    """Table 2 from `counts.count_slices`."""
    display = pd.DataFrame({"Cohort": frame["cohort"], "Role": frame["role"].map(ROLES)})
    for column, title in {
        "n_patients": "Patients", "n_cases": "Scans", "n_slices": "Slices",
        "slices_ggo": "With GGO", "slices_high_opacity": "With high opacity",
        "slices_both": "With both", "slices_lesion": "With any lesion",
    }.items():
        display[title] = [fixed(value, 0) for value in frame[column]]
    return format_frame(display, "table2", "Table 2. Slices by class, as marked by the expert",
                        notes=["– the reference does not tell the classes apart."], stub="Cohort")


def format_times(frame: pd.DataFrame, model: str = "ours") -> GT:
    """Table 3: median (range) of the computation time by hardware and number of slices.

    `frame` holds rows of timings.csv.
    """
    rows = fastest_ways(frame)
    rows = rows[rows["model"] == model].copy()
    if rows.empty:
        raise ValueError(f"timings without model {model!r}: expected one of "
                         f"{', '.join(sorted(frame['model'].unique()))}")
    rows["Hardware"] = [f"{device}: {hardware}, {threads} thread{'s' * (threads != 1)}"
                        if device == "cpu" else f"{device}: {hardware}"
                        for device, hardware, threads in zip(rows["device"], rows["hardware"],
                                                             rows["threads"], strict=True)]
    rows["cell"] = [
        fixed(row.seconds_median, 2) + (f" ({fixed(row.seconds_min, 2)} to "
                                        f"{fixed(row.seconds_max, 2)})" if row.repeats > 1 else "")
        for row in rows.itertuples()]
    display = rows.pivot(index="Hardware", columns="n_slices", values="cell").fillna(MISSING)
    display.columns = [f"{int(n)} slices" for n in display.columns]
    size = int(rows["image_size"].iloc[0])
    once = " A time without a range was taken once." if (rows["repeats"] == 1).any() else ""
    return format_frame(display.reset_index(), "table3", "Table 3. Computation time, s",
                        notes=[f"Network of this run ({size} × {size} pixels, "
                               f"{rows['parameters_million'].iloc[0]:.1f} million parameters), "
                               "from prepared slices to class scores, float32, in the fastest "
                               f"way. Median (minimum to maximum) of repeated runs.{once} Times "
                               "are of this hardware only."],
                        stub="Hardware")


def format_models(frame: pd.DataFrame) -> GT:
    """Table 4 from `counts.collect_models`."""
    n_slices = int(frame["n_slices"].iloc[0])
    display = pd.DataFrame({"Model": [
        MODELS.get(row.model, row.model)
        + (f", {row.width} to {16 * row.width} channels" if row.width else "")
        for row in frame.itertuples()]})
    for column, title, decimals in (
        ("training_steps", "Steps trained", 0),
        ("dice_background", "Background", 3), ("dice_ggo", "GGO", 3),
        ("dice_high_opacity", "High opacity", 3), ("parameters_million", "Parameters, M", 2),
        ("cpu_seconds", "CPU, s", 2), ("cpu_ratio", "CPU, × ours", 2),
        ("gpu_seconds", "GPU, s", 3), ("gpu_ratio", "GPU, × ours", 2),
        ("memory_gb", "Memory, GB", 2),
    ):
        display[title] = [fixed(value, decimals) for value in frame[column]]
    notes = ["Dice: mean over the test cases of all folds in which it is defined. Times over "
             f"{n_slices} slices, all in one interleaved run, each in the fastest of the ways "
             "timed; peak memory of a process of its own. – not trained or not measured here."]
    if frame["training_steps"].dropna().nunique() > 1:
        notes.append("Trained for different numbers of steps: the Dice do not rank the designs.")
    gt = format_frame(display, "table4", "Table 4. Models compared",
                      notes=notes, stub="Model")
    return (gt.tab_spanner("Dice on test cases", ["Background", "GGO", "High opacity"])
            .tab_spanner("Computation", list(display.columns[5:])))


EMPTY = {"nan": "both empty: left out", "zero": "both empty: 0", "one": "both empty: 1",
         "nan_reference": "expert empty: left out", "no weight": "add no voxel"}
"""What an empty mask counts, by the name of the policy in `stats.overlap`."""


def _group(frame: pd.DataFrame) -> list[str]:
    """`cohort, role` of each row, as far as the frame has them."""
    parts = [frame[name].map(lambda value: ROLES.get(value, str(value)))
             for name in ("cohort", "role") if name in frame]
    return [", ".join(row) for row in zip(*parts, strict=True)] if parts else [""] * len(frame)


LIMITS = {"constant": "difference, {}", "ratio": "ratio",
          "regression": "difference at the mean, {}", "quantile": "difference, quantiles, {}"}
"""What limits of agreement are of, by the column `limits` of an agreement table."""


def _once(frame: pd.DataFrame) -> pd.DataFrame:
    """Without the rows of a protocol where a group has no other: `all` says the same."""
    if "protocol" not in frame or not (frame["protocol"] == "all").any():
        return frame
    keys = [name for name in ("cohort", "role", "structure") if name in frame]
    own = frame["protocol"] != "all"
    protocols = frame[keys].merge(frame[own].groupby(keys, dropna=False)["protocol"].nunique()
                                  .reset_index(), how="left", on=keys)["protocol"].to_numpy()
    return frame[~(own & (protocols == 1))]


def format_agreement(frame: pd.DataFrame) -> GT:
    """Agreement of two readers' volumes (or else), from `stats.summary.agreement_table`."""
    frame = _once(frame)
    of = frame["value"].iloc[0] if "value" in frame and len(frame) else "volume_ml"
    what, unit = VALUES.get(of, (of, "as measured"))
    display = pd.DataFrame({
        "Group": _group(frame), "Structure": frame["structure"].map(TITLES).to_numpy(),
    })
    if "protocol" in frame and frame["protocol"].nunique() > 1:
        display["Protocol"] = frame["protocol"].to_numpy()
    rows: list[Any] = list(frame.itertuples())
    display["n (a 0)"] = [f"{row.n} ({row.n_zero})" for row in rows]
    names = {side: READERS.get(frame[side].iloc[0], frame[side].iloc[0]) if len(frame) else side
             for side in ("reference", "test")}
    for side, name in names.items():
        display[f"{name[:1].upper()}{name[1:]}, {unit}"] = [
            with_interval(*(getattr(row, f"{side}_{value}") for value in ("median", "q1", "q3")))
            for row in rows]
    display[f"Bias, {unit}"] = [with_interval(row.bias, row.bias_lower, row.bias_upper)
                                for row in rows]
    display["Limits of"] = [LIMITS[row.limits].format(unit)
                            + f" (n = {row.limit_n})" * (row.limit_n < row.n) for row in rows]
    for side in ("lower", "upper"):
        display[f"{side.capitalize()} limit"] = [with_interval(
            *(getattr(row, f"limit_{side}{end}") for end in ("", "_ci_lower", "_ci_upper")),
            2 if row.limits == "ratio" else 1) for row in rows]
    for name, title in (("spearman", "Spearman ρ"), ("ccc", "CCC")):
        display[title] = [with_interval(getattr(row, name), getattr(row, f"{name}_lower"),
                                        getattr(row, f"{name}_upper"), 3) for row in rows]
    display["Slope p"] = [p_cell(row.slope_p) for row in rows]
    display["Signed-rank p"] = [p_cell(row.signed_rank_p) for row in rows]
    display["Mind"] = frame["flags"].to_numpy()
    failed = int(frame["n_failed"].sum()) if "n_failed" in frame else 0
    seen = "subset" in frame and bool((frame["subset"] == "both-positive").all())
    return format_frame(
        display, "agreement", f"Agreement of {names['test']} and {names['reference']} {what}"
        + ", where both see the structure" * seen,
        f"Difference = {names['test']} − {names['reference']}",
        notes=[
            "n (a 0): pairs, and those in which one or both readings are 0. Readings: "
            "median [quartiles, type 7]. Bias, limits, ρ, CCC: estimate [95 % interval]. Limits of "
            "agreement, expected to hold 95 %: of the difference, bias ± 1.96 SD; of the ratio, in "
            "the pairs that both measured; at the mean, by regression on size; or quantiles.",
            "Slope p: no proportional bias (difference on mean, slope 0). Signed-rank p: "
            "differences symmetric about 0; no interval of p stands for agreement.",
            *([f"{failed} failed readings are not in these rows."] if failed else []),
        ], stub="Structure", group="Group").cols_align("left", columns=["Mind"])


def _add_dice(display: pd.DataFrame, frame: pd.DataFrame) -> None:
    rows: list[Any] = list(frame.itertuples())
    display["n used of n"] = [f"{row.n_used} of {row.n}" for row in rows]
    display["Dice"] = [with_interval(row.dice, row.ci_lower, row.ci_upper, 3) for row in rows]
    display["SD, cases"] = [fixed(row.sd_cases, 3) for row in rows]


def format_dice(frame: pd.DataFrame) -> GT:
    """Dice in each averaging, named, from `stats.dice.dice_table`."""
    display = pd.DataFrame({
        "Group": _group(frame), "Structure": frame["structure"].map(TITLES),
        "Averaging": frame["averaging"],
        "Empty masks": frame["empty"].map(lambda name: EMPTY.get(name, name)),
    })
    _add_dice(display, frame)
    display["SD, folds"] = [fixed(value, 3) for value in frame["sd_folds"]]
    for side, title in (("both", "both"), ("reference", "expert"), ("prediction", "automatic")):
        display[title] = [fixed(value, 0) for value in frame[f"n_{side}_empty"]]
    gt = format_frame(
        display, "dice", "Dice of automatic against expert, in every averaging",
        notes=["Per case: mean over cases. Pooled: all voxels together. Per fold: mean over folds "
               "of the means over their cases. [95 % interval]: patients resampled; of the median "
               "by order statistics where each patient has one scan; for folds Student’s t. A "
               "case in which one mask only is empty has Dice 0 where it is used."],
        stub="Structure", group="Group")
    return (gt.tab_spanner("Cases with an empty mask", ["both", "expert", "automatic"])
            .cols_align("left", columns=["Averaging", "Empty masks"]))


def format_readers(frame: pd.DataFrame) -> GT:
    """Dice of each automatic reader, from `stats.dice.dice_by_reader`."""
    display = pd.DataFrame({
        "Group": _group(frame), "Structure": [TITLES[name] for name in frame["structure"]],
        "Reader": frame["reader"].map(lambda name: READERS.get(name, name))})
    _add_dice(display, frame)
    display["False"] = [fixed(value, 0) for value in frame["n_false"]]
    display["Pooled"] = [fixed(value, 3) for value in frame["pooled"]]
    return format_frame(
        display, "dice_readers", "Dice of each automatic reader against the expert",
        notes=["Mean over the cases in which the expert sees it, the same for every reader [95 % "
               "interval, patients resampled]; false: cases in which the reader alone sees it; "
               "pooled: all voxels together. The spread between folds is luck of the training "
               "cases. Automatic: one of these folds again, by its validation loss."],
        stub="Structure", group="Group")


def format_between(frame: pd.DataFrame) -> GT:
    """Dice of one protocol against another's, from `stats.dice.dice_between`."""
    display = pd.DataFrame({"Group": _group(frame), "Structure": frame["structure"].map(TITLES)})
    rows: list[Any] = list(frame.itertuples())
    for side in ("first", "second"):
        display[f"{side.capitalize()}: median (n)"] = [
            f"{getattr(row, side)}: {fixed(getattr(row, f'median_{side}'), 3)} "
            f"({getattr(row, f'n_{side}')})" for row in rows]
    display["First less second"] = [with_interval(row.difference, row.lower, row.upper, 3)
                                    for row in rows]
    display["Mann–Whitney p"] = [p_cell(row.p_value) for row in rows]
    what = frame["group"].iloc[0] if len(frame) else "group"
    return format_frame(
        display, "dice_between", f"Dice of the cases by {what}",
        notes=["Cases whose Dice is defined. Difference: Hodges–Lehmann [95 % interval]. p: a case "
               "of one is as likely above as below one of the other; each case taken as "
               "independent, and p not adjusted for the number of rows."],
        stub="Structure", group="Group")


def format_detection(frame: pd.DataFrame) -> GT:
    """Who sees it at all, from `stats.detection.detection_table`."""
    display = pd.DataFrame({"Group": _group(frame), "Structure": frame["structure"].map(TITLES)})
    rows: list[Any] = list(frame.itertuples())
    names = {side: READERS.get(frame[side].iloc[0], frame[side].iloc[0]) if len(frame) else side
             for side in ("reference", "test")}
    display["n (patients)"] = [f"{row.n} ({row.n_patients})" for row in rows]
    for key, title in (("both", "Both"), ("reference_only", f"{names['reference']} alone"),
                       ("test_only", f"{names['test']} alone"), ("neither", "Neither")):
        display[title[:1].upper() + title[1:]] = [str(getattr(row, key)) for row in rows]
    for key in ("sensitivity", "specificity"):
        display[key.capitalize()] = [with_interval(getattr(row, key), getattr(row, f"{key}_lower"),
                                                   getattr(row, f"{key}_upper"), 2) for row in rows]
    display["McNemar p"] = [p_cell(row.mcnemar_p) for row in rows]
    return format_frame(
        display, "detection", "Cases in which a reader sees the structure at all",
        notes=["Seen: above 0 mL. [95 % interval]: Wilson’s, for as many cases as those of the "
               "patients are worth. McNemar p: one calls as many present as the other."],
        stub="Structure", group="Group")


MEASURES = {"dice": ("Dice, mean of cases", 3), "dice pooled": ("Dice, pooled", 3),
            "volume error": ("|Volume error|, mL", 1)}


def format_rivals(frame: pd.DataFrame) -> GT:
    """Two readers on the same cases against the expert, from `stats.rivals.rivals_table`."""
    names = [MODELS.get(name, READERS.get(name, name)) for name in (
        frame["first_reader"].iloc[0], frame["second_reader"].iloc[0])]
    display = pd.DataFrame({"Group": _group(frame), "Structure": frame["structure"].map(TITLES),
                            "Measure": frame["measure"].map(lambda name: MEASURES[name][0])})
    rows: list[Any] = list(frame.itertuples())
    display["n (patients)"] = [f"{row.n} ({row.n_patients})" for row in rows]
    for side, name in zip(("first", "second"), names, strict=True):
        display[name] = [fixed(getattr(row, side), MEASURES[row.measure][1]) for row in rows]
    display["Difference"] = [with_interval(row.difference, row.lower, row.upper,
                                           MEASURES[row.measure][1]) for row in rows]
    display["Signed-rank p"] = [p_cell(row.p_value) for row in rows]
    return format_frame(
        display, "rivals", f"{names[1]} less {names[0]}, on the same cases",
        notes=["[95 % interval]: Student’s t of the differences case by case, the jackknife of "
               "pooled Dice, on patients. More Dice is better, less error of volume.",
               "Trained for different numbers of steps (Table 4): these rows compare trainings, "
               "not designs."], stub="Structure", group="Group").cols_align(
                   "left", columns=["Measure"])


def format_lesions(frame: pd.DataFrame) -> GT:
    """Lesion by lesion, from `stats.detection.lesion_table`."""
    rows: list[Any] = list(frame.itertuples())
    display = pd.DataFrame({"Group": _group(frame), "Structure": frame["structure"].map(TITLES)})
    display["Scans"] = [str(row.n_cases) for row in rows]
    display["Expert’s lesions"] = [str(row.lesions) for row in rows]
    display["Found"] = [str(row.found) for row in rows]
    display["Sensitivity"] = [with_interval(row.sensitivity, row.sensitivity_lower,
                                            row.sensitivity_upper, 2) for row in rows]
    display["Marked"] = [str(row.marked) for row in rows]
    display["False"] = [str(row.false) for row in rows]
    display["False a scan"] = [with_interval(row.false_per_case, row.false_per_case_lower,
                                             row.false_per_case_upper, 2) for row in rows]
    return format_frame(
        display, "lesions", "Lesion by lesion",
        notes=["A lesion is connected voxels of 0.1 mL or more; one is found where the other mask "
               "holds a voxel of it. [95 % interval]: Wilson’s for as many lesions as those of the "
               "patients are worth; Student’s t on patients."],
        stub="Structure", group="Group")


def format_flow(frame: pd.DataFrame) -> GT:
    """The cohort's flow from `Cohort.flow()`: columns `step, n_cases, n_patients`."""
    steps = frame["step"].map(lambda step: ROLES.get(step, str(step)[:1].upper() + str(step)[1:]))
    display = pd.DataFrame({"Step": steps})
    if "cohort" in frame:
        display.insert(0, "Cohort", frame["cohort"])
    display["Scans"] = [fixed(value, 0) for value in frame["n_cases"]]
    display["Patients"] = [fixed(value, 0) for value in frame["n_patients"]]
    return format_frame(display, "flow", "From the cases assessed to the cases used", stub="Step",
                        group="Cohort" if "cohort" in frame else None)


def format_comparison(frame: pd.DataFrame, measured_only: bool = True) -> GT:
    """Published numbers beside this run's, from `published.compare`."""
    rows = frame[frame["measured"].notna()] if measured_only else frame
    where = [f"{section}" if str(section).startswith(("Table", "Fig", "Abstract"))
             else f"Section {section}" for section in rows["section"]]
    what = [", ".join(part for part in (
        str(row.quantity).replace("_", " "), TITLES.get(row.structure, ""), str(row.statistic))
        if part and part != "nan") for row in rows.itertuples()]
    display = pd.DataFrame({
        "Source": [f"{source}, {place}" for source, place in zip(rows["source"], where,
                                                                 strict=True)],
        "Quantity": what, "Cohort": rows["cohort"].fillna(""),
        "Printed": rows["printed"],
        "This run": [p_cell(row.measured) if row.quantity == "p_value"
                     else fixed(row.measured, decimals_for(row.measured))
                     for row in rows.itertuples()],
        "Unit": rows["unit"].fillna(""), "Comparable?": rows["comparability"],
    })
    gt = format_frame(display, "published", "What the paper prints and what this run gives",
                      notes=[f"{len(rows)} of {len(frame)} published numbers have a counterpart in "
                             "this run."], stub="Quantity", group="Source")
    return gt.cols_align("left", columns=["Cohort", "Comparable?"])


def format_checks(frame: pd.DataFrame) -> GT:
    """Whether the paper's numbers fit each other, from `discrepancies.check_published`."""
    def shown(value: float) -> str:
        return "<0.001" if 0 < value < 0.001 else fixed(value, decimals_for(value))

    display = pd.DataFrame({
        "Where": [f"Section {place}" if place[0].isdigit() else place for place in frame["place"]],
        "What": frame["what"],
        "Printed": frame["printed"].map(shown), "Implied": frame["implied"].map(shown),
        "Fits?": frame["fits"].map({True: "yes", False: "no"}),
        "See": [f"docs/paper.md, {int(topic)}" if pd.notna(topic) else ""
                for topic in frame["topic"]],
    })
    n_off = int((~frame["fits"]).sum())
    gt = format_frame(display, "checks", "Do the paper’s numbers fit each other?",
                      notes=[f"{n_off} of {len(frame)} checks do not fit. Each is computed from "
                             "data_manifests/published.csv; none says that a measurement is "
                             "wrong."], stub="Where")
    return gt.cols_align("left", columns=["What", "Fits?", "See"])


def save_table(gt: GT, frame: pd.DataFrame, run: Run, name: str) -> Path:
    """Write `tables/<name>.csv` (the rows, full precision), `.html` and `.tex` (as printed).

    The table of a synthetic cohort says so. Returns the path of the CSV.
    """
    if run.synthetic:
        gt = gt.tab_source_note(f"Synthetic cohort · {run.run_id}")
    target = run.path("tables", f"{name}.csv")
    with atomic_path(target) as part:
        frame.to_csv(part, index=False, lineterminator="\n", encoding="utf-8")
    write_text(run.path("tables", f"{name}.html"), PAGE_HEAD + gt.as_raw_html() + "\n")
    write_text(run.path("tables", f"{name}.tex"), gt.as_latex() + "\n")
    return target
