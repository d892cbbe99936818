"""The report's models: what is written, what is refused, and the schema that describes it."""

from __future__ import annotations

import json
import math
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcli.files.json_text import dump_json
from soupcli.report.report import Report, RunCost
from soupcli.report.scores import Ingredient, MetricScore, Scored
from soupcli.report.soups import OtherStatistics, SearchStep, Soup

HASH = "sha256:" + "0" * 64


def report(**parts: Any) -> Report:
    scores = {"val": {"accuracy": MetricScore(value=0.5, stderr=0.1, n=20)}}
    return Report(
        **{
            "command": "greedy",
            "created": "2026-01-01T00:00:00+00:00",
            "versions": {"soup": "0.1.0", "torch": "2.6"},
            "device": "cpu",
            "recipe": {"metric": "accuracy"},
            "ingredients": [Ingredient(path="runs/a", hash=HASH, bytes=10, scores=scores)],
            "steps": [
                SearchStep(
                    candidate="runs/a", score=0.5, threshold=None, accepted=True, reason="", examples=20, seconds=0.1
                )
            ],
            "soup": Soup(path="soup/model.safetensors", hash=HASH, members=["runs/a"], weights=[1.0], scores=scores),
            "best": Scored(path="runs/a", scores=scores),
            "cost": RunCost(examples=20, seconds={"rank": 0.1}, peak_bytes={"host": 1}),
            **parts,
        }
    )


@pytest.mark.parametrize(
    ("best", "averaged", "again", "unlike"),
    [(0.3, 0.3, 0.9, True), (0.67, 0.9, 0.94, False), (0.8, 0.2, 0.85, False), (0.3, 0.3, None, False)],
)
def test_statistics_of_other_inputs(best: float, averaged: float, again: float | None, unlike: bool) -> None:
    """A soup that gains by its averaged weights shows that the inputs are right; it then may be recalibrated."""

    def scores(value: float | None) -> dict[str, dict[str, MetricScore]]:
        return {"val": {"accuracy": MetricScore(value=value, n=100)}}

    other = OtherStatistics(kind="estimated again", scores=scores(again))
    assert other.is_unlike_training("val", scores(best), scores(averaged)) == unlike


def test_a_score_that_is_not_a_number() -> None:
    """In memory it is null as in the file, so that a notebook draws what a page draws; an infinite one stays."""
    step = SearchStep(
        candidate="a", score=math.nan, threshold=0.5, accepted=False, reason="", examples=3, seconds=0, bound=0.4
    )
    assert (step.score, MetricScore(value=math.nan, n=1).value) == (None, None)
    assert MetricScore(value=math.inf, n=1).value == math.inf


def test_keys_of_the_contract() -> None:
    """Every key that the contract lets scripts count on is there, under its name."""
    found = json.loads(report().to_json())
    assert found["schema"] == "soup-report/1"
    top = [
        "schema",
        "command",
        "created",
        "versions",
        "device",
        "recipe",
        "ingredients",
        "steps",
        "soup",
        "best",
        "cost",
    ]
    assert set(top) <= set(found)
    assert {"path", "hash", "bytes", "scores"} <= set(found["ingredients"][0])
    assert set(found["ingredients"][0]["scores"]["val"]["accuracy"]) == {"value", "stderr", "n"}
    step = ["candidate", "score", "threshold", "accepted", "reason", "examples", "seconds"]
    assert set(step) <= set(found["steps"][0])
    assert {"path", "hash", "members", "weights", "scores"} <= set(found["soup"])
    assert {"path", "scores"} <= set(found["best"])
    assert {"examples", "seconds", "peak_bytes"} <= set(found["cost"])


def test_sorted_with_a_final_newline() -> None:
    """Equal reports are equal bytes: keys sorted, indented, one newline at the end, letters as they are."""
    text = dump_json({"b": "é", "a": [1]})
    assert text == '{\n  "a": [\n    1\n  ],\n  "b": "é"\n}\n'


def test_path_that_is_not_utf8() -> None:
    """A path of bytes that are no UTF-8 is escaped, so that every report can be written."""
    text = dump_json({"path": "runs/\udcff"})
    assert json.loads(text.encode())["path"] == "runs/\udcff"


@given(st.floats())
def test_scores_that_are_no_number(value: float) -> None:
    """JSON has no NaN and no infinity: they are null; every other score is written exactly."""
    steps = [
        SearchStep(candidate="a", score=value, threshold=value, accepted=False, reason="", examples=1, seconds=0.0)
    ]
    [step] = json.loads(report(steps=steps).to_json())["steps"]
    expected = value if math.isfinite(value) else None
    assert step["score"] == step["threshold"] == expected


@pytest.mark.parametrize("parts", [{"extra": 1}, {"schema": "soup-report/2"}, {"command": None}])
def test_refused(parts: dict[str, Any]) -> None:
    """Keys that no report has, other schemas and missing values are refused."""
    with pytest.raises(pydantic.ValidationError):
        report(**parts)


def test_hash_is_checked() -> None:
    """A content hash is sha256 in hexadecimal."""
    with pytest.raises(pydantic.ValidationError, match="hash"):
        Ingredient(path="a", hash="abc", bytes=1)


def test_reads_back() -> None:
    """A report that was written reads back as the same report."""
    assert Report.model_validate_json(report().to_json()) == report()
