"""Pruned soup: the mean of all, minus members that do not help (Dansereau et al. 2023, arXiv:2301.10092).

members ← all ingredients
repeat
    for θ in members, worst first:
        if ValAcc(average(members - {θ})) ≥ ValAcc(average(members)) then members ← members - {θ}
until a pass takes nothing away
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from soupcli.mixing.mixture import Mixture
from soupcli.progress import Progress, silent
from soupcli.soups.decision import Rule, Step, begin, decide, describe_score
from soupcli.soups.greedy import GreedySoup

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.score import Evaluate
    from soupcli.soups.ranking import Ranked


def pruned(
    ranking: Sequence[Ranked],
    evaluate: Evaluate,
    *,
    accept: Literal[">=", ">"] = ">=",
    min_delta: float = 0.0,
    average: Callable[[Sequence[Checkpoint]], Mixture] = Mixture.uniform,
    progress: Progress = silent,
) -> GreedySoup:
    """Remove members, the worst first, until no removal keeps the score.

    At most k (k + 1) / 2 evaluations of k ingredients, and k + 1 if none can be spared. On the selecting set the
    soup is at least as good as the mean of all; the best ingredient may be better, which `search` checks.
    Raises ValidationError if the score of the mean of all is not a number.
    """
    members = [ranked.checkpoint for ranked in ranking]
    soup = average(members)
    best, start = begin(soup, evaluate, candidate=members[0])
    steps: list[Step] = [start._replace(members=soup.members)]
    progress("pruning", 1, len(ranking), note=f"mean of all: {best.selecting} {best.shown}: start")
    taken = True
    while taken and len(members) > 1:
        taken = False
        for done, candidate in enumerate(reversed(list(members)), 1):
            if len(members) == 1:
                break
            trial = average([member for member in members if member is not candidate])
            score, step = decide(trial, evaluate, best, Rule(accept, min_delta), candidate=candidate, action="remove")
            steps.append(step)
            if step.accepted:
                members = [member for member in members if member is not candidate]
                best, soup, taken = score, trial, True
            word = "taken away" if step.accepted else "stays"
            note = f"without {candidate.path}: {describe_score(score)}: {word}"
            progress("pruning", done, len(ranking), note=note)
    return GreedySoup(soup, best, steps)
