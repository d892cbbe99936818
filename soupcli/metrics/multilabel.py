"""Metrics of examples that have any number of classes each: mean average precision, F1, binary cross-entropy.

Tensors: logits_nk [N, K] float, labels_nk [N, K] uint8 of 0 and 1. A class is predicted if its logit is above 0, a
probability above one half. outcomes_nk [N, K]: 2 for a label, plus 1 for a prediction; a NaN predicts what is wrong.
outcomes_n2k [N, 2K]: the logits, then the labels. weights_bn [B, N] float64: how often example n counts in resample b.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from soupcli.late import functional, torch
from soupcli.metrics import f1_mcc
from soupcli.metrics.metric import MetricValue

if TYPE_CHECKING:
    from torch import Tensor

PREDICTED, TRUE = 1, 2
LEAST = 5  # examples of a class: with two or three, intervals held the truth in 76% to 84% of samples
ROUNDING = 1e-14  # by which a bound is above the value that it bounds: each of its four steps may round it down


def predicted_and_true(logits_nk: Tensor, labels: Tensor) -> Tensor:
    """uint8 [N, K]: 0 to 3. Of examples that have one class each (int64 [N]), the largest logit is predicted."""
    labels_nk = _rows(labels, logits_nk.shape[1])
    if labels.dim() == 1:
        predicted_n = f1_mcc.predicted_and_true(logits_nk, labels)[:, 0]
        predicted_nk = _rows(predicted_n.clamp(min=0), logits_nk.shape[1]) * (predicted_n >= 0)[:, None]
        return TRUE * labels_nk + PREDICTED * predicted_nk
    predicted_nk = torch.where(logits_nk.isnan(), labels_nk == 0, logits_nk > 0)
    return (TRUE * labels_nk + PREDICTED * predicted_nk).to(torch.uint8)


def f1_micro(outcomes_nk: Tensor) -> MetricValue:
    """2 TP / (2 TP + FP + FN), each summed over all classes; 0 if there is nothing to find and nothing was found."""
    right_k, either_k = _counts(outcomes_nk)
    value = _f1(int(right_k.sum()), int(either_k.sum())) if len(outcomes_nk) else math.nan
    return MetricValue(value, None, len(outcomes_nk))


def f1_macro(outcomes_nk: Tensor) -> MetricValue:
    """The unweighted mean of the F1 of each class that occurs, as a label or as a prediction; 0 if none does."""
    right_k, either_k = _counts(outcomes_nk)
    each = [_f1(right, either) for right, either in zip(right_k.tolist(), either_k.tolist(), strict=True) if either]
    value = math.fsum(each) / len(each) if each else 0.0
    return MetricValue(value if len(outcomes_nk) else math.nan, None, len(outcomes_nk))


def best_f1_micro(outcomes_nk: Tensor, unseen: Tensor) -> float:
    """With every unseen example right: no other outcome of them is better."""
    return f1_micro(_with_right(outcomes_nk, unseen)).value


def best_f1_macro(outcomes_nk: Tensor, unseen: Tensor) -> float:
    """With every unseen example right: no other outcome of them is better for any class."""
    return f1_macro(_with_right(outcomes_nk, unseen)).value


def weighted_f1_micro(outcomes_nk: Tensor, weights_bn: Tensor) -> Tensor:
    """float64 [B]: as `f1_micro` of each resample."""
    right_bk, either_bk = _weighted_counts(outcomes_nk, weights_bn)
    return _ratio(2 * right_bk.sum(dim=1), either_bk.sum(dim=1))


def weighted_f1_macro(outcomes_nk: Tensor, weights_bn: Tensor) -> Tensor:
    """float64 [B]: as `f1_macro` of each resample."""
    right_bk, either_bk = _weighted_counts(outcomes_nk, weights_bn)
    return _ratio(2 * right_bk, either_bk).sum(dim=1) / (either_bk > 0).sum(dim=1).clamp(min=1)


def logits_and_true(logits_nk: Tensor, labels_nk: Tensor) -> Tensor:
    """float32 [N, 2K]."""
    return torch.cat([logits_nk.to(torch.float32), labels_nk.to(torch.float32)], dim=1)


def mean_average_precision(outcomes_n2k: Tensor) -> MetricValue:
    """The unweighted mean of the average precision of each class that has an example (macro).

    Of a class: the precision at every example that has it, examples sorted by logit, equal ones at once (Zhu 2004).
    """
    n = len(outcomes_n2k)
    if n == 0 or bool(outcomes_n2k.isnan().any()):
        return MetricValue(math.nan, None, n)
    return MetricValue(_mean_precision(outcomes_n2k, outcomes_n2k.new_zeros(outcomes_n2k.shape[1] // 2)), None, n)


def tells_precision(outcomes_n2k: Tensor) -> bool:
    """Whether a class that occurs has LEAST examples on average: fewer understate how far average precision is off."""
    count_k = (outcomes_n2k.chunk(2, dim=1)[1] > 0).sum(dim=0)
    return int(count_k.sum()) >= LEAST * max(1, int((count_k > 0).sum()))


def best_mean_average_precision(outcomes_n2k: Tensor, unseen_nk: Tensor) -> float:
    """With every unseen example that has a class above all others, and those that do not below."""
    if bool(outcomes_n2k.isnan().any()):
        return math.nan
    return _mean_precision(outcomes_n2k, unseen_nk.to(torch.float64).sum(dim=0)) * (1 + ROUNDING)


def weighted_mean_average_precision(outcomes_n2k: Tensor, weights_bn: Tensor) -> Tensor:
    """float64 [B]: as `mean_average_precision` of each resample."""
    ranked_nk, end_nk, true_nk = _ranked(outcomes_n2k)
    values = []
    for weights_n in weights_bn.unbind():
        weights_nk = weights_n[ranked_nk]
        true_weights_nk = weights_nk * true_nk
        right_nk, seen_nk = true_weights_nk.cumsum(dim=0), weights_nk.cumsum(dim=0)
        precision_nk = _ratio(right_nk.gather(0, end_nk), seen_nk.gather(0, end_nk))
        total_k = right_nk[-1]
        values.append(_ratio((true_weights_nk * precision_nk).sum(dim=0), total_k).sum() / (total_k > 0).sum())
    return torch.stack(values)


def binary_cross_entropy(logits_nk: Tensor, labels_nk: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """[N], in nats: the mean over classes, as torch's BCEWithLogitsLoss takes it; in the dtype of the logits."""
    targets_nk = labels_nk.to(logits_nk.dtype) * (1 - label_smoothing) + label_smoothing / 2
    return functional.binary_cross_entropy_with_logits(logits_nk, targets_nk, reduction="none").mean(dim=1)


