"""Agreement statistics: arrays or tables in, frozen results with full precision out.

A difference is always test - reference (automatic - expert). No module here needs torch, a GPU or
a CT.
"""

import importlib
import pkgutil
from types import ModuleType

__all__ = sorted(module.name for module in pkgutil.iter_modules(__path__)
                 if not module.name.startswith("_"))


def __getattr__(name: str) -> ModuleType:
    """`stats.agreement` and the others, each imported when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return __all__
