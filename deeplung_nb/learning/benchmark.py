"""How long the networks take, all in one interleaved run on the machine at hand.

Only ratios within one run mean much: absolute times move with the machine and its load.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import pandas as pd
import torch

from deeplung_nb.config import FULL_WIDTHS, UNetConfig
from deeplung_nb.files import write_text
from deeplung_nb.network.baselines import UNet
from deeplung_nb.network.checkpoint import Network
from deeplung_nb.network.deeplung import DeepLungNet
from deeplung_nb.network.device import choose_device, keep_freed_memory, use_threads
from deeplung_nb.progress import track
from deeplung_nb.reading.predict import Predictor
from deeplung_nb.runs import Run, peak_memory_gb, processor_name

TABLE_4_SLICES = 16
TABLE_3_SLICES = (120, 500)


def _networks(run: Run) -> dict[tuple[str, int], Network]:
    """Under (model, width): ours, the run's baselines, and the classic U-Nets of full width."""
    torch.manual_seed(0)
    unets = dict.fromkeys((*run.config.baselines,
                           *(UNetConfig(name, width) for name, width in FULL_WIDTHS.items())))
    size = run.config.network.image_size
    return {("ours", 0): DeepLungNet(run.config.network),
            **{(unet.name, unet.width): UNet(unet, size) for unet in unets}}


def run_benchmark(run: Run, repeats: int = 3, progress: bool = True) -> pd.DataFrame:
    """Time our network and the U-Nets on 16 slices, and ours on 120 and 500; `timings.csv`.

    Network alone, untrained weights (they do not change the time), warm, interleaved: each round
    times every network once. An earlier result of the run is used again.

    Returns
    -------
    DataFrame
        Columns `model, width, device, hardware, threads, image_size, n_slices, repeats,
        seconds_median, seconds_min, seconds_max, parameters_million, peak_memory_gb`; `width` is
        a U-Net's first level (0 for ours), the last is this process's peak after the row was
        timed, not the network's own.
    """
    path = run.path("timings.csv")
    if path.exists():
        return pd.read_csv(path)
    keep_freed_memory()
    use_threads(run.config.threads)
    device = choose_device()
    size = run.config.network.image_size
    rng = np.random.default_rng(0)
    networks = _networks(run)
    predictors = {key: Predictor([network], batch=run.config.batch_predict, device=device)
                  for key, network in networks.items()}
    plan = [(key, TABLE_4_SLICES) for key in networks] * (repeats + 1)
    plan += [(("ours", 0), n) for n in TABLE_3_SLICES]
    seconds: dict[tuple[tuple[str, int], int], list[float]] = {}
    memory: dict[tuple[tuple[str, int], int], float] = {}
    for key, n_slices in track(plan, "benchmark", "run", shown=progress):
        slices = rng.random((n_slices, size, size), dtype=np.float32)
        start = time.perf_counter()
        for _ in predictors[key].score_batches(slices):
            pass
        seconds.setdefault((key, n_slices), []).append(time.perf_counter() - start)
        memory[key, n_slices] = peak_memory_gb()
    rows = []
    for (key, n_slices), times in seconds.items():
        kept = times[1:] or times  # the first round warms up
        rows.append({
            "model": key[0], "width": key[1], "device": device.type,
            "hardware": torch.cuda.get_device_name() if device.type == "cuda" else processor_name(),
            "threads": torch.get_num_threads(), "image_size": size, "n_slices": n_slices,
            "repeats": len(kept), "seconds_median": statistics.median(kept),
            "seconds_min": min(kept), "seconds_max": max(kept),
            "parameters_million": sum(p.numel() for p in networks[key].parameters()) / 1e6,
            "peak_memory_gb": memory[key, n_slices],
        })
    frame = pd.DataFrame(rows)
    write_text(path, frame.to_csv(index=False))
    return frame
