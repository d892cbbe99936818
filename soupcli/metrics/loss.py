"""Metrics that are means over examples: negative log-likelihood, squared error.

Tensors: values_n [N]; weights_bn [B, N] float64, how often example n counts in resample b.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from soupcli.late import functional, torch
from soupcli.metrics.metric import MetricValue

if TYPE_CHECKING:
    from torch import Tensor


def negative_log_likelihood(logits_nk: Tensor, labels_n: Tensor) -> Tensor:
    """Return the negative log-likelihood of each label, float64 [N], in nats."""
    return functional.cross_entropy(logits_nk.to(torch.float64), labels_n, reduction="none")


def right_and_wrong(losses_n: Tensor) -> tuple[Tensor, Tensor]:
    """Return each loss, and the loss if label and rest exchanged their probabilities. The smaller one is first."""
    other_n = -torch.log(-torch.expm1(-losses_n.clamp(min=torch.finfo(losses_n.dtype).tiny)))
    return torch.minimum(losses_n, other_n), torch.maximum(losses_n, other_n)


def mean(values_n: Tensor) -> MetricValue:
    """Return the exactly rounded mean with its standard error, which is None if there is none."""
    n = len(values_n)
    if n == 0:
        return MetricValue(math.nan, None, 0)
    value = math.fsum(values_n.tolist()) / n
    if n == 1 or not math.isfinite(value):
        return MetricValue(value, None, n)
    return MetricValue(value, float(values_n.std()) / math.sqrt(n), n)


def weighted_mean(values_n: Tensor, weights_bn: Tensor) -> Tensor:
    """Return the mean of each resample, float64 [B]."""
    return weights_bn @ values_n.to(torch.float64) / weights_bn.sum(dim=1)


def least_mean(values_n: Tensor, unseen: Tensor) -> float:
    """Return the mean if every unseen example contributes 0, the least. It never exceeds the final mean."""
    n = len(values_n) + len(unseen)
    return float(values_n.sum()) / n * (1 - (n + 4) * 2.0**-52)
