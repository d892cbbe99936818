"""Layers that move together: consecutive, as many as fit, and every element in a block of its own layer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcli.checkpoints.checkpoint import TensorSpec
from soupcli.checkpoints.dtype import Dtype
from soupcli.networks.learned import pieces
from soupcli.networks.learned.pieces import Group, grouped

F32 = Dtype.FLOAT32


def made(sizes: list[list[int]], most: int, *, ingredients: int = 2) -> list[Group]:
    """Groups of layers with tensors of so many elements."""
    layers = [{f"{row}.{n}": F32 for n in range(len(of_layer))} for row, of_layer in enumerate(sizes)]
    specs = {
        f"{row}.{n}": TensorSpec((size,), Dtype.FLOAT32)
        for row, layer in enumerate(sizes)
        for n, size in enumerate(layer)
    }
    checkpoint: Any = SimpleNamespace(tensors=specs, path=Path("x"), places={})
    return grouped(layers, [checkpoint] * ingredients, most=most)


def test_as_many_as_fit() -> None:
    """A layer that is too large is a group of its own; one without tensors goes with its neighbours."""

    def rows(sizes: list[int], most: int) -> list[tuple[int, int]]:
        groups = made([[size] for size in sizes], most * 8)  # two ingredients in float32
        return [(group.rows.start, group.rows.stop) for group in groups]

    assert rows([1, 2, 3, 9, 1], 4) == [(0, 2), (2, 3), (3, 4), (4, 5)]
    assert rows([1, 2], 100) == [(0, 2)]
    assert rows([0, 0, 0], 4) == [(0, 3)]
    assert rows([9, 9], 4) == [(0, 1), (1, 2)]


@given(st.lists(st.lists(st.integers(0, 40), max_size=4), min_size=1, max_size=5), st.integers(1, 30))
def test_blocks(sizes: list[list[int]], width: int) -> None:
    """Blocks of a piece follow its spans, none is wider than allowed, and each layer's elements are in blocks of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE_BYTES", 400)
        patch.setattr(pieces, "ROW_BYTES", 4)
        groups = made(sizes, 600)
    assert [row for group in groups for row in range(group.rows.start, group.rows.stop)] == list(range(len(sizes)))
    for group in groups:
        for piece in group.pieces:
            wanted = [group.row_of[span.name] for span in piece.spans for _ in range(span.numel)]
            blocks = group.blocks(piece, width)
            assert [row for row, numel in blocks for _ in range(numel)] == wanted
            assert all(0 < numel <= width for _, numel in blocks)
