"""Lungs and lesions as surfaces, to be turned: a view of where in the chest they lie."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import ipywidgets
import k3d
import numpy as np
from scipy import ndimage

from deeplung_nb.imaging.lungs import LungMask
from deeplung_nb.imaging.scan import Scan
from deeplung_nb.labels import COLOURS, LABELS
from deeplung_nb.widgets.picture import WithStill
from deeplung_nb.widgets.viewer import LUNGS, CTViewer, view_ct

GRID_MM = 2.5
"""Surfaces are drawn on a grid of about this: finer ones are slow to turn and look no better."""
LUNG_OPACITY, LESION_OPACITY = 0.15, 0.9


def smooth_field(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """A mask [z, y, x] as a smooth field on a grid of about `GRID_MM`; its surface is at 0.5."""
    target = [max(2, round(n * mm / GRID_MM)) for n, mm in zip(mask.shape, spacing_mm, strict=True)]
    factors = np.divide(target, mask.shape)
    # Smoothed before it is thinned out, so that nothing thin falls between two grid planes.
    blurred = ndimage.gaussian_filter(mask.astype(np.float32), np.maximum(0.5 / factors, 0.4) * 0.8)
    return ndimage.zoom(blurred, factors, order=1, grid_mode=True, mode="nearest")


class SurfaceView(WithStill, ipywidgets.VBox):
    """A plot of surfaces under its legend; `volumes_ml` holds what the legend says."""

    def __init__(self, viewer: CTViewer, reader: str | None) -> None:
        scan = viewer.scan
        self.viewer = viewer
        self.volumes_ml: dict[str, float] = {}
        self.plot = k3d.plot(grid_visible=False, menu_visibility=False, camera_auto_fit=False,
                             background_color=0xF4F5F7, height=460)
        entries = []
        parts = [("lung", viewer.masks.get(LUNGS), 1, "Lungs", LUNG_OPACITY)]
        if reader is not None:
            parts += [(label.name, viewer.masks[reader], label.code, f"{label.title} ({reader})",
                       LESION_OPACITY) for label in LABELS[1:]]
        dz, dy, dx = (n * mm for n, mm in zip(scan.shape, scan.spacing_mm, strict=True))
        # x to the patient's left, y to the back, z to the head, mm.
        place = {"xmin": 0, "xmax": dx, "ymin": 0, "ymax": dy, "zmin": 0, "zmax": dz}
        for name, labels, code, title, opacity in parts:
            mask = None if labels is None else labels == code
            if mask is None or not mask.any():
                continue
            volume = float(mask.sum()) * scan.voxel_mm3 / 1000.0
            self.volumes_ml[name] = volume
            colour = COLOURS[name]
            self.plot += k3d.marching_cubes(
                smooth_field(mask, scan.spacing_mm), level=0.5, color=int(colour[1:], 16),
                opacity=opacity, name=title, **place)
            entries.append(f'<span style="color:{colour}">■</span> {html.escape(title)} '
                           f'{volume:.1f} mL')
        legend = " &nbsp; ".join(entries) or "nothing is marked in this case"
        super().__init__([ipywidgets.HTML(
            f"<b>{html.escape(scan.case_id)}</b> &nbsp; {legend}<br>Drag to turn, wheel to come "
            "nearer; at first the patient looks at you."), self.plot])
        # From the front (towards +y), the head up.
        self.plot.camera = [dx / 2, -1.6 * max(dx, dz), dz / 2, dx / 2, dy / 2, dz / 2, 0, 0, 1]

    def still(self) -> Any:
        """The three planes of the case: a picture for paper."""
        return self.viewer.still()

    @property
    def curtain(self) -> Any:
        """None: the three planes stay above the surfaces."""
        return None


def view_surface(scan: Scan, masks: Mapping[str, Any] | Any = None, *,
                 lungs: LungMask | None = None, reader: str | None = None) -> SurfaceView:
    """Look at lungs (translucent) and at one reader's lesions as surfaces.

    Parameters
    ----------
    scan, masks, lungs
        As `view_ct`.
    reader
        Whose lesions; default: the first of `masks`.

    Raises
    ------
    ValueError
        As `view_ct`, or there is no such reader.
    """
    viewer = view_ct(scan, masks, lungs=lungs)
    names = [name for name in viewer.masks if name != LUNGS]
    if reader is not None and reader not in names:
        raise ValueError(f"reader {reader!r}: expected one of {', '.join(names) or 'none'}")
    return SurfaceView(viewer, reader or (names[0] if names else None))
