"""What a run did, in words for a paper's methods section, and what to mind in it."""

from __future__ import annotations

import pandas as pd

from deeplung_nb.labels import ROLES, TITLES
from deeplung_nb.report.counts import case_names
from deeplung_nb.runs import Run
from deeplung_nb.runs.config import PROFILES, Config, TrainingConfig, UNetConfig
from deeplung_nb.runs.registry import is_simulated, read_registry
from deeplung_nb.runs.study_record import StudyRecord

TRUNKS = {"mobilenet_v2": "MobileNetV2 at strides 4 to 32, merged top-down"}
CHOSEN = {
    "quick": "The settings were chosen among some thirty by the Dice of these very test cases, the "
             "external ones in sight: results flatter them a little.",
    "public": "The recipe was chosen by trainings of half its length on two of these patients and "
              "twenty of the slices; made disease and the lungs were added after one training that "
              "left those two out; the lesion threshold was chosen by the Dice of these "
              "cases in a cross-validation before these additions. External cases had no say.",
    "paper": "The settings are the paper’s; what it leaves open is as docs/paper.md lists it."}
"""How a profile came to its settings, and whether results flatter them."""
ALPHA = 0.05


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _tolerance(mm: float | None) -> str:
    return "half of a scan’s slice distance" if mm is None else f"{mm:g} mm"


def _optimiser(fit: TrainingConfig) -> str:
    name = f"SGD (momentum {fit.momentum:g}" if fit.optimiser == "sgd" else "AdamW ("
    return f"{name}{', ' if fit.optimiser == 'sgd' else ''}weight decay {fit.weight_decay:g})"


def _schedule(fit: TrainingConfig) -> str:
    warm = f", reached over {fit.warmup_steps} steps" if fit.warmup_steps else ""
    if fit.schedule == "plateau":
        return (f"{warm}, reduced by {fit.plateau_factor:g} after {fit.plateau_patience} epochs "
                f"without a lower validation loss until {fit.stop_learning_rate:g}, at most "
                f"{fit.max_epochs} epochs")
    end = f"{100 * fit.last_rate:g} %" if fit.last_rate else "zero"
    return f"{warm}, falling to {end} along a cosine over {fit.max_epochs} epochs"


def _loss(fit: TrainingConfig) -> str:
    region = (f"{1 - fit.rmi_weight:g} × binary cross-entropy + {fit.rmi_weight:g} × region mutual "
              "information" + (f" + {fit.dice_weight:g} × soft Dice" if fit.dice_weight else ""))
    classes = "cross-entropy + soft Dice of the classes and of any lesion"
    terms = [(fit.region_weight, region), (fit.class_weight, classes)]
    words = " and ".join(words if weight == 1 else f"{weight:g} × ({words})"
                         for weight, words in terms if weight)
    if fit.main_branch_loss:
        words += f", the same of the main branch’s own scores (× {fit.main_branch_loss:g})"
    if fit.lung_weight:
        words += (f", and binary cross-entropy + soft Dice of the lungs (× {fit.lung_weight:g}) "
                  "where a reader had marked them")
    return words


def _augmentation(fit: TrainingConfig) -> str:
    low, high = fit.scale_range
    words = (f"images rotated by up to {fit.rotation_degrees:g}°, moved by up to "
             f"{fit.translation_pixels:g} pixels and scaled by {low:g} to {high:g}")
    more = [*(["mirrored in half of the cases"] if fit.flip else []),
            *([f"contrast changed by ± {_percent(fit.hu_gain)}"] if fit.hu_gain else []),
            *([f"shifted by ± {fit.hu_offset:g} HU"] if fit.hu_offset else []),
            *([f"noise of up to {fit.hu_noise:g} HU"] if fit.hu_noise else []),
            *([f"blur in {_percent(fit.blur_fraction)}"] if fit.blur_fraction else []),
            *([f"sharper in {_percent(fit.sharpen_fraction)}"] if fit.sharpen_fraction else [])]
    return words + (f" ({', '.join(more)})" if more else "")


