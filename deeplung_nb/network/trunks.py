"""Trunks of the main branch: one slice in, one map of features out. `TRUNKS` names them.

A trunk takes (B, 1, Y, X) in [0, 1], and says its `width` (channels of its map) itself. One more is
one more entry in `TRUNKS`, and one in `pretrained.RENAMED` where weights of it can be had.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from deeplung_nb.runs.config import NetworkConfig

IMAGENET_MEAN, IMAGENET_SD = 0.45, 0.226
"""Of the three colours together."""
MERGED_WIDTH = 64


class DenseTrunk(nn.Sequential):
    """DenseNet-121's features for one input channel, to the end of a dense block (the paper's).

    Source: Huang et al. 2017, arXiv 1608.06993. Two blocks: 512 channels at stride 8.
    """

    def __init__(self, dense_blocks: int) -> None:
        super().__init__()
        from monai.networks.nets import DenseNet121  # seconds to import, and not all need it

        features = DenseNet121(spatial_dims=2, in_channels=1, out_channels=1).features
        names = list(dict(features.named_children()))
        if f"denseblock{dense_blocks}" not in names:
            raise ValueError(f"dense_blocks {dense_blocks}: DenseNet-121 has 1 to 4")
        for name in names[: names.index(f"denseblock{dense_blocks}") + 1]:
            self.add_module(name, getattr(features, name))
        with torch.no_grad():
            self.eval()
            self.width = self(torch.zeros(1, 1, 64, 64)).shape[1]
            self.train()


def _conv(n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(n_out), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """1x1 to more channels, 3x3 in each, 1x1 back; added to the input where shapes agree."""

    def __init__(self, n_in: int, n_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = n_in * expansion
        first = [_conv(n_in, wide, 1)] if expansion > 1 else []
        self.conv = nn.Sequential(*first, _conv(wide, wide, 3, stride, wide),
                                  nn.Conv2d(wide, n_out, 1, bias=False), nn.BatchNorm2d(n_out))
        self.adds = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileTrunk(nn.Module):
    """MobileNetV2 at strides 4, 8, 16 and 32, merged top-down to stride 4.

    Each of the four maps goes by 1x1 to `MERGED_WIDTH` channels; from the coarsest on, the map so
    far is upsampled (bilinear) and added. 1.8 million parameters.

    Source: Sandler et al. 2018, arXiv 1801.04381, table 2; the merging after Lin et al. 2017, arXiv
    1612.03144. Names of the layers are torchvision's.
    """

    STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
              (6, 160, 3, 2), (6, 320, 1, 1))
    """Expansion, channels, blocks, stride of the first."""
    TAPS = (3, 6, 13, 17)
    """Layers whose output is taken, at strides 4, 8, 16, 32."""
    width = MERGED_WIDTH

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(1, 32, 3, 2)]
        widths, n_in = [32], 32
        for expansion, n_out, n_blocks, stride in self.STAGES:
            for block in range(n_blocks):
                layers.append(InvertedResidual(n_in, n_out, stride if block == 0 else 1, expansion))
                widths.append(n_out)
                n_in = n_out
        self.features = nn.Sequential(*layers)
        self.merge = nn.ModuleList(nn.Conv2d(widths[tap], self.width, 1) for tap in self.TAPS)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - IMAGENET_MEAN) / IMAGENET_SD
        taps = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.TAPS:
                taps.append(x)
        merged = self.merge[-1](taps[-1])
        for lateral, tap in zip(self.merge[-2::-1], taps[-2::-1], strict=True):
            merged = lateral(tap) + functional.interpolate(
                merged, size=tap.shape[-2:], mode="bilinear", align_corners=False)
        return merged


TRUNKS: dict[str, Callable[[NetworkConfig], nn.Module]] = {
    "densenet121": lambda config: DenseTrunk(config.dense_blocks),
    "mobilenet_v2": lambda _: MobileTrunk(),
}


def make_trunk(config: NetworkConfig) -> nn.Module:
    """The trunk of a configuration.

    Raises
    ------
    ValueError
        No trunk of this name.
    """
    if config.trunk not in TRUNKS:
        raise ValueError(f"trunk {config.trunk!r}: expected one of {', '.join(TRUNKS)}")
    return TRUNKS[config.trunk](config)
