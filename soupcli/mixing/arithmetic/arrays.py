"""Arrays of numpy and tensors of torch, for arithmetic that is written once for both.

    xp = library_of(numbers)                                  # numpy or torch; most of what both have has one name
    xp.where(xp.abs(numbers) < 1, 0.0, numbers)
    cast(numbers, "float32")                                  # what has two names is here

numpy adds on the CPU where it is installed: torch takes ten times as long to import. On a device, and without numpy,
torch adds. Either gives the same bytes, for every result is the exact one, rounded once.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

from soupcli.files.reading import memory_of
from soupcli.late import numpy, torch

Array = Any  # of numpy, or a tensor of torch
Library = Any  # numpy or torch


@cache
def cpu_library() -> Library:
    """Return numpy if it can be imported, else torch."""
    try:
        numpy.zeros(1)
    except Exception:  # noqa: BLE001 - an installation that is broken in any way is none
        return torch
    return numpy


def library_of(array: Array) -> Library:
    """Return the library that the array is of."""
    return torch if type(array).__module__ == "torch" else numpy


def cast(array: Array, dtype: str) -> Array:
    """Return the numbers in another dtype, in new memory."""
    if library_of(array) is torch:
        return array.to(getattr(torch, dtype), copy=True)
    return array.astype(dtype)


def copied(array: Array) -> Array:
    """Return the same numbers in new memory."""
    return array.clone() if library_of(array) is torch else array.copy()


def bytes_of(array: Array) -> memoryview:
    """Return the memory of a contiguous array on the CPU, without a copy. It is valid while the array lives."""
    if library_of(array) is torch:
        return memory_of(array)
    memory: memoryview = array.reshape(-1).view(numpy.uint8).data
    return memory


def places(mask: Array) -> Array:
    """Return the numbers of the elements that are true: array[k] of int64."""
    return library_of(mask).arange(len(mask))[mask]


def quiet(xp: Library) -> AbstractContextManager[Any]:
    """Keep numpy from warning of infinities and NaNs, which torch never does."""
    return nullcontext() if xp is torch else numpy.errstate(all="ignore")
