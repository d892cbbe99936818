"""Standard errors of metrics that have no formula of their own: the infinitesimal jackknife.

Efron 1982, "The Jackknife, the Bootstrap and Other Resampling Plans", chapter 6: how fast a value changes with the
weight of each example says how it varies from sample to sample. Of a share it is sqrt(p (1 - p) / n), of a smooth
function of means the delta method; it draws nothing, so it is the same in every run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from soupcli.metrics.metric import Metric, MetricValue


def with_error(metric: Metric, outcomes: Tensor) -> MetricValue:
    """The metric over all contributions [N, ...], with a standard error where there can be one."""
    value = metric.value(outcomes)
    if value.stderr is not None or len(outcomes) < 2 or not math.isfinite(value.value):
        return value
    return value._replace(stderr=infinitesimal_jackknife(metric.weighted, outcomes))


def infinitesimal_jackknife(weighted: Callable[[Tensor, Tensor], Tensor], outcomes: Tensor) -> float | None:
    """sqrt(sum over examples of (d value / d weight)^2) at equal weights, None where that is no number.

    `weighted` is that of a Metric: it does not change when all weights are multiplied by one number.
    """
    with torch.inference_mode(False), torch.enable_grad():
        weights_1n = torch.ones((1, len(outcomes)), dtype=torch.float64, requires_grad=True)
        value = weighted(outcomes.clone(), weights_1n).sum()
        (slopes_1n,) = torch.autograd.grad(value, weights_1n)
    error = math.sqrt(math.fsum(slopes_1n.square().flatten().tolist()))
    return error if math.isfinite(error) else None
