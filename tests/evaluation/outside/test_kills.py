"""A run that is killed while commands evaluate: the next one measures only what was under way, to the same bytes."""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ran, Together

Soup = Callable[..., Ran]
# Scores the weights, writes down which ones, and kills the program that started it in the call that line 1 names.
EVAL = """
import hashlib, json, os, signal, struct, sys
raw = open(sys.argv[1], "rb").read()
base = 8 + struct.unpack("<Q", raw[:8])[0]
begin, end = json.loads(raw[8:base])["2.bias"]["data_offsets"]
first, *_ = struct.unpack(f"<{(end - begin) // 4}f", raw[base + begin : base + end])
with open(os.environ["LOG"], "a") as calls:
    calls.write(hashlib.sha256(raw[base:]).hexdigest() + "\\n")
at, *lines = open(os.environ["LOG"]).readlines()  # which it writes: no score depends on that file
if len(lines) == int(at):
    os.kill(os.getppid(), signal.SIGKILL)
print(json.dumps({"accuracy": 1 / (1 + abs(first - 0.02)), "n": 200}))
"""


@pytest.mark.long
@pytest.mark.parametrize(("processes", "at", "flags"), [(1, 7, ("--jobs", "2", "--speculate", "2")), (2, 8, ())])
def test_goes_on(
    family: Path,
    soup: Soup,
    together: Together,
    monkeypatch: pytest.MonkeyPatch,
    processes: int,
    at: int,
    flags: tuple[str, ...],
) -> None:
    """With jobs and candidates ahead, and as one of two processes, only what was under way is done again."""
    (family / "eval.py").write_text(EVAL)
    log = family.parent / "log"  # no file of the program: its scores are kept
    monkeypatch.setenv("LOG", str(log))
    spec = {"command": f"{shlex.quote(sys.executable)} eval.py {{weights}}"}
    (family / "soup.yaml").write_text(json.dumps({"val": {"val": spec}, "metric": "accuracy"}))
    words = ("greedy", "--ckpts", "runs/*/", "--val", "val", *flags)
    log.write_text(f"{at}\n")
    assert together(processes, *words).code != 0
    assert not Path("soup").exists()
    log.write_text(log.read_text().replace(f"{at}\n", "0\n", 1))
    again = soup(*words, "--json")
    assert again.code == 0, again.stderr
    measured = Counter(log.read_text().split()[1:])
    assert sum(count - 1 for count in measured.values()) <= 2  # as many as ran at once
    log.write_text("0\n")
    monkeypatch.setenv("SOUP_CACHE", str(family / "another-cache"))
    whole = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "--json", "--force")
    one, other = json.loads(again.stdout), json.loads(whole.stdout)
    assert [(step["candidate"], step["score"]) for step in one["steps"]] == [
        (step["candidate"], step["score"]) for step in other["steps"]
    ]
    assert (one["soup"]["hash"], one["soup"]["members"]) == (other["soup"]["hash"], other["soup"]["members"])
    assert set(log.read_text().split()[1:]) <= set(measured)
