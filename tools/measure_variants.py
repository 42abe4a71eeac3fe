"""One CT, read as scanners, viewers and archives may hand it on; writes docs/variants.md.

    .venv/bin/python tools/measure_variants.py SCAN

SCAN is any chest CT (a DICOM folder, NIfTI ...). Each variant goes the way of `segment`; what it
measures is compared with the scan as it is. Where the patient is, is told by the scan as it is,
laid over the variant: not by the rule that leaves marks outside out.
"""

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from deeplung_nb.imaging.body import body_mask, without_outside
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.io import read_scan
from deeplung_nb.imaging.lungs import lungs_for
from deeplung_nb.imaging.plausibility import examine
from deeplung_nb.imaging.preprocess import prepare, resize_matrix, restore
from deeplung_nb.network.packaged import packaged_checkpoints
from deeplung_nb.reading.predict import Predictor
from deeplung_nb.reading.volumes import measure
from deeplung_nb.runs.progress import track

DOCS = Path(__file__).resolve().parent.parent / "docs"
TOLERANCE_PERCENT = 15.0
"""Lungs and lesions of a variant may differ by so much from those of the scan as it is ..."""
LEFT_ML = 0.05
"""Outside the patient, from which on it counts: a voxel or two of a skin that was resampled."""
TOLERANCE_THICK_PERCENT = 40.0
"""... and by so much where slices are 10 mm thick, beyond all that the network was trained on."""


def on_grid(scan, hu, spacing_mm):
    """These HU as a scan of the same name."""
    hu = np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
    return replace(scan, hu=hu, grid=Grid.upright(hu.shape, spacing_mm))


def in_plane(scan, pixels):
    """Resampled to so many rows and columns."""
    down, across = (resize_matrix(n, pixels) for n in scan.shape[1:])
    hu = np.stack([down @ one.astype(np.float32) @ across.T for one in scan.hu])
    gap, row, column = scan.spacing_mm
    return on_grid(scan, hu, (gap, row * scan.shape[1] / pixels, column * scan.shape[2] / pixels))


def along(scan, gap_mm):
    """Slices so far apart: interpolated where thinner, averaged where thicker."""
    n = round(scan.n_slices * scan.spacing_mm[0] / gap_mm)
    weights = resize_matrix(scan.n_slices, n)
    hu = np.tensordot(weights, scan.hu.astype(np.float32), 1)
    return on_grid(scan, hu, (scan.n_slices * scan.spacing_mm[0] / n, *scan.spacing_mm[1:]))


def around_body(scan, margin_mm):
    """Rows and columns of the body and a margin, which may be less than nothing."""
    body = body_mask(scan)
    box = []
    for axis, mm in ((1, scan.spacing_mm[1]), (2, scan.spacing_mm[2])):
        found = np.flatnonzero(body.any(axis=tuple({0, 1, 2} - {axis})))
        margin = round(margin_mm / mm)
        box.append(slice(max(found[0] - margin, 0), found[-1] + 1 + margin))
    return np.s_[:, *box]


def shifted(array, rows, columns, fill):
    """Further down and to the left of the picture; what comes in is `fill`."""
    moved = np.full_like(array, fill)
    moved[:, rows:, columns:] = array[:, :-rows, :-columns]
    return moved


def nearest(array, shape):
    """An array [z, y, x] at the same places of another grid of the same extent."""
    return array[np.ix_(*(((np.arange(m) + 0.5) * n / m).astype(int)
                          for n, m in zip(array.shape, shape, strict=True)))]


def variants(scan):
    """(name, scan, what lays an array of the first over it) of each, the first as it is."""
    body = body_mask(scan)
    for name, variant in same_extent(scan):
        yield name, variant, nearest(body, variant.shape)
    for mm in (10, 0, -10):
        where = f"{mm} mm around" if mm > 0 else f"{-mm} mm within" if mm else "at"
        part = around_body(scan, mm)
        yield (f"cropped {where} the body", on_grid(scan, scan.hu[part], scan.spacing_mm),
               body[part])
    rows, columns = (round(20 / mm) for mm in scan.spacing_mm[1:])
    yield ("shifted by 20 mm",
           on_grid(scan, shifted(scan.hu, rows, columns, -1024), scan.spacing_mm),
           shifted(body, rows, columns, False))


