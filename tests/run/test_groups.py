"""--group-by through the command line: a soup of each run first, then the command over these."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Ran, build_net

Soup = Callable[..., Ran]
RUNS = {"a": (0, 1), "b": (2,), "c": (3, 4)}


@pytest.fixture
def sweep(family: Path) -> Path:
    """The family's five ingredients as checkpoints of three runs: sweep/a/checkpoint-500, checkpoint-1000, ..."""
    for name, numbers in RUNS.items():
        for step, number in zip((500, 1000), numbers, strict=False):
            shutil.move(f"runs/{number}", f"sweep/{name}/checkpoint-{step}")
    return family


def ran(soup: Soup, *words: str) -> dict[str, Any]:
    found = soup(words[0], "--ckpts", "sweep/*/*/", "--json", *words[1:])
    assert found.code == 0, found.stderr
    report: dict[str, Any] = json.loads(found.stdout)
    return report


State = dict[str, torch.Tensor]


def mean(states: list[State]) -> State:
    return {name: torch.stack([state[name].double() for state in states]).mean(0) for name in states[0]}


def group(name: str) -> State:
    return mean([load_file(file) for file in sorted(Path("sweep", name).glob("*/model.safetensors"))])


def nll(state: State) -> float:
    data, net = load_file("data/val.safetensors"), build_net()
    net.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    with torch.no_grad():
        return float(torch.nn.functional.cross_entropy(net(data["inputs"]).double(), data["labels"]))


def greedy_by_hand(groups: dict[str, State]) -> list[str]:
    """Recipe 1 over the groups' means."""
    first, *others = sorted(groups, key=lambda name: nll(groups[name]))
    members = [first]
    for name in others:
        if nll(mean([groups[one] for one in (*members, name)])) <= nll(mean([groups[one] for one in members])):
            members.append(name)
    return members


def test_greedy_equals_a_greedy_soup_of_the_means(sweep: Path, soup: Soup) -> None:
    """Groups are ranked and chosen; the soup is the mean of their means, rounded once, and can be made again."""
    report = ran(soup, "greedy", "--group-by", "run", "--val", "val", "--metric", "nll")
    groups = {name: group(name) for name in RUNS}
    scores = {one["path"]: one["scores"]["val"]["nll"]["value"] for one in report["ingredients"]}
    assert scores == pytest.approx({f"sweep/{name}": nll(state) for name, state in groups.items()}, rel=1e-5)
    kept = greedy_by_hand(groups)
    assert report["soup"]["groups"] == [f"sweep/{name}" for name in kept]
    assert [step["candidate"] for step in report["steps"] if step["accepted"]] == report["soup"]["groups"]
    weights = {f"sweep/{name}": 1 / len(kept) / len(RUNS[name]) for name in kept}
    own = zip(report["soup"]["members"], report["soup"]["weights"], strict=True)
    assert all(weight == pytest.approx(weights[str(Path(path).parent)]) for path, weight in own)
    written, expected = load_file("soup/model.safetensors"), mean([groups[name] for name in kept])
    assert all(torch.equal(written[name], expected[name].float()) for name in expected)
    checked = soup("verify", "soup", "--rebuild")
    assert checked.code == 0, checked.stdout
    assert "NO" not in checked.stdout


def test_report_names_every_file(sweep: Path, soup: Soup) -> None:
    """Each group has its members with their hashes, which are those of the files; the plan names them as well."""
    report = ran(soup, "uniform", "--group-by", "run")
    alone = {one["path"]: one["hash"] for one in ran(soup, "uniform", "--force")["ingredients"]}
    members = {one["path"]: one["hash"] for of in report["ingredients"] for one in of["members"]}
    assert members == alone
    assert [one["path"] for one in report["ingredients"]] == ["sweep/a", "sweep/b", "sweep/c"]
    assert report["soup"]["weights"] == pytest.approx([1 / 6, 1 / 6, 1 / 3, 1 / 6, 1 / 6])
    assert report["recipe"]["window"] == {"group_by": "run"}
    plan = soup("uniform", "--ckpts", "sweep/*/*/", "--group-by", "run", "--dry-run")
    assert "the mean of 2: checkpoint-500, checkpoint-1000" in plan.stdout
    assert "5 checkpoints count as 3" in plan.stderr


def test_groups_of_one_size_are_the_mean_of_all(sweep: Path, soup: Soup) -> None:
    """Where groups are equally large their uniform soup is, byte for byte, the uniform soup of all checkpoints."""
    shutil.rmtree("sweep/b")
    ran(soup, "uniform", "--group-by", "run", "--out", "one")
    ran(soup, "uniform", "--out", "other")
    one, other = (load_file(f"{out}/model.safetensors") for out in ("one", "other"))
    assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize("link", [False, True])
