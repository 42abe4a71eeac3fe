"""Upside down, back to front, turned, mirrored? Whether a scan lies as its file says.

The shape of the lungs tells, where they are healthy; where windpipe, spine or body, which no
disease moves, say otherwise, they are believed.
"""

from __future__ import annotations

import numpy as np

from deeplung_nb.imaging.anatomy import (
    SIDES,
    Chest,
    airway_from_ends_mm,
    spine_behind,
    width_over_depth,
)

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
"""See `anatomy.spine_behind`: 0.14 to 0.34 in docs/anatomy.md."""
BACK_SCORE = -1.0
"""See `_back_score`: 2.5 to 4.5 in the six CTs of MedSeg data set 2 and in two other chests."""
HEART_LEFT_MM = -4.0
"""How far the lungs' gap lies to the left of the middle, lower half: 1 to 13 mm in those."""


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


def _head_at(chest: Chest) -> str:
    """`top`, `bottom` or, where the windpipe does not tell, `unknown`."""
    top, bottom = airway_from_ends_mm(chest)
    if top >= AIRWAY_MM and top > AIRWAY_MORE * bottom:
        return "top"
    return "bottom" if bottom >= AIRWAY_MM and bottom > AIRWAY_MORE * top else "unknown"


def orientation(chest: Chest, lungs: np.ndarray) -> tuple[list[str], list[str]]:
    """What speaks against the orientation of a scan.

    Parameters
    ----------
    chest
        The scan.
    lungs
        bool [z, y, x], foot to head, the slices in which the chest shows lungs worth the name.

    Returns
    -------
    (errors, warnings)
        A sentence each.
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
            return errors, warnings
    body = chest.body
    cut = np.minimum(body[:, :2].any(axis=1).sum(axis=1), body[:, -2:].any(axis=1).sum(axis=1))
    share_cut = float((cut > body.shape[2] / 4).mean())
    if (head_at != "top"
            and share_cut > (CUT_SLICES if apex_over_base > NOT_AXIAL else CUT_SLICES_ALONE)):
        errors.append(f"upper and lower edge of the picture cut the body in {share_cut:.0%} of the "
                      "slices, expected none: the slices are coronal or sagittal, against what "
                      "the file says")
        return errors, warnings
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
    left = _heart_left_mm(lungs, chest.middle[1], pixel_mm[1])
    # Of a lung that is missing in part, the heart's place can't be told.
    if left is not None and left < HEART_LEFT_MM and not lopsided:
        warnings.append(f"the heart lies {-left:.0f} mm to the right: the scan is mirrored against "
                        "what the file says, or the patient is (situs inversus, effusion)")
    return errors, warnings
