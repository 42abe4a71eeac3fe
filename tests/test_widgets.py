"""The viewer without a browser: traits, what is sent, what is compared, what is refused."""

import base64
import json
import sys
import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import traitlets
from nbconvert import HTMLExporter
from nbformat import v4

from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.io import read_scan
from deeplung_nb.imaging.lungs import LungMask
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.labels import LESION_STRUCTURES, structure_mask
from deeplung_nb.stats import overlap
from deeplung_nb.widgets.planes import (
    AGREEMENT,
    PLANES,
    agreement_map,
    compare,
    cut,
    encode,
    pixel_mm,
)
from deeplung_nb.widgets.rendering import smooth_field, view_surface
from deeplung_nb.widgets.viewer import CTViewer, link_views, view_ct
from tests.cells import shown_in_a_cell


@pytest.fixture
def scan():
    """No two voxels of it lie alike: a flip of any axis shows."""
    rng = np.random.default_rng(4)
    hu = rng.integers(-1000, 300, (7, 20, 24)).astype(np.int16)
    return Scan(hu, Grid.upright(hu.shape, (5.0, 0.8, 0.7)), "X1")


@pytest.fixture
def masks(scan):
    rng = np.random.default_rng(5)
    expert, other = (rng.choice(3, scan.shape, p=[0.8, 0.15, 0.05]).astype(np.uint8)
                     for _ in range(2))
    expert[0] = other[0] = 0
    return {"expert": LesionMask.like(scan, expert), "automatic": LesionMask.like(scan, other)}


def decoded(slice_):
    """What the browser makes of a slice, written once more: HU and packed labels."""
    content = zlib.decompress(slice_["data"])
    n = slice_["rows"] * slice_["columns"]
    steps = np.frombuffer(content[:2 * n], "<i2").reshape(slice_["rows"], slice_["columns"])
    labels = np.frombuffer(content[2 * n:], np.uint8).reshape(steps.shape) if content[2 * n:] else 0
    return np.cumsum(steps, axis=1, dtype=np.int16), labels


@pytest.mark.parametrize("plane", PLANES)
def test_a_slice_arrives_as_it_was_sent(scan, masks, plane):
    volumes = {name: mask.labels for name, mask in masks.items()}
    hu, labels = decoded(encode(scan.hu, volumes, plane, 3))
    np.testing.assert_array_equal(hu, cut(scan.hu, plane, 3))
    np.testing.assert_array_equal(labels & 3, cut(volumes["expert"], plane, 3))
    np.testing.assert_array_equal(labels >> 2, cut(volumes["automatic"], plane, 3))


def test_extreme_values_survive_the_differences():
    hu = np.array([[[-32768, 32767, -32768, 0]]], np.int16)
    np.testing.assert_array_equal(decoded(encode(hu, {}, "axial", 0))[0], hu[0])


def test_the_head_is_up_and_the_patients_right_on_the_left(scan):
    """In memory z runs to the head, y to the back, x to the left."""
    hu = np.full(scan.shape, -1000, np.int16)
    hu[-1, 0, 0] = 111  # head, front, right
    np.testing.assert_array_equal(np.argwhere(cut(hu, "axial", 6) == 111), [[0, 0]])
    np.testing.assert_array_equal(np.argwhere(cut(hu, "coronal", 0) == 111), [[0, 0]])
    np.testing.assert_array_equal(np.argwhere(cut(hu, "sagittal", 0) == 111), [[0, 0]])
    assert pixel_mm(scan.spacing_mm, "coronal") == (5.0, 0.7)
    assert pixel_mm(scan.spacing_mm, "sagittal") == (5.0, 0.8)


