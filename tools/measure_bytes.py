"""Which sums differ on another processor: .venv/bin/python tools/measure_bytes.py

Prints a hash for each stage of a tiny study: array libraries, phantoms, a step of each network,
scoring. Run it natively and under an emulator of another make (Debian's package `qemu-user`), with
and without variables that fix the instruction set, and compare the lines:

    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_CBWR=COMPATIBLE NUMBA_CPU_NAME=haswell
    OPENBLAS_CORETYPE=Haswell qemu-x86_64 -cpu Haswell .venv/bin/python tools/measure_bytes.py

`--no-onednn` switches that library off, `--phantom` adds one, `STEPS=7` times more steps, `THREADS`
sets their number (2).
"""

import hashlib
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from scipy import ndimage

import deeplung_nb  # noqa: F401  (its pins, which are read at the first sum)
from deeplung_nb.imaging.phantom.make import make_phantom
from deeplung_nb.imaging.phantom.spec import read_specs
from deeplung_nb.learning.dataset import PreparedCase, SliceSampler, cut_windows, normalise
from deeplung_nb.learning.train import make_optimiser
from deeplung_nb.network.checkpoint import build_network
from deeplung_nb.network.device import use_threads
from deeplung_nb.network.losses import SegmentationLoss
from deeplung_nb.runs.config import load_profile
from deeplung_nb.runs.registry import manifest_folder

STARTED = time.perf_counter()
N_STEPS = int(os.environ.get("STEPS", "2"))


def show(stage: str, *arrays: np.ndarray) -> None:
    """One line: a stage, the start of its hash, the seconds since the start."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    print(f"{stage:<22}{digest.hexdigest()[:16]}   {time.perf_counter() - STARTED:7.1f} s",
          flush=True)


def make_cases() -> list[PreparedCase]:
    """Two small chests of noise and squares, whose numbers are whole."""
    cases = []
    for k in range(2):
        rows = np.random.default_rng(k).integers(-950, -700, (14, 64, 64)).astype(np.int16)
        target = np.zeros(rows.shape, np.uint8)
        target[4:9, 10:30, 12:28], target[6:8, 40:52, 36:50] = 1, 2
        rows[target == 1], rows[target == 2] = -450, 30
        cases.append(PreparedCase(f"c{k}", rows, target))
    return cases


def step(name: str, attention: bool = True) -> None:
    """A few steps of a network's training, then its scores."""
    config = load_profile("quick")
    config = replace(config, network=replace(config.network, attention=attention))
    settings = replace(config.training, steps_per_epoch=N_STEPS, max_epochs=1)
    torch.manual_seed(1)
    network = build_network(config, name, None)
    if name != "unet3d":
        network.to(memory_format=torch.channels_last)
    shown = f"{name}{'' if attention else ', main branch'}"
    show(f"{shown}: start", *(one.detach().numpy() for one in network.parameters()))
    optimiser, loss_function = make_optimiser(network, settings), SegmentationLoss(settings)
    network.train()
    seconds = []
    for picks, _ in SliceSampler(make_cases(), settings, 3).batches(0):
        started = time.perf_counter()
        picks = picks[:max(1, len(picks) // len(network.scores))]
        # Without augmentation: the gathers of grid_sample end the emulator (QEMU 7.2).
        hu, target = cut_windows(make_cases(), picks, network.sees, network.scores)
        optimiser.zero_grad(set_to_none=True)
        scores = network(normalise(hu))
        loss = loss_function(scores.fused, target.flatten(0, 1))
        if scores.main is not None:
            loss = loss + 0.4 * loss_function(scores.main, target.flatten(0, 1))
        loss.backward()
        optimiser.step()
        seconds.append(time.perf_counter() - started)
    print(f"{shown}: a step in {np.median(seconds[1:]):.2f} s (median of {N_STEPS - 1})")
    show(f"{shown}: {N_STEPS} steps", *(one.detach().numpy() for one in network.parameters()))
    network.eval()
    with torch.inference_mode():
        show(f"{shown}: scores", network(normalise(hu)).fused.numpy())


def main() -> None:
    """All stages, from the simplest."""
    use_threads(int(os.environ.get("THREADS", "2")))
    torch.backends.mkldnn.enabled = "--no-onednn" not in sys.argv
    print(torch.backends.cpu.get_cpu_capability(), np.__version__, torch.__version__)
    rng = np.random.default_rng(0)
    wide, narrow = rng.normal(size=(300, 200)), rng.normal(size=(200, 120))
    show("numpy matmul", wide @ narrow, wide.astype("f4") @ narrow.astype("f4"))
    show("numpy sums", wide.sum(0), wide.astype("f4").mean(1), np.linalg.svd(narrow)[1])
    show("numpy exp, log, sin", np.exp(wide), np.log(np.abs(wide)), np.sin(wide), wide ** 1.7,
         np.exp(wide.astype("f4")))
    show("scipy ndimage", ndimage.zoom(wide, 1.7, order=3), ndimage.gaussian_filter(wide, 1.3))
    a, b = torch.from_numpy(wide.astype("f4")), torch.from_numpy(narrow.astype("f4"))
    show("torch matmul", (a @ b).numpy(), (a.double() @ b.double()).numpy())
    show("torch exp, sums", torch.softmax(a, 1).numpy(), torch.log(a.abs()).numpy(),
         torch.tanh(a).numpy(), a.sum(0).numpy(), a.mean().numpy())
    picture = torch.from_numpy(rng.normal(size=(2, 8, 32, 32)).astype("f4"))
    kernel = torch.from_numpy(rng.normal(size=(16, 8, 3, 3)).astype("f4"))
    show("torch conv2d", torch.conv2d(picture, kernel, padding=1).numpy())
    if "--phantom" in sys.argv:
        phantom = make_phantom(read_specs(manifest_folder() / "phantom.csv")[1])
        show("phantom", phantom.scan.hu, phantom.expert.labels)
    step("deeplung", attention=False)
    step("unet2d")
    step("unet3d")
    step("deeplung")


if __name__ == "__main__":
    main()
