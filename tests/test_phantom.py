"""The synthetic cohort: known volumes, visible anatomy, an expert who errs, files made once."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest

from deeplung_nb.cohorts.manifest import read_manifest
from deeplung_nb.imaging.io import read_lung_mask, read_mask, read_scan
from deeplung_nb.imaging.phantom.cohort import default_cohort, write_default_cohort
from deeplung_nb.imaging.phantom.make import make_phantom, write_cohort
from deeplung_nb.imaging.phantom.spec import (
    Lesion,
    PhantomError,
    PhantomSpec,
    read_specs,
    row_of_spec,
    spec_of_row,
)
from deeplung_nb.labels import GGO, HIGH_OPACITY
from deeplung_nb.registry import manifest_folder

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
    coarse, fine = (make_phantom(spec) for spec in (DISEASED, DISEASED.resampled(200, 40)))
    for code in (GGO.code, HIGH_OPACITY.code):
        volumes = [(p.truth.labels == code).sum() * p.scan.voxel_mm3 for p in (coarse, fine)]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.08)


def test_geometry_is_left_posterior_superior(sick):
    hu, lungs = sick.scan.hu, sick.lungs
    assert hu.dtype == np.int16
    assert sick.truth.affine is sick.scan.affine
    assert sick.scan.voxel_mm3 == pytest.approx(10.0 * 2.15 * 2.15)
    directions = np.sign(np.diag(sick.scan.affine[:3, :3]))
    assert directions.tolist() == [-1, -1, 1]
    middle = sick.spec.size // 2
    # The heart lies on the left, the spine at the back, the apices at the top are narrower.
    at_the_heart = lungs[8]
    assert at_the_heart[:, :middle].sum() > 1.1 * at_the_heart[:, middle:].sum()
    bone = (hu > 300).sum(axis=(0, 2))
    assert bone[middle:].sum() > bone[:middle].sum()
    areas = lungs.sum(axis=(1, 2))
    assert areas[12] > 2 * areas[-3] > 0


def test_it_has_the_densities_of_a_chest(sick):
    hu, healthy_lung = sick.scan.hu, sick.lungs & (sick.truth.labels == 0)
    litres = sick.lungs.sum() * sick.scan.voxel_mm3 / 1e6
    assert 2.5 < litres < 6.5
    assert -890 < np.median(hu[healthy_lung]) < -810
    z, y, x = sick.spec.positions_mm()
    inside = (np.abs(y)[:, None] < 60) & (np.abs(x)[None, :] < 60)
    heart = hu[8][(np.hypot(x[None, :] - 28, y[:, None] + 42) < 18)]
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
    assert y[where[:, 1]].mean() > 40
    assert z[where[:, 0]].mean() < 0.4 * sick.spec.chest.height_mm
    assert -5 < np.median(sick.scan.hu[fluid]) < 30


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
    ("ph_seed", "one"), ("ph_lesions", "ggo 1 2 3"), ("ph_lesions", "nodule 1 2 3 4 5 6 7 8"),
    ("ph_effusion_mm", "x"),
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
