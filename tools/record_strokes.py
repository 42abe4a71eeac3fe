"""Draw corrections into a run's automatic marks as a person would, and keep the strokes.

The hand is a program: it knows the marks of the synthetic expert, works through the slices in
which the machine is most wrong, outlines what is missed, wipes what is nothing, and misses each
outline by a millimetre or so. Usage: `python tools/record_strokes.py RUN_FOLDER`, a run of the
profile `quick`. Writes `data_manifests/strokes_phantom.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import contourpy
import numpy as np
from scipy import ndimage

from deeplung_nb.cohorts.cases import read_reading
from deeplung_nb.learning.corrected import COHORT, RECORDED
from deeplung_nb.runs import read_run
from deeplung_nb.runs.registry import manifest_folder

CASES = ("P004", "P010", "P022")
MOST_SLICES, SMALLEST_MM2, HAND_MM, CORNER_MM = 16, 200.0, 1.0, 9.0


def outlines(mask: np.ndarray, pixel_mm: float, rng: np.random.Generator) -> list[list]:
    """Polygons (row, column) about the parts of a mask [y, x], as a hand draws them."""
    parts, n = ndimage.label(mask)
    found = []
    for number in range(1, n + 1):
        part = ndimage.binary_fill_holes(parts == number)
        if part.sum() * pixel_mm ** 2 < SMALLEST_MM2:
            continue
        padded = np.pad(part.astype(float), 1)
        line = max(contourpy.contour_generator(z=padded).lines(0.5), key=len)[:, ::-1] - 1
        corners = line[::max(1, round(CORNER_MM / pixel_mm))]
        if len(corners) >= 3:
            hand = corners + rng.normal(0, HAND_MM / pixel_mm, corners.shape)
            found.append(np.round(hand, 1).tolist())
    return found


def strokes_of(automatic: np.ndarray, truth: np.ndarray, pixel_mm: float,
               rng: np.random.Generator) -> list[dict]:
    """Strokes that correct the slices with most that is wrong."""
    wrong = (automatic != truth).sum(axis=(1, 2))
    strokes = []
    for z in sorted(np.argsort(-wrong)[:MOST_SLICES].tolist()):
        nothing = (automatic[z] > 0) & (truth[z] == 0)
        missed = {code: (truth[z] == code) & (automatic[z] != code) for code in (1, 2)}
        for path in outlines(ndimage.binary_opening(nothing, iterations=1), pixel_mm, rng):
            strokes.append({"tool": "polygon", "plane": "axial", "index": z, "code": 0,
                            "path": path})
        for code, miss in missed.items():
            parts, n = ndimage.label(truth[z] == code)
            for number in range(1, n + 1):  # a lesion that is half found is outlined anew
                part = parts == number
                if (miss & part).sum() * pixel_mm ** 2 < SMALLEST_MM2:
                    continue
                for path in outlines(part, pixel_mm, rng):
                    strokes.append({"tool": "polygon", "plane": "axial", "index": z, "code": code,
                                    "path": path})
    return strokes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    run = read_run(parser.parse_args().run)
    rng, kept = np.random.default_rng(1), {}
    for case_id in CASES:
        case, automatic = read_reading(run, COHORT, case_id)
        kept[case_id] = strokes_of(automatic.labels, case.expert.labels,
                                   case.scan.spacing_mm[1], rng)
        print(f"{case_id}: {len(kept[case_id])} strokes")
    text = json.dumps({"made_by": "tools/record_strokes.py", "strokes": kept})
    (manifest_folder() / RECORDED).write_text(text.replace("}, {", "},\n{") + "\n")
    print(f"{len(text) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
