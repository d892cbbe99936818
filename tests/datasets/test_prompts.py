"""Text files that go with a set."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from soupcli.datasets.prompts import content_hash, read_lines
from soupcli.errors import ValidationError


def test_content_hash(tmp_path: Path) -> None:
    """SHA-256 of the content; a missing file and a folder are errors."""
    (tmp_path / "a").write_bytes(b"content")
    assert content_hash(tmp_path / "a") == hashlib.sha256(b"content").hexdigest()
    with pytest.raises(ValidationError, match="b: no such file"):
        content_hash(tmp_path / "b")
    with pytest.raises(ValidationError, match="is a folder, not a file"):
        content_hash(tmp_path)


def test_read_lines(tmp_path: Path) -> None:
    """Lines without what is around them, whatever ends them; one that is empty would shift all that follow."""
    file = tmp_path / "names.txt"
    file.write_bytes("\ufeffcat\r\n dog \nemu\n\n".encode())
    assert read_lines(file) == ["cat", "dog", "emu"]
    for content, message in ((b"cat\n\nemu\n", ":2: an empty line"), (b"\n", "has no lines"), (b"\xff", "utf-8")):
        file.write_bytes(content)
        with pytest.raises(ValidationError, match=rf"names\.txt:?.*{message}"):
            read_lines(file)
    with pytest.raises(ValidationError, match="No such file"):
        read_lines(tmp_path / "nowhere.txt")
