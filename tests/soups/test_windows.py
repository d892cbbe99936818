"""Windows over the end of one run, against the rule as it is printed, over tables of outcomes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcli.errors import ValidationError
from soupcli.mixing.mixture import Mixture
from soupcli.soups.windows import windows
from tests.helpers.outcomes import TableEvaluate, checkpoints, random_outcomes


def reference(names: list[str], sizes: set[int], goodness: dict[int, float]) -> int:
    """The size of the window that is taken: the best one, the smallest of equal ones; NaN never."""
    found = 1
    for size in sorted(sizes):
        if goodness[size] > goodness[found]:
            found = size
    return found


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 9),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    higher=st.booleans(),
)
def test_equals_the_rule(seed: int, count: int, sizes: list[int], higher: bool) -> None:
    """The best window is taken, with one evaluation for each size and one for the last checkpoint alone."""
    names, sizes = list("abcdefghi"[:count]), [min(size, count) for size in sizes]
    value = random_outcomes(seed, [0.0, 0.25, 0.5, 1.0, math.nan])
    of_size = {size: value(frozenset(names[-size:])) for size in {1, *sizes}}
    if math.isnan(of_size[1]):
        return
    evaluate = TableEvaluate(value, higher=higher)
    soup = windows(checkpoints(names), sizes, evaluate, mix=Mixture.uniform)
    best = reference(names, set(sizes), {size: v if higher else -v for size, v in of_size.items()})
    assert [str(member.path) for member in soup.mixture.members] == names[-best:]
    assert len(evaluate.asked) == len(soup.steps) == len(of_size)
    assert [len(step.members) for step in soup.steps] == sorted(of_size)
    assert soup.score.value == of_size[best]


def test_not_a_number() -> None:
    """A last checkpoint whose score is not a number is an error, as the start of any search is."""
    with pytest.raises(ValidationError, match="is not a number"):
        windows(checkpoints(["a", "b"]), [2], TableEvaluate(lambda members: math.nan), mix=Mixture.uniform)
