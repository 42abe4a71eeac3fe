"""Is this a chest CT, and does its geometry tell the truth? Asked before anything is measured.

A network marks lesions in whatever it is given, and a wrong header makes any volume out of them.
So a scan is compared with what every chest CT has in common. The limits are wide: they are meant
to catch a brain, a spacing in metres or a file that is upside down, not an unusual patient. A
finding is an error (nothing should be measured) or a warning (the reader should know).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from deeplung_nb.imaging.anatomy import (
    BONE_ABOVE_HU,
    SIDES,
    Chest,
    airway_from_ends_mm,
    missing_lung_ml,
    spine_behind,
    width_over_depth,
)
from deeplung_nb.imaging.errors import ScanError
from deeplung_nb.imaging.lungs import LungMask
from deeplung_nb.imaging.scan import Scan

PIXEL_MM = (0.2, 6.0)
SLICE_GAP_MM = (0.2, 20.0)
FIELD_OF_VIEW_MM = (150.0, 700.0)
"""Rows and columns times their spacing."""
MOST_ANISOTROPY = 1.5
"""Ratio of row to column spacing, and back: axial slices have square pixels."""
MOST_ROUGHNESS = 0.6
"""RMS difference of neighbouring pixels over sqrt(2) SD: 1 is white noise, CT has 0.05 to 0.3."""
SOFT_TISSUE_HU = (-200.0, 250.0)
"""Where the most frequent value above -300 HU lies: fat, muscle, blood."""
LEAST_SOFT_TISSUE = 0.05
LEAST_AIR = 0.02
"""Shares of the voxels within -200 ... 200 HU, and below -700 HU."""
WHOLE_LUNGS_ML = (500.0, 12_000.0)
LUNG_HEIGHT_MM = (90.0, 420.0)
"""Of whole lungs, from the lowest to the highest slice that shows them."""
WHOLE_AT_ENDS = 0.1
"""Lungs are whole in a scan whose end slices show less than this share of their largest area."""
LUNG_MEDIAN_HU = (-990.0, -300.0)
LEAST_SLICES, LEAST_HEIGHT_MM = 6, 100.0
"""What a scan must show of the lungs before their shape is judged."""
SHAPE_AREA = 0.15
"""Their shape is that of the slices with more than this share of their largest area."""
APEX_OVER_BASE = 1.1
"""Width of the lungs in their upper third over that in the lower one: 0.7 to 0.8 in real chests,
1.25 and more upside down, about 1 in coronal slices."""
NOT_AXIAL = 0.85
CUT_SLICES, CUT_SLICES_ALONE = 0.1, 0.3
"""Coronal or sagittal slices that pose as axial: a ratio as above, and the share of slices in which
the upper and the lower edge of the picture both cut the body (0 in axial slices); or this share."""
WIDTH_OVER_DEPTH = 0.9
"""Of the lungs, and of the body, which disease does not narrow: 1.2 to 1.6 in real chests."""
SURELY_AXIAL = 1.1
"""A body so much wider than deep lies as it should, however narrow the lungs."""
AIRWAY_MM, AIRWAY_MORE = 40.0, 1.5
"""A windpipe of this length from one end of the scan, and so many times that from the other, tells
where the head is."""
SPINE_BEHIND, SPINE_IN_FRONT = 0.08, -0.12
"""See `anatomy.spine_behind`: 0.14 to 0.36 in 13 chests."""
LEAST_SURE_LUNG = 0.95
"""Share of what is surely lung that a lung mask must take in: 0.99 and more of the experts' masks,
however ill the lungs; 0.6 to 0.96 of a mask that is mirrored or moved."""
SURE_STEPS, SURE_BELOW_HU = 3, -700.0
"""Surely lung: so many pixels inside the lungs that were found, and so full of air."""
STOMACH = 0.2
"""A part of it with a smaller share, which a mask leaves out wholly, may be gas below the lungs."""
MOST_BONE, MOST_OUTSIDE_BODY = 0.05, 0.05
"""Shares of a lung mask: at most 0.003 of the experts' masks."""
MUCH_MISSING_ML = 100.0
"""See `anatomy.missing_lung_ml`."""
BACK_SCORE = -1.0
"""See `_back_score`: 2.5 to 4.5 in the six CTs of MedSeg data set 2 and in two other chests."""
HEART_LEFT_MM = -4.0
"""How far the lungs' gap lies to the left of the middle, lower half: 1 to 13 mm in those."""


