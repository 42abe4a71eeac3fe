"""One HTML file in which viewer and explorer live without a kernel, a server or a network.

The page holds its data packed in itself: the CTs coarser and in 8 bits, the explorer's answers as
`report.states` has computed them. Its one script is allowed by its hash, and may load nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment
from markupsafe import Markup

from deeplung_nb import measurements
from deeplung_nb.files import write_text
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.preprocess import resize_matrix
from deeplung_nb.imaging.scan import Scan
from deeplung_nb.report.explore import Question, first_readers
from deeplung_nb.report.panels import choose_case
from deeplung_nb.report.states import explorer_states
from deeplung_nb.runs import Run
from deeplung_nb.runs.progress import track
from deeplung_nb.widgets.corrector import Corrector
from deeplung_nb.widgets.explorer import AgreementExplorer
from deeplung_nb.widgets.picture import STATIC, script
from deeplung_nb.widgets.planes import BITS
from deeplung_nb.widgets.viewer import CTViewer, view_case

LOWEST_HU, WINDOW_HU = -1024.0, 1624.0
"""What the network sees, and a page keeps: in steps of 6.4 HU."""
MOST_CASE_BYTES, MOST_PAGE_BYTES = 3_000_000, 15_000_000
PIXELS_MM = (0.0, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0)
"""Sizes of pixels that are tried, until a case is small enough; 0: its own."""
MOST_VOXELS = 24_000_000
"""Of a case in a page: a browser unpacks them all at once."""
RULES = ("worst", "median", "best")
TRAITS = ("cursor", "plane", "window", "visible", "layout_mode", "outline", "opacity", "message")
SHOWN_WITHOUT = (".dl-living-still { display: none } @media print { .dl-living { display: none } "
                 ".dl-living-still { display: block } }")
"""The still pictures of a page in a notebook: where it is not alive, and on paper."""

TEMPLATE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src \
'unsafe-inline'; script-src 'sha256-{{ script_hash }}'; base-uri 'none'; form-action 'none'">
<title>{{ title }}</title>
<style>
{{ style }}</style>
</head>
<body>
<header><h1>{{ title }}</h1>
{% for line in banner %}<p class="banner" role="note">{{ line }}</p>
{% endfor %}</header>
<main>
<noscript><p class="banner">This page draws itself by a script of its own, which loads nothing and
keeps nothing; without scripts, see report.html.</p></noscript>
<p id="dp-fault" role="alert"></p>
<section id="dp-explorer"></section>
<section id="dp-viewers"></section>
</main>
<footer>{% for line in words %}<p class="dp-foot">{{ line }}</p>
{% endfor %}</footer>
<script type="application/octet-stream" id="dp-data">{{ data }}</script>
{% for id, volume in volumes %}<script type="application/octet-stream" id="{{ id }}">\
{{ volume }}</script>
{% endfor %}<script type="module">{{ script }}</script>
</body>
</html>
"""


def _packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode()


@dataclass(frozen=True)
class Packed:
    """A viewer as it goes into a page: its state for JSON, and the voxels as text."""

    state: dict[str, Any]
    voxels: str


