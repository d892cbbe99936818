"""Numbers out of files are floats, or nothing."""

from __future__ import annotations

import math

import pytest

from soupcli.files.json_text import finite


@pytest.mark.parametrize("value", [10**400, -(10**400), math.nan, math.inf, True, None, "1", [1]])
def test_what_no_float_can_hold_is_no_number(value: object) -> None:
    """Whole numbers of 400 digits, NaN, infinities and everything that is no number."""
    assert finite(value) is None


@pytest.mark.parametrize("value", [0, -1, 0.5, 10**30])
def test_numbers(value: float) -> None:
    """Others are floats."""
    assert finite(value) == float(value)
