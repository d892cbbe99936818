"""Expected calibration error, held against torchmetrics and against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torchmetrics.functional.classification import multiclass_calibration_error

from soupcli.metrics.calibration import BINS, confidence_and_right, expected_calibration_error, surplus
from soupcli.metrics.table import METRICS


@pytest.mark.parametrize(("n", "classes", "sharp"), [(1, 2, 1.0), (50, 2, 0.5), (400, 10, 3.0), (300, 3, 0.01)])
def test_equals_torchmetrics(n: int, classes: int, sharp: float) -> None:
    """15 equal bins give what torchmetrics gives for the same probabilities."""
    logits_nk = sharp * torch.randn(n, classes, dtype=torch.float64)
    labels_n = torch.randint(0, classes, (n,))
    found = expected_calibration_error(confidence_and_right(logits_nk, labels_n))
    wanted = multiclass_calibration_error(logits_nk.softmax(dim=1), labels_n, classes, n_bins=BINS, norm="l1")
    assert found.value == pytest.approx(wanted.item(), abs=1e-6)
    assert (found.stderr, found.n) == (None, n)


def test_by_hand() -> None:
    """Two examples in one bin, one in another: each bin's gap, weighted by its examples; the upper edge is inside."""
    outcomes_n2 = torch.tensor([[0.61, 1.0], [0.65, 0.0], [0.8, 1.0]], dtype=torch.float64)
    assert expected_calibration_error(outcomes_n2).value == pytest.approx((0.26 + 0.2) / 3, abs=1e-15)
    edge = torch.tensor([[1 / 15, 1.0], [2 / 15, 0.0]], dtype=torch.float64)
    assert expected_calibration_error(edge).value == pytest.approx((14 / 15 + 2 / 15) / 2, abs=1e-15)


def test_certain_and_right() -> None:
    """A network that is always sure and right is calibrated; always sure and wrong is off by 1."""
    logits_nk = torch.tensor([[1e4, 0.0], [1e4, 0.0]])
    for label, value in ((0, 0.0), (1, 1.0)):
        outcomes = confidence_and_right(logits_nk, torch.tensor([label, label]))
        assert expected_calibration_error(outcomes).value == value


def test_no_number() -> None:
    """A NaN among the logits is a NaN of the whole; so is an empty set."""
    outcomes = confidence_and_right(torch.tensor([[math.nan, 0.0], [1.0, 0.0]]), torch.tensor([0, 0]))
    assert math.isnan(expected_calibration_error(outcomes).value)
    assert math.isnan(expected_calibration_error(torch.empty(0, 2, dtype=torch.float64)).value)


def test_lower_is_better() -> None:
    """It falls as networks get better, and a part of the set says nothing of the whole."""
    assert not METRICS["ece"].higher_is_better
    assert METRICS["ece"].reachable is None


@pytest.mark.parametrize("gap", [0.0, 0.02, 0.3])
def test_surplus_is_the_folded_normals(gap: float) -> None:
    """What chance adds to a gap without its sign: scipy's mean of the folded normal less the gap that was seen."""
    right_n = (torch.arange(200) < 170).to(torch.float64)  # 85% right, all in one bin
    outcomes_n2 = torch.stack([torch.full((200,), 0.85 + gap / 3, dtype=torch.float64), right_n], dim=1)
    gap_n = outcomes_n2[:, 1] - outcomes_n2[:, 0]
    error = math.sqrt(float(gap_n.square().sum()))
    seen = abs(float(gap_n.sum()))
    wanted = stats.foldnorm.mean(seen / error, scale=error) - seen
    assert surplus(outcomes_n2) == pytest.approx(wanted / 200, rel=1e-9)
    assert surplus(torch.cat([outcomes_n2] * 4)) < surplus(outcomes_n2)
