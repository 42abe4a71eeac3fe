"""How long the networks take, all in one interleaved run on the machine at hand.

Only ratios within one run mean much: absolute times move with the machine and its load. So every
job but the longest is warmed up, the jobs take turns, all have the same threads and allocator, and
what the machine can do at most stands beside them. What a job alone needs is imported by it, so
that the memory of the others is their own.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from deeplung_nb.files import check_writable, write_text
from deeplung_nb.imaging.preprocess import window_indices
from deeplung_nb.network.baselines import UNet
from deeplung_nb.network.checkpoint import Network, load_network
from deeplung_nb.network.deeplung import DeepLungNet
from deeplung_nb.network.device import autocast, choose_device, keep_freed_memory, use_threads
from deeplung_nb.network.fused import FusedConvLSTM, with_border
from deeplung_nb.network.packaged import packaged_checkpoints
from deeplung_nb.reading.predict import Predictor
from deeplung_nb.runs import Run, package_versions, peak_memory_gb, processor_name
from deeplung_nb.runs.config import (
    FEW_PATIENTS,
    FULL_WIDTHS,
    NetworkConfig,
    TrainingConfig,
    UNetConfig,
)
from deeplung_nb.runs.progress import track

TABLE_4_SLICES = 16
LONG = 120
"""The paper's typical CT; longer scans are timed once, on the fast way."""
CT_SIDE = 512


@dataclass(frozen=True)
class Job:
    """One row of the benchmark: who does what, and in which way."""

    model: str
    """`ours` (this configuration), `packaged` (one network with the light trunk), `ensemble` (all
    that `segment` averages), `convlstm` (of ours, alone), `unet2d`, `unet3d`."""
    n_slices: int
    """Of the scan, or of a training step."""
    way: str = "plain"
    """`plain`, `fast` (`network.fast`; in training `network.fused_training`), `bfloat16` (fast, in
    that precision), or for a U-Net `channels last`."""
    task: str = "network"
    """`network`: prepared slices to scores; `file`: a CT file to mask, table and provenance;
    `training`: one step; `loading`: the windows of one step, cut out and augmented."""
    width: int = 0
    """A U-Net's first level; 0 for ours."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    batch: int = 4
    threads: int | None = None
    scan: Path | None = None
    """Where the CT of the task `file` lies."""


class _ConvLSTMAlone(nn.Module):
    """The ConvLSTM of a network, over windows as the network sees them."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.convlstm = DeepLungNet(config).eval().convlstm
        beside = config.n_neighbours
        self.sees, self.scores, self.image_size = range(-beside, beside + 1), range(1), \
            config.image_size

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        return self.convlstm(window.unsqueeze(2))

    def over(self, slices: np.ndarray, batch: int, fast: bool) -> Callable[[], object]:
        orders = np.stack([window_indices(z, len(slices), self.sees) for z in range(len(slices))])
        bordered, windows = with_border(slices), torch.from_numpy(slices)
        fused = FusedConvLSTM(self.convlstm) if fast else None

        def walk() -> None:
            for start in range(0, len(slices), batch):
                part = orders[start:start + batch]
                with torch.inference_mode():
                    fused(bordered, part) if fused else self(windows[torch.from_numpy(part)])

        return walk


def _networks_of(job: Job) -> list[Network]:
    torch.manual_seed(0)
    if job.model in FULL_WIDTHS:
        unet = UNet(UNetConfig(job.model, job.width), job.network.image_size).eval()
        return [unet.to(memory_format=torch.channels_last) if job.way == "channels last" else unet]
    if job.model == "convlstm":
        return [_ConvLSTMAlone(job.network)]
    if job.model in ("packaged", "ensemble"):
        paths = packaged_checkpoints()
        return [load_network(path) for path in (paths if job.model == "ensemble" else paths[:1])]
    return [DeepLungNet(job.network).eval()]


