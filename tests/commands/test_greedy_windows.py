"""`soup greedy --windows`: the windows that are tried, what they cost, and the soup that is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from soupcli.soups.decay import decay_weights, multipliers
from tests.conftest import Ran, build_net

Soup = Callable[..., Ran]


@pytest.fixture
def run(family: Path) -> Path:
    """The family's ingredients as checkpoint-200 to checkpoint-1000 of one run."""
    for number in range(5):
        shutil.move(f"runs/{number}", f"run/checkpoint-{(number + 1) * 200}")
    return family


def greedy(soup: Soup, *words: str) -> dict[str, Any]:
    ran = soup("greedy", "--ckpts", "run/*/", "--val", "val", "--metric", "nll", "--json", "--force", *words)
    assert ran.code == 0, ran.stderr
    report: dict[str, Any] = json.loads(ran.stdout)
    return report


def nll(state: dict[str, torch.Tensor]) -> float:
    data, net = load_file("data/val.safetensors"), build_net()
    net.load_state_dict(state)
    with torch.no_grad():
        return float(torch.nn.functional.cross_entropy(net(data["inputs"]).double(), data["labels"]))


def window(size: int, decay: str | None) -> dict[str, torch.Tensor]:
    """The mean of the last `size` checkpoints, weighted by the decay."""
    steps = [200, 400, 600, 800, 1000][-size:]
    plain = decay is None or size == 1
    weights = [1 / size] * size if plain or decay is None else decay_weights(multipliers(decay, steps))
    states = [load_file(f"run/checkpoint-{step}/model.safetensors") for step in steps]
    mixed = {
        name: sum((w * s[name].double() for w, s in zip(weights, states, strict=True)), torch.zeros(1))
        for name in states[0]
    }
    return {name: torch.as_tensor(tensor).float() for name, tensor in mixed.items()}


@pytest.mark.parametrize("decay", [None, "linear", "1-sqrt", "cosine"])
def test_equals_the_means_by_hand(run: Path, soup: Soup, decay: str | None) -> None:
    """Each window is a step with the score of its mean, the best is written, and no evaluation goes unsaid."""
    report = greedy(soup, "--no-early-stop", "--windows", "4,2,3,2", *(["--decay", decay] if decay else []))
    scores = {size: nll(window(size, decay)) for size in (1, 2, 3, 4)}
    assert [len(step["members"]) for step in report["steps"]] == [1, 2, 3, 4]
    assert [step["score"] for step in report["steps"]] == pytest.approx(list(scores.values()), rel=1e-6)
    best = min(scores, key=lambda size: scores[size])
    assert report["soup"]["members"] == [f"run/checkpoint-{s}" for s in (200, 400, 600, 800, 1000)[-best:]]
    written, expected = load_file("soup/model.safetensors"), window(best, decay)
    assert all(torch.allclose(written[name], expected[name], atol=1e-7) for name in expected)
    assert report["search"] == {"strategy": "windows", "evaluations": 4, "orders": []}
    assert report["cost"]["examples"] == 4 * 200
    assert [(one["path"], list(one["scores"])) for one in report["ingredients"]][:2] == [
        ("run/checkpoint-1000", ["val"]),
        ("run/checkpoint-800", []),
    ]
    assert [one["path"] for one in report["left_out"]] == ["run/checkpoint-200"]
    assert report["best"]["path"] == "run/checkpoint-1000"


def test_plan_and_words(run: Path, soup: Soup) -> None:
    """--dry-run counts the evaluations, and the table calls the last checkpoint what it is."""
    words = ("greedy", "--ckpts", "run/*/", "--val", "val", "test", "--windows", "2,4")
    assert json.loads(soup(*words, "--dry-run", "--json").stdout)["evaluations"] == 3 + 2
    ran = soup(*words)
    assert "last checkpoint (run/checkpoint-1000)" in ran.stdout
    assert "best ingredient" not in ran.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--windows", "2,9"], "9 checkpoints are asked for, 5 are there"),
        (["--windows", "1"], "1 is the last checkpoint alone"),
        (["--windows", "0"], "expected more than 0"),
        (["--windows", "two"], "--windows"),
        (["--windows", ""], "--windows"),
        (["--windows", "2", "--strategy", "pruned"], "strategy: does not go with it"),
        (["--windows", "2", "--min-delta", "0.1"], "min_delta: does not go with it"),
        (["--windows", "2", "--decay", "quick"], "expected linear"),
        (["--windows", "2", "--scores", "s.jsonl"], "--scores s.jsonl is for a ranking"),
        (["--windows", "2,3", "--decay", "short.txt"], "has 1 multipliers, 3 checkpoints"),
        (["--decay", "linear"], "decay: is for windows:"),
        (["--windows", "2", "--ckpts", "other/checkpoint-1"], "are not of one run"),
    ],
)
def test_refused(run: Path, soup: Soup, words: list[str], message: str) -> None:
    """Windows that are not there, and settings that do not go with them, are errors with exit code 2."""
    Path("short.txt").write_text("0.5\n")
    shutil.copytree("run/checkpoint-200", "other/checkpoint-1")
    ran = soup("greedy", "--ckpts", "run/*/", "--val", "val", *words)
    assert ran.code == 2
    assert message in ran.stderr
