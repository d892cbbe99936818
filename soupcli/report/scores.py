"""Scores, and what has them: single checkpoints and ensembles."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer


def _finite_or_none(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None


def _nan_as_none(value: float | None) -> float | None:
    return None if value is not None and math.isnan(value) else value


# JSON has no NaN: a score that is not a number is null, in memory as in the file. An infinite one is null in the file.
Number = Annotated[float | None, AfterValidator(_nan_as_none), PlainSerializer(_finite_or_none)]


def _rows_without_nan(rows: list[list[float | None]]) -> list[list[float | None]]:
    return [row if all(value == value for value in row) else [_nan_as_none(value) for value in row] for row in rows]


# Numbers by the thousand, looked at row by row. An infinite one is null in the file here too: pydantic writes it so.
Matrix = Annotated[list[list[float | None]], AfterValidator(_rows_without_nan)]


class ReportPart(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)


class MetricScore(ReportPart):
    """One metric of one set of weights on one validation set."""

    value: Number
    stderr: Number = None
    """Standard error of the value; null where the metric has none."""
    n: int | None
    """Examples; null where a `python` or `command` set did not say."""


Scores = dict[str, dict[str, MetricScore]]
"""Validation set -> metric -> score."""


class LeftOut(ReportPart):
    """A checkpoint that was found and not used."""

    path: str
    reason: str


class ClassOrder(ReportPart):
    """Which class is which in one set."""

    by: str
    """What says it: the network's class names, `class_to_index`, the order of the class folders, ..."""
    count: int | None
    """Classes of the set; null if they were not counted."""
    index: dict[str, int]
    """Class of the set -> index of its logit, or of its label if several logits count as one; the first 100."""
    warning: str | None = None
    """What to look at if scores are near chance; null if nothing was chosen."""


class Judged(ReportPart):
    """What `objective:` made of several sets."""

    kind: Literal["mean", "worst"]
    weights: dict[str, float]
    """Set -> its share of the mean; of the worst, all the same."""
    scaled_to: dict[str, float]
    """Set -> the best ingredient's score there; a gain is the difference from it as a share of it."""
    ingredients: dict[str, Number]
    """Ingredient -> its objective, for those that were evaluated by themselves."""
    soup: Number = None


class Member(ReportPart):
    """A checkpoint of a group that counts as one ingredient."""

    path: str
    hash: str = Field(pattern="^sha256:[0-9a-f]{64}$")
    bytes: int
    revision: str | None = None


class Ingredient(ReportPart):
    path: str
    hash: str = Field(pattern="^sha256:[0-9a-f]{64}$")
    """SHA-256 of the file, or of the sorted list of names and hashes of several files."""
    bytes: int
    scores: Scores = {}
    revision: str | None = None
    """The commit, if it is a model of the Hub."""
    format: str = "safetensors"
    """How its weights were saved."""
    made_by: str | None = None
    """If it is a soup itself: its command, and how many ingredients it holds, e.g. `greedy, 7 of 12`."""
    key: str | None = None
    """The key in its file; null for a bare state dict."""
    trainer_metrics: dict[str, Number] = {}
    """The metrics that its trainer recorded."""
    notes: list[str] = []
    """Notes on the choice of its weights: averaged ones, parts that were left out."""
    members: list[Member] = []
    """Of --group-by: the checkpoints whose mean it is, in the order of their steps; `path` is then their folder."""


class Scored(ReportPart):
    path: str
    scores: Scores


class Ensemble(ReportPart):
    """Networks whose logits are averaged."""

    members: list[str]
    scores: Scores
