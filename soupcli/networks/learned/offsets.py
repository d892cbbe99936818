"""Ingredients as offsets from the first one, piece by piece, on the device, in host memory or on disk.

    theta_k = theta_0 + offset_k,  so  sum_k alpha_k theta_k = theta_0 + sum_k alpha_k offset_k  if alpha_k sum to 1.

Offsets are small beside weights, so products with them lose nothing in float32. The same pieces come in the same
shape, dtype and blocks from everywhere: all that is computed of them is the same in its last bit.

Letters in names: k ingredients, j all but the first, n elements of a piece, m of a block of it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from soupcli.checkpoints.checkpoint import Checkpoint, neighbours, read_dense
from soupcli.checkpoints.numbers import read_as
from soupcli.errors import UsageError
from soupcli.late import torch
from soupcli.mixing.arithmetic.arrays import Array, Library, Scratch, bytes_of, is_torch, torch_itself
from soupcli.mixing.arithmetic.rounding import HELD_AS

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.checkpoints.dtype import Dtype
    from soupcli.networks.learned.pieces import OffsetPiece, Span
    from soupcli.networks.learned.residence import Where

BLOCK_BYTES = 1 << 20  # of all ingredients together, worked on at once: operations follow one another in a cache
HELD_BYTES = 128 << 20  # that stay in memory, if ingredients are on disk, until they are used again
ALIGNED = 64  # bytes, as torch aligns what it allocates


class OffsetSource(Protocol):
    """The interface that yields offsets, for threads that each work on one piece at a time."""

    def blocks(
        self, piece: OffsetPiece, sizes: Sequence[int], *, again: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The first ingredient [m] and the offsets of the others from it [K - 1, m], for each block of a piece.

        Both are on the device, in the wide dtype of the piece.

        Blocks are of so many elements, the same ones each time; each is to be used before the next is asked for, and
        none is left out. `again`: the piece will be asked for a second time before those of another group. Raises
        UsageError where memory does not hold what was to live in it.
        """


class Reader:
    """Reads pieces into the thread's own memory, unless other memory is given.

    `library` works on them, by default torch, on a `device` of torch if that is given, else on the CPU. Arrays of numpy
    are held as HELD_AS says.
    """

    def __init__(
        self, checkpoints: Sequence[Checkpoint], device: torch.device | None = None, library: Library | None = None
    ) -> None:
        self.checkpoints = checkpoints
        self.device = device
        self.library = library or torch_itself()
        self._neighbours = neighbours(checkpoints)
        self._of_thread = threading.local()

    def shape(self, piece: OffsetPiece) -> tuple[int, int]:
        """Return (K, n)."""
        return len(self.checkpoints), piece.numel

    def raw(self, piece: OffsetPiece) -> Array:
        """array[K, n] in the stored dtype, on the CPU; valid until this thread asks again."""
        return self.read(piece, self.scratch("raw", piece.dtype, *self.shape(piece), on_cpu=True))

    def read(self, piece: OffsetPiece, out_kn: Array) -> Array:
        """Fills `out_kn`, on the CPU, and returns it. What lies side by side is read at once."""
        runs, memory, itemsize = self._runs(piece.spans), bytes_of(out_kn), piece.dtype.itemsize
        for row, checkpoint in enumerate(self.checkpoints):
            at = row * piece.numel
            for name, start, count in runs:
                begin, at = at, at + count
                part = memory[begin * itemsize : at * itemsize]
                if not read_dense(checkpoint, name, start, piece.dtype, part):
                    read_as(checkpoint, name, start, piece.dtype, out_kn.reshape(-1)[begin:at])
        return out_kn

    def scratch(self, use: str, dtype: Dtype, *shape: int, on_cpu: bool = False) -> Array:
        """This thread's memory for one use, on the device unless `on_cpu`; what was in it is over."""
        if not hasattr(self._of_thread, "scratch"):
            self._of_thread.scratch = Scratch(self.library, self.device)
        name = dtype.value if is_torch(self.library) else HELD_AS[dtype]
        return self._of_thread.scratch.take(use, name, *shape, on_cpu=on_cpu)

    def _runs(self, spans: Sequence[Span]) -> list[Span]:
        """The spans, those that follow one another in every file put together under the first one's name."""
        runs = [spans[0]]
        for before, span in pairwise(spans):
            if (before.name, span.name) in self._neighbours:
                runs[-1] = runs[-1]._replace(numel=runs[-1].numel + span.numel)
            else:
                runs.append(span)
        return runs


