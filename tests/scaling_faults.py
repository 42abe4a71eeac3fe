"""What can go wrong with a scan, in the worker that measures it: for test_scaling.py.

`faults.json` in the output folder says of a case id what happens, and how often at most.
"""

import errno
import json
import os
import signal
import time
from pathlib import Path

from deeplung_nb.scaling import one


def measure_with_faults(plan, job):
    """`one.measure_one`, in which a fault happens where the work is."""
    faults = json.loads((Path(plan.output) / "faults.json").read_text())
    what, times = faults.get(job.case_id, ("", 0))
    real = one._measure

    def broken(plan, job, folder):
        seen = Path(plan.output) / f"{job.case_id}.{len(list(Path(plan.output).glob('*.fault')))}"
        if len(list(Path(plan.output).glob(f"{job.case_id}.*.fault"))) < times:
            seen.with_name(f"{seen.name}.fault").touch()
            happen(what, job)
        return real(plan, job, folder)

    one._measure = broken
    try:
        return one.measure_one(plan, job)
    finally:
        one._measure = real


def happen(what, job):
    if what == "unreadable":
        raise OSError(errno.EIO, os.strerror(errno.EIO), job.image)
    if what == "touch":
        os.utime(job.image, (7, 7))
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hang":
        time.sleep(3600)
    if what == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")
    if what == "bug":
        raise KeyError("unheard of")
    if what == "memory":
        held = []
        while True:
            held.append(b"x" * 20_000_000)
            time.sleep(0.01)
