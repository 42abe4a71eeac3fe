"""Losses: region mutual information (RMI) with binary cross-entropy, and cross-entropy with Dice.

Source: Zhao, Wang, Yang, Cai, NeurIPS 2019, arXiv 1910.12037. For an image and a class, each 3x3
region of the (pooled) target and prediction is a vector of nine values, Y and P. Under the best
linear estimate of Y from P the error has the covariance

    M = S_Y - S_YP (S_P + eps I)^-1 S_YP^T

and  I(Y; P) >= const - 1/2 log det M,  so 1/2 log det(M + eps I) is minimised.
"""

from __future__ import annotations

import torch
from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional

from deeplung_nb.labels import BACKGROUND, GGO, HIGH_OPACITY, LABELS, NO_ANSWER
from deeplung_nb.runs.config import TrainingConfig

REGION = 3
POOL = 4
EPSILON = 5e-4
CERTAIN = 30.0
"""A logit of a sure answer."""


def region_vectors(maps: Tensor, region: int = REGION) -> Tensor:
    """(B, C, Y, X) to centred region vectors (B, C, region^2, N), float64."""
    n_batch, n_classes = maps.shape[:2]
    vectors = functional.unfold(maps.double().flatten(0, 1).unsqueeze(1), region)
    vectors = vectors.unflatten(0, (n_batch, n_classes))
    return vectors - vectors.mean(dim=-1, keepdim=True)


def rmi_lower_bound(target: Tensor, probability: Tensor) -> Tensor:
    """Half the log determinant of the error covariance, per region pixel: (B, C), float64.

    Lower is better; it is negative for a good prediction. Covariances are divided by the number
    of regions N, and epsilon likewise: against the paper's scatter matrices this shifts the value
    by the constant 1/2 log N and leaves the gradient as it is, so that crops of different size
    can be compared. float64, since M is a small difference of large sums: in float32 the
    Cholesky factor fails for sharp predictions.

    Parameters
    ----------
    target, probability
        (B, C, Y, X), in [0, 1].
    """
    y = region_vectors(functional.avg_pool2d(target.double(), POOL))
    p = region_vectors(functional.avg_pool2d(probability.double(), POOL))
    n_regions = y.shape[-1]
    dimension = y.shape[-2]
    noise = EPSILON / n_regions * torch.eye(dimension, dtype=y.dtype, device=y.device)
    cov_y = y @ y.transpose(-1, -2) / n_regions
    cov_p = p @ p.transpose(-1, -2) / n_regions
    cov_py = p @ y.transpose(-1, -2) / n_regions
    factor = torch.linalg.cholesky(cov_p + noise)
    explained = torch.linalg.solve_triangular(factor, cov_py, upper=False)
    error = cov_y - explained.transpose(-1, -2) @ explained
    log_diagonal = torch.linalg.cholesky(error + noise).diagonal(dim1=-2, dim2=-1).log()
    return log_diagonal.sum(dim=-1) / dimension