def _work_of(job: Job) -> Callable[[], object]:
    """What is timed: all that can be made ready before is made ready here."""
    keep_freed_memory()
    use_threads(job.threads)
    rng = np.random.default_rng(0)
    device = choose_device()
    if job.task == "file":
        from deeplung_nb.reading.results import segment_file

        folder = tempfile.mkdtemp(dir=job.scan.parent)
        return lambda: segment_file(job.scan, Path(folder), overwrite=True, force=True,
                                    progress=False)
    networks = _networks_of(job)
    network, size = networks[0], networks[0].image_size
    if job.task == "training":
        return _training_step(job, network, device)
    if job.task == "loading":
        return _loading(job, network)
    slices = rng.random((job.n_slices, size, size), dtype=np.float32)
    if job.model == "convlstm":
        return network.over(slices, job.batch, job.way == "fast")
    predictor = Predictor(networks, batch=job.batch, device=device, fast=job.way != "plain",
                          precision="bfloat16" if job.way == "bfloat16" else "float32")

    def score() -> None:
        for _ in predictor.score_batches(slices):
            pass

    return score


def _training_step(job: Job, network: Network, device: torch.device) -> Callable[[], object]:
    from deeplung_nb.learning.train import make_optimiser
    from deeplung_nb.network.losses import SegmentationLoss

    rng, size = np.random.default_rng(0), network.image_size
    network = network.to(device, memory_format=torch.channels_last).train()
    network.fused_training = job.way != "plain"
    precision = "bfloat16" if job.way == "bfloat16" else "float32"
    settings = TrainingConfig()
    loss, optimiser = SegmentationLoss(settings), make_optimiser(network, settings)
    window = torch.from_numpy(rng.random((job.n_slices, len(network.sees), size, size),
                                         dtype=np.float32)).to(device)
    target = torch.from_numpy(rng.integers(0, 3, (job.n_slices, size, size))).to(device)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with autocast(device, precision):
            scores = network(window).fused
        loss(scores, target).backward()
        optimiser.step()

    return step


def _loading(job: Job, network: Network) -> Callable[[], object]:
    """Windows of so many slices as training draws them, with all that changes them."""
    from deeplung_nb.learning.dataset import PreparedCase, SliceSampler, augment, cut_windows

    rng, size, settings = np.random.default_rng(0), network.image_size, FEW_PATIENTS
    settings = replace(settings, batch_slices=job.n_slices, steps_per_epoch=1,
                       isolated_fraction=None)
    case = PreparedCase("noise", rng.integers(-1000, 100, (40, size, size)).astype(np.int16),
                        rng.integers(0, 3, (40, size, size)).astype(np.uint8))
    sampler = SliceSampler([case], settings, 0)

    def load() -> None:
        for picks, drawn in sampler.batches(0):
            augment(*cut_windows([case], picks, network.sees, network.scores), settings, drawn)

    return load


def _fresh_process() -> ProcessPoolExecutor:
    """Runs jobs one at a time, each in a process that has done nothing but import this module.

    It is imported once, by a server that is copied for each job, where the system can.
    """
    servers = "forkserver" in get_all_start_methods()
    context = get_context("forkserver" if servers else "spawn")
    if servers:
        context.set_forkserver_preload([__name__])
    return ProcessPoolExecutor(1, context, max_tasks_per_child=1)


def _peak_of(job: Job) -> float:
    """Peak resident memory, GB, of a process that does this job once and nothing else."""
    _work_of(job)()
    return peak_memory_gb()


def _gflop_per_slice(job: Job) -> float:
    """Of the plain network, counted by torch (products and sums of convolutions)."""
    from torch.utils.flop_counter import FlopCounterMode

    networks = _networks_of(job)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for one in networks:
            one(torch.zeros(1, len(one.sees), one.image_size, one.image_size))
    return counter.get_total_flops() / 1e9 / len(networks[0].scores)


