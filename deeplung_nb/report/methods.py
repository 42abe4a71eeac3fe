"""What a run did, in words for a paper's methods section, and what to mind in it."""

from __future__ import annotations

import pandas as pd

from deeplung_nb.labels import ROLES, TITLES
from deeplung_nb.report.counts import case_names
from deeplung_nb.runs import Run
from deeplung_nb.runs.config import PROFILES, Config, TrainingConfig
from deeplung_nb.runs.registry import is_simulated

TRUNKS = {"mobilenet_v2": "MobileNetV2 at strides 4 to 32, merged top-down"}


def _tolerance(mm: float | None) -> str:
    return "half of a scan’s slice distance" if mm is None else f"{mm:g} mm"


def _schedule(fit: TrainingConfig) -> str:
    if fit.schedule == "plateau":
        return (f"reduced by {fit.plateau_factor:g} after {fit.plateau_patience} epochs without a "
                f"lower validation loss, until {fit.stop_learning_rate:g}")
    end = f"{100 * fit.last_rate:g} %" if fit.last_rate else "zero"
    return f"falling to {end} along a cosine over {fit.max_epochs} epochs"


def _loss(fit: TrainingConfig) -> str:
    region = (f"{1 - fit.rmi_weight:g} × binary cross-entropy + {fit.rmi_weight:g} × region mutual "
              "information" + (f" + {fit.dice_weight:g} × soft Dice" if fit.dice_weight else ""))
    classes = "cross-entropy + soft Dice of the classes and of any lesion"
    terms = [(fit.region_weight, region), (fit.class_weight, classes)]
    return " and ".join(words if weight == 1 else f"{weight:g} × ({words})"
                        for weight, words in terms if weight)


def _augmentation(fit: TrainingConfig) -> str:
    low, high = fit.scale_range
    words = (f"images rotated by up to {fit.rotation_degrees:g}°, moved by up to "
             f"{fit.translation_pixels:g} pixels and scaled by {low:g} to {high:g}")
    more = [*(["mirrored in half of the cases"] if fit.flip else []),
            *([f"contrast changed by ± {100 * fit.hu_gain:g} %"] if fit.hu_gain else []),
            *([f"shifted by ± {fit.hu_offset:g} HU"] if fit.hu_offset else []),
            *([f"noise of up to {fit.hu_noise:g} HU"] if fit.hu_noise else []),
            *([f"blur in {100 * fit.blur_fraction:g} %"] if fit.blur_fraction else [])]
    return words + (f" ({', '.join(more)})" if more else "")