def _coarser(viewer: CTViewer, pixel_mm: float, every: int) -> tuple[CTViewer, bytes]:
    """The viewer on pixels of about this size and every so many slices; and its voxels as bytes."""
    scan = viewer.scan
    nz, ny, nx = scan.shape
    dz, dy, dx = scan.spacing_mm
    shape: Any = (nz // every, *(max(1, min(n, round(n * mm / pixel_mm))) if pixel_mm else n
                                 for n, mm in ((ny, dy), (nx, dx))))
    by = [float(every), ny / shape[1], nx / shape[2]]
    first = [every // 2, *((step - 1) / 2 for step in by[1:])]  # where the first voxel lies now
    chosen = slice(every // 2, every // 2 + shape[0] * every, every)
    rows, columns = (((np.arange(n) + 0.5) * step).astype(int)
                     for n, step in zip(shape[1:], by[1:], strict=True))
    affine = np.array(scan.affine, float)
    affine[:3, 3] += affine[:3, :3] @ np.array(first[::-1], float)
    affine[:3, :3] *= np.array(by[::-1], float)
    down, across = resize_matrix(ny, shape[1]), resize_matrix(nx, shape[2]).T
    hu = np.stack([down @ part.astype(np.float32) @ across for part in scan.hu[chosen]])
    spacing: Any = tuple(mm * step for mm, step in zip((dz, dy, dx), by, strict=True))
    small = Scan(np.rint(hu).astype(np.int16), Grid.upright(shape, spacing), scan.case_id)
    masks = {name: np.ascontiguousarray(labels[chosen][:, rows[:, None], columns])
             for name, labels in viewer.masks.items()}
    seen = CTViewer(small, masks, viewer.pair, viewer.note)
    for name in TRAITS:
        if name != "cursor":
            setattr(seen, name, getattr(viewer, name))
    seen.cursor = [int(min(max((at + 0.5) // step, 0), n - 1))
                   for at, step, n in zip(viewer.cursor, by, shape, strict=True)]
    info = {**seen.info, "affine": affine.tolist(), "comparison": viewer.info["comparison"],
            "profile": viewer.info["profile"]}
    if every > 1:  # the numbers of the slices that are here; those of the case stay the case's
        def here(values: Any) -> Any:
            return {name: here(value) for name, value in values.items()} \
                if isinstance(values, dict) else values[chosen][:shape[0]]

        info["profile"] = here(info["profile"])
        if info["comparison"]:
            info["comparison"] = {**info["comparison"],
                                  "slices": here(info["comparison"]["slices"])}
    coarse = [f"pixels of {spacing[1]:.1f} × {spacing[2]:.1f} mm"] if by[1:] != [1.0, 1.0] else []
    coarse += [f"every {every}. slice"] * (every > 1)
    info["note"] = " · ".join(filter(None, [viewer.note, *coarse, "HU in steps of 6.4"]))
    seen.info = info
    grey = np.clip((hu - LOWEST_HU) * (255 / WINDOW_HU), 0, 255).round().astype(np.uint8)
    steps = np.diff(grey, axis=2, prepend=np.zeros((*shape[:2], 1), np.uint8))
    labels = np.zeros(shape, np.uint8)
    for place, mask in enumerate(masks.values()):
        labels |= mask.astype(np.uint8) << np.uint8(BITS * place)
    return seen, steps.tobytes() + (labels.tobytes() if masks else b"")


def pack_viewer(viewer: CTViewer, most_bytes: int = MOST_CASE_BYTES) -> Packed:
    """A viewer for a page, as fine as `most_bytes` allow.

    Pixels are means over what they cover, marks those in their middle. Volumes and Dice are those
    of the whole grid. Where coarser pixels do not suffice, slices are left out as well.

    Raises
    ------
    ValueError
        It does not fit at all.
    """
    n = viewer.scan.hu.size
    for every in (1, 2, 4, 8):
        for pixel_mm in PIXELS_MM:
            _, dy, dx = viewer.scan.spacing_mm
            if 0 < pixel_mm <= min(dy, dx):
                continue  # these it has
            share = every * (max(1.0, pixel_mm / dy) * max(1.0, pixel_mm / dx))
            # A byte a voxel packs to a tenth at best: what can't fit is not tried.
            if n / share > min(MOST_VOXELS, 10 * most_bytes):
                continue
            seen, voxels = _coarser(viewer, pixel_mm, every)
            packed = _packed(voxels)
            if len(packed) <= most_bytes:
                state = {"info": seen.info, "slice_index": seen.slice_index, "mark": "",
                         **{name: getattr(seen, name) for name in TRAITS}}
                return Packed(state, packed)
    raise ValueError(f"case {viewer.scan.case_id!r}: {viewer.scan.shape} voxels do not fit into "
                     f"{most_bytes / 1e6:g} MB of a page")


def _script() -> str:
    """The one script of a page: the viewer as in notebooks, and what answers it here."""
    return script("viewer.js", "page.js")


def _render(title: str, viewers: Sequence[tuple[Packed, int | None]],
            explorer: dict[str, Any] | None, banner: Sequence[str], words: Sequence[str]) -> str:
    ids = [f"dp-case-{k}" for k in range(len(viewers))]
    data = {"viewers": [{"id": id_, "number": number, "state": packed.state}
                        for id_, (packed, number) in zip(ids, viewers, strict=True)],
            "explorer": explorer}
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    code = _script()
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return Environment(autoescape=True, trim_blocks=True, keep_trailing_newline=True).from_string(
        TEMPLATE).render(
        title=title, banner=banner, words=words, script=Markup(code), script_hash=digest,
        style=Markup((STATIC / "viewer.css").read_text(encoding="utf-8")
                     + (STATIC / "page.css").read_text(encoding="utf-8")),
        data=_packed(text.encode()),
        volumes=[(id_, packed.voxels) for id_, (packed, _) in zip(ids, viewers, strict=True)])


def _said(n_left: int) -> list[str]:
    more = [f"{n_left} further choices of readers, values and cases were not computed: a notebook "
            "answers them (AgreementExplorer)."] if n_left else []
    return ["What is not offered here was not computed. All statistics were computed when the page "
            "was made; nothing is loaded, stored or sent.", *more]


def save_page(widget: Any, path: str | os.PathLike, title: str = "") -> Path:
    """Save a widget as one HTML file in which it goes on living: by double click, offline.

    Parameters
    ----------
    widget
        A `CTViewer` (of `view_ct`, `view_case`), an `AgreementExplorer`, or a list of such.
    path
        Of the page, which is replaced.
    title
        Its heading; default: what is in it.

    Raises
    ------
    TypeError
        Another widget: it needs a kernel.
    ValueError
        More than a page of 15 MB holds.
    """
    return _write(page_of(widget, title), path)


class LivingPage:
    """A page in a notebook's output, alive without a kernel; `embed` makes one.

    It lives in `nbconvert --to html` and, in a notebook that is trusted, in JupyterLab; elsewhere,
    and on paper, the still pictures of its widgets are what is seen. The notebook's file grows by
    the page, some megabytes with a CT.
    """

    def __init__(self, page: str, height_px: int, stills: Sequence[str] = ()) -> None:
        self.page, self.height_px, self.stills = page, height_px, tuple(stills)

    def _repr_html_(self) -> str:
        # Where a page is not trusted, JupyterLab takes frame and style away, and the stills stay.
        return (f'<style>{SHOWN_WITHOUT}</style><iframe class="dl-living" title="living page" '
                f'srcdoc="{escape(self.page)}" style="width: 100%; height: {self.height_px}px; '
                f'border: 0"></iframe><div class="dl-living-still">{"".join(self.stills)}'
                "<p>A picture of a living page. It comes to life where the notebook is trusted "
                "(JupyterLab: View, Activate Command Palette, Trust Notebook).</p></div>")

    def __repr__(self) -> str:
        return f"LivingPage({len(self.page) / 1e6:.1f} MB)"


def embed(widget: Any, title: str = "", height_px: int = 900) -> LivingPage:
    """The page of `save_page` as a cell's result, for a notebook that is read without a kernel.

    Parameters and errors as `save_page`.
    """
    stills = [one.still() for one in _all_of(widget)]
    return LivingPage(page_of(widget, title), height_px, [
        one._repr_mimebundle_()[0]["text/html"] for one in stills if one is not None])


def _all_of(widget: Any) -> list[Any]:
    return list(widget) if isinstance(widget, (list, tuple)) else [widget]


def page_of(widget: Any, title: str = "") -> str:
    """The page of `save_page` as text, whose parameters and errors these are."""
    widgets = _all_of(widget)
    explorers = [one for one in widgets if isinstance(one, AgreementExplorer)]
    viewers = [one for one in widgets if isinstance(one, CTViewer)
               and not isinstance(one, Corrector)]
    if len(explorers) + len(viewers) < len(widgets) or len(explorers) > 1 or not widgets:
        names = ", ".join(type(one).__name__ for one in widgets) or "nothing"
        raise TypeError(f"{names}: expected CT viewers, and at most one AgreementExplorer. Other "
                        "widgets need a kernel")
    explorer = explorers[0] if explorers else None
    states = None
    if explorer is not None:
        states = explorer_states(explorer.table, explorer.question)
    room = min(MOST_CASE_BYTES, MOST_PAGE_BYTES * 9 // 10 // max(len(viewers), 1))
    packed = [pack_viewer(one, room) for one in viewers]
    numbers: dict[str, int] = {}
    if states is not None:  # a name of two cohorts, or of two viewers, tells no case apart
        names = [one["name"] for one in states["cases"]]
        seen = [one.scan.case_id for one in viewers]
        numbers = {name: k for k, name in enumerate(names)
                   if names.count(name) == 1 and seen.count(name) == 1}
    title = title or " · ".join([*(["Agreement of two readers"] if explorer else []),
                                 *(one.scan.case_id for one in viewers)][:4])
    page = _render(title, [(one, numbers.get(one.state["info"]["case_id"])) for one in packed],
                   states, [], _said(states["left"] if states else 0))
    return _fitting(page)


def _fitting(page: str) -> str:
    if len(page) > MOST_PAGE_BYTES:
        raise ValueError(f"{len(page) / 1e6:.0f} MB, a page holds {MOST_PAGE_BYTES / 1e6:g}. Give "
                         "fewer cases")
    return page


def _write(page: str, path: str | os.PathLike) -> Path:
    target = Path(path)
    write_text(target, page)
    return target


def _report_cases(run: Run, table: pd.DataFrame) -> list[tuple[str, str]]:
    """(cohort, case) of the worst, the median and the best of each role, as the report has them."""
    found: list[tuple[str, str]] = []
    for role in ("cv", "external"):
        for rule in RULES:
            try:
                chosen = choose_case(table, rule, role=role)
            except ValueError:
                continue
            key = (chosen.cohort, chosen.case_id)
            if key not in found and (run.folder / "masks" / key[0] / f"{key[1]}.nii.gz").exists():
                found.append(key)
    return found


def write_explore(run: Run, progress: bool = True) -> Path:
    """Write `explore.html` of a run: the explorer of its table, and the cases of its report.

    Cases whose CT is not at hand are left out, and the page says so.
    """
    table = measurements.read(run.measurements_csv)
    banner = ["Synthetic cohort: no case is a patient. These numbers say nothing about people."] \
        if run.synthetic else []
    states, missing = None, []
    readers = list(table["reader"].unique())
    if len(readers) > 1:
        states = explorer_states(table, Question(*first_readers(readers), plan=run.config.limits))
    places = {} if states is None else {(one["cohort"], one["name"]): k
                                        for k, one in enumerate(states["cases"])}
    wanted = _report_cases(run, table) if states is not None else []
    room = min(MOST_CASE_BYTES, MOST_PAGE_BYTES * 9 // 10 // max(len(wanted), 1))
    viewers = []
    for cohort, case_id in track(wanted, "explore.html", "case", shown=progress):
        try:
            viewer = view_case(run, cohort, case_id)
        except (OSError, ValueError) as error:
            missing.append(f"{cohort} {case_id} ({type(error).__name__})")
            continue
        viewers.append((pack_viewer(viewer, room), places[cohort, case_id]))
        viewer.close()
    words = _said(states["left"] if states else 0)
    if missing:
        words.append(f"Without their CTs: {', '.join(missing)}.")
    if states is None:
        words.append("One reader: nothing to compare.")
    words.append(f"Run {run.run_id}; report.html beside this page is the one for the archive, "
                 "without a script. Not a medical device.")
    page = _render(f"Run {run.run_id}: explore", viewers, states, banner, words)
    return _write(_fitting(page), run.path("explore.html"))
