"""Standard errors of metrics that have no formula of their own: the infinitesimal jackknife.

Efron 1982, "The Jackknife, the Bootstrap and Other Resampling Plans", chapter 6: the derivatives of a value by the
weight of each example give its variation from sample to sample. For a share that is sqrt(p (1 - p) / n), for a smooth
function of means the delta method. Nothing is random. If no example moves the value (all are right), Wilson's interval
(1927) of a share is used. Metrics of libraries have no derivative and no known span: they are computed on seeded
resamples, and have no error if these all agree.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING

from soupcli.errors import ValidationError
from soupcli.late import torch
from soupcli.metrics.metric import Metric, MetricValue, Z

if TYPE_CHECKING:
    from torch import Tensor


def with_error(metric: Metric, outcomes: Tensor) -> MetricValue:
    """Return the metric over all contributions [N, ...], with a standard error if it can have one."""
    value = metric.value(outcomes)
    if value.stderr is not None or len(outcomes) < 2 or not math.isfinite(value.value):
        return value
    if metric.enough is not None and not metric.enough(outcomes):
        return value
    if metric.resampled:
        return value._replace(stderr=bootstrap_error(lambda of: metric.value(of).value, outcomes))
    error = infinitesimal_jackknife(metric.weighted, outcomes)
    if error is not None and metric.span is not None:
        error = at_least_of_all(error, metric.span, len(outcomes))
    return value._replace(stderr=error)


NOTHING = 1e-12  # what rounding leaves of an error that is 0
RESAMPLES = 100
FAILED = 0.1  # of the resamples may have no value, as without an example of a class


def bootstrap_error(value_of: Callable[..., float], *outcomes: Tensor) -> float | None:
    """Return a value's standard deviation over seeded resamples of the examples (Efron 1979), or None without one.

    Resamples that all agree, as where every example is right, do not say how far another sample would be off.
    `value_of` gets the drawn rows of each of `outcomes` [N, ...].
    """
    n, generator = len(outcomes[0]), torch.Generator().manual_seed(0)
    drawn = [torch.randint(n, (n,), generator=generator) for _ in range(RESAMPLES)]
    finite = []
    for rows in drawn:
        try:
            value = value_of(*(each[rows] for each in outcomes))
        except ValidationError:  # of a library that takes no set without an example of a class
            continue
        finite += [value] if math.isfinite(value) else []
    error = statistics.stdev(finite) if len(finite) >= (1 - FAILED) * RESAMPLES else 0.0
    return error if error >= NOTHING else None


def error_of_all(n: int) -> float:
    """Return the standard error of a share of 0 or 1 of `n` examples: Wilson's interval is 1.96 of it long."""
    return Z / (n + Z * Z)


def at_least_of_all(error: float, span: float, n: int) -> float:
    """Return the error, or that of a share of 0 or 1 over the metric's span if no example moves the value."""
    return error if error >= NOTHING else span * error_of_all(n)


def infinitesimal_jackknife(weighted: Callable[[Tensor, Tensor], Tensor], outcomes: Tensor) -> float | None:
    """Return sqrt(sum over examples of (d value / d weight)^2) at equal weights, or None if that is not a number.

    `weighted` is that of a Metric. It does not change if all weights are multiplied by one number.
    """
    _, slopes_n = slopes(lambda weights_bn: weighted(outcomes.clone(), weights_bn), len(outcomes))
    error = math.sqrt(math.fsum(slopes_n.square().tolist()))
    return error if math.isfinite(error) else None


def slopes(value_of: Callable[[Tensor], Tensor], n: int, weights_n: Tensor | None = None) -> tuple[float, Tensor]:
    """Return the value of a function of weights_bn [1, N], and its derivative by each weight, float64 [N].

    Both are taken at `weights_n`, by default 1 each.
    """
    start_n = torch.ones(n, dtype=torch.float64) if weights_n is None else weights_n
    with torch.inference_mode(False), torch.enable_grad():
        weights_1n = start_n.clone()[None].requires_grad_()
        value = value_of(weights_1n).sum()
        (slopes_1n,) = torch.autograd.grad(value, weights_1n)
    return float(value.detach()), slopes_1n[0]
