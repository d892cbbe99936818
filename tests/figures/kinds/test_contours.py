"""Lines of equal height against functions whose lines are known."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcli.figures.kinds.contours import contours

AXIS = [number / 10 for number in range(-20, 21)]


def test_circle() -> None:
    """Pieces of a cone's line lie on a circle, and their lengths add up to its."""
    grid = [[math.hypot(x, y) for x in AXIS] for y in AXIS]
    pieces = list(contours(AXIS, AXIS, grid, 1.4321))
    assert all(math.hypot(*point) == pytest.approx(1.4321, abs=2e-3) for piece in pieces for point in piece)
    assert sum(math.dist(*piece) for piece in pieces) == pytest.approx(2 * math.pi * 1.4321, rel=1e-3)
    ends = [tuple(round(value, 9) for value in point) for piece in pieces for point in piece]
    assert all(ends.count(end) == 2 for end in set(ends))  # closed


@given(st.lists(st.floats(-1, 1), min_size=9, max_size=9), st.floats(-0.9, 0.9))
def test_every_line_ends_at_the_rim(heights: list[float], level: float) -> None:
    """Inside a grid every end of a piece meets another: no line begins or ends but at the rim."""
    heights = [height if abs(height - level) > 1e-3 else level + 1e-3 for height in heights]
    grid = [heights[0:3], heights[3:6], heights[6:9]]
    axis = [0.0, 1.0, 2.0]
    ends = [tuple(round(v, 9) for v in point) for piece in contours(axis, axis, grid, level) for point in piece]
    inside = [end for end in ends if not ({0.0, 2.0} & set(end))]
    assert all(inside.count(end) % 2 == 0 for end in inside)


def test_saddle() -> None:
    """Of a saddle the mean of the corners says which two are one hill."""
    for high, expected in ((1.0, 2), (0.4, 2)):
        pieces = list(contours([0, 1], [0, 1], [[high, 0.0], [0.0, high]], 0.3))
        assert len(pieces) == expected
    joined = list(contours([0, 1], [0, 1], [[1.0, 0.0], [0.0, 1.0]], 0.3))  # the mean, 0.5, is above
    apart = list(contours([0, 1], [0, 1], [[1.0, 0.0], [0.0, 1.0]], 0.7))
    corner = [piece for piece in apart if min(math.dist(point, (0, 0)) for point in piece) < 0.5]
    assert corner and all(
        math.dist(point, (1, 0)) < 0.5 or math.dist(point, (0, 1)) < 0.5 for p in joined for point in p
    )


def test_beside_a_missing_value() -> None:
    """Where one of four heights is not known there is no line."""
    grid: list[list[float | None]] = [[0.0, 1.0, 0.0], [0.0, 1.0, None]]
    pieces = list(contours([0, 1, 2], [0, 1], grid, 0.5))
    assert len(pieces) == 1 and all(x == 0.5 for x, _ in pieces[0])