class RMILoss(nn.Module):
    """`(1 - rmi_weight) * BCE + rmi_weight * RMI`, sigmoid per class.

    BCE is summed over the classes and averaged over the pixels. RMI is averaged over the pairs of
    image and class which are present in the target: for an absent class it is a constant with no
    gradient (a deviation from the published code, which averages these constants in). RMI does
    not see an inverted mask nor a false positive elsewhere, so `rmi_weight` must stay below 1.

    `dice_weight` adds a soft Dice loss of the lesion classes, pooled over the batch (MONAI).

    Not-finite scores are for the caller to refuse (`SegmentationLoss`).
    """

    def __init__(self, rmi_weight: float = 0.5, dice_weight: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= rmi_weight < 1.0:
            raise ValueError(
                f"rmi_weight {rmi_weight}: expected 0 <= weight < 1, since RMI alone is blind to "
                "inverted masks and false positives"
            )
        self.rmi_weight, self.dice_weight = rmi_weight, dice_weight
        self.dice = DiceLoss(include_background=False, sigmoid=True, batch=True)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss; `logits` (B, C, Y, X), `target` one-hot of the same shape, in [0, 1]."""
        with torch.autocast(logits.device.type, enabled=False):
            logits, target = logits.float(), target.float()
            bce = functional.binary_cross_entropy_with_logits(logits, target) * logits.shape[1]
            loss = (1.0 - self.rmi_weight) * bce
            if self.rmi_weight > 0.0:
                values = rmi_lower_bound(target, torch.sigmoid(logits))
                present = (target.amax(dim=(-2, -1)) > 0).to(values.dtype)
                rmi = (values * present).sum() / present.sum().clamp(min=1.0)
                loss = loss + self.rmi_weight * rmi.float()
            if self.dice_weight > 0.0:
                loss = loss + self.dice_weight * self.dice(logits, target)
            return loss


def one_hot(target: Tensor) -> Tensor:
    """Class codes (B, Y, X) to float32 (B, class, Y, X); zeros where there is no answer."""
    known = target != NO_ANSWER
    codes = torch.where(known, target, BACKGROUND.code).long()
    hot = functional.one_hot(codes, len(LABELS)).permute(0, 3, 1, 2).float()
    return hot if bool(known.all()) else hot * known.unsqueeze(1)


class ClassLoss(nn.Module):
    """Cross-entropy and the mean soft Dice loss of ground glass, high opacity and any lesion.

    Both over the batch, softmax over the classes; pixels without an answer have no part in it.

    Source: Milletari, Navab & Ahmadi 2016, arXiv 1606.04797 (soft Dice); the sum with cross-entropy
    after Isensee et al. 2021, Nat Methods 18:203.
    """

    SMOOTH = 1.0

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss; `logits` (B, C, Y, X), `target` class codes (B, Y, X)."""
        with torch.autocast(logits.device.type, enabled=False):
            logits, target = logits.float(), target.long()
            entropy = functional.cross_entropy(logits, target, ignore_index=NO_ANSWER)
            known = (target != NO_ANSWER).float()
            shares = torch.softmax(logits, dim=1)
            losses = []
            for codes in ((GGO.code,), (HIGH_OPACITY.code,), (GGO.code, HIGH_OPACITY.code)):
                found = shares[:, list(codes)].sum(dim=1) * known
                wanted = torch.isin(target, torch.tensor(codes, device=target.device)).float()
                both = (found * wanted).sum()
                losses.append(1 - (2 * both + self.SMOOTH)
                              / (found.sum() + wanted.sum() + self.SMOOTH))
            return entropy + torch.stack(losses).mean()


class LungLoss(nn.Module):
    """Binary cross-entropy and soft Dice (pooled over the batch) of the lungs."""

    def __init__(self) -> None:
        super().__init__()
        self.dice = DiceLoss(sigmoid=True, batch=True)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss; 0 where nothing is known.

        Parameters
        ----------
        logits
            (B, 1, y, x), of any size: they are enlarged to the target's.
        target
            (B, Y, X): 1 in the lungs, 0 outside them, `NO_ANSWER` where it is not known.
        """
        with torch.autocast(logits.device.type, enabled=False):
            logits = functional.interpolate(logits.float(), size=target.shape[-2:],
                                            mode="bilinear", align_corners=False)
            known = (target != NO_ANSWER).unsqueeze(1)
            wanted = (target == 1).unsqueeze(1).float()
            answered = torch.where(known, logits, -CERTAIN)
            entropy = functional.binary_cross_entropy_with_logits(
                answered, wanted, weight=known.float(), reduction="sum") / known.sum().clamp(min=1)
            return entropy + self.dice(answered, wanted) * known.any()


class SegmentationLoss(nn.Module):
    """What a training minimises: `region_weight` x RMI + BCE, `class_weight` x CE + Dice."""

    def __init__(self, config: TrainingConfig) -> None:
        super().__init__()
        self.region_weight, self.class_weight = config.region_weight, config.class_weight
        self.region = RMILoss(config.rmi_weight, config.dice_weight)
        self.classes = ClassLoss()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss; `logits` (B, C, Y, X), `target` class codes (B, Y, X).

        Raises
        ------
        FloatingPointError
            A score is NaN or infinite.
        """
        if not torch.isfinite(logits).all():
            raise FloatingPointError(
                "the network's scores are not finite: lower the learning rate, or check the "
                "input for NaN"
            )
        terms = []
        if self.region_weight > 0.0:
            known = (target != NO_ANSWER).unsqueeze(1)
            # A sure "nothing" where nothing is asked for: no term of it has a gradient there.
            answered = torch.where(known, logits, -CERTAIN)
            region = self.region(answered, one_hot(target))
            terms.append(region if self.region_weight == 1.0 else self.region_weight * region)
        if self.class_weight > 0.0:
            terms.append(self.class_weight * self.classes(logits, target))
        return sum(terms[1:], terms[0])