def _draw(fit: TrainingConfig) -> str:
    """Which slices make a batch, and what is made in them."""
    parts = f" (in {fit.accumulate} parts, each with a loss of its own)"
    said = [f"Batches had {fit.batch_slices} slices{parts if fit.accumulate > 1 else ''}, "
            + (f"{fit.steps_per_epoch} steps an epoch" if fit.steps_per_epoch
               else "every training slice once an epoch")]
    if fit.lesion_fraction is not None:
        said.append(f"{_percent(fit.lesion_fraction)} of them with a lesion, half of these with "
                    "high opacity")
    if fit.isolated_fraction is not None:
        said.append(f"{_percent(fit.isolated_fraction)} from cohorts of isolated slices")
    if fit.made_fraction:
        said.append(f"in {_percent(fit.made_fraction)} disease was made by formula in the lungs "
                    f"({_percent(fit.made_dense)} of it high opacity)")
    return ", ".join(said) + "."


def _stage(fit: TrainingConfig) -> str:
    """One training, but for the loss."""
    more = []
    if fit.gradient_norm is not None:
        more.append(f"gradients clipped to a norm of {fit.gradient_norm:g}")
    if fit.average_decay:
        more.append("the weights kept are an exponential average over the steps (decay "
                    f"{fit.average_decay:g})")
    if fit.precision != "float32":
        more.append(f"computed in {fit.precision}")
    return (f"{_optimiser(fit)}, learning rate {fit.learning_rate:g}{_schedule(fit)}"
            + "".join(f"; {words}" for words in more)
            + f"; on {_augmentation(fit)}. {_draw(fit)}")


def _network(config: Config) -> str:
    net = config.network
    start = "ImageNet weights" if config.pretrained else "Kaiming initialisation"
    if config.pretrained:
        start += f" ({config.pretrained})"
    dense = f"{net.dense_blocks} block{'s' * (net.dense_blocks != 1)} of DenseNet-121"
    trunk = f"a trunk ({TRUNKS.get(net.trunk, dense)}, {start}) sees the slice"
    said = (f"scores a slice from a window of {net.n_slices} slices: {trunk} itself, a "
            f"convolutional LSTM ({net.lstm_layers} layers of {net.hidden} channels) the window, "
            "and an attention map weighs the two") if net.attention else \
        f"scores each slice by itself: {trunk}"
    if net.lungs:
        said += ("; a second head on the trunk marks the lungs, by whose chance that of a lesion "
                 "is multiplied")
    how = "by class (sigmoid)" if net.output == "sigmoid" else "over the classes (softmax)"
    rule = "the class with the highest score" if net.lesion_threshold is None else \
        (f"lesion where ground glass and high opacity together score above "
         f"{net.lesion_threshold:g}, the higher of the two")
    return (f"Each scan was cropped to one box around the body, resampled in plane to "
            f"{net.image_size} × {net.image_size} pixels and clipped to −1024 to 600 HU. The "
            f"network {said}. Scores are {how}; a pixel is {rule}. Labels were brought back to the "
            "scan’s own grid before anything was measured.")


def _training(config: Config) -> str:
    fit, first = config.training, config.first
    kept = "with the lowest validation loss" if fit.keep == "best" else "of the last epoch"
    validated = "No case was set aside for validation"
    if fit.use_validation:
        some = "" if fit.validation_slices is None else \
            f" ({fit.validation_slices} slices of them, evenly spaced)"
        validated = (f"{_percent(config.validation_fraction)} of a fold’s training patients were "
                     f"set aside for validation{some}")
    said = f"Training minimised {_loss(fit)}; {_stage(fit)} The weights {kept} were kept. "
    if first is not None:
        said += f"Before, the main branch was trained alone, on {_loss(first)}; {_stage(first)} "
    return (said + f"{validated}. Random numbers follow from the seed {config.seed}. "
            + (f"It ran in {config.threads} threads; on" if config.threads else "On")
            + " another type of processor, or in another number of threads, rounding differs and "
            "the same training ends with slightly different weights.")


def _unet(unet: UNetConfig, fit: TrainingConfig) -> str:
    epochs = unet.max_epochs or fit.max_epochs
    return (f"{'2-D' if unet.name == 'unet2d' else '3-D'} ({unet.width} to {16 * unet.width} "
            f"channels, learning rate {unet.learning_rate or fit.learning_rate:g}, "
            f"{'at most ' * (fit.schedule == 'plateau')}{epochs} epoch{'s' * (epochs != 1)})")


