"""How sure a difference is: two sets of weights on the same examples, compared example by example.

A paired bootstrap (Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13: percentile intervals)
draws the examples again and takes both scores of each draw, so that what is hard for both does not count. Of right and
wrong ones McNemar's test, exact: of the examples that one has right and the other wrong, either is as likely if both
are equally good (McNemar 1947, "Note on the sampling error of the difference between correlated proportions").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from soupcli.metrics.table import metric_named

if TYPE_CHECKING:
    from soupcli.evaluation.score import Score

DRAWS = 1000
SEED = 0
INTERVAL = (0.025, 0.975)
FEW = 64  # kinds of examples that are counted, not drawn one by one
AT_ONCE = 2**22  # examples that are drawn at a time


class Difference(NamedTuple):
    """A metric of one set of weights less that of another, its 95% interval, and McNemar's p where it has one.

    None where nothing is known of single examples, or the metric is not a number.
    """

    value: float
    low: float | None = None
    high: float | None = None
    p: float | None = None


def difference(first: Score, second: Score, metric: str) -> Difference:
    """`metric` of the first less that of the second, both over the same examples in the same order."""
    value = first.metrics[metric].value - second.metrics[metric].value
    a, b = first.outcomes.get(metric), second.outcomes.get(metric)
    if a is None or b is None or len(a) != len(b) or len(a) < 2 or not math.isfinite(value):
        return Difference(value)
    low, high = bootstrap_interval(metric_named(metric).weighted, a, b) or (None, None)
    p = exact_mcnemar(int((a > b).sum()), int((a < b).sum())) if a.dtype == torch.uint8 else None
    return Difference(value, low, high, p)


def exact_mcnemar(first_alone: int, second_alone: int) -> float:
    """Two-sided p of the numbers of examples that one alone has right: the binomial test of a fair coin, exactly."""
    n, fewer = first_alone + second_alone, min(first_alone, second_alone)
    ways = term = 1
    for k in range(fewer):
        term = term * (n - k) // (k + 1)
        ways += term
    total: int = 2**n
    return min(1.0, 2 * ways / total)  # whole numbers, rounded once


def bootstrap_interval(
    weighted: Callable[[Tensor, Tensor], Tensor],
    first: Tensor,
    second: Tensor,
    *,
    draws: int = DRAWS,
    seed: int = SEED,
) -> tuple[float, float] | None:
    """The 95% interval of the difference of a metric; `first`, `second`: its contributions [N, ...].

    None where no draw has a value. The same seed gives the same interval.
    """
    first, second, counts = _kinds(first, second)
    differences = torch.cat([weighted(first, w) - weighted(second, w) for w in _resamples(counts, draws, seed)])
    differences = differences[differences.isfinite()]
    if len(differences) == 0:
        return None
    low, high = differences.quantile(torch.tensor(INTERVAL, dtype=torch.float64)).tolist()
    return low, high


def _kinds(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Contributions of each kind of example, and how many there are of it: right or wrong by both makes four kinds."""
    n = len(first)
    if not first.is_floating_point():
        pairs = torch.cat([first.reshape(n, -1), second.reshape(n, -1)], dim=1).to(torch.int64)
        rows, counts = torch.unique(pairs, dim=0, return_counts=True)
        if len(rows) <= FEW:
            one, other = rows.tensor_split(2, dim=1)
            return one.reshape(-1, *first.shape[1:]), other.reshape(-1, *second.shape[1:]), counts
    return first, second, torch.ones(n, dtype=torch.int64)


def _resamples(counts_k: Tensor, draws: int, seed: int) -> Iterator[Tensor]:
    """How often each kind occurs in samples of as many examples as there are: float64 [b, K], `draws` rows in all."""
    generator = torch.Generator().manual_seed(seed)
    n, kinds = int(counts_k.sum()), len(counts_k)
    if kinds < n or kinds <= FEW:
        yield _multinomial(counts_k.to(torch.float64), draws, generator)
        return
    rows = max(1, AT_ONCE // n)
    for begin in range(0, draws, rows):
        some = min(rows, draws - begin)
        drawn = torch.randint(n, (some, n), generator=generator) + n * torch.arange(some)[:, None]
        yield torch.bincount(drawn.flatten(), minlength=some * n).reshape(some, n).to(torch.float64)


def _multinomial(counts_k: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """float64 [draws, K]: one kind after the other, binomially among what is left."""
    left_b = torch.full((draws,), float(counts_k.sum()), dtype=torch.float64)
    rest, drawn = float(counts_k.sum()), []
    for count in counts_k.tolist():
        share = torch.full_like(left_b, min(1.0, count / rest) if rest > 0 else 0.0)
        drawn.append(torch.binomial(left_b, share, generator=generator))
        left_b, rest = left_b - drawn[-1], rest - count
    return torch.stack(drawn, dim=1)
