"""Ingredients that change, shrink, grow, vanish or are replaced while a run reads them: it ends with their name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from soupcli.evaluation.evaluators import Evaluators
from soupcli.mixing import fill_folder
from tests.conftest import Ran

Soup = Callable[..., Ran]
FILE = Path("runs/3/model.safetensors")


def flip() -> None:
    """The last byte of a tensor is another one."""
    data = bytearray(FILE.read_bytes())
    data[-1] ^= 1
    FILE.write_bytes(data)


def flip_in_secret() -> None:
    """As `flip`, with size and time of change as they were."""
    before = FILE.stat()
    flip()
    os.utime(FILE, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace() -> None:
    """Another file takes the name, as a trainer or rsync has it."""
    Path("other").write_bytes(Path("runs/1/model.safetensors").read_bytes())
    Path("other").replace(FILE)


CHANGES: dict[str, Callable[[], Any]] = {
    "flip": flip,
    "flip in secret": flip_in_secret,
    "shrink": lambda: os.truncate(FILE, 400),
    "grow": lambda: FILE.write_bytes(FILE.read_bytes() + b"x"),
    "vanish": FILE.unlink,
    "replace": replace,
}


@pytest.fixture(params=["rank", "greedy", "uniform", "uniform at its end"])
def command(
    family: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Any], list[str]]:
    """A command, and how something is made to happen in the middle of it."""
    name = request.param

    def happening(change: Callable[[], Any]) -> list[str]:
        owner, method = (fill_folder, "write_soup") if "end" in name else (Evaluators, "_measure")
        real, calls = getattr(owner, method), iter(range(100))
        at = {"rank": 4, "greedy": 6}.get(name, 0)

        def changed(*words: Any, **more: Any) -> Any:
            result = real(*words, **more)
            if next(calls) == at:
                change()
            return result

        monkeypatch.setattr(owner, method, changed)
        return [name.split()[0], "--ckpts", "runs/*/", "--val", "val", "--quiet"]

    return happening


@pytest.mark.parametrize("change", CHANGES)
def test_change_is_noticed(command: Callable[[Any], list[str]], soup: Soup, change: str) -> None:
    """Whatever happens to an ingredient in the middle of a run, the run ends with its name and writes nothing."""
    ran = soup(*command(CHANGES[change]))
    assert (ran.code, ran.stdout) == (2, ""), ran.stderr
    assert ran.stderr.startswith("runs/3/model.safetensors: ")
    assert not Path("soup").exists()


def test_what_changes_nothing(command: Callable[[Any], list[str]], soup: Soup) -> None:
    """Other mode bits and the same bytes once more are no change."""
    ran = soup(*command(lambda: FILE.chmod(0o600)))
    assert ran.code == 0, ran.stderr


def test_a_young_file_is_not_known_by_its_times(family: Path, soup: Soup) -> None:
    """What has only just been written may change again within a tick of the clock: its hash is not kept."""
    hashes = Path(os.environ["SOUP_CACHE"], "hashes")
    assert soup("uniform", "--ckpts", "runs/0", "runs/1", "--quiet").code == 0
    assert not list(hashes.glob("*.json"))
