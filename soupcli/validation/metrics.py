"""Metrics as sums over examples: what each example contributes, and the value of the whole.

Contributions are kept for each example, so a score is divided once, over the whole set, and does not change with the
batch size. Tensors: logits_nk [N, K] float, labels_n [N] int64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from soupcli.errors import ValidationError
from soupcli.recipe_yaml import suggestion
from soupcli.validation.score import MetricValue


class Metric(NamedTuple):
    """One metric: its contribution of each example, and the value of all contributions."""

    contribution: Callable[[Tensor, Tensor], Tensor]  # logits_nk, labels_n -> Tensor[N]
    value: Callable[[Tensor], MetricValue]
    higher_is_better: bool = True


def metric_named(name: str) -> Metric:
    """The metric, or ValidationError with the nearest name."""
    if name not in METRICS:
        raise ValidationError(
            f"metric: {name!r} is not known{suggestion(name, METRICS)}", hint=f"one of {', '.join(METRICS)}"
        )
    return METRICS[name]


def _correct(logits_nk: Tensor, labels_n: Tensor, *, among: int) -> Tensor:
    """1 where fewer than `among` logits come before the label's: larger ones, and equal ones of a lower index.

    So ties are broken as argmax breaks them, in any batch. A NaN among the logits is never right.
    """
    own_n1 = logits_nk.gather(1, labels_n[:, None])
    lower_nk = torch.arange(logits_nk.shape[1], device=labels_n.device) < labels_n[:, None]
    before_n = ((logits_nk > own_n1) | ((logits_nk == own_n1) & lower_nk)).sum(dim=1)
    right_n = (before_n < among) & ~logits_nk.isnan().any(dim=1)
    return right_n.to(torch.uint8)


def _negative_log_likelihood(logits_nk: Tensor, labels_n: Tensor) -> Tensor:
    return functional.cross_entropy(logits_nk.to(torch.float64), labels_n, reduction="none")


def _share(correct_n: Tensor) -> MetricValue:
    """Correct over all, with the binomial standard error sqrt(p (1 - p) / n)."""
    n, correct = len(correct_n), int(correct_n.sum())
    if n == 0:
        return MetricValue(math.nan, None, 0)
    share = correct / n
    return MetricValue(share, math.sqrt(share * (1 - share) / n), n)


def _mean(values_n: Tensor) -> MetricValue:
    """Exactly rounded sum over n, with the standard error of the mean (None where the values have none)."""
    n = len(values_n)
    if n == 0:
        return MetricValue(math.nan, None, 0)
    mean = math.fsum(values_n.tolist()) / n
    if n == 1 or not math.isfinite(mean):
        return MetricValue(mean, None, n)
    return MetricValue(mean, float(values_n.std()) / math.sqrt(n), n)


METRICS: dict[str, Metric] = {
    "accuracy": Metric(partial(_correct, among=1), _share),
    "top5": Metric(partial(_correct, among=5), _share),
    "nll": Metric(_negative_log_likelihood, _mean, higher_is_better=False),
}
