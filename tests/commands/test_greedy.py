"""`soup greedy` against the paper's recipe: the same ranking, decisions, members, scores and tensors, bit for bit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import Ran, build_net, write_family
from tests.helpers import greedy_reference as reference

Soup = Callable[..., Ran]
SEEDS = (1, 4)
METRICS: dict[str, Callable[..., float]] = {"accuracy": reference.accuracy, "nll": reference.nll}


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family for each seed, and one in which ingredients are doubled and scores tie."""
    base = tmp_path_factory.mktemp("families")
    for seed in SEEDS:
        write_family(base / str(seed), members=7, seed=seed)
    shutil.copytree(base / "1", base / "ties")
    for number, other in enumerate((3, 0, 3), 7):
        shutil.copytree(base / f"ties/runs/{other}", base / f"ties/runs/{number}")
        twin = load_file(base / f"ties/runs/{number}/model.safetensors")
        twin["0.bias"][0] *= 1 + number * 2**-23  # another network, with the same outcomes: copies count once
        save_file(twin, base / f"ties/runs/{number}/model.safetensors")
    return base


def states(folder: Path) -> dict[str, reference.State]:
    """The state dict of each ingredient by its path as the command line gives it."""
    return {f"runs/{run.name}": load_file(run / "model.safetensors") for run in sorted(folder.glob("runs/*"))}


def scorer(folder: Path, name: str, metric: str) -> Callable[[reference.State], float]:
    """A state dict's score on a set, with torch alone."""
    data, net = load_file(folder / f"data/{name}.safetensors"), build_net()

    def score(state: reference.State) -> float:
        net.load_state_dict(state)
        with torch.no_grad():
            return METRICS[metric](net(data["inputs"]), data["labels"])

    return score


def cook(soup: Soup, *words: str) -> dict[str, Any]:
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "test", "--json", "--force", *words)
    assert ran.code == 0, ran.stderr
    report: dict[str, Any] = json.loads(ran.stdout)
    return report


def exactly(value: float) -> Any:
    """Scores are counts divided once; a sum of logarithms agrees to its own rounding."""
    return pytest.approx(value, rel=1e-12, abs=0)


def assert_step(step: dict[str, Any], score: float, n: int, *, higher: bool) -> None:
    """The step has the score, or says that it was given up: no score, what was in reach, and after how many."""
    if step["score"] is not None:
        assert (step["score"], step["bound"]) == (exactly(score), None)
        return
    assert not step["accepted"]
    told = re.fullmatch(r"out of reach after (\d+) of (\d+)", step["reason"])
    assert told is not None
    assert int(told[1]) < int(told[2]) == n
    assert step["examples"] in (int(told[1]), 0)  # 0: twins of ingredients have known scores
    sign = 1 if higher else -1
    assert sign * score <= sign * step["bound"] <= sign * step["threshold"]


