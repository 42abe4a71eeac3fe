"""A cohort by many processes: Dask hands the scans to workers, files say what is done.

The scheduler is told of a few scans at a time, so that neither it nor this process grows with the
cohort. A worker that dies is replaced and its scan tried again elsewhere; what a scan ends three
workers with is a failure with that reason (`one.measure_one` counts).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import multiprocessing
import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from deeplung_nb.files import TakenError, check_writable, only_one
from deeplung_nb.scaling import one, tables
from deeplung_nb.scaling.record import Outcome, Plan
from deeplung_nb.scaling.scans import ScanJob
from deeplung_nb.scaling.tally import WELL, Tally
from deeplung_nb.workers import (
    CONNECT_SECONDS,
    SETTINGS,
    available_cores,
    ended,
    local_cluster,
)

GB_A_WORKER = 3.0
"""Memory that a scan of 500 slices takes a worker, and some room."""
EVERY_SECONDS = 2.0
WORKERS_SECONDS = 600
"""A cluster's queue may let the first worker wait so long."""
AT_LEAST = 16
"""Workers that a cluster is thought to have, until it says how many."""
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
    return max(1, min(available_cores(), int(memory_bytes() / 1e9 / GB_A_WORKER)))


def make_plan(output: str | os.PathLike, checkpoints: Sequence[str | os.PathLike] | None = None,
              **options: Any) -> Plan:
    """A plan for these networks (default: the packaged one); options are those of `Plan`.

    Raises
    ------
    FileNotFoundError, ValueError
        A file is missing or no checkpoint of this package.
    """
    network = (one.describe_networks(checkpoints) if "torch" in sys.modules else
               _in_a_child(one.describe_networks, checkpoints))  # torch stays there
    plan = Plan(os.path.abspath(output), run_id="", code=one.code_digest(),
                    token=secrets.token_hex(8), **network, **options)
    key = json.dumps([plan.network_sha256, plan.code, plan.force])
    return replace(plan, run_id=f"cohort-{short_hash(key)}")


def _in_a_child(work: Callable[[Any], Any], given: Any) -> Any:
    """What a process of its own makes of something: one that ends by itself, if this one dies."""
    context = multiprocessing.get_context("spawn")
    answer, end = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(end, work, given))
    child.start()
    end.close()
    try:
        result, error = answer.recv()
    except EOFError:
        raise CohortError("the process that reads the networks ended, as when memory runs out. "
                          "Close other programs, and give the same command again") from None
    finally:
        child.join()
    if error is not None:
        raise error
    return result


def _answer(end: Any, work: Callable[[Any], Any], given: Any) -> None:
    try:
        end.send((work(given), None))
    except Exception as error:
        end.send((None, error))


