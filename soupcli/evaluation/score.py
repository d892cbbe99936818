"""The result of an evaluation, and the function type that evaluates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from soupcli.metrics.direction import direction_of
from soupcli.metrics.table import defined
from soupcli.wording import shown

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.evaluation.outcomes import Packed
    from soupcli.metrics.metric import MetricValue
    from soupcli.mixing.mixture import Mixture


class Stopped(NamedTuple):
    """Where an evaluation was given up: after `seen` of `total` examples, with `bound` the best left to reach."""

    seen: int
    total: int
    bound: float


class Score(NamedTuple):
    """All metrics of one set of weights on one validation set; one of them selects.

    `examples` went through the network to find it: 0 if the score was kept from an earlier run. `outcomes` holds
    what each example contributed to a metric, Tensor[N] by metric, in the order of the set; `difficulty`, uint8 [N] or
    packed, how far the network was off each example (see hardest_first.py). An evaluation that was `stopped` has none
    of these and no metrics. `refused` says why these weights may not be taken, however good they are here.
    """

    metrics: Mapping[str, MetricValue]
    selecting: str
    higher_is_better: bool
    examples: int
    outcomes: Mapping[str, Tensor]
    refused: str | None = None
    stopped: Stopped | None = None
    difficulty: Tensor | Packed | None = None

    @property
    def value(self) -> float:
        """The selecting metric; NaN if the evaluation was stopped."""
        return math.nan if self.stopped is not None else self.metrics[self.selecting].value

    @property
    def shown(self) -> str:
        """The value as tables have it: `95.12%`, `0.1834`."""
        return shown(self.selecting, self.value, None)

    @property
    def goodness(self) -> float:
        """What to sort by: larger is better; a NaN is worse than everything."""
        return goodness_of(self.value, higher_is_better=self.higher_is_better)


def goodness_of(value: float, *, higher_is_better: bool) -> float:
    """A metric's value as what is better the larger it is; a NaN is worse than everything."""
    if math.isnan(value):
        return -math.inf
    return value if higher_is_better else -value


class Evaluate(Protocol):
    """Any task: in process, python, command."""

    def __call__(self, weights: Mixture, *, at_least: float | None = None) -> Score:
        """The score of a mixture; may be stopped once a goodness of `at_least` is out of reach, and never otherwise."""


def is_higher_better(metric: str, score: Score) -> bool:
    """Whether more of one of the score's metrics is better: by its name, else as of the one that selects."""
    if metric == score.selecting:
        return score.higher_is_better
    if (definition := defined(metric)) is not None:
        return definition.higher_is_better
    known = direction_of(metric)
    return score.higher_is_better if known is None else known
