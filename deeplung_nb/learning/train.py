"""Training of one fold: schedule, checkpoints, history, exact resume."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from deeplung_nb import __version__
from deeplung_nb.config import Config, NetworkConfig, TrainingConfig, UNetConfig
from deeplung_nb.files import atomic_path, write_text
from deeplung_nb.labels import LESION_STRUCTURES, structure_mask
from deeplung_nb.learning.dataset import (
    PreparedCase,
    SliceSampler,
    augment,
    cut_windows,
    normalise,
    one_hot,
)
from deeplung_nb.network.baselines import UNet
from deeplung_nb.network.deeplung import DeepLungNet
from deeplung_nb.network.losses import RMILoss
from deeplung_nb.network.pretrained import load_trunk_weights
from deeplung_nb.progress import Progress
from deeplung_nb.runs import is_phantom

CHECKPOINT, LAST = "checkpoint.pt", "last.pt"
Network = DeepLungNet | UNet


def choose_device() -> torch.device:
    """CUDA when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def use_threads(n: int | None) -> None:
    """Compute with so many threads; None: as many as torch chose.

    Sums are split among the threads, so that another number rounds otherwise, and a training ends
    elsewhere.
    """
    if n is not None:
        torch.set_num_threads(n)


def keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks instead of returning them to the system after each step.

    Large tensors otherwise cost page faults anew in every step: measured here, up to half of a
    step's time. Elsewhere than glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for parameter, value in ((-3, 2**30), (-1, 2**31 - 1)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
        mallopt(parameter, value)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The autocast context of a precision, `float32` or `bfloat16`."""
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision {precision!r}: expected 'float32' or 'bfloat16'")
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def make_optimiser(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """SGD with momentum (the paper's), or AdamW."""
    if config.optimiser == "sgd":
        return torch.optim.SGD(
            network.parameters(), lr=config.learning_rate, momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
    if config.optimiser == "adamw":
        return torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
    raise ValueError(f"optimiser {config.optimiser!r}: expected 'sgd' or 'adamw'")


def make_scheduler(
    optimiser: torch.optim.Optimizer, config: TrainingConfig
) -> torch.optim.lr_scheduler.LRScheduler:
    """Reduce on plateau (the paper's), or a cosine over `max_epochs`; one step per epoch."""
    if config.keep not in ("best", "last"):
        raise ValueError(f"keep {config.keep!r}: expected 'best' or 'last'")
    if config.schedule == "plateau":
        # eps 0: torch would otherwise refuse the last reductions, and training would never end.
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser, factor=config.plateau_factor, patience=config.plateau_patience, eps=0.0
        )
    if config.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.max_epochs)
    raise ValueError(f"schedule {config.schedule!r}: expected 'plateau' or 'cosine'")


def build_network(config: Config, name: str = DeepLungNet.name) -> Network:
    """A new network of a configuration: `deeplung`, or one of its `baselines` by name.

    Raises
    ------
    ValueError
        The configuration has no baseline of this name.
    """
    if name == DeepLungNet.name:
        network = DeepLungNet(config.network)
        if config.pretrained:
            load_trunk_weights(network, config.pretrained)
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


