"""Standard errors of metrics without a formula: against formulas where there are some, and scipy's bootstrap."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from soupcli.evaluation import loop as in_process
from soupcli.metrics.metric import Z
from soupcli.metrics.standard_error import infinitesimal_jackknife, with_error
from soupcli.metrics.table import METRICS

CLASSES = ("accuracy", "top5", "nll", "ece", "f1", "mcc")


def contributions(name: str, n: int, *, classes: int = 3, seed: int = 0, confidence: float = 1.0) -> Tensor:
    """What n examples contribute to a metric, of a network that is right now and then."""
    generator = torch.Generator().manual_seed(seed)
    if name == "perplexity":
        tokens_n = torch.randint(1, 9, (n,), generator=generator)
        return torch.stack([tokens_n * torch.rand(n, generator=generator), tokens_n], dim=1).double()
    if name in CLASSES:
        labels_n = torch.randint(0, classes, (n,), generator=generator)
        logits_nk = torch.randn(n, classes, generator=generator)
        logits_nk[torch.arange(n), labels_n] += 1.0
        logits_nk *= confidence
        return METRICS[name].contribution(logits_nk, labels_n)
    if "multilabel" in METRICS[name].measures:
        labels_nk = torch.randint(0, 2, (n, classes), generator=generator, dtype=torch.uint8)
        return METRICS[name].contribution(torch.randn(n, classes, generator=generator) + labels_nk, labels_nk)
    numbers_n = torch.randn(n, generator=generator, dtype=torch.float64)
    predicted_n1 = (numbers_n + torch.randn(n, generator=generator, dtype=torch.float64))[:, None]
    return METRICS[name].contribution(predicted_n1, numbers_n)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("seed", range(4))
def test_weights_are_counts(name: str, seed: int) -> None:
    """With weights 1 the weighted value is the metric's own; with whole weights, that of examples so often repeated."""
    metric, outcomes = METRICS[name], contributions(name, 40, classes=2 + seed, seed=seed)
    counts_bn = torch.randint(0, 4, (5, 40), generator=torch.Generator().manual_seed(seed))
    found_b = metric.weighted(outcomes, torch.cat([torch.ones(1, 40), counts_bn]).double())
    wanted = [outcomes, *(outcomes.repeat_interleave(counts_n, dim=0) for counts_n in counts_bn)]
    assert found_b.tolist() == pytest.approx([metric.value(repeated).value for repeated in wanted], rel=1e-9)


@pytest.mark.parametrize("name", METRICS)
def test_weights_have_no_unit(name: str) -> None:
    """What the jackknife stands on: all weights times one number change nothing."""
    outcomes, weights_1n = contributions(name, 50), torch.rand(1, 50, dtype=torch.float64)
    weighted = METRICS[name].weighted
    assert weighted(outcomes, 7.3 * weights_1n).item() == pytest.approx(weighted(outcomes, weights_1n).item(), rel=1e-9)


def test_of_a_share() -> None:
    """Of a share it is the binomial standard error."""
    correct_n = contributions("accuracy", 300)
    p = correct_n.double().mean().item()
    found = infinitesimal_jackknife(METRICS["accuracy"].weighted, correct_n)
    assert found == pytest.approx(math.sqrt(p * (1 - p) / 300), rel=1e-12)


@pytest.mark.parametrize("name", ["nll", "mse", "perplexity"])
def test_of_means(name: str) -> None:
    """Of means it is their own standard error but for n - 1; of perplexity that by the delta method."""
    metric, outcomes = METRICS[name], contributions(name, 300)
    expected = metric.value(outcomes).stderr
    assert expected is not None
    assert infinitesimal_jackknife(metric.weighted, outcomes) == pytest.approx(
        expected * math.sqrt(299 / 300), rel=1e-9
    )


def bootstrapped(name: str, outcomes: Tensor) -> float:
    """scipy's standard error."""

    def value(indices: object) -> float:
        return METRICS[name].value(outcomes[torch.as_tensor(indices)]).value

    n = len(outcomes)
    drawn = stats.bootstrap((range(n),), value, n_resamples=300, vectorized=False, method="percentile", rng=0)
    return float(drawn.standard_error)


@pytest.mark.parametrize("name", ["ece", "f1", "mcc", "pearson", "spearman"])
@pytest.mark.parametrize("classes", [2, 4])
def test_equals_the_bootstrap(name: str, classes: int) -> None:
    """Within a tenth of what scipy's bootstrap draws."""
    outcomes = contributions(name, 2000, classes=classes, confidence=3.0)
    found = infinitesimal_jackknife(METRICS[name].weighted, outcomes)
    assert found == pytest.approx(bootstrapped(name, outcomes), rel=0.1)


def test_of_a_calibrated_network() -> None:
    """Where bins have hardly a gap, whose sign is chance, the error of the calibration error is rather too large."""
    outcomes = contributions("ece", 2000)
    found, drawn = infinitesimal_jackknife(METRICS["ece"].weighted, outcomes), bootstrapped("ece", outcomes)
    assert found is not None
    assert drawn < found < 2 * drawn


@pytest.mark.parametrize("name", METRICS)
def test_every_score_has_one(name: str) -> None:
    """An evaluation gives each metric a standard error, also of outcomes that were made without gradients."""
    with torch.inference_mode():
        outcomes = contributions(name, 60, classes=7)
    error = in_process.score_of({name: outcomes}, name, examples=60).metrics[name].stderr
    assert error is not None and error > 0


@pytest.mark.parametrize("name", ["f1", "mcc", "ece", "spearman"])
def test_where_there_is_none(name: str) -> None:
    """One example has none, and neither has what is not a number."""
    assert with_error(METRICS[name], contributions(name, 1)).stderr is None
    if name == "spearman":
        constant = torch.ones(5, 2, dtype=torch.float64)
        assert with_error(METRICS[name], constant).stderr is None


@pytest.mark.parametrize(("name", "span"), [("accuracy", 1.0), ("f1", 1.0), ("mcc", 2.0)])
@pytest.mark.parametrize("n", [2, 20, 1000])
def test_all_right(name: str, span: float, n: int) -> None:
    """Of n right ones of n, 1.96 standard errors reach the far end of Wilson's interval of the share."""
    labels_n = torch.arange(n) % 2
    outcomes = METRICS[name].contribution(torch.eye(2)[labels_n], labels_n)
    found = with_error(METRICS[name], outcomes)
    low = stats.binomtest(n, n).proportion_ci(method="wilson").low
    assert found == (1.0, pytest.approx(span * (1 - low) / Z, rel=1e-9), n)


@pytest.mark.parametrize("right", [0, 1])
def test_one_example(right: int) -> None:
    """One example says hardly anything, which is not 0."""
    found = with_error(METRICS["accuracy"], torch.tensor([right], dtype=torch.uint8))
    assert found == (float(right), pytest.approx(0.405, abs=1e-3), 1)
