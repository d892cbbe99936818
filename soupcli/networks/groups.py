"""Consecutive layers that move together, and the pieces that they are read in, whichever layers a piece has parts of.

Letters in names: r layers of a group, k ingredients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.networks.pieces import Piece, divide


class Group(NamedTuple):
    """Pieces of the layers `rows`; `row_of` counts a tensor's layer from the first one of the group on."""

    rows: slice
    pieces: list[Piece]
    row_of: Mapping[str, int]

    @property
    def size(self) -> int:
        """Layers."""
        return int(self.rows.stop - self.rows.start)

    def blocks(self, piece: Piece, width: int) -> list[tuple[int, int]]:
        """Row and elements of the blocks of a piece, in order: each of one row, and of `width` elements at most."""
        sizes: list[list[int]] = []  # row, elements
        for span in piece.spans:
            row = self.row_of[span.name]
            if sizes and sizes[-1][0] == row:
                sizes[-1][1] += span.numel
            else:
                sizes.append([row, span.numel])
        return [(row, min(width, numel - at)) for row, numel in sizes for at in range(0, numel, width)]


def grouped(
    layers: Sequence[Mapping[str, torch.dtype]], ingredients: Sequence[Checkpoint], *, most: int
) -> list[Group]:
    """Groups of consecutive layers, each of at most `most` bytes in memory, or of one layer alone.

    A layer is its tensors' names and the dtypes that the network uses them in.
    """
    groups: list[Group] = []
    begin, total = 0, 0
    rows = len(ingredients)
    sizes = [sum(math.prod(p.shape(rows)) * p.dtype.itemsize for p in divide(layer, ingredients)) for layer in layers]
    for end, size in enumerate([*sizes, most + 1]):
        if total + size > most and end > begin:
            groups.append(_group(layers, begin, end, ingredients))
            begin, total = end, 0
        total += size
    return groups


def _group(
    layers: Sequence[Mapping[str, torch.dtype]], begin: int, end: int, ingredients: Sequence[Checkpoint]
) -> Group:
    used = {name: dtype for layer in layers[begin:end] for name, dtype in layer.items()}
    row_of = {name: row for row, layer in enumerate(layers[begin:end]) for name in layer}
    return Group(slice(begin, end), divide(used, ingredients), row_of)
