"""Ingredients are hashed from the bytes that are mixed: the right hash, each byte read once, nobody waits for ever."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from soupcli.checkpoints import checkpoint as checkpoint_module
from soupcli.checkpoints import hashes as content_hash
from soupcli.checkpoints.checkpoint import Checkpoint
from soupcli.checkpoints.find import find
from soupcli.checkpoints.hashes import ContentHashes
from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import CheckpointError, MixError
from soupcli.files.reading import FileVersion, hash_of_files, memory_of, read_at, sha256
from soupcli.mixing import hash_stream, terms
from soupcli.mixing.hash_stream import HashStream
from soupcli.mixing.mixture import Mixture
from soupcli.mixing.write_soup import WritingOptions, write_soup

Read = Counter[Path]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    """How many bytes of each file were read to be mixed or hashed."""
    counted: Read = Counter()

    def counting(file: FileVersion, offset: int, out: Tensor | memoryview) -> None:
        counted[file.path] += len(out if isinstance(out, memoryview) else memory_of(out))
        read_at(file, offset, out)

    def hashing(file: FileVersion) -> str:
        counted[file.path] += file.size
        return sha256(file)

    monkeypatch.setattr(checkpoint_module, "read_at", counting)
    monkeypatch.setattr(hash_stream, "read_at", counting)
    monkeypatch.setattr(content_hash, "sha256", hashing)
    return counted


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors are mixed in pieces of 64 numbers, and small files are hashed so too."""
    monkeypatch.setattr(hash_stream, "LEAST", 0)
    monkeypatch.setattr(terms, "READ", 64 * 4 * terms.ROWS)


def state(number: int) -> dict[str, Tensor]:
    """Tensors whose sums are exact at once, so that nothing is read again to find them."""
    generator = torch.Generator().manual_seed(number)
    shapes = {"stem": (3, 333), "body.a": (150, 200), "body.b": (77,), "empty": (0, 4), "head": (10, 77)}
    numbers = {name: torch.randint(1, 99, shape, generator=generator) / 64 for name, shape in shapes.items()}
    return numbers | {"steps": torch.arange(9), "half": torch.randint(1, 99, (65,), generator=generator).half()}


def mixed(base: Path, read: Read | None = None, **options: Any) -> list[Path]:
    """Mix all runs below `base` into a folder, and check the hashes that were learned. Returns the runs' files."""
    members = list(find([str(base / "runs/*/")]).checkpoints)
    if read is not None:
        read.clear()  # what was looked at to find them
    hashes = ContentHashes(base / "cache", fresh=True)
    (base / "soup").mkdir()
    write_soup(Mixture.uniform(members), base / "soup", WritingOptions(hashes=hashes, **options))
    assert [hashes.of(member) for member in members] == [of_content(member) for member in members]
    return [file.path for member in members for file in member.files]


def of_content(member: Checkpoint) -> str:
    contents = {file.path.name: file.path.read_bytes() for file in member.files}
    return hash_of_files({name: hashlib.sha256(content).hexdigest() for name, content in contents.items()})


def run(base: Path, number: int) -> Path:
    folder = base / f"runs/{number:02d}"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("count", [2, 9])
def test_each_byte_is_read_once(count: int, read: Read, tmp_path: Path) -> None:
    """Of more ingredients than are added at once too; of the one that gives them, integers are read twice."""
    for number in range(count):
        save_file(state(number), run(tmp_path, number) / "model.safetensors")
    found = mixed(tmp_path, read)
    assert [read[file] - file.stat().st_size for file in found] == [9 * 8, *[0] * (count - 1)]


