"""`soup learned`: coefficients fitted on the first set, an ordinary soup written, a report that writes it again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from soupcli.soups.learned import fit as fitting
from soupcli.soups.learned.choice import KEPT
from tests.conftest import Ran, build_net

Soup = Callable[..., Ran]
BEGIN = ("learned", "--ckpts", "runs/*/", "--val", "val", "test")
STEPS = ("--set", "learned.steps=20", "learned.lr=0.3", "learned.folds=1")
WEIGHTS = Path("soup/model.safetensors")


def cook(soup: Soup, *words: str) -> dict[str, Any]:
    ran = soup(*BEGIN, "--json", "--force", *STEPS, *words)
    assert ran.code == 0, ran.stderr
    report: dict[str, Any] = json.loads(ran.stdout)
    return report


def test_report(family: Path, soup: Soup) -> None:
    """Coefficients by layer, the temperature, both curves and the kept step; soup.json says the same."""
    report = cook(soup)
    layers = report["soup"]["coefficients"]
    assert layers["layers"] == ["0", "2"]
    assert sorted(layers["members"]) == [f"runs/{number}" for number in range(5)]
    assert layers["members"] == report["soup"]["members"]
    assert all(sum(row) == 1.0 and min(row) >= 0 for row in layers["alpha"])
    fit = report["learned"]
    assert fit["steps"][0] == 0 and fit["steps"][-1] == 20
    assert len(fit["steps"]) == len(fit["fitted"]) == len(fit["held_out"])
    assert (fit["kept_step"] > 0) == (fit["gain"] > KEPT * fit["gain_stderr"])
    assert fit["gain"] == pytest.approx(fit["held_out"][0] - min(fit["held_out"]), abs=1e-12)
    assert (fit["fitted_examples"], fit["held_out_examples"], fit["resident"]) == (160, 40, "device")
    assert fit["beta"] > 0
    assert json.loads(Path("soup/soup.json").read_text()) == report


def test_written_soup_is_the_fitted_one(family: Path, soup: Soup) -> None:
    """Each tensor is the sum over members by its layer's coefficients, and scores as the report says."""
    report = cook(soup, "--constraint", "affine")
    layers = report["soup"]["coefficients"]
    members = [load_file(f"{path}/model.safetensors") for path in layers["members"]]
    written = load_file(WEIGHTS)
    for row, names in zip(layers["alpha"], layers["tensors"], strict=True):
        for name in names:
            exact = sum(weight * member[name].double() for weight, member in zip(row, members, strict=True))
            torch.testing.assert_close(written[name].double(), exact, rtol=1e-7, atol=1e-8)
    net, data = build_net(), load_file("data/test.safetensors")
    net.load_state_dict(written)
    right = int((net(data["inputs"]).argmax(dim=1) == data["labels"]).sum())
    assert report["soup"]["scores"]["test"]["accuracy"]["value"] == right / len(data["labels"])


@pytest.mark.parametrize("per", ["model", "layer", "tensor"])
@pytest.mark.parametrize("constraint", ["simplex", "affine"])
def test_mix_writes_it_again(family: Path, soup: Soup, per: str, constraint: str) -> None:
    """`soup mix soup.json` gives the same bytes, from the ingredients and the report alone."""
    cook(soup, "--per", per, "--constraint", constraint, "--set", "learned.fold_temperature=true")
    again = soup("mix", "soup/soup.json", "--out", "again", "--quiet")
    assert (again.code, again.stdout) == (0, "again/model.safetensors\n"), again.stderr
    assert Path("again/model.safetensors").read_bytes() == WEIGHTS.read_bytes()


def test_resident(family: Path, soup: Soup) -> None:
    """Wherever the ingredients live, the same bytes; where that is, is said."""
    bytes_by_place = {}
    for place, said in {
        "device": "in memory",
        "host": "in host memory",
        "disk": "on disk",
    }.items():
        ran = soup(*BEGIN, "--force", "--fresh", *STEPS, "--resident", place)
        assert ran.code == 0, ran.stderr
        assert f"keeping 5 ingredients {said}: " in ran.stderr
        bytes_by_place[place] = WEIGHTS.read_bytes()
    assert len(set(bytes_by_place.values())) == 1


