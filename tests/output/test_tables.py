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

from soupcli.output import console
from soupcli.output.text import report_text
from soupcli.report.report import Report
from soupcli.report.scores import MetricScore
from soupcli.report.tables import Column, ScoredRow, Table, score_table
from soupcli.wording import shown
from tests.helpers.report_toys import report


@pytest.mark.parametrize(
    ("metric", "value", "stderr", "expected"),
    [
        ("accuracy", 0.80384, 0.00178, "80.38% ± 0.18"),
        ("accuracy", 1.0, 0.0, "100.00% ± 0.00"),
        ("top5", 0.5, None, "50.00%"),
        ("nll", 0.18342, 0.01021, "0.1834 ± 0.0102"),
        ("anything", 3.0, None, "3.0000"),
        ("accuracy", math.nan, None, "NaN"),
        ("accuracy", None, None, "NaN"),
    ],
)
def test_values(metric: str, value: float | None, stderr: float | None, expected: str) -> None:
    """Shares are per cent, other metrics as they are, each with its standard error if there is one."""
    assert shown(metric, value, stderr) == expected


def score(value: float) -> dict[str, MetricScore]:
    return {"accuracy": MetricScore(value=value, stderr=0.01, n=100)}


def scores(rows: list[tuple[str, dict[str, dict[str, MetricScore]]]], sets: list[str]) -> Table:
    """The table of a report of such ingredients."""
    document = report("rank", [label for label, _ in rows], sets=tuple(sets))
    read = Report.model_validate(document)
    for ingredient, (_, its_scores) in zip(read.ingredients, rows, strict=True):
        ingredient.scores = its_scores
    return score_table(read, "weights", [ScoredRow(*row) for row in rows])


def test_a_score_that_is_missing() -> None:
    """A row without a score on a set has an empty cell there."""
    assert scores([("a", {"x": score(0.5)}), ("b", {})], ["x"]).rows == [["a", "50.00% ± 1.00"], ["b", ""]]


@pytest.mark.parametrize(
    ("count", "members"), [(2, "members: r/0, r/1"), (72, "r/11, and 60 more: soup.json has each")]
)
def test_many_members(count: int, members: str) -> None:
    """The names of a large soup do not fill the terminal, nor does the command that compares it."""
    paths = [f"r/{number}" for number in range(count)]
    soup = {"path": "soup/model.safetensors", "hash": "", "members": paths, "weights": [1 / count] * count}
    lines = [line for part in report_text(Report.model_validate(report("uniform", paths, soup=soup))) for line in part]
    assert any(members in line for line in lines if isinstance(line, str))
    command = next(line for line in lines if isinstance(line, str) and "soup eval --ckpts" in line)
    assert ("soup eval --ckpts soup r/*" in command) == (count > 12)


def test_empty_columns() -> None:
    """A column without a word in it is left out, the first one never."""
    columns = [Column("a"), Column("b"), Column("c")]
    assert Table("", columns, [["", "", "x"], ["", "", ""]]).without_empty() == Table(
        "", [columns[0], columns[2]], [["", "x"], ["", ""]]
    )


def printed(table: Table, capsys: pytest.CaptureFixture[str]) -> list[str]:
    console.print_table(table)
    return capsys.readouterr().out.splitlines()


def test_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """Plain columns, numbers to the right, nothing at the ends of lines."""
    table = scores([("runs/a", {"x": score(1.0)}), ("b", {"x": score(0.05)})], ["x"])
    assert printed(table, capsys) == [
        "weights    x accuracy ↑",
        "runs/a   100.00% ± 1.00",
        "b          5.00% ± 1.00",
    ]


def test_wide_letters_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns begin at the same place for readers, not for `len`; a letter that draws nothing moves nothing."""
    table = Table("", [Column("a"), Column("n", is_number=True)], [["漢字", "1"], ["e\u0301", "23"], ["[b]\x1b", ""]])
    assert printed(table, capsys) == ["a         n", "漢字      1", "e\u0301        23", "[b]\\x1b"]


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        """Yes."""
        return True


def on_terminal(table: Table, columns: int, **variables: str) -> str:
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
    table = scores([("x" * path, values)], names)
    text = on_terminal(table, columns, NO_COLOR="1").replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert max(map(len, text.splitlines())) <= columns
    words = text.split()
    assert all(name in words for name in names)
    assert all(f"{index * 10:.2f}%" in words for index in range(len(names)))
    assert text.count("x") % path == 0


def test_colours() -> None:
    """A terminal gets headings in bold; NO_COLOR takes colours away, and a pipe has none at all."""
    table = scores([("a", {"x": score(0.5)})], ["x"])
    assert "\x1b[1m" in on_terminal(table, 80)
    assert "\x1b[1;3" not in on_terminal(table, 80, NO_COLOR="1")


def test_long_paths_on_a_terminal() -> None:
    """Paths that would break into lines are named by what differs, and one is said in full; a pipe gets them whole."""
    paths = [f"/data/runs/vit_lr{lr}_mixup0.2_randaug-m9_epochs16_seed0/checkpoints" for lr in ("1e-4", "3e-5")]
    columns = [Column("step"), Column("score", is_number=True)]
    parts = [
        Table("Best", columns, [[f"best ingredient ({paths[0]})", "90.00%"]]),
        Table("Steps", columns, [[f"with {path}", "90.00%"] for path in paths]),
    ]
    with contextlib.redirect_stdout(io.StringIO()) as pipe:
        console.print_report(parts)
    assert all(f"with {path}  " in pipe.getvalue() for path in paths)
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environment = kept | {"TERM": "xterm-256color", "COLUMNS": "60", "NO_COLOR": "1"}
    with contextlib.redirect_stdout(Terminal()) as screen, mock.patch.dict(os.environ, environment, clear=True):
        console.print_report(parts)
    shown = screen.getvalue()
    assert "best ingredient (lr1e-4)" in shown and "with lr3e-5 " in shown
    said = "".join(shown.split())
    assert f"lr1e-4is{paths[0]},theothersalike" in said and paths[1] not in said


def test_words_that_do_not_fit() -> None:
    """Where a reason is as wide as the terminal, it wraps between its words; names beside it stay whole."""
    names = ["lr2e-5_wd0…up0.1_seed1", "lr1e-5_wd0…up0.0_seed0"]
    reason = "left out (out of reach after 8 of 300)"
    table = Table("Steps", [Column("step"), Column("decision")], [[f"with {name}", reason] for name in names])
    lines = on_terminal(table, 60, NO_COLOR="1").replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()
    assert max(map(len, lines)) <= 60
    assert sum(name in line for line in lines for name in names) == 2
    assert reason.split() * 2 == [word for line in lines[2:] for word in line[28:].split()]


def test_on_a_terminal_of_unknown_width(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """COLUMNS=0 says that nobody knows the width: lines stay whole."""
    monkeypatch.setenv("COLUMNS", "0")
    monkeypatch.setenv("FORCE_COLOR", "1")
    console.print_sentences(["one line of several words"])
    assert "one line of several words" in capsys.readouterr().out
