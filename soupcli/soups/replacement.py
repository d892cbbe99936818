"""Greedy soup with replacement: the best addition of each round, whether it is a member already or not.

It is the ensemble selection of Caruana et al. 2004 (doi:10.1145/1015330.1015432, section 2.1) on weights instead of
outputs: an ingredient that is added twice counts twice, so the soup's weights are whole numbers over their sum.

counts ← {best ingredient: 1}
repeat
    θ ← the ingredient whose further addition scores best
    if ValAcc(average(counts + θ)) > ValAcc(average(counts)) then counts ← counts + θ
until no addition is better
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.groups import members_of
from soupcli.mixing.mixture import Mixture, shared_out
from soupcli.progress import Progress, silent
from soupcli.soups.decision import Rule, Step, begin, decide
from soupcli.soups.greedy import GreedySoup

if TYPE_CHECKING:
    from soupcli.evaluation.score import Evaluate, Score
    from soupcli.soups.ranking import Ranked

Counts = Mapping[Checkpoint, int]


def with_replacement(
    ranking: Sequence[Ranked],
    evaluate: Evaluate,
    *,
    rounds: int,
    min_delta: float = 0.0,
    average: Callable[[Sequence[Checkpoint]], Mixture] = Mixture.uniform,
    progress: Progress = silent,
) -> GreedySoup:
    """Make at most `rounds` additions. Each is the best one, and better than the soup before by `min_delta`.

    Of equally good additions the higher-ranked is taken. Each ingredient and round costs one evaluation. Raises
    ValidationError if the best ingredient's score is not a number.
    """
    first = ranking[0].checkpoint
    counts: dict[Checkpoint, int] = {first: 1}
    soup = average([first])
    best, start = begin(soup, evaluate, candidate=first)
    steps: list[Step] = [start]
    progress("greedy", 0, rounds, note=f"{first.path}: {best.selecting} {best.shown}: start")
    for number in range(1, rounds + 1):
        tried, winner, score = _round(ranking, counts, evaluate, best, min_delta, average)
        steps += tried
        if winner is None:
            break
        counts[winner] = counts.get(winner, 0) + 1
        best, soup = score, weighted(counts, average)
        note = f"{winner.path}: {best.selecting} {best.shown}: added, now {counts[winner]} of {number + 1}"
        progress("greedy", number, rounds, note=note)
    return GreedySoup(soup, best, steps)


def _round(
    ranking: Sequence[Ranked],
    counts: Counts,
    evaluate: Evaluate,
    best: Score,
    min_delta: float,
    average: Callable[[Sequence[Checkpoint]], Mixture],
) -> tuple[list[Step], Checkpoint | None, Score]:
    """Try every addition. Returns the steps, the best addition that improves the soup, or None, and its score.

    An addition is evaluated no further than it takes to see that it is not better than the best of the round.
    """
    steps: list[Step] = []
    winner, leading, rule = None, best, Rule(">", min_delta)
    for candidate, _ in ranking:
        if counts.keys() == {candidate}:  # it would be the same soup
            continue
        trial = weighted({**counts, candidate: counts.get(candidate, 0) + 1}, average)
        score, step = decide(trial, evaluate, leading, rule, candidate=candidate)
        if step.accepted:
            steps = [_beaten(earlier) if earlier.accepted else earlier for earlier in steps]
            winner, leading, rule = candidate, score, Rule(">")
        steps.append(step)
    return steps, winner, leading


def _beaten(step: Step) -> Step:
    return step._replace(accepted=False, reason="another is better")


def weighted(counts: Counts, average: Callable[[Sequence[Checkpoint]], Mixture]) -> Mixture:
    """Return the mean in which each ingredient counts as often as `counts` says."""
    total, mean = sum(counts.values()), average(list(counts))
    sizes = [len(members_of(one)) for one in counts]
    weights = shared_out([count / total for count in counts.values()], sizes)
    return Mixture(mean.members, weights, mean.dtype, mean.keep_from)
