"""How hard each example of a set is, so that the decisive ones are visited first.

An example is hard if the network gives its label little probability, misses its number by much, or does not expect its
text. Only the order of visits depends on this. Tensors: logits_nk [N, K] float, labels as `LabelKind` says.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from soupcli.evaluation.outcomes import Packed
from soupcli.late import torch
from soupcli.metrics.multilabel import binary_cross_entropy

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.metrics.metric import LabelKind

LEVELS = 255
REMEMBERED = 64  # soups
WRONG = 128  # from this level on another class is more probable than any right one, or most of the set is easier


def distance_of(logits_nk: Tensor, labels: Tensor, kind: LabelKind) -> Tensor:
    """Return how far a network is off each example, float32 [N]; for classes from -1 (surely right) to 1 (wrong)."""
    if kind == "numbers":
        return (logits_nk[:, 0] - labels).abs().float()
    if kind == "tokens":
        return (logits_nk[:, 0] / logits_nk[:, 1].clamp(min=1)).float()
    if kind == "multilabel":
        return binary_cross_entropy(logits_nk, labels).float()
    labels_nm = labels.unsqueeze(1) if labels.dim() == 1 else labels
    right_nk = torch.zeros_like(logits_nk, dtype=torch.bool)
    right_nk.scatter_(1, torch.where(labels_nm < 0, labels_nm[:, :1], labels_nm).clamp(min=0), True)
    chance_nk = logits_nk.float().softmax(dim=1)
    return chance_nk.masked_fill(right_nk, 0).amax(dim=1) - chance_nk.masked_fill(~right_nk, 0).amax(dim=1)


def levels_of(distance_n: Tensor, kind: LabelKind) -> Tensor:
    """Return levels 0 to 255, uint8 [N]: the distance for classes, else the example's rank by distance."""
    if kind in ("classes", "several"):
        share_n = (distance_n.nan_to_num(nan=1.0) + 1) / 2
    else:
        order_n = torch.argsort(distance_n, stable=True)  # a NaN comes last
        share_n = torch.empty_like(distance_n)
        share_n[order_n] = torch.linspace(0, 1, len(order_n), dtype=distance_n.dtype)
    return (share_n * LEVELS).round().to(torch.uint8)


class Difficulty:
    """Predicts what a soup will find hard on a set, from the levels of mixtures that were evaluated on all of it.

    Members go by any unique name, each with its weight in the soup.
    """

    def __init__(self) -> None:
        self._told: list[tuple[Collection[str], Tensor | Packed]] = []  # and not yet counted
        self._alone: dict[str, Tensor] = {}
        self._soups: OrderedDict[frozenset[str], Tensor] = OrderedDict()
        self._wrong_n: Tensor | int = 0
        self._sum_n: Tensor | int = 0

    def add(self, members: Collection[str], levels_n: Tensor | Packed) -> None:
        """Record how hard each example was for a mixture of these members."""
        self._told.append((members, levels_n))
        if not isinstance(levels_n, Packed):
            self._count()

    def _count(self) -> None:
        """Unpack what was recorded. It stays packed until somebody asks, which never happens if all scores are kept."""
        for members, levels_n in self._told:
            self._add(members, levels_n.tensor() if isinstance(levels_n, Packed) else levels_n)
        self._told.clear()

    def _add(self, members: Collection[str], levels_n: Tensor) -> None:
        if len(members) > 1:
            self._soups[frozenset(members)] = levels_n
            if len(self._soups) > REMEMBERED:
                self._soups.popitem(last=False)
            return
        (ingredient,) = members
        if ingredient not in self._alone:
            self._alone[ingredient] = levels_n
            self._wrong_n = self._wrong_n + (levels_n >= WRONG).to(torch.int64)
            self._sum_n = self._sum_n + levels_n.to(torch.int64)

    def expected(self, members: Mapping[str, float]) -> Tensor | None:
        """Return how hard each example will be for a soup of these weights, [N], or None before the first ingredient.

        A mean of weights gives about the mean of the logits: the levels of the soup that shares most members, and those
        of the members that it lacks, count by the members' weights.
        """
        self._count()
        wanted = frozenset(members)
        near = [(soup, levels) for soup, levels in self._soups.items() if soup & wanted]
        alone = next((name for name in self._alone if name in wanted), None)  # each is as near as the first one
        near += [(frozenset([alone]), self._alone[alone])] if alone is not None else []
        if not near:
            return self.of_examples()
        soup, levels_n = min(near, key=lambda one: len(one[0] ^ wanted))
        expected_n = sum(members[name] for name in soup & wanted) * levels_n.to(torch.float64)
        for name in sorted(wanted - soup):
            if name in self._alone:
                expected_n += members[name] * self._alone[name]
        return expected_n

    def of_examples(self) -> Tensor | None:
        """Return how hard each example is, int64 [N]: by ingredients that got it wrong, then by how far all were off.

        Returns None before the first ingredient.
        """
        self._count()
        if not isinstance(self._wrong_n, torch.Tensor):
            return None
        return self._wrong_n * (len(self._alone) * LEVELS + 1) + self._sum_n
