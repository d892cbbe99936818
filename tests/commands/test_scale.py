"""--scale: the way from the base through a soup, tried as the last step of uniform, greedy and learned."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import Ran, build_net

Soup = Callable[..., Ran]
State = dict[str, torch.Tensor]
GRID = [number / 4 for number in range(9)]


@pytest.fixture
def base(family: Path) -> State:
    """A base below the mean of the ingredients, whose weights are a little too small: the best point lies beyond 1."""
    states = [load_file(file) for file in sorted(family.glob("runs/*/model.safetensors"))]
    found = {name: 0.9 * torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    Path("init").mkdir()
    save_file(found, "init/model.safetensors")
    return found


def ran(soup: Soup, command: str, *words: str) -> dict[str, Any]:
    words = ("--ckpts", "runs/*/", "--base", "init", "--val", "val", "--metric", "nll", "--json", "--force", *words)
    found = soup(command, *words)
    assert found.code == 0, found.stderr
    report: dict[str, Any] = json.loads(found.stdout)
    return report


def nll(state: State) -> float:
    data, net = load_file("data/val.safetensors"), build_net()
    net.load_state_dict(state)
    with torch.no_grad():
        return float(torch.nn.functional.cross_entropy(net(data["inputs"]).double(), data["labels"]))


def at(soup: State, base: State, scale: float) -> State:
    return {n: (base[n].double() + scale * (soup[n].double() - base[n].double())).float() for n in base}


@pytest.mark.parametrize("command", ["uniform", "greedy", "learned"])
def test_equals_the_way_by_hand(base: State, soup: Soup, command: str) -> None:
    """Each point has the score of base + s (soup - base), the best is written, verifies, and is made again."""
    few = ("--set", "learned.steps=4", "--set", "learned.folds=1") if command == "learned" else ()
    words = ("--ckpts", "runs/*/", "--val", "val", "--metric", "nll", "--out", "plain", *few)
    assert soup(command, *words).code == 0
    report = ran(soup, command, "--scale", "0:2:0.25", "--val", "test", *few)
    plain = load_file("plain/model.safetensors")
    expected = {scale: nll(at(plain, base, scale)) for scale in GRID}
    found = {point["scale"]: point["scores"]["val"]["nll"]["value"] for point in report["scale"]["points"]}
    assert found == pytest.approx(expected, rel=1e-4)
    best = min(GRID, key=lambda scale: expected[scale])
    assert report["scale"]["scale"] == best != 1.0
    assert report["scale"]["evaluations"] == 8
    assert report["soup"]["scores"]["val"]["nll"]["value"] == found[best]
    written, wanted = load_file("soup/model.safetensors"), at(plain, base, best)
    assert all(torch.allclose(written[name], wanted[name], atol=1e-6) for name in wanted)
    assert report["soup"]["members"][-1] == "init"
    assert sum(report["soup"]["weights"]) == pytest.approx(1.0)
    assert len(report["ingredients"]) == 5
    assert soup("verify", "soup", "--rebuild").code == 0


def test_nothing_is_evaluated_twice(base: State, soup: Soup) -> None:
    """The plan counts the points, a second run evaluates none, and `tried` counts them beside the search."""
    plan = soup("greedy", "--ckpts", "runs/*/", "--base", "init", "--val", "val", "--scale", "0:2:0.5", "--dry-run")
    assert "at most 13 times" in plan.stdout  # 5 alone, 4 candidates, 4 points; the soup and the best are known
    report = ran(soup, "greedy", "--scale", "0:2:0.5", "--no-early-stop")
    assert report["cost"]["examples"] == 200 * (5 + 4 + 4)
    assert report["comparisons"][0]["tried"] == 5 + 5 + 4
    again = ran(soup, "greedy", "--scale", "0:2:0.5", "--no-early-stop")
    assert again["cost"]["examples"] == 0
    assert again["soup"]["hash"] == report["soup"]["hash"]
    assert [point["scores"] for point in again["scale"]["points"]] == [
        point["scores"] for point in report["scale"]["points"]
    ]


def test_ties_leave_the_soup(base: State, soup: Soup) -> None:
    """Where the base is the soup every point counts the same: 1 is taken, and the base is no member."""
    soup("uniform", "--ckpts", "runs/*/", "--out", "mean")
    shutil.copy("mean/model.safetensors", "init/model.safetensors")
    report = ran(soup, "uniform", "--scale", "0:2:0.5", "--metric", "accuracy")  # blind to the mean's rounding
    assert report["scale"]["scale"] == 1.0
    assert "init" not in report["soup"]["members"]
    assert report["soup"]["hash"] == json.loads(Path("mean/soup.json").read_text())["soup"]["hash"]


def test_gates_and_objective(base: State, soup: Soup) -> None:
    """A point that breaks a gate is not taken; an objective over two sets chooses the point that is best by it."""
    with Path("soup.yaml").open("a") as recipe:
        recipe.write("gates: {test.accuracy: '>= 99%'}\n")
    words = ("greedy", "--ckpts", "runs/*/", "--base", "init", "--val", "val", "--metric", "nll", "--scale", "1:2:0.5")
    found = soup(*words, "--json")
    assert found.code == 1
    assert json.loads(found.stdout)["scale"]["scale"] == 1.0
    report = ran(soup, "greedy", "--val", "test", "--objective", "mean", "--scale", "1:2:0.5", "--set", "gates={}")
    points = report["scale"]["points"]
    assert all(set(point["scores"]) == {"val", "test"} for point in points)
    best = max(points, key=lambda point: point["value"])
    assert report["scale"]["scale"] == best["scale"]
    assert report["objective"]["soup"] == best["value"]


def test_figure_and_table(base: State, soup: Soup) -> None:
    """The points are rows of the table, and the figure and the page show the one that was taken."""
    words = ("--base", "init", "--val", "val", "test", "--scale", "0.5,1.5")
    shown = soup("greedy", "--ckpts", "runs/*/", *words)
    assert "scale 0.5" in shown.stdout and "scale 1.5" in shown.stdout
    assert ", scale " in shown.stdout
    assert soup("plot", "soup/soup.json", "--kind", "scale", "--out", "way.svg").code == 0
    assert soup("report", "soup/soup.json", "--out", "page.html").code == 0
    assert "From the base through the soup" in Path("page.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["greedy", "--val", "val"], "--scale: needs --base"),
        (["uniform", "--base", "init"], "soup uniform: needs --val"),
        (["greedy", "--val", "val", "--base", "runs/0"], "--base runs/0: is one of the checkpoints too"),
        (["uniform", "--val", "val", "--base", "init", "--objective", "mean"], "soup uniform: no option --objective"),
        (["uniform", "--val", "val", "--base", "init", "--set", "objective=mean"], "chooses on the first set alone"),
    ],
)
def test_refused(base: State, soup: Soup, words: list[str], message: str) -> None:
    """What a scale needs is asked for by name."""
    found = soup(words[0], "--ckpts", "runs/*/", "--scale", "0:2:0.5", *words[1:])
    assert found.code == 2
    assert message in found.stderr


def test_other_commands_say_that_they_do_not(base: State, soup: Soup) -> None:
    """A recipe with a scale is not silently another one to `soup mix`."""
    found = soup("mix", "--ckpts", "runs/*/", "--set", "scale=0:1:0.5", "--json")
    assert "scale: soup mix does not scale what it mixes" in json.loads(found.stdout)["warnings"]
