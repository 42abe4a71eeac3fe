"""A cohort by many processes: Dask hands the scans to workers, files say what is done.

The scheduler is told of a few scans at a time, so that neither it nor this process grows with the
cohort. A worker that dies is replaced and its scan tried again elsewhere; what a scan ends three
workers with is a failure with that reason (`one.measure_one` counts).
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import multiprocessing
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from deeplung_nb.files import check_writable
from deeplung_nb.scaling import one, tables
from deeplung_nb.scaling.scans import ScanJob
from deeplung_nb.scaling.tally import WELL, Tally

GB_A_WORKER = 3.0
"""Memory that a scan of 500 slices takes a worker, and some room."""
CONNECT_SECONDS = 30
LOCK = ".lock"
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
                                     "NUMBA_NUM_THREADS")}


class CohortError(RuntimeError):
    """A cohort can't be begun, or not go on: says why, and what to do."""


@dataclass(frozen=True)
class Report:
    """What came of a call."""

    n_scans: int
    counts: dict[str, int]
    """Scans by kind: done, kept, and the kinds of failures."""
    seconds: float
    workers: str
    files: list[Path] = field(default_factory=list)

    @property
    def n_failed(self) -> int:
        """Scans without a measurement."""
        return sum(n for kind, n in self.counts.items() if kind not in WELL)


def memory_bytes() -> int:
    """What this process may use: the machine's memory, or its container's limit."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        return min(whole, limit)
    return whole


def default_workers() -> int:
    """As many as there are cores, and as memory allows."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, int(memory_bytes() / 1e9 / GB_A_WORKER)))


