"""What is kept is read back as it was, or is as if it were not there: whoever put it there, and whatever it is."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from soupcli.files.json_store import DEEPEST, JsonStore
from soupcli.files.json_text import key_of
from soupcli.files.kept_file import refusal
from soupcli.files.manifest import Manifest, UserReads

KEY = "ab" * 32
CONTENT = {"a": [1, 2.5, None], "b": "\udc80"}


def a_store(folder: Path, *, fresh: bool = False, largest: int = 1 << 20) -> JsonStore:
    return JsonStore(folder / "kept", "soup-test/1", fresh=fresh, largest=largest)


def test_reads_back(tmp_path: Path) -> None:
    """In the next run, under its key and schema alone; nobody else can read or write it."""
    a_store(tmp_path).put(KEY, CONTENT)
    assert a_store(tmp_path).get(KEY) == CONTENT
    assert a_store(tmp_path).get("cd" * 32) is None
    assert JsonStore(tmp_path / "kept", "soup-test/2").get(KEY) is None
    assert a_store(tmp_path, fresh=True).get(KEY) is None
    file = a_store(tmp_path).file(KEY)
    assert [stat.S_IMODE(place.stat().st_mode) for place in (file, file.parent, tmp_path / "kept")] == [
        0o600,
        0o700,
        0o700,
    ]


def sealed(file: Path, content: object) -> None:
    """A document with the right digest."""
    body = {"content": content, "depends": []}
    file.write_text(json.dumps({"schema": "soup-test/1", "key": KEY, "digest": key_of(body), **body}))


def nested() -> list[object]:
    """A list in a list in a list, one level too deep."""
    found: list[object] = []
    for _ in range(DEEPEST):
        found = [found]
    return found


def pipe(file: Path) -> None:
    """Nobody ever writes into it."""
    file.unlink()
    os.mkfifo(file)


def linked(file: Path) -> None:
    """The very document, by a link."""
    file.rename(file.with_name("x"))
    file.symlink_to(file.with_name("x"))


def folder(file: Path) -> None:
    """No file at all."""
    file.unlink()
    file.mkdir()


def endless(file: Path) -> None:
    """A device that has no end."""
    file.unlink()
    file.symlink_to("/dev/zero")


POISON: dict[str, Callable[[Path], object]] = {
    "pipe": pipe,
    "link": linked,
    "folder": folder,
    "device": endless,
    "deep": lambda file: sealed(file, nested()),
    "NaN": lambda file: file.write_text(file.read_text().replace("2.5", "NaN")),
    "digits": lambda file: file.write_text(file.read_text().replace("2.5", "9" * 5000)),
    "large": lambda file: sealed(file, "x" * (1 << 20)),
    "others": lambda file: file.chmod(0o666),
    "folder of others": lambda file: file.parents[1].chmod(0o777),
    "cache of others": lambda file: file.parents[2].chmod(0o777),
}


@pytest.mark.parametrize("poison", POISON)
def test_poison(tmp_path: Path, poison: str) -> None:
    """Pipes, links, devices, bombs and what others can write are not read, and end nothing."""
    (tmp_path / "cache").mkdir()
    a_store(tmp_path / "cache").put(KEY, CONTENT)
    POISON[poison](a_store(tmp_path / "cache").file(KEY))
    assert a_store(tmp_path / "cache").get(KEY) is None


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    """What a link in the cache leads to stays as it is."""
    store = a_store(tmp_path)
    store.put(KEY, CONTENT)
    (tmp_path / "mine").write_text("mine")
    store.file(KEY).unlink()
    store.file(KEY).symlink_to(tmp_path / "mine")
    store.put(KEY, CONTENT)
    assert (tmp_path / "mine").read_text() == "mine"
    assert a_store(tmp_path).get(KEY) == CONTENT


def test_refusal(tmp_path: Path) -> None:
    """A folder that others can write is named, a sticky one above it is not."""
    (tmp_path / "a/b/c").mkdir(parents=True)
    assert refusal(tmp_path / "a/b/c") is None
    (tmp_path / "a").chmod(0o1777)
    assert refusal(tmp_path / "a/b/c") is None
    assert refusal(tmp_path / "a/b") is None  # others add names beside it, and cannot change its own
    assert "others can write there (mode 1777)" in str(refusal(tmp_path / "a"))
    (tmp_path / "a").chmod(0o777)
    assert "others can write there (mode 777)" in str(refusal(tmp_path / "a/b/c"))


def test_a_folder_that_others_make_first(tmp_path: Path) -> None:
    """A folder that was not there is looked at again once it is: in /tmp anybody may make it."""
    store = a_store(tmp_path / "kept")
    assert store.get(KEY) is None
    (tmp_path / "kept").mkdir(mode=0o777)
    (tmp_path / "kept").chmod(0o777)
    store.put(KEY, CONTENT)
    assert not list((tmp_path / "kept").iterdir())


def test_depends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document is served while the files and folders that it depends on are what they were, wherever they lie."""
    (tmp_path / "one/data").mkdir(parents=True)
    (tmp_path / "one/helper.py").write_text("1")
    (tmp_path / "one/data/x").write_text("x")
    monkeypatch.chdir(tmp_path / "one")
    here = Path.cwd()
    seen = {here / "helper.py": None, here / "data": None, here / "absent": None}
    store = JsonStore(tmp_path / "kept", "soup-test/1", inputs=Manifest(user=UserReads(seen=lambda: seen)))
    store.put(KEY, CONTENT)

    def served() -> bool:
        return JsonStore(tmp_path / "kept", "soup-test/1", inputs=Manifest()).get(KEY) is not None

    assert served()
    (tmp_path / "one").rename(tmp_path / "two")
    monkeypatch.chdir(tmp_path / "two")
    assert served()
    changes: list[Callable[[], object]] = [
        lambda: Path("helper.py").write_text("2"),
        lambda: Path("data/y").write_text("y"),
        lambda: Path("absent").write_text(""),
    ]
    undo: list[Callable[[], object]] = [
        lambda: Path("helper.py").write_text("1"),
        lambda: Path("data/y").unlink(),
        lambda: Path("absent").unlink(),
    ]
    for change, back in zip(changes, undo, strict=True):
        change()
        assert not served()
        back()
        assert served()


@pytest.mark.parametrize("bomb", [b"[]," * 1_100_000, b"1," * 1_100_000, b'{"a":' * 1_100_000])
def test_many_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bomb: bytes) -> None:
    """A document of a million values is absent, and none of them becomes an object."""
    store = JsonStore(tmp_path / "kept", "soup-test/1")
    store.put(KEY, CONTENT)
    store.file(KEY).write_bytes(b'{"content": [' + bomb + b"1]}")
    monkeypatch.setattr(json, "loads", lambda *_, **__: pytest.fail("parsed"))
    assert store.get(KEY) is None
