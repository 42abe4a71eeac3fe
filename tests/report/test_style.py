"""How a figure is saved: same bytes, fonts, resolution, footers."""

from __future__ import annotations

import base64
import io
import sys

import matplotlib as mpl
import matplotlib.image
import pandas as pd
import pytest
from matplotlib.transforms import Bbox

from deeplung_nb.report import (
    figures,
)
from deeplung_nb.report.style import MM, PAGE_MM, STYLE, new_figure, save_figure
from tests.report.fakes import LAYERS, SPLITS, FakeRun, agreement_figure, slice_of_lungs, words


def test_same_figure_gives_same_bytes(measured, run, tmp_path):
    other = FakeRun(tmp_path / "again" / run.folder.name)
    for target in (run, other):
        save_figure(agreement_figure(measured), target, "fig6")
    for suffix in ("pdf", "svg", "png", "json"):
        first = run.path("figures", f"fig6.{suffix}").read_bytes()
        assert first == other.path("figures", f"fig6.{suffix}").read_bytes(), suffix
        assert first


def test_equal_clip_paths_have_one_name_however_often_they_were_made(run):
    """Matplotlib counts objects: whether it kept a path or made it anew would show in the file."""
    from types import SimpleNamespace

    from matplotlib.path import Path as Outline

    from deeplung_nb.report.style import _clip_number
    renderer = SimpleNamespace(_clip_path_ids={})
    circle, square = Outline.unit_circle(), Outline.unit_rectangle()
    again = Outline(circle.vertices.copy(), circle.codes.copy())
    assert [_clip_number(renderer, path) for path in (circle, again, square, circle)] == [
        0, 0, 1, 0]


def test_names_in_an_svg_do_not_hang_on_the_last_digits_of_the_layout(measured, run, monkeypatch):
    """The solver of the layout leaves them to chance; here they are changed on purpose."""
    from matplotlib.backends.backend_svg import RendererSVG
    save_figure(agreement_figure(measured), run, "first")
    clip = RendererSVG._get_clip_attrs

    def shaken(self, gc):
        rectangle = gc.get_clip_rectangle()
        if rectangle is not None:
            gc.set_clip_rectangle(Bbox.from_bounds(*(v * (1 + 1e-12) for v in rectangle.bounds)))
        return clip(self, gc)

    monkeypatch.setattr(RendererSVG, "_get_clip_attrs", shaken)
    save_figure(agreement_figure(measured), run, "second")
    first, second = (run.path("figures", f"{name}.svg").read_bytes()
                     for name in ("first", "second"))
    assert first == second


def test_pdf_embeds_its_fonts_and_svg_needs_none(run):
    save_figure(figures.draw_splits(SPLITS), run, "fig3")
    pdf = run.path("figures", "fig3.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert b"CreationDate" not in pdf
    assert "<text" not in run.path("figures", "fig3.svg").read_text(encoding="utf-8")


def test_png_is_300_dpi_of_page_width(run):
    save_figure(figures.draw_splits(SPLITS), run, "fig3")
    header = run.path("figures", "fig3.png").read_bytes()[16:20]
    assert int.from_bytes(header, "big") == pytest.approx(PAGE_MM * MM * 300, abs=1)


def test_synthetic_footer_on_synthetic_runs_only(run, tmp_path):
    figure = figures.draw_architecture(LAYERS)
    save_figure(figure, run, "fig2")
    save_figure(figure, run, "fig2")
    assert words(figure).count("synthetic cohort") == 1
    real = figures.draw_architecture(LAYERS)
    save_figure(real, FakeRun(tmp_path / "public-1", synthetic=False), "fig2")
    assert "synthetic" not in words(real)


def test_drawing_leaves_no_pyplot_state_and_no_settings_behind(measured):
    before = mpl.rcParams["font.size"]
    agreement_figure(measured)
    assert mpl.rcParams["font.size"] == before != STYLE["font.size"]
    if "matplotlib.pyplot" in sys.modules:
        assert not sys.modules["matplotlib.pyplot"].get_fignums()


@pytest.mark.filterwarnings("error")
def test_no_text_leaves_a_figure(measured):
    hu, labels = slice_of_lungs()
    history = pd.DataFrame({"epoch": [1, 2, 3], "lr": 1e-3, "train_loss": [3.0, 2, 1],
                            "validation_loss": [3.0, 1, 2], "dice_ggo": [0.1, 0.2, 0.3],
                            "dice_high_opacity": [0.1, 0.2, 0.3], "dice_lesion": [0.1, 0.2, 0.3]})
    drawn = {
        "agreement": agreement_figure(measured),
        "curves": figures.draw_learning_curves({0: history, 1: history}),
        "dice": figures.draw_dice_by(measured, "protocol"),
        "splits": figures.draw_splits(SPLITS),
        "architecture": figures.draw_architecture(LAYERS),
        "case": figures.draw_case(hu, labels, labels, (1.0, 1.0), {"lesion": 0.857}, "X001",
                                  "the median"),
        "preparation": figures.draw_preparation({"input": hu, "body box": hu, "crop": hu,
                                                 "augmented": hu, "normalised": hu * 0}),
    }
    for name, figure in drawn.items():
        pixels = mpl.image.imread(io.BytesIO(figure.png()))
        edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
        # A label that is cut off touches the edge.
        assert all(edge.min() == 1 for edge in edges), name
        assert figure.alt


def test_figure_shows_itself_in_a_notebook_with_words():
    bundle, metadata = figures.draw_splits(SPLITS)._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert "10 cases" in bundle["text/plain"]
    assert f'alt="{bundle["text/plain"]}"' in bundle["text/html"]
    assert metadata["image/png"]["alt"] == bundle["text/plain"]
    assert new_figure(84, 40).get_size_inches()[0] == pytest.approx(84 / 25.4)
