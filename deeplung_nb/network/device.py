"""Where and how tensors are computed: device, threads, precision, allocator."""

from __future__ import annotations

import ctypes

import torch


def choose_device() -> torch.device:
    """CUDA when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def use_threads(n: int | None) -> None:
    """Compute with so many threads; None: as many as torch chose.

    Sums are split among the threads, so that another number rounds otherwise, and a training ends
    elsewhere.
    """
    if n is not None:
        torch.set_num_threads(n)


def keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks instead of returning them to the system after each step.

    Large tensors otherwise cost page faults anew in every step: measured here, up to half of a
    step's time. Elsewhere than glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    for parameter, value in ((-3, 2**30), (-1, 2**31 - 1)):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
        mallopt(parameter, value)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The autocast context of a precision, `float32` or `bfloat16`."""
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision {precision!r}: expected 'float32' or 'bfloat16'")
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
