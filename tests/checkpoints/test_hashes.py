"""Hashes of checkpoints: SHA-256, computed once a file, anew where it changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soupcli.checkpoints import hashes as content_hash
from soupcli.checkpoints.checkpoint import StoredCheckpoint
from soupcli.checkpoints.hashes import ContentHashes
from soupcli.checkpoints.open import open_checkpoint
from soupcli.errors import CheckpointError
from soupcli.files.reading import FileVersion, sha256


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that were read to be hashed."""
    names: list[str] = []

    def counted(file: FileVersion) -> str:
        names.append(file.path.name)
        return sha256(file)

    monkeypatch.setattr(content_hash, "sha256", counted)
    return names


@pytest.fixture(autouse=True)
def _old_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes of files that are a moment old are kept too."""
    monkeypatch.setattr(content_hash, "YOUNG", 0)


def hash_of(file: Path, cache: Path, *, fresh: bool = False) -> str:
    hashes = ContentHashes(cache, fresh=fresh)
    try:
        return hashes.of(open_checkpoint(file))
    finally:
        hashes.close()


def test_once_a_file(tmp_path: Path, hashed: list[str]) -> None:
    """The hash is that of sha256sum; a second run does not read the file, one with fresh does."""
    file = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(3)}, file)
    expected = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert hash_of(file, tmp_path / "cache") == expected
    assert hash_of(file, tmp_path / "cache") == expected
    assert hashed == ["a.safetensors"]
    assert hash_of(file, tmp_path / "cache", fresh=True) == expected
    assert len(hashed) == 2


def test_changed_file(tmp_path: Path) -> None:
    """Other bytes of the same length are other bytes; a damaged note of the cache is not believed."""
    file = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(3)}, file)
    before = hash_of(file, tmp_path / "cache")
    for note in (tmp_path / "cache").rglob("*.json"):
        note.write_text('{"sha256": "short"}')
    assert hash_of(file, tmp_path / "cache") == before
    save_file({"w": torch.zeros(3)}, file)
    assert hash_of(file, tmp_path / "cache") != before


def test_changes_meanwhile(tmp_path: Path) -> None:
    """A file that grows after it was opened is an error that names it."""
    file = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(3)}, file)
    hashes = ContentHashes(tmp_path / "cache")
    checkpoint = open_checkpoint(file)
    with file.open("ab") as more:
        more.write(b"more")
    with pytest.raises(CheckpointError, match=r"a\.safetensors: changed while it was read"):
        hashes.of(checkpoint)
    hashes.close()


def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    """It costs time alone."""
    file = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(3)}, file)
    (tmp_path / "cache").write_text("a file, no folder")
    assert hash_of(file, tmp_path / "cache").startswith("sha256:")


def test_equal_names_in_two_folders(tmp_path: Path) -> None:
    """Files of one name in several folders count each: a change of any of them changes the hash."""
    for folder in ("", "dense"):
        (tmp_path / folder).mkdir(exist_ok=True)
        save_file({"w": torch.ones(3)}, tmp_path / folder / "model.safetensors")
    hashes = []
    for value in (1.0, 2.0):
        save_file({"w": torch.full((3,), value)}, tmp_path / "model.safetensors")
        top, dense = (open_checkpoint(tmp_path / folder / "model.safetensors") for folder in ("", "dense"))
        whole = StoredCheckpoint(tmp_path, {}, {}, (*top.files, *dense.files))
        content = ContentHashes(tmp_path / "cache")
        hashes.append(content.of(whole))
        content.close()
    assert hashes[0] != hashes[1]
