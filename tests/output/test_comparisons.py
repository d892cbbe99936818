"""A soup against the best ingredient: the sentence, the report's comparisons, and the warning of a flattered score."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from soupcli.evaluation.score import Score
from soupcli.metrics.metric import MetricValue
from soupcli.output import console
from soupcli.output.sentences import sentence, sentences
from soupcli.report.comparisons import Comparison
from soupcli.report.report import Report
from tests.conftest import Ran
from tests.helpers.report_toys import greedy
from tests.output.test_tables import Terminal

Soup = Callable[..., Ran]
LEARNED = ["learned", "--ckpts", "runs/*/", "--set", "learned.steps=20"]


def score(value: float, metric: str = "accuracy", n: int | None = 4000) -> Score:
    return Score({metric: MetricValue(value, None, n)}, metric, True, 0, {})


def comparison(difference: float, **parts: Any) -> Comparison:
    known: dict[str, Any] = {"set": "val", "metric": "accuracy", "soup": "soup", "best": "runs/a", "n": 4000}
    return Comparison(**{**known, "higher_is_better": True, "difference": difference, **parts})


def test_sentence() -> None:
    """The sentence of the documentation, from its numbers."""
    found = sentence(comparison(0.005, low=0.0012, high=0.0091, p=0.01), 0.972)
    assert found == "soup 97.2% vs best 96.7%: +0.5 (95% interval +0.1 to +0.9, p = 0.01) on 4,000 examples"


@pytest.mark.parametrize(
    ("parts", "metric", "expected"),
    [
        ({"low": 0.0049, "high": 0.0051, "p": 1e-9}, "accuracy", "+0.50 (95% interval +0.49 to +0.51, p < 0.001) on 9"),
        ({"low": -0.00001, "high": 0.01}, "top5", "+0.50 (95% interval -0.00 to +1.00) on 9 examples"),
        ({"low": 0.0012, "high": 0.0091}, "nll", "+0.0050 (95% interval +0.0012 to +0.0091) on 9 examples"),
        ({}, "perplexity", "+0.0050 on 9 tokens"),
        ({"n": None}, "accuracy", "+0.50"),
        ({"low": 0.0, "high": 0.0, "p": 1.0}, "accuracy", "+0.5 (95% interval +0.0 to +0.0, p = 1) on 9 examples"),
    ],
)
def test_parts_of_the_sentence(parts: dict[str, Any], metric: str, expected: str) -> None:
    """Per cent for shares, with a second digit where it says something; what is not known is not said."""
    found = sentence(comparison(0.005, **{"n": 9, "metric": metric, **parts}), 0.9)
    assert found.split(": ", 1)[1].startswith(expected)


def test_one_for_each_set() -> None:
    """A set is named, with the metric where it is another than accuracy, and that it selected where it did."""
    found = greedy(["x", "y"], sets=("val", "b"), selecting_metrics={"val": "accuracy", "b": "nll"})
    found["soup"]["scores"]["b"] = {"nll": {"value": 2.0, "n": 9}, "accuracy": {"value": 0.5, "n": 9}}
    report = Report.model_validate(found)
    path = report.soup.path if report.soup is not None else ""
    comparisons = [
        comparison(0.1, soup=path, set=name, metric=metric)
        for name, metric in (("val", "accuracy"), ("b", "nll"), ("b", "accuracy"))
    ]
    lines = sentences(report, comparisons)
    assert [line.partition(":")[0] for line in lines] == [
        "better (no interval) on val (selected on it)",
        "better (no interval) on b nll",
    ]


@pytest.mark.parametrize(
    ("difference", "shown"), [(-0.0005, "-0.05"), (0.0005, "+0.05"), (0.00002, "+0.002"), (0.01, "+1.0")]
)
def test_small_differences(difference: float, shown: str) -> None:
    """A difference has as many digits as it takes to say which is better, and by how much."""
    found = sentence(comparison(difference, low=-0.011, high=0.009), 0.709 + difference)
    assert f": {shown} (" in found


def test_breaks_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal no line is wider than it, and no word is cut; in a pipe a sentence is one line."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    text = sentence(comparison(0.005, low=0.0012, high=0.0091, p=0.01), 0.972)
    with contextlib.redirect_stdout(Terminal()) as screen:
        console.print_sentences([text])
    lines = screen.getvalue().splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) <= 40
    assert " ".join(line.strip() for line in lines) == text
    assert all(line.startswith("  ") for line in lines[1:])


def test_report(family: Path, soup: Soup) -> None:
    """Each set has each metric of both, and the difference, interval and p that the outcomes give."""
    ran = soup(*LEARNED, "--val", "val", "test", "--metric", "nll", "--set", "metrics=[accuracy, ece]", "--json")
    report = json.loads(ran.stdout)
    found = {(of["set"], of["metric"]): of for of in report["comparisons"]}
    assert list(found) == [(name, metric) for name in ("val", "test") for metric in ("nll", "accuracy", "ece")]
    for (name, metric), of in found.items():
        ours, best = report["soup"]["scores"][name][metric], report["best"]["scores"][name][metric]
        assert of["difference"] == ours["value"] - best["value"]
        assert (of["soup"], of["best"], of["n"]) == ("soup/model.safetensors", report["best"]["path"], ours["n"])
        assert of["higher_is_better"] == (metric == "accuracy")
        assert of["low"] < of["difference"] < of["high"]
        assert (of["p"] is not None) == (metric == "accuracy")
    net = found["test", "accuracy"]["difference"] * 300
    possible = {
        round(stats.binomtest(k, n).pvalue, 9) for n in range(1, 60) for k in range(n + 1) if 2 * k - n == round(net)
    }
    assert round(found["test", "accuracy"]["p"], 9) in possible
    assert report["warnings"] == []


def test_printed(family: Path, soup: Soup) -> None:
    """The result has a sentence for each set under the table, with the values of the table."""
    lines = soup(*LEARNED, "--val", "val", "test").stdout.splitlines()
    best, ours = lines[1].split(), lines[2].split()
    assert ours[:4] == ["learned", "soup", "(5", "of"]
    [test] = [line for line in lines if re.match("(better|worse|too close to tell) on test: ", line)]
    assert f"soup {float(ours[-3].rstrip('%')):.1f}% vs best {float(best[-3].rstrip('%')):.1f}%" in test
    assert any(" on val (selected on it): soup " in line for line in lines)


def test_eval(family: Path, soup: Soup) -> None:
    """Among evaluated checkpoints each soup is held against the best ingredient, as when it was made."""
    made = json.loads(soup(*LEARNED, "--val", "val", "test", "--json").stdout)
    ran = soup("eval", "--ckpts", "runs/*/", "soup", "--val", "val", "test", "--json")
    report = json.loads(ran.stdout)
    for one, other in zip(made["comparisons"], report["comparisons"], strict=True):
        assert one | {"soup": "soup"} == other
    table = soup("eval", "--ckpts", "runs/*/", "soup", "--val", "val").stdout
    assert f"soup against {made['best']['path']}:\n" in table and " on val: soup " in table
    alone = soup("eval", "--ckpts", "soup", "--val", "val", "--json")
    assert json.loads(alone.stdout)["comparisons"] == []


def test_a_function_of_the_user(family: Path, soup: Soup) -> None:
    """A set that shows no single examples has the difference alone."""
    Path("mine.py").write_text(
        "def evaluate(model, device):\n    return {'f1': float(model[0].weight.sum()), 'n': 7}\n"
    )
    words = ["--set", "val.mine={python: 'mine.py:evaluate'}", "--metric", "f1"]
    report = json.loads(soup("greedy", "--ckpts", "runs/*/", "--val", "mine", *words, "--json").stdout)
    [of] = report["comparisons"]
    assert (of["low"], of["high"], of["p"], of["n"]) == (None, None, None, 7)


def test_the_only_set(family: Path, soup: Soup) -> None:
    """A soup that was selected on the only set there is comes with a warning, on stderr and in the report."""
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val", "--json")
    [warning] = json.loads(ran.stdout)["warnings"]
    assert warning.startswith("the soup was chosen on val, so its score there is too high")
    assert f"warning: {warning}" in ran.stderr.splitlines()
    ran = soup("uniform", "--ckpts", "runs/*/", "--val", "val", "--json", "--force")
    assert json.loads(ran.stdout)["warnings"] == []
