"""Batches through a network: all examples once, in any cut, and errors where labels and logits do not go together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from soupcli.datasets.examples import ArrayExamples
from soupcli.errors import MixError, NetworkError, ValidationError
from soupcli.evaluation import loop as in_process
from soupcli.evaluation.batches import BatchSize
from soupcli.evaluation.score import Score


def scored(forward: Any, examples: ArrayExamples, **options: Any) -> Score:
    """The score on the CPU."""
    given = {"metrics": ["accuracy"], "name": "val.digits", **options}
    given["batch_size"] = BatchSize(options.get("batch_size", 64))
    return in_process.score(forward, examples, device=torch.device("cpu"), **given)


def examples(n: int = 50, classes: int = 4) -> ArrayExamples:
    """Random inputs [N, 3] and labels."""
    return ArrayExamples(torch.randn(n, 3), torch.randint(0, classes, (n,)), "mark")


@pytest.mark.parametrize("batch_size", [1, 7, 49, 50, 51, 1000])
def test_any_batch_size(batch_size: int) -> None:
    """Each example counts once, at its own place, and the value is that of one pass over all."""
    given, net = examples(), nn.Linear(3, 4)
    found = scored(net, given, metrics=["nll", "accuracy"], batch_size=batch_size)
    with torch.inference_mode():
        logits = net(given.inputs)
    right = (logits.argmax(dim=1) == given.labels).to(torch.uint8)
    assert torch.equal(found.outcomes["accuracy"], right)
    losses = nn.functional.cross_entropy(logits.double(), given.labels, reduction="none")
    assert torch.allclose(found.outcomes["nll"], losses, rtol=1e-5)
    assert found.metrics["accuracy"].value == int(right.sum()) / 50
    assert (found.selecting, found.higher_is_better, found.examples) == ("nll", False, 50)


def test_normalisation_and_order() -> None:
    """Inputs are normalised on the way, and outcomes keep the order of the set whatever order was visited."""

    class Backwards(ArrayExamples):
        def order(self, difficulty: Tensor | None = None) -> Tensor:
            return torch.arange(len(self.labels)).flip(0)

    inputs, labels = torch.randint(0, 256, (9, 4), dtype=torch.uint8), torch.arange(9) % 4
    backwards = Backwards(inputs, labels, "mark", lambda x: x.float() / 255)
    found = scored(nn.Identity(), backwards, batch_size=2)
    assert torch.equal(found.outcomes["accuracy"].bool(), inputs.argmax(dim=1) == labels)


def test_progress() -> None:
    """Every batch is reported, up to the number of examples."""
    calls: list[tuple[str, int, int]] = []
    scored(
        nn.Linear(3, 4), examples(), batch_size=20, progress=lambda task, done, total: calls.append((task, done, total))
    )
    assert [done for _, done, _ in calls] == [17, 34, 50]  # as even as can be
    assert {(task, total) for task, _, total in calls} == {("evaluating on val.digits", 50)}


@pytest.mark.parametrize(("dtype", "wanted"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_narrow_logits(dtype: torch.dtype, wanted: torch.dtype) -> None:
    """Logits are compared as they are, in a dtype that holds them: one bit of a float64 decides."""
    one = torch.tensor(1.0, dtype=dtype)
    just_more = torch.nextafter(one, torch.tensor(2.0, dtype=dtype)) if dtype == torch.float64 else one * 1.0078125
    logits = torch.stack([one, just_more])[None]
    given = ArrayExamples(torch.zeros(1, 3), torch.tensor([1]), "mark")
    assert scored(lambda inputs: logits, given).value == 1.0


def test_labels_out_of_range() -> None:
    """Labels beyond the network's classes, and below zero, are an error with both numbers."""
    with pytest.raises(ValidationError, match=r"val\.digits: labels reach from \d to 3, the network has 3 classes"):
        scored(nn.Linear(3, 3), examples())
    negative = ArrayExamples(torch.randn(4, 3), torch.tensor([0, 1, -1, 2]), "mark")
    with pytest.raises(ValidationError, match=r"labels reach from -1 to 2, the network has 3 classes"):
        scored(nn.Linear(3, 3), negative)


@pytest.mark.parametrize(
    ("forward", "given"),
    [
        (lambda x: x.sum(), r"\[\]"),
        (lambda x: x.sum(dim=1), r"\[50\]"),
        (lambda x: x[:-1], r"\[49, 3\]"),
        (lambda x: x[..., None], r"\[50, 3, 1\]"),
        (lambda x: (x, x), "a tuple"),
        (lambda x: {"loss": x}, "a dict"),
    ],
)
def test_not_logits(forward: Any, given: str) -> None:
    """A network that gives anything but [N, classes] is an error that says what it gave."""
    with pytest.raises(ValidationError, match=rf"val\.digits: the network gives {given} for 50 examples"):
        scored(forward, examples(classes=3))


def test_a_network_that_fails() -> None:
    """What the network raises is told in one line with the shape of the batch; out of memory has a hint of its own."""
    with pytest.raises(
        NetworkError, match=r"^val\.digits: the network fails on a batch \[50, 3\]: RuntimeError: .*mat1"
    ):
        scored(nn.Linear(5, 4), examples())

    batch = {"input_ids": torch.ones(2, 83)}
    with pytest.raises(NetworkError, match="the network fails on a batch") as raised:
        in_process.logits_of(lambda inputs: inputs["positions"], batch, torch.zeros(2), "val.texts")  # type: ignore[index]
    assert "max_length: N in the recipe cuts texts to N tokens, these have 83" in str(raised.value.hint)

    def full(inputs: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory\nTried to allocate")

    with pytest.raises(NetworkError, match=r"OutOfMemoryError: CUDA out of memory$") as raised:
        scored(full, examples())
    assert "--batch-size" in str(raised.value.hint)


def test_errors_of_ours_pass() -> None:
    """An error that already says what is wrong is not wrapped in another."""

    def forward(inputs: Tensor) -> Tensor:
        raise MixError("runs/a: holds a NaN")

    with pytest.raises(MixError, match="runs/a"):
        scored(forward, examples())


def test_an_encoder_without_a_classifier() -> None:
    """Hidden states are no logits: the hint has the set that measures embeddings."""
    hidden = SimpleNamespace(last_hidden_state=torch.zeros(50, 3, 4))
    with pytest.raises(ValidationError, match="the network gives a SimpleNamespace for 50 examples") as caught:
        scored(lambda _: hidden, examples())
    assert "gives embeddings: {python:" in str(caught.value.hint)


def test_classes_for_one_logit() -> None:
    """Classes 0 and 1 and a network of one logit: the hint reads the column as one of 0 and 1."""
    with pytest.raises(ValidationError, match="labels reach from 0 to 1, the network has 1 classes") as caught:
        scored(nn.Linear(3, 1), ArrayExamples(torch.zeros(2, 3), torch.tensor([0, 1]), "mark"))
    assert "label: [label]" in str(caught.value.hint)
