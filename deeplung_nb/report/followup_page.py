"""A page of one patient's scans: what to mind, what changed, over time, and side by side."""

from __future__ import annotations

from html import escape

import pandas as pd

from deeplung_nb.labels import COLOURS, LESION_STRUCTURES, TITLES
from deeplung_nb.reading.followup import FollowUp, draw_side_by_side
from deeplung_nb.report.numbers import MISSING, fixed
from deeplung_nb.report.patient_page import figure_html, table_html, warnings_html, whole_page

WORDS = {"larger": "yes, larger", "smaller": "yes, smaller", "within error": "no",
         "appeared": "from none", "vanished": "to none", "none": "none in both",
         "unknown": "not known"}
SIDE_BY_SIDE = ("The same heights of the lungs in each scan, from the top; per cent of the lungs' "
                "height from their base, numbers of slices in the pictures, all on one scale. "
                "Blue: ground glass; yellow: high opacity. The patient's right is at the left.")
WIDE, TALL, LEFT, FOOT = 720, 240, 60, 28


def make_followup_page(follow_up: FollowUp, case_id: str) -> str:
    """The page as HTML, one file that needs nothing else."""
    factor = follow_up.smallest_factor
    judged = (f"<p>A change counts where the volume is more than {factor:.2f} times, or less than "
              f"{1 / factor:.2f} times, the one before ({escape(follow_up.because)}).</p>")
    parts = [warnings_html(follow_up.warnings), "<h2>What changed</h2>", judged,
             _changes(follow_up), "<h2>Over time</h2>", _over_time(follow_up),
             "<h2>Side by side</h2>",
             figure_html(draw_side_by_side(follow_up), SIDE_BY_SIDE)]
    return whole_page(case_id, "follow-up", parts)


def _when(follow_up: FollowUp, day: float) -> str:
    return f"day {day:g}" if follow_up.dated else f"scan {day:g}"


def _changes(follow_up: FollowUp) -> str:
    rows = []
    for row in follow_up.table.to_dict("records"):
        ratio = fixed(row["ratio"], 2) if pd.notna(row["ratio"]) else MISSING
        rows.append([f"{TITLES[row['structure']]}, {_when(follow_up, row['from'])} to "
                     f"{_when(follow_up, row['to'])}", fixed(row["before"]), fixed(row["after"]),
                     fixed(row["change"]), ratio, WORDS[row["verdict"]]])
    return table_html(["", "before, mL", "after, mL", "change, mL", "ratio",
                       "larger than readings differ by"], rows)


def _over_time(follow_up: FollowUp) -> str:
    """A line a structure, as SVG."""
    days = follow_up.days
    values = {name: [float(one.table.set_index("structure").loc[name, "volume_ml"])
                     for one in follow_up.results] for name in LESION_STRUCTURES}
    most = max(max(one) for one in values.values()) or 1.0
    span = days[-1] - days[0]

    def x(day: float) -> float:
        return LEFT + (day - days[0]) / span * (WIDE - LEFT - 30)

    def y(ml: float) -> float:
        return TALL - FOOT - ml / most * (TALL - FOOT - 24)

    lines = []
    for name, readings in values.items():
        points = " ".join(f"{x(day):.1f},{y(ml):.1f}"
                          for day, ml in zip(days, readings, strict=True))
        lines.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[name]}" '
                     f'stroke-width="2.5"/>')
        lines += [f'<circle cx="{x(day):.1f}" cy="{y(ml):.1f}" r="4" fill="{COLOURS[name]}"/>'
                  for day, ml in zip(days, readings, strict=True)]
    marks = "".join(f'<text x="{LEFT - 8}" y="{y(ml) + 4:.1f}" font-size="12" text-anchor="end" '
                    f'fill="#333">{ml:,.0f}</text>' for ml in (0, most / 2, most))
    marks += "".join(f'<text x="{x(day):.1f}" y="{TALL - 8}" font-size="12" text-anchor="middle" '
                     f'fill="#333">{_when(follow_up, day)}</text>' for day in days)
    key = "".join(f'<rect x="{LEFT + 190 * k}" y="2" width="12" height="12" '
                  f'fill="{COLOURS[name]}"/><text x="{LEFT + 18 + 190 * k}" y="13" font-size="13" '
                  f'fill="#1a1a1a">{TITLES[name]}</text>'
                  for k, name in enumerate(LESION_STRUCTURES))
    said = "; ".join(f"{TITLES[name]} " + ", ".join(f"{ml:,.1f}" for ml in readings) + " mL"
                     for name, readings in values.items())
    return (f'<figure><svg viewBox="0 0 {WIDE} {TALL}" role="img" aria-label="Volumes over time: '
            f'{escape(said, quote=True)}"><line x1="{LEFT}" y1="{TALL - FOOT}" x2="{WIDE - 30}" '
            f'y2="{TALL - FOOT}" stroke="#333"/>{"".join(lines)}{marks}{key}</svg>'
            f"<figcaption>Volumes, mL.</figcaption></figure>")
