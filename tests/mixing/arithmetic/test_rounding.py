"""Rounding once: float64 numbers and exact fractions to every narrower dtype, nearest, ties to even."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from soupcli.checkpoints.dtype import Dtype
from soupcli.mixing.arithmetic.float_format import FORMATS, Format, nearest
from soupcli.mixing.arithmetic.rounding import (
    HELD_AS,
    round_once,
    round_pair,
    round_tensor,
    two_product,
    two_sum,
    widen,
)
from tests.helpers.exact_mean import BITS, rounded, value_of

NARROW = [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
FINITE = st.floats(-1e30, 1e30)


def format_of(dtype: torch.dtype) -> Format:
    return FORMATS[Dtype.of(dtype)]


def rounded_once(values: list[float], dtype: torch.dtype) -> list[int]:
    """The bits of the values in `dtype`, as arrays and as tensors are rounded alike."""
    of_array: list[int] = round_once(np.array(values), Dtype.of(dtype)).view(format_of(dtype).bits).tolist()
    of_tensor = round_tensor(torch.tensor(values, dtype=torch.float64), dtype).view(BITS[dtype])
    assert of_array == of_tensor.tolist()
    return of_array


@pytest.mark.parametrize("dtype", NARROW)
def test_round_once_near_ties(dtype: torch.dtype) -> None:
    """Numbers on, just below and just above the middle of two neighbours, denormals too, by way of no third dtype."""
    for bits in [0, 1, 2, 5, 40, 41, format_of(dtype).not_finite // 2, format_of(dtype).not_finite - 3]:
        middle = (value_of(bits, dtype) + value_of(bits + 1, dtype)) / 2
        near = [math.nextafter(middle, 0), middle, math.nextafter(middle, math.inf)]
        values = [*near, *(-value for value in near)]
        assert rounded_once(values, dtype) == [rounded(Fraction(value), dtype) for value in values]


@given(st.lists(st.floats(-3e38, 3e38), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_round_once(values: list[float]) -> None:
    """Any number within the range of bfloat16 and float32."""
    for dtype in (torch.bfloat16, torch.float32):
        for value, bits in zip(values, rounded_once(values, dtype), strict=True):
            assert bits == rounded(Fraction(value), dtype) or value == 0


@given(st.fractions(min_value=-60_000, max_value=60_000))
@settings(max_examples=60, deadline=None)
def test_nearest(value: Fraction) -> None:
    """A fraction to float16 and float32, and to float64 as Python itself rounds."""
    for dtype in (torch.float16, torch.float32):
        found = torch.tensor([nearest(value, format_of(dtype))], dtype=torch.float64).to(dtype)
        assert int(found.view(BITS[dtype])) == rounded(value, dtype) or value == 0
    assert nearest(value, FORMATS[Dtype.FLOAT64]) == float(value)


@given(FINITE, FINITE)
@settings(max_examples=100, deadline=None)
def test_error_free(a: float, b: float) -> None:
    """Sum and error are the sum, product and error are the product, exactly."""
    one, other = np.array([a]), np.array([b])
    total, error = two_sum(one, other)
    assert Fraction(total.item()) + Fraction(error.item()) == Fraction(a) + Fraction(b)
    if all(value == 0 or abs(value) > 1e-100 for value in (a, b)):
        product, error = two_product(one, b)
        assert Fraction(product.item()) + Fraction(error.item()) == Fraction(a) * Fraction(b)


@given(st.floats(-100, 100), st.floats(-1e-14, 1e-14))
@settings(max_examples=60, deadline=None)
def test_round_pair(high: float, low: float) -> None:
    """What float64 cannot hold decides a tie of a narrower dtype."""
    exact = Fraction(high) + Fraction(low)
    pair = np.array([high]), np.array([low])
    for dtype in (torch.bfloat16, torch.float32):
        found = round_pair(*pair, Dtype.of(dtype)).view(format_of(dtype).bits)
        assert found.item() == rounded(exact, dtype) or exact == 0


def test_tie_that_the_rest_decides() -> None:
    """A tie in float32, and a rest far below float64's last place on either side of it."""
    tie = 1 + 2.0**-24
    for rest, expected in ((-(2.0**-80), 1.0), (0.0, 1.0), (2.0**-80, 1 + 2.0**-23)):
        pair = np.array([tie]), np.array([rest])
        assert round_pair(*pair, Dtype.FLOAT32).item() == expected


@pytest.mark.parametrize("dtype", NARROW)
def test_widen(dtype: torch.dtype) -> None:
    """Every number of a narrow dtype is the one that torch takes it for, NaNs and infinities too."""
    size = 8 * dtype.itemsize
    bits = torch.arange(0, 1 << size, 1 if size < 32 else 65_537).to(getattr(torch, f"uint{size}")).view(BITS[dtype])
    stored = bits.numpy().view(HELD_AS[Dtype.of(dtype)])
    out = np.empty(len(stored))
    widen(stored, Dtype.of(dtype), out=out)
    of_tensor = torch.empty(len(stored), dtype=torch.float64)
    widen(torch.from_numpy(stored), Dtype.of(dtype), out=of_tensor)
    assert np.array_equal(out, of_tensor.numpy(), equal_nan=True)
    assert np.array_equal(out, bits.view(dtype).to(torch.float64).numpy(), equal_nan=True)


@pytest.mark.parametrize("shape", [(), (2, 3), (0, 4)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    """Tiny numbers of tensors of any shape are rounded as those of flat ones."""
    numbers = torch.full(shape, 1e-39, dtype=torch.float64)
    flat = round_tensor(numbers.flatten().clone(), torch.bfloat16)
    assert torch.equal(round_tensor(numbers, torch.bfloat16), flat.view(shape))