def write_ct(path: Path, n_slices: int) -> None:
    """A CT of so many slices of 512 x 512 in a file: a phantom, its pixels and slices repeated."""
    from deeplung_nb.imaging.grid import Grid
    from deeplung_nb.imaging.io import write_scan
    from deeplung_nb.imaging.phantom.cohort import default_cohort
    from deeplung_nb.imaging.phantom.make import make_phantom
    from deeplung_nb.imaging.phantom.spec import spec_of_row
    from deeplung_nb.imaging.scan import Scan

    scan = make_phantom(spec_of_row(default_cohort()[0])).scan
    places = [np.arange(n) * size // n for n, size in zip((n_slices, CT_SIDE, CT_SIDE), scan.shape,
                                                          strict=True)]
    # A grain of its own for each pixel, or the file packs and the air is too quiet to be a CT.
    grain = np.random.default_rng(0).normal(0, 8, (n_slices, CT_SIDE, CT_SIDE))
    hu = np.clip(scan.hu[np.ix_(*places)] + grain, -1024, 3000).astype(np.int16)
    spacing = [mm * old / new for mm, old, new in zip(scan.spacing_mm, scan.shape, hu.shape,
                                                      strict=True)]
    write_scan(Scan(hu, Grid.upright(hu.shape, tuple(spacing)), path.name, "phantom"), path)


def machine() -> dict[str, object]:
    """The machine at hand, and its most: of a product of matrices, of a convolution (256 channels
    to 256, 3 x 3, on 64 x 64) and of copying memory."""
    device = choose_device()

    def best_of(work: Callable[[], object], times: int = 5) -> float:
        found = []
        for _ in range(times + 1):
            start = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            found.append(time.perf_counter() - start)
        return min(found[1:])

    n = 2048
    a, b = (torch.rand(n, n, device=device) for _ in range(2))
    maps, kernel = (torch.rand(*shape, device=device).to(memory_format=torch.channels_last)
                    for shape in ((4, 256, 64, 64), (256, 256, 3, 3)))
    source = torch.rand(2**26, device=device)  # 268 MB
    target = torch.empty_like(source)
    versions = package_versions()
    return {
        "device": device.type, "threads": torch.get_num_threads(),
        "hardware": torch.cuda.get_device_name() if device.type == "cuda" else processor_name(),
        "matmul_gflops": 2 * n**3 / best_of(lambda: a @ b) / 1e9,
        "convolution_gflops": 2 * 9 * 256**2 * 4 * 64**2 / best_of(
            lambda: functional.conv2d(maps, kernel, padding=1)) / 1e9,
        "copy_gb_per_s": 2 * source.nbytes / best_of(lambda: target.copy_(source)) / 1e9,
        **{name: versions.get(name) for name in ("torch", "numpy", "deeplung_nb")},
    }


def time_jobs(jobs: Sequence[Job], repeats: int = 3, progress: bool = True,
              memory_of: Callable[[Job], bool] = lambda _: True) -> pd.DataFrame:
    """Time jobs in turns, warm; then the memory of each, in a process of its own.

    Parameters
    ----------
    jobs
        Rows to be made; a scan of more than 120 slices is timed once.
    repeats
        Rounds after the first, which warms up.
    memory_of
        Whose memory to measure: each takes a process that begins anew, a few seconds.

    Returns
    -------
    DataFrame
        `task, model, way, width, image_size, n_slices, repeats, seconds_median, seconds_min,
        seconds_max, parameters_million, gflop_per_slice, peak_memory_gb` and the columns of
        `machine`. A single time has `repeats` 1; GFLOP are of the plain network.
    """
    use_threads(jobs[0].threads)
    keep_freed_memory()
    seconds: dict[Job, list[float]] = {job: [] for job in jobs}
    work = {job: _work_of(job) for job in jobs}
    turns = [job for _ in range(repeats + 1) for job in jobs if job.n_slices <= LONG]
    for job in track([*turns, *(job for job in jobs if job.n_slices > LONG)], "benchmark", "run",
                     shown=progress):
        start = time.perf_counter()
        work[job]()
        seconds[job].append(time.perf_counter() - start)
    del work
    most = machine()
    rows = []
    with _fresh_process() as alone:
        asked = [job for job in jobs if memory_of(job)]
        peaks = dict(zip(asked, track(alone.map(_peak_of, asked), "memory of each", "job",
                                      shown=progress, total=len(asked)), strict=True))
    for job in jobs:
        times = seconds[job][1:] or seconds[job]  # the first round warms up
        networks = _networks_of(job)
        rows.append({
            "task": job.task, "model": job.model, "way": job.way, "width": job.width,
            "image_size": networks[0].image_size, "n_slices": job.n_slices, "repeats": len(times),
            "seconds_median": statistics.median(times), "seconds_min": min(times),
            "seconds_max": max(times),
            "parameters_million": sum(
                p.numel() for network in networks for p in network.parameters()) / 1e6,
            "gflop_per_slice": _gflop_per_slice(job),
            "peak_memory_gb": peaks.get(job, float("nan")), **most,
        })
    return pd.DataFrame(rows)


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; else that precision only costs time."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        return any("avx512_bf16" in line or "amx_bf16" in line for line in lines)
    return False


