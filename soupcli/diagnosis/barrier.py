"""Tests whether ingredients are in one basin, by the loss half way between each of them and the mean of all.

Between two networks with a common start the loss hardly rises on the straight line from one to the other. Between
networks with different starts it does (Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket
Hypothesis", arXiv:1912.05671). In the paper both ends are trained, and the barrier is the rise above their mean. Here
one end is a mean that may itself be bad, so the middle is compared only with the ingredient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from soupcli.mixing.mixture import Mixture
from soupcli.progress import Progress, silent

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.score import Evaluate, Score

LOSS = "nll"


class Barrier(NamedTuple):
    """Scores on one set: each ingredient, half way from it to the mean, the mean, and the mean without it."""

    alone: list[Score]
    half_way: list[Score]
    mean: Score
    settled_mean: Score | None = None  # the mean with batch-norm statistics estimated for it
    without: Sequence[Score] = ()  # the mean of all others; nothing of two ingredients
    with_best: Sequence[Score] = ()  # the mean of it and the best ingredient

    @property
    def soup(self) -> Score:
        """The mean's score, with re-estimated batch-norm statistics if there are any."""
        return self.mean if self.settled_mean is None else self.settled_mean

    @property
    def best(self) -> int:
        """The best ingredient's score."""
        return max(range(len(self.alone)), key=lambda one: self.alone[one].goodness)

    @property
    def metric(self) -> str:
        """The metric of the heights: the loss if it was measured, else the selecting metric."""
        return LOSS if LOSS in self.mean.metrics else self.mean.selecting

    def height(self, ingredient: int) -> float:
        """Return how much worse half way is than the ingredient; negative if it is better."""
        middle, alone = (scores[ingredient].metrics[self.metric].value for scores in (self.half_way, self.alone))
        lower_is_better = self.metric == LOSS or not self.mean.higher_is_better
        return (middle - alone) * (1 if lower_is_better else -1)


def half_way(mean: Checkpoint, member: Checkpoint) -> Mixture:
    """Return the middle between a member and the mean of all."""
    return Mixture.uniform([mean, member], keep_from=member)


MANY = 8  # members of which each mean of all others is read from the others themselves


def without(members: Sequence[Checkpoint], one: Checkpoint, mean: Checkpoint) -> Mixture:
    """Return the mean of all members but one. It reads two files: the mean of all, and that member."""
    others = [member for member in members if member != one]
    narrow = any(spec.dtype.itemsize < 4 for spec in one.tensors.values() if spec.dtype.is_floating_point)
    if len(members) <= MANY or narrow or not mean.places:
        return Mixture.uniform(others)
    return Mixture((mean, one), (len(members) / len(others), -1 / len(others)), None, others[0])


def with_effects(
    barrier: Barrier,
    members: Sequence[Checkpoint],
    mean: Checkpoint,
    evaluate: Evaluate,
    *,
    progress: Progress = silent,
) -> Barrier:
    """Add the effect of each of three or more members: the soup's score without it, and its mean with the best one.

    Nothing is evaluated if the soup is as good as the best ingredient. `mean` is the mean of all, in a file.
    """
    if len(members) < 3 or barrier.soup.goodness >= barrier.alone[barrier.best].goodness:
        return barrier
    best = members[barrier.best]
    left_out: list[Score] = []
    with_best: list[Score] = []
    for done, member in enumerate(members, 1):
        left_out.append(evaluate(without(members, member, mean)))
        pair = [best, member] if member != best else [best]
        with_best.append(evaluate(Mixture.uniform(pair)))
        progress("effects", done, len(members), note=f"without {member.path}: {left_out[-1].value:.4f}")
    return barrier._replace(without=left_out, with_best=with_best)
