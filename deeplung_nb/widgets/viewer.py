"""The CT viewer: three planes, masks of several readers, where they differ, all by keyboard too."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import anywidget
import numpy as np
import traitlets

from deeplung_nb.cohorts.cases import read_reading
from deeplung_nb.imaging.io import read_mask, read_scan
from deeplung_nb.imaging.lungs import LungMask
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.labels import COLOURS, LABELS, TITLES
from deeplung_nb.report.panels import AGREEMENT_COLOURS, choose_slice, draw_planes
from deeplung_nb.runs import Run
from deeplung_nb.widgets.backends import View, show_elsewhere
from deeplung_nb.widgets.picture import STATIC, WithStill, script
from deeplung_nb.widgets.planes import (
    AGREEMENT,
    LETTERS,
    MOST_MASKS,
    PLANES,
    agreement_map,
    compare,
    cut,
    encode,
    pixel_mm,
    profile,
)

WINDOWS = {"lung": (-400.0, 1500.0), "network": (-212.0, 1624.0), "mediastinum": (40.0, 400.0)}
"""Name -> (level, width), HU: the paper's readers', the network's -1024 to 600, and the usual."""
LAYOUTS = ("overlay", "side by side", "agreement")
LUNGS = "lungs"
OF_THE_READER = {"sync": True, "echo_update": False}
"""The kernel does not say back what the page told it: its answer would undo a later step."""


def _window(window: str | tuple[float, float]) -> tuple[float, float]:
    if isinstance(window, str):
        if window not in WINDOWS:
            raise ValueError(f"window {window!r}: expected one of {', '.join(WINDOWS)}, or (level, "
                             "width) in HU")
        return WINDOWS[window]
    level, width = map(float, window)
    if not (np.isfinite([level, width]).all() and width > 0):
        raise ValueError(f"window {window}: expected (level, width) in HU, width above 0")
    return level, width


