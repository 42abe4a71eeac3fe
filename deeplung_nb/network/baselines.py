"""The networks that the paper compares with (Table 4): U-Nets from MONAI, of any width."""

from __future__ import annotations

from torch import Tensor, nn

from deeplung_nb.labels import LABELS
from deeplung_nb.network.deeplung import Scores
from deeplung_nb.runs.config import UNetConfig

SLAB = 16
"""Slices that the 3-D U-Net sees at once: its four poolings need at least 16."""


class UNet(nn.Module):
    """A U-Net of five levels, behind the interface of `DeepLungNet`.

    `unet2d` sees and scores one slice (after Ronneberger et al. 2015: 64 to 1024 channels at width
    64); `unet3d` sees and scores a slab of 16 (after Cicek et al. 2016: 32 to 512 at width 32).
    """

    def __init__(self, config: UNetConfig, image_size: int) -> None:
        super().__init__()
        from monai.networks.nets import BasicUNet  # seconds to import, and who segments needs none

        self.config, self.name, self.image_size = config, config.name, image_size
        self.output, self.lesion_threshold = "sigmoid", None
        solid = config.name == "unet3d"
        self.sees = range(-SLAB // 2, SLAB // 2) if solid else range(1)
        self.scores = self.sees
        width = config.width
        self.unet = BasicUNet(
            spatial_dims=3 if solid else 2, in_channels=1, out_channels=len(LABELS),
            # A step holds few slabs, too few for batch norm.
            norm="instance" if solid else "batch",
            features=(width, 2 * width, 4 * width, 8 * width, 16 * width, width),
        )

    def forward(self, window: Tensor) -> Scores:
        """Scores (B * len(scores), class, Y, X) of a window (B, len(sees), Y, X) in [0, 1].

        Raises
        ------
        ValueError
            The window holds another number of slices.
        """
        if window.ndim != 4 or window.shape[1] != len(self.sees):
            raise ValueError(f"{self.name}: window of shape {tuple(window.shape)}: expected "
                             f"(batch, {len(self.sees)}, y, x)")
        if self.name == "unet2d":
            return Scores(self.unet(window), None, None)
        solid = self.unet(window.unsqueeze(1))                     # (B, class, Z, Y, X)
        return Scores(solid.transpose(1, 2).flatten(0, 1), None, None)
