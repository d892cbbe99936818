"""Files that the user's code opens so that it can read and change them, and its environment by the system's file."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import Ran

Soup = Callable[..., Ran]
CODE = """
import io, mmap, os, sqlite3
from pathlib import Path
from torch import nn

def build():
    return nn.Linear(3, 2)

def evaluate(model, device):
    with open("calls.txt", "a") as calls:
        calls.write("x")
    {code}
    return {{"accuracy": 1 / (1 + number)}}
"""


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        Path(f"runs/{number}").mkdir(parents=True)
        state = {"weight": torch.full((2, 3), float(number)), "bias": torch.zeros(2)}
        save_file(state, f"runs/{number}/model.safetensors")
    Path("soup.yaml").write_text(
        '{model: {python: "net.py:build"}, val: {v: {python: "net.py:evaluate", metric: accuracy}}}'
    )
    Path("d.txt").write_text("1.0")


def calls() -> int:
    return len(Path("calls.txt").read_text())


def scores(soup: Soup) -> list[float]:
    """The scores of both runs, best first."""
    ran = soup("rank", "--ckpts", "runs/*/", "--val", "v", "--json")
    assert ran.code == 0, ran.stderr
    return [float(row["scores"]["v"]["accuracy"]["value"]) for row in json.loads(ran.stdout)["ingredients"]]


@pytest.mark.parametrize(
    "code",
    [
        'file = open("d.txt", "r+"); number = float(file.read()); file.close()',
        'file = open("d.txt", "a+"); file.seek(0); number = float(file.read()); file.close()',
        'file = io.FileIO("d.txt", "a+"); file.seek(0); number = float(file.read()); file.close()',
        'file = os.open("d.txt", os.O_RDWR | os.O_CREAT); number = float(os.read(file, 9)); os.close(file)',
        'file = open("d.txt", "r+b"); number = float(mmap.mmap(file.fileno(), 0)[:]); file.close()',
    ],
)
def test_read_and_changed(soup: Soup, code: str) -> None:
    """What code reads through a file that it could change counts, and is read once as long as it stays."""
    Path("net.py").write_text(CODE.format(code=code))
    assert scores(soup) == scores(soup) == [0.5, 0.5]
    assert calls() == 2
    Path("d.txt").write_text("3.0")
    assert scores(soup) == [0.25, 0.25]


def test_logs(soup: Soup) -> None:
    """A log that code adds to, in whichever way, is its own: no run fails of it, and no score depends on it."""
    code = 'number = float(Path("d.txt").read_text())'
    for file, mode in (("new.txt", "a+"), ("log.txt", "r+")):
        code += f'; log = open("{file}", "{mode}"); log.seek(0, 2); log.write("x"); log.close()'
    Path("net.py").write_text(CODE.format(code=code))
    Path("log.txt").write_text("begin")
    assert scores(soup) == [0.5, 0.5]
    assert scores(soup) == [0.5, 0.5]
    Path("d.txt").write_text("3.0")
    assert scores(soup) == [0.25, 0.25]


@pytest.mark.parametrize("name", ['"d.db"', '"file:d.db?mode=rw", uri=True'])
@pytest.mark.parametrize("logs", [False, True])
def test_databases(soup: Soup, name: str, logs: bool) -> None:
    """What code reads from a database counts; one that it adds to is its own, and no run fails of it."""
    _execute("create table t (x real)", "insert into t values (1)")
    code = f"base = sqlite3.connect({name}); number = base.execute('select x from t').fetchone()[0]"
    code += "; base.execute('insert into t values (5)'); base.commit(); base.close()" if logs else "; base.close()"
    Path("net.py").write_text(CODE.format(code=code))
    assert scores(soup) == scores(soup) == [0.5, 0.5]
    if not logs:
        assert calls() == 2
        _execute("update t set x = 3")
        assert scores(soup) == [0.25, 0.25]


def _execute(*lines: str) -> None:
    with contextlib.closing(sqlite3.connect("d.db")) as base, base:
        for line in lines:
            base.execute(line)


def test_the_environment_by_its_file(soup: Soup) -> None:
    """All variables count for code that reads what the system says of its own environment."""
    code = 'number = len(Path("/proc/self/environ").read_bytes()) * 0'
    Path("net.py").write_text(CODE.format(code=code))
    assert len(scores(soup)) == len(scores(soup)) == 2 == calls()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("A_NEW_ONE", "1")
        scores(soup)
    assert calls() == 4
