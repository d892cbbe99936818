"""--flops: a forward pass of the soup beside an ensemble's and other networks', counted once, in table and report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ran

Soup = Callable[..., Ran]
FORWARD = 2 * (8 * 16 + 16 * 3)  # the network of tests/conftest.py, one example


def test_report(family: Path, soup: Soup) -> None:
    """A soup costs what one network costs, an ensemble so many times as much; the literature's stand beside."""
    beside = ("--set", "cost.beside={Wider: 704, Other: 1e12}")
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "test", "--flops", "--json", *beside)
    report = json.loads(ran.stdout)
    members = len(report["soup"]["members"])
    assert report["flops"] == {
        "set": "val",
        "forward": FORWARD,
        "ingredients": 5,
        "ensemble": 5 * FORWARD,
        "ensemble_of_members": members * FORWARD,
        "beside": {"Wider": 704.0, "Other": 1e12},
    }
    assert report["recipe"]["cost"]["flops"] is True
    ran = soup("rank", "--ckpts", "runs/*/", "--val", "val", "--flops", *beside)
    assert f"forward pass of one example of val: {FORWARD} FLOP; " in ran.stdout
    assert "an ensemble of all 5 1.76 kFLOP (5 x), Wider 704 FLOP (2 x), Other 1 TFLOP" in ran.stdout


def test_not_asked(family: Path, soup: Soup) -> None:
    """Without it nothing is counted; the recipe's count is undone by --no-flops, set by SOUP_FLOPS."""
    assert json.loads(soup("rank", "--ckpts", "runs/*/", "--val", "val", "--json").stdout)["flops"] is None
    ran = soup("rank", "--ckpts", "runs/*/", "--val", "val", "--set", "cost.flops=true", "--no-flops", "--json")
    assert json.loads(ran.stdout)["flops"] is None


def test_variable(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's word counts as a flag's does."""
    monkeypatch.setenv("SOUP_FLOPS", "1")
    report = json.loads(soup("eval", "--ckpts", "runs/0", "--val", "val", "--json").stdout)
    assert (report["flops"]["forward"], report["flops"]["ensemble_of_members"]) == (FORWARD, None)


def test_counted_once(family: Path, soup: Soup) -> None:
    """What was counted is kept with the scores: where all is known no network is built again."""
    words = ("rank", "--ckpts", "runs/*/", "--val", "val", "--flops", "--json")
    first = json.loads(soup(*words).stdout)["flops"]
    net = Path("net.py").read_text()
    Path("net.py").write_text(net.replace("return nn", "open('built', 'w').close(); return nn"))
    assert json.loads(soup(*words).stdout)["flops"] == first
    assert Path("built").exists()  # the file changed, and with it the key
    Path("built").unlink()
    assert json.loads(soup(*words).stdout)["flops"] == first
    assert not Path("built").exists()


def test_no_examples(family: Path, soup: Soup) -> None:
    """A command's set shows no example: told before anything is evaluated."""
    sets = ("--set", "val.c.command=touch ran")
    ran = soup("rank", "--ckpts", "runs/*/", "--val", "c", *sets, "--flops")
    assert ran.code == 2
    assert "--flops: needs a set of images, text, arrays or tokens" in ran.stderr
    assert not Path("ran").exists()


def test_without_a_set(family: Path, soup: Soup) -> None:
    """A recipe that asks for a count leaves soup uniform as it is where no set is named; the flag insists."""
    words = ("uniform", "--ckpts", "runs/*/", "--json")
    assert json.loads(soup(*words, "--set", "cost.flops=true").stdout)["flops"] is None
    ran = soup(*words, "--flops", "--force")
    assert ran.code == 2
    assert "--flops: needs a set of images, text, arrays or tokens" in ran.stderr
