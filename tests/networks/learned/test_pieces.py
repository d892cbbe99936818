"""Tensors cut into pieces: every element once, in order, of one dtype, and never more than fits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soupcli.checkpoints.checkpoint import TensorSpec
from soupcli.checkpoints.dtype import Dtype
from soupcli.networks.learned import pieces
from soupcli.networks.learned.pieces import divide, largest

DTYPES = (Dtype.BFLOAT16, Dtype.FLOAT16, Dtype.FLOAT32, Dtype.FLOAT64)


def ingredient(sizes: dict[str, int], dtypes: list[Dtype]) -> Any:
    """All of a checkpoint that is looked at: shapes and dtypes, and that it says of no place where they lie."""
    specs = {name: TensorSpec((size,), dtype) for (name, size), dtype in zip(sizes.items(), dtypes, strict=True)}
    return SimpleNamespace(tensors=specs, path=Path("x"), places={})


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 700), st.sampled_from(DTYPES), st.sampled_from(DTYPES)), min_size=1, max_size=6),
    st.integers(1, 5),
)
def test_every_element_once(tensors: list[tuple[int, Dtype, Dtype]], count: int) -> None:
    """Spans of each tensor follow one another from its first element to its last; a piece is at most the largest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE_BYTES", 1024)
        patch.setattr(pieces, "ROW_BYTES", 64)
        sizes = {f"t{number}": size for number, (size, _, _) in enumerate(tensors)}
        stored = [dtype for _, dtype, _ in tensors]
        used = {f"t{number}": dtype for number, (_, _, dtype) in enumerate(tensors)}
        found = divide(used, [ingredient(sizes, stored)] * count)
        most = largest(count)
    at = dict.fromkeys(sizes, 0)
    for piece in found:
        assert 0 < piece.numel * piece.wide_dtype.itemsize * count <= most
        for span in piece.spans:
            assert span.start == at[span.name]
            at[span.name] += span.numel
            assert piece.dtype == stored[int(span.name[1:])]
            wide = Dtype.FLOAT64 in (piece.dtype, used[span.name])
            assert piece.wide_dtype == (Dtype.FLOAT64 if wide else Dtype.FLOAT32)
    assert at == sizes


def test_small_tensors_share_a_piece() -> None:
    """Biases and norms of a layer are read as one."""
    sizes = {f"t{number}": 10 for number in range(20)}
    found = divide(dict.fromkeys(sizes, Dtype.FLOAT32), [ingredient(sizes, [Dtype.FLOAT32] * 20)] * 3)
    assert [len(piece.spans) for piece in found] == [20]


def test_dtypes_of_ingredients_differ() -> None:
    """A piece holds every ingredient's numbers exactly."""
    halves = [ingredient({"a": 4}, [dtype]) for dtype in (Dtype.FLOAT16, Dtype.BFLOAT16)]
    assert [piece.dtype for piece in divide({"a": Dtype.FLOAT16}, halves)] == [Dtype.FLOAT32]
