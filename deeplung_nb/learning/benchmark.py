"""How long the networks take, all in one interleaved run on the machine at hand.

Only ratios within one run mean much: absolute times move with the machine and its load.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from deeplung_nb.learning.predict import Predictor
from deeplung_nb.learning.train import choose_device, keep_freed_memory
from deeplung_nb.network.baselines import unet_2d, unet_3d
from deeplung_nb.network.deeplung import DeepLungNet
from deeplung_nb.runs import Run, peak_memory_gb, processor_name, write_text

TABLE_4_SLICES = 16
TABLE_3_SLICES = (120, 500)


def _scorers(run: Run, device: torch.device) -> dict[str, tuple[torch.nn.Module, Callable]]:
    torch.manual_seed(0)
    ours, flat, solid = DeepLungNet(run.config.network), unet_2d(), unet_3d()
    predictor = Predictor([ours], batch=run.config.batch_predict, device=device)
    flat, solid = flat.to(device).eval(), solid.to(device).eval()

    def score_ours(slices: np.ndarray) -> None:
        for _ in predictor.score_batches(slices):
            pass

    @torch.inference_mode()
    def score_flat(slices: np.ndarray) -> None:
        for start in range(0, len(slices), run.config.batch_predict):
            batch = torch.from_numpy(slices[start:start + run.config.batch_predict])
            flat(batch.unsqueeze(1).to(device)).cpu()

    @torch.inference_mode()
    def score_solid(slices: np.ndarray) -> None:
        solid(torch.from_numpy(slices)[None, None].to(device)).cpu()

    return {"ours": (ours, score_ours), "unet2d": (flat, score_flat),
            "unet3d": (solid, score_solid)}


def run_benchmark(run: Run, repeats: int = 3, progress: bool = True) -> pd.DataFrame:
    """Time our network and both U-Nets on 16 slices, and ours on 120 and 500; `timings.csv`.

    Network alone, untrained weights (they do not change the time), warm, interleaved: each round
    times every network once. An earlier result of the run is used again.

    Returns
    -------
    DataFrame
        Columns `model, device, hardware, threads, image_size, n_slices, repeats, seconds_median,
        seconds_min, seconds_max, parameters_million, peak_memory_gb`; the last is this process's
        peak after the row was timed, not the network's own.
    """
    path = run.path("timings.csv")
    if path.exists():
        return pd.read_csv(path)
    keep_freed_memory()
    device = choose_device()
    size = run.config.network.image_size
    rng = np.random.default_rng(0)
    scorers = _scorers(run, device)
    plan = [(name, TABLE_4_SLICES) for name in scorers] * (repeats + 1)
    plan += [("ours", n) for n in TABLE_3_SLICES]
    seconds: dict[tuple[str, int], list[float]] = {}
    memory: dict[tuple[str, int], float] = {}
    for name, n_slices in tqdm(plan, desc="benchmark", unit="run", disable=not progress):
        slices = rng.random((n_slices, size, size), dtype=np.float32)
        start = time.perf_counter()
        scorers[name][1](slices)
        seconds.setdefault((name, n_slices), []).append(time.perf_counter() - start)
        memory[name, n_slices] = peak_memory_gb()
    rows = []
    for (name, n_slices), times in seconds.items():
        kept = times[1:] or times  # the first round warms up
        rows.append({
            "model": name, "device": device.type,
            "hardware": torch.cuda.get_device_name() if device.type == "cuda" else processor_name(),
            "threads": torch.get_num_threads(), "image_size": size, "n_slices": n_slices,
            "repeats": len(kept), "seconds_median": statistics.median(kept),
            "seconds_min": min(kept), "seconds_max": max(kept),
            "parameters_million": sum(p.numel() for p in scorers[name][0].parameters()) / 1e6,
            "peak_memory_gb": memory[name, n_slices],
        })
    frame = pd.DataFrame(rows)
    write_text(path, frame.to_csv(index=False))
    return frame
