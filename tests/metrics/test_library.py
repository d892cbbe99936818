"""Metrics of scikit-learn and torchmetrics by name: their own values, directions and errors."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchmetrics
from safetensors.torch import load_file
from sklearn import metrics as sk
from torch import Tensor

from soupcli.errors import MissingExtra, ValidationError
from soupcli.evaluation.paired_difference import metric_interval
from soupcli.metrics import library
from soupcli.metrics.standard_error import with_error
from soupcli.metrics.table import SYNONYMS, metric_named
from tests.conftest import Ran, build_net

N = 60


def value(name: str, logits: Tensor, labels: Tensor) -> float:
    """As `soup` has it."""
    metric = metric_named(name)
    return metric.value(metric.contribution(logits, labels)).value


@pytest.mark.parametrize("classes", [2, 4])
def test_classes(classes: int) -> None:
    """Predictions, probabilities and margins, of two classes and of more, in the words of either library."""
    labels, logits = torch.randint(0, classes, (N,)), torch.randn(N, classes)
    predicted, chances = logits.argmax(dim=1), logits.double().softmax(dim=1)
    given = chances[:, 1] if classes == 2 else chances
    margins = logits[:, 1] - logits[:, 0] if classes == 2 else logits
    task: Any = "binary" if classes == 2 else "multiclass"
    tm = torchmetrics.functional
    wanted = {
        "sklearn:balanced_accuracy_score": sk.balanced_accuracy_score(labels, predicted),
        "sklearn:f1_score(average=macro)": sk.f1_score(labels, predicted, average="macro"),
        "sklearn:cohen_kappa_score(weights=quadratic)": sk.cohen_kappa_score(labels, predicted, weights="quadratic"),
        "sklearn:log_loss": sk.log_loss(labels, chances),
        "sklearn:roc_auc_score(multi_class=ovr)": sk.roc_auc_score(labels, given, multi_class="ovr"),
        "sklearn:hinge_loss": sk.hinge_loss(labels, margins),
        "torchmetrics:F1Score(average=macro)": tm.f1_score(
            predicted, labels, task, num_classes=classes, average="macro"
        ),
        "torchmetrics:AUROC": tm.auroc(given, labels, task, num_classes=classes),
        "torchmetrics:MulticlassCohenKappa": tm.cohen_kappa(chances, labels, "multiclass", num_classes=classes),
    }
    for name, expected in wanted.items():
        assert value(name, logits, labels) == pytest.approx(float(expected), abs=1e-6), name


def test_rows_and_numbers() -> None:
    """Several classes for each example, and numbers."""
    labels, logits = (torch.rand(N, 3) < 0.4).to(torch.uint8), torch.randn(N, 3)
    assert value("sklearn:hamming_loss", logits, labels) == pytest.approx(sk.hamming_loss(labels, logits > 0))
    jaccard = sk.jaccard_score(labels, logits > 0, average="samples", zero_division=0)
    assert value("sklearn:jaccard_score(average=samples, zero_division=0)", logits, labels) == pytest.approx(jaccard)
    assert value("sklearn:coverage_error", logits, labels) == pytest.approx(sk.coverage_error(labels, logits))
    precision: Any = torchmetrics.functional.average_precision(logits, labels.long(), "multilabel", num_labels=3)
    assert value("torchmetrics:AveragePrecision", logits, labels) == pytest.approx(float(precision), abs=1e-6)
    numbers, predicted = torch.rand(N, dtype=torch.float64), torch.rand(N, 1)
    assert metric_named("sklearn:mean_absolute_error").measures == ("numbers",)
    for name in ("mean_absolute_error", "r2_score", "median_absolute_error"):
        assert value(f"sklearn:{name}", predicted, numbers) == pytest.approx(getattr(sk, name)(numbers, predicted))
    found = torchmetrics.functional.concordance_corrcoef(predicted[:, 0].double(), numbers)
    assert value("torchmetrics:ConcordanceCorrCoef", predicted, numbers) == pytest.approx(float(found), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "higher"),
    [
        ("sklearn:balanced_accuracy_score", True),
        ("sklearn:matthews_corrcoef", True),
        ("sklearn:zero_one_loss", False),
        ("sklearn:max_error", False),
        ("sklearn:mean_poisson_deviance", False),
        ("torchmetrics:CalibrationError", False),
        ("torchmetrics:R2Score", True),
        ("torchmetrics:MeanAbsoluteError", False),
    ],
)
def test_direction(name: str, higher: bool) -> None:
    """scikit-learn says it by the end of a name, torchmetrics by an attribute. No bound, no early stop."""
    metric = metric_named(name)
    assert (metric.higher_is_better, metric.reachable) == (higher, None)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("sklearn:balanced_acuracy_score", "no metric .* of this name, did you mean 'balanced_accuracy_score'"),
        ("sklearn:confusion_matrix", "no metric of labels and predictions of this name"),
        ("sklearn:silhouette_score", "no metric of labels"),
        ("sklearn:f1_score(averge=macro)", "has no argument 'averge', did you mean 'average'"),
        ("sklearn:f1_score(average=__import__('os'))", "expected argument=value"),
        ("sklearn:f1_score(*x)", "expected argument=value"),
        ("sklearn:f1_score(**x)", "expected argument=value"),
        ("sklearn:f1_score(", "expected LIBRARY:NAME"),
        ("sklearn:f1_score(higher_is_better=false)", "higher_is_better=false, and the library says true"),
        ("torchmetrics:ConfusionMatrix", "nothing says whether more or less is better"),
        ("torchmetrics:BLEUScore", "torchmetrics has no metric of classes or numbers with this name"),
        ("torchmetrics:F1Score(task=nonsense)", "torchmetrics:F1Score"),
        ("sklearn:accuracy_score+f1", "metrics of libraries have no mean with others"),
    ],
)
def test_words_that_are_none(name: str, problem: str) -> None:
    """Unknown names and arguments are errors before anything is evaluated; nothing of an argument is run."""
    with pytest.raises(ValidationError, match=problem):
        metric_named(name)


def test_names_that_are_offered_exist() -> None:
    """What is offered for a name of another tool is a metric of the library."""
    offered = {name for name in SYNONYMS.values() if name.startswith("sklearn:")}
    assert len(offered) > 5
    assert all(metric_named(name).resampled for name in offered)


def test_what_the_library_refuses() -> None:
    """Its own words, after the metric's name; a result that is no number too."""
    logits, labels = torch.randn(N, 3), torch.arange(N) % 3
    with pytest.raises(ValidationError, match=r"metric: sklearn:f1_score: ValueError: Target is multiclass") as caught:
        value("sklearn:f1_score", logits, labels)
    assert caught.value.hint is not None and "sklearn:f1_score(average=macro)" in caught.value.hint
    with pytest.raises(ValidationError, match="torchmetrics:ConfusionMatrix"):
        value("torchmetrics:ConfusionMatrix(higher_is_better=true)", logits, labels)
    logits[3, 1] = math.nan
    assert math.isnan(value("sklearn:accuracy_score", logits, labels))


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    library.library_metric.cache_clear()
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(MissingExtra) as caught:
        metric_named("torchmetrics:AUROC")
    assert caught.value.hint is not None and "model-soup[metrics]" in caught.value.hint


