"""What compiled libraries open is known, as far as the system tells of it: kept scores depend on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from soupcli.user_code import openings
from soupcli.user_code.hooks import unheard
from tests.helpers.system import tells_of_openings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A watched folder with one below it, and a hidden one. Nothing is known of it before and after."""
    if not tells_of_openings(str(tmp_path)):
        pytest.skip("the system tells of no openings")
    for name in ("_roots", "_found", "_passed"):
        monkeypatch.setattr(openings, name, set())
    monkeypatch.setattr(openings, "_group", [])
    monkeypatch.setattr(openings, "_told", [set(), set()])
    for name in ("below", ".hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "numbers").write_bytes(b"\0\0\0\0")
    (tmp_path / "numbers").write_bytes(b"\0\0\0\0")
    openings.watch([str(tmp_path)])
    yield tmp_path.resolve()
    for group in openings._group:
        os.close(group.descriptor)


def by_library(file: Path) -> None:
    """torch opens the file in C++."""
    assert torch.from_file(str(file), size=1).item() == 0


def test_files_of_libraries(folder: Path) -> None:
    """Files in the folder and below it count, but for hidden ones, those of Python, and what keys know themselves."""
    for place in (folder / "numbers", folder / "below/numbers", folder / ".hidden/numbers"):
        by_library(place)
    assert openings.opened() == {str(folder / "numbers"), str(folder / "below/numbers")}
    openings.pass_over([folder / "below/numbers"])
    assert openings.opened() == {str(folder / "numbers")}


def test_files_of_python(folder: Path) -> None:
    """What Python tells of is left out, also behind a link, and however many they are: the queue does not run over."""
    (folder / "link").symlink_to("numbers")
    for place in (folder / "link", folder / "below/../below/numbers"):
        openings.told(place)
        place.read_bytes()
    assert openings.opened() == set()
    (folder / "others").hardlink_to(folder / ".hidden/numbers")  # not opened by Python: a hook may tell of it
    by_library(folder / "others")
    for number in range(20_000):
        openings.told(folder / f"{number}")
        if not number % 100:
            os.close(os.open(folder / "below/numbers", os.O_RDONLY))
            openings.told(folder / "below/numbers")
    assert openings.opened() == {str(folder / "others")}


def test_other_processes(folder: Path) -> None:
    """A forked process takes no event of its parent, and what others open is not this one's."""
    by_library(folder / "numbers")
    child = os.fork()
    if not child:
        by_library(folder / "below/numbers")
        os._exit(len(openings.opened()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert openings.opened() == {str(folder / "numbers")}


def test_trackers_count_for_nothing(folder: Path) -> None:
    """Files that a tracker opens in its block are no inputs of a score."""
    with unheard():
        by_library(folder / "numbers")
    by_library(folder / "below/numbers")
    assert openings.opened() == {str(folder / "below/numbers")}
