"""What goes to stdout: a table, one JSON document or one path a line, for every command that measures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from soupcli import __version__
from soupcli.checkpoints.checkpoint import StoredCheckpoint
from soupcli.mixing import sums
from tests.conftest import Ran
from tests.helpers.json_schema import broken

Soup = Callable[..., Ran]
COMMANDS = {
    "rank": ["rank", "--ckpts", "runs/*/", "--val", "val", "test"],
    "eval": ["eval", "--ckpts", "runs/*/", "--val", "test", "val"],
    "uniform": ["uniform", "--ckpts", "runs/*/", "--val", "val"],
    "uniform alone": ["uniform", "--ckpts", "runs/*/"],
    "greedy": ["greedy", "--ckpts", "runs/*/", "--val", "val", "test", "--with-uniform"],
}


@pytest.fixture(params=list(COMMANDS.values()), ids=list(COMMANDS))
def words(request: pytest.FixtureRequest) -> list[str]:
    found: list[str] = request.param
    return found


def test_json(family: Path, soup: Soup, words: list[str]) -> None:
    """--json prints one JSON document alone, which `soup schema report` describes."""
    schema = json.loads(soup("schema", "report").stdout)
    ran = soup(*words, "--json")
    assert ran.code == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert list(broken(schema, report, schema["$defs"])) == []
    assert (report["schema"], report["command"]) == ("soup-report/1", words[0])
    assert ran.stdout.endswith("}\n")


@pytest.mark.parametrize(
    "change",
    [{"steps": [{}]}, {"extra": 1}, {"command": 3}, {"soup": {"path": "x"}}, {"schema": "soup-report/2"}],
    ids=str,
)
def test_the_schema_can_fail(family: Path, soup: Soup, change: dict[str, Any]) -> None:
    """The schema that is printed refuses what no report is."""
    schema = json.loads(soup("schema", "report").stdout)
    report = json.loads(soup(*COMMANDS["rank"], "--json").stdout)
    assert list(broken(schema, report | change, schema["$defs"]))


def test_quiet(family: Path, soup: Soup, words: list[str]) -> None:
    """--quiet prints paths alone, one a line, and nothing to stderr."""
    ran = soup(*words, "--quiet")
    assert (ran.code, ran.stderr) == (0, "")
    if words[0] in ("uniform", "greedy"):
        assert ran.stdout == "soup/model.safetensors\n"
    else:
        ranking = json.loads(soup(*words, "--json").stdout)["ingredients"]
        assert ran.stdout.splitlines() == [ingredient["path"] for ingredient in ranking]


def test_one_line_of_shared_options(family: Path, soup: Soup, words: list[str]) -> None:
    """Every command takes the options that all share; what writes no soup prints what it prints without them."""
    shared = [
        "--out",
        "elsewhere",
        "--dtype",
        "bfloat16",
        "--metric",
        "accuracy",
        "--batch-size",
        "7",
        "--workers",
        "1",
    ]
    ran = soup(*words, "--quiet", *shared, "--device", "cpu", "--force", "--fresh")
    assert ran.code == 0, ran.stderr
    if words[0] in ("uniform", "greedy"):
        assert ran.stdout == "elsewhere/model.safetensors\n"
    else:
        assert ran.stdout == soup(*words, "--quiet").stdout
        assert not Path("elsewhere").exists()


def test_plain_text_in_a_pipe(family: Path, soup: Soup, words: list[str]) -> None:
    """Where nobody looks there are no escape codes and no rules, on neither stream, and no line is cut."""
    ran = soup(*words)
    assert ran.code == 0
    assert "\x1b" not in ran.stdout + ran.stderr
    assert "─" not in ran.stdout
    assert "…" not in ran.stdout


def trap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an error of reading a tensor, whether to mix it or to build a network of it."""

    def read(*_: object, **__: object) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(StoredCheckpoint, "read", read)
    monkeypatch.setattr(sums, "read_into", read)


