"""What --help shows: groups, choices, examples, the terminal's width; and Typer's own errors in our words."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.main

from soupcli.cli.app import COMMANDS, app_of
from soupcli.cli.help import GROUPS, group_of, names_in, sets_of_recipe
from soupcli.recipe.precedence import load_recipe
from tests.conftest import Ran

Soup = Callable[..., Ran]
GROUP = typer.main.get_command(app_of(*COMMANDS))
MADE = [row.name for row in COMMANDS if row.name in ("rank", "uniform", "greedy", "learned", "eval", "inspect", "mix")]


def test_every_option_has_a_group() -> None:
    """Each option is in one group, and no group names an option that no command has."""
    names = [name for group in GROUPS.values() for name in group]
    options = [p for c in GROUP.commands.values() for p in c.params if p.param_type_name == "option"]  # type: ignore[attr-defined]
    known = {max(option.opts, key=len).removeprefix("--") for option in options} | {"help"}
    assert len(set(names)) == len(names)
    hidden = {max(option.opts, key=len).removeprefix("--") for option in options if option.hidden}
    assert known - hidden <= set(names), known - hidden - set(names)
    assert group_of("--ckpts") == "To begin with" and group_of("--unheard-of") == "Other"


@pytest.mark.parametrize("name", MADE)
def test_examples(name: str) -> None:
    """Commands that read checkpoints have three examples; each is words of that command and of options that it has."""
    [row] = [row for row in COMMANDS if row.name == name]
    assert len(row.examples) == 3
    command = GROUP.commands[name]  # type: ignore[attr-defined]
    flags = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}
    for example in row.examples:
        words = shlex.split(example.replace("$(", " ").replace(")", " ").replace("=soup", " soup").split("|")[0])
        assert f"soup {name} " in example
        assert {word for word in words if word.startswith("-")} <= flags


@pytest.mark.parametrize("columns", [60, 100, 200])
def test_width(soup: Soup, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text fills the terminal, up to a width that reads well; groups come in their order, choices are shown."""
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = soup("greedy", "--help").stdout.splitlines()
    places = [lines.index(f"{title}:") for title in GROUPS if f"{title}:" in lines]
    assert places == sorted(places) and len(places) >= 6
    widest = max(len(line) for line in lines if "soup greedy" not in line)
    assert widest <= min(columns, 120) and widest > min(columns, 120) - 15
    text = " ".join(" ".join(lines).split())
    assert "[float32|bfloat16|float16|float64]" in text and "[auto|cpu|cuda|mps]" in text
    assert lines[-3:][0].startswith("  soup greedy --ckpts ")


def test_whole_sentences(soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a narrow terminal no description of a command is cut, and no text names a type of Python."""
    monkeypatch.setenv("COLUMNS", "60")
    text = " ".join(soup("--help").stdout.split())
    for row in COMMANDS:
        assert f"{row.name} {' '.join(row.help.partition(chr(10) * 2)[0].split())}" in text
    for name in ("cache", "demo", "greedy", "plot", "schema"):
        shown = soup(name, "--help").stdout
        assert "<" not in shown and "list[" not in shown and "]]" not in shown, shown


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["gredy"], "soup: no command 'gredy', did you mean 'greedy'?"),
        (["greedy", "--chpts", "x"], "soup greedy: no option --chpts, did you mean '--ckpts'?"),
        (["verify"], "soup verify: missing argument 'SOUP'"),
        (["schema"], "soup schema: missing argument 'recipe|report'"),
    ],
)
def test_errors_of_words(soup: Soup, words: list[str], error: str) -> None:
    """What Typer cannot read is one line and a hint, as every other error."""
    ran = soup(*words)
    where = f"soup {words[0]}" if words[0] != "gredy" else "soup"
    assert ran.code == 2 and ran.stdout == ""
    line, empty, hint = ran.stderr.splitlines()
    assert line.startswith(error) and "Choose" not in line and not empty
    assert hint == f"hint: {where} --help shows what there is"


def test_errors_of_values(soup: Soup) -> None:
    """A value that Typer refuses is told as those of a recipe are, and the hint is what its option means."""
    for value, error in (("x", "expected a whole number, got 'x'"), ("1", "expected at least 2, got '1'")):
        ran = soup("landscape", "--ckpts", "a", "--grid", value)
        assert ran.code == 2
        line, _, hint = ran.stderr.splitlines()
        assert line == f"soup landscape: --grid: {error}"
        assert hint.startswith("hint: --grid: Points along each axis")


def test_completion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After --val the shell completes names of the recipe's sets, then paths."""
    monkeypatch.chdir(tmp_path)
    Path("soup.yaml").write_text("val:\n  dev: {text: a.csv}\n  deep-set: {text: b.csv}\nmetric: f1\nmix:\n  deny: 1\n")
    Path("demo").mkdir()
    assert sets_of_recipe("de") == ["dev", "deep-set", "demo/"]
    assert "dev" in sets_of_recipe("")
    assert names_in("soupcli.metrics.table:METRICS")("f1") == ["f1", "f1_micro", "f1_macro"]


@pytest.mark.parametrize(("given", "meant"), [("bf16", "bfloat16"), ("fp16", "float16"), ("torch.float32", "float32")])
def test_short_dtypes(given: str, meant: str) -> None:
    """Dtypes may be called as people call them."""
    assert load_recipe(None, flags={"dtype": given}).dtype == meant
    assert load_recipe(None, flags={"amp": "bfloat16"}).amp == "bf16"
