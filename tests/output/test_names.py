"""Paths as people write them: spaces, new lines, emoji, a leading dash, other bytes than UTF-8, long ones."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ran

Soup = Callable[..., Ran]
PYTHON = shlex.quote(sys.executable)
NAMES = [
    "with space",
    "new\nline",
    "🍲 soup",
    "-rf",
    "--force",
    "$(touch ran); 'x\" &",
    "%s{checkpoint}",
    os.fsdecode(b"\xff"),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_works(family: Path, soup: Soup, name: str) -> None:
    """An ingredient and a soup of such a name work in greedy and verify, and go into commands as one quoted word."""
    Path("runs/0").rename(f"runs/{name}")
    Path("runs", name, "model.safetensors").rename(Path("runs", name, f"{name}.safetensors"))
    Path("eval.py").write_text("import sys, json; print(json.dumps({'accuracy': 1 / len(sys.argv)}))")
    Path("soup.yaml").write_text(
        Path("soup.yaml")
        .read_text()
        .replace("metric:", f'  theirs: {{command: "{PYTHON} eval.py {{checkpoint}}"}}\nmetric:')
    )
    words = ["--ckpts", "runs/*/", "--val", "val", "theirs", "--json", "--out", f"./{name}"]
    ran = soup("greedy", *words)
    assert ran.code == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert f"runs/{name}" in [ingredient["path"] for ingredient in report["ingredients"]]
    assert report["soup"]["scores"]["theirs"]["accuracy"]["value"] == 0.5
    assert soup("verify", f"./{name}", "--rebuild", "--quiet").code == 0
    assert not Path("ran").exists()


def test_leading_dash(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A glob may give names that begin with a dash: they are no options, of `soup` or of a recipe's command."""
    Path("runs/0").rename("-a")
    Path("runs/1").rename("-b")
    Path("eval.py").write_text("import sys, json, os; print(json.dumps({'accuracy': int(os.path.isdir(sys.argv[1]))}))")
    Path("mine.yaml").write_text(f"val: {{theirs: {{command: '{PYTHON} eval.py {{checkpoint}}', metric: accuracy}}}}\n")
    ran = soup("rank", "--ckpts=-[ab]", "--val", "theirs", "--recipe", "mine.yaml", "--quiet")
    assert (ran.code, ran.stdout) == (0, "-a\n-b\n"), ran.stderr


@pytest.mark.parametrize(
    "words", [["--ckpts", "x" * 300], ["--ckpts", "runs/0", "--val", "y" * 300]], ids=["ckpts", "val"]
)
def test_names_that_no_file_has(family: Path, soup: Soup, words: list[str]) -> None:
    """A name that is too long for a file is one line, and the user's."""
    ran = soup("rank", "--val", "val", *words)
    assert (ran.code, ran.stdout) == (2, "")
    assert "internal error" not in ran.stderr


def test_paths_that_are_not_utf8(family: Path, soup: Soup) -> None:
    """Sets, ingredients and side files under bytes that are no UTF-8: one name in the whole report, and it verifies."""
    odd = os.fsdecode(b"\xff")
    Path("data/val.safetensors").rename(f"data/{odd}.safetensors")
    for number in (0, 1):
        Path(f"runs/{number}/{odd}.json").write_text("{}")
    Path("runs/1").rename(f"runs/{odd}")
    words = ["greedy", "--ckpts", "runs/0", f"runs/{odd}", "--val", f"data/{odd}.safetensors", "test", "--force"]
    ran = soup(*words, "--json")
    assert ran.code == 0, ran.stderr
    report = json.loads(Path("soup/soup.json").read_text())
    assert f"data/{odd}.safetensors" in report["soup"]["scores"]
    assert f"{odd}.json" in report["soup"]["file_hashes"]
    assert soup("verify", "soup", "--rebuild").code == 0
    for name in ("page.html", "page.md"):
        assert soup("report", "soup/soup.json", "--out", name).code == 0
        assert "\\udcff" in Path(name).read_text("utf-8")
    assert soup(*words, "--quiet").code == 0
