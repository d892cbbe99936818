"""Parts that a decomposition made of a weight are refused by their numbers; trained factors are said, and mixed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from soupcli.checkpoints.compare.decompositions import perhaps_decomposed
from soupcli.checkpoints.compare.products import check_products
from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.errors import MixError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from soupcli.checkpoints.checkpoint import Checkpoint

EVERYTHING = TensorFilter()
Tensors = dict[str, Tensor]


def near(*shape: int) -> Tensor:
    """Numbers near those that every run began with."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(99)) + 0.05 * torch.randn(*shape)


def qr() -> Tensors:
    return dict(zip(("fc.Q", "fc.R"), torch.linalg.qr(near(48, 24)), strict=True))


def lq() -> Tensors:
    q, r = torch.linalg.qr(near(24, 48).T)
    return {"fc.l.weight": r.T, "fc.q.weight": q.T}


def eigenvectors() -> Tensors:
    values, vectors = torch.linalg.eigh(near(24, 24) @ near(24, 24).T)
    return {"fc.vectors": vectors[:, -12:], "fc.values": values[-12:]}


def components() -> Tensors:
    _, values, right = torch.linalg.svd(near(40, 16), full_matrices=False)
    return {"pca.components": right[:9], "pca.variance": values[:9].square()}


def tucker() -> Tensors:
    core, factors = near(12, 10, 8), []
    for place, rank in enumerate((6, 5, 4)):
        left = torch.linalg.svd(core.movedim(place, 0).flatten(1), full_matrices=False)[0][:, :rank]
        core = torch.tensordot(core.movedim(place, -1), left, 1).movedim(-1, place)
        factors.append(left)
    return {"fc.weight.core": core, **{f"fc.weight.factors.factor_{at}": left for at, left in enumerate(factors)}}


def train(name: str) -> Tensors:
    rest, rank, cores = near(12, 10, 8), 1, []
    for size in (12, 10):
        left, values, right = torch.linalg.svd(rest.reshape(rank * size, -1), full_matrices=False)
        kept = min(6, len(values))
        cores.append(left[:, :kept].reshape(rank, size, kept))
        rest, rank = values[:kept, None] * right[:kept], kept
    return {name.format(at): core for at, core in enumerate((*cores, rest.reshape(rank, 8, 1)))}


def polar(length: str, turn: str) -> Tensors:
    weight = torch.complex(near(24, 12), near(12, 24).T)
    return {length: weight.abs(), turn: weight.angle()}


PARTS: dict[str, Callable[[], Tensors]] = {
    "QR": qr,
    "QR in bfloat16": lambda: {name: value.bfloat16() for name, value in qr().items()},
    "LQ in layers": lq,
    "eigenvectors": eigenvectors,
    "principal components": components,
    "Tucker's": tucker,
    "a tensor train": lambda: train("fc.weight.factors.factor_{}"),
    "cores": lambda: train("fc.cores.{}"),
    "magnitude and phase": lambda: polar("fc.weight_magnitude", "fc.weight_phase"),
    "abs and angle": lambda: polar("fc.abs", "fc.angle"),
}
TRAINED: dict[str, Callable[[], Tensors]] = {
    "Tucker's": lambda: {"fc.core": near(4, 5), "fc.factors.factor_0": near(8, 4), "fc.factors.factor_1": near(9, 5)},
    "CP": lambda: {f"fc.weight.factors.factor_{at}": near(size, 4) for at, size in enumerate((8, 9, 10))},
    "magnitude and phase": lambda: {"fc.magnitude": near(8, 4).abs(), "fc.phase": 0.1 * near(8, 4)},
}
NONE: dict[str, Callable[[], Tensors]] = {
    "orthogonal from the start": lambda: {
        "fc.weight": torch.linalg.qr(torch.randn(24, 24))[0],
        "fc.bias": torch.randn(24).sort()[0],
    },
    "trained": lambda: {"fc.w": near(24, 24), "fc.frequencies": near(24).sort()[0]},
    "two layers": lambda: {"fc.a.weight": near(24, 48), "fc.b.weight": near(48, 24)},
    "a triangle": lambda: {"fc.mask": near(24, 24).triu(), "fc.b": near(48, 24)},
    "a core of layers": lambda: {"core.a.weight": near(8, 4), "core.b.weight": near(4, 4)},
    "no phases": lambda: {"fc.magnitude": near(4), "fc.phase": torch.zeros(0), "fc.abs": near(0), "fc.angle": near(0)},
    "infinite phases": lambda: {"fc.magnitude": near(4), "fc.phase": torch.full((4,), float("inf"))},
    "vectors of waves": lambda: {"fc.amplitude": near(16), "fc.phase": near(16)},
}


def runs(folder: Path, make: Callable[[], Tensors]) -> list[Checkpoint]:
    found = []
    for seed in range(2):
        torch.manual_seed(seed)
        tensors = {name: value.contiguous().clone() for name, value in make().items()}
        save_file(tensors | {"norm.weight": torch.rand(9)}, folder / f"{seed}.safetensors")
        found.append(open_checkpoint(folder / f"{seed}.safetensors"))
    return found


def said(found: Sequence[Checkpoint]) -> list[tuple[str, ...]]:
    return perhaps_decomposed(found, EVERYTHING)


@pytest.mark.parametrize("name", PARTS)
def test_decompositions(tmp_path: Path, name: str) -> None:
    """Parts that differ are refused if they are mixed; the same parts in all are harmless."""
    found = runs(tmp_path, PARTS[name])
    with pytest.raises(MixError, match=r"tensor '\S+' is (a factor that a decomposition made|the phase of complex)"):
        check_products(found, EVERYTHING)
    check_products(found, TensorFilter(include=("norm.*",)))
    same = {key: value.clone() for key, value in PARTS[name]().items()}
    check_products(runs(tmp_path, lambda: same), EVERYTHING)


@pytest.mark.parametrize("name", TRAINED)
def test_trained_factors(tmp_path: Path, name: str) -> None:
    """Factors that a network was trained with are mixed with a warning that names them."""
    found = runs(tmp_path, TRAINED[name])
    check_products(found, EVERYTHING)
    [names] = said(found)
    assert set(names) == set(TRAINED[name]())
    assert perhaps_decomposed(found, TensorFilter(exclude=("fc.*",))) == []
    same = TRAINED[name]()
    assert said(runs(tmp_path, lambda: same)) == []


@pytest.mark.parametrize("name", NONE)
def test_weights(tmp_path: Path, name: str) -> None:
    """Layers in sequence, triangles, orthogonal layers with a bias and values in order alone are no decomposition."""
    found = runs(tmp_path, NONE[name])
    check_products(found, EVERYTHING)
    assert said(found) == []
