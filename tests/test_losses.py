"""RMI against an independent identity, and its known properties."""

import pytest
import torch
from torch.nn import functional

from deeplung_nb.network.losses import (
    EPSILON,
    RMILoss,
    SegmentationLoss,
    region_vectors,
    rmi_lower_bound,
)
from deeplung_nb.runs.config import TrainingConfig


def ellipse(size=64):
    axis = torch.arange(size, dtype=torch.float32) - size / 2
    inside = (axis[:, None] / 14) ** 2 + (axis[None, :] / 20) ** 2 < 1
    return inside.float()[None, None]


def noisy(target):
    generator = torch.Generator().manual_seed(0)
    return (0.8 * target + 0.2 * torch.rand(target.shape, generator=generator)).clamp(0, 1)


def test_rmi_equals_the_joint_determinant_identity():
    """log det M = log det S_joint - log det S_P, with epsilon on the diagonals (Schur)."""
    target = ellipse()
    probability = noisy(target)
    y = region_vectors(functional.avg_pool2d(target.double(), 4))[0, 0]
    p = region_vectors(functional.avg_pool2d(probability.double(), 4))[0, 0]
    n = y.shape[-1]
    joint = torch.cat([y, p])
    noise = EPSILON / n
    whole = torch.logdet(joint @ joint.T / n + noise * torch.eye(18, dtype=torch.float64))
    part = torch.logdet(p @ p.T / n + noise * torch.eye(9, dtype=torch.float64))
    expected = 0.5 * (whole - part) / 9
    torch.testing.assert_close(rmi_lower_bound(target, probability)[0, 0], expected,
                               rtol=1e-10, atol=1e-12)


def test_a_better_prediction_has_a_lower_value_and_a_perfect_one_stays_finite():
    target = ellipse()
    perfect = rmi_lower_bound(target, target)
    close = rmi_lower_bound(target, noisy(target))
    useless = rmi_lower_bound(target, torch.full_like(target, 0.5))
    assert perfect < close < useless
    assert torch.isfinite(perfect).all()


def test_rmi_alone_is_blind_to_inversion_and_so_cannot_be_used_alone():
    target = ellipse()
    torch.testing.assert_close(rmi_lower_bound(target, noisy(target)),
                               rmi_lower_bound(target, 1 - noisy(target)))
    with pytest.raises(ValueError, match="blind"):
        RMILoss(rmi_weight=1.0)


def test_the_whole_loss_does_see_an_inverted_mask():
    target = torch.cat([1 - ellipse(), ellipse(), torch.zeros_like(ellipse())], dim=1)
    logits = (target - 0.5) * 8
    assert RMILoss()(logits, target) < RMILoss()(-logits, target)


def test_an_absent_class_adds_its_cross_entropy_only():
    target = torch.cat([1 - ellipse(), ellipse(), torch.zeros_like(ellipse())], dim=1)
    logits = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    bce = functional.binary_cross_entropy_with_logits(logits, target) * 3
    rmi = rmi_lower_bound(target[:, :2], torch.sigmoid(logits[:, :2])).mean()
    torch.testing.assert_close(RMILoss(0.5)(logits, target), 0.5 * bce + 0.5 * rmi.float())


def test_dividing_by_the_number_of_regions_only_shifts_the_scatter_form():
    """Against the published form (scatter matrices, epsilon undivided): plus half log N."""
    target, probability = ellipse(), noisy(ellipse())
    y = region_vectors(functional.avg_pool2d(target.double(), 4))[0, 0]
    p = region_vectors(functional.avg_pool2d(probability.double(), 4))[0, 0]
    eye = torch.eye(9, dtype=torch.float64)
    scatter = y @ y.T - (y @ p.T) @ torch.linalg.inv(p @ p.T + EPSILON * eye) @ (p @ y.T)
    published = 0.5 * torch.logdet(scatter + EPSILON * eye) / 9
    shift = 0.5 * torch.log(torch.tensor(float(y.shape[-1]), dtype=torch.float64))
    torch.testing.assert_close(rmi_lower_bound(target, probability)[0, 0] + shift, published,
                               rtol=1e-8, atol=1e-8)


def test_scores_that_are_not_finite_are_named():
    with pytest.raises(FloatingPointError, match="learning rate"):
        SegmentationLoss(TrainingConfig())(torch.full((1, 3, 32, 32), float("nan")),
                                           torch.zeros(1, 32, 32, dtype=torch.uint8))
