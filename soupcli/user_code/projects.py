"""Each recipe's folder has modules of its own: two of them in one process may both have a `helpers.py`.

    enter(Path("a"))                       # from here on code of the folder `a` finds its own modules
    leave()                                # they are put aside until then; the calling script has its own
    with one_turn():                       # the same for a thread: those of other threads wait
        ...

A module that the calling script imported, and whose file was changed since this program was loaded, runs again when
the user's code imports it: what a notebook has edited is seen as in a new process.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType

from soupcli.user_code.modules import UserModule, forgotten, is_read_here, is_users, user_modules
from soupcli.user_code.notes import grain

_STANDARD = re.compile(r"python\d+\.zip$")
_turn = threading.RLock()  # modules, and the notes of what they read, are those of one run
os.register_at_fork(after_in_child=_turn._at_fork_reinit)  # type: ignore[attr-defined]
_turns = [0]  # that the thread which has the lock is in: a function of the user's may start a run itself
_began = time.time_ns()  # what a module has run is in its file, if that is older
_here: list[str] = []  # the folder that was entered
_aside: dict[str, dict[str, ModuleType]] = {}  # folder -> its modules by name
_paths: dict[str, list[str]] = {}  # folder -> what its code has put into sys.path
_path_before: list[str] = []  # sys.path without it
_added: set[str] = set()  # what code of any run has put there
_taken: dict[str, ModuleType] = {}  # of the calling script, by name
# Folders, and modules that were taken for them and may be found again.
_found_anyway: set[tuple[str, ...]] = set()


def enter(folder: Path) -> None:
    """Let code of `folder` find its own modules, and none of another folder."""
    home = os.path.realpath(folder)
    if forgotten():
        _aside.clear()
    if _here != [home]:
        _leave()
        _here[:], _path_before[:] = [home], sys.path
        sys.path[:0] = [path for path in _paths.pop(home, []) if path not in sys.path]
    _take(_is_edited)
    make_way(folder)
    for name, module in _aside.pop(home, {}).items():
        sys.modules.setdefault(name, module)


def make_way(folder: Path) -> None:
    """Take modules of others away that stand in for files in `folder`: its code would get them."""
    home = os.path.realpath(folder)

    @cache
    def is_there(top: str) -> bool:
        place = os.path.join(home, top)  # noqa: PTH118
        return os.path.isfile(f"{place}.py") or os.path.isfile(os.path.join(place, "__init__.py"))  # noqa: PTH113, PTH118

    def shadows(module: UserModule) -> bool:
        if any(_is_below(module.real_path, one) for one in (home, *_here)) or (home, *module) in _found_anyway:
            return False
        if not is_there(module.name.partition(".")[0]):
            return False
        _found_anyway.add((home, *module))
        return True

    _take(shadows)


@contextmanager
def one_turn(folder: Path | None = None) -> Iterator[None]:
    """Let only this thread enter folders within the block, which begins in `folder`. Other threads wait for its end."""
    with _turn:
        before = [Path(home) for home in _here]
        _turns[0] += 1
        try:
            if folder is not None:
                enter(folder)
            yield
        finally:
            _turns[0] -= 1
            _give_back()
            for home in before:
                enter(home)


def searched_folders() -> list[str]:
    """Return the folders of the user's where Python looks for modules, such as those of PYTHONPATH and of .pth files.

    The working folder and those that code of a run has added are left out. Folders below the working one are relative.
    """
    here, programs = os.getcwd() + os.sep, os.path.dirname(sys.executable)  # noqa: PTH109, PTH120
    places = [os.path.abspath(place) for place in sys.path if place and place not in _added]  # noqa: PTH100
    found = [place for place in places if is_users(f"{place}{os.sep}") and place != programs]
    return [
        f"{place}{os.sep}".removeprefix(here) for place in found if not _STANDARD.search(place) and place != here[:-1]
    ]


def is_nested() -> bool:
    """Whether this run was started by the code of another one, which goes on afterwards."""
    return _turns[0] > 1


def leave() -> None:
    """Give the calling script its modules and its path again. Of modules that it has edited the new ones stay.

    A turn does so at its end: a run that nobody uses any more is closed at any time, also during that of another.
    """
    if not _turns[0]:
        _give_back()


def _give_back() -> None:
    _leave()
    for name, module in _taken.items():
        sys.modules.setdefault(name, module)
    _taken.clear()
    _found_anyway.clear()


def _take(is_wanted: Callable[[UserModule], bool]) -> None:
    """Take modules out, with all of their packages: a package keeps those of its modules that it has imported."""
    modules = [one for one in user_modules() if one.name != "__main__" and not one.name.startswith("_soup_")]
    tops = {one.name.partition(".")[0] for one in modules if is_wanted(one)}
    _taken.update((one.name, sys.modules.pop(one.name)) for one in modules if one.name.partition(".")[0] in tops)


def _is_edited(module: UserModule) -> bool:
    """Whether a module's file may have changed since somebody else than this program read it."""
    try:
        found = os.stat(module.file)  # noqa: PTH116
        return not is_read_here(module) and found.st_ctime_ns >= _began - grain(found)
    except OSError:
        return False


def _leave() -> None:
    """Put the modules of the folder aside, and what its code has put into sys.path."""
    _added.update(set(sys.path).difference(_path_before) if _here else ())
    for home in _here:
        own = {one.name for one in user_modules() if _is_below(one.real_path, home) and is_read_here(one)}
        own -= {name for name in own if name.startswith("_soup_")}
        _aside[home] = {**_aside.get(home, {}), **{name: sys.modules.pop(name) for name in own}}
        _paths[home] = [
            path for path in sys.path if path not in _path_before and _is_below(os.path.realpath(path), home)
        ]
        sys.path[:] = [path for path in sys.path if path not in _paths[home]]
    _here.clear()


def _is_below(real_path: str, folder: str) -> bool:
    return f"{real_path}{os.sep}".startswith(folder.rstrip(os.sep) + os.sep)
