"""Agreement of predicted with measured numbers: Pearson, Spearman, mean squared error.

Tensors: logits_n1 [N, 1] float, numbers_n [N] float64; outcomes_n2 [N, 2] float64: predicted, measured;
weights_bn [B, N] float64: how often example n counts in resample b.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from soupcli.late import torch
from soupcli.metrics.metric import MetricValue

if TYPE_CHECKING:
    from torch import Tensor


def predicted_and_measured(logits_n1: Tensor, numbers_n: Tensor) -> Tensor:
    """float64 [N, 2]."""
    return torch.stack([logits_n1[:, 0].to(torch.float64), numbers_n], dim=1)


def squared_error(logits_n1: Tensor, numbers_n: Tensor) -> Tensor:
    """float64 [N]."""
    return (logits_n1[:, 0].to(torch.float64) - numbers_n).square()


def pearson(outcomes_n2: Tensor) -> MetricValue:
    """Return Pearson's r. NaN if either side is constant."""
    n = len(outcomes_n2)
    if n < 2 or not bool(outcomes_n2.isfinite().all()):
        return MetricValue(math.nan, None, n)
    x, y = (_centred(column.tolist()) for column in outcomes_n2.T)
    return MetricValue(_cosine(x, y), None, n)


def spearman(outcomes_n2: Tensor) -> MetricValue:
    """Return Pearson's r of the ranks. Equal numbers share their mean rank. NaN if either side is constant."""
    n = len(outcomes_n2)
    if n < 2 or bool(outcomes_n2.isnan().any()):
        return MetricValue(math.nan, None, n)
    x, y = (_centred_ranks(column) for column in outcomes_n2.T)
    return MetricValue(_cosine(x, y), None, n)


def weighted_pearson(outcomes_n2: Tensor, weights_bn: Tensor) -> Tensor:
    """Return r of each resample, float64 [B]. NaN if either side is constant there."""
    x_n, y_n = (outcomes_n2 - outcomes_n2.mean(dim=0)).unbind(dim=1)
    return _weighted_r(x_n[None], y_n[None], weights_bn)


def weighted_spearman(outcomes_n2: Tensor, weights_bn: Tensor) -> Tensor:
    """Return r of the ranks in each resample, float64 [B]. NaN if either side is constant there."""
    x_bn, y_bn = (_weighted_ranks(column, weights_bn) for column in outcomes_n2.T)
    return _weighted_r(x_bn, y_bn, weights_bn)


def _weighted_ranks(values_n: Tensor, weights_bn: Tensor) -> Tensor:
    """Return mean ranks in each resample minus a constant, float64 [B, N]."""
    groups, group_n = torch.unique(values_n, return_inverse=True)
    counts_bg = weights_bn.new_zeros(len(weights_bn), len(groups)).index_add(1, group_n, weights_bn)
    return (counts_bg.cumsum(dim=1) - counts_bg / 2)[:, group_n]


def _weighted_r(x_bn: Tensor, y_bn: Tensor, weights_bn: Tensor) -> Tensor:
    share_bn = weights_bn / weights_bn.sum(dim=1, keepdim=True)
    x_bn = x_bn - (share_bn * x_bn).sum(dim=1, keepdim=True)
    y_bn = y_bn - (share_bn * y_bn).sum(dim=1, keepdim=True)
    xx_b, yy_b, xy_b = ((share_bn * product).sum(dim=1) for product in (x_bn * x_bn, y_bn * y_bn, x_bn * y_bn))
    return torch.where((xx_b > 0) & (yy_b > 0), xy_b / (xx_b * yy_b).sqrt(), math.nan).clamp(-1, 1)


def _centred(values: list[float]) -> list[float]:
    mean = math.fsum(values) / len(values)
    return [value - mean for value in values]


def _centred_ranks(values_n: Tensor) -> list[float]:
    """Return twice each rank minus twice the mean rank: whole numbers."""
    _, group_n, counts_g = torch.unique(values_n, return_inverse=True, return_counts=True)
    last_g = counts_g.cumsum(dim=0)
    doubled_g = 2 * last_g - counts_g + 1  # first + last, where ranks begin at 1
    return (doubled_g[group_n] - (len(values_n) + 1)).to(torch.float64).tolist()  # type: ignore[no-any-return]


def _cosine(x: list[float], y: list[float]) -> float:
    """Return the cosine from exactly rounded sums, so the order of the examples does not matter."""
    xy = math.fsum(a * b for a, b in zip(x, y, strict=True))
    norm = math.sqrt(math.fsum(a * a for a in x) * math.fsum(b * b for b in y))  # exact where x and y are multiples
    return max(-1.0, min(1.0, xy / norm)) if norm > 0 and math.isfinite(norm) else math.nan
