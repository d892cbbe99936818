"""One writer for each output: the second is refused by the name of the first, and a killed one holds nobody up."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from soupcli.errors import OutputError
from soupcli.files.lock import claim
from soupcli.files.unfinished import aside

NO_FLOCK = """
import errno, fcntl
def flock(*_):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""
HOLD = """
import sys
from pathlib import Path
from soupcli.files.lock import claim
with claim(Path("soup")):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["flock", "no flock"])
def locks(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file system with locks, and one without; what another process must do first to see the same."""
    monkeypatch.chdir(tmp_path)

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    if request.param == "flock":
        return ""
    monkeypatch.setattr(fcntl, "flock", flock)
    return NO_FLOCK


@pytest.fixture
def holder(locks: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that has claimed `soup`."""
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", locks + HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_second_is_refused_by_name(holder: subprocess.Popen[str]) -> None:
    """The error says who writes there, where and since when; when the first has ended, the second may."""
    named = rf"soup: is being written by process {holder.pid} on {socket.gethostname()}, started 20\d\d-.* UTC"
    for _ in range(2):
        with pytest.raises(OutputError, match=named), claim(Path("soup")):
            pass
    holder.communicate("")
    with claim(Path("soup")):
        pass
    assert not list(Path().iterdir())


def test_killed_holder(holder: subprocess.Popen[str]) -> None:
    """A lock that a killed process left behind is taken over."""
    holder.kill()
    holder.wait()
    assert Path(".soup.lock").exists()
    with claim(Path("soup")), claim(Path("soup")):
        assert f"process {os.getpid()} on" in Path(".soup.lock").read_text()
    assert not list(Path().iterdir())


def test_holder_on_another_machine(locks: str) -> None:
    """Without locks of the file system, nothing is known of a process elsewhere: refused, with the file to remove."""
    Path(".soup.lock").write_text("process 1 on far.away, started 2026-01-01 00:00:00 UTC")
    if not locks:
        with claim(Path("soup")):
            return
    with pytest.raises(OutputError, match=r"by process 1 on far.away, started") as refused, claim(Path("soup")):
        pass
    assert str(refused.value.hint).endswith("soup.lock")


def test_new_parents_go_again(locks: str) -> None:
    """Folders that were made for the soup go where none was written, and stay where one was."""
    with claim(Path("a/b/soup")):
        assert Path("a/b").is_dir()
    assert not Path("a").exists()
    with claim(Path("a/b/soup")):
        Path("a/b/soup").mkdir()
    assert Path("a/b/soup").is_dir()


def test_what_was_killed_is_tidied(locks: str) -> None:
    """Half-made folders go, and an old soup that was killed between two names has its own again."""
    place = Path("soup").absolute()
    half, old = (aside(place, ending).with_name(f".soup.1-0badcafe-1-0.{ending}") for ending in ("tmp", "old"))
    half.mkdir()
    old.mkdir()
    (old / "model.safetensors").write_text("old")
    with claim(Path("soup")):
        assert Path("soup/model.safetensors").read_text() == "old"
        old.mkdir()
    with claim(Path("soup")):
        assert [entry.name for entry in Path().iterdir() if entry.suffix != ".lock"] == ["soup"]
