"""Files appear whole or not at all: what fails leaves the old one, and nothing beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from soupcli.errors import OutputError
from soupcli.files.atomic import check_file, write_whole


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a file never takes the place of a whole one, and no rest stays behind."""
    write_whole(tmp_path / "file", b"old")

    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("soupcli.files.atomic.os.fsync", refuse)
    with pytest.raises(OutputError, match="file: Input/output error: 3 bytes are needed"):
        write_whole(tmp_path / "file", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_a_link_stays(tmp_path: Path) -> None:
    """Of a link the target is replaced."""
    (tmp_path / "link").symlink_to("file")
    write_whole(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "text"


def test_nothing_of_a_path_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system says that no folder of a path exists, not even the working one, it is one line."""
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(OutputError, match=r"x/report\.json: nothing can be written in x"):
        check_file(Path("x/report.json"))
