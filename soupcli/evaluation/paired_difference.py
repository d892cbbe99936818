"""Intervals and tests of a difference: two sets of weights on the same examples, compared example by example.

Shares of right examples: Tango's score interval (Tango 1998, "Equivalence test and confidence interval for the
difference in proportions for the paired-sample design"), and McNemar's exact test (McNemar 1947). The interval is
widened to hold 0 if the test does not rule 0 out, so that both say the same.

All other metrics: Student's t interval of the jackknife's pseudo-values (Efron 1982). A few examples seldom show the
rare ones that decide, so two are imagined, one in favour of each side. They are what Agresti and Min (2005, "Simple
improved confidence intervals for comparing matched proportions") add to proportions. If few examples overstate a metric
(the calibration error), the interval is longer by an estimate of that at either end. `benchmarks/coverage.py` has how
often these intervals hold the truth. Nothing is drawn. Metrics of libraries have the bootstrap's deviation over seeded
resamples of the examples, the same for both sides. Equal outcomes give equal intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from soupcli.late import torch
from soupcli.metrics.metric import Metric, Z
from soupcli.metrics.standard_error import at_least_of_all, bootstrap_error, slopes
from soupcli.metrics.table import metric_named
from soupcli.wording import SURE

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.evaluation.score import Score

# 97.5% points of Student's t with 1, 2, ... degrees of freedom; beyond, an expansion is exact to 0.001.
FEW_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
HALVINGS = 60
Interval = tuple[float, float]


class PairedDifference(NamedTuple):
    """The difference of a metric between two sets of weights, its 95% interval, and McNemar's p if it has one.

    Interval and p are None if outcomes of single examples are unknown, or if the metric is not a number.
    """

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None

    @property
    def surely_above_0(self) -> bool:
        """Whether interval and test both show that the first is above the second."""
        return self.low is not None and self.low > 0 and (self.p is None or self.p < SURE)


def difference(first: Score, second: Score, metric: str, *, counted: float = 1.0) -> PairedDifference:
    """Return the first `metric` minus the second, both over the same examples in the same order.

    `counted` is the share of examples that are independent. Interval and p are for that many.
    """
    value = first.metrics[metric].value - second.metrics[metric].value
    a, b = first.outcomes.get(metric), second.outcomes.get(metric)
    if a is None or b is None or len(a) != len(b) or not math.isfinite(value):
        return PairedDifference(value)
    if a.dtype == torch.uint8 and a.dim() == 1:
        alone = [round(counted * int(each.sum())) for each in (a > b, a < b)]
        low, high = share_interval(alone[0], alone[1], max(round(counted * len(a)), sum(alone), 1))
        return PairedDifference(value, min(low, value), max(high, value), exact_mcnemar(*alone))
    of = metric_named(metric)
    interval = metric_interval(of, a, b) if len(a) > 1 else None
    if interval is None:
        return PairedDifference(value)
    low, high = (value + (end - value) / math.sqrt(counted) for end in interval)
    most = of.span if of.span is not None else math.inf
    return PairedDifference(value, max(low, -most), min(high, most))


def exact_mcnemar(first_alone: int, second_alone: int) -> float:
    """Return the two-sided p of the counts that only one side has right: the exact binomial test of a fair coin."""
    n, fewer = first_alone + second_alone, min(first_alone, second_alone)
    ways = term = 1
    for k in range(fewer):
        term = term * (n - k) // (k + 1)
        ways += term
    total: int = 2**n
    return min(1.0, 2 * ways / total)  # whole numbers, rounded once


def share_interval(first_alone: int, second_alone: int, n: int) -> Interval:
    """Return the 95% interval of a difference of two shares over the same `n` examples."""
    low, high = tango(first_alone, second_alone, n)
    if exact_mcnemar(first_alone, second_alone) >= SURE:
        return min(low, 0.0), max(high, 0.0)
    return low, high


def tango(first_alone: int, second_alone: int, n: int) -> Interval:
    """Return the range of differences that the score test, at `Z` standard errors, does not rule out."""
    value = (first_alone - second_alone) / n
    high = _crossing(lambda delta: _score(first_alone, second_alone, n, delta) < -Z, value, 1.0)
    low = _crossing(lambda delta: _score(first_alone, second_alone, n, delta) > Z, value, -1.0)
    return low, high


def _score(first_alone: int, second_alone: int, n: int, delta: float) -> float:
    """Return Tango's statistic: how many standard errors the difference is above `delta` if `delta` is true."""
    b = -first_alone - second_alone + (2 * n - first_alone + second_alone) * delta
    root = math.sqrt(max(0.0, b * b + 8 * n * second_alone * delta * (1 - delta)))
    second_share = (root - b) / (4 * n)  # its maximum likelihood, given delta
    variance = n * (2 * second_share + delta * (1 - delta))
    above = first_alone - second_alone - n * delta
    if variance <= 0:
        return math.copysign(math.inf, above) if above else 0.0
    return above / math.sqrt(variance)