class ImplausibleScan(ScanError):
    """A scan that should not be measured; `reasons` lists why."""

    def __init__(self, case_id: str, reasons: tuple[str, ...]) -> None:
        self.reasons = reasons
        lines = "".join(f"\n  - {reason}" for reason in reasons)
        super().__init__(f"case {case_id!r} is no plausible chest CT:{lines}\nCorrect the file or "
                         "its header. If you know that it is right: --force (its outputs then "
                         "carry the reason)")


@dataclass(frozen=True)
class Findings:
    """What is odd about a scan; empty where nothing is."""

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.errors or self.warnings)


def _some_slices(scan: Scan, most: int = 24) -> np.ndarray:
    """Evenly spaced slices, float32."""
    keep = np.unique(np.linspace(0, scan.n_slices - 1, most).round().astype(int))
    return scan.hu[keep].astype(np.float32)


def _geometry(scan: Scan) -> list[str]:
    gap, row, column = scan.spacing_mm
    found = []
    for what, value, (low, high), remedy in (
            ("distance between slices", gap, SLICE_GAP_MM, "is it in millimetres?"),
            ("pixel height", row, PIXEL_MM, "is it in millimetres?"),
            ("pixel width", column, PIXEL_MM, "is it in millimetres?"),
            ("height of a slice", row * scan.shape[1], FIELD_OF_VIEW_MM, "is it a chest?"),
            ("width of a slice", column * scan.shape[2], FIELD_OF_VIEW_MM, "is it a chest?")):
        if not low <= value <= high:
            found.append(f"{what} {value:.4g} mm, expected {low:g} to {high:g}: {remedy}")
    ratio = max(row, column) / min(row, column)
    if ratio > MOST_ANISOTROPY:
        found.append(f"pixels of {row:.4g} x {column:.4g} mm, expected squares: the slices are "
                     "coronal or sagittal, and the network reads axial ones")
    return found


def _content(scan: Scan) -> list[str]:
    hu = _some_slices(scan)
    found = []
    if min(hu.shape[1:]) > 1:
        steps = np.concatenate([np.diff(hu, axis=1).ravel(), np.diff(hu, axis=2).ravel()])
        roughness = float(np.sqrt(np.square(steps).mean() / 2.0) / max(hu.std(), 1e-6))
        if roughness > MOST_ROUGHNESS:
            found.append(f"neighbouring pixels are hardly alike (roughness {roughness:.2f}, "
                         f"expected below {MOST_ROUGHNESS:g}; noise has 1): is it an image?")
    counts, edges = np.histogram(hu[(hu > -300) & (hu < 1500)], np.arange(-300, 1501, 20))
    peak = float(edges[counts.argmax()]) + 10.0
    low, high = SOFT_TISSUE_HU
    if counts.sum() and not low <= peak <= high:
        found.append(f"most tissue has {peak:g} HU, expected {low:g} to {high:g}: are the values "
                     "HU, with slope and intercept applied?")
    soft, air = float((np.abs(hu) <= 200).mean()), float((hu < -700).mean())
    for share, least, what in ((soft, LEAST_SOFT_TISSUE, "between -200 and 200 HU (soft tissue)"),
                               (air, LEAST_AIR, "below -700 HU (air)")):
        if share < least:
            found.append(f"{share:.1%} of the voxels are {what}, expected at least {least:.0%}: "
                         "are the values HU?")
    return found


def _extent_mm(slice_: np.ndarray, axis: int, mm: float) -> float:
    places = np.flatnonzero(slice_.any(axis=1 - axis))
    return (places[-1] - places[0] + 1) * mm


def _row_mean_mm(slice_: np.ndarray, mm: float) -> float:
    counts = slice_.sum(axis=1)
    return float((counts * np.arange(len(counts))).sum() / counts.sum() * mm)


