"""One decision of a search: evaluate a trial soup, and compare it with the soup so far."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

from soupcli.errors import ValidationError
from soupcli.wording import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.score import Evaluate, Score
    from soupcli.mixing.mixture import Mixture

Action = Literal["add", "remove", "take"]


class Step(NamedTuple):
    """One decision: the score of the trial soup, and what it was compared with (None: the start).

    `action` is what the trial did: `candidate` joins the members (`add`) or leaves them (`remove`), or the trial is an
    independent soup (`take`) of `members` with their `weights`, of which `candidate` is the best. If the evaluation was
    stopped, the score is NaN and `bound` is the best value that was still within reach.
    """

    candidate: Checkpoint
    score: float
    threshold: float | None
    accepted: bool
    reason: str
    examples: int
    seconds: float
    action: Action = "add"
    members: tuple[Checkpoint, ...] = ()
    bound: float | None = None
    weights: tuple[float, ...] = ()


class Rule(NamedTuple):
    """A trial is taken if it scores at least (`>=`) or more than (`>`) the soup so far plus `min_delta`."""

    accept: Literal[">=", ">"] = ">="
    min_delta: float = 0.0


def begin(soup: Mixture, evaluate: Evaluate, *, candidate: Checkpoint, action: Action = "add") -> tuple[Score, Step]:
    """Evaluate the start of a search. Raises ValidationError if its score is not a number."""
    began = time.monotonic()
    score = evaluate(soup)
    several = f"the mean of {len(soup.members)}" if len(soup.members) > 1 else None
    check_number(score, several or str(candidate.path), alone=several is None)
    members, weights = (soup.members, soup.weights) if action == "take" else ((), ())
    took = time.monotonic() - began
    step = Step(candidate, score.value, None, True, "start", score.examples, took, action, members)
    return score, step._replace(weights=weights)


def check_number(score: Score, name: str, *, alone: bool = True) -> None:
    """Raises ValidationError if the score that a search begins with, of the ingredient or mean `name`, is NaN."""
    if math.isnan(score.value):
        why = "no ingredient is better" if alone else "there is nothing to begin with"
        hint = "soup eval shows its scores"
        raise ValidationError(f"{name}: {score.selecting} is not a number, and {why}", hint=hint)


def check_any_number(scores: Iterable[Score], of: str) -> None:
    """Raises ValidationError if no score is a number, since nothing is then the best of them. `of` names them."""
    all_scores = list(scores)
    if all_scores and all(math.isnan(score.value) for score in all_scores):
        which = f"any of the {len(all_scores)} {of}" if len(all_scores) > 1 else f"the only one of the {of}"
        raise ValidationError(
            f"{all_scores[0].selecting}: not a number for {which}, so none is the best",
            hint="see what the evaluation returns for one: NaN comes from 0/0, overflow, or a set without examples",
        )


def decide(
    trial: Mixture,
    evaluate: Evaluate,
    best: Score,
    rule: Rule,
    *,
    candidate: Checkpoint,
    action: Action = "add",
) -> tuple[Score, Step]:
    """Evaluate `trial`, no further than the decision needs, and compare it with `best`."""
    began = time.monotonic()
    needed = best.goodness + rule.min_delta
    at_least = needed if rule.accept == ">=" else math.nextafter(needed, math.inf)
    score = evaluate(trial, at_least=at_least)
    enough = score.goodness >= needed if rule.accept == ">=" else score.goodness > needed
    accepted = enough and not math.isnan(score.value) and score.refused is None
    threshold = needed if score.higher_is_better else -needed
    reason = _reason(score, threshold, accepted)
    members, weights = (trial.members, trial.weights) if action == "take" else ((), ())
    bound = score.stopped.bound if score.stopped is not None else None
    took = time.monotonic() - began
    return score, Step(
        candidate, score.value, threshold, accepted, reason, score.examples, took, action, members, bound, weights
    )


def describe_score(score: Score) -> str:
    """Return e.g. `accuracy 95.12%`, or for a stopped trial `accuracy at most 94.67% after 38 of 300`."""
    if score.stopped is None:
        return f"{score.selecting} {score.shown}"
    side = "at most" if score.higher_is_better else "at least"
    seen, total, bound = score.stopped
    return f"{score.selecting} {side} {shown(score.selecting, bound, None)} after {seen} of {total}"


def _reason(score: Score, threshold: float, accepted: bool) -> str:
    if score.stopped is not None:
        return f"out of reach after {score.stopped.seen} of {score.stopped.total}"
    if math.isnan(score.value):
        return "not a number"
    if score.refused is not None:
        return score.refused
    if accepted:
        return "equal" if score.value == threshold else "better"
    return "not better" if score.value == threshold else "worse"