def wide_binary_cross_entropy(logits_nk: Tensor, labels_nk: Tensor) -> Tensor:
    """float64 [N]."""
    return binary_cross_entropy(logits_nk.to(torch.float64), labels_nk)


def _counts(outcomes_nk: Tensor) -> tuple[Tensor, Tensor]:
    """int64 [K]: true positives; labels and predictions."""
    true_nk, predicted_nk = outcomes_nk >= TRUE, outcomes_nk % 2 == PREDICTED
    return (true_nk & predicted_nk).sum(dim=0), true_nk.sum(dim=0) + predicted_nk.sum(dim=0)


def _weighted_counts(outcomes_nk: Tensor, weights_bn: Tensor) -> tuple[Tensor, Tensor]:
    true_nk, predicted_nk = outcomes_nk >= TRUE, outcomes_nk % 2 == PREDICTED
    right_nk, either_nk = true_nk & predicted_nk, true_nk.to(torch.float64) + predicted_nk
    return weights_bn @ right_nk.to(torch.float64), weights_bn @ either_nk


def _rows(labels: Tensor, classes: int) -> Tensor:
    """uint8 [N, K]."""
    return labels if labels.dim() == 2 else functional.one_hot(labels, classes).to(torch.uint8)


def _with_right(outcomes_nk: Tensor, unseen: Tensor) -> Tensor:
    unseen_nk = _rows(unseen, outcomes_nk.shape[1])
    return torch.cat([outcomes_nk, ((TRUE + PREDICTED) * unseen_nk).to(outcomes_nk.dtype)])


def _mean_precision(outcomes_n2k: Tensor, above_k: Tensor) -> float:
    """The mean over classes, with `above_k` further examples that have the class before all others."""
    _, end_nk, true_nk = _ranked(outcomes_n2k)
    right_nk = true_nk.to(torch.float64).cumsum(dim=0).gather(0, end_nk) + above_k
    precision_nk = right_nk / (end_nk + 1 + above_k)
    total_k = true_nk.sum(dim=0) + above_k
    each = [
        (math.fsum(precision_n[true_n].tolist()) + above) / total
        for precision_n, true_n, above, total in zip(
            precision_nk.T, true_nk.T, above_k.tolist(), total_k.tolist(), strict=True
        )
        if total
    ]
    return math.fsum(each) / len(each) if each else math.nan


def _ranked(outcomes_n2k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[N, K] each: examples by logit, largest first; the last place of an equal one; whether they have the class."""
    logits_nk, true_nk = outcomes_n2k.chunk(2, dim=1)
    sorted_nk, ranked_nk = logits_nk.sort(dim=0, descending=True, stable=True)
    n = len(sorted_nk)
    place_nk = torch.arange(n)[:, None].expand(sorted_nk.shape).clone()
    place_nk[:-1][sorted_nk[:-1] == sorted_nk[1:]] = n
    end_nk = place_nk.flip(0).cummin(dim=0).values.flip(0)
    return ranked_nk, end_nk, true_nk.gather(0, ranked_nk) > 0


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """0 if the whole is 0."""
    return part / whole.masked_fill(whole == 0, 1.0)


def _f1(right: int, either: int) -> float:
    return 2 * right / either if either else 0.0
