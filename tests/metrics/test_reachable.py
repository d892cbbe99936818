"""What is called reachable from a part of a set bounds the value of the whole, for every metric that says so."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from soupcli.metrics.table import METRICS

BOUNDED = [name for name, metric in METRICS.items() if metric.reachable is not None]


def drawn(name: str, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """What a network gives for n examples, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    if name == "perplexity":
        tokens_n = torch.randint(1, 9, (n,), generator=generator)
        return torch.stack([tokens_n * torch.rand(n, generator=generator), tokens_n], dim=1).double(), tokens_n
    if name == "mse":
        return torch.randn(n, 1, generator=generator), torch.randn(n, generator=generator, dtype=torch.float64)
    classes = 2 + seed % 7
    if METRICS[name].measures == ("multilabel",) or ("multilabel" in METRICS[name].measures and seed % 2):
        labels = torch.randint(0, 2, (n, classes), generator=generator, dtype=torch.uint8)
        labels[0, 0] = 1
        return torch.randn(n, classes, generator=generator).round(), labels
    return torch.randn(n, classes, generator=generator), torch.randint(0, classes, (n,), generator=generator)


def test_which_are_bounded() -> None:
    """Metrics with a partial sum that bounds the total say so; correlations and calibration do not."""
    assert BOUNDED == ["accuracy", "top5", "nll", "f1", "mse", "map", "f1_micro", "f1_macro", "bce", "perplexity"]


@pytest.mark.parametrize("name", BOUNDED)
@given(n=st.integers(1, 40), seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1))
def test_whole_is_never_better(name: str, n: int, seed: int, share: float) -> None:
    """Whatever comes after the part that was seen, the whole is at most as good; seen to the end, it is as good."""
    metric = METRICS[name]
    assert metric.reachable is not None
    logits, labels = drawn(name, n, seed)
    outcomes, seen = metric.contribution(logits, labels), int(share * n)
    whole, bound = metric.value(outcomes).value, metric.reachable(outcomes[:seen], labels[seen:])
    assert whole <= bound if metric.higher_is_better else whole >= bound
    end = metric.reachable(outcomes, labels[n:])
    assert end == pytest.approx(whole, rel=1e-12)
    assert whole <= end if metric.higher_is_better else whole >= end


def test_a_sum_that_rounds_up() -> None:
    """Where a plain sum is above the exactly rounded mean, the bound is not."""
    values = torch.tensor([1.0, *[2.0**-53] * 3, *[1e-3] * 996], dtype=torch.float64)
    for _ in range(50):
        shuffled = values[torch.randperm(1000)]
        exact = sum((Fraction(v) for v in shuffled.tolist()), Fraction(0)) / 1000
        reachable = METRICS["nll"].reachable
        assert reachable is not None
        assert Fraction(reachable(shuffled, torch.empty(0))) <= exact
