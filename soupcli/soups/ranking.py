"""Ingredients sorted by their own score: the first line of Recipe 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.mixing import Mixture
from soupcli.progress import Progress, silent
from soupcli.validation.score import Evaluate, Score


class Ranked(NamedTuple):
    """An ingredient and its score alone."""

    checkpoint: Checkpoint
    score: Score


def rank(ingredients: Sequence[Checkpoint], evaluate: Evaluate, *, progress: Progress = silent) -> list[Ranked]:
    """Every ingredient evaluated alone, best first; ties in the order of the paths, a NaN last."""
    ranking: list[Ranked] = []
    for done, ingredient in enumerate(ingredients, 1):
        score = evaluate(Mixture.uniform([ingredient]))
        ranking.append(Ranked(ingredient, score))
        progress("ranking", done, len(ingredients), note=f"{ingredient.path}: {score.selecting} {score.value:.4f}")
    return sorted(ranking, key=_best_first)


def _best_first(ranked: Ranked) -> tuple[bool, float, str]:
    return math.isnan(ranked.score.value), -ranked.score.goodness, str(ranked.checkpoint.path)
