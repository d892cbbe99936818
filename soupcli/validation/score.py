"""What an evaluation gives, and what a recipe for soups asks of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from torch import Tensor

from soupcli.checkpoints.mixing import Mixture


class MetricValue(NamedTuple):
    """A metric over `n` examples (None: not said), with the standard error of the value where there is one."""

    value: float
    stderr: float | None
    n: int | None


class Score(NamedTuple):
    """All metrics of one set of weights on one validation set; one of them selects.

    `examples` went through the network to find it: 0 where the score was kept from an earlier run. `outcomes` holds
    what each example contributed to a metric, Tensor[N] by metric, in the order of the set. `refused` says why these
    weights may not be taken, however good they are here.
    """

    metrics: Mapping[str, MetricValue]
    selecting: str
    higher_is_better: bool
    examples: int
    outcomes: Mapping[str, Tensor]
    refused: str | None = None

    @property
    def value(self) -> float:
        """The selecting metric."""
        return self.metrics[self.selecting].value

    @property
    def goodness(self) -> float:
        """What to sort by: larger is better; a NaN is worse than everything."""
        if math.isnan(self.value):
            return -math.inf
        return self.value if self.higher_is_better else -self.value


class Evaluate(Protocol):
    """Any task: in process, python, command."""

    def __call__(self, weights: Mixture, *, at_least: float | None = None) -> Score:
        """The score of a mixture; may stop early once a goodness of `at_least` is out of reach."""
