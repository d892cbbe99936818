"""`accuracy+f1`: the mean of metrics is that of their values, in any batches, and what bounds them bounds it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor

from soupcli.errors import ValidationError
from soupcli.metrics.standard_error import with_error
from soupcli.metrics.table import metric_named

FEW = settings(max_examples=60, deadline=None)


def drawn(n: int, seed: int, classes: int = 2) -> tuple[Tensor, Tensor]:
    """Logits and labels of n examples."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, classes, generator=generator), torch.randint(0, classes, (n,), generator=generator)


@FEW
@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_as_glue_scores_mrpc(n: int, seed: int) -> None:
    """The mean of scikit-learn's accuracy and F1, which is how the GLUE benchmark scores MRPC."""
    logits, labels = drawn(n, seed)
    metric = metric_named("accuracy+f1")
    found = metric.value(metric.contribution(logits, labels))
    guessed = logits.argmax(dim=1)
    wanted = (accuracy_score(labels, guessed) + f1_score(labels, guessed, zero_division=0)) / 2
    assert (found.value, found.n) == (pytest.approx(wanted, rel=1e-12), n)


def test_standard_error() -> None:
    """The error is that of the mean itself, close to what resampling the set gives."""
    logits, labels = drawn(400, 5)
    metric = metric_named("accuracy+f1")
    outcomes = metric.contribution(logits, labels)
    generator = torch.Generator().manual_seed(0)
    drawn_again = [torch.randint(0, 400, (400,), generator=generator) for _ in range(800)]
    spread = torch.tensor([metric.value(outcomes[indices]).value for indices in drawn_again]).std()
    assert with_error(metric, outcomes).stderr == pytest.approx(float(spread), rel=0.1)


@FEW
@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_a_part_bounds_the_whole(n: int, seed: int, share: float) -> None:
    """Whatever comes after the part that was seen, the whole is not better than what is called reachable."""
    logits, labels = drawn(n, seed)
    metric, seen = metric_named("accuracy+f1"), int(share * n)
    assert metric.reachable is not None
    outcomes = metric.contribution(logits, labels)
    assert metric.value(outcomes).value <= metric.reachable(outcomes[:seen], labels[seen:])
    assert metric.reachable(outcomes, labels[n:]) == pytest.approx(metric.value(outcomes).value, rel=1e-12)


def test_of_other_kinds() -> None:
    """Three parts; one without a bound, which leaves the mean without; numbers, as GLUE scores STS-B."""
    logits, labels = drawn(30, 3, classes=6)
    three = metric_named("top5 + accuracy + mcc")
    parts = [metric_named(name) for name in ("top5", "accuracy", "mcc")]
    wanted = sum(part.value(part.contribution(logits, labels)).value for part in parts) / 3
    assert three.value(three.contribution(logits, labels)).value == pytest.approx(wanted, rel=1e-12)
    assert three.reachable is None
    numbers, predicted = torch.linspace(0, 5, 30, dtype=torch.float64).square(), logits[:, :1]
    both = metric_named("pearson+spearman")
    value = both.value(both.contribution(predicted, numbers)).value
    x, y = predicted[:, 0].double(), numbers
    assert value == pytest.approx((stats.pearsonr(x, y).statistic + stats.spearmanr(x, y).statistic) / 2, rel=1e-9)


def test_label_kinds() -> None:
    """A mean measures what all of its parts measure: several right classes are nothing for F1."""
    assert metric_named("accuracy+top5").measures == ("classes", "several")
    assert metric_named("accuracy+f1").measures == ("classes",)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("accuracy+ff1", "metric: 'ff1' is not known, did you mean 'f1'"),
        ("accuracy+", "metric: '' is not known"),
        ("accuracy+nll", r"metric: 'accuracy\+nll': a mean is of metrics that are better when higher"),
        ("nll+mse", r"metric: 'nll\+mse': a mean is of metrics that are better when higher"),
        ("accuracy+pearson", r"metric: 'accuracy\+pearson': its parts measure labels of different kinds"),
    ],
)
def test_refused(name: str, message: str) -> None:
    """Parts that nobody knows, of opposite directions, or of labels of different kinds."""
    with pytest.raises(ValidationError, match=message):
        metric_named(name)
