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


@pytest.mark.nightly
@pytest.mark.xfail(strict=True, reason="deeplung-mobile-2 marks 202, 208 and 212 mL in these forms "
                   "where it marks 173 in the CT as it is: beyond the tolerance of 15 %")
@pytest.mark.parametrize("name", ["mean of 2×2 pixels", "sharp kernel, noise of 25 HU",
                                  "cropped 10 mm within the body"])
def test_a_real_ct_in_another_form_has_no_lesion_outside_and_nearly_the_same_volume(
        shared_data, script, name):
    scan = read_scan(shared_data("dicom") / "lung_pet_ct_dx_a0001")
    if not packaged_checkpoints():
        pytest.skip("the package holds no network")
    variant, = (one for one in script.variants(scan) if one[0] == name)
    found = script.measured(*variant, Predictor.from_checkpoints(packaged_checkpoints()))
    assert found["errors"] == ()
    assert found["outside"] == 0.0
    assert found["lesion"] == pytest.approx(173.4, rel=script.TOLERANCE_PERCENT / 100)
    assert found["lung"] == pytest.approx(5628, rel=0.02)


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
