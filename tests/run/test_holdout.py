"""`--holdout`: what selects is not what is reported, through every command; and examples that sets share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from soupcli.datasets.holdout import split_by_class
from tests.conftest import Ran

Soup = Callable[..., Ran]
LEARNED = ["--set", "learned.steps=5"]


def run(soup: Soup, command: str, *words: str) -> Any:
    force = [] if command in ("rank", "eval") else ["--force"]
    ran = soup(command, "--ckpts", "runs/*/", "--json", *words, *force, *(LEARNED if command == "learned" else []))
    assert ran.code == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("command", ["rank", "greedy", "learned", "uniform"])
def test_parts(family: Path, soup: Soup, command: str) -> None:
    """The set becomes two, of which the first selects; both are scored as sets, and together are the whole."""
    report = run(soup, command, "--val", "val", "test", "--holdout", "0.4")
    assert report["sets"] == ["val[selecting]", "val[held out]", "test"]
    assert report["selecting_set"] == "val[selecting]"
    scored = report["soup"] or report["best"]
    scores = [scored["scores"][name]["accuracy"] for name in report["sets"][:2]]
    assert [score["n"] for score in scores] == [120, 80]
    assert report["warnings"] == []
    again = ["eval", "--ckpts", scored["path"], "--val", "val", "--json"]
    whole = json.loads(soup(*again).stdout)["best"]["scores"]["val"]["accuracy"]
    assert sum(round(score["value"] * score["n"]) for score in scores) == round(whole["value"] * 200)


def test_as_two_files(family: Path, soup: Soup) -> None:
    """The soup is the one that two files with the two parts give, with the same scores."""
    val = load_file("data/val.safetensors")
    kept, held_out = split_by_class(val["labels"], 0.5, seed=0)
    for name, part in (("a", kept), ("b", held_out)):
        save_file({key: tensor[part].clone() for key, tensor in val.items()}, f"data/{name}.safetensors")
    one = run(soup, "greedy", "--val", "val", "--holdout", "0.5", "--metric", "nll")
    other = run(soup, "greedy", "--val", "data/a.safetensors", "data/b.safetensors", "--metric", "nll")
    assert one["soup"]["members"] == other["soup"]["members"]
    scores = [[report["soup"]["scores"][name] for name in report["sets"]] for report in (one, other)]
    assert scores[0] == scores[1]


def test_one_decode(family: Path, soup: Soup) -> None:
    """What goes through the network is each part once, no example twice."""
    assert run(soup, "rank", "--val", "val", "--holdout", "0.5")["cost"]["examples"] == 5 * 200
    assert run(soup, "rank", "--val", "val", "--holdout", "0.5")["cost"]["examples"] == 0
    assert run(soup, "rank", "--val", "val", "--holdout", "0.25")["cost"]["examples"] == 5 * 200


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--val", "mine"], "--holdout: val.mine is a python set, which shows no examples to hold out"),
        (["--val", "val", "--holdout", "1"], "--holdout: expected less than 1.0, got 1.0"),
        (["--val", "val", "--holdout", "0.0001"], "--holdout: 0.0001 of 200 examples leaves one part empty"),
        ([], "soup greedy: needs --val"),
    ],
)
def test_refused(family: Path, soup: Soup, words: list[str], said: str) -> None:
    """What cannot be divided is said, with the set's name."""
    more = ["--set", "val.mine={python: 'mine.py:f'}", *(["--holdout", "0.5"] if "--holdout" not in words else [])]
    ran = soup("greedy", "--ckpts", "runs/*/", *words, *more)
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr.startswith(said), ran.stderr


def test_from_recipe_and_variable(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key holdout and SOUP_HOLDOUT do what the flag does."""
    assert "val[held out]" in run(soup, "rank", "--val", "val", "--set", "holdout=0.5")["sets"]
    monkeypatch.setenv("SOUP_HOLDOUT", "0.5")
    assert "val[held out]" in run(soup, "rank", "--val", "val")["sets"]


def test_gates_are_asked_of_the_part_that_did_not_select(family: Path, soup: Soup) -> None:
    """A gate on the set, and a required gain, are held against its held-out part; no candidate sees that part."""
    words = ["--val", "val", "--holdout", "0.5", "--set", "gates.val=>= best - 100", "--require-gain", "-100"]
    report = run(soup, "greedy", *words, "--set", "early_stop=false")
    assert [gate["set"] for gate in report["gates"]] == ["val[held out]"] * 2
    named = run(soup, "greedy", *words[:4], "--require-gain", "val=-100")
    assert [gate["set"] for gate in named["gates"]] == ["val[held out]"]
    assert sum(step["examples"] for step in report["steps"]) == 400
    assert report["cost"]["examples"] == (5 + 4) * 100 + 100


def test_written_again(family: Path, soup: Soup) -> None:
    """A soup of two parts is written again from its report, its statistics re-estimated from the same part."""
    layers = "nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 3)"
    Path("net.py").write_text(f"from torch import nn\n\ndef build():\n    return nn.Sequential({layers})\n")
    for number in range(3):
        torch.manual_seed(number)
        module = nn_module()
        save_file(module.state_dict(), f"runs/{number}/model.safetensors")
    words = ["--ckpts", "runs/[012]", "--val", "val", "--holdout", "0.5", "--set", "batch_norm=recalibrate"]
    assert soup("greedy", *words).code == 0
    ran = soup("mix", "soup/soup.json", "--out", "again", "--trust-code")
    assert ran.code == 0, ran.stderr
    assert Path("again/model.safetensors").read_bytes() == Path("soup/model.safetensors").read_bytes()


def nn_module() -> torch.nn.Module:
    """The network of the test above."""
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.BatchNorm1d(16), torch.nn.Linear(16, 3))


def test_shared_examples(family: Path, soup: Soup) -> None:
    """A set with examples of the selecting one is pointed out with their number, also where nothing is decoded."""
    val, test = load_file("data/val.safetensors"), load_file("data/test.safetensors")
    mixed = {key: torch.cat([test[key], val[key][:7]]) for key in val}
    save_file(mixed, "data/mixed.safetensors")
    words = ["--val", "val", "data/mixed.safetensors", "test"]
    first, second = run(soup, "greedy", *words), run(soup, "greedy", *words)
    assert second["cost"]["examples"] == 0
    for report in (first, second):
        assert report["shared_examples"] == {"data/mixed.safetensors": 7}
        assert report["warnings"] == [
            "data/mixed.safetensors shares 7 examples with val, which chose this soup: its score is too high as well"
        ]


def test_offered(family: Path, soup: Soup) -> None:
    """Where the selecting set is the only one, holding a part out is offered if it can be done."""
    [warning] = run(soup, "greedy", "--val", "val")["warnings"]
    assert "--holdout 0.5 chooses on one half of it and reports the other" in warning
    Path("mine.py").write_text("def f(model, device):\n    return {'accuracy': 0.5}\n")
    warnings = run(soup, "greedy", "--val", "mine", "--set", "val.mine={python: 'mine.py:f'}")["warnings"]
    assert not any("--holdout" in one for one in warnings) and any("--val mine OTHER" in one for one in warnings)
