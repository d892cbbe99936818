"""Model soups: one better model from many fine-tuned ones.

A function is imported when it is first used, so `import soupcli` stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soupcli.api import (
        evaluate,
        find,
        greedy,
        inspect,
        learned,
        mix,
        open_checkpoint,
        rank,
        uniform,
        verify,
    )

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "evaluate",
    "find",
    "greedy",
    "inspect",
    "learned",
    "mix",
    "open_checkpoint",
    "rank",
    "uniform",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("soupcli.api"), name)
    raise AttributeError(f"module 'soupcli' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
