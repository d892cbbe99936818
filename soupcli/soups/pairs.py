"""Pairs of ingredients: the angle between them and what their mean gains (Figure 3 of Wortsman et al. 2022).

The angle is that between the offsets of both from the start that they were fine-tuned from. The gain is compared with
the better of the two on each set; the paper's is compared with the mean of their scores, which is never more.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from soupcli.progress import Progress, silent

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.evaluation.score import Evaluate, Score
    from soupcli.mixing.mixture import Mixture

Pair = tuple[int, int]  # places in the list of ingredients


class Paired(NamedTuple):
    """A pair and the scores of its mean."""

    pair: Pair
    scores: Mapping[str, Score]


def choose_pairs(count: int, wanted: int | None, seed: int) -> list[Pair]:
    """Return all pairs of `count` ingredients in order, or `wanted` of them, drawn with the seed."""
    pairs = list(itertools.combinations(range(count), 2))
    return pairs if wanted is None or wanted >= len(pairs) else sorted(random.Random(seed).sample(pairs, wanted))


def evaluate_pairs(
    ingredients: Sequence[Checkpoint],
    pairs: Sequence[Pair],
    average: Callable[[Sequence[Checkpoint]], Mixture],
    evaluators: Mapping[str, Evaluate],
    *,
    progress: Progress = silent,
) -> list[Paired]:
    """Evaluate the mean of each pair on every set."""
    found: list[Paired] = []
    for done, (one, other) in enumerate(pairs, 1):
        mean = average([ingredients[one], ingredients[other]])
        scores = {name: evaluate(mean) for name, evaluate in evaluators.items()}
        found.append(Paired((one, other), scores))
        first = next(iter(scores.values()))
        names = f"{ingredients[one].path} + {ingredients[other].path}"
        progress("pairs", done, len(pairs), note=f"{names}: {first.selecting} {first.shown}")
    return found
