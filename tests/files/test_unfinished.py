"""What a killed process left is known by its name and removed; what a living one makes is not touched."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from soupcli.files import unfinished as leftovers
from soupcli.files.unfinished import aside, finishing, left_by_others, remove_abandoned, scratch_folder, unfinished


def ended_process() -> int:
    """The number of a process that ran and has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def of(place: Path, pid: int, *, host: str | None = None, start: int | None = None) -> Path:
    """The name that another process would have taken."""
    before, _, rest = place.name.rpartition(f".{os.getpid()}-")
    own_host, _, number = rest.split("-")
    started = leftovers._start_of(pid) if start is None else start
    return place.with_name(f"{before}.{pid}-{host or own_host}-{started}-{number}")


def test_names_are_all_different(tmp_path: Path) -> None:
    """No two names are one, in one process or in two, and none is taken for what another output left."""
    names = [aside(tmp_path / "soup") for _ in range(3)]
    assert len(set(names)) == 3
    for place in (of(names[0], 1), aside(tmp_path / "soup.v2"), tmp_path / ".soup.12.tmp", tmp_path / ".soup.lock"):
        place.touch()
    assert left_by_others(tmp_path / "soup") == [of(names[0], 1)]


def test_only_the_dead_are_cleared(tmp_path: Path) -> None:
    """Files and folders of ended processes go; those of living ones, of this one and of other machines stay."""
    name = aside(tmp_path / "soup")
    dead, alive, elsewhere = of(name, ended_process()), of(name, os.getppid()), of(name, 1, host="0badcafe")
    dead.mkdir()
    (dead / "model.safetensors").touch()
    alive.mkdir()
    elsewhere.touch()
    with unfinished(aside(tmp_path / "soup")) as own:
        own.mkdir()
        remove_abandoned(tmp_path / "soup")
        assert sorted(tmp_path.iterdir()) == sorted([alive, elsewhere, own])
    assert not own.exists()
    os.utime(elsewhere, (0, 0))
    remove_abandoned(tmp_path / "soup")
    assert list(tmp_path.iterdir()) == [alive]


def test_a_number_comes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container every run may be process 1: one that was started later is another. Unknown times prove nothing."""
    name = aside(tmp_path / "soup")
    mine, earlier = of(name, os.getppid()), of(name, os.getppid(), start=7)
    for place in (mine, earlier):
        place.touch()
    monkeypatch.setattr(leftovers, "_start_of", lambda _: 0)
    remove_abandoned(tmp_path / "soup")
    assert len(list(tmp_path.iterdir())) == 2
    monkeypatch.undo()
    remove_abandoned(tmp_path / "soup")
    assert list(tmp_path.iterdir()) == [mine if leftovers._start_of(os.getpid()) else earlier]


ENDS = {
    "by itself": "",
    "by an error": "raise ValueError",
    "in a fork too": "os.fork() or sys.exit()\nos.wait()\nassert folder.exists()",
    "at once": "os._exit(0)",
    "killed": "os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("how", ENDS)
def test_folder_of_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """It is there as long as its process, and a fork does not remove it. What a killed one left the next removes."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lines = ["import os, sys", "from soupcli.files.unfinished import folder_of_process"]
    lines += ["folder = folder_of_process('soup-notes')", "(folder / 'notes').touch()", ENDS[how]]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", "\n".join(lines)], env=environment, check=False, stderr=subprocess.DEVNULL)
    left = list(tmp_path.iterdir())
    assert len(left) == (how in ("at once", "killed"))
    own = leftovers.folder_of_process("soup-notes")
    assert list(tmp_path.iterdir()) == [own]
    leftovers.remove(own)
    leftovers._places.discard(own)


def test_scratch_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else reads it, it goes whatever happens, and takes along what a killed run left."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    of(aside(tmp_path / "soup"), ended_process()).mkdir()
    with pytest.raises(ZeroDivisionError), scratch_folder() as folder:
        assert list(tmp_path.iterdir()) == [folder]
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "weights").touch()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_the_end_waits_for_names_that_are_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that ends the process removes nothing while a folder takes its name, all that is unfinished else."""
    monkeypatch.setattr(leftovers, "_kept", threading.RLock())  # it is never given back
    monkeypatch.setattr(leftovers, "_places", set())  # of this test alone: those of the process stay

    def end() -> None:
        ending = threading.Thread(target=leftovers.remove_all, args=(0.1,))
        ending.start()
        ending.join()

    with unfinished(aside(tmp_path / "soup")) as place:
        place.mkdir()
        with finishing():
            end()
            assert place.exists()
        end()
        assert not place.exists()
