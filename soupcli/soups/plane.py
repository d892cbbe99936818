"""The plane through three checkpoints, and scores over it: Figure 2 of Wortsman et al. 2022 (arXiv:2203.05482).

    plane = plane_through(gram_kk)                    # of the offsets of B and C from A
    points = landscape(plane, columns, rows, mean, evaluators)

As Garipov et al. 2018 (arXiv:1802.10026, appendix A.1) draw it: the origin is A, the first axis leads to B, the second
is what is left of C - A without its part along the first, both of length 1. So a place is a distance in the space of
the weights, and every place is a mixture of A, B and C whose weights sum to 1, with negative ones outside the triangle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from soupcli.late import torch
from soupcli.progress import Progress, silent
from soupcli.soups.learned.learned import summing_to_one

if TYPE_CHECKING:
    from torch import Tensor

    from soupcli.evaluation.score import Evaluate, Score
    from soupcli.mixing.mixture import Mixture

FLAT = 1e-5  # of the longest side: a triangle that is no higher is a line
Place = tuple[float, float]


class Plane(NamedTuple):
    """The places of B, (`along`, 0), and C, (`across`, `height`), with A at (0, 0)."""

    along: float
    across: float
    height: float

    @property
    def corners(self) -> tuple[Place, Place, Place]:
        """The places of A, B and C."""
        return (0.0, 0.0), (self.along, 0.0), (self.across, self.height)

    @property
    def is_flat(self) -> bool:
        """Whether A, B and C are on one line, or two of them at one point."""
        longest = max(
            self.along, math.hypot(self.across, self.height), math.hypot(self.across - self.along, self.height)
        )
        return min(self.along, self.height) <= FLAT * longest

    def weights(self, x: float, y: float) -> tuple[float, ...]:
        """Return the weights of A, B and C at a place."""
        c = y / self.height
        b = (x - c * self.across) / self.along
        weights_k: list[float] = summing_to_one(torch.tensor([[1.0 - b - c, b, c]], dtype=torch.float64))[0].tolist()
        return tuple(weights_k)

    def place(self, weights: Sequence[float]) -> Place:
        """Return the place of a mixture of A, B and C with these weights."""
        _, b, c = weights
        return b * self.along + c * self.across, c * self.height

    def grid(self, count: int, margin: float) -> tuple[list[float], list[float]]:
        """Return `count` columns and rows that cover the triangle and, on each side, `margin` of its size."""
        axes = []
        for places in zip(*self.corners, strict=True):
            low, high = min(places), max(places)
            beyond = (high - low) * margin
            step = (high - low + 2 * beyond) / (count - 1)
            axes.append([low - beyond + step * number for number in range(count)])
        return axes[0], axes[1]


def plane_through(gram_kk: Tensor) -> Plane:
    """Return the plane, from the inner products [2, 2] of the offsets of B and C from A."""
    along = math.sqrt(max(float(gram_kk[0, 0]), 0.0))
    across = float(gram_kk[0, 1]) / along if along else 0.0
    return Plane(along, across, math.sqrt(max(float(gram_kk[1, 1]) - across**2, 0.0)))


class Point(NamedTuple):
    """A place, the mixture there, and its score on every set."""

    place: Place
    weights: tuple[float, ...]
    scores: Mapping[str, Score]


def landscape(
    places: Sequence[Place],
    plane: Plane,
    mixture: Callable[[Sequence[float]], Mixture],
    evaluators: Mapping[str, Evaluate],
    *,
    progress: Progress = silent,
) -> list[Point]:
    """Evaluate every place's mixture on every set, in the order of the places."""
    points: list[Point] = []
    for done, (x, y) in enumerate(places, 1):
        weights = plane.weights(x, y)
        mixed = mixture(weights)
        scores = {name: evaluate(mixed) for name, evaluate in evaluators.items()}
        points.append(Point((x, y), weights, scores))
        first = next(iter(scores.values()))
        shown = " ".join(f"{weight:+.2f}" for weight in weights)
        progress("landscape", done, len(places), note=f"{shown}: {first.selecting} {first.shown}")
    return points
