"""Training of one network: schedule, checkpoints, history, exact resume."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from deeplung_nb.files import atomic_path, write_text
from deeplung_nb.labels import LESION_STRUCTURES, NO_ANSWER, structure_mask
from deeplung_nb.learning.dataset import (
    PreparedCase,
    SliceSampler,
    augment,
    cut_lungs,
    cut_windows,
    normalise,
)
from deeplung_nb.learning.made import make_in_windows
from deeplung_nb.learning.team import Team
from deeplung_nb.learning.watchers import Bar, Stopped, Watcher, Watchers
from deeplung_nb.network.baselines import UNet
from deeplung_nb.network.checkpoint import (
    CHECKPOINT,
    Network,
    build_network,
    describe_training,
    read_checkpoint,
    save_network,
    save_tensors,
)
from deeplung_nb.network.deeplung import DeepLungNet, Scores, probabilities
from deeplung_nb.network.device import autocast, choose_device, keep_freed_memory, use_threads
from deeplung_nb.network.losses import LungLoss, SegmentationLoss
from deeplung_nb.runs.config import Config, TrainingConfig

LAST = "last.pt"


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
        return torch.optim.lr_scheduler.CosineAnnealingLR(
            optimiser, config.max_epochs, eta_min=config.last_rate * config.learning_rate)
    raise ValueError(f"schedule {config.schedule!r}: expected 'plateau' or 'cosine'")


@torch.no_grad()
def validate(
    network: Network, cases: Sequence[PreparedCase], config: TrainingConfig,
    loss_function: SegmentationLoss, device: torch.device, team: Team,
) -> dict[str, float]:
    """Loss (mean over batches) and pooled Dice per structure, on the network's grid.

    All NaN without cases. The batches are shared out among the team.
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
    batches = [picks[start:start + config.batch_slices]
               for start in range(0, len(picks), config.batch_slices)]
    for chosen in batches[team.rank::team.size]:
        hu, target = cut_windows(cases, chosen, network.sees, network.scores)
        target = target.flatten(0, 1)
        with autocast(device, config.precision):
            fused = network(normalise(hu).to(device)).fused
        losses.append(loss_function(fused, target.to(device)).item())
        predicted = fused.argmax(dim=1).cpu().numpy()
        for structure in LESION_STRUCTURES:
            known = target.numpy() != NO_ANSWER
            a = structure_mask(target.numpy(), structure) & known
            b = structure_mask(predicted, structure) & known
            overlap[structure] += int((a & b).sum())
            extent[structure] += int(a.sum() + b.sum())
    total, *counts = team.sum([sum(losses), *overlap.values(), *extent.values()])
    n = len(LESION_STRUCTURES)
    dice = {
        f"dice_{name}": 2 * both / either if either else float("nan")
        for name, both, either in zip(LESION_STRUCTURES, counts[:n], counts[n:], strict=True)
    }
    loss = total / len(batches) if batches else float("nan")
    return {"validation_loss": loss, **dice}


@torch.inference_mode()
def predict_slice(network: Network, case: PreparedCase, z: int) -> np.ndarray:
    """Class codes [Y, X] of one slice of a prepared case, by the highest score."""
    trains = network.training
    network.eval()
    device = next(network.parameters()).device
    place = network.scores.index(0)
    hu, _ = cut_windows([case], [(0, z)], network.sees, network.scores)
    scores = probabilities(network(normalise(hu).to(device)).fused.float(), network.output)
    network.train(trains)
    return scores[place].argmax(dim=0).cpu().numpy().astype(np.uint8)


