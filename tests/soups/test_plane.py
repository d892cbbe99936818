"""The plane through three checkpoints against dense vectors: basis, places, weights."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from soupcli.soups.plane import Plane, plane_through


def dense(seed: int) -> Tensor:
    """Three points in 50 dimensions, [3, 50]."""
    return torch.randn(3, 50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plane_of(points: Tensor) -> Plane:
    offsets = points[1:] - points[0]
    return plane_through(offsets @ offsets.t())


def basis(points: Tensor) -> tuple[Tensor, Tensor]:
    """Garipov et al. 2018: u = B - A, v = C - A less its part along u, both of length 1."""
    u = points[1] - points[0]
    v = points[2] - points[0] - (points[2] - points[0]) @ u / (u @ u) * u
    return u / u.norm(), v / v.norm()


@given(st.integers(0, 1000), st.floats(-3, 3), st.floats(-3, 3))
def test_places(seed: int, x: float, y: float) -> None:
    """The mixture at a place is the origin and so much of either axis; its weights sum to exactly 1, and lead back."""
    points, plane = dense(seed), plane_of(dense(seed))
    u, v = basis(points)
    weights = plane.weights(x, y)
    assert math.fsum(weights) == 1.0
    mixed = torch.tensor(weights, dtype=torch.float64) @ points
    assert torch.allclose(mixed, points[0] + x * u + y * v, rtol=0, atol=1e-9)
    assert plane.place(weights) == (pytest.approx(x, abs=1e-9), pytest.approx(y, abs=1e-9))


def test_corners() -> None:
    """Corners lie where their distances say, and weigh 1 alone."""
    points, plane = dense(0), plane_of(dense(0))
    u, v = basis(points)
    offsets = points - points[0]
    expected = [(float(offset @ u), float(offset @ v)) for offset in offsets]
    assert [tuple(corner) for corner in plane.corners] == [pytest.approx(place, abs=1e-9) for place in expected]
    for number, corner in enumerate(plane.corners):
        assert plane.weights(*corner) == tuple(float(number == other) for other in range(3))


def test_grid() -> None:
    """So many columns and rows, evenly apart, over the triangle and its margin."""
    columns, rows = Plane(4.0, -1.0, 2.0).grid(6, 0.5)
    assert columns == pytest.approx([-3.5, -1.5, 0.5, 2.5, 4.5, 6.5])
    assert rows == pytest.approx([-1.0, -0.2, 0.6, 1.4, 2.2, 3.0])
    assert Plane(4.0, 1.0, 2.0).grid(2, 0.0) == ([0.0, 4.0], [0.0, 2.0])


@pytest.mark.parametrize(
    "points",
    [
        [[0.0, 0, 0], [0, 0, 0], [1, 0, 0]],
        [[0.0, 0, 0], [1, 0, 0], [0, 0, 0]],
        [[1.0, 1, 1], [2, 2, 2], [3, 3, 3]],
        [[0.0, 0, 0], [1, 0, 0], [1, 0, 0]],
        [[0.0, 0, 0], [0, 0, 0], [0, 0, 0]],
    ],
)
def test_flat(points: list[list[float]]) -> None:
    """Three points on a line, or two on one point, span no plane."""
    assert plane_of(torch.tensor(points, dtype=torch.float64)).is_flat


def test_a_thin_triangle_is_a_plane() -> None:
    """A hundredth as high as it is long, and far from the origin of the weights."""
    points = torch.tensor([[100.0, 100, 100], [101, 100, 100], [100.5, 100.01, 100]], dtype=torch.float64)
    assert not plane_of(points).is_flat
