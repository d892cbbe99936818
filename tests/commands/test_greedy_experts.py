"""`soup greedy --strategy experts`, against the method by hand: correlations, groups, experts, weights on a grid."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import NET, Ran, build_net, train
from tests.helpers import greedy_reference as reference

Soup = Callable[..., Ran]
SETS = ("a", "b", "c")  # a and b are of one task, c is of another
RECIPE = 'model: {python: "net.py:build"}\nval:\n' + "".join(f"  {n}: {{arrays: {n}.safetensors}}\n" for n in SETS)
DEFAULTS = {"--ckpts": ["runs/*/"], "--val": [*SETS], "--strategy": ["experts"]}
PATHS = [f"runs/{number}" for number in range(6)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six fine-tunings of one network: three on one task, three on another, more or less of each."""
    folder = tmp_path_factory.mktemp("tasks")
    generator = torch.Generator().manual_seed(4)
    inputs = torch.randn(1200, 8, generator=generator)
    noise = torch.randn(1200, 3, generator=generator)
    tasks = [(inputs @ torch.randn(8, 3, generator=generator) + noise).argmax(dim=1) for _ in range(2)]
    for name, (labels, part) in dict(zip(SETS, ((0, 600), (0, 750), (1, 900)), strict=True)).items():
        chosen = slice(part, part + 150)
        save_file(
            {"inputs": inputs[chosen].clone(), "labels": tasks[labels][chosen].clone()}, folder / f"{name}.safetensors"
        )
    (folder / "net.py").write_text(NET)
    (folder / "soup.yaml").write_text(RECIPE)
    torch.manual_seed(4)
    start = train(build_net(), inputs[:600], tasks[0][:600], steps=20, lr=1e-2, seed=0)
    for number in range(6):
        net = build_net()
        net.load_state_dict(start.state_dict())
        train(net, inputs[:600], tasks[number % 2][:600], steps=6 + 5 * number, lr=1e-2, seed=number)
        (folder / f"runs/{number}").mkdir(parents=True)
        save_file(net.state_dict(), folder / f"runs/{number}/model.safetensors")
    return folder


