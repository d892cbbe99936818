"""Bytes of small files, and comparisons of files, whatever size a file says it has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from soupcli.files.small_file import MOST_COMPARED, read_end, read_small, same_bytes

if TYPE_CHECKING:
    from pathlib import Path


def test_equal_files(tmp_path: Path) -> None:
    """Files are compared by their bytes; pipes, absent ones and those beyond any side file's size are not equal."""
    one, two, large, as_large = (tmp_path / name for name in ("one", "two", "large", "as_large"))
    for file in (one, two):
        file.write_bytes(b"abc")
    assert same_bytes(one, two)
    two.write_bytes(b"abd")
    assert not same_bytes(one, two)
    assert not same_bytes(one, tmp_path / "absent")
    for file in (large, as_large):
        file.touch()
        os.truncate(file, 4_000 * MOST_COMPARED)  # holes, without a byte on the disk: reading them would take minutes
    assert not same_bytes(large, as_large)
    os.mkfifo(tmp_path / "pipe")
    assert not same_bytes(tmp_path / "pipe", tmp_path / "pipe")


def test_ends(tmp_path: Path) -> None:
    """The last bytes of a file, or all of a shorter one, and none of a file of holes."""
    (tmp_path / "short").write_bytes(b"abc")
    assert [read_end(tmp_path / "short", count) for count in (2, 8)] == [b"bc", b"abc"]
    (tmp_path / "holes").touch()
    os.truncate(tmp_path / "holes", 1 << 40)
    assert read_end(tmp_path / "holes", 2) == b"\0\0"
    with pytest.raises(OSError, match="has more than 10 bytes"):
        read_small(tmp_path / "holes", most=10)
