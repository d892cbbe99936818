"""Numbers out of files are floats, or nothing; JSON of strangers is counted before objects are made of it."""

from __future__ import annotations

import math

import pytest

from soupcli.files.json_text import MOST_VALUES, TooManyValuesError, finite, parse_json


@pytest.mark.parametrize("value", [10**400, -(10**400), math.nan, math.inf, True, None, "1", [1]])
def test_what_no_float_can_hold_is_no_number(value: object) -> None:
    """Whole numbers of 400 digits, NaN, infinities and everything that is no number."""
    assert finite(value) is None


@pytest.mark.parametrize("value", [0, -1, 0.5, 10**30])
def test_numbers(value: float) -> None:
    """Others are floats."""
    assert finite(value) == float(value)


@pytest.mark.parametrize("piece", ["{},", "[],", "0,", '"a",'])
def test_many_values(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More values than a report has are refused before any object is made of them, in bytes and in text."""
    text = "[" + piece * MOST_VALUES + "0]"
    monkeypatch.setattr("json.loads", None)
    for content in (text, text.encode()):
        with pytest.raises(TooManyValuesError, match="at most 1,000,000 are read"):
            parse_json(content)


def test_what_is_parsed() -> None:
    """Anything smaller is parsed, with the options of json.loads."""
    assert parse_json(b'{"a": [1, {}]}') == {"a": [1, {}]}
    assert parse_json('{"a": 1}', object_pairs_hook=list) == [("a", 1)]
