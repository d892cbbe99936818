"""The hash of a file is that of its content, whatever times say."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soupcli.files import manifest as module
from soupcli.files import stamp
from soupcli.files.json_store import JsonStore
from soupcli.files.manifest import Manifest, UserReads
from soupcli.files.stamp import Stamp

SECOND = 1_000_000_000
STEPS = st.lists(
    st.one_of(
        st.sampled_from([0, SECOND // 2, SECOND, 3 * SECOND]),  # time goes on
        st.sampled_from("AB"),  # the file gets this content, in place, with the time of modification of before
        st.sampled_from(["run"]),
    ),
    max_size=14,
)


class Coarse:
    """A file system that tells times apart by so many nanoseconds, and a clock."""

    def __init__(self, tick: int) -> None:
        self.tick, self.now, self.changed = tick, 1000 * SECOND, 0

    def stamp_of(self, path: Path) -> Stamp:
        """The file's stamp; only the time of change tells of a change."""
        return Stamp(path.stat().st_size, 0, self.changed // self.tick * self.tick, 1, 1)


@settings(max_examples=25)  # each reads and writes many files
@given(STEPS, st.sampled_from([1, SECOND, 2 * SECOND]))
def test_coarse_times(tmp_path_factory: pytest.TempPathFactory, steps: list[Any], tick: int) -> None:
    """On file systems that keep seconds only, a run never takes the hash of what the file was before."""
    folder = tmp_path_factory.mktemp("coarse")
    system, file = Coarse(tick), folder / "file"
    file.write_text("A")
    system.changed = system.now
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Stamp", SimpleNamespace(of=system.stamp_of))
        patch.setattr(module, "time", SimpleNamespace(time_ns=lambda: system.now))
        for step in [*steps, "run"]:
            if isinstance(step, int):
                system.now += step
            elif step != "run":
                file.write_text(step)
                system.changed = system.now
            else:
                assert Manifest(folder / "hashes").file(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def replaced(file: Path) -> None:
    """Another file of the same size, with the same times, is put in its place."""
    file.with_name("new").write_bytes(bytes(len(file.read_bytes())))
    file.with_name("new").replace(file)


def overwritten(file: Path) -> None:
    """Bytes between those that are sampled are written in place."""
    with file.open("r+b") as opened:
        opened.seek(5000)
        opened.write(b"other")


def led_elsewhere(file: Path) -> None:
    """The folder's link leads to another folder with a file of the same name."""
    folder = file.parent.with_name("other")
    folder.mkdir()
    (folder / file.name).write_bytes(bytes(len(file.read_bytes())))
    os.utime(folder / file.name, (1, 1))
    file.parent.unlink()
    file.parent.symlink_to(folder)


@pytest.mark.parametrize("change", [replaced, overwritten, led_elsewhere])
@pytest.mark.parametrize("at", [1, 1 << 40])
def test_times_that_are_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, at: int) -> None:
    """A file of the same size and time of modification, in the past or in the future, is read again."""
    monkeypatch.setattr(stamp, "SAMPLED", 4096)
    monkeypatch.setattr(stamp, "SAMPLES", 2)
    monkeypatch.setattr(module, "time", SimpleNamespace(time_ns=lambda: 1 << 62))  # nothing is young
    (tmp_path / "one").mkdir()
    (tmp_path / "link").symlink_to("one")
    file = tmp_path / "link/file"
    file.write_bytes(bytes(range(256)) * 64)
    os.utime(file, (at, at))
    before = [Manifest(tmp_path / "hashes").file(file), Manifest(tmp_path / "hashes").files([("x", file)])]
    change(file)
    os.utime(file, (at, at))
    after = [Manifest(tmp_path / "hashes").file(file), Manifest(tmp_path / "hashes").files([("x", file)])]
    assert after[0] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert after[0] != before[0] and after[1] != before[1]


def test_a_kept_hash_of_code_is_not_used(tmp_path: Path) -> None:
    """A wrong hash of a file of Python among the kept ones neither serves another code's scores nor ends a run."""
    file, text = tmp_path / "net.py", b"WIDTH = 3\n"
    file.write_bytes(text)
    os.utime(file, (0, 0))
    run = hashlib.sha256(text).hexdigest()
    store = JsonStore(tmp_path / "hashes", module.SCHEMA)
    store.put(Stamp.of(file).text, "0" * 64)
    manifest = Manifest(tmp_path / "hashes", user=UserReads(seen=lambda: {file: run}))
    manifest._began += 10**10  # the file is old
    assert manifest.file(file) == run
    assert [str(file), run] in manifest.depends()


@pytest.mark.parametrize("way", ["below", "beside", "whole"])
def test_another_working_folder(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a copy of the folder a record holds only while all that code may open there is what it was.

    Code opens a file below the working folder, beside it, or by its whole path, which leads from the copy to the first.
    """
    path = {"below": "data.txt", "beside": "../data.txt", "whole": str(tmp_path / "a/run/data.txt")}[way]
    for file in ("run/data.txt", "data.txt"):
        for project in (tmp_path / "a", tmp_path / "b"):
            (project / file).parent.mkdir(parents=True, exist_ok=True)
            (project / file).write_text("one")

    def manifest() -> Manifest:
        return Manifest(user=UserReads(seen=lambda: {Path(os.path.abspath(path)): None}))  # noqa: PTH100

    monkeypatch.chdir(tmp_path / "a/run")
    depends = manifest().depends()
    monkeypatch.chdir(tmp_path / "b/run")
    assert manifest().holds(depends)
    Path(path).write_text("two")
    assert not manifest().holds(depends)
    Path(path).write_text("one")
    (tmp_path / "a").rename(tmp_path / "gone")
    assert manifest().holds(depends)
