"""A phantom beside a real chest: three views of each, and what numbers say of both.

    python tools/compare_phantoms.py CT [CT ...] [--case P003] [--output phantom_beside_real.png]

`CT` is a NIfTI or NRRD file or a folder of DICOM files. The picture shows the first of them. The
table gives, of the CTs and of the whole phantom cohort, the median and the range of what a reader
or a network could tell them apart by. No picture of a real chest is part of this project.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import ndimage

from deeplung_nb.imaging.io import read_scan
from deeplung_nb.imaging.lungs import segment_lungs
from deeplung_nb.imaging.phantom.make import make_phantom
from deeplung_nb.imaging.phantom.spec import read_specs
from deeplung_nb.imaging.scan import Scan
from deeplung_nb.runs.progress import track
from deeplung_nb.runs.registry import manifest_folder

WINDOW_HU = (-1350, 250)
RIM_MM = 8.0
PIXEL_MM = 1.75
LARGE_MM2 = 3000.0


def facts(scan: Scan) -> dict[str, float]:
    """Numbers of one chest, from the lungs as the package finds them.

    Grain and outline are taken at one pixel size, or they would tell resolutions apart.
    """
    lungs = segment_lungs(scan).mask
    hu = scan.hu.astype(np.float32)
    z, y, x = scan.spacing_mm
    deep = ndimage.distance_transform_edt(lungs, scan.spacing_mm) > RIM_MM
    aerated = deep & (hu < -700)
    rows = np.broadcast_to(np.arange(hu.shape[1])[None, :, None] * y, hu.shape)[aerated]
    area = lungs.sum(axis=(1, 2)) * y * x
    scale = (1, y / PIXEL_MM, x / PIXEL_MM)
    coarse, mask, inner = (ndimage.zoom(array, scale, order=order) for array, order in
                           ((hu, 1), (lungs, 0), (deep, 0)))
    fine = (coarse - ndimage.uniform_filter(coarse, (0, 3, 3)))[inner & (coarse < -700)]
    rough = []
    for plane in mask:
        parts, _ = ndimage.label(plane)
        for code, box in enumerate(ndimage.find_objects(parts), 1):
            one = np.pad(parts[box] == code, 1)
            if one.sum() * PIXEL_MM**2 > LARGE_MM2:
                around = (one ^ ndimage.binary_erosion(one)).sum()
                rough.append(around / np.sqrt(4 * np.pi * one.sum()))
    return {
        "slice gap, mm": z, "pixel, mm": x,
        "lungs, L": lungs.sum() * scan.voxel_mm3 / 1e6,
        "lungs, height in mm": float((area > 0.03 * area.max()).sum() * z),
        "aerated lung, median HU": float(np.median(hu[aerated])),
        "aerated lung, HU to the back per 100 mm": float(100 * np.polyfit(rows, hu[aerated], 1)[0]),
        "deep lung above -600 HU (vessels and lesions), %": float(100 * (hu[deep] > -600).mean()),
        "grain of aerated lung, HU": float(fine.std()),
        "soft tissue, SD of HU": float(hu[(hu > 0) & (hu < 100)].std()),
        "outline of a lung, pixels over a circle's (a disc: 0.9)": float(np.median(rough)),
    }


def describe(scans: Iterator[Scan], label: str, n: int) -> pd.Series:
    """Median (least to most) of each fact."""
    table = pd.DataFrame([facts(scan) for scan in track(scans, label, "scan", n)])
    return table.apply(lambda c: f"{c.median():.3g} ({c.min():.3g} to {c.max():.3g})")


def draw(scans: dict[str, Scan], path: Path) -> None:
    """Two axial slices and a coronal one of each, in lung and in soft-tissue windows."""
    figure, axes = plt.subplots(len(scans), 4, figsize=(13, 3.5 * len(scans)),
                                layout="constrained", squeeze=False)
    for row, (name, scan) in zip(axes, scans.items(), strict=True):
        lungs = segment_lungs(scan).mask
        found = np.flatnonzero(lungs.any(axis=(1, 2)))
        at = [round(np.quantile(found, share)) for share in (0.35, 0.62)]
        middle = round(np.nonzero(lungs)[1].mean())
        z, y, x = scan.spacing_mm
        views = [(scan.hu[at[0]], y / x, WINDOW_HU, "axial, low"),
                 (scan.hu[at[1]], y / x, WINDOW_HU, "axial, high"),
                 (scan.hu[::-1, middle], z / x, WINDOW_HU, "coronal"),
                 (scan.hu[at[0]], y / x, (-160, 240), "soft tissue")]
        for axis, (image, aspect, (low, high), title) in zip(row, views, strict=True):
            axis.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=aspect)
            axis.set_title(f"{name}: {title}", fontsize=9)
            axis.axis("off")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ct", nargs="+", type=Path)
    parser.add_argument("--case", default="P003")
    parser.add_argument("--output", type=Path, default=Path("phantom_beside_real.png"))
    args = parser.parse_args()
    specs = read_specs(manifest_folder() / "phantom.csv")
    one = next(spec for spec in specs if spec.case_id == args.case)
    draw({f"phantom {args.case}": make_phantom(one).scan,
          f"CT {args.ct[0].name}": read_scan(args.ct[0])}, args.output)
    table = pd.DataFrame({
        "real": describe((read_scan(path) for path in args.ct), "real", len(args.ct)),
        "phantoms": describe((make_phantom(spec).scan for spec in specs), "phantoms", len(specs)),
    })
    print("|  | " + " | ".join(table.columns) + " |\n|---|" + "---|" * len(table.columns))
    for row in table.itertuples():
        print("| " + " | ".join(map(str, row)) + " |")
    print(args.output)


if __name__ == "__main__":
    main()
