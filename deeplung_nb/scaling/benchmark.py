"""What a cohort costs besides its scans, and what more workers bring: on this machine, in one run.

Scans are phantoms; ways take turns, so that a machine that grows slower does so for all of them.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from deeplung_nb.runs.config import load_profile
from deeplung_nb.runs.registry import cohort_files
from deeplung_nb.scaling.engine import make_plan, measure_cohort
from deeplung_nb.scaling.record import Outcome, Plan
from deeplung_nb.scaling.scans import ScanJob


def do_nothing(plan: Plan, job: ScanJob) -> Outcome:
    """A scan that costs nothing: what is left is what handing it out costs."""
    return Outcome(job.case_id, "done")


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if os.uname().sysname == "Darwin" else 1e3)


def cost_of_handing_out(n_scans: int = 10_000, workers: int = 2) -> dict[str, float]:
    """Milliseconds a scan, and what this process held at most, MB: before, and at the end."""
    with tempfile.TemporaryDirectory() as folder:
        plan = make_plan(folder)
        jobs = [ScanJob(f"scan-{k:06d}", f"/nowhere/{k}.nii.gz") for k in range(n_scans)]
        before = _peak_mb()
        few = measure_cohort(jobs[:200], plan, workers=workers, progress=False, measure=do_nothing)
        begun = measure_cohort(jobs, plan, workers=workers, progress=False, measure=do_nothing)
    # The start of the workers is in both.
    return {"n_scans": n_scans, "ms_a_scan": 1000 * (begun.seconds - few.seconds) / (n_scans - 200),
            "seconds_to_start": few.seconds, "client_mb_before": before,
            "client_mb": _peak_mb()}


def what_workers_bring(ways: Sequence[int] = (0, 1, 2), n_scans: int = 24, n_slices: int = 60,
                       repeats: int = 1) -> pd.DataFrame:
    """Seconds for the same scans by one process (0) and by workers: `workers, round, seconds`."""
    from deeplung_nb.imaging.io import write_scan
    from deeplung_nb.imaging.phantom.make import make_phantom
    from deeplung_nb.imaging.phantom.spec import read_specs

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        specs = read_specs(cohort_files("phantom")[0])
        jobs = []
        for k in range(n_scans):
            spec = specs[k % len(specs)]
            path = Path(folder) / f"ct{k}.nii.gz"
            write_scan(make_phantom(spec.resampled(spec.size, n_slices)).scan, path)
            jobs.append(ScanJob(f"ct{k:03d}", str(path)))
        for number in range(repeats):
            for workers in ways:
                with tempfile.TemporaryDirectory(dir=folder) as output:
                    begin = time.monotonic()
                    report = measure_cohort(jobs, make_plan(output), workers=workers,
                                            progress=False)
                    rows.append({"workers": workers, "round": number, "n_scans": n_scans,
                                 "done": report.counts.get("done", 0),
                                 "seconds": time.monotonic() - begin})
    return pd.DataFrame(rows)


WAYS_TO_TRAIN: dict[str, tuple[int, list[str], list[str]]] = {
    "one process, two threads": (2, [], []),
    "one process, one thread": (1, [], []),
    "two folds side by side, one thread each": (1, [], ["--workers", "2"]),
    "a team of two, one thread each": (1, ["-m", "torch.distributed.run", "--standalone",
                                           "--local-addr", "127.0.0.1", "--nproc-per-node", "2"],
                                       []),
}
"""Threads, what starts the command `train`, and its options."""


def what_training_gains(repeats: int = 2, n_steps: int = 48) -> pd.DataFrame:
    """Seconds to train two folds of the profile quick, by way: `way, round, seconds`.

    Each way is a call of its own, imports and the reading of cases included; `n_steps` a fold.
    """
    quick = load_profile("quick")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats + 1):  # the first compiles and makes the phantoms
            for way, (threads, starter, options) in WAYS_TO_TRAIN.items():
                config = replace(quick, threads=threads, first=None, training=replace(
                    quick.training, max_epochs=1, steps_per_epoch=n_steps))
                profile = Path(folder) / f"{threads}.json"
                profile.write_text(json.dumps(config.to_dict()), encoding="utf-8")
                with tempfile.TemporaryDirectory(dir=folder) as results:
                    begin = time.monotonic()
                    subprocess.run([sys.executable, *starter, "-m", "deeplung_nb", "train",
                                    "--profile", profile, "--results", results, "--fold", "0",
                                    "--fold", "1", *options], check=True, capture_output=True)
                    if number:
                        rows.append({"way": way, "round": number,
                                     "seconds": time.monotonic() - begin})
    return pd.DataFrame(rows)