def short_hash(text: str) -> str:
    """Twelve digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _take(tally: Tally, failures: dict[str, Outcome], outcome: Outcome) -> None:
    if outcome.kind == "worker":
        raise CohortError(f"the worker on {outcome.host} can't measure this cohort: "
                          f"{outcome.reason}. Give all machines the same package and networks; "
                          "what is done is kept")
    if outcome.kind == "disk":
        raise CohortError(f"{outcome.reason}. Nothing that is done is lost: the same command goes "
                          "on")
    if outcome.kind not in WELL:
        failures[outcome.case_id] = outcome
    tally.count(outcome.kind)


def measure_cohort(jobs: Sequence[ScanJob], plan: Plan, *, workers: int | None = None,
                   scheduler: str | None = None, security: dict[str, str] | None = None,
                   memory_gb: float | None = None, progress: bool = True,
                   measure: Callable[[Plan, ScanJob], Outcome] = one.measure_one
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
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(only_one(output, "measures a cohort"))
        except TakenError as error:
            raise CohortError(str(error)) from None
        if scheduler is not None:
            shown = f"the workers of {without_secrets(scheduler)}"
        elif workers == 0:
            shown = "one process"
        else:
            workers = workers or default_workers()
            memory_gb = memory_gb or memory_bytes() / 1e9 * 0.9 / workers
            several = "s" if workers > 1 else ""
            shown = f"{workers} worker{several} of one thread, {memory_gb:.1f} GB each"
        tally, failures = Tally(plan.output, len(jobs), shown, progress), {}
        try:
            with tally.bar:
                if workers == 0 and scheduler is None:
                    # A hanging scan would end this very process.
                    alone = replace(plan, limit_seconds=None)
                    for job in jobs:
                        _take(tally, failures, measure(alone, job))
                else:
                    _by_dask(jobs, plan, lambda outcome: _take(tally, failures, outcome),
                             measure, workers or 1, scheduler, security, memory_gb)
            if tally.counts.total() != len(jobs):
                raise CohortError(f"{tally.counts.total()} of {len(jobs)} scans came back. What is "
                                  "done is kept: give the same command again")
            files = tables.write_tables(plan, jobs, failures)
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


def _by_dask(jobs: Sequence[ScanJob], plan: Plan, take: Callable[[Outcome], None],
             measure: Callable[..., Any], workers: int, scheduler: str | None,
             security: dict[str, str] | None, memory_gb: float | None) -> None:
    from dask import config
    from distributed import Client, as_completed
    from distributed.security import Security

    # Deaths of a scan are counted by ourselves.
    settings = {**SETTINGS, "distributed.scheduler.allowed-failures": 10 * one.MOST_DEATHS}
    with contextlib.ExitStack() as stack:
        stack.enter_context(config.set(settings))
        place: Any = scheduler
        if scheduler is None:
            place = stack.enter_context(local_cluster(workers, memory_gb or GB_A_WORKER,
                                                      ONE_THREAD))
        try:
            client = stack.enter_context(Client(
                place, security=Security(require_encryption=True, **security) if security else None,
                timeout=CONNECT_SECONDS, set_as_default=False))
        except (OSError, ValueError) as error:
            raise CohortError(f"{without_secrets(str(scheduler))}: no Dask scheduler answers there "
                              f"({type(error).__name__}). Start one, or check the address and its "
                              "TLS files") from error
        try:
            client.wait_for_workers(1, timeout=WORKERS_SECONDS)
        except TimeoutError as error:
            raise CohortError(f"{without_secrets(str(scheduler))}: the scheduler has no worker "
                              "yet. Start some, then give the same command again") from error
        # To a cluster that grows with its work, work must be shown.
        _hand_out(jobs, plan, take, measure, client, as_completed,
                  workers if scheduler is None else AT_LEAST)


def _hand_out(jobs: Sequence[ScanJob], plan: Plan, take: Callable[[Outcome], None],
              measure: Callable[..., Any], client: Any, as_completed: Any, workers: int) -> None:
    """A few scans for each worker at a time; the next ones as these come back."""
    left, running = iter(jobs), {}

    def submit(job: ScanJob) -> Any:
        future = client.submit(measure, plan, job, pure=False,
                               key=f"scan-{plan.token}-{job.case_id}")
        running[future.key] = job
        return future

    def next_ones() -> list[Any]:
        """As many as there is room for: a cluster grows and shrinks while it works."""
        nonlocal most, asked
        if time.monotonic() - asked >= EVERY_SECONDS:
            threads, asked = list(client.ncores().values()), time.monotonic()
            if max(threads, default=1) > 1:  # a limit of time, and a rounding, are a process's
                raise CohortError(f"a worker has {max(threads)} threads, expected one. Start them "
                                  "with --nthreads 1, several processes a machine")
            most = max(2 * workers, 2 * len(threads))
        return [submit(job) for job in itertools.islice(left, max(0, most - len(running)))]

    most, asked = 2 * workers, -math.inf
    coming = as_completed(next_ones(), loop=client.loop)
    for future in ended(coming):
        job = running.pop(future.key)
        if future.status == "finished":
            outcome = future.result()
        elif future.status == "error":
            outcome = one.fail(plan, job, f"no worker could finish it ({future.exception()})")
        else:  # the scheduler was lost, or somebody cancelled the work
            raise CohortError(f"the scheduler gave up scan {job.case_id} ({future.status}). What "
                              "is done is kept: give the same command again")
        future.release()
        take(outcome)
        coming.update(next_ones())
