"""What is patient and what is not: on drawn pictures, and on a real CT made strange."""

import numpy as np
import pytest

from deeplung_nb.imaging.body import body_mask, find_body, without_outside
from deeplung_nb.imaging.grid import Grid
from deeplung_nb.imaging.scan import LesionMask, Scan
from deeplung_nb.reading.predict import Predictor


def trunk(size=200, n_slices=3, spacing=(5.0, 2.0, 2.0)):
    """An elliptic trunk with two lungs on a hollow table; and its body, lungs and table."""
    y, x = np.mgrid[:size, :size]
    body = ((y - 80) / 50) ** 2 + ((x - 100) / 75) ** 2 < 1
    lungs = np.zeros_like(body)
    for centre in (68, 132):
        lungs |= ((y - 78) / 36) ** 2 + ((x - centre) / 24) ** 2 < 1
    table = (np.abs(y - 155) < 20) & (np.abs(x - 100) < 90)
    hollow = (np.abs(y - 155) < 18) & (np.abs(x - 100) < 88)
    hu = np.full((n_slices, size, size), -1000, np.int16)
    hu[:, table] = 60
    hu[:, hollow] = -820
    hu[:, body] = 40
    hu[:, lungs] = -850
    return Scan(hu, Grid.upright(hu.shape, spacing), "trunk"), body, lungs, table


def test_the_body_has_its_lungs_and_no_table():
    scan, body, lungs, table = trunk()
    found = body_mask(scan)
    assert found[:, lungs].all()
    assert not found[:, table & ~body].any()
    assert (found == body).mean() > 0.995


@pytest.mark.parametrize("at", [np.s_[:, 40:, :], np.s_[:, :95, :], np.s_[:, :, 60:],
                                np.s_[:, :, :140]])
def test_a_crop_through_the_lungs_leaves_them_in_the_body(at):
    scan, body, lungs, table = trunk()
    hu = np.ascontiguousarray(scan.hu[at])
    found = body_mask(Scan(hu, Grid.upright(hu.shape, scan.spacing_mm), "crop"))
    assert found[:, lungs[at[1:]]].mean() > 0.98
    assert not found[:, (table & ~body)[at[1:]]].any()


@pytest.mark.parametrize("spacing", [(5.0, 0.8, 0.8), (1.0, 2.0, 2.0), (2.0, 1.5, 1.5)])
def test_the_body_lies_on_the_grid_of_its_scan(spacing):
    scan, body, _, _ = trunk(spacing=spacing)
    found = body_mask(scan)
    assert found.shape == scan.shape
    assert (found == body).mean() > 0.98


def test_a_slice_of_air_has_no_body():
    assert not find_body(np.full((2, 40, 40), -1000.0), (2.0, 2.0)).any()


def test_what_is_marked_outside_the_patient_is_no_lesion():
    scan, body, lungs, _ = trunk()
    mask = LesionMask.like(scan, np.full(scan.shape, 2, np.uint8))
    kept = without_outside(mask, body_mask(scan)).labels
    assert (kept[:, lungs] == 2).all()
    assert not kept[:, ~body & (scan.hu[0] < -400)].any()
    assert mask.labels.all()  # a new mask


def test_a_network_that_sees_lesions_everywhere_marks_none_outside_the_patient(monkeypatch):
    """Whoever asks for a mask: the prediction itself leaves the air out."""
    scan, body, lungs, _ = trunk()

    class Everywhere(Predictor):
        image_size = 64

        def __init__(self):
            pass

        def decide(self, scores):
            return scores[0]

        def read_batches(self, prepared, progress=None):
            scores = np.zeros((1, len(prepared), 3, 64, 64), np.float32)
            scores[:, :, 1] = 1.0
            yield scores, None

    labels = Everywhere().segment(scan).labels
    assert labels[:, lungs].all()
    assert not labels[:, ~body & (scan.hu[0] < -400)].any()
