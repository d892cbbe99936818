"""How scores are shown, and how tables fit where they are shown."""

from __future__ import annotations

import contextlib
import io
import math
import os
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcli.evaluation.score import Score
from soupcli.metrics.metric import MetricValue
from soupcli.output import console
from soupcli.output.text import score_table, shown_value


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("accuracy", MetricValue(0.80384, 0.00178, 50_000), "80.38% ± 0.18"),
        ("accuracy", MetricValue(1.0, 0.0, 10), "100.00% ± 0.00"),
        ("top5", MetricValue(0.5, None, 10), "50.00%"),
        ("nll", MetricValue(0.18342, 0.01021, 10), "0.1834 ± 0.0102"),
        ("anything", MetricValue(3.0, None, None), "3.0000"),
        ("accuracy", MetricValue(math.nan, None, 10), "NaN"),
    ],
)
def test_values(metric: str, value: MetricValue, shown: str) -> None:
    """Shares are per cent, other metrics as they are, each with its standard error where there is one."""
    assert shown_value(metric, value) == shown


def score(value: float) -> Score:
    return Score({"accuracy": MetricValue(value, 0.01, 100)}, "accuracy", True, 100, {})


def test_a_score_that_is_missing() -> None:
    """A row without a score on a set has an empty cell there."""
    table = score_table([("a", {"x": score(0.5)}), ("b", {})], ["x"], first="weights")
    assert [cells for cells, _ in table.rows] == [["a", "50.00% ± 1.00"], ["b", ""]]


def printed(table: console.Table, capsys: pytest.CaptureFixture[str]) -> list[str]:
    console.print_table(table)
    return capsys.readouterr().out.splitlines()


def test_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """Plain columns, numbers to the right, nothing at the ends of lines."""
    table = score_table([("runs/a", {"x": score(1.0)}), ("b", {"x": score(0.05)})], ["x"], first="weights")
    assert printed(table, capsys) == [
        "weights               x",
        "runs/a   100.00% ± 1.00",
        "b          5.00% ± 1.00",
    ]


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def on_terminal(table: console.Table, columns: int, **variables: str) -> str:
    """What a terminal of so many columns is sent."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environment = kept | {"TERM": "xterm-256color", "COLUMNS": str(columns)} | variables
    with contextlib.redirect_stdout(Terminal()) as screen, mock.patch.dict(os.environ, environment, clear=True):
        console.print_table(table)
    return screen.getvalue()


@given(
    path=st.integers(1, 200),
    names=st.lists(st.text("abcdefgh-", min_size=1, max_size=20), min_size=1, max_size=9, unique=True),
    columns=st.integers(60, 140),
)
def test_on_a_terminal(path: int, names: list[str], columns: int) -> None:
    """Whatever the names, no line is wider than the terminal and no number or name is cut."""
    values = {name: score(index / 10) for index, name in enumerate(names)}
    table = score_table([("x" * path, values)], names, first="weights")
    text = on_terminal(table, columns, NO_COLOR="1").replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert max(map(len, text.splitlines())) <= columns
    words = text.split()
    assert all(name in words for name in names)
    assert all(f"{index * 10:.2f}%" in words for index in range(len(names)))
    assert text.count("x") % path == 0


def test_colours() -> None:
    """A terminal gets headings in bold; NO_COLOR takes colours away, and a pipe has none at all."""
    table = score_table([("a", {"x": score(0.5)})], ["x"], first="weights")
    table.add("b", "", style="red")
    assert "\x1b[31mb" in on_terminal(table, 80)
    assert "\x1b[31m" not in on_terminal(table, 80, NO_COLOR="1")
