"""Several processes on the CPU, as torchrun starts them, do as one: the same decisions, scores and bytes, said once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from soupcli import processes
from soupcli.errors import UsageError
from tests.conftest import Ran, Together, write_family
from tests.helpers.warm import Warm

Soup = Callable[..., Ran]
ROOT = Path(__file__).parent.parent
VARYING = ("created", "cost", "steps", "recipe")
DYING = """
import os
from torch import nn

class Net(nn.Sequential):
    passes = 0

    def forward(self, inputs):
        Net.passes += 1
        if os.environ.get("RANK") == "1" and Net.passes == 12 and not os.path.exists("died"):
            open("died", "w").close()
            os._exit(9)
        return super().forward(inputs)

def build(width=16):
    return Net(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 3))
"""
TELLING = """
import os
from torch import nn

class Net(nn.Sequential):
    def forward(self, inputs):
        with open("passes", "a") as file:
            file.write(f"{os.environ.get('RANK', '0')} {float(self[0].weight.sum())!r}\\n")
        return super().forward(inputs)

def build(width=16):
    return Net(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 3))
"""


def launched(warm: Warm, count: int, *words: str) -> Ran:
    """`torchrun --nproc-per-node COUNT -m soupcli WORDS...` in the working folder."""
    run = ["-m", "torch.distributed.run", "--nproc-per-node", str(count), "-m", "soupcli", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "SOUP_PROCESS_TIMEOUT": "60"}
    done = warm.run(*run, env=environment, timeout=200)
    return Ran(done.returncode, done.stdout, done.stderr)


def decided(report: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on when and where a run was; decisions without their seconds."""
    steps = [{key: value for key, value in step.items() if key != "seconds"} for step in report["steps"]]
    same = {key: value for key, value in report.items() if key not in VARYING}
    return {**same, "steps": steps}


def said(ran: Ran) -> list[str]:
    """Lines of stderr but torchrun's own and those of free memory."""
    return [line for line in ran.stderr.splitlines() if "torch/distributed" not in line and " GB free" not in line]


def compared(
    soup: Soup, together: Together, monkeypatch: pytest.MonkeyPatch, count: int, *words: str
) -> dict[str, Any]:
    """The report of several processes, which is that of one; each has a cache of its own."""
    alone = soup(*words, "--json")
    assert alone.code == 0, alone.stderr
    Path("soup").rename("alone")
    monkeypatch.setenv("SOUP_CACHE", str(Path.cwd() / "another-cache"))
    ran = together(count, *words, "--json")
    assert ran.code == 0, ran.stderr
    one = json.loads(alone.stdout)
    several: dict[str, Any] = json.loads(ran.stdout)  # one document: one process prints
    assert decided(several) == decided(one)
    assert Path("soup/model.safetensors").read_bytes() == Path("alone/model.safetensors").read_bytes()
    assert said(ran) == said(alone)
    return several


@pytest.fixture
def undecided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A family of which some are kept and some are left out, and the working folder in it."""
    write_family(tmp_path / "undecided", seed=1)
    monkeypatch.chdir(tmp_path / "undecided")
    return tmp_path / "undecided"


def test_greedy(undecided: Path, soup: Soup, together: Together, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes share each set: members, scores, where candidates were given up, and bytes are one process's."""
    words = ("greedy", "--ckpts", "runs/*/", "--val", "val", "test", "--metric", "nll", "--batch-size", "16")
    report = compared(soup, together, monkeypatch, 2, *words)
    assert len(report["soup"]["members"]) > 1
    assert any(step["bound"] is not None for step in report["steps"])


