"""The best ingredient for each group of sets whose scores go together, mixed with the best weights of a grid.

Soup of category experts (SoCE, Maiti et al. 2025, arXiv:2511.13254), as implemented here:

ρ_ij ← correlation of the scores on the sets i and j, over the ingredients
groups ← the sets, joined wherever ρ_ij >= threshold          # between two groups every correlation is below it
θ_g ← argmax over ingredients of the objective on the sets of group g
w ← argmax over the grid of objective(Σ_g w_g θ_g)

The paper takes an expert for each category with a weak correlation to some other one, |ρ| < threshold. Here the sign
matters: sets with opposite scores need an expert each. The best ingredient and the mean of the experts are tried as
well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, NamedTuple

from soupcli.soups.objective import Objective, judged
from soupcli.soups.ranking import Ranked, sorted_by_score

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.score import Score

FEWEST = 3  # ingredients: over two of them every correlation is 1 or -1


class Expert(NamedTuple):
    """A group of sets, and the ingredient that is best on them."""

    sets: tuple[str, ...]
    ingredient: Checkpoint


def correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Pearson's correlation where both are finite. NaN for fewer than 3 such places, or without variation."""
    pairs = [pair for pair in zip(one, other, strict=True) if all(map(math.isfinite, pair))]
    if len(pairs) < FEWEST:
        return math.nan
    means = [math.fsum(values) / len(pairs) for values in zip(*pairs, strict=True)]
    off = [(x - means[0], y - means[1]) for x, y in pairs]
    spread = math.sqrt(math.fsum(x * x for x, _ in off)) * math.sqrt(math.fsum(y * y for _, y in off))
    if len({x for x, _ in pairs}) == 1 or len({y for _, y in pairs}) == 1 or not spread:
        return math.nan
    return max(-1.0, min(1.0, math.fsum(x * y for x, y in off) / spread))


def correlations(alone: Sequence[Mapping[str, Score]], sets: Sequence[str]) -> list[list[float]]:
    """Return the correlation of every two sets over the ingredients, whose scores by set are `alone`.

    Scores for which lower is better count negatively. NaN where undefined; 1 for a set with itself.
    """
    goodness = {name: [scores[name].goodness for scores in alone] for name in sets}
    return [[1.0 if a == b else correlation(goodness[a], goodness[b]) for b in sets] for a in sets]


def groups_of(sets: Sequence[str], found: Sequence[Sequence[float]], threshold: float) -> list[tuple[str, ...]]:
    """Group sets whose correlation is at least `threshold`, in order. A set without correlations is its own group."""
    group = list(range(len(sets)))
    for a, b in combinations(range(len(sets)), 2):
        if found[a][b] >= threshold:
            group = [group[a] if number == group[b] else number for number in group]
    numbers = dict.fromkeys(group)
    return [tuple(name for name, own in zip(sets, group, strict=True) if own == number) for number in numbers]


def expert_of(group: Sequence[str], objective: Objective, alone: Mapping[Checkpoint, Mapping[str, Score]]) -> Expert:
    """Return the best ingredient by the objective over the sets of a group; of equal ones the first by path."""
    own = Objective(objective.kind, tuple(goal for goal in objective.goals if goal.name in group))
    gains = {one: [goal.gain(scores[goal.name].value) for goal in own.goals] for one, scores in alone.items()}
    ranking = sorted_by_score(Ranked(one, judged(own, of_one)) for one, of_one in gains.items())
    return Expert(tuple(group), ranking[0].checkpoint)


def simplex_grid(experts: int, parts: int) -> Iterator[tuple[float, ...]]:
    """Return all weights of `experts` experts that sum to 1: multiples of 1 / parts, at least one each, ascending."""
    for cuts in combinations(range(1, parts), experts - 1):
        yield tuple((after - before) / parts for before, after in pairwise((0, *cuts, parts)))


def weights_tried(experts: int, parts: int) -> list[tuple[float, ...]]:
    """Return the mean of the experts, then the rest of the grid; nothing for one expert."""
    if experts < 2:
        return []
    mean = (1 / experts,) * experts
    return [mean, *(weights for weights in simplex_grid(experts, parts) if len(set(weights)) > 1)]


def most_weights(groups: int, parts: int) -> int:
    """Return the most weights that `weights_tried` returns for so many groups or fewer."""
    return max((1 + math.comb(parts - 1, experts - 1) for experts in range(2, groups + 1)), default=0)
