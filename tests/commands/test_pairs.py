"""`soup pairs` on real ingredients, against dense vectors and torch alone."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from soupcli.figures.registry import KINDS
from soupcli.figures.reports import read
from tests.commands.test_landscape import accuracy, vector
from tests.conftest import Ran

Soup = Callable[..., Ran]
PATHS = [f"runs/{number}" for number in range(5)]


@pytest.fixture
def started(family: Path) -> Path:
    """The family with start/: a point that the runs surround, as their common start would be."""
    states = [load_file(f"{path}/model.safetensors") for path in PATHS]
    start = {name: 0.9 * torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    Path("start").mkdir()
    save_file(start, "start/model.safetensors")
    return family


def measured(soup: Soup, *words: str) -> dict[str, Any]:
    ran = soup("pairs", "--ckpts", "runs/*/", "--base", "start", "--val", "val", "test", "--json", *words)
    assert ran.code == 0, ran.stderr
    report: dict[str, Any] = json.loads(ran.stdout)
    return report


def test_against_dense_vectors(started: Path, soup: Soup) -> None:
    """Every pair's angle, the scores of its mean, and the gain over the better of the two on each set."""
    report = measured(soup)
    found = report["pairs"]
    assert (found["start"], found["possible"]) == ("start", 10)
    assert [tuple(pair["members"]) for pair in found["pairs"]] == list(itertools.combinations(PATHS, 2))
    start, names = vector(Path("start")), load_file("runs/0/model.safetensors")
    for pair in found["pairs"]:
        one, other = (vector(Path(path)) for path in pair["members"])
        cosine = torch.nn.functional.cosine_similarity(one - start, other - start, dim=0)
        assert pair["angle"] == pytest.approx(float(torch.rad2deg(cosine.acos())), abs=1e-5)
        assert [gain["set"] for gain in pair["gains"]] == ["val", "test"]
        for gain in pair["gains"]:
            name = gain["set"]
            mean = accuracy((one + other) / 2, names, name)
            better = max(accuracy(one, names, name), accuracy(other, names, name))
            score = pair["scores"][name]["accuracy"]
            assert score["value"] == pytest.approx(mean, abs=1.01 / score["n"])
            assert gain["difference"] == pytest.approx(score["value"] - better, abs=1e-12)
            assert gain["low"] <= gain["difference"] <= gain["high"]
    assert report["cost"]["examples"] == (5 + 10) * 500
    assert measured(soup)["cost"]["examples"] == 0


def test_drawn_pairs(started: Path, soup: Soup) -> None:
    """--pairs takes so many, by the seed, and says of how many."""
    report = measured(soup, "--pairs", "4", "--seed", "1")
    assert len(report["pairs"]["pairs"]) == 4 and report["cost"]["examples"] == (5 + 4) * 500
    ran = soup("pairs", "--ckpts", "runs/*/", "--base", "start", "--val", "val", "--pairs", "4", "--seed", "1")
    lines = ran.stdout.splitlines()
    assert lines[0].split() == ["pair", "angle", "gain", "on", "val"]
    assert lines[-1] == "4 pairs, drawn from 10 by seed 1: pairs.json"
    degrees = [float(line.split("°")[0].split()[-1]) for line in lines[1:5]]
    assert degrees == sorted(degrees)
    plan = soup("pairs", "--ckpts", "runs/*/", "--base", "start", "--val", "val", "--pairs", "4", "--dry-run", "--json")
    assert json.loads(plan.stdout)["evaluations"] == 9


def test_less_is_better(started: Path, soup: Soup) -> None:
    """Of a loss the better one has less; the figure shows what is better above the line."""
    report = measured(soup, "--metric", "nll", "--report", "nll.json")
    alone = {i["path"]: i["scores"]["test"]["nll"]["value"] for i in report["ingredients"]}
    for pair in report["pairs"]["pairs"]:
        gain = next(gain for gain in pair["gains"] if gain["set"] == "test")
        assert gain["best"] == min(pair["members"], key=alone.__getitem__) and gain["higher_is_better"] is False
    marks = KINDS["angles"](read([Path("nll.json")])).panels[1].marks
    gains = [next(g for g in pair["gains"] if g["set"] == "test") for pair in report["pairs"]["pairs"]]
    assert [mark.y for mark in marks] == [-gain["difference"] for gain in gains]


def test_is_drawn(started: Path, soup: Soup) -> None:
    """`soup plot` draws a dot for each pair, `soup report` has a row for each pair and set."""
    measured(soup)
    assert soup("plot", "pairs.json", "--kind", "angles", "--out", "a.svg").code == 0
    assert "gain in accuracy on test (points)" in Path("a.svg").read_text()
    assert soup("report", "pairs.json").code == 0
    assert Path("report.html").read_text().count(">runs/0 + runs/1</th>") == 2


def test_errors(started: Path, soup: Soup) -> None:
    """No start, one checkpoint, no set, a start of another network."""
    ran = soup("pairs", "--ckpts", "runs/*/", "--val", "val")
    assert ran.code == 2 and ran.stderr.startswith("soup pairs: needs --base")
    ran = soup("pairs", "--ckpts", "runs/0", "--base", "start", "--val", "val")
    assert ran.code == 2 and ran.stderr.startswith("--ckpts: one checkpoint, a pair needs two\n\nhint: name further")
    ran = soup("pairs", "--ckpts", "runs/*/", "--base", "start")
    assert ran.code == 2 and ran.stderr.startswith("soup pairs: needs --val")
    save_file({"0.weight": torch.zeros(2, 2)}, "start/model.safetensors")
    ran = soup("pairs", "--ckpts", "runs/*/", "--base", "start", "--val", "val")
    assert ran.code == 2 and "start" in ran.stderr
