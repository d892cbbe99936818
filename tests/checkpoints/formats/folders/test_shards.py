"""Hugging Face's shards: what the libraries write is read, what does not fit together is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file

from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import CheckpointError
from soupcli.files import reading as files
from tests.helpers.checkpoint_tensors import assert_same, opened, read_all, small_net

INDEX = "model.safetensors.index.json"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A folder of several safetensors shards, as huggingface_hub writes them."""
    folder = tmp_path / "sharded"
    folder.mkdir()
    save_torch_state_dict(small_net().state_dict(), folder, max_shard_size=100)
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def test_safetensors(sharded: Path) -> None:
    """All tensors of all shards, from the folder and from its index."""
    for path in (sharded, sharded / INDEX):
        checkpoint = open_checkpoint(path)
        assert checkpoint.origin.format == "sharded safetensors"
        assert_same(read_all(checkpoint), small_net().state_dict())


def test_bin(tmp_path: Path) -> None:
    """Shards of torch.save under pytorch_model.bin.index.json."""
    save_torch_state_dict(small_net().state_dict(), tmp_path, max_shard_size=100, safe_serialization=False)
    assert (tmp_path / "pytorch_model.bin.index.json").exists()
    assert open_checkpoint(tmp_path).origin.format == "sharded torch"
    assert_same(opened(tmp_path), small_net().state_dict())


def test_transformers(tmp_path: Path) -> None:
    """A folder of save_pretrained with small shards."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.BertConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=40
    )
    model = transformers.BertForSequenceClassification(config)
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    assert (tmp_path / INDEX).exists()
    assert_same(opened(tmp_path), model.state_dict())


def test_prefixes_come_off_all_shards(tmp_path: Path) -> None:
    """A prefix that every name of every shard has comes off, though the index has it too."""
    state = {f"module.{name}": tensor for name, tensor in small_net().state_dict().items()}
    save_torch_state_dict(state, tmp_path, max_shard_size=100)
    assert_same(opened(tmp_path), small_net().state_dict())


def change(index: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(index.read_text())
    edit(content)
    index.write_text(json.dumps(content))


def first_shard(folder: Path) -> Path:
    return min(folder.glob("*.safetensors"))


def test_missing_shard(sharded: Path) -> None:
    """A shard that was not copied is named."""
    name = first_shard(sharded).name
    first_shard(sharded).unlink()
    with pytest.raises(CheckpointError, match=f"names the file {name}, which is not there"):
        open_checkpoint(sharded)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", "", "a\\b", "a\0b"])
def test_shards_lie_beside_their_index(sharded: Path, name: str) -> None:
    """A shard with a path for a name is refused, whether something is there or not."""
    shutil.copy(first_shard(sharded), sharded.parent / "x.safetensors")

    def point_elsewhere(content: dict[str, Any]) -> None:
        content["weight_map"] = dict.fromkeys(content["weight_map"], name)

    change(sharded / INDEX, point_elsewhere)
    with pytest.raises(CheckpointError, match="which is not a file name"):
        open_checkpoint(sharded)


def test_linked_shard(sharded: Path, tmp_path: Path) -> None:
    """A shard that is a link is read, whether it leads out of the folder or not."""
    shard = first_shard(sharded)
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    assert_same(opened(sharded), small_net().state_dict())


def test_hub_cache(sharded: Path, tmp_path: Path) -> None:
    """snapshots/REVISION/NAME -> blobs/HASH is how huggingface_hub keeps what it has downloaded."""
    repository = tmp_path / "models--a--b"
    snapshot = repository / "snapshots/0123"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, path in enumerate(sorted(sharded.iterdir())):
        path.rename(repository / f"blobs/{number}")
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert_same(opened(snapshot), small_net().state_dict())


def test_stale_index(sharded: Path) -> None:
    """An index that names a tensor which its shard has not is refused, naming both."""
    shard = first_shard(sharded)
    state = load_file(shard)
    name = next(iter(state))
    save_file({f"other.{name}": state[name]}, shard)
    with pytest.raises(CheckpointError, match=f"says that {shard.name} has tensor '{name}', it does not"):
        open_checkpoint(sharded)


def test_shard_with_more_than_the_index_says(sharded: Path) -> None:
    """A tensor that the index forgets is read; one that lies in two shards is taken from the one that it names."""
    shard, other = sorted(sharded.glob("*.safetensors"))[:2]
    name = next(iter(load_file(other)))
    save_file({**load_file(shard), "added": torch.ones(1), name: torch.zeros(1)}, shard)
    assert_same(opened(sharded), {**small_net().state_dict(), "added": torch.ones(1)})


def test_tensor_in_two_shards(sharded: Path) -> None:
    """A tensor that the index forgets and two shards have is refused."""
    for shard in sorted(sharded.glob("*.safetensors"))[:2]:
        save_file({**load_file(shard), "added": torch.ones(1)}, shard)
    with pytest.raises(CheckpointError, match="both have tensor 'added'"):
        open_checkpoint(sharded)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "no weight_map"),
        ('{"weight_map": {}}', "no weight_map"),
        ('{"weight_map": {"a": 3}}', "no weight_map"),
        ('{"weight_map": {"a": "x", "a": "y"}}', "a key stands there twice"),
        ('{"weight_map": {"a": "\xff"}}', "not JSON"),
    ],
    ids=["cut", "deep", "list", "empty", "numbers", "doubled", "latin-1"],
)
def test_broken_index(tmp_path: Path, text: str, message: str) -> None:
    """An index that cannot be read is refused in one line."""
    (tmp_path / INDEX).write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=message) as refused:
        open_checkpoint(tmp_path)
    assert "\n" not in str(refused.value)


def test_an_index_of_very_many_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of more tensors than a network has is refused before they are made objects of."""
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {f"{number}": "x" for number in range(99)}}))
    monkeypatch.setattr("soupcli.checkpoints.formats.folders.shards.MOST_TENSORS", 50)
    with pytest.raises(CheckpointError, match=r"index\.json: it holds 100 values, at most 50 are read"):
        open_checkpoint(tmp_path)


def test_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many more shards than may be open at once are read, and none is opened again for each tensor."""
    state = {f"t{number:03d}": torch.full((2,), float(number)) for number in range(150)}
    save_torch_state_dict(state, tmp_path, max_shard_size=8)
    monkeypatch.setattr(files, "MOST_OPEN", 40)
    checkpoint = open_checkpoint(tmp_path)
    assert len(checkpoint.files) == 150
    count = 0

    def counted(file: files.FileVersion) -> int:
        nonlocal count
        count += 1
        return original(file)

    original = files._open_recorded
    monkeypatch.setattr(files, "_open_recorded", counted)
    assert_same(read_all(checkpoint), state)
    assert count <= 150
    assert len(files._open_files._open) <= 40
