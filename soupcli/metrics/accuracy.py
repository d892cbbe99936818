"""Accuracy and top-5: the share of examples whose label is among the largest logits.

Tensors: logits_nk [N, K] float; labels [N] int64, or [N, M] where several are right, filled up with -1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from soupcli.late import torch
from soupcli.metrics.metric import MetricValue
from soupcli.metrics.standard_error import error_of_all

if TYPE_CHECKING:
    from torch import Tensor


def correct(logits_nk: Tensor, labels: Tensor, *, among: int) -> Tensor:
    """Return uint8 [N]: 1 if fewer than `among` logits come before a label's (larger, or equal with a lower index).

    Ties are broken as argmax breaks them, in any batch. An example with a NaN among its logits is wrong.
    """
    right_n = torch.zeros(len(logits_nk), dtype=torch.bool, device=logits_nk.device)
    index_k = torch.arange(logits_nk.shape[1], device=labels.device)
    for labels_n in labels.unsqueeze(1).unbind(1) if labels.dim() == 1 else labels.unbind(1):
        own_n1 = logits_nk.gather(1, labels_n.clamp(min=0)[:, None])
        before_nk = (logits_nk > own_n1) | ((logits_nk == own_n1) & (index_k < labels_n[:, None]))
        right_n |= (before_nk.sum(dim=1) < among) & (labels_n >= 0)
    return (right_n & ~logits_nk.isnan().any(dim=1)).to(torch.uint8)


def share(correct_n: Tensor) -> MetricValue:
    """Return correct / all, with the binomial standard error sqrt(p (1 - p) / n), or Wilson's if none or all are."""
    n, right = len(correct_n), int(correct_n.sum())
    if n == 0:
        return MetricValue(math.nan, None, 0)
    value = right / n
    error = math.sqrt(value * (1 - value) / n) if 0 < right < n else error_of_all(n)
    return MetricValue(value, error, n)


def right_and_wrong(correct_n: Tensor) -> tuple[Tensor, Tensor]:
    """Return the contribution of a right and of a wrong example: 1 and 0."""
    return torch.ones_like(correct_n), torch.zeros_like(correct_n)


def best_share(correct_n: Tensor, unseen: Tensor) -> float:
    """Return the share if every unseen example is right."""
    return (int(correct_n.sum()) + len(unseen)) / (len(correct_n) + len(unseen))
