"""The same network, arranged for scoring on a CPU: equal scores but for rounding, in half the time.

Batch norm is folded into the convolutions before it (torch.fx), maps lie channels last, both heads
of the attention branch are one, and its ConvLSTM is `fused`. `DeepLungNet.forward` stays what it is
tested against, and what trains.
"""

from __future__ import annotations

import copy
import warnings

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from deeplung_nb.network.deeplung import LEAK, DeepLungNet, Scores, within_lungs
from deeplung_nb.network.fused import FusedConvLSTM


def _folded(module: nn.Module) -> nn.Module:
    """A copy for scoring: batch norm within the convolutions, channels last."""
    with torch.inference_mode(False), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what it imports, and we don't use
        from torch.fx.experimental.optimization import fuse

        return fuse(copy.deepcopy(module).eval()).to(memory_format=torch.channels_last).eval()


class _MergedHeads(nn.Module):
    """Heads of one input as one: their first convolutions side by side, then group by group."""

    def __init__(self, *heads: nn.Sequential) -> None:
        super().__init__()
        self.groups = len(heads)
        parts = [[layer for layer in _folded(head).modules() if isinstance(layer, nn.Conv2d)]
                 for head in heads]
        self.weights = [torch.cat([layer.weight.detach() for layer in layers])
                        for layers in zip(*parts, strict=True)]
        self.biases = [torch.cat([layer.bias.detach() for layer in layers])
                       for layers in zip(*parts, strict=True)]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        last = len(self.weights) - 1
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = functional.conv2d(x, weight, bias, padding="same",
                                  groups=self.groups if k else 1)
            if k < last:
                functional.leaky_relu_(x, LEAK)
        return x.chunk(self.groups, dim=1)


class _SideBySide(nn.Module):
    """A trunk and the channels of all its heads."""

    def __init__(self, trunk: nn.Module, *heads: nn.Module) -> None:
        super().__init__()
        self.trunk, self.heads = trunk, nn.ModuleList(heads)

    def forward(self, x: Tensor) -> Tensor:
        features = self.trunk(x)
        return torch.cat([head(features) for head in self.heads], dim=1)


class FastDeepLungNet:
    """A trained `DeepLungNet` on the CPU. The network is copied: later training does not move it.

    Needs Numba where it has an attention branch (`kernels.can_compile`).
    """

    def __init__(self, network: DeepLungNet) -> None:
        self.middle = -network.sees[0]
        self.marks_lungs = network.config.lungs
        heads = [network.main_head, *([network.lung_head] if self.marks_lungs else [])]
        self.main = _folded(_SideBySide(network.trunk, *heads))
        self.convlstm = self.heads = None
        if network.config.attention:
            self.convlstm = FusedConvLSTM(network.convlstm)
            self.heads = _MergedHeads(network.attention_branch_head, network.attention_head)

    def __call__(self, bordered: np.ndarray, orders: np.ndarray) -> Scores:
        """Scores of the middle slices of windows.

        Parameters
        ----------
        bordered
            Slices of a scan, of `fused.with_border`: float32 [z, y + 2, x + 2].
        orders
            [window, step], whole numbers: the slices of each window.

        Returns
        -------
        As `DeepLungNet.forward`, of which `fused` and `lungs`; `main` and `attention` are None.
        """
        targets = torch.from_numpy(bordered[orders[:, self.middle], None, 1:-1, 1:-1])
        low = self.main(targets.contiguous(memory_format=torch.channels_last))
        lungs = None
        if self.marks_lungs:
            low, lungs = low[:, :-1], low[:, -1:]
        main = functional.interpolate(low, size=targets.shape[-2:], mode="bilinear",
                                      align_corners=False)
        if self.convlstm is None:
            return Scores(main if lungs is None else within_lungs(main, lungs), None, None, lungs)
        states = self.convlstm(bordered, orders)
        from_neighbours, attention = self.heads(
            states.contiguous(memory_format=torch.channels_last))
        # main alpha + neighbours (1 - alpha), equation 1, with one product less
        fused = torch.lerp(from_neighbours, main, torch.sigmoid(attention))
        # The gate of both branches is one and the same, and so that of what they make.
        return Scores(fused if lungs is None else within_lungs(fused, lungs), None, None, lungs)
