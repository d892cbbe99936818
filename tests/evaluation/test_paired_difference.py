"""How sure a difference is: against scipy's tests and bootstrap, and on data whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from soupcli.evaluation import paired_difference as paired
from soupcli.evaluation.loop import score_of
from soupcli.evaluation.paired_difference import bootstrap_interval, difference, exact_mcnemar
from soupcli.evaluation.score import Score
from soupcli.metrics.metric import MetricValue
from soupcli.metrics.table import METRICS
from tests.metrics.test_standard_error import contributions

MEAN = METRICS["nll"].weighted
SHARE = METRICS["accuracy"].weighted


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


@pytest.mark.parametrize("name", ["accuracy", "nll", "mcc", "pearson", "spearman"])
def test_equals_scipys_bootstrap(name: str) -> None:
    """The interval is scipy's paired percentile interval, up to what both draw by chance."""
    n, metric = 400, METRICS[name]
    first, second = contributions(name, n, seed=1), contributions(name, n, seed=2)
    if name == "accuracy":
        first, second = pairs(n, 0)

    def gain(indices: object) -> float:
        rows = torch.as_tensor(indices)
        return metric.value(first[rows]).value - metric.value(second[rows]).value

    drawn = stats.bootstrap((range(n),), gain, n_resamples=1000, vectorized=False, method="percentile", rng=0)
    found = bootstrap_interval(metric.weighted, first, second)
    assert found is not None
    width = drawn.confidence_interval.high - drawn.confidence_interval.low
    assert found == pytest.approx(tuple(drawn.confidence_interval), abs=width / 12)


@pytest.mark.parametrize("name", ["accuracy", "nll"])
def test_coverage(name: str) -> None:
    """Of 95% intervals of simulated data about 95% hold the true difference."""
    inside, times, n = 0, 400, 300
    for seed in range(times):
        if name == "accuracy":
            first, second = pairs(n, seed, gain=0.1)
            truth = 0.2 * 0.1
        else:
            generator = torch.Generator().manual_seed(seed)
            first = torch.randn(n, generator=generator, dtype=torch.float64).exp()
            second, truth = first + torch.randn(n, generator=generator, dtype=torch.float64) - 0.3, 0.3
        interval = bootstrap_interval(METRICS[name].weighted, first, second, draws=400, seed=seed)
        assert interval is not None
        inside += interval[0] <= truth <= interval[1]
    assert 0.92 <= inside / times <= 0.98


def test_kinds_and_examples_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting kinds of examples is drawing the examples themselves."""
    first, second = pairs(500, 3)
    by_kind = bootstrap_interval(SHARE, first, second, draws=20_000)
    monkeypatch.setattr(paired, "FEW", 0)
    one_by_one = bootstrap_interval(SHARE, first, second, draws=20_000)
    assert by_kind is not None and one_by_one is not None
    assert by_kind == pytest.approx(one_by_one, abs=0.002)


def test_parts_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many examples are drawn at a time changes the draws and not what they say."""
    first, second = contributions("nll", 200, seed=1), contributions("nll", 200, seed=2)
    whole = bootstrap_interval(MEAN, first, second)
    monkeypatch.setattr(paired, "AT_ONCE", 200 * 7)
    parts = bootstrap_interval(MEAN, first, second)
    assert whole is not None
    assert parts == pytest.approx(whole, abs=(whole[1] - whole[0]) / 15)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60), st.integers(0, 99))
def test_properties(rows: list[tuple[bool, bool]], seed: int) -> None:
    """Low is not above high, both are possible differences, the seed says which, and exchanging mirrors the median."""
    first, second = torch.tensor(rows, dtype=torch.uint8).unbind(dim=1)
    found = bootstrap_interval(SHARE, first, second, draws=60, seed=seed)
    assert found is not None
    low, high = found
    assert -1 <= low <= high <= 1
    assert bootstrap_interval(SHARE, first, second, draws=60, seed=seed) == found
    if bool((first >= second).all()):
        assert low >= 0


def test_the_same_weights() -> None:
    """Nothing differs: the interval is 0 to 0, and p is 1."""
    score = score_of({"accuracy": pairs(200, 0)[0]}, "accuracy", examples=200)
    assert difference(score, score, "accuracy") == (0.0, 0.0, 0.0, 1.0)


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
    assert (of_means.low, of_means.high) == pytest.approx((-0.1, -0.1))


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


def test_not_a_number() -> None:
    """A score that is not a number has no interval."""
    bad = score_of({"nll": torch.tensor([math.nan, 1.0])}, "nll", examples=2)
    good = score_of({"nll": torch.tensor([2.0, 1.0], dtype=torch.float64)}, "nll", examples=2)
    assert math.isnan(difference(bad, good, "nll").value)
    assert difference(bad, good, "nll")[1:] == (None, None, None)


def test_binomial_draws() -> None:
    """Kinds are drawn as numpy's multinomial draws them: means and variances agree, and rows sum to all."""
    counts_k = torch.tensor([50, 0, 30, 20])
    [drawn] = paired._resamples(counts_k, 20_000, 0)
    assert bool((drawn.sum(dim=1) == 100).all())
    expected = np.random.default_rng(0).multinomial(100, [0.5, 0, 0.3, 0.2], size=20_000)
    assert drawn.mean(dim=0).tolist() == pytest.approx(expected.mean(axis=0).tolist(), abs=0.1)
    assert drawn.var(dim=0).tolist() == pytest.approx(expected.var(axis=0).tolist(), rel=0.05)
