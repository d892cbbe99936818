"""Arrays of numpy and tensors of torch, for arithmetic that is written once for both.

    xp = library_of(numbers)                                  # numpy or torch: most functions have one name in both
    xp.where(xp.abs(numbers) < 1, 0.0, numbers)
    cast(numbers, "float32")                                  # what has two names is here

numpy adds on the CPU where it is installed: torch takes ten times as long to import. On a device, and without numpy,
torch adds. Either gives the same bytes, for every result is the exact one, rounded once.
"""

from __future__ import annotations

import math
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from typing import Any

from soupcli.checkpoints.dtype import Dtype
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


def diagonal(square: Array) -> Array:
    """Return a copy of the diagonal of the last two axes: array[..., k]."""
    if is_torch(library_of(square)):
        return square.diagonal(dim1=-2, dim2=-1).clone()
    return square.diagonal(axis1=-2, axis2=-1).copy()


def median(array: Array, axis: int) -> Array:
    """Return the median along an axis, the lower one of two; NaN if there is nothing or a NaN."""
    xp, count = library_of(array), array.shape[axis]
    if is_torch(xp):
        return array.median(dim=axis).values if count else array.sum(dim=axis) + xp.nan
    if not count:
        return array.sum(axis=axis) + xp.nan
    lower = xp.partition(array, (count - 1) // 2, axis=axis).take((count - 1) // 2, axis=axis)
    return xp.where(xp.isnan(array).any(axis=axis), xp.nan, lower)


def quiet(xp: Library) -> AbstractContextManager[Any]:
    """Keep numpy from warning of infinities and NaNs, which torch never does."""
    return nullcontext() if is_torch(xp) else xp.errstate(all="ignore")


class Scratch:
    """Uninitialised memory for one use each, which the next call for the same use hands out again.

    On the CPU, for `xp`, or on a device of torch and, pinned, `on_cpu` beside it.
    """

    def __init__(self, xp: Library, device: torch.device | None = None) -> None:
        self._xp, self._device = xp, device
        self._held: dict[tuple[str, bool], tuple[Array, Array]] = {}  # all of the memory, and what was handed out last

    def take(self, use: str, dtype: str, *shape: int, on_cpu: bool = False) -> Array:
        """Return an array of this dtype, by its name in both libraries; what was in it is over."""
        whole, last = self._held.get((use, on_cpu), (None, None))
        dtype_of_xp = getattr(self._xp, dtype)
        if last is not None and last.dtype == dtype_of_xp and tuple(last.shape) == shape:
            return last
        nbytes = math.prod(shape) * Dtype(dtype).itemsize
        if whole is None or len(whole) < nbytes:
            del whole, last
            self._held.pop((use, on_cpu), None)  # before there is more
            whole = self._memory(nbytes, on_cpu)
        found = whole[:nbytes].view(dtype_of_xp).reshape(shape)
        self._held[use, on_cpu] = whole, found
        return found

    def _memory(self, nbytes: int, on_cpu: bool) -> Array:
        if self._device is None:
            return self._xp.empty(nbytes, dtype=self._xp.uint8)
        place: dict[str, Any] = {"device": self._device}
        if on_cpu:
            place = {"pin_memory": self._device.type == "cuda"}
        return torch.empty(nbytes, dtype=torch.uint8, **place)
