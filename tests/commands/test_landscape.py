"""`soup landscape` on real ingredients, against dense vectors and torch alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from soupcli.evaluation.evaluators import Evaluators
from tests.conftest import Ran, build_net
from tests.helpers import greedy_reference as reference
from tests.soups.test_plane import basis

Soup = Callable[..., Ran]
CKPTS = ("--ckpts", "runs/0", "runs/2", "runs/4")


def vector(folder: Path) -> Tensor:
    """All weights of a checkpoint in one row."""
    return nn.utils.parameters_to_vector(load_file(folder / "model.safetensors").values()).double()


def accuracy(weights: Tensor, names: dict[str, Tensor], name: str) -> float:
    """Of the network with weights from one row, by torch alone."""
    data, net, at = load_file(f"data/{name}.safetensors"), build_net(), 0
    state = {}
    for key, tensor in names.items():
        state[key] = weights[at : at + tensor.numel()].view(tensor.shape).float()
        at += tensor.numel()
    net.load_state_dict(state)
    with torch.no_grad():
        return reference.accuracy(net(data["inputs"]), data["labels"])


def measured(soup: Soup, *words: str) -> dict[str, Any]:
    ran = soup("landscape", *CKPTS, "--val", "val", "test", "--grid", "4", "--json", *words)
    assert ran.code == 0, ran.stderr
    report: dict[str, Any] = json.loads(ran.stdout)
    assert json.loads(Path("landscape.json").read_text()) == report
    return report


def test_against_dense_vectors(family: Path, soup: Soup) -> None:
    """Corners, and every point of the grid on both sets, are those of the plane's own basis."""
    report = measured(soup)
    found = report["landscape"]
    points = torch.stack([vector(Path(path)) for path in CKPTS[1:]])
    names = load_file("runs/0/model.safetensors")
    u, v = basis(points)
    assert found["members"] == ["runs/0", "runs/2", "runs/4"]
    for corner, point in zip(found["corners"], points, strict=True):
        assert corner["x"] == pytest.approx(float((point - points[0]) @ u), abs=1e-9)
        assert corner["y"] == pytest.approx(float((point - points[0]) @ v), abs=1e-9)
        assert corner["scores"]["test"]["accuracy"]["value"] == accuracy(point, names, "test")
    assert [(p["x"], p["y"]) for p in found["grid"]] == [(x, y) for y in found["rows"] for x in found["columns"]]
    for place in [*found["grid"], found["mean"]]:
        assert math.fsum(place["weights"]) == pytest.approx(1.0, abs=1e-15)
        there = points[0] + place["x"] * u + place["y"] * v
        for name in ("val", "test"):
            score = place["scores"][name]["accuracy"]
            assert score["value"] == pytest.approx(accuracy(there, names, name), abs=1.01 / score["n"])
    assert min(place["weights"][0] for place in found["grid"]) < 0
    assert [i["scores"]["val"] for i in report["ingredients"]] == [c["scores"]["val"] for c in found["corners"]]


def test_goes_on(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted run keeps every point, and the same command evaluates the rest alone; the report is the same."""
    whole = measured(soup, "--fresh")
    monkeypatch.setenv("SOUP_CACHE", str(family / "another-cache"))
    measure = Evaluators._measure
    done: list[tuple[Any, ...]] = []

    def stopping(self: Evaluators, *args: Any) -> Any:
        if len(done) == 17:
            raise KeyboardInterrupt
        done.append(args)
        return measure(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluators, "_measure", stopping)
        Path("landscape.json").unlink()
        ran = soup("landscape", *CKPTS, "--val", "val", "test", "--grid", "4")
        assert ran.code == 130 and not Path("landscape.json").exists()
        assert "the same command goes on from there" in ran.stderr
    again = measured(soup)
    assert again["landscape"] == whole["landscape"]
    examples = whole["cost"]["examples"]
    assert examples == 20 * (200 + 300)
    assert again["cost"]["examples"] == examples - sum(200 if name == "val" else 300 for name, *_ in done)
    assert measured(soup)["cost"]["examples"] == 0


def test_corners_are_those_of_the_ranking(family: Path, soup: Soup) -> None:
    """What `soup rank` and `soup uniform` evaluated is not evaluated again."""
    soup("rank", *CKPTS, "--val", "val", "test")
    soup("uniform", *CKPTS, "--val", "val", "test")
    assert measured(soup)["cost"]["examples"] == 16 * 500


def test_what_people_see(family: Path, soup: Soup) -> None:
    """A table of corners and mean, one line of progress for each point; a plan with --dry-run; the report's path."""
    ran = soup("landscape", *CKPTS, "--val", "val", "--grid", "3", "--margin", "0.1", "--report", "a.json")
    lines = ran.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "weights",
        "runs/0",
        "runs/2",
        "runs/4",
        "their mean",
        "",
        "9 points of the plane: a.json",
    ]
    assert len([line for line in ran.stderr.splitlines() if line.startswith("landscape ")]) == 12
    assert soup("landscape", *CKPTS, "--val", "val", "--grid", "3", "--quiet").stdout == "landscape.json\n"
    plan = json.loads(soup("landscape", *CKPTS, "--val", "val", "test", "--dry-run", "--json").stdout)
    assert plan["evaluations"] == 2 * (121 + 4)


