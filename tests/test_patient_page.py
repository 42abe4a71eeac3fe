"""The picture and the page of one result: what is odd shows first, nothing is from outside."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from PIL import ImageColor

from deeplung_nb.imaging.lungs import LungMask
from deeplung_nb.imaging.phantom.make import make_phantom
from deeplung_nb.imaging.phantom.spec import Lesion, PhantomSpec
from deeplung_nb.imaging.regions import LungRegions
from deeplung_nb.imaging.scan import LesionMask
from deeplung_nb.labels import GGO
from deeplung_nb.reading import preview
from deeplung_nb.reading.segment import Segmentation
from deeplung_nb.reading.volumes import lesion_facts, measure, severity
from deeplung_nb.report.patient_page import make_page


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(PhantomSpec("page", seed=3, size=160, n_slices=24,
                                    spacing_mm=(10.0, 2.3, 2.3), lesions=(
        Lesion("ggo", (-75.0, 40.0, 80.0), (30.0, 30.0, 30.0)),)))


def result_of(phantom, lungs=True, warnings=(), case_id="P1"):
    scan = dataclasses.replace(phantom.scan, case_id=case_id)
    mask = LesionMask.like(scan, phantom.truth.labels)
    given = LungMask.like(scan, phantom.lungs, "reference") if lungs else None
    regions = LungRegions.of(given, phantom.lobes) if lungs else None
    rows = [{**row, **lesion_facts(scan, mask, row["structure"])}
            for row in measure(scan, mask, given, regions=regions)]
    if lungs:
        rows[-1] |= severity(rows[-1], scan, phantom.lobes)
    made = {"case_id": case_id, "warnings": list(warnings), "created": "2026-01-01",
            "likely_lesion": None,
            "lungs": "reference" if lungs else None, "scan": {"sha256": "ab" * 32},
            "network": {"name": "net", "sha256": "cd" * 32, "trained_on": "cohorts x"}}
    return Segmentation(scan, mask, given, pd.DataFrame(rows), made)


def words(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.split("<main>")[1]))


def test_the_page_has_every_number_of_the_table(phantom):
    result = result_of(phantom)
    text = words(make_page(result))
    lesion = result.table.set_index("structure").loc["lesion"]
    for value in (lesion.volume_ml, lesion.volume_right_ml, lesion.volume_lower_ml,
                  lesion.po_percent, lesion.pho_percent, lesion.largest_lesion_ml,
                  lesion.volume_right_lower_ml):
        assert f"{value:,.1f}" in text, value
    assert f"Severity score {lesion.severity_25:.0f} of 25" in text
    assert "Not a medical device" in text
    assert "No warnings." in text


def test_warnings_stand_before_any_number(phantom):
    text = words(make_page(result_of(phantom, warnings=["upside down", "thick slices"])))
    assert text.index("2 to mind before any number") < text.index("upside down") < text.index("mL")


def test_without_lungs_there_are_no_shares_and_that_is_said(phantom):
    text = words(make_page(result_of(phantom, lungs=False)))
    assert "No lungs were found: no regions." in text
    assert "Without a lung mask there are no shares of the lungs." in text
    assert "nan" not in text


def test_nothing_comes_from_outside_and_names_are_text(phantom):
    page = make_page(result_of(phantom, case_id="<img src=x>",
                               warnings=["<script>alert(1)</script>"]))
    assert not re.search(r"https?://(?!www\.w3\.org)|<script|<img src=x|@import|url\(", page)
    assert "&lt;img src=x&gt;" in page
    for picture in re.findall(r"<img [^>]+>|<svg [^>]+>", page):
        assert re.search(r'(?:alt|aria-label)="[^"]{20,}"', picture)


def test_the_histogram_holds_all_lung(phantom):
    result = result_of(phantom)
    page = make_page(result)
    tallest = float(re.search(r"tallest bar is ([\d,]+) mL", page).group(1).replace(",", ""))
    inside = result.scan.hu[phantom.lungs | (result.mask.labels > 0)]
    values = np.histogram(np.clip(inside, -1050, 299), np.arange(-1050, 301, 25))[0]
    assert tallest == round(values.max() * result.scan.voxel_mm3 / 1000)


def test_the_preview_shows_the_lesion_where_it_is(phantom):
    labels = phantom.truth.labels
    z, y, x = preview.worst_place(labels)
    assert labels[z, y, x]
    assert (labels[z] > 0).sum() == (labels > 0).sum(axis=(1, 2)).max()
    row = np.asarray(preview.draw_planes(phantom.scan, labels, phantom.lungs), int)
    blue = np.array(ImageColor.getrgb(GGO.colour))
    marked = np.abs(row - blue).sum(axis=2) < 260
    marked &= (row[..., 2] - row[..., 0]) > 40
    columns = np.flatnonzero(marked.any(axis=0))
    height = row.shape[0]
    axial = round(height * 160 * 2.3 / (160 * 2.3))
    assert not marked[:, :axial].any()  # the first picture is without the mask
    second = columns[(columns > axial + preview.GAP) & (columns < 2 * axial + preview.GAP)]
    assert len(second)
    assert second.mean() - axial - preview.GAP < axial / 2  # the patient's right, at the left
    coronal = marked[:, 2 * (axial + preview.GAP):3 * (axial + preview.GAP)]
    assert np.flatnonzero(coronal.any(axis=1)).mean() > height / 2  # low in the lungs


def test_lesions_in_the_air_would_show_at_a_glance(phantom):
    labels = np.zeros_like(phantom.truth.labels)
    labels[3, 2:9, 2:9] = GGO.code
    assert preview.worst_place(labels)[0] == 3


def test_the_preview_says_warnings_and_what_it_is_not(phantom, monkeypatch):
    said = []
    real = preview.ImageDraw.Draw

    def listening(picture):
        pen = real(picture)
        text = pen.text
        pen.text = lambda place, words, **how: (said.append(words), text(place, words, **how))
        return pen

    monkeypatch.setattr(preview.ImageDraw, "Draw", listening)
    result = result_of(phantom)
    picture = preview.draw_preview("P1", result.scan, result.mask, result.lungs, {"lesion": 12.34},
                                   [f"warning number {k} " + "long " * 60 for k in range(6)], "net")
    whole = " ".join(said)
    assert "Any lesion 12.3 mL" in whole
    assert "Not a medical device" in whole
    assert "warning number 3" in whole
    assert "and 2 more warnings" in whole
    assert picture.width == preview.WIDTH + 2 * preview.MARGIN


@pytest.mark.browser
def test_the_page_prints_on_two_a4_pages_and_fits_a_narrow_screen(phantom, browser, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(make_page(result_of(phantom, warnings=["one thing to mind " * 6] * 3)))
    tab = browser.new_page(viewport={"width": 480, "height": 800})
    tab.goto(page.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= 480
    printed = tab.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page[^s]", printed)) == 2
    tab.close()