def _draw_batch(
    network: Network, sampler: SliceSampler, picks: list[tuple[int, int]],
    rng: np.random.Generator, rows: np.ndarray,
) -> tuple[Tensor, Tensor, Tensor]:
    """Windows, targets and lungs of `rows` of a step's picks, drawn as if for all of them."""
    config = sampler.config
    hu, target = cut_windows(sampler.cases, picks, network.sees, network.scores)
    if config.made_fraction > 0.0:
        make_in_windows(hu, target, sampler.cases, picks, network.sees, network.scores,
                        config, rng)
    lungs = cut_lungs(sampler.cases, picks, network.scores)
    hu, both = augment(hu, torch.cat([target, lungs], dim=1), config, rng, rows)
    target, lungs = both.split(len(network.scores), dim=1)
    return hu, target, lungs


def _loss_of(scores: Scores, target: Tensor, lungs: Tensor, loss_function: SegmentationLoss,
             config: TrainingConfig, team: Team) -> Tensor:
    """The loss over the scores of the whole team."""
    wanted = team.gather(target.flatten(0, 1))
    loss = loss_function(team.gather(scores.fused), wanted)
    if config.main_branch_loss > 0.0 and scores.main is not None:
        loss = loss + config.main_branch_loss * loss_function(team.gather(scores.main), wanted)
    if config.lung_weight > 0.0 and scores.lungs is not None:
        loss = loss + config.lung_weight * LungLoss()(
            team.gather(scores.lungs), team.gather(lungs.flatten(0, 1)))
    return loss


