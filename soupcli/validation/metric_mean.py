"""`metric: accuracy+f1`: the mean of several metrics of one kind, as GLUE scores MRPC; `pearson+spearman` is its STS-B.

What each example contributes to the parts stands side by side, [N, sum of their widths].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from soupcli.errors import ValidationError
from soupcli.validation.metric import Metric
from soupcli.validation.score import MetricValue

SIGN = "+"


def mean_of(parts: Sequence[Metric], name: str, *, key: str) -> Metric:
    """The mean of `parts`, whose names `name` joins.

    Raises ValidationError, beginning with `key`, where they measure different labels or not all are better when higher.
    """
    measures = tuple(kind for kind in parts[0].measures if all(kind in part.measures for part in parts))
    if not all(part.higher_is_better for part in parts):
        raise ValidationError(
            f"{key}: {name!r}: a mean is of metrics that are better when higher", hint="e.g. accuracy+f1"
        )
    if not measures:
        raise ValidationError(f"{key}: {name!r}: its parts measure labels of different kinds", hint="e.g. accuracy+f1")

    def contribution(logits_nk: Tensor, labels: Tensor) -> Tensor:
        return torch.cat([_columns(part.contribution(logits_nk, labels)) for part in parts], dim=1)

    def value(outcomes_nc: Tensor) -> MetricValue:
        values = [part.value(own) for part, own in _split(outcomes_nc, parts)]
        return MetricValue(math.fsum(v.value for v in values) / len(values), None, len(outcomes_nc))

    def weighted(outcomes_nc: Tensor, weights_bn: Tensor) -> Tensor:
        values = [part.weighted(own, weights_bn) for part, own in _split(outcomes_nc, parts)]
        return torch.stack(values).mean(dim=0)

    def reachable(outcomes_nc: Tensor, unseen: Tensor) -> float:
        bounds = [part.reachable(own, unseen) for part, own in _split(outcomes_nc, parts) if part.reachable]
        return math.fsum(bounds) / len(bounds)

    bounded: Callable[[Tensor, Tensor], float] | None = reachable if all(part.reachable for part in parts) else None
    width, counts = sum(part.width for part in parts), all(part.counts for part in parts)
    return Metric(contribution, value, weighted, True, measures, bounded, width, counts)


def _columns(contribution: Tensor) -> Tensor:
    return contribution[:, None] if contribution.dim() == 1 else contribution


def _split(outcomes_nc: Tensor, parts: Sequence[Metric]) -> Iterator[tuple[Metric, Tensor]]:
    """Each part with what it contributed."""
    for part, own in zip(parts, torch.split(outcomes_nc, [part.width for part in parts], dim=1), strict=True):
        yield part, own[:, 0] if part.width == 1 else own
