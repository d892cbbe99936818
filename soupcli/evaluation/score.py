"""The result of an evaluation, and the type of functions that evaluate."""

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
    """Why an evaluation stopped early: after `seen` of `total` examples, `bound` was the best still within reach."""

    seen: int
    total: int
    bound: float


class Score(NamedTuple):
    """All metrics of one set of weights on one validation set; one of them selects.

    `examples` went through the network to find it: 0 if the score was kept from an earlier run. `outcomes` holds
    what each example contributed to a metric, Tensor[N] by metric, in the order of the set; `difficulty`, uint8 [N] or
    packed, how far the network was off each example (see hardest_first.py). An evaluation that was `stopped` has none
    of these and no metrics. `refused` says why these weights may not be taken, however good they are here. `unseen`
    names programs that took part, and of which nobody knows what they have read.
    """

    metrics: Mapping[str, MetricValue]
    selecting: str
    higher_is_better: bool
    examples: int
    outcomes: Mapping[str, Tensor]
    refused: str | None = None
    stopped: Stopped | None = None
    difficulty: Tensor | Packed | None = None
    unseen: tuple[str, ...] = ()

    @property
    def value(self) -> float:
        """The value of the selecting metric; NaN if the evaluation was stopped."""
        return math.nan if self.stopped is not None else self.metrics[self.selecting].value

    @property
    def shown(self) -> str:
        """The value as in tables: `95.12%`, `0.1834`."""
        return shown(self.selecting, self.value, None)

    @property
    def goodness(self) -> float:
        """The value to sort by: larger is better, and a NaN is worse than everything."""
        return goodness_of(self.value, higher_is_better=self.higher_is_better)


def goodness_of(value: float, *, higher_is_better: bool) -> float:
    """Return a metric's value such that larger is better. A NaN becomes worse than everything."""
    if math.isnan(value):
        return -math.inf
    return value if higher_is_better else -value


class Evaluate(Protocol):
    """A function from a mixture to a score, for any kind of set."""

    def __call__(self, weights: Mixture, *, at_least: float | None = None) -> Score:
        """Return the score of a mixture. It may stop early only if a goodness of `at_least` is out of reach."""


def is_higher_better(metric: str, score: Score) -> bool:
    """Whether higher is better for one of the score's metrics: by its name, else as for the selecting metric."""
    if metric == score.selecting:
        return score.higher_is_better
    if (definition := defined(metric)) is not None:
        return definition.higher_is_better
    known = direction_of(metric)
    return score.higher_is_better if known is None else known
