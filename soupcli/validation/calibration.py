"""Expected calibration error: how far a network's confidence is from its accuracy (Guo et al. 2017, section 2).

Tensors: logits_nk [N, K] float, labels_n [N] int64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from soupcli.validation.score import MetricValue
from soupcli.validation.shares import correct

BINS = 15  # of equal width, each without its lower edge and with its upper, as in the paper


def confidence_and_right(logits_nk: Tensor, labels_n: Tensor) -> Tensor:
    """float64 [N, 2]: the largest probability, and 1 where it is the label's."""
    confidence_n = logits_nk.to(torch.float64).softmax(dim=1).amax(dim=1)
    return torch.stack([confidence_n, correct(logits_nk, labels_n, among=1).to(torch.float64)], dim=1)


def expected_calibration_error(outcomes_n2: Tensor) -> MetricValue:
    """The sum over bins of |right - confidence|, each summed over the bin's examples, over all examples."""
    n = len(outcomes_n2)
    if n == 0 or bool(outcomes_n2.isnan().any()):
        return MetricValue(math.nan, None, n)
    confidence_n, right_n = outcomes_n2[:, 0].contiguous(), outcomes_n2[:, 1]
    edges = torch.arange(1, BINS, dtype=torch.float64) / BINS
    bin_n = torch.bucketize(confidence_n, edges)
    gaps = []
    for number in range(BINS):
        inside_n = bin_n == number
        gaps.append(abs(math.fsum((right_n - confidence_n)[inside_n].tolist())))
    return MetricValue(math.fsum(gaps) / n, None, n)
