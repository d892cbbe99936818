"""Perplexity of sums and counts, and its standard error."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from soupcli.metrics.perplexity import perplexity


def drawn(windows: int) -> Tensor:
    """Sums and counts of windows with 1 to 20 tokens each."""
    counts = torch.randint(1, 21, (windows,)).double()
    return torch.stack([counts * torch.rand(windows, dtype=torch.float64) * 3, counts], dim=1)


def test_over_all_tokens() -> None:
    """The exponential of one mean over all tokens, not a mean over windows; `n` counts tokens."""
    outcomes = torch.tensor([[10.0, 2.0], [1.0, 8.0]], dtype=torch.float64)
    assert perplexity(outcomes).value == math.exp(1.1)
    assert perplexity(outcomes).n == 10


def test_standard_error() -> None:
    """The delta method is near what a bootstrap over windows gives."""
    outcomes = drawn(400)
    draws = outcomes[torch.randint(0, 400, (4000, 400))].sum(dim=1)
    bootstrapped = (draws[:, 0] / draws[:, 1]).exp().std().item()
    assert perplexity(outcomes).stderr == pytest.approx(bootstrapped, rel=0.05)
    assert perplexity(outcomes[:1]).stderr is None


def test_order_changes_nothing() -> None:
    """Windows in any order give the same bits."""
    outcomes = drawn(200)
    assert perplexity(outcomes) == perplexity(outcomes[torch.randperm(200)])


@pytest.mark.parametrize(
    ("outcome", "value"), [((math.inf, 2.0), math.inf), ((5000.0, 2.0), math.inf), ((math.nan, 2.0), math.nan)]
)
def test_without_bounds(outcome: tuple[float, float], value: float) -> None:
    """A token that was held impossible, a mean whose exponential overflows, and a NaN have no error."""
    found = perplexity(torch.tensor([outcome, (1.0, 1.0)], dtype=torch.float64))
    assert found.value == value or (math.isnan(found.value) and math.isnan(value))
    assert found.stderr is None
