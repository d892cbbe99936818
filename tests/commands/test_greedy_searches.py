"""`soup greedy --strategy ... --orders ...`: what is tried, what it cost and what is written stand in the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Ran, build_net, write_family
from tests.helpers import greedy_reference as reference

Soup = Callable[..., Ran]


def cook(soup: Soup, *words: str) -> dict[str, Any]:
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "--metric", "nll", "--json", "--force", *words)
    assert ran.code == 0, ran.stderr
    report: dict[str, Any] = json.loads(ran.stdout)
    return report


def nll(state: reference.State) -> float:
    data, net = load_file("data/val.safetensors"), build_net()
    net.load_state_dict(state)
    with torch.no_grad():
        return reference.nll(net(data["inputs"]), data["labels"])


def check_exact(report: dict[str, Any], written: reference.State) -> None:
    """No float32 is nearer to the weighted mean, computed in fractions, than the one that was written."""
    states = [load_file(f"{path}/model.safetensors") for path in report["soup"]["members"]]
    weights = [Fraction(weight) for weight in report["soup"]["weights"]]
    if len(set(weights)) == 1:  # a plain mean is divided, once
        weights = [Fraction(1, len(weights))] * len(weights)
    for name, tensor in written.items():
        rows = torch.stack([state[name].flatten() for state in states]).T.tolist()
        for out, row in zip(tensor.flatten(), rows, strict=True):
            mean = sum((w * Fraction(x) for w, x in zip(weights, row, strict=True)), Fraction())
            beside = [Fraction(torch.nextafter(out, out + side).item()) for side in (-1, 1)]
            assert abs(Fraction(out.item()) - mean) <= min(abs(other - mean) for other in beside)


@pytest.mark.parametrize("strategy", ["forward", "pruned", "replacement"])
def test_strategies(family: Path, soup: Soup, strategy: str) -> None:
    """The soup written is the mixture reported, scores what is reported, and each step is one evaluation."""
    report = cook(soup, "--strategy", strategy)
    written = load_file("soup/model.safetensors")
    check_exact(report, written)
    assert report["soup"]["scores"]["val"]["nll"]["value"] == pytest.approx(nll(written), rel=1e-12)
    assert report["search"] == {"strategy": strategy, "evaluations": len(report["steps"]), "orders": []}
    assert sum(report["soup"]["weights"]) == pytest.approx(1)
    if strategy != "pruned":
        assert report["soup"]["scores"]["val"]["nll"]["value"] <= report["best"]["scores"]["val"]["nll"]["value"]


def test_replacement_weighs(tmp_path: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some ingredient counts thrice: weights differ, and `soup mix` writes the same bytes again from the report."""
    write_family(tmp_path / "family", members=5, seed=6)
    monkeypatch.chdir(tmp_path / "family")
    report = cook(soup, "--strategy", "replacement", "--set", "greedy.rounds=9")
    additions = [step["candidate"] for step in report["steps"] if step["accepted"]]
    members, weights = report["soup"]["members"], report["soup"]["weights"]
    assert weights == [additions.count(member) / len(additions) for member in members]
    assert weights == [3 / 5, 1 / 5, 1 / 5]
    check_exact(report, load_file("soup/model.safetensors"))
    assert soup("mix", "soup/soup.json", "--out", "again").code == 0
    assert Path("again/model.safetensors").read_bytes() == Path("soup/model.safetensors").read_bytes()


def test_orders(family: Path, soup: Soup) -> None:
    """Every order stands in the report with its members and score; the best is the soup; known scores cost nothing."""
    one, report = cook(soup), cook(soup, "--orders", "4", "--set", "greedy.seed=5")
    orders = report["search"]["orders"]
    assert len(orders) == 4 and report["search"]["evaluations"] == 4 * 5
    assert orders[0]["order"] == [ingredient["path"] for ingredient in report["ingredients"]]
    assert orders[0]["members"] == one["soup"]["members"]
    best = min(orders, key=lambda order: float(order["score"]))
    assert report["soup"]["members"] == best["members"]
    assert cook(soup, "--orders", "4", "--set", "greedy.seed=5")["cost"]["examples"] == 0


def test_plan(family: Path, soup: Soup) -> None:
    """--dry-run says how many evaluations a strategy may take."""

    def planned(*words: str) -> int:
        ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "--dry-run", "--json", *words)
        evaluations: int = json.loads(ran.stdout)["evaluations"]
        return evaluations

    assert planned() == 9
    assert planned("--orders", "3") == 9 + 2 * 5
    assert planned("--strategy", "pruned") == 5 + 15 + 1
    assert planned("--strategy", "replacement", "--set", "greedy.rounds=2") == 5 + 2 * 5
    assert planned("--strategy", "budgeted", "--budget", "7") == 5 + 7


def test_settings_that_do_not_go_together(family: Path, soup: Soup) -> None:
    """A flag that the strategy does not know is an error that names both."""
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "--budget", "3")
    assert ran.code == 2
    assert "budget: is for strategy: budgeted, not for forward" in ran.stderr
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "--strategy", "prune")
    assert ran.code == 2 and "did you mean 'pruned'" in ran.stderr
