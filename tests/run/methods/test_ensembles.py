"""`soup rank --save-logits` and `soup greedy --logits`: ensembles beside the soup with no further forward pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.conftest import Ran, build_net

Soup = Callable[..., Ran]
WORDS = ("--ckpts", "runs/*/", "--val", "val", "test")


def report_of(ran: Ran) -> dict[str, Any]:
    assert ran.code == 0, ran.stderr
    report: dict[str, Any] = json.loads(ran.stdout)
    return report


def outputs(name: str) -> tuple[dict[str, Tensor], Tensor]:
    """Each ingredient's logits on a set, with torch alone, and the labels."""
    data, net, found = load_file(f"data/{name}.safetensors"), build_net(), {}
    for run in sorted(Path("runs").iterdir()):
        net.load_state_dict(load_file(run / "model.safetensors"))
        with torch.no_grad():
            found[str(run)] = net(data["inputs"]).double()
    return found, data["labels"]


def accuracy(logits: list[Tensor], labels: Tensor) -> float:
    return int((torch.stack(logits).mean(0).argmax(1) == labels).sum()) / len(labels)


def greedy_by_hand(order: list[str]) -> list[str]:
    """Recipe 1 on outputs."""
    logits, labels = outputs("val")
    members = order[:1]
    for path in order[1:]:
        trial = [logits[member] for member in (*members, path)]
        if accuracy(trial, labels) >= accuracy(trial[:-1], labels):
            members = [*members, path]
    return members


def test_ranking_then_ensembles(family: Path, soup: Soup) -> None:
    """After `rank --save-logits` the ensembles cost nothing: only soups go through the network."""
    ranked = report_of(soup("rank", *WORDS, "--save-logits", "logits", "--json"))
    assert len(list(Path("logits/val").iterdir())) == len(list(Path("logits/test").iterdir())) == 5
    plain = report_of(soup("greedy", *WORDS, "--json", "--set", "metrics=[nll, ece]", "--out", "plain"))
    report = report_of(soup("greedy", *WORDS, "--logits", "logits", "--json"))
    assert report["cost"]["examples"] == 0 and plain["cost"]["examples"] > 0
    assert report["soup"]["hash"] == plain["soup"]["hash"]
    order = [ingredient["path"] for ingredient in report["ingredients"]]
    assert report["ensemble"]["members"] == order
    assert report["greedy_ensemble"]["members"] == greedy_by_hand(order)
    for name in ("val", "test"):
        logits, labels = outputs(name)
        for key in ("ensemble", "greedy_ensemble"):
            found, members = report[key]["scores"][name], report[key]["members"]
            assert found["accuracy"]["value"] == accuracy([logits[member] for member in members], labels)
            mean = torch.stack([logits[member] for member in members]).mean(0)
            nll = float(torch.nn.functional.cross_entropy(mean, labels))
            assert found["nll"]["value"] == pytest.approx(nll, abs=1e-3)
            assert 0 <= found["ece"]["value"] < 1
    assert report["second_best"]["path"] == order[1]
    assert report["second_best"]["scores"]["val"] == ranked["ingredients"][1]["scores"]["val"]


def test_table(family: Path, soup: Soup) -> None:
    """Ensembles and the second best stand in the table beside the soup, with what they are made of, and calibrated."""
    ran = soup("greedy", *WORDS, "--logits", "logits", "--with-uniform")
    assert ran.code == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0].split("  ")[0] == "weights" and "val nll" in lines[0] and "val ece" in lines[0]
    rows = [line.split(" (")[0] for line in lines[1:7]]
    assert rows == ["best ingredient", "uniform soup", "second best", "ensemble", "greedy ensemble", "greedy soup"]


def test_known_scores_whose_logits_are_missing(family: Path, soup: Soup) -> None:
    """They are evaluated again, which is said; a file that was damaged is made anew and says the same."""
    report_of(soup("rank", *WORDS, "--json", "--set", "metrics=[nll, ece]"))
    ran = soup("rank", *WORDS, "--save-logits", "logits")
    assert "10 known scores were evaluated again: their logits were not in logits" in ran.stderr
    first = min(Path("logits/val").iterdir())
    whole = first.read_bytes()
    first.write_bytes(whole[:100])
    ran = soup("greedy", *WORDS, "--logits", "logits", "--json")
    assert "1 known scores were evaluated again" in ran.stderr and ran.code == 0
    assert first.read_bytes() == whole
    ran = soup("rank", *WORDS, "--save-logits", "logits", "--quiet")
    assert ran.stderr == ""


def test_changed_checkpoint(family: Path, soup: Soup) -> None:
    """The logits of a checkpoint that has changed are not those that were kept."""
    report_of(soup("rank", *WORDS, "--save-logits", "logits", "--json"))
    shutil.copy("runs/1/model.safetensors", "runs/0/model.safetensors")
    report = report_of(soup("greedy", *WORDS, "--logits", "logits", "--json"))
    logits, labels = outputs("val")
    every = accuracy([logits[path] for path in report["ensemble"]["members"]], labels)
    assert report["ensemble"]["scores"]["val"]["accuracy"]["value"] == every


def test_budgeted(family: Path, soup: Soup) -> None:
    """With a budget only so many soups are evaluated: those whose ensembles score best; the best one is written."""
    shared = ("--ckpts", "runs/*/", "--val", "val", "--metric", "nll")
    words = ("greedy", *shared, "--strategy", "budgeted")
    report_of(soup("rank", *shared, "--save-logits", "logits", "--json"))
    report = report_of(soup(*words, "--budget", "3", "--logits", "logits", "--json"))
    assert report["search"]["evaluations"] == 4 and len(report["steps"]) == 4
    assert report["cost"]["examples"] <= 3 * 200
    logits, labels = outputs("val")

    def predicted(members: list[str]) -> float:
        mean = torch.stack([logits[member] for member in members]).mean(0)
        return float(torch.nn.functional.cross_entropy(mean, labels))

    tried = [predicted(step["members"]) for step in report["steps"][1:]]
    assert tried == sorted(tried)
    everything = predicted([ingredient["path"] for ingredient in report["ingredients"]])
    assert tried[0] <= everything + 1e-3
    ran = soup(*words, "--budget", "3")
    assert (ran.code, "--strategy budgeted: needs --logits" in ran.stderr) == (2, True)


def test_sets_without_logits(family: Path, soup: Soup) -> None:
    """A set that is the user's own code has no logits: it cannot select ensembles, and is left out beside others."""
    Path("mine.py").write_text("def evaluate(model, device):\n    return {'accuracy': 0.5, 'n': 10}\n")
    own = ("--set", "val.mine={python: 'mine.py:evaluate'}")
    words = ("greedy", "--ckpts", "runs/*/", "--logits", "logits", "--json", *own)
    ran = soup(*words, "--val", "mine", "val")
    assert ran.code == 2 and "val.mine: ensembles are scored from logits, which it does not show" in ran.stderr
    report = report_of(soup(*words, "--val", "val", "mine", "--force"))
    assert list(report["ensemble"]["scores"]) == ["val"]


def test_where_nothing_can_be_written(family: Path, soup: Soup) -> None:
    """A folder that cannot be made is an error before anything is evaluated."""
    ran = soup("rank", *WORDS, "--save-logits", "soup.yaml/logits")
    assert ran.code == 2 and "nothing can be written in soup.yaml" in ran.stderr and "ranking" not in ran.stderr