@pytest.mark.parametrize("family_name", [*map(str, SEEDS), "ties"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"accept": ">"}, {"min_delta": 0.005}, {"metric": "nll"}, {"metric": "nll", "accept": ">", "min_delta": 1e-4}],
    ids=str,
)
def test_equals_recipe_1(
    trained: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, family_name: str, settings: Any
) -> None:
    """The report's ranking, steps, members and scores, and the tensors written, are those of the reference."""
    folder = trained / family_name
    monkeypatch.chdir(folder)
    metric = settings.get("metric", "accuracy")
    rules = {key: value for key, value in settings.items() if key != "metric"}
    on_val, on_test = (scorer(folder, name, metric) for name in ("val", "test"))
    expected = reference.recipe_1(states(folder), on_val, higher=metric != "nll", **rules)
    words = [f"greedy.{key}={value}" for key, value in rules.items()]
    report = cook(soup, "--metric", metric, "--out", str(tmp_path / "soup"), *(["--set", *words] if words else []))

    ranking = [(i["path"], i["scores"]["val"][metric]["value"]) for i in report["ingredients"]]
    assert ranking == [(path, exactly(score)) for path, score in expected.ranking]
    steps = [(s["candidate"], s["threshold"], s["accepted"]) for s in report["steps"]]
    assert steps == [
        (path, None if threshold is None else exactly(threshold), accepted)
        for path, _, threshold, accepted in expected.steps
    ]
    for step, (_, score, _, _) in zip(report["steps"], expected.steps, strict=True):
        assert_step(step, score, 200, higher=metric != "nll")
    assert report["soup"]["members"] == expected.members
    assert report["soup"]["weights"] == [1 / len(expected.members)] * len(expected.members)
    assert report["best"]["path"] == expected.members[0]
    for name, score_on in (("val", on_val), ("test", on_test)):
        assert report["soup"]["scores"][name][metric]["value"] == exactly(score_on(expected.state))
        assert report["best"]["scores"][name][metric]["value"] == exactly(score_on(states(folder)[expected.members[0]]))

    written = load_file(tmp_path / "soup/model.safetensors")
    assert sorted(written) == sorted(expected.state)
    assert all(torch.equal(written[name], tensor) for name, tensor in expected.state.items())


def test_families_decide_both_ways(trained: Path) -> None:
    """The families above are no formality: with each something is kept, with some something is left out."""
    members = {
        name: len(reference.recipe_1(states(trained / name), scorer(trained / name, "val", "accuracy")).members)
        for name in (*map(str, SEEDS), "ties")
    }
    assert max(members.values()) > 2 and min(members.values()) < 7
    tied = reference.recipe_1(states(trained / "ties"), scorer(trained / "ties", "val", "accuracy"))
    strict = reference.recipe_1(states(trained / "ties"), scorer(trained / "ties", "val", "accuracy"), accept=">")
    assert {"equal" for _, score, threshold, accepted in tied.steps if score == threshold and accepted}
    assert tied.members != strict.members


