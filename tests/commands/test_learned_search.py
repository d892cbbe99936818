"""`soup learned --by search`: coefficients for any metric, by CMA-ES, and what the report says of it."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cmaes
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Ran, build_net

Soup = Callable[..., Ran]
State = dict[str, torch.Tensor]
# Minus the mean squared error of probabilities: no metric of ours, no gradient asked for.
BRIER = """
import torch
from safetensors.torch import load_file
def brier(net, device):
    data = load_file("data/val.safetensors")
    with torch.no_grad():
        found = net(data["inputs"]).softmax(1)
    wanted = torch.nn.functional.one_hot(data["labels"], found.shape[1])
    with open("calls.txt", "a") as calls:
        calls.write("call\\n")
    return {"brier": float(((found - wanted) ** 2).sum(1).double().mean())}
"""
# The same of a command, without torch, which takes long to import.
OUTSIDE = """
import json, sys, numpy
from safetensors.numpy import load_file
data, w = load_file("data/val.safetensors"), load_file(sys.argv[1])
hidden = numpy.maximum(data["inputs"] @ w["0.weight"].T + w["0.bias"], 0)
logits = hidden @ w["2.weight"].T + w["2.bias"]
shares = numpy.exp(logits - logits.max(1, keepdims=True))
shares /= shares.sum(1, keepdims=True)
print(json.dumps({"brier": float(((shares - numpy.eye(shares.shape[1])[data["labels"]]) ** 2).sum(1).mean())}))
"""


@pytest.fixture
def brier(family: Path) -> Path:
    Path("score.py").write_text(BRIER)
    Path("outside.py").write_text(OUTSIDE)
    text = Path("soup.yaml").read_text()
    ours = '  brier: {python: "score.py:brier", metric: brier, higher_is_better: false}\n'
    theirs = (
        f'  outside: {{command: "{sys.executable} outside.py {{weights}}", metric: brier, higher_is_better: false}}\n'
    )
    Path("soup.yaml").write_text(text.replace("val:\n", f"val:\n{ours}{theirs}", 1))
    return family


def ran(soup: Soup, *words: str) -> dict[str, Any]:
    words = words if "--ckpts" in words else ("--ckpts", "runs/*/", *words)
    found = soup("learned", "--by", "search", "--json", "--force", *words)
    assert found.code == 0, found.stderr
    report: dict[str, Any] = json.loads(found.stdout)
    return report


def states() -> list[State]:
    return [load_file(file) for file in sorted(Path("runs").glob("*/model.safetensors"))]


def score(state: State) -> float:
    data, net = load_file("data/val.safetensors"), build_net()
    net.load_state_dict(state)
    with torch.no_grad():
        found = net(data["inputs"]).softmax(1)
    wanted = torch.nn.functional.one_hot(data["labels"], found.shape[1])
    return float(((found - wanted) ** 2).sum(1).double().mean())


def searched_by_hand(budget: int, seed: int) -> float:
    """The search with cmaes itself, on mixtures made here: the least error that it sees."""
    given = states()
    members = len(given)
    rows = np.array([[1.0] * (r + 1) + [-(r + 1.0)] + [0.0] * (members - r - 2) for r in range(members - 1)])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)

    def of(alpha: np.ndarray[Any, Any]) -> float:
        weights = torch.from_numpy(alpha)
        return score({n: sum(w * s[n].double() for w, s in zip(weights, given, strict=True)).float() for n in given[0]})

    best, done = of(np.full(members, 1 / members)), 1
    search = cmaes.CMA(mean=np.zeros(members - 1), sigma=1.0, seed=seed)
    while done < budget:
        points = [search.ask() for _ in range(search.population_size)]
        losses = []
        for point in points[: budget - done]:
            logits = point @ rows
            losses.append(of(np.exp(logits) / np.exp(logits).sum()))
        best, done = min(best, *losses), done + len(losses)
        if len(losses) == len(points):
            search.tell(list(zip(points, losses, strict=True)))
    return best


def test_equals_the_search_by_hand(brier: Path, soup: Soup) -> None:
    """The soup is what cmaes finds on mixtures made by hand, its own score is the best, and it is made again."""
    report = ran(soup, "--val", "brier", "test", "--budget", "30", "--set", "learned.seed=3")
    found = report["coefficient_search"]
    assert (found["evaluations"], found["budget"], found["algorithm"]) == (30, 30, "CMA-ES")
    assert found["best"] == pytest.approx(searched_by_hand(30, 3), rel=1e-6)
    assert report["soup"]["scores"]["brier"]["brier"]["value"] == found["best"] < found["start"]
    assert score(load_file("soup/model.safetensors")) == pytest.approx(found["best"], rel=1e-6)
    assert sum(report["soup"]["weights"]) == 1.0
    best = [one["best_so_far"] for one in found["generations"]]
    assert best == sorted(best, reverse=True) and best[-1] == found["best"]
    assert report["comparisons"][0]["tried"] == 5 + 30
    assert "brier shows no examples to hold out" in " ".join(report["warnings"])
    assert soup("verify", "soup", "--rebuild").code == 0


@pytest.mark.long
def test_goes_on_where_it_stopped(brier: Path, soup: Soup) -> None:
    """A larger budget goes on after the last whole generation, and a second run measures nothing."""
    words = ("--val", "brier", "--out")
    first = ran(soup, *words, "a", "--budget", "17")
    calls = Path("calls.txt").read_text().count("call")
    assert calls == 5 + 17
    assert ran(soup, *words, "b", "--budget", "17")["soup"]["hash"] == first["soup"]["hash"]
    assert Path("calls.txt").read_text().count("call") == calls
    more = ran(soup, *words, "c", "--budget", "33")
    assert Path("calls.txt").read_text().count("call") == calls + 16
    whole = ran(soup, *words, "d", "--budget", "33", "--fresh")
    assert whole["soup"]["hash"] == more["soup"]["hash"]
    assert whole["coefficient_search"] == more["coefficient_search"]


def test_kept_generations_need_no_scores(brier: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kept file of the search is enough to go on: scores that are gone are not measured again, but the best."""
    words = ("--val", "brier", "--budget", "17", "--out")
    first = ran(soup, *words, "a")
    cache = Path(__import__("os").environ["SOUP_CACHE"])
    for kept in (cache / "scores").rglob("*.json"):
        kept.unlink()
    Path("calls.txt").unlink()
    assert ran(soup, *words, "b")["soup"]["hash"] == first["soup"]["hash"]
    assert Path("calls.txt").read_text().count("call") < 5 + 17
    for kept in (cache / "fits").rglob("*.json"):
        kept.write_text(kept.read_text().replace("0.", "1.", 3))  # damaged: the search begins again
    assert ran(soup, *words, "c")["soup"]["hash"] == first["soup"]["hash"]


