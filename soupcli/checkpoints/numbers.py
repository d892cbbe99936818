"""The numbers of stored tensors as arrays, of numpy or torch, for what looks at them without a network.

    read_numbers(checkpoint, "head.weight", 0, 4096)          # array[4096] of float64, whatever the stored dtype

Elements that are stored unchanged in a file are read without torch where numpy is installed.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from soupcli.checkpoints.checkpoint import read_bits, read_into, runs
from soupcli.checkpoints.dtype import Dtype
from soupcli.mixing.arithmetic.arrays import Array, Library, bytes_of, cpu_library, library_of
from soupcli.mixing.arithmetic.rounding import HELD_AS, round_once, wide

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from soupcli.checkpoints.checkpoint import Checkpoint

GLANCE = 64  # elements that tell most tensors
CHUNK = 1 << 20  # elements that are looked at once
CODES = {Dtype.FLOAT64: "d", Dtype.FLOAT32: "f", Dtype.FLOAT16: "e", Dtype.BFLOAT16: "f"}  # of the module struct


def read_numbers(checkpoint: Checkpoint, name: str, start: int, count: int, *, library: Library | None = None) -> Array:
    """Return elements `start` to `start + count` of a floating tensor: array[count] of float64, on the CPU.

    Of a complex tensor it is array[2 * count], real and imaginary parts in turn.
    """
    xp, dtype = library or cpu_library(), checkpoint.tensors[name].dtype
    parts = dtype.itemsize // dtype.real.itemsize
    held_n = xp.empty(parts * count, dtype=getattr(xp, HELD_AS[dtype.real]))
    read_into(checkpoint, name, start, bytes_of(held_n))
    return wide(held_n, dtype)


def parts_of(checkpoint: Checkpoint, name: str) -> Iterator[Array]:
    """Yield a floating tensor in parts, as arrays of float64: a few numbers first, which may be enough."""
    numel = checkpoint.tensors[name].numel
    for start in (0, *range(GLANCE, numel, CHUNK)):
        yield read_numbers(checkpoint, name, start, min(CHUNK if start else GLANCE, numel - start))


def first_numbers(checkpoint: Checkpoint, name: str, count: int) -> Sequence[float]:
    """Return the first elements of a real floating tensor, fewer if it has fewer; numpy is not imported for most."""
    spec = checkpoint.tensors[name]
    count = min(count, spec.numel)
    if spec.dtype not in CODES:
        return [float(number) for number in read_numbers(checkpoint, name, 0, count)]
    return _unpacked(read_bits(checkpoint, name, 0, count), spec.dtype)


def small_runs(checkpoint: Checkpoint, names: Iterable[str]) -> Iterator[tuple[list[str], Sequence[float]]]:
    """Yield groups of tensors that lie side by side in a file, with all their numbers: one read is for many.

    The tensors are small, and their dtypes are among CODES.
    """
    for run in runs(checkpoint, names, GLANCE):
        numel = sum(checkpoint.tensors[name].numel for name in run)
        yield run, _unpacked(read_bits(checkpoint, run[0], 0, numel), checkpoint.tensors[run[0]].dtype)


def _unpacked(held: bytearray, dtype: Dtype) -> Sequence[float]:
    if dtype is Dtype.BFLOAT16:  # the upper half of a float32
        held = bytearray(b"".join(b"\0\0" + held[place : place + 2] for place in range(0, len(held), 2)))
    return struct.unpack(f"<{len(held) // struct.calcsize(CODES[dtype])}{CODES[dtype]}", held)


def read_as(checkpoint: Checkpoint, name: str, start: int, dtype: Dtype, out_n: Array) -> None:
    """Fill `out_n` with elements from `start` on, in a dtype that holds them exactly."""
    if checkpoint.tensors[name].dtype is dtype:
        read_into(checkpoint, name, start, bytes_of(out_n))
        return
    wide_n = read_numbers(checkpoint, name, start, len(out_n), library=library_of(out_n))
    round_once(wide_n, dtype, out=out_n)