def test_errors_and_intervals_are_bootstrapped() -> None:
    """Of accuracy they are near the binomial ones, and the same each time; one class alone in many draws: none."""
    labels, logits = torch.randint(0, 3, (400,)), torch.randn(400, 3)
    logits[torch.arange(400), labels] += 1
    metric = metric_named("sklearn:accuracy_score")
    outcomes = metric.contribution(logits, labels)
    found = with_error(metric, outcomes)
    assert found.stderr == pytest.approx(math.sqrt(found.value * (1 - found.value) / 400), rel=0.2)
    assert with_error(metric, outcomes) == found
    other = metric.contribution(logits + torch.randn(400, 3), labels)
    interval = metric_interval(metric, outcomes, other)
    assert interval is not None and interval == metric_interval(metric, outcomes, other)
    difference = found.value - metric.value(other).value
    assert (interval[0] + interval[1]) / 2 == pytest.approx(difference)
    rare = torch.zeros(30, dtype=torch.int64)
    rare[0] = 1
    auc = metric_named("sklearn:roc_auc_score")
    assert with_error(auc, auc.contribution(torch.randn(30, 2), rare)).stderr is None


@pytest.mark.parametrize("name", ["sklearn:balanced_accuracy_score", "torchmetrics:Accuracy", "torchmetrics:AUROC"])
def test_all_right(name: str) -> None:
    """Resamples that all agree say nothing of other samples: no error and no interval, in place of 0."""
    metric, labels = metric_named(name), torch.arange(60) % 3
    sure, surer = (metric.contribution(scale * torch.eye(3)[labels], labels) for scale in (1.0, 2.0))
    assert with_error(metric, sure).value == 1
    assert with_error(metric, sure).stderr is None
    assert metric_interval(metric, sure, surer) is None


def test_greedy_selects_by_it(family: Path, soup: Callable[..., Ran]) -> None:
    """The soup's value is the library's on the written weights; kept scores are found again."""
    begin = ("greedy", "--ckpts", "runs/*/", "--val", "val", "test", "--metric", "sklearn:balanced_accuracy_score")
    report = json.loads(soup(*begin, "--json").stdout)
    net, data = build_net(), load_file("data/test.safetensors")
    net.load_state_dict(load_file("soup/model.safetensors"))
    with torch.no_grad():
        wanted = sk.balanced_accuracy_score(data["labels"], net(data["inputs"]).argmax(dim=1))
    scores = report["soup"]["scores"]["test"]["sklearn:balanced_accuracy_score"]
    assert scores["value"] == pytest.approx(wanted, abs=1e-12) and scores["stderr"] > 0
    [compared] = [of for of in report["comparisons"] if of["set"] == "test"]
    assert compared["difference"] == 0 or compared["low"] <= compared["difference"] <= compared["high"]
    assert json.loads(soup(*begin, "--json", "--force").stdout)["cost"]["examples"] == 0


def test_programs_of_the_user_have_their_own(family: Path, soup: Callable[..., Ran]) -> None:
    """A set that shows no outputs refuses such a metric."""
    Path("mine.py").write_text("def evaluate(model, device):\n    return 0.5\n")
    ran = soup(
        "rank",
        "--ckpts",
        "runs/*/",
        "--val",
        "mine",
        "--set",
        "val.mine={python: 'mine.py:evaluate'}",
        "metric=sklearn:accuracy_score",
    )
    assert ran.code == 2
    assert "val.mine: sklearn:accuracy_score is computed from labels and outputs" in ran.stderr


def test_other_names_are_metrics() -> None:
    """Every name that is offered in place of another one is a metric."""
    for meant in set(SYNONYMS.values()):
        assert metric_named(meant)
