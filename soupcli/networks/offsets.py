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
from typing import NamedTuple

import torch
from torch import Tensor

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.errors import UsageError
from soupcli.networks.pieces import PIECE_BYTES, Piece
from soupcli.networks.residence import Where

BLOCK = 1 << 19  # elements of all ingredients that are worked on at once: they stay in a cache
WIDTH = 1 << 14  # elements of one ingredient whose products are summed in its own dtype
HELD_BYTES = 160 << 20  # of offsets that stay in memory, where ingredients are on disk, until they are used again


class Offsets(NamedTuple):
    """One piece of all ingredients, in float32 or float64."""

    mean_n: Tensor
    offsets_kn: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.mean_n.nbytes + self.offsets_kn.nbytes


class Ingredients:
    """Pieces of all ingredients, for threads that each look at one piece at a time."""

    def __init__(self, checkpoints: Sequence[Checkpoint], where: Where, device: torch.device) -> None:
        """`device` is where the arithmetic is done."""
        self.checkpoints = checkpoints
        self.where = where
        self.device = device
        self._lock = threading.Lock()
        self._scratch = threading.local()
        self._raw: dict[Piece, Tensor] = {}
        self._offsets: dict[Piece, Offsets] = {}
        self._held = 0

    def raw(self, piece: Piece) -> Tensor:
        """Tensor[K, n] as it is stored, on the CPU; valid until this thread asks again."""
        return self._read(piece, self._buffer("raw", self._shape(piece), piece.dtype, CPU))

    def offsets(self, piece: Piece, *, again: bool = False) -> Offsets:
        """Mean and offsets on the device, valid until this thread asks again.

        `again`: they will be asked for a second time soon. Raises UsageError where memory does not hold what was to
        live in it.
        """
        kept = self._offsets.get(piece)
        if kept is not None:
            if self.where == "disk":
                self._release(piece, kept)
            return kept
        if self.where == "disk":
            return self._centred(piece, None, keep=again and self._reserve(piece))
        if self._stays_centred(piece):
            return self._centred(piece, None, keep=True)
        if piece not in self._raw:
            self._raw[piece] = self._read_into_place(piece)
        return self._centred(piece, self._raw[piece], keep=False)

    def _stays_centred(self, piece: Piece) -> bool:
        """Whether offsets take no more memory than what is stored, and are kept where they are used."""
        at_hand = self.where == "device" or self.device == CPU
        return at_hand and piece.dtype == piece.wide_dtype

    def _centred(self, piece: Piece, raw_kn: Tensor | None, *, keep: bool) -> Offsets:
        """Mean and offsets of a piece, which is read where it was not; `keep`: in memory where it is found again."""
        shape, dtype = self._shape(piece), piece.wide_dtype
        if keep:
            kept = Offsets(self._memory((piece.numel,), dtype), self._memory(shape, dtype))
        else:
            mean_n = self._buffer("mean", (piece.numel,), dtype, self.device)
            kept = Offsets(mean_n, self._buffer("wide", shape, dtype, self.device))
        if raw_kn is None and self.device == CPU and dtype == piece.dtype:
            self._read(piece, kept.offsets_kn)
        else:
            kept.offsets_kn.copy_(self.raw(piece) if raw_kn is None else raw_kn, non_blocking=True)
        share_k = torch.full(shape[:1], 1.0 / shape[0], dtype=dtype, device=self.device)
        for part in blocks(*shape):
            block_km = kept.offsets_kn[:, part]
            torch.mv(block_km.t(), share_k, out=kept.mean_n[part])
            block_km.sub_(kept.mean_n[part])
        if keep:
            self._offsets[piece] = kept
        return kept

    def _reserve(self, piece: Piece) -> bool:
        nbytes = (len(self.checkpoints) + 1) * piece.numel * piece.wide_dtype.itemsize
        with self._lock:
            fits = self._held + nbytes <= HELD_BYTES
            self._held += nbytes if fits else 0
        return fits

    def _release(self, piece: Piece, held: Offsets) -> None:
        with self._lock:
            del self._offsets[piece]
            self._held -= held.nbytes

    def _read_into_place(self, piece: Piece) -> Tensor:
        if self.where == "host":
            return self._read(piece, self._memory(self._shape(piece), piece.dtype, on_host=True))
        return self._memory(self._shape(piece), piece.dtype).copy_(self.raw(piece))

    def _memory(self, shape: tuple[int, ...], dtype: torch.dtype, *, on_host: bool = False) -> Tensor:
        try:
            if on_host:
                return torch.empty(shape, dtype=dtype, pin_memory=self.device.type == "cuda")
            return torch.empty(shape, dtype=dtype, device=self.device)
        except RuntimeError as cause:  # torch's out-of-memory errors are of this class
            raise UsageError(
                f"--resident {self.where}: the ingredients do not fit: {str(cause).splitlines()[0]}",
                hint="--resident disk needs no memory for them",
            ) from cause

    def _shape(self, piece: Piece) -> tuple[int, int]:
        return len(self.checkpoints), piece.numel

    def _buffer(self, use: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """This thread's memory for one use; what was in it is over."""
        nbytes = torch.Size(shape).numel() * dtype.itemsize
        buffers: dict[str, Tensor] = self._scratch.__dict__
        if use not in buffers or len(buffers[use]) < nbytes:
            pinned = self.device.type == "cuda" and device == CPU
            size = max(nbytes, PIECE_BYTES) if len(shape) > 1 else nbytes
            buffers[use] = torch.empty(size, dtype=torch.uint8, device=device, pin_memory=pinned)
        return buffers[use][:nbytes].view(dtype).view(shape)

    def _read(self, piece: Piece, out_kn: Tensor) -> Tensor:
        for checkpoint, row_n in zip(self.checkpoints, out_kn, strict=True):
            at = 0
            for name, start, count in piece.spans:
                _read_as(checkpoint, name, start, row_n[at : at + count])
                at += count
        return out_kn


CPU = torch.device("cpu")


def blocks(ingredients: int, numel: int) -> Iterator[slice]:
    """The parts of a piece that are worked on at once."""
    width = max(1, min(WIDTH, BLOCK // ingredients))
    for begin in range(0, numel, width):
        yield slice(begin, min(begin + width, numel))


def _read_as(checkpoint: Checkpoint, name: str, start: int, out_n: Tensor) -> None:
    """Reads in the stored dtype, which `out_n` holds exactly."""
    stored = checkpoint.tensors[name].dtype
    if stored == out_n.dtype:
        checkpoint.read(name, out_n, start=start)
        return
    part_n = torch.empty(len(out_n), dtype=stored)
    checkpoint.read(name, part_n, start=start)
    out_n.copy_(part_n)
