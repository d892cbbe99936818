"""Flag, then --set, then SOUP_* variable, then recipe, then default; the report holds what was resolved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Ran

Soup = Callable[..., Ran]


def resolved(soup: Soup, *words: str, command: str = "greedy") -> dict[str, Any]:
    ran = soup(command, "--ckpts", "runs/[01]/", "--val", "val", "--dry-run", "--json", *words)
    assert ran.code == 0, ran.stderr
    recipe: dict[str, Any] = json.loads(ran.stdout)["recipe"]
    return recipe


# key, in the recipe, in the environment, --set, flag: each as it is written and as it is resolved
CASES = [
    ("metric", "top5", ("SOUP_METRIC", "nll"), "accuracy", ("--metric", "nll")),
    ("batch_size", 3, ("SOUP_BATCH_SIZE", 4), 5, ("--batch-size", 6)),
    ("workers", 3, ("SOUP_WORKERS", 4), 5, ("--workers", 6)),
    ("dtype", "float64", ("SOUP_DTYPE", "float32"), "float16", ("--dtype", "bfloat16")),
    ("max_shard_size", 10, ("SOUP_MAX_SHARD_SIZE", "20B"), 30, ("--max-shard-size", "40B")),
    ("out", "a", ("SOUP_OUT", "b"), "c", ("--out", "d")),
    ("device", "cpu", ("SOUP_DEVICE", "auto"), "cpu", ("--device", "auto")),
    ("greedy.min_delta", 0.1, ("SOUP_MIN_DELTA", 0.2), 0.3, ("--min-delta", 0.4)),
]


@pytest.mark.parametrize(("key", "file", "variable", "set_", "flag"), CASES, ids=[case[0] for case in CASES])
def test_precedence(
    family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch, key: str, file: Any, variable: Any, set_: Any, flag: Any
) -> None:
    """Each source gives way to the next stronger one, for every option that stands for a key."""

    def found(*words: str) -> Any:
        place: Any = resolved(soup, *words)
        for part in key.split("."):
            place = place.get(part)
        return place

    def shown(value: Any) -> Any:
        return int(value[:-1]) if key == "max_shard_size" and isinstance(value, str) else value

    default = found()
    text = Path("soup.yaml").read_text().replace("metric: accuracy\n", "")
    outer, _, inner = key.partition(".")
    Path("soup.yaml").write_text(text + (f"{outer}: {{{inner}: {file}}}\n" if inner else f"{key}: {file}\n"))
    assert found() == file != default
    monkeypatch.setenv(variable[0], str(variable[1]))
    assert found() == shown(variable[1])
    assert found("--set", f"{key}={set_}") == set_
    assert found("--set", f"{key}={set_}", flag[0], str(flag[1])) == shown(flag[1])
    monkeypatch.delenv(variable[0])
    assert found(flag[0], str(flag[1])) == shown(flag[1])


def test_recipe_by_variable(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """SOUP_RECIPE names the recipe; --recipe goes before it, and both before soup.yaml."""
    text = Path("soup.yaml").read_text()
    for number, name in ((7, "a.yaml"), (8, "b.yaml")):
        Path(name).write_text(f"{text}batch_size: {number}\n")
    assert resolved(soup)["batch_size"] == 64
    monkeypatch.setenv("SOUP_RECIPE", "a.yaml")
    assert resolved(soup)["batch_size"] == 7
    assert resolved(soup, "-r", "b.yaml")["batch_size"] == 8


def test_empty_variable(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set to nothing says nothing."""
    monkeypatch.setenv("SOUP_METRIC", "")
    assert resolved(soup)["metric"] == "accuracy"


@pytest.mark.parametrize(("variable", "value"), [("SOUP_DEVICE", "gpu"), ("SOUP_DTYPE", "int8"), ("SOUP_METRIC", "x")])
def test_variable_at_fault(
    family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """A variable at fault is named as what the user has to look for."""
    monkeypatch.setenv(variable, value)
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val")
    assert ran.code == 2
    assert ran.stderr.startswith(f"{variable}: ")


def test_the_report_holds_what_was_resolved(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report's recipe is the resolved one, and run as a recipe it gives the same soup."""
    monkeypatch.setenv("SOUP_BATCH_SIZE", "17")
    words = ["--metric", "nll", "--set", "greedy.accept=>", "val.extra={arrays: data/test.safetensors}"]
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "extra", "--json", *words)
    report = json.loads(ran.stdout)
    assert report["recipe"]["batch_size"] == 17
    assert (report["recipe"]["metric"], report["recipe"]["greedy"]["accept"]) == ("nll", ">")
    monkeypatch.delenv("SOUP_BATCH_SIZE")
    Path("again.yaml").write_text(json.dumps(report["recipe"]))
    ran = soup(*["greedy", "-r", "again.yaml", "--ckpts", "runs/*/", "--val", "val", "extra", "--json", "--force"])
    again = json.loads(ran.stdout)
    assert again["recipe"] == report["recipe"]
    assert again["soup"] == report["soup"]


def test_without_a_recipe(family: Path, soup: Soup) -> None:
    """Without any recipe flags and --set say everything."""
    Path("soup.yaml").unlink()
    words = "rank --ckpts runs/*/ --val data/val.safetensors --set model.python=net.py:build --json"
    ran = soup(*words.split())
    assert ran.code == 0, ran.stderr
    assert list(json.loads(ran.stdout)["best"]["scores"]) == ["data/val.safetensors"]


def test_a_recipe_elsewhere(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A recipe's paths lie beside it, those of the command line in the working folder."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    ran = soup("greedy", "-r", "../family/soup.yaml", "--ckpts", "../family/runs/*/", "--val", "val", "--quiet")
    assert (ran.code, ran.stdout) == (0, "soup/model.safetensors\n")
    ran = soup("uniform", "-r", "../family/soup.yaml", "--ckpts", "../family/runs/*/", "--set", "out=x", "--quiet")
    assert ran.stdout == "../family/x/model.safetensors\n"
