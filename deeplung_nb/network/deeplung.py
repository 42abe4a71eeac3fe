"""DeepLungNet: hierarchical attention over a trunk and a ConvLSTM (paper, section 2.5).

    window (B, 11, Y, X) --target slice--> trunk ---+---> segmentation head --upsample--> S_main
                                                    +---> lung head, where the settings ask for it
                         --all slices----> ConvLSTM --+--> segmentation head ------------> S_attn
                                                      +--> attention head + sigmoid -----> alpha

    S = S_main * alpha + S_attn * (1 - alpha)                                        (equation 1)

With a lung head, a lesion's chance is that of the lung times that of the lesion there: log P(lung)
is added to the logits of lesions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from deeplung_nb.labels import LABELS
from deeplung_nb.network.convlstm import ConvLSTM
from deeplung_nb.network.fused_training import can_walk, walk
from deeplung_nb.network.trunks import make_trunk
from deeplung_nb.runs.config import NetworkConfig

FORGET_BIAS = 1.0
LEAK = 0.2


class Scores(NamedTuple):
    """What a network returns: logits (B, class, Y, X) and the attention map, in (0, 1).

    `main` and `attention` are None in a network without branches, `lungs` in one that doesn't mark
    them; else they are logits (B, 1, y, x) at the stride of the trunk.
    """

    fused: Tensor
    main: Tensor | None
    attention: Tensor | None
    lungs: Tensor | None = None


def probabilities(logits: Tensor, output: str) -> Tensor:
    """Logits (B, class, Y, X) as scores in (0, 1): `sigmoid` by class, or `softmax` over them."""
    return torch.sigmoid(logits) if output == "sigmoid" else torch.softmax(logits, dim=1)


def within_lungs(logits: Tensor, lungs: Tensor) -> Tensor:
    """Logits (B, class, Y, X), those of lesions lowered by log P(lung) of (B, 1, y, x) logits."""
    gate = functional.logsigmoid(functional.interpolate(
        lungs, size=logits.shape[-2:], mode="bilinear", align_corners=False))
    return torch.cat([logits[:, :1], logits[:, 1:] + gate], dim=1)


def head(width: int, n_out: int) -> nn.Sequential:
    """Two blocks [3x3 convolution, batch norm, leaky ReLU] at constant width, then 1x1."""
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(LEAK),
        ]
    return nn.Sequential(*layers, nn.Conv2d(width, n_out, 1))


class DeepLungNet(nn.Module):
    """The network of the paper; `config` holds what the paper leaves open.

    `sees` and `scores` are the slices of its window and those that it scores, counted from the
    target slice.
    """

    name = "deeplung"
    fused_training = True
    """Whether the ConvLSTM trains in compiled loops where it can; False: the plain way."""

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config or NetworkConfig()
        self.image_size, self.output = self.config.image_size, self.config.output
        self.lesion_threshold = self.config.lesion_threshold
        n_beside = self.config.n_neighbours if self.config.attention else 0
        self.sees = range(-n_beside, n_beside + 1)
        self.scores = range(1)
        n_classes = len(LABELS)
        self.trunk = make_trunk(self.config)
        self.main_head = head(self.trunk.width, n_classes)
        if self.config.lungs:
            self.lung_head = head(self.trunk.width, 1)
        if self.config.attention:
            self.convlstm = ConvLSTM(1, self.config.hidden, self.config.lstm_layers)
            self.attention_branch_head = head(self.config.hidden, n_classes)
            self.attention_head = head(self.config.hidden, n_classes)
        self._initialise()

    def _initialise(self) -> None:
        """Kaiming He for convolutions; zero biases but for the forget gates."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=LEAK)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for cell in self.convlstm.cells if self.config.attention else ():
            with torch.no_grad():
                cell.from_input.bias[cell.hidden:2 * cell.hidden] = FORGET_BIAS

    def forward(self, window: Tensor) -> Scores:
        """Scores of the middle slice of each window.

        Parameters
        ----------
        window
            (B, len(sees), Y, X), values in [0, 1], from the lowest slice index to the highest.

        Raises
        ------
        ValueError
            The window holds another number of slices than the network was made for.
        """
        if window.ndim != 4 or window.shape[1] != len(self.sees):
            raise ValueError(
                f"window of shape {tuple(window.shape)}: expected "
                f"(batch, {len(self.sees)}, y, x)"
            )
        target = window[:, -self.sees[0]].unsqueeze(1)                         # (B, 1, Y, X)
        features = self.trunk(target)
        low = self.main_head(features)                    # (B, 3, Y/8, X/8), of MobileNetV2 at 1/4
        lungs = self.lung_head(features) if self.config.lungs else None        # (B, 1, as low)
        main = functional.interpolate(
            low, size=window.shape[-2:], mode="bilinear", align_corners=False  # (B, 3, Y, X)
        )
        if lungs is not None:
            main = within_lungs(main, lungs)
        if not self.config.attention:
            return Scores(main, None, None, lungs)
        slices, cells = window.unsqueeze(2), self.convlstm.cells
        walks = self.training and self.fused_training and can_walk(slices, cells)
        state = walk(slices, cells) if walks else self.convlstm(slices)        # (B, hidden, Y, X)
        from_neighbours = self.attention_branch_head(state)                    # (B, 3, Y, X)
        if lungs is not None:
            from_neighbours = within_lungs(from_neighbours, lungs)
        attention = torch.sigmoid(self.attention_head(state))                  # (B, 3, Y, X)
        fused = main * attention + from_neighbours * (1.0 - attention)
        return Scores(fused, main, attention, lungs)


def layer_table(network: DeepLungNet) -> list[dict[str, object]]:
    """Rows (part, output shape, parameters) read off the module graph by running it once."""
    size = network.config.image_size
    rows: list[dict[str, object]] = []

    def note(name: str, part: nn.Module):
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            rows.append({
                "part": name,
                "output_shape": "x".join(str(n) for n in output.shape[1:]),
                "parameters": sum(p.numel() for p in part.parameters()),
            })
        return part.register_forward_hook(hook)

    handles = [note(name, part) for name, part in network.named_children()]
    was_training = network.training
    try:
        network.eval()
        with torch.no_grad():
            fused = network(torch.zeros(1, len(network.sees), size, size)).fused
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    rows.append({"part": "fusion", "output_shape": "x".join(str(n) for n in fused.shape[1:]),
                 "parameters": 0})
    return rows
