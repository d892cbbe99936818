"""Sums without error: what a pair of float64 numbers settles is right, fractions settle the rest."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from soupcli.mixing.arithmetic.exact_sum import PairSum, exact_mean, exact_means
from soupcli.mixing.arithmetic.rounding import FORMATS
from tests.helpers.exact_mean import BITS, rounded, weighted

VALUES = st.one_of(st.floats(-1e300, 1e300), st.floats(-2, 2), st.floats(-1e-290, 1e-290))


@given(st.lists(VALUES, min_size=1, max_size=9), st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
@settings(max_examples=100, deadline=None)
def test_what_is_settled_is_right(values: list[float], dtype: torch.dtype) -> None:
    """Numbers of any size: either the pair says that it does not know, or it has the nearest number."""
    pair = PairSum(1)
    for value in values:
        pair.add(torch.tensor([value], dtype=torch.float64), None)
    mean, settled = pair.mean(len(values), dtype)
    exact = weighted(values)
    if bool(settled) and exact != 0 and abs(exact) < torch.finfo(dtype).max:
        assert int(mean.view(BITS[dtype])) == rounded(exact, dtype)


@given(st.lists(st.floats(-4, 4, width=32), min_size=2, max_size=20), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_usual_numbers_are_settled(values: list[float], seed: int) -> None:
    """Of float32 numbers of like size the pair settles all: fractions are for the rest alone."""
    pair = PairSum(1)
    for value in values:
        pair.add(torch.tensor([value], dtype=torch.float64), None)
    _, settled = pair.mean(len(values), torch.float32)
    assert bool(settled) or min(abs(value) for value in values) < 1e-20


@given(st.lists(st.tuples(VALUES, st.floats(-2, 2)), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_exact_mean(terms: list[tuple[float, float]]) -> None:
    """The mean and the weighted sum in fractions, rounded once."""
    values, weights = [value for value, _ in terms], [weight for _, weight in terms]
    format_ = FORMATS[torch.float64]
    assert exact_mean(values, [], format_) == float(weighted(values))
    assert exact_mean(values, weights, format_) == float(weighted(values, weights))


@given(
    st.lists(st.lists(st.floats(-4, 4, width=32), min_size=6, max_size=6), min_size=1, max_size=9),
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
)
@settings(max_examples=100, deadline=None)
def test_columns(rows: list[list[float]], dtype: torch.dtype) -> None:
    """Columns of any width side by side: those that float64 adds exactly and those that it does not."""
    columns = torch.tensor(rows, dtype=torch.float64)
    found = exact_means(columns, [], len(rows), dtype, FORMATS[torch.float32])
    for mean, column in zip(found.view(BITS[dtype]).tolist(), columns.T.tolist(), strict=True):
        exact = weighted(column)
        assert exact == 0 or mean == rounded(exact, dtype)


def test_negative_zeros() -> None:
    """Only a sum of nothing but -0.0 is -0.0."""
    format_ = FORMATS[torch.float32]
    assert math.copysign(1, exact_mean([-0.0, -0.0], [], format_)) == -1
    assert math.copysign(1, exact_mean([-0.0, 0.0], [], format_)) == 1
