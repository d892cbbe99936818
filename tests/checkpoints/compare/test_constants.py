"""Masks, bounds and unmixed tensors may hold infinities; in weights they stay an error."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    from tests.conftest import Ran

INF, NAN = math.inf, math.nan
MASK = torch.full((5, 5), -INF).triu(1)
BOUNDS = torch.tensor([INF, -INF, NAN, 1.0, 2.0, 3.0])


def family(folder: Path, name: str, *tensors: Tensor) -> list[Path]:
    paths = [folder / f"r{number}.safetensors" for number in range(len(tensors))]
    for number, (path, tensor) in enumerate(zip(paths, tensors, strict=True)):
        save_file({"w": torch.full((4,), float(number)), name: tensor.clone()}, path)
    return paths


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("constant", [MASK, BOUNDS], ids=["mask", "bounds"])
def test_the_same_in_all(tmp_path: Path, soup: Callable[..., Ran], constant: Tensor, dtype: torch.dtype) -> None:
    """What is the same in all ingredients comes out as it went in, and inspect does not call it diverged."""
    constant = constant.to(dtype)
    paths = family(tmp_path, "c", constant, constant, constant)
    assert soup("uniform", "--ckpts", *paths, "--out", tmp_path / "out").code == 0
    made = load_file(tmp_path / "out/model.safetensors")["c"]
    assert torch.equal(made.view(torch.uint8), constant.view(torch.uint8))
    words = ["--weights", "0.2,0.3,0.5"]
    assert soup("mix", "--ckpts", *paths, *words, "--out", tmp_path / "mixed").code == 0
    assert soup("verify", tmp_path / "mixed", "--rebuild").code == 0
    looked = soup("inspect", "--ckpts", *paths)
    assert "diverged" not in looked.stdout
    assert "cannot be mixed" not in looked.stdout


@pytest.mark.parametrize("constant", [MASK, BOUNDS], ids=["mask", "bounds"])
def test_the_same_in_other_dtypes(tmp_path: Path, soup: Callable[..., Ran], constant: Tensor) -> None:
    """A constant that one ingredient stores in fewer bits, with the same numbers, is the same."""
    paths = family(tmp_path, "c", constant, constant.bfloat16())
    assert soup("uniform", "--ckpts", *paths, "--out", tmp_path / "out").code == 0
    assert torch.equal(load_file(tmp_path / "out/model.safetensors")["c"].nan_to_num(), constant.nan_to_num())


def test_the_same_numbers_in_other_bits(tmp_path: Path, soup: Callable[..., Ran]) -> None:
    """A mask in which 0 is -0, as `(1 - mask) * -inf` makes it, is the same mask."""
    paths = family(tmp_path, "mask", MASK, torch.where(MASK == 0, -0.0, MASK))
    assert soup("uniform", "--ckpts", *paths, "--out", tmp_path / "out").code == 0
    made = load_file(tmp_path / "out/model.safetensors")["mask"]
    assert torch.equal(made.view(torch.int32), MASK.view(torch.int32))


@pytest.mark.parametrize(
    "tensors", [(MASK, MASK.T.contiguous()), (BOUNDS, BOUNDS + 1), (torch.zeros(4), torch.tensor([0.0, 1.0, 2.0, NAN]))]
)
def test_not_the_same(tmp_path: Path, soup: Callable[..., Ran], tensors: tuple[Tensor, ...]) -> None:
    """What differs and is not finite is an error, unless it is not mixed."""
    paths = family(tmp_path, "c", *tensors)
    ran = soup("uniform", "--ckpts", *paths, "--out", tmp_path / "out")
    assert ran.code == 2
    assert "tensor 'c' holds" in ran.stderr
    assert ("--take c takes" in ran.stderr) is (tensors[0] is MASK)
    for flag in ("--exclude", "--take"):
        assert soup("uniform", "--ckpts", *paths, flag, "c", "--out", tmp_path / f"out{flag}").code == 0
        assert "diverged" not in soup("inspect", "--ckpts", *paths, flag, "c").stdout


def test_one_alone(tmp_path: Path, soup: Callable[..., Ran]) -> None:
    """Of one checkpoint, a mask passes by its few numbers; a weight with an infinity does not."""
    [path] = family(tmp_path, "c", MASK)
    assert soup("uniform", "--ckpts", path, "--out", tmp_path / "out").code == 0
    [path] = family(tmp_path, "c", torch.tensor([1.0, 2.0, 3.0, INF]))
    assert soup("uniform", "--ckpts", path, "--out", tmp_path / "other").code == 2


def test_base(tmp_path: Path, soup: Callable[..., Ran]) -> None:
    """A base has the constants of the ingredients; where its own differ, the line between them is refused."""
    paths = family(tmp_path, "c", MASK, MASK, MASK)
    words = ["--ckpts", *paths[:2], "--base", paths[2]]
    assert soup("mix", *words, "--alpha", "0.5", "--out", tmp_path / "out").code == 0
    assert "cannot be mixed" not in soup("inspect", *words).stdout
    save_file({"w": torch.ones(4), "c": MASK.T.contiguous()}, paths[2])
    assert soup("mix", *words, "--alpha", "0.5", "--out", tmp_path / "other").code == 2
