"""The networks that the paper compares with (Table 4), from MONAI."""

from __future__ import annotations

from monai.networks.nets import BasicUNet
from torch import nn

from deeplung_nb.labels import LABELS


def unet_2d() -> nn.Module:
    """The classic U-Net, 64 to 1024 channels (Ronneberger et al. 2015): (B, 1, Y, X) in."""
    return BasicUNet(spatial_dims=2, in_channels=1, out_channels=len(LABELS),
                     features=(64, 128, 256, 512, 1024, 64))


def unet_3d() -> nn.Module:
    """A 3-D U-Net, 32 to 512 channels (after Cicek et al. 2016): (B, 1, Z, Y, X) in, Z >= 16."""
    return BasicUNet(spatial_dims=3, in_channels=1, out_channels=len(LABELS),
                     features=(32, 64, 128, 256, 512, 32))
