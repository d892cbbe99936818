"""What a metric is. Tensors: logits_nk [N, K] float, labels as `LabelKind` says."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from soupcli.validation.examples import LabelKind
from soupcli.validation.score import MetricValue


class Metric(NamedTuple):
    """One metric: its contribution of each example, and the value of all contributions.

    `weighted`: the value where example n counts weights_bn[b, n] times; it does not change when all weights are
    multiplied by one number.
    `reachable`, where a part of the set bounds the whole: the best value that the whole can still have, given the
    contributions seen and the labels unseen. No outcome of the unseen examples gives a better one.
    `counts`: contributions are whole numbers, which the last places of logits do not move: the score is the same in
    batches of any size and make-up.
    """

    contribution: Callable[[Tensor, Tensor], Tensor]  # logits_nk, labels -> Tensor [N, ...]
    value: Callable[[Tensor], MetricValue]
    weighted: Callable[[Tensor, Tensor], Tensor]  # contributions, weights_bn float64 [B, N] -> float64 [B]
    higher_is_better: bool = True
    measures: tuple[LabelKind, ...] = ("classes",)
    reachable: Callable[[Tensor, Tensor], float] | None = None
    width: int = 1  # numbers that an example contributes
    counts: bool = False
