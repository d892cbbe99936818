"""The mean of all ingredients."""

from __future__ import annotations

from soupcli.checkpoints.dtype import Dtype
from soupcli.soups.weighted import uniform
from tests.helpers.outcomes import checkpoints


def test_equal_weights() -> None:
    """Every ingredient has the same weight, and the order given is kept."""
    members = checkpoints(["b", "a", "c"])
    mixture = uniform(members)
    assert mixture.members == tuple(members)
    assert mixture.weights == (1 / 3,) * 3
    assert mixture.kept is members[0]


def test_dtype_and_kept() -> None:
    """The output dtype and the source of what is not averaged are passed on."""
    members = checkpoints(["a", "b"])
    mixture = uniform(members, dtype=Dtype.BFLOAT16, keep_from=members[1])
    assert mixture.spec("w").dtype == Dtype.BFLOAT16
    assert mixture.kept is members[1]
