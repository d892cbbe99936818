"""Integers that differ: counters, indices and few numbers come from one ingredient, others are refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from soupcli.checkpoints.compare.integers import check_integers
from soupcli.checkpoints.open import open_checkpoint
from soupcli.checkpoints.tensor_filter import TensorFilter
from soupcli.errors import MixError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Ran

EVERYTHING = TensorFilter()


def two(folder: Path, name: str, dtype: torch.dtype = torch.int64, count: int = 40) -> list[Path]:
    """Two checkpoints that differ in one integer tensor."""
    for number in range(2):
        (folder / f"r{number}").mkdir(parents=True)
        tensors = {"w": torch.full((3,), float(number)), name: (torch.arange(count) + number).to(dtype)}
        if dtype == torch.bool:
            tensors[name] = torch.arange(count) % 2 == number
        save_file(tensors, folder / f"r{number}/model.safetensors")
    return [folder / "r0", folder / "r1"]


def check(paths: list[Path], selection: TensorFilter = EVERYTHING) -> None:
    check_integers([open_checkpoint(path) for path in paths], selection)


@pytest.mark.parametrize(
    "name", ["bn.num_batches_tracked", "embeddings.position_ids", "h.0.attn.bias", "x._extra_state", "selected_epoch"]
)
def test_known(tmp_path: Path, name: str) -> None:
    """Of counters, indices and masks one ingredient's will do, however many numbers they are."""
    check(two(tmp_path, name))


@pytest.mark.parametrize("name", ["head_mask", "kept_heads", "l.perm", "idx", "l.channel_order"])
def test_few_that_choose(tmp_path: Path, name: str) -> None:
    """However few: masks and indices of heads and channels that differ are refused, since weights go with them."""
    with pytest.raises(MixError, match=f"tensor '{name}'"):
        check(two(tmp_path / "a", name, count=8))
    check(two(tmp_path / "b", name, count=1))


@pytest.mark.parametrize("name", ["flow.permutation", "l.channel_order"])
def test_orders_of_channels(tmp_path: Path, name: str) -> None:
    """Of an order of channels no ingredient's will do: the weights of the others go with another."""
    with pytest.raises(MixError, match=f"tensor '{name}'") as refused:
        check(two(tmp_path, name, count=8))
    assert "--take" not in str(refused.value.hint) and "leave out" in str(refused.value.hint)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8])
def test_codes_of_a_small_layer(tmp_path: Path, dtype: torch.dtype) -> None:
    """A matrix of 8-bit integers that differ is refused however small: its scales would be averaged beside it."""
    for number in range(2):
        save_file({"l.w": torch.full((2, 3), number).to(dtype)}, tmp_path / f"{number}.safetensors")
    with pytest.raises(MixError, match=r"tensor 'l\.w' \(u?int8, 6 elements\) is not the same"):
        check([tmp_path / f"{number}.safetensors" for number in range(2)])


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_unknown(tmp_path: Path, dtype: torch.dtype) -> None:
    """Many numbers of an unknown name are refused; few are not, unless they shift a scale."""
    with pytest.raises(
        MixError, match=r"r1/model\.safetensors: tensor 'table' \(\w+, 40 elements\) is not the same"
    ) as no:
        check(two(tmp_path / "many", "table", dtype))
    assert "--take table" in str(no.value.hint)
    check(two(tmp_path / "few", "table", dtype, 16))
    check(two(tmp_path / "given", "table", dtype), TensorFilter(take=("table",)))
    check(two(tmp_path / "left", "table", dtype), TensorFilter(exclude=("t*",)))


def test_zero_points(tmp_path: Path) -> None:
    """A zero point belongs to a scale that is averaged: one number of it is too much."""
    with pytest.raises(MixError, match="zero_point"):
        check(two(tmp_path, "fake_quant.zero_point", torch.int32, 1))


def test_take(tmp_path: Path, soup: Callable[..., Ran]) -> None:
    """--take takes what it names from the first ingredient, integers and floats, and mixes the rest."""
    paths = two(tmp_path, "table")
    out = str(tmp_path / "out")
    refused = soup("uniform", "--ckpts", *paths, "--out", out)
    assert refused.code == 2
    assert "--take table" in refused.stderr
    assert soup("uniform", "--ckpts", *paths, "--out", out, "--take", "table").code == 0
    made = load_file(tmp_path / "out/model.safetensors")
    assert made["w"].tolist() == [0.5] * 3
    assert made["table"].tolist() == list(range(40))
    assert soup("mix", f"{out}/soup.json", "--out", tmp_path / "again").code == 0
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "out/model.safetensors").read_bytes()


def test_take_and_base(tmp_path: Path, soup: Callable[..., Ran]) -> None:
    """With a base, --exclude takes from the base and --take from the ingredient."""
    paths = two(tmp_path, "table")
    base = {"w": torch.zeros(3), "head": torch.full((2,), 9.0), "table": torch.zeros(40, dtype=torch.int64)}
    save_file(base, tmp_path / "base.safetensors")
    for number, path in enumerate(paths):
        tensors = load_file(path / "model.safetensors")
        save_file({**tensors, "head": torch.full((2,), float(number))}, path / "model.safetensors")
    words = ["--base", str(tmp_path / "base.safetensors"), "--exclude", "head", "--take", "table"]
    assert soup("uniform", "--ckpts", *paths, "--out", tmp_path / "out", *words).code == 0
    made = load_file(tmp_path / "out/model.safetensors")
    assert made["head"].tolist() == [9.0, 9.0]
    assert made["table"].tolist() == list(range(40))
    assert soup("mix", tmp_path / "out/soup.json", "--out", tmp_path / "again").code == 0
