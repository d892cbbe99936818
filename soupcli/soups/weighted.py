"""Between the start and the fine-tuned: WiSE-FT (Wortsman et al. 2022, arXiv:2109.01903, equation 1).

w = (1 - α) base + α (sum of weighted ingredients)
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import TYPE_CHECKING

from soupcli.mixing.mixture import Mixture

if TYPE_CHECKING:
    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.checkpoints.dtype import Dtype


def interpolated(
    ingredients: Sequence[Checkpoint],
    weights: Sequence[float] | None,
    base: Checkpoint,
    alpha: float,
    *,
    dtype: Dtype | None = None,
) -> Mixture:
    """Return the mixture at `alpha`, in which the base is a member like any other; at 1 the same as `weighted`.

    Tensors that are not averaged are the first ingredient's, at 0 as well.
    """
    if alpha == 1:
        return weighted(ingredients, weights, dtype=dtype, keep_from=ingredients[0])
    shares = weights if weights is not None else [1 / len(ingredients)] * len(ingredients)
    members, amounts = [*ingredients, base], [*(alpha * share for share in shares), 1 - alpha]
    return weighted(members, amounts, dtype=dtype, keep_from=ingredients[0])


def weighted(
    members: Sequence[Checkpoint],
    weights: Sequence[float] | None,
    *,
    dtype: Dtype | None = None,
    keep_from: Checkpoint | None = None,
) -> Mixture:
    """Return the mixture with these weights, without members of weight 0. Without `weights` it is the mean."""
    if weights is None:
        return Mixture.uniform(members, dtype=dtype, keep_from=keep_from)
    present = [(member, weight) for member, weight in zip(members, weights, strict=True) if weight != 0]
    return Mixture(tuple(m for m, _ in present), tuple(w for _, w in present), dtype, keep_from)


def normalised(weights: Sequence[float]) -> list[float]:
    """Return the weights divided by their sum, each rounded once, or unchanged if they already sum to 1."""
    total = sum(map(Fraction, weights), Fraction())
    if abs(total - 1) <= Fraction(1, 10**9):
        return list(weights)
    return [float(Fraction(weight) / total) for weight in weights]


def grouped_by_patterns(names: Sequence[str], patterns: Sequence[str]) -> list[list[str]]:
    """Group names by the first shell pattern that they match; the last group matches none."""
    groups: list[list[str]] = [[] for _ in range(len(patterns) + 1)]
    for name in names:
        number = next((i for i, pattern in enumerate(patterns) if fnmatchcase(name, pattern)), len(patterns))
        groups[number].append(name)
    return groups


def uniform(
    ingredients: Sequence[Checkpoint], *, dtype: Dtype | None = None, keep_from: Checkpoint | None = None
) -> Mixture:
    """Return the mean of all. `keep_from`, by default the first ingredient, gives the tensors that are not averaged."""
    return Mixture.uniform(ingredients, dtype=dtype, keep_from=keep_from)