def test_rank_deals_out_checkpoints(
    family: Path, soup: Soup, together: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five checkpoints three processes take one each and share the set for the other two; all is as one gives it."""
    (family / "net.py").write_text(TELLING)
    words = ("rank", "--ckpts", "runs/*/", "--val", "val", "--batch-size", "16", "--save-logits")
    alone = soup(*words, "one", "--json", "--report", "one.json")
    monkeypatch.setenv("SOUP_CACHE", str(family / "another-cache"))
    Path("passes").unlink()
    ran = together(3, *words, "three", "--json", "--report", "three.json")
    assert ran.code == 0, ran.stderr
    one, three = json.loads(alone.stdout), json.loads(ran.stdout)
    assert decided(three) == decided(one)
    assert three["cost"]["examples"] == one["cost"]["examples"]
    assert said(ran) == said(alone)
    names = sorted(file.relative_to("one") for file in Path("one").rglob("*.safetensors"))
    assert len(names) == 5
    assert names == sorted(file.relative_to("three") for file in Path("three").rglob("*.safetensors"))
    for name in names:  # what they depend on stands in the header: it holds the file that this network writes
        first, other = load_file("one" / name), load_file("three" / name)
        assert first.keys() == other.keys() and all(torch.equal(first[key], other[key]) for key in first)
    processes_of: dict[str, set[str]] = {}
    for process, network in (line.split() for line in Path("passes").read_text().splitlines()):
        processes_of.setdefault(network, set()).add(process)
    assert sorted(map(len, processes_of.values())) == [1, 1, 1, 3, 3]
    assert {min(those) for those in processes_of.values() if len(those) == 1} == {"0", "1", "2"}
    again = soup(*words, "three", "--json")
    assert json.loads(again.stdout)["cost"]["examples"] == 0


@pytest.mark.long
def test_learned(undecided: Path, soup: Soup, together: Together, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes share each step's batches: coefficients, curves and bytes are one process's."""
    words = ("learned", "--ckpts", "runs/*/", "--val", "val", "--batch-size", "16", "--set", "learned.steps=10")
    report = compared(soup, together, monkeypatch, 3, *words, "learned.lr=0.3")
    assert report["learned"]["kept_step"] > 0


@pytest.mark.long
def test_a_process_dies(family: Path, soup: Soup, warm: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends all of them; nothing is written; the next run goes on from the scores that were kept, to the same end."""
    (family / "net.py").write_text(DYING)
    words = ("greedy", "--ckpts", "runs/*/", "--val", "val", "--metric", "nll", "--batch-size", "32")
    ran = launched(warm, 2, *words)
    assert ran.code != 0
    assert "exitcode  : 9" in ran.stderr
    assert "internal error" not in ran.stderr
    assert Path("died").exists() and not Path("soup").exists()
    again = json.loads(soup(*words, "--json").stdout)
    monkeypatch.setenv("SOUP_CACHE", str(family / "another-cache"))
    (family / "net.py").write_text(DYING + "\n")
    whole = json.loads(soup(*words, "--json", "--force").stdout)
    assert again["soup"]["hash"] == whole["soup"]["hash"]
    assert again["cost"]["examples"] < whole["cost"]["examples"]


@pytest.mark.long
def test_an_error_is_said_once(family: Path, warm: Warm) -> None:
    """What all of them run into is one line, with the exit code of the error, whoever is late: torchrun waits."""
    ran = launched(warm, 2, "rank", "--ckpts", "runs/*/", "--val", "nowhere")
    assert ran.code != 0 and "exitcode  : 2" in ran.stderr
    assert ran.stdout == ""
    assert ran.stderr.count("--val nowhere: neither a set of the recipe nor a path") == 1


def test_one_process() -> None:
    """Without torchrun nothing is shared, and nobody is waited for."""
    assert (processes.started(), processes.count(), processes.number(), processes.is_first()) == (1, 1, 0, True)
    assert processes.local_number() is None
    assert processes.gathered(3) == [3]
    assert processes.to_first(3) == [3]
    assert processes.from_first(lambda: 4) == 4
    assert list(processes.shared_out([1, 2, 3], lambda item: item * 10)) == [(1, 10), (2, 20), (3, 30)]
    with processes.first_before_others(), processes.first_alone() as is_first:
        assert is_first
    processes.join()
    processes.leave()


@pytest.fixture
def third_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "6", "LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "localhost")


def test_shares(third_of_four: None) -> None:
    """A process takes its item of each round, on the device of its place on the machine."""
    assert (processes.started(), processes.number(), processes.local_number()) == (8, 6, 2)
    assert processes.on_this_machine() == 4
    parts = list(processes.rounds(list(range(19))))
    assert [len(part) for part in parts] == [8, 8, 3]
    assert [processes.own_item(part) for part in parts] == [6, 14, None]
    with processes.first_alone() as is_first:
        assert (is_first, processes.count()) == (False, 1)
    assert processes.count() == 8


def test_dealing_out(third_of_four: None) -> None:
    """Eight processes take whole items where they have one each, or where sharing their parts takes as long."""
    deals_out = processes.deals_out
    assert deals_out(8, 1000)
    assert not deals_out(7, 1000)
    assert deals_out(7, 7)  # shared, each is one round
    assert not deals_out(2, 17)
    assert not deals_out(1, 1)


def test_commands_that_run_alone(third_of_four: None, soup: Soup) -> None:
    """A command that would do everything eight times over is refused before it begins."""
    ran = soup("demo", "digits")
    assert ran.code == 2
    assert ran.stderr == ""  # the first process says it


def test_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """SOUP_PROCESS_TIMEOUT takes seconds."""
    monkeypatch.setenv("SOUP_PROCESS_TIMEOUT", "7")
    assert processes._patience() == 7.0
    for word in ("0", "soon", "inf", "-1"):
        monkeypatch.setenv("SOUP_PROCESS_TIMEOUT", word)
        with pytest.raises(UsageError, match=f"SOUP_PROCESS_TIMEOUT={word}: expected seconds"):
            processes._patience()
