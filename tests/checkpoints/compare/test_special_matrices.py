"""Matrices that keep to a rule in every ingredient and not in the mean are said; weights that only began so are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from soupcli.checkpoints.compare.special_matrices import broken_rule, triangles
from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.tensor_filter import TensorFilter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from soupcli.checkpoints.checkpoint import Checkpoint

EVERYTHING = TensorFilter()
Made = dict[str, Tensor]


def family(folder: Path, made: Callable[[int], Made]) -> list[Checkpoint]:
    """Three checkpoints."""
    for seed in range(3):
        torch.manual_seed(seed)
        save_file({name: each.detach().contiguous() for name, each in made(seed).items()}, folder / f"{seed}.st")
        (folder / f"{seed}.st").rename(folder / f"{seed}.safetensors")
    return [open_checkpoint(folder / f"{seed}.safetensors") for seed in range(3)]


def near(*shape: int, by: float = 0.05) -> Tensor:
    """Numbers near those that every run began with."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(99)) + by * torch.randn(shape)


def orthonormal(*shape: int, by: float = 0.3) -> Tensor:
    left, _, right = torch.linalg.svd(near(*shape, by=by), full_matrices=False)
    both: Tensor = left @ right
    return both


def trained_orthonormal() -> Tensor:
    """Of torch's own parametrisation, after a step of an optimizer from one start."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        layer = nn.utils.parametrizations.orthogonal(nn.Linear(16, 16))
    with torch.no_grad():
        for weight in layer.parameters():
            weight.add_(torch.randn(weight.shape), alpha=0.1)
    assert isinstance(layer.weight, Tensor)
    return layer.weight


def positive(size: int) -> Tensor:
    return near(size, size) @ near(size, size).T + near(size, size).square().sum() * torch.eye(size)


@pytest.mark.parametrize(
    ("matrix", "what"),
    [
        (lambda: orthonormal(24, 32), "orthonormal rows"),
        (lambda: orthonormal(32, 24), "orthonormal columns"),
        (lambda: orthonormal(16, 27).reshape(16, 3, 3, 3), "orthonormal rows"),
        (trained_orthonormal, "orthonormal rows"),
        (lambda: orthonormal(48, 64, by=0.6).bfloat16(), "orthonormal rows"),
        (lambda: nn.functional.normalize(near(24, 32, by=0.4)), "rows of length 1"),
        (lambda: nn.functional.normalize(near(4, 20, by=0.4)).half(), "rows of length 1"),
    ],
)
def test_rules(tmp_path: Path, matrix: Callable[[], Tensor], what: str) -> None:
    """A rule that every ingredient keeps and the mean does not is said."""
    found = family(tmp_path, lambda _: {"rot.weight": matrix(), "fc.weight": near(8, 8)})
    said = broken_rule(found, EVERYTHING)
    assert said is not None and said.startswith(f"'rot.weight' has {what} in every ingredient, the mean has not")
    assert broken_rule(found, TensorFilter(exclude=("rot.*",))) is None


@pytest.mark.parametrize("moved", [1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_begun_by_a_rule(tmp_path: Path, moved: float, dtype: torch.dtype) -> None:
    """Weights that began orthonormal, and were trained freely since then, are averaged as ever."""
    began = {
        f"{rows}x{columns}": nn.init.orthogonal_(torch.empty(rows, columns)) for rows in (8, 24) for columns in (8, 32)
    }
    began["normed"] = nn.functional.normalize(near(24, 32))
    found = family(
        tmp_path, lambda _: {name: (each + moved * torch.randn(each.shape)).to(dtype) for name, each in began.items()}
    )
    assert broken_rule(found, EVERYTHING) is None


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (lambda: {"dist.scale_tril": torch.linalg.cholesky(positive(12))}, "dist.scale_tril"),
        (lambda: {"gmm.L": torch.linalg.cholesky(positive(12)).expand(4, 12, 12)}, "gmm.L"),
        (lambda: {"prior.upper": torch.linalg.cholesky(positive(80)).T}, "prior.upper"),
        (lambda: dict(zip(("fl.LU", "fl.pivots"), torch.linalg.lu_factor(positive(12)), strict=True)), "fl.LU"),
    ],
)
def test_triangles(tmp_path: Path, made: Callable[[], Made], name: str) -> None:
    """Factors of Cholesky and LU are said: they may be trained, or computed."""
    found = family(tmp_path, lambda _: made())
    said = triangles(found, EVERYTHING)
    assert said is not None and said.startswith(repr(name)) and "the mean is of factors" in said
    assert triangles(found, TensorFilter(take=(name,))) is None


@pytest.mark.parametrize(
    "made",
    [
        lambda _: {"mask": torch.ones(12, 12).tril()},
        lambda seed: {"w": torch.eye(12) * (1 + seed)},
        lambda _: {"w": near(12, 12).tril() - 9 * torch.eye(12)},  # a weight that is masked
        lambda _: {"w": near(12, 12), "zero": torch.zeros(12, 12)},
        lambda _: {"w": near(12, 13).tril()},
    ],
)
def test_no_triangles(tmp_path: Path, made: Callable[[int], Made]) -> None:
    """Masks that are the same, diagonals and weights are no such factors."""
    assert triangles(family(tmp_path, made), EVERYTHING) is None
