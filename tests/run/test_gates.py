"""Gates through the commands: what is not accepted, what is written anyway, and the exit code that tells."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.cli.test_process import environment
from tests.conftest import Ran
from tests.helpers.warm import Warm

Soup = Callable[..., Ran]

# Each ingredient's tag is the first number of its bias; a soup's is the mean of its members'.
MINE = """
from pathlib import Path

def _tag(model):
    return model[0].bias[0].item()

def same(model, device):
    return {"accuracy": 0.5, "n": 200}

def tagged(model, device):
    with Path("asked.txt").open("a") as log:
        print(f"{_tag(model):.2f}", file=log)
    return {"accuracy": round(0.9 - 0.1 * _tag(model), 3), "nll": 1 + _tag(model), "n": 1000}
"""
RECIPE = """model: {python: "net.py:build"}
val:
  same: {python: "mine.py:same"}
  tagged: {python: "mine.py:tagged"}
  val: {arrays: data/val.safetensors}
  test: {arrays: data/test.safetensors}
"""
TAGS = (0.0, 1.0, 0.0, 0.1, 0.0)


@pytest.fixture
def tagged(family: Path) -> Path:
    """The family with tags: on `same` all score the same, on `tagged` the smaller the tag the better."""
    (family / "mine.py").write_text(MINE)
    (family / "soup.yaml").write_text(RECIPE)
    for number, tag in enumerate(TAGS):
        file = f"runs/{number}/model.safetensors"
        state = load_file(file)
        state["0.bias"][0] = tag
        save_file(state, file)
    return family


def greedy(soup: Soup, *words: str, code: int = 0) -> Any:
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "same", "--json", "--force", *words)
    assert ran.code == code, ran.stderr
    return json.loads(ran.stdout)


def members(report: Any) -> list[str]:
    return [path.removeprefix("runs/") for path in report["soup"]["members"]]


def test_a_candidate_that_breaks_a_gate(tagged: Path, soup: Soup) -> None:
    """It is not accepted, with the gate as the reason; those that pass are."""
    assert members(greedy(soup)) == ["0", "1", "2", "3", "4"]
    report = greedy(soup, "--set", "gates.tagged=>= best - 1")
    assert members(report) == ["0", "2", "3", "4"]
    step = report["steps"][1]
    assert (step["candidate"], step["accepted"]) == ("runs/1", False)
    assert step["reason"] == (
        "breaks the gate tagged >= best - 1: 85.00%, best 90.00%: -5.00, at least -1.00 is needed"
    )
    [gate] = report["gates"]
    assert (gate["set"], gate["met"], gate["key"], gate["gate"]) == ("tagged", True, "gates.tagged", ">= best - 1")


def test_gates_are_asked_of_candidates_that_would_stay(tagged: Path, soup: Soup) -> None:
    """The gate's set is evaluated for the best ingredient and for such candidates alone, each once."""
    greedy(soup, "--set", "gates.tagged=>= best - 1")
    asked = Path("asked.txt").read_text().split()
    assert sorted(asked) == sorted(["0.00", "0.50", "0.00", "0.03", "0.03"])
    Path("asked.txt").unlink()
    report = greedy(soup, "--set", "gates.tagged=>= best - 1", "--set", "greedy.accept=>", "--fresh")
    assert members(report) == ["0"]
    assert Path("asked.txt").read_text().split() == ["0.00"]


def test_sets_of_gates_are_evaluated(tagged: Path, soup: Soup) -> None:
    """A gate holds without its set being named, and its set is reported like the others; so are its metrics."""
    report = greedy(soup, "--set", "gates.test.nll=<= best + 10")
    assert report["sets"] == ["same", "test"]
    assert {"accuracy", "nll"} == set(report["soup"]["scores"]["test"])


def test_several_metrics_of_a_set(tagged: Path, soup: Soup) -> None:
    """Gates on metrics of one set hold together."""
    report = greedy(soup, "--set", "gates={tagged: {accuracy: '>= best - 10', nll: '<= best + 0.04'}}")
    assert members(report) == ["0", "2", "3", "4"]
    assert "nll <= best + 0.04" in report["steps"][1]["reason"]
    assert [gate["metric"] for gate in report["gates"]] == ["accuracy", "nll"]


def test_an_answer_of_no(tagged: Path, soup: Soup) -> None:
    """A soup that breaks a gate is written and reported; the exit code is 1 and stderr says which."""
    report = greedy(soup, "--set", "gates.tagged=>= 95%", code=1)
    assert members(report) == ["0"]
    assert Path("soup/soup.json").is_file()
    assert report["gates"][0]["met"] is False
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "same", "--set", "gates.tagged=>= 95%", "--force", "--quiet")
    assert (ran.code, ran.stdout) == (1, "soup/model.safetensors\n")
    assert ran.stderr.splitlines()[-1] == "1 of 1 gates not met: tagged >= 95%"