def test_shards(tmp_path: Path) -> None:
    """The soup may be cut in other places than its ingredients are."""
    whole = list(state(0))
    for number in range(3):
        folder, numbers = run(tmp_path, number), state(number)
        parts = {f"model-0000{i}-of-00002.safetensors": names for i, names in ((1, whole[:2]), (2, whole[2:]))}
        for file, names in parts.items():
            save_file({name: numbers[name] for name in names}, folder / file)
        index = {"metadata": {}, "weight_map": {name: file for file, names in parts.items() for name in names}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    found = mixed(tmp_path, max_shard_size=4000)
    assert len(list((tmp_path / "soup").glob("*.safetensors"))) > 2
    assert len(found) == 6


@pytest.mark.parametrize("wanted", [None, "torch"])
def test_torch_files(wanted: Literal["torch"] | None, read: Read, tmp_path: Path) -> None:
    """The pickle and the directory of an archive are hashed with what lies between them."""
    for number in range(3):
        torch.save(state(number), run(tmp_path, number) / "pytorch_model.bin")
    found = mixed(tmp_path, read, format=wanted)
    assert max(read[file] / file.stat().st_size for file in found) < 1.2


def test_other_order(read: Read, tmp_path: Path) -> None:
    """A file whose tensors lie in another order than those of the first one is read on its own."""
    for number in range(3):
        numbers = state(number).items()
        torch.save(dict(reversed(numbers) if number == 1 else numbers), run(tmp_path, number) / "pytorch_model.bin")
    found = mixed(tmp_path, read)
    assert [round(read[file] / file.stat().st_size) for file in found] == [1, 2, 1]


def test_tensors_that_are_not_mixed(tmp_path: Path) -> None:
    """A file that is mostly something else is read on its own, and so is one whose numbers are replaced."""
    for number in range(2):
        save_file(state(number) | {"ids": torch.arange(9999)}, run(tmp_path, number) / "model.safetensors")
    mixed(tmp_path, overrides={"body.a": torch.zeros(150, 200)})


def test_a_piece_that_cannot_be_mixed(tmp_path: Path) -> None:
    """Threads that wait for a piece with a NaN go on, and the error is the tensor's."""
    for number in range(2):
        numbers = state(number)
        numbers["body.a"][1, 1] = torch.nan
        save_file(numbers, run(tmp_path, number) / "model.safetensors")
    with pytest.raises(MixError, match=r"tensor 'body\.a' holds nan at element 201"):
        mixed(tmp_path)


def test_a_file_that_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is cut while it is mixed is an error, whichever thread finds out."""
    for number in range(2):
        save_file(state(number), run(tmp_path, number) / "model.safetensors")
    once = HashStream.seen

    def cutting(reading: HashStream, member: Checkpoint, name: str, start: int, memory: memoryview) -> None:
        os.truncate(tmp_path / "runs/01/model.safetensors", 9000)
        once(reading, member, name, start, memory)

    monkeypatch.setattr(HashStream, "seen", cutting)
    with pytest.raises(CheckpointError, match=r"01/model\.safetensors: (ends at byte|changed while it was read)"):
        mixed(tmp_path)


def test_one_file_of_two_members(tmp_path: Path) -> None:
    """A file that is read for two members is hashed once, on its own."""
    file = run(tmp_path, 0) / "model.safetensors"
    save_file(state(0), file)
    run(tmp_path, 1).joinpath("model.safetensors").symlink_to(file)
    members = [open_checkpoint(tmp_path / f"runs/0{number}") for number in range(2)]
    hashes = ContentHashes(tmp_path / "cache", fresh=True)
    (tmp_path / "soup").mkdir()
    write_soup(Mixture.uniform(members), tmp_path / "soup", WritingOptions(hashes=hashes))
    assert {hashes.of(member) for member in members} == {of_content(members[0])}


def test_hashes_that_have_begun(tmp_path: Path) -> None:
    """What was asked for before is not computed again."""
    save_file(state(0), run(tmp_path, 0) / "model.safetensors")
    [member] = find([str(tmp_path / "runs/*/")]).checkpoints
    hashes = ContentHashes(tmp_path / "cache", fresh=True)
    known = hashes.of(member)
    assert hashes.promised(member.files[0]) is None
    assert hashes.of(member) == known
    again = ContentHashes(tmp_path / "cache")
    assert again.promised(member.files[0]) is not None  # the file is younger than the command: nothing was kept