class CTViewer(WithStill, anywidget.AnyWidget):
    """A scan with its masks.

    Other widgets and cells read and set these traits (`observe`, `link`):

    Attributes
    ----------
    cursor
        Voxel (z, y, x) under the cross-hair.
    plane
        The large picture: `axial`, `coronal` or `sagittal`.
    slice_index
        Of the large picture; the cursor's place along the plane's axis.
    window
        (level, width), HU.
    visible
        Reader -> classes that are shown.
    layout_mode
        `overlay`, `side by side` or `agreement` (the reference against the other reader).
    outline, opacity
        Masks as lines or filled; how much of the CT they cover, 0 to 1.
    message
        A line of words under the pictures, such as where a linked scan ends.
    """

    _esm = script("viewer.js", "view.js")
    _css = STATIC / "viewer.css"

    info = traitlets.Dict().tag(sync=True)
    first = traitlets.List().tag(sync=True)
    mark = traitlets.Unicode().tag(sync=True)
    message = traitlets.Unicode().tag(sync=True)
    cursor = traitlets.List(traitlets.Int(), minlen=3, maxlen=3, default_value=[0, 0, 0]).tag(
        **OF_THE_READER)
    plane = traitlets.Enum(PLANES, default_value="axial").tag(**OF_THE_READER)
    slice_index = traitlets.Int(0).tag(**OF_THE_READER)
    window = traitlets.List(traitlets.Float(), minlen=2, maxlen=2,
                            default_value=list(WINDOWS["lung"])).tag(**OF_THE_READER)
    visible = traitlets.Dict().tag(**OF_THE_READER)
    layout_mode = traitlets.Enum(LAYOUTS, default_value="overlay").tag(**OF_THE_READER)
    outline = traitlets.Bool(False).tag(**OF_THE_READER)
    opacity = traitlets.Float(0.5, min=0.0, max=1.0).tag(**OF_THE_READER)

    def __init__(self, scan: Scan, masks: Mapping[str, np.ndarray], pair: tuple[str, str] | None,
                 note: str = "", **traits: Any) -> None:
        self.scan, self.masks, self.pair, self.note = scan, dict(masks), pair, note
        start = [n // 2 for n in scan.shape]
        shown = self.masks.get(pair[0]) if pair else next(iter(self.masks.values()), None)
        if shown is not None and shown.any():
            start[0] = choose_slice(shown)
            start[1:] = (round(float(np.mean(place))) for place in np.nonzero(shown[start[0]]))
        super().__init__(
            info=self._describe(), cursor=start, slice_index=start[0],
            first=[encode(scan.hu, self.masks, plane, index)
                   for plane, index in zip(PLANES, start, strict=True)],
            visible={name: [] if name == LUNGS else [label.name for label in LABELS[1:]]
                     for name in self.masks}, **traits)
        self.on_msg(self._answer)

    def _describe(self) -> dict[str, Any]:
        scan = self.scan
        lesions = {name: labels for name, labels in self.masks.items() if name != LUNGS}
        return {
            "case_id": scan.case_id, "note": self.note, "shape": list(scan.shape),
            "affine": scan.affine.tolist(),
            "planes": {plane: {"letters": LETTERS[plane], "axis": axis,
                               "pixel_mm": pixel_mm(scan.spacing_mm, plane)}
                       for axis, plane in enumerate(PLANES)},
            "readers": list(self.masks), "lungs": LUNGS, "pair": self.pair,
            "classes": [{"code": label.code, "name": label.name, "title": label.title,
                         "colour": label.colour} for label in LABELS[1:]],
            "lung_colour": COLOURS["lung"], "titles": TITLES, "windows": WINDOWS,
            "layouts": LAYOUTS if self.pair else LAYOUTS[:1],
            "agreement": [{"name": name, "colour": AGREEMENT_COLOURS[name]} for name in AGREEMENT],
            "profile": profile(lesions, scan.voxel_mm3),
            "comparison": compare(*(self.masks[name] for name in self.pair), scan.voxel_mm3)
            if self.pair else None,
        }

    def _answer(self, _: Any, content: dict[str, Any], buffers: list[bytes]) -> None:
        """Slices that the browser asks for."""
        if content.get("kind") != "slices":
            return
        plane = content["plane"]
        n = self.scan.shape[PLANES.index(plane)]
        found = [encode(self.scan.hu, self.masks, plane, index)
                 for index in content["indices"] if 0 <= index < n]
        data = [slice_.pop("data") for slice_ in found]
        self.send({"kind": "slices", "slices": found}, buffers=data)

    @traitlets.validate("cursor")
    def _cursor_inside(self, proposal: Any) -> list[int]:
        return self.inside(proposal["value"])

    def inside(self, voxel: list[int]) -> list[int]:
        """A voxel (z, y, x) of the scan, as it was given.

        Raises
        ------
        TraitError
            It is none.
        """
        for value, n, axis in zip(voxel, self.scan.shape, "zyx", strict=True):
            if not 0 <= value < n:
                raise traitlets.TraitError(f"cursor: {axis} is {value}, expected 0 to {n - 1}")
        return voxel

    @traitlets.validate("slice_index")
    def _in_scan(self, proposal: Any) -> int:
        n = self.scan.shape[PLANES.index(self.plane)]
        if not 0 <= proposal["value"] < n:
            raise traitlets.TraitError(f"slice_index {proposal['value']}: the {self.plane} plane "
                                       f"has 0 to {n - 1}")
        return proposal["value"]

    @traitlets.observe("slice_index")
    def _move_cursor(self, change: Any) -> None:
        axis = PLANES.index(self.plane)
        if self.cursor[axis] != change["new"]:
            self.cursor = [*self.cursor[:axis], change["new"], *self.cursor[axis + 1:]]

    @traitlets.observe("cursor", "plane")
    def _move_slice(self, _: Any) -> None:
        self.slice_index = self.cursor[PLANES.index(self.plane)]

    def still(self) -> Any:
        """The same view as a figure: case, slices, window and masks, for paper and for print."""
        lesions = [name for name in self.masks if name != LUNGS and self.visible.get(name)]
        planes = []
        for plane, index in zip(PLANES, self.cursor, strict=True):
            marks = {name: cut(self.masks[name], plane, index) for name in lesions}
            planes.append({"title": f"{plane.capitalize()} {index}",
                           "hu": cut(self.scan.hu, plane, index), "marks": marks,
                           "pixel_mm": pixel_mm(self.scan.spacing_mm, plane),
                           "letters": LETTERS[plane]})
        agreement = None
        if self.layout_mode == "agreement" and self.pair:
            agreement = [agreement_map(*(cut(self.masks[name], plane, index)
                                         for name in self.pair))
                         for plane, index in zip(PLANES, self.cursor, strict=True)]
        return draw_planes(planes, case_id=self.scan.case_id, window=tuple(self.window),
                           agreement=agreement, pair=self.pair, note=self.note)


def as_labels(name: str, mask: Any, scan: Scan) -> np.ndarray:
    """The codes [z, y, x] of a mask, its path, an array or the lungs, on the scan's grid.

    Raises
    ------
    ValueError
        Another grid, or codes that are not known.
    """
    if isinstance(mask, (str, os.PathLike)):
        mask = read_mask(mask, scan)
    if isinstance(mask, LungMask):
        mask = mask.mask.astype(np.uint8)
    labels = mask.labels if isinstance(mask, LesionMask) else np.asarray(mask)
    if labels.shape != scan.shape:
        raise ValueError(f"mask {name!r}: shape {labels.shape}, expected the scan's {scan.shape} "
                         "(z, y, x). Give the mask of this scan, or resample it onto its grid")
    if labels.dtype.kind not in "bui" or labels.min(initial=0) < 0 \
            or labels.max(initial=0) >= len(LABELS):
        raise ValueError(f"mask {name!r}: expected whole codes from 0 to {len(LABELS) - 1} "
                         f"({', '.join(f'{label.code} {label.name}' for label in LABELS)}), found "
                         f"{labels.dtype} from {labels.min(initial=0)} to {labels.max(initial=0)}")
    return labels.astype(np.uint8, copy=False)


def as_scan(scan: Any, series: str | None = None) -> Scan:
    """A scan, or the one at a path.

    Raises
    ------
    ValueError
        It is neither, or holds values that are no numbers.
    """
    if isinstance(scan, (str, os.PathLike)):
        return read_scan(scan, series=series)
    if not isinstance(scan, Scan):
        raise ValueError(f"scan: a {type(scan).__name__}, expected a Scan or the path of one. An "
                         "array knows no millimetres: use "
                         "Scan(hu, Grid.upright(hu.shape, spacing_mm), case_id)")
    if scan.hu.dtype.kind == "f" and not np.isfinite(scan.hu).all():
        raise ValueError(f"scan {scan.case_id!r}: {int((~np.isfinite(scan.hu)).sum())} voxels are "
                         "NaN or infinite, expected HU. Fill them with -1024")
    return scan


def view_ct(
    scan: Scan | str | os.PathLike, masks: Mapping[str, Any] | Any = None, *,
    lungs: LungMask | None = None, reference: str | None = None, series: str | None = None,
    backend: str = "builtin", window: str | tuple[float, float] = "lung", layout: str = "overlay",
    note: str = "",
) -> Any:
    """Look at a CT in a notebook, with any readers' masks.

    Parameters
    ----------
    scan
        A `Scan`, or the path of one.
    masks
        Reader -> `LesionMask`, path, or label array [z, y, x]; or one of these alone.
    lungs
        The lungs, hidden at first.
    reference
        The reader that the others are compared with; default: the first. The comparison is with
        the next one in `masks`.
    series
        Which DICOM series, where a folder holds several: its number or UID.
    backend
        `builtin`, or `itkwidgets` or `niivue` where those are installed (`docs/widgets.md`).
    window
        A name of `WINDOWS`, or (level, width) in HU.
    layout
        `overlay`, `side by side` or `agreement`; the last two need two masks.
    note
        Words that stand with every picture, such as "synthetic cohort".

    Raises
    ------
    ValueError
        A mask on another grid or with unknown codes, an unusable scan, too many masks, unknown
        names; the message says which, what was expected, and the remedy.
    """
    scan = as_scan(scan, series)
    if masks is None:
        masks = {}
    elif not isinstance(masks, Mapping):
        masks = {"mask": masks}
    labels = {str(name): as_labels(str(name), mask, scan) for name, mask in masks.items()}
    if reference is not None and reference not in labels:
        raise ValueError(f"reference {reference!r}: expected one of {', '.join(labels) or 'none'}")
    names = list(labels)
    if reference is not None:
        names.sort(key=lambda name: name != reference)
    if lungs is not None:
        labels[LUNGS] = as_labels(LUNGS, lungs, scan)
    if len(labels) > MOST_MASKS:
        raise ValueError(f"{len(labels)} masks ({', '.join(labels)}): expected at most "
                         f"{MOST_MASKS}. Leave some out")
    pair = (names[0], names[1]) if len(names) > 1 else None
    if layout not in LAYOUTS or (layout != "overlay" and pair is None):
        raise ValueError(f"layout {layout!r}: expected one of {', '.join(LAYOUTS)}; the last two "
                         "need two masks")
    viewer = CTViewer(scan, labels, pair, note, window=list(_window(window)), layout_mode=layout)
    if backend == "builtin":
        return viewer
    first = next(iter(viewer.masks.values()), None)
    view = View(scan, first, tuple(viewer.window), viewer.opacity)
    return show_elsewhere(backend, view, viewer.still())


def link_views(*viewers: CTViewer) -> Callable[[], None]:
    """Let viewers of several scans go together, by millimetres of the scans' own space.

    Where another scan ends before this one its viewer stays at its last voxel and says how many
    millimetres are missing. Scans of one patient taken at different times share a table, not a
    breath: the places are alike, not the same.

    Returns
    -------
    callable
        Undoes the link.

    Raises
    ------
    ValueError
        Fewer than two viewers, or scans that have no millimetre in common.
    """
    if len(viewers) < 2:
        raise ValueError(f"{len(viewers)} viewers: expected two or more to go together")
    first = viewers[0].scan
    for other in viewers[1:]:
        low, high = zip(*(_ends_mm(scan) for scan in (first, other.scan)), strict=True)
        if (np.max(low, axis=0) > np.min(high, axis=0)).any():
            raise ValueError(f"scans {first.case_id!r} and {other.scan.case_id!r} have no place "
                             f"in common: {_box(*_ends_mm(first))} and "
                             f"{_box(*_ends_mm(other.scan))} mm (RAS). Link scans of one patient "
                             "whose files tell where they lie")
    following = False

    def follow(change: Any) -> None:
        nonlocal following
        if following:
            return
        following = True
        try:
            moved = change["owner"]
            moved.message = ""
            place = moved.scan.affine @ [*moved.cursor[::-1], 1]
            for viewer in viewers:
                if viewer is moved:
                    continue
                scan = viewer.scan
                x, y, z, _ = np.linalg.inv(scan.affine) @ place
                wanted = np.array([z, y, x])
                cursor = np.clip(np.rint(wanted), 0, np.array(scan.shape) - 1)
                beyond = np.maximum(np.abs(wanted - cursor) - 0.5, 0) * scan.spacing_mm
                viewer.cursor = [int(k) for k in cursor]
                far = float(beyond.max())
                viewer.message = f"{scan.case_id} ends here, {far:.0f} mm before " \
                    f"{moved.scan.case_id}" if far > 0.5 else ""
        finally:
            following = False

    for viewer in viewers:
        viewer.observe(follow, "cursor")
    follow({"owner": viewers[0]})

    def undo() -> None:
        for viewer in viewers:
            viewer.unobserve(follow, "cursor")
            viewer.message = ""
    return undo


def _ends_mm(scan: Scan) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest place of a voxel's centre along each of R, A and S, mm."""
    corners = np.array([[x, y, z, 1] for z in (0, scan.shape[0] - 1)
                        for y in (0, scan.shape[1] - 1) for x in (0, scan.shape[2] - 1)])
    places = (corners @ scan.affine.T)[:, :3]
    return places.min(axis=0), places.max(axis=0)


def _box(low: np.ndarray, high: np.ndarray) -> str:
    return ", ".join(f"{a:.0f} to {b:.0f}" for a, b in zip(low, high, strict=True))


def view_case(run: Run, cohort: str, case_id: str, **options: Any) -> Any:
    """A case of a finished run: CT, expert, automatic, lungs; options as `view_ct`.

    Raises
    ------
    FileNotFoundError
        The case has not been measured yet.
    """
    case, automatic = read_reading(run, cohort, case_id)
    options.setdefault("note", f"synthetic cohort · {run.run_id}" if run.synthetic else run.run_id)
    return view_ct(case.scan, {"expert": case.expert, "automatic": automatic}, lungs=case.lungs,
                   reference="expert", **options)
