"""The numbers of stored tensors as arrays, of numpy or torch, for what looks at them without a network.

    read_numbers(checkpoint, "head.weight", 0, 4096)          # array[4096] of float64, whatever the stored dtype

Elements that are stored unchanged in a file are read without torch where numpy is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from soupcli.checkpoints.checkpoint import read_into
from soupcli.mixing.arithmetic.arrays import Array, Library, bytes_of, cpu_library, library_of
from soupcli.mixing.arithmetic.rounding import HELD_AS, round_once, wide

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.dtype import Dtype


def read_numbers(checkpoint: Checkpoint, name: str, start: int, count: int, *, library: Library | None = None) -> Array:
    """Return elements `start` to `start + count` of a floating tensor: array[count] of float64, on the CPU.

    Of a complex tensor it is array[2 * count], real and imaginary parts in turn.
    """
    xp, dtype = library or cpu_library(), checkpoint.tensors[name].dtype
    parts = dtype.itemsize // dtype.real.itemsize
    held_n = xp.empty(parts * count, dtype=getattr(xp, HELD_AS[dtype.real]))
    read_into(checkpoint, name, start, bytes_of(held_n))
    return wide(held_n, dtype)


def read_as(checkpoint: Checkpoint, name: str, start: int, dtype: Dtype, out_n: Array) -> None:
    """Fill `out_n` with elements from `start` on, in a dtype that holds them exactly."""
    if checkpoint.tensors[name].dtype is dtype:
        read_into(checkpoint, name, start, bytes_of(out_n))
        return
    wide_n = read_numbers(checkpoint, name, start, len(out_n), library=library_of(out_n))
    round_once(wide_n, dtype, out=out_n)
