"""A page of one result: what to mind first, then pictures, volumes and what made them.

One file without anything outside of it; it opens without internet and prints on two A4 pages.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from deeplung_nb import __version__
from deeplung_nb.labels import COLOURS, LESION_STRUCTURES, LOBES, REGIONS, TITLES, structure_mask
from deeplung_nb.reading.preview import draw_planes, draw_strip
from deeplung_nb.reading.segment import Segmentation
from deeplung_nb.reading.uncertainty import likely_words
from deeplung_nb.report.numbers import MISSING, fixed

BINS_HU = np.arange(-1050, 301, 25)
WIDE, TALL = 720, 190
"""Of the histogram, in its own units."""
PLANES = ("The slice with the most lesion, without and with its mask, and the coronal and sagittal "
          "planes through it; the patient's right is at the left. Blue: ground glass; yellow: high "
          "opacity (consolidation, effusion).")
STRIP = "Slices from the base of the lungs to their top, with their numbers."
STYLE = """
:root { color-scheme: light }
body { font: 14px/1.45 system-ui, "DejaVu Sans", Verdana, sans-serif; color: #1a1a1a;
  background: #fff; max-width: 820px; margin: 0 auto; padding: 16px }
h1 { font-size: 20px; margin: 0 } h2 { font-size: 16px; margin: 18px 0 6px }
p { margin: 4px 0 } img { width: 100%; display: block }
.not { color: #595959 }
.warn { border-left: 4px solid #a33500; padding: 4px 10px; background: #fff4ee }
.warn li { margin: 2px 0 } .warn ul { margin: 2px 0; padding-left: 18px }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: 13px }
th, td { padding: 2px 8px; text-align: right; border-bottom: 1px solid #ddd }
th:first-child { text-align: left } caption { text-align: left; color: #595959; padding: 2px 0 }
.facts td { text-align: left; word-break: break-word } .facts th { text-align: left; width: 30% }
svg { width: 100%; height: auto }
@media print { body { font-size: 10.5pt; padding: 0; max-width: none } h2 { break-after: avoid }
  table { font-size: 9.5pt } figure, table, .warn { break-inside: avoid }
  @page { size: A4; margin: 13mm } }
figure { margin: 6px 0 } figcaption { color: #595959; font-size: 12px }
"""


def make_page(result: Segmentation) -> str:
    """The page as HTML."""
    rows = {row["structure"]: row for row in result.table.to_dict("records")}
    labels, lungs = result.mask.labels, result.lungs.mask if result.lungs is not None else None
    scan, made = result.scan, result.provenance
    parts = [
        warnings_html(result.warnings),
        figure_html(draw_planes(scan, labels, lungs), PLANES),
        figure_html(draw_strip(scan, labels, lungs), STRIP),
        "<h2>Volumes</h2>", _volumes(rows), _likely(made.get("likely_lesion")),
        "<h2>Where</h2>", _regions(rows),
        "<h2>Density</h2>", _histogram(result), _density(rows),
        "<h2>What made it</h2>", _facts(result)]
    return whole_page(result.case_id, "lesions", parts)


def whole_page(case_id: str, what: str, parts: Sequence[str]) -> str:
    """Parts as one HTML file, with its head and what it is not."""
    name = escape(case_id)
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{name}: {what}</title><style>{STYLE}</style></head><body><main>"
            f"<h1>{name}</h1><p class=\"not\">Automatic measurement of COVID-19 pneumonia, for "
            f"research. Not a medical device: no diagnosis or treatment may rest on it.</p>"
            + "\n".join(part for part in parts if part) + "</main></body></html>\n")


def warnings_html(warnings: Sequence[str]) -> str:
    """What to mind, before any number."""
    if not warnings:
        return "<p>No warnings.</p>"
    listed = "".join(f"<li>{escape(one)}</li>" for one in warnings)
    return (f'<section class="warn"><b>{len(warnings)} to mind before any number</b>'
            f"<ul>{listed}</ul></section>")


def figure_html(picture: Image.Image, words: str) -> str:
    """A picture with its words, within the page."""
    data = io.BytesIO()
    picture.save(data, format="PNG")
    coded = base64.b64encode(data.getvalue()).decode()
    return (f'<figure><img alt="{escape(words, quote=True)}" src="data:image/png;base64,{coded}">'
            f"<figcaption>{escape(words)}</figcaption></figure>")


def table_html(head: list[str], rows: list[list[str]], caption: str = "", kind: str = "") -> str:
    """Of text that is ready; the first column names the rows."""
    top = "".join(f'<th scope="col">{escape(one)}</th>' for one in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(one)}</td>" for one in rest) + "</tr>" for first, *rest in rows)
    return (f'<div class="scroll" tabindex="0"><table class="{kind}">'
            + (f"<caption>{escape(caption)}</caption>" if caption else "")
            + (f"<thead><tr>{top}</tr></thead>" if head else "")
            + f"<tbody>{body}</tbody></table></div>")


def _share(part: Any, whole: Any) -> str:
    return fixed(100 * part / whole) if whole and whole > 0 else MISSING


def _volumes(rows: dict[str, dict[str, Any]]) -> str:
    names = [name for name in ("lung", *LESION_STRUCTURES) if name in rows]
    return table_html(
        ["", "mL", "% of the lungs", "mean HU", "lesions", "largest, mL", "slices"],
        [[TITLES[name], fixed(row["volume_ml"]), fixed(row.get("burden_percent")),
          fixed(row["mean_hu"], 0), fixed(row.get("n_lesions"), 0),
          fixed(row.get("largest_lesion_ml")), f"{row['slices_with']} of {row['n_slices']}"]
         for name in names for row in [rows[name]]],
        "Lesions: connected, of 0.1 mL or more. " + _opacity(rows.get("lesion", {})))


def _opacity(lesion: dict[str, Any]) -> str:
    if not np.isfinite(lesion.get("po_percent", np.nan)):
        return "Without a lung mask there are no shares of the lungs."
    severity = lesion.get("severity_25", np.nan)
    said = (f"Percentage of opacity {fixed(lesion['po_percent'])} %, of high opacity (−200 HU and "
            f"above) {fixed(lesion['pho_percent'])} %, both within the lung mask.")
    return said + (f" Severity score {severity:.0f} of 25." if np.isfinite(severity) else "")


def _likely(likely: dict[str, Any] | None) -> str:
    if likely is None:
        return ("<p>How far this network is from an expert is not known well enough to give a "
                "range here.</p>")
    words = likely_words(likely)
    return f"<p>{escape(words[:1].upper() + words[1:])}.</p>"


def _regions(rows: dict[str, dict[str, Any]]) -> str:
    lung, lesion = rows.get("lung"), rows.get("lesion")
    if lung is None or lesion is None:
        return "<p>No lungs were found: no regions.</p>"
    names = {**REGIONS, **LOBES}
    known = [name for name in names if np.isfinite(lesion.get(f"volume_{name}_ml", np.nan))]
    return table_html(
        ["", "lung, mL", "ground glass, mL", "high opacity, mL", "any lesion, mL", "% ill"],
        [[names[name].capitalize(), *(fixed(rows[one].get(f"volume_{name}_ml"))
                                      for one in ("lung", *LESION_STRUCTURES)),
          _share(lesion[f"volume_{name}_ml"], lung[f"volume_{name}_ml"])] for name in known],
        "Thirds of the lungs' height; peripheral: within 20 mm of their surface, or outside of "
        "the lung mask.")


def _density(rows: dict[str, dict[str, Any]]) -> str:
    keys = ("hu_p05", "hu_p25", "hu_p50", "hu_p75", "hu_p95")
    return table_html(["HU", "5 %", "25 %", "median", "75 %", "95 %", "mean"],
                  [[TITLES[name], *(fixed(row.get(key), 0) for key in (*keys, "mean_hu"))]
                   for name, row in rows.items()])


def _histogram(result: Segmentation) -> str:
    """Densities of the lungs, and of both classes in them, as SVG."""
    parts = {name: structure_mask(result.mask.labels, name) for name in ("ggo", "high_opacity")}
    whole = result.lungs.mask | (result.mask.labels > 0) if result.lungs is not None \
        else result.mask.labels > 0
    if not whole.any():
        return ""
    ml = result.scan.voxel_mm3 / 1000

    def counts(mask: np.ndarray) -> np.ndarray:
        inside = np.clip(result.scan.hu[mask], BINS_HU[0], BINS_HU[-1] - 1)
        return np.histogram(inside, BINS_HU)[0] * ml

    heights = {"lung": counts(whole), **{name: counts(mask) for name, mask in parts.items()}}
    most = max(float(heights["lung"].max()), 1e-9)
    step, floor = WIDE / (len(BINS_HU) - 1), TALL - 24
    bars = []
    for name, values in heights.items():
        for k, value in enumerate(values):
            if value > 0:
                tall = (floor - 8) * value / most
                bars.append(f'<rect x="{k * step + 20:.1f}" y="{floor - tall:.1f}" '
                            f'width="{step - 1:.1f}" height="{tall:.1f}" fill="{COLOURS[name]}" '
                            f'fill-opacity="{0.55 if name == "lung" else 0.85}"/>')
    ticks = "".join(
        f'<text x="{(hu - BINS_HU[0]) / 25 * step + 20:.1f}" y="{TALL - 6}" font-size="12" '
        f'text-anchor="middle" fill="#333">{hu}</text>'
        for hu in range(-1000, 301, 200))
    words = ("How many mL of the lungs have which density (grey), and of these ground glass (blue) "
             "and high opacity (yellow); HU, bins of 25.")
    return (f'<figure><svg viewBox="0 0 {WIDE + 40} {TALL}" role="img" '
            f'aria-label="{escape(words, quote=True)}">{"".join(bars)}'
            f'<line x1="20" y1="{floor}" x2="{WIDE + 20}" y2="{floor}" stroke="#333"/>'
            f"{ticks}</svg><figcaption>{escape(words)} The tallest bar is {most:,.0f} mL."
            "</figcaption></figure>")


def _facts(result: Segmentation) -> str:
    made, scan = result.provenance, result.scan
    network = made["network"]
    spacing = " × ".join(f"{mm:.4g}" for mm in scan.spacing_mm)
    return table_html([], [
        ["Scan", f"{scan.n_slices} slices of {scan.shape[1]} × {scan.shape[2]}, {spacing} mm "
                 f"(between slices, rows, columns), SHA-256 {str(made['scan']['sha256'])[:16]}…"],
        ["Lungs", {"network": "marked by the network", "built-in": "found by threshold",
                   "reference": "given"}.get(made["lungs"], made["lungs"] or "not found")],
        ["Network", f"{network['name']}, SHA-256 {network['sha256'][:16]}…"],
        ["Trained on", network["trained_on"]],
        ["Software", f"deeplung_nb {__version__}"],
        ["Made", made["created"]]], kind="facts")
