"""Processes on this machine that do pieces of work: Dask hands these out and replaces the dead.

Nothing listens but to this machine, and Dask's page is off.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster

CONNECT_SECONDS = 30
SETTINGS = {
    "distributed.worker.memory.target": False, "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False, "distributed.worker.memory.terminate": 0.95,
    "distributed.admin.tick.limit": "1h",
    "distributed.comm.timeouts.connect": f"{CONNECT_SECONDS}s",
    "distributed.deploy.lost-worker-timeout": "24h",
}
"""Of Dask: a worker that outgrows its memory is ended, not slowed down; one whose process died is
replaced by its nanny alone. (A cluster looks too, after 15 seconds, and closes for good the nanny
of a worker that is not there at that moment, as when it has just died again.)"""
MOST_DEATHS = 3
"""Processes that a piece of work may end before it is given up."""
Task = TypeVar("Task")
Result = TypeVar("Result")


class WorkersError(RuntimeError):
    """Work can't be done by several processes: says why, and what to do."""


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def local_cluster(n: int, memory_gb: float | None = None,
                  environment: dict[str, str] | None = None) -> Iterator[LocalCluster]:
    """`n` processes, in each of which one piece of work runs at a time.

    Parameters
    ----------
    memory_gb
        What a process may use before it is ended; None: no limit.
    environment
        Set before a process begins: threads of libraries are read then.
    """
    from dask import config
    from distributed import LocalCluster

    cluster: Any
    with (config.set({**SETTINGS, "distributed.nanny.pre-spawn-environ": environment or {}}),
          tempfile.TemporaryDirectory(prefix="deeplung-") as scratch,
          LocalCluster(n_workers=n, threads_per_worker=1, processes=True, host="127.0.0.1",
                       memory_limit=0 if memory_gb is None else int(memory_gb * 1e9),
                       dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False},
                       local_directory=scratch, silence_logs=50) as cluster):
        yield cluster


def ended(coming: Any) -> Iterator[Future]:
    """The futures of an `as_completed` that have come to an end, more of which may be added."""
    for future in coming:
        # Its worker died, before it had told that it had an outcome or before that was fetched: the
        # scheduler has the work done again.
        if future.status in ("pending", "lost"):
            coming.add(future)
        else:
            yield future


class Pool(contextlib.AbstractContextManager):
    """Up to `n` processes, which start with the first work and end with the context."""

    def __init__(self, n: int) -> None:
        self.n = n
        self._stack = contextlib.ExitStack()
        self._client: Client | None = None

    def __exit__(self, *error: object) -> None:
        self._client = None
        self._stack.close()

    def _start(self) -> Client:
        from dask import config
        from distributed import Client

        if self._client is None:
            self._stack.enter_context(
                config.set({"distributed.scheduler.allowed-failures": MOST_DEATHS - 1}))
            cluster = self._stack.enter_context(local_cluster(self.n))
            self._client = self._stack.enter_context(
                Client(cluster, timeout=CONNECT_SECONDS, set_as_default=False))
        return self._client

    def each(self, work: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """What `work` makes of each task, as they come to an end.

        An error of `work` is raised here; what the other processes are at ends with the context.

        Raises
        ------
        WorkersError
            A task ended several processes.
        """
        if not tasks:
            return
        from distributed import KilledWorker, as_completed

        client = self._start()
        futures = client.map(work, list(tasks), pure=False)
        for future in ended(as_completed(futures, loop=client.loop)):
            try:
                yield future.result()
            except KilledWorker as error:
                raise WorkersError(
                    f"{MOST_DEATHS} processes ended while they worked at the same thing, as they "
                    "do when memory runs out. What is done is kept: give the same command again, "
                    "with fewer workers") from error


def number() -> int:
    """Which of the processes this is, from 0 on; 0 in a process that is none of them."""
    from distributed import get_worker

    try:
        return int(get_worker().name)
    except ValueError:
        return 0
