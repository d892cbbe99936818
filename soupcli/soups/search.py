"""The searches of the recipe's `greedy:` section: Recipe 1, restarts in other orders, and other strategies.

found = search(ranking, evaluate, Greedy(strategy="pruned"))     # found.soup, found.evaluations
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from soupcli.errors import ValidationError
from soupcli.late import torch
from soupcli.mixing.mixture import Mixture
from soupcli.progress import Progress, silent
from soupcli.soups.budgeted import Predict, budgeted
from soupcli.soups.decision import Rule, decide
from soupcli.soups.greedy import Foresee, GreedySoup, greedy, unforeseen
from soupcli.soups.pruned import pruned
from soupcli.soups.ranking import Ranked, unannounced
from soupcli.soups.replacement import with_replacement

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.score import Evaluate
    from soupcli.recipe.methods import Greedy


class SearchResult(NamedTuple):
    """The best soup of a search, and every soup found, with the order of ingredients that led to it."""

    soup: GreedySoup
    soups: list[tuple[list[Checkpoint], GreedySoup]]

    @property
    def evaluations(self) -> int:
        """The number of scores that the search asked for, including kept and repeated ones."""
        return sum(len(soup.steps) for _, soup in self.soups)


class SearchInput(NamedTuple):
    """The arguments of a search in one order of the ingredients."""

    order: Sequence[Ranked]
    evaluate: Evaluate
    settings: Greedy
    average: Callable[[Sequence[Checkpoint]], Mixture]
    predict: Predict | None
    announce: Callable[[Checkpoint], None]
    foresee: Foresee
    progress: Progress


class SearchStrategy(NamedTuple):
    """A value of `greedy.strategy`: its search, and the most scores that it needs besides the ranking's."""

    search: Callable[[SearchInput], GreedySoup]
    most_evaluations: Callable[[int, Greedy], int]  # from the number of ingredients
    begins_with_best: bool = True
    scores_first: bool = False  # in each further order, the first ingredient is scored again


def search(
    ranking: Sequence[Ranked],
    evaluate: Evaluate,
    settings: Greedy,
    *,
    average: Callable[[Sequence[Checkpoint]], Mixture] = Mixture.uniform,
    predict: Predict | None = None,
    announce: Callable[[Checkpoint], None] = unannounced,
    foresee: Foresee = unforeseen,
    progress: Progress = silent,
) -> SearchResult:
    """Return the best soup by the score on the selecting set; of equally good ones, the first found.

    It is never worse there than the best ingredient, which is taken if all soups are worse. `predict` returns the
    scores of ensembles, which a budget needs. Raises ValidationError if all ingredients score NaN.
    """
    orders = orders_of(ranking, settings)
    soups: list[GreedySoup] = []
    for order in orders:
        given = SearchInput(order, evaluate, settings, average, predict, announce, foresee, progress)
        soups.append(STRATEGIES[settings.strategy].search(given))
    place = max(range(len(soups)), key=lambda number: soups[number].score.goodness)
    if _may_fall_below(settings):
        soups[place] = _no_worse(soups[place], ranking[0].checkpoint, average, evaluate)
    found = [([ranked.checkpoint for ranked in order], soup) for order, soup in zip(orders, soups, strict=True)]
    return SearchResult(soups[place], found)


def _may_fall_below(settings: Greedy) -> bool:
    """Whether a search can end below the best ingredient. Searches that begin with it cannot."""
    return not STRATEGIES[settings.strategy].begins_with_best or settings.order == "random"


def _no_worse(
    soup: GreedySoup, best: Checkpoint, average: Callable[[Sequence[Checkpoint]], Mixture], evaluate: Evaluate
) -> GreedySoup:
    """Return the soup, or the best ingredient if that is better, with the deciding step added."""
    alone = average([best])
    if soup.mixture == alone:
        return soup
    score, step = decide(alone, evaluate, soup.score, Rule(">"), candidate=best, action="take")
    steps = [*soup.steps, step]
    return GreedySoup(alone, score, steps) if step.accepted else soup._replace(steps=steps)


def orders_of(ranking: Sequence[Ranked], settings: Greedy) -> list[list[Ranked]]:
    """Yield the orders in which ingredients are tried: the ranking, unless only random ones are wanted, then others.

    Ingredients whose score is NaN are moved to the end of a random order.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    orders = [list(ranking)] if settings.order == "ranked" else []
    while len(orders) < settings.orders:
        shuffled = [ranking[i] for i in torch.randperm(len(ranking), generator=generator).tolist()]
        orders.append(sorted(shuffled, key=lambda ranked: math.isnan(ranked.score.value)))
    return orders


def most_evaluations(ingredients: int, settings: Greedy) -> int:
    """Return the most scores that a search needs, including the ranking's."""
    strategy = STRATEGIES[settings.strategy]
    searched = strategy.most_evaluations(ingredients, settings)
    again = int(_may_fall_below(settings))
    return ingredients + searched + (settings.orders - 1) * (searched + int(strategy.scores_first)) + again


def _forward(given: SearchInput) -> GreedySoup:
    return greedy(
        given.order,
        given.evaluate,
        accept=given.settings.accept,
        min_delta=given.settings.min_delta,
        average=given.average,
        announce=given.announce,
        foresee=given.foresee,
        progress=given.progress,
    )


def _pruned(given: SearchInput) -> GreedySoup:
    return pruned(
        given.order,
        given.evaluate,
        accept=given.settings.accept,
        min_delta=given.settings.min_delta,
        average=given.average,
        progress=given.progress,
    )


def _with_replacement(given: SearchInput) -> GreedySoup:
    return with_replacement(
        given.order,
        given.evaluate,
        rounds=given.settings.rounds,
        min_delta=given.settings.min_delta,
        average=given.average,
        progress=given.progress,
    )


def _budgeted(given: SearchInput) -> GreedySoup:
    if given.predict is None or given.settings.budget is None:
        raise ValidationError("greedy.strategy: budgeted needs saved logits and a budget", hint="--logits DIR")
    return budgeted(
        given.order,
        given.evaluate,
        given.predict,
        budget=given.settings.budget,
        candidates=given.settings.candidates,
        seed=given.settings.seed,
        average=given.average,
        progress=given.progress,
    )


STRATEGIES = {
    "forward": SearchStrategy(_forward, lambda n, _: n - 1, scores_first=True),
    "pruned": SearchStrategy(_pruned, lambda n, _: n * (n + 1) // 2, begins_with_best=False),
    "replacement": SearchStrategy(_with_replacement, lambda n, settings: settings.rounds * n),
    "budgeted": SearchStrategy(_budgeted, lambda _, settings: settings.budget or 0),
}
