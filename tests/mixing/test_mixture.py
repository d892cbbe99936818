"""What a soup is made of: members and weights, dtypes, what is never averaged, and what cannot be mixed."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from soupcli.checkpoints.compare.agreement import check_mixable
from soupcli.checkpoints.dtype import Dtype
from soupcli.errors import MixError
from soupcli.mixing.mixture import Mixture, differing, mix, scale_of
from tests.helpers.exact_mean import InMemory


def member(name: str, **tensors: Tensor) -> InMemory:
    return InMemory(name, tensors)


def whole(mixture: Mixture, name: str) -> Tensor:
    spec = mixture.spec(name)
    return mix(mixture, name, start=0, count=spec.numel).view(spec.shape)


def test_uniform() -> None:
    """The plain mean, in the ingredients' own dtype and shape, whatever their order."""
    members = [member(name, w=torch.full((2, 3), value)) for name, value in (("a", 1.0), ("b", 2.0), ("c", 6.0))]
    mixture = Mixture.uniform(members)
    assert torch.equal(whole(mixture, "w"), torch.full((2, 3), 3.0))
    assert torch.equal(whole(Mixture.uniform(members[::-1]), "w"), torch.full((2, 3), 3.0))
    assert mixture.is_uniform


def test_coefficients() -> None:
    """Tensors with weights of their own are mixed by these, all others by the mixture's."""
    members = (member("a", w=torch.ones(2), v=torch.ones(2)), member("b", w=torch.zeros(2), v=torch.zeros(2)))
    mixture = Mixture(members, (0.25, 0.75), coefficients={"v": (0.5, 0.5)})
    assert whole(mixture, "w").tolist() == [0.25, 0.25]
    assert whole(mixture, "v").tolist() == [0.5, 0.5]
    assert not mixture.is_uniform


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (torch.bfloat16, torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.float16, torch.float32),
        (torch.float32, torch.float16, torch.float32),
        (torch.float64, torch.bfloat16, torch.float64),
        (torch.float8_e4m3fn, torch.bfloat16, torch.float32),
    ],
)
def test_dtypes(one: torch.dtype, other: torch.dtype, expected: torch.dtype) -> None:
    """Ingredients of two dtypes give the narrowest that holds the numbers of both; --dtype says otherwise."""
    members = [member("a", w=torch.ones(2).to(one)), member("b", w=torch.ones(2).to(other))]
    assert Mixture.uniform(members).spec("w").dtype == Dtype.of(expected)
    assert Mixture.uniform(members, dtype=Dtype.BFLOAT16).spec("w").dtype == Dtype.BFLOAT16


@pytest.mark.parametrize("dtype", [Dtype.BFLOAT16, Dtype.FLOAT64])
def test_complex_tensors_keep_their_dtype(dtype: Dtype) -> None:
    """`--dtype` names a real one, which has no room for imaginary parts: complex tensors are mixed as they are."""
    one, other = (torch.complex(torch.tensor([1.0, real]), torch.tensor([2.0, 4.0])) for real in (-1.0, 3.0))
    mixture = Mixture.uniform([member("a", w=one, v=torch.ones(2)), member("b", w=other, v=torch.ones(2))], dtype=dtype)
    assert mixture.spec("v").dtype is dtype
    assert whole(mixture, "w").tolist() == [1 + 2j, 1 + 4j]


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_integers_are_never_averaged(dtype: torch.dtype) -> None:
    """Integers and booleans are the first member's, or the one's that gives what is not averaged; and are told."""
    members = [member(name, n=torch.tensor([value, 1]).to(dtype)) for name, value in (("a", 0), ("b", 1))]
    assert torch.equal(whole(Mixture.uniform(members), "n"), members[0].stored["n"])
    kept = Mixture.uniform(members, keep_from=members[1], dtype=Dtype.FLOAT16)
    assert torch.equal(whole(kept, "n"), members[1].stored["n"])
    assert differing(kept) == ["n"]
    assert differing(Mixture.uniform([members[0], members[0]])) == []


def test_scalars_and_nothing() -> None:
    """Tensors of no axis and of no element are mixed like any others."""
    members = [
        member("a", s=torch.tensor(1.0), e=torch.empty(0, 4)),
        member("b", s=torch.tensor(2.0), e=torch.empty(0, 4)),
    ]
    mixture = Mixture.uniform(members)
    assert whole(mixture, "s").shape == () and float(whole(mixture, "s")) == 1.5
    assert whole(mixture, "e").shape == (0, 4)


REFUSALS = [
    ({"w": torch.ones(3)}, r"^b: tensor 'w' has shape \[3\], a has \[2\]$"),
    ({"w": torch.ones(2, dtype=torch.int64)}, r"^b: tensor 'w' has dtype torch.int64, a has torch.float32$"),
    ({"w": torch.ones(2, dtype=torch.complex64)}, r"^b: tensor 'w' has dtype torch.complex64, a has torch.float32$"),
    ({"w1": torch.ones(2)}, r"^b: has no tensor 'w', a has, its nearest is 'w1'$"),
    ({"w": torch.ones(2), "x": torch.ones(1)}, r"^b: has tensor 'x', a has not$"),
]


@pytest.mark.parametrize(("tensors", "message"), REFUSALS)
def test_what_cannot_be_mixed(tensors: dict[str, Tensor], message: str) -> None:
    """The first difference is named, with both values and what to do about it."""
    with pytest.raises(MixError, match=message) as caught:
        check_mixable([member("a", w=torch.ones(2)), member("b", **tensors)])
    assert caught.value.hint


@given(st.integers(1, 12), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_order_of_members_is_nothing(count: int, order: random.Random) -> None:
    """Any order of the members, with any weights, gives the same tensor, bit for bit."""
    generator = torch.Generator().manual_seed(count)
    members = [member(f"{n:02d}", w=torch.randn(40, generator=generator)) for n in range(count)]
    weights = torch.rand(count, generator=generator).tolist()
    pairs = list(zip(members, weights, strict=True))
    one = whole(Mixture(tuple(members), tuple(weights)), "w")
    order.shuffle(pairs)
    shuffled, along = zip(*pairs, strict=True)
    assert torch.equal(one, whole(Mixture(tuple(shuffled), tuple(along)), "w"))


def test_scale() -> None:
    """Weights that sum to 1 but for rounding scale nothing; a folded temperature is their sum."""
    assert scale_of([0.1] * 10) == 1.0
    assert scale_of([0.6, 0.9]) == 1.5
