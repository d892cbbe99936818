"""Expected calibration error: how far a network's confidence is from its accuracy (Guo et al. 2017, section 2).

Tensors: logits_nk [N, K] float, labels_n [N] int64.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from soupcli.late import torch
from soupcli.metrics.accuracy import correct
from soupcli.metrics.metric import MetricValue

if TYPE_CHECKING:
    from torch import Tensor

BINS = 15  # of equal width, each without its lower edge and with its upper, as in the paper


def confidence_and_right(logits_nk: Tensor, labels_n: Tensor) -> Tensor:
    """Return float64 [N, 2]: the largest probability, and 1 if it is the label's."""
    confidence_n = logits_nk.to(torch.float64).softmax(dim=1).amax(dim=1)
    return torch.stack([confidence_n, correct(logits_nk, labels_n, among=1).to(torch.float64)], dim=1)


def expected_calibration_error(outcomes_n2: Tensor) -> MetricValue:
    """Return the sum over bins of |sum of right - confidence over the bin's examples|, divided by all examples."""
    n = len(outcomes_n2)
    if n == 0 or bool(outcomes_n2.isnan().any()):
        return MetricValue(math.nan, None, n)
    bin_n, gap_n = _bins_and_gaps(outcomes_n2)
    gaps = [abs(math.fsum(gap_n[bin_n == number].tolist())) for number in range(BINS)]
    return MetricValue(math.fsum(gaps) / n, None, n)


def weighted_calibration_error(outcomes_n2: Tensor, weights_bn: Tensor) -> Tensor:
    """Return the error of each resample, float64 [B]. weights_bn [B, N] float64 is how often example n counts.

    A standard error from its slopes is too large if bins have hardly any gap.
    """
    bin_n, gap_n = _bins_and_gaps(outcomes_n2)
    gaps_bk = weights_bn.new_zeros(len(weights_bn), BINS).index_add(1, bin_n, weights_bn * gap_n)
    return gaps_bk.abs().sum(dim=1) / weights_bn.sum(dim=1)


def surplus(outcomes_n2: Tensor) -> float:
    """Return how much the error is likely too high: chance gives each bin a gap, and its sign is dropped.

    It is E|X| - |m| for X normal around the observed gap m (folded normal; Leone et al. 1961).
    """
    bin_n, gap_n = _bins_and_gaps(outcomes_n2)
    sums_k = gap_n.new_zeros(BINS).index_add(0, bin_n, gap_n)
    errors_k = gap_n.new_zeros(BINS).index_add(0, bin_n, gap_n.square()).sqrt()
    z_k = sums_k.abs() / errors_k.clamp(min=1e-300)
    folded_k = math.sqrt(2 / math.pi) * (-z_k.square() / 2).exp() - z_k * torch.erfc(z_k / math.sqrt(2))
    return float((errors_k * folded_k).sum()) / len(outcomes_n2)


def _bins_and_gaps(outcomes_n2: Tensor) -> tuple[Tensor, Tensor]:
    """Return the bin, int64 [N], and right minus confidence, float64 [N]."""
    confidence_n, right_n = outcomes_n2[:, 0].contiguous(), outcomes_n2[:, 1]
    edges = torch.arange(1, BINS, dtype=torch.float64) / BINS
    return torch.bucketize(confidence_n, edges), right_n - confidence_n
