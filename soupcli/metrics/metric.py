"""The definition of a metric. Tensors: logits_nk [N, K] float, labels as `LabelKind` says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from soupcli.errors import ValidationError
from soupcli.late import torch

if TYPE_CHECKING:
    from torch import Tensor


class Metric(NamedTuple):
    """One metric: the contribution of each example, and the value of all contributions.

    `weighted`: the value where example n counts weights_bn[b, n] times; it does not change when all weights are
    multiplied by one number.
    `reachable`, where a part of the set bounds the whole: the best value that the whole can still have, given the
    contributions seen and the labels unseen. No outcome of the unseen examples gives a better one.
    `counts`: contributions are whole numbers, which the last places of logits do not move: the score is the same in
    batches of any size and make-up.
    `right_and_wrong`, if an example is either: what each would contribute if it were right, and if it were wrong.
    `enough`, if few examples tell nothing of the value's error: whether these do.
    `bias`, if few examples give a higher value than many would: by how much they may.
    `span`: the most by which two values can differ; None: there is no such bound.
    `resampled`: the value has no derivative by the weights of examples, so its error comes from resamples.
    `per_class`: an example contributes `width` numbers for each class.
    """

    contribution: Callable[[Tensor, Tensor], Tensor]  # logits_nk, labels -> Tensor [N, ...]
    value: Callable[[Tensor], MetricValue]
    weighted: Callable[[Tensor, Tensor], Tensor]  # contributions, weights_bn float64 [B, N] -> float64 [B]
    higher_is_better: bool = True
    measures: tuple[LabelKind, ...] = ("classes",)
    reachable: Callable[[Tensor, Tensor], float] | None = None
    width: int = 1  # numbers that an example contributes
    counts: bool = False
    right_and_wrong: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None  # contributions -> both, of their shape
    span: float | None = None
    bias: Callable[[Tensor], float] | None = None  # contributions -> estimate
    enough: Callable[[Tensor], bool] | None = None  # contributions -> whether they have an error and an interval
    per_class: bool = False
    resampled: bool = False


Z = 1.959963984540054  # standard errors on either side of a normal mean that hold 95%
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
    if any(part.resampled for part in parts):
        raise ValidationError(
            f"{key}: {name!r}: metrics of libraries have no mean with others", hint="give one of them"
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

    def right_and_wrong(outcomes_nc: Tensor) -> tuple[Tensor, Tensor]:
        both = [part.right_and_wrong(own) for part, own in _split(outcomes_nc, parts) if part.right_and_wrong]
        return torch.cat([_columns(r) for r, _ in both], dim=1), torch.cat([_columns(w) for _, w in both], dim=1)

    def enough(outcomes_nc: Tensor) -> bool:
        return all(part.enough is None or part.enough(own) for part, own in _split(outcomes_nc, parts))

    bounded: Callable[[Tensor, Tensor], float] | None = reachable if all(part.reachable for part in parts) else None
    per_class, counts = any(part.per_class for part in parts), all(part.counts for part in parts)
    width = sum(part.width for part in parts)
    either = right_and_wrong if all(part.right_and_wrong for part in parts) else None
    spans = [part.span for part in parts if part.span is not None]
    span = math.fsum(spans) / len(spans) if len(spans) == len(parts) else None
    return Metric(
        contribution,
        value,
        weighted,
        True,
        measures,
        bounded,
        width,
        counts,
        either,
        span,
        enough=enough,
        per_class=per_class,
    )


def _columns(contribution: Tensor) -> Tensor:
    return contribution[:, None] if contribution.dim() == 1 else contribution


def _split(outcomes_nc: Tensor, parts: Sequence[Metric]) -> Iterator[tuple[Metric, Tensor]]:
    """Each part with what it contributed."""
    plain, per_class = (sum(part.width for part in parts if part.per_class is each) for each in (False, True))
    classes = (outcomes_nc.shape[1] - plain) // per_class if per_class else 1
    widths = [part.width * (classes if part.per_class else 1) for part in parts]
    for part, own in zip(parts, torch.split(outcomes_nc, widths, dim=1), strict=True):
        yield part, own[:, 0] if part.width == 1 and not part.per_class else own


# What labels are: int64 [N]; int64 [N, M], any of which is right, filled up with -1; uint8 [N, K], 1 for each class of
# an example; float64 [N]; int64 [N], the number of tokens that each window predicts.
LabelKind = Literal["classes", "several", "multilabel", "numbers", "tokens"]


class MetricValue(NamedTuple):
    """A metric's value over `n` examples (None: unknown), with its standard error if there is one."""

    value: float
    stderr: float | None
    n: int | None
