"""What `soup landscape` and `soup pairs` measure."""

from __future__ import annotations

from soupcli.report.comparisons import Comparison
from soupcli.report.scores import Number, ReportPart, Scores


class PlanePoint(ReportPart):
    """A mixture on the plane through three checkpoints, and its scores."""

    x: float
    y: float
    """Distances in the space of the weights, from the first checkpoint along the plane's two axes."""
    weights: list[float]
    """Of the three checkpoints; negative ones outside the triangle. They sum to 1."""
    scores: Scores


class Landscape(ReportPart):
    """Scores over the plane through three checkpoints."""

    members: list[str]
    """The three, the plane's origin first."""
    corners: list[PlanePoint]
    """Their places on the plane."""
    mean: PlanePoint
    columns: list[float]
    rows: list[float]
    """Places of the grid along both axes."""
    grid: list[PlanePoint]
    """Row by row, the first row at the least y."""


class Pair(ReportPart):
    """Two ingredients, the angle between them as seen from their start, and their mean."""

    members: list[str]
    angle: Number
    """Degrees; null where one of them is the start."""
    scores: Scores
    """Of their mean."""
    gains: list[Comparison]
    """Their mean against the better of the two on each set, every metric."""


class Pairs(ReportPart):
    """Pairs of ingredients."""

    start: str
    """The checkpoint that angles are seen from."""
    possible: int
    """How many pairs there are."""
    seed: int
    """What drew the pairs, where not all were taken."""
    pairs: list[Pair]
