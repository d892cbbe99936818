"""A stranger's report is data: nothing that it names runs, and nothing that stands in it is a fault of ours."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import Ran

Soup = Callable[..., Ran]
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**400, 1e308, float("nan"), float("inf"), "", "\0", "\ud800", "../../x", "/dev/zero"),
    *([], {}, [None], [[]], {"a": None}, ["x"] * 3, "NaN", "x" * 5000),
)


@pytest.fixture
def greedy_report(souped: Path) -> dict[str, Any]:
    """A greedy soup's report with everything that a report may hold of one."""
    report: dict[str, Any] = json.loads((souped / "soup/soup.json").read_text())
    return report


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value in a document."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from nodes(part, (*path, key))


def mutated(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The document with another value at a place; one that is taken away, for Ellipsis."""
    changed = copy.deepcopy(document)
    if not path:
        return None if value is ... else value
    part = changed
    for key in path[:-1]:
        part = part[key]
    if value is ...:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return changed


def commands(file: str) -> list[list[str]]:
    return [["verify", file, "--rebuild"], ["mix", file, "--out", "again", "--force"], ["report", file]]


def test_mutations(greedy_report: dict[str, Any], soup: Soup) -> None:
    """Any value at any place of a report: checked, mixed, or refused with exit code 2; no fault of ours, ever."""
    rng = random.Random(0)
    places = sorted(nodes(greedy_report), key=str)
    codes = set()
    for _ in range(100):
        document = mutated(greedy_report, rng.choice(places), rng.choice((..., *VALUES)) if places else None)
        Path("soup/soup.json").write_text(json.dumps(document))
        ran = soup(*rng.choice(commands("soup/soup.json")))
        codes.add(ran.code)
        assert ran.code in (0, 1, 2) and "internal error" not in ran.stderr, ran.stderr
    assert codes >= {0, 2}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("soup.weights", [1.0], "soup.weights: 1 for"),
        ("soup.weights", [1e308, 1e308], "a number beyond 1e+100"),
        ("soup.weights", [1e60, 1e60], "soup.weights: not all are numbers of at most"),
        ("soup.weights", [float("nan")] * 2, "NaN is no number of JSON"),
        ("soup.members", [], "soup.members: there are none"),
        ("soup.members.0", "a\0b", "soup.members: 'a\\x00b' is no path"),
        ("soup.members.0", "\ud800", "is no text"),
        ("soup.members.0", 3, "soup.members.0: "),
        ("cost.examples", 10**400, "a number beyond 1e+100"),
        ("recipe.out", [], "recipe.out: "),
    ],
)
def test_what_does_not_fit_together(
    greedy_report: dict[str, Any], soup: Soup, path: str, value: Any, message: str
) -> None:
    """It is named, by all commands that work with it."""
    if path == "soup.weights":
        greedy_report["soup"]["members"] = greedy_report["soup"]["members"][:1] * 2
    place = tuple(int(step) if step.isdigit() else step for step in path.split("."))
    Path("soup/soup.json").write_text(json.dumps(mutated(greedy_report, place, value)))
    for command in commands("soup/soup.json")[:2]:
        ran = soup(*command)
        assert (ran.code, ran.stdout) == (2, "")
        assert ran.stderr.startswith("soup/soup.json: not a report of a soup: ") and message in ran.stderr


def test_no_report(tmp_path: Path, soup: Soup) -> None:
    """Pipes, devices, and JSON of any depth are answered at once."""
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "deep.json").write_text('{"a":' * 5000 + "1" + "}" * 5000)
    for file in (tmp_path / "pipe.json", tmp_path / "deep.json", Path("/dev/zero"), Path("/dev/null"), tmp_path):
        for command in commands(str(file)):
            ran = soup(*command)
            assert ran.code == 2 and "internal error" not in ran.stderr


@pytest.fixture
def recalibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soup: Soup) -> Path:
    """A soup whose batch-norm statistics were re-estimated; its report names code, which says that it ran."""
    monkeypatch.chdir(tmp_path)
    code = "from torch import nn\ndef build(): return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))\n"
    Path("net.py").write_text(code)
    for number in range(2):
        Path(f"runs/{number}").mkdir(parents=True)
        norm = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
        save_file(norm.state_dict(), f"runs/{number}/model.safetensors")
    save_file({"inputs": torch.randn(32, 4), "labels": torch.randint(0, 4, (32,))}, "val.safetensors")
    recipe = 'model: {python: "net.py:build"}\nbatch_norm: recalibrate\nval: {val: {arrays: val.safetensors}}\n'
    Path("soup.yaml").write_text(recipe)
    assert soup("uniform", "--ckpts", "runs/*/", "--val", "val", "--quiet").code == 0
    Path("net.py").write_text(code + "open('ran', 'w').close()\n")
    return tmp_path


def test_no_code_without_trust(recalibrated: Path, soup: Soup) -> None:
    """What would run the report's code is refused by name; --trust-code runs it, and the bytes are the same."""
    refused = "batch_norm: recalibrate needs the network that the report names"
    for words in (["verify", "soup", "--rebuild"], ["mix", "soup/soup.json", "--out", "again"]):
        ran = soup(*words)
        assert (ran.code, ran.stdout) == (2, "") and refused in ran.stderr and "--trust-code" in ran.stderr
    for words in (["verify", "soup"], ["report", "soup"]):
        assert soup(*words).code == 0
    assert not Path("ran").exists()
    assert soup("mix", "soup/soup.json", "--out", "again", "--trust-code").code == 0
    assert Path("ran").exists()
    assert soup("verify", "soup", "--rebuild", "--trust-code").code == 0


def test_where_a_report_may_write(greedy_report: dict[str, Any], soup: Soup, tmp_path: Path) -> None:
    """A report writes below the working folder alone, unless the user names another place."""
    greedy_report["recipe"]["out"] = str(tmp_path / "elsewhere")
    Path("soup/soup.json").write_text(json.dumps(greedy_report))
    ran = soup("mix", "soup/soup.json")
    assert (ran.code, (tmp_path / "elsewhere").exists()) == (2, False)
    assert "outside of this folder" in ran.stderr
    assert soup("mix", "soup/soup.json", "--out", str(tmp_path / "elsewhere")).code == 0


def test_links_that_lead_out(greedy_report: dict[str, Any], soup: Soup, tmp_path: Path) -> None:
    """A file of the soup is one of its folder: a link that leads out of it is not there, nor is a path."""
    (tmp_path / "secret").write_text("of the user")
    Path("soup/secret.json").symlink_to(tmp_path / "secret")
    for name in ("secret.json", "../secret", str(tmp_path / "secret")):
        greedy_report["soup"]["files"] = ["soup.json", "model.safetensors", name]
        Path("soup/soup.json").write_text(json.dumps(greedy_report))
        ran = soup("verify", "soup", "--quiet")
        assert (ran.code, ran.stdout) == (1, "files\n")
