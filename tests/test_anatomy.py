"""The sickest are read, their missing lung is said, and a turned file is found however ill.

Disease of known size is drawn into a real CT and into a phantom: lung below a smooth level becomes
30 HU, with the noise of soft tissue.

    .venv/bin/python -m tests.test_anatomy DATA

measures the same in every chest of DATA and writes docs/anatomy.md.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from deeplung_nb.imaging.anatomy import (
    BONE_ABOVE_HU,
    Chest,
    airway_from_ends_mm,
    missing_lung_ml,
    spine_behind,
    width_over_depth,
)
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.io import read_scan
from deeplung_nb.imaging.lungs import LungMask, segment_lungs
from deeplung_nb.imaging.phantom.make import make_phantom
from deeplung_nb.imaging.phantom.spec import read_specs
from deeplung_nb.imaging.plausibility import examine, misfit_of_lungs
from deeplung_nb.runs.registry import manifest_folder

LEVELS = {  # (z, y, x) direction in which it gets worse, share of the lungs
    "dorsal": ((0, 1, 0), 0.37), "very dorsal": ((0, 1, 0), 0.59), "nearly all": ((0, 1, 0), 0.78),
    "lower lobes": ((-1, 1, 0), 0.22),
    "left lung": ((0, 0, 1), 0.5), "right lung": ((0, 0, -1), 0.5), "ventral": ((0, -1, 0), 0.35),
    "upper": ((1, 0, 0), 0.3)}
MISSING = {"dorsal", "very dorsal", "nearly all", "lower lobes", "left lung", "right lung"}


def half(scan):
    """Every second pixel, means of 2 x 2: as good for this, and fast."""
    hu = scan.hu[:, :scan.shape[1] // 2 * 2, :scan.shape[2] // 2 * 2].astype(np.float32)
    hu = sum(hu[:, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
    gap, row, column = scan.spacing_mm
    return replace(scan, hu=np.rint(hu).astype(np.int16),
                   grid=Grid.upright(hu.shape, (gap, 2 * row, 2 * column)))


def ill(scan, lungs, kind):
    """The scan with consolidation, and its volume in mL."""
    direction, share = LEVELS[kind]
    places = [np.arange(n) * mm * d for n, mm, d in zip(scan.shape, scan.spacing_mm, direction,
                                                        strict=True)]
    height = sum(np.ix_(*places)) + np.zeros(scan.shape)
    level = np.quantile(height[lungs], 1 - share)
    weight = ndimage.gaussian_filter(
        np.clip((height - level) / 3 + 0.5, 0, 1) * lungs, (0, 1, 1)) * lungs
    noise = np.random.default_rng(0).normal(0, 12, scan.shape)
    hu = scan.hu * (1 - weight) + weight * (30 + noise)
    return (replace(scan, hu=np.rint(hu).astype(np.int16)),
            float((weight > 0.5).sum()) * scan.voxel_mm3 / 1000)


@pytest.fixture(scope="module", params=["phantom", "pet_ct_dx"])
def chest(request):
    """(scan, its healthy lungs)."""
    if request.param == "phantom":
        scan = make_phantom(read_specs(manifest_folder() / "phantom.csv")[0]).scan
    else:
        folder = request.getfixturevalue("shared_data")("dicom") / "lung_pet_ct_dx_a0001"
        scan = half(read_scan(folder))
    return scan, segment_lungs(scan).mask


@pytest.fixture(scope="module", params=LEVELS)
def case(request, chest):
    """(kind, ill scan, mL drawn, true lungs, lungs that are found)."""
    scan, lungs = chest
    changed, drawn = ill(scan, lungs, request.param)
    return request.param, changed, drawn, lungs, segment_lungs(changed)


@pytest.mark.nightly
def test_the_sick_are_not_refused(case):
    _, scan, _, _, found = case
    assert examine(scan, found).errors == ()


@pytest.mark.nightly
def test_lung_that_is_missing_is_said_with_a_number_that_is_no_exaggeration(case):
    kind, scan, drawn, _, found = case
    said = [one for one in examine(scan, found).warnings
            if "of the chest cavity are neither air nor heart" in one]
    assert bool(said) == (kind in MISSING) or kind == "ventral"
    if said:
        ml = float(said[0].split("at least ")[1].split()[0])
        assert ml <= 1.05 * drawn
        assert kind not in MISSING or ml >= 0.25 * drawn


@pytest.mark.nightly
def test_a_true_lung_mask_fits_however_ill_and_leaves_nothing_missing(case):
    _, scan, _, lungs, found = case
    given = LungMask.like(scan, lungs, "reference", "given.nii.gz")
    assert misfit_of_lungs(scan, given, found) is None
    found = examine(scan, given)
    assert found.errors == ()
    assert not any("chest cavity" in one for one in found.warnings)


@pytest.mark.nightly
@pytest.mark.parametrize(("axis", "words"), [(0, "from head to feet"), (1, "from back to front")])
def test_a_turned_file_is_found_however_ill(case, axis, words):
    kind, scan, *_ = case
    turned = replace(scan, hu=np.ascontiguousarray(np.flip(scan.hu, axis)))
    found = examine(turned, segment_lungs(turned))
    assert any(words in one for one in found.errors) or (
        kind == "ventral" and any("may be exchanged" in one for one in found.warnings))


@pytest.mark.parametrize("change", [
    lambda lungs: lungs[:, :, ::-1], lambda lungs: lungs[::-1], lambda lungs: lungs[:, ::-1],
    lambda lungs: np.roll(lungs, 12, axis=2), lambda lungs: ndimage.binary_erosion(lungs, None, 6),
    lambda lungs: np.ones_like(lungs)], ids=["mirrored", "upside down", "back to front", "moved",
                                             "inner part", "everything"])
def test_a_lung_mask_of_another_place_does_not_fit(chest, change):
    scan, lungs = chest
    wrong = LungMask.like(scan, np.ascontiguousarray(change(lungs)), "reference", "given.nii.gz")
    assert misfit_of_lungs(scan, wrong, segment_lungs(scan)) is not None


def test_gas_below_the_lungs_is_no_reason_to_refuse_a_mask(chest):
    scan, lungs = chest
    z = np.flatnonzero(lungs.any(axis=(1, 2)))[0] + 1
    body = Chest.of(scan).body
    row, column = (round(float(np.nonzero(body)[a].mean()) * scan.shape[a] / body.shape[a])
                   for a in (1, 2))
    gas = np.zeros(scan.shape, bool)
    gas[z:z + 3, row - 22:row - 2, column + 4:column + 30] = True
    hu = np.where(gas & ~lungs, -950, scan.hu).astype(np.int16)
    found = LungMask.like(scan, lungs | gas, "built-in")
    given = LungMask.like(scan, lungs, "reference")
    assert misfit_of_lungs(replace(scan, hu=hu), given, found) is None


@pytest.mark.nightly
def test_signs_that_no_disease_moves(case):
    _, scan, *_ = case
    found = Chest.of(scan)
    assert 1.1 < width_over_depth(found) < 1.7
    assert spine_behind(found) > 0.1
    turned = Chest.of(replace(scan, hu=np.ascontiguousarray(scan.hu[:, ::-1])))
    assert spine_behind(turned) == pytest.approx(-spine_behind(found), abs=0.05)


def test_the_windpipe_is_followed_from_the_head(chest):
    scan, _ = chest
    top, bottom = airway_from_ends_mm(Chest.of(scan))
    assert top > 90
    assert bottom < 30
    turned = Chest.of(replace(scan, hu=np.ascontiguousarray(scan.hu[::-1])))
    assert airway_from_ends_mm(turned) == (bottom, top)


def test_a_healthy_chest_misses_nothing_and_air_has_no_signs(chest):
    scan, lungs = chest
    found = Chest.of(scan)
    assert missing_lung_ml(found, found.coarse(lungs)) < 61
    empty = Chest(np.full((3, 40, 40), -1000.0, np.float32), (5.0, 2.0, 2.0))
    assert width_over_depth(empty) is None
    assert spine_behind(empty) is None
    assert airway_from_ends_mm(empty) == (0.0, 0.0)
    assert missing_lung_ml(empty, np.zeros((3, 40, 40), bool)) == 0.0


def test_missing_lung_of_a_drawn_cage_by_hand():
    """Two lungs in a ring of bone; the back of one, 40 mm deep and 36 mm wide, is filled."""
    y, x = np.mgrid[:150, :200]
    hu = np.full((9, 150, 200), -1000.0, np.float32)
    hu[:, ((y - 75) / 68) ** 2 + ((x - 100) / 90) ** 2 < 1] = 40
    lungs = np.zeros(hu.shape, bool)
    for left in (30, 130):
        lungs[:, 35:116, left:left + 41] = True
        ring = (slice(None), slice(118, 121), slice(left - 3, left + 44))
        hu[ring] = 400
    hu[lungs] = -850
    chest = Chest(hu, (5.0, 2.0, 2.0))
    assert missing_lung_ml(chest, lungs) == 0.0
    part = lungs.copy()
    part[:, 96:116, 140:158] = False
    hu[:, 96:116, 140:158] = 30
    # From the last aerated row (95) to the bone (118, a pixel nearer by dilation), less the wall.
    wanted = 9 * 18 * (117 - 96 - 2) * 20 / 1000
    assert missing_lung_ml(Chest(hu, (5.0, 2.0, 2.0)), part) == pytest.approx(wanted, rel=0.1)


def chests(data):
    """(name, scan) of real chests, at half their pixels, and of two phantoms."""
    for case in ("1", "2", "3", "5", "6", "8"):
        yield f"MedSeg {case}", half(read_scan(data / "medseg2" / "rp_im" / f"{case}.nii.gz"))
    yield "PET-CT A0001", half(read_scan(data / "dicom" / "lung_pet_ct_dx_a0001"))
    yield "ct-64", read_scan(data / "nrrd" / "ct-64.nrrd")  # whose pixels are of 4.2 mm
    for k in (0, 1):
        spec = read_specs(manifest_folder() / "phantom.csv")[k]
        yield f"phantom {spec.case_id}", make_phantom(spec).scan


def signs(scan, lungs):
    """One chest's line of the first table."""
    chest = Chest.of(scan)
    coarse = chest.coarse(lungs.mask)
    middle = round(chest.middle[1])
    sides = coarse[:, :, middle:].sum() / coarse[:, :, :middle].sum()
    top, bottom = airway_from_ends_mm(chest)
    return (f"{lungs.mask.sum() * scan.voxel_mm3 / 1000:.0f} | {width_over_depth(chest):.2f} "
            f"| {spine_behind(chest):+.2f} | {top:.0f} | {bottom:.0f} | {sides:.2f} "
            f"| {missing_lung_ml(chest, coarse):.0f}"
            f"{' (rough)' if chest.bone_above_hu < BONE_ABOVE_HU else ''}")


