"""Several validation sets judged at once: each scaled to the best ingredient on it, then their mean or the worst.

The gain of a soup on a set, whose best ingredient scores b there, is (score - b) / |b|; of metrics that are better
when lower, (b - score) / |b|. So one per cent of accuracy and one per cent of a loss count the same, and 0 is as good
as the best ingredient of that set. The objective is the weighted mean of the gains, or the least of them.

objective = scaled("worst", {"val": 1, "other": 1}, scores_of_ingredients, limits={"val": None, "other": None})
evaluate = judging(objective, {"val": on_val, "other": on_other})
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from soupcli.errors import ValidationError
from soupcli.evaluation.score import Score, Stopped
from soupcli.metrics.metric import MetricValue

if TYPE_CHECKING:
    from soupcli.evaluation.score import Evaluate
    from soupcli.mixing.mixture import Mixture

Kind = Literal["mean", "worst"]
NAME = "objective"  # the metric of its scores
SLACK = 1e-9  # relative: more than what rounding makes of a threshold that is taken from one scale to another


@dataclass(frozen=True)
class Goal:
    """One of the sets: its weight, the best ingredient's score, and the best possible score (None: unknown)."""

    name: str
    weight: float
    best: float
    higher_is_better: bool
    limit: float | None
    examples: int

    def gain(self, value: float) -> float:
        """Return the gain over the best ingredient's score, as a share of that score."""
        return (value - self.best if self.higher_is_better else self.best - value) / abs(self.best)

    @property
    def most(self) -> float:
        """A gain that no soup can exceed."""
        return math.inf if self.limit is None else self.gain(self.limit)


@dataclass(frozen=True)
class Objective:
    """The function from scores on several sets to one number."""

    kind: Kind
    goals: tuple[Goal, ...]

    def of(self, gains: Sequence[float]) -> float:
        """Return the objective of a gain on each set; NaN if one is NaN. It never falls when a gain rises."""
        if any(map(math.isnan, gains)):
            return math.nan
        if self.kind == "worst":
            return min(gains)
        total = math.fsum(goal.weight for goal in self.goals)
        products = [goal.weight * gain for goal, gain in zip(self.goals, gains, strict=True)]
        return math.inf if math.inf in products and -math.inf not in products else math.fsum(products) / total

    def at_most(self, known: Sequence[float]) -> float:
        """Return the highest objective still possible, given the gains on the first sets."""
        return self.of([*known, *(goal.most for goal in self.goals[len(known) :])])

    def needed(self, known: Sequence[float], at_least: float) -> float | None:
        """Return the goodness needed on the next set for the objective to reach `at_least`, or None if none is."""
        goal = self.goals[len(known)]
        gain, size = at_least, abs(at_least)
        if self.kind == "mean":
            gains = [*known, 0.0, *(other.most for other in self.goals[len(known) + 1 :])]
            products = [one.weight * of_one for one, of_one in zip(self.goals, gains, strict=True)]
            total = at_least * math.fsum(one.weight for one in self.goals)
            if not all(map(math.isfinite, products)):
                return None
            gain = (total - math.fsum(products)) / goal.weight
            size = (abs(total) + math.fsum(map(abs, products))) / goal.weight
        sign = 1 if goal.higher_is_better else -1
        found = sign * goal.best + abs(goal.best) * (gain - SLACK * (1 + size))
        return found if math.isfinite(found) else None


def scaled(
    kind: Kind,
    weights: Mapping[str, float],
    alone: Sequence[Mapping[str, Score]],
    *,
    limits: Mapping[str, float | None],
) -> Objective:
    """Return the objective over the sets of `weights`, scaled to the best of `alone`, the ingredients' scores by set.

    `limits` has the best possible score on each set. Raises ValidationError if the best ingredient's score is 0 or not
    finite, because nothing can be scaled to it.
    """
    goals = []
    for name, weight in weights.items():
        best = max((scores[name] for scores in alone), key=lambda score: score.goodness)
        if best.value == 0 or not math.isfinite(best.value):
            raise ValidationError(
                f"objective: the best ingredient's {best.selecting} on {name} is {best.value:g}, nothing to scale to",
                hint=f"leave {name} out of the objective, or choose another metric there",
            )
        examples = best.metrics[best.selecting].n or 0
        goals.append(Goal(name, weight, best.value, best.higher_is_better, limits[name], examples))
    return Objective(kind, tuple(goals))


def judging(objective: Objective, on: Mapping[str, Evaluate], *, give_up: bool = True) -> Evaluate:
    """Return the function that evaluates mixtures by the objective, one set after the other.

    With `give_up`, the evaluation stops once `at_least` is out of reach.
    """

    def evaluate(weights: Mixture, *, at_least: float | None = None) -> Score:
        gains: list[float] = []
        seen = 0
        for goal in objective.goals:
            wanted = objective.needed(gains, at_least) if at_least is not None and give_up else None
            score = on[goal.name](weights, at_least=wanted)
            seen += score.examples
            if score.stopped is not None:
                bound = objective.at_most([*gains, goal.gain(score.stopped.bound)])
                return _given_up(objective, seen, len(gains), score.stopped.seen, bound)
            gains.append(goal.gain(score.value))
            most = objective.at_most(gains)
            if at_least is not None and give_up and len(gains) < len(objective.goals) and most < at_least:
                return _given_up(objective, seen, len(gains), 0, most)
        return judged(objective, gains, seen)

    return evaluate


def judged(objective: Objective, gains: Sequence[float], examples: int = 0) -> Score:
    """Return the objective's score for a gain on each set."""
    value = MetricValue(objective.of(gains), None, sum(goal.examples for goal in objective.goals) or None)
    return Score({NAME: value}, NAME, True, examples, {})


def _given_up(objective: Objective, examples: int, sets: int, seen_of_next: int, bound: float) -> Score:
    seen = sum(goal.examples for goal in objective.goals[:sets]) + seen_of_next
    stopped = Stopped(seen, sum(goal.examples for goal in objective.goals), bound)
    return Score({}, NAME, True, examples, {}, stopped=stopped)
