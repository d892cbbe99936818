"""Names of numpy in the files of strangers: what is broken is no name, and never ends the command."""

from __future__ import annotations

from typing import Any

import pytest

from soupcli.checkpoints.formats.numpy_names import names_in
from soupcli.checkpoints.formats.pickles.stand_ins import Global, StandIn

TEXT = StandIn(Global("numpy", "dtype"), ("U3",))


def scalar(args: Any) -> StandIn:
    return StandIn(Global("numpy.core.multiarray", "scalar"), args)


def array(data: Any, dtype: Any = TEXT) -> StandIn:
    found = StandIn(Global("numpy.core.multiarray", "_reconstruct"), ())
    found.state = (1, (1,), dtype, False, data)
    return found


def test_names() -> None:
    """Arrays and scalars of text become text."""
    name = "cat".encode("utf-32-le")
    assert names_in(array(name)) == names_in([scalar((TEXT, name))]) == ["cat"]


@pytest.mark.parametrize("data", [b"\xff" * 12, b"cat", StandIn(Global("_codecs", "encode"), ()), 3, None])
def test_broken_text(data: Any) -> None:
    """Bytes that are no text, too few of them, and calls without what they are called with."""
    value = scalar((TEXT, data))
    assert names_in(array(data)) is None
    assert names_in([value]) == [value]


@pytest.mark.parametrize("args", [TEXT, 3, (), (3,), (TEXT,), (StandIn(Global("numpy", "dtype"), 3), b"cat")])
def test_broken_calls(args: Any) -> None:
    """Arguments that are no tuple, or too few."""
    value = scalar(args)
    assert names_in([value]) == [value]
    assert names_in(array(b"cat", value)) is None
