"""Arrays of numpy and tensors of torch, for arithmetic that is written once for both.

    xp = library_of(numbers)                                  # numpy or torch: most functions have one name in both
    xp.where(xp.abs(numbers) < 1, 0.0, numbers)
    cast(numbers, "float32")                                  # what has two names is here

numpy adds on the CPU where it is installed: torch takes ten times as long to import. On a device, and without numpy,
torch adds. Either gives the same bytes, for every result is the exact one, rounded once.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from typing import Any

from soupcli.files.reading import memory_of
from soupcli.late import importing, torch

Array = Any  # of numpy, or a tensor of torch
Library = Any  # numpy or torch


@cache
def cpu_library() -> Library:
    """Return numpy if it can be imported, else torch."""
    try:
        with importing():
            return import_module("numpy")
    except Exception:  # noqa: BLE001 - an installation that is broken in any way is none
        return torch_itself()


def torch_itself() -> Library:
    """Import torch and return it, in place of its late names."""
    return sys.modules[type(torch.float64).__module__]


def library_of(array: Array) -> Library:
    """Return the library that the array is of."""
    return sys.modules[type(array).__module__.partition(".")[0]]


def is_torch(xp: Library) -> bool:
    """Whether the library is torch."""
    name: str = xp.__name__
    return name == "torch"


def cast(array: Array, dtype: str) -> Array:
    """Return the numbers in another dtype, in new memory."""
    xp = library_of(array)
    return array.to(getattr(xp, dtype), copy=True) if is_torch(xp) else array.astype(dtype)


def copied(array: Array) -> Array:
    """Return the same numbers in new memory."""
    return array.clone() if is_torch(library_of(array)) else array.copy()


def bytes_of(array: Array) -> memoryview:
    """Return the memory of a contiguous array on the CPU, without a copy. It is valid while the array lives."""
    xp = library_of(array)
    if is_torch(xp):
        return memory_of(array)
    memory: memoryview = array.reshape(-1).view(xp.uint8).data
    return memory


def places(mask: Array) -> Array:
    """Return the numbers of the elements that are true: array[k] of int64."""
    return mask.nonzero()[:, 0] if is_torch(library_of(mask)) else mask.nonzero()[0]


def quiet(xp: Library) -> AbstractContextManager[Any]:
    """Keep numpy from warning of infinities and NaNs, which torch never does."""
    return nullcontext() if is_torch(xp) else xp.errstate(all="ignore")