def _crossing(ruled_out: Callable[[float], bool], inside: float, outside: float) -> float:
    """Return the point between `inside` and `outside` at which `ruled_out` turns true, or the outer one."""
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if ruled_out(middle) else (middle, outside)
    return outside


def metric_interval(metric: Metric, first: Tensor, second: Tensor) -> Interval | None:
    """Return the 95% interval of a metric's difference, from contributions [N, ...] of both sides, or None."""
    if bool((first == second).all()) and first.is_floating_point() and not metric.counts:
        return 0.0, 0.0  # the same outputs to the last place: the same network
    if metric.enough is not None and not metric.enough(first):
        return None
    if metric.resampled:
        return _resampled_interval(metric, first, second)
    value, slopes_n = slopes(_less(metric, first, second), len(first))
    if not math.isfinite(value) or not bool(slopes_n.isfinite().all()):
        return None
    if metric.right_and_wrong is not None and (metric.counts or not _one_alone(metric, first, second)):
        centre, error = _with_imagined_rows(metric, first, second)
    else:
        centre, error = _with_extremes(value, slopes_n)
    if not math.isfinite(error):
        return None
    if metric.span is not None:  # both are right, or wrong, on each example: others may tell them apart
        error = at_least_of_all(error, metric.span, len(first))
    reach = student_t(len(first) - 1) * error
    most = metric.span if metric.span is not None else math.inf
    down, up = (metric.bias(each) if metric.bias is not None else 0.0 for each in (first, second))
    return max(-most, min(centre - reach - down, value)), min(most, max(centre + reach + up, value))


def _resampled_interval(metric: Metric, first: Tensor, second: Tensor) -> Interval | None:
    """Return Student's t interval around the difference, by its deviation over resamples of the examples."""

    def less(of_first: Tensor, of_second: Tensor) -> float:
        return metric.value(of_first).value - metric.value(of_second).value

    value, error = less(first, second), bootstrap_error(less, first, second)
    if error is None or not math.isfinite(value):
        return None
    reach = student_t(len(first) - 1) * error
    return value - reach, value + reach


def _less(metric: Metric, first: Tensor, second: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the difference as a function of the weights of the examples."""
    return lambda weights_bn: metric.weighted(first, weights_bn) - metric.weighted(second, weights_bn)


def _one_alone(metric: Metric, first: Tensor, second: Tensor) -> bool:
    """Whether on some example only one of the two is right."""
    assert metric.right_and_wrong is not None
    right = [outcomes == metric.right_and_wrong(outcomes)[0] for outcomes in (first, second)]
    return bool((right[0] != right[1]).any())


def _with_imagined_rows(metric: Metric, first: Tensor, second: Tensor) -> tuple[float, float]:
    """Return centre and standard error with two more examples, one that only each side has right.

    Both are spread evenly over all examples, each taken as right by one side and wrong by the other.
    """
    assert metric.right_and_wrong is not None
    n = len(first)
    (right_1, wrong_1), (right_2, wrong_2) = metric.right_and_wrong(first), metric.right_and_wrong(second)
    one, other = torch.cat([first, right_1, wrong_1]), torch.cat([second, wrong_2, right_2])
    weights = torch.cat([torch.ones(n), torch.full((2 * n,), 1 / n)]).to(torch.float64)
    centre, slopes_n = slopes(_less(metric, one, other), 3 * n, weights)
    return centre, math.sqrt(math.fsum((weights * slopes_n.square()).tolist()))


def _with_extremes(value: float, slopes_n: Tensor) -> tuple[float, float]:
    """Return centre and standard error of the pseudo-values' mean with the largest of them added on either side."""
    n = len(slopes_n)
    pseudo_n = value + n * slopes_n
    extreme = pseudo_n.abs().max()
    values = torch.cat([pseudo_n, torch.stack([extreme, -extreme])])
    return float(values.mean()), float(values.std(correction=0)) / math.sqrt(n + 1)


def student_t(freedom: int) -> float:
    """Return the 97.5% point of Student's t."""
    if freedom <= len(FEW_T):
        return FEW_T[max(freedom, 1) - 1]
    second = (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)
    return Z + (Z**3 + Z) / (4 * freedom) + second + (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / (384 * freedom**3)
