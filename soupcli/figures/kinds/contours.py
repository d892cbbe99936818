"""Lines of equal height over a grid, by marching squares (Maple 2003, "Geometric design and space planning using the
marching squares and marching cube algorithms"), with the saddle decided by the mean of the four corners."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Point = tuple[float, float]
Grid = Sequence[Sequence[float | None]]
# Corners above the level, as bits from the lower left one around, to the pairs of edges that a line connects; edges
# are 0 below, 1 to the right, 2 above, 3 to the left.
EDGES: dict[int, tuple[tuple[int, int], ...]] = {
    1: ((3, 0),),
    2: ((0, 1),),
    3: ((3, 1),),
    4: ((1, 2),),
    6: ((0, 2),),
    7: ((3, 2),),
    8: ((2, 3),),
    9: ((2, 0),),
    11: ((2, 1),),
    12: ((1, 3),),
    13: ((1, 0),),
    14: ((0, 3),),
}
SADDLES = {5: (((3, 2), (1, 0)), ((3, 0), (1, 2))), 10: (((0, 3), (2, 1)), ((0, 1), (2, 3)))}  # middle above, below


def contours(xs: Sequence[float], ys: Sequence[float], values: Grid, level: float) -> Iterator[tuple[Point, Point]]:
    """Straight pieces of the line on which values, one row for each of `ys`, are `level`; none beside a missing one."""
    for row in range(len(ys) - 1):
        for column in range(len(xs) - 1):
            corners = [(column, row), (column + 1, row), (column + 1, row + 1), (column, row + 1)]
            heights = [values[y][x] for x, y in corners]
            known = [height for height in heights if height is not None]
            if len(known) == 4:
                places = [(xs[x], ys[y]) for x, y in corners]
                yield from _pieces(places, known, level)


def _pieces(places: Sequence[Point], heights: Sequence[float], level: float) -> Iterator[tuple[Point, Point]]:
    case = sum(1 << number for number, height in enumerate(heights) if height > level)
    lines = EDGES.get(case, ())
    if case in SADDLES:
        lines = SADDLES[case][0 if sum(heights) / 4 > level else 1]
    for edges in lines:
        one, other = (_crossing(places, heights, edge, level) for edge in edges)
        yield one, other


def _crossing(places: Sequence[Point], heights: Sequence[float], edge: int, level: float) -> Point:
    a, b = edge, (edge + 1) % 4
    share = (level - heights[a]) / (heights[b] - heights[a])
    return places[a][0] + share * (places[b][0] - places[a][0]), places[a][1] + share * (places[b][1] - places[a][1])
