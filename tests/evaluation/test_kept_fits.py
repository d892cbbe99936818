"""A fit that is kept comes back exactly, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcli.evaluation.kept_scores import FitStore

KEY = "ab" * 32
STATE: dict[str, Any] = {"done": 3, "free": {"values": [[0.1, 1e-300], [-0.0, 2.0]]}, "curves": {"steps": [0, 3]}}


def test_reads_back(tmp_path: Path) -> None:
    """In the next run, the latest state; `fresh` looks at nothing and writes anew."""
    store = FitStore(tmp_path / "fits", KEY)
    assert store.get() is None
    store.put({"done": 1})
    store.put(STATE)
    assert FitStore(tmp_path / "fits", KEY).get() == STATE
    fresh = FitStore(tmp_path / "fits", KEY, fresh=True)
    assert fresh.get() is None
    fresh.put({"done": 9})
    assert FitStore(tmp_path / "fits", KEY).get() == {"done": 9}
    assert FitStore(tmp_path / "fits", "cd" * 32).get() is None


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers(tmp_path_factory: pytest.TempPathFactory, number: float) -> None:
    """Every float64 comes back to the bit."""
    store = FitStore(tmp_path_factory.getbasetemp() / "numbers", KEY)
    store.put({"values": [[number]]})
    found = store.get()
    assert found is not None and found["values"][0][0].hex() == number.hex()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "a number changed": lambda data: data.replace(b"3", b"4", 1),
    "another schema": lambda data: data.replace(b"soup-fit/", b"another-fit/"),
    "a list": lambda data: b"[]",
    "not JSON": lambda data: b"\xff\x00",
    "deep": lambda data: b"[" * 100_000,
    "no digest": lambda data: json.dumps(
        {"schema": "soup-fit/4", "key": KEY, "content": STATE, "depends": []}
    ).encode(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage(tmp_path: Path, damage: str) -> None:
    """What does not read back as it was written is fitted again."""
    store = FitStore(tmp_path, KEY)
    store.put(STATE)
    store.file.write_bytes(DAMAGE[damage](store.file.read_bytes()))
    assert store.get() is None


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A fit goes on without its store."""
    (tmp_path / "fits").write_text("a file")
    store = FitStore(tmp_path / "fits", KEY)
    store.put(STATE)
    assert store.get() is None