def main(data):
    """docs/anatomy.md."""
    first, second = [], []
    for name, scan in chests(data):
        lungs = segment_lungs(scan)
        first.append(f"| {name} | {signs(scan, lungs)} |")
        for kind in LEVELS:
            changed, drawn = ill(scan, lungs.mask, kind)
            found = segment_lungs(changed)
            odd = examine(changed, found)
            said = [one.split(" mL")[0] for one in odd.warnings if "of the chest cavity" in one]
            given = LungMask.like(changed, lungs.mask, "reference")
            second.append(f"| {name} | {kind} | {drawn:.0f} "
                          f"| {found.mask.sum() * scan.voxel_mm3 / 1000:.0f} "
                          f"| {said[0] if said else '–'} | {'; '.join(odd.errors) or '–'} "
                          f"| {misfit_of_lungs(changed, given, found) or '–'} |")
        print(*first[-1:], *second[-len(LEVELS):], sep="\n", flush=True)
    text = ["# What no disease moves, and how much lung is missing", "",
            "`.venv/bin/python -m tests.test_anatomy DATA` · real chests at half their pixels, as "
            "they are (COVID-19 pneumonia, a tumour) and with consolidation of 30 HU drawn below a "
            "level; lungs by the built-in segmenter. The limits in `imaging/orientation.py`, "
            "`anatomy.py` and `plausibility.py` were set on these chests.", "",
            "## As they are", "",
            "Body: width over depth. Spine: how far behind the middle, as a share of the depth. "
            "Windpipe: how far it can be followed from the top and from the bottom of the scan. "
            "Missing: what is taken for lung that is not in the mask; rough where values end below "
            "those of bone (said from 300 mL on, else from 100).", "",
            "| chest | lungs mL | body | spine | windpipe, top mm | bottom mm | left over right "
            "| missing mL |", "|---|--:|--:|--:|--:|--:|--:|--:|", *first, "",
            "## With disease drawn in", "",
            "Shares of the lungs: " + ", ".join(f"{kind} {share:.0%}" for kind, (_, share) in
                                                LEVELS.items()) + ".", "",
            "| chest | disease | drawn mL | lungs found mL | said to be missing, mL | refused for "
            "| the true lung mask is refused for |", "|---|---|--:|--:|---|---|---|", *second, ""]
    (Path(__file__).resolve().parent.parent / "docs" / "anatomy.md").write_text(
        "\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
