"""An evaluation that may be given up decides as the whole one does, for every metric and any outcomes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from soupcli.datasets.class_map import ClassMap
from soupcli.datasets.examples import ArrayExamples, TokenExamples, hardest_batches_first
from soupcli.datasets.tokens import TokenWindows
from soupcli.evaluation import loop as in_process
from soupcli.evaluation.batches import BatchSize
from soupcli.evaluation.score import Score, goodness_of
from soupcli.metrics.metric import LabelKind
from soupcli.metrics.table import METRICS

CPU = torch.device("cpu")
BOUNDED = [name for name, metric in METRICS.items() if metric.reachable is not None]
UNBOUNDED = [name for name in METRICS if name not in BOUNDED]


class Told:
    """Examples whose inputs are what the network gives for them."""

    classes = None
    fingerprint = ""
    alike = True

    def __init__(self, logits: Tensor, labels: Tensor, kind: LabelKind) -> None:
        self.logits, self.labels, self.kind = logits, labels, kind

    def order(self, difficulty: Tensor | None = None) -> Tensor:
        order = torch.arange(len(self.labels))
        return order if difficulty is None else order[difficulty.argsort(descending=True, stable=True)]

    def batch(self, indices: Tensor, device: torch.device) -> Tensor:
        return self.logits[indices]


def drawn(name: str, n: int, seed: int, *, several: bool = False) -> Told:
    """Random outcomes of a metric; ties, infinite losses and a NaN among them."""
    generator = torch.Generator().manual_seed(seed)
    if name == "perplexity":
        tokens_n = torch.randint(1, 9, (n,), generator=generator)
        logits = torch.stack([tokens_n * torch.rand(n, generator=generator), tokens_n], dim=1).double()
        return Told(logits, tokens_n, "tokens")
    if "numbers" in METRICS[name].measures:
        numbers_n = torch.randn(n, generator=generator, dtype=torch.float64)
        return Told(torch.randn(n, 1, generator=generator), numbers_n, "numbers")
    classes = 2 + seed % 7
    logits = torch.randn(n, classes, generator=generator).round(decimals=1)
    labels = torch.randint(0, classes, (n,), generator=generator)
    logits[torch.arange(n), labels] += seed % 4  # often right
    if seed % 11 == 0:
        logits[seed % n, 0] = (math.nan, math.inf, -math.inf)[seed % 3]
    if METRICS[name].measures == ("multilabel",):
        return Told(logits, torch.rand(n, classes, generator=generator).round(), "multilabel")
    if several:
        other = torch.randint(-1, classes, (n,), generator=generator)
        return Told(logits, torch.stack([labels, other], dim=1), "several")
    return Told(logits, labels, "classes")


def scored(examples: Any, name: str, **options: Any) -> Score:
    given = {"batch_size": BatchSize(options.pop("size", 7)), "metrics": [name], "name": "val", "device": CPU}
    return in_process.score(lambda inputs: inputs, examples, **given, **options)  # type: ignore[arg-type, return-value]


def thresholds(full: Score, seed: int) -> list[float]:
    """Goodnesses around the score itself, where the decision hangs on the last bit, and far from it."""
    own = full.goodness
    near = [own, math.nextafter(own, math.inf), math.nextafter(own, -math.inf)] if math.isfinite(own) else [own, 0.0]
    return [*near, own + (seed % 100) / 200, -math.inf, math.inf]


@pytest.mark.parametrize("name", BOUNDED)
@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 60), seed=st.integers(0, 2**32 - 1), size=st.integers(1, 70), several=st.booleans())
def test_decides_as_the_whole(name: str, n: int, seed: int, size: int, several: bool) -> None:
    """Whatever the outcomes, the order and the batch: enough is enough, and too little is too little.

    An evaluation is stopped only where the whole is not enough, with a bound that says so; one that is not stopped has
    the whole's metrics, outcomes and difficulty, to the bit.
    """
    examples = drawn(name, n, seed, several=several and "several" in METRICS[name].measures)
    difficulty = torch.randint(0, 5, (n,), generator=torch.Generator().manual_seed(seed))
    full = scored(examples, name)
    for at_least in thresholds(full, seed):
        given_up = scored(examples, name, at_least=at_least, difficulty=difficulty, size=size)
        to_the_end = scored(examples, name, at_least=at_least, difficulty=difficulty, size=size, give_up=False)
        assert (given_up.goodness >= at_least) == (full.goodness >= at_least)
        assert to_the_end.stopped is None
        for found in (given_up, to_the_end):
            if found.stopped is None:
                assert_same(found, full)
                continue
            assert found.goodness == -math.inf
            assert 0 < found.examples == found.stopped.seen < found.stopped.total == n
            bound = goodness_of(found.stopped.bound, higher_is_better=found.higher_is_better)
            assert full.goodness <= bound < at_least


def assert_same(found: Score, full: Score) -> None:
    assert found.examples == full.examples
    assert found.value == full.value or (math.isnan(found.value) and math.isnan(full.value))
    for metric, outcome in full.outcomes.items():
        assert torch.equal(found.outcomes[metric].nan_to_num(nan=-7), outcome.nan_to_num(nan=-7))
    assert isinstance(found.difficulty, Tensor) and isinstance(full.difficulty, Tensor)
    assert torch.equal(found.difficulty, full.difficulty)


@pytest.mark.parametrize("name", UNBOUNDED)
def test_unbounded_metrics_see_everything(name: str) -> None:
    """A metric that no part of the set bounds is never given up."""
    assert scored(drawn(name, 40, 5), name, at_least=math.inf).stopped is None


def test_stops_as_soon_as_it_is_settled() -> None:
    """With accuracy, c of n needed, the evaluation ends with the batch in which the n - c + 1st wrong one is seen."""
    right_n = torch.ones(160)
    right_n[100:140] = 0
    examples = Told(torch.stack([1 - right_n, right_n], dim=1), torch.ones(160, dtype=torch.int64), "classes")
    difficulty = 1 - right_n
    for allowed, seen in ((0, 8), (7, 8), (8, 16), (39, 40)):  # a 64th of the set would be 3: the least is 8
        found = scored(examples, "accuracy", at_least=(160 - allowed) / 160, difficulty=difficulty, size=64)
        assert found.stopped is not None
        assert found.stopped == (seen, 160, (160 - seen) / 160)
    assert scored(examples, "accuracy", at_least=120 / 160, difficulty=difficulty).value == 120 / 160
    in_any_order = scored(examples, "accuracy", at_least=1.0, size=64).stopped
    assert in_any_order is not None
    assert in_any_order.seen == 104


def test_subsets_of_classes() -> None:
    """Where a set covers a part of the classes, wrong is what is wrong among these."""
    logits = torch.tensor([[5.0, 1.0, 0.0], [5.0, 0.0, 1.0], [5.0, 1.0, 0.0]] * 20)
    examples = ArrayExamples(logits, torch.tensor([0, 1, 1] * 20), "mark")
    forward = ClassMap(2, "val", ((1,), (2,))).onto(lambda inputs: inputs)  # type: ignore[arg-type, return-value]
    options: dict[str, Any] = {"metrics": ["accuracy"], "name": "val", "device": CPU}
    full = in_process.score(forward, examples, batch_size=BatchSize(7), **options)
    assert full.value == 40 / 60
    assert isinstance(full.difficulty, Tensor)
    for at_least, stopped in ((40 / 60, False), (41 / 60, True)):
        found = in_process.score(
            forward, examples, batch_size=BatchSize(7), at_least=at_least, difficulty=full.difficulty, **options
        )
        assert (found.stopped is not None) == stopped
        assert found.examples == (21 if stopped else 60)  # 20 are wrong, in batches of 7


def test_order_of_sequences() -> None:
    """Every sequence once; the hard ones among the first, and neighbours of like length."""
    lengths = torch.randint(1, 100, (256,))
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(dim=0)])
    tokens = {"input_ids": torch.zeros(int(starts[-1]), dtype=torch.int64)}
    examples = TokenExamples(tokens, starts, torch.zeros(256, dtype=torch.int64), "mark", {})
    difficulty = torch.zeros(256, dtype=torch.int64)
    difficulty[torch.randperm(256)[:20]] = 3
    order = examples.order(difficulty)
    assert sorted(order.tolist()) == list(range(256))
    assert set(difficulty.nonzero()[:, 0].tolist()) <= set(order[:32].tolist())
    for block in torch.split(order, 32):
        assert (lengths[block].diff() <= 0).all()
    assert torch.equal(examples.order(torch.zeros(256)), examples.order())


def test_order_of_windows() -> None:
    """Windows over a text come the hardest first."""
    starts = torch.arange(0, 40, 4)
    ones = torch.ones(10, dtype=torch.int64)
    windows = TokenWindows(torch.arange(40), starts, starts + 4, 3 * ones, "mark")
    assert windows.order().tolist() == list(range(10))
    assert windows.order(torch.tensor([0, 0, 5, 0, 9, 0, 0, 0, 0, 0])).tolist() == [4, 2, 0, 1, 3, 5, 6, 7, 8, 9]


def test_whole_batches_of_metrics_that_do_not_count() -> None:
    """Examples keep their neighbours, whatever the difficulty: what is equal scores the same to the last bit."""
    order, difficulty_n = torch.arange(22).flip(0), torch.arange(22)
    found = hardest_batches_first(order, 5, difficulty_n * 7 % 11)
    batches = {tuple(batch) for batch in order[:20].view(-1, 5).tolist()}
    assert {tuple(batch) for batch in found[:20].view(-1, 5).tolist()} == batches
    assert found[20:].tolist() == order[20:].tolist()
    sums = [int((difficulty_n * 7 % 11)[batch].sum()) for batch in found[:20].view(-1, 5)]
    assert sums == sorted(sums, reverse=True)