def test_warns_of_chance(brier: Path, soup: Soup) -> None:
    """Coefficients that few examples chose, and hardly, are said to be so; of a second run too."""
    chosen = ("--ckpts", "runs/0", "runs/1", "runs/2")
    words = (*chosen, "--val", "val", "--set", "holdout=0", "--budget", "30", "--out")
    for out in "ab":
        report = ran(soup, *words, out)
        assert report["coefficient_search"]["best"] > report["coefficient_search"]["start"]
        assert any("which may be chance: on others the soup may be worse" in one for one in report["warnings"])


@pytest.mark.long
@pytest.mark.parametrize("words", [["--per", "layer"], ["--groups", "2"], ["--per", "tensor"]])
def test_layers(brier: Path, soup: Soup, words: list[str]) -> None:
    """Layers, groups of layers and tensors have rows of their own that sum to 1, and the soup verifies."""
    report = ran(soup, "--ckpts", "runs/[0-3]/", "--val", "brier", "--budget", "40", *words)
    found = report["soup"]["coefficients"]
    names = set(load_file("soup/model.safetensors"))
    assert set(itertools.chain.from_iterable(found["tensors"])) == names
    assert len(found["layers"]) == {"--groups": 2}.get(words[0], len(names) if "tensor" in words else 2)
    assert all(sum(row) == pytest.approx(1.0, abs=1e-12) for row in found["alpha"])
    assert soup("verify", "soup", "--rebuild").code == 0


def test_holdout_is_on(brier: Path, soup: Soup) -> None:
    """A set that shows examples is divided by default; `--holdout 0` turns it off, and a set of your own cannot be."""
    assert ran(soup, "--val", "val", "--budget", "10")["sets"] == ["val[selecting]", "val[held out]"]
    assert ran(soup, "--val", "val", "--budget", "10", "--set", "holdout=0")["sets"] == ["val"]
    assert ran(soup, "--val", "brier", "--budget", "10")["sets"] == ["brier"]


@pytest.mark.long
def test_jobs_change_nothing(brier: Path, soup: Soup) -> None:
    """Commands that run side by side give the same generations and bytes."""
    one = ran(soup, "--val", "outside", "--budget", "6", "--out", "a", "--fresh")
    two = ran(soup, "--val", "outside", "--budget", "6", "--out", "b", "--fresh", "--jobs", "2")
    assert one["coefficient_search"]["generations"] == two["coefficient_search"]["generations"]
    assert one["soup"]["hash"] == two["soup"]["hash"]


