"""Tries several independent mixtures, and takes the best on the selecting set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from soupcli.progress import Progress, silent
from soupcli.soups.decision import Rule, begin, decide, describe_score
from soupcli.soups.greedy import Foresee, GreedySoup, unforeseen

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.score import Evaluate
    from soupcli.mixing.mixture import Mixture


class Trial(NamedTuple):
    """A mixture to try, and its name in progress lines."""

    name: str
    mixture: Mixture


def best_of(
    start: Trial,
    trials: Sequence[Trial],
    evaluate: Evaluate,
    *,
    candidate: Checkpoint,
    phase: str,
    foresee: Foresee = unforeseen,
    progress: Progress = silent,
) -> GreedySoup:
    """Return the best of `start` and all trials, the first of equally good ones. Each costs one evaluation.

    `candidate` is the ingredient that the steps name. Raises ValidationError if the start's score is not a number.
    """
    soup = start.mixture
    best, first = begin(soup, evaluate, candidate=candidate, action="take")
    steps = [first]
    progress(phase, 1, len(trials) + 1, note=f"{start.name}: {best.selecting} {best.shown}: start")
    with foresee(trial.mixture for trial in trials):
        for done, trial in enumerate(trials, 2):
            score, step = decide(trial.mixture, evaluate, best, Rule(">"), candidate=candidate, action="take")
            steps.append(step)
            if step.accepted:
                best, soup = score, trial.mixture
            progress(phase, done, len(trials) + 1, note=f"{trial.name}: {describe_score(score)}: {step.reason}")
    return GreedySoup(soup, best, steps)
