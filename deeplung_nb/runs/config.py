"""Frozen settings. A profile is a set of values for these; nothing else tells profiles apart."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field, replace
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
    trunk: str = "densenet121"
    """Trunk of the main branch: `densenet121` (the paper's) or `mobilenet_v2`."""
    attention: bool = True
    """False: the main branch alone, which sees one slice."""
    lungs: bool = False
    """Whether the network marks the lungs too: a head on the trunk, at its stride."""
    output: str = "sigmoid"
    """What turns scores into probabilities: `sigmoid` by class, as for BCE, or `softmax`."""

    lesion_threshold: float | None = None
    """Lesion is where ground glass and high opacity together score above this, then the higher of
    the two; None: the highest of all three scores. For `softmax`."""

    def __post_init__(self) -> None:
        if self.output not in ("sigmoid", "softmax"):
            raise ValueError(f"output {self.output!r}: expected 'sigmoid' or 'softmax'")

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

RETIRED = {"pseudo_fraction", "unlabelled"}
"""Settings of older versions."""


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
    accumulate: int = 1
    """Parts in which a step's slices go through the network, where memory does not hold them all.
    Loss and batch norm are those of each part, the step takes the mean: not quite the same step as
    in one part."""
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
    """Weight of an auxiliary loss on the main branch (0: none, as the paper)."""
    lung_weight: float = 0.0
    """Weight of the loss of the lungs, for a network that marks them (`NetworkConfig.lungs`), over
    cases whose lungs a reader has marked."""
    region_weight: float = 1.0
    """Weight of RMI + BCE (+ Dice by `dice_weight`), the paper's loss."""
    class_weight: float = 0.0
    """Weight of cross-entropy + soft Dice of ground glass, high opacity and any lesion."""
    rotation_degrees: float = 10.0
    translation_pixels: float = 10.0
    scale_range: tuple[float, float] = (0.9, 1.05)
    flip: bool = False
    """Left and right exchanged in half of the windows."""
    hu_gain: float = 0.0
    """Contrast: HU stretched about -850 by a factor 1 ± this."""
    hu_offset: float = 0.0
    """HU shifted by ± this."""
    hu_noise: float = 0.0
    """SD of added noise, drawn from 0 to this, HU."""
    blur_fraction: float = 0.0
    """Share of windows that are blurred (Gaussian, SD 0.5 to 1.2 pixels)."""
    sharpen_fraction: float = 0.0
    """Share of windows that are sharpened: 0.3 to 1.5 times what such a blur takes is added."""
    made_fraction: float = 0.0
    """Share of windows in whose lungs disease is made (`learning.made`); 0: none, as the paper."""
    made_dense: float = 1.0
    """Share of these with high opacity; the others have ground glass."""
    isolated_fraction: float | None = None
    """Share of a batch from cohorts of isolated slices; None: as they come."""
    warmup_steps: int = 0
    """Steps in which the rate rises to its value."""
    last_rate: float = 0.0
    """Where `cosine` ends, as a share of the learning rate."""
    gradient_norm: float | None = None
    """Gradients are clipped to this norm; None: not."""
    average_decay: float = 0.0
    """Of an exponential average of the weights over the steps, which is what is kept and
    validated; 0: none, the weights themselves."""
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
    nsd_tolerance_mm: float | None = None
    """Distance up to which surface counts as met; None: half of a scan's slice distance. Where two
    readers have marked, what they differ by (`stats.surface.tolerance_of_readers`)."""
    limits: str = "auto"
    """Limits of agreement that the study declares before its data are seen: `constant`, `ratio`,
    `regression`, `quantile`; `auto`: none declared, tests choose (`stats.comparison`)."""
    pretrained: str | None = None
    """ImageNet weights for the trunk: a name in data_manifests/encoders.toml (its file lies in
    `<data>/encoders/`), or a path; None: Kaiming initialisation."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    first: TrainingConfig | None = None
    """A training of the main branch alone, with whose weights `training` begins; None: none. The
    branch sees one slice and costs a fraction of the whole."""
    baselines: tuple[UNetConfig, ...] = ()
    """U-Nets to train and test on the same folds (Table 4); none where time forbids."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """The inverse of `to_dict` (lists from JSON become tuples again).

        Settings that there are no more (`RETIRED`) may stand in records of older runs, as long as
        they were not used.
        """
        def known(given: dict[str, Any]) -> dict[str, Any]:
            if not isinstance(given, dict):
                raise TypeError(f"settings are names and values, found {type(given).__name__}")
            for name in RETIRED & set(given):
                if given[name] is not None:
                    raise ValueError(f"setting {name}: {given[name]!r} is of an older version and "
                                     "there is no more")
            return {name: value for name, value in given.items() if name not in RETIRED}

        def training(given: dict[str, Any] | None) -> TrainingConfig | None:
            return given and TrainingConfig(**{**known(given),
                                               "scale_range": tuple(given["scale_range"])})

        return cls(**{
            **known(values),
            "cohorts": tuple(values["cohorts"]),
            "network": NetworkConfig(**values["network"]),
            "training": training(values["training"]),
            "first": training(values.get("first")),
            "baselines": tuple(UNetConfig(**unet) for unet in values.get("baselines", ())),
        })


FEW_PATIENTS = TrainingConfig(
    optimiser="adamw", weight_decay=1e-3, schedule="cosine", keep="last", last_rate=0.02,
    warmup_steps=30, steps_per_epoch=25, lesion_fraction=2 / 3, isolated_fraction=0.2,
    use_validation=False, region_weight=0.0, class_weight=1.0, gradient_norm=5.0,
    average_decay=0.99, scale_range=(0.85, 1.1), flip=True, hu_gain=0.1, hu_offset=60.0,
    hu_noise=35.0, blur_fraction=0.25,
)
"""Training from a handful of patients: as many kinds of scanners and lesions as can be drawn from
them."""

WITH_MADE_DISEASE = replace(FEW_PATIENTS, made_fraction=0.12, made_dense=0.8, lung_weight=0.3)
"""Also of what none of them has."""

QUICK = TrainingConfig(
    optimiser="adamw", learning_rate=4e-3, weight_decay=1e-4, schedule="cosine", keep="last",
    batch_slices=6, lesion_fraction=0.7, validation_slices=24, translation_pixels=3.0,
    region_weight=0.0, class_weight=1.0, gradient_norm=5.0, average_decay=0.95, warmup_steps=10,
)
"""A short training on synthetic chests."""

OF_VOLUMES = "ratio"
"""Errors of volumes grow with them, and many are 0: limits that are declared for any study."""

PROFILES: dict[str, Config] = {
    # Phantoms at 64 pixels with one dense block: the whole sequence in minutes on a laptop. Many
    # steps on coarse images find high opacity; few on fine ones do not. Shifts as at 256 pixels.
    # The main branch is trained alone first: a step of it costs half of one of the whole network,
    # and the high opacity of unseen cases gains most from it. The loss by class, the average of the
    # weights and the main branch's own loss come from the training on few patients; a flip does
    # not, since a phantom's heart is on its left. Nor do ImageNet weights: their file is no part
    # of the package, and this profile needs no data.
    "quick": Config(
        profile="quick",
        cohorts=("phantom",),
        limits=OF_VOLUMES,
        threads=2,
        batch_predict=16,
        network=NetworkConfig(image_size=64, dense_blocks=1, output="softmax",
                              lesion_threshold=0.4),
        first=replace(QUICK, max_epochs=6, steps_per_epoch=48),
        training=replace(QUICK, learning_rate=1e-3, max_epochs=4, steps_per_epoch=36,
                         main_branch_loss=0.4),
        # Thin and short-trained: they rehearse Table 4 in minutes, and rank no design.
        baselines=(UNetConfig("unet2d", 16, learning_rate=4e-3, max_epochs=3),
                   UNetConfig("unet3d", 4, learning_rate=1e-2, max_epochs=1)),
    ),
    # Six public CTs and fifty slices on two cores; also the recipe of the packaged network. Few
    # patients: each is left out once, and nothing is chosen by a validation case. Six slices of six
    # patients of another source are only ever tested. Hardly any dense lung is in them, so that
    # some is made; and since dense lung and the chest's wall look alike, the network marks the
    # lungs, outside which there is no lesion.
    "public": Config(
        profile="public",
        cohorts=("medseg2", "medseg1", "coronacases_expert"),
        n_folds=5,
        limits=OF_VOLUMES,
        threads=2,
        pretrained="mobilenet_v2_imagenet",
        network=NetworkConfig(trunk="mobilenet_v2", lungs=True, output="softmax",
                              lesion_threshold=0.3),
        first=replace(WITH_MADE_DISEASE, learning_rate=1e-3, max_epochs=24, batch_slices=12),
        training=replace(WITH_MADE_DISEASE, learning_rate=5e-4, max_epochs=7, batch_slices=6,
                         main_branch_loss=0.4, warmup_steps=10),
    ),
    # A simulated table of readings of the paper's size: no CT, nothing is trained.
    "rehearsal": Config(profile="rehearsal", cohorts=("rehearsal_training", "rehearsal_external"),
                        limits=OF_VOLUMES),
    # A site's own cohorts with the paper's settings.
    "paper": Config(
        profile="paper", cohorts=("site_training", "site_external"), limits=OF_VOLUMES,
        pretrained="densenet121_imagenet",
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
