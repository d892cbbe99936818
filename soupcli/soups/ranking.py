"""Ingredients sorted by their own score: the first line of Recipe 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from soupcli.mixing.mixture import Mixture
from soupcli.progress import Progress, silent
from soupcli.soups.decision import check_any_number
from soupcli.wording import natural_order

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.score import Evaluate, Score


def unannounced(checkpoint: Checkpoint) -> None:
    """A callback that reads nothing ahead."""


class Ranked(NamedTuple):
    """An ingredient and its own score."""

    checkpoint: Checkpoint
    score: Score


def rank(
    ingredients: Sequence[Checkpoint],
    evaluate: Evaluate,
    *,
    announce: Callable[[Checkpoint], None] = unannounced,
    progress: Progress = silent,
) -> list[Ranked]:
    """Evaluate every ingredient by itself and sort them, best first; ties by path, a NaN last.

    `announce` is called with the next ingredient before one is evaluated, so that reading overlaps evaluation.
    """
    ranking: list[Ranked] = []
    for done, ingredient in enumerate(ingredients, 1):
        if done < len(ingredients):
            announce(ingredients[done])
        score = evaluate(Mixture.uniform([ingredient]))
        ranking.append(Ranked(ingredient, score))
        progress("ranking", done, len(ingredients), note=f"{ingredient.path}: {score.selecting} {score.shown}")
    return sorted_by_score(ranking)


def sorted_by_score(ranking: Iterable[Ranked]) -> list[Ranked]:
    """Sort, best first; ties by path, a NaN last. Raises ValidationError if every score is NaN."""
    everyone = sorted(ranking, key=_best_first)
    check_any_number((ranked.score for ranked in everyone), "checkpoints")
    return everyone


def _best_first(ranked: Ranked) -> tuple[bool, float, object]:
    return math.isnan(ranked.score.value), -ranked.score.goodness, natural_order(str(ranked.checkpoint.path))
