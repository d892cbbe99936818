"""Metrics of rows of 0 and 1, held against scikit-learn and torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score
from torch import Tensor, nn

from soupcli.evaluation.hardest_first import distance_of
from soupcli.evaluation.paired_difference import metric_interval
from soupcli.metrics.metric import mean_of
from soupcli.metrics.standard_error import with_error
from soupcli.metrics.table import METRICS, metric_named

CASES = [(2, 1), (7, 3), (200, 2), (90, 20), (300, 5)]


def drawn(n: int, classes: int, *, ties: bool = False) -> tuple[Tensor, Tensor]:
    """Logits and rows in which each class occurs, and not always."""
    labels_nk = (torch.rand(n, classes) < 0.3).to(torch.uint8)
    labels_nk[0], labels_nk[1] = 1, 0
    logits_nk = torch.randn(n, classes) + labels_nk - 0.5
    return (logits_nk.round() if ties else logits_nk), labels_nk


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "classes"), CASES)
def test_values_equal_scikit_learn(n: int, classes: int, ties: bool) -> None:
    """Macro average precision, with equal logits too, and both kinds of F1 at a probability of one half."""
    logits_nk, labels_nk = drawn(n, classes, ties=ties)
    wanted = {"map": average_precision_score(labels_nk, logits_nk, average="macro")}
    for average in ("micro", "macro"):
        predicted, labels = (logits_nk > 0).int().numpy(), labels_nk.int().numpy()
        if classes == 1:  # which scikit-learn takes for two classes
            predicted, labels = np.hstack([predicted] * 2), np.hstack([labels] * 2)
        wanted[f"f1_{average}"] = f1_score(labels, predicted, average=average, zero_division=0.0)
    for name, value in wanted.items():
        found = METRICS[name].value(METRICS[name].contribution(logits_nk, labels_nk))
        assert found.value == pytest.approx(value, abs=1e-12), name
        assert found.n == n
    loss = METRICS["bce"].value(METRICS["bce"].contribution(logits_nk, labels_nk)).value
    assert loss == pytest.approx(float(nn.BCEWithLogitsLoss()(logits_nk.double(), labels_nk.double())), abs=1e-12)


@pytest.mark.parametrize(("n", "classes"), [(2, 2), (60, 2), (300, 12)])
def test_one_class_each(n: int, classes: int) -> None:
    """Both kinds of F1 take examples of one class each too, as scikit-learn does; ties go to the lower index."""
    labels_n, logits_nk = torch.randint(0, classes, (n,)), torch.randn(n, classes).round()
    for average in ("micro", "macro"):
        metric = METRICS[f"f1_{average}"]
        wanted = f1_score(labels_n, logits_nk.argmax(dim=1), average=average)
        assert metric.value(metric.contribution(logits_nk, labels_n)).value == pytest.approx(wanted, abs=1e-12)


def test_classes_without_an_example() -> None:
    """The mean precision is over the classes that occur; F1 over those that occur or are predicted."""
    labels_nk = torch.tensor([[1, 0, 0], [0, 0, 0]], dtype=torch.uint8)
    logits_nk = torch.tensor([[1.0, 1.0, -1.0], [-1.0, -1.0, -1.0]])
    values = {name: METRICS[name].value(METRICS[name].contribution(logits_nk, labels_nk)).value for name in METRICS_OF}
    assert values == {"map": 1.0, "f1_micro": 2 / 3, "f1_macro": 0.5}


METRICS_OF = ("map", "f1_micro", "f1_macro")


@pytest.mark.parametrize("name", METRICS_OF)
def test_resamples_equal_repeated_examples(name: str) -> None:
    """Weights that are whole numbers give the value of examples that many times over, scaled weights the same."""
    metric = METRICS[name]
    outcomes = metric.contribution(*drawn(30, 4, ties=True))
    counts_bn = torch.randint(0, 4, (5, 30))
    wanted = [metric.value(outcomes.repeat_interleave(counts_n, dim=0)).value for counts_n in counts_bn]
    for scale in (1.0, 0.25):
        found_b = metric.weighted(outcomes, counts_bn.to(torch.float64) * scale)
        assert found_b.tolist() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("name", METRICS_OF)
def test_standard_error_is_near_the_bootstrap(name: str) -> None:
    """The jackknife's error is within a fifth of the deviation over 400 resamples."""
    metric, n = METRICS[name], 250
    outcomes = metric.contribution(*drawn(n, 6))
    drawn_bn = torch.zeros(400, n, dtype=torch.float64).scatter_add_(
        1, torch.randint(n, (400, n)), torch.ones(400, n, dtype=torch.float64)
    )
    bootstrap = float(metric.weighted(outcomes, drawn_bn).std())
    assert with_error(metric, outcomes).stderr == pytest.approx(bootstrap, rel=0.2)


