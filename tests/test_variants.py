"""One real CT as scanners and viewers hand it on: the packaged network measures the same in it."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from deeplung_nb.imaging.body import body_mask
from deeplung_nb.imaging.io import read_scan
from deeplung_nb.network.packaged import packaged_checkpoints
from deeplung_nb.reading.predict import Predictor

SCRIPT = Path(__file__).resolve().parent.parent / "tools" / "measure_variants.py"


@pytest.fixture(scope="module")
def script():
    """tools/measure_variants.py, which makes docs/variants.md."""
    spec = importlib.util.spec_from_file_location("measure_variants", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FORMS = ("mean of 2×2 pixels", "sharp kernel, noise of 25 HU", "cropped 10 mm within the body")


@pytest.fixture(scope="module")
def measured(shared_data, script):
    """What the packaged network marks in a form of the CT of a tumour, by its name."""
    if not packaged_checkpoints():
        pytest.skip("the package holds no network")
    scan = read_scan(shared_data("dicom") / "lung_pet_ct_dx_a0001")
    predictor = Predictor.from_checkpoints(packaged_checkpoints())
    return {form: script.measured(form, *rest, predictor)
            for form, *rest in script.variants(scan) if form in ("as it is", *FORMS)}


@pytest.mark.nightly
@pytest.mark.parametrize("name", FORMS)
def test_a_real_ct_in_another_form_is_plausible_and_has_no_lesion_outside(measured, name):
    found = measured[name]
    assert found["errors"] == ()
    assert found["outside"] == 0.0
    assert found["lung"] == pytest.approx(measured["as it is"]["lung"], rel=0.02)


@pytest.mark.nightly
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="docs/variants.md, Beyond it: "
                   "deeplung-mobile-2 marks 16 to 22 % more in these forms, the tolerance is 15 %")
@pytest.mark.parametrize("name", FORMS)
def test_a_real_ct_in_another_form_has_nearly_the_same_volume(measured, script, name):
    assert measured[name]["lesion"] == pytest.approx(
        measured["as it is"]["lesion"], rel=script.TOLERANCE_PERCENT / 100)


def test_variants_of_a_drawn_scan_keep_its_tissue(script):
    """That the script makes what it says: places, spacings and means."""
    from tests.test_body import trunk

    scan, _, _, _ = trunk(n_slices=6)
    made = list(script.variants(scan))
    assert len({name for name, *_ in made}) == 21
    extent = np.multiply(scan.shape, scan.spacing_mm)
    for name, variant, patient in made:
        if "cropped" not in name:
            assert np.multiply(variant.shape, variant.spacing_mm) == pytest.approx(extent, rel=0.05)
        assert patient.shape == variant.shape
        # Found anew, the body lies where the scan as it is has it.
        assert (patient == body_mask(variant)).mean() > 0.98, name
