"""How sure a difference is: against scipy's tests, likelihood and bootstrap, and on data whose truth is known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats
from scipy.special import xlogy
from torch import Tensor

from soupcli.evaluation.loop import score_of
from soupcli.evaluation.paired_difference import (
    difference,
    exact_mcnemar,
    metric_interval,
    share_interval,
    student_t,
    tango,
)
from soupcli.evaluation.score import Score
from soupcli.metrics.metric import MetricValue, Z
from soupcli.metrics.table import METRICS, metric_named
from tests.metrics.test_standard_error import contributions


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_binomial_test(first_alone: int, second_alone: int) -> None:
    """As scipy.stats.binomtest of a fair coin; either side may be named first."""
    n = first_alone + second_alone
    expected = stats.binomtest(first_alone, n).pvalue if n else 1.0
    assert exact_mcnemar(first_alone, second_alone) == pytest.approx(expected, rel=1e-9)
    assert exact_mcnemar(first_alone, second_alone) == exact_mcnemar(second_alone, first_alone)


def test_mcnemar_of_many() -> None:
    """Exact where the terms of the sum are far beyond floating point."""
    assert exact_mcnemar(30_000, 29_500) == pytest.approx(stats.binomtest(30_000, 59_500).pvalue, rel=1e-9)
    assert exact_mcnemar(5_000, 0) == 0.0


def pairs(n: int, seed: int, *, gain: float = 0.02) -> tuple[Tensor, Tensor]:
    """Right and wrong of two networks that mostly err on the same examples; the first is better by `gain` / 5."""
    generator = torch.Generator().manual_seed(seed)
    shared_n, u_n = torch.rand(n, generator=generator) < 0.8, torch.rand(n, generator=generator)
    first_n, second_n = torch.where(u_n < 0.05 + gain, True, shared_n), torch.where(u_n > 0.95, True, shared_n)
    # right alone with probability 0.2 * (0.05 + gain), and 0.2 * 0.05
    return first_n.to(torch.uint8), second_n.to(torch.uint8)


def most_likely_share(first_alone: int, second_alone: int, n: int, delta: float) -> float:
    """Of examples that the second alone has right, if the difference is `delta`: found by search."""
    agreeing = n - first_alone - second_alone

    def loss(second_share: float) -> float:
        shares = second_share + delta, second_share, 1 - delta - 2 * second_share
        return -sum(
            float(xlogy(count, max(share, 1e-300)))
            for count, share in zip((first_alone, second_alone, agreeing), shares, strict=True)
        )

    low, high = max(0.0, -delta), (1 - delta) / 2
    found = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    return float(found.x)


@pytest.mark.parametrize("counts", [(12, 2, 50), (5, 1, 20), (3, 3, 100), (40, 10, 400), (1, 7, 30)])
def test_tango_is_a_score_test(counts: tuple[int, int, int]) -> None:
    """At both ends the difference lies 1.96 standard errors off, by a likelihood that is maximised numerically."""
    first_alone, second_alone, n = counts
    for delta, side in zip(tango(*counts), (1, -1), strict=True):
        second_share = most_likely_share(*counts, delta)
        variance = (2 * second_share + delta - delta**2) / n
        assert ((first_alone - second_alone) / n - delta) / math.sqrt(variance) == pytest.approx(side * Z, rel=1e-4)


def test_no_disagreement_says_something() -> None:
    """Where both agree on each of n examples, they may still differ on z^2 / (n + z^2) of all."""
    assert share_interval(0, 0, 50) == pytest.approx((-(Z**2) / (50 + Z**2), Z**2 / (50 + Z**2)))


@pytest.mark.parametrize("n", [5, 20, 300])
def test_interval_and_test_agree(n: int) -> None:
    """The interval leaves 0 out exactly if McNemar's p is below 0.05: of all counts up to 40."""
    for first_alone in range(min(n, 40) + 1):
        for second_alone in range(min(n - first_alone, 40) + 1):
            low, high = share_interval(first_alone, second_alone, n)
            assert (low > 0 or high < 0) == (exact_mcnemar(first_alone, second_alone) < 0.05)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 500))
