"""Files appear whole or not at all: what fails leaves the old one, and nothing beside it."""

from __future__ import annotations

import errno
from itertools import count
from pathlib import Path
from threading import Event, Semaphore

import pytest

from soupcli.errors import OutputError
from soupcli.files import atomic
from soupcli.files.atomic import EarlyFlush, check_file, take_place, write_whole
from soupcli.files.lock import claim


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a file never takes the place of a whole one, and no rest stays behind."""
    write_whole(tmp_path / "file", b"old")

    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("soupcli.files.atomic.os.fsync", refuse)
    with pytest.raises(OutputError, match="file: Input/output error: 3 bytes are needed"):
        write_whole(tmp_path / "file", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_flushed_while_it_is_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush begins after so many bytes, not while another goes on, and what the disk refuses is raised at the end."""
    monkeypatch.setattr(atomic, "FLUSHED_AT_ONCE", 10)
    begun, may_end = Semaphore(0), Event()

    def slow(_: int) -> None:
        begun.release()
        assert may_end.wait(60)

    monkeypatch.setattr("soupcli.files.atomic.os.fsync", slow)
    with EarlyFlush(0) as early:
        early.written(9)
        assert not begun.acquire(blocking=False)
        early.written(1)
        assert begun.acquire(timeout=60)
        early.written(10)
        may_end.set()
    assert not begun.acquire(blocking=False)

    def refuse(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("soupcli.files.atomic.os.fsync", refuse)
    with pytest.raises(OSError, match="Input/output error"), EarlyFlush(0) as early:
        early.written(10)


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


def test_paths_that_cannot_be_made(tmp_path: Path) -> None:
    """A link to itself, which a file would replace, and a path of a thousand folders are refused."""
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OutputError, match="loop: is a link that leads to itself"):
        check_file(tmp_path / "loop")
    with pytest.raises(OutputError, match=r"has 1000 parts, at most \d+ are made"):
        check_file(Path("/".join("a" * 1000)))
    with pytest.raises(OutputError, match="has 1000 parts"), claim(Path("/".join("a" * 1000))):
        pass


@pytest.mark.parametrize("refused", [1, 2])
def test_a_folder_that_cannot_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int) -> None:
    """If the old folder or the new one cannot take its name, such as one where a disk is mounted, the old one stays."""
    new, place = tmp_path / "new", tmp_path / "place"
    for folder in (new, place):
        folder.mkdir()
        (folder / folder.name).touch()
    monkeypatch.setattr(atomic, "_exchange_at_once", lambda _one, _other: False)
    rename, renames = Path.rename, count()

    def busy(path: Path, target: Path) -> Path:
        if next(renames) == refused:
            raise OSError(errno.EBUSY, "Device or resource busy")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", busy)
    with pytest.raises(OSError, match="busy"):
        take_place(new, place)
    assert [file.relative_to(tmp_path) for file in tmp_path.rglob("*")] == [Path("place"), Path("place/place")]
