"""What functions and commands may say of a network, and errors that name the user's own line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from soupcli.errors import ValidationError
from soupcli.evaluation.outside import user_function as python_task
from soupcli.evaluation.outside.user_function import score_of_result
from soupcli.evaluation.score import Score
from soupcli.recipe.sets import PythonSet


def scored(result: Any, metric: str = "accuracy", *, higher_is_better: bool | None = None) -> Score:
    """The score in a result."""
    return score_of_result(result, metric, source="my_eval.py:evaluate", higher_is_better=higher_is_better)


def evaluated(folder: Path, body: str) -> Score:
    """The score of a function with this body, which is given (model, device)."""
    (folder / "my_eval.py").write_text(f"import torch\n\ndef evaluate(model, device):\n    {body}\n")
    spec = PythonSet(python=f"{folder}/my_eval.py:evaluate")
    return python_task.score(spec, nn.Linear(2, 3), torch.device("cpu"), metric="accuracy")


def test_is_given_the_network(tmp_path: Path) -> None:
    """The function sees the module and the device, and no gradient is kept."""
    body = "return {'accuracy': model(torch.ones(1, 2)).shape[1] / 4, 'grad': torch.is_grad_enabled(), 'n': 12}"
    found = evaluated(tmp_path, body)
    assert (found.value, found.examples) == (0.75, 12)
    assert found.metrics["accuracy"] == (0.75, None, 12)
    assert found.metrics.keys() == {"accuracy"}


@pytest.mark.parametrize("value", [0.5, torch.tensor(0.5), torch.tensor([0.5], dtype=torch.float64), 1 / 2])
def test_numbers(value: Any) -> None:
    """Floats, and tensors of one element, are numbers."""
    assert scored({"accuracy": value}).value == 0.5


def test_further_metrics() -> None:
    """Other numbers are kept beside the one that selects, what is no number is not."""
    found = scored({"accuracy": 1, "loss": 0.25, "name": "vit", "per_class": [0.5, 0.5], "flag": True})
    assert {name: value.value for name, value in found.metrics.items()} == {"accuracy": 1.0, "loss": 0.25}
    assert (found.examples, found.metrics["loss"].n, found.outcomes) == (0, None, {})


@pytest.mark.parametrize("value", [None, math.nan, torch.tensor(math.nan)])
def test_not_a_number_loses(value: Any) -> None:
    """null and NaN are scores, worse than all others."""
    found = scored({"accuracy": value})
    assert math.isnan(found.value)
    assert found.goodness == -math.inf


def test_directions() -> None:
    """A metric of ours has its own direction, another one that of the recipe, else that of its name."""
    assert not scored({"nll": 1.0}, "nll").higher_is_better
    with pytest.raises(ValidationError, match=r"higher_is_better: false, and accuracy is better when higher"):
        scored({"accuracy": 1.0}, higher_is_better=False)
    for lower in ("wer", "mae", "eval_loss", "mean_absolute_error", "val/perplexity"):
        assert not scored({lower: 0.1}, lower).higher_is_better
    for higher in ("acc", "neg_mean_squared_error", "balanced_accuracy", "rougeL"):
        assert scored({higher: 0.1}, higher).higher_is_better
    assert scored({"mae": 0.1}, "mae", higher_is_better=True).higher_is_better
    with pytest.raises(ValidationError, match="nothing says whether more or less of 'quality' is better"):
        scored({"quality": 0.1}, "quality")
    assert scored({"wer": 0.1}, "wer", higher_is_better=False).goodness == -0.1


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (0.5, r"^my_eval\.py:evaluate: returned a float, not a dict such as \{'accuracy': 0\.91\}"),
        (None, "returned a NoneType"),
        ({}, "returned no 'accuracy'"),
        ({"acuracy": 0.5}, r"returned no 'accuracy', did you mean 'acuracy'\?"),
        ({"accuracy": "0.5"}, "'accuracy' is '0.5', not a number"),
        ({"accuracy": True}, "'accuracy' is True, not a number"),
        ({"accuracy": [0.5, 0.6]}, r"'accuracy' is \[0\.5, 0\.6\], not a number"),
        ({"accuracy": torch.zeros(2)}, "'accuracy' is tensor"),
        ({"accuracy": 0.5, "n": 2.5}, r"'n' is 2\.5, not a number of examples"),
        ({"accuracy": 0.5, "n": -1}, r"'n' is -1\.0, not a number of examples"),
    ],
)
def test_errors(result: Any, message: str) -> None:
    """What holds no number under the metric's name is an error that shows what it holds."""
    with pytest.raises(ValidationError, match=message):
        scored(result)


