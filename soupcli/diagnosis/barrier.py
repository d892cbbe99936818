"""Whether ingredients lie in one basin: the loss half way between each of them and the mean of all.

Between two networks with a common start the loss hardly rises on the straight line from one to the other; between
strangers it does (Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis",
arXiv:1912.05671). There both ends are trained, and the barrier is the rise above their mean; here one end is a mean
that may itself be bad, so the middle is held against the ingredient alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from soupcli.mixing.mixture import Mixture

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.score import Score

LOSS = "nll"


class Barrier(NamedTuple):
    """Scores on one set: of each ingredient, half way from it to the mean, and of the mean."""

    alone: list[Score]
    half_way: list[Score]
    mean: Score
    settled_mean: Score | None = None  # the mean with batch-norm statistics estimated for it

    @property
    def metric(self) -> str:
        """What heights are told in: the loss where it was measured, else the metric that selects."""
        return LOSS if LOSS in self.mean.metrics else self.mean.selecting

    def height(self, ingredient: int) -> float:
        """How much worse it is half way than the ingredient alone; negative where it is better."""
        middle, alone = (scores[ingredient].metrics[self.metric].value for scores in (self.half_way, self.alone))
        lower_is_better = self.metric == LOSS or not self.mean.higher_is_better
        return (middle - alone) * (1 if lower_is_better else -1)


def half_way(mean: Checkpoint, member: Checkpoint) -> Mixture:
    """The middle between a member and the mean of all."""
    return Mixture.uniform([mean, member], keep_from=member)
