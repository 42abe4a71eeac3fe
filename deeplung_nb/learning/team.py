"""Processes that train one network together, as `torchrun` starts them: one loss, one network.

Each sends its share of a step's slices through the network. The scores of all are brought together
before the loss is taken, since RMI and Dice are no means over slices, and batch norm takes its mean
and variance over all of them. So the step is that of one process with the whole batch, to rounding,
whatever their number; what is left to DistributedDataParallel is the sum of the gradients.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel

PATIENCE = timedelta(hours=12)
"""How long processes wait for one that reads cases or writes files."""


@dataclass(frozen=True)
class Team:
    """This process among those that train together; one alone is a team too."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Team:
        """The team that this process has joined, or itself."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls()

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def share(self, rows: np.ndarray) -> np.ndarray:
        """This process's part of the rows of a batch.

        Raises
        ------
        ValueError
            There are fewer rows than processes.
        """
        if len(rows) < self.size:
            raise ValueError(f"{len(rows)} windows for {self.size} processes: a step needs one for "
                             "each. Start fewer, raise batch_slices, or lower accumulate")
        return np.array_split(rows, self.size)[self.rank]

    def gather(self, mine: Tensor) -> Tensor:
        """The rows of all processes, in their order; gradients go back to one's own alone."""
        if self.size == 1:
            return mine
        counts = [0] * self.size
        distributed.all_gather_object(counts, len(mine))
        begin = sum(counts[:self.rank])
        whole = torch.zeros(sum(counts), *mine.shape[1:], dtype=mine.dtype, device=mine.device)
        whole[begin:begin + len(mine)] = mine.detach()
        distributed.all_reduce(whole)
        return torch.cat([whole[:begin], mine, whole[begin + len(mine):]])

    def sum(self, numbers: Sequence[float]) -> list[float]:
        """Numbers added up over the processes."""
        if self.size == 1:
            return list(numbers)
        tensor = torch.tensor(numbers, dtype=torch.float64, device=_device_of_messages())
        distributed.all_reduce(tensor)
        return tensor.tolist()

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        return self.sum([float(flag)])[0] > 0

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            distributed.barrier()

    @contextlib.contextmanager
    def first_before_others(self) -> Iterator[None]:
        """The first process does what follows and the others after it, who find it done."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()

    def join(self, network: nn.Module) -> nn.Module:
        """The network as the team trains it: its batch norms and gradients are everybody's."""
        if self.size == 1:
            return network
        for module in network.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = SharedBatchNorm
        # Equal everywhere: running means and variances are, after each step.
        return DistributedDataParallel(network, broadcast_buffers=False,
                                       find_unused_parameters=True)


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm with mean and variance over the rows of all processes, on any device.

    torch's SyncBatchNorm computes on GPUs only.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.float()
        n = torch.tensor(float(x.numel() // x.shape[1]), device=x.device)
        distributed.all_reduce(n)
        mean = all_reduce(wide.sum(dim=(0, 2, 3))) / n
        centred = wide - mean[:, None, None]
        variance = all_reduce(centred.square().sum(dim=(0, 2, 3))) / n
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_(variance.detach() * n / (n - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def _device_of_messages() -> torch.device:
    return torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")


@contextlib.contextmanager
def joined() -> Iterator[Team]:
    """The team of `torchrun`, as long as the context lasts; without `torchrun` one process.

    On GPUs each process takes the one of its local rank.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Team.current()
        return
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        yield Team.current()
    finally:
        distributed.destroy_process_group()
