"""Soups of networks with batch norm: both ways to make their statistics are evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from soupcli.checkpoints.open import open_checkpoint
from soupcli.mixing.mixture import Mixture
from soupcli.run.methods.batch_norm import recalibration_advice
from tests.conftest import Ran
from tests.evaluation.test_evaluators import write_normed_family

Soup = Callable[..., Ran]
WORDS = ("--ckpts", "runs/*/", "--val", "val", "--metric", "nll")


@pytest.fixture(autouse=True)
def family_with_batch_norm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_normed_family(tmp_path)
    monkeypatch.chdir(tmp_path)


def test_both_are_evaluated(soup: Soup) -> None:
    """The other way's scores are those that the soup made that way has; the sentence offers the flag that gains."""
    averaged = json.loads(soup("uniform", *WORDS, "--json").stdout)
    again = json.loads(soup("uniform", *WORDS, "--recalibrate", "--out", "again", "--json").stdout)
    assert again["recipe"]["batch_norm"] == "recalibrate"
    assert averaged["other_statistics"] == {"kind": "estimated again", "scores": again["soup"]["scores"]}
    assert again["other_statistics"] == {"kind": "averaged", "scores": averaged["soup"]["scores"]}
    gain = again["soup"]["scores"]["val"]["nll"]["value"] - averaged["soup"]["scores"]["val"]["nll"]["value"]
    shown = soup("uniform", *WORDS, "--force").stdout
    assert f"({gain:+.4f})" in shown and ("--recalibrate writes them" in shown) == (gain < 0)
    assert "the soup, batch norm estimated again" in shown


def test_an_ingredient_is_as_its_file(soup: Soup) -> None:
    """With --recalibrate the best ingredient has the score of its file, and a soup of one is its file."""
    alone = json.loads(soup("rank", *WORDS, "--json").stdout)
    report = json.loads(soup("greedy", *WORDS, "--recalibrate", "--json").stdout)
    assert report["best"]["scores"] == alone["ingredients"][0]["scores"]
    assert report["steps"][0]["score"] == alone["ingredients"][0]["scores"]["val"]["nll"]["value"]
    one = json.loads(soup("uniform", "--ckpts", "runs/0", *WORDS[2:], "--recalibrate", "--out", "one", "--json").stdout)
    assert one["other_statistics"] is None
    own, written = load_file("runs/0/model.safetensors"), load_file("one/model.safetensors")
    assert all(torch.equal(own[name], written[name]) for name in own)


def test_inputs_unlike_those_of_training(soup: Soup) -> None:
    """Inputs that statistics were not made from are warned of, and --recalibrate is not advised to hide it."""
    torch.manual_seed(0)
    head = nn.Linear(16, 3)
    net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16, momentum=None), nn.ReLU(), nn.Dropout(0.5), head)
    inputs = torch.randn(200, 8)
    net(inputs)
    labels = net.eval()(inputs).argmax(dim=1)
    for number in range(2):
        head.bias.data += 0.001 * number
        save_file(net.state_dict(), f"runs/{number}/model.safetensors")
    for shift, warned in ((50.0, True), (0.0, False)):
        save_file({"inputs": inputs + shift, "labels": labels}, "val.safetensors")
        ran = soup("greedy", "--ckpts", "runs/0", "runs/1", "--val", "val", "--force")
        assert ("the inputs go in otherwise than in training: look at how they are prepared" in ran.stderr) == warned
        assert "--recalibrate writes them" not in ran.stdout


def test_the_report_advises(soup: Soup) -> None:
    """What is advised is among the report's warnings."""
    report = json.loads(soup("greedy", *WORDS[:4], "--min-delta", "0.9", "--json").stdout)
    assert len(report["soup"]["members"]) == 1
    assert any("--recalibrate estimates them again for each mean" in one for one in report["warnings"])


@pytest.mark.parametrize(
    ("runs", "selects", "batch_norm", "told"),
    [
        ((0,), True, "average", True),
        ((0,), True, "recalibrate", False),
        ((0,), False, "average", False),
        ((0, 1), True, "average", False),
    ],
)
def test_no_mean_is_kept(runs: tuple[int, ...], selects: bool, batch_norm: str, told: bool) -> None:
    """A search that keeps one network has seen no mean with statistics of its own, and says so."""
    opened = [open_checkpoint(Path(f"runs/{number}")) for number in range(2)]
    run: Any = SimpleNamespace(
        resolved=SimpleNamespace(selects=selects),
        recipe=SimpleNamespace(batch_norm=batch_norm),
        checkpoints=opened,
        sets={},
    )
    said = recalibration_advice(run, Mixture.uniform([opened[number] for number in runs]))
    assert ["no mean was better than one ingredient" in one for one in said] == [True] * told


def test_needs_inputs(soup: Soup) -> None:
    """Without a set there is nothing to estimate from, which is said."""
    ran = soup("uniform", "--ckpts", "runs/*/", "--recalibrate")
    assert (ran.code, ran.stderr.splitlines()[0]) == (2, "--recalibrate: needs --val")


@pytest.mark.parametrize("command", ["uniform", "greedy"])
def test_planned(soup: Soup, command: str) -> None:
    """--dry-run counts the evaluation of the other way."""
    plan = json.loads(soup(command, *WORDS, "--dry-run", "--json").stdout)
    assert plan["evaluations"] == {"uniform": 1, "greedy": 5}[command] + 1
