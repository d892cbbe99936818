"""Ingredients and evaluations for tests of soups/: no files, every mixture has one outcome for each example."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from soupcli.checkpoints.checkpoint import TensorSpec
from soupcli.checkpoints.dtype import Dtype
from soupcli.evaluation.score import Score
from soupcli.metrics.metric import MetricValue
from soupcli.mixing.mixture import Mixture


class Named:
    """A Checkpoint that is nothing but its path; reading it is a mistake."""

    tensors = {"w": TensorSpec((1,), Dtype.FLOAT32)}  # noqa: RUF012 - the protocol's attribute
    files = ()
    side_files = ()
    side_folder = None
    members = ()

    def __init__(self, name: str) -> None:
        self.path = Path(name)

    def read(self, name: str, out: Tensor, *, start: int = 0) -> None:
        """No function of soups/ reads tensors."""
        raise AssertionError(f"{self.path}: {name} was read")


def score_of(value: float, *, higher: bool = True, n: int = 10) -> Score:
    """A score of one metric."""
    return Score({"metric": MetricValue(value, None, n)}, "metric", higher, n, {})


class TableEvaluate:
    """An Evaluate that looks up what each set of members scores, and remembers what it was asked."""

    def __init__(self, value: Callable[[frozenset[str]], float], *, higher: bool = True) -> None:
        self.value = value
        self.higher = higher
        self.asked: list[frozenset[str]] = []

    def __call__(self, weights: Mixture, *, at_least: float | None = None) -> Score:
        """See soupcli.evaluation.score.Evaluate."""
        members = frozenset(str(member.path) for member in weights.members)
        self.asked.append(members)
        return score_of(self.value(members), higher=self.higher)


def random_outcomes(seed: int, values: list[float]) -> Callable[[frozenset[str]], float]:
    """A value for every set of members, the same each time, drawn from `values` so that ties are common."""

    def value(members: frozenset[str]) -> float:
        digest = hashlib.sha256(f"{seed}:{sorted(members)}".encode()).digest()
        return values[digest[0] % len(values)]

    return value


def recipe_1(
    names: list[str], value: Callable[[frozenset[str]], float], *, higher: bool, accept: str, min_delta: float
) -> list[str]:
    """Recipe 1 of the paper, as it is printed there; members in the order of acceptance."""

    def goodness(*members: str) -> float:
        found = value(frozenset(members))
        return found if higher else -found

    def best_first(name: str) -> tuple[bool, float, str]:
        return math.isnan(goodness(name)), -goodness(name), name

    sorted_names = sorted(names, key=best_first)
    members = sorted_names[:1]
    for name in sorted_names[1:]:
        with_it, needed = goodness(*members, name), goodness(*members) + min_delta
        if with_it > needed or (accept == ">=" and with_it == needed):
            members.append(name)
    return members


def checkpoints(names: list[str]) -> list[Any]:
    """A checkpoint for each name."""
    return [Named(name) for name in names]
