"""The best ingredient without the luck of selection: a fair comparison for a soup that was not selected.

The best of many is picked because it is good and because it was lucky on these examples; on others it is worse. So the
examples are divided into folds, and each fold uses the ingredient that is best on all other folds. No ingredient is
compared on examples that picked it (Stone 1974, "Cross-validatory choice and assessment of statistical predictions").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from soupcli.evaluation.loop import score_of
from soupcli.evaluation.score import Score, goodness_of
from soupcli.late import torch
from soupcli.metrics.table import metric_named

if TYPE_CHECKING:
    from torch import Tensor

FOLDS = 10
# The share of the examples that tell independently: choices for the folds are made on nearly the same examples, so the
# folds' differences go together. Nadeau and Bengio 2003, "Inference for the Generalization Error", their correction.
COUNTED = 1 / (1 + FOLDS / (FOLDS - 1))
FEWEST = 2 * FOLDS  # examples


def cross_fitted(scores: Sequence[Score]) -> Score | None:
    """Return the score that uses on each fold the ingredient that is best on the other folds.

    Returns None if there is only one ingredient, or if outcomes of single examples are unknown.
    """
    name = scores[0].selecting if scores else ""
    outcomes = [score.outcomes.get(name) for score in scores]
    known = [each for each in outcomes if each is not None and len(each) >= FEWEST]
    if len(known) < 2 or len(known) < len(scores) or len({len(each) for each in known}) > 1:
        return None
    n = len(known[0])
    fold_n = torch.randperm(n, generator=torch.Generator().manual_seed(0)) % FOLDS
    best_n = torch.tensor(_best_of_others(known, fold_n, name, scores[0]))[fold_n]
    common = [metric for metric in scores[0].outcomes if all(metric in score.outcomes for score in scores)]
    chosen = {metric: _picked([score.outcomes[metric] for score in scores], best_n) for metric in common}
    return score_of(chosen, name, examples=0)


def _best_of_others(outcomes: Sequence[Tensor], fold_n: Tensor, name: str, like: Score) -> list[int]:
    """Return for each fold the ingredient that is best on all other folds, the first of equally good ones."""
    weights_fn = (fold_n[None] != torch.arange(FOLDS)[:, None]).to(torch.float64)
    weighted = metric_named(name).weighted
    values_kf = torch.stack([weighted(each, weights_fn) for each in outcomes]).tolist()
    return [
        max(
            range(len(outcomes)),
            key=lambda k: (goodness_of(values_kf[k][fold], higher_is_better=like.higher_is_better), -k),
        )
        for fold in range(FOLDS)
    ]


def _picked(outcomes: Sequence[Tensor], best_n: Tensor) -> Tensor:
    """Return for example n the outcome of the ingredient `best_n[n]`."""
    return torch.stack(list(outcomes))[best_n, torch.arange(len(best_n))]
