"""The sum of a chunk's weighted terms in float64: read, widened, added, rounded; by numpy, or by torch on a device.

    sums = Sums(device=None)                                  # one for each thread
    bounds = sums.add_up(terms, start, count)                 # between which magnitudes the terms of each batch lie
    sums.rounded(terms, bounds_of_all)                        # array[c] on the CPU, held as HELD_AS says

On a CUDA device each has pinned buffers and a stream, so that while one reads another copies and a third adds.

Shapes: r ingredients of a batch, c elements of a chunk (twice as many real numbers where they are complex).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias

from soupcli.checkpoints.checkpoint import read_into
from soupcli.late import torch
from soupcli.mixing.arithmetic.arrays import Array, Library, Scratch, bytes_of, copied, cpu_library, torch_itself
from soupcli.mixing.arithmetic.float_format import FORMATS
from soupcli.mixing.arithmetic.magnitudes import PIECE, Bounds, Range
from soupcli.mixing.arithmetic.rounding import HELD_AS, bits_of, round_once, widen_scaled
from soupcli.mixing.terms import Term, Terms, reals

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.dtype import Dtype

Seen: TypeAlias = "Callable[[Checkpoint, str, int, memoryview], None]"

BLOCK = 1 << 17  # numbers that the CPU works on at once, in its cache; smaller blocks cost more calls of Python


class Sums:
    """Sums of the terms of one chunk at a time, in scratch memory of its own.

    `device` is a device of torch that knows float64, or None for the CPU, where `library` adds up. `seen` is called
    with what was read of a tensor: its checkpoint, name, first element and bytes.
    """

    def __init__(
        self, device: torch.device | None = None, library: Library | None = None, seen: Seen | None = None
    ) -> None:
        self._seen = seen
        self.library = torch_itself() if device is not None else library or cpu_library()
        self._device = device
        self._stream = torch.cuda.Stream(device) if device is not None and device.type == "cuda" else None
        self._take = Scratch(self.library, device).take
        self._total_c: Array = None

    def add_up(self, terms: Terms, start: int, count: int) -> list[Bounds]:
        """Adds the weighted terms of these elements. Returns the bounds of each batch's numbers."""
        with self._on_stream():
            length = count * reals(terms.dtype)
            self._total_c = self._take("total", "float64", length)
            bounds: list[Bounds] = []
            for number, (stored, batch) in enumerate(terms.batches):
                raw_rc = self._on_device(self.read(terms.name, stored, batch, start, count))
                part_c = self._take("part", "float64", length) if number else self._total_c
                weights = [term.weight for term in batch if term.weight is not None]
                bounds.append(self._add_rows(raw_rc, stored.real, weights, part_c, terms))
                if number:
                    self._total_c += part_c
            if batch[0].weight is None and all(found.zeros for found in bounds) and not self._total_c.all():
                self._total_c[self._negative_zeros(terms, start, count)] = -0.0
        return bounds

    def _add_rows(self, raw_rc: Array, dtype: Dtype, weights: Sequence[float], out_c: Array, terms: Terms) -> Bounds:
        """Fill `out_c` with the sum of the rows, with `weights` their weighted sum. Return the bounds of the rows."""
        xp = self.library
        weights_r = xp.asarray(weights, dtype=xp.float64).reshape(-1, 1) if weights else None
        weights_r = weights_r if self._device is None or weights_r is None else weights_r.to(self._device)
        blocks: list[tuple[Bounds, int]] = []
        for block in self._blocks(raw_rc.shape[1], len(raw_rc)):
            block_rc = raw_rc[:, block]
            self._add_block(block_rc, dtype, weights_r, out_c[block])
            found = Bounds.of(bits_of(block_rc, dtype), FORMATS[dtype], terms.need_no_pieces)
            blocks.append((found, block_rc.shape[1]))
        return Bounds.beside(blocks)

    def _add_block(self, block_rc: Array, dtype: Dtype, weights_r: Array | None, out_c: Array) -> None:
        xp = self.library
        if weights_r is None and dtype.itemsize >= 4:
            xp.sum(block_rc, axis=0, dtype=xp.float64, out=out_c)
            return
        wide_rc = self._take("wide", "float32" if weights_r is None else "float64", *block_rc.shape)
        scale = widen_scaled(block_rc, dtype, out=wide_rc)
        if weights_r is not None:
            wide_rc *= weights_r
        xp.sum(wide_rc, axis=0, dtype=xp.float64, out=out_c)
        if scale != 1:
            out_c *= scale

    def _blocks(self, length: int, rows: int) -> Iterator[slice]:
        """Yield the columns that are worked on at once, whole pieces of them: on a device all."""
        width = length if self._device is not None else BLOCK // rows // PIECE * PIECE
        for first in range(0, length, width):
            yield slice(first, min(first + width, length))

    def _negative_zeros(self, terms: Terms, start: int, count: int) -> Array:
        """Which numbers of the chunk are -0.0 in all ingredients, and so in the mean: array[c] of bool."""
        every_c: Array = True
        for stored, batch in terms.batches:
            raw_rc = self._on_device(self.read(terms.name, stored, batch, start, count))
            greatest_c = self.library.amax(bits_of(raw_rc, stored.real), axis=0)
            every_c = every_c & (greatest_c == -FORMATS[stored.real].magnitude - 1)  # as an integer -0.0 is the least
        return every_c

    def totals(self) -> Array:
        """Return a copy of the sums: array[c] on the CPU."""
        with self._on_stream():
            return copied(self._total_c) if self._device is None else self._total_c.to("cpu", copy=True)

    def rounded(self, terms: Terms, range_: Range) -> Array:
        """The means of exact sums, valid until the next call: array[c] on the CPU. The sums are lost.

        A quotient in float64 is on the right side of every tie of a narrower dtype.
        """
        dtype, total_c = terms.dtype.real, self._total_c
        with self._on_stream():
            mean_c = self._take("mean", HELD_AS[dtype], len(total_c))
            for block in self._blocks(len(total_c), rows=4):  # rounding needs the memory of four rows
                self._round_block(total_c[block], terms, range_, mean_c[block])
            if self._device is None:
                return mean_c
            return self._take("mean", HELD_AS[dtype], len(total_c), on_cpu=True).copy_(mean_c)

    def _round_block(self, total_c: Array, terms: Terms, range_: Range, out_c: Array) -> None:
        if terms.divisor & (terms.divisor - 1):
            total_c /= terms.divisor
        elif terms.divisor > 1:
            total_c *= 1 / terms.divisor  # as exact, and faster
        scratch_c = self._take("part", "int64", len(total_c))
        round_once(total_c, terms.dtype.real, out=out_c, scratch=scratch_c, tiny=terms.may_be_tiny(range_))

    def read(self, name: str, stored: Dtype, batch: Sequence[Term], start: int, count: int) -> Array:
        """The stored numbers of a batch, valid until the next call: array[r, c] on the CPU, held as HELD_AS says."""
        read_rc = self._take("read", HELD_AS[stored.real], len(batch), count * reals(stored), on_cpu=True)
        for row_c, (member, _) in zip(read_rc, batch, strict=True):
            memory = bytes_of(row_c)
            read_into(member, name, start, memory)
            if self._seen is not None:
                self._seen(member, name, start, memory)
        return read_rc

    def _on_device(self, read_rc: Array) -> Array:
        """The numbers that were read, where they are added: array[r, c]."""
        if self._device is None:
            return read_rc
        # The buffer is read into again only after the bounds of these numbers have been waited for.
        raw_rc = self._take("raw", str(read_rc.dtype).removeprefix("torch."), *read_rc.shape)
        return raw_rc.copy_(read_rc, non_blocking=True)

    def _on_stream(self) -> AbstractContextManager[Any]:
        return torch.cuda.stream(self._stream) if self._stream is not None else nullcontext()
