"""`--objective` of `soup greedy` and `soup rank`: several sets and metrics select, against the recipe by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Ran, build_net
from tests.helpers import greedy_reference as reference

Soup = Callable[..., Ran]
RECIPE = """
model: {python: "net.py:build"}
val:
  val: {arrays: data/val.safetensors, metric: accuracy}
  test: {arrays: data/test.safetensors, metric: nll}
"""
PATHS = [f"runs/{number}" for number in range(5)]


def value(state: reference.State, name: str) -> float:
    """Accuracy on val, nll on test, with torch alone."""
    data, net = load_file(f"data/{name}.safetensors"), build_net()
    net.load_state_dict(state)
    with torch.no_grad():
        logits = net(data["inputs"])
    return {"val": reference.accuracy, "test": reference.nll}[name](logits, data["labels"])


def by_hand(kind: str) -> tuple[list[str], list[str]]:
    """Recipe 1 over the gains: the ranking, and the members."""
    states = {path: load_file(f"{path}/model.safetensors") for path in PATHS}
    best_val = max(value(state, "val") for state in states.values())
    best_test = min(value(state, "test") for state in states.values())

    def goodness(*members: str) -> float:
        state = reference.mean([states[path] for path in members])
        gains = [(value(state, "val") - best_val) / best_val, (best_test - value(state, "test")) / best_test]
        if kind == "worst":
            return min(gains)
        return sum(gains) / 2 if kind == "mean" else (gains[0] + 3 * gains[1]) / 4

    ranking = sorted(PATHS, key=lambda path: -goodness(path))
    members = ranking[:1]
    for path in ranking[1:]:
        if goodness(*members, path) >= goodness(*members):
            members.append(path)
    return ranking, members


def greedy(soup: Soup, *words: str) -> dict[str, Any]:
    Path("soup.yaml").write_text(RECIPE)
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "test", "--json", "--force", *words)
    assert ran.code == 0, ran.stderr
    report: dict[str, Any] = json.loads(ran.stdout)
    return report


@pytest.mark.parametrize("objective", ["mean", "worst", "val=1,test=3"])
def test_equals_the_recipe_by_hand(family: Path, soup: Soup, objective: str) -> None:
    """Accuracy on one set and nll on another: ranking and members are those of the definition."""
    ranking, members = by_hand(objective)
    report = greedy(soup, "--objective", objective)
    assert [one["path"] for one in report["ingredients"]] == ranking
    assert report["soup"]["members"] == members
    judged = report["objective"]
    assert judged["weights"] == ({"val": 0.25, "test": 0.75} if "=" in objective else {"val": 0.5, "test": 0.5})
    accepted = [step["score"] for step in report["steps"] if step["accepted"]]
    assert accepted[-1] == judged["soup"] >= accepted[0] == judged["ingredients"][ranking[0]]
    whole = greedy(soup, "--objective", objective, "--no-early-stop", "--fresh")
    assert whole["soup"]["members"] == members
    assert whole["soup"]["hash"] == report["soup"]["hash"]
    assert soup("verify", "soup", "--rebuild").code == 0  # its card too, whose sets a report read again has sorted
    assert all({"val", "test"} == set(one["scores"]) for one in report["ingredients"])


def test_some_sets_only_report(family: Path, soup: Soup) -> None:
    """Sets without a weight take no part in the choice, and the report says which sets did."""
    report, alone = greedy(soup, "--objective", "test=1"), greedy(soup, "--val", "test", "val")
    assert list(report["objective"]["weights"]) == ["test"]
    assert "val" not in report["ingredients"][0]["scores"]
    assert not [warning for warning in report["warnings"] if "no other set" in warning]
    everything = greedy(soup, "--objective", "mean")
    assert [warning for warning in everything["warnings"] if "chosen on val and test" in warning]
    assert alone["objective"] is None


def test_rank(family: Path, soup: Soup) -> None:
    """`soup rank` sorts by the objective and reports it; the text says so."""
    Path("soup.yaml").write_text(RECIPE + "objective: worst\n")
    words = ("rank", "--ckpts", "runs/*/", "--val", "val", "test")
    report = json.loads(soup(*words, "--json").stdout)
    assert [one["path"] for one in report["ingredients"]] == by_hand("worst")[0]
    assert (
        max(report["objective"]["ingredients"].values()) == report["objective"]["ingredients"][report["best"]["path"]]
    )
    assert "objective, the worst gain over val, test" in soup(*words).stdout


def test_windows_and_pages(family: Path, soup: Soup) -> None:
    """Windows go by the objective too, scaled to the last checkpoint; figure and page show its values."""
    report = greedy(soup, "--objective", "mean", "--windows", "2,4", "--ckpts", "runs/*/model.safetensors")
    assert report["steps"][0]["score"] == 0.0
    report = greedy(soup, "--objective", "worst")
    assert soup("plot", "soup/soup.json", "--kind", "path", "--out", "path.svg").code == 0
    assert soup("report", "soup/soup.json").code == 0
    assert (
        "objective, the worst gain over val, test"
        in soup("greedy", "--ckpts", "runs/*/", "--val", "val", "test", "--objective", "worst", "--force").stdout
    )


def test_gates_hold(family: Path, soup: Soup) -> None:
    """A gate on a selecting set is judged on its own metric, not on the objective."""
    report = greedy(soup, "--objective", "mean", "--set", "gates={val: '>= 50%'}")
    assert [(gate["metric"], gate["met"]) for gate in report["gates"]] == [("accuracy", True)]


def test_plan(family: Path, soup: Soup) -> None:
    """--dry-run counts each set that selects."""
    Path("soup.yaml").write_text(RECIPE)
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "test", "--objective", "mean", "--dry-run", "--json")
    assert json.loads(ran.stdout)["evaluations"] == 2 * 9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["greedy", "--objective", "best"], "expected mean, worst or SET=WEIGHT"),
        (["greedy", "--objective", "vall=1"], "vall is not among the sets after --val, did you mean 'val'"),
        (["greedy", "--objective", "val=0"], "objective"),
        (["greedy", "--objective", "val=nan"], "objective"),
        (["greedy", "--objective", "val=1,val=2"], "names a set twice"),
        (["greedy", "--objective", "mean", "--logits", "l/"], "--logits goes by the first set alone"),
        (["greedy", "--objective", "mean", "--scores", "s.jsonl"], "--scores goes by the first set alone"),
        (["greedy", "--objective", "mean", "--strategy", "budgeted", "--budget", "2"], "--strategy budgeted goes by"),
        (["rank", "--objective", "mean", "--scores", "s.jsonl"], "--scores goes by the first set alone"),
        (["mix", "--base", "init", "--alpha", "0:1:0.5", "--set", "objective=mean"], "soup mix chooses on the first"),
        (["learned", "--set", "objective=mean"], "soup learned chooses on the first set alone"),
    ],
)
def test_refused(family: Path, soup: Soup, words: list[str], message: str) -> None:
    """What has no meaning is an error with exit code 2."""
    ran = soup(*words, "--ckpts", "runs/*/", "--val", "val", "test")
    assert ran.code == 2
    assert message in ran.stderr


def test_said_where_it_is_not_used(family: Path, soup: Soup) -> None:
    """A command that only sorts by the first set says that it does not go by the objective."""
    ran = soup("eval", "--ckpts", "runs/*/", "--val", "val", "test", "--set", "objective=mean")
    assert ran.code == 0
    assert "soup eval does not go by it" in ran.stderr