def train_epoch(
    network: Network, sampler: SliceSampler, epoch: int, optimiser: torch.optim.Optimizer,
    loss_function: SegmentationLoss, device: torch.device, watchers: Watchers,
    average: AveragedModel | None = None, forward: nn.Module | None = None,
) -> float:
    """One epoch of steps; the mean training loss.

    `average` follows the weights; `forward` is the network as a team trains it (`Team.join`).
    """
    config, team = sampler.config, watchers.team
    forward = forward or network
    network.train()
    total = 0.0
    for number, (picks, rng) in enumerate(sampler.batches(epoch), epoch * sampler.steps + 1):
        n_scored = len(network.scores)
        if n_scored > 1:  # as many slices in a step, to the slab
            n_slabs = max(1, len(picks) // n_scored)
            picks = [picks[k] for k in rng.choice(len(picks), n_slabs, replace=False)]
        parts = [part for part in np.array_split(np.arange(len(picks)), config.accumulate)
                 if len(part)]
        mine = [team.share(part) for part in parts]
        batch = _draw_batch(network, sampler, picks, rng, np.concatenate(mine))
        optimiser.zero_grad(set_to_none=True)
        loss, begin = 0.0, 0
        for part, own in zip(parts, mine, strict=True):
            rows = slice(begin, begin := begin + len(own))
            hu, target, lungs = (tensor[rows].to(device) for tensor in batch)
            # Gradients of a team are brought together once, after the last part.
            with (forward.no_sync() if isinstance(forward, DistributedDataParallel)
                  and part is not parts[-1] else contextlib.nullcontext()):
                with autocast(device, config.precision):
                    scores = forward(normalise(hu))
                share = len(part) / len(picks)
                part_loss = share * _loss_of(scores, target, lungs, loss_function, config, team)
                # DistributedDataParallel takes the mean over the team; each has a part of the sum.
                (part_loss * team.size).backward()
            loss += part_loss.item()
        if config.gradient_norm is not None:
            nn.utils.clip_grad_norm_(network.parameters(), config.gradient_norm)
        rate = optimiser.param_groups[0]["lr"]
        # The schedule knows nothing of the warm-up: it finds its own rate again.
        optimiser.param_groups[0]["lr"] = rate * min(1.0, number / max(config.warmup_steps, 1))
        optimiser.step()
        optimiser.param_groups[0]["lr"] = rate
        if average is not None:
            average.update_parameters(network)
        total += loss
        watchers.tell("step", epoch, loss)
    return total / sampler.steps


@dataclass
class _State:
    """A training as it stands: what is trained, how, and how far it is."""

    settings: TrainingConfig
    network: Network
    optimiser: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    average: AveragedModel | None
    history: list[dict[str, float]] = field(default_factory=list)
    best: float = float("inf")

    @classmethod
    def new(cls, config: Config, name: str, seed: int, device: torch.device, start: Path | None,
            data: Path | None) -> _State:
        """Before the first step: initial weights by the seed, or from `start`."""
        settings = config.training
        torch.manual_seed(seed)
        if start is not None:
            config = replace(config, pretrained=None)  # the start has been through it
        network = build_network(config, name, data)
        if isinstance(network, UNet):
            unet = network.config
            settings = replace(settings, max_epochs=unet.max_epochs or settings.max_epochs,
                               learning_rate=unet.learning_rate or settings.learning_rate)
        if start is not None:
            network.load_state_dict(read_checkpoint(start)["state"], strict=False)
        network.to(device)
        if name != "unet3d":
            # Measured here, a step in four fifths of the time; a 3-D network can't have it.
            network.to(memory_format=torch.channels_last)
        optimiser = make_optimiser(network, settings)
        average = None
        if settings.average_decay > 0.0:
            average = AveragedModel(network, use_buffers=True,
                                    multi_avg_fn=get_ema_multi_avg_fn(settings.average_decay))
        return cls(settings, network, optimiser, make_scheduler(optimiser, settings), average)

    @property
    def kept(self) -> Network:
        """The network to predict with: the average's, where there is one."""
        return self.network if self.average is None else self.average.module

    @property
    def ended(self) -> bool:
        """Whether the epochs or the learning rate are used up."""
        rate = self.optimiser.param_groups[0]["lr"]
        # A tolerance, since 1e-3 * 0.1^4 is not 1e-7 to the last bit.
        return (len(self.history) >= self.settings.max_epochs
                or rate <= self.settings.stop_learning_rate * 1.001)

    def load(self, path: Path, device: torch.device) -> None:
        """Go on from what `save` left."""
        saved = torch.load(path, map_location=device, weights_only=True)
        self.network.load_state_dict(saved["state"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.scheduler.load_state_dict(saved["scheduler"])
        self.history, self.best = saved["history"], saved["best"]
        if self.average is not None:
            self.average.load_state_dict(saved["average"])

    def save(self, path: Path) -> None:
        """All that is needed to go on, whole."""
        with atomic_path(path) as part:
            save_tensors({
                "state": self.network.state_dict(), "optimiser": self.optimiser.state_dict(),
                "scheduler": self.scheduler.state_dict(), "history": self.history,
                "best": self.best,
                "average": None if self.average is None else self.average.state_dict(),
            }, part)

    def note(self, scores: dict[str, float], rate: float, train_loss: float, n_steps: int,
             started: float) -> bool:
        """Write an epoch into the history and move the schedule; whether its weights are kept."""
        if self.settings.schedule == "plateau":
            self.scheduler.step(scores["validation_loss"])
        else:
            self.scheduler.step()
        epoch = len(self.history)
        self.history.append({
            "epoch": epoch, "step": (epoch + 1) * n_steps, "lr": rate, "train_loss": train_loss,
            **scores, "seconds": round(time.perf_counter() - started, 2)})
        improved = scores["validation_loss"] < self.best
        self.best = min(self.best, scores["validation_loss"])
        return improved or self.settings.keep == "last"


def train(
    training: Sequence[PreparedCase], validation: Sequence[PreparedCase], config: Config,
    folder: Path, *, seed: int, name: str = DeepLungNet.name, device: torch.device | None = None,
    progress: bool | str = True, watchers: Sequence[Watcher] = (), start: Path | None = None,
    data: Path | None = None,
) -> pd.DataFrame:
    """Train one network until the learning rate or the epochs are used up.

    After each epoch `folder` holds `checkpoint.pt` (the weights to predict with: see `keep`),
    `last.pt` (everything needed to go on) and `history.csv`; each is written whole. A training
    that was interrupted goes on from there and ends with the weights of an uninterrupted one; one
    that had ended returns its history at once. In a team (`learning.team`) the first process
    writes, and the weights are those of one process, to rounding; a training may go on with another
    number of processes or another kind of device than it began with.

    Parameters
    ----------
    training, validation
        Prepared cases; no patient in both. Without validation cases nothing can be chosen by
        them: `schedule` must be `cosine` and `keep` `last`.
    seed
        Decides initial weights, the draw of slices and the augmentation.
    name
        Which network: `deeplung`, or one of `config.baselines`.
    progress
        Whether a bar is shown, or its label.
    watchers
        Told of each step and epoch; each can ask for a stop, to go on later.
    start
        A checkpoint whose weights to begin with, as far as it has them; the rest is new.
    data
        Where pretrained encoders lie.

    Returns
    -------
    DataFrame
        One row per epoch, as `history.csv`; `attrs["finished"]`: whether nothing is left to do.
    """
    keep_freed_memory()
    use_threads(config.threads)
    device = device or choose_device()
    chosen_by = (config.training.schedule, config.training.keep)
    if not validation and chosen_by != ("cosine", "last"):
        raise ValueError(
            f"no validation cases, but schedule {chosen_by[0]!r} and keep {chosen_by[1]!r} "
            "choose by them: expected 'cosine' and 'last', or validation cases"
        )
    state = _State.new(config, name, seed, device, start, data)
    settings, loss_function = state.settings, SegmentationLoss(state.settings)
    sampler = SliceSampler(training, settings, seed)
    if (folder / LAST).exists():
        state.load(folder / LAST, device)
    team = Team.current()
    label = progress if isinstance(progress, str) else f"train {name} {folder.name}"
    everybody = [Bar(label, bool(progress)), *watchers] if team.is_first else []
    told, forward = Watchers(everybody, team), team.join(state.network)
    n_steps = settings.max_epochs * sampler.steps
    told.tell("start", n_steps, n_steps if state.ended else len(state.history) * sampler.steps)
    try:
        while not state.ended:
            started, epoch = time.perf_counter(), len(state.history)
            rate = state.optimiser.param_groups[0]["lr"]
            train_loss = train_epoch(state.network, sampler, epoch, state.optimiser,
                                     loss_function, device, told, state.average, forward)
            scores = validate(state.kept, validation, settings, loss_function, device, team)
            keeps = state.note(scores, rate, train_loss, sampler.steps, started)
            if keeps and team.is_first:
                save_network(state.kept, folder / CHECKPOINT, describe_training(config),
                             epoch=epoch, validation_loss=scores["validation_loss"])
            if team.is_first:
                state.save(folder / LAST)
                write_text(folder / "history.csv",
                           pd.DataFrame(state.history).to_csv(index=False))
            told.tell("epoch", state.history[-1], state.kept)
    except Stopped:
        pass
    finally:
        for watcher in everybody:
            watcher.end(state.ended)
    team.wait()  # until what comes next finds the files
    table = pd.DataFrame(state.history)
    table.attrs["finished"] = state.ended
    return table


def train_whole(
    training: Sequence[PreparedCase], validation: Sequence[PreparedCase], config: Config,
    folder: Path, *, name: str = DeepLungNet.name, progress: bool | str = True, **options: Any,
) -> pd.DataFrame:
    """`train`, after the main branch alone where the settings ask for it.

    That one (`Config.first`) lies in `<folder>/main/`. Arguments and result as `train`.
    """
    start = None
    if config.first is not None and name == DeepLungNet.name:
        label = progress if isinstance(progress, str) else f"train {name} {folder.name}"
        alone = replace(config, training=config.first, first=None,
                        network=replace(config.network, attention=False))
        history = train(training, validation, alone, folder / "main",
                        progress=f"{label} main" if progress else False, **options)
        if not history.attrs["finished"]:  # stopped: what follows would begin with half of it
            return history
        start = folder / "main" / CHECKPOINT
    return train(training, validation, config, folder, name=name, start=start, progress=progress,
                 **options)
