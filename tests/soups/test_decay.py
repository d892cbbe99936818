"""Mixing weights that stand for a learning-rate decay, against an explicit run of the decayed updates."""

from __future__ import annotations

import pytest
import torch

from soupcli.errors import UsageError
from soupcli.soups.decay import SHAPES, decay_weights, ema_multipliers, multipliers


@pytest.mark.parametrize("shape", sorted(SHAPES))
@pytest.mark.parametrize("steps", [(0, 1, 2, 3), (100, 200, 300), (5, 6, 16, 18, 30)])
def test_decayed_updates(shape: str, steps: tuple[int, ...]) -> None:
    """The mixture of checkpoints is the first one plus every update times its interval's multiplier."""
    generator = torch.Generator().manual_seed(0)
    updates = [torch.randn(7, generator=generator, dtype=torch.float64) for _ in steps[1:]]
    checkpoints = [torch.randn(7, generator=generator, dtype=torch.float64)]
    for update in updates:
        checkpoints.append(checkpoints[-1] + update)
    found = multipliers(shape, steps)
    decayed = checkpoints[0].clone()
    for multiplier, update in zip(found, updates, strict=True):
        decayed += multiplier * update
    weights = decay_weights(found)
    mixed = sum((weight * one for weight, one in zip(weights, checkpoints, strict=True)), torch.zeros(7))
    torch.testing.assert_close(mixed, decayed, rtol=1e-12, atol=1e-12)
    assert sum(weights) == pytest.approx(1)
    assert min(weights) >= 0


def test_linear_is_the_mean() -> None:
    """At equal intervals a linear decay is the plain mean."""
    assert decay_weights(multipliers("linear", [10, 20, 30, 40])) == pytest.approx([0.25] * 4)


def test_ema() -> None:
    """`ema:0.9` is the moving average that begins at the first checkpoint."""
    average, beta = torch.eye(4, dtype=torch.float64)[0], 0.9
    for one in torch.eye(4, dtype=torch.float64)[1:]:
        average = beta * average + (1 - beta) * one
    assert decay_weights(ema_multipliers(beta, 3)) == pytest.approx(average.tolist())


@pytest.mark.parametrize("found", [[0.5, 0.6], [1.1], [-0.1], [float("nan")]])
def test_refused(found: list[float]) -> None:
    """A multiplier that rises, or is no share, would make a negative weight."""
    with pytest.raises(UsageError, match="the multiplier of interval"):
        decay_weights(found)