def test_a_run_holds_the_start_of_another(sweep: Path, soup: Soup, link: bool) -> None:
    """A checkpoint that two runs branch from counts in the mean of both; a copy of a whole run counts once."""
    shared = Path("sweep/b/checkpoint-100")
    if link:
        shared.symlink_to(Path("sweep/a/checkpoint-500").absolute())
    else:
        shutil.copytree("sweep/a/checkpoint-500", shared)
    shutil.copytree("sweep/a", "sweep/d", symlinks=True)
    report = ran(soup, "uniform", "--group-by", "run", "--out", "out")
    assert report["soup"]["groups"] == ["sweep/a", "sweep/b", "sweep/c"]
    wanted = mean([group(name) for name in "abc"])
    made = load_file("out/model.safetensors")
    assert all(torch.allclose(made[name].double(), wanted[name], atol=1e-6) for name in wanted)


def test_pattern(sweep: Path, soup: Soup) -> None:
    """A pattern of folders groups what lies below each, at whatever depth."""
    shutil.move("sweep", "lr")
    Path("sweep").mkdir()
    shutil.move("lr", "sweep/lr")
    shutil.move("sweep/lr/c", "sweep/wd/c")
    words = ("--ckpts", "sweep/*/*/*/", "--group-by", "sweep/*", "--json")
    found = json.loads(soup("uniform", *words).stdout)
    assert {one["path"]: len(one["members"]) for one in found["ingredients"]} == {"sweep/lr": 3, "sweep/wd": 2}
    there = os.path.abspath("sweep")  # noqa: PTH100 - a test of absolute patterns
    again = json.loads(soup("uniform", *words[:2], "--group-by", f"{there}/*", "--force", "--json").stdout)
    assert again["soup"]["hash"] == found["soup"]["hash"]


@pytest.mark.parametrize("strategy", ["forward", "pruned", "replacement"])
def test_searches_of_groups(sweep: Path, soup: Soup, strategy: str) -> None:
    """Every search goes over groups, and the weights of its soup sum to 1."""
    words = ("--group-by", "run", "--val", "val", "--metric", "nll", "--strategy", strategy)
    report = ran(soup, "greedy", *words)
    known = {f"sweep/{name}" for name in RUNS}
    assert {step["candidate"] for step in report["steps"]} <= known
    assert {path for step in report["steps"] for path in step["members"]} <= known
    assert sum(report["soup"]["weights"]) == pytest.approx(1.0, abs=1e-12)
    assert set(report["soup"]["groups"]) <= known


@pytest.mark.parametrize("start", ["uniform", "greedy"])
def test_learned_over_groups(sweep: Path, soup: Soup, start: str) -> None:
    """A learned soup has one coefficient for each group, shared evenly by its members, and verifies."""
    words = ("--group-by", "run", "--val", "val", "--per", "layer", "--set", f"learned.start={start}")
    report = ran(soup, "learned", *words, "--set", "learned.steps=5", "--set", "learned.folds=1")
    found = report["soup"]["coefficients"]
    places = {path: found["members"].index(path) for path in found["members"]}
    for (one, at), (other, there) in itertools.combinations(places.items(), 2):
        if Path(one).parent == Path(other).parent:
            assert all(row[at] == pytest.approx(row[there]) for row in found["alpha"])
    assert all(sum(row) == pytest.approx(1.0, abs=1e-12) for row in found["alpha"])
    assert soup("verify", "soup", "--rebuild").code == 0


def test_rank_and_eval(sweep: Path, soup: Soup) -> None:
    """`soup rank` and `soup eval` score the means; `soup inspect` looks at each checkpoint, and says so."""
    for command in ("rank", "eval"):
        found = json.loads(soup(command, "--ckpts", "sweep/*/*/", "--group-by", "run", "--val", "val", "--json").stdout)
        assert sorted(one["path"] for one in found["ingredients"]) == ["sweep/a", "sweep/b", "sweep/c"]
    looked = soup("inspect", "--ckpts", "sweep/*/*/", "--group-by", "run", "--json")
    assert len(json.loads(looked.stdout)["ingredients"]) == 5
    assert "looks at each checkpoint by itself" in looked.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["uniform", "--group-by", "other/*"], "sweep/a/checkpoint-500 lies in no folder that it fits"),
        (["uniform", "--group-by", ""], "--group-by: "),
        (["mix", "--group-by", "run", "--weights", "1,1,1"], "--weights go with single checkpoints"),
        (["mix", "--group-by", "run", "--decay", "linear"], "--decay go with single checkpoints"),
        (["greedy", "--group-by", "run", "--val", "val", "--windows", "2"], "--windows go with single checkpoints"),
        (["greedy", "--group-by", "run", "--val", "val", "--logits", "l"], "logits go with single checkpoints"),
    ],
)
def test_refused(sweep: Path, soup: Soup, words: list[str], message: str) -> None:
    """What knows single checkpoints alone does not go with groups, and a pattern that fits nothing is no guess."""
    found = soup(words[0], "--ckpts", "sweep/*/*/", *words[1:])
    assert found.code == 2
    assert message in found.stderr
