"""A mixture's tensors in pieces, each mixed and written to its place in a file by whichever thread is free.

work = partial(Mixer, descriptor, offsets, device, HashStream())
for nbytes in in_threads(work, pieces_of(mixture, offsets, specs, overrides)):
    ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.checkpoint import read_bits
from soupcli.files.reading import memory_of, write_at
from soupcli.mixing.average import Averager
from soupcli.mixing.mixture import CHUNK
from soupcli.mixing.terms import Terms, chunks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import torch
    from torch import Tensor

    from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec
    from soupcli.mixing.hash_stream import HashStream
    from soupcli.mixing.mixture import Mixture


class Replaced(NamedTuple):
    """What replaces a tensor of the soup: Tensor[numel], contiguous, on the CPU."""

    tensor: Tensor


class Piece(NamedTuple):
    """A part of one tensor: of a mean (`source` are its terms), or copied from an ingredient or a replacement."""

    name: str
    source: Terms | Checkpoint | Replaced
    start: int
    numel: int


def pieces_of(
    mixture: Mixture, names: Iterable[str], specs: Mapping[str, TensorSpec], overrides: Mapping[str, Tensor]
) -> Iterator[Piece]:
    """Yield the pieces of these tensors, in order. `overrides` replaces tensors by name."""
    for name in names:
        spec, replaced = specs[name], overrides.get(name)
        if replaced is None and spec.dtype.is_averaged:
            terms = mixture.terms(name)
            for start, count in chunks(terms):
                yield Piece(name, terms, start, count)
            continue
        source: Checkpoint | Replaced = mixture.kept
        if replaced is not None:
            source = Replaced(replaced.to(spec.dtype.torch).contiguous().view(-1))
        for start in range(0, spec.numel, CHUNK):
            yield Piece(name, source, start, min(CHUNK, spec.numel - start))


class Mixer:
    """Mixes pieces and writes each to its place, in one thread.

    `offsets` holds each tensor's first byte in the file; `stream` sees what is read. With `holes`, zeros are not
    written: they are there already.
    """

    def __init__(
        self,
        descriptor: int,
        offsets: Mapping[str, int],
        device: torch.device | None,
        stream: HashStream,
        *,
        holes: bool = False,
    ) -> None:
        self._descriptor, self._offsets, self._holes = descriptor, offsets, holes
        self._averager = Averager(device, seen=stream.seen)
        self._stream = stream

    def __call__(self, piece: Piece) -> int:
        name, source, start, numel = piece
        try:
            part = self._bytes(source, name, start, numel)
        except BaseException:
            self._stream.abandon()
            raise
        zeros = self._holes and not part[:64].tobytes().strip(b"\0") and not bytes(part).strip(b"\0")
        if part and not zeros:
            write_at(self._descriptor, part, self._offsets[name] + start * (len(part) // numel))
        return len(part)

    def _bytes(self, source: Terms | Checkpoint | Replaced, name: str, start: int, numel: int) -> memoryview:
        """Return the numbers of a piece as bytes, valid until the next call."""
        if isinstance(source, Terms):
            return self._averager.mean(source, start, numel)
        if isinstance(source, Replaced):
            part = source.tensor[start : start + numel]  # whose memory is that of the whole
            return memory_of(part)
        return memoryview(read_bits(source, name, start, numel))
