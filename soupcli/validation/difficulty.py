"""How hard each example of a set is, so that those which decide are visited first.

A network is far off an example whose label it gives little probability, whose number it misses by much, or whose text
it does not expect. Nothing but the order of visits depends on it. Tensors: logits_nk [N, K] float, labels as
`LabelKind` says.
"""

from __future__ import annotations

import torch
from torch import Tensor

from soupcli.validation.examples import LabelKind

LEVELS = 255
WRONG = 128  # from this level on another class is more probable than any right one, or most of the set is easier


def distance_of(logits_nk: Tensor, labels: Tensor, kind: LabelKind) -> Tensor:
    """float32 [N]: how far a network is off each example; of classes from -1, surely right, to 1, surely wrong."""
    if kind == "numbers":
        return (logits_nk[:, 0] - labels).abs().float()
    if kind == "tokens":
        return (logits_nk[:, 0] / logits_nk[:, 1].clamp(min=1)).float()
    labels_nm = labels.unsqueeze(1) if labels.dim() == 1 else labels
    right_nk = torch.zeros_like(logits_nk, dtype=torch.bool)
    right_nk.scatter_(1, torch.where(labels_nm < 0, labels_nm[:, :1], labels_nm).clamp(min=0), True)
    chance_nk = logits_nk.float().softmax(dim=1)
    return chance_nk.masked_fill(right_nk, 0).amax(dim=1) - chance_nk.masked_fill(~right_nk, 0).amax(dim=1)


def levels_of(distance_n: Tensor, kind: LabelKind) -> Tensor:
    """uint8 [N], 0 to 255: of classes the distance itself, else the example's place in the set by its distance."""
    if kind in ("classes", "several"):
        share_n = (distance_n.nan_to_num(nan=1.0) + 1) / 2
    else:
        order_n = torch.argsort(distance_n, stable=True)  # a NaN comes last
        share_n = torch.empty_like(distance_n)
        share_n[order_n] = torch.linspace(0, 1, len(order_n), dtype=distance_n.dtype)
    return (share_n * LEVELS).round().to(torch.uint8)


class Difficulty:
    """The examples of a set by how many ingredients got them wrong; among equals by how far all were off."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._wrong_n: Tensor | int = 0
        self._sum_n: Tensor | int = 0

    def add(self, ingredient: str, levels_n: Tensor) -> None:
        """Counts what an ingredient alone got wrong, once."""
        if ingredient not in self._seen:
            self._seen.add(ingredient)
            self._wrong_n = self._wrong_n + (levels_n >= WRONG).to(torch.int64)
            self._sum_n = self._sum_n + levels_n.to(torch.int64)

    def of_examples(self) -> Tensor | None:
        """int64 [N], larger is harder; None before the first ingredient."""
        if not isinstance(self._wrong_n, Tensor):
            return None
        return self._wrong_n * (len(self._seen) * LEVELS + 1) + self._sum_n
