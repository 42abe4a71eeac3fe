"""Networks by name, and their files: what was learned, and what must be known to use it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from deeplung_nb import __version__
from deeplung_nb.files import atomic_path
from deeplung_nb.imaging.preprocess import HU_WINDOW
from deeplung_nb.network.baselines import UNet
from deeplung_nb.network.deeplung import DeepLungNet
from deeplung_nb.network.pretrained import find_encoder, load_trunk_weights
from deeplung_nb.runs.config import Config, NetworkConfig, UNetConfig
from deeplung_nb.runs.registry import is_phantom

CHECKPOINT = "checkpoint.pt"
Network = DeepLungNet | UNet


def build_network(config: Config, name: str = DeepLungNet.name,
                  data: Path | None = None) -> Network:
    """A new network of a configuration: `deeplung`, or one of its `baselines` by name.

    `data` is the folder in which pretrained encoders lie.

    Raises
    ------
    ValueError
        The configuration has no baseline of this name.
    """
    if name == DeepLungNet.name:
        network = DeepLungNet(config.network)
        if config.pretrained:
            load_trunk_weights(network, find_encoder(config.pretrained, data))
        return network
    for unet in config.baselines:
        if unet.name == name:
            return UNet(unet, config.network.image_size)
    known = ", ".join((DeepLungNet.name, *(unet.name for unet in config.baselines)))
    raise ValueError(f"network {name!r}: this configuration has {known}")


def describe_training(config: Config) -> dict[str, Any]:
    """What a network was trained on, for its checkpoint and for all that it segments."""
    return {"profile": config.profile, "cohorts": list(config.cohorts),
            "synthetic": all(map(is_phantom, config.cohorts))}


def save_tensors(content: dict[str, Any], path: Path) -> None:
    """`torch.save` of which equal contents are equal bytes.

    Given a path it would write the file's name (of a moment, with the machine's) into the file.
    """
    with path.open("wb") as stream:
        torch.save(content, stream)


def save_network(network: Network, path: Path, trained_on: dict[str, Any], **facts: Any) -> None:
    """State dict and settings: all that is needed to predict, loadable with weights_only.

    `trained_on` is what `describe_training` says; `facts` go along (epoch, validation loss).
    """
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    with atomic_path(path) as part:
        save_tensors({"state": state, "name": network.name, "network": asdict(network.config),
                      "image_size": network.image_size, "hu_window": HU_WINDOW,
                      "software": __version__, "trained_on": trained_on, **facts}, part)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What a checkpoint holds: `state, name, network, image_size, hu_window, trained_on, software`.

    Raises
    ------
    FileNotFoundError, ValueError
        The file is missing or no checkpoint of this package.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"checkpoint {path}: a folder, expected a file: give one of "
                         f"{', '.join(sorted(str(p) for p in path.rglob(CHECKPOINT))[:6]) or 'its'}"
                         " checkpoint files")
    if not path.is_file():
        raise FileNotFoundError(
            f"checkpoint {path}: no such file. Train a fold (notebook 04) or give another path."
        )
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        _check(saved)
    except Exception as error:
        raise _no_checkpoint(path, error) from error
    window = tuple(saved.get("hu_window", HU_WINDOW))
    if window != HU_WINDOW:
        raise ValueError(f"checkpoint {path}: trained on HU from {window[0]:g} to {window[1]:g}, "
                         f"expected {HU_WINDOW[0]:g} to {HU_WINDOW[1]:g}. It is of another "
                         "version of this package: use that, or train anew")
    return saved


def _check(saved: dict[str, Any]) -> None:
    """That a checkpoint holds what it must, each of its kind; else any error."""
    low, high = saved.get("hu_window", HU_WINDOW)
    trained = saved.get("trained_on") or {"cohorts": [], "synthetic": False}
    kinds = [(low, (int, float)), (high, (int, float)), (saved["name"], str),
             (saved["network"], dict), (saved["state"], dict),
             (trained["cohorts"], (list, tuple)), (trained["synthetic"], bool),
             *((tensor, torch.Tensor) for tensor in saved["state"].values()),
             *((cohort, str) for cohort in trained["cohorts"])]
    if not all(isinstance(value, kind) for value, kind in kinds):
        raise TypeError("a field is of another kind")


def _require_finite(state: dict[str, torch.Tensor], path: str | Path) -> None:
    wrong = [name for name, tensor in state.items()
             if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if wrong:
        raise ValueError(f"checkpoint {path}: weights that are NaN or infinite in {len(wrong)} of "
                         f"{len(state)} tensors ({wrong[0]} ...), expected numbers. The training "
                         "diverged, or the file is damaged: train anew, or copy it again")


def _no_checkpoint(path: str | Path, error: Exception) -> ValueError:
    known = isinstance(error, RuntimeError)  # torch's own words; others only tell of internals
    why = f" ({str(error).partition(chr(10))[0][:120]})" if known else ""
    return ValueError(f"checkpoint {path}: not a checkpoint of this package, or damaged{why}. "
                      "Expected a file 'checkpoint.pt' of a fold.")


def load_network(path: str | Path) -> Network:
    """A network from a checkpoint, ready to predict.

    Raises
    ------
    FileNotFoundError, ValueError
        The file is missing or no checkpoint of this package, or its weights are no numbers.
    """
    saved = read_checkpoint(path)
    _require_finite(saved["state"], path)
    try:
        if saved["name"] == DeepLungNet.name:
            network = DeepLungNet(NetworkConfig(**saved["network"]))
        else:
            network = UNet(UNetConfig(**saved["network"]), saved["image_size"])
        network.load_state_dict(saved["state"])
    except Exception as error:
        raise _no_checkpoint(path, error) from error
    return network.eval()