@pytest.fixture
def tasks(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def by_hand(parts: int, worst: bool) -> tuple[list[list[float]], dict[str, str], list[str], list[float], int]:
    """Correlations, expert of each set, members and weights of the best soup, and how many were tried."""
    states = [load_file(f"{path}/model.safetensors") for path in PATHS]

    def scores(state: reference.State) -> list[float]:
        net, found = build_net(), []
        net.load_state_dict(state)
        for name in SETS:
            data = load_file(f"{name}.safetensors")
            found.append((net(data["inputs"]).argmax(dim=1) == data["labels"]).double().mean().item())
        return found

    alone = torch.tensor([scores(state) for state in states], dtype=torch.float64)
    best = alone.max(dim=0).values
    gains = alone / best - 1
    judge = torch.min if worst else torch.mean
    correlations = torch.corrcoef(alone.T)
    assert correlations[0, 1] > 0.5 > correlations[:2, 2].max()
    experts = [int(torch.stack([judge(gain[group]) for gain in gains]).argmax()) for group in ([0, 1], [2])]
    tried = [{max(range(6), key=lambda i: float(judge(gains[i]))): 1.0}, dict.fromkeys(experts, 0.5)]
    grid = [shares for shares in itertools.product(range(1, parts), repeat=2) if sum(shares) == parts]
    tried += [{i: n / parts for i, n in zip(experts, shares, strict=True)} for shares in grid if len({*shares}) > 1]

    def objective(weights: dict[int, float]) -> float:
        mixed = {
            k: sum((w * states[i][k].double() for i, w in weights.items()), torch.zeros(1)).float() for k in states[0]
        }
        return float(judge(torch.tensor(scores(mixed), dtype=torch.float64) / best - 1))

    found = max(tried, key=objective)
    of = dict(zip(SETS, (experts[0], experts[0], experts[1]), strict=True))
    return (
        correlations.tolist(),
        {n: PATHS[i] for n, i in of.items()},
        [PATHS[i] for i in found],
        [*found.values()],
        len(tried),
    )


def typed(*words: str) -> list[str]:
    """The command, with its usual flags if others are not among the words."""
    usual = [word for flag, values in DEFAULTS.items() if flag not in words for word in (flag, *values)]
    return ["greedy", *usual, "--force", *words]


def greedy(soup: Soup, *words: str) -> dict[str, Any]:
    ran = soup(*typed("--json", *words))
    assert ran.code == 0, ran.stderr
    report: dict[str, Any] = json.loads(ran.stdout)
    return report


@pytest.mark.parametrize(("parts", "objective"), [(10, "mean"), (5, "worst")])
def test_equals_the_method_by_hand(tasks: Path, soup: Soup, parts: int, objective: str) -> None:
    """Correlations, groups, experts, the weights that are taken and the number tried are those of the definition."""
    correlations, experts, members, weights, tried = by_hand(parts, worst=objective == "worst")
    words = ["--holdout", "0", "--set", f"greedy.parts={parts}", "--objective", objective]
    report = greedy(soup, *words, *(["--no-early-stop"] if parts == 5 else []))
    seen = report["experts"]
    for row, expected in zip(seen["correlations"], correlations, strict=True):
        assert row == pytest.approx(expected, abs=1e-9)
    assert {name: group["expert"] for group in seen["groups"] for name in group["sets"]} == experts
    assert dict(zip(report["soup"]["members"], report["soup"]["weights"], strict=True)) == pytest.approx(
        dict(zip(members, weights, strict=True))
    )
    assert (report["search"]["strategy"], report["search"]["evaluations"]) == ("experts", tried)
    assert len(report["steps"]) == tried
    assert all(of["tried"] == 6 + tried for of in report["comparisons"])
    assert report["steps"][2]["weights"] == [1 / parts, (parts - 1) / parts]
    again = greedy(soup, *words)
    assert again["soup"]["hash"] == report["soup"]["hash"] and again["cost"]["examples"] == 0


def test_holds_out_by_default(tasks: Path, soup: Soup) -> None:
    """Half of every set takes no part in the choice and is reported; --holdout changes the share."""
    report = greedy(soup, "--set", "greedy.parts=2")
    halves = [f"{name}[{part}]" for part in ("selecting", "held out") for name in SETS]
    assert report["sets"] == halves and report["recipe"]["holdout"] == 0.5
    assert list(report["objective"]["weights"]) == halves[:3]
    assert report["experts"]["sets"] == list(SETS)
    counts = {name: of["accuracy"]["n"] for name, of in report["soup"]["scores"].items()}
    assert all(counts[f"{name}[selecting]"] + counts[f"{name}[held out]"] == 150 for name in SETS)
    assert {of["set"]: of["tried"] for of in report["comparisons"]}["c[held out]"] is None
    assert not [warning for warning in report["warnings"] if "too high" in warning]
    fifth = greedy(soup, "--holdout", "0.2", "--set", "greedy.parts=2")
    assert fifth["soup"]["scores"]["a[held out]"]["accuracy"]["n"] == 30
    assert soup("verify", "soup/", "--rebuild").code == 0


def test_shown(tasks: Path, soup: Soup) -> None:
    """Table, figure and page say which sets go together, who is the expert, and how many were tried."""
    ran = soup(*typed("--set", "greedy.parts=4", "--objective", "a=1,c=1", "--with-uniform"))
    assert ran.code == 0, ran.stderr
    for words in ("correlation over 6 ingredients", "expert for a: runs/", "expert for c: runs/"):
        assert words in ran.stdout
    assert "a[selecting] (selected on it, of 10 tried): soup" in ran.stdout
    assert "b: soup" in ran.stdout  # it takes no part in the choice
    assert soup("plot", "soup/soup.json", "--kind", "correlations", "--out", "correlations.svg").code == 0
    assert "Which sets go together" in Path("correlations.svg").read_text()
    assert soup("report", "soup/soup.json", "--out", "page.html").code == 0
    page = Path("page.html").read_text()
    assert "correlation over 6 ingredients" in page and "selected on it, of 10 tried" in page and "0.25 runs/" in page


def test_programs_of_your_own(tasks: Path, soup: Soup) -> None:
    """A set that shows no examples selects as a whole, and that is said; scores that do not vary make a group."""
    Path("mine.py").write_text("def flat(model, device):\n    return {'accuracy': 0.5}\n")
    own = ["--set", "val.mine={python: 'mine.py:flat'}", "--set", "greedy.parts=3"]
    ran = soup(*typed(*own, "--val", "a", "c", "mine", "--json"))
    report = json.loads(ran.stdout)
    assert "holdout: mine shows no examples to hold out" in ran.stderr
    assert report["sets"] == ["a[selecting]", "c[selecting]", "a[held out]", "c[held out]", "mine"]
    assert report["experts"]["correlations"][2] == [None, None, 1.0]
    assert ["mine"] in [group["sets"] for group in report["experts"]["groups"]]


def test_one_expert(tasks: Path, soup: Soup) -> None:
    """If all sets go together there is nothing to mix, and that is said; the best ingredient is taken."""
    ran = soup(*typed("--set", "greedy.together=-1", "--json"))
    report = json.loads(ran.stdout)
    assert "is the only one, so there is nothing to mix: all sets go together" in ran.stderr
    assert report["soup"]["members"] == [report["best"]["path"]]


def test_too_few_parts(tasks: Path, soup: Soup) -> None:
    """If there are no more parts than experts the grid is their mean alone, which is said."""
    ran = soup(*typed("--set", "greedy.parts=2", "--holdout", "0", "--json"))
    assert "there are 2, and greedy.parts is 2: only their mean was tried" in ran.stderr
    assert json.loads(ran.stdout)["search"]["evaluations"] == 2


def test_groups(tasks: Path, soup: Soup) -> None:
    """With --group-by the mean of each run may be an expert, whose weight its checkpoints share."""
    for run, numbers in {"x": (0, 2), "y": (1, 3, 5), "z": (4,)}.items():
        for number in numbers:
            shutil.copytree(f"runs/{number}", f"sweep/{run}/checkpoint-{number}", dirs_exist_ok=True)
    words = ["--ckpts", "sweep/*/*/", "--group-by", "run", "--set", "greedy.parts=4"]
    report = greedy(soup, *words, "--objective", "a=2,c=1")
    assert {group["expert"] for group in report["experts"]["groups"]} <= {"sweep/x", "sweep/y", "sweep/z"}
    tried = [(step["members"], step["weights"]) for step in report["steps"]]
    assert tried[2][1] == pytest.approx([0.25, 0.75]) and len(tried[2][0]) == 2
    assert soup("verify", "soup/", "--rebuild").code == 0


def test_plan(tasks: Path, soup: Soup) -> None:
    """--dry-run counts what is evaluated at most: three experts on a grid of tenths."""
    plan = json.loads(soup(*typed("--dry-run", "--json")).stdout)
    assert plan["evaluations"] == 3 * (6 + 1 + 1 + 36) + 3 * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--val", "a"], "only a selects, and experts are of several sets"),
        (["--objective", "b=1"], "only b selects, and experts are of several sets"),
        (["--ckpts", "runs/0", "runs/1"], "2 ingredients, correlations need 3"),
        (["--logits", "l/"], "--logits"),
        (["--min-delta", "0.1"], "--min-delta: experts takes the best of its weights"),
        (["--orders", "2"], "order: and orders: are for forward and pruned, not for experts"),
        (["--strategy", "pruned", "--set", "greedy.parts=4"], "are for strategy: experts, not for pruned"),
        (["--set", "greedy.parts=1"], "greedy.parts"),
        (["--windows", "2"], "strategy: does not go with it"),
    ],
)
def test_refused(tasks: Path, soup: Soup, words: list[str], message: str) -> None:
    """What has no meaning is an error with exit code 2."""
    ran = soup(*typed(*words))
    assert ran.code == 2
    assert message in ran.stderr
