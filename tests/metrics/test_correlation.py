"""Pearson, Spearman and squared error, held against scipy."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from soupcli.metrics.correlation import pearson, predicted_and_measured, spearman
from soupcli.metrics.standard_error import error_of_all, with_error
from soupcli.metrics.table import METRICS


def drawn(n: int, *, ties: bool = False, offset: float = 0.0) -> Tensor:
    """Predicted and measured numbers that go together somewhat."""
    measured_n = torch.randn(n, dtype=torch.float64) + offset
    logits_n1 = (measured_n + torch.randn(n, dtype=torch.float64)).float()[:, None]
    if ties:
        measured_n, logits_n1 = (2 * measured_n).round() / 2, (2 * logits_n1).round()
    return predicted_and_measured(logits_n1, measured_n)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "offset"), [(3, 0.0), (40, 0.0), (1000, 0.0), (60, 1e5)])
def test_equals_scipy(n: int, offset: float, ties: bool) -> None:
    """Also with tied numbers, and far from 0."""
    outcomes_n2 = drawn(n, ties=ties, offset=offset)
    x, y = outcomes_n2.T.numpy()
    assert pearson(outcomes_n2).value == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-9)
    assert spearman(outcomes_n2).value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize(("n", "noise"), [(50, 0.3), (400, 0.3), (400, 2.0)])
def test_standard_error(n: int, noise: float) -> None:
    """That of r from sample to sample, (1 - r^2) / sqrt(n) of normal numbers; not of the slope, which is far larger.

    It is held against the r of 200 samples. A perfect line has that of a share of 1.
    """
    generator = torch.Generator().manual_seed(n)
    found = []
    for _ in range(200):
        x_n, noise_n = torch.randn(2, n, dtype=torch.float64, generator=generator)
        found.append(with_error(METRICS["pearson"], torch.stack([x_n, x_n + noise * noise_n], dim=1)))
    values, errors = (torch.tensor(column, dtype=torch.float64) for column in list(zip(*found, strict=True))[:2])
    assert float(errors.mean()) == pytest.approx(float(values.std()), rel=0.25)
    line_n2 = torch.stack([torch.arange(n, dtype=torch.float64)] * 2, dim=1)
    assert with_error(METRICS["pearson"], line_n2).stderr == pytest.approx(2 * error_of_all(n))


@pytest.mark.parametrize("metric", ["pearson", "spearman", "mse"])
def test_order_changes_nothing(metric: str) -> None:
    """Examples in any order give the same bits."""
    outcomes = drawn(300) if metric != "mse" else torch.rand(300, dtype=torch.float64)
    value = METRICS[metric].value
    assert value(outcomes).value == value(outcomes[torch.randperm(300)]).value


@pytest.mark.parametrize(
    "numbers",
    [
        [[1.0, 2.0], [1.0, 3.0], [1.0, 4.0]],
        [[1.0, 2.0], [2.0, 2.0]],
        [[1.0, 2.0], [math.nan, 3.0]],
        [[1.0, 1.0]],
        [],
    ],
)
def test_no_correlation(numbers: list[list[float]]) -> None:
    """A constant side, a NaN or fewer than two examples: not a number, and no warning."""
    outcomes_n2 = torch.tensor(numbers, dtype=torch.float64).reshape(-1, 2)
    assert math.isnan(pearson(outcomes_n2).value)
    assert math.isnan(spearman(outcomes_n2).value)
    assert pearson(outcomes_n2).stderr is None


def test_infinities() -> None:
    """An infinity has a rank and no mean."""
    outcomes_n2 = torch.tensor([[1.0, 1.0], [2.0, 2.0], [math.inf, 3.0]], dtype=torch.float64)
    assert spearman(outcomes_n2).value == 1.0
    assert math.isnan(pearson(outcomes_n2).value)


def test_perfect() -> None:
    """Numbers on a line correlate by exactly 1 or -1; squares of differences are 0."""
    line = torch.arange(5, dtype=torch.float64)
    assert pearson(torch.stack([line, 3 * line - 7], dim=1)) == (1.0, None, 5)
    assert pearson(torch.stack([line, -line], dim=1)).value == -1.0
    assert METRICS["mse"].value(METRICS["mse"].contribution(line[:, None], line)) == (0.0, 0.0, 5)