def run_benchmark(run: Run, repeats: int = 3, progress: bool = True) -> pd.DataFrame:
    """Time a run's network and the U-Nets on 16 slices, and ours on 120 and 500; `timings.csv`.

    The network of the run's configuration, untrained (weights do not change the time), fast and
    plain; the 2-D U-Nets with their maps channels last too. An earlier result of the run is used
    again. Columns as `time_jobs`.
    """
    path = run.path("timings.csv")
    if path.exists():
        return pd.read_csv(path)
    config = run.config
    unets = dict.fromkeys((*config.baselines,
                           *(UNetConfig(name, width) for name, width in FULL_WIDTHS.items())))
    shared = {"network": config.network, "batch": config.batch_predict, "threads": config.threads}
    jobs = [Job("ours", TABLE_4_SLICES, way, **shared) for way in ("plain", "fast")]
    jobs += [Job(unet.name, TABLE_4_SLICES, way, width=unet.width, **shared) for unet in unets
             for way in ("plain", "channels last")[:1 + (unet.name == "unet2d")]]
    jobs += [Job("ours", n, "fast", **shared) for n in (LONG, 500)]
    frame = time_jobs(jobs, repeats, progress, lambda job: job.n_slices <= LONG)
    write_text(path, frame.to_csv(index=False))
    return frame


def benchmark(output: Path, *, threads: int | None = None, repeats: int = 3,
              n_slices: Sequence[int] = (TABLE_4_SLICES, LONG, 500),
              training: Sequence[int] = (8, 32),
              progress: bool = True) -> pd.DataFrame:
    """All that docs/performance.md is drawn from, as one tidy CSV.

    Parameters
    ----------
    output
        The CSV.
    threads
        For all; None: as many as torch chooses.
    n_slices
        Lengths of scan: the U-Nets and the plain way are timed on the shortest, ours on all.
    training
        Slices of a training step; the plain way is timed with the fewest, since it needs most.
    """
    for name, values in (("slices", n_slices), ("training", training), ("repeats", [repeats])):
        if (name != "training" and not values) or min(values, default=1) < 1:
            raise ValueError(f"{name} {list(values)}: expected whole numbers from 1 on")
    check_writable(output.resolve().parent)
    models = ("ours", "packaged")
    fast = ["fast"] + ["bfloat16"] * has_bfloat16()
    least = min(n_slices)
    jobs = [Job(model, least, way) for model in models for way in ("plain", *fast)]
    jobs += [Job("convlstm", least, way) for way in ("plain", "fast")]
    jobs += [Job("unet2d", least, way, width=FULL_WIDTHS["unet2d"])
             for way in ("plain", "channels last")]
    jobs += [Job("unet3d", least, width=FULL_WIDTHS["unet3d"])]
    jobs += [Job(model, n, "fast") for model in (*models, "ensemble")
             for n in n_slices if n > least]
    jobs += [Job(model, n, way, "training") for model in models for n in sorted(training)
             for way in ("plain", *fast) if way != "plain" or n == min(training)]
    jobs += [Job("ours", n, task="loading") for n in training]
    with tempfile.TemporaryDirectory() as folder:
        for n in (n for n in n_slices if n > least):
            write_ct(scan := Path(folder) / f"{n}.nii.gz", n)
            jobs.append(Job("ensemble", n, "fast", "file", scan=scan))
        frame = time_jobs([Job(**{**vars(job), "threads": threads}) for job in jobs], repeats,
                          progress)
    write_text(output, frame.to_csv(index=False))
    return frame