def test_objective_gates_and_scale(brier: Path, soup: Soup) -> None:
    """An objective of several sets is searched for; a gate refuses what breaks it; the last step may scale."""
    report = ran(soup, "--val", "val", "brier", "--objective", "worst", "--budget", "12", "--set", "holdout=0")
    assert report["objective"]["soup"] == report["coefficient_search"]["best"] >= report["coefficient_search"]["start"]
    held = soup(
        *("learned", "--by", "search", "--ckpts", "runs/*/", "--val", "brier", "--budget", "12", "--json", "--force"),
        *("--set", "gates={test.accuracy: '>= 99.9%'}"),
    )
    assert held.code == 1
    found = json.loads(held.stdout)["coefficient_search"]
    assert found["best"] == found["start"]
    scaled = ran(
        soup, "--val", "brier", "--budget", "6", "--base", "runs/0", "--ckpts", "runs/[1-4]/", "--scale", "0.5,1.5"
    )
    assert scaled["scale"]["evaluations"] == 2
    assert soup("verify", "soup", "--rebuild").code == 0


def test_shown(brier: Path, soup: Soup) -> None:
    """Text, figure, page and plan say what was searched."""
    words = ("learned", "--by", "search", "--ckpts", "runs/*/", "--val", "brier", "test", "--budget", "12")
    assert "at most 19 times" in soup(*words, "--dry-run").stdout  # 5 alone, 12 mixtures, soup and best on test
    shown = soup(*words)
    assert "searched by CMA-ES: 12 mixtures; brier" in shown.stdout
    assert soup("plot", "soup/soup.json", "--kind", "search", "--out", "search.svg").code == 0
    assert soup("report", "soup/soup.json", "--out", "page.html").code == 0
    assert "CMA-ES" in Path("page.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--by", "serach"], "neither gradient nor search, did you mean 'search'"),
        (["--by", "search", "gradient"], "--by: search and gradient are two"),
        (["--by", "search", "--constraint", "affine"], "a search is over the simplex"),
        (["--by", "search", "--set", "learned.steps=5"], "steps: is for by: gradient"),
        (["--budget", "5"], "budget: is for by: search"),
        (["--by", "search", "--groups", "2", "--per", "tensor"], "groups: are of layers"),
        (["--by", "search", "--budget", "1"], "budget"),
        (["--objective", "mean"], "soup learned --by search"),
    ],
)
def test_refused(brier: Path, soup: Soup, words: list[str], message: str) -> None:
    """What does not go together is an error that says so."""
    found = soup("learned", "--ckpts", "runs/*/", "--val", "val", "test", *words)
    assert found.code == 2
    assert message in found.stderr


@pytest.mark.parametrize(
    ("settings", "words", "left"),
    [
        ("{steps: 7, lr: 0.3, seed: 1}", ["--by", "search", "--budget", "6"], ["steps", "lr"]),
        ("{by: search, budget: 6, per: layer, folds: 1, steps: 3}", ["--by", "gradient"], ["budget"]),
    ],
    ids=["search", "gradient"],
)
def test_recipe_of_both_ways(brier: Path, soup: Soup, settings: str, words: list[str], left: list[str]) -> None:
    """A recipe that serves both ways runs by either: settings of the file that --by leaves unused are said."""
    recipe, line = Path("soup.yaml"), f"learned: {settings}"
    recipe.write_text(f"{recipe.read_text()}{line}\n")
    report = json.loads(soup("learned", "--ckpts", "runs/*/", "--val", "val", "--json", *words).stdout)
    number = len(recipe.read_text().splitlines())
    places = [f"soup.yaml:{number}:{line.index(f'{key}:') + 1}: learned.{key}" for key in left]
    said = [one for one in report["warnings"] if "has no use" in one]
    assert said == [f"{place}: --by {words[1]} has no use for it" for place in places]
    assert report["recipe"]["learned"]["by"] == words[1]


def test_no_score_is_a_number(brier: Path, soup: Soup) -> None:
    """Where every score is NaN there is nothing to search by, as there is nothing for greedy to begin with."""
    Path("nan.py").write_text("def evaluate(model, device):\n    return {'brier': float('nan')}\n")
    recipe = Path("soup.yaml")
    recipe.write_text(recipe.read_text().replace("val:\n", "val:\n  nan: {python: 'nan.py:evaluate', metric: brier}\n"))
    found = soup("learned", "--ckpts", "runs/*/", "--val", "nan", "--by", "search", "--budget", "6")
    assert found.code == 2
    assert "brier: not a number for any of the" in found.stderr


def test_one_ingredient(brier: Path, soup: Soup) -> None:
    """One ingredient has no coefficients."""
    found = soup("learned", "--ckpts", "runs/0", "--val", "val", "--by", "search")
    assert found.code == 2
    assert "has no coefficients to search for" in found.stderr


def test_by_is_still_a_recorded_metric(brier: Path, soup: Soup) -> None:
    """--by takes both: how coefficients are found, and the metric of --top."""
    words = (
        "learned",
        "--ckpts",
        "runs/*/",
        "--val",
        "brier",
        "--by",
        "search",
        "--top",
        "2",
        "--by=-loss",
        "--dry-run",
    )
    assert "the trainer of runs/0 recorded no such metric" in soup(*words).stderr