def test_properties(first_alone: int, second_alone: int, agreeing: int) -> None:
    """The interval holds the difference, stays within -1 and 1, is never a point, and is mirrored by an exchange."""
    n = first_alone + second_alone + agreeing
    if n == 0:
        return
    low, high = share_interval(first_alone, second_alone, n)
    assert -1 <= low <= (first_alone - second_alone) / n <= high <= 1
    assert low < high
    assert share_interval(second_alone, first_alone, n) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize("freedom", [1, 2, 5, 10, 11, 20, 100, 10_000])
def test_student(freedom: int) -> None:
    """As scipy's."""
    assert student_t(freedom) == pytest.approx(float(stats.t.ppf(0.975, freedom)), rel=3e-4)


@pytest.mark.parametrize("name", ["nll", "mse", "f1", "mcc", "pearson", "spearman", "perplexity"])
def test_near_scipys_bootstrap(name: str) -> None:
    """Of many examples the interval is scipy's paired percentile interval, or a little wider."""
    n, metric = 800, METRICS[name]
    first, second = contributions(name, n, seed=1), contributions(name, n, seed=1, confidence=1.2)
    if not metric.counts:
        first, second = contributions(name, n, seed=1), contributions(name, n, seed=2)

    def gain(indices: object) -> float:
        rows = torch.as_tensor(indices)
        return metric.value(first[rows]).value - metric.value(second[rows]).value

    if metric.counts:
        swapped = torch.randperm(n, generator=torch.Generator().manual_seed(0))[:60]
        second[swapped, 0] = (second[swapped, 0] + 1) % 3
    drawn = stats.bootstrap((range(n),), gain, n_resamples=400, vectorized=False, method="percentile", rng=0)
    found = metric_interval(metric, first, second)
    assert found is not None
    width = drawn.confidence_interval.high - drawn.confidence_interval.low
    assert found == pytest.approx(tuple(drawn.confidence_interval), abs=width / 5)
    assert 0.9 * width < found[1] - found[0] < 1.3 * width


