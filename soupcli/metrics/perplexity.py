"""Perplexity: the exponential of the mean negative log-likelihood of the tokens that were predicted.

outcomes_n2 [N, 2] float64: of each window the sum of its tokens' negative log-likelihoods, and their number;
weights_bn [B, N] float64, how often window n counts in resample b.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from soupcli.late import torch
from soupcli.metrics.metric import MetricValue

if TYPE_CHECKING:
    from torch import Tensor


def sum_and_count(outcomes_n2: Tensor, _tokens_n: Tensor) -> Tensor:
    """Return the sums that the forward pass of a set of tokens returns, in float64."""
    return outcomes_n2.to(torch.float64)


def perplexity(outcomes_n2: Tensor) -> MetricValue:
    """Return the perplexity over all tokens. The standard error is by the delta method, with windows as the sample.

    `n` counts tokens.
    """
    windows = len(outcomes_n2)
    sums, counts = outcomes_n2[:, 0], outcomes_n2[:, 1]
    tokens = int(counts.sum())
    if tokens == 0 or not bool(sums.isfinite().all()):
        return MetricValue(math.nan if bool(sums.isnan().any()) or not tokens else math.inf, None, tokens)
    mean = math.fsum(sums.tolist()) / tokens
    value = _exp(mean)
    if windows < 2 or not math.isfinite(value):
        return MetricValue(value, None, tokens)
    residuals = math.fsum((sums - mean * counts).square().tolist())
    return MetricValue(value, value * math.sqrt(residuals * windows / (windows - 1)) / tokens, tokens)


def weighted_perplexity(outcomes_n2: Tensor, weights_bn: Tensor) -> Tensor:
    """Return the perplexity of each resample of windows, float64 [B]."""
    return ((weights_bn @ outcomes_n2[:, 0]) / (weights_bn @ outcomes_n2[:, 1])).exp()


def best_perplexity(outcomes_n2: Tensor, unseen_n: Tensor) -> float:
    """Return the perplexity if every token of the unseen windows is predicted with certainty."""
    tokens = int(outcomes_n2[:, 1].sum()) + int(unseen_n.sum())
    rounding = (len(outcomes_n2) + 4) * 2.0**-52
    return _exp(float(outcomes_n2[:, 0].sum()) / tokens * (1 - rounding)) * (1 - 2.0**-50) if tokens else 1.0


def _exp(mean: float) -> float:
    try:
        return math.exp(mean)
    except OverflowError:
        return math.inf
