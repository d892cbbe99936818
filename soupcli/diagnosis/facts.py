"""The facts about a family of ingredients, from which verdicts are made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from soupcli.diagnosis.barrier import LOSS, Barrier
from soupcli.evaluation.paired_difference import PairedDifference, difference

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.compare.differences import CheckpointDifference
    from soupcli.checkpoints.compare.settings import Setting
    from soupcli.diagnosis.spread import WeightDistances
    from soupcli.evaluation.score import Score


class BaseAmongThem(NamedTuple):
    """Whether a base that lies among or beside the ingredients is one of them: its score, and how long its rows are."""

    score: Score | None
    rows_beyond: float | None  # the share that are longer or shorter than those of all ingredients


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that was found. What could not be examined is None."""

    checkpoints: Sequence[Checkpoint]
    differences: Sequence[CheckpointDifference] = ()
    not_finite: Sequence[tuple[Checkpoint, str, float]] = ()  # tensor and first such value
    duplicates: Sequence[tuple[Checkpoint, Checkpoint]] = ()
    settings: Sequence[Setting] = ()
    located: Sequence[Checkpoint] = ()  # those that the spread is of: all whose numbers are finite
    spread: WeightDistances | None = None
    barrier: Barrier | None = None
    reordered: Mapping[tuple[int, int], str] = field(default_factory=dict)  # pair -> a layer with rows in other places
    base: BaseAmongThem | None = None  # of a base that lies as one more ingredient would
    ranges: Sequence[str] = ()  # tensors of quantisation-aware training that are not the same in all

    @property
    def adapters(self) -> bool:
        """Whether all ingredients are adapters, which have no new layers."""
        return bool(self.located) and all(one.is_adapter for one in self.located)

    def name(self, ingredient: int) -> str:
        """Return the path of one of the ingredients that were measured."""
        return str(self.located[ingredient].path)


def better_by(one: Score, other: Score) -> PairedDifference:
    """Return how much better the first score is in the selecting metric; positive if it is better."""
    found = difference(one, other, one.selecting)
    if one.higher_is_better:
        return found
    low, high = found.low, found.high
    return PairedDifference(-found.value, None if high is None else -high, None if low is None else -low, found.p)


def surely_better(one: Score, other: Score) -> bool:
    """Whether the first score is surely better, by interval and test, or without them by two standard errors."""
    found = better_by(one, other)
    if found.low is not None:
        return found.surely_above_0
    errors = [score.metrics[score.selecting].stderr for score in (one, other)]
    return found.value > 2 * math.hypot(*(error or 0.0 for error in errors))


def by_loss(score: Score) -> Score:
    """Return the score with the loss as selecting metric, if it has one. A loss says more of each example."""
    return score._replace(selecting=LOSS, higher_is_better=False) if LOSS in score.metrics else score
