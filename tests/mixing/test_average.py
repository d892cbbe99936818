"""The mean: the exact one, rounded once, in any order, of any numbers; what has no mean is named."""

from __future__ import annotations

import math
import random

import numpy
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from soupcli.checkpoints.dtype import Dtype
from soupcli.errors import MixError
from soupcli.mixing.average import Averager
from soupcli.mixing.terms import READ, ROWS, Terms, chunks
from tests.helpers.exact_mean import BITS, InMemory, rounded, weighted

WIDE = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
NARROW = [torch.float8_e4m3fn, torch.float8_e5m2]


def mean(
    rows: list[Tensor], *, dtype: torch.dtype | None = None, weights: list[float] | None = None, start: int = 0
) -> Tensor:
    """The mean of tensors of one shape as a soup has it, from element `start` on: by numpy and by torch alike."""
    members = [InMemory(f"{number:02d}", {"w": row}) for number, row in enumerate(rows)]
    out_dtype = dtype or rows[0].dtype
    terms = Terms.of("w", members, weights=weights, dtype=Dtype.of(out_dtype))
    found = [
        b"".join(bytes(averager.mean(terms, start + at, n)) for at, n in chunks(terms, terms.numel - start))
        for averager in (Averager(library=numpy), Averager(library=torch), Averager(torch.device("cpu")))
    ]
    assert found[0] == found[1] == found[2]  # numpy, torch and a device, with memory of its own, add up to the same
    return torch.frombuffer(bytearray(found[0]), dtype=out_dtype)


def bits_of(tensor: Tensor) -> list[int]:
    return tensor.view(BITS[tensor.dtype]).tolist()


def numbers(dtype: torch.dtype) -> st.SearchStrategy[float]:
    """Any finite numbers of a dtype: of its whole range, denormals and both zeros too, or of like size."""
    greatest = torch.finfo(dtype).max
    finite = st.floats(-greatest, greatest, allow_nan=False, allow_infinity=False)
    return st.one_of(finite, st.floats(-1, 1), st.sampled_from([0.0, -0.0, torch.finfo(dtype).tiny]))


@st.composite
def families(draw: st.DrawFn, dtypes: list[torch.dtype]) -> list[Tensor]:
    """A few ingredients of a few numbers."""
    dtype = draw(st.sampled_from(dtypes))
    count, size = draw(st.integers(1, 11)), draw(st.integers(1, 6))
    cells = st.lists(numbers(dtype), min_size=size, max_size=size)
    rows = [torch.tensor(draw(cells), dtype=torch.float64).to(dtype) for _ in range(count)]
    return [torch.where(row.to(torch.float64).isfinite(), row.to(torch.float64), 1.0).to(dtype) for row in rows]


@given(families(WIDE + NARROW), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
@example([torch.tensor([1.0, 2.0**-60]), torch.tensor([2.0**-60, -(2.0**-60)])], random.Random(0))
@example([torch.tensor([1.0 + 2.0**-23]), torch.tensor([1.0])], random.Random(0))  # a tie
def test_exact_mean_rounded_once(rows: list[Tensor], order: random.Random) -> None:
    """Of any numbers of any dtype, in any order of the ingredients: the number nearest to the mean in fractions."""
    found = bits_of(mean(rows))
    columns = zip(*(row.to(torch.float64).tolist() for row in rows), strict=True)
    for value, column in zip(found, columns, strict=True):
        exact = weighted(column)
        if exact == 0:  # its sign is that of IEEE addition: negative where all are
            assert value == (0 if any(math.copysign(1, x) > 0 for x in column) or any(column) else value)
        else:
            assert value == rounded(exact, rows[0].dtype)
    order.shuffle(rows)
    assert bits_of(mean(rows)) == found


@given(families(WIDE), st.data())
@settings(max_examples=60, deadline=None)
def test_weighted(rows: list[Tensor], data: st.DataObject) -> None:
    """A weighted sum is the exact sum of exact products, rounded once."""
    shares = data.draw(st.lists(st.floats(-2, 2), min_size=len(rows), max_size=len(rows)))
    largest = max(float(row.to(torch.float64).abs().max()) for row in rows)
    if largest * (sum(map(abs, shares)) + 1) > torch.finfo(rows[0].dtype).max / 2:
        shares = [share * 2.0**-12 for share in shares]
    columns = list(zip(*(row.to(torch.float64).tolist() for row in rows), strict=True))
    found = mean(rows, weights=shares)
    for value, column in zip(found, columns, strict=True):
        exact = weighted(column, shares)
        assert float(value) == 0 if exact == 0 else bits_of(value[None]) == [rounded(exact, found.dtype)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 33])
