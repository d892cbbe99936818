"""Soups on disk: what safetensors reads back, the same bytes each time, whole or not at all."""

from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.find import find
from soupcli.errors import MixError, OutputError
from soupcli.files.atomic import check_file, write_whole
from soupcli.mixing.mixture import Mixture
from soupcli.mixing.soup_folder import SoupFolder
from soupcli.mixing.write_soup import Written, write_weights
from tests.helpers.checkpoint_tensors import assert_same, opened
from tests.helpers.exact_mean import InMemory

FAMILY = {
    "head.weight": torch.float32,
    "norm.bias": torch.bfloat16,
    "embed.weight": torch.float16,
    "steps": torch.int64,
    "mask": torch.bool,
}


def tensors(seed: int) -> dict[str, Tensor]:
    """One ingredient of several dtypes; integers are alike in all."""
    generator = torch.Generator().manual_seed(seed)
    state = {name: torch.randn(7, 3, generator=generator) for name in FAMILY}
    state["steps"], state["mask"] = torch.arange(4), torch.tensor([True, False])
    return {name: tensor.to(FAMILY[name]) for name, tensor in state.items()}


@pytest.fixture
def members(tmp_path: Path) -> list[Checkpoint]:
    """Three ingredients in files."""
    for seed in range(3):
        folder = tmp_path / f"runs/{seed}"
        folder.mkdir(parents=True)
        save_file(tensors(seed), folder / "model.safetensors")
    return list(find([str(tmp_path / "runs/*/")]).checkpoints)


def expected(count: int = 3) -> dict[str, Tensor]:
    """The mean by torch in float64; the first ingredient's integers."""
    states = [tensors(seed) for seed in range(count)]
    means = {}
    for name, tensor in states[0].items():
        if tensor.is_floating_point():
            tensor = torch.stack([state[name].double() for state in states]).mean(dim=0).to(tensor.dtype)
        means[name] = tensor
    return means


def write(mixture: Mixture, folder: Path, *, max_shard_size: int = sys.maxsize) -> Written:
    folder.mkdir(exist_ok=True)
    return write_weights(mixture, folder, metadata={"format": "pt", "soup": "{}"}, max_shard_size=max_shard_size)


def test_streamed_equals_eager(members: list[Checkpoint], tmp_path: Path) -> None:
    """The library reads what torch computes with everything in memory, metadata included."""
    written = write(Mixture.uniform(members), tmp_path / "soup")
    file = tmp_path / "soup/model.safetensors"
    assert written.files == ["model.safetensors"]
    assert_same(load_file(file), expected())
    with safe_open(file, "pt") as opened_file:
        assert opened_file.metadata() == {"format": "pt", "soup": "{}"}
    assert written.nbytes == file.stat().st_size


@given(st.integers(1, 6), st.integers(1, 400), st.integers(0, 2**20))
@settings(max_examples=25, deadline=None)
def test_any_shape_and_number(tmp_path_factory: pytest.TempPathFactory, count: int, size: int, seed: int) -> None:
    """Any number of ingredients of any size: the file holds their float64 mean, rounded."""
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(size, generator=generator) for _ in range(count)]
    mixture = Mixture.uniform([InMemory(f"{number}", {"w": row}) for number, row in enumerate(rows)])
    folder = tmp_path_factory.mktemp("any")
    write(mixture, folder)
    assert torch.equal(load_file(folder / "model.safetensors")["w"], torch.stack(rows).double().mean(dim=0).float())


def test_same_bytes(members: list[Checkpoint], tmp_path: Path) -> None:
    """Two runs, and another order of the members, write the same file and give the same hash."""
    one = write(Mixture.uniform(members), tmp_path / "one")
    other = write(Mixture.uniform(members[::-1], keep_from=members[0]), tmp_path / "other")
    assert one.hash == other.hash
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "other/model.safetensors").read_bytes()


def test_tensors_are_aligned(members: list[Checkpoint], tmp_path: Path) -> None:
    """Data begins at a multiple of 8 bytes and every tensor at one of its own element's size."""
    write(Mixture.uniform(members), tmp_path / "soup")
    raw = (tmp_path / "soup/model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    assert length % 8 == 0
    for name, dtype in FAMILY.items():
        assert header[name]["data_offsets"][0] % dtype.itemsize == 0


def test_shards(members: list[Checkpoint], tmp_path: Path) -> None:
    """Past the largest size there are shards and an index, which this program and the format's rules read back."""
    written = write(Mixture.uniform(members), tmp_path / "soup", max_shard_size=100)
    index = json.loads((tmp_path / "soup/model.safetensors.index.json").read_text())
    names = sorted(file.name for file in (tmp_path / "soup").glob("*.safetensors"))
    assert sorted(written.files) == sorted([*names, "model.safetensors.index.json"])
    assert set(index["weight_map"].values()) == set(names)
    assert len(names) > 2 and names[0] == f"model-00001-of-{len(names):05d}.safetensors"
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in expected().values())
    assert_same(opened(tmp_path / "soup"), expected())


def test_overrides(members: list[Checkpoint], tmp_path: Path) -> None:
    """Tensors that were re-estimated take the place of the mean, in the soup's dtype."""
    other = torch.full((7, 3), 0.1, dtype=torch.float64)
    (tmp_path / "soup").mkdir()
    write_weights(
        Mixture.uniform(members),
        tmp_path / "soup",
        metadata={},
        max_shard_size=sys.maxsize,
        overrides={"norm.bias": other},
    )
    found = load_file(tmp_path / "soup/model.safetensors")
    assert torch.equal(found["norm.bias"], other.bfloat16())
    assert torch.equal(found["head.weight"], expected()["head.weight"])


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_mode_follows_the_umask(members: list[Checkpoint], tmp_path: Path, umask: int) -> None:
    """Others may read a soup where the umask lets them."""
    before = os.umask(umask)
    try:
        write(Mixture.uniform(members), tmp_path / "soup")
    finally:
        os.umask(before)
    assert (tmp_path / "soup/model.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask


def test_bad_number_leaves_nothing(tmp_path: Path) -> None:
    """An ingredient with a NaN ends the folder that was begun; nothing has the soup's name."""
    mixture = Mixture.uniform([InMemory("a", {"w": torch.tensor([1.0, torch.nan])})] * 2)
    with (
        pytest.raises(MixError, match="tensor 'w' holds nan at element 1"),
        SoupFolder(tmp_path / "soup", force=False) as f,
    ):
        write(mixture, f.path)
    assert list(tmp_path.iterdir()) == []


def test_whole_texts(tmp_path: Path) -> None:
    """A text replaces a file in one step, in folders that are made for it; errors name the file."""
    file = tmp_path / "a/b/report.json"
    write_whole(file, "one")
    write_whole(file, "two")
    assert file.read_text() == "two" and len(list(file.parent.iterdir())) == 1
    with pytest.raises(OutputError, match=r"report\.json/x"):
        write_whole(file / "x", "three")
    with pytest.raises(OutputError, match="is a folder"):
        check_file(tmp_path / "a")
