"""A mixture's tensors in pieces, each mixed and written to its place in a file by whichever thread is free.

work = partial(Mixer, descriptor, offsets, device)
for nbytes in in_threads(work, pieces_of(mixture, offsets, specs, overrides)):
    ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.checkpoint import read_part
from soupcli.files.reading import memory_of, write_at
from soupcli.late import torch
from soupcli.mixing.average import Averager
from soupcli.mixing.mixture import CHUNK
from soupcli.mixing.terms import Terms, chunks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import Tensor

    from soupcli.checkpoints.checkpoint import Checkpoint, TensorSpec
    from soupcli.mixing.mixture import Mixture


class Piece(NamedTuple):
    """A part of one tensor: of a mean (`source` are its terms), or copied from an ingredient or a tensor."""

    name: str
    source: Terms | Checkpoint | Tensor
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
        source = mixture.kept if replaced is None else replaced.to(spec.dtype.torch).contiguous().view(-1)
        for start in range(0, spec.numel, CHUNK):
            yield Piece(name, source, start, min(CHUNK, spec.numel - start))


class Mixer:
    """Mixes pieces and writes each to its place, in one thread.

    `offsets` holds each tensor's first byte in the file. With `holes`, zeros are not written: they are there already.
    """

    def __init__(
        self, descriptor: int, offsets: Mapping[str, int], device: torch.device | None, *, holes: bool = False
    ) -> None:
        self._descriptor, self._offsets, self._holes = descriptor, offsets, holes
        self._averager = Averager(device)

    def __call__(self, piece: Piece) -> int:
        name, source, start, numel = piece
        part = self.mixed(source, name, start, numel)
        memory = memory_of(part)
        zeros = self._holes and not memory[:64].tobytes().strip(b"\0") and not torch.any(part.view(torch.uint8))
        if not zeros:
            write_at(self._descriptor, memory, self._offsets[name] + start * part.element_size())
        return part.nbytes

    def mixed(self, source: Terms | Checkpoint | Tensor, name: str, start: int, numel: int) -> Tensor:
        """Return the numbers of a piece, Tensor[numel] of the output dtype, valid until the next call."""
        if isinstance(source, Terms):
            return self._averager.mean(source, start, numel)
        if isinstance(source, torch.Tensor):
            return source[start : start + numel]
        return read_part(source, name, start, numel)
