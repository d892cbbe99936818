"""Rounding once: float64 numbers and exact fractions to every narrower dtype, nearest, ties to even."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from soupcli.mixing.arithmetic.rounding import FORMATS, nearest, round_once, round_pair, two_product, two_sum
from tests.helpers.exact_mean import BITS, rounded, value_of

NARROW = [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
FINITE = st.floats(-1e30, 1e30)


@pytest.mark.parametrize("dtype", NARROW)
def test_round_once_near_ties(dtype: torch.dtype) -> None:
    """Numbers on, just below and just above the middle of two neighbours, denormals too, by way of no third dtype."""
    for bits in [0, 1, 2, 5, 40, 41, FORMATS[dtype].not_finite // 2, FORMATS[dtype].not_finite - 3]:
        middle = (value_of(bits, dtype) + value_of(bits + 1, dtype)) / 2
        near = [math.nextafter(middle, 0), middle, math.nextafter(middle, math.inf)]
        values = torch.tensor([*near, *(-value for value in near)], dtype=torch.float64)
        expected = [rounded(Fraction(value), dtype) for value in values.tolist()]
        assert round_once(values.clone(), dtype).view(BITS[dtype]).tolist()[:3] == expected[:3]
        magnitudes = round_once(values.clone(), dtype)[3:].abs() if dtype.itemsize > 1 else None
        if magnitudes is not None:
            assert torch.equal(magnitudes, round_once(values[:3].clone(), dtype))


@given(st.lists(st.floats(-3e38, 3e38), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_round_once(values: list[float]) -> None:
    """Any number within the range of bfloat16 and float32."""
    for dtype in (torch.bfloat16, torch.float32):
        found = round_once(torch.tensor(values, dtype=torch.float64), dtype).view(BITS[dtype]).tolist()
        for value, bits in zip(values, found, strict=True):
            assert bits == rounded(Fraction(value), dtype) or value == 0


@given(st.fractions(min_value=-60_000, max_value=60_000))
@settings(max_examples=60, deadline=None)
def test_nearest(value: Fraction) -> None:
    """A fraction to float16 and float32, and to float64 as Python itself rounds."""
    for dtype in (torch.float16, torch.float32):
        found = torch.tensor([nearest(value, FORMATS[dtype])], dtype=torch.float64).to(dtype)
        assert int(found.view(BITS[dtype])) == rounded(value, dtype) or value == 0
    assert nearest(value, FORMATS[torch.float64]) == float(value)


@given(FINITE, FINITE)
@settings(max_examples=100, deadline=None)
def test_error_free(a: float, b: float) -> None:
    """Sum and error are the sum, product and error are the product, exactly."""
    one, other = torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)
    total, error = two_sum(one, other)
    assert Fraction(float(total)) + Fraction(float(error)) == Fraction(a) + Fraction(b)
    if all(value == 0 or abs(value) > 1e-100 for value in (a, b)):
        product, error = two_product(one, b)
        assert Fraction(float(product)) + Fraction(float(error)) == Fraction(a) * Fraction(b)


@given(st.floats(-100, 100), st.floats(-1e-14, 1e-14))
@settings(max_examples=60, deadline=None)
def test_round_pair(high: float, low: float) -> None:
    """What float64 cannot hold decides a tie of a narrower dtype."""
    exact = Fraction(high) + Fraction(low)
    pair = torch.tensor([high], dtype=torch.float64), torch.tensor([low], dtype=torch.float64)
    for dtype in (torch.bfloat16, torch.float32):
        assert int(round_pair(*pair, dtype).view(BITS[dtype])) == rounded(exact, dtype) or exact == 0


def test_tie_that_the_rest_decides() -> None:
    """A tie in float32, and a rest far below float64's last place on either side of it."""
    tie = 1 + 2.0**-24
    for rest, expected in ((-(2.0**-80), 1.0), (0.0, 1.0), (2.0**-80, 1 + 2.0**-23)):
        pair = torch.tensor([tie], dtype=torch.float64), torch.tensor([rest], dtype=torch.float64)
        assert float(round_pair(*pair, torch.float32)) == expected
