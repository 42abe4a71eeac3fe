"""The synthetic cohort: known volumes, visible anatomy, an expert who errs, files made once."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from deeplung_nb.cohorts.manifest import read_manifest
from deeplung_nb.imaging.io import read_lung_mask, read_mask, read_scan
from deeplung_nb.imaging.phantom.anatomy import LOBES, Chest
from deeplung_nb.imaging.phantom.cohort import default_cohort, write_default_cohort
from deeplung_nb.imaging.phantom.make import make_phantom, write_cohort
from deeplung_nb.imaging.phantom.painter import Painter
from deeplung_nb.imaging.phantom.spec import (
    Lesion,
    PhantomError,
    PhantomSpec,
    read_specs,
    row_of_spec,
    spec_of_row,
)
from deeplung_nb.labels import GGO, HIGH_OPACITY
from deeplung_nb.runs.registry import manifest_folder

CLEAR_OF_THE_PLEURA = (-80.0, 10.0, 125.0)
DISEASED = PhantomSpec(
    "sick", 11,
    lesions=(
        Lesion("ggo", (-85, 30, 115), (28, 32, 40), -520, 3),
        Lesion("ggo", (85, 45, 95), (24, 24, 30), -560, 3),
        Lesion("consolidation", (80, 45, 95), (14, 14, 22), 38, 2),
        Lesion("ggo", (70, -30, 130), (5, 5, 8), -480),
    ),
    effusion_mm=(26.0, 0.0),
)
SMALL = PhantomSpec("small", 3, size=64, n_slices=10, spacing_mm=(26.0, 6.0, 6.0),
                    lesions=(Lesion("ggo", CLEAR_OF_THE_PLEURA, (25, 25, 30)),), orientation="RAI")


@pytest.fixture(scope="module")
def sick():
    return make_phantom(DISEASED)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_the_same_spec_gives_the_same_arrays_and_another_seed_does_not():
    first, again = make_phantom(SMALL), make_phantom(SMALL)
    other = make_phantom(dataclasses.replace(SMALL, seed=4))
    assert np.array_equal(first.scan.hu, again.scan.hu)
    assert np.array_equal(first.truth.labels, again.truth.labels)
    assert np.array_equal(first.expert.labels, again.expert.labels)
    assert not np.array_equal(first.scan.hu, other.scan.hu)


@pytest.mark.parametrize("kind", ["ggo", "consolidation"])
def test_an_ellipsoid_within_the_lung_has_its_closed_form_volume(kind):
    lesion = Lesion(kind, CLEAR_OF_THE_PLEURA, (18.0, 22.0, 26.0))
    spec = PhantomSpec("ellipsoid", 5, 160, 96, (2.5, 2.2, 2.2), lesions=(lesion,))
    phantom = make_phantom(spec)
    voxels = int((phantom.truth.labels > 0).sum())
    expected = 4 / 3 * np.pi * 18 * 22 * 26 / 1000
    assert lesion.volume_ml == pytest.approx(expected)
    assert voxels * phantom.scan.voxel_mm3 / 1000 == pytest.approx(expected, rel=0.01)


def test_the_truth_hardly_depends_on_the_grid():
    coarse, fine = (make_phantom(spec) for spec in (DISEASED, DISEASED.resampled(160, 32)))
    for code in (GGO.code, HIGH_OPACITY.code):
        volumes = [(p.truth.labels == code).sum() * p.scan.voxel_mm3 for p in (coarse, fine)]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.08)


def test_geometry_is_left_posterior_superior(sick):
    hu, lungs = sick.scan.hu, sick.lungs
    assert hu.dtype == np.int16
    assert sick.truth.affine is sick.scan.affine
    assert sick.scan.voxel_mm3 == pytest.approx(5.0 * 1.75 * 1.75)
    directions = np.sign(np.diag(sick.scan.affine[:3, :3]))
    assert directions.tolist() == [-1, -1, 1]
    middle = sick.spec.size // 2
    # The heart lies on the left, the spine at the back, the apices at the top are narrower.
    at_the_heart = lungs[19]
    assert at_the_heart[:, :middle].sum() > 1.1 * at_the_heart[:, middle:].sum()
    bone = (hu > 300).sum(axis=(0, 2))
    assert bone[middle:].sum() > bone[:middle].sum()
    areas = lungs.sum(axis=(1, 2))
    assert areas[24] > 2 * areas[-6] > 0


def test_it_has_the_densities_of_a_chest(sick):
    hu, healthy_lung = sick.scan.hu, sick.lungs & (sick.truth.labels == 0)
    litres = sick.lungs.sum() * sick.scan.voxel_mm3 / 1e6
    assert 2.5 < litres < 6.5
    assert -890 < np.median(hu[healthy_lung]) < -810
    z, y, x = sick.spec.positions_mm()
    inside = (np.abs(y)[:, None] < 60) & (np.abs(x)[None, :] < 60)
    heart = hu[16][(np.hypot(x[None, :] - 28, y[:, None] + 42) < 18)]
    assert 30 < np.median(heart) < 60
    trachea = hu[np.abs(z - 190).argmin()][(np.hypot(x[None, :], y[:, None] - 6) < 4) & inside]
    assert np.median(trachea) < -850
    assert np.median(hu[:, :6, :]) < -980


def test_ground_glass_shows_vessels_and_consolidation_hides_them(sick):
    hu, truth = sick.scan.hu.astype(float), sick.truth.labels
    # The same person without disease shows where the vessels are.
    healthy = make_phantom(dataclasses.replace(DISEASED, lesions=(), effusion_mm=(0.0, 0.0)))
    vessel, air = healthy.scan.hu > -650, healthy.scan.hu < -800
    ggo = (truth == GGO.code) & sick.lungs
    dense = (truth == HIGH_OPACITY.code) & sick.lungs
    assert -700 < np.median(hu[ggo]) < -300
    assert hu[ggo & vessel].mean() - hu[ggo & air].mean() > 120
    core = dense & (hu > -100)
    assert core.sum() > 0.7 * dense.sum()
    assert 0 < np.median(hu[core]) < 60
    assert abs(np.median(hu[core & vessel]) - np.median(hu[core & air])) < 15


def test_effusion_lies_at_the_back_outside_the_aerated_lung(sick):
    fluid = (sick.truth.labels == HIGH_OPACITY.code) & ~sick.lungs
    z, y, x = sick.spec.positions_mm()
    where = np.argwhere(fluid)
    assert fluid.sum() * sick.scan.voxel_mm3 / 1000 > 50
    assert (x[where[:, 2]] < 0).all()
    pieces, n = ndimage.label(fluid, np.ones((3, 3, 3)))
    assert np.bincount(pieces.ravel())[1:].max() > 0.97 * fluid.sum(), f"{n} pieces"
    assert y[where[:, 1]].mean() > 40
    assert z[where[:, 0]].mean() < 0.4 * sick.spec.chest.height_mm
    assert -5 < np.median(sick.scan.hu[fluid]) < 30


def test_five_lobes_fill_the_lungs_in_their_places(sick):
    lobes = sick.lobes
    assert np.array_equal(lobes > 0, sick.lungs)
    assert len(LOBES) == 5
    z, y, x = sick.spec.positions_mm()
    at = {name: np.argwhere(lobes == code) for code, name in enumerate(LOBES, 1)}
    height = {name: z[where[:, 0]].mean() for name, where in at.items()}
    back = {name: y[where[:, 1]].mean() for name, where in at.items()}
    for name, where in at.items():
        assert ((x[where[:, 2]] > 0) == name.startswith("left")).all()
    assert height["right upper"] > height["right middle"] > height["right lower"]
    assert height["left upper"] > height["left lower"] + 50
    assert back["right lower"] > back["right middle"] + 40
    assert back["left lower"] > back["left upper"] + 40
    # CT volumetry of healthy adults: the middle lobe is the smallest, about a tenth.
    share = {name: len(where) / (lobes > 0).sum() for name, where in at.items()}
    assert min(share, key=share.get) == "right middle"
    assert all(0.08 < part < 0.35 for part in share.values())


def test_fissures_are_seen_and_no_vessel_crosses_them():
    painter = Painter(dataclasses.replace(DISEASED, lesions=(), effusion_mm=(0, 0)))
    k = 22
    plane = painter.slice(k)
    oblique, _ = painter.fissures(float(painter.z[k]), painter.y_axis, painter.x_axis)
    deep = plane.cavity > 15
    on, off = deep & (np.abs(oblique) < 0.5), deep & (np.abs(oblique) > 15)
    assert np.median(plane.hu[on]) > np.median(plane.hu[off]) + 60
    vessels = plane.vessels
    assert vessels[on].mean() < 0.5 * vessels[off].mean()


def test_a_rough_lesion_stays_in_its_lobe_and_a_smooth_one_does_not():
    near = Lesion("ggo", (-80, 40, 125), (30, 40, 40), -500, 3.0)
    spec = dataclasses.replace(DISEASED, lesions=(near,), effusion_mm=(0, 0))
    rough = make_phantom(spec)
    smooth = make_phantom(dataclasses.replace(
        spec, lesions=(dataclasses.replace(near, roughness_mm=0.0),)))
    # Also where the chest is bent and the lesion lies at its middle, before the heart.
    bent = dataclasses.replace(spec, chest=Chest(lean_mm=12.0), lesions=(
        Lesion("ggo", (16, -62, 165), (34, 30, 40), -500, 3.0),))
    crossing = make_phantom(bent)
    assert len(np.unique(crossing.lobes[crossing.truth.labels > 0])) == 1
    mine = rough.lobes[tuple(np.argwhere(rough.truth.labels > 0).mean(axis=0).astype(int))]
    assert mine > 0
    assert (rough.lobes[rough.truth.labels > 0] == mine).all()
    assert len(np.unique(smooth.lobes[smooth.truth.labels > 0])) > 1


def test_a_crescent_lies_along_the_pleura():
    whole = Lesion("ggo", (-95, 10, 125), (30, 50, 40))
    spec = dataclasses.replace(DISEASED, lesions=(whole,), effusion_mm=(0, 0))
    crescent = make_phantom(dataclasses.replace(
        spec, lesions=(dataclasses.replace(whole, band_mm=12.0),)))
    ball = make_phantom(spec)
    deep = ndimage.distance_transform_edt(ball.lungs, spec.spacing_mm)
    assert deep[crescent.truth.labels > 0].max() < 18
    assert np.median(deep[crescent.truth.labels > 0]) < 9
    assert deep[ball.truth.labels > 0].max() > 25
    assert not (crescent.truth.labels.astype(bool) & ~ball.truth.labels.astype(bool)).any()
    assert 100 < crescent.truth.labels.sum() < 0.75 * ball.truth.labels.sum()


def test_crazy_paving_is_a_net_in_the_picture_and_not_in_the_truth():
    plain = Lesion("ggo", (-85, 40, 95), (30, 34, 40), -560, 3.0)
    pair = [make_phantom(dataclasses.replace(
        DISEASED, effusion_mm=(0, 0), lesions=(dataclasses.replace(plain, net=net),)))
        for net in (0.0, 1.0)]
    assert np.array_equal(pair[0].truth.labels, pair[1].truth.labels)
    inside = ndimage.binary_erosion(pair[0].truth.labels > 0)
    more = (pair[1].scan.hu.astype(float) - pair[0].scan.hu)[inside]
    # Lines rise far, the cells between them sink a little.
    assert 0.1 < (more > 60).mean() < 0.4
    assert (more < 0).mean() > 0.4
    assert abs(more.mean()) < 40


def test_bronchi_stay_open_in_consolidation():
    dense = Lesion("consolidation", (-62, 20, 115), (26, 30, 34))
    spec = dataclasses.replace(DISEASED, lesions=(dense,), effusion_mm=(0, 0), noise_hu=5.0)
    phantom, painter = make_phantom(spec), Painter(spec)
    inside = phantom.truth.labels == HIGH_OPACITY.code
    inside = ndimage.binary_erosion(inside, iterations=2)
    bronchi = inside & (painter.lumen > 0.5)
    assert bronchi.sum() > 10
    assert np.median(phantom.scan.hu[bronchi]) < np.median(phantom.scan.hu[inside]) - 250


def test_what_is_no_lesion_is_none_in_the_truth():
    healthy = dataclasses.replace(DISEASED, lesions=(), effusion_mm=(0.0, 0.0))
    plain = make_phantom(healthy)
    for change in ({"dependent_hu": 120.0}, {"emphysema": 1.0}, {"breathing_mm": 2.5}):
        odd = make_phantom(dataclasses.replace(healthy, **change))
        assert not odd.truth.labels.any()
        assert not odd.expert.labels.any()
        assert np.array_equal(odd.lungs, plain.lungs)
        assert not np.array_equal(odd.scan.hu, plain.scan.hu)
    # The dependent rim is denser: at the back, along the pleura.
    dense = make_phantom(dataclasses.replace(healthy, dependent_hu=120.0)).scan.hu
    more = dense.astype(float) - plain.scan.hu
    rim = plain.lungs & (ndimage.distance_transform_edt(plain.lungs, healthy.spacing_mm) < 6)
    back = healthy.positions_mm()[1][None, :, None] > 60
    assert more[rim & back].mean() > 40
    assert abs(more[rim & (healthy.positions_mm()[1][None, :, None] < 0)].mean()) < 2


def test_the_build_of_the_chest_follows_its_numbers():
    def lungs(**build):
        spec = dataclasses.replace(SMALL, lesions=(), chest=Chest(**build))
        return make_phantom(spec).lungs

    plain = lungs()
    assert lungs(depth=1.15).sum() > 1.1 * plain.sum()
    assert lungs(heart=1.2).sum() < plain.sum()
    bowed = lungs(lean_mm=12.0)
    assert bowed.sum() == pytest.approx(plain.sum(), rel=0.03)
    middle = [np.argwhere(which[k])[:, 1].mean() for which in (plain, bowed) for k in (3, 7)]
    assert abs((middle[2] - middle[3]) - (middle[0] - middle[1])) > 1.0
    chest, point = Chest(lean_mm=7, depth=1.1), np.array([[30.0, -20.0, 150.0]])
    assert np.allclose(np.column_stack(chest.straight(*chest.bent(point).T)), point)


def test_contrast_medium_raises_the_blood():
    hu = make_phantom(dataclasses.replace(DISEASED, contrast=True)).scan.hu
    plain = make_phantom(DISEASED).scan.hu
    z, y, x = DISEASED.positions_mm()
    level = np.abs(z - 0.4 * 240).argmin()
    aorta = np.hypot(x[None, :] - 24, y[:, None] - 37) < 7
    assert 200 < np.median(hu[level][aorta]) < 320
    assert np.median(plain[level][aorta]) < 70


def test_the_expert_is_near_the_truth_but_is_not_the_truth(sick):
    truth, expert = sick.truth.labels, sick.expert.labels
    for code in (GGO.code, HIGH_OPACITY.code):
        assert 0.75 < dice(truth == code, expert == code) < 0.98


def test_experts_miss_some_small_lesions_and_no_large_one():
    small, large = Lesion("ggo", CLEAR_OF_THE_PLEURA, (12, 12, 14)), SMALL.lesions[0]
    tiny = dataclasses.replace(small, axes_mm=(7, 7, 8))
    grid = dataclasses.replace(SMALL, size=64, n_slices=8, spacing_mm=(10.0, 6.0, 6.0))

    def missed(lesion: Lesion) -> int:
        specs = (dataclasses.replace(grid, seed=seed, lesions=(lesion,)) for seed in range(10))
        return sum(not make_phantom(spec).expert.labels.any() for spec in specs)

    assert 0 < missed(tiny) < 10
    assert missed(large) == 0


def test_a_healthy_chest_has_no_lesion():
    phantom = make_phantom(dataclasses.replace(SMALL, lesions=()))
    assert not phantom.truth.labels.any()
    assert not phantom.expert.labels.any()
    assert phantom.lungs.any()


def test_a_lesion_outside_the_lung_is_refused_by_name():
    heart = Lesion("ggo", (28, -42, 75), (6, 6, 8))
    with pytest.raises(PhantomError, match=r"'small': no voxel of the lung holds .* 28 -42 75"):
        make_phantom(dataclasses.replace(SMALL, lesions=(heart,)))


@pytest.mark.parametrize(("column", "value"), [
    ("ph_seed", "one"), ("ph_lesions", "ggo 1 2 3"), ("ph_effusion_mm", "x"),
    ("ph_lesions", "ggo 1 2 3 4 5 6 7 8"), ("ph_lesions", "nodule 1 2 3 4 5 6 7 8 9 10"),
])
def test_a_wrong_cell_is_named(column, value):
    with pytest.raises(PhantomError, match=rf"case 'small'.*{column}.*Correct the cell"):
        spec_of_row({**row_of_spec(SMALL), column: value})


def test_a_missing_column_is_named():
    row = row_of_spec(SMALL)
    del row["ph_noise_hu"]
    with pytest.raises(PhantomError, match="'ph_noise_hu' is missing"):
        spec_of_row(row)


def test_specs_survive_the_manifest():
    assert spec_of_row(row_of_spec(DISEASED)) == DISEASED


def test_the_shipped_manifest_is_the_default_cohort(tmp_path):
    write_default_cohort(tmp_path / "phantom.csv")
    shipped = manifest_folder() / "phantom.csv"
    assert (tmp_path / "phantom.csv").read_bytes() == shipped.read_bytes()
    assert len(read_specs(shipped)) == len(read_manifest(shipped, None)) == 42


def test_the_default_cohort_resembles_the_study():
    rows = default_cohort()
    cv, external = ([r for r in rows if r["role"] == role] for role in ("cv", "external"))
    assert (len(cv), len(external)) == (30, 12)
    assert sum(r["protocol"] == "contrast" for r in cv) >= 5
    assert all(r["protocol"] == "non-contrast" for r in external)
    assert {r["scanner"] for r in cv}.isdisjoint(r["scanner"] for r in external)
    assert {r["centre"] for r in cv}.isdisjoint(r["centre"] for r in external)
    # Scanners, centres and contrast are crossed: Dice by one is another thing than by the others.
    for some in (cv, external):
        assert {(r["scanner"], r["centre"]) for r in some} == {
            (a["scanner"], b["centre"]) for a in some for b in some}
    assert {r["scanner"] for r in cv if r["protocol"] == "contrast"} == {r["scanner"] for r in cv}
    assert len({r["patient_id"] for r in rows}) == 42

    def without_dense(some):
        return sum("consolidation" not in r["ph_lesions"] and r["ph_effusion_mm"] == "0 0"
                   for r in some)

    assert 3 <= sum(not r["ph_lesions"] and r["ph_effusion_mm"] == "0 0" for r in cv) <= 4
    assert 8 <= without_dense(cv) <= 12
    assert without_dense(external) == 6
    ages = np.array([float(r["age"]) for r in cv])
    assert ages.mean() == pytest.approx(61, abs=2)
    assert ages.std() == pytest.approx(16, abs=2)
    assert np.mean([r["sex"] == "male" for r in cv]) == pytest.approx(0.657, abs=0.03)


def test_a_cohort_is_written_once_and_read_back(tmp_path):
    write_cohort([SMALL], tmp_path, progress=False)
    files = sorted(tmp_path.rglob("*.nii.gz"))
    assert [f.parent.name for f in files] == ["expert", "images", "lungs", "truth"]
    before = [f.stat().st_mtime_ns for f in files]
    write_cohort([SMALL], tmp_path, progress=False)
    assert [f.stat().st_mtime_ns for f in files] == before

    phantom = make_phantom(SMALL)
    scan = read_scan(tmp_path / "images/small.nii.gz", case_id="small")
    assert scan.orientation == "RAI"
    assert np.array_equal(scan.hu, phantom.scan.hu)
    np.testing.assert_allclose(scan.affine, phantom.scan.affine, atol=1e-3)
    truth = read_mask(tmp_path / "truth/small.nii.gz", scan, None)
    assert np.array_equal(truth.labels, phantom.truth.labels)
    assert np.array_equal(read_lung_mask(tmp_path / "lungs/small.nii.gz", scan), phantom.lungs)

    files[0].unlink()
    write_cohort([dataclasses.replace(SMALL, noise_hu=30.0)], tmp_path, progress=False)
    assert files[0].is_file()
    assert [f.stat().st_mtime_ns for f in files] != before


def test_a_manifest_row_is_plain_text():
    with (manifest_folder() / "phantom.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert all(None not in row.values() for row in rows)
    assert rows[0]["mask"] == "expert/P001.nii.gz"
