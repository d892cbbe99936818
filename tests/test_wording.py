"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from soupcli.wording import human_bytes, shown


@pytest.mark.parametrize("value", [None, math.nan])
def test_no_number(value: float | None) -> None:
    """A NaN, and the null that JSON has for it."""
    assert shown("accuracy", value, 0.1) == "NaN"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (346_290_581, "346.3 MB"),
        (2 * 10**12, "2.0 TB"),
        (10**16, "10000.0 TB"),
    ],
)
def test_bytes(count: int, shown: str) -> None:
    """Sizes are decimal, with one digit."""
    assert human_bytes(count) == shown