def test_a_nan_is_wrong_or_no_score() -> None:
    """A NaN predicts what is wrong, has no rank, and its loss is a NaN."""
    labels_nk = torch.tensor([[1, 0], [0, 1]], dtype=torch.uint8)
    logits_nk = torch.where(labels_nk == 1, 2.0, -2.0)
    logits_nk[0, 0] = math.nan
    values = {name: METRICS[name].value(METRICS[name].contribution(logits_nk, labels_nk)).value for name in METRICS_OF}
    assert (values["f1_micro"], values["f1_macro"]) == (2 / 3, 0.5)
    assert math.isnan(values["map"])
    logits_nk[0] = torch.tensor([2.0, math.nan])  # of a class that the example has not
    outcomes = METRICS["f1_micro"].contribution(logits_nk, labels_nk)
    assert METRICS["f1_micro"].value(outcomes).value == 4 / 5


def test_means_of_several() -> None:
    """`map+f1_micro` is the mean of both, over all examples and in resamples."""
    logits_nk, labels_nk = drawn(40, 3)
    both = metric_named("map+f1_micro+f1_macro")
    outcomes = both.contribution(logits_nk, labels_nk)
    parts = [METRICS[name].value(METRICS[name].contribution(logits_nk, labels_nk)).value for name in METRICS_OF]
    assert both.value(outcomes).value == pytest.approx(sum(parts) / 3, abs=1e-15)
    assert float(both.weighted(outcomes, torch.ones(1, 40, dtype=torch.float64))) == pytest.approx(sum(parts) / 3)
    assert both.measures == ("multilabel",)
    with pytest.raises(Exception, match="different kinds"):
        mean_of([METRICS["map"], METRICS["accuracy"]], "map+accuracy", key="metric")


def test_hard_examples_have_large_losses() -> None:
    """The distance of a row is its mean loss over the classes."""
    logits_nk, labels_nk = drawn(20, 4)
    distance_n = distance_of(logits_nk, labels_nk, "multilabel")
    assert distance_n.argmax() == METRICS["bce"].contribution(logits_nk, labels_nk).argmax()


def test_few_examples_of_a_class_have_no_error() -> None:
    """With fewer than five examples a class on average, mAP has a value alone; with five an error and an interval."""
    generator = torch.Generator().manual_seed(0)
    logits_nk = torch.randn(60, 2, generator=generator)
    for count in (4, 5):
        labels_nk = torch.zeros(60, 3, dtype=torch.uint8)
        labels_nk[:count, :2] = 1
        outcomes = [
            METRICS["map"].contribution(torch.cat([logits_nk + shift, logits_nk[:, :1]], dim=1), labels_nk)
            for shift in (0.0, torch.linspace(1, 0, 60)[:, None])
        ]
        assert math.isfinite(with_error(METRICS["map"], outcomes[0]).value)
        assert (with_error(METRICS["map"], outcomes[0]).stderr is None) == (count < 5)
        assert (metric_interval(METRICS["map"], *outcomes) is None) == (count < 5)
