"""ImageNet weights for the dense trunk, from a local file: nothing is ever downloaded."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from deeplung_nb.network.deeplung import DeepLungNet

_LAYER = re.compile(r"^(.*denselayer\d+)\.(norm|relu|conv)\.?([12])\.(.*)$")


def _monai_name(name: str) -> str:
    """A torchvision DenseNet-121 parameter's name, as MONAI names it."""
    name = name.removeprefix("module.").removeprefix("features.")
    match = _LAYER.match(name)
    if match and ".layers." not in name:
        layer, kind, number, rest = match.groups()
        name = f"{layer}.layers.{kind}{number}.{rest}"
    return name


def load_trunk_weights(network: DeepLungNet, path: str | Path) -> int:
    """Load a DenseNet-121 state dict (torchvision's or MONAI's names) into the trunk.

    The RGB stem becomes a one-channel stem by summing its kernels: a grey image fed to all three
    channels gives the same features.

    Returns
    -------
    int
        The number of tensors loaded: all of the trunk's.

    Raises
    ------
    FileNotFoundError, ValueError
        The file is missing, or does not fit; the message names the expected file and the remedy.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"ImageNet weights {path}: no such file. Fetch torchvision's densenet121-a639ec97.pth "
            "on a connected machine and give its path as `pretrained`, or set pretrained=None for "
            "Kaiming initialisation."
        )
    given: dict[str, Tensor] = {
        _monai_name(name): tensor
        for name, tensor in torch.load(path, map_location="cpu", weights_only=True).items()
    }
    own = network.trunk.state_dict()
    stem = given.get("conv0.weight")
    if stem is not None and stem.shape[1] == 3:
        given["conv0.weight"] = stem.sum(dim=1, keepdim=True)
    faults = [
        f"{name}: expected {tuple(tensor.shape)}, "
        f"found {tuple(given[name].shape) if name in given else 'nothing'}"
        for name, tensor in own.items()
        if not name.endswith("num_batches_tracked")
        and (name not in given or given[name].shape != tensor.shape)
    ]
    if faults:
        raise ValueError(
            f"{path} is not a DenseNet-121 state dict ({len(faults)} of {len(own)} tensors do not "
            f"fit; first: {faults[0]}). Give torchvision's densenet121-a639ec97.pth."
        )
    chosen = {name: given.get(name, tensor) for name, tensor in own.items()}
    network.trunk.load_state_dict(chosen)
    return len(chosen)
