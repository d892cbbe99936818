"""Checks whether a kept state belongs to this fit, by the number and the values of its entries."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from soupcli.soups.learned.fit import Round

if TYPE_CHECKING:
    from collections.abc import Sequence

MOMENTS = {"values", "first_moment", "second_moment"}


def is_state(state: Any, shape: Sequence[int], *, steps: int, folds: int) -> bool:
    """Whether `state` is that of a fit of `steps` steps with coefficients of this shape (layers, members)."""
    if not isinstance(state, dict) or state.keys() != {"finished", "now"} or not isinstance(state["finished"], list):
        return False
    finished, now = state["finished"], state["now"]
    if len(finished) + (now is not None) > folds:
        return False
    whole = all(_are_rounds(rounds, shape) and rounds[-1][0] == steps for rounds in finished)
    return whole and (now is None or _is_going_on(now, shape, steps))


def _is_going_on(now: Any, shape: Sequence[int], steps: int) -> bool:
    if not isinstance(now, dict) or now.keys() != {"done", "rounds", "free", "log_beta"}:
        return False
    if not _are_rounds(now["rounds"], shape) or now["done"] != now["rounds"][-1][0] or now["done"] > steps:
        return False
    return _are_moments(now["free"], shape) and _are_moments(now["log_beta"], (1, 1))


def _are_moments(moments: Any, shape: Sequence[int]) -> bool:
    whole = isinstance(moments, dict) and moments.keys() == MOMENTS
    return whole and all(_is_matrix(numbers, shape) for numbers in moments.values())


def _are_rounds(rounds: Any, shape: Sequence[int]) -> bool:
    """Whether rounds begin at step 0, each later than the one before."""
    if not isinstance(rounds, list) or not rounds or not all(_is_round(each, shape) for each in rounds):
        return False
    steps = [each[0] for each in rounds]
    return steps[0] == 0 and all(one < other for one, other in pairwise(steps))


def _is_round(each: Any, shape: Sequence[int]) -> bool:
    if not isinstance(each, list) or len(each) != len(Round._fields) or type(each[0]) is not int:
        return False
    found = Round(*each)
    numbers = (found.fitted, found.held_out, found.gain, found.square, found.beta)
    return all(map(_is_number, numbers)) and found.beta > 0 and _is_matrix(found.alpha, shape)


def _is_matrix(rows: Any, shape: Sequence[int]) -> bool:
    if not isinstance(rows, list) or len(rows) != shape[0]:
        return False
    return all(isinstance(row, list) and len(row) == shape[1] and all(map(_is_number, row)) for row in rows)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