def _back_score(lungs: np.ndarray, hu: np.ndarray, body: np.ndarray, row_mm: float,
                column_mm: float) -> float:
    """How surely rows run from front to back; below 0, from back to front.

    Of four anatomical signs, each about 1 in a chest the right way round: the spine lies behind
    the lungs' centre; their lowest and their highest parts lie further back than their middle;
    they are wider at the back than in front.
    """
    n = len(lungs)
    k = max(1, n // 6)
    rows = np.array([_row_mean_mm(part, row_mm) for part in lungs])
    middle = rows[n // 3:max(2 * n // 3, n // 3 + 1)].mean()
    dense = min(200.0, float(np.percentile(hu[:, ::2, ::2], 99.5)) - 1.0)
    bone = (hu > dense) & body
    spine = float(np.nonzero(bone)[1].mean()) * row_mm - rows.mean() if bone.any() else 0.0
    front_back = []
    for part in lungs[n // 3:max(2 * n // 3, n // 3 + 1)]:
        found = np.flatnonzero(part.any(axis=1))
        front, back = (part[round(found[0] + share * (found[-1] - found[0]))].nonzero()[0]
                       for share in (0.1, 0.9))
        if len(front) and len(back):
            front_back.append((np.ptp(back) - np.ptp(front)) * column_mm)
    wider = float(np.mean(front_back)) if front_back else 0.0
    return (spine / 30.0 + (rows[:k].mean() - middle) / 30.0
            + (rows[-k:].mean() - middle) / 12.0 + wider / 15.0)


def _heart_left_mm(lungs: np.ndarray, middle: float, column_mm: float) -> float | None:
    """How far the middle of the gap between the lungs lies to the left of the body's, mm."""
    n, at = len(lungs), round(middle)
    offsets = []
    for part in lungs[n // 6:max(n // 2, n // 6 + 1)]:
        for row in part:
            right, left = np.flatnonzero(row[:at]), np.flatnonzero(row[at:])
            if len(right) and len(left):
                offsets.append(((right[-1] + at + left[0]) / 2.0 - middle) * column_mm)
    return float(np.mean(offsets)) if offsets else None


def _lungs(scan: Scan, lungs: LungMask) -> Findings:
    errors, warnings = [], []
    volume = float(lungs.mask.sum()) * scan.voxel_mm3 / 1000.0
    area = lungs.mask.sum(axis=(1, 2), dtype=np.int64)
    if not area.any():
        return Findings((f"the lung mask ({lungs.origin}) is empty: give the mask of this scan, or "
                         "none, and the built-in lungs are used",))
    whole = max(area[0], area[-1]) < WHOLE_AT_ENDS * area.max()
    low, high = WHOLE_LUNGS_ML
    if volume > high or (whole and volume < low):
        errors.append(f"lungs of {volume:.4g} mL, expected {low:g} to {high:g}: is it a whole "
                      "chest, and is the spacing right?")
    height = (np.ptp(np.flatnonzero(area > 0.03 * area.max())) + 1) * scan.spacing_mm[0]
    if whole and not LUNG_HEIGHT_MM[0] <= height <= LUNG_HEIGHT_MM[1]:
        errors.append(f"lungs {height:.4g} mm high, expected {LUNG_HEIGHT_MM[0]:g} to "
                      f"{LUNG_HEIGHT_MM[1]:g}: is the distance between slices right?")
    if not whole:
        warnings.append("the scan does not show the whole lungs: volumes and burden are those of "
                        "the part shown")
    median = float(np.median(scan.hu[lungs.mask]))
    if not LUNG_MEDIAN_HU[0] <= median <= LUNG_MEDIAN_HU[1]:
        errors.append(f"lungs of {median:g} HU (median), expected {LUNG_MEDIAN_HU[0]:g} to "
                      f"{LUNG_MEDIAN_HU[1]:g}: is the lung mask of this scan, and are the values "
                      "HU?")
    chest = Chest.of(scan)
    coarse = chest.coarse(lungs.mask)
    missing = missing_lung_ml(chest, coarse)
    if missing >= MUCH_MISSING_ML:
        warnings.append(f"at least {missing:.0f} mL of the chest cavity are neither air nor heart, "
                        "and outside the lung mask: consolidation, effusion, a missing lung or a "
                        "wrong lung mask. Lung volume and burden leave them out")
    # Not the gas in stomach or bowel that may hang below them.
    found = np.flatnonzero(area > SHAPE_AREA * area.max())
    if len(found) < LEAST_SLICES or np.ptp(found) * scan.spacing_mm[0] < LEAST_HEIGHT_MM:
        return Findings(tuple(errors), tuple(warnings))
    shape = _orientation(chest, coarse[found[0]:found[-1] + 1])
    return Findings((*errors, *shape.errors), (*warnings, *shape.warnings))


def _head_at(chest: Chest) -> str:
    """`top`, `bottom` or, where the windpipe does not tell, `unknown`."""
    top, bottom = airway_from_ends_mm(chest)
    if top >= AIRWAY_MM and top > AIRWAY_MORE * bottom:
        return "top"
    return "bottom" if bottom >= AIRWAY_MM and bottom > AIRWAY_MORE * top else "unknown"


def _orientation(chest: Chest, lungs: np.ndarray) -> Findings:
    """Upside down, back to front, turned, mirrored?

    From the shape of the lungs, [z, y, x] foot to head, unless windpipe, body or spine, which no
    disease moves, say otherwise.
    """
    errors, warnings = [], []
    _, *pixel_mm = chest.voxel_mm
    lungs = lungs[lungs.any(axis=(1, 2))]
    third = max(1, len(lungs) // 3)
    widths = [_extent_mm(one, 1, pixel_mm[1]) for one in lungs]
    depths = [_extent_mm(one, 0, pixel_mm[0]) for one in lungs]
    head_at = _head_at(chest)
    apex_over_base = np.mean(widths[-third:]) / np.mean(widths[:third])
    if head_at != "top" and apex_over_base > (1.0 if head_at == "bottom" else APEX_OVER_BASE):
        errors.append(f"the lungs are {apex_over_base:.2f} times as wide at the top as at the "
                      f"bottom, expected below {APEX_OVER_BASE:g}"
                      f"{', and the windpipe is at the bottom' if head_at == 'bottom' else ''}: "
                      "the slices run from head to feet against what the file says")
    elif head_at == "bottom":
        warnings.append("the windpipe seems to be at the bottom: the slices may run from head to "
                        "feet against what the file says; look at the picture")
    middle = round(chest.middle[1])
    small, large = sorted((lungs[:, :, :middle].sum(), lungs[:, :, middle:].sum()))
    lopsided = small < SIDES[0] * large
    of_body, of_lungs = width_over_depth(chest), np.median(widths) / np.median(depths)
    for what, ratio in (("body is", of_body), ("lungs are", of_lungs)):
        # One lung alone is narrower than two.
        sure = (what == "lungs are" and of_body > SURELY_AXIAL
                and (lopsided or head_at == "top"))
        if ratio < WIDTH_OVER_DEPTH and not sure:
            errors.append(f"the {what} {ratio:.2f} times as wide as deep, expected above "
                          f"{WIDTH_OVER_DEPTH:g}: the slices are turned, or not axial")
            return Findings(tuple(errors))
    body = chest.body
    cut = np.minimum(body[:, :2].any(axis=1).sum(axis=1), body[:, -2:].any(axis=1).sum(axis=1))
    share_cut = float((cut > body.shape[2] / 4).mean())
    if (head_at != "top"
            and share_cut > (CUT_SLICES if apex_over_base > NOT_AXIAL else CUT_SLICES_ALONE)):
        errors.append(f"upper and lower edge of the picture cut the body in {share_cut:.0%} of the "
                      "slices, expected none: the slices are coronal or sagittal, against what "
                      "the file says")
        return Findings(tuple(errors))
    score, spine = _back_score(lungs, chest.hu, body, *pixel_mm), spine_behind(chest)
    behind = spine is not None and spine > SPINE_BEHIND
    in_front = spine is not None and spine < SPINE_IN_FRONT
    if not behind and score < (0.0 if in_front else BACK_SCORE):
        errors.append(f"spine and lungs lie as if front and back were exchanged (score "
                      f"{score:.1f}, expected above {BACK_SCORE:g}): the rows run from back to "
                      "front against what the file says")
    elif in_front or (score < 0 and not behind):
        warnings.append("front and back may be exchanged against what the file says (score "
                        f"{score:.1f}): look at the picture")
    left = _heart_left_mm(lungs, float(np.nonzero(body)[2].mean()), pixel_mm[1])
    # Of a lung that is missing in part, the heart's place can't be told.
    if left is not None and left < HEART_LEFT_MM and not lopsided:
        warnings.append(f"the heart lies {-left:.0f} mm to the right: the scan is mirrored against "
                        "what the file says, or the patient is (situs inversus, effusion)")
    return Findings(tuple(errors), tuple(warnings))


def _cover(mask: np.ndarray, sure: np.ndarray) -> float:
    """Share of what is surely lung that a mask takes in, gas below the lungs left out."""
    parts, n = ndimage.label(sure)
    sizes = np.bincount(parts.ravel(), minlength=n + 1)[1:]
    taken = np.bincount(parts[mask], minlength=n + 1)[1:]
    counts = (taken > 0.05 * sizes) | (sizes > STOMACH * sizes.sum())
    return float(taken[counts].sum() / max(sizes[counts].sum(), 1))


def misfit_of_lungs(scan: Scan, given: LungMask, found: LungMask | None) -> str | None:
    """Why a given lung mask is not of this scan's lungs, or None where nothing speaks against it.

    Judged where disease can't mislead: it must take in what is surely lung, and neither bone nor
    the air around the patient. What else it takes in is its maker's affair.

    Parameters
    ----------
    scan, given
        The CT and the mask that came with it.
    found
        Of the built-in segmenter, or None where it found nothing.
    """
    if not given.mask.any():
        return None  # which `examine` says
    chest = Chest.of(scan)
    mask = chest.coarse(given.mask)
    shares = (("outside the body", ~chest.body, MOST_OUTSIDE_BODY),
              ("bone", (chest.hu > BONE_ABOVE_HU) & chest.within, MOST_BONE))
    for what, where, most in shares:
        share = (mask & where).sum() / max(mask.sum(), 1)
        if share > most:
            return f"{share:.0%} of it is {what}, expected at most {most:.0%}"
    if found is None:
        return None
    lungs = chest.coarse(found.mask)
    sure = (chest.hu < SURE_BELOW_HU) & np.stack(
        [ndimage.binary_erosion(one, iterations=SURE_STEPS) for one in lungs])
    if not sure.any():
        return None
    cover, mirrored = (_cover(one, sure) for one in (mask, mask[:, :, ::-1]))
    dice = 2.0 * (mask & lungs).sum() / (mask.sum() + lungs.sum())
    if cover < LEAST_SURE_LUNG:
        return (f"it takes in {cover:.0%} of what is surely lung, expected at least "
                f"{LEAST_SURE_LUNG:.0%}; Dice {dice:.2f}"
                f"{'; mirrored it would fit' if mirrored >= LEAST_SURE_LUNG else ''}")
    if mirrored > cover + 0.02:
        return (f"mirrored it takes in {mirrored:.0%} of what is surely lung, as it is only "
                f"{cover:.0%}; Dice {dice:.2f}")
    return None


def examine(scan: Scan, lungs: LungMask | None) -> Findings:
    """Compare a scan with what every chest CT has in common.

    Parameters
    ----------
    scan
        The CT, [z, y, x] in memory's order (foot to head, front to back, right to left).
    lungs
        Its lung mask; None where none was found, which is an error by itself.
    """
    errors = [*_geometry(scan), *_content(scan)]
    warnings = []
    if scan.n_slices == 1:
        warnings.append("a single slice: the network sees it in place of its neighbours, and there "
                        "is no whole volume")
    if lungs is None:
        errors.append("no lung was found: is it a chest CT in HU?")
    else:
        found = _lungs(scan, lungs)
        errors += found.errors
        warnings += found.warnings
    return Findings(tuple(errors), tuple(warnings))


def require_plausible(scan: Scan, lungs: LungMask | None, *, force: bool = False) -> Findings:
    """`examine`, and refuse a scan with errors unless `force`.

    Raises
    ------
    ImplausibleScan
        With all reasons.
    """
    findings = examine(scan, lungs)
    if findings.errors and not force:
        raise ImplausibleScan(scan.case_id, findings.errors)
    return findings
