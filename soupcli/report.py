"""The JSON report: `"schema": "soup-report/1"`, what `soup.json` holds and `--json` prints.

Keys may be added within /1, none changes. Paths are as the user gave them, counts are integers, scores fractions of 1.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer


def _finite_or_none(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else None


# JSON has no NaN: a score that is not a number is written as null.
Number = Annotated[float | None, BeforeValidator(lambda value: value), PlainSerializer(_finite_or_none)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class MetricScore(_Part):
    """One metric of one set of weights on one validation set."""

    value: Number
    stderr: Number = None
    """Standard error of the value; null where the metric has none."""
    n: int | None
    """Examples; null where a `python` or `command` set did not say."""


Scores = dict[str, dict[str, MetricScore]]
"""Validation set -> metric -> score."""


class Ingredient(_Part):
    path: str
    hash: str = Field(pattern="^sha256:[0-9a-f]{64}$")
    """SHA-256 of the file; of the sorted list of names and hashes where there are several."""
    bytes: int
    scores: Scores = {}


class Step(_Part):
    """One decision of the greedy recipe."""

    candidate: str
    score: Number
    threshold: Number
    """What the score was held against; null for the start."""
    accepted: bool
    reason: str
    examples: int
    """Examples that were evaluated; 0 where the score was known from an earlier run."""
    seconds: float


class Soup(_Part):
    path: str
    hash: str
    members: list[str]
    """In the order of acceptance."""
    weights: list[float]
    scores: Scores = {}
    bytes: int = 0
    files: list[str] = []
    """Every file of the soup folder that this command wrote."""
    differing: list[str] = []
    """Tensors that are not averaged (integers, booleans) and differ: the first member's, or the best's, were taken."""
    dtypes: dict[str, int] = {}
    """Output dtype -> number of tensors."""


class Scored(_Part):
    path: str
    scores: Scores


class Cost(_Part):
    examples: int = 0
    """Examples that went through the network."""
    seconds: dict[str, float] = {}
    peak_bytes: dict[str, int] = {}


class Report(_Part):
    schema_: Literal["soup-report/1"] = Field(default="soup-report/1", alias="schema")
    command: str
    created: str
    """UTC, ISO 8601."""
    versions: dict[str, str]
    device: str
    recipe: dict[str, Any]
    """The resolved recipe."""
    ingredients: list[Ingredient]
    """Best first where there was a ranking, otherwise by path."""
    steps: list[Step] = []
    soup: Soup | None = None
    best: Scored | None = None
    """The best ingredient on the selecting set."""
    uniform: Scored | None = None
    """The mean of all ingredients, where it was asked for."""
    selecting_set: str | None = None
    cost: Cost = Cost()

    model_config = ConfigDict(extra="forbid", populate_by_name=True, use_attribute_docstrings=True)

    def to_json(self) -> str:
        """Sorted JSON, indented, with a final newline."""
        return dump_json(self.model_dump(mode="json", by_alias=True))


def dump_json(document: object) -> str:
    """Sorted, indented JSON with a final newline, as every JSON file and output of this program is written."""
    text = _dumped(document, ascii_alone=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a path that is not UTF-8
        text = _dumped(document, ascii_alone=True)
    return text + "\n"


def _dumped(document: object, *, ascii_alone: bool) -> str:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=ascii_alone, allow_nan=False)
