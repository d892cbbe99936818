"""F1 and the Matthews correlation coefficient, from counts of predicted and true classes.

Tensors: logits_nk [N, K] float, labels_n [N] int64; outcomes_n3 [N, 3] int64: predicted class, label, K. A network that
gives a NaN predicts -1, which is no class and always wrong. weights_bn [B, N] float64: how often example n counts in
resample b.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from soupcli.late import torch
from soupcli.metrics.metric import MetricValue

if TYPE_CHECKING:
    from torch import Tensor

NO_CLASS = -1


def predicted_and_true(logits_nk: Tensor, labels_n: Tensor) -> Tensor:
    """Return int64 [N, 3]: predicted class, label, K. Ties go to the lower index."""
    classes = logits_nk.shape[1]
    largest_n1 = logits_nk.max(dim=1, keepdim=True).values
    index_k = torch.arange(classes, device=logits_nk.device)
    predicted_n = torch.where(logits_nk == largest_n1, index_k, classes).min(dim=1).values
    predicted_n = predicted_n.masked_fill(logits_nk.isnan().any(dim=1), NO_CLASS)
    return _outcomes(predicted_n, labels_n, classes)


def right_and_wrong(outcomes_n3: Tensor) -> tuple[Tensor, Tensor]:
    """Return both contributions with the example's label. The wrong class is the predicted one, or the next one."""
    predicted_n, labels_n, classes_n = outcomes_n3.unbind(dim=1)
    is_wrong_n = (predicted_n != labels_n) & (predicted_n != NO_CLASS)
    wrong_n = torch.where(is_wrong_n, predicted_n, (labels_n + 1) % classes_n)
    right_n3, wrong_n3 = (torch.stack([named_n, labels_n, classes_n], dim=1) for named_n in (labels_n, wrong_n))
    return right_n3, wrong_n3


def f1(outcomes_n3: Tensor) -> MetricValue:
    """Return the F1 of class 1 of two, else the unweighted mean over all classes that occur (macro).

    F1 is 2 TP / (2 TP + FP + FN), and 0 for a class without any of these.
    """
    n = len(outcomes_n3)
    if n == 0:
        return MetricValue(math.nan, None, 0)
    predicted_n, labels_n, classes = outcomes_n3[:, 0], outcomes_n3[:, 1], int(outcomes_n3[0, 2])
    right_k = torch.bincount(labels_n[predicted_n == labels_n], minlength=classes)
    true_k = torch.bincount(labels_n, minlength=classes)
    named_k = torch.bincount(predicted_n[predicted_n != NO_CLASS], minlength=classes)
    if classes == 2:
        named_k[1] += int(((predicted_n == NO_CLASS) & (labels_n == 0)).sum())  # wrong is the other class
        return MetricValue(_f1(int(right_k[1]), int(true_k[1]), int(named_k[1])), None, n)
    occurring = ((true_k + named_k) > 0).nonzero().flatten().tolist()
    each = [_f1(int(right_k[k]), int(true_k[k]), int(named_k[k])) for k in occurring]
    return MetricValue(math.fsum(each) / len(each), None, n)


def best_f1(outcomes_n3: Tensor, unseen_n: Tensor) -> float:
    """Return the F1 if every unseen example is right. No other outcome of them is better for any class."""
    if len(outcomes_n3) == 0:
        return 1.0
    rest_n3 = _outcomes(unseen_n, unseen_n, int(outcomes_n3[0, 2]))
    return f1(torch.cat([outcomes_n3, rest_n3])).value


def matthews(outcomes_n3: Tensor) -> MetricValue:
    """Return the Matthews correlation, for more than two classes its generalisation R_K (Gorodkin 2004, equation 8).

    It is 0 if all labels or all predictions are one class. Counts are exact until the last two operations.
    """
    n = len(outcomes_n3)
    if n == 0:
        return MetricValue(math.nan, None, 0)
    predicted_n, labels_n = outcomes_n3[:, 0] - NO_CLASS, outcomes_n3[:, 1] - NO_CLASS
    size = int(outcomes_n3[0, 2]) - NO_CLASS
    true = torch.bincount(labels_n, minlength=size).tolist()
    named = torch.bincount(predicted_n, minlength=size).tolist()
    right = int((predicted_n == labels_n).sum())
    covariance = n * right - sum(t * p for t, p in zip(true, named, strict=True))
    spread = (n * n - sum(t * t for t in true)) * (n * n - sum(p * p for p in named))
    return MetricValue(covariance / math.sqrt(spread) if spread else 0.0, None, n)


def weighted_f1(outcomes_n3: Tensor, weights_bn: Tensor) -> Tensor:
    """Return `f1` of each resample, float64 [B]."""
    predicted_n, labels_n, classes = outcomes_n3[:, 0], outcomes_n3[:, 1], int(outcomes_n3[0, 2])
    right_bk = _summed(weights_bn * (predicted_n == labels_n), labels_n, classes)
    true_bk = _summed(weights_bn, labels_n, classes)
    named_bk = _summed(weights_bn * (predicted_n != NO_CLASS), predicted_n.clamp(min=0), classes)
    if classes == 2:
        other_b = (weights_bn * ((predicted_n == NO_CLASS) & (labels_n == 0))).sum(dim=1)
        return _ratio(2 * right_bk[:, 1], true_bk[:, 1] + named_bk[:, 1] + other_b)
    either_bk = true_bk + named_bk
    return _ratio(2 * right_bk, either_bk).sum(dim=1) / (either_bk > 0).sum(dim=1)


def weighted_matthews(outcomes_n3: Tensor, weights_bn: Tensor) -> Tensor:
    """Return `matthews` of each resample, float64 [B]."""
    predicted_n, labels_n = outcomes_n3[:, 0] - NO_CLASS, outcomes_n3[:, 1] - NO_CLASS
    size, n_b = int(outcomes_n3[0, 2]) - NO_CLASS, weights_bn.sum(dim=1)
    true_bk, named_bk = _summed(weights_bn, labels_n, size), _summed(weights_bn, predicted_n, size)
    right_b = (weights_bn * (predicted_n == labels_n)).sum(dim=1)
    covariance_b = n_b * right_b - (true_bk * named_bk).sum(dim=1)
    spread_b = (n_b**2 - true_bk.square().sum(dim=1)) * (n_b**2 - named_bk.square().sum(dim=1))
    one_sided_b = spread_b <= 0
    return torch.where(one_sided_b, 0.0, covariance_b / spread_b.masked_fill(one_sided_b, 1.0).sqrt())


def _summed(weights_bn: Tensor, class_n: Tensor, classes: int) -> Tensor:
    """Return the summed weights of each class, float64 [B, K]."""
    return weights_bn.new_zeros(len(weights_bn), classes).index_add(1, class_n, weights_bn)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """0 if the whole is 0."""
    return part / whole.masked_fill(whole == 0, 1.0)


def _outcomes(predicted_n: Tensor, labels_n: Tensor, classes: int) -> Tensor:
    return torch.stack([predicted_n, labels_n, torch.full_like(labels_n, classes)], dim=1)


def _f1(right: int, true: int, named: int) -> float:
    return 2 * right / (true + named) if true + named else 0.0