def test_functions_that_fail(tmp_path: Path) -> None:
    """The error names the line of the user's file, whether it raised itself or something below it did."""
    for body, message in (
        ("raise KeyError('images')", r"my_eval\.py:4: KeyError: 'images'$"),
        ("return {'accuracy': model(torch.ones(1, 7))}", r"my_eval\.py:4: RuntimeError: .*mat1"),
        ("raise SystemExit", r"my_eval\.py:4: SystemExit$"),
        ("import sys; sys.exit('no data')", r"my_eval\.py:4: SystemExit: no data$"),
    ):
        with pytest.raises(ValidationError, match=message):
            evaluated(tmp_path, body)


def test_one_number(tmp_path: Path) -> None:
    """A function that returns one number has the metric that somebody named; nobody's is not guessed."""
    (tmp_path / "my_eval.py").write_text("def evaluate(model, device):\n    return 0.25\n")
    spec, module = PythonSet(python=f"{tmp_path}/my_eval.py:evaluate", metric="mae"), nn.Linear(2, 3)
    found = python_task.score(spec, module, torch.device("cpu"), metric="mae", named=True)
    assert (found.selecting, found.value, found.higher_is_better) == ("mae", 0.25, False)
    with pytest.raises(ValidationError, match="returned a float, not a dict"):
        python_task.score(spec, module, torch.device("cpu"), metric="accuracy")


def test_lower_is_better_is_said(family: Path, soup: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of 0.1 ranks before one of 0.2, the table says so, and an unknown metric is refused at once."""
    monkeypatch.chdir(family)
    (family / "my_eval.py").write_text("def evaluate(model, device):\n    return float(model[0].weight[0, 0])\n")
    recipe = 'model: {python: "net.py:build"}\nval: {mine: {python: "my_eval.py:evaluate", metric: METRIC}}\n'
    (family / "soup.yaml").write_text(recipe.replace("METRIC", "mae"))
    ran = soup("rank", "--ckpts", "runs/*/", "--val", "mine", "--json")
    values = [row["scores"]["mine"]["mae"]["value"] for row in json.loads(ran.stdout)["ingredients"]]
    assert values == sorted(values)
    assert "mine mae ↓" in soup("rank", "--ckpts", "runs/*/", "--val", "mine").stdout
    (family / "soup.yaml").write_text(recipe.replace("METRIC", "quality"))
    ran = soup("rank", "--ckpts", "runs/*/", "--val", "mine", "--dry-run")
    assert (ran.code, "higher_is_better: true, or false" in ran.stderr) == (2, True)


def test_yielded(tmp_path: Path) -> None:
    """Booleans of batches make an accuracy with its error; it ends once the bound is out of reach."""
    found = evaluated(tmp_path, "yield torch.tensor([True, False])\n    yield [True, True]")
    value, error, n = found.metrics["accuracy"]
    assert (value, n) == (0.75, 4) and error == pytest.approx(math.sqrt(0.75 * 0.25 / 4))
    assert found.outcomes["accuracy"].tolist() == [1, 0, 1, 1]
    spec, module = PythonSet(python=f"{tmp_path}/my_eval.py:evaluate"), nn.Linear(2, 3)

    def stopped(at_least: float, total: int) -> Score:
        stop = python_task.Stop(at_least, total)
        return python_task.score(spec, module, torch.device("cpu"), metric="accuracy", stop=stop)

    assert stopped(0.75, 4).value == 0.75
    assert stopped(0.8, 4).stopped == (2, 4, 0.75)
    with pytest.raises(ValidationError, match="yielded 4 examples, 5 before"):
        stopped(0.1, 5)


@pytest.mark.parametrize(
    ("body", "metric", "message"),
    [
        ("yield torch.tensor([1, 0])", "accuracy", r"yields torch\.int64, not booleans"),
        ("yield True", "f1", "yields, which makes an accuracy, not 'f1'"),
        ("yield from ()", "accuracy", "yielded 0 examples"),
        ("yield 1 / 0", "accuracy", r"my_eval\.py:4: ZeroDivisionError"),
    ],
)
def test_yielded_errors(body: str, metric: str, message: str, tmp_path: Path) -> None:
    """What is no boolean, another metric, nothing at all, and a failure on the way."""
    (tmp_path / "my_eval.py").write_text(f"import torch\n\ndef evaluate(model, device):\n    {body}\n")
    spec = PythonSet(python=f"{tmp_path}/my_eval.py:evaluate")
    with pytest.raises(ValidationError, match=message):
        python_task.score(spec, nn.Linear(2, 3), torch.device("cpu"), metric=metric)
