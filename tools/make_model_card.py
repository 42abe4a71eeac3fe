"""docs/model_card.md from a run of `public`: .venv/bin/python tools/make_model_card.py RUN DATA

Numbers are computed from the run's own tables; the words around them are those of
`model_card.template.md`. Pictures of real CTs are not ours to pass on: they are in the run folder.
"""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from score_unseen import markdown, of_made

from deeplung_nb import measurements
from deeplung_nb.cohorts.cases import find_volumes, load_cohorts, read_case
from deeplung_nb.imaging.io import read_scan
from deeplung_nb.labels import GGO, HIGH_OPACITY, LESION_STRUCTURES, TITLES
from deeplung_nb.learning.estimate import choose_threshold, estimate, external_slices
from deeplung_nb.learning.stress import score_made
from deeplung_nb.network.packaged import packaged_checkpoints, read_card
from deeplung_nb.reading.predict import Predictor
from deeplung_nb.report.figures import draw_hu_by_class
from deeplung_nb.report.numbers import interval, number
from deeplung_nb.runs import read_run
from deeplung_nb.stats.comparison import compare

NEARLY_EMPTY_ML = 1.0
"""Cases below this by the expert: their Dice says little, so the mean is given without them too."""
DOCS = Path(__file__).resolve().parent.parent / "docs"


def by_case(frame):
    rows = []
    wide = frame[frame["structure"].isin(LESION_STRUCTURES)].set_index(
        ["case_id", "reader", "structure"])
    for case in frame["case_id"].unique():
        cells = [case]
        for structure in LESION_STRUCTURES:
            expert, model = (wide.loc[(case, reader, structure)] for reader in ("expert", "model"))
            cells.append(f"{number(expert.volume_ml)}, {number(model.volume_ml)} "
                         f"({number(model.dice)})")
        expert, model = (wide.loc[(case, reader, "lesion")] for reader in ("expert", "model"))
        cells += [number(expert.burden_percent),
                  number(model.volume_ml / expert.volume_ml) if expert.volume_ml else "–"]
        rows.append(cells)
    return markdown(["case", *(f"{TITLES[s]}, mL: expert, network (Dice)"
                               for s in LESION_STRUCTURES),
                     "burden by the expert, %", "volume ratio, any lesion"], rows)


def ratios(frame):
    wide = frame[frame.structure == "lesion"].pivot(index="case_id", columns="reader",
                                                    values="volume_ml")
    wide = wide[wide.expert >= NEARLY_EMPTY_ML]
    return ", ".join(number(value) for value in wide.model / wide.expert)


def by_structure(frame):
    rows = []
    for structure in LESION_STRUCTURES:
        expert = frame[(frame.reader == "expert") & (frame.structure == structure)]
        model = frame[(frame.reader == "model") & (frame.structure == structure)]
        full = set(expert[expert.volume_ml >= NEARLY_EMPTY_ML].case_id)
        scored = model.dropna(subset=["dice"])
        without = scored[scored.case_id.isin(full)]
        tp, fp, fn = (float(model[name].sum()) for name in ("tp", "fp", "fn"))
        pair = measurements.pair(frame, "expert", "model", structure)
        limits = compare(pair).limits
        rows.append([
            TITLES[structure],
            f"{number(scored.dice.mean())} ± {number(scored.dice.std())} ({len(scored)})",
            f"{number(without.dice.mean())} ± {number(without.dice.std())} "
            f"({', '.join(without.case_id)})",
            number(2 * tp / (2 * tp + fp + fn)),
            f"{number(limits.bias)} {interval(limits.bias_ci)}",
            f"{number(limits.loa_lower)} to {number(limits.loa_upper)}"])
    return markdown(["structure", "Dice, mean of cases ± SD (n)",
                     f"without those below {NEARLY_EMPTY_ML:g} mL (which remain)", "Dice, pooled",
                     "bias, mL [95 % interval]", "limits of agreement, mL"], rows)


def of_slices(slices):
    rows = []
    for structure in LESION_STRUCTURES:
        part = slices[slices.structure == structure]
        tp, fp, fn = (part[name].sum() for name in ("tp", "fp", "fn"))
        scored = part.dice.dropna()
        rows.append([TITLES[structure], len(scored), f"{number(scored.mean())} ± "
                     f"{number(scored.std())}", number(scored.median()),
                     number(2 * tp / (2 * tp + fp + fn))])
    return markdown(["structure", "slices", "Dice, mean ± SD", "median", "pooled"], rows)


def of_thresholds(thresholds):
    rows = []
    part = thresholds[thresholds.structure == "lesion"]
    for value, group in part.groupby("threshold"):
        volumes, slices = (group[group.isolated == isolated].dice.dropna()
                           for isolated in (False, True))
        rows.append([value, *(f"{number(scores.mean())} ({len(scores)})"
                              for scores in (volumes, slices))])
    return markdown(["lesion threshold", "Dice of any lesion, mean of the volumes (n)",
                     "mean of the slices (n)"], rows)


def of_calibration(calibration):
    rows = [["volumes" if not row.isolated else "slices", f"{row.score - 0.05:.1f} to "
             f"{row.score + 0.05:.1f}", f"{row.n:,}", number(row.mean_score), number(row.share)]
            for row in calibration.itertuples()]
    return markdown(["", "score of a lesion", "pixels", "mean score", "share that is lesion"], rows)


SIZES = (0.0, 0.1, 0.5, 2.0, 100.0)
"""Classes of lesion size, percent of the network's picture."""


