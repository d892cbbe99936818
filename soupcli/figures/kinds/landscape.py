"""Error over the plane through three checkpoints, with these and their mean marked (the paper's Figure 2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from soupcli.figures.figure import Axis, Cells, Figure, Line, Mark, Panel, Point, Role, named, printable, scaled, ticks
from soupcli.figures.kinds.contours import contours
from soupcli.figures.reports import ReadReport, Reports, factor, role_of, score_of
from soupcli.wording import SHARES, shown

if TYPE_CHECKING:
    from soupcli.report.scores import Scores
    from soupcli.report.surveys import Landscape, PlanePoint

LETTERS = ("A", "B", "C")
WIDTH, LEAST, MOST = 340.0, 150.0, 420.0  # of a panel; of its height


def figure(reports: Reports) -> Figure:
    """A panel for each set. Raises UsageError if no report has a landscape."""
    source = reports.having("landscape", wanted="landscape", command="soup landscape --ckpts A B C --val V")
    found = source.report.landscape
    assert found is not None
    soups = list(_soups(reports, source, found))
    panels = [_panel(found, name, reports.metric(name), soups) for name in source.report.sets]
    legend: list[tuple[Role, str]] = [
        ("corner", f"{letter}: {named(member, 60)}") for letter, member in zip(LETTERS, found.members, strict=True)
    ]
    legend.append(("mean", "their mean"))
    legend += [(role, label) for role, label, _ in soups]
    sets = ", ".join(source.report.sets)
    members = ", ".join(found.members)
    return Figure(
        kind="landscape",
        title="The plane through three checkpoints",
        caption=printable(
            f"Error on {sets} over the plane through {members}: A, B and C. Places are distances in the space of the "
            f"weights from A, the first axis towards B. Each of the {len(found.grid)} cells was "
            "evaluated in its middle; lines of equal error are drawn between the middles."
        ),
        panels=tuple(panels),
        legend=tuple(legend),
        columns=1 if len(panels) == 1 else 2,
    )


def _soups(reports: Reports, source: ReadReport, found: Landscape) -> Iterator[tuple[Role, str, Mapping[str, float]]]:
    """Soups of the other reports that are mixtures of the three: role, label and the weights of their members."""
    hashes = source.report.hashes
    corner_of = {hashes[member]: member for member in found.members if member in hashes}
    for other in reports.sources:
        soup = other.report.soup
        if soup is None or soup.coefficients is not None:
            continue
        known = other.report.hashes
        members = [corner_of.get(known.get(member, "")) for member in soup.members]
        if None not in members:
            weights = {str(member): weight for member, weight in zip(members, soup.weights, strict=True)}
            yield role_of(other.report), f"{other.report.command} soup", weights


def _panel(found: Landscape, name: str, metric: str, soups: Sequence[tuple[Role, str, Mapping[str, float]]]) -> Panel:
    title = f"error on {name} (%)" if metric in SHARES else f"{metric} on {name}"
    values = [_height(place.scores, name, metric) for place in found.grid]
    count = len(found.columns)
    grid = tuple(tuple(values[first : first + count]) for first in range(0, len(values), count))
    names = tuple(
        tuple(_words(place, name, metric) for place in found.grid[first : first + count])
        for first in range(0, len(values), count)
    )
    known = [value for value in values if value is not None]
    scale = scaled(title, known, margin=0.0)
    x_edges, y_edges = _edges(found.columns), _edges(found.rows)
    levels = [value for value, _ in ticks(scale.low, scale.high, 9)]
    paths = [path for level in levels for path in contours(found.columns, found.rows, grid, level)]
    width, height = _size(x_edges, y_edges)
    corners = [(place.x, place.y) for place in found.corners]
    return Panel(
        title="",
        x=_axis("distance from A towards B", x_edges, width),
        y=_axis("distance across that line", y_edges, height),
        marks=(*_marks(found, name, metric), *_marked(found, soups)),
        lines=(Line(((*corners, corners[0]),), "edge"), Line(tuple(paths), "contour")),
        cells=Cells(x_edges, y_edges, grid, names, scale, "height"),
        texts=tuple(zip(corners, LETTERS, strict=True)),
        width=width,
        height=height,
    )


def _height(scores: Scores, name: str, metric: str) -> float | None:
    """The error of a share; other metrics unchanged."""
    score = score_of(scores, name, metric)
    if score is None or score.value is None:
        return None
    return (1 - score.value if metric in SHARES else score.value) * factor(metric)


def _words(place: PlanePoint, name: str, metric: str) -> str:
    score = place.scores.get(name, {}).get(metric)
    weights = ", ".join(f"{weight:+.2f}" for weight in place.weights)
    return printable(f"weights {weights}: {name} {shown(metric, score.value, score.stderr) if score else 'not known'}")


def _marks(found: Landscape, name: str, metric: str) -> Iterator[Mark]:
    for member, place in zip(found.members, found.corners, strict=True):
        yield Mark("corner", place.x, place.y, printable(f"{member}: {_words(place, name, metric)}"))
    yield Mark("mean", found.mean.x, found.mean.y, printable(f"mean: {_words(found.mean, name, metric)}"))


def _marked(found: Landscape, soups: Iterable[tuple[Role, str, Mapping[str, float]]]) -> Iterator[Mark]:
    """A mixture lies where its weights put it between the corners."""
    for role, label, weights in soups:
        shares = [weights.get(member, 0.0) for member in found.members]
        x = sum(share * corner.x for share, corner in zip(shares, found.corners, strict=True))
        y = sum(share * corner.y for share, corner in zip(shares, found.corners, strict=True))
        yield Mark(role, x, y, label)


def _edges(middles: Sequence[float]) -> tuple[float, ...]:
    """The edges of cells around evenly spaced middles."""
    half = (middles[1] - middles[0]) / 2
    return (middles[0] - half, *((a + b) / 2 for a, b in pairwise(middles)), middles[-1] + half)


def _size(x_edges: Sequence[float], y_edges: Sequence[float]) -> Point:
    """Width and height on which distances are the same in both directions, as far as that can be read."""
    height = WIDTH * (y_edges[-1] - y_edges[0]) / (x_edges[-1] - x_edges[0])
    return (WIDTH, max(height, LEAST)) if height <= MOST else (max(WIDTH * MOST / height, LEAST), MOST)


def _axis(title: str, edges: Sequence[float], length: float) -> Axis:
    return Axis(title, edges[0], edges[-1], ticks(edges[0], edges[-1], max(3, round(length / 50))))