def test_real_weights(dtype: torch.dtype, count: int) -> None:
    """Numbers of the size of a network's weights, more than one chunk of them: within half a last place of the mean."""
    generator = torch.Generator().manual_seed(count)
    size = READ // dtype.itemsize // min(count, ROWS) + 5_000
    start = torch.randn(size, generator=generator, dtype=torch.float64) * 0.02
    start[:50] *= 2.0**-30  # a few that are much smaller than the others
    rows = [(start + 1e-3 * torch.randn(size, generator=generator)).to(dtype) for _ in range(count)]
    found = mean(rows)
    wide = torch.stack(rows).to(torch.float64).mean(dim=0)
    away = torch.where(found < 0, -torch.inf, torch.inf).to(dtype)
    half = (torch.nextafter(found, away).to(torch.float64) - found.to(torch.float64)).abs() / 2
    assert bool(((found.to(torch.float64) - wide).abs() <= half * 1.001).all())
    for place in [0, 7, 49, 50, size // 2, size - 1]:
        column = [float(row[place]) for row in rows]
        assert bits_of(found[place : place + 1]) == [rounded(weighted(column), dtype)]


def test_cut_into_other_chunks() -> None:
    """A part of a tensor is the part of its mean, wherever it begins."""
    rows = [torch.randn(3_000, generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
    rows[2][1_500] = 2.0**-100  # so that the sums of its piece are in doubt
    whole = mean(rows)
    for start in (1, 1_499, 1_501, 2_999):
        assert torch.equal(mean(rows, start=start), whole[start:])


def test_dtypes_that_differ() -> None:
    """Ingredients of several dtypes are summed as they are stored and rounded once to the output's."""
    rows = [torch.tensor([0.1, 3.0]).to(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)]
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        found = mean(rows, dtype=dtype)
        columns = zip(*(row.to(torch.float64).tolist() for row in rows), strict=True)
        assert bits_of(found) == [rounded(weighted(column), dtype) for column in columns]


def test_dtypes_of_other_ranges() -> None:
    """A bfloat16 number that no float16 could hold decides which way a tie goes."""
    rows = [torch.tensor([2 + 2.0**-7], dtype=torch.float16), torch.tensor([2.0**-100], dtype=torch.bfloat16)]
    assert mean(rows, dtype=torch.bfloat16).item() == 1 + 2.0**-7


def test_complex() -> None:
    """Real and imaginary parts are averaged each by itself."""
    rows = [torch.complex(torch.tensor([0.1, -2.0]), torch.tensor([float(seed), 0.3])) for seed in range(3)]
    found = mean(rows)
    assert torch.equal(found.real, mean([row.real.contiguous() for row in rows]))
    assert torch.equal(found.imag, mean([row.imag.contiguous() for row in rows]))


def test_zeros_keep_their_sign() -> None:
    """The mean of -0.0 alone is -0.0; of both zeros it is 0.0, as IEEE 754 adds them."""
    rows = [torch.tensor([-0.0, -0.0, 0.0]), torch.tensor([-0.0, 0.0, 0.0])]
    assert bits_of(mean(rows)) == bits_of(torch.tensor([-0.0, 0.0, 0.0]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_not_finite(value: float) -> None:
    """A NaN or an infinity is an error that names the ingredient, the tensor and the element."""
    rows = [torch.zeros(100), torch.zeros(100)]
    rows[1][63] = value
    with pytest.raises(MixError, match=rf"^01: tensor 'w' holds {value} at element 63$"):
        mean(rows)
    with pytest.raises(MixError, match="element 63"):
        mean(rows[1:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn])
def test_overflow(dtype: torch.dtype) -> None:
    """A mean beyond the output dtype is an error that says so; the largest number itself is none."""
    greatest = torch.finfo(dtype).max
    assert float(mean([torch.tensor([greatest])] * 3, dtype=dtype)[0]) == greatest
    with pytest.raises(MixError, match=rf"tensor 'w': the mean goes beyond {greatest:g}, the largest number of"):
        mean([torch.tensor([greatest * 2])] * 3, dtype=dtype)


def test_identical_ingredients() -> None:
    """Any number of copies of one ingredient give it back, bit for bit."""
    row = torch.randn(1_000, generator=torch.Generator().manual_seed(0))
    for count in (1, 3, 10):
        assert torch.equal(mean([row] * count), row)