def _cases(config: Config, record: StudyRecord) -> str:
    """Folds, external cases, reference standard, and how the settings were chosen."""
    registry = read_registry()
    entries = [registry.get(name, {}) for name in config.cohorts]
    external = [entry for entry in entries if "external" in str(entry.get("role"))]
    said = [f"Cross-validation had {config.n_folds} folds with no patient in two of them, frozen "
            "as a list of case ids."]
    if any("slices" not in entry for entry in external):
        chosen = "the fold with the lowest validation loss" if config.training.use_validation \
            else "the first fold"
        said.append(f"External cases were read by {chosen}, by every fold, and by the mean of all.")
    if any("slices" in entry for entry in external):
        said.append("External slices were read among their neighbours by every fold, and by the "
                    "mean of all.")
    if not external:
        said.append("There are no external cases.")
    unknown = "how many read a case, and how experienced they are, is not recorded"
    marked = "; ".join(f"{entry.get('title', name)} – {entry.get('readers', unknown)}"
                       for name, entry in zip(config.cohorts, entries, strict=True))
    own = PROFILES.get(config.profile)
    as_profiled = own is not None and (own.network, own.training, own.first) == (
        config.network, config.training, config.first)
    said += [f"The reference standard is the expert’s mask of each case: {marked}.",
             CHOSEN[config.profile] if as_profiled and config.profile in CHOSEN
             else "How the settings were chosen is not recorded.",
             record.text("sampling.size_rationale").rstrip(".") + "."
             if record.text("sampling.size_rationale") else
             "The number of cases is what was there; no sample size was planned."]
    return " ".join(said)


LIMITS = {"constant": "bias ± 1.96 SD (MOVER)",
          "ratio": "of the ratio, in the cases that both measured (MOVER)",
          "regression": "by regression of bias and SD on size (jackknife)",
          "quantile": "2.5 % and 97.5 % quantiles of the differences (order statistics)"}


def _margin(record: StudyRecord) -> str:
    ml = record.said.get("margin.ml")
    if ml is None:
        return "No margin of equivalence was declared."
    day = record.text("margin.declared")
    return f"A margin of {ml:g} mL was declared{f' on {day}' if day else ''}."


def _statistics(config: Config, record: StudyRecord) -> str:
    limits = ("were not declared beforehand: their kind was chosen by tests of proportional bias, "
              "spread and normality of the differences") if config.limits == "auto" else \
        (f"were declared beforehand: {LIMITS[config.limits]}, and bias ± 1.96 SD, said so, where "
         "the cases can’t carry these")
    return ("Volumes are voxel counts times the voxel’s volume. Agreement: detection, bias and its "
            f"interval (Student’s t), 95 % limits of agreement, Spearman’s ρ (jackknife), Lin’s "
            "concordance (studentized bootstrap), Wilcoxon’s signed-rank test with the "
            f"Hodges–Lehmann shift. The limits {limits}. Intervals are of 95 %, tests two-sided at "
            f"{_percent(ALPHA)}, p values not adjusted for their number; where a patient has "
            "several cases, patients are what is independent. A case that failed or was not read "
            f"is in the table as such, and no value is imputed. {_margin(record)} Dice is named "
            "by structure, averaging and what an empty mask counts. "
            f"Surfaces, by area: HD95 and normalised surface Dice at "
            f"{_tolerance(config.nsd_tolerance_mm)}. Lesions are connected voxels of 0.1 mL or "
            "more; one is found where the other mask holds a voxel of it.")


def describe_methods(config: Config, record: StudyRecord | None = None) -> list[str]:
    """Paragraphs for a methods section, from the settings of the run and the authors' record."""
    record = record or StudyRecord()
    if all(map(is_simulated, config.cohorts)):
        return ["The readings are simulated: nothing was segmented.", _statistics(config, record)]
    paragraphs = [_network(config), _training(config), _cases(config, record)]
    if config.baselines:
        unets = ", ".join(_unet(unet, config.training) for unet in config.baselines)
        paragraphs.append("U-Nets were trained and tested on the same folds, by the same loss and "
                          f"optimiser: {unets}.")
    return [*paragraphs, _statistics(config, record)]


def _unlike_the_paper(config: Config) -> list[str]:
    found = []
    if config.training != PROFILES["paper"].training:
        found.append("The training schedule is not the paper’s: compare the settings below.")
    if config.network.trunk == "densenet121" and not config.pretrained:
        found.append("The dense block starts from Kaiming initialisation, the paper’s from "
                     "ImageNet weights.")
    return found


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
    settings = _unlike_the_paper(run.config)
    if measurements is None:
        return [*found, "Nothing has been measured yet.", *settings]
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
    return [*found, *settings]
