"""Greedy soup: Recipe 1 of Wortsman et al. 2022 (arXiv:2203.05482).

Input: ingredients θ1 ... θk, sorted in decreasing order of ValAcc(θi)
ingredients ← {}
for i = 1 to k do
    if ValAcc(average(ingredients ∪ {θi})) ≥ ValAcc(average(ingredients)) then
        ingredients ← ingredients ∪ {θi}
return average(ingredients)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.mixing import Mixture
from soupcli.errors import ValidationError
from soupcli.progress import Progress, silent
from soupcli.soups.ranking import Ranked, unannounced
from soupcli.validation.score import Evaluate, Score


class Step(NamedTuple):
    """One decision: the score of members and candidate together, and what it was held against (None: the start)."""

    candidate: Checkpoint
    score: float
    threshold: float | None
    accepted: bool
    reason: str
    examples: int
    seconds: float


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
    progress: Progress = silent,
) -> GreedySoup:
    """Recipe 1 over a ranking, best first.

    A candidate stays when the score of the mean of members and candidate is at least (`>=`) or more than (`>`) the
    members' own plus `min_delta`. The start is evaluated like every candidate. `announce` hears of the next candidate
    before one is evaluated. Raises ValidationError where the best ingredient's score is not a number.
    """
    members = [ranking[0].checkpoint]
    began = time.monotonic()
    soup = average(members)
    best = evaluate(soup)
    if math.isnan(best.value):
        raise ValidationError(
            f"{members[0].path}: {best.selecting} is not a number, and no ingredient is better",
            hint="soup rank shows every score",
        )
    steps = [Step(members[0], best.value, None, True, "start", best.examples, time.monotonic() - began)]
    progress("greedy", 1, len(ranking), note=f"{members[0].path}: {best.selecting} {best.value:.4f}: start")
    for done, (candidate, _) in enumerate(ranking[1:], 2):
        began = time.monotonic()
        if done < len(ranking):
            announce(ranking[done].checkpoint)
        trial = average([*members, candidate])
        needed = best.goodness + min_delta
        at_least = needed if accept == ">=" else math.nextafter(needed, math.inf)
        score = evaluate(trial, at_least=at_least)
        enough = score.goodness >= needed if accept == ">=" else score.goodness > needed
        accepted = enough and not math.isnan(score.value)
        threshold = needed if score.higher_is_better else -needed
        reason = _reason(score, threshold, accepted)
        steps.append(
            Step(candidate, score.value, threshold, accepted, reason, score.examples, time.monotonic() - began)
        )
        if accepted:
            members, best, soup = [*members, candidate], score, trial
        note = f"{candidate.path}: {score.selecting} {score.value:.4f}: {'kept' if accepted else 'left out'}"
        progress("greedy", done, len(ranking), note=note)
    return GreedySoup(soup, best, steps)


def _reason(score: Score, threshold: float, accepted: bool) -> str:
    if math.isnan(score.value):
        return "not a number"
    if accepted:
        return "equal" if score.value == threshold else "better"
    return "not better" if score.value == threshold else "worse"