def save_network(network: Network, path: Path, **facts: Any) -> None:
    """State dict and settings: all that is needed to predict, loadable with weights_only."""
    state = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
    with atomic_path(path) as part:
        torch.save({"state": state, "name": network.name, "network": asdict(network.config),
                    "image_size": network.image_size, **facts}, part)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What a checkpoint holds: `state`, `name`, `network`, `trained_on`, `software`, ...

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
        if {"state", "name", "network"} - set(saved):
            raise KeyError("no state, name and network in it")
    except Exception as error:
        raise _no_checkpoint(path, error) from error
    return saved


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
        The file is missing or no checkpoint of this package.
    """
    saved = read_checkpoint(path)
    try:
        if saved["name"] == DeepLungNet.name:
            network = DeepLungNet(NetworkConfig(**saved["network"]))
        else:
            network = UNet(UNetConfig(**saved["network"]), saved["image_size"])
        network.load_state_dict(saved["state"])
    except Exception as error:
        raise _no_checkpoint(path, error) from error
    return network.eval()


@torch.no_grad()
def validate(
    network: Network, cases: Sequence[PreparedCase], config: TrainingConfig,
    loss_function: RMILoss, device: torch.device,
) -> dict[str, float]:
    """Loss (mean over batches) and pooled Dice per structure, on the network's grid.

    All NaN without cases.
    """
    network.eval()
    picks = [(i, z) for i, case in enumerate(cases) for z in range(len(case.hu))]
    if config.validation_slices is not None and len(picks) > config.validation_slices:
        keep = torch.linspace(0, len(picks) - 1, config.validation_slices).round().long().tolist()
        picks = [picks[k] for k in keep]
    picks = picks[::len(network.scores)]
    overlap = dict.fromkeys(LESION_STRUCTURES, 0)
    extent = dict.fromkeys(LESION_STRUCTURES, 0)
    losses: list[float] = []
    for start in range(0, len(picks), config.batch_slices):
        chosen = picks[start:start + config.batch_slices]
        hu, target = cut_windows(cases, chosen, network.sees, network.scores)
        target = target.flatten(0, 1)
        with autocast(device, config.precision):
            fused = network(normalise(hu).to(device)).fused
        losses.append(loss_function(fused, one_hot(target).to(device)).item())
        predicted = fused.argmax(dim=1).cpu().numpy()
        for structure in LESION_STRUCTURES:
            a = structure_mask(target.numpy(), structure)
            b = structure_mask(predicted, structure)
            overlap[structure] += int((a & b).sum())
            extent[structure] += int(a.sum() + b.sum())
    dice = {
        f"dice_{name}": 2 * overlap[name] / extent[name] if extent[name] else float("nan")
        for name in LESION_STRUCTURES
    }
    loss = sum(losses) / len(losses) if losses else float("nan")
    return {"validation_loss": loss, **dice}


def train_epoch(
    network: Network, sampler: SliceSampler, epoch: int, optimiser: torch.optim.Optimizer,
    loss_function: RMILoss, device: torch.device, bar: Progress,
) -> float:
    """One epoch of steps; the mean training loss."""
    config = sampler.config
    network.train()
    total = 0.0
    for picks, rng in sampler.batches(epoch):
        n_scored = len(network.scores)
        if n_scored > 1:  # as many slices in a step, to the slab
            n_slabs = max(1, len(picks) // n_scored)
            picks = [picks[k] for k in rng.choice(len(picks), n_slabs, replace=False)]
        hu, target = cut_windows(sampler.cases, picks, network.sees, network.scores)
        hu, target = augment(hu, target, config, rng)
        wanted = one_hot(target.flatten(0, 1)).to(device)
        optimiser.zero_grad(set_to_none=True)
        with autocast(device, config.precision):
            scores = network(normalise(hu).to(device))
        loss = loss_function(scores.fused, wanted)
        if config.main_branch_loss > 0.0 and scores.main is not None:
            loss = loss + config.main_branch_loss * (
                nn.functional.binary_cross_entropy_with_logits(scores.main.float(), wanted)
            )
        loss.backward()
        optimiser.step()
        total += loss.item()
        bar.update(epoch=epoch, loss=f"{loss.item():.3f}")
    return total / sampler.steps


def train(
    training: Sequence[PreparedCase], validation: Sequence[PreparedCase], config: Config,
    folder: Path, *, seed: int, name: str = DeepLungNet.name, device: torch.device | None = None,
    progress: bool = True, stop_after_epoch: int | None = None,
) -> pd.DataFrame:
    """Train one network until the learning rate or the epochs are used up.

    After each epoch `folder` holds `checkpoint.pt` (the weights to predict with: see `keep`),
    `last.pt` (everything needed to go on) and `history.csv`; each is written whole. A training
    that was interrupted goes on from there and ends with the weights of an uninterrupted one; one
    that had ended returns its history at once.

    Parameters
    ----------
    training, validation
        Prepared cases; no patient in both. Without validation cases nothing can be chosen by
        them: `schedule` must be `cosine` and `keep` `last`.
    seed
        Decides initial weights, the draw of slices and the augmentation.
    name
        Which network: `deeplung`, or one of `config.baselines`.
    stop_after_epoch
        Leave early (as an interruption would), to go on later.

    Returns
    -------
    DataFrame
        One row per epoch, as `history.csv`.
    """
    keep_freed_memory()
    use_threads(config.threads)
    device = device or choose_device()
    settings = config.training
    if not validation and (settings.schedule, settings.keep) != ("cosine", "last"):
        raise ValueError(
            f"no validation cases, but schedule {settings.schedule!r} and keep {settings.keep!r} "
            "choose by them: expected 'cosine' and 'last', or validation cases"
        )
    torch.manual_seed(seed)
    network = build_network(config, name)
    if isinstance(network, UNet):
        unet = network.config
        settings = replace(settings, max_epochs=unet.max_epochs or settings.max_epochs,
                           learning_rate=unet.learning_rate or settings.learning_rate)
    network.to(device)
    if name != "unet3d":
        # Measured here, a step in four fifths of the time; a 3-D network can't have it.
        network.to(memory_format=torch.channels_last)
    optimiser = make_optimiser(network, settings)
    scheduler = make_scheduler(optimiser, settings)
    loss_function = RMILoss(settings.rmi_weight, settings.dice_weight)
    sampler = SliceSampler(training, settings, seed)
    history: list[dict[str, float]] = []
    best = float("inf")
    last = folder / LAST
    if last.exists():
        saved = torch.load(last, map_location=device, weights_only=True)
        network.load_state_dict(saved["state"])
        optimiser.load_state_dict(saved["optimiser"])
        scheduler.load_state_dict(saved["scheduler"])
        history, best = saved["history"], saved["best"]

    def ended() -> bool:
        rate = optimiser.param_groups[0]["lr"]
        # A tolerance, since 1e-3 * 0.1^4 is not 1e-7 to the last bit.
        return len(history) >= settings.max_epochs or rate <= settings.stop_learning_rate * 1.001

    n_steps = settings.max_epochs * sampler.steps
    with Progress(f"train {name} {folder.name}", n_steps, "step",
                  n_steps if ended() else len(history) * sampler.steps, shown=progress) as bar:
        while not ended() and (stop_after_epoch is None or len(history) < stop_after_epoch):
            start = time.perf_counter()
            epoch = len(history)
            rate = optimiser.param_groups[0]["lr"]
            train_loss = train_epoch(
                network, sampler, epoch, optimiser, loss_function, device, bar
            )
            scores = validate(network, validation, settings, loss_function, device)
            if settings.schedule == "plateau":
                scheduler.step(scores["validation_loss"])
            else:
                scheduler.step()
            history.append({
                "epoch": epoch, "step": (epoch + 1) * sampler.steps, "lr": rate,
                "train_loss": train_loss, **scores,
                "seconds": round(time.perf_counter() - start, 2),
            })
            improved = scores["validation_loss"] < best
            best = min(best, scores["validation_loss"])
            if improved or settings.keep == "last":
                save_network(network, folder / CHECKPOINT, epoch=epoch,
                             validation_loss=scores["validation_loss"],
                             software=__version__, trained_on=describe_training(config))
            with atomic_path(last) as part:
                torch.save({
                    "state": network.state_dict(), "optimiser": optimiser.state_dict(),
                    "scheduler": scheduler.state_dict(), "history": history, "best": best,
                }, part)
            write_text(folder / "history.csv", pd.DataFrame(history).to_csv(index=False))
    return pd.DataFrame(history)
