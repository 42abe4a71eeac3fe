"""ImageNet weights for a trunk, from a local file: nothing is ever downloaded."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from deeplung_nb.files import sha256_of
from deeplung_nb.network.deeplung import DeepLungNet
from deeplung_nb.runs.registry import read_encoders

_LAYER = re.compile(r"^(.*denselayer\d+)\.(norm|relu|conv)\.?([12])\.(.*)$")


def _densenet_name(name: str) -> str:
    """A torchvision DenseNet-121 parameter's name, as MONAI names it."""
    name = name.removeprefix("module.").removeprefix("features.")
    match = _LAYER.match(name)
    if match and ".layers." not in name:
        layer, kind, number, rest = match.groups()
        name = f"{layer}.layers.{kind}{number}.{rest}"
    return name


RENAMED: dict[str, tuple[Callable[[str], str], str, str]] = {
    # trunk: torchvision's name -> ours, its stem's weights, prefix of what such a file can't hold
    "densenet121": (_densenet_name, "conv0.weight", "-"),
    "mobilenet_v2": (lambda name: name.removeprefix("module."), "features.0.0.weight", "merge."),
}


def find_encoder(name_or_path: str | Path, data: Path | None) -> Path:
    """The file of a registered encoder in `<data>/encoders/`, its hash compared; or a given path.

    Raises
    ------
    FileNotFoundError, ValueError
        It is not there, or another file.
    """
    entry = read_encoders().get(str(name_or_path))
    if entry is None:
        return Path(name_or_path)
    path = (data or Path()) / "encoders" / entry["file"]
    if not path.is_file():
        raise FileNotFoundError(
            f"encoder {name_or_path!r}: {path} is missing. {entry['how']} (source: "
            f"{entry['source']}). To do without, give as --profile a JSON file of the "
            "settings with \"pretrained\": null")
    found = sha256_of(path)
    if not found.startswith(entry["sha256"]):
        raise ValueError(f"encoder {name_or_path!r}: {path} has SHA-256 {found}, expected "
                         f"{entry['sha256']}. It is another file or damaged: {entry['how']}")
    return path


def load_trunk_weights(network: DeepLungNet, path: str | Path) -> int:
    """Load a state dict of an ImageNet classifier (torchvision's names) into the trunk.

    The RGB stem becomes a one-channel stem by summing its kernels: a grey image fed to all three
    channels gives the same features.

    Returns
    -------
    int
        The number of tensors loaded: all of the trunk's that a classifier has.

    Raises
    ------
    FileNotFoundError, ValueError
        The file is missing, or does not fit; the message names the expected file and the remedy.
    """
    path = Path(path)
    kind = network.config.trunk
    if not path.exists():
        raise FileNotFoundError(
            f"ImageNet weights {path}: no such file. Fetch torchvision's {kind} weights on a "
            "connected machine and give their path as `pretrained`, or set pretrained=None for "
            "Kaiming initialisation."
        )
    rename, stem_name, own_prefix = RENAMED[kind]
    given: dict[str, Tensor] = {
        rename(name): tensor
        for name, tensor in torch.load(path, map_location="cpu", weights_only=True).items()
    }
    own = {name: tensor for name, tensor in network.trunk.state_dict().items()
           if not name.startswith(own_prefix)}
    stem = given.get(stem_name)
    if stem is not None and stem.shape[1] == 3:
        given[stem_name] = stem.sum(dim=1, keepdim=True)
    faults = [
        f"{name}: expected {tuple(tensor.shape)}, "
        f"found {tuple(given[name].shape) if name in given else 'nothing'}"
        for name, tensor in own.items()
        if not name.endswith("num_batches_tracked")
        and (name not in given or given[name].shape != tensor.shape)
    ]
    if faults:
        raise ValueError(
            f"{path} is no state dict of {kind} ({len(faults)} of {len(own)} tensors do not "
            f"fit; first: {faults[0]}). Give torchvision's weights of {kind}."
        )
    chosen = {name: given.get(name, tensor) for name, tensor in own.items()}
    network.trunk.load_state_dict(chosen, strict=False)
    return len(chosen)
