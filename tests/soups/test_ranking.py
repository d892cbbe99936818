"""Ingredients sorted by their own score."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcli.errors import ValidationError
from soupcli.soups.ranking import rank
from tests.helpers.outcomes import TableEvaluate, checkpoints

VALUES = st.one_of(st.sampled_from([0.0, 0.5, 0.75, 1.0]), st.just(math.nan), st.floats(0, 1))


def ranked_names(values: dict[str, float], *, higher: bool = True) -> list[str]:
    evaluate = TableEvaluate(lambda members: values[next(iter(members))], higher=higher)
    return [str(ranked.checkpoint.path) for ranked in rank(checkpoints(list(values)), evaluate)]


def test_best_first() -> None:
    """The best score comes first."""
    assert ranked_names({"a": 0.1, "b": 0.3, "c": 0.2}) == ["b", "c", "a"]


def test_lower_is_better() -> None:
    """Where lower is better the lowest comes first."""
    assert ranked_names({"a": 0.1, "b": 0.3, "c": 0.2}, higher=False) == ["a", "c", "b"]


def test_ties_in_path_order() -> None:
    """Equal scores stand in the order of their paths, whatever the order they came in."""
    assert ranked_names({"c": 0.5, "a": 0.5, "b": 0.5}) == ["a", "b", "c"]


def test_nan_last() -> None:
    """A NaN ranks last in both directions."""
    values = {"a": math.nan, "b": 0.0, "c": math.inf}
    assert ranked_names(values)[-1] == "a"
    assert ranked_names(values, higher=False)[-1] == "a"


def test_no_number_is_no_best() -> None:
    """If every score is NaN, nothing is the best."""
    with pytest.raises(ValidationError, match="not a number for any of the 2 checkpoints"):
        ranked_names({"a": math.nan, "b": math.nan})


FAMILIES = st.dictionaries(st.sampled_from("abcdefgh"), VALUES, min_size=1)


@given(FAMILIES.filter(lambda family: not all(map(math.isnan, family.values()))), st.booleans(), st.randoms())
def test_order_of_ingredients(values: dict[str, float], higher: bool, random: object) -> None:
    """Shuffled ingredients give the same ranking; every ingredient is in it once."""
    shuffled = list(values.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    ranking = ranked_names(values, higher=higher)
    assert ranking == ranked_names(dict(shuffled), higher=higher)
    assert sorted(ranking) == sorted(values)


def test_each_evaluated_once_and_told() -> None:
    """Each ingredient is evaluated alone, once, and each is told to `progress`."""
    told: list[str] = []
    evaluate = TableEvaluate(lambda members: 0.5)
    rank(checkpoints(["a", "b"]), evaluate, progress=lambda task, done, total, note="": told.append(f"{done} {note}"))
    assert evaluate.asked == [frozenset("a"), frozenset("b")]
    assert told == ["1 a: metric 0.5000", "2 b: metric 0.5000"]


def test_next_is_announced_before_one_is_evaluated() -> None:
    """The next ingredient is announced before the present one is evaluated, so that its reading overlaps."""
    events: list[str] = []

    def value(members: frozenset[str]) -> float:
        events.append(f"evaluated {''.join(members)}")
        return 0.5

    rank(checkpoints(["a", "b", "c"]), TableEvaluate(value), announce=lambda c: events.append(f"announced {c.path}"))
    assert events == ["announced b", "evaluated a", "announced c", "evaluated b", "evaluated c"]