@pytest.mark.parametrize("how", ["table", "--json", "--quiet"])
def test_dry_run(family: Path, soup: Soup, words: list[str], how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """--dry-run loads no tensor, evaluates nothing and writes nothing, not even to the cache."""
    trap(monkeypatch)
    before = sorted(family.rglob("*"))
    ran = soup(*words, "--dry-run", *([how] if how != "table" else []))
    assert ran.code == 0, ran.stderr
    assert sorted(family.rglob("*")) == before
    assert not list(Path(os.environ["SOUP_CACHE"]).rglob("*"))
    ingredients = [f"runs/{number}" for number in range(5)]
    if how == "--quiet":
        assert ran.stdout.splitlines() == ingredients
    elif how == "--json":
        plan = json.loads(ran.stdout)
        assert plan["schema"] == "soup-plan/1"
        assert [ingredient["path"] for ingredient in plan["ingredients"]] == ingredients
        assert plan["bytes_read"] == sum(ingredient["bytes"] for ingredient in plan["ingredients"])
    else:
        assert all(path in ran.stdout for path in ingredients)
        assert "metric: accuracy" in ran.stderr


def test_reading_is_noticed(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trap of the test above snaps where tensors are read."""

    trap(monkeypatch)
    assert soup(*COMMANDS["uniform alone"]).code == 3
    assert soup(*COMMANDS["rank"]).code == 3


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "uniform alone"])
def test_dry_run_counts_evaluations(family: Path, soup: Soup, name: str) -> None:
    """The plan's number of evaluations is that of the run, which has a line for each."""
    words = COMMANDS[name]
    plan = json.loads(soup(*words, "--dry-run", "--json").stdout)
    lines = [line for line in soup(*words, "--fresh").stderr.splitlines() if ": start" not in line]
    assert plan["evaluations"] == len(lines) + (name == "uniform") * 0
    report = json.loads(
        soup(*words, "--json", "--fresh", *(["--force"] if name in ("greedy", "uniform") else [])).stdout
    )
    assert report["cost"]["examples"] <= plan["evaluations"] * 300


def test_dry_run_checks_what_it_can(family: Path, soup: Soup) -> None:
    """A plan that could not be carried out is an error: checkpoints that cannot be mixed, an unknown set or metric."""
    save_file({}, "runs/0/model.safetensors")
    assert soup(*COMMANDS["greedy"], "--dry-run").code == 2
    assert soup("rank", "--ckpts", "runs/1", "--val", "vall", "--dry-run").code == 2
    assert soup("rank", "--ckpts", "runs/1", "--val", "val", "--metric", "acuracy", "--dry-run").code == 2


def test_report_file(family: Path, soup: Soup) -> None:
    """--report writes the document that --json prints, and its folder; without --json stdout keeps its table."""
    ran = soup(*COMMANDS["rank"], "--json", "--report", "out/report.json")
    assert Path("out/report.json").read_text() == ran.stdout
    table = soup(*COMMANDS["rank"], "--report", "out/report.json").stdout
    assert table.splitlines()[0].split() == ["checkpoint", "val", "accuracy", "↑", "test", "accuracy", "↑"]
    assert json.loads(Path("out/report.json").read_text())["command"] == "rank"


def test_rank_and_eval_agree(family: Path, soup: Soup) -> None:
    """Rank sorts by its first set, eval by its own; the scores are the same."""
    rank = json.loads(soup(*COMMANDS["rank"], "--json").stdout)
    evaluated = json.loads(soup(*COMMANDS["eval"], "--json").stdout)
    for report, name in ((rank, "val"), (evaluated, "test")):
        values = [i["scores"][name]["accuracy"]["value"] for i in report["ingredients"]]
        assert values == sorted(values, reverse=True)
        assert (report["selecting_set"], report["best"]["path"]) == (name, report["ingredients"][0]["path"])
    by_path = [{i["path"]: i["scores"] for i in report["ingredients"]} for report in (rank, evaluated)]
    assert by_path[0] == by_path[1]


def test_nothing_is_evaluated_twice(family: Path, soup: Soup) -> None:
    """Scores are kept: greedy after rank evaluates soups alone, again it evaluates nothing, --fresh everything."""
    ranked = json.loads(soup("rank", "--ckpts", "runs/*/", "--val", "val", "--json").stdout)
    assert ranked["cost"]["examples"] == 5 * 200
    greedy = ["greedy", "--ckpts", "runs/*/", "--val", "val", "--json", "--force"]
    first, second = (json.loads(soup(*greedy).stdout) for _ in range(2))
    counts = [step["examples"] for step in first["steps"]]
    assert first["cost"]["examples"] == sum(counts) < 4 * 200
    assert counts[0] == 0 < min(counts[1:])
    assert second["cost"]["examples"] == 0
    assert json.loads(soup(*greedy, "--fresh").stdout)["cost"]["examples"] == 5 * 200 + sum(counts)
    whole = [step["examples"] for step in json.loads(soup(*greedy, "--no-early-stop", "--fresh").stdout)["steps"]]
    assert whole == [0, 200, 200, 200, 200]


def test_what_changed_is_evaluated_again(family: Path, soup: Soup) -> None:
    """A score is kept for the bytes it was measured on: a changed ingredient, set or network is evaluated again."""
    command = ["rank", "--ckpts", "runs/*/", "--val", "val", "--json"]

    def examples(*more: str) -> int:
        found: int = json.loads(soup(*command, *more).stdout)["cost"]["examples"]
        return found

    assert (examples(), examples()) == (1000, 0)
    Path("runs/0/model.safetensors").write_bytes(Path("runs/1/model.safetensors").read_bytes())
    assert examples() == 0  # the same bytes as runs/1, under another name
    with Path("net.py").open("a") as net:
        net.write("# changed\n")
    assert examples() == 4 * 200  # runs/0 and runs/1 are one content
    assert examples("--metric", "nll") == 4 * 200
    Path("data/val.safetensors").write_bytes(Path("data/test.safetensors").read_bytes())
    assert examples() == 4 * 300


def test_help(soup: Soup) -> None:
    """`soup` alone and `soup --help` show every command with its whole line; each command shows an example."""
    ran = soup("--help")
    assert (ran.code, ran.stderr) == (0, "")
    assert "..." not in ran.stdout.replace("[ARGS]...", "")
    assert all(f"\n  {name} " in ran.stdout for name in ("rank", "uniform", "greedy", "eval", "init", "schema", "demo"))
    for name in ("rank", "uniform", "greedy", "eval"):
        assert f"\n  soup {name} --ckpts" in soup(name, "-h").stdout
    assert soup("rank", "--ckpts", "--help").stdout == soup("rank", "--help").stdout


def test_version(soup: Soup) -> None:
    """`soup --version` prints one line."""
    assert soup("--version").stdout == f"soup {__version__}\n"
