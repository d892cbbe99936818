"""The split by class, and logits of any examples in batches that fit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from soupcli.datasets.examples import ArrayExamples, TokenExamples
from soupcli.datasets.holdout import split_by_class
from soupcli.errors import NetworkError, ValidationError
from soupcli.evaluation.labelled_set import LabelledSet
from tests.helpers.learned_toys import CPU


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=8, max_size=80), st.sampled_from([0.1, 0.2, 0.35, 0.5]), st.integers(0, 9))
def test_split(labels: list[int], share: float, seed: int) -> None:
    """Both parts together are everything once; each class gives its share, and so does the whole."""
    labels_n = torch.tensor(labels)
    stay, out = split_by_class(labels_n, share, seed=seed)
    assert torch.equal(torch.cat([stay, out]).sort().values, torch.arange(len(labels)))
    assert torch.equal(stay, stay.sort().values) and torch.equal(out, out.sort().values)
    assert abs(len(out) - share * len(labels)) <= 0.5
    for label in set(labels):
        assert abs(int((labels_n[out] == label).sum()) - share * labels.count(label)) <= 1
    assert all(torch.equal(a, b) for a, b in zip((stay, out), split_by_class(labels_n, share, seed=seed), strict=True))


def test_seeds_differ() -> None:
    """Another seed holds out others."""
    labels_n = torch.arange(100) % 5
    assert not torch.equal(split_by_class(labels_n, 0.2, seed=0)[1], split_by_class(labels_n, 0.2, seed=1)[1])


@pytest.mark.parametrize(("count", "share"), [(1, 0.5), (2, 0.1), (3, 0.9)])
def test_empty_part(count: int, share: float) -> None:
    """A set that is too small to be divided is refused with both numbers."""
    with pytest.raises(ValidationError, match=rf"learned\.holdout: {share} of {count} examples? leaves one part empty"):
        split_by_class(torch.zeros(count, dtype=torch.int64), share, seed=0)


def test_logits() -> None:
    """Those of the network's present weights, with a gradient."""
    net = nn.Linear(3, 2)
    inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    task = LabelledSet(ArrayExamples(inputs, torch.tensor([0, 1, 0, 1, 0]), "x"), lambda: net, "val.v", CPU, 2)
    chosen = torch.tensor([4, 1])
    logits_nc = task.logits(chosen)
    assert torch.equal(logits_nc, net(inputs[chosen]))
    logits_nc.sum().backward()
    assert net.weight.grad is not None
    with torch.no_grad():
        net.weight.zero_()
    assert torch.equal(task.logits(chosen), net.bias.expand(2, 2))


def test_batches_follow_the_sets_order() -> None:
    """As many as go through the network at once, the longest first; each of them once."""
    starts = torch.tensor([0, 1, 4, 6, 10])
    examples = TokenExamples({"input_ids": torch.arange(10)}, starts, torch.zeros(4, dtype=torch.int64), "x", {})
    task = LabelledSet(examples, lambda: nn.Identity(), "val.v", CPU, 2)
    assert [part.tolist() for part in task.batches(torch.tensor([0, 1, 3]))] == [[3, 1], [0]]


def test_what_does_not_go_together() -> None:
    """Labels that the network has no logit for, and a network that fails, are errors of the set by its name."""
    inputs = torch.zeros(2, 3)
    task = LabelledSet(ArrayExamples(inputs, torch.tensor([0, 5]), "x"), lambda: nn.Linear(3, 2), "val.v", CPU, 2)
    with pytest.raises(ValidationError, match=r"val\.v: labels reach from 0 to 5, the network has 2 classes"):
        task.logits(torch.arange(2))
    task = LabelledSet(ArrayExamples(inputs, torch.tensor([0, 1]), "x"), lambda: nn.Linear(4, 2), "val.v", CPU, 2)
    with pytest.raises(NetworkError, match=r"val\.v: the network fails on a batch \[2, 3\]"):
        task.logits(torch.arange(2))


def test_parts_of_like_length() -> None:
    """On the CPU texts go in quarters of a batch, so that a short one is not padded to the longest of all."""
    lengths = torch.arange(1, 65)[torch.randperm(64, generator=torch.Generator().manual_seed(0))]
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    columns = {"input_ids": torch.ones(int(starts[-1]), dtype=torch.int64)}
    examples = TokenExamples(columns, starts, torch.zeros(64, dtype=torch.int64), "x", {}, False)
    parts = list(LabelledSet(examples, lambda: nn.Identity(), "val", CPU, 64).batches(torch.arange(64)))
    assert [int(lengths[part].max()) for part in parts] == [64, 48, 32, 16]
    assert sorted(torch.cat(parts).tolist()) == list(range(64))