def same_extent(scan):
    """(name, scan) of those that only change pixels, slices or values, the first as it is."""
    hu = scan.hu.astype(np.float32)
    rng = np.random.default_rng(0)
    noise = rng.normal(0.0, 1.0, scan.shape).astype(np.float32)
    soft = ndimage.gaussian_filter(hu, (0, 1, 1))
    sharp = hu + 1.0 * (hu - soft)
    yield "as it is", scan
    even = hu[:, :scan.shape[1] // 2 * 2, :scan.shape[2] // 2 * 2]
    mean = sum(even[:, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
    gap, row, column = scan.spacing_mm
    yield "mean of 2×2 pixels", on_grid(scan, mean, (gap, 2 * row, 2 * column))
    for pixels in (256, 384, 640, 768):
        yield f"{pixels}×{pixels} pixels", in_plane(scan, pixels)
    yield "soft kernel (Gaussian, 1 pixel)", on_grid(scan, soft, scan.spacing_mm)
    yield "sharp kernel", on_grid(scan, sharp, scan.spacing_mm)
    yield "sharp kernel, noise of 25 HU", on_grid(scan, sharp + 25 * noise, scan.spacing_mm)
    for sd in (15, 25, 40):
        yield f"noise of {sd} HU", on_grid(scan, hu + sd * noise, scan.spacing_mm)
    for mm in (0.8, 1.25, 2.5, 7.5, 10):
        yield f"slices {mm:g} mm apart", along(scan, mm)


def measured(name, scan, body, predictor):
    """One line of the table as values.

    `body` is the patient as the scan as it is shows him, bool [z, y, x] on this scan's grid; a
    pixel of 2 mm beyond it is his skin.
    """
    lungs = lungs_for(scan)
    prepared, box = prepare(scan, predictor.image_size)
    marked = restore(predictor.score_batches(prepared), box, scan)
    mask = without_outside(marked, body_mask(scan))
    rows = {row["structure"]: row for row in measure(scan, mask, lungs)}
    findings = examine(scan, lungs)
    steps = max(1, round(2.0 / scan.spacing_mm[1]))
    outside = ~np.stack([ndimage.binary_dilation(one, iterations=steps) for one in body])
    ml = scan.voxel_mm3 / 1000
    return {"variant": name, "lung": rows["lung"]["volume_ml"] if lungs else np.nan,
            **{key: rows[key]["volume_ml"] for key in ("ggo", "high_opacity", "lesion")},
            "marked outside": float((marked.labels[outside] > 0).sum()) * ml,
            "outside": float((mask.labels[outside] > 0).sum()) * ml,
            "errors": findings.errors}


def main(source):
    """Measure all variants and write the page."""
    scan = read_scan(source)
    predictor = Predictor.from_checkpoints(packaged_checkpoints())
    found = [measured(*variant, predictor)
             for variant in track(variants(scan), "variants", "scan")]
    native = found[0]
    digest = hashlib.sha256(scan.hu.tobytes()).hexdigest()[:12]
    lines = [
        "# One CT, many forms", "",
        "What a scanner's kernel, a viewer's export or an archive does to a CT should not change "
        "what is measured in it.", "",
        f"`.venv/bin/python tools/measure_variants.py {Path(source).name}` · {scan.n_slices} "
        f"slices of {scan.shape[1]}×{scan.shape[2]}, "
        f"{' × '.join(f'{s:.4g}' for s in scan.spacing_mm)} mm "
        f"(SHA-256 of its HU: {digest}…) · built-in lungs, packaged network", "",
        "| variant | lungs mL | difference | ground glass mL | high opacity mL | lesion mL "
        "| difference | marked outside the patient mL | left there mL |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|"]
    beyond = []
    for row in found:
        differences = [100.0 * (row[key] / native[key] - 1.0) for key in ("lung", "lesion")]
        limit = TOLERANCE_THICK_PERCENT if "10 mm apart" in row["variant"] else TOLERANCE_PERCENT
        if max(map(abs, differences)) > limit or row["outside"] >= LEFT_ML \
                or row["errors"]:
            beyond.append(f"- {row['variant']}: " + "; ".join(
                row["errors"] or [f"{differences[0]:+.1f} %, {differences[1]:+.1f} %, "
                                  f"{row['outside']:.2f} mL outside the patient"]))
        lines.append(
            f"| {row['variant']} | {row['lung']:.0f} | {differences[0]:+.1f} % | {row['ggo']:.1f} "
            f"| {row['high_opacity']:.1f} | {row['lesion']:.1f} | {differences[1]:+.1f} % "
            f"| {row['marked outside']:.1f} | {row['outside']:.1f} |")
    lines += ["", f"Stated tolerance: {TOLERANCE_PERCENT:g} % for lungs and lesion "
              f"({TOLERANCE_THICK_PERCENT:g} % for slices 10 mm apart), set for the network "
              f"before this one; less than {LEFT_ML:g} mL left outside the patient, no error of "
              "plausibility.", "",
              *(["Beyond it:", "", *beyond] if beyond else ["Every variant keeps it."]), ""]
    (DOCS / "variants.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
