"""Cuts tensors of ingredients into pieces, and joins small ones, so that all are read and mixed alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from soupcli.checkpoints.checkpoint import Checkpoint, in_file_order
from soupcli.checkpoints.dtype import Dtype

PIECE_BYTES = 8 << 20  # of all ingredients together, in what is computed in: much of a cache, and few calls
ROW_BYTES = 16 << 10  # of one ingredient, at least: shorter reads cost more than they read


class Span(NamedTuple):
    """Elements `start` to `start + numel` of the stored tensor `name`."""

    name: str
    start: int
    numel: int


class OffsetPiece(NamedTuple):
    """Spans end to end, in one dtype: [K, n] for all ingredients. `wide_dtype` is what is computed in."""

    spans: tuple[Span, ...]
    dtype: Dtype
    wide_dtype: Dtype

    @property
    def numel(self) -> int:
        """Elements of one ingredient."""
        return sum(span.numel for span in self.spans)

    @property
    def nbytes(self) -> int:
        """The stored bytes of one ingredient."""
        return self.numel * self.dtype.itemsize

    def placed(self) -> Iterator[tuple[Span, slice]]:
        """The spans, and where each of them is in the piece."""
        at = 0
        for span in self.spans:
            yield span, slice(at, at + span.numel)
            at += span.numel


def largest(ingredients: int) -> int:
    """Bytes of the largest piece of so many ingredients."""
    return max(PIECE_BYTES, ingredients * ROW_BYTES)


def divide(used: Mapping[str, Dtype], ingredients: Sequence[Checkpoint]) -> list[OffsetPiece]:
    """Pieces of stored tensors, by the dtype that the network uses them in, as they follow one another in the files.

    Each is as large as it may be for all ingredients together.
    """
    pieces: list[OffsetPiece] = []
    names = in_file_order(ingredients[0], used)
    dtypes = {name: _dtypes(name, dtype, ingredients) for name, dtype in used.items()}
    for dtype, wide_dtype in dict.fromkeys(dtypes.values()):
        most = largest(len(ingredients)) // (wide_dtype.itemsize * len(ingredients))
        spans: list[Span] = []
        room = most
        for name in (name for name in names if dtypes[name] == (dtype, wide_dtype)):
            start, end = 0, ingredients[0].tensors[name].numel
            while start < end:
                count = min(end - start, room)
                spans.append(Span(name, start, count))
                start, room = start + count, room - count
                if not room:
                    pieces.append(OffsetPiece(tuple(spans), dtype, wide_dtype))
                    spans, room = [], most
        if spans:
            pieces.append(OffsetPiece(tuple(spans), dtype, wide_dtype))
    return pieces


def _dtypes(name: str, used: Dtype, ingredients: Sequence[Checkpoint]) -> tuple[Dtype, Dtype]:
    """The dtype that holds tensor `name` of every ingredient exactly, and float32 or the float64 that is asked for."""
    stored = ingredients[0].tensors[name].dtype
    for ingredient in ingredients[1:]:
        stored = stored.common(ingredient.tensors[name].dtype)
    return stored, Dtype.FLOAT64 if Dtype.FLOAT64 in (stored, used) else Dtype.FLOAT32


class Group(NamedTuple):
    """Pieces of the layers `rows`; `row_of` counts a tensor's layer from the first one of the group on."""

    rows: slice
    pieces: list[OffsetPiece]
    row_of: Mapping[str, int]

    @property
    def size(self) -> int:
        """Layers."""
        return int(self.rows.stop - self.rows.start)

    def blocks(self, piece: OffsetPiece, width: int) -> list[tuple[int, int]]:
        """Row and elements of the blocks of a piece, in order: each of one row, and of `width` elements at most."""
        sizes: list[list[int]] = []  # row, elements
        for span in piece.spans:
            row = self.row_of[span.name]
            if sizes and sizes[-1][0] == row:
                sizes[-1][1] += span.numel
            else:
                sizes.append([row, span.numel])
        return [(row, min(width, numel - at)) for row, numel in sizes for at in range(0, numel, width)]


def grouped(layers: Sequence[Mapping[str, Dtype]], ingredients: Sequence[Checkpoint], *, most: int) -> list[Group]:
    """Return groups of consecutive layers, each of at most `most` bytes in memory, or of one layer.

    A layer is its tensors' names and the dtypes that the network uses them in.
    """
    groups: list[Group] = []
    begin, total = 0, 0
    sizes = [len(ingredients) * sum(p.nbytes for p in divide(layer, ingredients)) for layer in layers]
    for end, size in enumerate([*sizes, most + 1]):
        if total + size > most and end > begin:
            groups.append(_group(layers, begin, end, ingredients))
            begin, total = end, 0
        total += size
    return groups


def _group(layers: Sequence[Mapping[str, Dtype]], begin: int, end: int, ingredients: Sequence[Checkpoint]) -> Group:
    used = {name: dtype for layer in layers[begin:end] for name, dtype in layer.items()}
    row_of = {name: row for row, layer in enumerate(layers[begin:end]) for name in layer}
    return Group(slice(begin, end), divide(used, ingredients), row_of)