def test_printed(tagged: Path, soup: Soup) -> None:
    """The result says of each gate whether it is met, and why."""
    gates = ["--set", "gates={tagged: '>= best - 1', test: '>= 0.1'}", "--require-gain", "0.5"]
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "same", *gates)
    assert ran.code == 1
    lines = [line for line in ran.stdout.splitlines() if line.startswith(("gate", "required"))]
    assert lines[0] == "gate met: tagged >= best - 1: 89.70%, best 90.00%: -0.30, at least -1.00 is needed"
    assert lines[1].startswith("gate met: test >= 0.1: ")
    assert lines[2] == (
        "required gain not met: same >= best + 0.5: 50.00%, best 50.00%: +0.00, at least +0.50 is needed"
    )
    assert ran.stderr.splitlines()[-1] == "1 of 3 gates not met: same >= best + 0.5"


@pytest.mark.parametrize(
    ("gain", "code"),
    [("0", 0), ("0.01", 1), ("-1", 0), ("tagged=-0.3", 0), ("tagged=-0.1", 1)],
)
def test_require_gain(tagged: Path, soup: Soup, gain: str, code: int) -> None:
    """On the selecting set or on the one that is named, in percentage points; no candidate is refused for it."""
    words = ["--set", "ckpts=[runs/0, runs/2, runs/3]"]
    ran = soup("greedy", "--val", "same", "--require-gain", gain, "--json", *words)
    assert ran.code == code, ran.stderr
    report = json.loads(ran.stdout)
    assert members(report) == ["0", "2", "3"]
    assert report["gates"][0]["key"] == "require_gain"


@pytest.mark.parametrize("words", [["--require-gain", "0.1"], ["--set", "require_gain=0.1"]])
def test_as_a_process(tagged: Path, warm: Warm, words: list[str]) -> None:
    """A shell sees 1 behind a pipe that was read to its end, and 0 where the gain is there."""
    command = ["-m", "soupcli", "greedy", "--ckpts", "runs/*/", "--val", "same", "tagged", *words]
    ran = warm.run(*command, "--json", env=environment())
    assert ran.returncode == 1, ran.stderr
    assert json.loads(ran.stdout)["gates"][0]["met"] is False
    ran = warm.run(*command, "--set", "require_gain=0", "--force", env=environment(SOUP_REQUIRE_GAIN="0"))
    assert ran.returncode == (1 if words[0] == "--require-gain" else 0), ran.stderr


