"""Frozen settings. A profile is a set of values for these; nothing else tells profiles apart."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class NetworkConfig:
    """The network. The paper prints none of these numbers but the first two."""

    image_size: int = 256
    """Side of the square slice that the network sees, pixels."""
    n_neighbours: int = 5
    """Slices on each side of the target slice: 5 gives a window of 11."""
    hidden: int = 3
    """Channels of the ConvLSTM's state."""
    lstm_layers: int = 2
    dense_blocks: int = 2
    """Dense blocks of DenseNet-121 kept in the main branch (2: 512 channels at stride 8)."""

    @property
    def n_slices(self) -> int:
        """Slices in a window."""
        return 2 * self.n_neighbours + 1


@dataclass(frozen=True)
class UNetConfig:
    """A U-Net to compare with, trained on the same folds by the same code."""

    name: str
    """`unet2d` or `unet3d`; also the name of its reader."""
    width: int
    """Channels of the first of five levels; the paper's are 64 (2-D) and 32 (3-D)."""
    learning_rate: float | None = None
    """None: that of the network it is compared with."""
    max_epochs: int | None = None
    """None: as many as the network it is compared with."""

    def __post_init__(self) -> None:
        if self.name not in FULL_WIDTHS:
            raise ValueError(f"baseline {self.name!r}: expected one of {', '.join(FULL_WIDTHS)}")


FULL_WIDTHS = {"unet2d": 64, "unet3d": 32}
"""First-level channels of the classic U-Nets, with which the paper compares."""


@dataclass(frozen=True)
class TrainingConfig:
    """The training of one fold."""

    optimiser: str = "sgd"
    """`sgd` (momentum 0.9, as the paper) or `adamw`."""
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-6
    schedule: str = "plateau"
    """`plateau`: reduce on plateau of the validation loss, end at `stop_learning_rate` (the paper).
    `cosine`: fall to zero over `max_epochs`, for short budgets."""
    keep: str = "best"
    """Which weights `checkpoint.pt` ends with: the `best` validation loss's, or the `last` ones
    (where validation is too small to choose by)."""
    plateau_factor: float = 0.1
    plateau_patience: int = 10
    stop_learning_rate: float = 1e-7
    max_epochs: int = 1000
    steps_per_epoch: int | None = None
    """None: as many steps as show every training slice once."""
    batch_slices: int = 32
    lesion_fraction: float | None = None
    """Share of lesion slices in a batch; None: as they come. Slices with high opacity, the rarer
    class, make up half of them."""
    validation_slices: int | None = None
    """Slices of the validation cases scored after each epoch, evenly spaced; None: all."""
    use_validation: bool = True
    """False: the validation cases train too. For a handful of cases under a fixed schedule
    (`cosine`, `last`), where nothing is chosen by them."""
    rmi_weight: float = 0.5
    """Weight of RMI in the loss (1 - lambda of the RMI paper); the rest is BCE."""
    dice_weight: float = 0.0
    """Weight of a soft Dice loss added to it (0: none, as the paper). RMI does not see how high a
    score is, and BCE of rare classes keeps scores low: a short training then misses lesions."""
    main_branch_loss: float = 0.0
    """Weight of an auxiliary BCE on the main branch (0: none, as the paper)."""
    rotation_degrees: float = 10.0
    translation_pixels: float = 10.0
    scale_range: tuple[float, float] = (0.9, 1.05)
    precision: str = "float32"
    """`float32`, or `bfloat16` (autocast)."""


@dataclass(frozen=True)
class Config:
    """Everything that decides a run's numbers, besides the manifests and the code."""

    profile: str
    cohorts: tuple[str, ...]
    """Names in data_manifests/cohorts.toml."""
    n_folds: int = 5
    validation_fraction: float = 0.2
    seed: int = 20210322
    threads: int | None = None
    """Threads to compute with: with another number the same training ends a little elsewhere.
    None: as many as the machine offers."""
    batch_predict: int = 4
    nsd_tolerance_mm: float = 3.0
    pretrained: str | None = None
    """Path of ImageNet weights for the dense block; None: Kaiming initialisation."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    baselines: tuple[UNetConfig, ...] = ()
    """U-Nets to train and test on the same folds (Table 4); none where time forbids."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """The inverse of `to_dict` (lists from JSON become tuples again)."""
        training = {**values["training"], "scale_range": tuple(values["training"]["scale_range"])}
        return cls(**{
            **values,
            "cohorts": tuple(values["cohorts"]),
            "network": NetworkConfig(**values["network"]),
            "training": TrainingConfig(**training),
            "baselines": tuple(UNetConfig(**unet) for unet in values.get("baselines", ())),
        })


PROFILES: dict[str, Config] = {
    # Phantoms at 64 pixels with one dense block: the whole sequence in minutes on a laptop. Many
    # steps on coarse images find high opacity; few on fine ones do not. Shifts as at 256 pixels.
    "quick": Config(
        profile="quick",
        cohorts=("phantom",),
        threads=2,
        network=NetworkConfig(image_size=64, dense_blocks=1),
        training=TrainingConfig(
            optimiser="adamw", learning_rate=4e-3, weight_decay=1e-4, schedule="cosine",
            keep="last", max_epochs=8, steps_per_epoch=36, batch_slices=6, lesion_fraction=0.7,
            validation_slices=24, dice_weight=2.0, translation_pixels=3.0,
        ),
        # Thin and short-trained: they rehearse Table 4 in minutes, and rank no design.
        baselines=(UNetConfig("unet2d", 16, learning_rate=1e-3, max_epochs=2),
                   UNetConfig("unet3d", 4, learning_rate=3e-3, max_epochs=1)),
    ),
    # Six public CTs on two cores: the default network, fewer steps than the paper's schedule.
    "public": Config(
        profile="public",
        cohorts=("medseg2",),
        n_folds=3,
        threads=2,
        training=TrainingConfig(
            optimiser="adamw", learning_rate=1e-3, weight_decay=1e-4, schedule="cosine",
            keep="last", max_epochs=12, steps_per_epoch=25, batch_slices=8, lesion_fraction=0.75,
            use_validation=False, dice_weight=2.0,
        ),
    ),
    # A simulated table of readings of the paper's size: no CT, nothing is trained.
    "rehearsal": Config(profile="rehearsal", cohorts=("rehearsal_training", "rehearsal_external")),
    # A site's own cohorts with the paper's settings.
    "paper": Config(
        profile="paper", cohorts=("site_training", "site_external"),
        baselines=tuple(UNetConfig(name, width) for name, width in FULL_WIDTHS.items()),
    ),
}


def load_profile(name: str) -> Config:
    """The settings of a profile of `PROFILES`, or of a JSON file whose path is given.

    The file holds what `Config.to_dict` gives: change a copy of a run's `run.json["config"]`.

    Raises
    ------
    ValueError
        No such profile, or the file is no complete set of settings.
    """
    if name in PROFILES:
        return PROFILES[name]
    if not name.endswith(".json"):
        raise ValueError(
            f"profile {name!r}: expected one of {', '.join(PROFILES)}, or a .json file")
    try:
        return Config.from_dict(json.loads(Path(name).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"profile {name}: not a file of settings ({type(error).__name__}: {error}). Expected "
            "what stands under 'config' in a run's run.json"
        ) from error