def test_interrupted(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a fit ends with 130; the same command goes on from the last round, to the same bytes."""
    cook(soup, "--out", "whole")
    measure = fitting.Fit.measure

    def interrupted(self: Any, *losses: Any) -> None:
        measure(self, *losses)
        if len(self.rounds) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fitting.Fit, "measure", interrupted)
        assert soup(*BEGIN, "--force", "--fresh", *STEPS).code == 130
    assert not WEIGHTS.exists()
    steps: list[int] = []
    batch = fitting.Fit.batch

    def noted(self: Any, step: int) -> Any:
        steps.append(step)
        return batch(self, step)

    monkeypatch.setattr(fitting.Fit, "batch", noted)
    report = cook(soup)
    assert steps and min(steps) == report["learned"]["steps"][3]
    assert WEIGHTS.read_bytes() == Path("whole/model.safetensors").read_bytes()
    steps.clear()
    assert cook(soup)["learned"] == report["learned"]
    assert not steps


def test_what_determines_a_fit(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept fit is not taken for other settings or another set."""
    steps: list[int] = []
    batch = fitting.Fit.batch

    def noted(self: Any, step: int) -> Any:
        steps.append(step)
        return batch(self, step)

    monkeypatch.setattr(fitting.Fit, "batch", noted)

    def fitted(*words: str) -> int:
        steps.clear()
        cook(soup, *words)
        return len(steps)

    assert fitted() == 20
    assert fitted("--resident", "disk") == 0
    assert fitted("--per", "model") == 20
    data = load_file("data/val.safetensors")
    save_file({**data, "labels": data["labels"].flip(0)}, "data/val.safetensors")
    assert fitted() == 20
    assert fitted("--fresh") == 20


def test_folds(family: Path, soup: Soup) -> None:
    """200 examples hold out 40, too few to choose by: they are divided into five folds, each held out once."""
    ran = soup(*BEGIN, "--json", "--set", "learned.steps=4", "learned.lr=0.3")
    assert ran.code == 0, ran.stderr
    fit = json.loads(ran.stdout)["learned"]
    assert (fit["folds"], fit["fitted_examples"], fit["held_out_examples"]) == (5, 160, 200)
    assert fit["steps"] == [0, 1, 2, 3, 4]
    assert soup(*BEGIN, "--set", "learned.folds=300").code == 2


def test_starts_from_greedy(family: Path, soup: Soup) -> None:
    """`learned.start: greedy` begins where the greedy soup ends: the first held-out loss is that soup's."""
    greedy = json.loads(soup("greedy", "--ckpts", "runs/*/", "--val", "val", "--json", "--out", "g").stdout)
    assert 1 <= len(greedy["soup"]["members"]) < 5
    report = cook(soup, "learned.start=greedy")
    uniform = cook(soup)
    assert report["learned"]["held_out"][0] != uniform["learned"]["held_out"][0]
    only = cook(soup, "learned.start=greedy", "learned.steps=1", "learned.lr=1e-300", "--constraint", "affine")
    assert sorted(only["soup"]["members"]) == sorted(greedy["soup"]["members"])
    assert only["soup"]["hash"] != ""
    assert load_file(WEIGHTS).keys() == load_file("g/model.safetensors").keys()
    assert all(torch.equal(t, load_file("g/model.safetensors")[n]) for n, t in load_file(WEIGHTS).items())


def test_warns(family: Path, soup: Soup) -> None:
    """If the held-out part does not surely gain: a warning, with --quiet too, and in the report."""
    ran = soup(*BEGIN, "--quiet", *STEPS)
    assert (ran.code, ran.stdout) == (0, f"{WEIGHTS}\n"), ran.stderr
    (warning,) = json.loads(Path("soup/soup.json").read_text())["learned"]["warnings"]
    assert ran.stderr == f"warning: {warning}\n"
    assert "on the 40 held-out examples, maybe by chance: the start was kept" in warning


def test_curves(family: Path, soup: Soup) -> None:
    """Without a terminal a line a round, then both curves drawn."""
    ran = soup(*BEGIN, *STEPS)
    lines = ran.stderr.splitlines()
    assert [line for line in lines if line.startswith("fitting 2/20: fitted 0.")]
    drawn = [line for line in lines if line.startswith(("fitted   ", "held out "))]
    assert len(drawn) == 2
    assert all(set(line[9:].split()[0]) <= set("▁▂▃▄▅▆▇█") for line in drawn)


def test_dry_run(family: Path, soup: Soup) -> None:
    """The plan writes nothing and fits nothing."""
    ran = soup(*BEGIN, "--dry-run", "--json")
    assert ran.code == 0, ran.stderr
    assert json.loads(ran.stdout)["evaluations"] == 5 + 2 + 1
    assert not Path("soup").exists()


REFUSED: dict[str, tuple[list[str], str]] = {
    "python set": (["--set", "val.test={python: 'net.py:build'}", "--val", "test"], "which a python set does not show"),
    "per": (["--per", "block"], "--per: expected 'model', 'layer' or 'tensor', got 'block'"),
    "holdout": (["--set", "learned.holdout=0.001"], "learned.holdout: 0.001 of 200 examples leaves one part empty"),
    "typo": (["--set", "learned.step=3"], "did you mean 'steps'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(family: Path, soup: Soup, case: str) -> None:
    """Exit code 2 and one line that names the key or the set."""
    words, message = REFUSED[case]
    ran = soup("learned", "--ckpts", "runs/*/", *(words if "--val" in words else ["--val", "val", *words]))
    assert ran.code == 2
    assert message in ran.stderr
    assert not Path("soup").exists()


def test_uncovered_parameters(family: Path, soup: Soup) -> None:
    """An ingredient without one of the network's parameters is refused by name."""
    for run in Path("runs").iterdir():
        state = load_file(run / "model.safetensors")
        del state["2.bias"]
        save_file(state, run / "model.safetensors")
    ran = soup(*BEGIN)
    assert ran.code == 2
    assert "has no tensor '2.bias', which the network Sequential needs" in ran.stderr


def test_gradient_that_is_not_finite(family: Path, soup: Soup) -> None:
    """A gradient that is NaN where the loss is a number ends the run with the tensor's name, layer and what to do."""
    Path("net.py").write_text(
        """
from torch import nn

class Net(nn.Sequential):
    def forward(self, x):
        zero = (self[2].bias - self[2].bias.detach()).abs().sqrt().sum()  # its derivative is NaN
        return super().forward(x) + zero

def build(width=16):
    return Net(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 3))
"""
    )
    ran = soup(*BEGIN, *STEPS)
    assert ran.code == 2, ran.stderr
    assert "tensor '2.bias' (layer 2): its gradient is not finite" in ran.stderr
    assert "hint: a smaller learned.lr" in ran.stderr
    assert not Path("soup").exists()


def test_same_ingredients(family: Path, soup: Soup) -> None:
    """Copies of one ingredient give that ingredient."""
    for number in range(1, 5):
        shutil.copy("runs/0/model.safetensors", f"runs/{number}/model.safetensors")
    cook(soup)
    one = load_file("runs/0/model.safetensors")
    assert all(torch.equal(tensor, one[name]) for name, tensor in load_file(WEIGHTS).items())
