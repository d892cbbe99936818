"""Several sets judged at once, against the definition; giving up early decides nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soupcli.errors import ValidationError
from soupcli.evaluation.score import Score, Stopped
from soupcli.metrics.metric import MetricValue
from soupcli.mixing.mixture import Mixture
from soupcli.recipe.methods import Greedy
from soupcli.soups.objective import Kind, Objective, judged, judging, scaled
from soupcli.soups.ranking import Ranked, sorted_by_score
from soupcli.soups.search import search
from tests.helpers.outcomes import TableEvaluate, checkpoints, random_outcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

VALUES = [k / 10 for k in range(1, 10)]


def reference(kind: str, weights: Mapping[str, float], gains: Mapping[str, float]) -> float:
    """The definition: the least gain, or the mean of gains by weight."""
    if kind == "worst":
        return min(gains.values())
    return sum(weights[name] * gains[name] for name in weights) / sum(weights.values())


class Stopping:
    """An evaluation that stops at the earliest moment it may: as soon as the score is below what is needed."""

    def __init__(self, value: Callable[[frozenset[str]], float], *, higher: bool) -> None:
        self.table = TableEvaluate(value, higher=higher)
        self.given_up = 0

    def __call__(self, weights: Mixture, *, at_least: float | None = None) -> Score:
        """See soupcli.evaluation.score.Evaluate."""
        score = self.table(weights)
        if at_least is None or not score.goodness < at_least:
            return score
        self.given_up += 1
        return Score({}, "metric", score.higher_is_better, 3, {}, stopped=Stopped(3, 10, score.value))


def of_family(
    seed: int, kind: Kind, weights: list[float], directions: list[bool], *, bounded: bool
) -> tuple[Objective, dict[str, Stopping], list[Ranked]]:
    """An objective over random outcomes of five ingredients, what evaluates on each set, and the ranking by it."""
    names = [f"set{number}" for number in range(len(weights))]
    tables = {
        name: Stopping(random_outcomes(seed + number, VALUES), higher=higher)
        for number, (name, higher) in enumerate(zip(names, directions, strict=True))
    }
    limits = {n: (1.0 if higher else 0.0) if bounded else None for n, higher in zip(names, directions, strict=True)}
    alone = {one: {n: tables[n](Mixture.uniform([one])) for n in names} for one in checkpoints(list("abcde"))}
    objective = scaled(kind, dict(zip(names, weights, strict=True)), list(alone.values()), limits=limits)
    ranking = [
        Ranked(one, judged(objective, [goal.gain(scores[goal.name].value) for goal in objective.goals]))
        for one, scores in alone.items()
    ]
    return objective, tables, sorted_by_score(ranking)


FAMILIES = {
    "seed": st.integers(0, 10_000),
    "kind": st.sampled_from(["mean", "worst"]),
    "weights": st.lists(st.sampled_from([1.0, 0.1, 3.0, 1e-3]), min_size=3, max_size=3),
    "directions": st.lists(st.booleans(), min_size=3, max_size=3),
    "bounded": st.booleans(),
}


@given(**FAMILIES)
def test_the_definition(seed: int, kind: Kind, weights: list[float], directions: list[bool], bounded: bool) -> None:
    """A soup's objective is that of its gains, each over the best ingredient of the set, whatever its direction."""
    objective, tables, ranking = of_family(seed, kind, weights, directions, bounded=bounded)
    soup = Mixture.uniform([ranking[0].checkpoint, ranking[1].checkpoint])
    gains = {}
    for (name, table), higher in zip(tables.items(), directions, strict=True):
        alone = [table(Mixture.uniform([one])).value for one, _ in ranking]
        best = max(alone) if higher else min(alone)
        gains[name] = (table(soup).value - best if higher else best - table(soup).value) / best
    found = judging(objective, tables)(soup)
    assert found.value == pytest.approx(reference(kind, dict(zip(tables, weights, strict=True)), gains), abs=1e-12)
    assert max(ranked.score.value for ranked in ranking) == ranking[0].score.value <= 0


@given(**FAMILIES, strategy=st.sampled_from(["forward", "pruned", "replacement"]), min_delta=st.sampled_from([0, 0.01]))
@settings(max_examples=150, deadline=None)
def test_giving_up_decides_nothing(
    seed: int, kind: Kind, weights: list[float], directions: list[bool], bounded: bool, strategy: str, min_delta: float
) -> None:
    """Members, weights and decisions are the same, and bounds are no lie, for each search."""
    objective, tables, ranking = of_family(seed, kind, weights, directions, bounded=bounded)
    rules = Greedy.model_validate({"strategy": strategy, "min_delta": min_delta, "rounds": 4})
    early, whole = judging(objective, tables), judging(objective, tables, give_up=False)
    found, expected = search(ranking, early, rules), search(ranking, whole, rules)
    assert found.soup.mixture == expected.soup.mixture
    assert found.soup.score.value == expected.soup.score.value >= ranking[0].score.value
    for step, full in zip(found.soup.steps, expected.soup.steps, strict=True):
        assert (step.candidate, step.accepted, step.threshold) == (full.candidate, full.accepted, full.threshold)
        if step.bound is not None:
            assert full.threshold is not None
            assert full.score <= step.bound <= full.threshold


def test_giving_up_spares_work() -> None:
    """Over some families sets are left out and sets are stopped, so that the property above is no formality."""
    stopped = spared = 0
    for seed in range(20):
        objective, tables, ranking = of_family(seed, "mean", [1.0, 1.0, 1.0], [True] * 3, bounded=True)
        before = {name: len(table.table.asked) for name, table in tables.items()}
        search(ranking, judging(objective, tables), Greedy())
        asked = [len(table.table.asked) - before[name] for name, table in tables.items()]
        stopped += sum(table.given_up for table in tables.values())
        spared += asked[0] - asked[-1]
    assert stopped > 0 and spared > 0


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_nothing_to_scale_to(value: float) -> None:
    """A best score of 0, or none at all, is an error that names the set."""
    alone = [{"val": Score({"m": MetricValue(value, None, 5)}, "m", True, 5, {})}]
    with pytest.raises(ValidationError, match="the best ingredient's m on val is"):
        scaled("mean", {"val": 1.0}, alone, limits={"val": None})


def test_not_a_number() -> None:
    """A NaN on one set makes the objective one, and infinities of both signs do not break it."""
    objective, *_ = of_family(0, "mean", [1.0, 1.0, 1.0], [True] * 3, bounded=True)
    assert math.isnan(objective.of([0.0, math.nan, 0.0]))
    assert objective.of([0.0, -math.inf, 0.0]) == -math.inf
    assert objective.at_most([-math.inf]) == -math.inf
