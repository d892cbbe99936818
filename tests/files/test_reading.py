"""Small files of strangers are read up to a size, and pipes and devices not at all."""

from __future__ import annotations

import ast
import ctypes
import hashlib
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import soupcli
from soupcli.files.reading import HASH_CHUNK, FileVersion, paged, sha256
from soupcli.files.small_file import read_small
from tests.conftest import Ran


def test_only_small_files(tmp_path: Path) -> None:
    """One byte too many, a pipe, a device and a folder are refused by name."""
    (tmp_path / "file").write_bytes(b"abc")
    os.mkfifo(tmp_path / "pipe")
    assert read_small(tmp_path / "file", most=3) == b"abc"
    for place, most in ((tmp_path / "file", 2), (tmp_path / "pipe", 9), (Path("/dev/zero"), 9), (tmp_path, 9)):
        with pytest.raises(OSError, match=place.name):
            read_small(place, most=most)


def test_side_files_without_end(family: Path, soup: Callable[..., Ran]) -> None:
    """Files of 60 GB that are holes are left out of a soup and never read."""
    for name in ("tokenizer.json", "config.json", "vocab.txt"):
        with Path("runs/0", name).open("wb") as file:
            file.truncate(60_000_000_000)
    ran = soup("uniform", "--ckpts", "runs/0", "runs/1", "--out", "soup", "--card")
    assert ran.code == 0, ran.stderr
    assert not {"tokenizer.json", "config.json", "vocab.txt"} & {file.name for file in Path("soup").iterdir()}


def test_scores_with_endless_digits(family: Path, soup: Callable[..., Ran]) -> None:
    """A score of 400 digits, and one in deep lists, are refused by line."""
    for text in ('{"model_name": "0", "val": %s}' % ("9" * 400), "[" * 100_000):
        Path("scores.jsonl").write_text(text)
        ran = soup("rank", "--ckpts", "runs/0", "--scores", "scores.jsonl", "--val", "val")
        assert ran.code == 2, ran.stderr
        assert "scores.jsonl:1" in ran.stderr
        assert "internal error" not in ran.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("uniform", "--ckpts", "runs/0", "runs/1", "--max-shard-size", "9" * 400 + "GB"),
        ("mix", "--ckpts", "runs/0", "--base", "runs/1", "--alpha", "0:1e999999999:1"),
        ("rank", "--ckpts", "runs/0", "--val", "val", "--set", f"gates.val='>= {'9' * 400}'"),
    ],
    ids=lambda words: words[0],
)
def test_options_with_endless_digits(words: tuple[str, ...], family: Path, soup: Callable[..., Ran]) -> None:
    """Sizes, alphas and gates of 400 digits are refused at once."""
    ran = soup(*words)
    assert ran.code == 2, ran.stderr
    assert "internal error" not in ran.stderr


def test_viewed_memory_lives() -> None:
    """What memory_of views has a name in the calling function: a nameless tensor is freed before it is read."""
    calls = [
        (file, node)
        for file in Path(soupcli.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "memory_of"
    ]
    assert calls and [f"{file}:{node.lineno}" for file, node in calls if not isinstance(node.args[0], ast.Name)] == []


def test_memory_begins_with_a_page(tmp_path: Path) -> None:
    """Large reads go to memory that begins with a page; a hash is that of all chunks, of the last one its part."""
    memory = paged(HASH_CHUNK)
    assert ctypes.addressof(ctypes.c_char.from_buffer(memory)) % mmap.PAGESIZE == 0
    assert memory.nbytes == HASH_CHUNK and not any(memory[:100])
    content = b"a" * HASH_CHUNK + b"b"
    (tmp_path / "large").write_bytes(content)
    assert sha256(FileVersion.of(tmp_path / "large")) == hashlib.sha256(content).hexdigest()