def test_is_drawn(family: Path, soup: Soup) -> None:
    """`soup plot` and `soup report` draw it, a soup of the same checkpoints where it lies."""
    measured(soup)
    assert soup("greedy", *CKPTS, "--val", "val", "test").code == 0
    ran = soup("plot", "landscape.json", "soup", "--kind", "landscape", "--out", "l.svg")
    assert ran.code == 0, ran.stderr
    text = Path("l.svg").read_text()
    assert 'class="mean"' in text and 'class="greedy"' in text and "A: runs/0" in text
    assert soup("report", "landscape.json").code == 0
    assert "The plane through three checkpoints" in Path("report.html").read_text()


def test_tensors_that_are_not_mixed(family: Path, soup: Soup) -> None:
    """With --exclude the plane is that of the others: every corner has the first checkpoint's head."""
    found = measured(soup, "--exclude", "2.*")["landscape"]
    names, points = load_file("runs/0/model.safetensors"), [vector(Path(path)) for path in CKPTS[1:]]
    head = sum(tensor.numel() for name, tensor in names.items() if name.startswith("2."))
    assert list(names)[-1].startswith("2.")
    for point in points[1:]:
        point[-head:] = points[0][-head:]
    assert found["corners"][1]["x"] == pytest.approx(float((points[1] - points[0]).norm()), abs=1e-9)
    for corner, point in zip(found["corners"], points, strict=True):
        assert corner["scores"]["test"]["accuracy"]["value"] == accuracy(point, names, "test")


def test_errors(family: Path, soup: Soup) -> None:
    """Other than three checkpoints, three on one line, no set: one line and what to do."""
    ran = soup("landscape", "--ckpts", "runs/0", "runs/1", "--val", "val")
    assert ran.code == 2 and ran.stderr.startswith("--ckpts: 2 checkpoints, a plane goes through three\n\nhint: ")
    ran = soup("landscape", *CKPTS)
    assert ran.code == 2 and ran.stderr.startswith("soup landscape: needs --val")
    states = [load_file(f"runs/{number}/model.safetensors") for number in (0, 1)]
    Path("runs/middle").mkdir()
    middle = {name: (tensor + states[1][name]) / 2 for name, tensor in states[0].items()}
    save_file(middle, "runs/middle/model.safetensors")
    ran = soup("landscape", "--ckpts", "runs/0", "runs/1", "runs/middle", "--val", "val")
    assert ran.code == 2
    assert ran.stderr.startswith("runs/0, runs/1 and runs/middle lie on one line: no plane goes through them\n\nhint: ")
    save_file({name: torch.full_like(t, math.nan) for name, t in middle.items()}, "runs/middle/model.safetensors")
    ran = soup("landscape", "--ckpts", "runs/0", "runs/1", "runs/middle", "--val", "val")
    assert ran.code == 2 and "runs/middle" in ran.stderr and "nan" in ran.stderr
    assert not Path("landscape.json").exists()


def test_corners_in_the_order_of_the_words(family: Path, soup: Soup) -> None:
    """The first word is the origin, wherever its path sorts; a glob keeps the order of paths."""
    words = ["--val", "val", "--grid", "2", "--json"]
    report = json.loads(soup("landscape", "--ckpts", "runs/4", "runs/0", "runs/2", *words).stdout)
    assert report["landscape"]["members"] == ["runs/4", "runs/0", "runs/2"]
    report = json.loads(soup("landscape", "--ckpts", "runs/[024]", *words).stdout)
    assert report["landscape"]["members"] == ["runs/0", "runs/2", "runs/4"]