def test_variable(tagged: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """SOUP_REQUIRE_GAIN asks like the flag."""
    monkeypatch.setenv("SOUP_REQUIRE_GAIN", "0.1")
    greedy(soup, code=1)


def test_uniform(tagged: Path, soup: Soup) -> None:
    """Where a gate asks for the best ingredient, the ingredients are ranked; otherwise they are not evaluated."""
    words = ["uniform", "--ckpts", "runs/*/", "--val", "same", "--json", "--force"]
    ran = soup(*words, "--set", "gates.tagged=>= best - 5")
    report = json.loads(ran.stdout)
    assert (ran.code, report["gates"][0]["met"], report["best"]["path"]) == (0, True, "runs/0")
    assert [of["set"] for of in report["comparisons"]] == ["same", "tagged", "tagged"]
    ran = soup(*words, "--set", "gates.tagged=>= best - 1")
    assert ran.code == 1
    ran = soup(*words, "--set", "gates.tagged=>= 50%")
    report = json.loads(ran.stdout)
    assert (ran.code, report["best"], report["gates"][0]["met"]) == (0, None, True)


def test_uniform_alone(tagged: Path, soup: Soup) -> None:
    """Without a set no gate is checked, which a warning says; a gain that is asked for then is an error."""
    ran = soup("uniform", "--ckpts", "runs/*/", "--set", "gates.tagged=>= best")
    assert ran.code == 0
    assert "warning: the gates of the recipe are not checked" in ran.stderr
    ran = soup("uniform", "--ckpts", "runs/*/", "--require-gain", "0.1", "--force")
    assert (ran.code, ran.stderr.splitlines()[0]) == (2, "--require-gain: needs --val")


def test_learned(family: Path, soup: Soup) -> None:
    """A learned soup is held against the gates in the end."""
    words = ["learned", "--ckpts", "runs/*/", "--val", "val", "--set", "learned.steps=5", "--json", "--force"]
    assert soup(*words, "--set", "gates.test=>= best - 50").code == 0
    ran = soup(*words, "--set", "gates.test=>= best + 50")
    assert ran.code == 1
    assert json.loads(ran.stdout)["gates"][0]["met"] is False


def test_eval(tagged: Path, soup: Soup) -> None:
    """Soups among the checkpoints are checked. A gate that needs an ingredient is open without; others are named."""
    soup("uniform", "--ckpts", "runs/*/")
    words = ["--val", "tagged", "--json", "--set"]
    ran = soup("eval", "--ckpts", "soup", "runs/*/", *words, "gates.tagged=>= best - 1")
    assert (ran.code, json.loads(ran.stdout)["gates"][0]["met"]) == (1, False)
    assert soup("eval", "--ckpts", "soup", "runs/*/", *words, "gates.tagged=>= best - 3").code == 0
    ran = soup("eval", "--ckpts", "soup", *words, "gates={tagged: '>= best', same: '>= 1'}")
    report = json.loads(ran.stdout)
    assert (ran.code, [(gate["set"], gate["met"]) for gate in report["gates"]]) == (0, [("tagged", None)])
    assert report["sets"] == ["tagged"]
    assert any("gates.same '>= 1': not checked, as --val does not" in warning for warning in report["warnings"])
    assert any("gates.tagged '>= best': not checked, there is no ingr" in warning for warning in report["warnings"])
    Path("soup/soup.json").unlink()
    assert (
        soup("eval", "--ckpts", "soup", *words, "gates.tagged=>= 1").code == 1
    )  # alone: it is what the gates are about
    assert soup("eval", "--ckpts", "soup", *words, "gates.tagged=>= 0.01").code == 0
    ran = soup("eval", "--ckpts", "runs/*/", *words, "gates.tagged=>= 1")
    assert (ran.code, json.loads(ran.stdout)["gates"]) == (0, [])
    assert "gates: not checked, none of the checkpoints is a soup" in ran.stderr


def test_eval_requires_a_gain(tagged: Path, soup: Soup) -> None:
    """A gain that is asked for needs a soup and an ingredient, and evaluates the set it names."""
    soup("uniform", "--ckpts", "runs/*/")
    words = ["--val", "same", "--require-gain"]
    assert soup("eval", "--ckpts", "soup", "runs/*/", *words, "tagged=-3").code == 0
    assert soup("eval", "--ckpts", "soup", "runs/*/", *words, "tagged=-1").code == 1
    ran = soup("eval", "--ckpts", "runs/*/", *words, "0")
    assert (ran.code, ran.stderr.splitlines()[-3]) == (2, "--require-gain: there is no soup among the checkpoints")
    ran = soup("eval", "--ckpts", "soup", *words, "0")
    assert (ran.code, ran.stderr.splitlines()[-3]) == (
        2,
        "--require-gain: there is no ingredient among the checkpoints",
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--require-gain", "much"], "--require-gain: expected a margin such as 0.1"),
        (["--require-gain", "taged=1"], "--require-gain taged=1: no set 'taged', did you mean 'tagged'?"),
        (["--set", "gates.val=>= 80"], "--set gates.val: accuracy is a fraction of 1, got 80"),
        (["--set", "gates.val.nll=>= best"], "--set gates.val.nll: nll is better the lower, got '>= best'"),
        (["--set", "gates.vall=>= best"], "--set gates.vall: no set 'vall', did you mean 'val'?"),
        (["--set", "gates.val=best"], "--set gates.val: expected a bound"),
    ],
)
def test_wrong(tagged: Path, soup: Soup, words: list[str], message: str) -> None:
    """What cannot be meant ends with 2 before anything is evaluated."""
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "same", "tagged", *words)
    assert (ran.code, ran.stdout) == (2, "")
    assert ran.stderr.startswith(message), ran.stderr


def test_a_metric_that_a_function_does_not_give(tagged: Path, soup: Soup) -> None:
    """The gate names it; the error names the gate and the metrics that there are."""
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "same", "--set", "gates.tagged.nl=<= best")
    assert ran.code == 2
    assert "gates.tagged.nl: tagged has no metric 'nl', did you mean 'nll'?" in ran.stderr


def test_dry_run_counts(tagged: Path, soup: Soup) -> None:
    """The plan counts what gates may ask for at most."""
    words = ["greedy", "--ckpts", "runs/*/", "--val", "same", "--dry-run", "--json"]
    without = json.loads(soup(*words).stdout)["evaluations"]
    assert json.loads(soup(*words, "--set", "gates.tagged=>= best").stdout)["evaluations"] == without + 5


def test_mix(tagged: Path, soup: Soup) -> None:
    """A mixture by weights is held against numbers; nothing is known of a best ingredient, so a gain is refused."""
    words = ["mix", "--ckpts", "runs/0", "runs/1", "--weights", "0.5,0.5", "--val", "same"]
    assert soup(*words, "--set", "gates.tagged=>= 80%").code == 0
    assert soup(*words, "--set", "gates.tagged=>= 90%", "--force").code == 1
    ran = soup(*words, "--require-gain", "0.1", "--force")
    assert ran.code == 2
    assert ran.stderr.startswith("--require-gain 0.1: soup mix evaluates only the mixture")