class OnDisk:
    """Offsets that are read each time. As much of the present group as fits is kept for its second use.

    If there is only one group, what is kept of it is not read again.
    """

    def __init__(self, reader: Reader, groups: Sequence[Sequence[OffsetPiece]]) -> None:
        self.reader = reader
        self._places: dict[OffsetPiece, int] = {}
        most = 0
        for group in groups:
            end = 0
            for piece in group:
                begin, end = end, end + -(-self._nbytes(piece) // ALIGNED) * ALIGNED
                if end > HELD_BYTES:
                    break
                self._places[piece] = begin
                most = max(most, end)
        self._memory = torch.empty(most, dtype=torch.uint8, device=reader.device)
        self._held: set[OffsetPiece] = set()
        self._alone = len(groups) == 1

    def blocks(
        self, piece: OffsetPiece, sizes: Sequence[int], *, again: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See OffsetSource."""
        if piece in self._held:
            if not self._alone:
                self._held.remove(piece)
            return _blocks(self.reader, piece, self._place(piece), sizes, offset=True)
        place = None
        if piece in self._places and (again or self._alone):
            self._held.add(piece)
            place = self._place(piece)
        return _blocks(self.reader, piece, _brought(self.reader, piece, place), sizes, offset=False)

    def _place(self, piece: OffsetPiece) -> Tensor:
        begin = self._places[piece]
        held = self._memory[begin : begin + self._nbytes(piece)]
        return held.view(piece.dtype.torch).view(self.reader.shape(piece))

    def _nbytes(self, piece: OffsetPiece) -> int:
        return torch.Size(self.reader.shape(piece)).numel() * piece.dtype.itemsize


class InMemory:
    """Offsets that are read once. They are kept if they take no more memory than the stored numbers."""

    def __init__(self, reader: Reader, where: Where) -> None:
        self.reader = reader
        self.where = where
        self._kept: dict[OffsetPiece, Tensor] = {}

    def blocks(
        self,
        piece: OffsetPiece,
        sizes: Sequence[int],
        *,
        again: bool = False,  # noqa: ARG002 - see Source
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See OffsetSource."""
        kept_kn, offset = self._kept.get(piece), True
        if kept_kn is None:
            kept_kn = self._kept[piece] = _brought(self.reader, piece, self._empty(piece))
            offset = False
        if kept_kn.device != self.reader.device:
            kept_kn, offset = _on_device(self.reader, piece, kept_kn), False
        return _blocks(self.reader, piece, kept_kn, sizes, offset=offset)

    def _empty(self, piece: OffsetPiece) -> Tensor:
        shape, dtype, device = self.reader.shape(piece), piece.dtype.torch, self.reader.device
        try:
            if self.where == "device":
                return torch.empty(shape, dtype=dtype, device=device)
            return torch.empty(shape, dtype=dtype, pin_memory=device is not None and device.type == "cuda")
        except RuntimeError as cause:  # torch's out-of-memory errors are of this class
            raise UsageError(
                f"--resident {self.where}: the ingredients do not fit: {str(cause).splitlines()[0]}",
                hint="--resident disk needs no memory for them",
            ) from cause


def block_width(ingredients: int) -> int:
    """Elements of one ingredient in a block."""
    return max(1, BLOCK_BYTES // (4 * ingredients))


def _blocks(
    reader: Reader, piece: OffsetPiece, rows_kn: Tensor, sizes: Sequence[int], *, offset: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """See OffsetSource. Offsets replace the stored numbers if they fit there: the next call finds them (`offset`)."""
    in_place = piece.dtype == piece.wide_dtype
    for block_km in torch.split(rows_kn, list(sizes), dim=1):
        if not in_place:
            block_km = reader.scratch("wide", piece.wide_dtype, *block_km.shape).copy_(block_km)
        first_m, others_jm = block_km[0], block_km[1:]
        if not (offset and in_place):
            others_jm.sub_(first_m)
        yield first_m, others_jm


def _brought(reader: Reader, piece: OffsetPiece, out_kn: Tensor | None) -> Array:
    """The piece from disk, in `out_kn` if that is given, else on the device in this thread's memory."""
    if out_kn is None:
        return _on_device(reader, piece, reader.raw(piece))
    if out_kn.device.type == "cpu":
        return reader.read(piece, out_kn)
    return out_kn.copy_(reader.raw(piece), non_blocking=True)


def _on_device(reader: Reader, piece: OffsetPiece, raw_kn: Tensor) -> Array:
    if raw_kn.device == reader.device:
        return raw_kn
    return reader.scratch("device", piece.dtype, *reader.shape(piece)).copy_(raw_kn, non_blocking=True)
