"""Batches of one size: every example once, in any order; and half of it where memory runs out."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from soupcli.datasets.examples import ArrayExamples
from soupcli.errors import NetworkError
from soupcli.evaluation import loop as in_process
from soupcli.evaluation.batches import BatchSize, is_out_of_memory
from soupcli.evaluation.score import Score

CPU = torch.device("cpu")
ALLOCATOR = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "


@given(n=st.integers(1, 100), most=st.integers(1, 120), at_most=st.none() | st.integers(1, 50))
def test_even(n: int, most: int, at_most: int | None) -> None:
    """Every example once, in order, in as few batches as may be, all of one size, filled up by less than a batch."""
    shapes: list[int] = []

    def work(indices: Tensor) -> Tensor:
        shapes.append(len(indices))
        return indices * 2

    order = torch.randperm(n)
    made = list(BatchSize(most).through(order, work, at_most=at_most))
    assert torch.equal(torch.cat([indices for indices, _ in made]), order)
    assert all(torch.equal(result, indices * 2) for indices, result in made)
    allowed = min(most, at_most or most)
    assert len(set(shapes)) == 1
    assert shapes[0] <= allowed
    assert len(shapes) == -(-n // allowed) or len(shapes) == -(-n // shapes[0])
    assert sum(shapes) - n < len(shapes)


class Hungry(nn.Module):
    """A network that takes so many examples at once and no more."""

    def __init__(self, most: int, error: Exception | None = None) -> None:
        super().__init__()
        self.head, self.most = nn.Linear(3, 4), most
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        self.tried: list[int] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.tried.append(len(inputs))
        if len(inputs) > self.most:
            raise self.error
        logits: Tensor = self.head(inputs)
        return logits


def scored(net: nn.Module, size: BatchSize, examples: ArrayExamples, **options: Any) -> Score:
    return in_process.score(net, examples, name="val", metrics=["nll"], device=CPU, batch_size=size, **options)


@pytest.mark.parametrize("error", [None, RuntimeError(ALLOCATOR + "allocate 4 bytes."), MemoryError()], ids=str)
def test_out_of_memory(error: Exception | None) -> None:
    """The batch is halved until it fits, the run goes on with that, and says so once; the score is what it would be."""
    torch.manual_seed(0)
    said: list[str] = []
    examples, size = ArrayExamples(torch.randn(50, 3), torch.randint(0, 4, (50,)), ""), BatchSize(32, say=said.append)
    net = Hungry(7, error)
    first, second = scored(net, size, examples), scored(net, size, examples)
    assert (size.most, said) == (5, ["memory ran out with 25 examples at a time: the run goes on with 5"])
    assert net.tried[:3] == [25, 10, 5]
    assert max(net.tried[3:]) <= 7
    net.most = 100
    wanted = scored(net, BatchSize(64), examples)
    for found in (first, second):
        assert found.value == pytest.approx(wanted.value, rel=1e-6)
        assert found.examples == 50


def test_later_batches_that_are_larger() -> None:
    """Memory that runs out in the middle loses nothing that was done and repeats nothing."""

    class Later(Hungry):
        def forward(self, inputs: Tensor) -> Tensor:
            self.most = 100 if len(self.tried) < 2 else 4
            return super().forward(inputs)

    examples = ArrayExamples(torch.randn(60, 3), torch.randint(0, 4, (60,)), "")
    net, size = Later(100), BatchSize(10)
    found = scored(net, size, examples)
    assert net.tried[:4] == [10, 10, 10, 5]
    assert found.examples == 60
    net.most = 100
    assert torch.allclose(found.outcomes["nll"], scored(net, BatchSize(60), examples).outcomes["nll"], rtol=1e-5)


def test_not_even_one() -> None:
    """Where one example is too much, the error says what happened and what to do."""
    examples = ArrayExamples(torch.randn(5, 3), torch.randint(0, 4, (5,)), "")
    with pytest.raises(NetworkError, match="OutOfMemoryError: CUDA out of memory") as raised:
        scored(Hungry(0), BatchSize(4), examples)
    assert "--batch-size" in str(raised.value.hint)


def test_which_errors() -> None:
    """Errors of other kinds are not taken for a lack of memory."""
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(None)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_outcomes_do_not_depend_on_the_order(name: str) -> None:
    """Real networks, visited in two orders: since every batch has one size, each example's outcome is the same bit."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5).eval()
    examples = ArrayExamples(
        torch.rand(37, 3, 96 if name == "test_resnet" else 160, 96 if name == "test_resnet" else 160),
        torch.randint(0, 5, (37,)),
        "",
    )
    found = [scored(model, BatchSize(8), examples, at_least=-1e9, difficulty=torch.randperm(37)) for _ in range(2)]
    assert torch.equal(found[0].outcomes["nll"], found[1].outcomes["nll"])
