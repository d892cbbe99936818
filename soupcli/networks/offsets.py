"""Ingredients as offsets from their mean, piece by piece, from wherever they live.

    theta_k = mean + offset_k,  so  sum_k alpha_k theta_k = mean + sum_k alpha_k offset_k  where the alpha_k sum to 1.

Offsets are small beside weights, so products with them lose nothing in float32; whatever the mean was rounded to, the
identity holds. From the device, host memory and disk the same pieces come in the same shape, dtype and blocks: all
that is computed of them is the same in its last bit.

Letters in names: k ingredients, n elements of a piece, m of a block.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.errors import UsageError
from soupcli.networks.pieces import Piece, largest
from soupcli.networks.residence import Where

CPU = torch.device("cpu")
WIDTH = 1 << 14  # elements of one ingredient whose products are summed in its own dtype
HELD_BYTES = 128 << 20  # that stay in memory, where ingredients are on disk, until they are used again


class Offsets(NamedTuple):
    """One piece of all ingredients, in float32 or float64."""

    mean_n: Tensor
    offsets_kn: Tensor


class Block(NamedTuple):
    """A part of the elements of a piece."""

    part: slice
    mean_m: Tensor
    offsets_km: Tensor


class Source(Protocol):
    """Offsets from wherever the ingredients live, for threads that each look at one piece at a time."""

    def blocks(self, piece: Piece, *, again: bool = False) -> Iterator[Block]:
        """All blocks of a piece, on the device, each to be used before the next is asked for; none is left out.

        `again`: they will be asked for a second time soon. Raises UsageError where memory does not hold what was to
        live in it.
        """


class Reader:
    """Reads pieces and centres them, with the arithmetic on `device`, in memory that each thread has for itself."""

    def __init__(self, checkpoints: Sequence[Checkpoint], device: torch.device) -> None:
        self.checkpoints = checkpoints
        self.device = device
        self._scratch = threading.local()

    def shape(self, piece: Piece) -> tuple[int, int]:
        """(K, n)."""
        return len(self.checkpoints), piece.numel

    def raw(self, piece: Piece) -> Tensor:
        """Tensor[K, n] as it is stored, on the CPU; valid until this thread asks again."""
        return self.read(piece, self._buffer("raw", self.shape(piece), piece.dtype, CPU))

    def own(self, piece: Piece) -> Offsets:
        """This thread's memory for offsets."""
        shape, dtype = self.shape(piece), piece.wide_dtype
        mean_n = self._buffer("mean", shape[1:], dtype, self.device)
        return Offsets(mean_n, self._buffer("wide", shape, dtype, self.device))

    def read(self, piece: Piece, out_kn: Tensor) -> Tensor:
        """Fills `out_kn`, on the CPU, and returns it."""
        for checkpoint, row_n in zip(self.checkpoints, out_kn, strict=True):
            at = 0
            for name, start, count in piece.spans:
                _read_as(checkpoint, name, start, row_n[at : at + count])
                at += count
        return out_kn

    def centred(self, piece: Piece, raw_kn: Tensor | None, out: Offsets) -> Iterator[Block]:
        """Fills `out` from what is stored (`raw_kn` where it was read); passes each block on while it is in a cache."""
        if raw_kn is None and self.device == CPU and piece.wide_dtype == piece.dtype:
            self.read(piece, out.offsets_kn)
        else:
            out.offsets_kn.copy_(self.raw(piece) if raw_kn is None else raw_kn, non_blocking=True)
        ingredients = len(out.offsets_kn)
        share_k = torch.full((ingredients,), 1.0 / ingredients, dtype=piece.wide_dtype, device=self.device)
        for block in _blocks(out):
            torch.mv(block.offsets_km.t(), share_k, out=block.mean_m)
            block.offsets_km.sub_(block.mean_m)
            yield block

    def _buffer(self, use: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """This thread's memory for one use; what was in it is over."""
        nbytes = torch.Size(shape).numel() * dtype.itemsize
        buffers: dict[str, Tensor] = self._scratch.__dict__
        if use not in buffers or len(buffers[use]) < nbytes:
            pinned = self.device.type == "cuda" and device == CPU
            size = largest(len(self.checkpoints)) if len(shape) > 1 else nbytes
            buffers[use] = torch.empty(size, dtype=torch.uint8, device=device, pin_memory=pinned)
        return buffers[use][:nbytes].view(dtype).view(shape)


class OnDisk:
    """Read each time. A few pieces are held for the second time, in memory that is used again and again."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self._lock = threading.Lock()
        self._held: dict[Piece, Offsets] = {}
        self._memory: list[Offsets] = []
        self._size = largest(len(reader.checkpoints))
        self._mean_size = self._size // len(reader.checkpoints)
        self._to_make = HELD_BYTES // (self._size + self._mean_size)

    def blocks(self, piece: Piece, *, again: bool = False) -> Iterator[Block]:
        """See Source."""
        held = self._held.pop(piece, None)
        if held is not None:
            yield from _blocks(_as(held, self.reader.shape(piece), piece.wide_dtype))
            with self._lock:
                self._memory.append(held)
            return
        memory = self._take() if again else None
        if memory is None:
            yield from self.reader.centred(piece, None, self.reader.own(piece))
            return
        yield from self.reader.centred(piece, None, _as(memory, self.reader.shape(piece), piece.wide_dtype))
        self._held[piece] = memory

    def _take(self) -> Offsets | None:
        """Memory to hold a piece in, None where all of it is taken."""
        with self._lock:
            if self._memory:
                return self._memory.pop()
            if not self._to_make:
                return None
            self._to_make -= 1
        sizes = self._mean_size, self._size
        return Offsets(*(torch.empty(size, dtype=torch.uint8, device=self.reader.device) for size in sizes))


class InMemory:
    """Read once. Offsets are kept where they take no more memory than what is stored, and lie where they are used."""

    def __init__(self, reader: Reader, where: Where) -> None:
        self.reader = reader
        self.where = where
        self._raw: dict[Piece, Tensor] = {}
        self._offsets: dict[Piece, Offsets] = {}

    def blocks(self, piece: Piece, *, again: bool = False) -> Iterator[Block]:
        """See Source."""
        if piece in self._offsets:
            yield from _blocks(self._offsets[piece])
            return
        if piece not in self._raw:
            shape, dtype = self.reader.shape(piece), piece.wide_dtype
            at_hand = self.where == "device" or self.reader.device == CPU
            if at_hand and piece.dtype == dtype:
                kept = Offsets(self._empty(shape[1:], dtype), self._empty(shape, dtype))
                yield from self.reader.centred(piece, None, kept)
                self._offsets[piece] = kept
                return
            self._raw[piece] = self._read(piece)
        yield from self.reader.centred(piece, self._raw[piece], self.reader.own(piece))

    def _read(self, piece: Piece) -> Tensor:
        kept_kn = self._empty(self.reader.shape(piece), piece.dtype)
        if kept_kn.device == CPU:
            return self.reader.read(piece, kept_kn)
        return kept_kn.copy_(self.reader.raw(piece))

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        device = self.reader.device
        try:
            if self.where == "device":
                return torch.empty(shape, dtype=dtype, device=device)
            return torch.empty(shape, dtype=dtype, pin_memory=device.type == "cuda")
        except RuntimeError as cause:  # torch's out-of-memory errors are of this class
            raise UsageError(
                f"--resident {self.where}: the ingredients do not fit: {str(cause).splitlines()[0]}",
                hint="--resident disk needs no memory for them",
            ) from cause


def parts(numel: int) -> Iterator[slice]:
    """The parts of so many elements that are worked on at once."""
    for begin in range(0, numel, WIDTH):
        yield slice(begin, min(begin + WIDTH, numel))


def _blocks(whole: Offsets) -> Iterator[Block]:
    for part in parts(len(whole.mean_n)):
        yield Block(part, whole.mean_n[part], whole.offsets_kn[:, part])


def _as(memory: Offsets, shape: tuple[int, int], dtype: torch.dtype) -> Offsets:
    """Bytes as the mean and offsets of a piece."""
    ingredients, numel = shape
    mean_n = memory.mean_n[: numel * dtype.itemsize].view(dtype)
    return Offsets(mean_n, memory.offsets_kn[: ingredients * numel * dtype.itemsize].view(dtype).view(shape))


def _read_as(checkpoint: Checkpoint, name: str, start: int, out_n: Tensor) -> None:
    """Reads in the stored dtype, which `out_n` holds exactly."""
    stored = checkpoint.tensors[name].dtype
    if stored == out_n.dtype:
        checkpoint.read(name, out_n, start=start)
        return
    part_n = torch.empty(len(out_n), dtype=stored)
    checkpoint.read(name, part_n, start=start)
    out_n.copy_(part_n)