def make_plan(output: str | os.PathLike, checkpoints: Sequence[str | os.PathLike] | None = None,
              **options: Any) -> one.Plan:
    """A plan for these networks (default: the packaged one); options are those of `Plan`.

    Raises
    ------
    FileNotFoundError, ValueError
        A file is missing or no checkpoint of this package.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as child:
        network = child.submit(one.describe_networks, checkpoints).result()  # torch stays there
    plan = one.Plan(os.path.abspath(output), run_id="", code=one.code_digest(),
                    token=secrets.token_hex(8), **network, **options)
    key = json.dumps([plan.network_sha256, plan.code, plan.force])
    return replace(plan, run_id=f"cohort-{one.short_hash(key)}")


@contextlib.contextmanager
def _alone(output: Path) -> Iterator[None]:
    """One call at a time in a folder; the lock goes with its process.

    Raises
    ------
    CohortError
        Another one works there.
    """
    output.mkdir(parents=True, exist_ok=True)
    with (output / LOCK).open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            raise CohortError(f"{output}: {stream.read().strip() or 'another process'} measures a "
                              "cohort there. Wait for it, end it, or choose another --output"
                              ) from None
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        stream.flush()
        yield


def _take(tally: Tally, outcome: one.Outcome) -> None:
    if outcome.kind == "disk":
        raise CohortError(f"{outcome.reason} Nothing that is done is lost: the same command goes "
                          "on")
    tally.count(outcome.kind)


def measure_cohort(jobs: Sequence[ScanJob], plan: one.Plan, *, workers: int | None = None,
                   scheduler: str | None = None, security: dict[str, str] | None = None,
                   memory_gb: float | None = None, progress: bool = True,
                   measure: Callable[[one.Plan, ScanJob], one.Outcome] = one.measure_one
                   ) -> Report:
    """Measure every scan that is not measured yet, and write the tables of all of them.

    Parameters
    ----------
    jobs
        Of `scans.list_scans`.
    plan
        Of `make_plan`.
    workers
        Processes on this machine, of one thread each; 0: this process alone, one scan after the
        other; default: `default_workers`.
    scheduler
        Address of a Dask scheduler whose workers see the same files; then no process is started.
    security
        Of such a scheduler: `tls_ca_file`, `tls_client_cert`, `tls_client_key`.
    memory_gb
        What a worker may use before it is ended; default: an equal share of this machine's.
    measure
        What a worker does with a scan.

    Raises
    ------
    CohortError
        Another call works in the folder; nothing can be written there; no scheduler answers.
    """
    output = Path(plan.output)
    check_writable(output)
    begin = time.monotonic()
    with _alone(output):
        if scheduler is not None:
            shown = f"the workers of {without_secrets(scheduler)}"
        elif workers == 0:
            shown = "one process"
        else:
            workers = workers or default_workers()
            memory_gb = memory_gb or memory_bytes() / 1e9 * 0.9 / workers
            several = "s" if workers > 1 else ""
            shown = f"{workers} worker{several} of one thread, {memory_gb:.1f} GB each"
        tally = Tally(plan.output, len(jobs), shown, progress)
        try:
            with tally.bar:
                if workers == 0 and scheduler is None:
                    # A hanging scan would end this very process.
                    alone = replace(plan, limit_seconds=None)
                    for job in jobs:
                        _take(tally, measure(alone, job))
                else:
                    _by_dask(jobs, plan, tally, measure, workers or 1, scheduler, security,
                             memory_gb)
            if tally.counts.total() != len(jobs):
                raise CohortError(f"{tally.counts.total()} of {len(jobs)} scans came back. What is "
                                  "done is kept: give the same command again")
            files = tables.write_tables(plan, jobs)
        except BaseException:
            tally.write("stopped")
            raise
        tally.write("finished")
    return Report(len(jobs), dict(sorted(tally.counts.items())), time.monotonic() - begin, shown,
                  files)


def without_secrets(address: str) -> str:
    """A scheduler's address without what stands before `@` or after `?`."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _by_dask(jobs: Sequence[ScanJob], plan: one.Plan, tally: Tally, measure: Callable[..., Any],
             workers: int, scheduler: str | None, security: dict[str, str] | None,
             memory_gb: float | None) -> None:
    from dask import config
    from distributed import Client, LocalCluster, as_completed
    from distributed.security import Security

    settings = {
        "distributed.scheduler.allowed-failures": 10 * one.MOST_DEATHS,  # we count ourselves
        "distributed.nanny.pre-spawn-environ": ONE_THREAD,
        "distributed.worker.memory.target": False, "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False, "distributed.worker.memory.terminate": 0.95,
        "distributed.admin.tick.limit": "1h",
        "distributed.comm.timeouts.connect": f"{CONNECT_SECONDS}s",
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(config.set(settings))
        if scheduler is None:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="deeplung-"))
            no_page: Any = None
            place: Any = stack.enter_context(LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1",
                memory_limit=int((memory_gb or GB_A_WORKER) * 1e9), dashboard_address=no_page,
                local_directory=scratch, silence_logs=50))
        else:
            place = scheduler
        try:
            client = stack.enter_context(Client(
                place, security=Security(require_encryption=True, **security) if security else None,
                timeout=CONNECT_SECONDS, set_as_default=False))
        except (OSError, ValueError) as error:
            raise CohortError(f"{without_secrets(str(scheduler))}: no Dask scheduler answers there "
                              f"({type(error).__name__}). Start one, or check the address and its "
                              "TLS files") from error
        _hand_out(jobs, plan, tally, measure, client, as_completed)


def _hand_out(jobs: Sequence[ScanJob], plan: one.Plan, tally: Tally, measure: Callable[..., Any],
              client: Any, as_completed: Any) -> None:
    """A few scans for each worker at a time; the next ones as these come back."""
    left, running = iter(jobs), {}

    def submit(job: ScanJob) -> Any:
        future = client.submit(measure, plan, job, pure=False,
                               key=f"scan-{plan.token}-{job.case_id}")
        running[future.key] = job
        return future

    def room() -> int:
        return max(2, 2 * sum(client.ncores().values())) - len(running)

    first = [submit(job) for job in itertools.islice(left, room())]
    coming = as_completed(first, loop=client.loop)
    for future in coming:
        if future.status == "pending":  # its worker died before it had told the outcome
            coming.add(future)
            continue
        job = running.pop(future.key)
        if future.status == "finished":
            outcome = future.result()
        elif future.status == "error":
            outcome = one.fail(plan, job, f"no worker could finish it ({future.exception()})")
        else:  # the scheduler was lost, or somebody cancelled the work
            raise CohortError(f"the scheduler gave up scan {job.case_id} ({future.status}). What "
                              "is done is kept: give the same command again")
        future.release()
        _take(tally, outcome)
        following = next(left, None)
        if following is not None:
            coming.add(submit(following))
