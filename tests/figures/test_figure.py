"""Axes, ticks and names of figures."""

from __future__ import annotations

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from soupcli.figures.figure import categories, named, printable, scaled, short_names, ticks


@given(st.floats(-1e4, 1e4), st.floats(1e-4, 1e4))
def test_ticks(low: float, span: float) -> None:
    """Between both ends, at most eight, evenly apart, each written so that no two read the same."""
    found = ticks(low, low + span)
    assert 1 <= len(found) <= 8
    assert all(low - span * 1e-6 <= value <= low + span * (1 + 1e-6) for value, _ in found)
    assert len({words for _, words in found}) == len(found)
    steps = [b[0] - a[0] for a, b in itertools.pairwise(found)]
    assert all(math.isclose(step, steps[0], rel_tol=1e-6, abs_tol=1e-9) for step in steps)
    assert all(math.isclose(float(words), value, rel_tol=1e-6, abs_tol=span * 1e-3) for value, words in found)


def test_round_ticks() -> None:
    """Ticks are round numbers with the digits that they need, and zero has no sign."""
    assert ticks(97.1, 99.9) == ((97.5, "97.5"), (98.0, "98.0"), (98.5, "98.5"), (99.0, "99.0"), (99.5, "99.5"))
    assert [words for _, words in ticks(-0.1, 0.1, 4)] == ["-0.10", "-0.05", "0.00", "0.05", "0.10"]


def test_one_value_has_an_axis() -> None:
    """An axis around one value, and around none, has a width; a NaN does not count."""
    for values in ([97.0], [], [math.nan, 97.0], [0.0]):
        axis = scaled("x", values)
        assert axis.low < axis.high and all(map(math.isfinite, (axis.low, axis.high)))


def test_many_names() -> None:
    """Names that would stand closer than lines of text are thinned, the first one stays."""
    names = [f"run {number}" for number in range(80)]
    axis = categories("x", names, width=400)
    assert axis.ticks[0] == (0.0, "run 0")
    places = [place for place, _ in axis.ticks]
    assert 20 < len(places) < 40
    assert min(b - a for a, b in itertools.pairwise(places)) / 80 * 400 >= 13


def test_short_names() -> None:
    """Of paths the parts that all share are left out; what is left still tells them apart."""
    assert short_names(["runs/a/model.pt", "runs/b/model.pt"]) == ["a", "b"]
    assert short_names(["runs/a/", "runs/b/"]) == ["a", "b"]
    assert short_names(["x/a", "y/a"]) == ["x", "y"]
    assert short_names(["runs/a"]) == ["a"]
    assert short_names([]) == []
    assert short_names(["a", "a/b"]) == ["a", "a/b"]
    long = [
        f"runs/vit_lr{lr}_mixup0.2_randaug_epochs16_seed{seed}/last.pt" for lr in ("1e-5", "3e-5") for seed in (0, 1)
    ]
    assert short_names(long) == ["lr1e-5_seed0", "lr1e-5_seed1", "lr3e-5_seed0", "lr3e-5_seed1"]
    uneven = ["a_very_long_name_of_a_run_with_words", "a_very_long_name_of_a_run"]
    assert len(set(short_names(uneven))) == 2


@given(st.text(), st.integers(8, 40))
def test_labels(text: str, longest: int) -> None:
    """A label holds only what a reader shows and is no longer than it may be."""
    label = named(text, longest)
    assert len(label) <= longest and label.isprintable()


def test_printable() -> None:
    """Control characters and bytes that are no UTF-8 are written as escapes; letters stay."""
    assert printable("a\n\x1b[31mb\udcffü漢") == "a\\n\\x1b[31mb\\udcffü漢"
