"""Sums without error: what a pair of float64 numbers settles is right, fractions settle the rest."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from soupcli.checkpoints.dtype import Dtype
from soupcli.mixing.arithmetic.exact_sum import PairSum, exact_mean, exact_means
from soupcli.mixing.arithmetic.float_format import FORMATS
from tests.helpers.exact_mean import rounded, weighted

VALUES = st.one_of(st.floats(-1e300, 1e300), st.floats(-2, 2), st.floats(-1e-290, 1e-290))


@given(st.lists(VALUES, min_size=1, max_size=9), st.sampled_from([Dtype.FLOAT64, Dtype.FLOAT32, Dtype.BFLOAT16]))
@settings(max_examples=100, deadline=None)
def test_what_is_settled_is_right(values: list[float], dtype: Dtype) -> None:
    """Numbers of any size: either the pair says that it does not know, or it has the nearest number."""
    pair = PairSum(1, np)
    for value in values:
        pair.add(np.array([value]), None)
    mean, settled = pair.mean(len(values), dtype)
    exact = weighted(values)
    if bool(settled) and exact != 0 and abs(exact) < FORMATS[dtype].largest:
        assert int(mean.view(FORMATS[dtype].bits)[0]) == rounded(exact, dtype.torch)


@given(st.lists(st.floats(-4, 4, width=32), min_size=2, max_size=20), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_usual_numbers_are_settled(values: list[float], seed: int) -> None:
    """Of float32 numbers of like size the pair settles all: fractions are for the rest alone."""
    pair = PairSum(1, np)
    for value in values:
        pair.add(np.array([value]), None)
    _, settled = pair.mean(len(values), Dtype.FLOAT32)
    assert bool(settled) or min(abs(value) for value in values) < 1e-20


@given(st.lists(st.tuples(VALUES, st.floats(-2, 2)), min_size=1, max_size=6))
@settings(max_examples=100, deadline=None)
def test_exact_mean(terms: list[tuple[float, float]]) -> None:
    """The mean and the weighted sum in fractions, rounded once."""
    values, weights = [value for value, _ in terms], [weight for _, weight in terms]
    format_ = FORMATS[Dtype.FLOAT64]
    assert exact_mean(values, [], format_) == float(weighted(values))
    assert exact_mean(values, weights, format_) == float(weighted(values, weights))


@given(
    st.lists(st.lists(st.floats(-4, 4, width=32), min_size=6, max_size=6), min_size=1, max_size=9),
    st.sampled_from([Dtype.FLOAT64, Dtype.FLOAT32, Dtype.BFLOAT16]),
)
@settings(max_examples=100, deadline=None)
def test_columns(rows: list[list[float]], dtype: Dtype) -> None:
    """Columns of any width side by side: those that float64 adds exactly and those that it does not."""
    columns = np.array(rows, np.float64)
    found = exact_means(columns, [], len(rows), dtype, FORMATS[Dtype.FLOAT32])
    for mean, column in zip(found.view(FORMATS[dtype].bits).tolist(), columns.T.tolist(), strict=True):
        exact = weighted(column)
        assert exact == 0 or mean == rounded(exact, dtype.torch)


def test_negative_zeros() -> None:
    """Only a sum of nothing but -0.0 is -0.0."""
    format_ = FORMATS[Dtype.FLOAT32]
    assert math.copysign(1, exact_mean([-0.0, -0.0], [], format_)) == -1
    assert math.copysign(1, exact_mean([-0.0, 0.0], [], format_)) == 1
