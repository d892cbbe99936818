"""Between which magnitudes stored numbers lie: never narrower than they do, piece by piece."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from soupcli.checkpoints.dtype import Dtype
from soupcli.mixing.arithmetic.float_format import FORMATS
from soupcli.mixing.arithmetic.magnitudes import PIECE, Bounds, Range


def enough(range_: Range) -> bool:
    return True


def never(range_: Range) -> bool:
    return False


def bounds_of(numbers: Tensor, is_enough: Callable[[Range], bool] = never) -> Bounds:
    """The bounds of the numbers' bits: of an array, and of a tensor alike."""
    format_ = FORMATS[Dtype.of(numbers.dtype)]
    bits = numbers.view(getattr(torch, format_.bits))
    bounds = Bounds.of(bits.numpy().copy(), format_, is_enough)
    assert Bounds.of(bits.clone(), format_, is_enough) == bounds
    return bounds


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@given(st.sampled_from(DTYPES), st.lists(st.floats(-6e4, 6e4), min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_bounds(dtype: torch.dtype, values: list[float]) -> None:
    """The largest magnitude is the largest, and every number is a multiple of the grid."""
    stored = torch.tensor([values], dtype=torch.float64).to(dtype)
    kept = stored.to(torch.float64).flatten().tolist()
    range_ = bounds_of(stored, enough).whole
    assert range_.largest == max(map(abs, kept))
    if any(kept):
        assert all((Fraction(value) / Fraction(range_.grid)).denominator == 1 for value in kept)
        assert math.frexp(range_.grid)[0] == 0.5  # a power of two
    else:
        assert range_ == Range(0.0, math.inf)


def test_pieces() -> None:
    """One tiny number widens the range of its own piece alone, and joined ranges bound both."""
    numbers = torch.ones(2, 3 * PIECE + 10)
    numbers[1, PIECE + 5] = 2.0**-100
    spread = bounds_of(numbers)
    ranges = [spread.piece(number) for number in range(4)]
    assert [range_.grid for range_ in ranges] == [2.0**-23, 2.0**-123, 2.0**-23, 2.0**-23]
    assert ranges[0].joined(ranges[1]) == ranges[1]


@given(st.integers(0, 2**32), st.lists(st.sampled_from([0.0, -0.0, 2.0**-40, 1.0, -1.5]), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_pieces_with_zeros(seed: int, values: list[float]) -> None:
    """Zeros bound nothing: each piece is bounded by its other numbers, and never narrower than they are."""
    chosen = torch.randint(len(values), (2 * PIECE - 3,), generator=torch.Generator().manual_seed(seed))
    chosen[:PIECE] = 0
    numbers = torch.tensor(values)[chosen].view(1, -1)
    spread = bounds_of(numbers)
    for number, piece in enumerate(numbers.abs().split(PIECE, dim=1)):
        range_ = spread.piece(number)
        assert range_.largest >= float(piece.max())
        assert all(value % range_.grid == 0 for value in piece.flatten().tolist() if value)
    assert spread.whole.largest == float(numbers.abs().max())


@given(st.integers(0, 2**32), st.sampled_from([enough, never]))
@settings(max_examples=10, deadline=None)
def test_beside(seed: int, is_enough: Callable[[Range], bool]) -> None:
    """Bounds of blocks side by side are those of the whole, and no piece lies outside of its own."""
    numbers = torch.randn(2, 5 * PIECE - 3, generator=torch.Generator().manual_seed(seed))
    numbers[:, 3 * PIECE] = 0
    blocks = numbers.split(2 * PIECE, dim=1)
    joined = Bounds.beside([(bounds_of(block, is_enough), block.shape[1]) for block in blocks])
    assert (joined.whole, joined.zeros) == (bounds_of(numbers).whole, True)
    for number, piece in enumerate(numbers.split(PIECE, dim=1)):
        own = bounds_of(piece).whole
        assert joined.piece(number) == own.joined(joined.piece(number))
        assert joined.piece(number) == own or is_enough is enough or not piece.all()


def test_not_asked_for() -> None:
    """Where the whole is narrow enough, pieces are as it is."""
    spread = bounds_of(torch.ones(2, 2 * PIECE), enough)
    assert (spread.pieces, spread.piece(1)) == ((), Range(1.0, 2.0**-23))


def test_not_finite() -> None:
    """A NaN or an infinity anywhere makes the range infinite."""
    for value in (math.nan, math.inf, -math.inf):
        numbers = torch.zeros(3, 50)
        numbers[2, 49] = value
        assert bounds_of(numbers, enough).whole.largest == math.inf
