"""F1 and Matthews correlation, held against scikit-learn."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from sklearn.metrics import f1_score, matthews_corrcoef
from torch import Tensor

from soupcli.metrics.f1_mcc import NO_CLASS, best_f1, f1, matthews, predicted_and_true
from soupcli.metrics.table import METRICS

CASES = [(2, 2), (7, 2), (200, 2), (5, 3), (90, 3), (300, 12), (6, 40)]


def drawn(n: int, classes: int, *, skill: float = 1.0) -> tuple[Tensor, Tensor]:
    labels_n = torch.randint(0, classes, (n,))
    return torch.randn(n, classes) + skill * torch.eye(classes)[labels_n], labels_n


@pytest.mark.parametrize(("n", "classes"), CASES)
def test_f1_equals_scikit_learn(n: int, classes: int) -> None:
    """Of class 1 where the network has two, else the mean over the classes that occur in labels or predictions."""
    logits_nk, labels_n = drawn(n, classes)
    average = "binary" if classes == 2 else "macro"
    wanted = f1_score(labels_n, logits_nk.argmax(dim=1), average=average, zero_division=0.0)
    found = f1(predicted_and_true(logits_nk, labels_n))
    assert found.value == pytest.approx(wanted, abs=1e-15)
    assert (found.stderr, found.n) == (None, n)


@pytest.mark.parametrize(("n", "classes"), CASES)
def test_matthews_equals_scikit_learn(n: int, classes: int) -> None:
    """Two classes and many."""
    logits_nk, labels_n = drawn(n, classes)
    wanted = matthews_corrcoef(labels_n, logits_nk.argmax(dim=1))
    assert matthews(predicted_and_true(logits_nk, labels_n)).value == pytest.approx(wanted, abs=1e-14)


@pytest.mark.parametrize("constant", [0, 1])
def test_one_class_alone(constant: int) -> None:
    """Where everything is one class there is no correlation, and F1 is 0 without a positive."""
    labels_n = torch.full((4,), constant)
    outcomes = predicted_and_true(torch.eye(2)[labels_n], labels_n)
    assert matthews(outcomes).value == 0.0
    assert f1(outcomes).value == float(constant)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_nan_is_wrong(classes: int) -> None:
    """An example with a NaN counts like one with a wrong answer, whatever its label."""
    labels_n = torch.arange(6) % classes
    right = torch.eye(classes)[labels_n]
    for spoilt in range(6):
        broken, wrong = right.clone(), right.clone()
        broken[spoilt, 0] = math.nan
        wrong[spoilt] = torch.eye(classes)[(labels_n[spoilt] + 1) % classes]
        found, outcomes = f1(predicted_and_true(broken, labels_n)).value, predicted_and_true(wrong, labels_n)
        assert found < 1.0
        if classes == 2:
            assert found == f1(outcomes).value
        assert predicted_and_true(broken, labels_n)[spoilt, 0] == NO_CLASS
        assert matthews(predicted_and_true(broken, labels_n)).value < 1.0


def test_ties_go_to_the_first() -> None:
    """Equal logits are decided as argmax decides them."""
    logits_nk = torch.randint(0, 3, (200, 4)).float()
    predicted_n = predicted_and_true(logits_nk, torch.zeros(200, dtype=torch.int64))[:, 0]
    assert torch.equal(predicted_n, logits_nk.argmax(dim=1))


@pytest.mark.parametrize(("n", "classes"), [(6, 2), (5, 3)])
def test_best_f1(n: int, classes: int) -> None:
    """Of all outcomes of the unseen examples none is better than what is called reachable, and one is as good."""
    logits_nk, labels_n = drawn(n, classes, skill=0.5)
    outcomes = predicted_and_true(logits_nk, labels_n)
    for seen in range(n + 1):
        reachable = best_f1(outcomes[:seen], labels_n[seen:])
        found = []
        for choice in product(range(classes), repeat=n - seen):
            rest = [[answer, label, classes] for answer, label in zip(choice, labels_n[seen:].tolist(), strict=True)]
            whole = torch.cat([outcomes[:seen], torch.tensor(rest, dtype=torch.int64).reshape(-1, 3)])
            found.append(f1(whole).value)
        assert max(found) <= reachable
        assert seen == 0 or max(found) == reachable


def test_empty() -> None:
    """An empty set has no score."""
    nothing = torch.empty(0, 3, dtype=torch.int64)
    assert math.isnan(f1(nothing).value)
    assert math.isnan(matthews(nothing).value)
    assert METRICS["f1"].higher_is_better and METRICS["mcc"].higher_is_better
