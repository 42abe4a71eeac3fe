"""How loops are compiled: Numba, where it is installed. Without it the plain ways are taken."""

from __future__ import annotations

from collections.abc import Callable

try:
    from numba import njit
except ImportError:
    njit = None

OPTIONS = {"fastmath": {"contract"}, "error_model": "numpy", "nogil": True}
"""`contract` joins product and sum; without `error_model` each division is asked whether it is by
zero, and no loop becomes a vector's. Sums keep their order: the same bytes every time."""


def can_compile() -> bool:
    """Whether Numba is there."""
    return njit is not None


def compiled(function: Callable | None = None, **options: object) -> Callable:
    """A loop, compiled at its first call and kept on disk where any folder can be written to.

    `options` change `OPTIONS` for one loop.
    """
    if function is None:
        return lambda it: compiled(it, **options)
    options = {**OPTIONS, **options}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to keep it: some seconds in each process
        return njit(**options)(function)