def of_sizes(sizes):
    rows = []
    for isolated, part in sizes.groupby("isolated"):
        for low, high in pairwise(SIZES):
            of_class = part[(part.percent_of_picture > low) & (part.percent_of_picture <= high)]
            if of_class.empty:
                continue
            tp, fp, fn = (of_class[name].sum() for name in ("tp", "fp", "fn"))
            rows.append(["slices" if isolated else "volumes", f"{low:g} to {high:g}",
                         len(of_class), f"{number(of_class.dice.mean())} ± "
                         f"{number(of_class.dice.std())}", number(2 * tp / (2 * tp + fp + fn)),
                         number(tp / (tp + fn))])
    return markdown(["", "any lesion, % of the picture", "slices", "Dice, mean of slices ± SD",
                     "pooled", "share of the lesion found"], rows)


def of_external(run):
    found = external_slices(run)
    dice = found.pivot(index="case_id", columns="reader", values="dice")
    order = [*sorted(set(dice) - {"ensemble"}), "ensemble"]
    sizes = found[found.reader == "ensemble"].set_index("case_id")[["n_expert", "n_found"]]
    rows = [[case, f"{sizes.n_expert[case]:,}", f"{sizes.n_found[case]:,}",
             *(number(row[name]) for name in order)] for case, row in dice.iterrows()]
    rows.append(["mean ± SD", "", "", *(f"{number(dice[name].mean())} ± {number(dice[name].std())}"
                                        for name in order)])
    return markdown(["slice", "expert's pixels", "found by the mean", *order], rows)


def of_unseen(card):
    return markdown(["case", "by the expert", "by the network", "ratio"], [
        [one["case_id"], f"{number(one['expert'])} {one['unit']}",
         f"{number(one['automatic'])}", number(one["expert"] / one["automatic"])]
        for one in card["unseen"]])


TUMOUR = "lung_pet_ct_dx_a0001"


def of_tumour(data):
    """What the packaged networks mark in a CT of a lung tumour without pneumonia."""
    folder = Path(data) / "dicom" / TUMOUR
    if not folder.exists():
        return "The CT of a tumour was not at hand."
    scan = read_scan(folder)
    found = Predictor.from_checkpoints(packaged_checkpoints()).read(scan)
    ml = scan.voxel_mm3 / 1000
    ggo, high = ((found.lesions.labels == label.code).sum() * ml for label in (GGO, HIGH_OPACITY))
    lungs = f", lungs of {found.lungs.mask.sum() * ml:.0f} mL" if found.lungs else ""
    return (f"A CT of a lung tumour (Lung-PET-CT-Dx A0001, no pneumonia reported): the packaged "
            f"network marks {ggo:.0f} mL of ground glass and {high:.0f} mL of high opacity{lungs}. "
            "The tumour itself is among them; nobody has measured it.")


def hu_by_class(run):
    rows = []
    for cohort, row in find_volumes(load_cohorts(run), "cv"):
        case = read_case(cohort, row.case_id)
        for label in (GGO, HIGH_OPACITY):
            values = case.scan.hu[case.expert.labels == label.code]
            if len(values) >= 100:
                quantiles = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
                rows.append((row.case_id, label.name, len(values), *quantiles))
    return pd.DataFrame(rows, columns=["case_id", "structure", "n", "q05", "q25", "q50", "q75",
                                       "q95"])


def main(folder, data):
    run = read_run(folder, data)
    frame = measurements.read(run.measurements_csv).query("role == 'cv'")
    slices, thresholds, calibration, sizes = estimate(run)
    chosen, honest = choose_threshold(thresholds)
    densities = hu_by_class(run)
    picture = draw_hu_by_class(densities)
    (DOCS / "images" / "hu_by_class.png").write_bytes(picture.png(150))
    card, info = read_card(), run.info()
    words = (DOCS / "model_card.template.md").read_text(encoding="utf-8")
    seconds = sum(value for key, value in info.items() if key.startswith("seconds_train_fold"))
    text = words.format(
        run_id=run.run_id, name=card["name"] if card else "–",
        files="\n".join(f"- `{entry['file']}`, SHA-256 `{entry['sha256']}`"
                        for entry in (card or {"files": []})["files"]),
        licences="\n".join(f"- {name} ({entry['cases']} cases): {entry['licence']}. "
                           f"{entry['citation']}"
                           for name, entry in (card or {"cohorts": {}})["cohorts"].items()),
        ranges=markdown(["property", "lowest", "highest"], [
            [name, number(low), number(high)] for name, (low, high) in
            (card or {}).get("training_ranges", {}).items()]),
        by_case=by_case(frame), by_structure=by_structure(frame), of_slices=of_slices(slices),
        of_thresholds=of_thresholds(thresholds), chosen=chosen,
        used=run.config.network.lesion_threshold,
        honest=f"{number(honest.dice_chosen.mean())} (n = {honest.dice_chosen.count()}) against "
               f"{number(honest.dice_at_half.mean())}",
        ratios=ratios(frame), of_calibration=of_calibration(calibration),
        minutes=round(seconds / 60), of_sizes=of_sizes(sizes),
        of_made=of_made(score_made(run)), of_external=of_external(run), of_tumour=of_tumour(data),
        of_unseen=of_unseen(card),
        folds=", ".join(str(entry["fold"]) for entry in (card or {"files": []})["files"]),
        made_percent=f"{100 * run.config.training.made_fraction:g}",
        dense_percent=f"{100 * run.config.training.made_dense:g}",
        processor=info["hardware"]["processor"],
        densities=markdown(
            ["case", "class by the expert", "voxels", "HU: 5 %", "25 %", "median", "75 %", "95 %"],
            [[row.case_id, TITLES[row.structure], f"{row.n:,}",
              *(f"{value:.0f}".replace("-", "−") for value in row[4:])]
             for row in densities.itertuples()]))
    (DOCS / "model_card.md").write_text(text, encoding="utf-8")
    print(DOCS / "model_card.md")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
