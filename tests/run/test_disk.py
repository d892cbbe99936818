"""Disks that are full, forbidden or write less than they are given: the old soup stays, nothing is left beside it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from soupcli.mixing import soup_folder
from soupcli.mixing.soup_folder import SoupFolder
from tests.cli.test_process import environment
from tests.conftest import Ran

Soup = Callable[..., Ran]
UNIFORM = ["uniform", "--ckpts", "runs/*/", "--force", "--no-card"]
REAL_WRITE = os.pwrite


@pytest.fixture
def old(family: Path, soup: Soup) -> dict[str, bytes]:
    """The files of a soup that is there already; the one that follows would be another."""
    assert soup("uniform", "--ckpts", "runs/0", "runs/1", "--no-card").code == 0
    return files(Path("soup"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("code", "way_out"),
    [(errno.EDQUOT, "make room"), (errno.EIO, "choose another --out"), (errno.EMFILE, "ulimit -n")],
    ids=["EDQUOT", "EIO", "EMFILE"],
)
@pytest.mark.parametrize("at", ["weights", "side file", "report", "flush", "name"])
def test_refused_anywhere(
    old: dict[str, bytes], soup: Soup, monkeypatch: pytest.MonkeyPatch, at: str, code: int, way_out: str
) -> None:
    """Wherever the system refuses, the error says why and the way out; on a full disk, how many bytes were needed."""

    def refuse(*_: object, **__: object) -> Any:
        raise OSError(code, os.strerror(code))

    for number in range(5):
        Path(f"runs/{number}/config.json").write_text("{}")
    places: dict[str, tuple[Any, str]] = {
        "weights": (os, "pwrite"),
        "side file": (SoupFolder, "add"),
        "report": (Path, "write_text"),
        "flush": (soup_folder, "flush_tree"),
        "name": (soup_folder, "take_place"),
    }
    with monkeypatch.context() as patched:
        patched.setattr(*places[at], refuse)
        ran = soup(*UNIFORM)
    assert ran.code == 2, ran.stderr
    assert f": {os.strerror(code)}" in ran.stderr.splitlines()[0]
    assert way_out in ran.stderr
    needed = re.search(r"the soup needs (\d+) bytes", ran.stderr)
    assert (needed is not None) == (code == errno.EDQUOT)
    assert needed is None or int(needed[1]) >= len(old["model.safetensors"]) - 2000
    assert files(Path("soup")) == old
    assert not [entry for entry in Path().iterdir() if entry.name.startswith(".")]


def test_short_writes(old: dict[str, bytes], soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes a few bytes at a time gets all of them, in their places."""

    def few(descriptor: int, data: Any, offset: int) -> int:
        return REAL_WRITE(descriptor, memoryview(data)[:97], offset)

    assert soup(*UNIFORM).code == 0
    whole = files(Path("soup"))["model.safetensors"]
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", few)
        assert soup(*UNIFORM).code == 0
    assert files(Path("soup"))["model.safetensors"] == whole != old["model.safetensors"]


def test_room_is_looked_for_before_the_work(family: Path, soup: Soup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the soup will not fit, nothing is evaluated first."""
    usage = shutil.disk_usage(family)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    ran = soup("greedy", "--ckpts", "runs/*/", "--val", "val")
    assert (ran.code, len(ran.stderr.splitlines())) == (2, 3)
    assert ": 10 bytes are free, the soup needs " in ran.stderr
    assert not list(Path(os.environ["SOUP_CACHE"]).rglob("*.json"))


def mounts_are_allowed() -> bool:
    """Whether this user may mount a file system that only it sees."""
    script = "mount -t tmpfs -o size=64k none /mnt"
    return (
        shutil.which("unshare") is not None
        and not subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, check=False).returncode
    )


@pytest.mark.skipif(not mounts_are_allowed(), reason="mount namespaces are not allowed here")
@pytest.mark.parametrize(
    ("options", "liar", "message"),
    [
        ("size=12k", False, "bytes are free, the soup needs "),
        ("size=12k", True, "No space left on device: the soup needs "),
        ("ro", False, "Read-only file system"),
    ],
    ids=["checked before", "full while it is written", "read-only"],
)
def test_real_disk(old: dict[str, bytes], options: str, liar: bool, message: str) -> None:
    """A real disk that is full, also one that claims to have room, and one that cannot be written."""
    lie = "import shutil; shutil.disk_usage = lambda path: shutil._ntuple_diskusage(9**12, 0, 9**12)\n" if liar else ""
    run = f"{lie}import sys; from soupcli.cli.app import run; sys.exit(run({[*UNIFORM, '--out', 'disk/soup']}))"
    script = f"""
        mkdir disk && mount -t tmpfs -o size=12k none disk && cp -r soup disk/ && ls -A disk > before &&
        {"mount -o remount,ro disk" if options == "ro" else "true"} || exit 99
        "$0" -c "$1"; code=$?
        ls -A disk | cmp before - && cmp soup/model.safetensors disk/soup/model.safetensors &&
        cmp soup/soup.json disk/soup/soup.json || exit 98
        exit $code
    """
    ran = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, sys.executable, run],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
    assert message in ran.stderr.splitlines()[0]
