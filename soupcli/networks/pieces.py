"""Tensors of ingredients cut into pieces, and small ones put together, so that all are read and mixed alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from soupcli.checkpoints.checkpoint import Checkpoint

PIECE_BYTES = 16 << 20  # of all ingredients together: reads are long, memory is small
PIECE_ELEMENTS = 1 << 18  # of one ingredient


class Span(NamedTuple):
    """Elements `start` to `start + numel` of the stored tensor `name`."""

    name: str
    start: int
    numel: int


class Piece(NamedTuple):
    """Spans of one layer, in one dtype, end to end: [K, n] for all ingredients."""

    spans: tuple[Span, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        """Elements of one ingredient."""
        return sum(span.numel for span in self.spans)

    @property
    def nbytes(self) -> int:
        """Bytes of one ingredient."""
        return self.numel * self.dtype.itemsize


def divide(names: Sequence[str], ingredients: Sequence[Checkpoint]) -> list[Piece]:
    """Pieces of these stored tensors, each as large as it may be for all ingredients together."""
    pieces: list[Piece] = []
    dtypes = {name: _dtype(name, ingredients) for name in names}
    for dtype in dict.fromkeys(dtypes.values()):
        most = max(1, min(PIECE_ELEMENTS, PIECE_BYTES // (dtype.itemsize * len(ingredients))))
        spans: list[Span] = []
        room = most
        for name in (name for name in names if dtypes[name] == dtype):
            start, end = 0, ingredients[0].tensors[name].numel
            while start < end:
                count = min(end - start, room)
                spans.append(Span(name, start, count))
                start, room = start + count, room - count
                if not room:
                    pieces.append(Piece(tuple(spans), dtype))
                    spans, room = [], most
        if spans:
            pieces.append(Piece(tuple(spans), dtype))
    return pieces


def _dtype(name: str, ingredients: Sequence[Checkpoint]) -> torch.dtype:
    """The dtype that holds tensor `name` of every ingredient exactly."""
    dtype = ingredients[0].tensors[name].dtype
    for ingredient in ingredients[1:]:
        if ingredient.tensors[name].dtype != dtype:
            dtype = torch.promote_types(dtype, ingredient.tensors[name].dtype)
    return dtype
