"""Every search, ensemble and published score on real fine-tuned networks: the digits family, against plain loops."""

from __future__ import annotations

import functools
import json
import runpy
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from soupcli.demo import digits
from tests.conftest import Ran
from tests.helpers import greedy_reference as reference
from tests.helpers.outcomes import recipe_1
from tests.helpers.soups_by_hand import pruned_by_hand, replaced_by_hand

Soup = Callable[..., Ran]
SIZE = digits.DigitsSize(runs=5, pretraining_epochs=2, epochs=(1, 2))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five networks, fine-tuned from one start on pictures of digits."""
    folder = tmp_path_factory.mktemp("digits")
    digits.make(folder, size=SIZE)
    return folder


class Family:
    """What torch alone says of mixtures of the family on its validation set."""

    def __init__(self) -> None:
        data = load_file("data/val.safetensors")
        self.inputs, self.labels = data["inputs"], data["labels"]
        self.network = runpy.run_path("network.py")["build"]().eval()
        self.states = {str(run): load_file(next(run.glob("*.safetensors"))) for run in sorted(Path("runs").iterdir())}

    def logits(self, state: dict[str, Tensor]) -> Tensor:
        self.network.load_state_dict(state)
        with torch.no_grad():
            logits: Tensor = self.network(self.inputs)
        return logits

    @functools.cached_property
    def alone(self) -> dict[str, Tensor]:
        """Each network's logits."""
        return {name: self.logits(state).double() for name, state in self.states.items()}

    def soup(self, members: frozenset[str]) -> float:
        """Accuracy of the mean of the weights; `path=share` weighs a member."""
        shares = {name: Fraction(share or f"1/{len(members)}") for name, _, share in map(_split, members)}
        one = next(iter(self.states.values()))
        mean = {n: sum(float(w) * self.states[m][n].double() for m, w in shares.items()).to(one[n].dtype) for n in one}  # type: ignore[union-attr]
        return reference.accuracy(self.logits(mean), self.labels)

    def ensemble(self, members: frozenset[str]) -> float:
        """Accuracy of the mean of the logits."""
        return reference.accuracy(torch.stack([self.alone[name] for name in members]).mean(0), self.labels)


def _split(member: str) -> tuple[str, str, str]:
    name, equals, share = member.rpartition("=")
    return (name, equals, share) if (equals and "/" in share) or share == "1" else (member, "", "")


def cook(soup: Soup, out: Path, *words: str) -> dict[str, Any]:
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "--json", "--out", str(out), *words)
    assert ran.code == 0, ran.stderr
    report: dict[str, Any] = json.loads(ran.stdout)
    return report


@pytest.fixture
def family(made: Path, monkeypatch: pytest.MonkeyPatch) -> Family:
    """The family, and the working folder in it."""
    monkeypatch.chdir(made)
    return Family()


def test_pruned(family: Family, soup: Soup, tmp_path: Path) -> None:
    """Members are those of plain passes over the mean of all, with both rules."""
    for accept in (">=", ">"):
        report = cook(soup, tmp_path / accept, "--strategy", "pruned", "--set", f"greedy.accept='{accept}'")
        names = [ingredient["path"] for ingredient in report["ingredients"]]
        expected = pruned_by_hand(names, family.soup, accept, 0.0)
        assert report["soup"]["members"] == expected
        assert report["soup"]["scores"]["val"]["accuracy"]["value"] == family.soup(frozenset(expected))


def test_replacement(family: Family, soup: Soup, tmp_path: Path) -> None:
    """Weights are those of plain ensemble selection on weights."""
    report = cook(soup, tmp_path / "soup", "--strategy", "replacement", "--set", "greedy.rounds=4")
    expected = replaced_by_hand(list(family.states), family.soup, 0.0, 4)
    weights = zip(report["soup"]["members"], report["soup"]["weights"], strict=True)
    assert {member: Fraction(weight).limit_denominator(100) for member, weight in weights} == expected


def test_orders(family: Family, soup: Soup, tmp_path: Path) -> None:
    """Each order gives what a plain loop over it gives, and the best is the soup."""
    report = cook(soup, tmp_path / "soup", "--orders", "4", "--set", "greedy.seed=1")
    scores = []
    for order in report["search"]["orders"]:
        members = order["order"][:1]
        for name in order["order"][1:]:
            if family.soup(frozenset([*members, name])) >= family.soup(frozenset(members)):
                members = [*members, name]
        assert order["members"] == members
        assert order["score"] == family.soup(frozenset(members))
        scores.append(order["score"])
    assert report["soup"]["scores"]["val"]["accuracy"]["value"] == max(scores)


def test_ensembles_and_a_budget(family: Family, soup: Soup, tmp_path: Path) -> None:
    """The greedy ensemble is Recipe 1 on outputs; the budget goes to the soups whose ensembles score best."""
    words = ("--logits", str(tmp_path / "logits"))
    report = cook(soup, tmp_path / "soup", *words, "--strategy", "budgeted", "--budget", "5")
    names = list(family.states)
    assert report["ensemble"]["scores"]["val"]["accuracy"]["value"] == family.ensemble(frozenset(names))
    greedy = recipe_1(names, family.ensemble, higher=True, accept=">=", min_delta=0.0)
    assert report["greedy_ensemble"]["members"] == greedy
    tried = [frozenset(step["members"]) for step in report["steps"]]
    foreseen = [family.ensemble(members) for members in tried[1:]]
    assert foreseen == sorted(foreseen, reverse=True) and len(tried) == 6
    assert report["soup"]["scores"]["val"]["accuracy"]["value"] == max(family.soup(members) for members in tried)


def test_published_scores(family: Family, soup: Soup, tmp_path: Path) -> None:
    """A file that says what is measured gives the soup that measuring gives, without the ranking's forward passes."""
    lines = [{"model_name": Path(n).name, "Val": family.soup(frozenset([n]))} for n in family.states]
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    published = cook(soup, tmp_path / "a", "--scores", str(tmp_path / "scores.jsonl"))
    measured = cook(soup, tmp_path / "b", "--fresh")
    assert published["soup"]["hash"] == measured["soup"]["hash"]
    assert published["cost"]["examples"] < measured["cost"]["examples"]
