"""What `soup inspect` finds."""

from __future__ import annotations

from typing import Literal

from soupcli.report.scores import Matrix, MetricScore, Number, ReportPart


class Inspected(ReportPart):
    """The content of one checkpoint's files."""

    path: str
    tensors: int
    parameters: int
    dtypes: dict[str, int] = {}
    """Dtype -> number of tensors."""
    tied: list[list[str]] = []
    """Names of one and the same matrix."""


class Differing(ReportPart):
    """A difference of one checkpoint from most of the others."""

    path: str
    kind: str
    tensor: str | None = None
    found: str
    expected: str
    words: str = ""
    """The same as a sentence."""


Range = tuple[float, float]


class Ranges(ReportPart):
    """The least and the largest distance, and angle, of one ingredient to the others; null where there is none."""

    distance: Range | None = None
    angle: Range | None = None
    offset_angle: Range | None = None


class Distances(ReportPart):
    """Distances and angles of ingredients. Matrices are in the order of `paths`, angles in degrees."""

    paths: list[str]
    base: str | None = None
    from_base: list[Number] = []
    from_mean: list[Number]
    distances: Matrix
    """Of every two, as the matrices of angles; all three are empty where there are more than 500 ingredients."""
    angles: Matrix
    """Between whole weights (of matrices: biases and norms are left out)."""
    offset_angles: Matrix = []
    """Between offsets from the base."""
    ranges: list[Ranges] = []
    """The least and the largest of each ingredient's row; reports of older versions have none."""
    layer_angles: dict[str, Number] = {}
    """Layer -> the largest angle between whole weights of two ingredients."""
    layer_spread: dict[str, Number] = {}
    """Layer -> distance of the ingredients from their mean (root mean square), relative to the mean's length."""
    groups: list[list[str]] = []
    """Ingredients with a common start, the largest group first."""

    def ranges_of_each(self) -> list[Ranges]:
        """Return `ranges`, or what the matrices say where a report of an older version has none."""
        matrices = self.distances, self.angles, self.offset_angles
        return self.ranges or [
            Ranges(**dict(zip(Ranges.model_fields, (_range(rows, place) for rows in matrices), strict=True)))
            for place in range(len(self.paths))
        ]


def _range(rows: list[list[float | None]], place: int) -> Range | None:
    others = (
        [value for number, value in enumerate(rows[place]) if number != place and value is not None] if rows else []
    )
    return (min(others), max(others)) if others else None


class Barriers(ReportPart):
    """Scores on the straight line from each ingredient to the mean of all, on one set."""

    set: str
    metric: str
    """The metric of the heights."""
    mean: dict[str, MetricScore]
    half_way: dict[str, dict[str, MetricScore]]
    """Ingredient -> score of the middle between it and the mean."""
    height: dict[str, Number]
    """Ingredient -> how much worse the middle is than the ingredient; negative if it is better."""
    settled_mean: dict[str, MetricScore] | None = None
    """The mean with batch-norm statistics estimated again."""
    without: dict[str, dict[str, MetricScore]] = {}
    """Ingredient -> score of the mean of all others; measured if the mean of all is below the best ingredient."""
    with_best: dict[str, dict[str, MetricScore]] = {}
    """Ingredient -> score of the mean of it and the best ingredient."""


class FoundCause(ReportPart):
    """One cause of failing soups that there is evidence of."""

    cause: str
    evidence: str
    words: str
    remedy: str
    accused: list[str] = []
    """Checkpoints that it blames."""
    sure: Literal["certain", "likely", "possible"] = "certain"
    """Read or measured; concluded from scores and weights; or guessed from weights only, or from a run that is worse
    but does not harm the soup.
    """


class Inspection(ReportPart):
    """What `soup inspect` found."""

    mixable: bool
    refused: str | None = None
    """Why they cannot be mixed."""
    checkpoints: list[Inspected]
    differences: list[Differing] = []
    integers: list[str] = []
    """Tensors that are never averaged and are not the same in all."""
    not_finite: dict[str, dict[str, str]] = {}
    """Checkpoint -> tensor -> its first NaN or infinity."""
    duplicates: list[list[str]] = []
    settings: dict[str, list[str]] = {}
    """Setting of the files beside the weights -> its value for each checkpoint, if they differ."""
    geometry: Distances | None = None
    barriers: list[Barriers] = []
    verdicts: list[FoundCause] = []
