"""Greedy soup: Recipe 1 of Wortsman et al. 2022 (arXiv:2203.05482).

Input: ingredients θ1 ... θk, sorted in decreasing order of ValAcc(θi)
ingredients ← {}
for i = 1 to k do
    if ValAcc(average(ingredients ∪ {θi})) ≥ ValAcc(average(ingredients)) then
        ingredients ← ingredients ∪ {θi}
return average(ingredients)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal, NamedTuple

from soupcli.mixing.mixture import Mixture
from soupcli.progress import Progress, silent
from soupcli.soups.decision import Rule, Step, begin, decide, describe_score
from soupcli.soups.ranking import Ranked, unannounced

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.score import Evaluate, Score


Foresee = Callable[[Iterator[Mixture]], AbstractContextManager[None]]


def unforeseen(_coming: Iterator[Mixture]) -> AbstractContextManager[None]:
    """A context that ignores announced mixtures."""
    return nullcontext()


class GreedySoup(NamedTuple):
    """The mean of `mixture.members`, in the order of acceptance, with its score on the selecting set."""

    mixture: Mixture
    score: Score
    steps: list[Step]


def greedy(
    ranking: Sequence[Ranked],
    evaluate: Evaluate,
    *,
    accept: Literal[">=", ">"] = ">=",
    min_delta: float = 0.0,
    average: Callable[[Sequence[Checkpoint]], Mixture] = Mixture.uniform,
    announce: Callable[[Checkpoint], None] = unannounced,
    foresee: Foresee = unforeseen,
    progress: Progress = silent,
) -> GreedySoup:
    """Recipe 1 over a ranking, best first, or in any other order.

    A candidate stays if the score of the mean of members and candidate is at least (`>=`) or more than (`>`) the
    members' own plus `min_delta`. The start is evaluated like every candidate. Before each evaluation, `announce` is
    called with the next candidate, and `foresee` with the mixtures that follow if candidates are left out. Raises
    ValidationError if the first ingredient's score is not a number.
    """
    members = [ranking[0].checkpoint]
    soup = average(members)
    best, start = begin(soup, evaluate, candidate=members[0])
    steps = [start]
    progress("greedy", 1, len(ranking), note=f"{members[0].path}: {best.selecting} {best.shown}: start")
    for done, (candidate, _) in enumerate(ranking[1:], 2):
        if done < len(ranking):
            announce(ranking[done].checkpoint)
        trial = average([*members, candidate])
        coming = (average([*members, other.checkpoint]) for other in ranking[done - 1 :])
        with foresee(coming):  # all of them, if none of them is kept
            score, step = decide(trial, evaluate, best, Rule(accept, min_delta), candidate=candidate)
        steps.append(step)
        if step.accepted:
            members, best, soup = [*members, candidate], score, trial
        note = f"{candidate.path}: {describe_score(score)}: {'kept' if step.accepted else 'left out'}"
        progress("greedy", done, len(ranking), note=note)
    return GreedySoup(soup, best, steps)
