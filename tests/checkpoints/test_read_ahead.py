"""Files that are read ahead of their need."""

from __future__ import annotations

from pathlib import Path

import pytest

from soupcli.errors import CheckpointError
from soupcli.files.reading import FileVersion, announce, read_bytes


def test_announced_file_reads_as_before(tmp_path: Path) -> None:
    """Announcing a file changes nothing of what is read from it."""
    path = tmp_path / "file"
    path.write_bytes(b"12345678")
    version = FileVersion.of(path)
    announce(version)
    assert read_bytes(version, 0, 8) == b"12345678"


def test_vanished_file_is_named(tmp_path: Path) -> None:
    """A file that is gone when it is announced ends the run with its name."""
    path = tmp_path / "file"
    path.write_bytes(b"12345678")
    version = FileVersion.of(path)
    path.unlink()
    with pytest.raises(CheckpointError, match="file: No such file"):
        announce(version)
