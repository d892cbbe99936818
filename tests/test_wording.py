"""Numbers as people read them."""

from __future__ import annotations

import difflib
import math
import random

import pytest

from soupcli.wording import human_bytes, natural_order, nearest, shown


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


def test_nearest_of_very_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the names of a large network few are compared letter by letter, and the nearest is among them."""
    compared: list[str] = []
    whole = difflib.SequenceMatcher.set_seq1

    def counted(matcher: difflib.SequenceMatcher[str], word: str) -> None:
        compared.append(word)
        whole(matcher, word)

    monkeypatch.setattr(difflib.SequenceMatcher, "set_seq1", counted)
    names = [f"layers.{number}.experts.{number % 7}.w{number % 3}" for number in range(20_000)]
    assert nearest("layers.77.experts.0.wx", [*names, "layers.77.experts.0.w"]) == "layers.77.experts.0.w"
    assert len(compared) <= 1_000 + 1  # a new matcher begins with an empty word


def test_nearest_is_what_difflib_finds() -> None:
    """Words that cannot be nearer than the best so far are passed over, and the same one is found."""
    generator = random.Random(0)

    def word() -> str:
        return "".join(generator.choice("ab.c1") for _ in range(generator.randint(1, 8)))

    for _ in range(200):
        wanted, words = word(), [word() for _ in range(20)]
        if all(sorted(one) != sorted(wanted) for one in words):
            expected = difflib.get_close_matches(wanted, words, n=1)
            assert nearest(wanted, words) == (expected[0] if expected else None)


def test_natural_order() -> None:
    """Numbers in names are compared as numbers, of any length, and of equal ones more zeros come first."""
    names = ["a", "checkpoint-9", "checkpoint-010", "checkpoint-500/x", "checkpoint-1000", "b" + "1" * 5000]
    assert sorted([*names[3:], *names[:3]], key=natural_order) == ["a", "b" + "1" * 5000, *names[1:5]]
    assert sorted(["r01", "r1"], key=natural_order) == ["r01", "r1"]
    decimals = ["wd0.01-1", "wd0.01-2", "wd0.1-1", "wd0.1-2"]
    assert sorted(decimals[::2] + decimals[1::2], key=natural_order) == decimals
    assert sorted(["1", "a"], key=natural_order) == ["1", "a"]