@pytest.mark.parametrize("code", ["RAS", "LPS", "LPI"])
def test_one_patient_looks_alike_in_any_voxel_order(scan, tmp_path, code):
    image = sitk.GetImageFromArray(scan.hu)
    image.SetSpacing(scan.spacing_mm[::-1])
    sitk.WriteImage(sitk.DICOMOrient(image, code), str(tmp_path / "turned.nii.gz"))
    viewer = view_ct(tmp_path / "turned.nii.gz")
    for slice_, plane in zip(viewer.first, PLANES, strict=True):
        index = PLANES.index(plane)
        np.testing.assert_array_equal(decoded(slice_)[0],
                                      cut(scan.hu, plane, scan.shape[index] // 2))


def test_traits_follow_each_other(scan, masks):
    viewer = view_ct(scan, masks)
    viewer.slice_index = 2
    assert viewer.cursor[0] == 2
    viewer.cursor = [4, 7, 9]
    assert viewer.slice_index == 4
    viewer.plane = "sagittal"
    assert viewer.slice_index == 9
    viewer.slice_index = 23
    assert viewer.cursor == [4, 7, 23]
    viewer.plane = "axial"
    seen = []
    viewer.observe(lambda change: seen.append(change["new"]), "slice_index")
    traitlets.link((viewer, "slice_index"), (view_ct(scan), "slice_index"))
    viewer.slice_index = 3
    assert seen[-1] == 3


def moved_scan(shape, spacing_mm, origin_mm, case_id):
    affine = np.diag([-spacing_mm[2], -spacing_mm[1], spacing_mm[0], 1.0])
    affine[:3, 3] = origin_mm
    return Scan(np.zeros(shape, np.int16), Grid(shape, affine), case_id)


def test_linked_viewers_go_by_millimetres_and_say_where_one_ends():
    thick = view_ct(moved_scan((39, 20, 20), (5.0, 1.0, 1.0), (0, 0, -100), "thick"))
    thin = view_ct(moved_scan((140, 40, 40), (1.25, 0.5, 0.5), (0, 0, -100), "thin"))
    undo = link_views(thick, thin)
    thick.cursor = [20, 5, 7]  # 100 mm above the lowest voxel
    assert thin.cursor == [80, 10, 14]
    assert thin.message == ""
    thin.cursor = [41, 12, 20]
    assert thick.cursor == [10, 6, 10]
    thick.cursor = [38, 5, 7]  # 190 mm; the thin one ends at 173.75
    assert thin.cursor[0] == 139
    assert thin.message == "thin ends here, 16 mm before thick"
    undo()
    thick.cursor = [0, 5, 7]
    assert thin.cursor[0] == 139
    far = view_ct(moved_scan((10, 20, 20), (5.0, 1.0, 1.0), (0, 0, 900), "far"))
    with pytest.raises(ValueError, match="'thick' and 'far' have no place in common"):
        link_views(thick, far)
    with pytest.raises(ValueError, match="two or more"):
        link_views(thick)


@pytest.mark.parametrize(("name", "value"), [
    ("slice_index", 99), ("slice_index", -1), ("cursor", [0, 0, 99]), ("cursor", [0, 0]),
    ("plane", "oblique"), ("layout_mode", "mosaic"), ("opacity", 2.0)])
def test_traits_refuse_what_is_not_there(scan, masks, name, value):
    viewer = view_ct(scan, masks)
    with pytest.raises(traitlets.TraitError):
        setattr(viewer, name, value)


def test_it_opens_where_the_lesion_is(scan, masks):
    viewer = view_ct(scan, masks)
    area = (masks["expert"].labels > 0).sum(axis=(1, 2))
    assert viewer.slice_index == area.argmax()
    assert viewer.pair == ("expert", "automatic")
    assert view_ct(scan, masks, reference="automatic").pair == ("automatic", "expert")


def test_slices_that_the_browser_asks_for_come_with_their_bytes(scan, masks, monkeypatch):
    viewer = view_ct(scan, masks)
    sent = []
    monkeypatch.setattr(viewer, "send", lambda content, buffers: sent.append((content, buffers)))
    viewer._answer(None, {"kind": "slices", "plane": "coronal", "indices": [0, 5, 99, -1]}, [])
    (content, buffers), = sent
    assert [s["index"] for s in content["slices"]] == [0, 5]
    json.dumps(content)
    hu, _ = decoded({**content["slices"][1], "data": buffers[1]})
    np.testing.assert_array_equal(hu, cut(scan.hu, "coronal", 5))
    viewer._answer(None, {"kind": "something else"}, [])
    assert len(sent) == 1


def test_the_comparison_is_that_of_the_statistics(scan, masks):
    a, b = (mask.labels for mask in masks.values())
    found = compare(a, b, scan.voxel_mm3)
    ml = scan.voxel_mm3 / 1000
    for z in range(len(a)):
        counts = {name: overlap.confusion(structure_mask(a[z], name), structure_mask(b[z], name))
                  for name in LESION_STRUCTURES}
        for name, count in counts.items():
            wanted = None if count.both_empty else pytest.approx(count.dice())
            assert found["slices"]["dice"][name][z] == wanted
        lesion = counts["lesion"]
        assert found["slices"]["reference only"][z] == pytest.approx(lesion.fn * ml)
        assert found["slices"]["other only"][z] == pytest.approx(lesion.fp * ml)
        assert (found["slices"]["both"][z] + found["slices"]["class exchanged"][z]
                == pytest.approx(lesion.tp * ml))
    for name in LESION_STRUCTURES:
        whole = overlap.confusion(structure_mask(a, name), structure_mask(b, name))
        assert found["case"]["dice"][name] == pytest.approx(whole.dice())
    assert sum(found["case"][name] for name in AGREEMENT) == pytest.approx(
        ((a > 0) | (b > 0)).sum() * ml)
    assert set(np.unique(agreement_map(a, b))) == {0, 1, 2, 3, 4}


def test_a_picture_and_words_go_along_with_every_view(scan, masks):
    viewer = view_ct(scan, masks, lungs=LungMask.like(scan, scan.hu < -400, "built-in"))
    viewer.cursor = [5, 6, 7]
    (data, metadata), (living, _) = shown_in_a_cell(viewer)
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert viewer.mark in data["image/png"]  # by which the page finds it
    assert "axial 5, coronal 6, sagittal 7" in data["text/plain"]
    assert "expert, automatic" in data["text/plain"]
    assert metadata["image/png"]["alt"] == data["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" in living
    viewer.layout_mode = "agreement"
    assert "reference: expert, other: automatic" in viewer.still().alt
    viewer.close()
    assert viewer.still().png().startswith(b"\x89PNG")


def test_exported_pages_show_the_picture_without_a_kernel(scan, masks):
    shown = shown_in_a_cell(view_ct(scan, masks))
    cell = v4.new_code_cell("v", outputs=[
        v4.new_output("display_data", data=data, metadata=metadata) for data, metadata in shown])
    page, _ = HTMLExporter().from_notebook_node(v4.new_notebook(cells=[cell]))
    assert shown[0][0]["image/png"][:60] in page
    assert 'alt="Case' in page


def with_nan(scan):
    hu = scan.hu.astype(np.float32)
    hu[1, 2, 3] = np.nan
    return replace(scan, hu=hu)


@pytest.mark.parametrize(("call", "message"), [
    (lambda s, m: view_ct(s.hu), "a ndarray, expected a Scan"),
    (lambda s, m: replace(s, hu=s.hu[0]), "2 dimensions, expected 3"),
    (lambda s, m: view_ct(with_nan(s)), "1 voxels are NaN"),
    (lambda s, m: view_ct("absent.nii.gz"), "absent.nii.gz is missing"),
    (lambda s, m: view_ct(s, {"expert": m["expert"].labels[1:]}), "expected the scan's"),
    (lambda s, m: view_ct(s, m["expert"].labels[0]), "expected the scan's"),
    (lambda s, m: view_ct(s, m["expert"].labels + 5), "expected whole codes from 0 to 2"),
    (lambda s, m: view_ct(s, m["expert"].labels * 0.5), "expected whole codes"),
    (lambda s, m: view_ct(s, dict.fromkeys("abcde", m["expert"])), "5 masks"),
    (lambda s, m: view_ct(s, m, reference="nobody"), "reference 'nobody'"),
    (lambda s, m: view_ct(s, m, window="brain"), "window 'brain'"),
    (lambda s, m: view_ct(s, m, window=(0, -5)), "width above 0"),
    (lambda s, m: view_ct(s, m["expert"], layout="agreement"), "need two masks"),
    (lambda s, m: view_ct(s, m, layout="odd"), "layout 'odd'"),
    (lambda s, m: view_ct(s, m, backend="odd"), "backend 'odd'"),
])
def test_what_cannot_be_shown_is_said_in_the_cell(scan, masks, call, message):
    with pytest.raises(ValueError, match=message):
        call(scan, masks)


def test_odd_but_right_inputs_are_shown(scan):
    one = replace(scan, hu=scan.hu[:1], grid=Grid((1, *scan.shape[1:]), scan.affine))
    assert view_ct(one).slice_index == 0
    long = Scan(np.zeros((2000, 8, 8), np.int16), Grid.upright((2000, 8, 8), (1, 1, 1)), "long")
    viewer = view_ct(long, np.zeros(long.shape, bool))
    assert sum(len(slice_["data"]) for slice_ in viewer.first) < 20_000
    assert isinstance(view_ct(scan, {}), CTViewer)
    assert view_ct(scan, np.zeros(scan.shape, np.uint8)).still().png()


def test_surfaces_carry_their_volumes_and_a_picture(chest_file):
    scan = read_scan(chest_file)
    lungs = (scan.hu < -500) & (np.arange(scan.shape[1])[:, None] > 40)
    labels = np.zeros(scan.shape, np.uint8)
    labels[10:14, 70:90, 40:60] = 1
    labels[10:12, 70:80, 100:104] = 2
    view = view_surface(scan, {"expert": labels, "other": labels * 0},
                        lungs=LungMask.like(scan, lungs, "reference"))
    ml = scan.voxel_mm3 / 1000
    assert view.volumes_ml == pytest.approx(
        {"lung": lungs.sum() * ml, "ggo": 1600 * ml, "high_opacity": 80 * ml})
    assert len(view.plot.objects) == 3
    (data, _), _ = shown_in_a_cell(view)
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    both = {"expert": labels, "other": labels * 0}
    assert view_surface(scan, both, reader="other").volumes_ml == {}
    with pytest.raises(ValueError, match="reader 'nobody'"):
        view_surface(scan, labels, reader="nobody")


def test_a_surface_lies_where_the_mask_ends():
    z, y, x = np.ogrid[-20:20:9j, -20:20:33j, -20:20:33j]
    field = smooth_field(z**2 + y**2 + x**2 < 14**2, (5.0, 1.25, 1.25))
    voxel = 45 / field.shape[0] * (41.25 / field.shape[1]) ** 2
    assert (field > 0.5).sum() * voxel == pytest.approx(4 / 3 * np.pi * 14**3, rel=0.1)


@pytest.mark.parametrize("backend", ["itkwidgets", "niivue"])
def test_a_viewer_that_is_not_there_is_one_line_and_the_picture(scan, masks, backend, capsys,
                                                                monkeypatch):
    from deeplung_nb.widgets import backends
    shown = []
    monkeypatch.setattr(backends, "display", shown.append)
    module = {"niivue": "ipyniivue"}.get(backend, backend)
    monkeypatch.setitem(sys.modules, module, None)
    assert view_ct(scan, masks, backend=backend) is None
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "can't be shown here" in said
    assert "backend='builtin'" in said
    assert shown[0].png().startswith(b"\x89PNG")
    assert len(shown) == 1


def test_a_case_of_a_run(monkeypatch, chest_file, tmp_path):
    from deeplung_nb.cohorts.cases import Case
    from deeplung_nb.widgets import viewer
    from deeplung_nb.widgets.viewer import view_case
    scan = read_scan(chest_file)
    mask = LesionMask.like(scan, (scan.hu > 200).astype(np.uint8))
    case = Case(scan, mask, LungMask.like(scan, scan.hu < -500, "reference"), LESION_STRUCTURES)
    monkeypatch.setattr(viewer, "read_reading", lambda run, cohort, case_id: (case, mask))
    run = SimpleNamespace(run_id="quick-1", synthetic=True)
    shown = view_case(run, "phantom", "P001", layout="agreement")
    assert "synthetic cohort · quick-1" in shown.still().alt
    assert shown.info["note"] == "synthetic cohort · quick-1"
    assert list(shown.masks) == ["expert", "automatic", "lungs"]
    assert shown.info["comparison"]["case"]["dice"]["ggo"] == 1.0
