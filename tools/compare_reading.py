"""Does reading a scan several times help? .venv/bin/python tools/compare_reading.py DATA

For docs/numbers.md: the packaged networks on patients they never saw, as they are used, and with
what could be done at no training: scores averaged over pictures that are mirrored, brighter, softer
or sharper, and marked regions left out that no score is sure of. Volumes are read by the fold that
left them out, the slices of another source by the mean of all.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from deeplung_nb.cohorts.cases import find_volumes, read_case, read_external_slice
from deeplung_nb.cohorts.manifest import read_cohort
from deeplung_nb.cohorts.splits import CaseKey, fold_cases, read_splits
from deeplung_nb.imaging.body import body_mask, without_outside
from deeplung_nb.imaging.preprocess import HU_WINDOW, normalise_hu, prepare, restore
from deeplung_nb.learning.dataset import on_picture, prepare_slice
from deeplung_nb.network.packaged import packaged_checkpoints, read_card
from deeplung_nb.reading.predict import Predictor
from deeplung_nb.runs.registry import cohort_files
from deeplung_nb.stats import overlap

VOLUMES, SLICES = "medseg2", "coronacases_expert"
AS_IT_IS = "as it is"
FEWEST_ML = 1.0
"""A case with less lesion by the expert counts by what is marked, not by its Dice."""


def _brighter(hu: float) -> Callable[[np.ndarray], np.ndarray]:
    """All but air that many HU denser; pictures are in 0 to 1 of the window."""
    step = hu / (HU_WINDOW[1] - HU_WINDOW[0])
    return lambda x: np.clip(np.where(x > 0.02, x + step, x), 0, 1).astype(np.float32)


def _softer(x: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(x, (0, 1, 1)).astype(np.float32)


def _sharper(x: np.ndarray) -> np.ndarray:
    return np.clip(x + 0.7 * (x - _softer(x)), 0, 1).astype(np.float32)


PICTURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    AS_IT_IS: lambda x: x, "mirrored": lambda x: np.ascontiguousarray(x[..., ::-1]),
    **{f"{hu:+d} HU": _brighter(hu) for hu in (-60, -30, 30, 60)},
    "softer": _softer, "sharper": _sharper}
WAYS: dict[str, tuple[tuple[str, ...], float]] = {
    AS_IT_IS: ((AS_IT_IS,), 0.0),
    "and mirrored": ((AS_IT_IS, "mirrored"), 0.0),
    "and 30 HU less, 30 more": ((AS_IT_IS, "-30 HU", "+30 HU"), 0.0),
    "and 60 HU less, 60 more": ((AS_IT_IS, "-60 HU", "+60 HU"), 0.0),
    "and softer, sharper": ((AS_IT_IS, "softer", "sharper"), 0.0),
    "softer alone": (("softer",), 0.0),
    "sharper alone": (("sharper",), 0.0),
    "without regions nowhere above 0.7": ((AS_IT_IS,), 0.7),
    "without regions nowhere above 0.9": ((AS_IT_IS,), 0.9),
}
"""Words -> pictures whose scores are averaged, and the score that a marked region must reach."""


def _score(predictor: Predictor, pictures: np.ndarray) -> dict[str, np.ndarray]:
    """Picture -> score of a lesion [z, S, S]."""
    found = {}
    for name, change in PICTURES.items():
        scores = np.concatenate([one.mean(axis=0) for one in predictor.scores_per_network(
            change(pictures))])[:, 1:].sum(axis=1)
        found[name] = scores[..., ::-1] if name == "mirrored" else scores
    return found


def _marked(scores: dict[str, np.ndarray], way: str, threshold: float) -> np.ndarray:
    names, least = WAYS[way]
    mean = np.mean([scores[name] for name in names], axis=0)
    marked = mean > threshold
    if least > 0:
        regions, n = ndimage.label(marked, np.ones((3, 3, 3)))
        most = ndimage.maximum(mean, regions, np.arange(1, n + 1)) if n else []
        marked = np.r_[False, np.asarray(most) > least][regions]
    return marked


def _row(way: str, case: str, kind: str, expert: np.ndarray, found: np.ndarray, ml: float) -> dict:
    counts = overlap.confusion(expert, found)
    return {"way": way, "case": case, "kind": kind, "dice": counts.dice(),
            "expert_ml": (counts.tp + counts.fn) * ml, "found_ml": (counts.tp + counts.fp) * ml}


def of_volumes(data: Path, checkpoints: Sequence[Path]) -> list[dict]:
    """Each volume of the packaged folds, by its own; `checkpoints` are networks of those folds."""
    cohort = read_cohort(VOLUMES, data)
    splits = read_splits(cohort_files(VOLUMES)[1], cohort.frame)
    rows = []
    for entry, path in zip(read_card()["files"], checkpoints, strict=True):
        predictor = Predictor.from_checkpoints([path])
        mine = fold_cases(splits, entry["fold"]).test
        for _, row in find_volumes([cohort], "cv"):
            if CaseKey(VOLUMES, row.case_id) not in mine:
                continue
            case = read_case(cohort, row.case_id)
            prepared, box = prepare(case.scan, predictor.image_size)
            body = body_mask(case.scan)
            scores = _score(predictor, prepared)
            for way in WAYS:
                marked = _marked(scores, way, predictor.lesion_threshold)
                classes = np.stack([~marked, marked, np.zeros_like(marked)], axis=1)
                found = without_outside(restore([classes.astype(np.float32)], box, case.scan), body)
                rows.append(_row(way, row.case_id, "volume", case.expert.labels > 0,
                                 found.labels > 0, case.scan.voxel_mm3 / 1000))
    return rows


def of_slices(data: Path, checkpoints: Sequence[Path]) -> list[dict]:
    """Each slice of another source, by the mean of networks."""
    cohort = read_cohort(SLICES, data)
    predictor = Predictor.from_checkpoints(checkpoints)
    rows = []
    for _, row in cohort.cases("external").iterrows():
        case = read_external_slice(cohort, row.case_id)
        share = cohort.slices.longest_share
        pictures, inside = on_picture(case.stack.hu, predictor.image_size, share)
        target = prepare_slice(case.scan, case.expert, predictor.image_size,
                               share).target[0][inside]
        scores = {name: one[[case.at]] for name, one in
                  _score(predictor, normalise_hu(pictures)).items()}
        rows += [_row(way, row.case_id, "slice", target > 0, _marked(
            scores, way, predictor.lesion_threshold)[0][inside], 1.0) for way in WAYS]
    return rows


def main(data: Path) -> None:
    """Print the table in Markdown."""
    networks = packaged_checkpoints()
    found = pd.DataFrame(of_volumes(data, networks) + of_slices(data, networks))
    found["little"] = (found["kind"] == "volume") & (found["expert_ml"] < FEWEST_ML)
    found["name"] = found["case"].where(~found["little"], found["case"] + ", mL marked")
    found["shown"] = found["dice"].where(~found["little"], found["found_ml"])
    names = list(dict.fromkeys(found["name"]))
    wide = found.pivot(index="way", columns="name", values="shown").loc[list(WAYS), names]
    means = found[~found["little"]].pivot_table(index="way", columns="kind", values="dice")
    print("| scores of | mean of volumes | mean of slices | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 3) + "|")
    for way in WAYS:
        cells = [f"{value:.1f}" if name.endswith("marked") else f"{value:.3f}"
                 for name, value in wide.loc[way].items()]
        print(f"| {way} | {means.volume[way]:.3f} | {means.slice[way]:.3f} | "
              + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
