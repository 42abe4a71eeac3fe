"""A picture of a result: where the lesions are, at a glance; what is odd shows before any number.

Everything is drawn in true proportions, as radiologists look at it: the patient's right at the
picture's left, axial slices from below, coronal and sagittal with the head up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from deeplung_nb.imaging.lungs import LungMask
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.labels import COLOURS, LABELS, TITLES

WINDOW_HU = (-1150.0, 350.0)
"""Level -400, width 1500: the lung window."""
OPACITY = 0.5
TALLEST_MM_RATIO = 1.6
STRIP = 8
WIDTH, GAP, MARGIN, LINE = 1200, 8, 20, 24
PAPER, INK, FAINT, ALARM = "#ffffff", "#1a1a1a", "#666666", "#a33500"


def worst_place(labels: np.ndarray, lungs: np.ndarray | None = None) -> tuple[int, int, int]:
    """(z, y, x) in the middle of the slice with the most lesion; without any that of the lungs."""
    for mask in (labels > 0, lungs):
        if mask is not None and mask.any():
            z = int(mask.sum(axis=(1, 2)).argmax())
            y, x = (int(np.median(places)) for places in np.nonzero(mask[z]))
            return z, y, x
    depth, height, width = labels.shape
    return depth // 2, height // 2, width // 2


def draw_plane(hu: np.ndarray, labels: np.ndarray | None, sides_mm: tuple[float, float],
               width: int | None = None, height: int | None = None) -> Image.Image:
    """One plane, its mask coloured, in true proportions.

    Parameters
    ----------
    hu, labels
        [rows, columns], from the top and the left of the picture; None: without a mask.
    sides_mm
        Of a pixel, (row, column).
    width, height
        Of the picture, pixels: one of them.
    """
    low, high = WINDOW_HU
    grey = np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1)
    picture = np.repeat(grey[..., None], 3, axis=2)
    for label in LABELS[1:] if labels is not None else ():
        where = labels == label.code
        colour = np.array(ImageColor.getrgb(label.colour), np.float32) / 255
        picture[where] = (1 - OPACITY) * picture[where] + OPACITY * colour
    tall = hu.shape[0] * sides_mm[0] / (hu.shape[1] * sides_mm[1])
    if width is None:
        width = max(1, round((height or 1) / tall))
    size = (width, height or max(1, round(width * tall)))
    return Image.fromarray((255 * picture).astype(np.uint8)).resize(
        size, Image.Resampling.BICUBIC)


def planes(scan: Scan, labels: np.ndarray, place: tuple[int, int, int]
           ) -> dict[str, tuple[np.ndarray, np.ndarray, tuple[float, float]]]:
    """Axial, coronal and sagittal through a place: HU, labels, mm of a pixel (row, column)."""
    (z, y, x), (dz, dy, dx) = place, scan.spacing_mm
    up = slice(None, None, -1)  # the head at the top
    return {"axial": (scan.hu[z], labels[z], (dy, dx)),
            "coronal": (scan.hu[up, y], labels[up, y], (dz, dx)),
            "sagittal": (scan.hu[up, :, x], labels[up, :, x], (dz, dy))}


def draw_planes(scan: Scan, labels: np.ndarray, lungs: np.ndarray | None,
                width: int = WIDTH) -> Image.Image:
    """The worst slice without and with its mask, and coronal and sagittal through it."""
    views = planes(scan, labels, worst_place(labels, lungs))
    axial, coronal, sagittal = views.values()
    shown = [(axial[0], None, axial[2]), axial, coronal, sagittal]
    ratios = [hu.shape[1] * mm[1] / (hu.shape[0] * mm[0]) for hu, _, mm in shown]
    height = min(int((width - 3 * GAP) / sum(ratios)), 420)
    pictures = [draw_plane(*one, height=height) for one in shown]
    return _in_a_row(pictures, width)


def draw_strip(scan: Scan, labels: np.ndarray, lungs: np.ndarray | None,
               width: int = WIDTH) -> Image.Image:
    """Slices from the base to the top of the lungs, at even distances, each with its height."""
    where = lungs if lungs is not None and lungs.any() else np.ones((scan.n_slices, 1, 1), bool)
    found = np.flatnonzero(where.any(axis=(1, 2)))
    chosen = np.unique(np.linspace(found[0], found[-1], STRIP + 2)[1:-1].round().astype(int))
    each = (width - GAP * (STRIP - 1)) // STRIP
    pictures = []
    for z in chosen:
        picture = draw_plane(scan.hu[z], labels[z], scan.spacing_mm[1:], width=each)
        ImageDraw.Draw(picture).text((4, 2), f"{z + 1}", fill="#ffffff", font=font(13))
        pictures.append(picture)
    return _in_a_row(pictures, width)


def draw_preview(case_id: str, scan: Scan, mask: LesionMask, lungs: LungMask | None,
                 volumes_ml: dict[str, float], warnings: Sequence[str], made_by: str
                 ) -> Image.Image:
    """The whole picture: planes, strip, volumes, warnings, and what it is not.

    Parameters
    ----------
    case_id
        What it is called, in the picture too.
    volumes_ml
        Structure -> mL, in the order in which they are named.
    made_by
        Which network and version.
    """
    where = lungs.mask if lungs is not None else None
    parts = [draw_planes(scan, mask.labels, where), draw_strip(scan, mask.labels, where)]
    words = [(case_id, INK, 22)]
    words.append((" · ".join(f"{TITLES[name]} {ml:,.1f} mL" for name, ml in volumes_ml.items()),
                  INK, 18))
    words += [(f"warning: {one}", ALARM, 15) for one in warnings[:4]]
    if len(warnings) > 4:
        words.append((f"and {len(warnings) - 4} more warnings: see the table", ALARM, 15))
    foot = [("Worst slice, with its mask, coronal, sagittal; below, slices from the base to the "
             "top. The patient's right is at the left.", FAINT, 13),
            (f"{made_by}. Not a medical device.", FAINT, 13)]
    head = [piece for line in words for piece in _wrapped(*line)]
    tail = [piece for line in foot for piece in _wrapped(*line)]
    height = sum(part.height + GAP for part in parts) + LINE * (len(head) + len(tail)) + 3 * MARGIN
    picture = Image.new("RGB", (WIDTH + 2 * MARGIN, height), PAPER)
    pen, y = ImageDraw.Draw(picture), MARGIN
    x = MARGIN
    for text, colour, size in head:
        pen.text((x, y), text, fill=colour, font=font(size))
        y += LINE
    y += MARGIN // 2
    for part in parts:
        picture.paste(part, (x, y))
        y += part.height + GAP
    for name in ("ggo", "high_opacity"):
        pen.rectangle((x, y + 6, x + 12, y + 18), fill=COLOURS[name])
        pen.text((x + 18, y + 3), TITLES[name], fill=INK, font=font(13))
        x += 190
    for text, colour, size in tail:
        y += LINE - 4
        pen.text((MARGIN, y), text, fill=colour, font=font(size))
    return picture


def font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _wrapped(text: str, colour: str, size: int) -> list[tuple[str, str, int]]:
    """A text in lines that fit the picture."""
    letters, lines = font(size), [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if letters.getlength(longer) <= WIDTH or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return [(line, colour, size) for line in lines]


def _in_a_row(pictures: Sequence[Image.Image], width: int) -> Image.Image:
    row = Image.new("RGB", (width, max(one.height for one in pictures)), PAPER)
    x = 0
    for one in pictures:
        row.paste(one, (x, 0))
        x += one.width + GAP
    return row
