"""Between which magnitudes stored numbers lie: never narrower than they do, piece by piece."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from soupcli.checkpoints.magnitudes import PIECE, Magnitudes, Range
from soupcli.checkpoints.rounding import FORMATS

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@given(st.sampled_from(DTYPES), st.lists(st.floats(-6e4, 6e4), min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_bounds(dtype: torch.dtype, values: list[float]) -> None:
    """The largest magnitude is the largest, and every number is a multiple of the grid."""
    stored = torch.tensor([values], dtype=torch.float64).to(dtype)
    kept = stored.to(torch.float64).flatten().tolist()
    range_ = Magnitudes.of(stored, FORMATS[dtype]).range_of(slice(None))
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
    magnitudes = Magnitudes.of(numbers, FORMATS[torch.float32])
    ranges = [magnitudes.range_of(slice(piece, piece + 1)) for piece in range(4)]
    assert [range_.grid for range_ in ranges] == [2.0**-23, 2.0**-123, 2.0**-23, 2.0**-23]
    assert ranges[0].joined(ranges[1]) == ranges[1]


def test_not_finite() -> None:
    """A NaN or an infinity anywhere makes the range infinite."""
    for value in (math.nan, math.inf, -math.inf):
        numbers = torch.zeros(3, 50)
        numbers[2, 49] = value
        assert Magnitudes.of(numbers, FORMATS[torch.float32]).range_of(slice(None)).largest == math.inf