def test_uniform_over_the_members(trained: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`soup uniform` over greedy's members, in any order, writes the same tensors and bytes."""
    monkeypatch.chdir(trained / "1")
    members = cook(soup, "--out", str(tmp_path / "soup"))["soup"]["members"]
    assert 2 < len(members) < 7
    ran = soup("uniform", "--ckpts", *reversed(members), "--out", str(tmp_path / "mean"), "--quiet")
    assert (ran.code, ran.stdout) == (0, f"{tmp_path}/mean/model.safetensors\n")
    assert (tmp_path / "mean/model.safetensors").read_bytes() == (tmp_path / "soup/model.safetensors").read_bytes()


def test_the_same_bytes_again(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running twice, the second time with everything evaluated anew, writes identical bytes."""
    first = cook(soup, "--metric", "nll")
    weights = Path("soup/model.safetensors").read_bytes()
    second = cook(soup, "--metric", "nll", "--fresh")
    assert Path("soup/model.safetensors").read_bytes() == weights
    varying = ("created", "cost", "steps")
    assert {k: v for k, v in first.items() if k not in varying} == {k: v for k, v in second.items() if k not in varying}


def test_batch_size_changes_nothing(family: Path, soup: Soup) -> None:
    """Scores and decisions do not depend on the batch size or the number of workers."""
    one = cook(soup, "--metric", "nll", "--batch-size", "200", "--fresh")
    other = cook(soup, "--metric", "nll", "--batch-size", "7", "--workers", "1", "--fresh")
    assert one["soup"]["members"] == other["soup"]["members"]
    assert one["soup"]["hash"] == other["soup"]["hash"]
    values = [report["soup"]["scores"]["val"]["nll"]["value"] for report in (one, other)]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_nan_is_left_out(family: Path, soup: Soup) -> None:
    """An ingredient whose score is NaN ranks last; a soup whose score is NaN is not kept; both are null."""
    (family / "mine.py").write_text(
        "def evaluate(model, device):\n"
        "    bad = any((p > 100).any() for p in model.parameters())\n"
        "    return {'accuracy': float('nan') if bad else 0.5, 'n': 10}\n"
    )
    state = load_file("runs/0/model.safetensors")
    save_file({name: torch.full_like(tensor, 700) for name, tensor in state.items()}, "runs/0/model.safetensors")
    ran = soup(
        *("greedy", "--ckpts", "runs/0", "runs/1", "--val", "mine", "--json"),
        *("--set", "val.mine={python: 'mine.py:evaluate'}"),
    )
    assert ran.code == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert [i["path"] for i in report["ingredients"]] == ["runs/1", "runs/0"]
    assert report["ingredients"][1]["scores"]["mine"]["accuracy"]["value"] is None
    assert report["soup"]["members"] == ["runs/1"]
    step = report["steps"][1]
    assert (step["score"], step["accepted"], step["reason"]) == (None, False, "not a number")


def test_with_uniform(family: Path, soup: Soup) -> None:
    """--with-uniform reports the mean of all ingredients, as `soup uniform` scores it, and writes no file of it."""
    assert cook(soup)["uniform"] is None
    beside = cook(soup, "--with-uniform")["uniform"]["scores"]
    ran = soup("uniform", "--ckpts", "runs/*/", "--val", "val", "test", "--json", "--out", "mean")
    assert json.loads(ran.stdout)["soup"]["scores"] == beside


def test_table(family: Path, soup: Soup) -> None:
    """People get one row each for best ingredient, uniform and greedy, then the members and where the soup is."""
    report = cook(soup, "--with-uniform")
    ran = soup("greedy", "--ckpts", "runs/*", "--val", "val", "test", "--with-uniform", "--force")
    lines = ran.stdout.splitlines()
    assert lines[0].split() == ["weights", "val", "accuracy", "↑", "test", "accuracy", "↑"]
    assert [line.split("  ")[0] for line in lines[1:4]] == [
        f"best ingredient ({report['best']['path']})",
        "uniform soup (5 ingredients)",
        f"greedy soup ({len(report['soup']['members'])} of 5)",
    ]
    value = report["best"]["scores"]["val"]["accuracy"]
    assert f"{value['value'] * 100:.2f}% ± {value['stderr'] * 100:.2f}" in lines[1]
    assert lines[5].split() == ["step", "val", "accuracy", "↑", "needed", "decision"]
    assert [re.split(r"\s{2,}", line)[0] for line in lines[6:11]] == [f"with {s['candidate']}" for s in report["steps"]]
    assert lines[6].endswith("kept (start)") and all("left out (" in line for line in lines[7:11])
    assert lines[11:13] == ["", "the soup is the best ingredient alone, the best of 10 tried on val"]
    assert lines[13:15] == ["", f"members: {', '.join(report['soup']['members'])}"]
    assert re.fullmatch(r"soup: \S+ \(1 of 5 checkpoints, [\d.]+ s, \d+ examples evaluated\)", lines[15])


def test_progress_lines(family: Path, soup: Soup) -> None:
    """Without a terminal stderr has one plain line for each finished evaluation, and nothing else."""
    lines = soup("greedy", "--ckpts", "runs/*", "--val", "val", "test", "--with-uniform").stderr.splitlines()
    tasks = [" ".join(line.split(":")[0].split(" ")) for line in lines]
    ranking, greedy = [f"ranking {n}/5" for n in range(1, 6)], [f"greedy {n}/5" for n in range(1, 6)]
    assert tasks == [*ranking, *greedy, "on test 1/3", "on test 2/3", "on val 3/3", "on test 3/3"]
    assert all(re.search(r": accuracy (at most )?\d+\.\d\d%", line) for line in lines)
    assert lines[5].endswith(": start")
    assert all(line.endswith((": kept", ": left out")) for line in lines[6:10])
