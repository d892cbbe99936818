"""Weights that make the mean of a run's last checkpoints stand for a decay of its learning rate.

WSM (Tian et al. 2025, arXiv:2507.17634): with checkpoints θ_0 ... θ_k, mixing weights c_j and updates g_i between them,

    Σ_j c_j θ_j = θ_0 + Σ_i w_i g_i     with     w_i = Σ_{j >= i} c_j,

so the updates of interval i count as if its learning rate had been multiplied by w_i. From multipliers that never
rise, 1 >= w_1 >= ... >= w_k >= 0, the weights follow: c_0 = 1 - w_1, c_j = w_j - w_{j+1}, c_k = w_k.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from soupcli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# The multiplier of the learning rate when a fraction of the decay is over, which runs from 0 to 1.
SHAPES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda over: 1 - over,
    "1-sqrt": lambda over: 1 - math.sqrt(over),
    "cosine": lambda over: (1 + math.cos(math.pi * over)) / 2,
}


def multipliers(shape: str, steps: Sequence[float]) -> list[float]:
    """Return the multiplier of each interval between checkpoints at `steps`. It reaches 0 one mean interval later.

    At equal intervals `linear` makes the plain mean of all checkpoints.
    """
    intervals = len(steps) - 1
    end = steps[-1] + (steps[-1] - steps[0]) / intervals
    return [SHAPES[shape]((step - steps[0]) / (end - steps[0])) for step in steps[1:]]


def ema_multipliers(beta: float, intervals: int) -> list[float]:
    """Return the multipliers of an exponential moving average of the checkpoints, from the first one on."""
    return [1 - beta ** (intervals - done) for done in range(intervals)]


def decay_weights(found: Sequence[float]) -> list[float]:
    """Return the weight of each of the k + 1 checkpoints, from the k multipliers between them.

    Raises UsageError if a multiplier is not between 0 and 1, or rises: the weight before it would be negative.
    """
    for number, (before, after) in enumerate(pairwise((1.0, *found)), 1):
        if not 0 <= after <= before:
            raise UsageError(
                f"--decay: the multiplier of interval {number} is {after:g}, the one before it {before:g}",
                hint="multipliers lie between 0 and 1 and never rise",
            )
    return [before - after for before, after in pairwise((1.0, *found, 0.0))]