def heavy(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Losses of overconfident networks: nearly 0, and large now and then."""
    shared_n, one_n, other_n = torch.randn(3, n, generator=generator, dtype=torch.float64)
    margins = (10 * (1.5 + 0.98 * shared_n + 0.2 * each_n) for each_n in (one_n, other_n))
    first_n, second_n = (torch.nn.functional.softplus(-margin_n) for margin_n in margins)
    return first_n, second_n


@pytest.mark.parametrize("n", [20, 50, 200])
def test_coverage_of_heavy_tails(n: int) -> None:
    """Intervals of overconfident losses hold the true difference, 0, in at least 90% of samples."""
    generator = torch.Generator().manual_seed(n)
    found = [metric_interval(METRICS["nll"], *heavy(n, generator)) for _ in range(200)]
    assert sum(interval is not None and interval[0] <= 0 <= interval[1] for interval in found) >= 180


@pytest.mark.parametrize("n", [50, 100, 200, 1000])
def test_coverage_of_a_one_sided_gain(n: int) -> None:
    """One network is right on a further 1% of examples and never wrong alone: intervals hold that point."""
    generator, inside = torch.Generator().manual_seed(n), 0
    for _ in range(300):
        first_alone = int((torch.rand(n, generator=generator) < 0.01).sum())
        low, high = share_interval(first_alone, 0, n)
        inside += low <= 0.01 <= high
    assert inside >= 0.9 * 300


def test_the_same_outcomes() -> None:
    """The same right and wrong examples say that p is 1, not that there is no difference; the same losses say that."""
    outcomes = {"accuracy": pairs(200, 0)[0], "nll": contributions("nll", 200)}
    score = score_of(outcomes, "accuracy", examples=200)
    value, low, high, p = difference(score, score, "accuracy")
    assert (value, p) == (0.0, 1.0)
    assert low is not None and high is not None
    assert low < 0 < high
    assert difference(score, score, "nll") == (0.0, 0.0, 0.0, None)


@pytest.mark.parametrize("name", ["f1", "mcc", "accuracy+f1", "f1_micro", "f1_macro"])
def test_no_class_is_told_apart(name: str) -> None:
    """Networks that predict the same classes may still differ on others: the interval is no point."""
    metric = metric_named(name)
    labels_n = torch.arange(30) % 3
    outcomes = metric.contribution(torch.eye(3)[labels_n], labels_n)
    low, high = metric_interval(metric, outcomes, outcomes) or (0.0, 0.0)
    assert -0.6 < low < -0.05 and 0.05 < high < 0.6


@pytest.mark.parametrize("name", ["map", "spearman", "mcc"])
def test_nothing_moves_the_value(name: str) -> None:
    """Two orders without an error, or one class alone, say little of other examples: the interval is no point."""
    metric, order_n = metric_named(name), torch.arange(40, dtype=torch.float64)
    labels = (order_n >= 20).to(torch.uint8)[:, None] if name == "map" else order_n
    logits_nk = order_n[:, None]
    if name == "mcc":
        labels, logits_nk = torch.zeros(40, dtype=torch.long), torch.stack([order_n - 20, -order_n], dim=1)
    one, other = (metric.contribution(each_nk, labels) for each_nk in (logits_nk, 2 * logits_nk))
    found, again = (score_of({name: each}, name, examples=40) for each in (one, other))
    interval = difference(found, again, name)
    assert interval.low is not None and interval.high is not None
    assert -0.5 < interval.low < -0.05 and 0.05 < interval.high < 0.5
    assert (found.metrics[name].stderr or 0.0) > 0.02


def test_a_score() -> None:
    """Difference, interval and p of two scores; p of right and wrong ones alone."""
    first, second = pairs(2000, 0, gain=0.1)
    losses = contributions("nll", 2000)
    one = score_of({"accuracy": first, "nll": losses}, "accuracy", examples=2000)
    other = score_of({"accuracy": second, "nll": losses + 0.1}, "accuracy", examples=2000)
    found = difference(one, other, "accuracy")
    assert found.value == one.value - other.value
    assert found.low is not None and found.high is not None
    assert found.low < found.value < found.high
    alone = int((first > second).sum()), int((first < second).sum())
    assert found.p == pytest.approx(stats.binomtest(alone[0], sum(alone)).pvalue)
    of_means = difference(one, other, "nll")
    assert of_means.p is None
    assert of_means.low is not None and of_means.high is not None
    assert of_means.low < -0.1 < of_means.high < 0


@pytest.mark.parametrize(
    "other",
    [
        Score({"accuracy": MetricValue(0.5, None, None)}, "accuracy", True, 0, {}),
        score_of({"accuracy": pairs(150, 0)[0]}, "accuracy", examples=150),
    ],
    ids=["no outcomes", "fewer outcomes"],
)
def test_nothing_to_pair(other: Score) -> None:
    """Without outcomes of the same examples there is the difference alone."""
    score = score_of({"accuracy": pairs(200, 0)[0]}, "accuracy", examples=200)
    assert difference(score, other, "accuracy") == (score.value - other.value, None, None, None)


def test_one_example() -> None:
    """Two networks that agree on the only example are not known to be equal; of a loss nothing is known."""
    right = torch.ones(1, dtype=torch.uint8)
    score = score_of({"accuracy": right, "nll": torch.ones(1)}, "accuracy", examples=1)
    found = difference(score, score, "accuracy")
    assert found.low is not None and found.high is not None and found.low < -0.5 < 0.5 < found.high and found.p == 1
    assert difference(score, score, "nll")[1:] == (None, None, None)


def test_not_a_number() -> None:
    """A score that is not a number has no interval."""
    bad = score_of({"nll": torch.tensor([math.nan, 1.0])}, "nll", examples=2)
    good = score_of({"nll": torch.tensor([2.0, 1.0], dtype=torch.float64)}, "nll", examples=2)
    assert math.isnan(difference(bad, good, "nll").value)
    assert difference(bad, good, "nll")[1:] == (None, None, None)
