"""Two recipes' folders in one process with modules of one name: each gets its own, and the calling script keeps its."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from soupcli.user_code import projects as user_projects
from soupcli.user_code.function import load_function
from soupcli.user_code.projects import enter, is_nested, leave, one_turn

NET = """
import sys
import time
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent))
import helpers

def build():
    return helpers.NAME

def later():
    from helpers import NAME
    import pack.more
    return NAME, pack.more.NAME
"""


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules and the path as they were, and no folder that was entered."""
    before = dict(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in sys.modules.keys() - before:
        del sys.modules[name]
    for kept in (user_projects._here, user_projects._aside, user_projects._paths, user_projects._taken):
        kept.clear()


def project(folder: Path, name: str) -> Callable[[str], object]:
    """A folder with a network, a helper and a package; returns a run of one of its functions."""
    (folder / "pack").mkdir(parents=True)
    (folder / "net.py").write_text(NET)
    for file in ("helpers.py", "pack/__init__.py", "pack/more.py"):
        (folder / file).write_text(f"NAME = {name!r}\n")

    def call(function: str) -> object:
        enter(folder)
        found = load_function(f"{folder / 'net.py'}:{function}")()
        leave()
        return found

    return call


def test_an_environment_below_the_folder(tmp_path: Path) -> None:
    """What was on the path before stays there: a project's folder often holds the environment that runs it."""
    packages, added = str(tmp_path / ".venv/lib"), str(tmp_path / "src")
    sys.path.append(packages)
    enter(tmp_path)
    sys.path.insert(0, added)
    leave()
    assert packages in sys.path
    assert added not in sys.path


def test_threads_take_turns(tmp_path: Path) -> None:
    """A thread waits for the end of another's turn; a closed run of it ends nothing; a turn within a turn goes back."""
    a, b = tmp_path / "a", tmp_path / "b"
    project(a, "a"), project(b, "b")
    found: list[str] = []

    def of(folder: Path) -> str:
        return str(load_function(f"{folder / 'net.py'}:later")()[0])

    def other() -> None:
        with one_turn(b):
            found.append(of(b))

    with one_turn(a):
        thread = threading.Thread(target=other)
        thread.start()
        leave()  # of a run that the garbage collector closes
        found.append(of(a))
        assert not is_nested()
        with one_turn(b):
            assert is_nested()
            found.append(of(b))
        found.append(of(a))
        thread.join(0.05)
    thread.join()
    assert found == ["a", "b", "a", "b"]
    assert "helpers" not in sys.modules


def test_two_folders(tmp_path: Path) -> None:
    """In whatever order they are asked, at once or within a function, each folder's code finds its own modules."""
    a, b = project(tmp_path / "a", "a"), project(tmp_path / "b", "b")
    assert [a("build"), b("build"), a("later"), b("later")] == ["a", "b", ("a", "a"), ("b", "b")]
    found = []
    for folder in ("a", "b", "a"):
        enter(tmp_path / folder)
        found.append(sys.modules["helpers"])
    assert found[0] is found[2], "modules of a folder run once"
    leave()
    assert not {"helpers", "pack", "pack.more"} & sys.modules.keys()


def test_below_another(tmp_path: Path) -> None:
    """A project in the folder of another one is a project of its own."""
    a, below = project(tmp_path / "a", "a"), project(tmp_path / "a/below", "below")
    assert [a("later"), below("later"), a("later")] == [("a", "a"), ("below", "below"), ("a", "a")]


def test_the_calling_script(tmp_path: Path) -> None:
    """Modules that the script has imported do not stand in for those of a project, and are the script's afterwards."""
    project(tmp_path / "script", "script")
    sys.path.insert(0, str(tmp_path / "script"))
    own = importlib.import_module("helpers")
    a = project(tmp_path / "a", "a")
    for _ in range(2):
        assert a("later") == ("a", "a")
        assert sys.modules["helpers"] is own
        assert importlib.import_module("pack.more").NAME == "script"


def test_edited_between_two_runs(tmp_path: Path) -> None:
    """What was edited since it was imported is run again, whoever imported it: a notebook, or the user's code."""
    a = project(tmp_path / "a", "a")
    sys.path.insert(0, str(tmp_path / "a"))
    assert importlib.import_module("helpers").NAME == "a"
    (tmp_path / "a/helpers.py").write_text("NAME = 'edited'\n")
    assert a("build") == "edited"
    (tmp_path / "a/helpers.py").write_text("NAME = 'again'\n")
    (tmp_path / "a/pack/more.py").write_text("NAME = 'too'\n")
    assert a("build") == "again"
    assert a("later") == ("again", "too")
    (tmp_path / "a/net.py").write_text("def build():\n    return 'new'\n")
    assert a("build") == "new"


def test_modules_that_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of other names, and those whose files are older than this program, are left where they are."""
    project(tmp_path / "a", "a")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/mine.py").touch()
    sys.path.insert(0, str(tmp_path / "elsewhere"))
    mine = importlib.import_module("mine")
    monkeypatch.setattr(user_projects, "_began", time.time_ns() + 3_000_000_000)
    enter(tmp_path / "a")
    assert sys.modules["mine"] is mine
    leave()
    assert sys.modules["mine"] is mine
