"""Model Stock (Jang et al. 2024, arXiv:2403.19522): the mean, drawn towards the start if ingredients disagree.

    w = t mean(ingredients) + (1 - t) base,   t = k cos θ / ((k - 1) cos θ + 1)   for k ingredients, layer by layer

θ is the angle between two ingredients' offsets from the base. The paper takes it as the same for all pairs; here cos θ
is the mean over the pairs. The point is the one on the line from base to mean that is nearest to the centre around
which ingredients scatter.

Letters in names: l layers, k ingredients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from soupcli.checkpoints.wide import widened
from soupcli.late import torch
from soupcli.mixing.arithmetic.arrays import torch_itself
from soupcli.networks.geometry import lengths, measure
from soupcli.progress import Progress, silent
from soupcli.soups.learned.learned import Layered

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.checkpoints.checkpoint import Checkpoint


class Stocked(NamedTuple):
    """The soup, whose last member is the base, with the cosine and the ratio t of each layer."""

    layered: Layered
    cosines: list[float]
    ratios: list[float]


def stock(
    ingredients: Sequence[Checkpoint],
    base: Checkpoint,
    groups: Mapping[str, Sequence[str]],
    *,
    progress: Progress = silent,
) -> Stocked:
    """Return the Model Stock of at least two ingredients that share names and shapes with the base.

    `groups` are the layers: names of their floating tensors.
    """
    k = len(ingredients)
    geometry = measure([base, *map(widened, ingredients)], groups, library=torch_itself(), progress=progress)
    cosine_l = mean_cosine(geometry.about(0))
    ratio_l = ratio(cosine_l, k)
    alpha_lk = [[t / k] * k + [1 - t] for t in ratio_l.tolist()]
    names = [list(group) for group in groups.values()]
    layered = Layered([*ingredients, base], alpha_lk, list(groups), names, {})
    return Stocked(layered, cosine_l.tolist(), ratio_l.tolist())


def mean_cosine(gram_lkk: Tensor) -> Tensor:
    """[l]: the mean cosine over all pairs of offsets. One that does not move is at a right angle to every other;
    if none moves there is nothing to decide, and it is 1.
    """
    length_lk = lengths(gram_lkk)
    product_lkk = length_lk[:, :, None] * length_lk[:, None, :]
    cosine_lkk = torch.where(product_lkk > 0, gram_lkk / product_lkk, torch.zeros_like(gram_lkk)).clamp(-1, 1)
    k = gram_lkk.shape[1]
    pairs = torch.ones(k, k, dtype=torch.bool).triu(1)
    mean_l = cosine_lkk[:, pairs].mean(dim=1)
    return torch.where((length_lk > 0).any(dim=1), mean_l, torch.ones_like(mean_l))


def ratio(cosine_l: Tensor, ingredients: int) -> Tensor:
    """Return t for each layer, [l], between 0 and 1; 0 if offsets point apart (the formula would pass the base)."""
    k = ingredients
    together_l = cosine_l.clamp(min=0)
    return k * together_l / ((k - 1) * together_l + 1)