def describe_methods(config: Config) -> list[str]:
    """Paragraphs for a methods section, from the settings of the run alone."""
    net, fit = config.network, config.training
    steps = f"{fit.steps_per_epoch} steps" if fit.steps_per_epoch else "every training slice"
    start = "ImageNet weights" if config.pretrained else "Kaiming initialisation"
    dense = f"{net.dense_blocks} block{'s' * (net.dense_blocks != 1)} of DenseNet-121"
    optimiser = "SGD" if fit.optimiser == "sgd" else "AdamW"
    first = ""
    if config.first is not None:
        first = (f" Before, the main branch was trained alone: {config.first.max_epochs} epochs, "
                 f"learning rate {config.first.learning_rate:g}, batches of "
                 f"{config.first.batch_slices} slices.")
    average = (" The weights that were kept are an exponential average over the steps (decay "
               f"{fit.average_decay:g})." if fit.average_decay else "")
    paragraphs = [
        f"Each scan was cropped to one box around the body, resampled in plane to "
        f"{net.image_size} × {net.image_size} pixels and clipped to −1024 to 600 HU. The network "
        f"scores a slice from a window of {net.n_slices} slices: a trunk ("
        f"{TRUNKS.get(net.trunk, dense)}, {start}) sees the slice itself, a "
        f"convolutional LSTM ({net.lstm_layers} layers of {net.hidden} channels) the window, and "
        "an attention map weighs the two. Labels were brought back to the scan’s own grid before "
        "anything was measured.",
        f"Training minimised {_loss(fit)} with {optimiser} (learning rate "
        f"{fit.learning_rate:g}, {_schedule(fit)}; batches of {fit.batch_slices} slices, {steps} "
        f"an epoch), on {_augmentation(fit)}.{first}{average} "
        + (f"It ran in {config.threads} threads; on" if config.threads else "On")
        + " another type of processor, or in another number of threads, rounding differs and the "
        "same training ends with slightly different weights.",
        f"Cross-validation had {config.n_folds} folds with no patient in two of them, frozen as a "
        "list of case ids. External cases were read by the fold with the lowest validation loss, "
        "by every fold, and by the mean of all; no test case chose a network.",
        "Volumes are voxel counts times the voxel’s volume. Agreement: bias and 95 % limits of "
        "agreement (Bland–Altman) with intervals (MOVER), quantiles of the differences where these "
        "are not normal, Spearman’s ρ (jackknife), Lin’s concordance (studentized bootstrap), "
        "Wilcoxon’s signed-rank test with the Hodges–Lehmann shift. Dice is named by structure, "
        "averaging and what an empty mask counts. Surfaces, by area: HD95 and normalised surface "
        f"Dice at {_tolerance(config.nsd_tolerance_mm)}. Lesions are connected voxels of 0.1 mL or "
        "more; one is found where the other mask holds a voxel of it.",
    ]
    if all(map(is_simulated, config.cohorts)):
        return ["The readings are simulated: nothing was segmented.", paragraphs[-1]]
    if config.baselines:
        unets = ", ".join(f"{'2-D' if unet.name == 'unet2d' else '3-D'} ({unet.width} to "
                          f"{16 * unet.width} channels)" for unet in config.baselines)
        paragraphs.insert(3, f"U-Nets were trained and tested on the same folds: {unets}.")
    return paragraphs


def list_warnings(run: Run, measurements: pd.DataFrame | None) -> list[str]:
    """What a reader of this run must mind: sentences, the gravest first.

    Parameters
    ----------
    measurements
        None where nothing has been measured.
    """
    found = []
    if run.synthetic:
        found.append("The cohort is synthetic: nothing here is about people.")
    if measurements is None:
        return [*found, "Nothing has been measured yet."]
    rows = measurements[measurements["reader"].isin(["expert", "model"])]
    names = case_names(rows)
    failed = sorted(set(names[rows["status"] == "failed"]))
    if failed:
        found.append(f"{len(failed)} case(s) failed and are in no estimate: {', '.join(failed)}.")
    if "external" not in set(rows["role"]):
        found.append("There are no external cases.")
    ok = rows[rows["status"] == "ok"]
    for role, part in ok.groupby("role"):
        n = part["patient_id"].nunique()
        if n < 30:
            found.append(f"{ROLES[role]}: {n} patients; intervals are wide, limits of agreement "
                         "badly known.")
        expert = part[part["reader"] == "expert"].set_index("structure")["volume_ml"]
        for structure in ("ggo", "high_opacity"):
            if structure in expert.index:
                zeros = int((expert[[structure]] == 0).sum())
                if 3 * zeros > len(expert[[structure]]):
                    found.append(f"{ROLES[role]}: {zeros} of {len(expert[[structure]])} expert "
                                 f"volumes of {TITLES[structure].lower()} are 0; look at the "
                                 "detection first.")
    names = names[ok.index]
    over = names[ok["burden_percent"] > 100].nunique()
    if over:
        found.append(f"Burden over 100 % of the lung in {over} case(s): check the lung mask.")
    notes = ok["note"].fillna("")
    odd = sorted(set(names[notes.str.contains("implausible:", regex=False)]))
    if odd:
        found.append(f"No plausible chest CT, yet measured: {', '.join(odd)} (the column note of "
                     "measurements.csv says why).")
    without = names[notes.str.startswith("no lung mask")].nunique()
    if without:
        found.append(f"No lung mask, so no burden, in {without} case(s).")
    paper = PROFILES["paper"].training
    if run.config.training != paper:
        found.append("The training schedule is not the paper’s: compare the settings below.")
    return found
