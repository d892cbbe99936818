"""Factors of weights are refused by shapes and numbers, whatever their names; layers in sequence are not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from soupcli.checkpoints.compare.factors import changes_of, pairs_of, perhaps_factors
from soupcli.checkpoints.compare.products import check_products
from soupcli.checkpoints.numbers import read_numbers
from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.errors import MixError
from tests.helpers.operations import operations

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from soupcli.checkpoints.checkpoint import Checkpoint
    from soupcli.mixing.arithmetic.arrays import Array

FROZEN = torch.rand(24, 32)
EVERYTHING = TensorFilter()


def decomposed(rank: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    left, values, right = torch.linalg.svd(torch.randn(24, 32), full_matrices=False)
    return left[:, :rank].contiguous(), values[:rank].contiguous(), right[:rank].contiguous()


def folded() -> dict[str, Tensor]:
    left, values, right = decomposed()
    return {"fc.0.weight": right, "fc.1.weight": left * values, "fc.1.bias": torch.rand(24)}


def halved(dtype: torch.dtype) -> dict[str, Tensor]:
    left, values, right = decomposed()
    return {"fc.a": (left * values.sqrt()).to(dtype), "fc.b": (right.T * values.sqrt()).to(dtype).contiguous()}


FACTORS: dict[str, Callable[[], dict[str, Tensor]]] = {
    "beside the weight": lambda: {"fc.weight": FROZEN, "fc.p": torch.rand(4, 32), "fc.q": torch.rand(24, 4)},
    "the other way round": lambda: {"fc.weight": FROZEN, "fc.p": torch.rand(32, 4), "fc.q": torch.rand(4, 24)},
    "in a wrapper": lambda: {
        "fc.lin.weight": FROZEN,
        "fc.lin.bias": torch.rand(24),
        "fc.p": torch.rand(4, 32),
        "fc.q": torch.rand(24, 4),
    },
    "layers of a wrapper": lambda: {
        "fc.lin.weight": FROZEN,
        "fc.down.weight": torch.rand(4, 32),
        "fc.up.weight": torch.rand(24, 4),
    },
    "in a module of their own": lambda: {
        "fc.weight": FROZEN,
        "fc.change.p": torch.rand(4, 32),
        "fc.change.q": torch.rand(24, 4),
    },
    "beside a bias and a scale": lambda: {
        "fc.weight": FROZEN,
        "fc.bias": torch.rand(24),
        "fc.alpha": torch.rand(()),
        "fc.p": torch.rand(4, 32),
        "fc.q": torch.rand(24, 4),
    },
    "of experts": lambda: {
        "fc.weight": FROZEN.repeat(3, 1, 1),
        "fc.p": torch.rand(3, 4, 32),
        "fc.q": torch.rand(3, 24, 4),
    },
    "of a convolution": lambda: {
        "fc.weight": FROZEN.reshape(24, 8, 2, 2),
        "fc.p.weight": torch.rand(4, 8, 2, 2),
        "fc.q.weight": torch.rand(24, 4, 1, 1),
    },
    "two products": lambda: {
        "fc.weight": FROZEN,
        **{f"fc.p{number}": torch.rand(24, 4) for number in range(2)},
        **{f"fc.q{number}": torch.rand(4, 32) for number in range(2)},
    },
    "a Kronecker product": lambda: {"fc.weight": FROZEN, "fc.p": torch.rand(4, 8), "fc.q": torch.rand(6, 4)},
    "singular values of a full rank": lambda: dict(zip(("fc.U", "fc.S", "fc.V"), decomposed(24), strict=True)),
    "singular values": lambda: dict(zip(("fc.U", "fc.S", "fc.V"), decomposed(), strict=True)),
    "singular values in one factor": folded,
    "singular values in both factors": lambda: halved(torch.float32),
    "in bfloat16": lambda: halved(torch.bfloat16),
}


def checkpoints(folder: Path, make: Callable[[], dict[str, Tensor]]) -> list[Checkpoint]:
    found = []
    for seed in range(2):
        torch.manual_seed(seed)
        save_file(make() | {"norm.weight": torch.rand(8)}, folder / f"{seed}.safetensors")
        found.append(open_checkpoint(folder / f"{seed}.safetensors"))
    return found


@pytest.mark.parametrize("name", FACTORS)
def test_factors(tmp_path: Path, name: str) -> None:
    """Changes of a frozen weight, and singular value decompositions, are refused if they differ and are mixed."""
    found = checkpoints(tmp_path, FACTORS[name])
    with pytest.raises(MixError, match=r"tensor 'fc\.\S+' is a factor "):
        check_products(found, EVERYTHING)
    check_products(found, TensorFilter(exclude=("fc.*",)))
    same = FACTORS[name]()
    check_products(checkpoints(tmp_path, lambda: same), EVERYTHING)


def state(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.state_dict())


def orthogonal(module: nn.Sequential) -> nn.Sequential:
    for weight in module.parameters():
        if weight.dim() == 2:
            nn.init.orthogonal_(weight)
    return module


@pytest.mark.parametrize("name", FACTORS)
def test_factors_deep_in_a_network(tmp_path: Path, name: str) -> None:
    """It does not matter how deep the module lies, and whether the modules above it hold tensors."""
    found = checkpoints(tmp_path, lambda: {f"net.blocks.0.{key}": value for key, value in FACTORS[name]().items()})
    with pytest.raises(MixError, match=r"tensor 'net\.blocks\.0\.fc\.\S+' is a factor "):
        check_products(found, EVERYTHING)


LAYERS: dict[str, Callable[[], dict[str, Tensor]]] = {
    "a bottleneck": lambda: state(nn.Sequential(nn.Linear(32, 4), nn.Linear(4, 32))),
    "a bottleneck without biases": lambda: state(nn.Sequential(nn.Linear(32, 8, bias=False), nn.Linear(8, 32))),
    "a bottleneck that begins orthogonal": lambda: state(
        orthogonal(nn.Sequential(nn.Linear(32, 8, bias=False), nn.Linear(8, 32)))
    ),
    "an adapter of layers after a frozen one": lambda: {
        "block.dense.weight": FROZEN,
        **{
            f"block.adapter.{name}": value
            for name, value in state(nn.Sequential(nn.Linear(32, 4), nn.Linear(4, 24))).items()
        },
    },
    "low-rank attention": lambda: {
        f"attn.{name}.weight": torch.rand(*shape)
        for name, shape in (("q_a", (4, 32)), ("q_b", (24, 4)), ("kv", (8, 32)), ("o", (32, 24)))
    },
    "a weight that is trained too": lambda: {
        "fc.weight": torch.rand(24, 32),
        "fc.p.weight": torch.rand(4, 32),
        "fc.q.weight": torch.rand(24, 4),
    },
    "gates": lambda: {
        "mlp.gate.weight": torch.rand(24, 8),
        "mlp.up.weight": torch.rand(24, 8),
        "mlp.down.weight": torch.rand(8, 24),
    },
    "a recurrent layer": lambda: state(nn.LSTM(8, 8)),
    "a residual block": lambda: {
        "block.1.weight": torch.rand(8, 32, 1, 1),
        "block.2.weight": torch.rand(8, 8, 3, 3),
        "block.3.weight": torch.rand(32, 8, 1, 1),
    },
    "attention": lambda: state(nn.MultiheadAttention(32, 4)),
    "embeddings": lambda: {
        "a.positions": torch.rand(9, 16),
        "a.tokens.weight": torch.rand(50, 16),
        "a.types.weight": torch.rand(2, 16),
    },
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(tmp_path: Path, name: str) -> None:
    """Bottlenecks, adapters of two layers with biases, gates and recurrent layers are mixed without a warning."""
    for above in ("", "net.blocks.0."):
        found = checkpoints(tmp_path, lambda: {above + key: value for key, value in LAYERS[name]().items()})  # noqa: B023
        check_products(found, EVERYTHING)
        assert perhaps_factors(found, EVERYTHING) == []


@pytest.mark.parametrize("number", [math.inf, math.nan, 1e300])
def test_numbers_that_are_none(tmp_path: Path, number: float) -> None:
    """A pair with infinities, NaNs or numbers whose products overflow is no decomposition, without a warning."""
    shapes = {"a.weight": (8, 32), "b.weight": (24, 8)}
    found = checkpoints(
        tmp_path, lambda: {name: torch.randn(shape, dtype=torch.float64) * number for name, shape in shapes.items()}
    )
    check_products(found, EVERYTHING)


def test_what_may_be_factors(tmp_path: Path) -> None:
    """Two bare parameters that multiply to a low rank are mixed with a warning: nothing says what they are."""
    made = {"fc.p": (24, 4), "fc.q": (4, 32), "fc.bias": (24,)}
    found = checkpoints(tmp_path, lambda: {name: torch.rand(shape) for name, shape in made.items()})
    check_products(found, EVERYTHING)
    assert perhaps_factors(found, EVERYTHING) == [("fc.p", "fc.q")]
    assert perhaps_factors(found, TensorFilter(take=("fc.*",))) == []


def test_many_tensors(tmp_path: Path) -> None:
    """Pairs among very many tensors, of one module or of a module each, are found in one pass over them."""

    def steps(count: int, name: str) -> int:
        save_file({name.format(number): torch.ones(2, 3) for number in range(count)}, tmp_path / "a.safetensors")
        tensors = open_checkpoint(tmp_path / "a.safetensors").tensors
        return operations(lambda: [*pairs_of(tensors), *changes_of(tensors)])

    for name in ("t{}", "m.{}.weight", "{}.{}.weight"):
        name = name.replace("{}.{}", "{0}.{0}")
        assert steps(400, name) < 6 * steps(100, name)


@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "frozen"])
def test_layers_in_sequence_are_not_read_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: bool
) -> None:
    """Two layers of a block have the shapes of factors: few of their numbers are looked at, differing or not."""
    start = state(nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 256)))
    found = checkpoints(
        tmp_path, lambda: start if frozen else {name: t + 0.1 * torch.randn_like(t) for name, t in start.items()}
    )
    read: list[int] = []

    def counted(checkpoint: Checkpoint, name: str, first: int, count: int) -> Array:
        read.append(count)
        return read_numbers(checkpoint, name, first, count)

    monkeypatch.setattr("soupcli.checkpoints.compare.constants.parts_of", None)  # reads all
    monkeypatch.setattr("soupcli.checkpoints.compare.factors.read_numbers", counted)
    perhaps_factors(found, EVERYTHING)
    check_products(found, EVERYTHING)
    assert sum(read) < 16_000
